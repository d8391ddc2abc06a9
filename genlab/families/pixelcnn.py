"""PixelCNN (van den Oord et al. 2016, Pixel Recurrent Neural Networks)."""

from __future__ import annotations

from genlab.config.autoregressive import PixelCNNConfig
from genlab.families.autoregressive import Autoregressive
from genlab.nets.pixelcnn import PixelCNNNetwork


class PixelCNN(Autoregressive):
    """van den Oord et al. 2016, Pixel Recurrent Neural Networks, section 3.5."""

    Config = PixelCNNConfig
    Network = PixelCNNNetwork
