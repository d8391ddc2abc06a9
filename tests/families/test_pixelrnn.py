"""Row LSTM and Diagonal BiLSTM: what they see, and in how many steps."""

from __future__ import annotations

import itertools

import pytest
import torch
from tiny_models import randomize
from torch import Tensor

from genlab.nets import pixelrnn
from genlab.nets.autoregressive import PixelNet

ROWS, COLUMNS = 7, 12
ROW, COLUMN = 5, 6


def seen(network: PixelNet) -> Tensor:
    """(ROWS, COLUMNS), true where the parameters at (ROW, COLUMN) depend on a pixel."""
    randomize(network.double())
    images = torch.rand(4, 1, ROWS, COLUMNS, dtype=torch.float64, requires_grad=True)
    network(images)[:, ROW, COLUMN].sum().backward()
    assert images.grad is not None
    return images.grad.abs().sum((0, 1)) > 0


def row_lstm(shape: tuple[int, int, int] = (1, ROWS, COLUMNS), **settings: int) -> pixelrnn.RowLSTMNet:
    sizes = {"width": 8, "layers": 2, "first_kernel": 3, "kernel": 3, "head": 8} | settings
    return pixelrnn.RowLSTMNet(shape, 1, False, 0, **sizes)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes that the LSTM's cell is called with."""
    calls: list[tuple[int, ...]] = []
    cell = pixelrnn.lstm_cell

    def counted(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(tuple(c.shape))
        return cell(gates, c)

    monkeypatch.setattr(pixelrnn, "lstm_cell", counted)
    return calls


@pytest.mark.parametrize(
    ("layers", "first_kernel", "kernel"), [(1, 3, 3), (2, 3, 3), (6, 3, 3), (1, 5, 3), (1, 3, 5)]
)
def test_row_lstm_sees_a_triangle_that_more_layers_widen_to_the_left_alone(
    layers: int, first_kernel: int, kernel: int
) -> None:
    above = ROW - torch.arange(ROWS)[:, None]
    right = torch.arange(COLUMNS)[None] - COLUMN
    first, reach = first_kernel // 2, kernel // 2
    furthest_right = torch.where(above > 0, first + (above - 1) * reach, -1)
    furthest_left = -first - (above + layers) * reach
    expected = (above >= 0) & (furthest_left <= right) & (right <= furthest_right)
    assert not expected[ROW - 1].all()
    network = row_lstm(layers=layers, first_kernel=first_kernel, kernel=kernel)
    assert torch.equal(seen(network), expected)


def test_row_lstm_takes_a_step_for_each_row(steps: list[tuple[int, ...]]) -> None:
    row_lstm((1, 5, 9), layers=3)(torch.rand(2, 1, 5, 9))
    assert steps == 3 * 5 * [(2 * 9, 8)]  # all columns and images at once


def test_row_lstm_is_equation_3_worked_position_by_position() -> None:
    torch.manual_seed(0)
    layer = pixelrnn.RowLSTM(3, 1, 0, 1).double()
    x = torch.randn(1, 3, 4, 6, dtype=torch.float64)
    kernel = layer.input_to_state.conv
    assert kernel.bias is not None
    h, c = torch.zeros(4, 6, 3, dtype=torch.float64), torch.zeros(4, 6, 3, dtype=torch.float64)
    with torch.no_grad():  # states have a row above the first and a column at either side
        for i, j in itertools.product(range(3), range(4)):
            left = x[0, i, j - 1] if j else torch.zeros(6, dtype=torch.float64)
            gates = kernel.bias + kernel.weight[:, :, 0, 0] @ left + kernel.weight[:, :, 0, 1] @ x[0, i, j]
            gates = gates + layer.state_to_state.weight @ h[i, j : j + 3].flatten()
            o, f, put, g = gates.view(4, 3)
            c[i + 1, j + 1] = f.sigmoid() * c[i, j + 1] + put.sigmoid() * g.tanh()
            h[i + 1, j + 1] = o.sigmoid() * c[i + 1, j + 1].tanh()
        expected = x[0] + layer.up(h[1:, 1:5])
        found = layer(x, None)[0]
    assert torch.allclose(found, expected, atol=1e-12)
