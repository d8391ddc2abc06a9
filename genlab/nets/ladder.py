"""A ladder of stochastic layers: up from the image without a draw, and down to it again layer by layer.

Layer 1 is next to the image, layer L at the top. Latents are non-centred: with z_l = mu_p(z_>l) +
sigma_p(z_>l) e_l, what goes in and out here are the numbers e of all layers side by side, layer 1 first:
(n, D), D the sum of the layers' dimensions. Their prior is N(0, I), and a divergence of e_l is that of z_l.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.distributions.posteriors import DiagonalNormal, Posterior
from genlab.nets.autoencoder import FullyConnected, Shape, make_decoder, make_encoder
from genlab.nets.start import Offset, shrink_posterior

_WIDE_LOG_VARIANCE = 1.0  # of a fresh estimate: its KL divergence from the prior is 0.02 nats a latent


class Rung(nn.Module):
    """A layer's deterministic part, (n, units) >= 0: a map to that many units, then residual blocks.

    Args:
        into: the map.
        blocks: how many follow, x + W relu(x) + b each.
    """

    def __init__(self, into: nn.Module, units: int, blocks: int) -> None:
        super().__init__()
        self.into = into
        self.blocks = nn.ModuleList(_zero_linear(units, units) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        for block in self.blocks:
            x = x + block(torch.relu(x))
        return torch.relu(x)


class LadderEncoder(nn.Module):
    """The deterministic upward pass (Sønderby et al. 2016, section 2.1).

    It gives what an image says of each layer by itself, a normal density of z_l for the prior to be combined
    with.

    Args:
        shape: (C, H, W) of the images.
        latents: dimensions of each layer, from the image upwards.
        hidden: units of each layer, as many.
        blocks: residual blocks of each layer.
        network: between the image and layer 1, "conv" or "resnet"; "mlp" is a linear map.
        width: channels next to the image.
    """

    def __init__(
        self,
        shape: Shape,
        latents: Sequence[int],
        hidden: Sequence[int],
        blocks: int,
        network: str,
        width: int,
    ) -> None:
        super().__init__()
        bottom = make_encoder(network, shape, hidden=(), width=width, outputs=hidden[0])
        maps = [bottom, *(FullyConnected(sizes) for sizes in itertools.pairwise(hidden))]
        self.rungs = nn.ModuleList(Rung(into, n, blocks) for into, n in zip(maps, hidden, strict=True))
        self.estimates = nn.ModuleList(
            FullyConnected([n, DiagonalNormal.count(d)]) for n, d in zip(hidden, latents, strict=True)
        )
        for estimate in self.estimates:
            assert isinstance(estimate, FullyConnected)
            last = estimate.layers[-1]
            assert isinstance(last, nn.Linear)
            shrink_posterior(last, last.out_features // 2)
            # The product of a wide estimate and the prior is close to the prior; an estimate as wide as
            # the prior would cost 0.1 nats a latent.
            nn.init.constant_(last.bias[last.out_features // 2 :], _WIDE_LOG_VARIANCE)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the means of all layers, then their log-variances, (B, 2 D), for images (B, C, H, W)."""
        x, numbers = images, []
        for rung, estimate in zip(self.rungs, self.estimates, strict=True):
            x = rung(x)
            numbers.append(estimate(x).chunk(2, dim=1))
        means, log_variances = zip(*numbers, strict=True)
        return torch.cat([*means, *log_variances], 1)


class Walk(NamedTuple):
    """The latents and posteriors on a way down the ladder under an image's posterior.

    Attributes:
        latents: e, (n, D).
        posterior: q(e_l | e_>l, x) of each layer, given the latents above; mean and log-variance (n, D).
        bottom: for `LadderDecoder.outputs`.
    """

    latents: Tensor
    posterior: DiagonalNormal
    bottom: Tensor


