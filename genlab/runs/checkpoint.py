"""Checkpoints with a checksum: written atomically, and read without running code.

A checkpoint is an ordinary `torch.save` file of tensors, numbers, strings, lists and dicts, whose zip comment
holds the SHA-256 of all bytes before it. `torch.load` can read it; `load` of this module checks every byte
first.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

import torch

from genlab import tensor_files
from genlab.config.renamed import with_present_names
from genlab.config.schema import typed
from genlab.errors import CheckpointError, DamagedError, ElsewhereError, StorageError, storage_remedy
from genlab.files import write_atomically
from genlab.log import log
from genlab.memory import machine_memory
from genlab.runs.folder import check_there
from genlab.tensor_files import StructureError, TensorOutline

FORMAT = 2
"""Version of the format. Increase it when a key changes its meaning, and add a step to `upgrade`."""

_KEYS = {"format", "config", "spec", "step", "images", "weights", "optimizers", "averages", "random"}
_NAME = re.compile(r"step-\d{8,}\.pt", re.ASCII)
_NO_COMMENT = b"\x00\x00"  # the last field of a zip file without a comment: the comment's length
_MARK = b"genlab-sha256:"
_TRAILER_BYTES = 2 + len(_MARK) + 64
_TRAILER = re.compile(b".." + _MARK + b"[0-9a-f]{64}", re.DOTALL)
_QUICKLY_READ_BYTES = 2**30

T = TypeVar("T")


def save(folder: Path, state: Mapping[str, Any], *, keep: int) -> Path:
    """Writes `folder/step-NNNNNNNN.pt`, then points `latest` at it, then deletes all but the `keep` newest.

    The file is written under another name, flushed to disk, read back and compared, and only then renamed,
    so that the old or the new checkpoint is valid whenever the process dies.

    Raises:
        CheckpointError: the state has more than tensors, numbers and words in lists and dictionaries.
        StorageError: the disk is full or the folder not writable; earlier checkpoints are unchanged.
    """
    path = folder / f"step-{state['step']:08d}.pt"
    content = _seal(state)
    try:
        tensor_files.outline(io.BytesIO(content), _TRAILER_BYTES - 2)
    except StructureError as error:
        raise CheckpointError(
            f"{path}: could not be read again ({error}); see the model's weights"
        ) from error
    try:
        if folder.parent.is_dir():  # a run folder that was removed is not made anew
            folder.mkdir(exist_ok=True)
        write_atomically(path, content, verify=True)
        keep_newest(path, keep)
    except OSError as error:
        good = newest(folder)
        known = f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"
        remedy = storage_remedy(error, folder.parent) or "check the disk"
        raise StorageError(
            f"{path}: could not be written ({error.strerror or error}); {known}; {remedy}, then "
            f"genlab resume {typed('run', folder.parent)}"
        ) from error
    return path


def keep_newest(path: Path, keep: int) -> None:
    """Points `latest` at a valid checkpoint, and deletes all but the `keep` newest up to it.

    None of a later step is counted, lest such a file, which is damaged, take the place of a valid one.
    """
    folder, content = path.parent, path.name.encode() + b"\n"
    latest = folder / "latest"
    if not latest.is_file() or latest.read_bytes() != content:
        write_atomically(latest, content)
    for old in [each for each in list_checkpoints(folder) if _step_of(each) <= _step_of(path)][keep:]:
        old.unlink(missing_ok=True)


def load(path: Path, check: Callable[[dict[str, Any]], object] | None = None) -> dict[str, Any]:
    """Reads one checkpoint file onto the CPU, after checking its structure and every byte of it.

    A checksum says that a file is as it was written, not that its content is true: see `genlab.runs.content`.

    Args:
        check: is called before a tensor is read, with the outline of the content, where each tensor is a
            `genlab.tensor_files.TensorOutline`; what it raises ends the reading.

    Raises:
        CheckpointError: missing, damaged, not written by genlab, or of a newer format. No code in it is run.
    """
    if path.exists() and not path.is_file():  # a pipe, say, from which reading would wait without end
        raise CheckpointError(f"ckpt={path}: is no file; give a run folder or a .pt file")
    try:
        with path.open("rb") as file:
            outline = _outline(path, file)
            if check is not None:
                check(outline)
            file.seek(0)
            content = file.read()
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "too large for this machine's memory"
        raise CheckpointError(f"ckpt={path}: {reason}; give a run folder or a .pt file") from error
    _check_sum(path, content[-_TRAILER_BYTES:], hashlib.sha256(memoryview(content)[:-_TRAILER_BYTES]))
    try:
        return _of_this_format(path, tensor_files.load_checked(io.BytesIO(content)))
    except StructureError as error:
        raise _more_than_values(path, error) from error


def _outline(path: Path, file: IO[bytes]) -> dict[str, Any]:
    """Returns the outline of a checkpoint, in the present format.

    Raises:
        CheckpointError: as `load`.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _TRAILER_BYTES))
    trailer = file.read(_TRAILER_BYTES)
    if not _TRAILER.fullmatch(trailer):
        raise DamagedError(f"ckpt={path}: truncated, or not a genlab checkpoint; use another one of the run")
    if size > machine_memory():
        raise CheckpointError(f"ckpt={path}: {size / 2**30:,.0f} GiB are more than this machine's memory")
    try:
        outline = tensor_files.outline(file, len(trailer) - 2)
    except StructureError as error:
        if size <= _QUICKLY_READ_BYTES:  # the more common reason
            file.seek(0)
            _check_sum(path, trailer, hashlib.sha256(file.read(size - _TRAILER_BYTES)))
        raise _more_than_values(path, error) from error
    return _of_this_format(path, outline)


