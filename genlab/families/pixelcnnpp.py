"""PixelCNN++ (Salimans et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from genlab.config.schema import setting
from genlab.families.autoregressive import Autoregressive, AutoregressiveConfig
from genlab.nets.pixelcnnpp import PixelCNNPPNetwork


@dataclass(frozen=True)
class PixelCNNPPConfig(AutoregressiveConfig):
    """See configs/model/pixelcnnpp.yaml."""

    name: Literal["pixelcnnpp"] = setting("pixelcnnpp")  # type: ignore[assignment]
    width: int = setting(64, at_least=1, help="channels of each stream")
    blocks: int = setting(2, at_least=1, help="gated residual blocks per stage on the way down")
    stages: int = setting(3, at_least=1, help="resolutions, each half the one before")
    dropout: float = setting(0.5, at_least=0, below=1, help="in the gated residual blocks")
    head: int = setting(64, at_least=1, help="channels of the last hidden layer")


class PixelCNNPP(Autoregressive):
    """Salimans et al. 2017, PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood
    and Other Modifications."""

    Config = PixelCNNPPConfig
    Network = PixelCNNPPNetwork
    output_of_levels: ClassVar[str] = "logistic_mixture"
