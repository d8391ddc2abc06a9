"""A module of a user's own, for `--module my_models`: a family and a dataset, without files of settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from genlab.config.datasets import DatasetConfig
from genlab.config.schema import setting
from genlab.data.dataset import Dataset, from_arrays
from genlab.data.spec import Batch, DataSpec
from genlab.families.base import Family, Metrics, UpdateProtocol
from genlab.registry import register_dataset, register_family
from genlab.rng import SampleRng


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    name: Literal["my_mixture"] = setting("my_mixture")
    components: int = setting(5, at_least=1, help="mean images")


class MyMixture(Family):
    """A few mean images, each fitted to the images that are nearest to it."""

    Config = MixtureConfig
    players = ("means",)
    sampled_by = ("means",)

    def __init__(self, config: MixtureConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.means = nn.Embedding(config.components, spec.dimensions)

    def step(self, batches: Iterator[Batch], update: UpdateProtocol) -> Metrics:
        return update("means", self.loss, next(batches).images)

    def loss(self, images: Tensor) -> tuple[Tensor, Metrics]:
        distances = (images.flatten(1)[:, None] - self.means.weight.sigmoid()).square().sum(-1)
        value = distances.min(1).values.mean()
        return value, {"squared_distance": value}

    def sample(self, n: int, *, rng: SampleRng, labels: Tensor | None = None) -> Tensor:
        chosen = rng.integers(self.config.components)
        return self.means.weight[chosen].sigmoid().view(n, *self.spec.shape)


@dataclass(frozen=True, kw_only=True)
class StripesConfig(DatasetConfig):
    name: Literal["stripes"] = setting("stripes")
    count: int = setting(60, at_least=10, help="training images")


class Stripes:
    """Grey stripes of 8x8 pixels, a row each."""

    Config = StripesConfig

    @classmethod
    def load(cls, config: StripesConfig) -> Dataset:
        rows = torch.arange(config.count + 20) % 8
        images = torch.zeros(len(rows), 1, 8, 8, dtype=torch.uint8)
        images[torch.arange(len(rows)), 0, rows] = 255
        train, test = slice(0, config.count), slice(config.count, None)
        return from_arrays(
            config, (images[train], rows[train]), (images[test], rows[test]), validation=10, classes=8
        )


register_family("my_mixture", MyMixture)
register_dataset("stripes", Stripes)