class LadderDecoder(nn.Module):
    """The downward pass: p(z_L) = N(0, I), p(z_l | z_>l) normal, and outputs for an image.

    A deterministic state goes down past the latents, so that each layer is told of all above it.

    Args:
        shape: (C, H, W) of the outputs.
        latents, hidden, blocks, network, width: as those of `LadderEncoder`.
    """

    def __init__(
        self,
        shape: Shape,
        latents: Sequence[int],
        hidden: Sequence[int],
        blocks: int,
        network: str,
        width: int,
    ) -> None:
        super().__init__()
        self.latents = tuple(latents)
        above = [*hidden[1:], 0]
        self.priors = nn.ModuleList(
            _zero_linear(n, DiagonalNormal.count(d)) for n, d in zip(above[:-1], latents, strict=False)
        )
        self.rungs = nn.ModuleList(
            Rung(_even_linear(a, d, n), n, blocks) for a, d, n in zip(above, latents, hidden, strict=True)
        )
        self.out = make_decoder(network, shape, hidden=(), width=width, latent=hidden[0])

    @property
    def offset(self) -> Offset:
        """Returns the constant that is added to the outputs."""
        return self.out.offset

    def forward(self, latents: Tensor) -> Tensor:
        """Returns outputs (n, C, H, W) for latents (n, D)."""
        parts = latents.split(self.latents, dim=1)
        bottom = parts[-1]
        for layer in reversed(range(len(parts) - 1)):
            state = self.rungs[layer + 1](bottom)
            bottom = torch.cat([state, self._prior(layer, state).sample(parts[layer])], 1)
        return self.outputs(bottom)

    def outputs(self, bottom: Tensor) -> Tensor:
        """Returns outputs (n, C, H, W) for the state above layer 1 and z_1, side by side."""
        return self.out(self.rungs[0](bottom))

    def walk(self, estimates: DiagonalNormal, given: Tensor, *, sample: bool) -> Walk:
        """Returns the walk down to layer 1 under the posterior of the encoder's estimates.

        Args:
            estimates: of z, mean and log-variance (n, D).
            given: (n, D), standard normal noise to draw latents with, or the latents themselves.
            sample: which of both.
        """
        parts = given.split(self.latents, dim=1)
        means, spreads = estimates.mean.split(self.latents, 1), estimates.spread.split(self.latents, 1)
        nothing = torch.zeros_like(parts[-1])
        state, prior = parts[-1][:, :0], DiagonalNormal(nothing, nothing)  # of the top
        latents, posteriors, bottom = [], [], state
        for layer in reversed(range(len(parts))):
            if latents:
                state = self.rungs[layer + 1](bottom)
                prior = self._prior(layer, state)
            posterior = combine(DiagonalNormal(means[layer], spreads[layer]), prior)
            latent = posterior.sample(parts[layer]) if sample else parts[layer]
            bottom = torch.cat([state, prior.sample(latent)], 1)
            latents.insert(0, latent)
            posteriors.insert(0, posterior)
        mean = torch.cat([posterior.mean for posterior in posteriors], 1)
        spread = torch.cat([posterior.spread for posterior in posteriors], 1)
        return Walk(torch.cat(latents, 1), DiagonalNormal(mean, spread), bottom)

    def _prior(self, layer: int, state: Tensor) -> DiagonalNormal:
        """Returns p(z_l | z_>l), for all layers but the top, counted from 0 here."""
        return DiagonalNormal.read(self.priors[layer](state), self.latents[layer])


@dataclass(frozen=True)
class LadderPosterior(Posterior):
    """q(e | x), layer by layer from the top: each a normal distribution that depends on the draws above.

    Args:
        mean: the latents met where every draw is the mean of its distribution, (B, D).
        spread: the encoder's numbers, (B, 2 D).
        decoder: the way down.
    """

    decoder: LadderDecoder

    @classmethod
    def of(cls, numbers: Tensor, decoder: LadderDecoder) -> LadderPosterior:
        """Returns the posterior of the encoder's numbers, (B, 2 D)."""
        estimates = DiagonalNormal.read(numbers, sum(decoder.latents))
        still = decoder.walk(estimates, torch.zeros_like(estimates.mean), sample=True)
        return cls(still.latents, numbers, decoder)

    def sample(self, noise: Tensor) -> Tensor:
        return self._walk(noise, sample=True).latents.view(noise.shape)

    def log_prob(self, latents: Tensor) -> Tensor:
        walk = self._walk(latents, sample=False)
        return walk.posterior.log_prob(walk.latents).view(latents.shape[:-1])

    def _walk(self, given: Tensor, *, sample: bool) -> Walk:
        """Returns the walk for each of (..., B, D), images and samples as one batch."""
        estimates = DiagonalNormal.read(self.spread, given.shape[-1])
        mean, log_variance = (
            values.expand(given.shape).reshape(-1, given.shape[-1])
            for values in (estimates.mean, estimates.spread)
        )
        return self.decoder.walk(
            DiagonalNormal(mean, log_variance), given.reshape(-1, given.shape[-1]), sample=sample
        )


def combine(estimate: DiagonalNormal, prior: DiagonalNormal) -> DiagonalNormal:
    """Returns the normalised product of two normal densities of z, for e = (z - mu_p) / sigma_p.

    The precisions add up, and weigh the means (Sønderby et al. 2016, section 2.1). With r = sigma_p^2 /
    sigma^2 of the estimate, e has the mean r / (1 + r) (mu - mu_p) / sigma_p and the variance 1 / (1 + r).
    """
    log_ratio = prior.spread - estimate.spread
    deviation = (estimate.mean - prior.mean) * torch.exp(-prior.spread / 2)
    return DiagonalNormal(torch.sigmoid(log_ratio) * deviation, -F.softplus(log_ratio))


def _even_linear(above: int, latent: int, outputs: int) -> nn.Linear:
    """Returns a linear map of a state, (n, above) or nothing, and a latent, with equal shares at first.

    With weights of one variance a wide state drowns a narrow latent, whose layer then learns to be idle.
    Together they have the variance of He et al. 2015.
    """
    linear = nn.Linear(above + latent, outputs)
    nn.init.zeros_(linear.bias)
    sizes = [size for size in (above, latent) if size]
    for part, size in zip(linear.weight.split(sizes, 1), sizes, strict=True):
        nn.init.normal_(part, std=math.sqrt(2 / (len(sizes) * size)))
    return linear


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """Returns a linear map that begins as 0: a block as the identity, a layer's prior as N(0, I)."""
    linear = nn.Linear(inputs, outputs)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
