"""Distributions of one pixel given a network's parameters: log-probabilities and draws by inversion.

Parameters are (..., P), pixels (..., C) with values level / (levels - 1) in [0, 1]. Everything is computed in
float32 at least. A draw takes uniform numbers of its caller, so that it depends on them and the parameters
alone.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

_MIN_LOG_SCALE = -7.0  # of values in [-1, 1]: under a tenth of an 8-bit level, where a bin is saturated
_MAX_LOG_SCALE = 20.0  # where the two edges take half each and what lies between nothing


class PixelDistribution(Protocol):
    """Attributes:
    parameters: P, numbers for a pixel.
    passes: a pixel is drawn in so many parts, each with parameters that may depend on the parts before: its
        channels one after the other, or 1 where the distribution itself ties them together.
    uniforms: numbers that the draw of a pixel takes.
    """

    parameters: int
    passes: int
    uniforms: int

    def log_prob(self, parameters: Tensor, pixels: Tensor) -> Tensor:
        """log p(pixel), (...,) nats, summed over its channels."""
        ...

    def draw(
        self, parameters: Tensor, uniforms: Tensor, pixels: Tensor, part: int, temperature: float = 1.0
    ) -> Tensor:
        """The pixels with one more part drawn, (B, C).

        Args:
            parameters: (B, P).
            uniforms: (B, `uniforms`) in [0, 1).
            pixels: (B, C), the parts before; what the others are set to makes no difference.
            part: 0..passes - 1.
            temperature: over 0; logits are divided by it.
        """
        ...


class Bernoulli:
    """Channels of 0 or 1; the parameters are C logits."""

    def __init__(self, channels: int) -> None:
        self.parameters = self.passes = self.uniforms = channels

    def log_prob(self, parameters: Tensor, pixels: Tensor) -> Tensor:
        """x log p + (1 - x) log(1 - p), summed over channels."""
        parameters = at_least_float32(parameters)
        pixels = pixels.to(parameters.dtype)
        return -F.binary_cross_entropy_with_logits(parameters, pixels, reduction="none").sum(-1)

    def draw(
        self, parameters: Tensor, uniforms: Tensor, pixels: Tensor, part: int, temperature: float = 1.0
    ) -> Tensor:
        one = uniforms[:, part] < torch.sigmoid(at_least_float32(parameters[:, part]) / temperature)
        return _with_channel(pixels, part, one)


class Categorical:
    """Channels of `levels` values, each with a probability of its own; C blocks of `levels` logits."""

    def __init__(self, channels: int, levels: int) -> None:
        self.channels, self.levels = channels, levels
        self.parameters = channels * levels
        self.passes = self.uniforms = channels

    def log_prob(self, parameters: Tensor, pixels: Tensor) -> Tensor:
        """The logarithm of the softmax at each channel's level (van den Oord et al. 2016, 3.1), summed."""
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

    def log_prob(self, parameters: Tensor, pixels: Tensor) -> Tensor:
        """log sum_m pi_m prod_c [sigmoid(upper edge) - sigmoid(lower edge)] (eq. 2).

        sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), each factor of which has a stable
        logarithm, however thin the tail.
        """
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
        inverse_scales = torch.exp(-log_scales)
        x = x[..., None, :]
        upper = (x + half_bin - locations) * inverse_scales
        lower = (x - half_bin - locations) * inverse_scales
        width = torch.log(-torch.expm1(-2 * half_bin * inverse_scales))
        lowest, highest = x <= half_bin - 1, x >= 1 - half_bin
        log_mass = (
            torch.where(highest, 0.0, F.logsigmoid(upper))
            + torch.where(lowest, 0.0, F.logsigmoid(-lower))
            + torch.where(lowest | highest, 0.0, width)
        )
        return torch.logsumexp(torch.log_softmax(logits, -1) + log_mass.sum(-1), -1)

    def draw(
        self, parameters: Tensor, uniforms: Tensor, pixels: Tensor, part: int, temperature: float = 1.0
    ) -> Tensor:
        """A component first, then its logistics channel by channel; the temperature also scales these."""
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
        """Logits (..., M), locations, log-scales (..., M, C) and coefficients (..., M, C(C - 1)/2)."""
        sizes = [self.components * size for size in self._sizes]
        logits, *others = at_least_float32(parameters).split(sizes, -1)
        locations, log_scales, coefficients = (
            part.unflatten(-1, (self.components, size))
            for part, size in zip(others, self._sizes[1:], strict=True)
        )
        return [logits, locations, log_scales.clamp(_MIN_LOG_SCALE, _MAX_LOG_SCALE), torch.tanh(coefficients)]

    def _location(self, locations: Tensor, coefficients: Tensor, x: Tensor, channel: int) -> Tensor:
        """Of one channel, (..., M), given the pixels x (..., M or 1, C) in [-1, 1]."""
        first = channel * (channel - 1) // 2
        location = locations[..., channel]
        for before in range(channel):
            location = location + coefficients[..., first + before] * x[..., before]
        return location


def at_least_float32(x: Tensor) -> Tensor:
    """The same in float32, unless it is finer already."""
    return x if x.dtype == torch.float64 else x.float()


def _with_channel(pixels: Tensor, channel: int, values: Tensor) -> Tensor:
    values = values.to(pixels.dtype)[:, None]
    return torch.cat([pixels[:, :channel], values, pixels[:, channel + 1 :]], 1)
