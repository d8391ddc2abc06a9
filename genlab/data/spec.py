"""The interface between datasets and families: the description of images, and batches of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from torch import Tensor

from genlab.config.schema import setting
from genlab.errors import CheckpointError


class Batch(NamedTuple):
    """Images of one batch.

    images: (B, C, H, W) float32 in [0, 1]: level / (levels - 1), or dequantised, (level + u) / levels with
        u ~ U[0, 1). Points are (B, D, 1, 1), without bounds.
    labels: (B,) int64 in 0..classes-1, or None for a dataset without labels.
    factors: (B, F) int64, the factors of variation of the images, factor k in 0..n_k-1, named in
        `DataSpec.factors`; None if they are not known.
    """

    images: Tensor
    labels: Tensor | None
    factors: Tensor | None = None


@dataclass(frozen=True)
class DataSpec:
    """The shape and meaning of a dataset's images; the spec in a checkpoint is checked by `from_plain`.

    Attributes:
        name: of the dataset, as typed after `dataset=`.
        channels, height, width: of one image, in pixels.
        levels: number of values of a channel of a pixel: 2 binarised, 256 for 8-bit images, 17 for digits;
            0 for points.
        classes: number of labels; 0 without labels.
        binarization: "none", "dynamic" (drawn anew at each use), "threshold" or "static" (fixed files).
        dequantized: whether uniform noise of one level has been added, so that values are continuous.
        kind: "images", or "points": real numbers without bounds, one dimension per channel, (D, 1, 1); or
            "codes" of images, (1, h, w), with `levels` different unordered values; or "none" for a game
            without data.
        codes_of: for codes, the fingerprint of the model that made them; see `genlab.trained.codes`.
        factors: name of each factor of variation to its number of values, in the order of `Batch.factors`;
            empty if they are not known.
    """

    name: str = setting()
    channels: int = setting(at_least=1, at_most=10_000)
    height: int = setting(at_least=1, at_most=10_000)
    width: int = setting(at_least=1, at_most=10_000)
    levels: int = setting(256, at_least=0, at_most=2**16)
    classes: int = setting(0, at_least=0, at_most=1_000_000)
    binarization: Literal["none", "dynamic", "threshold", "static"] = setting("none")
    dequantized: bool = setting(False)
    kind: Literal["images", "points", "codes", "none"] = setting("images")
    codes_of: str = setting("")
    factors: dict[str, int] = field(
        default_factory=dict, hash=False, metadata={"bounds": {"at_least": 1, "at_most": 1_000_000}}
    )

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    @property
    def dimensions(self) -> int:
        """Returns how many numbers an image has: C * H * W, the divisor of bits per dimension."""
        return self.channels * self.height * self.width

    @property
    def pictured(self) -> bool:
        """Returns whether samples are shown as images."""
        return self.kind in ("images", "codes")

    def to_plain(self) -> dict[str, Any]:
        """Returns plain data for a checkpoint; `codes_of` and `factors` only if there are any."""
        optional = ("codes_of", "factors")
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in optional or value}


def check_codes_of(ckpt: str, found: str, wanted: str) -> None:
    """Refuses codes of another model than that of a prior's training: the same codes have other meanings.

    Args:
        ckpt: the model of the codes, as typed.
        found, wanted: `DataSpec.codes_of`.

    Raises:
        CheckpointError: they differ.
    """
    if found != wanted:
        raise CheckpointError(
            f"dataset.ckpt={ckpt}: has other weights than the vqvae whose codes the prior was trained on; "
            "give the checkpoint file of that one, or train a new prior"
        )
