"""The one door: a plain dictionary becomes a frozen dataclass, or one line says what is wrong."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from genlab import registry
from genlab.config.commands import EvaluateConfig, SampleConfig
from genlab.config.run import (
    AdamConfig,
    PlayerOptimizerConfig,
    RMSpropConfig,
    SGDConfig,
    StepConfig,
    TrainerConfig,
)
from genlab.config.schema import brief, from_plain, setting, suggest, to_plain
from genlab.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    width: int = setting(3, at_least=1)


@dataclass(frozen=True)
class Outer:
    path: str = setting()
    share: float = setting(0.5, above=0, below=1)
    sizes: tuple[int, ...] = setting((1, 2), at_least=1)
    mode: Literal["fast", "slow", 1] = setting("fast")
    flag: bool = setting(False)
    limit: int | None = setting(None, at_least=1)
    size: int | Literal["auto"] = setting("auto")
    inner: Inner = setting(Inner())
    parts: dict[str, Inner] = setting({})
    anything: Any = setting(None)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("share", "1e-3", 1e-3),  # YAML 1.1 reads it as a word
        ("share", 0.25, 0.25),
        ("limit", 1e4, 10000),
        ("limit", None, None),
        ("sizes", [4, 5.0], (4, 5)),
        ("sizes", [], ()),
        ("path", 3, "3"),
        ("mode", 1, 1),
        ("size", 7, 7),
        ("size", "auto", "auto"),
        ("inner", {"width": 9}, Inner(9)),
        ("parts", {"a": {"width": 2}, "b": {}}, {"a": Inner(2), "b": Inner(3)}),
        ("anything", {"x": [1, None]}, {"x": [1, None]}),
    ],
)
def test_values_that_pass(key: str, value: Any, expected: Any) -> None:
    config = from_plain(Outer, {"path": "p"} | {key: value})
    found = getattr(config, key)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("pth", "x", "pth: unknown key for this command; did you mean path?"),
        ("colour", "x", "colour: unknown key for this command; choices: anything, flag"),
        ("share", 0, "share=0.0: must be above 0 and below 1"),
        ("share", 1, "share=1.0: must be above 0 and below 1"),
        ("share", "much", "share=much: expected a number"),
        ("share", float("nan"), "share=nan: expected a finite number"),
        ("share", float("-inf"), "share=-inf: expected a finite number"),
        ("share", True, "share=true: expected a number"),
        ("share", None, "share=null: expected a number"),
        ("limit", 2.5, "limit=2.5: expected a whole number"),
        ("limit", 0, "limit=0: must be at least 1"),
        ("limit", True, "limit=true: expected a whole number"),
        ("flag", 1, "flag=1: expected true or false"),
        ("flag", "yes", "flag=yes: expected true or false"),
        ("path", None, "path=null: expected a word"),
        ("path", "???", "path: missing; add path=..."),
        ("path", ["a"], "path=[a]: expected a word"),
        ("sizes", 3, "sizes=3: expected a list, e.g. sizes=[1,2]"),
        ("sizes", [3, 0], "sizes[1]=0: must be at least 1"),
        ("sizes", "12", "sizes=12: expected a list"),
        ("mode", "fsat", "mode=fsat: not one of fast, slow, 1; did you mean mode=fast?"),
        ("mode", True, "mode=true: not one of"),  # True == 1, but is not it
        ("size", "atuo", "size=atuo: not one of auto"),
        ("inner", 3, "inner=3: expected a group of settings"),
        ("inner", {"widht": 1}, "inner.widht: unknown key for inner; did you mean inner.width?"),
        ("parts", {"a": {"width": 0}}, "parts.a.width=0: must be at least 1"),
        ("parts", [1], "parts=[1]: expected names with settings"),
    ],
)
def test_values_that_do_not(key: str, value: Any, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_plain(Outer, {"path": "p"} | {key: value})
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_a_required_key() -> None:
    with pytest.raises(ConfigError, match=r"^model\.path: missing; add model\.path=\.\.\.$"):
        from_plain(Outer, {}, "model")


@pytest.mark.parametrize("plain", [None, 3, "x", [1]])
def test_not_a_dictionary(plain: Any) -> None:
    with pytest.raises(ConfigError, match="expected a group of settings"):
        from_plain(Outer, plain, "model")


@pytest.mark.parametrize(
    "config",
    [
        AdamConfig(lr=0.5, betas=(0.5, 0.9), players={"g": PlayerOptimizerConfig(lr=1e-4)}),
        RMSpropConfig(momentum=0.5),
        SGDConfig(nesterov=True),
        StepConfig(milestones=(0.1, 0.2, 0.3)),
        TrainerConfig(steps=3, evaluate_images=None, micro_batch_size=7),
        SampleConfig(ckpt="x", labels=(1, 2)),
        EvaluateConfig(ckpt="x", dataset={"root": "y"}),
        Outer(path="p", parts={"a": Inner(5)}),
    ],
)
def test_there_and_back(config: Any) -> None:
    plain = to_plain(config)
    assert from_plain(type(config), plain) == config
    assert to_plain(from_plain(type(config), plain)) == plain


def test_frozen_and_not_shared() -> None:
    config = from_plain(AdamConfig, {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lr = 1  # type: ignore[misc]
    assert from_plain(AdamConfig, {}).players is not config.players


def test_suggestions() -> None:
    assert suggest("latnt", ["latent", "hidden"], "model.") == "; did you mean model.latent?"
    assert suggest("zzz", ["b", "a"]) == "; choices: a, b"
    assert suggest("zzz", []) == ""


def run_of(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {group: {"name": name} for group, name in DEFAULTS.items()}
    return plain | changes


DEFAULTS = {"model": "toy", "dataset": "digits", "optimizer": "adam", "schedule": "constant"}


def test_a_run_through_the_door(toy: Any) -> None:
    config = registry.train_config(run_of(trainer={"steps": 7}, seed=3))
    assert (config.model.name, config.trainer.steps, config.seed) == ("toy", 7, 3)
    assert registry.train_config(to_plain(config)) == config


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"modle": {}}, "modle: unknown key for genlab train; did you mean model?"),
        ({"run_dir": "x"}, "run_dir: unknown key"),
        ({"model": None}, "model: missing; choose one: "),
        ({"model": "toy"}, "model: missing; choose one: "),
        ({"model": {"name": "tyo"}}, "model=tyo: no such model; did you mean model=toy?"),
        ({"model": {"name": "os:system"}}, "model=os:system: no such model"),
        (
            {"model": {"name": "toy", "hiden": 3}},
            "model.hiden: unknown key for toy; did you mean model.hidden?",
        ),
        ({"optimizer": {"name": "adam", "lr": -1}}, "optimizer.lr=-1.0: must be above 0"),
        (
            {"optimizer": {"name": "adam", "players": {"on": {"lr": 1}}}},
            "optimizer.players.on: toy has no such player; did you mean optimizer.players.one?",
        ),
        (
            {"optimizer": {"name": "adam", "players": {"one": {"rl": 1}}}},
            "optimizer.players.one.rl: unknown key",
        ),
        (
            {"schedule": {"name": "cosine", "final": 2}},
            "schedule.final=2.0: must be at least 0 and at most 1",
        ),
        ({"trainer": {"stpes": 1}}, "trainer.stpes: unknown key for trainer; did you mean trainer.steps?"),
        ({"seed": 1.5}, "seed=1.5: expected a whole number"),
        ({"seed": -1}, "seed=-1: must be at least 0"),
    ],
)
def test_a_run_that_does_not_pass(toy: Any, changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as error:
        registry.train_config(run_of(**changes))
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_a_value_in_a_message_is_shortened_without_writing_it_out() -> None:
    itself: list[Any] = []
    itself.append(itself)
    assert brief([1, [2, "x"]]) == "[1,[2,x]]"
    assert brief("a" * 1000) == "a" * 200 + "..."
    assert brief([0] * 10**6) == "1000000 values"
    assert brief({"a": [[0] * 600] * 600}) == brief(itself) == "1 values"
