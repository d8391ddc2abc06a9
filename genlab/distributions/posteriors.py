"""Posteriors: the distributions of latents that an encoder gives for images.

A latent z is a vector of D real numbers. Tensors of latents are (..., B, D): a posterior of B images takes
samples along the dimensions before B. Log-probabilities are summed over D: (..., B) nats, in float32.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

LOG_VARIANCE_LIMIT = 14.0  # far outside what trains, well inside what float32 can exponentiate
LOG_TWO_PI = math.log(2 * math.pi)


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
        """Returns how many numbers an encoder gives for a posterior over `latent` dimensions."""
        raise NotImplementedError

    @classmethod
    def read(cls, numbers: Tensor, latent: int) -> Self:
        """Returns the posterior that an encoder's outputs, (B, count(latent)) of any precision, stand for."""
        raise NotImplementedError

    @property
    def variance(self) -> Tensor:
        """Returns the variance of each dimension by itself, (B, D)."""
        raise NotImplementedError

    def sample(self, noise: Tensor) -> Tensor:
        """Returns latents of standard normal noise, (..., B, D) both (Kingma and Welling 2014, 2.4)."""
        raise NotImplementedError

    def log_prob(self, latents: Tensor) -> Tensor:
        """Returns log q(z | x) of latents (..., B, D), (..., B) nats."""
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """Returns the entropy, (B,) nats."""
        raise NotImplementedError

    def detach(self) -> Self:
        """Returns the posterior without gradients to its parameters."""
        return dataclasses.replace(self, mean=self.mean.detach(), spread=self.spread.detach())

    def rows(self, indices: Tensor) -> Self:
        """Returns the posteriors of the images `indices`, (n,)."""
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
        return cls(mean, log_variance.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT))

    @property
    def variance(self) -> Tensor:
        return self.spread.exp()

    def sample(self, noise: Tensor) -> Tensor:
        return self.mean + torch.exp(self.spread / 2) * noise

    def log_prob_of_dimensions(self, latents: Tensor) -> Tensor:
        """Returns the summands of `log_prob`, (..., B, D) nats."""
        deviation = (latents - self.mean) * torch.exp(-self.spread / 2)
        return -(deviation.square() + self.spread + LOG_TWO_PI) / 2

    def log_prob(self, latents: Tensor) -> Tensor:
        return self.log_prob_of_dimensions(latents).sum(-1)

    def entropy_of_dimensions(self) -> Tensor:
        """Returns the summands of `entropy`, (B, D) nats."""
        return (self.spread + 1 + LOG_TWO_PI) / 2

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
        factor = torch.diag_embed(torch.exp(log_square.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT) / 2))
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
        return -(squares + self.mean.shape[-1] * LOG_TWO_PI) / 2 - self._log_determinant()

    def entropy(self) -> Tensor:
        return self.mean.shape[-1] * (1 + LOG_TWO_PI) / 2 + self._log_determinant()

    def _log_determinant(self) -> Tensor:
        """Returns the log-determinant of the Cholesky factor, (B,)."""
        return self.spread.diagonal(dim1=-2, dim2=-1).log().sum(-1)


POSTERIORS: dict[str, type[Posterior]] = {
    "diagonal": DiagonalNormal,
    "full": FullNormal,
}
"""model.posterior -> its class."""


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Returns KL(N(mean, diag exp log_variance) || N(0, I)), (B,) nats (Kingma and Welling 2014, app. B)."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
