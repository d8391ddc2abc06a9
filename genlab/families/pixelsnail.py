"""PixelSNAIL (Chen et al. 2018, PixelSNAIL: An Improved Autoregressive Generative Model)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from genlab.config.schema import setting
from genlab.families.autoregressive import Autoregressive, AutoregressiveConfig
from genlab.nets.pixelsnail import PixelSNAILNetwork


@dataclass(frozen=True)
class PixelSNAILConfig(AutoregressiveConfig):
    """See configs/model/pixelsnail.yaml."""

    name: Literal["pixelsnail"] = setting("pixelsnail")  # type: ignore[assignment]
    width: int = setting(64, at_least=1, help="channels")
    blocks: int = setting(4, at_least=1, help="of residual blocks and attention")
    residuals: int = setting(2, at_least=1, help="residual blocks of two 2x2 convolutions in a block")
    heads: int = setting(1, at_least=1, help="of attention")
    key_width: int = setting(16, at_least=1, help="of a key in each head")
    value_width: int = setting(32, at_least=1, help="of a value in each head")
    dropout: float = setting(0.0, at_least=0, below=1, help="probability, in each residual block")
    head: int = setting(128, at_least=1, help="channels of the last hidden layer")


class PixelSNAIL(Autoregressive):
    """Chen et al. 2018, PixelSNAIL: An Improved Autoregressive Generative Model."""

    Config = PixelSNAILConfig
    Network = PixelSNAILNetwork
    output_of_levels: ClassVar[str] = "logistic_mixture"
