"""PixelCNN++: two streams at several resolutions (Salimans et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.nets.autoregressive import Head, PixelNet, PixelSpec, add_class, class_embedding
from genlab.nets.causal import CausalConv, RowConv, Scan, shift_down

Links = dict[Any, Tensor]


def row_convolution(inputs: int, outputs: int, stride: int = 1) -> RowConv:
    """Returns a convolution of the row stream: two rows of three columns."""
    return RowConv(inputs, outputs, rows=2, columns=3, stride=stride)


def pixel_convolution(inputs: int, outputs: int, stride: int = 1) -> CausalConv:
    """Returns a convolution of the pixel stream: two rows of the column to the left and the own one."""
    return CausalConv(inputs, outputs, above=1, left=1, stride=stride)


class GatedBlock(nn.Module):
    """x + a * sigmoid(b), where a and b are the halves of a convolution of concat_elu(h), after dropout; h is
    a convolution of concat_elu(x), plus linear maps of a skip connection and of the row stream (Salimans et
    al. 2017, sections 2.3 to 2.5).

    Args:
        convolution: of the block's stream, given inputs and outputs.
        width: channels.
        skip: it takes a skip connection.
        classes: of labels, 0 for none.
        dropout: probability.
    """

    def __init__(
        self,
        convolution: Callable[[int, int], RowConv | CausalConv],
        width: int,
        skip: bool,
        classes: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.conv1 = convolution(2 * width, width)
        self.conv2 = convolution(2 * width, 2 * width)
        with torch.no_grad():  # a block starts close to the identity
            self.conv2.conv.weight *= 0.1
        self.skip = nn.Linear(2 * width, width, bias=False) if skip else None
        self.label = class_embedding(classes, 2 * width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        active: Tensor,
        labels: Tensor | None,
        scan: Scan | None,
        skip: Tensor | None = None,
        link: Tensor | None = None,
    ) -> Tensor:
        """Returns features (..., width).

        Args:
            x: (..., width).
            active: concat_elu(x), which others need as well.
            labels: (B,), if it takes them.
            scan: None for whole images.
            skip: (..., 2 * width), the skip connection's concat_elu.
            link: (..., width), what it gets of the row stream.
        """
        hidden = self.conv1(active, scan)
        if self.skip is not None:
            hidden = hidden + self.skip(skip)
        if link is not None:
            hidden = hidden + link
        hidden = self.conv2(self.dropout(concat_elu(hidden)), scan)
        return x + F.glu(add_class(hidden, self.label, labels))


class Stage(nn.Module):
    """Both streams at one resolution: blocks on the way down, the coarser stages, blocks on the way up.

    A block on the way up takes a skip connection from the way down: the first from the last block, and so on,
    the last from what comes into the stage. Each block of the pixel stream takes its like in the row stream.

    Args:
        coarser: the next stage, at half the resolution; None for the last, which has a block less on the way
            up, as this goes on where the way down ended.
        width, classes, dropout: see `GatedBlock`.
        blocks: on the way down.
    """

    def __init__(self, coarser: Stage | None, width: int, blocks: int, classes: int, dropout: float) -> None:
        super().__init__()
        ups = blocks if coarser is None else blocks + 1

        def stack(convolution: Any, number: int, skip: bool) -> nn.ModuleList:
            return nn.ModuleList(
                GatedBlock(convolution, width, skip, classes, dropout) for _ in range(number)
            )

        self.row_down = stack(row_convolution, blocks, skip=False)
        self.row_up = stack(row_convolution, ups, skip=True)
        self.pixel_down = stack(pixel_convolution, blocks, skip=False)
        self.pixel_up = stack(pixel_convolution, ups, skip=True)
        self.links = nn.ModuleList(nn.Linear(2 * width, width, bias=False) for _ in range(blocks + ups))
        self.coarser = coarser
        if coarser is not None:
            self.row_halve = row_convolution(width, width, stride=2)
            self.row_double = nn.Linear(width, 4 * width)
            self.pixel_halve = pixel_convolution(width, width, stride=2)
            self.pixel_double = nn.Linear(width, 4 * width)

    def rows(self, x: Tensor, labels: Tensor | None, scan: Scan | None, links: Links) -> Tensor:
        """Returns the row stream, (..., width), of whole images or of the scan's row.

        It leaves what the pixel stream gets of it in `links` or in the scan.
        """
        skips = [concat_elu(x)]
        for k, block in enumerate(self.row_down):
            x = block(x, skips[-1], labels, scan)
            skips.append(concat_elu(x))
            self._leave(k, skips[-1], scan, links)
        if self.coarser is None:
            active = skips.pop()
        else:
            x = self._coarser_rows(self.coarser, x, labels, scan, links)
            active = concat_elu(x)
        for k, block in enumerate(self.row_up, len(self.row_down)):
            x = block(x, active, labels, scan, skips.pop())
            active = concat_elu(x)
            self._leave(k, active, scan, links)
        return x

    def pixels(self, x: Tensor, labels: Tensor | None, scan: Scan | None, links: Links) -> Tensor:
        """Returns the pixel stream, (..., width), of whole images or of the scan's pixel."""
        skips = [concat_elu(x)]
        for k, block in enumerate(self.pixel_down):
            x = block(x, skips[-1], labels, scan, link=self._take(k, scan, links))
            skips.append(concat_elu(x))
        if self.coarser is None:
            skips.pop()
        else:
            x = self._coarser_pixels(self.coarser, x, labels, scan, links)
        for k, block in enumerate(self.pixel_up, len(self.pixel_down)):
            x = block(x, concat_elu(x), labels, scan, skips.pop(), self._take(k, scan, links))
        return x

    def _leave(self, k: int, active: Tensor, scan: Scan | None, links: Links) -> None:
        link = self.links[k](active)
        if scan is None:
            links[self, k] = link
        else:
            scan.hold((self, k), link)

    def _take(self, k: int, scan: Scan | None, links: Links) -> Tensor:
        return links[self, k] if scan is None else scan.read(scan.caches[self, k])

    def _coarser_rows(
        self, coarser: Stage, x: Tensor, labels: Tensor | None, scan: Scan | None, links: Links
    ) -> Tensor:
        """Returns the row stream of the coarser stages. In a scan, every second row is of use to two."""
        halved = self.row_halve(x, scan)
        if scan is None:
            return depth_to_space(self.row_double(coarser.rows(halved, labels, None, links)))
        if scan.row % 2:
            now, then = scan.caches[self.pixel_double]
            now.copy_(then)
            return scan.caches[self.row_double]
        result = self.row_double(coarser.rows(halved, labels, scan.coarser, links))
        now, then = result.unflatten(-1, (2, -1)).unbind(2)
        scan.caches[self.row_double] = then.reshape_as(x)
        return now.reshape_as(x)

    def _coarser_pixels(
        self, coarser: Stage, x: Tensor, labels: Tensor | None, scan: Scan | None, links: Links
    ) -> Tensor:
        """Returns the pixel stream of the coarser stages. In a scan, a new result is of use to two rows of
        two columns."""
        if scan is None:
            halved = self.pixel_halve(x)
            return depth_to_space(self.pixel_double(coarser.pixels(halved, labels, None, links)))
        assert scan.coarser is not None
        width = x.shape[-1]
        kept = scan.caches.get(self.pixel_double)
        if kept is None:
            kept = scan.caches[self.pixel_double] = [scan.zeros(scan.coarser.width, 2 * width) for _ in "ab"]
        now, then = kept
        if scan.level == 0:
            self.pixel_halve.keep(x, scan)
            return scan.read(now.unflatten(-1, (2, width)).flatten(1, 2))
        halved = self.pixel_halve(x, scan)
        result = self.pixel_double(coarser.pixels(halved, labels, scan.coarser, links))
        scan.coarser.write(now, result[:, : 2 * width])
        scan.coarser.write(then, result[:, 2 * width :])
        return result[:, :width]


