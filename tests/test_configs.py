"""The shipped configurations: complete, equal to the dataclasses' defaults, and they pass the door."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.checkout import CHECKOUT, config_names, read_config, required_words, sweep_values
from helpers.command_line import composed
from omegaconf import OmegaConf

from genlab import registry
from genlab.cli import composing, help
from genlab.cli.composing import configs_folder
from genlab.cli.verbs import VERBS
from genlab.config.run import TrainerConfig
from genlab.config.schema import settings_of, to_plain

FOLDER = configs_folder()
REGISTRIES = {
    "model": registry.FAMILIES,
    "dataset": registry.DATASETS,
    "optimizer": registry.OPTIMIZERS,
    "schedule": registry.SCHEDULES,
}


def defaults_of(group: str, name: str) -> dict[str, Any]:
    entry = registry.look_up(REGISTRIES[group], name, group)
    config = getattr(entry, "Config", entry)
    try:
        return to_plain(config())
    except TypeError:  # a required setting, ??? in the file
        return to_plain(config(**dict.fromkeys(required(config), "???")))


def required(config: Any) -> list[str]:
    missing = dataclasses.MISSING
    return [
        f.name for f in dataclasses.fields(config) if f.default is missing and f.default_factory is missing
    ]


@pytest.mark.parametrize("group", REGISTRIES)
def test_a_file_for_each_name_of_a_registry(group: str) -> None:
    assert set(REGISTRIES[group]) <= set(config_names(group))


@pytest.mark.parametrize(("group", "name"), [(g, n) for g in REGISTRIES for n in config_names(g)])
def test_files_hold_every_default(group: str, name: str) -> None:
    plain = read_config(group, name)
    bases = [base for base in plain.pop("defaults", []) if base in config_names(group)]
    if bases:  # another file's settings, some of them changed
        assert set(plain) < set(defaults_of(group, bases[0]))
    else:
        assert plain == defaults_of(group, plain["name"])


def test_trainer_holds_every_default() -> None:
    assert read_config("trainer", "default") == to_plain(TrainerConfig())


@pytest.mark.parametrize(
    ("verb", "config"), [(verb, row.config) for verb, row in VERBS.items() if row.config]
)
def test_files_of_verbs_hold_every_default(verb: str, config: Any) -> None:
    plain = yaml.safe_load((FOLDER / f"{verb}.yaml").read_text())
    assert plain == to_plain(config(ckpt="???"))


@pytest.mark.parametrize(
    "word",
    [f"dataset={name}" for name in config_names("dataset")]
    + [
        pytest.param(f"{group}={name}", marks=pytest.mark.slow)  # test_shipped.py trains each of them
        for group in ("model", "optimizer", "schedule", "trainer", "experiment")
        for name in config_names(group)
    ],
)
def test_every_option_composes_and_passes_the_door(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ["model=gated_pixelcnn"] if word == "dataset=codes" else []
    (plain,) = composed(monkeypatch, *model, word, *required_words(word.removeprefix("dataset=")))
    registry.train_config(plain)


def pair_of(recipe: str) -> list[str]:
    """Returns the words that choose the model and the dataset of a recipe."""
    models, datasets = config_names("model"), config_names("dataset")
    pairs = [(m, d) for m in models for d in datasets if f"{m}_{d}" == recipe]
    assert pairs, f"recipe {recipe} belongs to no model and dataset"
    model, dataset = pairs[0]
    return [f"model={model}", f"dataset={dataset}", *required_words(dataset)]


def leaves(plain: Any, key: str = "") -> dict[str, Any]:
    """Returns the values of a nested dictionary by their dotted keys."""
    if not isinstance(plain, dict):
        return {key: plain}
    parts = [leaves(value, f"{key}.{name}".lstrip(".")) for name, value in plain.items()]
    return {name: value for part in parts for name, value in part.items()}


@pytest.mark.parametrize("name", config_names("recipe"))
def test_every_recipe_comes_by_itself_and_passes_the_door(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (plain,) = composed(monkeypatch, *pair_of(name))
    registry.train_config(plain)
    recipe: Any = OmegaConf.to_container(OmegaConf.load(FOLDER / "recipe" / f"{name}.yaml"))
    recipe.pop("defaults", None)  # the recipe that it changes
    assert {key: leaves(plain)[key] for key in leaves(recipe)} == leaves(recipe)


@pytest.mark.slow
@pytest.mark.parametrize("name", config_names("recipe"))
def test_every_recipe_changes_something(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_it, without = [composed(monkeypatch, *pair_of(name), *more)[0] for more in ([], ["recipe=none"])]
    assert with_it != without


@pytest.mark.parametrize("name", config_names("sweep"))
@pytest.mark.parametrize("place", [0, -1], ids=["first", "last"])
def test_a_job_of_every_sweep_composes_and_passes_the_door(
    name: str, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"{key}={values[place]}" for key, values in sweep_values(name).items()]
    (plain,) = composed(monkeypatch, f"sweep={name}", *words)
    registry.train_config(plain)


@pytest.mark.slow
@pytest.mark.parametrize("name", config_names("sweep"))
def test_every_sweep_composes_and_passes_the_door(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = composed(monkeypatch, f"sweep={name}")
    assert len(jobs) == math.prod(len(values) for values in sweep_values(name).values()) > 1
    for plain in jobs:
        registry.train_config(plain)


def test_every_file_begins_with_a_line_for_people() -> None:
    for file in FOLDER.rglob("*.yaml"):
        assert len(help.describe(file)) > 10, file


def test_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Inside the package when it is there, as in a wheel; beside it in a checkout."""
    package = tmp_path / "genlab"
    package.mkdir()
    (tmp_path / "configs").mkdir()
    monkeypatch.setattr(composing, "__file__", str(package / "cli" / "composing.py"))
    assert configs_folder() == tmp_path / "configs"
    (package / "configs").mkdir()
    assert configs_folder() == package / "configs"


