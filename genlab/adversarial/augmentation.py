"""Differentiable augmentation of what a discriminator sees (Zhao et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def augment(images: Tensor, operations: Iterable[str]) -> Tensor:
    """Returns images, each changed by itself, at random and differentiably; data and samples alike.

    Args:
        images: (B, C, H, W) in [-1, 1].
        operations: of OPERATIONS, in the order in which they are done.
    """
    changes = {"color": color, "translation": translation, "cutout": cutout}
    for operation in operations:
        images = changes[operation](images)
    return images


def color(images: Tensor) -> Tensor:
    """Changes brightness by up to 1/2 either way, saturation by 0 to 2, contrast by 1/2 to 3/2."""
    brightness, saturation, contrast = torch.rand(3, len(images), 1, 1, 1, device=images.device)
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (saturation * 2)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (contrast + 0.5)


def translation(images: Tensor, share: float = 1 / 8) -> Tensor:
    """Moves images by up to `share` of the side in each direction; what comes in repeats the edge.

    Zhao et al. let black in. On pictures that lie on white, that draws a bar which no picture has.
    """
    rows, columns = (
        _places(len(images), side, int(side * share + 0.5), images.device) for side in images.shape[2:]
    )
    index = torch.arange(len(images), device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(images: Tensor, share: float = 0.5) -> Tensor:
    """Makes a square of `share` of the side grey (0), anywhere and perhaps partly outside.

    As in Zhao et al.: the hole is to be seen as one, on black and on white pictures alike, and so large that
    no repeated edge could fill it. Data and samples get it alike, so a generator gains nothing by drawing it.
    """
    _, _, height, width = images.shape
    inside = [_within(side, int(side * share + 0.5), len(images), images.device) for side in (height, width)]
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return torch.where(hole, 0.0, images)


def _places(n: int, side: int, most: int, device: torch.device) -> Tensor:
    """Returns (n, side): the places that are read, moved by -most..most, the edge for those outside."""
    shift = torch.randint(-most, most + 1, (n, 1), device=device)
    return (torch.arange(side, device=device) + shift).clamp(0, side - 1)


def _within(side: int, length: int, n: int, device: torch.device) -> Tensor:
    """Returns (n, side): whether a place lies in an interval of `length` around a random one."""
    centre = torch.randint(0, side + 1 - length % 2, (n, 1), device=device)
    place = torch.arange(side, device=device)
    return (place >= centre - length // 2) & (place < centre - length // 2 + length)
