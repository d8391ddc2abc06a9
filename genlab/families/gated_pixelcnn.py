"""Gated PixelCNN (van den Oord et al. 2016, Conditional Image Generation with PixelCNN Decoders)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from genlab.config.schema import setting
from genlab.families.autoregressive import Autoregressive, AutoregressiveConfig
from genlab.nets.gated_pixelcnn import GatedPixelCNNNetwork


@dataclass(frozen=True)
class GatedPixelCNNConfig(AutoregressiveConfig):
    """See configs/model/gated_pixelcnn.yaml."""

    name: Literal["gated_pixelcnn"] = setting("gated_pixelcnn")  # type: ignore[assignment]
    width: int = setting(64, at_least=1, help="channels of each stack")
    layers: int = setting(8, at_least=1, help="after the first")
    kernel: int = setting(3, at_least=3, help="odd: of the layers")
    first_kernel: int = setting(7, at_least=3, help="odd: of the first layer")
    head: int = setting(128, at_least=1, help="channels of the last hidden layer")
    coordinates: bool = setting(False, help="the network is told where in the image it is")


class GatedPixelCNN(Autoregressive):
    """van den Oord et al. 2016, Conditional Image Generation with PixelCNN Decoders."""

    Config = GatedPixelCNNConfig
    Network = GatedPixelCNNNetwork
