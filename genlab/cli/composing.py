"""Composition of configurations: everything that genlab uses Hydra for.

Hydra has finished composing before the work starts. So errors are raised unchanged, and a failing job of a
sweep does not stop the others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genlab.cli import explain, words
from genlab.errors import ConfigError

_HYDRA_SETTINGS = (  # Hydra only composes: no folders, logs or change of directory of its own
    "hydra.output_subdir=null",
    "hydra.run.dir=.",
    "hydra.job.chdir=false",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
)


@dataclass(frozen=True)
class Job:
    """One composed configuration.

    Attributes:
        plain: the resolved configuration, without Hydra's own part.
        overrides: the words that produced it, as typed.
        swept: whether it is one job of a sweep.
        recipe: the name of the recipe that is part of it; None if there is none.
    """

    plain: dict[str, Any]
    overrides: list[str]
    swept: bool
    recipe: str | None = None

    @property
    def run_dir(self) -> str | None:
        value = self.plain.get("run_dir")
        return None if value is None else str(value)


def configs_folder() -> Path:
    """Returns the folder of shipped configurations: inside an installed package, else beside the package."""
    packaged = Path(__file__).parents[1] / "configs"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "configs"


def compose(command: words.Command, folders: list[Path]) -> list[Job]:
    """Composes the configuration of each job; returns no jobs if Hydra only printed information.

    Raises:
        ConfigError: the words do not form a valid configuration.
    """
    flags = command.flags
    ready = words.for_hydra(command, folders)
    stored = None
    if command.verb == "resume":
        if refused := {"--multirun", "--config-name", "--config-path"} & flags.keys():
            raise ConfigError(f"{min(refused)}: genlab resume continues one run as configured; leave it out")
        stored = words.stored_config(command.value("run"))
        ready = {word: typed for word, typed in ready.items() if not typed.startswith("run=")}
    more = words.plugin_folders(command, folders)
    shown = flags.get("--cfg") == "job"
    hydra_flags = command.hydra_flags(*(("--cfg", "--package", "--resolve") if shown else ()))
    jobs = hydra_jobs(str(command.verb), [*hydra_flags, *ready], ready, stored, more)
    chosen = [key for key in ("optimizer", "schedule", "trainer") if command.value(key)]
    if command.verb == "train" and chosen and jobs:
        without = [word for word in ready if not word.startswith("recipe=")]
        jobs = _over_recipe(
            jobs, hydra_jobs("train", [*hydra_flags, *without, "recipe=none"], ready, None, more), chosen
        )
    there = {path.stem for folder in folders for path in (folder / "recipe").glob("*.yaml")}
    jobs = [job if job.recipe in there else dataclasses.replace(job, recipe=None) for job in jobs]
    # A key of sweep/*.yaml may be given again on the command line, and then appears more than once.
    jobs = [job for k, job in enumerate(jobs) if job.plain not in [other.plain for other in jobs[:k]]]
    if shown:
        _show(jobs, flags.get("--package"))
        return []
    if not jobs and not {"--cfg", "--info", "--hydra-help"} & flags.keys():
        raise ConfigError("the sweep has no jobs; give a key several values, e.g. seed=0,1")
    if stored is not None:
        return [Job(job.plain | {"run": command.value("run")}, job.overrides, False) for job in jobs]
    return jobs


def _over_recipe(jobs: list[Job], without_recipe: list[Job], chosen: list[str]) -> list[Job]:
    """Gives a group that the user chose by name, e.g. trainer=smoke, priority over the recipe's settings."""

    def but_recipe(job: Job) -> tuple[str, ...]:
        return tuple(word for word in job.overrides if not word.startswith("recipe="))

    plains = {but_recipe(job): job.plain for job in without_recipe}
    return [
        dataclasses.replace(job, plain=job.plain | {key: plains[but_recipe(job)][key] for key in chosen})
        for job in jobs
    ]


def _show(jobs: list[Job], package: str | bool | None) -> None:
    """Prints the configurations that would run, or one part of them, as YAML."""
    import yaml

    for job in jobs:
        part: Any = job.plain
        for key in str(package).split(".") if package else ():
            if not isinstance(part, Mapping) or key not in part:
                raise ConfigError(f"--package={package}: no such part of the configuration; see --cfg job")
            part = part[key]
        if len(jobs) > 1:
            print(f"# {' '.join(job.overrides)}")
        print(yaml.safe_dump(part, sort_keys=False), end="" if len(jobs) == 1 else "---\n")


def hydra_jobs(
    name: str,
    argv: list[str],
    ready: Mapping[str, str],
    stored: Mapping[str, Any] | None = None,
    more_folders: Sequence[Path] = (),
) -> list[Job]:
    """Passes `argv` to Hydra and collects the configurations that it composes.

    Args:
        name: the name of the primary configuration.
        argv: flags and overrides for Hydra.
        ready: the overrides that replace a typed word, see `genlab.cli.words.for_hydra`.
        stored: a primary configuration that is not among the shipped ones; None to use `name`.
        more_folders: folders of configurations, beside the shipped one and that of --config-dir.
    """
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    if stored is not None:
        ConfigStore.instance().store(name=name, node=dict(stored))
    jobs: list[Job] = []
    problems: list[Exception] = []

    def collect(config: Any) -> None:
        try:
            chosen = HydraConfig.get()
            plain: Any = OmegaConf.to_container(config, resolve=True)
            swept = getattr(chosen.mode, "name", "") == "MULTIRUN"
            task: Any = OmegaConf.to_container(chosen.overrides.task, resolve=False)
            overrides = words.originals(task, ready)
            jobs.append(Job(plain, overrides, swept, chosen.runtime.choices.get("recipe")))
        except Exception as error:  # raised again below: Hydra would print a long message of its own
            problems.append(error)

    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings(), _raising_hydra():
        warnings.simplefilter("ignore")
        settings = [*_HYDRA_SETTINGS, f"hydra.sweep.dir='{scratch}'"]
        if more_folders:
            found = ",".join(f'"file://{folder}"' for folder in more_folders)
            settings.append(f"hydra.searchpath=[{found}]")
        try:
            with _arguments([*argv, *settings]):
                hydra.main(config_path=str(configs_folder()), config_name=name, version_base="1.3")(collect)()
            if problems:
                raise problems[0]
        except SystemExit as error:
            if error.code:
                raise ConfigError("these flags cannot be combined; see genlab --help") from error
        except Exception as error:
            raise ConfigError(explain.explain(error, ready)) from error
    return jobs


@contextlib.contextmanager
def _raising_hydra() -> Iterator[None]:
    """Hydra hands exceptions on, instead of printing them, where this variable is set."""
    name = "HYDRA_FULL_ERROR"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


@contextlib.contextmanager
def _arguments(words_for_hydra: list[str]) -> Iterator[None]:
    """Replaces sys.argv for a while, because hydra.main reads it."""
    before = sys.argv
    sys.argv = [before[0], *words_for_hydra]
    try:
        yield
    finally:
        sys.argv = before
