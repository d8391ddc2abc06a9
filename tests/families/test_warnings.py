"""Warnings of training: when they are said, where, and that what they advise can be typed."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import composed, genlab
from helpers.games import ALL, make
from helpers.runs import plain_config

from genlab import registry
from genlab.adversarial import health
from genlab.data.spec import DataSpec
from genlab.device import Processes
from genlab.runs.folder import last_validation
from genlab.training.loop import _warn_of, _warn_of_validation
from genlab.training.state import TrainingState

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
        assert ("opponent_ahead" in found) == (not name.startswith("wgan"))
        advised = re.findall(r"(?:model|optimizer)[.=][\w.]+(?:=[\w.]+)?", " ".join(found.values()))
        assert len(advised) >= 4
        (before,) = composed(monkeypatch, f"model={name}", "dataset=ring", "recipe=none")
        for word in advised:
            typed = word if "=" in word else f"{word}=2"
            (plain,) = composed(monkeypatch, f"model={name}", "dataset=ring", "recipe=none", typed)
            assert plain != before
            registry.family(registry.train_config(plain).model, RING)

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
        "trainer.device=cpu", "model.critic_steps=1", "model.hidden=[8]", "model.discriminator_hidden=[8]",
    ]  # fmt: skip
    genlab(*command, "model.clip=1e-4", "run_dir=flat")
    line = "the generator's gradient vanishes (norm"
    for text in (capsys.readouterr().err, Path("flat/train.log").read_text()):
        assert text.count(line) == 1
        assert "step 6: " + line in text
        assert "it has stopped learning; try a larger model.clip or model=wgan_gp" in text
    genlab(*command, "model.clip=0.1", "run_dir=steep")
    assert " WARNING " not in Path("steep/train.log").read_text()
    assert line not in capsys.readouterr().err


def test_no_warning_without_numbers() -> None:
    """A batch of one has no diversity, and least squares no saturation."""
    for name in ALL:
        assert make(name, RING)[0].warnings({"generator_loss": 1.0}) == {}
    images = torch.rand(1, 2, 1, 1)
    assert "sample_diversity" not in health.of_batch(images, images, bounded=False)


class TestAnOpponentFarAhead:
    def said_at(self, accuracies: list[float], said: Any) -> list[str]:
        family, troubles = make("gan", RING)[0], {}
        for step, accuracy in enumerate(accuracies, 1):
            means = {
                "discriminator_accuracy_real": accuracy + 0.01,
                "discriminator_accuracy_generated": accuracy,
                "discriminator_saturated_share": 0.3,
            }
            troubles = _warn_of(family.warnings(means), troubles, step, family.patience)
        return said()

    def test_97_per_cent_for_long_is_said_once(self, said: Any) -> None:
        (line,) = self.said_at([0.97] * 40, said)
        assert line.startswith("step 10: the discriminator stays far ahead: it tells 97.0% of data")
        assert "lower optimizer.players.discriminator.lr" in line

    def test_a_run_that_recovers_is_not_warned_of(self, said: Any) -> None:
        """The least of both accuracies, each 100 steps of a DCGAN on MNIST that goes on to draw digits."""
        healthy = [0.94, 0.989, 0.97, 0.964, 0.944, 0.912, 0.89, 0.884, 0.885, 0.905]
        assert self.said_at(healthy, said) == []

    def test_a_real_run_with_a_discriminator_too_fast(self, said: Any) -> None:
        command = [
            "train", "model=gan", "dataset=digits", "recipe=none", "model.network=mlp", "model.hidden=[16]",
            "optimizer.players.generator.lr=1e-4", "optimizer.players.discriminator.lr=2e-3", "run_dir=run",
            "trainer.steps=240", "trainer.log_every=12", "trainer.device=cpu", "trainer.evaluate_every=0",
        ]  # fmt: skip
        genlab(*command)
        assert Path("run/train.log").read_text().count("the discriminator stays far ahead") == 1


class TestLatents:
    """Of short runs on digits; each warning is one line of train.log, and one of `genlab sample`."""

    def train(self, *words: str) -> str:
        command = [
            "train", "model=vae", "dataset=digits", "recipe=none", "model.hidden=[64]", "model.latent=8",
            "dataset.dequantize=true", "trainer.steps=300", "trainer.log_every=50", "trainer.device=cpu",
            "trainer.evaluate_every=100", "optimizer.lr=3e-3", "run_dir=run", *words,
        ]  # fmt: skip
        genlab(*command)
        return Path("run/train.log").read_text()

    def test_a_prior_unlike_the_posterior(self, capsys: pytest.CaptureFixture[str]) -> None:
        log = self.train("model.beta=0.001")
        line = (
            "prior and posterior are apart: a classifier tells draws of the prior from latents of images in "
        )
        assert log.count(f"step 200: {line}") == log.count(line) == 1  # three validations found it
        assert "train with model.prior=vampprior model.kl_warmup=0.2, or sample with prior=fit" in log
        capsys.readouterr()
        for more, times in (([], 1), (["prior=fit", "components=1"], 0)):
            genlab("sample", "ckpt=run", "n=2", f"run_dir=drawn{times}", *more)
            assert capsys.readouterr().err.count(f"warning: {line}") == times

    def test_a_collapsed_posterior(self) -> None:
        log = self.train("model.beta=1e5")
        assert log.count("the posterior has collapsed: no latent says anything of an image") == 1
        assert "try model.kl_warmup=0.2, model.free_bits=0.1, a lower model.beta" in log

    def test_a_healthy_run_has_neither(self) -> None:
        assert " WARNING " not in self.train("dataset.binarize=dynamic", "dataset.dequantize=false")

    def test_without_the_run_s_metrics_nothing_is_said(self) -> None:
        self.train("model.beta=0.001", "trainer.steps=100")
        Path("run/metrics.jsonl").unlink()
        assert last_validation(Path("run"), 100) == {}
        genlab("sample", "ckpt=run", "n=2", "run_dir=drawn")


def test_a_trouble_found_by_the_last_validation_alone_is_said(said: Any, toy: Any) -> None:
    state = TrainingState(registry.train_config(plain_config()), Processes(0, 1, torch.device("cpu")))
    history = [{"a": "first"}, {}, {"a": "first", "b": "second"}, {"b": "second", "c": "third"}]
    for step, found in enumerate(history, 1):
        state.update.step = step
        state.family.validation_warnings = lambda numbers, found=found: found
        _warn_of_validation(state, {}, finished=step == 4)
    assert said() == ["step 4: second", "step 4: third"]


LATENT_MODELS = ["vae", "iwae", "conditional_vae", "categorical_vae", "hierarchical_vae"]


@pytest.mark.parametrize("name", LATENT_MODELS)
def test_what_is_advised_of_latents_can_be_typed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = DataSpec("digits", 1, 8, 8, levels=17, classes=10, dequantized=True)
    kind = registry.look_up(registry.FAMILIES, name, "model")
    units = "active_variables" if name == "categorical_vae" else "active_units"
    numbers = {units: 0, "kl_nats": 0.01, "prior_posterior_accuracy": 0.99, "sigma": 1e-4}
    found = registry.family(kind.Config(), spec).validation_warnings(numbers)
    assert found.keys() == {"posterior_collapse", "prior_apart", "sigma_at_bound"}
    assert "prior=fit" in found["prior_apart"]
    (before,) = composed(monkeypatch, f"model={name}", "dataset=digits", "recipe=none")
    for line in found.values():
        assert "\n" not in line
        assert len(line) < 260
        for word in re.findall(r"(?:model|optimizer|dataset)\.[\w.]+(?:=[\w.]+)?", line):
            typed = word if "=" in word else f"{word}=2"
            (plain,) = composed(monkeypatch, f"model={name}", "dataset=digits", "recipe=none", typed)
            assert plain != before


def test_a_layer_of_a_hierarchy_without_use() -> None:
    family = registry.family(
        registry.look_up(registry.FAMILIES, "hierarchical_vae", "model").Config(),
        DataSpec("d", 1, 8, 8, levels=2),
    )
    found = family.validation_warnings(
        {"active_units": 5, "active_units_layer_1": 5, "active_units_layer_2": 0}
    )
    assert "no latent of layer 2 says anything" in found["layer_collapse"]
    assert (
        family.validation_warnings({"active_units": 6, "active_units_layer_1": 5, "active_units_layer_2": 1})
        == {}
    )


def test_a_codebook_of_which_little_is_used() -> None:
    family = registry.family(
        registry.look_up(registry.FAMILIES, "vqvae", "model").Config(), DataSpec("d", 1, 8, 8, levels=2)
    )
    found = family.validation_warnings({"codebook_perplexity": 9.0, "codes_used_share": 0.03})
    assert "images use 3% of its 512 codes, as if there were 9" in found["codebook_collapse"]
    assert family.validation_warnings({"codebook_perplexity": 60.0, "codes_used_share": 0.5}) == {}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["model=gan", "dataset=digits"], "batch normalisation see"),
        (["model=gan", "dataset=ring", "model.minibatch_std=true"], "model.minibatch_std see"),
        (["model=vae", "dataset=digits", "model.free_bits=0.1"], "model.free_bits see"),
        (["model=vae", "dataset=digits"], None),
    ],
)
def test_what_is_over_a_batch_is_said_of_micro_batches(words: list[str], names: str | None) -> None:
    command = [
        "train", *words, "recipe=none", "trainer.steps=1", "trainer.batch_size=8", "trainer.device=cpu",
        "trainer.evaluate_images=8",
    ]  # fmt: skip
    genlab(*command, "trainer.micro_batch_size=4", "run_dir=parts")
    genlab(*command, "trainer.micro_batch_size=8", "run_dir=whole")
    line = f"trainer.micro_batch_size=4: {names} 4 images at a time instead of 8"
    assert Path("parts/train.log").read_text().count("WARNING trainer.micro_batch_size") == (
        names is not None
    )
    assert names is None or line in Path("parts/train.log").read_text()
    assert "trainer.micro_batch_size" not in Path("whole/train.log").read_text()


@pytest.mark.parametrize("half_life", [0, 100])
def test_the_log_says_which_weights_a_grid_shows(half_life: int) -> None:
    command = [
        "train", "model=gan", "dataset=ring", "dataset.points=1000", "recipe=none", "trainer.steps=40",
        "trainer.batch_size=64", "trainer.device=cpu", "trainer.sample_every=20", "run_dir=run",
        f"trainer.ema_half_life_images={half_life}",
    ]  # fmt: skip
    genlab(*command)
    lines = [line for line in Path("run/train.log").read_text().splitlines() if " shows " in line]
    average = [
        "the weights' moving average, half-life 64 images (growing to 100)",
        "the weights' moving average, half-life 100 images",
    ]
    for step, shown, line in zip(
        (20, 40), average if half_life else 2 * ["the weights of this step"], lines, strict=True
    ):
        assert line.endswith(f"INFO step {step}: samples/step-{step:08d}.png shows {shown}")
