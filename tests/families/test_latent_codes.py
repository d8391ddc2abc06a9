"""What families say of their latents: `sample` is `decode` of the prior, a code is the posterior's mean."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers.games import ALL, DIGITS, make
from torch import nn

from genlab.config.autoencoders import VAEConfig
from genlab.config.schema import from_plain
from genlab.families.vae import VAE
from genlab.rng import SampleRng

NAMES = ("vae", *ALL)


def family_of(name: str, **settings: Any) -> Any:
    if name == "vae":
        torch.manual_seed(0)
        plain = {"hidden": [16], "latent": 4} | settings
        return VAE(from_plain(VAEConfig, plain, "model"), DIGITS).eval()
    return make(name, DIGITS, **settings)[0].eval()


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_the_decoded_latent_of_the_prior(name: str) -> None:
    family = family_of(name)
    assert family.decodes
    assert family.latent_prior == "normal"
    labels = torch.tensor([3, 0, 9]) if family.takes_labels else None
    with torch.no_grad():
        latents = family.prior_latents(SampleRng(5, range(3)))
        images = family.decode(latents, labels)
        assert torch.equal(images, family.sample(3, rng=SampleRng(5, range(3)), labels=labels))
    assert latents.shape == (3, 4)
    assert images.shape == (3, 1, 8, 8)
    assert torch.equal(latents, SampleRng(5, range(3)).normal(4))


@pytest.mark.parametrize("name", ALL)
def test_a_uniform_prior_fills_the_cube(name: str) -> None:
    family = family_of(name, prior="uniform")
    assert family.latent_prior == "uniform"
    latents = family.prior_latents(SampleRng(0, range(3000)))
    assert latents.min() >= -1
    assert latents.max() < 1
    error = math.sqrt(1 / 3 / latents.numel())
    assert abs(latents.mean()) < 4 * error
    # the variance of a square, u^2, is 4/45
    assert abs(latents.square().mean() - 1 / 3) < 4 * math.sqrt(4 / 45 / latents.numel())


def test_only_a_family_with_an_encoder_encodes() -> None:
    assert {name for name in NAMES if family_of(name).encodes} == {"vae"}


def test_a_code_is_the_mean_of_the_posterior() -> None:
    family = family_of("vae")
    last = nn.Linear(64, 8)
    with torch.no_grad():
        last.weight.zero_()
        last.weight[0, 5] = 2.0  # the first mean; the others come from biases
        last.bias.copy_(torch.tensor([0.5, 1.0, 2.0, 3.0, 9.0, 9.0, 9.0, 9.0]))
    family.vae.encoder = nn.Sequential(nn.Flatten(), last)
    images = torch.zeros(2, 1, 8, 8)
    images[1, 0, 0, 5] = 0.75
    codes = family.encode(images)
    assert codes.tolist() == [[0.5, 1.0, 2.0, 3.0], [2.0, 1.0, 2.0, 3.0]]


@pytest.mark.parametrize("likelihood", ["gaussian", "discretized_logistic"])
def test_decoding_adds_no_noise(likelihood: str) -> None:
    family = family_of("vae", likelihood=likelihood, sample_mean=False)
    latents = torch.randn(3, 4)
    with torch.no_grad():
        images = family.decode(latents)
        assert torch.equal(images, family.decode(latents))
        assert torch.equal(images, family.likelihood.mean(family.vae.decoder(latents)))
    assert images.min() >= 0
    assert images.max() <= 1