def test_pyproject_names_every_package() -> None:
    import tomllib

    listed = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {".".join(f.parent.relative_to(CHECKOUT).parts) for f in (CHECKOUT / "genlab").rglob("*.py")}
    assert set(listed) == there | {"genlab.configs"}


def files_of_settings() -> dict[str, tuple[Path, type]]:
    """Each shipped file that has the settings of one dataclass."""
    found = {
        f"{verb}.yaml": (FOLDER / f"{verb}.yaml", row.config) for verb, row in VERBS.items() if row.config
    }
    found["trainer/default.yaml"] = (FOLDER / "trainer/default.yaml", TrainerConfig)
    for group in ("model", "dataset", "optimizer", "schedule"):
        for name in config_names(group):
            if kind := read_config(group, name).get("name"):
                config = registry.config_of(registry.kinds(group), kind, group)
                found[f"{group}/{name}.yaml"] = (FOLDER / group / f"{name}.yaml", config)
    return found


@pytest.mark.parametrize("name", files_of_settings())
def test_the_comments_of_a_file_are_the_help_of_its_settings(name: str) -> None:
    file, kind = files_of_settings()[name]
    comments = {each.key: each.comment for each in settings_of(kind)}
    assert all(comments.values()), "a setting without help"
    for line in file.read_text().splitlines():
        key, _, rest = line.partition(":")
        if key in comments:
            assert rest.partition(" # ")[2] == comments[key], line


@pytest.mark.parametrize(("group", "name"), [(g, n) for g in ("model", "dataset") for n in registry.kinds(g)])
def test_the_settings_that_are_read_without_torch_are_those_of_the_class(group: str, name: str) -> None:
    kinds = registry.kinds(group)
    assert registry.config_of(kinds, name, group) is registry.look_up(kinds, name, group).Config
