"""The command line: verbs in front of Hydra's grammar.

Hydra composes the configuration and is done before the work starts, so that errors are raised as they are and
a failing job of a sweep stops no other. Nothing here imports torch or hydra before a verb needs it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genlab import __version__, completion, explain, help, words
from genlab.config.schema import from_plain, suggest
from genlab.errors import ConfigError, DivergedError, Interrupted, UserError, storage_errors

_HYDRA_SETTINGS = (  # Hydra only composes: no folders, logs or change of directory of its own
    "hydra.output_subdir=null",
    "hydra.run.dir=.",
    "hydra.job.chdir=false",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
)

_MODULES = {
    "sample": "genlab.commands.sample",
    "complete": "genlab.commands.complete",
    "reconstruct": "genlab.commands.reconstruct",
    "encode": "genlab.commands.encode",
    "interpolate": "genlab.commands.interpolate",
    "traverse": "genlab.commands.traverse",
    "denoise": "genlab.commands.denoise",
    "evaluate": "genlab.commands.evaluate",
}


@dataclass(frozen=True)
class Job:
    """One composed configuration.

    Attributes:
        plain: resolved, without Hydra's own part.
        overrides: the words behind it, as typed.
        swept: it is one of a sweep's.
        recipe: the name of the recipe that is part of it; None without one.
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
    """The shipped configurations: inside an installed package, beside the package in a checkout."""
    packaged = Path(__file__).parent / "configs"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "configs"


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the words after `genlab`; None for the process's own.

    Returns:
        the exit code: 0 done, 1 an error in genlab, 2 a mistake of the user's, 3 diverged, 75 interrupted.
    """
    return _guarded(lambda: _dispatch(sys.argv[1:] if argv is None else argv))[0]


def _guarded(action: Callable[[], int | None]) -> tuple[int, str]:
    """Does it; an error becomes an exit code and one line, which is also printed."""
    try:
        return action() or 0, "done"
    except (UserError, Interrupted) as error:
        if os.environ.get("GENLAB_TRACEBACK") == "1":
            traceback.print_exc()
        line = " ".join(str(error).split("\n"))
        code = error.exit_code
    except KeyboardInterrupt:
        line, code = "interrupted", 130
    except BrokenPipeError:  # who reads our words, e.g. `head`, has seen enough; nothing is lost by it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141, "its output was closed"
    except Exception as error:
        traceback.print_exc()
        line, code = f"{type(error).__name__}: {error}".split("\n")[0], 1
    print(f"genlab: {line}", file=sys.stderr)
    return code, line


def _dispatch(argv: list[str]) -> int:
    command = words.sort(argv)
    if command.flags.pop("--shell-completion", False):
        return completion.answer(command.value("query") or "bash", configs_folder(), _hydra)
    if command.flags.pop("--version", False):
        print(f"genlab {__version__}")
        return 0
    if command.verb is None and command.words:
        raise ConfigError(f"{command.words[0]}: say what to do first, e.g. genlab train {command.words[0]}")
    if command.verb is not None and command.verb not in words.VERBS:
        raise ConfigError(f"{command.verb}: no such command{suggest(command.verb, words.VERBS)}")
    folders = words.config_folders(command, configs_folder())
    if command.verb is None or command.flags.pop("--help", False):
        print(help.page(command.verb, folders))
        return 0
    if command.verb == "list":
        print(help.listing(folders))
        return 0
    if command.verb == "completion":
        print(completion.script(command.words[0] if command.words else None))
        return 0
    return _work(command.verb, _compose(command, folders))


def _compose(command: words.Command, folders: list[Path]) -> list[Job]:
    """Composes the configuration of each job; none when Hydra only had something to show.

    Raises:
        ConfigError: the words do not make a configuration.
    """
    flags = command.flags
    ready = words.for_hydra(command, folders)
    stored = None
    if command.verb == "resume":
        if refused := {"--multirun", "--config-name", "--config-path"} & flags.keys():
            raise ConfigError(f"{min(refused)}: genlab resume goes on with one run and its own configuration")
        stored = words.stored_config(command.value("run"))
        ready = {word: typed for word, typed in ready.items() if not typed.startswith("run=")}
    shown = flags.get("--cfg") == "job"
    hydra_flags = command.hydra_flags(*(("--cfg", "--package", "--resolve") if shown else ()))
    jobs = _hydra(str(command.verb), [*hydra_flags, *ready], ready, stored)
    chosen = [key for key in ("optimizer", "schedule", "trainer") if command.value(key)]
    if command.verb == "train" and chosen and jobs:
        without = [word for word in ready if not word.startswith("recipe=")]
        jobs = _over_recipe(jobs, _hydra("train", [*hydra_flags, *without, "recipe=none"], ready), chosen)
    there = {path.stem for folder in folders for path in (folder / "recipe").glob("*.yaml")}
    jobs = [job if job.recipe in there else dataclasses.replace(job, recipe=None) for job in jobs]
    # a key of sweep/*.yaml may be given again by hand, and then comes more than once
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
    """A group that the user chose by name, e.g. trainer=smoke, is taken as it stands, without a recipe."""

    def but_recipe(job: Job) -> tuple[str, ...]:
        return tuple(word for word in job.overrides if not word.startswith("recipe="))

    plains = {but_recipe(job): job.plain for job in without_recipe}
    return [
        dataclasses.replace(job, plain=job.plain | {key: plains[but_recipe(job)][key] for key in chosen})
        for job in jobs
    ]


def _show(jobs: list[Job], package: str | bool | None) -> None:
    """Prints what would run, or one part of it, as YAML."""
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


def _hydra(
    name: str, argv: list[str], ready: Mapping[str, str], stored: Mapping[str, Any] | None = None
) -> list[Job]:
    """Lets Hydra do with `argv` what it does, and collects what it composes.

    Args:
        name: of the primary configuration.
        argv: flags and overrides for Hydra.
        ready: those overrides that stand for another word, see `genlab.words.for_hydra`.
        stored: a primary configuration that is not among the shipped ones.
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
        except Exception as error:  # raised further down: Hydra would print a page of its own
            problems.append(error)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands exceptions on instead of printing them
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = [*_HYDRA_SETTINGS, f"hydra.sweep.dir='{scratch}'"]
        try:
            with _arguments([*argv, *settings]):
                hydra.main(config_path=str(configs_folder()), config_name=name, version_base="1.3")(collect)()
            if problems:
                raise problems[0]
        except SystemExit as error:
            if error.code:
                raise ConfigError("Hydra does not take these flags together; see genlab --help") from error
        except Exception as error:
            raise ConfigError(explain.explain(error, ready)) from error
    return jobs


