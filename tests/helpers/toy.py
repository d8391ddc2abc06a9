"""A toy family: whatever a run may lose when it is cut off is in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genlab.config.schema import setting
from genlab.families.base import Family


@dataclass(frozen=True)
class ToyConfig:
    name: Literal["toy"] = setting("toy")
    hidden: int = setting(8, at_least=1)
    break_at_step: int = setting(0, help="the loss is not finite from this step on; 0 for never")


class ToyNet(nn.Module):
    def __init__(self, dimensions: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(dimensions, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.second = nn.Linear(hidden, dimensions)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.norm(self.first(x))))


class ToyFamily(Family):
    """Two players, noise in the steps, buffers, two batches a step: whatever a checkpoint may forget."""

    Config = ToyConfig
    players = ("one", "two")
    sampled_by = ("one",)

    def __init__(self, config: ToyConfig, spec: Any) -> None:
        super().__init__(config, spec)
        self.one = ToyNet(spec.dimensions, config.hidden)
        self.two = ToyNet(spec.dimensions, config.hidden)

    def loss(self, player: str, images: Tensor, broken: float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:
        x = images.flatten(1)
        value = (self.get_submodule(player)(x + torch.randn_like(x)) - x).square().sum(1).mean()
        value = value / (1 - broken)  # broken = 1 makes it infinite
        return value, {f"{player}_loss": value}

    def step(self, batches: Any, update: Any) -> dict[str, Tensor]:
        broken = float(0 < self.config.break_at_step <= update.step + 1)
        metrics = update("one", lambda images: self.loss("one", images), next(batches).images)
        images = next(batches).images
        return metrics | update("two", lambda images: self.loss("two", images, broken), images)

    def sample(self, n: int, *, rng: Any, labels: Tensor | None = None) -> Tensor:
        x = self.one(rng.normal(self.spec.dimensions))
        return x.sigmoid().view(n, *self.spec.shape)

    def evaluate(self, batch: Any, *, rng: Any) -> dict[str, Tensor]:
        x = batch.images.flatten(1)
        error = (self.one(x + rng.normal(self.spec.dimensions)) - x).square().sum(1)
        return {"squared_error": error, "codes": x}

    def summarize(self, values: dict[str, Tensor]) -> dict[str, float]:
        return {"largest_code": values["codes"].max().item()}
