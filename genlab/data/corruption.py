"""Corruption of images with noise, for training and testing denoising models."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from genlab.config.autoencoders import NoiseKind


class Draws(Protocol):
    """Random numbers for each image of a batch, as drawn by `genlab.rng.SampleRng`."""

    def normal(self, *shape: int) -> Tensor: ...

    def uniform(self, *shape: int) -> Tensor: ...


class DefaultDraws:
    """Random numbers of torch's default generator, as in training, for the images of a batch (B, ...)."""

    def __init__(self, images: Tensor) -> None:
        self._n, self._device = len(images), images.device

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self._n, *shape, device=self._device)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(self._n, *shape, device=self._device)


def corrupt(images: Tensor, noise: NoiseKind, level: float, draws: Draws) -> Tensor:
    """Returns corrupted images (Vincent et al. 2010, section 3.3).

    Args:
        images: (B, C, H, W) in [0, 1].
        noise: gaussian adds noise to every number, without clamping to [0, 1]; masking sets some numbers to
            0; salt_and_pepper sets them to 0 or 1 with equal probability.
        level: standard deviation of the Gaussian; share of the numbers of each image that are set.
    """
    shape = images.shape[1:]
    if noise == "gaussian":
        return images + level * draws.normal(*shape)
    chosen = lowest(draws.uniform(*shape), level)
    if noise == "masking":
        return images.masked_fill(chosen, 0.0)
    return torch.where(chosen, (draws.uniform(*shape) < 0.5).to(images.dtype), images)


def lowest(values: Tensor, share: float) -> Tensor:
    """Returns a mask of the lowest numbers of each (B, ...), a share of all, rounded to an integer."""
    flat = values.flatten(1)
    places = flat.topk(round(share * flat.shape[1]), dim=1, largest=False).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, places, True).view_as(values)
