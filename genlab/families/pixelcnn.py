"""PixelCNN (van den Oord et al. 2016, Pixel Recurrent Neural Networks)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from genlab.config.schema import setting
from genlab.families.autoregressive import Autoregressive, AutoregressiveConfig
from genlab.nets.pixelcnn import PixelCNNNetwork


@dataclass(frozen=True)
class PixelCNNConfig(AutoregressiveConfig):
    """See configs/model/pixelcnn.yaml."""

    name: Literal["pixelcnn"] = setting("pixelcnn")  # type: ignore[assignment]
    width: int = setting(64, at_least=1, help="h: channels within a block; 2 h between blocks")
    layers: int = setting(8, at_least=1, help="residual blocks")
    first_kernel: int = setting(7, at_least=3, help="odd: of the first convolution")
    kernel: int = setting(3, at_least=3, help="odd: of the blocks' convolutions")
    head: int = setting(128, at_least=1, help="channels of the last two hidden layers")


class PixelCNN(Autoregressive):
    """van den Oord et al. 2016, Pixel Recurrent Neural Networks, section 3.5."""

    Config = PixelCNNConfig
    Network = PixelCNNNetwork
