"""PixelCNN++ (Salimans et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from genlab.config.schema import setting
from genlab.families.autoregressive import Autoregressive, AutoregressiveConfig
from genlab.nets import pixelcnnpp
from genlab.nets.autoregressive import PixelNet


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
    output_of_levels: ClassVar[str] = "logistic_mixture"

    def make_network(
        self, shape: tuple[int, int, int], parameters: int, ordered: bool, classes: int, codes: int = 0
    ) -> PixelNet:
        config: PixelCNNPPConfig = self.config
        return pixelcnnpp.PixelCNNPP(
            shape,
            parameters,
            ordered,
            classes,
            codes,
            width=config.width,
            blocks=config.blocks,
            stages=config.stages,
            dropout=config.dropout,
            head=config.head,
        )
