"""PixelSNAIL: causal convolutions, and attention to all pixels before (Chen et al. 2018, PixelSNAIL: An
Improved Autoregressive Generative Model)."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.nets.autoregressive import (
    Head,
    PixelNet,
    PixelSpec,
    add_class,
    class_embedding,
    image_coordinates,
)
from genlab.nets.causal import CausalConv, Scan


class Pointwise(nn.Linear):
    """A convolution of 1x1; it needs no `Scan`."""

    def forward(self, x: Tensor, scan: Scan | None = None) -> Tensor:
        return super().forward(x)


class GatedResidual(nn.Module):
    """x + a * sigmoid(b), where (a, b) = conv(elu(conv(elu(x)) + linear(elu(y)))); figure 4.

    Args:
        width: channels of x.
        dropout: probability, before the second convolution.
        kernel: rows above and columns to the left that a convolution sees, its own counted.
        merged: channels of y, 0 for none.
        classes: of labels, 0 for none.
    """

    def __init__(
        self, width: int, dropout: float, kernel: int = 1, merged: int = 0, classes: int = 0
    ) -> None:
        super().__init__()
        conv = Pointwise if kernel == 1 else partial(CausalConv, above=kernel - 1, left=kernel - 1)
        self.first, self.second = conv(width, width), conv(width, 2 * width)
        self.merged = nn.Linear(merged, width, bias=False) if merged else None
        self.label = class_embedding(classes, 2 * width)
        self.dropout = dropout

    def forward(
        self, x: Tensor, y: Tensor | None = None, labels: Tensor | None = None, scan: Scan | None = None
    ) -> Tensor:
        """Returns features (..., width) from x (..., width) and y (..., merged)."""
        hidden = self.first(F.elu(x), scan)
        if self.merged is not None:
            assert y is not None
            hidden = hidden + self.merged(F.elu(y))
        hidden = F.dropout(F.elu(hidden), self.dropout, self.training)
        return x + F.glu(add_class(self.second(hidden, scan), self.label, labels), -1)


class Memory(NamedTuple):
    """The state of an `Attention` in a scan: what it keeps of the pixels; 0 where there is none yet.

    keys: (B * heads, key_width, H * W): as wide products of a vector and a matrix want them.
    values: (B * heads, H * W, value_width).
    features: (B, width), at the scan's position, which become a key and a value with the pixel.
    """

    keys: Tensor
    values: Tensor
    features: Tensor


class Attention(nn.Module):
    """Each position attends to all positions strictly before it; the first one gets 0.

    Keys and values know the features, the pixel itself and where it is; queries the features and where.

    Args:
        width: of the features.
        pixel: numbers of a pixel and its place.
        place: numbers of its place.
        heads, key_width, value_width: a key and a value have these widths in each head.
        dropout: probability, in the residual blocks.
    """

    def __init__(
        self, width: int, pixel: int, place: int, heads: int, key_width: int, value_width: int, dropout: float
    ) -> None:
        super().__init__()
        self.heads, self.key_width, self.value_width = heads, key_width, value_width
        self.known = GatedResidual(width + pixel, dropout)
        self.known_out = nn.Linear(width + pixel, heads * (key_width + value_width))
        self.asked = GatedResidual(width + place, dropout)
        self.asked_out = nn.Linear(width + place, heads * key_width)

    def forward(self, features: Tensor, pixels: Tensor, places: Tensor) -> Tensor:
        """Returns (B, H, W, heads * value_width) from features, pixels with their places, and places."""
        keys, values = self.keys_and_values(features, pixels)
        found = attend(*(self.split_heads(x) for x in (self.queries(features, places), keys, values)))
        return found.transpose(1, 2).flatten(2).view_as(values)

    def at_pixel(self, features: Tensor, place: Tensor, scan: Scan) -> Tensor:
        """Returns the result of `forward` at the scan's position, (B, heads * value_width)."""
        memory = scan.caches.get(self)
        if memory is None:
            positions, lines = scan.height * scan.width, scan.batch * self.heads
            keys = features.new_zeros(lines, self.key_width, positions)
            memory = Memory(keys, features.new_zeros(lines, positions, self.value_width), features)
        scan.caches[self] = memory._replace(features=features)
        queries = self.queries(features, place).view(-1, 1, self.key_width) * self.key_width**-0.5
        if scan.cursor is None:
            before = position_of(scan)
            logits = torch.bmm(queries, memory.keys[:, :, :before])
            found = torch.bmm(torch.softmax(logits, -1), memory.values[:, :before])
        else:
            logits = torch.baddbmm(scan.caches["unseen"], queries, memory.keys)
            found = torch.bmm(torch.softmax(logits, -1), memory.values)
        return found.view(scan.batch, -1)

    def keep(self, pixel: Tensor, scan: Scan) -> None:
        """Takes in the pixel at the scan's position, with its place, (B, pixel)."""
        memory = scan.caches[self]
        keys, values = self.keys_and_values(memory.features, pixel)
        keys, values = keys.reshape(-1, self.key_width), values.reshape(-1, self.value_width)
        if scan.cursor is None:
            position = position_of(scan)
            memory.keys[:, :, position] = keys
            memory.values[:, position] = values
        else:
            memory.keys.index_copy_(2, scan.caches["position"], keys.unsqueeze(2))
            memory.values.index_copy_(1, scan.caches["position"], values.unsqueeze(1))

    def keys_and_values(self, features: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns keys (..., heads * key_width) and values (..., heads * value_width)."""
        both = self.known_out(self.known(torch.cat([features, pixels], -1)))
        keys, values = both.split([self.heads * self.key_width, self.heads * self.value_width], -1)
        return keys, values

    def queries(self, features: Tensor, places: Tensor) -> Tensor:
        """Returns queries (..., heads * key_width)."""
        return self.asked_out(self.asked(torch.cat([features, places], -1)))

    def split_heads(self, x: Tensor) -> Tensor:
        """Returns x as (B, heads, H * W, F) from (B, H, W, heads * F)."""
        return x.flatten(1, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Returns sum_{s < t} softmax_{s < t}(q_t k_s / sqrt(key_width)) v_s, and 0 at the first t.

    Args:
        queries, keys: (B, heads, T, key_width).
        values: (B, heads, T, value_width).

    Returns:
        (B, heads, T, value_width).
    """
    scale = queries.shape[-1] ** -0.5
    # The second query with the first key, and so on: "strictly before" becomes torch's "up to". Its fast
    # kernels, which keep no T x T weights, want keys as wide as values.
    queries, keys, values = queries[:, :, 1:], keys[:, :, :-1], values[:, :, :-1]
    width = values.shape[-1]
    widest = max(width, keys.shape[-1])
    queries, keys, values = (F.pad(x, (0, widest - x.shape[-1])) for x in (queries, keys, values))
    found = F.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=scale)
    return F.pad(found[..., :width], (0, 0, 1, 0))