def _check_sum(path: Path, trailer: bytes, found: hashlib._Hash) -> None:
    if trailer[-64:] != found.hexdigest().encode():
        raise DamagedError(f"ckpt={path}: damaged (its checksum does not match); use another one of the run")


def _more_than_values(path: Path, error: StructureError) -> CheckpointError:
    return CheckpointError(f"ckpt={path}: holds more than tensors and plain values; refused ({error})")


def _of_this_format(path: Path, state: Any) -> dict[str, Any]:
    """Returns a checkpoint, or its outline, in the present format."""
    if not isinstance(state, dict) or "format" not in state:
        raise CheckpointError(f"ckpt={path}: not a genlab checkpoint")
    number = state["format"]
    if type(number) is not int or number not in range(1, FORMAT + 1):
        newer = type(number) is int and number > FORMAT
        raise (ElsewhereError if newer else CheckpointError)(
            f"ckpt={path}: format {_named(number)}, this genlab reads up to {FORMAT}; upgrade genlab"
        )
    if not state.keys() >= _KEYS:
        raise CheckpointError(f"ckpt={path}: not a genlab checkpoint")
    try:
        return upgrade(state)
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"ckpt={path}: not a genlab checkpoint of format {number}") from error


def _named(value: Any) -> str:
    return str(value)[:40] if type(value) in (int, float, str, type(None)) else type(value).__name__


def upgrade(state: dict[str, Any]) -> dict[str, Any]:
    """Converts a checkpoint of an earlier format to the present one, step by step.

    Each step converts one format to the next, so that a checkpoint of any age passes all later steps.
    Whoever renames, splits or removes a key of the state or of its configuration increases `FORMAT`, adds a
    step here, and a small run folder of the previous format to the tests' data.
    """
    while state["format"] < FORMAT:
        state = _STEPS[state["format"]](state) | {"format": state["format"] + 1}
    return state


