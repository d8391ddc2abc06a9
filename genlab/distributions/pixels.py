"""Distributions of one pixel given a network's parameters: log-probabilities and draws by inversion.

Parameters are (..., P), pixels (..., C) with values level / (levels - 1) in [0, 1]. Everything is computed in
float32 at least. A draw takes uniform numbers of its caller, so that it depends on them and the parameters
alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.data.statistics import PixelStatistics
from genlab.distributions.likelihoods import SMALLEST_SPREAD
from genlab.distributions.logistic import log_mass

_OVERLAP = 0.7  # of the components of a new mixture: less makes tails thin, more makes components alike
_STEEPEST = 100.0  # tilt of a new pixel's levels
_MIN_LOG_SCALE = -7.0  # of values in [-1, 1]: under a tenth of an 8-bit level, where a bin is saturated
_MAX_LOG_SCALE = 20.0  # where the two edges take half each and what lies between nothing


class Start(NamedTuple):
    """Parameters of every pixel, `common` + `per_pixel` @ `basis`: (P,), (H, W, R) and (R, P)."""

    common: Tensor
    per_pixel: Tensor
    basis: Tensor


class PixelDistribution(Protocol):
    """Attributes:
    parameters: P, numbers for a pixel.
    ranks: numbers of `Start` that differ from pixel to pixel.
    passes: a pixel is drawn in so many parts, each with parameters that may depend on the parts before: its
        channels one after the other, or 1 where the distribution itself ties them together.
    uniforms: numbers that the draw of a pixel takes.
    """

    parameters: int
    ranks: int
    passes: int
    uniforms: int

    def start(self, statistics: PixelStatistics) -> Start:
        """Returns the parameters that stand for independent pixels with the data's means."""
        ...

    def log_prob(self, parameters: Tensor, pixels: Tensor) -> Tensor:
        """Returns log p(pixel), (...,) nats, summed over its channels."""
        ...

    def draw(
        self, parameters: Tensor, uniforms: Tensor, pixels: Tensor, part: int, temperature: float = 1.0
    ) -> Tensor:
        """Returns the pixels with one more part drawn, (B, C).

        Args:
            parameters: (B, P).
            uniforms: (B, `uniforms`) in [0, 1).
            pixels: (B, C), the parts before; what the others are set to makes no difference.
            part: 0..passes - 1.
            temperature: over 0; logits are divided by it.
        """
        ...


class BernoulliPixel:
    """Channels of 0 or 1; the parameters are C logits."""

    def __init__(self, channels: int) -> None:
        self.parameters = self.passes = self.uniforms = self.ranks = channels

    def start(self, statistics: PixelStatistics) -> Start:
        logits = statistics.probability.logit().movedim(0, -1)
        return Start(torch.zeros_like(logits[0, 0]), logits, torch.eye(self.parameters).to(logits))

    def log_prob(self, parameters: Tensor, pixels: Tensor) -> Tensor:
        """Returns x log p + (1 - x) log(1 - p), summed over channels."""
        parameters = at_least_float32(parameters)
        pixels = pixels.to(parameters.dtype)
        return -F.binary_cross_entropy_with_logits(parameters, pixels, reduction="none").sum(-1)

    def draw(
        self, parameters: Tensor, uniforms: Tensor, pixels: Tensor, part: int, temperature: float = 1.0
    ) -> Tensor:
        one = uniforms[:, part] < torch.sigmoid(at_least_float32(parameters[:, part]) / temperature)
        return _with_channel(pixels, part, one)


