"""Row LSTM and Diagonal BiLSTM: what they see, and in how many steps."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers.tiny_models import randomize
from torch import Tensor

from genlab.nets import pixelrnn
from genlab.nets.autoregressive import PixelNet, PixelSpec

ROWS, COLUMNS = 7, 12
ROW, COLUMN = 5, 6


def seen(network: PixelNet) -> Tensor:
    """(ROWS, COLUMNS), true where the parameters at (ROW, COLUMN) depend on a pixel."""
    network.double()
    images = torch.rand(4, 1, ROWS, COLUMNS, dtype=torch.float64, requires_grad=True)
    network(images)[:, ROW, COLUMN].sum().backward()
    assert images.grad is not None
    return images.grad.abs().sum((0, 1)) > 0


def row_lstm(shape: tuple[int, int, int] = (1, ROWS, COLUMNS), **settings: int) -> pixelrnn.RowLSTMNetwork:
    sizes = {"width": 8, "layers": 2, "first_kernel": 3, "kernel": 3, "head": 8} | settings
    network = pixelrnn.RowLSTMNetwork(PixelSpec(shape, 1, False), **sizes)
    randomize(network)
    return network


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
    layer = pixelrnn.RowLSTMLayer(3, 1, 0, 1).double()
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


def diagonal_bilstm(
    shape: tuple[int, int, int] = (1, ROWS, COLUMNS), **settings: int
) -> pixelrnn.DiagonalBiLSTMNetwork:
    sizes = {"width": 8, "layers": 2, "first_kernel": 3, "head": 8} | settings
    network = pixelrnn.DiagonalBiLSTMNetwork(PixelSpec(shape, 1, False), **sizes)
    randomize(network)
    return network


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (4, 4), (3, 7), (7, 3)])
def test_skewing_orders_positions_by_diagonals_and_unskewing_takes_it_back(shape: tuple[int, int]) -> None:
    height, width = shape
    x = torch.randn(2, height, width, 3)
    order = pixelrnn.diagonal_order(height, width)
    skewed = pixelrnn.skew(x, order)
    place = 0
    for step in range(height + width - 1):
        for row in range(height):
            if 0 <= step - row < width:
                assert torch.equal(skewed[0, place], x[:, row, step - row])
                assert torch.equal(skewed[1, place], x[:, row, width - 1 - (step - row)])
                place += 1
    assert place == skewed.shape[1]
    assert torch.equal(pixelrnn.unskew(skewed, order, height), torch.stack([x, x]))


@pytest.mark.parametrize("layers", [1, 3])
def test_diagonal_bilstm_sees_every_pixel_before(layers: int) -> None:
    found = seen(diagonal_bilstm(layers=layers)).flatten()
    assert torch.equal(found, torch.arange(ROWS * COLUMNS) < ROW * COLUMNS + COLUMN)


def test_without_its_own_pixels_diagonal_bilstm_would_miss_the_last_of_the_row_above() -> None:
    network = diagonal_bilstm()
    own = network.layers[0].own
    assert isinstance(own, torch.nn.Linear)
    torch.nn.init.zeros_(own.weight)
    found = seen(network)
    assert not found[ROW - 1, COLUMNS - 1]
    assert found.sum() == ROW * COLUMNS + COLUMN - 1


def test_diagonal_bilstm_takes_a_step_for_each_diagonal(steps: list[tuple[int, ...]]) -> None:
    diagonal_bilstm((1, 5, 9), layers=3)(torch.rand(2, 1, 5, 9))
    rows = [1, 2, 3, 4, 5, 5, 5, 5, 5, 4, 3, 2, 1]
    assert steps == 3 * [(2, 2 * n, 8) for n in rows]  # both directions, all rows and images at once


def test_a_scan_of_diagonal_bilstm_goes_back_along_a_row_once_for_all_layers(
    steps: list[tuple[int, ...]],
) -> None:
    network = diagonal_bilstm((1, 5, 9), layers=3)
    scan = network.start(2)
    with torch.no_grad():
        network.begin_row(scan, 0)
        for _ in range(9):
            network.look(scan, torch.zeros(2, 1))
            network.keep(scan, torch.zeros(2, 1))
        assert steps == 9 * 3 * [(2, 8)]
        network.begin_row(scan, 1)
    assert steps[9 * 3 :] == 9 * [(3, 2, 8)]


@pytest.mark.parametrize(("height", "columns"), [(3, 4), (4, 2), (1, 3), (3, 1)])
def test_diagonal_bilstm_is_two_lstms_worked_position_by_position(height: int, columns: int) -> None:
    torch.manual_seed(0)
    layer = pixelrnn.DiagonalBiLSTMLayer(2, 0, 1).double()
    x = torch.randn(1, height, columns, 4, dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)
    with torch.no_grad():
        gates = layer.input_to_state(x)[0]
        total = torch.zeros(height, columns, 2, dtype=torch.float64)
        for direction, step in ((0, 1), (1, -1)):
            h: dict[tuple[int, int], Tensor] = {}
            c: dict[tuple[int, int], Tensor] = {}
            for i, j in itertools.product(range(height), range(columns)[::step]):
                before, above = h.get((i, j - step), zero), h.get((i - 1, j), zero)
                own = gates[i, j].chunk(2)[direction]
                own = own + torch.cat([before, above]) @ layer.state_to_state[direction]
                o, f, put, g = own.view(4, 2)
                c[i, j] = f.sigmoid() * c.get((i, j - step), zero) + put.sigmoid() * g.tanh()
                h[i, j] = o.sigmoid() * c[i, j].tanh()
                if i + direction < height:  # right-to-left states are for the row below
                    total[i + direction, j] += h[i, j]
        expected = x[0] + layer.up(total)
        found = layer(x, None)[0]
    assert torch.allclose(found, expected, atol=1e-12)
