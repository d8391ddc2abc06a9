"""The base of models p(x, z) of images with latents z, with their encoders of posteriors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from genlab.config.autoencoders import LatentVariableConfig, NetworksConfig
from genlab.data.spec import Batch, DataSpec
from genlab.data.statistics import PixelStatistics
from genlab.data.subsets import subset
from genlab.device import numbers_at_once
from genlab.distributions.likelihoods import (
    SMALLEST_SIGMA,
    SMALLEST_SPREAD,
    DiscretizedLogistic,
    Likelihood,
    bits_per_dim,
    make_likelihood,
)
from genlab.distributions.posteriors import POSTERIORS, DiagonalNormal, Posterior
from genlab.distributions.priors import (
    FactorizedPrior,
    Laplace,
    MixturePrior,
    Prior,
    StandardNormal,
    Uniform,
    VampPrior,
    kl_decomposition,
)
from genlab.errors import ConfigError
from genlab.families.base import LatentFamily, Loader
from genlab.families.checks import check_sides
from genlab.metrics.two_samples import accuracy_between
from genlab.nets.autoencoder import Shape, choose_network, make_decoder, make_encoder
from genlab.nets.start import Offset, shrink_posterior
from genlab.rng import SampleRng

_ACTIVE_VARIANCE = 0.01
_COMPARED_IMAGES, _FEWEST_COMPARED = 1000, 100
_APART = 0.85  # of digits and MNIST that are well drawn 0.66 to 0.78; of noise 0.99 and more
_DECOMPOSED_IMAGES = 1000  # a validation during training takes them too
_ROWS_AT_ONCE = 2**13  # decoded for an importance-weighted bound, however few their pixels


class LatentNet(nn.Module):
    """Encoder, decoder and prior; a subclass says of what latents.

    Attributes:
        prior_name: see `Family.latent_prior`.
        log_sigma: the Gaussian likelihood's log standard deviation, where it is learned.
    """

    encoder: nn.Module
    decoder: nn.Module
    prior: Prior
    prior_name: str
    log_sigma: nn.Parameter | None

    def start(self, outputs: Tensor) -> None:
        """Sets the constant that the decoder adds to its outputs, (C, H, W)."""
        offset = self.decoder.offset
        assert isinstance(offset, Offset)
        offset.set(outputs)

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Posterior:
        """Returns the posterior of each image, float32."""
        raise NotImplementedError

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns the decoder's outputs for latents (n, latent)."""
        return _given(labels, self.decoder, self.prior.to_decoder(latents))


