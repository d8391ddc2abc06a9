"""Distributions of an image given a decoder's outputs, as log-probabilities summed over all dimensions.

Every class takes `outputs`, (B, parameters * C, H, W), and images, (B, C, H, W) in [0, 1]; computes in
float32 whatever the precision of the network; and sums over C, H and W, so that a result is (B,) nats. For
log-probabilities, S outputs of each image may come together, (S, B, parameters * C, H, W): then it is (S, B).
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.data.spec import DataSpec
from genlab.data.statistics import PixelStatistics
from genlab.distributions.logistic import log_mass
from genlab.rng import SampleRng

SMALLEST_SPREAD = 0.05
"""Least standard deviation that a new model gives a pixel, in units of [0, 1]."""

_MIN_LOG_SCALE = -7.0  # of values in [0, 1]: a quarter of an 8-bit level, where the bins are saturated anyway
SMALLEST_SIGMA = math.exp(_MIN_LOG_SCALE)
"""Least standard deviation that a Gaussian likelihood learns, in units of [0, 1]."""


class Likelihood(Protocol):
    """Attributes:
    parameters: numbers that a decoder gives for each dimension of an image.
    density: the log-probability is that of a density over [0, 1]^D, not of discrete levels.
    """

    parameters: int
    density: bool

    def log_prob(self, outputs: Tensor, images: Tensor) -> Tensor:
        """Returns log p(images | outputs), (B,) nats, or (S, B)."""
        ...

    def outputs_of(self, statistics: PixelStatistics) -> Tensor:
        """Returns the outputs of independent pixels with the data's means, (parameters * C, H, W)."""
        ...

    def mean(self, outputs: Tensor) -> Tensor:
        """Returns the expected image, (B, C, H, W) in [0, 1]."""
        ...

    def sample(self, outputs: Tensor, rng: SampleRng) -> Tensor:
        """Draws an image of the distribution, (B, C, H, W) in [0, 1]."""
        ...


class Bernoulli:
    """Independent binary pixels; the outputs are logits."""

    parameters = 1
    density = False

    def log_prob(self, outputs: Tensor, images: Tensor) -> Tensor:
        """Returns x log p + (1 - x) log(1 - p), summed (Kingma and Welling 2014, eq. 11)."""
        targets = images.expand_as(outputs)  # a view: S outputs of an image need no copies of it
        cross_entropy = F.binary_cross_entropy_with_logits(outputs.float(), targets, reduction="none")
        return -cross_entropy.flatten(-3).sum(-1)

    def outputs_of(self, statistics: PixelStatistics) -> Tensor:
        return statistics.probability.logit()

    def mean(self, outputs: Tensor) -> Tensor:
        return outputs.float().sigmoid()

    def sample(self, outputs: Tensor, rng: SampleRng) -> Tensor:
        return (rng.uniform(*outputs.shape[1:]) < self.mean(outputs)).float()


class Gaussian:
    """Independent normal pixels of one standard deviation; the outputs are means, less 1/2.

    Args:
        log_sigma: natural logarithm of the standard deviation in units of [0, 1], a scalar tensor; a
            parameter where it is learned (Rybkin et al. 2021, section 4).
        bounded: means and samples are clamped to [0, 1], as images need it and points do not.
    """

    parameters = 1
    density = True

    def __init__(self, log_sigma: Tensor, bounded: bool = True) -> None:
        self.log_sigma = log_sigma
        self._bounds = (0.0, 1.0) if bounded else (-math.inf, math.inf)

    def log_prob(self, outputs: Tensor, images: Tensor) -> Tensor:
        """Returns -(x - mu)^2 / (2 sigma^2) - log sigma - log(2 pi) / 2, summed."""
        log_sigma = self.log_sigma.float().clamp(min=_MIN_LOG_SCALE)
        deviation = (images - (outputs.float() + 0.5)) * torch.exp(-log_sigma)
        return -(deviation.square() / 2 + log_sigma + math.log(2 * math.pi) / 2).flatten(-3).sum(-1)

    def outputs_of(self, statistics: PixelStatistics) -> Tensor:
        return statistics.mean - 0.5

    def mean(self, outputs: Tensor) -> Tensor:
        return (outputs.float() + 0.5).clamp(*self._bounds)

    def sample(self, outputs: Tensor, rng: SampleRng) -> Tensor:
        noise = rng.normal(*outputs.shape[1:]) * self.log_sigma.float().clamp(min=_MIN_LOG_SCALE).exp()
        return (outputs.float() + 0.5 + noise).clamp(*self._bounds)


