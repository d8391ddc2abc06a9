"""Gated PixelCNN: two stacks without a blind spot (van den Oord et al. 2016, Conditional Image Generation
with PixelCNN Decoders)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.nets.autoregressive import (
    PixelNet,
    PixelSpec,
    add_class,
    class_embedding,
    gate,
    image_coordinates,
)
from genlab.nets.causal import CausalConv, Ordered, RowConv, Scan, shift_down
from genlab.nets.precision import in_float32
from genlab.nets.start import shrink


class VerticalLayer(nn.Module):
    """Sees rows above; the left of figure 2.

    Args:
        inputs: channels of the layer below.
        width: its own channels.
        reach: columns to each side, and rows above the pixel's.
        classes: of labels, 0 for none.
        first: it looks at pixels that were shifted down a row, so that its lowest row is one above already.
    """

    def __init__(self, inputs: int, width: int, reach: int, classes: int, first: bool = False) -> None:
        super().__init__()
        self.conv = RowConv(inputs, 2 * width, rows=reach if first else reach + 1, columns=2 * reach + 1)
        self.link = nn.Linear(2 * width, 2 * width)
        self.label = class_embedding(classes, 2 * width)

    def forward(self, x: Tensor, labels: Tensor | None, scan: Scan | None) -> tuple[Tensor, Tensor]:
        """Returns features (..., width), and what the horizontal stack gets of them (..., 2 * width)."""
        seen = self.conv(x, scan)
        return gate(add_class(seen, self.label, labels)), self.link(seen)


class HorizontalLayer(nn.Module):
    """Sees `reach` pixels to the left in its row, and the vertical stack; the right of figure 2.

    Args:
        inputs, width, reach, classes: see `VerticalLayer`.
        groups: channels of the image in order, see `Ordered`.
        first: it looks at pixels, not at features: not at its own, and without a residual connection.
    """

    def __init__(
        self, inputs: int, width: int, reach: int, classes: int, groups: int, first: bool = False
    ) -> None:
        super().__init__()
        self.conv = CausalConv(
            inputs,
            2 * width,
            above=0,
            left=reach,
            centre="before" if first else "all",
            groups=groups,
            parts=(1, 2),
        )
        self.conv.takes_pixels = first
        self.out = Ordered(width, width, groups)
        self.label = class_embedding(classes, 2 * width)
        self.first = first

    def forward(self, x: Tensor, above: Tensor, labels: Tensor | None, scan: Scan | None) -> Tensor:
        """Returns features (..., width) from those of the layer below and the vertical stack's link."""
        seen = self.conv(x, scan) + above
        out = self.out(gate(add_class(seen, self.label, labels)))
        return out if self.first else x + out


class GatedPixelCNNNetwork(PixelNet):
    """A first layer of large kernels on the pixels, then `layers` of smaller ones.

    Args:
        spec: see `PixelSpec`.
        width: channels of each stack.
        layers: after the first.
        kernel: odd; of the layers; n of the paper's n x n.
        first_kernel: odd; of the first layer.
        head: channels of the last hidden layer.
        coordinates: the vertical stack is told where it is, which the paper's is not: next to the border only
            do convolutions know, and elsewhere draw strokes that no image has there.
    """

    def __init__(
        self,
        spec: PixelSpec,
        *,
        width: int,
        layers: int,
        kernel: int,
        first_kernel: int,
        head: int,
        coordinates: bool,
    ) -> None:
        super().__init__(spec)
        inputs = [self.inputs] + layers * [width]
        reaches = [first_kernel // 2] + layers * [kernel // 2]
        where = image_coordinates(*spec.shape[1:]) if coordinates else None
        self.register_buffer("places", where, persistent=False)
        self.places: Tensor | None
        seen = [self.inputs + 2 * coordinates, *inputs[1:]]
        self.vertical = nn.ModuleList(
            VerticalLayer(channels, width, reach, spec.classes, first=k == 0)
            for k, (channels, reach) in enumerate(zip(seen, reaches, strict=True))
        )
        self.horizontal = nn.ModuleList(
            HorizontalLayer(channels, width, reach, spec.classes, spec.groups, first=k == 0)
            for k, (channels, reach) in enumerate(zip(inputs, reaches, strict=True))
        )
        self.head = Ordered(width, head, spec.groups)
        self.out = Ordered(head, spec.parameters, spec.groups)
        shrink(self.out.linear)

    def whole(self, x: Tensor, labels: Tensor | None) -> Tensor:
        above = shift_down(x)
        if self.places is not None:
            above = torch.cat([above, self.places.expand(len(x), -1, -1, -1)], -1)
        return self.across(x, self.above(above, labels), labels)

    def row(self, scan: Scan, above: Tensor) -> None:
        if self.places is not None:
            above = torch.cat([above, self.places[scan.row].expand(scan.batch, -1, -1)], -1)
        for k, link in enumerate(self.above(above, scan.labels, scan)):
            scan.hold(("link", k), link)

    def pixel(self, scan: Scan, x: Tensor, again: bool) -> Tensor:
        links = [scan.read(scan.caches["link", k]) for k in range(len(self.vertical))]
        return self.across(x, links, scan.labels, scan)

    def above(self, x: Tensor, labels: Tensor | None, scan: Scan | None = None) -> list[Tensor]:
        """Returns what each layer of the vertical stack, of the rows above, hands to the horizontal one."""
        links = []
        for layer in self.vertical:
            x, link = layer(x, labels, scan)
            links.append(link)
        return links

    def across(
        self, x: Tensor, links: list[Tensor], labels: Tensor | None, scan: Scan | None = None
    ) -> Tensor:
        """Returns parameters (..., P): the horizontal stack of the pixels and the vertical stack's links."""
        for layer, link in zip(self.horizontal, links, strict=True):
            x = layer(x, link, labels, scan)
        return in_float32(self.out, F.relu(self.head(F.relu(x))))