class CategoricalPixel:
    """Channels of `levels` values, each with a probability of its own; C blocks of `levels` logits."""

    def __init__(self, channels: int, levels: int) -> None:
        self.channels, self.levels = channels, levels
        self.parameters = channels * levels
        self.passes = self.uniforms = self.ranks = channels

    def start(self, statistics: PixelStatistics) -> Start:
        """Returns the frequencies of the levels, tilted to each pixel's mean.

        A pixel's probability of level x in [0, 1] is f(x) exp(t x) / Z: of all distributions with its mean,
        the one nearest to the frequencies f of its channel. Codes have no means, and t = 0.
        """
        assert statistics.frequencies is not None
        log_frequencies = statistics.frequencies.log()
        if statistics.ordered:
            pairs = zip(statistics.probability, log_frequencies, strict=True)
            tilts = torch.stack([tilt_to(*pair) for pair in pairs], -1)
        else:
            tilts = torch.zeros_like(statistics.mean).movedim(0, -1)
        levels = torch.linspace(0, 1, self.levels).to(tilts)
        return Start(log_frequencies.flatten(), tilts, torch.block_diag(*[levels[None]] * self.channels))

    def log_prob(self, parameters: Tensor, pixels: Tensor) -> Tensor:
        """Returns the log-softmax at each channel's level (van den Oord et al. 2016, 3.1), summed."""
        logits = at_least_float32(parameters).unflatten(-1, (self.channels, self.levels))
        level = (pixels * (self.levels - 1)).round().long()
        chosen = logits.gather(-1, level[..., None])[..., 0]
        return (chosen - logits.logsumexp(-1)).sum(-1)

    def draw(
        self, parameters: Tensor, uniforms: Tensor, pixels: Tensor, part: int, temperature: float = 1.0
    ) -> Tensor:
        logits = at_least_float32(parameters[:, part * self.levels : (part + 1) * self.levels])
        cumulative = torch.softmax(logits / temperature, -1).cumsum(-1)
        threshold = uniforms[:, part, None] * cumulative[:, -1:]  # the sum is 1 but for rounding
        level = (cumulative <= threshold).sum(-1).clamp(max=self.levels - 1)
        return _with_channel(pixels, part, level.to(pixels.dtype) / (self.levels - 1))


