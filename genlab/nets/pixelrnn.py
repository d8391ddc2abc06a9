"""PixelRNNs: Row LSTM and Diagonal BiLSTM (van den Oord et al. 2016, Pixel Recurrent Neural Networks).

Both compute the input-to-state part of all positions at once, and what is left for the steps in sequence is
one matrix product and the cell.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.nets.autoregressive import PixelSpec, add_class, class_embedding
from genlab.nets.causal import CausalConv, Ordered, Scan, shift_down
from genlab.nets.pixelcnn import MaskedLayer, MaskedNet


def lstm_cell(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the new hidden and cell state, (..., h) each (eq. 3).

    Args:
        gates: (..., 4 * h) before their nonlinearities: output, forget, input and content.
        c: (..., h), the cell state before.
    """
    width = c.shape[-1]
    gates, content = gates.split([3 * width, width], -1)
    output, forget, put = torch.sigmoid(gates).chunk(3, -1)
    c = torch.addcmul(forget * c, put, torch.tanh(content))
    return output * torch.tanh(c), c


class RowLSTMLayer(MaskedLayer):
    """A state for each position of a row, from the states of the row above (section 3.1).

    Args:
        width: h; 2 * width features come in and go out.
        reach: columns of the row above to each side, and of the own row to the left.
        classes: of labels, 0 for none.
        groups: channels of the image in order, see `Ordered`.
    """

    def __init__(self, width: int, reach: int, classes: int, groups: int) -> None:
        super().__init__()
        self.width, self.reach = width, reach
        self.input_to_state = CausalConv(
            2 * width, 4 * width, above=0, left=reach, groups=groups, parts=(1, 4)
        )
        self.state_to_state = nn.Linear((2 * reach + 1) * width, 4 * width, bias=False)
        self.up = Ordered(width, 2 * width, groups)
        self.label = class_embedding(classes, 4 * width)

    def forward(self, x: Tensor, labels: Tensor | None, scan: Scan | None = None) -> Tensor:
        return self.rows(x, labels) if scan is None else self.pixel(x, scan)

    def rows(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Returns whole features (B, H, W, 2 * width), in H steps."""
        batch, height, columns, _ = x.shape
        gates = add_class(self.input_to_state(x), self.label, labels)
        weight = self.state_to_state.weight.T
        h = x.new_zeros(batch, columns, self.width)
        c = x.new_zeros(batch * columns, self.width)
        states = []
        for row in gates.transpose(0, 1).reshape(height, batch * columns, -1).unbind():
            h, c = lstm_cell(torch.addmm(row, self.neighbours(h).flatten(0, 1), weight), c)
            h = h.view(batch, columns, -1)
            states.append(h)
        return x + self.up(torch.stack(states, 1))

    def neighbours(self, h: Tensor) -> Tensor:
        """Returns each column's neighbours side by side: (B, W, taps * C) from a row (B, W, C)."""
        padded, columns = F.pad(h, (0, 0, self.reach, self.reach)), h.shape[1]
        return torch.cat([padded[:, k : k + columns] for k in range(2 * self.reach + 1)], -1)

    def begin_row(self, scan: Scan) -> None:
        """Prepares what the states of the row above give to those of a scan's new row."""
        cache = scan.caches.get(self)
        if cache is None:
            cache = scan.caches[self] = _RowStates(self, scan)
        h, c = cache.states.chunk(2, -1)
        gates = add_class(self.state_to_state(self.neighbours(h)) + cache.bias, self.label, scan.labels)
        cache.above.copy_(torch.cat([gates, c], -1))

    def pixel(self, x: Tensor, scan: Scan) -> Tensor:
        cache: _RowStates = scan.caches[self]
        scan.write(cache.line, x, self.reach)
        gates, c = scan.read(cache.above).split([4 * self.width, self.width], 1)
        seen = scan.read(cache.line, self.reach + 1)
        h, c = lstm_cell(torch.addmm(gates, seen, cache.weight), c)
        scan.write(cache.states, torch.cat([h, c], 1))
        return x + self.up(h)


class _RowStates:
    """The state of a `RowLSTMLayer` in a scan.

    line: (B, reach + W, 2 * width), its inputs in the row.
    states: (B, W, 2 * width), hidden and cell states of the row.
    above: (B, W, 5 * width), of the row above: its part of the gates, and its cell states.
    """

    def __init__(self, layer: RowLSTMLayer, scan: Scan) -> None:
        self.line = scan.zeros(layer.reach + scan.width, 2 * layer.width)
        self.states = scan.zeros(scan.width, 2 * layer.width)
        self.above = scan.zeros(scan.width, 5 * layer.width)
        self.weight = layer.input_to_state.weight[:, :, 0].permute(2, 1, 0).flatten(0, 1).contiguous()
        self.bias = cast(Tensor, layer.input_to_state.conv.bias)


class RowLSTMNetwork(MaskedNet):
    """Sees a triangle above: as far to the right as the first convolution, and `kernel // 2` columns more for
    each row further up, however many the layers; to the left these add up.

    Args:
        spec, width, first_kernel, head: see `MaskedNet`.
        layers: of LSTMs.
        kernel: odd; columns of the state-to-state convolutions, and of the masked input-to-state ones.
    """

    def __init__(
        self, spec: PixelSpec, *, width: int, layers: int, first_kernel: int, kernel: int, head: int
    ) -> None:
        super().__init__(spec, width=width, first_kernel=first_kernel, head=head)
        self.layers = nn.ModuleList(
            RowLSTMLayer(width, kernel // 2, spec.classes, spec.groups) for _ in range(layers)
        )

    def row(self, scan: Scan, above: Tensor) -> None:
        for layer in self.layers:
            cast(RowLSTMLayer, layer).begin_row(scan)


def diagonal_order(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Returns the positions i * W + j of an image, diagonal by diagonal, each from its top (section 3.2).

    Returns:
        (2, H * W): the diagonals that begin in the left upper corner, then those that begin in the right one.
    """
    rows, columns = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    steps = rows + torch.stack([columns, columns.flip(0)])[:, None]
    return (steps * height + rows).flatten(1).argsort(1)


def skew(x: Tensor, order: Tensor) -> Tensor:
    """Returns a map in the two orders of `diagonal_order`: (2, H * W, B, C) from (B, H, W, C).

    It is the skewed map of section 3.2, a column after the other, without the places that no pixel takes.
    """
    return x.flatten(1, 2).transpose(0, 1).index_select(0, order.flatten()).unflatten(0, (2, -1))


def unskew(x: Tensor, order: Tensor, height: int) -> Tensor:
    """Returns the inverse of `skew`, for each direction: (2, B, H, W, C)."""
    first, second = order.argsort(1)
    in_rows = x.flatten(0, 1).index_select(0, torch.cat([first, second + len(second)]))
    return in_rows.unflatten(0, (2, height, -1)).permute(0, 3, 1, 2, 4)


class DiagonalBiLSTMLayer(MaskedLayer):
    """States that go through the image from its two upper corners, diagonal by diagonal (section 3.2).

    The right-to-left ones have seen their row from the right, so that a position gets those of the row above.

    Args:
        width: h; 2 * width features come in and go out.
        classes: of labels, 0 for none.
        groups: channels of the image in order, see `Ordered`.
        pixels: numbers of a pixel, if the right-to-left states see pixels too; see `DiagonalBiLSTMNetwork`.
    """

    def __init__(self, width: int, classes: int, groups: int, pixels: int = 0) -> None:
        super().__init__()
        self.width = width
        self.input_to_state = Ordered(2 * width, 8 * width, groups, parts=(1, 8))
        # For each direction, of the states at the position before and at the one above.
        self.state_to_state = nn.Parameter(torch.empty(2, 2 * width, 4 * width))
        nn.init.uniform_(self.state_to_state, -((2 * width) ** -0.5), (2 * width) ** -0.5)
        self.own = nn.Linear(pixels, 4 * width, bias=False) if pixels else None
        self.up = Ordered(width, 2 * width, groups)
        self.label = class_embedding(classes, 8 * width)

    def forward(
        self, x: Tensor, labels: Tensor | None, scan: Scan | None = None, pixels: Tensor | None = None
    ) -> Tensor:
        """Returns features as `MaskedLayer` does.

        Args:
            pixels: (B, H, W, pixels), of whole images, for a layer that sees them.
        """
        if scan is not None:
            cache, layer = scan.caches[self]
            return cache.pixel(layer, x, scan)
        batch, height, width, _ = x.shape
        order = diagonal_order(height, width, x.device)
        weight = self.input_to_state.weight.unflatten(0, (2, -1)).transpose(1, 2)
        gates = torch.bmm(skew(x, order).flatten(1, 2), weight).unflatten(1, (-1, batch))
        gates = gates.add_(self.bias(batch, labels).unflatten(1, (2, -1)).transpose(0, 1)[:, None])
        if self.own is not None:
            assert pixels is not None
            gates[1] += self.own(skew(pixels, order)[1])
        from_left, from_right = unskew(self.diagonals(gates, width), order, height)
        return x + self.up(from_left + shift_down(from_right))

    def bias(self, batch: int, labels: Tensor | None) -> Tensor:
        """Returns the bias of the input-to-state part, with the label's: (B, 8 * width)."""
        return add_class(self.input_to_state.linear.bias.expand(batch, -1), self.label, labels)

    def diagonals(self, gates: Tensor, width: int) -> Tensor:
        """Returns hidden states of both directions, (2, H * W, B, h), in W + H - 1 steps.

        Args:
            gates: (2, H * W, B, 4 * h), the input-to-state part, as from `skew`.
            width: W.
        """
        _, positions, batch, _ = gates.shape
        height = positions // width
        rows = [min(k + 1, height) - max(k + 1 - width, 0) for k in range(height + width - 1)]
        h = c = gates.new_zeros(2, 0, self.width)
        states = []
        for k, diagonal in enumerate(gates.flatten(1, 2).split([n * batch for n in rows], 1)):
            # The diagonal before, from the row above this one's first; zeros beyond the image.
            left_behind = batch * (k >= width)
            h = F.pad(h, (0, 0, batch - left_behind, batch))
            c = F.pad(c, (0, 0, -left_behind, batch))
            size = diagonal.shape[1]
            seen = torch.cat([h[:, batch : batch + size], h[:, :size]], -1)
            h, c = lstm_cell(torch.baddbmm(diagonal, seen, self.state_to_state), c[:, :size])
            states.append(h)
        return torch.cat(states, 1).unflatten(1, (positions, batch))


class _Diagonals:
    """The state of all L layers of a `DiagonalBiLSTMNetwork` in a scan.

    The right-to-left states of a row are computed when the next one begins, of all layers at once.

    lines: (L, B, W + 1, 4 * width), of the row; column j + 1 is what a layer got at j, and the left-to-right
        hidden and cell states there.
    above: (L, B, W, 6 * width), what the row above gives to the left-to-right gates, and to a layer's output.
    from_right: (L, B, W, width), right-to-left hidden states of the row above.
    """

    def __init__(self, layers: list[DiagonalBiLSTMLayer], scan: Scan) -> None:
        width = self.width = layers[0].width
        count, batch, columns = len(layers), scan.batch, scan.width
        self.own = cast(nn.Linear, layers[0].own)
        nothing = scan.zeros()
        self.lines = nothing.new_zeros(count, batch, columns + 1, 4 * width)
        self.above = nothing.new_zeros(count, batch, columns, 6 * width)
        self.from_right = nothing.new_zeros(count, batch, columns, width)
        gates = torch.stack([layer.input_to_state.weight.T for layer in layers])
        biases = [layer.bias(batch, scan.labels) for layer in layers]
        states = torch.stack([layer.state_to_state for layer in layers])
        self.bias_left, self.bias_right = torch.stack(biases)[:, :, None].chunk(2, -1)  # (L, B, 1, 4 * width)
        before, above = states.chunk(2, 2)  # (L, 2, width, 4 * width)
        input_left, input_right = gates.chunk(2, -1)
        self.left = torch.cat([input_left, before[:, 0]], 1)  # of a position's input and the state before
        self.left_above = above[:, :1]
        self.right = before[:, 1]
        self.right_above = torch.cat([input_right, above[:, 1]], 1)[:, None]  # input, state above
        self.up = torch.stack([layer.up.weight.T for layer in layers])
        self.up_bias = torch.stack([layer.up.linear.bias for layer in layers])[:, None, None]

    def begin_row(self, row: int, pixels: Tensor) -> None:
        """Takes in the row above, and its pixels (B, W, pixels)."""
        x, h, _ = self.lines[:, :, 1:].split([2 * self.width, self.width, self.width], -1)
        if row > 0:
            self.from_right = self.right_to_left(x, pixels)
        gates = h @ self.left_above + self.bias_left
        output = self.from_right @ self.up[:, None] + self.up_bias
        self.above.copy_(torch.cat([gates, output], -1))

    def right_to_left(self, x: Tensor, pixels: Tensor) -> Tensor:
        """Returns hidden states (L, B, W, width) of a row in which the layers got x, (L, B, W, 2 * width)."""
        gates = torch.cat([x, self.from_right], -1) @ self.right_above + self.bias_right
        gates[0] += self.own(pixels)
        h = c = torch.zeros_like(self.from_right[:, :, 0])
        states = []
        for position in reversed(gates.unbind(2)):
            h, c = lstm_cell(torch.baddbmm(position, h, self.right), c)
            states.append(h)
        return torch.stack(states[::-1], 2)

    def pixel(self, layer: int, x: Tensor, scan: Scan) -> Tensor:
        """Returns a layer's features (B, 2 * width) at a scan's next pixel, from those below."""
        width, line = self.width, self.lines[layer]
        _, h, c = scan.read(line).split([2 * width, width, width], 1)
        gates, output = scan.read(self.above[layer]).split([4 * width, 2 * width], 1)
        h, c = lstm_cell(torch.addmm(gates, torch.cat([x, h], 1), self.left[layer]), c)
        scan.write(line, torch.cat([x, h, c], 1), offset=1)
        return torch.addmm(x + output, h, self.up[layer])


class DiagonalBiLSTMNetwork(MaskedNet):
    """Sees every pixel before.

    With mask A no feature of a row has seen the row's last pixel, so that right-to-left states could not tell
    the row below of it: what is further to the left than the first convolution reaches would be blind to it.
    So the first layer's right-to-left states, which are for the row below, see their own pixels too.

    Args:
        spec, width, first_kernel, head: see `MaskedNet`.
        layers: of LSTMs.
    """

    def __init__(self, spec: PixelSpec, *, width: int, layers: int, first_kernel: int, head: int) -> None:
        super().__init__(spec, width=width, first_kernel=first_kernel, head=head)
        self.layers = nn.ModuleList(
            DiagonalBiLSTMLayer(width, spec.classes, spec.groups, pixels=0 if k else self.inputs)
            for k in range(layers)
        )

    def whole(self, x: Tensor, labels: Tensor | None) -> Tensor:
        pixels, x = x, self.first(x)
        for layer in self.layers:
            x = layer(x, labels, pixels=pixels)
        return self.read(x)

    def row(self, scan: Scan, above: Tensor) -> None:
        if self not in scan.caches:
            layers = [cast(DiagonalBiLSTMLayer, layer) for layer in self.layers]
            cache = scan.caches[self] = _Diagonals(layers, scan)
            scan.caches.update({layer: (cache, k) for k, layer in enumerate(layers)})
        scan.caches[self].begin_row(scan.row, above)
