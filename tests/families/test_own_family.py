"""A family of one's own is a class, a name in the registry and a YAML; every command takes it.

This one has the shape of the adversarial families, with two players, and nothing else of theirs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.command_line import as_a_process, genlab
from helpers.runs import assert_same_run, metric_rows, read_json
from torch import Tensor, nn

from genlab import registry
from genlab.config.schema import setting
from genlab.data.spec import Batch, DataSpec
from genlab.families.base import AdversarialFamily, Metrics, UpdateProtocol
from genlab.rng import SampleRng
from genlab.runs import checkpoint


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    name: Literal["tiny_game"] = setting("tiny_game")
    latent: int = setting(3, at_least=1)
    judge_steps: int = setting(2, at_least=1, help="for each step of the painter")


class TinyGame(AdversarialFamily):
    """A painter and a judge, linear both."""

    Config = TinyConfig
    players = ("judge_net", "painter")
    sampled_by = ("painter",)

    def __init__(self, config: TinyConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        self.painter = nn.Linear(config.latent, spec.dimensions)
        self.judge_net = nn.Linear(spec.dimensions, 1)

    def step(self, batches: Iterator[Batch], update: UpdateProtocol) -> Metrics:
        images, metrics = torch.empty(0), {}
        for _ in range(self.config.judge_steps):
            images = next(batches).images
            metrics |= update("judge_net", self.judge_loss, images, self.latents(len(images)))
        return metrics | update("painter", self.painter_loss, self.latents(len(images)))

    def latents(self, n: int) -> Tensor:
        return torch.randn(n, self.config.latent)

    def judge_loss(self, images: Tensor, latents: Tensor) -> tuple[Tensor, Metrics]:
        fake = self.painter(latents).sigmoid().detach()
        loss = (F.softplus(-self.judge_net(images.flatten(1))) + F.softplus(self.judge_net(fake))).mean()
        return loss, {"judge_loss": loss}

    def painter_loss(self, latents: Tensor) -> tuple[Tensor, Metrics]:
        loss = F.softplus(-self.judge_net(self.painter(latents).sigmoid())).mean()
        return loss, {"painter_loss": loss}

    def sample(self, n: int, *, rng: SampleRng, labels: Tensor | None = None) -> Tensor:
        return self.painter(rng.normal(self.config.latent)).sigmoid().view(n, *self.spec.shape)

    def evaluate(self, batch: Batch, *, rng: SampleRng) -> dict[str, Tensor]:
        return {"judged_logit": self.judge_net(batch.images.flatten(1)).squeeze(1)}

    def warnings(self, means: dict[str, float]) -> dict[str, str]:
        return {"always": "a painter is never satisfied"} if "painter_loss" in means else {}


MODEL = """# A game of my own
defaults:
  - override /optimizer@_global_.optimizer: gan_adam
  - _self_

name: tiny_game
latent: 3
judge_steps: 2 # for each step of the painter
"""
COMMAND = [
    "train", "--config-dir", "mine", "model=tiny_game", "dataset=digits", "trainer.steps=6",
    "trainer.batch_size=16", "trainer.log_every=2", "trainer.checkpoint_every=3", "trainer.evaluate_every=3",
    "trainer.evaluate_images=20", "trainer.sample_every=3", "trainer.sample_images=4", "trainer.device=cpu",
    "trainer.ema_half_life_images=50",
]  # fmt: skip


@pytest.fixture(autouse=True)
def registered(own_folder: Path) -> Iterator[None]:
    (own_folder / "mine" / "model").mkdir(parents=True)
    (own_folder / "mine" / "model" / "tiny_game.yaml").write_text(MODEL)
    with as_a_process():
        registry.FAMILIES["tiny_game"] = f"{__name__}:TinyGame"
        yield


def test_trains_resumes_samples_and_is_evaluated(capsys: pytest.CaptureFixture[str]) -> None:
    genlab(*COMMAND, "run_dir=run")
    assert "a painter is never satisfied" in capsys.readouterr().err
    rows = metric_rows("run")
    logged = [row for row in rows if "images_per_second" in row]
    assert [row["step"] for row in logged] == [2, 4, 6]
    for row in logged:
        assert {
            "judge_loss",
            "painter_loss",
            "judge_net_gradient_norm",
            "painter_learning_rate",
        } <= row.keys()
        assert row["painter_learning_rate"] == 2e-4  # of gan_adam, which its YAML asks for
    state = checkpoint.find("run")[1]
    assert (state["step"], state["images"]) == (6, 6 * 2 * 16)
    assert state["averages"].keys() == {"painter"}

    shutil.copytree("run", "cut")
    Path("cut/checkpoints/step-00000006.pt").unlink()
    genlab("resume", "run=cut")
    assert_same_run(Path("run"), Path("cut"))

    words = ["ckpt=run", "device=cpu"]
    genlab("sample", *words, "n=5", "npz=true", "run_dir=samples")
    images = np.load("samples/samples.npz")["images"]
    assert images.shape == (5, 8, 8, 1)
    assert len(np.unique(images.reshape(5, -1), axis=0)) == 5
    genlab("evaluate", *words, "split=validation", "run_dir=numbers")
    numbers = read_json("numbers/evaluation.json")
    assert numbers["model"] == "tiny_game"
    assert numbers["judged_logit_standard_error"] > 0
    assert numbers["sample_diversity"] > 0


def test_its_settings_pass_the_same_door(capsys: pytest.CaptureFixture[str]) -> None:
    for word, line in {
        "model.judge_steps=0": "model.judge_steps=0: must be at least 1",
        "+model.latnt=4": "model.latnt: unknown key for tiny_game; did you mean model.latent?",
        "optimizer.players.jugde_net.lr=1": "did you mean optimizer.players.judge_net?",
    }.items():
        genlab(*COMMAND, word, "run_dir=run", code=2)
        (error,) = capsys.readouterr().err.splitlines()
        assert error.startswith("genlab: ")
        assert line in error
    assert not Path("run").exists()


def test_it_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    genlab("list", "--config-dir", "mine")
    assert any(
        line.split()[:5] == ["tiny_game", "A", "game", "of", "my"]
        for line in capsys.readouterr().out.splitlines()
    )
