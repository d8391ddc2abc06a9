"""Warnings of training: when they are said, where, and that what they advise can be typed."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from games import ALL, make
from test_configs import composed

from genlab import build, cli
from genlab.data.spec import DataSpec
from genlab.train import _warn_of

RING = DataSpec("ring", 2, 1, 1, levels=0, classes=8, kind="points")
FAILING = {
    "discriminator_accuracy_real": 1.0,
    "discriminator_accuracy_generated": 1.0,
    "discriminator_saturated_share": 1.0,
    "critic_accuracy_real": 1.0,
    "critic_accuracy_generated": 1.0,
    "generator_gradient_norm": 1e-8,
    "sample_diversity": 0.0,
}


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Any:
    """The steps at which something was said since the last time it was asked."""
    caplog.set_level(logging.WARNING, "genlab")

    def steps() -> list[str]:
        lines = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return lines

    return steps


class TestWhen:
    def test_in_the_second_interval_of_a_row_and_not_again_until_it_is_over(self, said: Any) -> None:
        history = [1, 0, 1, 1, 1, 1, 0, 1, 1, 1]
        troubles: dict[str, int] = {}
        for step, found in enumerate(history):
            troubles = _warn_of({"trouble": "it fails"} if found else {}, troubles, step)
        assert said() == ["step 3: it fails", "step 8: it fails"]

    def test_each_trouble_by_itself(self, said: Any) -> None:
        a, b = {"a": "first"}, {"b": "second"}
        troubles: dict[str, int] = {}
        for step, found in enumerate([a, a | b, a | b, b, a]):
            troubles = _warn_of(found, troubles, step)
        assert said() == ["step 1: first", "step 2: second"]
        assert troubles == {"a": 1}


def failing(name: str, **settings: Any) -> dict[str, str]:
    return make(name, RING, **settings)[0].warnings(FAILING)


class TestAdvice:
    @pytest.mark.parametrize("name", ALL)
    def test_every_setting_that_is_advised_can_be_typed_with_the_model(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = failing(name)
        assert {"vanishing_gradient", "collapse"} <= found.keys()
        assert ("opponent_won" in found) == (not name.startswith("wgan"))
        advised = re.findall(r"(?:model|optimizer)[.=][\w.]+(?:=[\w.]+)?", " ".join(found.values()))
        assert len(advised) >= 4
        (before,) = composed(monkeypatch, f"model={name}", "dataset=ring", "recipe=none")
        for word in advised:
            typed = word if "=" in word else f"{word}=2"
            (plain,) = composed(monkeypatch, f"model={name}", "dataset=ring", "recipe=none", typed)
            assert plain != before
            build.family(build.train_config(plain).model, RING)

    def test_what_is_in_use_already_is_not_advised(self) -> None:
        assert "model.loss" not in failing("gan")["vanishing_gradient"]
        assert "model.loss=non_saturating" in failing("gan", loss="minimax")["vanishing_gradient"]
        assert "model.packing=4" in failing("gan", packing=2)["collapse"]
        assert "model=unrolled_gan" not in failing("unrolled_gan")["collapse"]

    def test_each_is_one_line_in_plain_words(self) -> None:
        for name in ALL:
            for line in failing(name).values():
                assert "\n" not in line
                assert len(line) < 260


def test_a_critic_within_a_tiny_bound_is_said_to_teach_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """On the console and in train.log, once in ten intervals, with what helps against it; and that helps."""
    command = [
        "train", "model=wgan", "dataset=ring", "dataset.points=1000", "trainer.steps=30",
        "trainer.batch_size=16", "trainer.log_every=3", "trainer.evaluate_every=0", "trainer.sample_every=0",
        "trainer.device=cpu", "model.critic_steps=1", "model.hidden=[8]", "model.opponent_hidden=[8]",
    ]  # fmt: skip
    assert cli.main([*command, "model.clip=1e-4", "run_dir=flat"]) == 0
    line = "the generator's gradient vanishes (norm"
    for text in (capsys.readouterr().err, Path("flat/train.log").read_text()):
        assert text.count(line) == 1
        assert "step 6: " + line in text
        assert "it has stopped learning; try a larger model.clip or model=wgan_gp" in text
    assert cli.main([*command, "model.clip=0.1", "run_dir=steep"]) == 0
    assert " WARNING " not in Path("steep/train.log").read_text()
    assert line not in capsys.readouterr().err


def test_no_warning_without_numbers() -> None:
    """A batch of one has no diversity, and least squares no saturation."""
    for name in ALL:
        assert make(name, RING)[0].warnings({"generator_loss": 1.0}) == {}
    images = torch.rand(1, 2, 1, 1)
    assert "sample_diversity" not in make("gan", RING)[0].batch_health(images, images)
