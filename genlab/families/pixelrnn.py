"""PixelRNN: Row LSTM and Diagonal BiLSTM (van den Oord et al. 2016, Pixel Recurrent Neural Networks)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from genlab.config.schema import setting
from genlab.families.autoregressive import Autoregressive, AutoregressiveConfig
from genlab.nets.pixelrnn import DiagonalBiLSTMNetwork, RowLSTMNetwork


@dataclass(frozen=True)
class RowLSTMConfig(AutoregressiveConfig):
    """See configs/model/row_lstm.yaml."""

    name: Literal["row_lstm"] = setting("row_lstm")  # type: ignore[assignment]
    width: int = setting(16, at_least=1, help="h: units of an LSTM; 2 h channels between layers")
    layers: int = setting(7, at_least=1, help="of LSTMs")
    first_kernel: int = setting(7, at_least=3, help="odd: of the first convolution")
    kernel: int = setting(3, at_least=3, help="odd: columns of the row above that a state sees")
    head: int = setting(32, at_least=1, help="channels of the last two hidden layers")


class RowLSTM(Autoregressive):
    """van den Oord et al. 2016, Pixel Recurrent Neural Networks, section 3.1."""

    Config = RowLSTMConfig
    Network = RowLSTMNetwork


@dataclass(frozen=True)
class DiagonalBiLSTMConfig(AutoregressiveConfig):
    """See configs/model/diagonal_bilstm.yaml."""

    name: Literal["diagonal_bilstm"] = setting("diagonal_bilstm")  # type: ignore[assignment]
    width: int = setting(16, at_least=1, help="h: units of an LSTM; 2 h channels between layers")
    layers: int = setting(7, at_least=1, help="of LSTMs")
    first_kernel: int = setting(7, at_least=3, help="odd: of the first convolution")
    head: int = setting(32, at_least=1, help="channels of the last two hidden layers")


class DiagonalBiLSTM(Autoregressive):
    """van den Oord et al. 2016, Pixel Recurrent Neural Networks, section 3.2."""

    Config = DiagonalBiLSTMConfig
    Network = DiagonalBiLSTMNetwork