class LogisticMixture:
    """Whole pixels from a mixture of logistics, cut into `levels` values (Salimans et al. 2017, section 2.1).

    Parameters are, in this order: M logits of the mixture; M x C locations; M x C logarithms of scales; and
    M x C(C - 1)/2 coefficients, through which a component's location in a channel depends linearly on the
    channels before (section 2.2, eq. 3). Locations and scales are of values in [-1, 1]. The lowest level
    takes the distribution's tail down to -infinity, the highest that up to infinity.

    Args:
        channels, levels: of a pixel.
        components: M.
    """

    passes = 1

    def __init__(self, channels: int, levels: int, components: int) -> None:
        self.channels, self.levels, self.components = channels, levels, components
        self._sizes = (1, channels, channels, channels * (channels - 1) // 2)
        self.parameters = components * sum(self._sizes)
        self.uniforms = 1 + channels
        self.ranks = 3 * channels

    def start(self, statistics: PixelStatistics) -> Start:
        """Returns components side by side, so that a pixel has about its mean and its spread.

        Their locations are M quantiles of a logistic distribution, their scales `_OVERLAP` of its scale.
        """
        mean, std = (x.movedim(0, -1) for x in (statistics.mean, statistics.std))
        scale = 2 * std.clamp(min=SMALLEST_SPREAD) * (math.sqrt(3) / math.pi)  # of values in [-1, 1]
        numbers = torch.cat([mean * 2 - 1, scale, scale.log()], -1)
        m, c = self.components, self.channels
        quantiles = ((torch.arange(m).to(mean) + 0.5) / m).logit() * math.sqrt(1 - _OVERLAP**2)
        each = torch.eye(c).to(mean)
        locations = torch.stack([each, torch.zeros_like(each), torch.zeros_like(each)])
        basis = torch.zeros(3, c, self.parameters).to(mean)
        split = basis.split([self.components * size for size in self._sizes], -1)
        split[1].unflatten(-1, (m, c)).copy_(locations[:, :, None].expand(-1, -1, m, -1))
        split[1].unflatten(-1, (m, c))[1] = quantiles[None, :, None] * each[:, None]
        split[2].unflatten(-1, (m, c))[2] = each[:, None].expand(-1, m, -1)
        common = torch.zeros(self.parameters).to(mean)
        common.split([self.components * size for size in self._sizes])[2].fill_(math.log(_OVERLAP))
        return Start(common, numbers, basis.flatten(0, 1))

    def log_prob(self, parameters: Tensor, pixels: Tensor) -> Tensor:
        """Returns log sum_m pi_m prod_c of the masses of each channel's level (eq. 2); see `log_mass`."""
        logits, locations, log_scales, coefficients = self._split(parameters)
        x = pixels.to(logits.dtype) * 2 - 1
        locations = torch.stack(
            [
                self._location(locations, coefficients, x[..., None, :], channel)
                for channel in range(self.channels)
            ],
            -1,
        )
        half_bin = 1 / (self.levels - 1)
        masses = log_mass(x[..., None, :], locations, torch.exp(-log_scales), half_bin, least=-1.0)
        return torch.logsumexp(torch.log_softmax(logits, -1) + masses.sum(-1), -1)

    def draw(
        self, parameters: Tensor, uniforms: Tensor, pixels: Tensor, part: int, temperature: float = 1.0
    ) -> Tensor:
        """Draws a component, then its logistics channel by channel; the temperature scales these too."""
        logits, locations, log_scales, coefficients = self._split(parameters)
        cumulative = torch.softmax(logits / temperature, -1).cumsum(-1)
        component = (
            (cumulative <= uniforms[:, :1] * cumulative[:, -1:]).sum(-1).clamp(max=self.components - 1)
        )
        chosen = component[:, None, None]
        # of the chosen component, (B, 1, ...)
        locations = locations.gather(1, chosen.expand(-1, 1, self.channels))
        log_scales = log_scales.gather(1, chosen.expand(-1, 1, self.channels))
        coefficients = coefficients.gather(1, chosen.expand(-1, 1, coefficients.shape[2]))
        x, levels = torch.zeros_like(locations), torch.zeros_like(pixels)
        for channel in range(self.channels):
            location = self._location(locations, coefficients, x, channel)
            noise = uniforms[:, 1 + channel, None].clamp(1e-6, 1 - 1e-6).logit()
            value = location + temperature * torch.exp(log_scales[..., channel]) * noise
            level = ((value.clamp(-1, 1) + 1) / 2 * (self.levels - 1)).round()
            x[..., channel] = level / (self.levels - 1) * 2 - 1
            levels[:, channel] = level[:, 0]
        return levels / (self.levels - 1)

    def _split(self, parameters: Tensor) -> list[Tensor]:
        """Returns logits (..., M), locations, log-scales (..., M, C), coefficients (..., M, C(C - 1)/2)."""
        sizes = [self.components * size for size in self._sizes]
        logits, *others = at_least_float32(parameters).split(sizes, -1)
        locations, log_scales, coefficients = (
            part.unflatten(-1, (self.components, size))
            for part, size in zip(others, self._sizes[1:], strict=True)
        )
        return [logits, locations, log_scales.clamp(_MIN_LOG_SCALE, _MAX_LOG_SCALE), torch.tanh(coefficients)]

    def _location(self, locations: Tensor, coefficients: Tensor, x: Tensor, channel: int) -> Tensor:
        """Returns the location of one channel, (..., M), given the pixels x (..., M or 1, C) in [-1, 1]."""
        first = channel * (channel - 1) // 2
        location = locations[..., channel]
        for before in range(channel):
            location = location + coefficients[..., first + before] * x[..., before]
        return location


def tilt_to(means: Tensor, log_frequencies: Tensor, steps: int = 40) -> Tensor:
    """Returns the t for which levels x of probability f(x) exp(t x) / Z have given means.

    Args:
        means: of any shape, in (0, 1).
        log_frequencies: log f of the levels 0, 1 / (L - 1), ..., 1: (L,).
        steps: of bisection, between `_STEEPEST` on both sides.
    """
    levels = torch.linspace(0, 1, len(log_frequencies)).to(means)
    low, high = torch.full_like(means, -_STEEPEST), torch.full_like(means, _STEEPEST)
    for _ in range(steps):
        middle = (low + high) / 2
        shares = torch.softmax(log_frequencies + middle[..., None] * levels, -1)
        under = (shares * levels).sum(-1) < means
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    return (low + high) / 2


def at_least_float32(x: Tensor) -> Tensor:
    """Returns the same in float32, unless it is finer already."""
    return x if x.dtype == torch.float64 else x.float()


def _with_channel(pixels: Tensor, channel: int, values: Tensor) -> Tensor:
    values = values.to(pixels.dtype)[:, None]
    return torch.cat([pixels[:, :channel], values, pixels[:, channel + 1 :]], 1)
