"""Points of one or two dimensions with a known density, which make adversarial training visible."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genlab.config.datasets import (
    Gaussian1DConfig,
    GridConfig,
    PointsConfig,
    RingConfig,
    SwissRollConfig,
    TwoMoonsConfig,
)
from genlab.data.dataset import Dataset
from genlab.data.pixels import Pixels
from genlab.data.spec import DataSpec
from genlab.data.stream import Resident, Source
from genlab.rng import derive_seed

_HELD_OUT = {"validation": 5_000, "test": 10_000}
_CURVE_COMPONENTS = 1000  # enough that the components of a curve are not visible


@dataclass(frozen=True)
class Mixture:
    """A mixture of equally likely normal distributions with one standard deviation.

    Attributes:
        means: (M, D).
        sigma: standard deviation of each, in each dimension.
        separate: whether the components are modes to be counted, not parts of a curve.
    """

    means: Tensor
    sigma: float
    separate: bool

    def draw(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """Draws points (n, D) float32, and the indices of their components, (n,) int64."""
        generator = torch.Generator().manual_seed(seed)
        components = torch.randint(len(self.means), (n,), generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator)
        return self.means[components] + self.sigma * noise, components

    def log_prob(self, points: Tensor) -> Tensor:
        """Returns the logarithm of the density at points (N, D), in nats: (N,)."""
        squares = distances(points, self.means).square() / (2 * self.sigma**2)
        count, dimensions = self.means.shape
        normalization = math.log(count) + dimensions / 2 * math.log(2 * math.pi * self.sigma**2)
        return torch.logsumexp(-squares, 1) - normalization


def distances(points: Tensor, means: Tensor) -> Tensor:
    """Returns the distances of points (N, D) to means (M, D), (N, M), accurate for narrow components too."""
    # by default torch computes |x|^2 - 2xm + |m|^2, and loses the digits that a small sigma needs
    return torch.cdist(points, means, compute_mode="donot_use_mm_for_euclid_dist")


@functools.singledispatch
def mixture_of(config: PointsConfig) -> Mixture:
    """Returns the density that the points of a dataset are drawn from.

    A user's own dataset registers a function of its configuration with `mixture_of.register`.
    """
    raise NotImplementedError(type(config).__name__)


@mixture_of.register
def _ring(config: RingConfig) -> Mixture:
    # arange: both ends of a linspace from 0 to 2 pi are the same mode
    angles = torch.arange(config.modes, dtype=torch.float64) * (2 * math.pi / config.modes)
    means = config.radius * torch.stack([angles.cos(), angles.sin()], 1)
    return Mixture(means.float(), config.sigma, separate=True)


@mixture_of.register
def _grid(config: GridConfig) -> Mixture:
    places = [(k - (config.side - 1) / 2) * config.spacing for k in range(config.side)]
    return Mixture(torch.tensor(list(itertools.product(places, places))), config.sigma, separate=True)


@mixture_of.register
def _gaussian1d(config: Gaussian1DConfig) -> Mixture:
    return Mixture(torch.tensor([[config.mean]]), config.sigma, separate=False)


@mixture_of.register
def _twomoons(config: TwoMoonsConfig) -> Mixture:
    angles = torch.linspace(0, math.pi, _CURVE_COMPONENTS // 2)
    upper = torch.stack([angles.cos() - 0.5, angles.sin() - 0.25], 1)
    return Mixture(torch.cat([upper, -upper]), config.sigma, separate=False)


@mixture_of.register
def _swissroll(config: SwissRollConfig) -> Mixture:
    angles = torch.linspace(1.5 * math.pi, 4.5 * math.pi, _CURVE_COMPONENTS)
    spiral = torch.stack([angles * angles.cos(), angles * angles.sin()], 1)
    return Mixture(spiral * (2 / (4.5 * math.pi)), config.sigma, separate=False)


class AsStored(Pixels):
    """Points, which need no conversion."""

    def training_images(self, levels: Tensor, seed: int) -> Tensor:
        return levels

    def images(self, levels: Tensor, noise: object) -> Tensor:
        return levels


class Points:
    """Points of every split, drawn once; the same ones for every seed of a run."""

    Config: type[PointsConfig]

    @classmethod
    def load(cls, config: PointsConfig) -> Dataset:
        """Draws the points, as 1x1 images with a channel per dimension; the component is the label."""
        mixture = mixture_of(config)
        sources: dict[str, Source] = {}
        for split, count in ({"train": config.points} | _HELD_OUT).items():
            points, components = mixture.draw(count, derive_seed(0, "points", config.name, split))
            sources[split] = Resident(points[:, :, None, None], components if mixture.separate else None)
        classes = len(mixture.means) if mixture.separate else 0
        dimensions = mixture.means.shape[1]
        spec = DataSpec(config.name, dimensions, 1, 1, levels=0, classes=classes, kind="points")
        return Dataset(spec, sources, AsStored())


class Ring(Points):
    Config = RingConfig


class Grid(Points):
    Config = GridConfig


class Gaussian1D(Points):
    Config = Gaussian1DConfig


class TwoMoons(Points):
    Config = TwoMoonsConfig


class SwissRoll(Points):
    Config = SwissRollConfig
