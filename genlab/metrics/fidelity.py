"""Distances between pairs of images: mean squared error and peak signal-to-noise ratio."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_squared_error(images: Tensor, others: Tensor) -> Tensor:
    """Returns the error of each pair of images (B, C, H, W) in [0, 1], over all numbers: (B,) float64."""
    return (images.double() - others.double()).square().flatten(1).mean(1)


def psnr_db(mean_squared_error: Tensor) -> Tensor:
    """Returns the peak signal-to-noise ratio of images in [0, 1], in decibels: 10 log10(1 / MSE)."""
    return -10 * torch.log10(mean_squared_error)
