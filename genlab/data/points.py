"""Points of one or two dimensions whose density is known: what an adversarial game does to it can be seen."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genlab.config.schema import setting
from genlab.data.dataset import Dataset
from genlab.data.pixels import Pixels
from genlab.data.spec import DataSpec
from genlab.data.stream import Resident, Source
from genlab.rng import derive_seed

_HELD_OUT = {"validation": 5_000, "test": 10_000}
_CURVE_COMPONENTS = 1000  # so close together that a curve of them has no beads


@dataclass(frozen=True)
class Mixture:
    """Equally likely normal distributions, all of one standard deviation.

    Attributes:
        means: (M, D).
        sigma: standard deviation of each, in each dimension.
        separate: the components are modes to be counted, not beads on a curve.
    """

    means: Tensor
    sigma: float
    separate: bool

    def draw(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """Points (n, D) float32, and the components that they come from, (n,) int64."""
        generator = torch.Generator().manual_seed(seed)
        components = torch.randint(len(self.means), (n,), generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator)
        return self.means[components] + self.sigma * noise, components

    def log_prob(self, points: Tensor) -> Tensor:
        """Logarithm of the density at points (N, D), in nats: (N,)."""
        squares = distances(points, self.means).square() / (2 * self.sigma**2)
        count, dimensions = self.means.shape
        normalization = math.log(count) + dimensions / 2 * math.log(2 * math.pi * self.sigma**2)
        return torch.logsumexp(-squares, 1) - normalization


def distances(points: Tensor, means: Tensor) -> Tensor:
    """Of points (N, D) from means (M, D): (N, M). Exact where a component is much narrower than the whole."""
    # by default torch squares it out, |x|^2 - 2xm + |m|^2, and loses the digits that a small sigma needs
    return torch.cdist(points, means, compute_mode="donot_use_mm_for_euclid_dist")


@dataclass(frozen=True, kw_only=True)
class PointsConfig:
    """What all of them can be told."""

    name: str = setting()
    points: int = setting(100_000, at_least=1, help="training points; others are drawn for the other splits")
    sigma: float = setting(0.05, above=0, help="standard deviation of each component")

    def mixture(self) -> Mixture:
        """The density that the points are drawn from."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class RingConfig(PointsConfig):
    """Normal distributions evenly spaced on a circle (Metz et al. 2017, section 3.1)."""

    name: Literal["ring"] = setting("ring")  # type: ignore[assignment]
    sigma: float = setting(0.02, above=0, help="standard deviation of each")
    modes: int = setting(8, at_least=1)
    radius: float = setting(2.0, above=0)

    def mixture(self) -> Mixture:
        # arange: both ends of a linspace from 0 to 2 pi are the same mode
        angles = torch.arange(self.modes, dtype=torch.float64) * (2 * math.pi / self.modes)
        means = self.radius * torch.stack([angles.cos(), angles.sin()], 1)
        return Mixture(means.float(), self.sigma, separate=True)


@dataclass(frozen=True, kw_only=True)
class GridConfig(PointsConfig):
    """Normal distributions on a square grid around 0 (Lin et al. 2018, section 4.1: -4, -2, 0, 2, 4)."""

    name: Literal["grid"] = setting("grid")  # type: ignore[assignment]
    side: int = setting(5, at_least=1, help="modes of a row")
    spacing: float = setting(2.0, above=0)

    def mixture(self) -> Mixture:
        places = [(k - (self.side - 1) / 2) * self.spacing for k in range(self.side)]
        return Mixture(torch.tensor(list(itertools.product(places, places))), self.sigma, separate=True)


@dataclass(frozen=True, kw_only=True)
class Gaussian1DConfig(PointsConfig):
    """One normal distribution on a line."""

    name: Literal["gaussian1d"] = setting("gaussian1d")  # type: ignore[assignment]
    sigma: float = setting(1.0, above=0)
    mean: float = setting(-1.0)

    def mixture(self) -> Mixture:
        return Mixture(torch.tensor([[self.mean]]), self.sigma, separate=False)


@dataclass(frozen=True, kw_only=True)
class TwoMoonsConfig(PointsConfig):
    """Two half circles of radius 1 that reach into each other, blurred."""

    name: Literal["two_moons"] = setting("two_moons")  # type: ignore[assignment]

    def mixture(self) -> Mixture:
        angles = torch.linspace(0, math.pi, _CURVE_COMPONENTS // 2)
        upper = torch.stack([angles.cos() - 0.5, angles.sin() - 0.25], 1)
        return Mixture(torch.cat([upper, -upper]), self.sigma, separate=False)


@dataclass(frozen=True, kw_only=True)
class SwissRollConfig(PointsConfig):
    """A spiral of one turn and a half, radius 2/3 to 2, blurred."""

    name: Literal["swiss_roll"] = setting("swiss_roll")  # type: ignore[assignment]

    def mixture(self) -> Mixture:
        angles = torch.linspace(1.5 * math.pi, 4.5 * math.pi, _CURVE_COMPONENTS)
        spiral = torch.stack([angles * angles.cos(), angles * angles.sin()], 1)
        return Mixture(spiral * (2 / (4.5 * math.pi)), self.sigma, separate=False)


class AsStored(Pixels):
    """Points need nothing of what pixels need."""

    def training_images(self, levels: Tensor, seed: int) -> Tensor:
        return levels

    def images(self, levels: Tensor, noise: object) -> Tensor:
        return levels


class Points:
    """Draws the points of every split once; the same ones for every seed of a run."""

    Config: type[PointsConfig]

    @classmethod
    def load(cls, config: PointsConfig) -> Dataset:
        """As images of 1x1 pixels with a channel for each dimension; the component is the label."""
        mixture = config.mixture()
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
