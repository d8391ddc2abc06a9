"""The run folder: resolved configuration, metrics, log, checkpoints and samples of one run."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import yaml

from genlab import __version__
from genlab.errors import CheckpointError, StorageError, UserError, storage_errors
from genlab.files import write_atomically
from genlab.log import log


def create_folder(verb: str, run_dir: str | None, label: str) -> Path:
    """Creates the folder of a new run, which no other run uses.

    Args:
        verb: the command: train, sample, complete and so on.
        run_dir: the path requested by the user; None for outputs/VERB/DATE-TIME-LABEL.
        label: MODEL-DATASET.

    Raises:
        UserError: `run_dir` already contains files.
        StorageError: the folder cannot be created.
    """
    try:
        if run_dir is not None:
            path = Path(run_dir)
            path.mkdir(parents=True, exist_ok=True)
            check_unused(run_dir, verb)
            # Two processes may both have found it empty: only one of them can create this file.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path / ".genlab", os.O_CREAT | os.O_EXCL))
                return path
            raise UserError(f"run_dir={path}: another run uses this folder; choose another one")
        base = Path("outputs") / verb / f"{time.strftime('%Y%m%d-%H%M%S')}-{label}"
        base.parent.mkdir(parents=True, exist_ok=True)
        for k in range(1, 10_000):
            path = base if k == 1 else base.with_name(f"{base.name}-{k}")
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                (path / ".genlab").touch()
                return path
    except OSError as error:
        raise StorageError(
            f"run_dir={run_dir or 'outputs'}: {error.strerror}; choose a writable run_dir="
        ) from error
    raise StorageError(f"{base}: every name is taken; choose run_dir=")


def check_unused(run_dir: str | None, verb: str) -> None:
    """Refuses a folder that contains files.

    Raises:
        UserError: it contains files.
    """
    path = Path(run_dir or "")
    if run_dir is not None and path.is_dir() and any(path.iterdir()):
        resume = f", or genlab resume run={path}" if verb == "train" else ""
        raise UserError(f"run_dir={path}: holds files already; choose another folder{resume}")


def check_there(ckpt: str | Path) -> None:
    """Refuses a path that is neither a run folder nor a file, before anything of it is read.

    Raises:
        CheckpointError: it does not exist, or is another folder; for that of a sweep the line names a job.
    """
    path = Path(ckpt)
    if not path.exists():
        raise CheckpointError(f"ckpt={ckpt}: no such run folder or checkpoint file; see ls outputs/train")
    if path.is_file() or (path / "checkpoints").is_dir() or (path / "config.yaml").is_file():
        return
    if path.is_dir() and any(path.glob("step-*.pt")):
        return
    jobs = sorted((folder.parent for folder in path.glob("*/checkpoints")), key=lambda each: len(each.name))
    if jobs:
        raise CheckpointError(f"ckpt={ckpt}: holds {len(jobs)} runs; give one of them, e.g. ckpt={jobs[0]}")
    raise CheckpointError(f"ckpt={ckpt}: no run folder and no checkpoint file; see ls outputs/train")


class Run:
    """One training run's folder, used by one process at a time.

    Attributes:
        path: the folder.
        checkpoints, samples: its subfolders.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self._metrics: IO[bytes] | None = None
        self._log_handler: logging.Handler | None = None
        self._lock = None

    def __enter__(self) -> Run:
        with storage_errors(self.path):
            self._take_lock()
            self.checkpoints.mkdir(exist_ok=True)
            self.samples.mkdir(exist_ok=True)
            self._log_handler = logging.FileHandler(self.path / "train.log")
            self._log_handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            log.addHandler(self._log_handler)
            self._metrics = open(self.path / "metrics.jsonl", "ab", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._log_handler is not None:
            log.removeHandler(self._log_handler)
            self._log_handler.close()
        for file in (self._metrics, self._lock):
            if file is not None:
                file.close()

    def write_config(self, plain: Mapping[str, Any], overrides: list[str]) -> None:
        """Writes config.yaml, overrides.txt (a resumed run appends to it) and environment.json."""
        with storage_errors(self.path):
            text = yaml.safe_dump(dict(plain), sort_keys=False)
            write_atomically(self.path / "config.yaml", text.encode())
            with open(self.path / "overrides.txt", "a") as file:
                file.writelines(f"{word}\n" for word in overrides)
            environment = json.dumps(describe_environment(), indent=2) + "\n"
            write_atomically(self.path / "environment.json", environment.encode())

    def metrics_bytes(self) -> int:
        """Returns the length of metrics.jsonl, to be stored in a checkpoint."""
        return (self.path / "metrics.jsonl").stat().st_size

    def rewind_metrics(self, length_bytes: int) -> None:
        """Truncates metrics.jsonl to the checkpoint's length."""
        assert self._metrics is not None
        if length_bytes < self.metrics_bytes():
            os.truncate(self.path / "metrics.jsonl", length_bytes)

    def write_metrics(self, values: Mapping[str, float | int]) -> None:
        """Appends one line to metrics.jsonl."""
        assert self._metrics is not None
        with storage_errors(self.path):
            self._metrics.write(json.dumps(values).encode() + b"\n")

    def _take_lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows has no fcntl
            return
        self._lock = open(self.path / ".genlab", "a")  # noqa: SIM115 (open as long as the run is)
        try:
            # the system releases the lock when the process dies
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"run={self.path}: another process is training it; wait, or stop that one"
            ) from error


def last_validation(run: Path, step: int) -> dict[str, float]:
    """Returns the metrics of the last validation up to a step of a run; none without a metrics.jsonl."""
    try:
        lines = (run / "metrics.jsonl").read_text().splitlines()
    except OSError:
        return {}
    numbers: dict[str, float] = {}
    for line in lines:
        with contextlib.suppress(ValueError):  # truncated: the run may still be writing
            values = json.loads(line)
            found = {
                key.removeprefix("validation/"): value
                for key, value in values.items()
                if key.startswith("validation/")
            }
            if found and values["step"] <= step:
                numbers = found
    return numbers


def describe_environment() -> dict[str, Any]:
    """Returns the versions and hardware that are needed to reproduce a run's metrics and times."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "genlab": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": metadata.version("torchvision"),  # to import it takes a second
        "cuda": torch.version.cuda if gpus else None,
        "gpus": gpus,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }


def _processor() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()
