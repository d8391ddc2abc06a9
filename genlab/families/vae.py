"""The variational autoencoder (Kingma and Welling 2014), with a choice of priors and posteriors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genlab.config import TrainConfig, setting
from genlab.data.spec import Batch, DataSpec
from genlab.errors import ConfigError
from genlab.families.base import Family, Metrics, UpdateProtocol
from genlab.latents import (
    POSTERIORS,
    DiagonalNormal,
    FactorizedPrior,
    Laplace,
    Mixture,
    Posterior,
    Prior,
    StandardNormal,
    Uniform,
    VampPrior,
    kl_decomposition,
)
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
_DECOMPOSED_IMAGES = 1000  # a validation during training takes them too
_ROWS_AT_ONCE, _PIXELS_AT_ONCE = 2**13, 2**22  # decoded for an importance-weighted bound


@dataclass(frozen=True)
class AutoencoderConfig:
    """The networks, the likelihood and the latents: what does not depend on how they are trained."""

    name: str = setting()
    network: Literal["mlp", "conv"] = setting("mlp", help="conv takes sides from 8 to 64 pixels")
    hidden: tuple[int, ...] = setting((512, 512), at_least=1, help="mlp: units, from the image to the latent")
    width: int = setting(32, at_least=1, help="conv: channels of the layer next to the image")
    latent: int = setting(16, at_least=1, help="dimensions of the latent")
    likelihood: Literal["auto", "bernoulli", "gaussian", "discretized_logistic"] = setting("auto")
    sigma: float | None = setting(None, above=0, help="gaussian: standard deviation; null learns one")
    prior: Literal["standard_normal", "uniform", "laplace", "mixture", "vampprior"] = setting(
        "standard_normal", help="of the latent; mixture and vampprior are learned"
    )
    prior_components: int = setting(100, at_least=1, help="of the mixture, or the vampprior's pseudo-inputs")
    posterior: Literal["diagonal", "full"] = setting("diagonal", help="covariance of the latent of an image")
    sample_mean: bool = setting(True, help="sample gives the likelihood's mean; false draws from it")


@dataclass(frozen=True)
class VAEConfig(AutoencoderConfig):
    """See configs/model/vae.yaml."""

    name: Literal["vae"] = setting("vae")
    beta: float = setting(1.0, at_least=0, help="weight of the KL term in training")
    kl_warmup: float = setting(
        0.0, at_least=0, at_most=1, help="share of the run over which beta rises from 0"
    )
    free_bits: float = setting(0.0, at_least=0, help="nats of each latent dimension that cost nothing")


class VAENet(nn.Module):
    """Encoder, decoder and prior.

    Args:
        config, spec: see VAEConfig; of the images.
        outputs: channels of the decoder's result.
        learns_sigma: holds the Gaussian likelihood's log standard deviation as a weight.
    """

    def __init__(self, config: AutoencoderConfig, spec: DataSpec, outputs: int, learns_sigma: bool) -> None:
        super().__init__()
        self.latent, self.posterior = config.latent, POSTERIORS[config.posterior]
        numbers = self.posterior.count(config.latent)
        shape, out_shape = spec.shape, (outputs, spec.height, spec.width)
        if config.network == "mlp":
            self.encoder: nn.Module = MLPEncoder(shape, config.hidden, numbers)
            self.decoder: nn.Module = MLPDecoder(config.latent, config.hidden, out_shape)
        else:
            self.encoder = ConvEncoder(shape, config.width, numbers)
            self.decoder = ConvDecoder(config.latent, config.width, out_shape)
        self.log_sigma = nn.Parameter(torch.tensor(math.log(0.1))) if learns_sigma else None
        self.prior = self._make_prior(config, spec)

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The posterior's mean and spread, float32, and the decoder's outputs for one latent of each image.

        The latent is that of standard normal noise (B, latent); see `genlab.latents.Posterior`.
        """
        posterior = self.encode(images)
        return posterior.mean, posterior.spread, self.decode(posterior.sample(noise))

    def encode(self, images: Tensor) -> Posterior:
        """The posterior of each image, float32."""
        return self.posterior.read(self.encoder(images), self.latent)

    def decode(self, latents: Tensor) -> Tensor:
        """The decoder's outputs for latents (n, latent)."""
        return self.decoder(self.prior.to_decoder(latents))

    def _make_prior(self, config: AutoencoderConfig, spec: DataSpec) -> Prior:
        match config.prior:
            case "standard_normal":
                return StandardNormal(config.latent)
            case "uniform":
                return Uniform(config.latent)
            case "laplace":
                return Laplace(config.latent)
            case "mixture":
                return Mixture(config.latent, config.prior_components)
            case "vampprior":
                bounded = spec.kind == "images"
                return VampPrior(config.latent, config.prior_components, spec.shape, bounded, self.encode)


