"""PixelCNN++ (Salimans et al. 2017)."""

from __future__ import annotations

from typing import ClassVar

from genlab.config.autoregressive import PixelCNNPPConfig
from genlab.families.autoregressive import Autoregressive
from genlab.nets.pixelcnnpp import PixelCNNPPNetwork


class PixelCNNPP(Autoregressive):
    """Salimans et al. 2017, PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood
    and Other Modifications."""

    Config = PixelCNNPPConfig
    Network = PixelCNNPPNetwork
    output_of_levels: ClassVar[str] = "logistic_mixture"
