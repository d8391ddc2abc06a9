"""Noise that spoils images on purpose, to be taken out again."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from genlab.config.autoencoders import NoiseKind


class Draws(Protocol):
    """Random numbers for each image of a batch, as `genlab.rng.SampleRng` gives them."""

    def normal(self, *shape: int) -> Tensor: ...

    def uniform(self, *shape: int) -> Tensor: ...


class DefaultDraws:
    """Of torch's default generator, as training uses it, for the images of a batch (B, ...)."""

    def __init__(self, images: Tensor) -> None:
        self._n, self._device = len(images), images.device

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self._n, *shape, device=self._device)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(self._n, *shape, device=self._device)


def corrupt(images: Tensor, noise: NoiseKind, level: float, draws: Draws) -> Tensor:
    """Images with noise (Vincent et al. 2010, section 3.3).

    Args:
        images: (B, C, H, W) in [0, 1].
        noise: gaussian adds it to every number, and the result is not kept within [0, 1]; masking sets some
            numbers to 0; salt_and_pepper sets them to 0 or 1, as a fair coin says.
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
    """Which numbers of each (B, ...) are among its lowest, a share of all, rounded to a whole number."""
    flat = values.flatten(1)
    places = flat.topk(round(share * flat.shape[1]), dim=1, largest=False).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, places, True).view_as(values)
