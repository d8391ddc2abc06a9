"""What is PixelCNN++'s own; `test_autoregressive.py` has what it shares with the others."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
import torch
from helpers.tiny_models import advance, randomize, tiny, tiny_network
from torch import Tensor, nn

from genlab.nets.causal import Scan
from genlab.nets.pixelcnnpp import (
    GatedBlock,
    PixelCNNPPNetwork,
    concat_elu,
    depth_to_space,
    pixel_convolution,
    row_convolution,
)


def network(shape: tuple[int, int, int], stages: int, blocks: int = 1) -> PixelCNNPPNetwork:
    family = tiny("pixelcnnpp", (shape[0], 8, 8), 2, stages=stages, blocks=blocks)
    net = tiny_network(family, shape)
    assert isinstance(net, PixelCNNPPNetwork)
    return net


def scanned(net: PixelCNNPPNetwork, images: Tensor, on_device: bool = False) -> Tensor:
    """Parameters as a scan gives them, (B, H, W, P)."""
    _, height, width = net.spec.shape
    scan = net.start(len(images), on_device=on_device)
    pixel, found = None, []
    for row, column in itertools.product(range(height), range(width)):
        found.append(advance(net, scan, pixel))
        pixel = images[:, :, row, column]
    return torch.stack(found, 1).unflatten(1, (height, width))


@pytest.mark.parametrize("on_device", [False, True], ids=["host", "on_device"])
@pytest.mark.parametrize("stages", [1, 2, 3, 4])
@pytest.mark.parametrize("sides", [(8, 8), (7, 5), (3, 10), (1, 2)])
def test_a_scan_gives_the_numbers_of_a_full_pass_whatever_the_sides(
    sides: tuple[int, int], stages: int, on_device: bool
) -> None:
    net = network((1, *sides), stages).double()
    images = torch.rand(2, 1, *sides, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(scanned(net, images, on_device), net(images), rtol=0, atol=1e-10)


def test_each_resolution_is_computed_at_its_own_rows_and_pixels_alone() -> None:
    net = network((1, 7, 5), stages=3)
    calls: Counter[nn.Module] = Counter()
    stages = [net.finest]
    while stages[-1].coarser is not None:
        stages.append(stages[-1].coarser)
    for stage in stages:
        for block in (stage.row_down[0], stage.pixel_down[0]):
            block.register_forward_hook(lambda module, *_: calls.update([module]))
    with torch.no_grad():
        scanned(net, torch.rand(2, 1, 7, 5))
    assert [calls[stage.row_down[0]] for stage in stages] == [7, 4, 2]
    assert [calls[stage.pixel_down[0]] for stage in stages] == [7 * 5, 4 * 3, 2 * 2]


def test_a_second_look_at_a_pixel_runs_the_head_alone() -> None:
    family = tiny("pixelcnnpp", (3, 8, 9), 4, output="categorical")
    net = family.network
    called: list[str] = []
    for name, module in net.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda *_, name=name: called.append(name.split(".")[0]))
    with torch.no_grad():
        scan = net.start(2)
        advance(net, scan)
        assert "finest" in called
        called.clear()
        net.look(scan, torch.rand(2, 3), again=True)
    assert set(called) == {"head"}


def test_dropout_is_for_training_and_follows_torchs_generator() -> None:
    family = tiny("pixelcnnpp", (1, 8, 8), 2, dropout=0.5)
    images = torch.rand(2, 1, 8, 8)

    def parameters(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return family.network(images)

    with torch.no_grad():
        assert torch.equal(parameters(0), parameters(1))
        family.train()
        assert torch.equal(parameters(0), parameters(0))
        assert not torch.equal(parameters(0), parameters(1))


@pytest.mark.parametrize(("levels", "output"), [(2, "bernoulli"), (5, "logistic_mixture")])
def test_pixels_of_more_than_two_levels_are_mixtures_of_logistics(levels: int, output: str) -> None:
    assert tiny("pixelcnnpp", (1, 8, 8), levels).output == output


def test_the_first_layers_see_where_the_image_ends() -> None:
    net = network((1, 6, 6), stages=1)
    seen: dict[nn.Module, Tensor] = {}

    def record(layer: nn.Module, _: object, features: Tensor) -> None:
        seen[layer] = features[0]

    net.row_first.register_forward_hook(record)
    net.pixel_first.register_forward_hook(record)
    with torch.no_grad():
        net(torch.full((1, 1, 6, 6), 0.5))  # pixels of value 0, as what is beyond the border
    # of the row stream two rows above count, of the pixel stream one, with a column to each side
    for layer, border in ((net.row_first, 2), (net.pixel_first, 1)):
        features = seen[layer]
        inside = features[border:, 1:-1]
        torch.testing.assert_close(inside, inside[:1, :1].expand_as(inside))
        for outside in (features[border - 1, 2], features[3, 0], features[3, -1]):
            assert (outside - inside[0, 0]).abs().max() > 1e-3


@pytest.mark.parametrize("convolution", [row_convolution, pixel_convolution])
def test_a_block_worked_by_hand_where_there_is_one_pixel(convolution: Any) -> None:
    block = GatedBlock(convolution, 2, skip=True, classes=0, dropout=0.5)
    randomize(block)
    x, skip, link = torch.randn(1, 1, 1, 2), torch.randn(1, 1, 1, 4), torch.randn(1, 1, 1, 2)
    with torch.no_grad():
        found = block(x, concat_elu(x), None, None, skip, link).flatten()
        # the tap of the own pixel: of the lowest row, and of the middle or the last column
        values = dict(block.named_parameters())
        first, second = (values[f"conv{k}.conv.weight"][:, :, 1, 1] for k in (1, 2))
        hidden = first @ concat_elu(x).flatten() + values["conv1.conv.bias"]
        hidden = hidden + values["skip.weight"] @ skip.flatten() + link.flatten()
        both = second @ concat_elu(hidden) + values["conv2.conv.bias"]
        by_hand = x.flatten() + both[:2] * torch.sigmoid(both[2:])
    torch.testing.assert_close(found, by_hand)


def test_concat_elu_and_depth_to_space_worked_by_hand() -> None:
    low = torch.tensor(-2.0).exp().item() - 1
    torch.testing.assert_close(concat_elu(torch.tensor([2.0, 0.0])), torch.tensor([2.0, 0.0, low, 0.0]))
    columns = torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 7]]).view(1, 1, 2, 4)
    assert depth_to_space(columns)[0, :, :, 0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]


def test_the_coarser_stages_reach_further_than_the_convolutions_of_the_finest() -> None:
    # At one resolution and with a block each way, the row stream sees 2 rows above in its first layer and one
    # more in each of 4 convolutions; the pixel stream adds its last convolution: 7 rows.
    def reach(stages: int) -> int:
        net = network((1, 16, 16), stages).double()
        images = torch.rand(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)
        net(images)[0, 12, 8].sum().backward()
        assert images.grad is not None
        return int(images.grad[0, 0].any(1).nonzero().min())

    assert reach(1) == 12 - 7
    assert reach(3) == 0


def test_what_a_scan_keeps_stays_in_place_for_a_graph() -> None:
    net = network((1, 8, 8), stages=3)
    images = torch.rand(2, 1, 8, 8)

    def memory(scan: Scan | None) -> set[int]:
        if scan is None:
            return set()
        read = [v for k, v in scan.caches.items() if isinstance(k, tuple) or k is net.finest.pixel_double]
        flat = [t for v in read for t in (v if isinstance(v, list) else [v])]
        return {t.data_ptr() for t in flat} | memory(scan.coarser)

    with torch.no_grad():
        scan = net.start(2, on_device=True)
        advance(net, scan)
        before = memory(scan)
        for row, column in itertools.islice(itertools.product(range(8), range(8)), 60):
            advance(net, scan, images[:, :, row, column])
        assert memory(scan) == before