class VAENet(LatentNet):
    """Normal posteriors of a latent vector, and a choice of priors.

    Args:
        config, spec: see LatentVariableConfig; of the images.
        outputs: channels of the decoder's result.
        learns_sigma: holds the Gaussian likelihood's log standard deviation as a weight.
        classes: of labels that both networks see; 0 for none.
    """

    def __init__(
        self, config: LatentVariableConfig, spec: DataSpec, outputs: int, learns_sigma: bool, classes: int = 0
    ) -> None:
        super().__init__()
        self.latent, self.posterior, self.classes = config.latent, POSTERIORS[config.posterior], classes
        self.encoder, self.decoder = self._make_networks(config, spec.shape, (outputs, *spec.shape[1:]))
        self.log_sigma = make_log_sigma(learns_sigma)
        self.prior = self._make_prior(config, spec)
        # The uniform prior is that of a latent whose distribution function the decoder gets.
        normal = config.prior in ("standard_normal", "uniform")
        self.prior_name = "normal" if normal else config.prior

    def forward(
        self, images: Tensor, noise: Tensor, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the posterior's mean and spread, float32, and outputs for a latent of each image.

        The latent is that of standard normal noise (B, latent); see `genlab.distributions.posteriors`.
        """
        posterior = self.encode(images, labels)
        return posterior.mean, posterior.spread, self.decode(posterior.sample(noise), labels)

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Posterior:
        return self.posterior.read(_given(labels, self.encoder, images), self.latent)

    def _make_networks(
        self, config: LatentVariableConfig, shape: Shape, out_shape: Shape
    ) -> tuple[nn.Module, nn.Module]:
        """Returns encoder and decoder, for images and outputs of these shapes."""
        numbers = self.posterior.count(config.latent)
        return make_networks(config, shape, out_shape, numbers, config.latent, self.classes)

    def _make_prior(self, config: LatentVariableConfig, spec: DataSpec) -> Prior:
        match config.prior:
            case "standard_normal":
                return StandardNormal(config.latent)
            case "uniform":
                return Uniform(config.latent)
            case "laplace":
                return Laplace(config.latent)
            case "mixture":
                return MixturePrior(config.latent, config.prior_components)
            case "vampprior":
                bounded = spec.kind == "images"
                return VampPrior(config.latent, config.prior_components, spec.shape, bounded, self.encode)


def make_networks(
    config: NetworksConfig, shape: Shape, out_shape: Shape, numbers: int, latent: int, classes: int = 0
) -> tuple[nn.Module, nn.Module]:
    """Returns encoder and decoder, for images and outputs of these shapes.

    Args:
        numbers: that the encoder gives for a posterior.
        latent: that the decoder gets of a latent.
        classes: of labels that both see; 0 for none.
    """
    network = choose_network(config.network, *shape[1:])
    sizes: dict[str, Any] = {"hidden": config.hidden, "width": config.width, "classes": classes}
    encoder = make_encoder(network, shape, outputs=numbers, **sizes)
    shrink_posterior(encoder.last, latent)
    return encoder, make_decoder(network, out_shape, latent=latent, **sizes)


def make_log_sigma(learned: bool) -> nn.Parameter | None:
    """Returns the logarithm of a learned standard deviation, a tenth of the range to begin with."""
    return nn.Parameter(torch.tensor(math.log(0.1))) if learned else None


def start_log_sigma(log_sigma: nn.Parameter | None, statistics: PixelStatistics) -> None:
    """Starts a learned standard deviation at that of the data around the means of their pixels."""
    if log_sigma is not None:
        with torch.no_grad():
            log_sigma.copy_(statistics.std.square().mean().clamp(min=SMALLEST_SPREAD**2).log() / 2)


def sigma_warning(numbers: Mapping[str, float]) -> dict[str, str]:
    """Warns of a learned standard deviation at its lower bound, from the numbers of a split."""
    if numbers.get("sigma", math.inf) > SMALLEST_SIGMA * 1.01:
        return {}
    return {
        "sigma_at_bound": f"sigma has fallen to its bound, {SMALLEST_SIGMA:.1g}: the density grows without "
        "limit where pixels are the same in all images, so that its nats say little; use "
        "dataset.dequantize=true, or fix it, e.g. model.sigma=0.05"
    }


class LatentVariableModel(LatentFamily):
    """A decoder, a prior and an encoder of posteriors, one player; a subclass says how they are trained.

    One that takes labels has them in both networks, and everything here is then of images given their labels.
    """

    Config: ClassVar[type] = LatentVariableConfig
    Network: ClassVar[Callable[..., LatentNet]] = VAENet
    players = ("vae",)
    sampled_by = ("vae",)
    takes_importance_samples = True
    encodes = True

    vae: LatentNet

    def __init__(self, config: Any, spec: DataSpec) -> None:
        super().__init__(config, spec)
        check_size(config, spec)
        self.likelihood_name = choose_likelihood(config, spec)
        gaussian = self.likelihood_name == "gaussian"
        parameters = DiscretizedLogistic.parameters if self.likelihood_name == "discretized_logistic" else 1
        learns_sigma = gaussian and config.sigma is None
        classes = spec.classes if self.takes_labels else 0
        self.vae = self.Network(config, spec, parameters * spec.channels, learns_sigma, classes)
        self.latent_prior = self.vae.prior_name

    def begin(self, statistics: PixelStatistics | None, load: Loader | None = None) -> None:
        """The decoder starts at independent pixels with the means and spreads of the training data."""
        assert statistics is not None
        self.vae.start(self.likelihood.outputs_of(statistics))
        start_log_sigma(self.vae.log_sigma, statistics)

    def draw_noise(self, rng: SampleRng, *samples: int) -> Tensor:
        """Draws the standard normal numbers that posteriors turn into latents, (n, *samples, latent)."""
        return rng.normal(*samples, self.config.latent)

    @property
    def likelihood(self) -> Likelihood:
        """Returns the likelihood, made when asked for: the moving average has its own standard deviation."""
        return make_likelihood(self.likelihood_name, self.spec, self.config.sigma, self.vae.log_sigma)

    def terms(
        self, images: Tensor, noise: Tensor, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns -log p(x | z) and the KL term, (B,) nats each, and the posterior's mean, (B, latent)."""
        posterior, log_likelihood = self.infer(images, noise, labels)
        return -log_likelihood, self.divergence(posterior, noise), posterior.mean

    def infer(self, images: Tensor, noise: Tensor, labels: Tensor | None = None) -> tuple[Posterior, Tensor]:
        """Returns the posterior, and log p(x | z) of its sample for noise (B, latent): (B,) nats."""
        assert isinstance(self.vae, VAENet)
        mean, spread, outputs = _given(labels, self.vae, images, noise)
        return self.vae.posterior(mean, spread), self.likelihood.log_prob(outputs, images)

    def divergence(self, posterior: Posterior, noise: Tensor) -> Tensor:
        """Returns the KL term, (B,) nats: in closed form, or log q(z | x) - log p(z) of the sample."""
        closed = self.vae.prior.kl(posterior)
        if closed is not None:
            return closed
        latents = posterior.sample(noise)
        return posterior.log_prob(latents) - self.vae.prior.log_prob(latents)

    def log_weights(
        self, images: Tensor, posterior: Posterior, latents: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """Returns log p(x, z) - log q(z | x) of S latents (S, B, latent) for each of B images: (S, B) nats.

        Images and samples are one batch of S B rows to the decoder.
        """
        repeated = None if labels is None else labels.repeat(len(latents))
        outputs = self.vae.decode(latents.flatten(0, 1), repeated).unflatten(0, latents.shape[:2])
        log_likelihood = self.likelihood.log_prob(outputs, images)
        return log_likelihood + self.vae.prior.log_prob(latents) - posterior.log_prob(latents)

    def importance_weighted_nats(
        self, images: Tensor, samples: int, rng: SampleRng, labels: Tensor | None = None
    ) -> Tensor:
        """Returns -log(1/K sum_k p(x, z_k) / q(z_k | x)) (Burda et al. 2016, eq. 8), (B,) nats.

        An upper bound on -log p(x) in expectation, which falls towards it as K rises. The encoder runs once;
        the sum over samples is taken in parts, so that memory does not grow with K.

        Args:
            samples: K, >= 1.
            rng: a stream for each image.
        """
        posterior = self.vae.encode(images, labels)
        rows = max(len(images), min(_ROWS_AT_ONCE, numbers_at_once(images) // self.spec.dimensions))
        log_sum = torch.full((len(images),), -math.inf, device=images.device)
        for part in torch.arange(samples).split(rows // len(images)):
            noise = self.draw_noise(rng, len(part)).transpose(0, 1)
            log_weights = self.log_weights(images, posterior, posterior.sample(noise), labels)
            log_sum = torch.logaddexp(log_sum, log_weights.logsumexp(0))
        return math.log(samples) - log_sum

    def sample(self, n: int, *, rng: SampleRng, labels: Tensor | None = None) -> Tensor:
        """Draws latents of the prior; their images are likelihood means, or draws if not `sample_mean`.

        Labels are drawn evenly where none are given, if the family takes them.
        """
        latents = self.vae.prior.sample(rng)
        if self.takes_labels and labels is None:
            labels = rng.integers(self.spec.classes)
        outputs = self.vae.decode(latents, labels)
        return (
            self.likelihood.mean(outputs) if self.config.sample_mean else self.likelihood.sample(outputs, rng)
        )

    def evaluate(
        self, batch: Batch, *, rng: SampleRng, importance_samples: int | None = None
    ) -> dict[str, Tensor]:
        """Returns the negative evidence lower bound of each image, one sample of its posterior.

        Args:
            importance_samples: for an importance-weighted bound beside it; None for none.

        Returns:
            elbo_nats: an upper bound on -log p(x): lower is better. Beta, warm-up and free bits have no part.
            elbo_bits_per_dim: of the stored levels; left out for a density of values not dequantised.
            reconstruction_nats, kl_nats: its two terms.
            importance_weighted_nats, importance_weighted_bits_per_dim: see the method of that name; the
                bits as above.
            posterior_mean: (B, latent), for `summarize`; so are posterior_sample and, of a diagonal posterior
                and a prior with independent dimensions, posterior_log_variance.
        """
        images, labels, noise = batch.images, self.labels_of(batch), self.draw_noise(rng)
        posterior, log_likelihood = self.infer(images, noise, labels)
        reconstruction, kl = -log_likelihood, self.divergence(posterior, noise)
        values = {"elbo_nats": reconstruction + kl, "reconstruction_nats": reconstruction, "kl_nats": kl}
        values |= self._bits_per_dim("elbo", values["elbo_nats"])
        if importance_samples is not None:
            nats = self.importance_weighted_nats(images, importance_samples, rng, labels)
            values["importance_weighted_nats"] = nats
            values |= self._bits_per_dim("importance_weighted", nats)
        values |= {"posterior_mean": posterior.mean, "posterior_sample": posterior.sample(noise).flatten(1)}
        if isinstance(posterior, DiagonalNormal) and isinstance(self.vae.prior, FactorizedPrior):
            values["posterior_log_variance"] = posterior.spread
        return values

    def _bits_per_dim(self, name: str, nats: Tensor) -> dict[str, Tensor]:
        """Returns nats (B,) as NAME_bits_per_dim of the stored levels; see `likelihoods.bits_per_dim`."""
        return bits_per_dim(name, nats, self.likelihood, self.spec)

    def summarize(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Returns how the latents are used, over a split.

        Returns:
            active_units: how many latents are; see `active`.
            prior_posterior_accuracy, sigma: see the methods of these names.
            index_code_mutual_information_nats, total_correlation_nats, dimension_wise_kl_nats: the KL term of
                1,000 images in three parts, see `genlab.distributions.priors.kl_decomposition`.
        """
        means = values["posterior_mean"]
        if len(means) < 2:
            return {}
        numbers: dict[str, float] = {"active_units": int(active(means).sum())} | self.sigma()
        numbers |= self.prior_posterior_accuracy(values)
        if "posterior_log_variance" not in values:
            return numbers
        some = subset(len(means), _DECOMPOSED_IMAGES)
        of_some = [
            values[name][some] for name in ("posterior_mean", "posterior_log_variance", "posterior_sample")
        ]
        assert isinstance(self.vae.prior, FactorizedPrior)
        parts = kl_decomposition(DiagonalNormal(*of_some[:2]), of_some[2], self.vae.prior)
        names = ("index_code_mutual_information", "total_correlation", "dimension_wise_kl")
        return numbers | {f"{name}_nats": part for name, part in zip(names, parts, strict=True)}

    @torch.no_grad()
    def prior_posterior_accuracy(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Returns how well a classifier tells latents from draws of the prior; see `metrics.two_samples`.

        1/2 says that the prior draws what images are encoded to, for all that the classifier sees; near 1,
        the decoder was never shown what it gets in `sample`.

        Args:
            values: as `summarize` gets them; a thousand of their posterior_sample are taken.

        Returns:
            the share under that name; nothing for less than a hundred of them.
        """
        latents = values.get("posterior_sample")
        if latents is None or len(latents) < _FEWEST_COMPARED:
            return {}
        latents = latents[subset(len(latents), _COMPARED_IMAGES)]
        device = next(self.parameters()).device
        drawn = self.vae.prior.sample(SampleRng(0, range(len(latents)), device, purpose="prior")).flatten(1)
        return {"prior_posterior_accuracy": accuracy_between(latents, drawn.cpu())}

    def sigma(self) -> dict[str, float]:
        """Returns the standard deviation of a Gaussian likelihood under that name, where it is learned."""
        return {} if self.vae.log_sigma is None else {"sigma": self.vae.log_sigma.exp().item()}

    def validation_warnings(self, numbers: Mapping[str, float]) -> dict[str, str]:
        """Warns of a collapsed posterior, a prior unlike the posterior, and sigma at its bound."""
        found = sigma_warning(numbers)
        if numbers.get("active_units", math.inf) == 0:
            found["posterior_collapse"] = (
                f"the posterior has collapsed: no latent says anything of an image (kl_nats "
                f"{numbers['kl_nats']:.2g}), so that all samples are alike; {self.collapse_remedy()}"
            )
        accuracy = numbers.get("prior_posterior_accuracy", 0.0)
        if accuracy > _APART:
            found["prior_apart"] = (
                f"prior and posterior are apart: a classifier tells draws of the prior from latents of "
                f"images in {accuracy:.0%} of cases, so that samples will not look like the data; "
                f"{self.prior_remedy()}"
            )
        return found

    def collapse_remedy(self) -> str:
        """Returns what to try against a collapsed posterior: settings that this model has."""
        tried = {
            "kl_warmup": "model.kl_warmup=0.2",
            "free_bits": "model.free_bits=0.1",
            "beta": "a lower model.beta",
        }
        known = [words for name, words in tried.items() if name in self._settings]
        return "try " + ", ".join([*known, "a lower optimizer.lr"])

    def prior_remedy(self) -> str:
        """Returns what to try against a prior unlike the posterior: settings that this model has."""
        remedies = []
        if "prior" in self._settings and self.config.prior not in ("vampprior", "mixture"):
            learned = "mixture" if self.takes_labels else "vampprior"
            # without a warm-up its posterior may collapse, and its KL term in training falls to 0 with it
            warmup = " model.kl_warmup=0.2" if "kl_warmup" in self._settings else ""
            remedies.append(f"train with model.prior={learned}{warmup}")
        elif "beta" in self._settings:
            remedies.append("train with a higher model.beta")
        if self.spec.kind == "images":
            remedies.append("sample with prior=fit")
        return ", or ".join(remedies)

    @property
    def _settings(self) -> set[str]:
        return {field.name for field in dataclasses.fields(self.config)}

    def pictures(self, batch: Batch, *, rng: SampleRng) -> dict[str, Tensor]:
        """Returns reconstructions: rows of originals, each above the row of their reconstructions."""
        if self.spec.kind != "images":
            return {}
        images = batch.images[: len(batch.images) // 10 * 10 or len(batch.images)]
        labels = self.labels_of(batch)
        labels = None if labels is None else labels[: len(images)]
        latents = self.vae.encode(images, labels).sample(self.draw_noise(rng)[: len(images)])
        restored = self.decode(latents, labels)
        columns = min(10, len(images))
        rows = torch.stack(
            [images.view(-1, columns, *self.spec.shape), restored.view(-1, columns, *self.spec.shape)], 1
        )
        return {"reconstructions": rows.flatten(0, 1)}

    def facts(self) -> dict[str, Any]:
        kind = "probability of levels"
        if self.likelihood.density:
            kind = "density of points" if self.spec.kind == "points" else "density of values in [0, 1]"
        return {
            "bound": "negative ELBO, 1 posterior sample",
            "likelihood": f"{self.likelihood_name} ({kind})",
        }

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.vae.encode(images, labels).mean

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.likelihood.mean(self.vae.decode(latents, labels))

    def prior_latents(self, rng: SampleRng) -> Tensor:
        return self.vae.prior.sample(rng)

    def labels_of(self, batch: Batch) -> Tensor | None:
        """Returns the labels of a batch, (B,), for a family that takes them."""
        return batch.labels if self.takes_labels else None


def active(means: Tensor) -> Tensor:
    """Returns which latents have a posterior mean of a variance over 0.01 (Burda et al. 2016, section 5.2).

    Args:
        means: of N images, (N, L).

    Returns:
        (L,) bool.
    """
    return means.var(0) > _ACTIVE_VARIANCE


def _given(labels: Tensor | None, network: nn.Module, *inputs: Tensor) -> Any:
    """Returns the outputs of a network for inputs, and labels where there are some."""
    return network(*inputs) if labels is None else network(*inputs, labels)


def choose_likelihood(config: NetworksConfig, spec: DataSpec) -> str:
    """Returns the likelihood that `auto` stands for, or the user's, if it is one of such images.

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


def check_size(config: NetworksConfig, spec: DataSpec) -> None:
    """Refuses images that the convolutional networks cannot halve to a sensible size.

    Raises:
        ConfigError: a side under 8 or over 64 pixels, or no data at all.
    """
    if spec.kind == "none":
        raise ConfigError(
            f"dataset={spec.name}: {config.name} needs data; choose e.g. dataset=digits or dataset=ring"
        )
    network = choose_network(config.network, spec.height, spec.width)
    if network != "mlp":
        check_sides(f"model.network={network}", "it", spec, remedy="use dataset.size=32 or model.network=mlp")
