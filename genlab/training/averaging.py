"""The moving average of a player's weights, which sampling and evaluation use."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class MovingAverage:
    """An exponential moving average of a module's weights, whose half-life grows during training.

    A constant half-life keeps the random initialization in the average for long: after one half-life it is
    still half of it. So the half-life is limited to a share of the images seen (the ramp-up of Karras et al.
    2022, Elucidating the Design Space of Diffusion-Based Generative Models, in their code): the first update
    copies the weights, and a short run's average is one of its last steps.

    Running statistics of batch normalisation are averaged like weights, since those of the current weights
    do not fit averaged ones. All other buffers are copied: masks are constant, counts are integers, and a
    codebook is a moving average already.

    Args:
        module: the module whose weights are averaged; it is copied.
        half_life_images: half-life of the average, in images.
        images_per_update: images of one step of the module's optimizer.
        ramp: maximum of the half-life as a share of the images seen.

    Attributes:
        module: the copy with the averaged weights.
        updates: number of updates; counted here, so that no update waits for the device.
    """

    def __init__(self, module: nn.Module, half_life_images: int, images_per_update: int, ramp: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.updates = 0
        self._half_life_images = half_life_images
        self._images_per_update = images_per_update
        self._ramp = ramp
        self._averaged, self._copied = (list(tensors) for tensors in _tensors(self.module))

    @property
    def half_life_images(self) -> float:
        """Returns the half-life of the next update, in images that this module's optimizer has seen."""
        return min(self._half_life_images, self._ramp * self.updates * self._images_per_update)

    @property
    def ramps(self) -> bool:
        """Returns whether the half-life still grows."""
        return self.half_life_images < self._half_life_images

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Moves the average towards the weights of the module after a step of its optimizer."""
        half_life = self.half_life_images
        kept = 0.5 ** (self._images_per_update / half_life) if half_life > 0 else 0.0
        averaged, copied = _tensors(module)
        torch._foreach_lerp_(self._averaged, averaged, 1 - kept)  # pyright: ignore[reportPrivateImportUsage]
        for ours, theirs in zip(self._copied, copied, strict=True):
            ours.copy_(theirs)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """Returns the state for a checkpoint: `updates`, and `weights` under the module's own names."""
        return {"updates": self.updates, "weights": self.module.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the state that `state_dict` returned."""
        self.module.load_state_dict(state["weights"])
        self.updates = state["updates"]


def _tensors(module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Returns the tensors of a module that are averaged, and those that are copied."""
    averaged: list[Tensor] = list(module.parameters())
    copied: list[Tensor] = []
    for owner in module.modules():
        statistics = isinstance(owner, nn.modules.batchnorm._NormBase)
        for buffer in owner.buffers(recurse=False):
            (averaged if statistics and buffer.is_floating_point() else copied).append(buffer)
    return averaged, copied