class DiscretizedLogistic:
    """Independent pixels of `levels` values, each the mass of a logistic distribution between two bin edges.

    The first half of the outputs' channels are locations, less 1/2; the second half are logarithms of scales.
    The lowest bin reaches down to -infinity and the highest up to infinity, so that the masses sum to 1
    (Kingma et al. 2016, appendix; Salimans et al. 2017, eq. 2 with one component).
    """

    parameters = 2
    density = False

    def __init__(self, levels: int) -> None:
        self.levels = levels

    def log_prob(self, outputs: Tensor, images: Tensor) -> Tensor:
        """Returns log[sigmoid(a) - sigmoid(b)] at the bin's edges a > b, summed; see `log_mass`."""
        location, inverse_scale = self._logistic(outputs)
        half_bin = 0.5 / (self.levels - 1)
        return log_mass(images, location, inverse_scale, half_bin, least=0.0).flatten(-3).sum(-1)

    def outputs_of(self, statistics: PixelStatistics) -> Tensor:
        """Returns outputs for the means; a logistic of scale s has the standard deviation pi s / sqrt(3)."""
        scale = statistics.std.clamp(min=SMALLEST_SPREAD) * (math.sqrt(3) / math.pi)
        return torch.cat([statistics.mean - 0.5, scale.log() - math.log(0.1)])

    def mean(self, outputs: Tensor) -> Tensor:
        """Returns the expected level: the sum over k >= 1 of P(level >= k), over levels - 1."""
        location, inverse_scale = self._logistic(outputs)
        total = torch.zeros_like(location)
        for level in range(1, self.levels):
            total += torch.sigmoid((location - (level - 0.5) / (self.levels - 1)) * inverse_scale)
        return total / (self.levels - 1)

    def sample(self, outputs: Tensor, rng: SampleRng) -> Tensor:
        location, inverse_scale = self._logistic(outputs)
        uniform = rng.uniform(*location.shape[1:]).clamp(1e-6, 1 - 1e-6)
        value = location + uniform.logit() / inverse_scale
        return (value.clamp(0, 1) * (self.levels - 1)).round() / (self.levels - 1)

    def _logistic(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        location, log_scale = outputs.float().chunk(2, dim=-3)
        # Outputs of 0 are a scale of a tenth of the range: a start that is neither flat nor sure.
        return location + 0.5, torch.exp(-(log_scale + math.log(0.1)).clamp(min=_MIN_LOG_SCALE))


def make_likelihood(name: str, spec: DataSpec, sigma: float | None, log_sigma: Tensor | None) -> Likelihood:
    """Returns the likelihood of that name for images of `spec`.

    Args:
        name: bernoulli, discretized_logistic or gaussian.
        sigma: gaussian: standard deviation in units of [0, 1]; None for exp(log_sigma), which is learned.
    """
    if name == "bernoulli":
        return Bernoulli()
    if name == "discretized_logistic":
        return DiscretizedLogistic(spec.levels)
    fixed = torch.tensor(math.log(sigma)) if sigma else log_sigma
    assert fixed is not None
    return Gaussian(fixed, bounded=spec.kind == "images")


def bits_per_dim(name: str, nats: Tensor, likelihood: Likelihood, spec: DataSpec) -> dict[str, Tensor]:
    """Returns nats (B,) as NAME_bits_per_dim of levels; nothing for a density of values not dequantised."""
    if likelihood.density:
        if not spec.dequantized:
            return {}
        # A density over [0, 1] bounds the levels' probability by its integral over a cell of volume
        # levels^-D (Theis, van den Oord and Bethge 2016, eq. 4).
        nats = nats + spec.dimensions * math.log(spec.levels)
    return {f"{name}_bits_per_dim": nats / (spec.dimensions * math.log(2))}
