"""Image files: single images, grids and bands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from genlab.config.run import TrainConfig
from genlab.data.dataset import Dataset
from genlab.data.points import mixture_of
from genlab.errors import storage_errors
from genlab.families.base import AdversarialFamily, Family, row_labels
from genlab.files import written_aside
from genlab.rng import SampleRng

_TILE_PIXELS = 48
"""Smaller images are enlarged in a grid by an integer factor, to be visible."""

_PICTURED_IMAGES = 40

_GAP_PIXELS = 2
"""Pixels between the images of a grid, and around them."""


def to_uint8(images: Tensor) -> Tensor:
    """Converts images in [0, 1] to 8-bit levels on the CPU, of the same shape."""
    return (images.clamp(0, 1) * 255).round().to("cpu", torch.uint8)


def to_picture(pixels: Tensor) -> Image.Image:
    """Converts (C, H, W) uint8 with 1 or 3 channels to a Pillow image."""
    array = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def save_picture(pixels: Tensor, path: Path) -> None:
    """Writes (C, H, W) uint8 as one picture, completely or not at all."""
    with written_aside(path) as aside:
        to_picture(pixels).save(aside)


def grid(pixels: Tensor, columns: int | None = None) -> Tensor:
    """Arranges images (n, C, H, W) uint8 in one, row by row: (C, H', W'); nearly square by default."""
    columns = columns or math.ceil(math.sqrt(len(pixels)))
    factor = max(1, round(_TILE_PIXELS / max(pixels.shape[-2:])))
    enlarged = pixels.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
    count, channels, height, width = enlarged.shape
    if count == 1:
        return enlarged[0]
    columns = min(columns, count)
    across, down = width + _GAP_PIXELS, height + _GAP_PIXELS
    size = (-(-count // columns) * down + _GAP_PIXELS, columns * across + _GAP_PIXELS)
    sheet = enlarged.new_full((channels, *size), 128)
    for k, tile in enumerate(enlarged):
        row, column = divmod(k, columns)
        top, left = row * down + _GAP_PIXELS, column * across + _GAP_PIXELS
        sheet[:, top : top + height, left : left + width] = tile
    return sheet


def write_samples(family: Family, config: TrainConfig, samples: Tensor, path: Path, title: str = "") -> None:
    """Writes one picture of samples: a grid of images, or points over their true density.

    Args:
        samples: as returned by `draw`, codes as decoded images; images may be uint8 already.
    """
    if family.spec.pictured:
        pixels = samples if samples.dtype == torch.uint8 else to_uint8(samples)
        columns = len(pixels) // family.spec.classes if row_labels(family, len(pixels)) is not None else None
        save_picture(grid(pixels, columns), path)
        return
    from genlab.report import figures  # imports matplotlib, which grids of images do not need

    if family.spec.kind == "points":
        shown = family.discriminator_output if isinstance(family, AdversarialFamily) else None
        with torch.no_grad():
            figures.points(samples, mixture_of(config.dataset), path, title, shown)
    else:
        figures.game(samples, path, title)


def save_grid(images: Tensor, path: Path, columns: int | None = None) -> None:
    """Writes images (n, C, H, W) in [0, 1] as one picture."""
    save_picture(grid(to_uint8(images), columns), path)


def save_bands(bands: Sequence[Tensor], path: Path, columns: int = 10) -> None:
    """Writes several versions of the same images below one another: a row of each version in turn.

    Args:
        bands: versions, (N, C, H, W) in [0, 1] each, e.g. originals and reconstructions.
        columns: images per row; the last row may have fewer.
    """
    rows = [
        part for parts in zip(*(band.cpu().split(columns) for band in bands), strict=True) for part in parts
    ]
    grey = torch.full((columns, *bands[0].shape[1:]), 0.5)  # the colour of the grid's background
    columns = min(columns, len(bands[0]))
    full = [torch.cat([row, grey[: columns - len(row)]]) for row in rows]
    save_grid(torch.cat(full), path, columns)


def write_pictures(
    family: Family, dataset: Dataset, split: str, folder: Any, seed: int, torch_device: torch.device
) -> list[str]:
    """Writes the family's pictures of some of a split's images; returns the files' names."""
    names = []
    indices, batch = dataset.examples(split, _PICTURED_IMAGES, seed)
    rng = SampleRng(seed, indices, torch_device, purpose="pictures")
    with torch.no_grad(), storage_errors(folder):
        for name, sheet in family.pictures(batch, rng=rng).items():
            save_grid(sheet.flatten(0, 1), folder / f"{name}.png", columns=sheet.shape[1])
            names.append(f"{name}.png")
    return names


def write_images(folder: Path, images: Tensor) -> list[str]:
    """Writes PNGs of (N, C, H, W) or (N, S, C, H, W), e.g. 00003.png or 00003-01.png; returns their names."""
    folder.mkdir()
    leading = images.shape[:-3]
    widths = [max(least, len(str(n - 1))) for least, n in zip((5, 2), leading, strict=False)]
    names = []
    for place, pixels in enumerate(to_uint8(images).flatten(0, len(leading) - 1)):
        numbers = divmod(place, leading[1]) if len(leading) == 2 else (place,)
        names.append("-".join(f"{n:0{width}d}" for n, width in zip(numbers, widths, strict=True)) + ".png")
        save_picture(pixels, folder / names[-1])
    return names
