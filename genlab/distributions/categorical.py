"""Latents of N categorical variables with K classes each, and their relaxation by Gumbel noise.

A latent is N one-hot vectors, one after the other: (..., B, N K) numbers, D = N K in
`genlab.distributions.posteriors`. A relaxed one has vectors of positive numbers of sum 1 in their place,
through which gradients flow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from genlab.distributions.posteriors import Posterior
from genlab.distributions.priors import Prior
from genlab.rng import SampleRng


@dataclass(frozen=True)
class CategoricalPosterior(Posterior):
    """Independent categorical variables; `mean` is their probabilities, (B, N K).

    `spread` is the logarithms of these, (B, N, K). Noise is a number uniform over [0, 1) for each variable.
    """

    @classmethod
    def of_logits(cls, logits: Tensor) -> Self:
        """Returns the posterior of an encoder's outputs, (B, N, K) of any precision."""
        log_probabilities = logits.float().log_softmax(-1)
        return cls(log_probabilities.exp().flatten(1), log_probabilities)

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean)

    def sample(self, noise: Tensor) -> Tensor:
        """Returns one-hot latents (..., B, N K) of uniform noise (..., B, N), by inversion."""
        below = self.mean.view_as(self.spread).cumsum(-1)[..., :-1]
        return one_hot((noise.unsqueeze(-1) >= below).sum(-1), self.spread.shape[-1]).flatten(-2)

    def relax(self, noise: Tensor, temperature: Tensor | float, straight_through: bool = False) -> Tensor:
        """Returns softmax((log p + noise) / temperature) of each variable (Jang et al. 2017, eq. 2).

        Args:
            noise: Gumbel's, (..., B, N, K).
            temperature: > 0; as it falls to 0, a sample becomes a one-hot draw of the distribution (eq. 1).
            straight_through: the sample's greatest number as 1 and the others as 0, with the gradient of the
                relaxed sample (section 2.2).

        Returns:
            (..., B, N K).
        """
        relaxed = ((self.spread + noise) / temperature).softmax(-1)
        if straight_through:
            chosen = one_hot(relaxed.argmax(-1), relaxed.shape[-1])
            relaxed = chosen + (relaxed - relaxed.detach())  # a difference of exactly 0
        return relaxed.flatten(-2)

    def log_prob(self, latents: Tensor) -> Tensor:
        """Returns log q(z | x) of one-hot latents (..., B, N K), (..., B) nats."""
        return (latents.unflatten(-1, self.spread.shape[1:]) * self.spread).sum((-1, -2))

    def entropy(self) -> Tensor:
        return -(self.mean.view_as(self.spread) * self.spread).sum((-1, -2))


class EvenCategorical(Prior):
    """Independent variables, every class of which is as probable as another.

    Args:
        variables, classes: N and K.
    """

    def __init__(self, variables: int, classes: int) -> None:
        super().__init__(variables * classes)
        self.variables, self.classes = variables, classes
        self.log_count = variables * math.log(classes)
        """log K^N, of all latents."""

    def log_prob(self, latents: Tensor) -> Tensor:
        return latents.new_full(latents.shape[:-1], -self.log_count)

    def sample(self, rng: SampleRng) -> Tensor:
        return one_hot(rng.integers(self.classes, self.variables), self.classes).flatten(-2)

    def kl(self, posterior: Posterior) -> Tensor:
        """Returns the sum over variables of log K - H[q], in closed form."""
        return self.log_count - posterior.entropy()


def one_hot(indices: Tensor, classes: int) -> Tensor:
    """Returns whole numbers (...,) under `classes` as (..., classes) float32 of zeros and a one."""
    return (indices.unsqueeze(-1) == torch.arange(classes, device=indices.device)).float()


def gumbel_noise(*shape: int, device: torch.device) -> Tensor:
    """Returns -log(-log u) of uniform u, drawn from torch's default generator."""
    return -torch.empty(shape, device=device).exponential_().log()


def temperature_at(start: float, final: float, progress: float) -> float:
    """Returns the temperature that falls by equal factors from start to final over the run.

    Args:
        progress: share of the run that is done, in [0, 1].
    """
    return start * (final / start) ** progress
