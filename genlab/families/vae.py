"""The variational autoencoder (Kingma and Welling 2014)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genlab.config import setting
from genlab.data.spec import Batch, DataSpec
from genlab.errors import ConfigError
from genlab.families.base import Family, Metrics, UpdateProtocol
from genlab.likelihoods import Bernoulli, DiscretizedLogistic, Gaussian, Likelihood
from genlab.nets.autoencoder import (
    LARGEST_PIXELS,
    SMALLEST_PIXELS,
    ConvDecoder,
    ConvEncoder,
    MLPDecoder,
    MLPEncoder,
)
from genlab.rng import SampleRng

_ACTIVE_VARIANCE = 0.01
_LOG_VARIANCE_LIMIT = 14.0  # far outside what trains, well inside what float32 can exponentiate


@dataclass(frozen=True)
class VAEConfig:
    """See configs/model/vae.yaml."""

    name: Literal["vae"] = setting("vae")
    network: Literal["mlp", "conv"] = setting("mlp", help="conv takes sides from 8 to 64 pixels")
    hidden: tuple[int, ...] = setting((512, 512), at_least=1, help="mlp: units, from the image to the latent")
    width: int = setting(32, at_least=1, help="conv: channels of the layer next to the image")
    latent: int = setting(16, at_least=1, help="dimensions of the latent")
    likelihood: Literal["auto", "bernoulli", "gaussian", "discretized_logistic"] = setting("auto")
    sigma: float | None = setting(None, above=0, help="gaussian: standard deviation; null learns one")
    beta: float = setting(1.0, at_least=0, help="weight of the KL term in training")
    kl_warmup: float = setting(
        0.0, at_least=0, at_most=1, help="share of the run over which beta rises from 0"
    )
    sample_mean: bool = setting(True, help="sample gives the likelihood's mean; false draws from it")


class VAENet(nn.Module):
    """Encoder and decoder.

    Args:
        config, shape: see VAEConfig; (C, H, W) of the images.
        outputs: channels of the decoder's result.
        learns_sigma: holds the Gaussian likelihood's log standard deviation as a weight.
    """

    def __init__(
        self, config: VAEConfig, shape: tuple[int, int, int], outputs: int, learns_sigma: bool
    ) -> None:
        super().__init__()
        out_shape = (outputs, *shape[1:])
        if config.network == "mlp":
            self.encoder: nn.Module = MLPEncoder(shape, config.hidden, 2 * config.latent)
            self.decoder: nn.Module = MLPDecoder(config.latent, config.hidden, out_shape)
        else:
            self.encoder = ConvEncoder(shape, config.width, 2 * config.latent)
            self.decoder = ConvDecoder(config.latent, config.width, out_shape)
        self.log_sigma = nn.Parameter(torch.tensor(math.log(0.1))) if learns_sigma else None

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Posterior mean and log-variance, (B, latent) float32, and the decoder's outputs for one latent.

        The latent is mean + exp(log-variance / 2) * noise (Kingma and Welling 2014, section 2.4).
        """
        mean, log_variance = self.encode(images)
        latent = mean + torch.exp(log_variance / 2) * noise
        return mean, log_variance, self.decoder(latent)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the posterior, (B, latent) each, float32."""
        mean, log_variance = self.encoder(images).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-_LOG_VARIANCE_LIMIT, _LOG_VARIANCE_LIMIT)


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, diag exp log_variance) || N(0, I)), (B,) nats (Kingma and Welling 2014, appendix B)."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2


class VAE(Family):
    """Maximises the evidence lower bound; one player, its two networks trained together."""

    Config = VAEConfig
    players = ("vae",)
    sampled_by = ("vae",)

    def __init__(self, config: VAEConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        check_size(config, spec)
        self.likelihood_name = choose_likelihood(config, spec)
        gaussian = self.likelihood_name == "gaussian"
        parameters = DiscretizedLogistic.parameters if self.likelihood_name == "discretized_logistic" else 1
        learns_sigma = gaussian and config.sigma is None
        self.vae = VAENet(config, spec.shape, parameters * spec.channels, learns_sigma)

    @property
    def likelihood(self) -> Likelihood:
        """Made when asked for, since the moving average has a standard deviation of its own."""
        if self.likelihood_name == "bernoulli":
            return Bernoulli()
        if self.likelihood_name == "discretized_logistic":
            return DiscretizedLogistic(self.spec.levels)
        log_sigma = self.vae.log_sigma
        fixed = torch.tensor(math.log(self.config.sigma)) if self.config.sigma else log_sigma
        assert fixed is not None
        return Gaussian(fixed, bounded=self.spec.kind == "images")

    def step(self, batches: Iterator[Batch], update: UpdateProtocol) -> Metrics:
        """Kingma and Welling 2014, Algorithm 1."""
        progress = update.step / update.steps
        warmup = self.config.kl_warmup
        kl_weight = self.config.beta * (min(1.0, progress / warmup) if warmup > 0 else 1.0)
        return update("vae", lambda images: self.loss(images, kl_weight), next(batches).images)

    def loss(self, images: Tensor, kl_weight: float) -> tuple[Tensor, Metrics]:
        """-log p(x | z) + kl_weight * KL, each summed over dimensions and averaged over images."""
        noise = torch.randn(len(images), self.config.latent, device=images.device)
        reconstruction, kl = (term.mean() for term in self.terms(images, noise)[:2])
        metrics = {
            "negative_elbo_nats": reconstruction + kl,
            "reconstruction_nats": reconstruction,
            "kl_nats": kl,
        }
        return reconstruction + kl_weight * kl, metrics

    def negative_elbo(self, images: Tensor) -> tuple[Tensor, Metrics]:
        """The loss with the KL term at its own weight: minus eq. 10 of Kingma and Welling 2014, L = 1."""
        return self.loss(images, 1.0)

    def terms(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-log p(x | z) and the KL term, (B,) nats each, and the posterior's mean, (B, latent)."""
        mean, log_variance, outputs = self.vae(images, noise)
        return -self.likelihood.log_prob(outputs, images), kl_to_standard_normal(mean, log_variance), mean

    def sample(self, n: int, *, rng: SampleRng, labels: Tensor | None = None) -> Tensor:
        """Images of latents from the prior; the likelihood's mean, or a draw where `sample_mean` is false."""
        outputs = self.vae.decoder(rng.normal(self.config.latent))
        return (
            self.likelihood.mean(outputs) if self.config.sample_mean else self.likelihood.sample(outputs, rng)
        )

    def evaluate(self, batch: Batch, *, rng: SampleRng) -> dict[str, Tensor]:
        """The negative evidence lower bound of each image, one sample of its posterior.

        Returns:
            elbo_nats: an upper bound on -log p(x): lower is better. Beta and warm-up have no part in it.
            elbo_bits_per_dim: of the stored levels; left out for a density of values not dequantised.
            reconstruction_nats, kl_nats: its two terms.
            posterior_mean: (B, latent), for `summarize`.
        """
        images = batch.images
        reconstruction, kl, mean = self.terms(images, rng.normal(self.config.latent))
        values = {"elbo_nats": reconstruction + kl, "reconstruction_nats": reconstruction, "kl_nats": kl}
        dimensions = self.spec.dimensions
        if not self.likelihood.density:
            values["elbo_bits_per_dim"] = values["elbo_nats"] / (dimensions * math.log(2))
        elif self.spec.dequantized:
            # A density over [0, 1] bounds the levels' probability by its integral over a cell of volume
            # levels^-D (Theis, van den Oord and Bethge 2016, eq. 4).
            nats = values["elbo_nats"] + dimensions * math.log(self.spec.levels)
            values["elbo_bits_per_dim"] = nats / (dimensions * math.log(2))
        return values | {"posterior_mean": mean}

    def summarize(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Active units: latents whose posterior mean has a variance over 0.01 (Burda et al. 2016, 5.2)."""
        means = values["posterior_mean"]
        if len(means) < 2:
            return {}
        return {"active_units": int((means.var(0) > _ACTIVE_VARIANCE).sum())}

    def pictures(self, batch: Batch, *, rng: SampleRng) -> dict[str, Tensor]:
        """Reconstructions: rows of originals, each above the row of what the model makes of them."""
        if self.spec.kind != "images":
            return {}
        images = batch.images[: len(batch.images) // 10 * 10 or len(batch.images)]
        noise = rng.normal(self.config.latent)[: len(images)]
        restored = self.likelihood.mean(self.vae(images, noise)[2])
        columns = min(10, len(images))
        rows = torch.stack(
            [images.view(-1, columns, *self.spec.shape), restored.view(-1, columns, *self.spec.shape)], 1
        )
        return {"reconstructions": rows.flatten(0, 1)}

    def setting(self) -> dict[str, Any]:
        kind = "probability of levels"
        if self.likelihood.density:
            kind = "density of points" if self.spec.kind == "points" else "density of values in [0, 1]"
        return {
            "bound": "negative ELBO, 1 posterior sample",
            "likelihood": f"{self.likelihood_name} ({kind})",
        }

    encodes = True
    decodes = True
    latent_prior = "normal"

    def encode(self, images: Tensor) -> Tensor:
        return self.vae.encode(images)[0]

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.likelihood.mean(self.vae.decoder(latents))

    def prior_latents(self, rng: SampleRng) -> Tensor:
        return rng.normal(self.config.latent)


def choose_likelihood(config: VAEConfig, spec: DataSpec) -> str:
    """The likelihood that `auto` stands for, or the user's, if it is one of such images.

    Raises:
        ConfigError: Bernoulli for grey levels, or levels for values that have none.
    """
    if spec.kind == "points":
        if config.likelihood in ("auto", "gaussian"):
            return "gaussian"
        raise ConfigError(
            f"model.likelihood={config.likelihood}: {spec.name} has points, not pixels; use auto or gaussian"
        )
    if config.likelihood == "auto":
        if spec.levels == 2:
            return "bernoulli"
        return "gaussian" if spec.dequantized else "discretized_logistic"
    given = f"model.likelihood={config.likelihood}"
    if config.likelihood == "bernoulli" and (spec.levels != 2 or spec.dequantized):
        raise ConfigError(
            f"{given}: {spec.name} has {spec.levels} levels, for which a cross-entropy is no likelihood; "
            "use dataset.binarize=dynamic or model.likelihood=auto"
        )
    if config.likelihood == "discretized_logistic" and spec.dequantized:
        raise ConfigError(f"{given}: dequantised values have no levels; use dataset.dequantize=false")
    return config.likelihood


def check_size(config: VAEConfig, spec: DataSpec) -> None:
    """Refuses images that the convolutional networks cannot halve to a sensible size.

    Raises:
        ConfigError: a side under 8 or over 64 pixels, or no data at all.
    """
    if spec.kind == "none":
        raise ConfigError(
            f"dataset={spec.name}: {config.name} needs data; choose e.g. dataset=digits or dataset=ring"
        )
    sides = (spec.height, spec.width)
    if config.network == "conv" and not (min(sides) >= SMALLEST_PIXELS and max(sides) <= LARGEST_PIXELS):
        raise ConfigError(
            f"model.network=conv: images of {spec.height}x{spec.width} pixels, it takes sides from "
            f"{SMALLEST_PIXELS} to {LARGEST_PIXELS}; use dataset.size=32 or model.network=mlp"
        )
