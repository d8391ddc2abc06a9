"""Sampling as in `genlab sample`: from the model's prior or a fitted one, with labels, codes decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genlab.config.commands import SampleConfig
from genlab.errors import ConfigError
from genlab.families.base import Family, LatentFamily, row_labels
from genlab.families.vqvae import VQVAE
from genlab.trained import codes, fitted_prior
from genlab.trained.draw import check_labels, check_temperature, draw
from genlab.trained.model import LoadedModel


@dataclass(frozen=True)
class Sampler:
    """The sampler of one command.

    Attributes:
        draw: draws samples of given indices, (n, C, H, W) in [0, 1] on the model's device; points have no
            bounds. Sample k depends on the seed and k alone.
        labels: the class of each, (n,) int64; None for a family without labels.
        decoder: decodes codes to images; None for a model of images.
    """

    draw: Callable[[range], Tensor]
    labels: Tensor | None
    decoder: codes.Decoder | None


def sampler_of(config: SampleConfig, model: LoadedModel) -> Sampler:
    """Returns the sampler that draws the samples of `genlab sample` with these settings.

    Raises:
        UserError: the model has no samples, labels or temperature of this kind.
    """
    labels = _labels(config, model)
    name = model.config.model.name
    if model.spec.kind == "none":
        raise ConfigError(f"ckpt={config.ckpt}: {name} has no data; see samples/ of its run")
    check_temperature(config.temperature, model)
    drawn = _drawing(config, model, labels)
    if model.spec.kind != "codes":
        return Sampler(drawn, labels, None)
    decoder = codes.decoder_of(model, config.dataset, model.device)
    return Sampler(lambda indices: decoder(drawn(indices)), labels, decoder)


def _drawing(config: SampleConfig, model: LoadedModel, labels: Tensor | None) -> Callable[[range], Tensor]:
    family, given = model.family, f"ckpt={config.ckpt}: {model.config.model.name}"
    if not family.generates and not isinstance(family, LatentFamily):
        raise ConfigError(f"{given} makes no images; see genlab evaluate")
    if config.prior == "fit":
        return fitted_prior.sampler(config, model, labels)
    if not family.generates:
        raise ConfigError(f"{given} has no prior to draw from; {_to_have_samples(family, config.ckpt)}")
    return lambda indices: draw(
        family, indices, config.seed, model.device, labels, config.temperature, progress=True
    )


def _to_have_samples(family: Family, ckpt: str) -> str:
    """Returns the remedy for a trained model that has no prior: how to draw images."""
    if not isinstance(family, VQVAE):
        return "add prior=fit, or see genlab reconstruct"
    prior = f"genlab train model=gated_pixelcnn dataset=codes dataset.ckpt={ckpt}"
    return f"train one: {prior}; or, much worse, add prior=fit"


def _labels(config: SampleConfig, model: LoadedModel) -> Tensor | None:
    if config.labels is None:
        return row_labels(model.family, config.count)
    check_labels(config.labels, model)
    return torch.tensor(config.labels)[torch.arange(config.count) % len(config.labels)]
