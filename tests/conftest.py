"""What many tests share: a toy family in the registry, and a short run's configuration."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from genlab import registry
from genlab.config.schema import setting
from genlab.families.base import Family

if "PYTEST_XDIST_WORKER" in os.environ:  # a core each: threads of several workers would fight for them
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)

TEST_DATA = Path(os.environ.get("GENLAB_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


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


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> type[Family]:
    monkeypatch.setitem(registry.FAMILIES, "toy", ToyFamily)
    return ToyFamily


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a folder of its own, with random numbers of its own."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    return tmp_path


def plain_config(
    model: str = "toy", *, schedule: str = "cosine", dataset: str = "digits", **trainer: Any
) -> dict[str, Any]:
    """A short run's plain configuration, as Hydra would compose it."""
    return {
        "model": {"name": model},
        "dataset": {"name": dataset},
        "optimizer": {"name": "adam"},
        "schedule": {"name": schedule},
        "trainer": {
            "steps": 12, "batch_size": 32, "device": "cpu", "log_every": 5, "evaluate_every": 6,
            "sample_every": 6, "checkpoint_every": 4, "evaluate_images": 40, "sample_images": 4,
            "ema_half_life_images": 100,
        } | trainer,
        "seed": 0,
    }  # fmt: skip
