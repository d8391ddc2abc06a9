"""PixelCNN, and what it shares with the PixelRNNs (van den Oord et al. 2016, Pixel Recurrent Neural
Networks)."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from genlab.nets.autoregressive import PixelNet, PixelSpec, add_class, class_embedding
from genlab.nets.causal import CausalConv, Ordered, Scan
from genlab.nets.precision import in_float32
from genlab.nets.start import shrink


class MaskedLayer(nn.Module):
    """One of a `MaskedNet`'s layers with a residual connection around it (figure 5)."""

    def forward(self, x: Tensor, labels: Tensor | None, scan: Scan | None = None) -> Tensor:
        """Returns whole features (B, H, W, 2 * width), or those of a scan's next pixel, (B, 2 * width)."""
        raise NotImplementedError


class MaskedNet(PixelNet):
    """Table 1: a masked convolution of the pixels, layers of one kind, and two layers of one position each.

    A subclass makes `layers`.

    Args:
        spec: see `PixelSpec`.
        width: h; the features between layers are 2 * width.
        first_kernel: odd; of the first convolution, which has mask A.
        head: features of the last two hidden layers.
    """

    layers: nn.ModuleList

    def __init__(self, spec: PixelSpec, *, width: int, first_kernel: int, head: int) -> None:
        super().__init__(spec)
        reach, groups = first_kernel // 2, spec.groups
        self.first = CausalConv(
            self.inputs, 2 * width, above=reach, left=reach, right=reach, centre="before", groups=groups
        )
        self.first.takes_pixels = True
        self.head = nn.Sequential(
            nn.ReLU(),
            Ordered(2 * width, head, groups),
            nn.ReLU(),
            Ordered(head, head, groups),
            nn.ReLU(),
            out := Ordered(head, spec.parameters, groups),
        )
        shrink(out.linear)

    def whole(self, x: Tensor, labels: Tensor | None) -> Tensor:
        return self.run(x, labels)

    def pixel(self, scan: Scan, x: Tensor, again: bool) -> Tensor:
        return self.run(x, scan.labels, scan)

    def run(self, x: Tensor, labels: Tensor | None, scan: Scan | None = None) -> Tensor:
        """Returns parameters (..., P) of whole images or of a scan's next pixel."""
        x = self.first(x, scan)
        for layer in self.layers:
            x = cast(MaskedLayer, layer)(x, labels, scan)
        return self.read(x)

    def read(self, x: Tensor) -> Tensor:
        """Returns parameters (..., P) of features that have seen the pixels before."""
        for layer in self.head[:-1]:
            x = layer(x)
        return in_float32(self.head[-1], x)


class MaskedResidualBlock(MaskedLayer):
    """Through half the features and a convolution with mask B; the left of figure 5.

    Args:
        width: h; 2 * width features come in and go out.
        reach: columns to each side, and rows above.
        classes: of labels, 0 for none.
        groups: channels of the image in order, see `Ordered`.
    """

    def __init__(self, width: int, reach: int, classes: int, groups: int) -> None:
        super().__init__()
        self.down = Ordered(2 * width, width, groups)
        self.conv = CausalConv(width, width, above=reach, left=reach, right=reach, groups=groups)
        self.up = Ordered(width, 2 * width, groups)
        self.label = class_embedding(classes, width)

    def forward(self, x: Tensor, labels: Tensor | None, scan: Scan | None = None) -> Tensor:
        seen = self.conv(F.relu(self.down(F.relu(x))), scan)
        return x + self.up(F.relu(add_class(seen, self.label, labels)))


class PixelCNNNetwork(MaskedNet):
    """Sees what lies in a cone above, and to the left; with 3x3 kernels not what is more than a column
    further to the right than the first convolution reaches, for each row further up: the blind spot of
    figure 1 of van den Oord et al. 2016b (Conditional Image Generation with PixelCNN Decoders).

    Args:
        spec, width, first_kernel, head: see `MaskedNet`.
        layers: residual blocks.
        kernel: odd; of their convolutions.
    """

    def __init__(
        self, spec: PixelSpec, *, width: int, layers: int, first_kernel: int, kernel: int, head: int
    ) -> None:
        super().__init__(spec, width=width, first_kernel=first_kernel, head=head)
        self.layers = nn.ModuleList(
            MaskedResidualBlock(width, kernel // 2, spec.classes, spec.groups) for _ in range(layers)
        )