class PixelCNNPPNetwork(PixelNet):
    """Two streams through a pyramid of resolutions and back.

    Where the paper's has strided transposed convolutions of 2x3 and 2x2 pixels on the way up, here each
    position at half the resolution gives its own 2x2 pixels, a transposed convolution of 2x2 with stride 2.
    Between the features and the parameters there is a hidden layer. Weights are not normalised: the paper's
    data-dependent initialisation wants a pass over a batch before training, which would be a state of its own
    to resume from; blocks start close to the identity instead.

    Images whose sides are no multiples of 2 ** (stages - 1) get more rows below and more columns at the
    right, which no pixel of the image comes after.

    Args:
        spec: see `PixelSpec`.
        width: channels of each stream.
        blocks: gated residual blocks per stage on the way down.
        stages: resolutions, each half the one before.
        dropout: probability.
        head: channels of the last hidden layer.
    """

    whole_pixels = True

    def __init__(
        self, spec: PixelSpec, *, width: int, blocks: int, stages: int, dropout: float, head: int
    ) -> None:
        super().__init__(spec)
        _, height, image_width = spec.shape
        unit = 2 ** (stages - 1)
        self.more_rows, self.more_columns = -height % unit, -image_width % unit
        self.stages = stages
        inputs = self.inputs + 1  # ones, so that the border is seen
        self.row_first = RowConv(inputs, width, rows=2, columns=3)
        self.pixel_first = CausalConv(inputs, width, above=1, left=1, right=1, centre="none")
        stage = None
        for _ in range(stages):
            stage = Stage(stage, width, blocks, spec.classes, dropout)
        assert stage is not None
        self.finest = stage
        self.head = Head(width, head, spec)

    def whole(self, x: Tensor, labels: Tensor | None) -> Tensor:
        _, height, width = self.spec.shape
        pixels = F.pad(F.pad(x, (0, 1), value=1.0), (0, 0, 0, self.more_columns, 0, self.more_rows))
        links: Links = {}
        self.finest.rows(self.row_first(shift_down(pixels)), labels, None, links)
        features = self.finest.pixels(self.pixel_first(pixels), labels, None, links)
        return self.head(features[:, :height, :width], x)

    def start(self, batch: int, labels: Tensor | None = None, on_device: bool = False) -> Scan:
        scan = finest = super().start(batch, labels, on_device)
        for _ in range(self.stages - 1):
            scan = scan.halve()
        return finest

    def row(self, scan: Scan, above: Tensor) -> None:
        ones = 1.0 if scan.row else 0.0  # above the first row is the border
        pixels = F.pad(F.pad(above, (0, 1), value=ones), (0, 0, 0, self.more_columns))
        self.finest.rows(self.row_first(pixels, scan), scan.labels, scan, {})

    def pixel(self, scan: Scan, x: Tensor, again: bool) -> Tensor:
        if not again:
            first = self.pixel_first(F.pad(x, (0, 1), value=1.0), scan)
            scan.caches["features"] = self.finest.pixels(first, scan.labels, scan, {})
        return self.head(scan.caches["features"], x)

    def keep_pixel(self, scan: Scan, x: Tensor) -> None:
        self.pixel_first.keep(F.pad(x, (0, 1), value=1.0), scan)


def concat_elu(x: Tensor) -> Tensor:
    """Returns the ELU of the features and of their negatives, (..., 2F) from (..., F)."""
    return F.elu(torch.cat([x, -x], -1))


def depth_to_space(x: Tensor) -> Tensor:
    """Returns each position's 4F features as 2x2 positions: (B, 2H, 2W, F) from (B, H, W, 4F)."""
    batch, height, width, features = x.shape
    x = x.view(batch, height, width, 2, 2, features // 4).transpose(2, 3)
    return x.reshape(batch, 2 * height, 2 * width, features // 4)
