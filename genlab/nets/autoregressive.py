"""The base of autoregressive networks: whole images at once, or one pixel after the other."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from genlab.nets.causal import CausalConv, Ordered, Scan, channels_last
from genlab.nets.precision import in_float32
from genlab.nets.start import PixelOffset, shrink

CODE_FEATURES = 32
"""Numbers of a code's learned vector: enough to tell hundreds of them apart."""


class PixelSpec(NamedTuple):
    """The images of an autoregressive network, and its distribution of a pixel.

    shape: (C, H, W) of the images.
    parameters: numbers that the distribution of a pixel takes, P.
    ordered: the parameters of a channel depend on the channels before it in the same pixel.
    classes: number of labels that the network takes; 0 for none.
    codes: the images are maps of so many codes, (1, H, W), whose numbers mean nothing: layers get a learned
        vector of each. 0 for pixels, which layers get as they are.
    """

    shape: tuple[int, int, int]
    parameters: int
    ordered: bool
    classes: int = 0
    codes: int = 0

    @property
    def groups(self) -> int:
        """Returns the channels that come one after the other within a pixel; 1 for no order."""
        return self.shape[0] if self.ordered else 1


class PixelNet(nn.Module):
    """A network whose parameters for a pixel depend on the pixels before it in scan order, and on nothing
    else.

    A subclass writes `whole`, and the same function again for one pixel in `pixel`, with what it needs of
    rows above in `row`. `forward` is for training; a scan, from `start` on, gives the same numbers pixel by
    pixel, each computed once: `begin_row`, then `look` and `keep` for every pixel of the row.

    Args:
        spec: see `PixelSpec`.

    Attributes:
        inputs: numbers that layers get of a pixel.
    """

    whole_pixels = False
    """The body of the network looks at no channel of the own pixel, only its head does."""

    def __init__(self, spec: PixelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.codes = nn.Embedding(spec.codes, CODE_FEATURES) if spec.codes else None
        self.inputs = CODE_FEATURES if spec.codes else spec.shape[0]
        self.offset: PixelOffset | None = None

    def add_offset(self, ranks: int) -> PixelOffset:
        """Gives the network numbers to add to its parameters, 0 so far; see `PixelOffset`."""
        _, height, width = self.spec.shape
        self.offset = PixelOffset(height, width, self.spec.parameters, ranks)
        return self.offset

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns parameters of every pixel, (B, H, W, P), for images (B, C, H, W) in [0, 1].

        Args:
            labels: (B,) int64, for a network that takes them.
        """
        parameters = self.whole(self.input_of(channels_last(images)), labels)
        return parameters if self.offset is None else parameters + self.offset()

    def input_of(self, pixels: Tensor) -> Tensor:
        """Returns what layers get of pixels (..., C) in [0, 1]: (..., inputs), in [-1, 1] but for codes."""
        if self.codes is None:
            return pixels * 2 - 1
        last = self.codes.num_embeddings - 1
        return self.codes((pixels[..., 0] * last).round().long())

    def start(self, batch: int, labels: Tensor | None = None, on_device: bool = False) -> Scan:
        """Returns a scan of images of which nothing is known yet.

        Args:
            batch: number of images.
            labels: (batch,) int64, for a network that takes them.
            on_device: for CUDA graphs, see `Scan`.
        """
        _, height, width = self.spec.shape
        like = next(self.parameters())
        scan = Scan(batch, height, width, like, labels, on_device)
        scan.caches["pixels"] = scan.zeros(width, self.inputs)  # of the current row
        return scan

    def begin_row(self, scan: Scan, row: int) -> None:
        """Goes to the first pixel of a row and does what can be done for the row as a whole."""
        scan.begin_row(row)
        if self.offset is not None:
            scan.hold("offset", self.offset(row).repeat(scan.batch, 1, 1))
        self.row(scan, scan.caches["pixels"])

    def look(self, scan: Scan, pixel: Tensor, again: bool = False) -> Tensor:
        """Returns parameters (B, P) at the scan's position.

        Args:
            scan: it does not move.
            pixel: (B, C) in [0, 1], what is known of the position itself: its first channels. What the others
                are set to makes no difference to the parameters of the channels known and the one after.
            again: it is not the first look at this position.
        """
        parameters = self.pixel(scan, self.input_of(pixel), again)
        return parameters if self.offset is None else parameters + scan.read(scan.caches["offset"])

    def keep(self, scan: Scan, pixel: Tensor) -> None:
        """Takes in the scan's pixel, (B, C) in [0, 1], and moves on within the row."""
        x = self.input_of(pixel)
        scan.write(scan.caches["pixels"], x)
        self.keep_pixel(scan, x)
        scan.move_on()

    def whole(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Returns parameters (B, H, W, P) of what layers get of images, (B, H, W, inputs)."""
        raise NotImplementedError

    def row(self, scan: Scan, above: Tensor) -> None:
        """Returns what a row stream sees of the row above, (B, W, inputs), 0 above the first."""

    def pixel(self, scan: Scan, x: Tensor, again: bool) -> Tensor:
        """Returns parameters (B, P) at the scan's position, of which x, (B, inputs), is known."""
        raise NotImplementedError

    def keep_pixel(self, scan: Scan, x: Tensor) -> None:
        """Layers that look at pixels themselves take one in, (B, inputs)."""
        for layer in self.modules():
            if isinstance(layer, CausalConv) and layer.takes_pixels:
                layer.keep(x, scan)


class Head(nn.Module):
    """From features that have seen the pixels before to a pixel's parameters, channel after channel.

    The parameters of channel c depend on the features and, if `groups` is over 1, on the pixel's channels
    before c, through hidden units that belong to a channel each.

    Args:
        features, hidden: numbers of features and of hidden units.
        spec: of the network; the output distribution of one that is not ordered ties the channels together.
    """

    def __init__(self, features: int, hidden: int, spec: PixelSpec) -> None:
        super().__init__()
        groups = spec.groups
        self.features = nn.Linear(features, hidden)
        self.own = Ordered(spec.shape[0], hidden, groups, strict=True) if groups > 1 else None
        self.out = Ordered(hidden, spec.parameters, groups)
        shrink(self.out.linear)

    def forward(self, features: Tensor, x: Tensor) -> Tensor:
        """Returns (..., parameters) from features (..., F) and the pixels (..., C) in [-1, 1]."""
        hidden = self.features(nn.functional.elu(features))
        if self.own is not None:
            hidden = hidden + self.own(x)
        return in_float32(self.out, nn.functional.elu(hidden))


def class_embedding(classes: int, features: int) -> nn.Embedding | None:
    """Returns a vector for each class that starts at 0, or None without classes."""
    if not classes:
        return None
    embedding = nn.Embedding(classes, features)
    nn.init.zeros_(embedding.weight)
    return embedding


def add_class(x: Tensor, embedding: nn.Embedding | None, labels: Tensor | None) -> Tensor:
    """Adds each image's class vector to its whole features, a row or a pixel.

    Raises:
        ValueError: the network takes labels and got none.
    """
    if embedding is None:
        return x
    if labels is None:
        raise ValueError("a class-conditional network needs labels")
    vectors: Any = embedding(labels)
    return x + vectors.view(len(vectors), *[1] * (x.ndim - 2), -1)


def gate(x: Tensor) -> Tensor:
    """Returns tanh of the first half of the features times the sigmoid of the second (eq. 2 of van den Oord
    et al. 2016b, Conditional Image Generation with PixelCNN Decoders)."""
    a, b = x.chunk(2, -1)
    return torch.tanh(a) * torch.sigmoid(b)


def image_coordinates(height: int, width: int) -> Tensor:
    """Returns the coordinates of each position, down and to the right, (H, W, 2) from -0.5 to 0.5."""
    grid = torch.meshgrid(torch.linspace(-0.5, 0.5, height), torch.linspace(-0.5, 0.5, width), indexing="ij")
    return torch.stack(grid, -1)
