"""Priors of latents, learned or not, and divergences of posteriors from them.

Tensors of latents are (..., D), as in `genlab.distributions.posteriors`; log-probabilities are (...,) nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from genlab.device import numbers_at_once
from genlab.distributions.posteriors import (
    LOG_TWO_PI,
    LOG_VARIANCE_LIMIT,
    DiagonalNormal,
    Posterior,
    kl_to_standard_normal,
)
from genlab.rng import SampleRng


class Prior(nn.Module):
    """A distribution p(z) of latents.

    Args:
        latent: D, dimensions of a latent.
    """

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent

    def log_prob(self, latents: Tensor) -> Tensor:
        """Returns log p(z) of latents (..., D), (...,) nats."""
        raise NotImplementedError

    def sample(self, rng: SampleRng) -> Tensor:
        """Draws a latent for each stream of `rng`, (n, D)."""
        raise NotImplementedError

    def kl(self, posterior: Posterior) -> Tensor | None:
        """Returns KL(posterior || prior), (B,) nats, or None where it has no closed form."""
        return None

    def to_decoder(self, latents: Tensor) -> Tensor:
        """Returns what a decoder gets of latents: the latents themselves, but for `Uniform`."""
        return latents


class FactorizedPrior(Prior):
    """Independent dimensions of one kind, with closed-form divergences from normal posteriors."""

    def log_prob_of_dimensions(self, latents: Tensor) -> Tensor:
        """Returns the summands of `log_prob`, the shape of `latents`, nats."""
        raise NotImplementedError

    def cross_entropy(self, mean: Tensor, variance: Tensor) -> Tensor:
        """Returns -E log p(z) for each normal dimension z ~ N(mean, variance): the shape of `mean`, nats."""
        raise NotImplementedError

    def log_prob(self, latents: Tensor) -> Tensor:
        return self.log_prob_of_dimensions(latents).sum(-1)

    def kl(self, posterior: Posterior) -> Tensor:
        """Returns cross-entropy less entropy; only the second depends on correlations of dimensions."""
        return self.cross_entropy(posterior.mean, posterior.variance).sum(-1) - posterior.entropy()

    def kl_of_dimensions(self, posterior: DiagonalNormal) -> Tensor:
        """Returns the summands of `kl` for independent dimensions, (B, D) nats."""
        return self.cross_entropy(posterior.mean, posterior.variance) - posterior.entropy_of_dimensions()


class StandardNormal(FactorizedPrior):
    """N(0, I)."""

    def log_prob_of_dimensions(self, latents: Tensor) -> Tensor:
        return -(latents.square() + LOG_TWO_PI) / 2

    def cross_entropy(self, mean: Tensor, variance: Tensor) -> Tensor:
        return (mean.square() + variance + LOG_TWO_PI) / 2

    def kl(self, posterior: Posterior) -> Tensor:
        if isinstance(posterior, DiagonalNormal):
            return kl_to_standard_normal(posterior.mean, posterior.spread)
        return super().kl(posterior)

    def sample(self, rng: SampleRng) -> Tensor:
        return rng.normal(self.latent)


class Uniform(StandardNormal):
    """Uniform over [-1, 1]^D, of which the decoder gets 2 Phi(u) - 1 for a standard normal u.

    Everything here but `to_decoder` is of u: the posterior is a normal distribution of u, pushed through the
    same map. A divergence does not change under an invertible map of both its sides, so KL(posterior ||
    uniform) is the closed-form KL to N(0, I) of u, and log p - log q of a latent is that of its u.
    """

    def to_decoder(self, latents: Tensor) -> Tensor:
        """Returns 2 Phi(u) - 1 = erf(u / sqrt 2), in [-1, 1]."""
        return torch.erf(latents / math.sqrt(2))


class Laplace(FactorizedPrior):
    """The Laplace distribution of location 0 and scale 1 in each dimension, exp(-|z|) / 2."""

    def log_prob_of_dimensions(self, latents: Tensor) -> Tensor:
        return -latents.abs() - math.log(2)

    def cross_entropy(self, mean: Tensor, variance: Tensor) -> Tensor:
        """Returns log 2 + E|z|, the mean of a folded normal distribution (Leone et al. 1961)."""
        scaled = mean / (2 * variance).sqrt()
        folded = (2 * variance / math.pi).sqrt() * torch.exp(-scaled.square()) + mean * torch.erf(scaled)
        return folded + math.log(2)

    def sample(self, rng: SampleRng) -> Tensor:
        """Draws by inversion of the distribution function."""
        centred = rng.uniform(self.latent) - 0.5
        tail = (1 - 2 * centred.abs()).clamp(min=2.0**-25)  # a uniform number may be 0
        return -centred.sign() * tail.log()


class MixturePrior(Prior):
    """A learned mixture of K diagonal normal distributions. Its KL term is by samples.

    Args:
        components: K, >= 1.
    """

    def __init__(self, latent: int, components: int) -> None:
        super().__init__(latent)
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, latent))
        self.log_variances = nn.Parameter(torch.zeros(components, latent))

    def log_prob(self, latents: Tensor) -> Tensor:
        return log_prob_of_mixture(latents, self._components(), self.logits.log_softmax(0))

    def sample(self, rng: SampleRng) -> Tensor:
        cumulative = self.logits.softmax(0).cumsum(0)
        last = len(cumulative) - 1  # for a number over the sum of all, which rounding may leave under 1
        chosen = (rng.uniform(1) >= cumulative).sum(1).clamp(max=last)
        return self._components().rows(chosen).sample(rng.normal(self.latent))

    def _components(self) -> DiagonalNormal:
        limited = self.log_variances.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
        return DiagonalNormal(self.means, limited)


class VampPrior(Prior):
    """An even mixture of the posteriors of K learned pseudo-inputs (Tomczak and Welling 2018).

    Its KL term is by samples.

    Args:
        components: K, >= 1.
        shape: (C, H, W) of an image.
        bounded: pseudo-inputs are logits of pixels in [0, 1], as images need it and points do not.
        encode: gives the posterior of images (K, C, H, W); the model's encoder, which the prior shares.
    """

    def __init__(
        self,
        latent: int,
        components: int,
        shape: tuple[int, int, int],
        bounded: bool,
        encode: Callable[[Tensor], Posterior],
    ) -> None:
        super().__init__(latent)
        self.pseudo_inputs = nn.Parameter(torch.randn(components, *shape))
        self._bounded = bounded
        self._encode = encode

    def log_prob(self, latents: Tensor) -> Tensor:
        count = len(self.pseudo_inputs)
        even = torch.full((count,), -math.log(count), device=latents.device)
        return log_prob_of_mixture(latents, self._components(), even)

    def sample(self, rng: SampleRng) -> Tensor:
        chosen = rng.integers(len(self.pseudo_inputs))
        return self._components().rows(chosen).sample(rng.normal(self.latent))

    def _components(self) -> Posterior:
        return self._encode(self.pseudo_inputs.sigmoid() if self._bounded else self.pseudo_inputs)


def log_prob_of_mixture(latents: Tensor, components: Posterior, log_weights: Tensor) -> Tensor:
    """Returns log sum_k exp(log_weights_k) component_k(z) of latents (..., D), (...,) nats.

    Args:
        components: K distributions, their mean (K, D).
        log_weights: (K,), of weights that sum to 1.
    """
    rows = latents.reshape(-1, 1, latents.shape[-1])
    at_a_time = max(1, numbers_at_once(rows) // components.mean.numel())
    parts = [
        torch.logsumexp(components.log_prob(part.expand(-1, len(log_weights), -1)) + log_weights, -1)
        for part in rows.split(at_a_time)
    ]
    return torch.cat(parts).view(latents.shape[:-1])


def kl_decomposition(
    posterior: DiagonalNormal, latents: Tensor, prior: FactorizedPrior
) -> tuple[float, float, float]:
    """Returns the mean KL term of N images in three parts (Chen et al. 2018, eq. 2), nats.

    For images of equal probability, q(z) is the mean of their posteriors: it is summed in full, not from
    minibatches, and its expectations are over one latent of each image. The parts add up to the mean of
    log q(z | x) - log p(z) of these latents.

    Args:
        posterior: of the N images; time and memory grow with the square of N.
        latents: a sample of each, (N, D).

    Returns:
        the index-code mutual information, between 0 and log N in expectation; the total correlation of q(z);
        and the sum over dimensions of KL(q(z_j) || p(z_j)).
    """
    count = len(latents)
    joint = torch.zeros(count, count, dtype=latents.dtype, device=latents.device)
    of_dimensions = torch.zeros(count, dtype=latents.dtype, device=latents.device)
    for mean, log_variance, column in zip(
        posterior.mean.T, posterior.spread.T, latents.T, strict=True
    ):  # row i, column n: the density of latent i under the posterior of image n
        log_density = DiagonalNormal(mean, log_variance).log_prob_of_dimensions(column.unsqueeze(1))
        joint += log_density
        of_dimensions += log_density.logsumexp(1) - math.log(count)
    of_latent = joint.logsumexp(1) - math.log(count)
    return (
        (joint.diagonal() - of_latent).mean().item(),
        (of_latent - of_dimensions).mean().item(),
        (of_dimensions - prior.log_prob(latents)).mean().item(),
    )
