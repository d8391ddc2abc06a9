"""Statistics of a dataset's pixels, taken as independent, from which a new model is initialized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from genlab.data.dataset import Dataset

_IMAGES = 5000
_BATCH = 500


@dataclass(frozen=True)
class PixelStatistics:
    """Means, standard deviations and level frequencies of training images, for each pixel.

    Attributes:
        mean: of each channel of each pixel, (C, H, W) float32, in [0, 1] except for points.
        std: standard deviations, (C, H, W).
        frequencies: share of each level in each channel, over all pixels, (C, levels). No share is 0: every
            count is increased by one. None for values without levels.
        count: number of images.
        ordered: whether levels are an ordered quantity; those of codes are not.
    """

    mean: Tensor
    std: Tensor
    frequencies: Tensor | None
    count: int
    ordered: bool = True

    @property
    def probability(self) -> Tensor:
        """Returns the mean of images in [0, 1], never 0 or 1: one black and one white image are added."""
        return (self.mean * self.count + 1) / (self.count + 2)


def pixel_statistics(dataset: Dataset) -> PixelStatistics:
    """Computes the statistics of up to 5,000 training images as a model sees them; on their device."""
    spec = dataset.spec
    count, levels = 0, 0 if spec.dequantized or spec.kind == "points" else spec.levels
    total = squares = torch.zeros(spec.shape, dtype=torch.float64)
    seen = torch.ones(spec.channels, max(levels, 1), dtype=torch.float64)
    device = torch.device("cpu")
    for _, batch in dataset.evaluation_batches("train", _BATCH, seed=0, limit=_IMAGES):
        device = batch.images.device
        images = batch.images.cpu().double()  # some devices have no float64
        count += len(images)
        total = total + images.sum(0)
        squares = squares + images.square().sum(0)
        if levels:
            level = (images * (levels - 1)).round().long().transpose(0, 1).flatten(1)
            for channel, values in enumerate(level):
                seen[channel] += torch.bincount(values, minlength=levels)
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    mean, std, shares = (x.float().to(device) for x in (mean, std, seen / seen.sum(1, keepdim=True)))
    return PixelStatistics(mean, std, shares if levels else None, count, ordered=spec.kind != "codes")