class Autoencoder(Family):
    """A decoder, a prior and an encoder of posteriors, one player; a subclass says how they are trained."""

    Config = AutoencoderConfig
    players = ("vae",)
    sampled_by = ("vae",)
    takes_importance_samples = True
    encodes = True
    decodes = True

    def __init__(self, config: AutoencoderConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        check_size(config, spec)
        # The uniform prior is that of a latent whose distribution function the decoder gets.
        normal = config.prior in ("standard_normal", "uniform")
        self.latent_prior = "normal" if normal else config.prior
        self.likelihood_name = choose_likelihood(config, spec)
        gaussian = self.likelihood_name == "gaussian"
        parameters = DiscretizedLogistic.parameters if self.likelihood_name == "discretized_logistic" else 1
        learns_sigma = gaussian and config.sigma is None
        self.vae = VAENet(config, spec, parameters * spec.channels, learns_sigma)

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

    def terms(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-log p(x | z) and the KL term, (B,) nats each, and the posterior's mean, (B, latent)."""
        posterior, log_likelihood = self.infer(images, noise)
        return -log_likelihood, self.divergence(posterior, noise), posterior.mean

    def infer(self, images: Tensor, noise: Tensor) -> tuple[Posterior, Tensor]:
        """The posterior, and log p(x | z) of its sample for noise (B, latent): (B,) nats."""
        mean, spread, outputs = self.vae(images, noise)
        return self.vae.posterior(mean, spread), self.likelihood.log_prob(outputs, images)

    def divergence(self, posterior: Posterior, noise: Tensor) -> Tensor:
        """The KL term, (B,) nats: in closed form, or log q(z | x) - log p(z) of the sample for that noise."""
        closed = self.vae.prior.kl(posterior)
        if closed is not None:
            return closed
        latents = posterior.sample(noise)
        return posterior.log_prob(latents) - self.vae.prior.log_prob(latents)

    def log_weights(self, images: Tensor, posterior: Posterior, latents: Tensor) -> Tensor:
        """log p(x, z) - log q(z | x) of S latents (S, B, latent) for each of B images: (S, B) nats.

        Images and samples are one batch of S B rows to the decoder.
        """
        outputs = self.vae.decode(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
        log_likelihood = self.likelihood.log_prob(outputs, images)
        return log_likelihood + self.vae.prior.log_prob(latents) - posterior.log_prob(latents)

    def importance_weighted_nats(self, images: Tensor, samples: int, rng: SampleRng) -> Tensor:
        """-log(1/K sum_k p(x, z_k) / q(z_k | x)) (Burda et al. 2016, eq. 8), (B,) nats.

        An upper bound on -log p(x) in expectation, which falls towards it as K rises. The encoder runs once;
        the sum over samples is taken in parts, so that memory does not grow with K.

        Args:
            samples: K, >= 1.
            rng: a stream for each image.
        """
        posterior = self.vae.encode(images)
        rows = max(len(images), min(_ROWS_AT_ONCE, _PIXELS_AT_ONCE // self.spec.dimensions))
        log_sum = torch.full((len(images),), -math.inf, device=images.device)
        for part in torch.arange(samples).split(rows // len(images)):
            noise = rng.normal(len(part), self.config.latent).transpose(0, 1)
            log_weights = self.log_weights(images, posterior, posterior.sample(noise))
            log_sum = torch.logaddexp(log_sum, log_weights.logsumexp(0))
        return math.log(samples) - log_sum

    def sample(self, n: int, *, rng: SampleRng, labels: Tensor | None = None) -> Tensor:
        """Images of latents from the prior; the likelihood's mean, or a draw where `sample_mean` is false."""
        outputs = self.vae.decode(self.vae.prior.sample(rng))
        return (
            self.likelihood.mean(outputs) if self.config.sample_mean else self.likelihood.sample(outputs, rng)
        )

    def evaluate(
        self, batch: Batch, *, rng: SampleRng, importance_samples: int | None = None
    ) -> dict[str, Tensor]:
        """The negative evidence lower bound of each image, one sample of its posterior.

        Args:
            importance_samples: for an importance-weighted bound beside it; None for none.

        Returns:
            elbo_nats: an upper bound on -log p(x): lower is better. Beta, warm-up and free bits have no part.
            elbo_bits_per_dim: of the stored levels; left out for a density of values not dequantised.
            reconstruction_nats, kl_nats: its two terms.
            importance_weighted_nats, importance_weighted_bits_per_dim: see the method of that name; the
                bits as above.
            posterior_mean: (B, latent), for `summarize`; so are posterior_log_variance and posterior_sample,
                of a diagonal posterior and a prior with independent dimensions.
        """
        images, noise = batch.images, rng.normal(self.config.latent)
        posterior, log_likelihood = self.infer(images, noise)
        reconstruction, kl = -log_likelihood, self.divergence(posterior, noise)
        values = {"elbo_nats": reconstruction + kl, "reconstruction_nats": reconstruction, "kl_nats": kl}
        values |= self._bits_per_dim("elbo", values["elbo_nats"])
        if importance_samples is not None:
            nats = self.importance_weighted_nats(images, importance_samples, rng)
            values["importance_weighted_nats"] = nats
            values |= self._bits_per_dim("importance_weighted", nats)
        values["posterior_mean"] = posterior.mean
        if isinstance(posterior, DiagonalNormal) and isinstance(self.vae.prior, FactorizedPrior):
            values["posterior_log_variance"] = posterior.spread
            values["posterior_sample"] = posterior.sample(noise)
        return values

    def _bits_per_dim(self, name: str, nats: Tensor) -> dict[str, Tensor]:
        """NAME_bits_per_dim of the stored levels, (B,); nothing for a density of values not dequantised."""
        dimensions = self.spec.dimensions
        if self.likelihood.density:
            if not self.spec.dequantized:
                return {}
            # A density over [0, 1] bounds the levels' probability by its integral over a cell of volume
            # levels^-D (Theis, van den Oord and Bethge 2016, eq. 4).
            nats = nats + dimensions * math.log(self.spec.levels)
        return {f"{name}_bits_per_dim": nats / (dimensions * math.log(2))}

    def summarize(self, values: dict[str, Tensor]) -> dict[str, float]:
        """What the latents do, over a split.

        Returns:
            active_units: latents whose posterior mean has a variance over 0.01 (Burda et al. 2016, 5.2).
            index_code_mutual_information_nats, total_correlation_nats, dimension_wise_kl_nats: the KL term of
                the first 1,000 images in three parts, see `genlab.latents.kl_decomposition`.
        """
        means = values["posterior_mean"]
        if len(means) < 2:
            return {}
        numbers: dict[str, float] = {"active_units": int((means.var(0) > _ACTIVE_VARIANCE).sum())}
        if "posterior_sample" not in values:
            return numbers
        first = [
            values[name][:_DECOMPOSED_IMAGES]
            for name in ("posterior_mean", "posterior_log_variance", "posterior_sample")
        ]
        assert isinstance(self.vae.prior, FactorizedPrior)
        parts = kl_decomposition(DiagonalNormal(*first[:2]), first[2], self.vae.prior)
        names = ("index_code_mutual_information", "total_correlation", "dimension_wise_kl")
        return numbers | {f"{name}_nats": part for name, part in zip(names, parts, strict=True)}

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

    def encode(self, images: Tensor) -> Tensor:
        return self.vae.encode(images).mean

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.likelihood.mean(self.vae.decode(latents))

    def prior_latents(self, rng: SampleRng) -> Tensor:
        return self.vae.prior.sample(rng)


class VAE(Autoencoder):
    """Maximises the evidence lower bound; its two networks are trained together."""

    Config = VAEConfig

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        """Free bits are of single dimensions, so the KL term must be a sum over them.

        Raises:
            ConfigError: it is not.
        """
        model = config.model
        if model.free_bits == 0:
            return
        given = f"model.free_bits={model.free_bits:g}"
        if model.posterior != "diagonal":
            raise ConfigError(
                f"{given}: model.posterior={model.posterior} has no KL term of each dimension; "
                "use model.posterior=diagonal"
            )
        if model.prior in ("mixture", "vampprior"):
            raise ConfigError(
                f"{given}: model.prior={model.prior} has no KL term of each dimension; "
                "use model.prior=standard_normal, uniform or laplace"
            )

    def step(self, batches: Iterator[Batch], update: UpdateProtocol) -> Metrics:
        """Kingma and Welling 2014, Algorithm 1."""
        progress = update.step / update.steps
        warmup = self.config.kl_warmup
        kl_weight = self.config.beta * (min(1.0, progress / warmup) if warmup > 0 else 1.0)
        return update("vae", lambda images: self.loss(images, kl_weight), next(batches).images)

    def loss(self, images: Tensor, kl_weight: float) -> tuple[Tensor, Metrics]:
        """-log p(x | z) + kl_weight * KL, each summed over dimensions and averaged over images.

        Under free bits the KL term of a dimension, averaged over the images, counts as no less than they are
        (Kingma et al. 2016, free bits, with a group for each dimension).
        """
        noise = torch.randn(len(images), self.config.latent, device=images.device)
        posterior, log_likelihood = self.infer(images, noise)
        reconstruction, kl = -log_likelihood.mean(), self.divergence(posterior, noise).mean()
        penalty, prior = kl, self.vae.prior
        if self.config.free_bits > 0:
            assert isinstance(prior, FactorizedPrior)
            assert isinstance(posterior, DiagonalNormal)
            penalty = prior.kl_of_dimensions(posterior).mean(0).clamp(min=self.config.free_bits).sum()
        metrics = {
            "negative_elbo_nats": reconstruction + kl,
            "reconstruction_nats": reconstruction,
            "kl_nats": kl,
        }
        return reconstruction + kl_weight * penalty, metrics

    def negative_elbo(self, images: Tensor) -> tuple[Tensor, Metrics]:
        """The bound itself, whatever the loss: minus eq. 10 of Kingma and Welling 2014, L = 1."""
        metrics = self.loss(images, 1.0)[1]
        return metrics["negative_elbo_nats"], metrics


def choose_likelihood(config: AutoencoderConfig, spec: DataSpec) -> str:
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


def check_size(config: AutoencoderConfig, spec: DataSpec) -> None:
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