@contextlib.contextmanager
def _arguments(words_for_hydra: list[str]) -> Iterator[None]:
    """hydra.main reads sys.argv."""
    before = sys.argv
    sys.argv = [before[0], *words_for_hydra]
    try:
        yield
    finally:
        sys.argv = before


def _work(verb: str, jobs: list[Job]) -> int:
    if not jobs:
        return 0
    if jobs[0].swept:
        return _sweep(verb, jobs)
    _perform(verb, jobs[0], jobs[0].run_dir)
    return 0


def _perform(verb: str, job: Job, run_dir: str | None) -> None:
    """The verb's work. Each is imported here, since it brings torch."""
    plain = dict(job.plain)
    if verb == "train":
        from genlab.commands import train

        plain.pop("run_dir", None)
        train.start(plain, job.overrides, run_dir, job.recipe)
    elif verb == "resume":
        from genlab.commands import train

        train.resume(str(plain.pop("run")), plain, job.overrides)
    else:
        from_plain(words.ON_CHECKPOINTS[verb], plain)  # a mistake shows before torch is loaded
        importlib.import_module(_MODULES[verb]).main(plain | {"run_dir": run_dir})


def _sweep(verb: str, jobs: list[Job]) -> int:
    """One job after another; one that fails stops no other. Ends with a table.

    Returns:
        the exit code of the first job that failed, 0 if none did.
    """
    from genlab.runs.folder import create_folder

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("--multirun: a sweep runs in one process; start torchrun once for each job")
    if len({job.run_dir for job in jobs}) > 1:
        raise ConfigError("run_dir: one folder for a whole sweep; job 0 goes to run_dir/0, and so on")
    folder = create_folder(verb, jobs[0].run_dir, "sweep")
    codes, rows, runs = [], [("job", "overrides", "run folder", "status")], []
    for number, job in enumerate(jobs):
        overrides = [word for word in job.overrides if not word.startswith("run_dir=")]
        print(f"job {number} ({len(jobs)} in all): {' '.join(overrides)}", file=sys.stderr, flush=True)
        path = folder / str(number)
        code, line = _guarded(lambda job=job, path=path: _perform(verb, job, str(path)))
        gc.collect()  # a model in a reference cycle would hold its GPU memory through the next job
        status = {0: "done", DivergedError.exit_code: "diverged", Interrupted.exit_code: "interrupted"}
        rows.append((str(number), " ".join(overrides), str(path), status.get(code, f"failed: {line}")))
        codes.append(code)
        runs.append((overrides, path))
        if code in (Interrupted.exit_code, 130):
            rest = [str(k) for k in range(number + 1, len(jobs))]
            rows += [(k, " ".join(jobs[int(k)].overrides), "", "not started") for k in rest]
            break
    print(help.table(rows))
    if verb == "train":
        from genlab.report.summary import write_summary

        with storage_errors(folder):
            write_summary(folder / "summary.csv", runs)
        print(f"wrote {folder}: summary.csv, and a folder for each job")
        done = [k for k, code in enumerate(codes) if code == 0 and jobs[k].plain["dataset"]["name"] != "none"]
        if done:  # and has data: a game without has nothing to sample
            from genlab import registry

            family = registry.look_up(registry.FAMILIES, jobs[done[0]].plain["model"]["name"], "model")
            print(f"next: {family.show_line(folder / str(done[0]))}")
    if any(code in (Interrupted.exit_code, 130) for code in codes):
        return codes[-1]
    return next((code for code in codes if code), 0)
