"""From the words of a command to its jobs: composition, sweeps, and what is shown of them.

Composing has finished before the work starts, so a failing job of a sweep does not stop the others. Hydra is
imported by `genlab.cli.composer` alone, after the words have been checked.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genlab.cli import explain, overrides, words
from genlab.config.schema import show
from genlab.errors import ConfigError, printable


@dataclass(frozen=True)
class Job:
    """One composed configuration.

    Attributes:
        plain: the resolved configuration.
        overrides: the words that produced it, as typed.
        swept: whether it is one job of a sweep.
        recipe: the name of the recipe that is part of it; None if there is none.
        files: the files that it consists of, in the order of merging, and the part that each one sets.
        sweep: the key `sweep` of these files: keys with several values each; None if there is none.
    """

    plain: dict[str, Any]
    overrides: list[str]
    swept: bool
    recipe: str | None = None
    files: tuple[tuple[Path, str], ...] = ()
    sweep: Any = None

    @property
    def run_dir(self) -> str | None:
        value = self.plain.get("run_dir")
        if isinstance(value, list | dict | bool):
            raise ConfigError(f"run_dir={show(value)}: expected the path of a folder")
        return None if value is None else str(value)


def configs_folder() -> Path:
    """Returns the folder of shipped configurations: inside an installed package, else beside the package."""
    packaged = Path(__file__).parents[1] / "configs"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "configs"


def compose(command: words.Command, folders: list[Path]) -> list[Job]:
    """Composes the configuration of each job; returns no jobs if it was only asked to print something.

    Raises:
        ConfigError: the words do not form a valid configuration.
    """
    command = words.with_known_names(command)
    flags = command.flags
    ready = overrides.for_hydra(command, folders)
    stored = None
    if command.verb == "resume":
        if refused := {"--multirun", "--config-name", "--config-path"} & flags.keys():
            raise ConfigError(f"{min(refused)}: genlab resume continues one run as configured; leave it out")
        stored = overrides.stored_config(command.value("run"))
        ready = {word: typed for word, typed in ready.items() if not typed.startswith("run=")}
    jobs = _jobs(command, ready, folders, stored)
    typed = {_key(word) for job in jobs for word in job.overrides}  # also the keys of a file's sweep
    chosen = [key for key in ("optimizer", "schedule", "trainer") if key in typed]
    if command.verb == "train" and chosen:
        without = {word: typed for word, typed in ready.items() if not word.startswith("recipe=")}
        others = _jobs(command, without | {"recipe=none": "recipe=none"}, folders)
        jobs = _over_recipe(jobs, others, chosen)
    there = {path.stem for folder in folders for path in (folder / "recipe").glob("*.yaml")}
    jobs = [job if job.recipe in there else dataclasses.replace(job, recipe=None) for job in jobs]
    _tell_replaced(jobs, folders)
    if flags.get("--info"):
        print("\n".join(f"{file}{f' as {package}' if package else ''}" for file, package in jobs[0].files))
        return []
    if flags.get("--cfg"):
        _show(jobs, flags.get("--package"))
        return []
    if stored is not None:
        return [Job(job.plain | {"run": command.value("run")}, job.overrides, False) for job in jobs]
    return jobs


def _jobs(
    command: words.Command,
    ready: Mapping[str, str],
    folders: list[Path],
    stored: Mapping[str, Any] | None = None,
) -> list[Job]:
    """Composes the jobs of a command.

    Args:
        ready: the overrides, see `genlab.cli.overrides.for_hydra`.
        stored: a primary configuration that is given, instead of a file.
    """
    from genlab.cli.composer import Composer, sweep

    def job(typed: list[str], known: Mapping[str, str], swept: bool) -> Job:
        plain, choices, files = composer.compose(typed)
        return Job(
            {key: value for key, value in plain.items() if key != "sweep"},
            overrides.originals(typed, known),
            swept,
            choices.get("recipe"),
            tuple(files),
            plain.get("sweep"),
        )

    composer = Composer(str(command.flags.get("--config-name", command.verb)), folders, stored)
    with explain.explained(ready):
        parsed = composer.parse(list(ready))
        several = [each.input_line or "" for each in parsed if each.is_sweep_override()]
        first = job(next(iter(sweep(parsed))), ready, False)
        if first.sweep is None and "--multirun" not in command.flags:
            if several:
                typed = ready.get(several[0], several[0])
                raise ConfigError(
                    f"{typed}: several values; add -m to run one job for each, or [] around a list"
                )
            return [first]
        if any(word.startswith("sweep=") for word in several):
            raise ConfigError(f"{command.value('sweep')}: sweeps run one at a time; give one")
        ready = _of_the_file(first.sweep, command, folders, ready) | dict(ready)
        jobs = sweep(composer.parse(list(ready)))
        return [job(typed, ready, True) for typed in jobs]


def _of_the_file(
    plain: Any, command: words.Command, folders: list[Path], ready: Mapping[str, str]
) -> dict[str, str]:
    """Returns the overrides of a file's key `sweep`, without those whose key is also typed."""
    if plain is None:
        return {}
    if not isinstance(plain, Mapping):
        raise ConfigError(f"sweep={plain}: expected keys with their values, e.g. sweep: {{seed: [0, 1]}}")
    typed = {_key(word) for word in ready.values()}
    wanted = [
        f"{key}={value}" for key, value in overrides.swept_values(plain) if key.lstrip("+") not in typed
    ]
    return overrides.for_hydra(dataclasses.replace(command, words=wanted), folders)


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _tell_replaced(jobs: list[Job], folders: list[Path]) -> None:
    """Prints a line for each file that is used in place of a shipped one."""
    files = dict.fromkeys(file for job in jobs for file, _ in job.files)
    for file in files:
        (folder,) = [each for each in folders if file.is_relative_to(each)][:1]
        inner = file.relative_to(folder)
        if (shipped := folders[-1] / inner).is_file() and not shipped.samefile(file):
            print(printable(f"genlab: {file} replaces the shipped {inner}"), file=sys.stderr)


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
