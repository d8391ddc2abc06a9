"""The entry point: parses the words of the command line, runs the verb and returns an exit code."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from genlab import __version__, plugins, registry
from genlab.cli import completion, help, hints, overrides, words
from genlab.cli.composing import Job, compose, configs_folder
from genlab.cli.sweeps import sweep
from genlab.cli.verbs import VERBS
from genlab.config.datasets import check_files
from genlab.config.schema import from_plain
from genlab.errors import ConfigError, Interrupted, StorageError, UserError, one_line, storage_remedy
from genlab.log import courteous_console
from genlab.memory import limited_memory, memory_errors, smaller_batch
from genlab.runs.folder import BEFORE_TRAINING, check_there, check_unused
from genlab.stop import Stop


def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the words after `genlab`; None for those of the process.

    Returns:
        the exit code: 0 success, 1 an error in genlab, 2 a user error, 3 diverged, 75 interrupted.
    """
    return _guarded(lambda: _interruptible(sys.argv[1:] if argv is None else argv))[0]


def _interruptible(argv: list[str]) -> int:
    """Runs a command that a signal ends at once; training has a context of its own, which saves first."""
    verb = next((word for word in argv if word in VERBS), "")
    otherwise = "before the end; type the command again, with another run_dir= if it has one"
    with Stop() as stop, stop.at_once(BEFORE_TRAINING.get(verb, otherwise)):
        return _dispatch(argv)


def _guarded(action: Callable[[], int | None]) -> tuple[int, str]:
    """Runs an action; turns an error into an exit code and one line, which is also printed."""
    shown = ""
    try:
        return action() or 0, "done"
    except (UserError, Interrupted) as error:
        if os.environ.get("GENLAB_TRACEBACK") == "1":
            shown = traceback.format_exc()
        line = one_line(error)
        code = error.exit_code
    except KeyboardInterrupt:
        line, code = "interrupted", 130
    except BrokenPipeError:  # the reader of our output, e.g. `head`, has closed it; this is not an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141, "its output was closed"
    except Exception as error:
        shown = traceback.format_exc()
        line, code = one_line(f"{type(error).__name__}: {error}"), 1
    with courteous_console():
        print(f"{shown}genlab: {line}", file=sys.stderr)
    return code, line


def _dispatch(argv: list[str]) -> int:
    with _printing():
        verb, jobs = _prepare(argv)
    return _work(verb, jobs)


@contextlib.contextmanager
def _printing() -> Iterator[None]:
    """Writes characters that the output cannot encode as in Python; turns a full disk into one line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
        if sys.stdout is not None:  # it was closed before the start
            sys.stdout.flush()
    except OSError as error:
        if isinstance(error, BrokenPipeError) or error.filename is not None or sys.stdout is None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left of it cannot be written
        remedy = storage_remedy(error, Path()) or "give it another place"
        raise StorageError(f"output: cannot be written ({error.strerror}); {remedy}") from error


def _prepare(argv: list[str]) -> tuple[str, list[Job]]:
    """Returns the verb and its jobs; none if the command only prints something."""
    command = words.sort(argv)
    if command.flags.pop("--shell-completion", False):
        completion.answer(command.value("query") or "bash", configs_folder())
        return "", []
    if command.flags.pop("--version", False):
        print(f"genlab {__version__}")
        return "", []
    if command.verb is None and command.words:
        raise ConfigError(f"missing command before {command.words[0]}; try genlab train {command.words[0]}")
    if command.verb is not None and command.verb not in VERBS:
        asked = {"help": "genlab --help", "version": "genlab --version"}.get(command.verb)
        hint = f"; did you mean {asked}?" if asked else hints.for_command(command.verb)
        raise ConfigError(f"{command.verb}: no such command{hint}")
    plugins.import_modules(command.modules)
    folders = words.config_folders(command, configs_folder())
    if command.verb is None or command.flags.pop("--help", False):
        sections = ("model", "dataset", "optimizer", "schedule", "trainer")
        if command.verb == "train":
            overrides.for_hydra(command, folders)
        elif command.words:
            raise ConfigError(
                f"{command.words[0]}: genlab {command.verb or ''} --help takes no further words"
            )
        typed = [(group, command.value(group)) for group in sections]
        print(help.page(command.verb, folders, [(group, name) for group, name in typed if name]))
        return command.verb or "", []
    if command.verb in ("list", "completion") and len(command.words) > 1:
        raise ConfigError(f"{command.words[1]}: genlab {command.verb} takes one word; leave it out")
    if command.verb == "list":
        print(help.listing(folders, command.words[0] if command.words else None))
        return command.verb or "", []
    if command.verb == "completion":
        print(completion.script(command.words[0] if command.words else None))
        return command.verb or "", []
    return command.verb, compose(command, folders)


def _work(verb: str, jobs: list[Job]) -> int:
    if not jobs:
        return 0
    with courteous_console():  # the result is in files
        if jobs[0].swept:
            _refuse_if_all_are_wrong(verb, jobs)
            return sweep(verb, jobs, lambda job, folder: _guarded(lambda: perform(verb, job, folder)))
        perform(verb, jobs[0], jobs[0].run_dir)
    return 0


def _refuse_if_all_are_wrong(verb: str, jobs: list[Job]) -> None:
    """Refuses a sweep none of whose jobs can run, before its folder is created; one job is enough."""
    errors = []
    for job in jobs:
        try:
            _check(verb, job)
            return
        except UserError as error:
            errors.append(error)
    raise errors[0]


def _check(verb: str, job: Job) -> Any:
    """Checks the configuration of a job of a verb but resume, before torch is loaded; returns it.

    Raises:
        UserError: a setting is wrong, or the files that it names do not exist.
    """
    plain = dict(job.plain)
    if verb == "train":
        plain.pop("run_dir", None)
        config = registry.parse(plain)
        check_files(config.dataset)
        return config
    kind = VERBS[verb].config
    assert kind is not None
    given = from_plain(kind, plain)
    if given.ckpt is not None:
        check_there(given.ckpt)
    return given


def start_training(job: Job, run_dir: str | None) -> Path:
    """Trains, and returns the run folder. Reports an error in the configuration before torch is loaded."""
    _check("train", job)
    check_unused(run_dir, "train")
    plain = {key: value for key, value in job.plain.items() if key != "run_dir"}

    from genlab.commands import train

    return train.start(plain, job.overrides, run_dir, job.recipe)


def perform(verb: str, job: Job, run_dir: str | None) -> None:
    """Runs a verb for one job. Imports the verb's module here, since it imports torch."""
    plain = dict(job.plain)
    if verb == "train":
        start_training(job, run_dir)
    elif verb == "resume":
        run = str(plain.pop("run"))
        if "seed" not in plain:  # the last key of the file
            raise ConfigError(f"run={run}: its config.yaml is truncated; restore it")
        registry.parse(plain)

        from genlab.commands import train

        train.resume(run, plain, job.overrides)
    else:
        given = _check(verb, job)
        check_unused(run_dir, verb)
        module = importlib.import_module(f"genlab.commands.{verb}")
        with limited_memory(), memory_errors(*smaller_batch("batch_size", given.batch_size)):
            module.main(plain | {"run_dir": run_dir})
