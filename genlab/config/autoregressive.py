"""The settings of the autoregressive models. Nothing here imports torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from genlab.config.schema import setting
from genlab.errors import ConfigError


@dataclass(frozen=True)
class AutoregressiveConfig:
    """Settings of all autoregressive models; see configs/model/gated_pixelcnn.yaml."""

    name: str = setting("")
    output: Literal["auto", "bernoulli", "categorical", "logistic_mixture"] = setting(
        "auto", help="distribution of a pixel; auto: bernoulli for binary images, else the paper's"
    )
    components: int = setting(10, at_least=1, at_most=1000, help="logistic_mixture: logistics that are mixed")
    class_conditional: bool = setting(False, help="takes the labels, so that sample labels=[3,7] draws them")

    def __post_init__(self) -> None:
        """Refuses even kernel sizes: every setting whose name ends in "kernel" must be odd."""
        for key in (field.name for field in dataclasses.fields(self)):
            if key.endswith("kernel") and getattr(self, key) % 2 == 0:
                raise ConfigError(
                    f"model.{key}={getattr(self, key)}: kernel size must be odd; use an odd number"
                )

    def of_network(self) -> dict[str, Any]:
        """Returns the settings that a subclass adds: the keyword arguments of its paper's network."""
        common = {field.name for field in dataclasses.fields(AutoregressiveConfig)}
        own = (field.name for field in dataclasses.fields(self) if field.name not in common)
        return {key: getattr(self, key) for key in own}


@dataclass(frozen=True)
class GatedPixelCNNConfig(AutoregressiveConfig):
    """See configs/model/gated_pixelcnn.yaml."""

    name: Literal["gated_pixelcnn"] = setting("gated_pixelcnn")  # type: ignore[assignment]
    width: int = setting(64, at_least=1, at_most=10_000, help="channels of each stack")
    layers: int = setting(8, at_least=1, at_most=1000, help="after the first")
    kernel: int = setting(3, at_least=3, at_most=255, help="odd: of the layers")
    first_kernel: int = setting(7, at_least=3, at_most=255, help="odd: of the first layer")
    head: int = setting(128, at_least=1, at_most=100_000, help="channels of the last hidden layer")
    coordinates: bool = setting(False, help="the network is told where in the image it is")


@dataclass(frozen=True)
class PixelCNNConfig(AutoregressiveConfig):
    """See configs/model/pixelcnn.yaml."""

    name: Literal["pixelcnn"] = setting("pixelcnn")  # type: ignore[assignment]
    width: int = setting(
        64, at_least=1, at_most=10_000, help="h: channels within a block; 2 h between blocks"
    )
    layers: int = setting(8, at_least=1, at_most=1000, help="residual blocks")
    first_kernel: int = setting(7, at_least=3, at_most=255, help="odd: of the first convolution")
    kernel: int = setting(3, at_least=3, at_most=255, help="odd: of the blocks' convolutions")
    head: int = setting(128, at_least=1, at_most=100_000, help="channels of the last two hidden layers")


@dataclass(frozen=True)
class PixelCNNPPConfig(AutoregressiveConfig):
    """See configs/model/pixelcnnpp.yaml."""

    name: Literal["pixelcnnpp"] = setting("pixelcnnpp")  # type: ignore[assignment]
    width: int = setting(64, at_least=1, at_most=10_000, help="channels of each stream")
    blocks: int = setting(2, at_least=1, at_most=1000, help="gated residual blocks per stage on the way down")
    stages: int = setting(3, at_least=1, at_most=10, help="resolutions, each half the one before")
    dropout: float = setting(0.5, at_least=0, below=1, help="in the gated residual blocks")
    head: int = setting(64, at_least=1, at_most=100_000, help="channels of the last hidden layer")


@dataclass(frozen=True)
class RowLSTMConfig(AutoregressiveConfig):
    """See configs/model/row_lstm.yaml."""

    name: Literal["row_lstm"] = setting("row_lstm")  # type: ignore[assignment]
    width: int = setting(
        16, at_least=1, at_most=10_000, help="h: units of an LSTM; 2 h channels between layers"
    )
    layers: int = setting(7, at_least=1, at_most=1000, help="of LSTMs")
    first_kernel: int = setting(7, at_least=3, at_most=255, help="odd: of the first convolution")
    kernel: int = setting(3, at_least=3, at_most=255, help="odd: columns of the row above that a state sees")
    head: int = setting(32, at_least=1, at_most=100_000, help="channels of the last two hidden layers")


@dataclass(frozen=True)
class DiagonalBiLSTMConfig(AutoregressiveConfig):
    """See configs/model/diagonal_bilstm.yaml."""

    name: Literal["diagonal_bilstm"] = setting("diagonal_bilstm")  # type: ignore[assignment]
    width: int = setting(
        16, at_least=1, at_most=10_000, help="h: units of an LSTM; 2 h channels between layers"
    )
    layers: int = setting(7, at_least=1, at_most=1000, help="of LSTMs")
    first_kernel: int = setting(7, at_least=3, at_most=255, help="odd: of the first convolution")
    head: int = setting(32, at_least=1, at_most=100_000, help="channels of the last two hidden layers")


@dataclass(frozen=True)
class PixelSNAILConfig(AutoregressiveConfig):
    """See configs/model/pixelsnail.yaml."""

    name: Literal["pixelsnail"] = setting("pixelsnail")  # type: ignore[assignment]
    width: int = setting(64, at_least=1, at_most=10_000, help="channels; the paper's 256")
    blocks: int = setting(
        4, at_least=1, at_most=1000, help="of residual blocks and attention; the paper's 12"
    )
    residuals: int = setting(
        2, at_least=1, at_most=100, help="residual blocks of two 2x2 convolutions in a block; the paper's 4"
    )
    heads: int = setting(1, at_least=1, at_most=1000, help="of attention")
    key_width: int = setting(16, at_least=1, at_most=10_000, help="of a key in each head")
    value_width: int = setting(
        32, at_least=1, at_most=10_000, help="of a value in each head; the paper's 128"
    )
    dropout: float = setting(
        0.0, at_least=0, below=1, help="probability, in each residual block; the paper's 0.5 on cifar10"
    )
    head: int = setting(128, at_least=1, at_most=100_000, help="channels of the last hidden layer")
