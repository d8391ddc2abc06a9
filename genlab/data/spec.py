"""What a family must know of a dataset, and what it gets from it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Images of one batch.

    images: (B, C, H, W) float32 in [0, 1]: level / (levels - 1), or dequantised, (level + u) / levels with
        u ~ U[0, 1). Points are (B, D, 1, 1), without bounds.
    labels: (B,) int64 in 0..classes-1, or None for a dataset without labels.
    """

    images: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class DataSpec:
    """The shape and meaning of a dataset's images.

    Attributes:
        name: of the dataset, as typed after `dataset=`.
        channels, height, width: of one image, in pixels.
        levels: how many values a channel of a pixel takes: 2 binarised, 256 for 8-bit images, 17 for digits;
            0 for points.
        classes: number of labels, 0 without.
        binarization: "none", "dynamic" (drawn anew at each visit), "threshold" or "static" (fixed files).
        dequantized: uniform noise of one level has been added, so that values are continuous.
        kind: "images", or "points": real numbers without bounds, a dimension in each channel, (D, 1, 1); or
            "none" for a game without data.
    """

    name: str
    channels: int
    height: int
    width: int
    levels: int = 256
    classes: int = 0
    binarization: str = "none"
    dequantized: bool = False
    kind: str = "images"

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    @property
    def dimensions(self) -> int:
        """Numbers in one image: C * H * W, the divisor of bits per dimension."""
        return self.channels * self.height * self.width

    def to_plain(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
