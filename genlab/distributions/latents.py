"""Distributions of latents: the posteriors that an encoder gives, and priors.

A latent z is a vector of D real numbers. Tensors of latents are (..., B, D): a posterior of B images takes
samples along the dimensions before B. Log-probabilities are summed over D: (..., B) nats, in float32.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from genlab.device import numbers_at_once
from genlab.rng import SampleRng

_LOG_VARIANCE_LIMIT = 14.0  # far outside what trains, well inside what float32 can exponentiate
_LOG_TWO_PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class Posterior:
    """A normal distribution q(z | x) of latents for each of B images, reparameterised by normal noise.

    It is two tensors, so that a compiled network can give them and a class here reads them.

    Args:
        mean: (B, D).
        spread: what else it is made of, B along the first dimension; the class says what.
    """

    mean: Tensor
    spread: Tensor

    @staticmethod
    def count(latent: int) -> int:
        """Numbers that an encoder gives for a posterior over `latent` dimensions."""
        raise NotImplementedError

    @classmethod
    def read(cls, numbers: Tensor, latent: int) -> Self:
        """The posterior that an encoder's outputs, (B, count(latent)) of any precision, stand for."""
        raise NotImplementedError

    @property
    def variance(self) -> Tensor:
        """Of each dimension by itself, (B, D)."""
        raise NotImplementedError

    def sample(self, noise: Tensor) -> Tensor:
        """Latents of standard normal noise, (..., B, D) both (Kingma and Welling 2014, section 2.4)."""
        raise NotImplementedError

    def log_prob(self, latents: Tensor) -> Tensor:
        """log q(z | x) of latents (..., B, D), (..., B) nats."""
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """(B,) nats."""
        raise NotImplementedError

    def detach(self) -> Self:
        """The same without gradients to its parameters."""
        return dataclasses.replace(self, mean=self.mean.detach(), spread=self.spread.detach())

    def rows(self, indices: Tensor) -> Self:
        """Those of the images `indices`, (n,)."""
        return dataclasses.replace(self, mean=self.mean[indices], spread=self.spread[indices])


@dataclass(frozen=True)
class DiagonalNormal(Posterior):
    """Independent dimensions (Kingma and Welling 2014, eq. 9); `spread` is the log-variance, (B, D)."""

    @staticmethod
    def count(latent: int) -> int:
        return 2 * latent

    @classmethod
    def read(cls, numbers: Tensor, latent: int) -> Self:
        mean, log_variance = numbers.float().chunk(2, dim=1)
        return cls(mean, log_variance.clamp(-_LOG_VARIANCE_LIMIT, _LOG_VARIANCE_LIMIT))

    @property
    def variance(self) -> Tensor:
        return self.spread.exp()

    def sample(self, noise: Tensor) -> Tensor:
        return self.mean + torch.exp(self.spread / 2) * noise

    def log_prob_of_dimensions(self, latents: Tensor) -> Tensor:
        """The summands of `log_prob`, (..., B, D) nats."""
        deviation = (latents - self.mean) * torch.exp(-self.spread / 2)
        return -(deviation.square() + self.spread + _LOG_TWO_PI) / 2

    def log_prob(self, latents: Tensor) -> Tensor:
        return self.log_prob_of_dimensions(latents).sum(-1)

    def entropy_of_dimensions(self) -> Tensor:
        """The summands of `entropy`, (B, D) nats."""
        return (self.spread + 1 + _LOG_TWO_PI) / 2

    def entropy(self) -> Tensor:
        return self.entropy_of_dimensions().sum(-1)


@dataclass(frozen=True)
class FullNormal(Posterior):
    """Any covariance L L^T (Kingma and Welling 2019, section 2.5.1).

    `spread` is the Cholesky factor L, (B, D, D): lower triangular, with a positive diagonal.
    """

    @staticmethod
    def count(latent: int) -> int:
        return 2 * latent + latent * (latent - 1) // 2

    @classmethod
    def read(cls, numbers: Tensor, latent: int) -> Self:
        sizes = [latent, latent, latent * (latent - 1) // 2]
        mean, log_square, below = numbers.float().split(sizes, dim=1)
        factor = torch.diag_embed(torch.exp(log_square.clamp(-_LOG_VARIANCE_LIMIT, _LOG_VARIANCE_LIMIT) / 2))
        rows, columns = torch.tril_indices(latent, latent, -1, device=numbers.device)
        # Over D, so that D numbers below the diagonal do not outweigh the one on it when training begins.
        factor[:, rows, columns] = below / latent
        return cls(mean, factor)

    @property
    def variance(self) -> Tensor:
        return self.spread.square().sum(-1)

    def sample(self, noise: Tensor) -> Tensor:
        with torch.autocast(noise.device.type, enabled=False):  # never in half precision
            return self.mean + torch.einsum("bij,...bj->...bi", self.spread, noise)

    def log_prob(self, latents: Tensor) -> Tensor:
        deviation = (latents - self.mean).reshape(-1, *self.mean.shape)
        # One system for each image, with all its samples as right-hand sides.
        standard = torch.linalg.solve_triangular(self.spread, deviation.permute(1, 2, 0), upper=False)
        squares = standard.square().sum(1).T.reshape(latents.shape[:-1])
        return -(squares + self.mean.shape[-1] * _LOG_TWO_PI) / 2 - self._log_determinant()

    def entropy(self) -> Tensor:
        return self.mean.shape[-1] * (1 + _LOG_TWO_PI) / 2 + self._log_determinant()

    def _log_determinant(self) -> Tensor:
        """Of the Cholesky factor, (B,)."""
        return self.spread.diagonal(dim1=-2, dim2=-1).log().sum(-1)


POSTERIORS: dict[str, type[Posterior]] = {
    "diagonal": DiagonalNormal,
    "full": FullNormal,
}
"""model.posterior -> its class."""


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, diag exp log_variance) || N(0, I)), (B,) nats (Kingma and Welling 2014, appendix B)."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2