def _from_1(state: dict[str, Any]) -> dict[str, Any]:
    """Converts format 1 to 2: names in the configuration, and of averages.

    Averages had the names of torch's AveragedModel: `n_averaged`, and `module.` before each weight.
    """
    averages = {
        player: {
            "updates": _count(average["n_averaged"]),
            "weights": {
                name.removeprefix("module."): value for name, value in average.items() if name != "n_averaged"
            },
        }
        for player, average in state["averages"].items()
    }
    return state | {"averages": averages, "config": with_present_names(state["config"])}


def _count(value: Any) -> Any:
    """Returns a tensor of one whole number as a number; in an outline, where its value is not known, 0."""
    return 0 if isinstance(value, TensorOutline) else int(value)


_STEPS = {1: _from_1}
"""Format to the step that converts it to the next one."""


def find(where: str | Path, read: Callable[[Path], T] = load) -> tuple[Path, T]:
    """Finds the checkpoint that a path stands for: one file, or the newest valid one of a run folder.

    If the newest checkpoint is damaged, a warning names it and the one before is used.

    Args:
        read: reads one file: `load`, or a function that checks more.

    Raises:
        CheckpointError: there is no checkpoint, or no valid one.
    """
    where = Path(where)
    if where.is_file():
        where = _file_of(where)
        return where, read(where)
    check_there(where)
    folder = where / "checkpoints" if (where / "checkpoints").is_dir() else where
    errors: list[CheckpointError] = []
    paths = list_checkpoints(folder)
    for path in paths:
        try:
            found = read(path)
            _check_name(path, found)
            return path, found
        except ElsewhereError:
            raise
        except CheckpointError as error:
            errors.append(error)
            if len(errors) < len(paths):  # what is raised below tells of the last one
                log.warning("%s", error)
    if not errors:
        raise CheckpointError(
            f"ckpt={where}: no checkpoint in it yet; go on with: genlab resume {typed('run', where)}"
        )
    if all(isinstance(error, DamagedError) for error in errors):
        raise CheckpointError(f"ckpt={where}: all {len(errors)} checkpoints are damaged; start a new run")
    first = next(error for error in errors if not isinstance(error, DamagedError))
    raise CheckpointError(f"ckpt={where}: none of its {len(errors)} checkpoints can be used: {first}")


def _file_of(where: Path) -> Path:
    """Returns the checkpoint file that a file stands for: `latest` holds the name of one beside it."""
    if where.name != "latest" or where.stat().st_size > 100:
        return where
    name = where.read_text(encoding="utf-8", errors="replace").strip()
    if not _NAME.fullmatch(name) or not (where.parent / name).is_file():
        raise CheckpointError(f"ckpt={where}: names no checkpoint beside it; give ckpt={where.parent.parent}")
    return where.parent / name


def _check_name(path: Path, found: Any) -> None:
    """Refuses a file whose name has another step than its content."""
    step = found["step"] if isinstance(found, dict) else found.state["step"]
    if step != _step_of(path):
        raise CheckpointError(f"ckpt={path}: its content is of step {_named(step)}; rename it, or remove it")


def list_checkpoints(folder: Path) -> list[Path]:
    """Returns the checkpoint files of a folder, newest first."""
    found = [path for path in folder.glob("step-*.pt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (_step_of(path), path), reverse=True)


def _step_of(path: Path) -> int:
    """Returns the step in the name of a checkpoint file."""
    return int(path.name[len("step-") : -len(".pt")])


def newest(folder: Path) -> Path | None:
    """Returns the newest valid checkpoint file, or None."""
    for path in list_checkpoints(folder):
        with contextlib.suppress(CheckpointError):
            _check_name(path, load(path))
            return path
    return None


def _seal(state: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    content = buffer.getvalue()
    assert content.endswith(_NO_COMMENT)
    body = content[: -len(_NO_COMMENT)]
    return body + _trailer(body)


def _trailer(body: bytes) -> bytes:
    comment = _MARK + hashlib.sha256(body).hexdigest().encode()
    return struct.pack("<H", len(comment)) + comment
