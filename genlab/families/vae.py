"""The variational autoencoder (Kingma and Welling 2014), with a choice of priors and posteriors."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from genlab.config.autoencoders import VAEConfig
from genlab.config.run import TrainConfig
from genlab.data.spec import Batch
from genlab.distributions.posteriors import DiagonalNormal
from genlab.distributions.priors import FactorizedPrior
from genlab.errors import ConfigError
from genlab.families.base import Metrics, UpdateProtocol
from genlab.families.latent_variable import LatentVariableModel


class VAE(LatentVariableModel):
    """A family that maximises the evidence lower bound; its two networks are trained together."""

    Config = VAEConfig

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        """Refuses free bits where the KL term is no sum over dimensions.

        Raises:
            ConfigError: it is none.
        """
        super().check(config)
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
        weight = kl_weight(self.config.beta, self.config.kl_warmup, update.step / update.steps)
        batch = next(batches)
        labels = self.labels_of(batch)
        given = (batch.images,) if labels is None else (batch.images, labels)
        return update("vae", lambda images, *labels: self.loss(images, weight, *labels), *given)

    def loss(self, images: Tensor, kl_weight: float, labels: Tensor | None = None) -> tuple[Tensor, Metrics]:
        """Returns `objective` for fresh noise, one sample of each posterior."""
        noise = torch.randn(len(images), self.config.latent, device=images.device)
        return self.objective(images, noise, kl_weight, labels)

    def objective(
        self, images: Tensor, noise: Tensor, kl_weight: float, labels: Tensor | None = None
    ) -> tuple[Tensor, Metrics]:
        """Returns -log p(x | z) + kl_weight * KL, each summed over dimensions and averaged over images.

        Under free bits the KL term of a dimension, averaged over the images, counts as no less than they are
        (Kingma et al. 2016, free bits, with a group for each dimension).

        Args:
            noise: standard normal, (B, latent).
        """
        posterior, log_likelihood = self.infer(images, noise, labels)
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

    def batch_statistics(self) -> list[str]:
        return super().batch_statistics() + ["model.free_bits"] * (self.config.free_bits > 0)

    def negative_elbo(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Metrics]:
        """Returns the bound itself, whatever the loss: minus eq. 10 of Kingma and Welling 2014, L = 1."""
        metrics = self.loss(images, 1.0, labels)[1]
        return metrics["negative_elbo_nats"], metrics


def kl_weight(beta: float, warmup: float, progress: float) -> float:
    """Returns the weight of the KL term: it rises in a straight line from 0 to beta over the warm-up.

    Args:
        warmup, progress: shares of the run.
    """
    return beta * (min(1.0, progress / warmup) if warmup > 0 else 1.0)
