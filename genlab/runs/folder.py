"""The run folder: resolved configuration, metrics, log, checkpoints and samples of one run."""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import logging
import os
import platform
import shlex
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import yaml

from genlab import __version__
from genlab.config.schema import typed
from genlab.errors import (
    CheckpointError,
    DivergedError,
    Interrupted,
    StorageError,
    UserError,
    storage_errors,
    storage_remedy,
)
from genlab.files import remove_temporary_files, to_json, write_atomically, write_json
from genlab.log import log

_FILES = (
    "checkpoints", "samples", "train.log", "metrics.jsonl", "overrides.txt", "environment.json", "state.json"
)  # fmt: skip
"""What a run folder may hold beside its configuration."""


BEFORE_TRAINING = {
    "train": "before training began; nothing was written",
    "resume": "before training went on; the run is as it was",
}
"""What the line of an early signal says, by verb."""


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
            if verb == "train":  # only one of them can lock the file
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
    """Refuses a folder that contains files, except those of a run that was killed before it had begun.

    Raises:
        UserError: it contains files.
    """
    path = Path(run_dir or "")
    if run_dir is None or not path.is_dir() or not any(path.iterdir()):
        return
    if verb == "train" and not has_begun(path):
        return
    resume = (
        f", or genlab resume {typed('run', path)}"
        if verb == "train" and (path / "config.yaml").exists()
        else ""
    )
    raise UserError(f"run_dir={path}: holds files already; choose another folder{resume}")


def has_begun(path: Path) -> bool:
    """Returns whether a folder holds more than a run that was killed before its config.yaml was written."""
    names = {file.name for file in path.iterdir() if not file.name.startswith(".config.yaml.")}
    if not {".genlab"} <= names <= {".genlab", *_FILES}:
        return True
    metrics = path / "metrics.jsonl"
    return any(path.glob("checkpoints/step-*.pt")) or (metrics.exists() and metrics.stat().st_size > 0)


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
    """One training run's folder, locked, and so used by one process at a time.

    `begin` opens its files; until then nothing but the lock is touched. As the context ends, state.json gets
    what became of the run.

    Attributes:
        path: the folder.
        checkpoints, samples: its subfolders.
        step: number of completed steps, for state.json.

    Raises:
        UserError: another process uses the folder.
        StorageError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self._metrics: IO[bytes] | None = None
        self._log_handler: logging.Handler | None = None
        self._lock: IO[str] | None = None
        self.step: int | None = None
        self._began: dict[str, str] = {}
        self._not_finite: set[str] = set()

    def __enter__(self) -> Run:
        with self._storage_errors():
            self._take_lock()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._began:
            with contextlib.suppress(OSError):  # what has ended the run is more important
                self._write_end(error)
        if self._log_handler is not None:
            log.removeHandler(self._log_handler)
            with contextlib.suppress(OSError):
                self._log_handler.close()
        for file in (self._metrics, self._lock):
            if file is not None:
                file.close()

    def begin(
        self, verb: str, plain: Mapping[str, Any], overrides: list[str], data: Mapping[str, Any] | None = None
    ) -> None:
        """Opens the files of a run that begins or goes on.

        The configuration is written first: from then on `genlab resume` goes on, and before, `genlab train`.

        Args:
            verb: train or resume.
            plain: the whole configuration.
            overrides: the words that were typed.
            data: the fingerprint of the dataset; None for no check.

        Raises:
            UserError: the folder has been used in the meantime.
        """
        with self._storage_errors():
            if verb == "train" and has_begun(self.path):
                raise UserError(f"run_dir={self.path}: another run uses this folder; choose another one")
            text = yaml.safe_dump(dict(plain), sort_keys=False)
            write_atomically(self.path / "config.yaml", text.encode())
            for folder in (self.checkpoints, self.samples):
                folder.mkdir(exist_ok=True)
            for folder in (self.path, self.checkpoints, self.samples):
                remove_temporary_files(folder)
            self._log_handler = _LogFile(self.path / "train.log")
            log.addHandler(self._log_handler)
            self._metrics = open(  # noqa: SIM115 (open as long as the run is)
                self.path / "metrics.jsonl", "ab", buffering=0
            )
            now = _now()
            self._began = {"began": read_state(self.path).get("began", now), "session_began": now}
            self._write_state("running")
            self._write_session(verb, overrides)
            self._write_environment(data)

    def metrics_bytes(self) -> int:
        """Returns the length of metrics.jsonl, to be stored in a checkpoint."""
        assert self._metrics is not None
        return os.fstat(self._metrics.fileno()).st_size

    def flush_metrics(self) -> None:
        """Flushes metrics.jsonl to disk: a checkpoint that remembers its length must not survive it."""
        assert self._metrics is not None
        with self._storage_errors(), contextlib.suppress(io.UnsupportedOperation):
            os.fsync(self._metrics.fileno())

    def rewind_metrics(self, length_bytes: int) -> None:
        """Truncates metrics.jsonl to the checkpoint's length, and to complete lines; warns of lost ones."""
        assert self._metrics is not None
        path = self.path / "metrics.jsonl"
        with self._storage_errors():
            content = path.read_bytes()[:length_bytes]
            complete = content.rfind(b"\n") + 1
            if complete < length_bytes:
                log.warning(
                    "%s: the checkpoint was saved with %d bytes of it, and %d of complete lines are left; "
                    "the lines in between are lost",
                    path, length_bytes, complete,
                )  # fmt: skip
            if complete < self.metrics_bytes():
                os.truncate(path, complete)

    def write_metrics(self, values: Mapping[str, float | int]) -> None:
        """Appends one line to metrics.jsonl; null stands for a number that is not finite."""
        assert self._metrics is not None
        text, names = to_json(values)
        if new := sorted(set(names) - self._not_finite):
            self._not_finite.update(new)
            log.warning("metrics.jsonl: null stands for what is not finite: %s", ", ".join(new))
        line, length = text.encode() + b"\n", self.metrics_bytes()
        with self._storage_errors():
            try:
                while line:
                    line = line[self._metrics.write(line) or 0 :]  # a full disk may take a part of it
            except OSError as error:
                error.filename = str(self.path / "metrics.jsonl")
                with contextlib.suppress(OSError):
                    os.truncate(self._metrics.fileno(), length)
                raise

    def _write_state(self, state: str, **facts: Any) -> None:
        """Writes state.json: running, finished, interrupted, diverged or failed."""
        process = {"host": platform.node(), "pid": os.getpid(), "processes": _processes()}
        write_json(self.path / "state.json", {"state": state} | self._began | process | facts)

    def _write_end(self, error: BaseException | None) -> None:
        match error:
            case None:
                state = "finished"
            case Interrupted():
                state = "interrupted"
            case DivergedError():
                state = "diverged"
            case _:
                state = "failed"
        message = " ".join(str(error).split()) if isinstance(error, UserError | Interrupted) else repr(error)
        if error is not None:
            log.debug("%s: %s", state, message)  # for train.log; the console gets it as the command ends
        self._write_state(state, ended=_now(), step=self.step, message=message if error else None)

    def _write_session(self, verb: str, overrides: list[str]) -> None:
        """Adds to overrides.txt the words of this session, under a line with its date."""
        with open(self.path / "overrides.txt", "a") as file:
            file.write(f"# {_now()} genlab {verb}\n" + "".join(f"{word}\n" for word in overrides))

    def _write_environment(self, data: Mapping[str, Any] | None) -> None:
        """Writes environment.json, and warns if the dataset is not that of the last session."""
        path = self.path / "environment.json"
        with contextlib.suppress(OSError, ValueError, AttributeError):
            before = json.loads(path.read_text()).get("dataset")
            if data is not None and before is not None and before != data:
                changed = [split for split in {**before, **data} if before.get(split) != data.get(split)]
                log.warning(
                    "run=%s: the dataset has changed since the last session (%s); the run goes on with other "
                    "data than it began with",
                    self.path, ", ".join(changed),
                )  # fmt: skip
        write_json(path, describe_environment() | ({"dataset": data} if data is not None else {}))

    def _storage_errors(self) -> contextlib.AbstractContextManager[None]:
        return storage_errors(self.path, f"genlab resume {typed('run', self.path)}")

    def _take_lock(self) -> None:
        _with_locks.add(self)
        self._lock = open(self.path / ".genlab", "a")  # noqa: SIM115 (open as long as the run is)
        try:
            import fcntl
        except ImportError:  # Windows has no fcntl
            return
        try:
            # the system releases the lock when the process dies
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise UserError(
                f"run={self.path}: another process is training it; wait, or stop that one"
            ) from error


