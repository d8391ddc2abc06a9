"""PixelCNN's blind spot: where it is, and that Gated PixelCNN has none."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_models import randomize
from torch import Tensor

from genlab.nets.autoregressive import PixelNet, PixelSpec
from genlab.nets.gated_pixelcnn import GatedPixelCNNNetwork
from genlab.nets.pixelcnn import PixelCNNNetwork

ROWS, COLUMNS = 9, 11
ROW, COLUMN = 7, 4


def seen(network: PixelNet) -> Tensor:
    """(ROWS, COLUMNS), true where the parameters at (ROW, COLUMN) depend on a pixel."""
    randomize(network.double())
    images = torch.rand(4, 1, ROWS, COLUMNS, dtype=torch.float64, requires_grad=True)
    network(images)[:, ROW, COLUMN].sum().backward()
    assert images.grad is not None
    return images.grad.abs().sum((0, 1)) > 0


def pixels_before(rows_above: Tensor, to_the_right: Tensor) -> Tensor:
    return (rows_above > 0) | (rows_above == 0) & (to_the_right < 0)


def offsets() -> tuple[Tensor, Tensor]:
    """Rows above ROW, (ROWS, 1), and columns to the right of COLUMN, (1, COLUMNS)."""
    return ROW - torch.arange(ROWS)[:, None], torch.arange(COLUMNS)[None] - COLUMN


def pixelcnn(**settings: int) -> PixelCNNNetwork:
    return PixelCNNNetwork(PixelSpec((1, ROWS, COLUMNS), 1, False), width=12, head=12, **settings)


@pytest.mark.parametrize(("first_kernel", "kernel"), [(3, 3), (5, 3), (3, 5)])
def test_pixelcnn_is_blind_to_what_lies_right_of_a_cone_above_and_to_nothing_else(
    first_kernel: int, kernel: int
) -> None:
    above, right = offsets()
    cone = first_kernel // 2 + (above - 1) * (kernel // 2)
    blind = (above > 0) & (right > cone)
    assert blind.any()
    found = seen(pixelcnn(layers=8, first_kernel=first_kernel, kernel=kernel))
    assert torch.equal(found, pixels_before(above, right) & ~blind)


def test_more_layers_do_not_widen_the_cone() -> None:
    few, many = (seen(pixelcnn(layers=layers, first_kernel=3, kernel=3)) for layers in (6, 12))
    assert torch.equal(few, many)
    assert few[ROW - 1].nonzero().max() == COLUMN + 1
    assert few[ROW - 6].nonzero().max() == COLUMN + 6


def test_gated_pixelcnn_has_no_blind_spot() -> None:
    network = GatedPixelCNNNetwork(
        PixelSpec((1, ROWS, COLUMNS), 1, False),
        width=12, layers=8, kernel=3, first_kernel=3, head=12, coordinates=False,
    )  # fmt: skip
    assert torch.equal(seen(network), pixels_before(*offsets()))
