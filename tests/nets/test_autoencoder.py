"""Shapes, receptive fields and sizes of the autoencoders' networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genlab.nets.autoencoder import (
    ConvDecoder,
    ConvEncoder,
    MLPDecoder,
    MLPEncoder,
    ResidualDecoder,
    ResidualEncoder,
    choose_network,
    halvings,
    make_decoder,
)


def round_trip(encoder: nn.Module, decoder: nn.Module, shape: tuple[int, int, int]) -> None:
    """Codes and images have the right shape, and every weight takes part."""
    images = torch.rand(8, *shape)
    code = encoder(images)
    assert code.shape == (8, 6)
    outputs = decoder(code)
    assert outputs.shape == images.shape
    (outputs * torch.randn_like(outputs)).sum().backward()
    for net in (encoder, decoder):
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("side", range(8, 65))
def test_convolutions_take_every_size_from_8_to_64(side: int) -> None:
    shape = (1 + 2 * (side % 2), side, side)
    round_trip(ConvEncoder(shape, 4, 6), ConvDecoder(6, 4, shape), shape)
    round_trip(ResidualEncoder(shape, 4, (12,), 6), ResidualDecoder(6, 4, (12,), shape), shape)


@pytest.mark.parametrize("sides", [(8, 64), (64, 9), (28, 17), (33, 48)])
def test_convolutions_take_rectangles(sides: tuple[int, int]) -> None:
    shape = (3, *sides)
    round_trip(ConvEncoder(shape, 4, 6), ConvDecoder(6, 4, shape), shape)
    round_trip(ResidualEncoder(shape, 4, (12,), 6), ResidualDecoder(6, 4, (12,), shape), shape)


@pytest.mark.parametrize("hidden", [(), (40,), (40, 30, 50)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 4), (1, 28, 28)])
def test_fully_connected_networks_take_any_size(hidden: tuple[int, ...], shape: tuple[int, int, int]) -> None:
    round_trip(MLPEncoder(shape, (*hidden, 48), 6), MLPDecoder(6, (*hidden, 48), shape), shape)


def test_halvings_by_hand() -> None:
    assert halvings(28, 28) == [(28, 28), (14, 14), (7, 7)]
    assert halvings(8, 8) == [(8, 8), (4, 4)]
    assert halvings(33, 20) == [(33, 20), (16, 10), (8, 5)]
    assert len(halvings(64, 64)) == 5


@pytest.mark.parametrize("kind", ["conv", "resnet"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 33, 21)])
def test_every_pixel_reaches_the_code_and_every_latent_every_pixel(
    shape: tuple[int, int, int], kind: str
) -> None:
    images = torch.rand(1, *shape, requires_grad=True)
    encoder = ConvEncoder(shape, 8, 6) if kind == "conv" else ResidualEncoder(shape, 8, (), 6)
    code = encoder(images)
    (gradient,) = torch.autograd.grad(code.square().sum(), images)
    seen = gradient[0].abs().sum(0) > 0
    assert seen[: 2 * (shape[1] // 8) * 4, : 2 * (shape[2] // 8) * 4].float().mean() > 0.9
    decoder = (ConvDecoder(6, 8, shape) if kind == "conv" else ResidualDecoder(6, 8, (), shape)).double()
    code = torch.randn(6, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda z: decoder(z[None])[0], code)
    assert isinstance(jacobian, torch.Tensor)
    assert (jacobian.abs().sum(-1) > 0).float().mean() > 0.99


@pytest.mark.parametrize("kind", ["mlp", "conv", "resnet"])
def test_signals_keep_their_size_on_the_way_and_the_last_layer_makes_them_small(kind: str) -> None:
    shape, latents = (1, 32, 32), torch.randn(64, 64)
    net = make_decoder(kind, shape, hidden=(512, 512), width=32, latent=64)
    assert 0.003 < net(latents).std().item() < 0.04  # a hundredth of 0.3 to 4
    net.offset.value.fill_(0.25)
    assert net(latents).mean().item() == pytest.approx(0.25, abs=0.01)


def test_the_network_that_auto_stands_for() -> None:
    assert [choose_network("auto", *sides) for sides in ((28, 28), (64, 28), (27, 32), (65, 65))] == [
        "resnet",
        "resnet",
        "mlp",
        "mlp",
    ]
    assert choose_network("conv", 28, 28) == "conv"
