"""Sets of images from any source for comparison: a folder, a split, or an .npz file."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genlab.data.arrays import ArrayFile, listed, to_tensor
from genlab.data.dataset import Dataset, convert
from genlab.data.folder import find_pictures
from genlab.data.pictures import channels_and_size, open_picture, read_picture
from genlab.data.scale import remedy_for, warn_if_dark
from genlab.data.spec import DataSpec
from genlab.data.subsets import subset
from genlab.errors import DataError, TooLargeError, printable
from genlab.log import log
from genlab.memory import check_fits

_SEED = 0
"""The seed of a dataset's random numbers: a binarisation is the same in every comparison."""


class PictureSet(NamedTuple):
    """A set of images for comparison.

    levels: (N, C, H, W) uint8 on the CPU.
    labels: (N,) int64, or None if they are not known.
    name: a description of the source.
    label: the same as part of a file's name.
    """

    levels: Tensor
    labels: Tensor | None
    name: str
    label: str


def set_of_split(dataset: Dataset, split: str, limit: int | None = None) -> PictureSet:
    """Returns images of a split as a model sees them, rounded to 8 bits.

    Args:
        limit: maximum number of images, see `genlab.data.subsets`; None for all.
    """
    levels, labels = [], []
    for _, batch in dataset.evaluation_batches(split, 2000, _SEED, limit):
        levels.append(to_levels(batch.images, dataset.spec))
        labels += [batch.labels.cpu()] if batch.labels is not None else []
    images = torch.cat([torch.zeros(0, *dataset.spec.shape, dtype=torch.uint8), *levels])
    name = dataset.spec.name
    return PictureSet(images, torch.cat(labels) if labels else None, f"{name} {split}", f"{name}-{split}")


def to_levels(images: Tensor, spec: DataSpec) -> Tensor:
    """Converts images (N, C, H, W) in [0, 1] to (N, C, H, W) uint8 on the CPU.

    Those of a dataset of fewer than 256 levels are first rounded to the nearest of its levels: a binary image
    has a threshold of 1/2. So a model is measured by the images that `genlab sample` writes.
    """
    images = (images.clamp(0, 1) * 255).round() / 255  # as in written files
    if 2 <= spec.levels < 256 and not spec.dequantized:
        images = (images * (spec.levels - 1)).round() / (spec.levels - 1)
    return (images * 255).round().to("cpu", torch.uint8)


def set_at(
    where: str,
    key: str,
    shape: tuple[int, int, int] | None = None,
    *,
    limit: int | None = None,
    background: str = "white",
    resampling: str = "lanczos",
) -> PictureSet:
    """Reads the images of a folder and its subfolders, or of an .npz file's array `images`.

    From a folder that `genlab sample` wrote, the images are read, but not the grid.

    Args:
        where: the folder or file.
        key: the setting that names it, for error messages.
        shape: (C, H, W) to which the central square of an image of another shape is resized; None for that of
            the first image.
        limit: maximum number of images, see `genlab.data.subsets`; None for all.
        background: the colour behind transparent pixels, see `genlab.config.datasets.colour_of`.
        resampling: how images of a folder are resized, as in `folder`.

    Raises:
        DataError: it does not exist, has no images, or one cannot be read.
    """
    path = Path(os.path.expanduser(where))
    if where and os.path.isdir(path):
        levels = _of_folder(path, where, key, shape, limit, background, resampling)
    elif os.path.isfile(path) and path.suffix == ".npz":
        levels = _of_npz(path, where, key)
        levels = levels[subset(len(levels), limit)]
    else:
        raise DataError(f"{key}={where}: no such folder of pictures or .npz file; choose another")
    if shape is not None and tuple(levels.shape[1:]) != shape:
        if shape[1] != shape[2]:
            raise DataError(
                f"{key}={where}: its images are {_size(levels.shape)}, those compared with {_size(shape)}"
            )
        log.warning("%s=%s: images of %s are made %s", key, where, _size(levels.shape[1:]), _size(shape))
        levels = convert(levels, shape[1], shape[0])
    return PictureSet(levels, None, where, path.stem)


def _of_folder(
    path: Path,
    where: str,
    key: str,
    shape: tuple[int, int, int] | None,
    limit: int | None,
    background: str,
    resampling: str,
) -> Tensor:
    if (path / "samples.json").is_file() and (path / "images").is_dir():
        path = path / "images"
    names = find_pictures(path)
    if not names:
        raise DataError(f"{key}={where}: no pictures in this folder; choose another")
    names = [names[k] for k in subset(len(names), limit).tolist()]
    images: list[Tensor] = []
    changed = 0
    if shape is not None:
        check_set(f"{key}={where}", len(names), shape)
    for name in names:
        try:
            if shape is None:  # the first image determines the shape
                shape = channels_and_size(path / name)
                check_set(f"{key}={where}", len(names), shape)
            channels, height, width = shape
            picture = np.asarray(open_picture(path / name, channels, background))
            if picture.shape[:2] != (height, width):
                if height != width:
                    raise ValueError(f"its size is not {_size(shape)}")
                changed += 1
                fitted = read_picture(path / name, height, channels, background, resampling)
                picture = fitted.transpose(1, 2, 0)
        except TooLargeError:
            raise
        except Exception as error:  # a broken file can cause any exception
            reason = printable(" ".join(str(error).split()) or type(error).__name__)
            line = f"{key}={where}: {printable(name)} cannot be used ({reason}); remove it"
            raise DataError(line) from error
        images.append(torch.from_numpy(picture.copy()).view(height, width, channels).permute(2, 0, 1))
    if changed:
        size = _size(images[0].shape)
        log.warning(
            "%s=%s: %d of %d pictures are cut and resized to %s", key, where, changed, len(names), size
        )
    return torch.stack(images)


def check_set(given: str, count: int, shape: tuple[int, int, int]) -> None:
    """Refuses a set of `count` images of shape (C, H, W), uint8, that does not fit into memory.

    Raises:
        TooLargeError: see `genlab.memory.check_fits`.
    """
    channels, height, width = shape
    what = f"{count:,} images of {channels}x{height}x{width}"
    check_fits(2 * count * math.prod(shape), given, what, "use fewer or smaller images")


def _of_npz(path: Path, where: str, key: str) -> Tensor:
    """Reads (N, C, H, W) uint8 from an array of any accepted layout."""
    file = ArrayFile(path, f"{key}={where}")
    other = [name for name in ("x", "arr_0") if name in file.names and len(file.header(name).shape) > 2]
    name = "images" if "images" in file.names else next(iter(other), None)
    if name is None:
        raise file.error(f"has no array images, but {listed(file.names)}; rename it")
    header = file.header(name)
    shape = header.shape
    if header.dtype != np.uint8 or len(shape) not in (3, 4) or not header.bytes:
        remedy = (
            f"; {remedy_for(file.read(name))}" if header.dtype != np.uint8 and len(shape) in (3, 4) else ""
        )
        raise file.error(f"{name} is {header.dtype} of shape {shape}; expected uint8 (N, H, W, C){remedy}")
    if len(shape) == 4 and shape[3] not in (1, 3) and shape[1] not in (1, 3):
        raise file.error(f"{name} has shape {shape}; expected (N, H, W, C) with C = 1 or 3")
    array = file.read(name)
    warn_if_dark(f"{key}={where}: {name}", array)
    return to_tensor(array)


def _size(shape: tuple[int, ...] | torch.Size) -> str:
    channels, height, width = shape[-3:]
    return f"{height}x{width} in {'colour' if channels == 3 else 'grey'}"
