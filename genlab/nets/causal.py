"""Layers that look only at pixels that come before in scan order, on whole images and one pixel at a time.

Scan order is row by row from the top, each row from the left, each pixel channel by channel. Features have
their channels last, so that whatever works on one position is the same code for whole images, (B, H, W, C),
for a row, (B, W, C), and for a pixel, (B, C). Only a layer that looks at other positions must know which it
is given: it takes a `Scan`, or None for whole images.

Two kinds of features:
- of a *pixel stream*, which at (i, j) has seen pixels before (i, j). In a scan it is computed pixel by pixel.
- of a *row stream*, which at (i, j) has seen rows above i only, to both sides. In a scan it is computed a row
  at a time, when the row begins.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Centre = Literal["none", "before", "all"]


class Scan:
    """Where a pass over images in scan order stands, and what each layer keeps of the pixels before.

    Positions are whole numbers of the host, or, with `on_device`, the column is a tensor as well, so that the
    work of one pixel is the same sequence of kernels at every column and can be captured in a CUDA graph.

    Attributes:
        row, column: the position that comes next.
        labels: (B,) int64, or None.
        caches: what a layer keeps, by the layer: tensors, and whatever holds tensors.
        coarser: the scan of the same images at half the resolution; see `halve`.
        level: how many coarser scans are at a new position, when this one is at (row, column).
    """

    def __init__(
        self,
        batch: int,
        height: int,
        width: int,
        like: Tensor,
        labels: Tensor | None,
        on_device: bool = False,
    ) -> None:
        self.batch, self.height, self.width = batch, height, width
        self.device, self.dtype = like.device, like.dtype
        self.labels = labels
        self.row = self.column = 0
        self.caches: dict[Any, Any] = {}
        self.coarser: Scan | None = None
        self.cursor = torch.zeros(1, dtype=torch.int64, device=like.device) if on_device else None
        self._offsets = torch.arange(max(height, width) + 1, device=like.device)

    def halve(self) -> Scan:
        """Makes the coarser scan, whose sides are rounded up."""
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        on_device = self.cursor is not None
        height, width = (self.height + 1) // 2, (self.width + 1) // 2
        self.coarser = Scan(self.batch, height, width, like, self.labels, on_device)
        return self.coarser

    @property
    def level(self) -> int:
        if self.coarser is None or self.row % 2 or self.column % 2:
            return 0
        return 1 + self.coarser.level

    def zeros(self, *shape: int) -> Tensor:
        """Returns zeros (B, *shape)."""
        return torch.zeros(self.batch, *shape, dtype=self.dtype, device=self.device)

    def hold(self, key: Any, values: Tensor) -> None:
        """Caches a row's features under a key; always in the same memory where a CUDA graph reads it."""
        if self.cursor is None or key not in self.caches:
            self.caches[key] = values
        else:
            self.caches[key].copy_(values)

    def begin_row(self, row: int) -> None:
        """Goes to the first pixel of a row; the layers of a pixel stream take in the row before."""
        self.row = row
        if row > 0:
            for layer, cache in self.caches.items():
                if isinstance(layer, CausalConv):
                    layer.begin_row(cache)
        if self.coarser is not None and row % 2 == 0:
            self.coarser.begin_row(row // 2)
        self._go_to(0)

    def move_on(self, replayed: bool = False) -> None:
        """Goes to the next pixel of the row, at its end to one past it.

        Args:
            replayed: a CUDA graph has moved the cursors on the device already.
        """
        self._go_to(self.column + 1, replayed=replayed)

    def stand_at(self, row: int, column: int) -> None:
        """Stands at a position from which the cursors on the device and the caches are set already."""
        self.row, self.column = row, column
        if self.coarser is not None:
            self.coarser.stand_at(row // 2, column // 2)

    def _go_to(self, column: int, finer: Tensor | None = None, replayed: bool = False) -> None:
        self.column = column
        if self.cursor is not None and not replayed:
            if finer is not None:
                self.cursor.copy_(finer // 2)
            elif column == 0:
                self.cursor.zero_()
            else:
                self.cursor.add_(1)
        if self.coarser is not None:
            self.coarser._go_to(column // 2, self.cursor, replayed)

    def read(self, line: Tensor, taps: int = 1) -> Tensor:
        """Returns columns column..column + taps - 1 of a line (B, L, C), side by side: (B, taps * C)."""
        if self.cursor is None:  # a plain view where one will do: calls are what a pixel costs
            if taps == 1:
                return line.select(1, self.column)
            return line.narrow(1, self.column, taps).flatten(1)
        return line.index_select(1, self.cursor + self._offsets[:taps]).flatten(1)

    def write(self, line: Tensor, value: Tensor, offset: int = 0) -> None:
        """Sets column + offset of a line (B, L, C) to (B, C)."""
        if self.cursor is None:
            line.select(1, self.column + offset).copy_(value)
        else:
            line.index_copy_(1, self.cursor + offset, value.unsqueeze(1))


def order_of(features: int, groups: int, parts: int = 1) -> Tensor:
    """Returns the channel of the image, 0..groups - 1, that each feature belongs to: (features,).

    Args:
        parts: the features are this many blocks of equal size, e.g. a gate's two halves, each with all
        groups.
    """
    size = features // parts
    return (torch.arange(size) * groups // size).repeat(parts)


class Ordered(nn.Module):
    """A linear map of one position's features that keeps the order of an image's channels.

    A feature of group g gets what belongs to groups up to g, or, if `strict`, before g.

    Args:
        inputs, outputs: numbers of features.
        groups: channels of the image that come one after the other; 1 for no order within a pixel.
        parts: blocks of equal size in inputs and in outputs, see `order_of`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        groups: int = 1,
        parts: tuple[int, int] = (1, 1),
        strict: bool = False,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        before, after = order_of(inputs, groups, parts[0]), order_of(outputs, groups, parts[1])
        mask = after[:, None] > before if strict else after[:, None] >= before
        self.register_buffer("mask", None if groups == 1 and not strict else mask.float(), persistent=False)
        self.mask: Tensor | None

    @property
    def weight(self) -> Tensor:
        return self.linear.weight if self.mask is None else self.linear.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.linear.bias)


class RowConv(nn.Module):
    """A convolution of a row stream: sees its own row and rows above, to both sides (B, H, W, C).

    Args:
        inputs, outputs: channels.
        rows: of the kernel; its lowest is the row of the result.
        columns: of the kernel, odd; its middle is the column of the result.
        stride: of rows and columns.
    """

    def __init__(self, inputs: int, outputs: int, rows: int, columns: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, (rows, columns), stride)
        self.reach = columns // 2

    def forward(self, x: Tensor, scan: Scan | None = None) -> Tensor:
        """Returns whole features (B, H, W, outputs) of (B, H, W, inputs), or those of a scan's row.

        With a stride, it wants every row of a scan, and gives a result for every second one that counts.
        """
        above = self.conv.kernel_size[0] - 1
        if scan is None:
            return channels_last(self.conv(F.pad(channels_first(x), (self.reach, self.reach, above, 0))))
        rows = scan.caches.get(self)
        if rows is None:
            rows = scan.caches[self] = scan.zeros(above + 1, x.shape[1] + 2 * self.reach, x.shape[2])
        rows[:, :-1] = rows[:, 1:].clone()
        rows[:, -1, self.reach : self.reach + x.shape[1]] = x
        return channels_last(self.conv(channels_first(rows)))[:, 0]


class CausalConv(nn.Module):
    """A convolution of a pixel stream: sees rows above, and in its own row what lies to the left.

    A row above is seen once, when a row begins; so a pixel costs what lies to its left and no more.

    Args:
        inputs, outputs: channels.
        above: rows above that it sees.
        left: columns to the left, in its own row and above.
        right: columns to the right, above.
        centre: what it sees of its own position: "none" of it, the channels "before" (mask A of van den Oord
            et al. 2016, section 3.4, in the order of the image's channels), or "all" up to the own one (mask
            B).
        groups, parts: see `Ordered`; they hold at the centre.
        own_row: it sees the columns to the left in its own row too.
        stride: 1 or 2, of rows and columns.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        above: int,
        left: int,
        right: int = 0,
        centre: Centre = "all",
        groups: int = 1,
        parts: tuple[int, int] = (1, 1),
        own_row: bool = True,
        stride: int = 1,
    ) -> None:
        super().__init__()
        if groups == 1 and centre == "before":
            centre = "none"
        self.above, self.left, self.right, self.stride = above, left, right, stride
        self.conv = nn.Conv2d(inputs, outputs, (above + 1, left + 1 + right), stride)
        self.taps = left * own_row + (centre != "none")  # of its own row
        self.first_tap = 0 if own_row else left
        self.takes_pixels = False  # its inputs are pixels, which are known only after it has been asked
        mask = torch.ones_like(self.conv.weight)
        mask[:, :, above, left + 1 :] = 0
        if not own_row:
            mask[:, :, above, :left] = 0
        before, after = order_of(inputs, groups, parts[0]), order_of(outputs, groups, parts[1])
        ordered = {"none": 0.0, "before": after[:, None] > before, "all": after[:, None] >= before}[centre]
        mask[:, :, above, left] = torch.as_tensor(ordered).float()
        self.register_buffer("mask", None if bool(mask.all()) else mask, persistent=False)
        self.mask: Tensor | None

    @property
    def weight(self) -> Tensor:
        return self.conv.weight if self.mask is None else self.conv.weight * self.mask

    def forward(self, x: Tensor, scan: Scan | None = None) -> Tensor:
        """Returns whole features (B, H, W, outputs) of (B, H, W, inputs), or those of a scan's next pixel.

        At a pixel it may be asked again, with other values of the pixel. With a stride it wants every pixel
        of a scan through `keep`, and is asked at those whose row and column are even.
        """
        if scan is None:
            padded = F.pad(channels_first(x), (self.left, self.right, self.above, 0))
            return channels_last(F.conv2d(padded, self.weight, self.conv.bias, self.stride))
        cache = self.keep(x, scan)
        position = scan if self.stride == 1 else scan.coarser
        assert position is not None
        result = position.read(cache.above)
        if self.taps:
            seen = scan.read(cache.line[:, self.first_tap :], self.taps)
            result = torch.addmm(result, seen, cache.weight)
        return result

    def keep(self, x: Tensor, scan: Scan) -> _Lines:
        """Takes in a pixel, (B, inputs), for later positions."""
        cache = scan.caches.get(self)
        if cache is None:
            cache = scan.caches[self] = _Lines(self, scan)
        scan.write(cache.line, x, self.left)
        return cache

    def begin_row(self, cache: _Lines) -> None:
        """Adds up what all pixels of a new row see of the rows above."""
        if not self.above:
            return
        cache.rows[:, :-1] = cache.rows[:, 1:].clone()
        cache.rows[:, -1] = cache.line
        weight = self.weight[:, :, :-1]
        seen = F.conv2d(channels_first(cache.rows), weight, self.conv.bias, (1, self.stride))
        cache.above.copy_(channels_last(seen)[:, 0])


class _Lines:
    """The state of a `CausalConv` in a scan: the rows above, its own row, and the sum over rows above."""

    def __init__(self, layer: CausalConv, scan: Scan) -> None:
        conv, weight = layer.conv, layer.weight
        padded = layer.left + scan.width + layer.right
        self.rows = scan.zeros(layer.above, padded, conv.in_channels)
        self.line = scan.zeros(padded, conv.in_channels)
        bias = torch.zeros_like(weight[:, 0, 0, 0]) if conv.bias is None else conv.bias
        columns = (scan.width + layer.stride - 1) // layer.stride
        self.above = bias.expand(scan.batch, columns, -1).clone()
        own = weight[:, :, -1, layer.first_tap : layer.first_tap + layer.taps]
        self.weight = own.permute(2, 1, 0).flatten(0, 1).contiguous()  # (taps * inputs, outputs)


def channels_first(x: Tensor) -> Tensor:
    """Returns (B, H, W, C) as torch's convolutions want it, without a copy."""
    return x.permute(0, 3, 1, 2)


def channels_last(x: Tensor) -> Tensor:
    """Returns the inverse of `channels_first`."""
    return x.permute(0, 2, 3, 1)


def shift_down(x: Tensor) -> Tensor:
    """Returns rows (B, H, W, C) moved down by one; the first is 0."""
    return F.pad(x, (0, 0, 0, 0, 1, 0))[:, :-1]
