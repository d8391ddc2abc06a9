"""How near an image comes to another."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_squared_error(images: Tensor, others: Tensor) -> Tensor:
    """Of each pair, over channels and pixels: (B, C, H, W) in [0, 1] twice to (B,) float64."""
    return (images.double() - others.double()).square().flatten(1).mean(1)


def psnr_db(mean_squared_error: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of images in [0, 1], in decibels: 10 log10(1 / MSE), infinite for none."""
    return -10 * torch.log10(mean_squared_error)