_with_locks: weakref.WeakSet[Run] = weakref.WeakSet()


def _leave_locks_to_parent() -> None:
    """Closes the copies of locks that a forked process has, such as one that loads data.

    A killed run's lock would otherwise last until that process notices that it is alone.
    """
    for run in _with_locks:
        if run._lock is not None:
            run._lock.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_locks_to_parent)


class _LogFile(logging.FileHandler):
    """The file train.log. If it cannot be written, the console says so once, and training goes on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if self._failed or not isinstance(error, OSError):
            return
        self._failed = True
        path = Path(self.baseFilename)
        remedy = storage_remedy(error, path.parent) or "see the system's message"
        log.warning("%s: could not be written (%s); %s; training goes on", path, error.strerror, remedy)


def read_state(run: Path) -> dict[str, Any]:
    """Returns the content of a run's state.json; an empty dictionary without a valid one."""
    with contextlib.suppress(OSError, ValueError):
        state = json.loads((run / "state.json").read_text())
        if isinstance(state, dict):
            return state
    return {}


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
                if key.startswith("validation/") and value is not None
            }
            if found and values["step"] <= step:
                numbers = found
    return numbers


def describe_environment() -> dict[str, Any]:
    """Returns the date, command, versions and hardware that reproduce a run's metrics and times."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "date": _now(),
        "command": shlex.join(sys.argv),
        **_git_commit(),
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
        "processes": _processes(),
    }


def _git_commit() -> dict[str, Any]:
    """Returns the commit of the working folder, and whether its tracked files are unchanged; or None."""
    command = ["git", "--no-optional-locks", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return {"git_commit": None, "git_clean": None}
    lines = done.stdout.splitlines()
    commits = [line.split()[-1] for line in lines if line.startswith("# branch.oid")]
    clean = all(line.startswith("#") for line in lines)
    return {"git_commit": commits[0] if commits else None, "git_clean": clean}


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _processor() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()
