"""What a family must know of a dataset, and what it gets from it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from genlab.errors import CheckpointError


class Batch(NamedTuple):
    """Images of one batch.

    images: (B, C, H, W) float32 in [0, 1]: level / (levels - 1), or dequantised, (level + u) / levels with
        u ~ U[0, 1). Points are (B, D, 1, 1), without bounds.
    labels: (B,) int64 in 0..classes-1, or None for a dataset without labels.
    factors: (B, F) int64, what the images were made from, factor k in 0..n_k-1 as `DataSpec.factors` names
        them; None where that is not known.
    """

    images: Tensor
    labels: Tensor | None
    factors: Tensor | None = None


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
            "codes" of images, (1, h, w), of which `levels` are different, in no order; or "none" for a game
            without data.
        codes_of: of codes, what tells the model apart whose they are; see `genlab.trained.codes`.
        factors: name of each factor of variation to how many values it takes, in the order of
            `Batch.factors`; empty where they are not known.
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
    codes_of: str = ""
    factors: dict[str, int] = field(default_factory=dict, hash=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    @property
    def dimensions(self) -> int:
        """Numbers in one image: C * H * W, the divisor of bits per dimension."""
        return self.channels * self.height * self.width

    @property
    def pictured(self) -> bool:
        """Samples are shown as images."""
        return self.kind in ("images", "codes")

    def to_plain(self) -> dict[str, Any]:
        """For a checkpoint; `codes_of` and `factors` only where there are any."""
        optional = ("codes_of", "factors")
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in optional or value}


def check_codes_of(ckpt: str, found: str, wanted: str) -> None:
    """Refuses the codes of another model than a prior was trained on: the same numbers mean other things.

    Args:
        ckpt: whose codes they are, as typed.
        found, wanted: `DataSpec.codes_of`.

    Raises:
        CheckpointError: they differ.
    """
    if found != wanted:
        raise CheckpointError(
            f"dataset.ckpt={ckpt}: has other weights than the vqvae whose codes the prior was trained on; "
            "give the checkpoint file of that one, or train the prior anew"
        )
