"""The shipped configurations: complete, equal to the dataclasses' defaults, and they pass the door."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from genlab import registry
from genlab.cli import composing, help
from genlab.cli import main as main_module
from genlab.cli.composing import Job, configs_folder
from genlab.cli.main import main
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


def names(group: str) -> list[str]:
    return sorted(file.stem for file in (FOLDER / group).glob("*.yaml"))


def read(group: str, name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / group / f"{name}.yaml").read_text())


def composed(monkeypatch: pytest.MonkeyPatch, *argv: str) -> list[dict[str, Any]]:
    """The plain configurations of one `genlab train` command, without run_dir."""
    jobs: list[Job] = []
    monkeypatch.setattr(main_module, "perform", lambda verb, job, run_dir: jobs.append(job))
    assert main(["train", *argv]) == 0
    return [{k: v for k, v in job.plain.items() if k != "run_dir"} for job in jobs]


def defaults_of(group: str, name: str) -> dict[str, Any]:
    entry = registry.look_up(REGISTRIES[group], name, group)
    config = getattr(entry, "Config", entry)
    try:
        return to_plain(config())
    except TypeError:  # a required setting, ??? in the file
        return to_plain(config(**dict.fromkeys(required(config), "???")))


def needed(dataset: str) -> list[str]:
    """What a dataset cannot do without, as words."""
    keys = {"folder": "path", "npz": "path", "codes": "ckpt"}
    return [f"dataset.{keys[dataset]}=somewhere"] if dataset in keys else []


def required(config: Any) -> list[str]:
    missing = dataclasses.MISSING
    return [
        f.name for f in dataclasses.fields(config) if f.default is missing and f.default_factory is missing
    ]


@pytest.mark.parametrize("group", REGISTRIES)
def test_a_file_for_each_name_of_a_registry(group: str) -> None:
    assert set(REGISTRIES[group]) <= set(names(group))


@pytest.mark.parametrize(("group", "name"), [(g, n) for g in REGISTRIES for n in names(g)])
def test_files_hold_every_default(group: str, name: str) -> None:
    plain = read(group, name)
    bases = [base for base in plain.pop("defaults", []) if base in names(group)]
    if bases:  # another file's settings, some of them changed
        assert set(plain) < set(defaults_of(group, bases[0]))
    else:
        assert plain == defaults_of(group, plain["name"])


def test_trainer_holds_every_default() -> None:
    assert read("trainer", "default") == to_plain(TrainerConfig())


@pytest.mark.parametrize(
    ("verb", "config"), [(verb, row.config) for verb, row in VERBS.items() if row.config]
)
def test_files_of_verbs_hold_every_default(verb: str, config: Any) -> None:
    plain = yaml.safe_load((FOLDER / f"{verb}.yaml").read_text())
    assert plain == to_plain(config(ckpt="???"))


@pytest.mark.parametrize(
    "word",
    [
        f"{group}={name}"
        for group in ("model", "dataset", "optimizer", "schedule", "trainer", "experiment")
        for name in names(group)
    ],
)
def test_every_option_composes_and_passes_the_door(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ["model=gated_pixelcnn"] if word == "dataset=codes" else []
    (plain,) = composed(monkeypatch, *model, word, *needed(word.removeprefix("dataset=")))
    registry.train_config(plain)


@pytest.mark.parametrize("name", names("recipe"))
def test_every_recipe_comes_by_itself_and_passes_the_door(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(m, d) for m in names("model") for d in names("dataset") if f"{m}_{d}" == name]
    assert pairs, f"recipe {name} belongs to no model and dataset"
    model, dataset = pairs[0]
    with_it, without = [
        composed(monkeypatch, f"model={model}", f"dataset={dataset}", *needed(dataset), *more)[0]
        for more in ([], ["recipe=none"])
    ]
    registry.train_config(with_it)
    assert with_it != without


@pytest.mark.parametrize("name", names("sweep"))
def test_every_sweep_composes_and_passes_the_door(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = composed(monkeypatch, f"sweep={name}")
    assert len(jobs) > 1
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

    root = Path(__file__).parents[1]
    listed = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {".".join(f.parent.relative_to(root).parts) for f in (root / "genlab").rglob("*.py")}
    assert set(listed) == there | {"genlab.configs"}


def files_of_settings() -> dict[str, tuple[Path, type]]:
    """Each shipped file that has the settings of one dataclass."""
    found = {
        f"{verb}.yaml": (FOLDER / f"{verb}.yaml", row.config) for verb, row in VERBS.items() if row.config
    }
    found["trainer/default.yaml"] = (FOLDER / "trainer/default.yaml", TrainerConfig)
    for group in ("model", "dataset", "optimizer", "schedule"):
        for name in names(group):
            if kind := read(group, name).get("name"):
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
