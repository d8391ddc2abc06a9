"""Gated PixelCNN (van den Oord et al. 2016, Conditional Image Generation with PixelCNN Decoders)."""

from __future__ import annotations

from genlab.config.autoregressive import GatedPixelCNNConfig
from genlab.families.autoregressive import Autoregressive
from genlab.nets.gated_pixelcnn import GatedPixelCNNNetwork


class GatedPixelCNN(Autoregressive):
    """van den Oord et al. 2016, Conditional Image Generation with PixelCNN Decoders."""

    Config = GatedPixelCNNConfig
    Network = GatedPixelCNNNetwork
