"""PixelRNNs: Row LSTM and Diagonal BiLSTM (van den Oord et al. 2016, Pixel Recurrent Neural Networks).

Both compute the input-to-state part of all positions at once, and what is left for the steps in sequence is
one matrix product and the cell.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.nets.autoregressive import add_class, class_embedding
from genlab.nets.causal import CausalConv, Ordered, Scan
from genlab.nets.pixelcnn import MaskedLayer, MaskedNet


def lstm_cell(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The new hidden and cell state, (..., h) each (eq. 3).

    Args:
        gates: (..., 4 * h) before their nonlinearities: output, forget, input and content.
        c: (..., h), the cell state before.
    """
    width = c.shape[-1]
    gates, content = gates.split([3 * width, width], -1)
    output, forget, put = torch.sigmoid(gates).chunk(3, -1)
    c = torch.addcmul(forget * c, put, torch.tanh(content))
    return output * torch.tanh(c), c


class RowLSTM(MaskedLayer):
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
        """Whole features (B, H, W, 2 * width), in H steps."""
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
        """Each column's neighbours side by side: (B, W, taps * C) from a row (B, W, C)."""
        padded, columns = F.pad(h, (0, 0, self.reach, self.reach)), h.shape[1]
        return torch.cat([padded[:, k : k + columns] for k in range(2 * self.reach + 1)], -1)

    def begin_row(self, scan: Scan) -> None:
        """What the states of the row above give to those of a scan's new row."""
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
    """What a `RowLSTM` keeps in a scan.

    line: (B, reach + W, 2 * width), its inputs in the row.
    states: (B, W, 2 * width), hidden and cell states of the row.
    above: (B, W, 5 * width), of the row above: its part of the gates, and its cell states.
    """

    def __init__(self, layer: RowLSTM, scan: Scan) -> None:
        self.line = scan.zeros(layer.reach + scan.width, 2 * layer.width)
        self.states = scan.zeros(scan.width, 2 * layer.width)
        self.above = scan.zeros(scan.width, 5 * layer.width)
        self.weight = layer.input_to_state.weight[:, :, 0].permute(2, 1, 0).flatten(0, 1).contiguous()
        self.bias = cast(Tensor, layer.input_to_state.conv.bias)


class RowLSTMNet(MaskedNet):
    """Sees a triangle above: as far to the right as the first convolution, and `kernel // 2` columns more for
    each row further up, however many the layers; to the left these add up.

    Args:
        shape, parameters, ordered, classes, width, first_kernel, head: see `MaskedNet`.
        layers: of LSTMs.
        kernel: odd; columns of the state-to-state convolutions, and of the masked input-to-state ones.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        parameters: int,
        ordered: bool,
        classes: int,
        *,
        width: int,
        layers: int,
        first_kernel: int,
        kernel: int,
        head: int,
    ) -> None:
        super().__init__(
            shape, parameters, ordered, classes, width=width, first_kernel=first_kernel, head=head
        )
        self.layers = nn.ModuleList(RowLSTM(width, kernel // 2, classes, self.groups) for _ in range(layers))

    def row(self, scan: Scan, above: Tensor) -> None:
        for layer in self.layers:
            cast(RowLSTM, layer).begin_row(scan)