class Prior(nn.Module):
    """A distribution p(z) of latents.

    Args:
        latent: D, dimensions of a latent.
    """

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent

    def log_prob(self, latents: Tensor) -> Tensor:
        """log p(z) of latents (..., D), (...,) nats."""
        raise NotImplementedError

    def sample(self, rng: SampleRng) -> Tensor:
        """A latent for each stream of `rng`, (n, D)."""
        raise NotImplementedError

    def kl(self, posterior: Posterior) -> Tensor | None:
        """KL(posterior || prior), (B,) nats, or None where it has no closed form."""
        return None

    def to_decoder(self, latents: Tensor) -> Tensor:
        """What a decoder gets of latents, the same shape: the latents themselves, but for `Uniform`."""
        return latents


class FactorizedPrior(Prior):
    """Independent dimensions of one kind, with closed-form divergences from normal posteriors."""

    def log_prob_of_dimensions(self, latents: Tensor) -> Tensor:
        """The summands of `log_prob`, the shape of `latents`, nats."""
        raise NotImplementedError

    def cross_entropy(self, mean: Tensor, variance: Tensor) -> Tensor:
        """-E log p(z) for each normal dimension z ~ N(mean, variance): the shape of `mean`, nats."""
        raise NotImplementedError

    def log_prob(self, latents: Tensor) -> Tensor:
        return self.log_prob_of_dimensions(latents).sum(-1)

    def kl(self, posterior: Posterior) -> Tensor:
        """Cross-entropy less entropy; dimensions that depend on each other change the second alone."""
        return self.cross_entropy(posterior.mean, posterior.variance).sum(-1) - posterior.entropy()

    def kl_of_dimensions(self, posterior: DiagonalNormal) -> Tensor:
        """The summands of `kl` for independent dimensions, (B, D) nats."""
        return self.cross_entropy(posterior.mean, posterior.variance) - posterior.entropy_of_dimensions()


class StandardNormal(FactorizedPrior):
    """N(0, I)."""

    def log_prob_of_dimensions(self, latents: Tensor) -> Tensor:
        return -(latents.square() + _LOG_TWO_PI) / 2

    def cross_entropy(self, mean: Tensor, variance: Tensor) -> Tensor:
        return (mean.square() + variance + _LOG_TWO_PI) / 2

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
        """2 Phi(u) - 1 = erf(u / sqrt 2), in [-1, 1]."""
        return torch.erf(latents / math.sqrt(2))


class Laplace(FactorizedPrior):
    """The Laplace distribution of location 0 and scale 1 in each dimension, exp(-|z|) / 2."""

    def log_prob_of_dimensions(self, latents: Tensor) -> Tensor:
        return -latents.abs() - math.log(2)

    def cross_entropy(self, mean: Tensor, variance: Tensor) -> Tensor:
        """log 2 + E|z|, the mean of a folded normal distribution (Leone, Nelson and Nottingham 1961)."""
        scaled = mean / (2 * variance).sqrt()
        folded = (2 * variance / math.pi).sqrt() * torch.exp(-scaled.square()) + mean * torch.erf(scaled)
        return folded + math.log(2)

    def sample(self, rng: SampleRng) -> Tensor:
        """By inversion of its distribution function."""
        centred = rng.uniform(self.latent) - 0.5
        tail = (1 - 2 * centred.abs()).clamp(min=2.0**-25)  # a uniform number may be 0
        return -centred.sign() * tail.log()


class Mixture(Prior):
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
        limited = self.log_variances.clamp(-_LOG_VARIANCE_LIMIT, _LOG_VARIANCE_LIMIT)
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
    """log sum_k exp(log_weights_k) component_k(z) of latents (..., D), (...,) nats.

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
    """The mean KL term of N images in three parts (Chen et al. 2018, eq. 2), nats.

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
