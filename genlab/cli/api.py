"""The Python interface to the command line: `genlab.train` and `genlab.compose`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from genlab import plugins, registry
from genlab.cli import words
from genlab.cli.composing import Job, configs_folder
from genlab.cli.composing import compose as compose_jobs
from genlab.cli.main import start_training
from genlab.errors import ConfigError


def compose(*typed: str) -> dict[str, Any]:
    """Composes the configuration of a run without running it, as `--cfg job` does.

    Args:
        typed: the words of the command line after `genlab train`, e.g. "model=vae", "trainer.steps=500".

    Returns:
        nested dictionaries of plain values: model, dataset, optimizer, schedule, trainer, seed, run_dir.

    Raises:
        UserError: a word is wrong; the message is the one that the command line would print.
    """
    plain = _job(typed).plain
    registry.parse({key: value for key, value in plain.items() if key != "run_dir"})
    return plain


def train(*typed: str, run_dir: str | os.PathLike[str] | None = None) -> Path:
    """Trains a model, as `genlab train` does.

    Args:
        typed: the words of the command line after `genlab train`.
        run_dir: the run folder; None for a new one under outputs/train.

    Returns:
        the run folder, for `genlab.load`.

    Raises:
        UserError: a word is wrong, or the dataset is missing; nothing was written.
        DivergedError: a loss was not finite.
    """
    job = _job(typed)
    return start_training(job, job.run_dir if run_dir is None else os.fspath(run_dir))


def _job(typed: tuple[str, ...]) -> Job:
    command = words.sort(["train", *typed])
    if command.flags.keys() - {"--config-dir", "--module"}:
        flag = min(command.flags.keys() - {"--config-dir", "--module"})
        raise ConfigError(f"{flag}: this flag has no effect from Python; use the command line for it")
    plugins.import_modules(command.modules)
    jobs = compose_jobs(command, words.config_folders(command, configs_folder()))
    if len(jobs) > 1 or jobs[0].swept:
        raise ConfigError("several runs at once: use genlab train -m, or call genlab.train for each")
    return jobs[0]
