"""PixelSNAIL's attention: against a loop, its first position, its reach, and its cache."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.tiny_models import advance, tiny
from torch import Tensor

from genlab.nets.pixelsnail import PixelSNAILNetwork, attend


def attend_in_a_loop(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The sum over earlier positions, one at a time."""
    found = torch.zeros_like(values)
    for image in range(len(queries)):
        for head in range(queries.shape[1]):
            for t in range(1, queries.shape[2]):
                weights = [
                    math.exp(float(queries[image, head, t] @ keys[image, head, s]) / queries.shape[3] ** 0.5)
                    for s in range(t)
                ]
                for s in range(t):
                    found[image, head, t] += weights[s] / sum(weights) * values[image, head, s]
    return found


@pytest.mark.parametrize(("key_width", "value_width"), [(4, 7), (7, 4), (5, 5)])
def test_attention_is_that_of_a_loop(key_width: int, value_width: int) -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(2, 2, 3, 12, key_width, dtype=torch.float64).unbind()
    values = torch.randn(2, 3, 12, value_width, dtype=torch.float64)
    found = attend(queries, keys, values)
    assert torch.allclose(found, attend_in_a_loop(queries, keys, values), rtol=0, atol=1e-12)


def test_the_first_position_gets_0_and_the_second_the_first_ones_value() -> None:
    torch.manual_seed(0)
    queries, keys, values = torch.randn(3, 2, 1, 6, 4, dtype=torch.float64).unbind()
    found = attend(queries, keys, values)
    assert not found[:, :, 0].any()
    assert torch.allclose(found[:, :, 1], values[:, :, 0])


def test_no_position_takes_a_key_or_a_value_of_its_own_or_a_later_one() -> None:
    torch.manual_seed(0)
    queries, keys, values = (
        x.requires_grad_() for x in torch.randn(3, 1, 1, 8, 4, dtype=torch.float64).unbind()
    )
    found = attend(queries, keys, values)
    for t in range(8):
        of_keys, of_values = torch.autograd.grad(found[0, 0, t].sum(), [keys, values], retain_graph=True)
        assert not of_keys[:, :, t:].any()
        assert not of_values[:, :, t:].any()
        assert of_values[:, :, :t].ne(0).all()


def test_one_block_sees_the_whole_past_at_28x28() -> None:
    network = tiny("pixelsnail", (1, 28, 28), 2, blocks=1, residuals=1).double().network
    images = torch.randint(0, 2, (1, 1, 28, 28)).double().requires_grad_()
    (gradient,) = torch.autograd.grad(network(images)[0, 27, 27, 0], images)
    in_order = gradient.flatten()
    assert in_order[:-1].ne(0).all()
    assert in_order[-1] == 0


def test_the_convolutions_alone_see_only_what_is_near() -> None:
    network = tiny("pixelsnail", (1, 28, 28), 2, blocks=1, residuals=1).double().network
    assert isinstance(network, PixelSNAILNetwork)
    for block in network.blocks:
        block.attention.known_out.weight.data.zero_()  # type: ignore[union-attr]
    images = torch.randint(0, 2, (1, 1, 28, 28)).double().requires_grad_()
    (gradient,) = torch.autograd.grad(network(images)[0, 27, 27, 0], images)
    assert gradient[0, 0, 24:, 24:].any()
    assert not gradient[0, 0, :24].any()
    assert not gradient[0, 0, :, :24].any()


def test_a_second_look_draws_on_the_features_of_the_first() -> None:
    network = tiny("pixelsnail", (3, 8, 8), 4, output="categorical").network
    scan = network.start(2)
    with torch.no_grad():
        advance(network, scan)
        before = scan.caches["features"]
        network.look(scan, torch.rand(2, 3), again=True)
    assert scan.caches["features"] is before


def test_grey_levels_are_a_mixture_of_logistics_and_binary_pixels_bernoulli() -> None:
    assert tiny("pixelsnail", (1, 8, 8), 256).output == "logistic_mixture"
    assert tiny("pixelsnail", (1, 8, 8), 2).output == "bernoulli"


def test_dropout_is_for_training_alone() -> None:
    family = tiny("pixelsnail", (1, 8, 8), 2, dropout=0.5)
    images = torch.randint(0, 2, (2, 1, 8, 8)).float()
    with torch.no_grad():
        still = [family.network(images) for _ in range(2)]
        family.train()
        shaken = [family.network(images) for _ in range(2)]
    assert torch.equal(*still)
    assert not torch.equal(*shaken)
