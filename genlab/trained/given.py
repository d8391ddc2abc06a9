"""Input images of a command: image files of the user, or images of a split of the dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genlab.data.folder import find_pictures
from genlab.data.pictures import open_picture
from genlab.errors import ConfigError, DataError, printable
from genlab.log import log
from genlab.memory import check_fits
from genlab.trained.model import LoadedModel, dataset_of


class Given(NamedTuple):
    """Input images for a model.

    images: (N, C, H, W) in [0, 1], at the model's levels.
    labels: (N,) int64 in the model's classes, or None if unknown.
    names: N texts, the source of each image.
    numbers: the index of each in its split, or among the user's; its random numbers depend on it.
    """

    images: Tensor
    labels: Tensor | None
    names: list[str]
    numbers: list[int]


def given_images(
    model: LoadedModel,
    where: str | None,
    *,
    split: str,
    count: int,
    seed: int,
    changes: Mapping[str, Any],
    at_least: int = 1,
) -> Given:
    """Returns the images at `where`; without it, images of the dataset.

    Args:
        split, count, seed: of the dataset; see `Dataset.examples`.
        changes: settings of the dataset that give its files' present location.
        at_least: the number of images needed.

    Raises:
        UserError: there are fewer; see also `read_images` and `genlab.commands.evaluate.dataset_of`.
    """
    if where is not None:
        return read_images(where, model, at_least)
    dataset = dataset_of(model, changes, split)
    numbers, batch = dataset.examples(split, count, seed)
    if len(numbers) < at_least:
        raise ConfigError(f"split={split}: {len(numbers)} images, {at_least} are needed; use another split")
    names = [f"{model.spec.name} {split} {k}" for k in numbers]
    return Given(batch.images, batch.labels, names, numbers)


def read_images(where: str, model: LoadedModel, at_least: int = 1) -> Given:
    """Reads one image, or all of a folder; transparent ones get the background of the training images.

    Raises:
        UserError: too few images, or one that cannot be read or differs in size from the model's images.
    """
    path, spec = Path(os.path.expanduser(where)), model.spec
    background = getattr(model.config.dataset, "background", "white")
    if where and os.path.isdir(path):
        files = [path / name for name in find_pictures(path)]
        if not files:
            raise ConfigError(f"images={where}: no pictures in this folder; choose another")
    elif os.path.isfile(path):
        files = [path]
    else:
        raise ConfigError(f"images={where}: no such picture or folder; leave images out for the dataset's")
    if len(files) < at_least:
        raise ConfigError(f"images={where}: {len(files)} there, {at_least} are needed; give a folder of more")
    check_fits(
        len(files) * spec.dimensions * 12,  # uint8, and two copies of float32
        f"images={where}",
        f"{len(files):,} images of {spec.channels}x{spec.height}x{spec.width}",
        "give a folder of fewer",
    )
    pictures = []
    for file in files:
        picture = read_picture(file, "images", spec.channels, background)
        if picture.shape != spec.shape:
            raise DataError(
                f"images={printable(str(file))}: {size_of(picture)} pixels (height x width), "
                f"the model's images have {spec.height}x{spec.width}; resize it, or choose other images=..."
            )
        pictures.append(picture)
    images, names = to_levels(torch.stack(pictures), spec.levels), [str(file) for file in files]
    return Given(images, None, names, list(range(len(files))))


def read_picture(path: Path, key: str, channels: int, background: str = "white") -> Tensor:
    """Reads an image file of any format as (channels, H, W) uint8.

    Raises:
        DataError: it cannot be read; the message names it as the value of `key`.
    """
    try:
        array = np.array(open_picture(path, channels, background))
    except Exception as error:  # a broken file can cause any exception
        reason = printable(" ".join(str(error).split()) or type(error).__name__)
        raise DataError(
            f"{key}={printable(str(path))}: cannot be read ({reason}); choose another picture"
        ) from error
    return torch.from_numpy(array).view(*array.shape[:2], channels).permute(2, 0, 1)


def to_levels(pictures: Tensor, levels: int) -> Tensor:
    """Returns 8-bit images (N, C, H, W) in [0, 1], rounded to the nearest of `levels` levels; for two levels
    this is a threshold at 1/2. Logs it where that changes more than the rounding to 8 bits does."""
    rounded = (pictures / 255 * (levels - 1)).round() / (levels - 1)
    if (rounded - pictures / 255).abs().max() > 1 / 255:
        if levels == 2:
            log.info("the model's images are binary: pictures are thresholded at 1/2")
        else:
            log.info("the model's images have %d levels: pictures are rounded to the nearest", levels)
    return rounded


def size_of(picture: Tensor) -> str:
    """Returns the size of (..., H, W) as text, e.g. "28x28"."""
    height, width = picture.shape[-2:]
    return f"{height}x{width}"
