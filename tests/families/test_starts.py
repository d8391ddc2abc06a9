"""A fresh model is no worse than independent pixels with the means of the training images."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from genlab import device, registry
from genlab.config.datasets import DatasetConfig
from genlab.config.schema import from_plain
from genlab.data.dataset import Dataset, from_arrays
from genlab.data.spec import DataSpec
from genlab.data.statistics import pixel_statistics
from genlab.distributions.likelihoods import make_likelihood
from genlab.distributions.pixels import BernoulliPixel, CategoricalPixel, LogisticMixture, tilt_to
from genlab.families.base import AdversarialFamily, Family, LatentFamily
from genlab.rng import SampleRng

SMALL: dict[str, dict[str, Any]] = {
    "vae": {},
    "iwae": {"importance_samples": 3},
    "hierarchical_vae": {"hidden": [64, 32]},
    "categorical_vae": {"variables": 6, "classes": 4},
    "conditional_vae": {},
    "vqvae": {"width": 16, "codes": 16, "code_dimensions": 8, "halvings": 1},
    "gated_pixelcnn": {"width": 8, "layers": 1, "head": 16},
    "pixelcnn": {"width": 8, "layers": 1, "head": 16},
    "pixelcnnpp": {"width": 8, "head": 16},
    "pixelsnail": {"width": 8, "head": 16, "blocks": 1},
    "row_lstm": {"width": 8, "layers": 1, "head": 16},
    "diagonal_bilstm": {"width": 8, "layers": 1, "head": 16},
}
AUTOREGRESSIVE = list(SMALL)[6:]
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "binary": (1, {"binarize": "dynamic"}),
    "grey": (1, {}),
    "colour": (3, {}),
    "dequantised": (3, {"dequantize": True}),
    "black and white": (3, {}),  # stored as 0 and 255
}


def pictures(side: int, channels: int) -> Tensor:
    """Discs of any brightness on a ground that is dark at the top: pixels differ in mean and in spread."""
    generator = torch.Generator().manual_seed(1)
    grid = torch.linspace(-1, 1, side)
    y, x = grid[:, None], grid[None, :]
    cx, cy, brightness = (torch.rand(3, 700, 1, 1, generator=generator) - 0.5).unbind(0)
    discs = ((x - cx).square() + (y - cy).square() < 0.3).float() * (brightness + 0.5)
    ground = ((y + 1) / 4).expand(side, side)
    images = (torch.maximum(discs, ground)[:, None] * torch.linspace(1, 0.5, channels)[:, None, None]) * 255
    return images.round().to(torch.uint8)


def dataset(side: int, kind: str) -> Dataset:
    channels, settings = KINDS[kind]
    images = pictures(side, channels)
    if kind == "black and white":
        images = torch.where(images > 90, 255, 0).to(torch.uint8)
    labels = torch.arange(len(images)) % 3
    config = DatasetConfig(name="discs", **settings)
    return from_arrays(
        config, (images[:400], labels[:400]), (images[400:], labels[400:]), validation=0, classes=3
    )


def fresh(name: str, data: Dataset, **settings: Any) -> Family:
    config = registry.look_up(registry.FAMILIES, name, "model").Config
    device.seed_initialization(0)
    plain = {"name": name} | SMALL[name] | settings
    family = registry.family(from_plain(config, plain, "model"), data.spec)
    family.begin(pixel_statistics(data))
    return family.eval()


def nats_of(family: Family, data: Dataset, images: int = 300) -> float:
    ((indices, batch),) = data.evaluation_batches("test", images, 0, images)
    with torch.no_grad():
        values = family.evaluate(batch, rng=SampleRng(0, indices, torch.device("cpu"), purpose="evaluation"))
    names = {"vqvae": "reconstruction_nats"}  # its loss; what codes cost does not depend on the decoder
    name = "nll_nats" if "nll_nats" in values else names.get(family.config.name, "elbo_nats")
    return values[name].double().mean().item()


def independent_nats(data: Dataset, images: int = 300) -> float:
    """Of independent pixels with the means, and the spreads, of the training images."""
    spec, known = data.spec, pixel_statistics(data)
    name = "bernoulli" if spec.levels == 2 else "gaussian" if spec.dequantized else "discretized_logistic"
    log_sigma = known.std.square().mean().log() / 2
    likelihood = make_likelihood(name, spec, None, log_sigma)
    ((_, batch),) = data.evaluation_batches("test", images, 0, images)
    outputs = likelihood.outputs_of(known).expand(len(batch.images), -1, -1, -1)
    return -likelihood.log_prob(outputs, batch.images).mean().item()


def uniform_nats(spec: DataSpec) -> float:
    return 0.0 if spec.dequantized else spec.dimensions * math.log(spec.levels)


def check(name: str, side: int, kind: str, images: int = 300, **settings: Any) -> None:
    """Asserts that a fresh model is hardly worse than independent pixels on the same test images."""
    data = dataset(side, kind)
    nats, independent = nats_of(fresh(name, data, **settings), data, images), independent_nats(data, images)
    tenth = 0.1 * (abs(independent) if data.spec.dequantized else min(independent, uniform_nats(data.spec)))
    assert nats <= independent + tenth
    assert nats <= uniform_nats(data.spec) + tenth


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SMALL)
def test_a_fresh_model_knows_the_means_of_pixels(name: str, kind: str) -> None:
    if kind == "dequantised" and name in AUTOREGRESSIVE:
        pytest.skip("probabilities of levels")
    check(name, 8, kind)


@pytest.mark.parametrize("network", ["mlp", "conv", "resnet"])
@pytest.mark.parametrize("side", [28, 64])
@pytest.mark.parametrize("kind", ["binary", "colour"])
def test_at_every_size_and_with_every_network(network: str, side: int, kind: str) -> None:
    check("vae", side, kind, images=100, network=network)
    check("hierarchical_vae", side, kind, images=100, network=network)


@pytest.mark.parametrize("name", ["vqvae", "gated_pixelcnn", "pixelcnnpp"])
@pytest.mark.parametrize("output", ["categorical", "logistic_mixture"])
def test_larger_images(name: str, output: str) -> None:
    check(name, 32, "colour", images=60, **({} if name == "vqvae" else {"output": output}))


@pytest.mark.parametrize("name", ["ae", "dae", "stacked_dae", "gan", "wgan_gp"])
def test_what_has_no_likelihood_starts_at_the_mean_image(name: str) -> None:
    data = dataset(28, "grey")
    SMALL.setdefault(name, {"hidden": [32, 16]} if name == "stacked_dae" else {})
    family = fresh(name, data)
    mean = pixel_statistics(data).mean
    if isinstance(family, AdversarialFamily):
        made = family.sample(64, rng=SampleRng(0, range(64), torch.device("cpu"))).mean(0)
        assert (made - mean).abs().mean() < 0.08  # the generator's tanh cannot reach black or white
        return
    assert isinstance(family, LatentFamily)
    ((_, batch),) = data.evaluation_batches("test", 300, 0)
    with torch.no_grad():
        restored = family.decode(family.encode(batch.images))
    if name == "stacked_dae":
        lowest = family.stack.inputs_of(0, family.stack(0, mean.flatten()[None]))  # type: ignore[union-attr, operator]
        torch.testing.assert_close(lowest[0].view_as(mean), mean, atol=0.01, rtol=0)
    else:
        assert (restored - mean).abs().mean() < 0.02


class TestStatistics:
    def test_by_hand(self) -> None:
        images = torch.tensor([[[[0, 255]]], [[[255, 255]]]], dtype=torch.uint8)
        known = pixel_statistics(from_arrays(DatasetConfig(name="two"), (images, None), (images, None)))
        assert known.mean.tolist() == [[[0.5, 1.0]]]
        assert known.std.tolist() == [[[0.5, 0.0]]]
        assert known.frequencies is not None
        assert known.frequencies[0, [0, 1, 255]].tolist() == pytest.approx([2 / 260, 1 / 260, 4 / 260])
        assert known.probability.tolist() == [[[0.5, 0.75]]]  # (1 + 1) / 4, (2 + 1) / 4

    def test_training_draws_nothing_for_them(self) -> None:
        data = dataset(8, "binary")
        torch.manual_seed(3)
        before = torch.get_rng_state()
        pixel_statistics(data)
        assert torch.equal(before, torch.get_rng_state())


class TestStartsOfPixels:
    def test_tilts_give_the_means(self) -> None:
        frequencies = torch.tensor([0.5, 0.1, 0.1, 0.3], dtype=torch.float64)
        means = torch.tensor([0.01, 0.3, 0.9], dtype=torch.float64)
        tilts = tilt_to(means, frequencies.log())
        levels = torch.linspace(0, 1, 4, dtype=torch.float64)
        shares = torch.softmax(frequencies.log() + tilts[:, None] * levels, -1)
        torch.testing.assert_close((shares * levels).sum(-1), means)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_parameters_have_the_data_s_moments(self, channels: int) -> None:
        data = dataset(8, "grey" if channels == 1 else "colour")
        known = pixel_statistics(data)
        values = torch.linspace(0, 1, 256)
        for distribution in (CategoricalPixel(channels, 256), LogisticMixture(channels, 256, 10)):
            start = distribution.start(known)
            parameters = start.common + start.per_pixel @ start.basis
            assert parameters.shape == (8, 8, distribution.parameters)
            assert start.per_pixel.shape[-1] == distribution.ranks
            for channel in range(channels):
                pixels = known.mean.movedim(0, -1)[..., None, :].expand(-1, -1, 256, -1).clone()
                pixels[..., channel] = values
                log_prob = distribution.log_prob(parameters[:, :, None].expand(-1, -1, 256, -1), pixels)
                shares = torch.softmax(log_prob, -1)  # the others stay, so it is this channel's alone
                found = (shares * values).sum(-1)
                assert (found - known.mean[channel]).abs().max() < 0.06

    def test_codes_have_the_frequencies_alone(self) -> None:
        known = dataclasses.replace(pixel_statistics(dataset(8, "grey")), ordered=False)
        start = CategoricalPixel(1, 256).start(known)
        shares = (start.common + start.per_pixel @ start.basis).softmax(-1)
        assert known.frequencies is not None
        torch.testing.assert_close(shares, known.frequencies[0].expand(8, 8, -1))

    def test_one_picture_and_pixels_that_never_vary_are_finite(self) -> None:
        for image in (torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 255)):
            images = (image.to(torch.uint8), None)
            known = pixel_statistics(from_arrays(DatasetConfig(name="one"), images, images))
            for distribution in (CategoricalPixel(3, 256), LogisticMixture(3, 256, 10)):
                assert all(part.isfinite().all() for part in distribution.start(known))

    def test_bernoulli_has_the_probabilities(self) -> None:
        known = pixel_statistics(dataset(8, "binary"))
        start = BernoulliPixel(1).start(known)
        found = (start.common + start.per_pixel @ start.basis).sigmoid()
        torch.testing.assert_close(found[..., 0], known.probability[0])
