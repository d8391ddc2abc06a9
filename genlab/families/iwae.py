"""The importance-weighted autoencoder (Burda et al. 2016)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from genlab.config.autoencoders import IWAEConfig
from genlab.data.spec import Batch
from genlab.families.base import Metrics, UpdateProtocol
from genlab.families.latent_variable import LatentVariableModel
from genlab.rng import SampleRng


class IWAE(LatentVariableModel):
    """A family that maximises the bound of K importance samples; with K = 1 it is the VAE."""

    Config = IWAEConfig

    def step(self, batches: Iterator[Batch], update: UpdateProtocol) -> Metrics:
        """A step up the gradient of the bound by reparameterised samples (Burda et al. 2016, section 3)."""
        return update("vae", self.loss, next(batches).images)

    def loss(self, images: Tensor) -> tuple[Tensor, Metrics]:
        """Returns `objective` for fresh noise."""
        shape = (self.config.importance_samples, len(images), self.config.latent)
        return self.objective(images, torch.randn(shape, device=images.device))

    def objective(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Metrics]:
        """Returns -log(1/K sum_k w_k), w_k = p(x, z_k) / q(z_k | x), averaged over images.

        Burda et al. 2016, eq. 8. Its gradient weighs that of log w_k by w_k over the sum of all. Doubly
        reparameterised, the encoder's gradient flows through the latents alone, and weighs them by the square
        (Tucker et al. 2019, eq. 8): the same in expectation, and less noisy.

        Args:
            noise: standard normal, (K, B, latent).
        """
        posterior = self.vae.encode(images)
        latents = posterior.sample(noise)
        if not self.config.doubly_reparameterized:
            log_weights = self.log_weights(images, posterior, latents)
            loss = math.log(len(noise)) - log_weights.logsumexp(0).mean()
        else:
            log_weights = self.log_weights(images, posterior.detach(), latents)
            shares = log_weights.detach().softmax(0)
            if latents.requires_grad:
                latents.register_hook(lambda gradient: gradient * shares.unsqueeze(-1))
            surrogate = -(shares * log_weights).sum(0).mean()
            value = math.log(len(noise)) - log_weights.logsumexp(0).mean()
            loss = surrogate + (value - surrogate).detach()
        return loss, {"importance_weighted_nats": loss, "negative_elbo_nats": -log_weights.mean()}

    def evaluate(
        self, batch: Batch, *, rng: SampleRng, importance_samples: int | None = None
    ) -> dict[str, Tensor]:
        """Returns the numbers of a variational autoencoder, and a bound of K samples by default."""
        samples = importance_samples or self.config.importance_samples
        return super().evaluate(batch, rng=rng, importance_samples=samples)

    def facts(self) -> dict[str, Any]:
        samples = self.config.importance_samples
        return super().facts() | {"importance_weighted_bound": f"{samples} posterior samples"}

    def compile_networks(self) -> None:
        """The two networks one by one, since a step calls each of them for itself."""
        self.vae.encoder.compile()
        self.vae.decoder.compile()
