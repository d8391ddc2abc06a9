"""PixelRNN: Row LSTM and Diagonal BiLSTM (van den Oord et al. 2016, Pixel Recurrent Neural Networks)."""

from __future__ import annotations

from genlab.config.autoregressive import DiagonalBiLSTMConfig, RowLSTMConfig
from genlab.families.autoregressive import Autoregressive
from genlab.nets.pixelrnn import DiagonalBiLSTMNetwork, RowLSTMNetwork


class RowLSTM(Autoregressive):
    """van den Oord et al. 2016, Pixel Recurrent Neural Networks, section 3.1."""

    Config = RowLSTMConfig
    Network = RowLSTMNetwork


class DiagonalBiLSTM(Autoregressive):
    """van den Oord et al. 2016, Pixel Recurrent Neural Networks, section 3.2."""

    Config = DiagonalBiLSTMConfig
    Network = DiagonalBiLSTMNetwork
