"""PixelSNAIL (Chen et al. 2018, PixelSNAIL: An Improved Autoregressive Generative Model)."""

from __future__ import annotations

from typing import ClassVar

from genlab.config.autoregressive import PixelSNAILConfig
from genlab.families.autoregressive import Autoregressive
from genlab.nets.pixelsnail import PixelSNAILNetwork


class PixelSNAIL(Autoregressive):
    """Chen et al. 2018, PixelSNAIL: An Improved Autoregressive Generative Model."""

    Config = PixelSNAILConfig
    Network = PixelSNAILNetwork
    output_of_levels: ClassVar[str] = "logistic_mixture"