class Block(nn.Module):
    """Residual blocks of 2x2 convolutions, then attention, which a last residual block merges; figure 4.

    Args:
        width, residuals, dropout, classes: see `PixelSNAILNetwork`.
        attention: of the block.
    """

    def __init__(
        self, width: int, residuals: int, attention: Attention, dropout: float, classes: int
    ) -> None:
        super().__init__()
        self.residuals = nn.ModuleList(
            GatedResidual(width, dropout, kernel=2, classes=classes) for _ in range(residuals)
        )
        self.attention = attention
        self.merge = GatedResidual(width, dropout, merged=attention.heads * attention.value_width)

    def forward(
        self, x: Tensor, pixels: Tensor, places: Tensor, labels: Tensor | None, scan: Scan | None
    ) -> Tensor:
        """Returns features (..., width) from the block below, pixels with their places, and places."""
        for residual in self.residuals:
            x = residual(x, None, labels, scan)
        if scan is None:
            return self.merge(x, self.attention(x, pixels, places))
        return self.merge(x, self.attention.at_pixel(x, places, scan))


class PixelSNAILNetwork(PixelNet):
    """Alternates convolutions, which see what is near in detail, and attention, which reaches all pixels.

    Its first convolution sees three pixels of the row above and the two to the left, as those of PixelCNN++
    do; a second input besides the image are the coordinates of each position, from -0.5 to 0.5.

    Args:
        spec: see `PixelSpec`.
        width: channels.
        blocks: of residual blocks and attention.
        residuals: of a block.
        heads, key_width, value_width: see `Attention`.
        dropout: probability, in each residual block.
        head: channels of the last hidden layer.
    """

    whole_pixels = True

    def __init__(
        self,
        spec: PixelSpec,
        *,
        width: int,
        blocks: int,
        residuals: int,
        heads: int,
        key_width: int,
        value_width: int,
        dropout: float,
        head: int,
    ) -> None:
        super().__init__(spec)
        channels = self.inputs
        self.register_buffer("places", image_coordinates(*spec.shape[1:]), persistent=False)
        self.places: Tensor
        self.first = CausalConv(channels + 2, width, above=1, left=1, right=1, centre="none")
        self.blocks = nn.ModuleList(
            Block(
                width,
                residuals,
                Attention(width, channels + 2, 2, heads, key_width, value_width, dropout),
                dropout,
                spec.classes,
            )
            for _ in range(blocks)
        )
        self.head = Head(width, head, spec)

    def start(self, batch: int, labels: Tensor | None = None, on_device: bool = False) -> Scan:
        scan = super().start(batch, labels, on_device)
        if on_device:
            scan.caches["position"] = torch.zeros(1, dtype=torch.int64, device=scan.device)
            # added to logits; finite, so that the first position weighs values that are all 0 yet
            lowest = torch.finfo(scan.dtype).min
            shape = (1, 1, scan.height * scan.width)
            scan.caches["unseen"] = torch.full(shape, lowest, dtype=scan.dtype, device=scan.device)
        return scan

    def whole(self, x: Tensor, labels: Tensor | None) -> Tensor:
        places = self.places.expand(len(x), -1, -1, -1)
        return self.head(self.features(torch.cat([x, places], -1), places, labels), x)

    def row(self, scan: Scan, above: Tensor) -> None:
        scan.hold("places", self.places[scan.row].repeat(scan.batch, 1, 1))

    def pixel(self, scan: Scan, x: Tensor, again: bool) -> Tensor:
        if not again:
            place = scan.read(scan.caches["places"])
            scan.caches["features"] = self.features(torch.cat([x, place], -1), place, scan.labels, scan)
        return self.head(scan.caches["features"], x)

    def keep_pixel(self, scan: Scan, x: Tensor) -> None:
        pixel = torch.cat([x, scan.read(scan.caches["places"])], -1)
        self.first.keep(pixel, scan)
        for block in self.blocks:
            block.attention.keep(pixel, scan)  # type: ignore[union-attr]
        if scan.cursor is not None:
            scan.caches["unseen"].index_fill_(2, scan.caches["position"], 0)
            scan.caches["position"].add_(1)

    def features(
        self, pixels: Tensor, places: Tensor, labels: Tensor | None, scan: Scan | None = None
    ) -> Tensor:
        """Returns features (..., width) of pixels with their places (..., inputs + 2) and places (..., 2)."""
        x = self.first(pixels, scan)
        for block in self.blocks:
            x = block(x, pixels, places, labels, scan)
        return x


def position_of(scan: Scan) -> int:
    """Returns the number of pixels before the scan's position."""
    return scan.row * scan.width + scan.column
