"""The variational autoencoder with categorical latents (Jang et al. 2017; Maddison et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from genlab.config.autoencoders import CategoricalVAEConfig
from genlab.data.spec import Batch, DataSpec
from genlab.distributions.categorical import (
    CategoricalPosterior,
    EvenCategorical,
    gumbel_noise,
    one_hot,
    temperature_at,
)
from genlab.distributions.posteriors import Posterior
from genlab.families.base import Metrics, UpdateProtocol
from genlab.families.latent_variable import LatentNet, LatentVariableModel, make_log_sigma, make_networks
from genlab.families.vae import kl_weight
from genlab.rng import SampleRng

_ACTIVE_VARIANCE = 0.01


class CategoricalNet(LatentNet):
    """Categorical posteriors and an even prior; for the arguments see `VAENet`, of labels there are none."""

    def __init__(
        self, config: CategoricalVAEConfig, spec: DataSpec, outputs: int, learns_sigma: bool, classes: int = 0
    ) -> None:
        super().__init__()
        self.variables, self.straight_through = config.variables, config.straight_through
        numbers = config.variables * config.classes
        out_shape = (outputs, *spec.shape[1:])
        self.encoder, self.decoder = make_networks(config, spec.shape, out_shape, numbers, numbers, classes)
        self.log_sigma = make_log_sigma(learns_sigma)
        self.prior, self.prior_name = EvenCategorical(config.variables, config.classes), "categorical"

    def forward(self, images: Tensor, noise: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the posterior's two tensors, and the decoder's outputs for a relaxed latent of each image.

        Args:
            noise: Gumbel's, (B, variables, classes).
            temperature: a scalar.
        """
        posterior = self.encode(images)
        latents = posterior.relax(noise, temperature, self.straight_through)
        return posterior.mean, posterior.spread, self.decode(latents)

    def encode(self, images: Tensor, labels: Tensor | None = None) -> CategoricalPosterior:
        return CategoricalPosterior.of_logits(self.encoder(images).unflatten(1, (self.variables, -1)))


class CategoricalVAE(LatentVariableModel):
    """A variational autoencoder that trains on relaxed latents, and evaluates and samples one-hot ones."""

    Config = CategoricalVAEConfig
    Network = CategoricalNet

    def __init__(self, config: CategoricalVAEConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.latent_classes = config.classes

    def draw_noise(self, rng: SampleRng, *samples: int) -> Tensor:
        """Draws uniform numbers, (n, *samples, variables), that the posterior turns into one-hot latents."""
        return rng.uniform(*samples, self.config.variables)

    def infer(self, images: Tensor, noise: Tensor, labels: Tensor | None = None) -> tuple[Posterior, Tensor]:
        """Returns the posterior, and log p(x | z) of its one-hot sample for uniform noise: (B,) nats."""
        posterior = self.vae.encode(images)
        outputs = self.vae.decode(posterior.sample(noise))
        return posterior, self.likelihood.log_prob(outputs, images)

    def step(self, batches: Iterator[Batch], update: UpdateProtocol) -> Metrics:
        """One step at the temperature, and the weight of the KL term, that progress gives."""
        config, progress = self.config, update.step / update.steps
        weight = kl_weight(config.beta, config.kl_warmup, progress)
        temperature = temperature_at(config.start_temperature, config.final_temperature, progress)
        return update("vae", lambda images: self.loss(images, weight, temperature), next(batches).images)

    def loss(self, images: Tensor, kl_weight: float, temperature: float) -> tuple[Tensor, Metrics]:
        """Returns `objective` for fresh noise."""
        shape = (len(images), self.config.variables, self.config.classes)
        return self.objective(images, gumbel_noise(*shape, device=images.device), kl_weight, temperature)

    def objective(
        self, images: Tensor, noise: Tensor, kl_weight: float, temperature: float
    ) -> tuple[Tensor, Metrics]:
        """Returns -log p(x | relaxed z) + kl_weight * KL(q(z | x) || p(z)), averaged over images.

        The KL term is that of the discrete z.

        Jang et al. 2017, section 4.2. Of relaxed latents it is no bound, and its metrics are named so; with
        straight-through the latents are draws of q(z | x).

        Args:
            noise: Gumbel's, (B, variables, classes).
        """
        # A tensor, so that a compiled network is compiled once for all temperatures.
        on_device = torch.full((), temperature, device=images.device)
        mean, spread, outputs = self.vae(images, noise, on_device)
        reconstruction = -self.likelihood.log_prob(outputs, images).mean()
        kl = self.divergence(CategoricalPosterior(mean, spread), noise).mean()
        kind = "" if self.config.straight_through else "relaxed_"
        metrics = {
            f"{kind}negative_elbo_nats": reconstruction + kl,
            f"{kind}reconstruction_nats": reconstruction,
            "kl_nats": kl,
            "temperature": on_device,
        }
        return reconstruction + kl_weight * kl, metrics

    def summarize(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Returns how the variables are used, over a split.

        Returns:
            active_variables: those whose posterior probabilities have a variance over 0.01, summed over
                classes: the one of their mean code in Burda et al. 2016, 5.2.
            class_perplexity: exp H of a variable's classes over the split, from 1 to K; the mean of all
                variables. A high one says that all classes are used.
            prior_posterior_accuracy, sigma: see the methods of these names.
            class_usage: share of all classes that are some image's most probable one of their variable.
        """
        means = values["posterior_mean"].unflatten(1, (self.config.variables, self.config.classes))
        if len(means) < 2:
            return {}
        shares = means.mean(0)
        entropy = -torch.special.xlogy(shares, shares).sum(1)
        used = one_hot(means.argmax(2), self.config.classes).amax(0)
        return (
            self.sigma()
            | self.prior_posterior_accuracy(values)
            | {
                "active_variables": int((means.var(0).sum(1) > _ACTIVE_VARIANCE).sum()),
                "class_perplexity": entropy.exp().mean().item(),
                "class_usage": used.mean().item(),
            }
        )

    def validation_warnings(self, numbers: Mapping[str, float]) -> dict[str, str]:
        """Warns as a variational autoencoder does, whose latents are the variables here."""
        units = {"active_units": numbers.get("active_variables", math.inf)}
        return super().validation_warnings({**numbers, **units})

    def facts(self) -> dict[str, Any]:
        latents = f"{self.config.variables} variables of {self.config.classes} classes, one-hot"
        return super().facts() | {"latents": latents}
