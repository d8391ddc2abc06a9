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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from genlab.config.renamed import with_present_names
from genlab.errors import CheckpointError, StorageError, storage_remedy
from genlab.files import write_atomically
from genlab.log import log
from genlab.runs.folder import check_there

FORMAT = 2
"""Version of the format. Increase it when a key changes its meaning, and add a step to `upgrade`."""

_KEYS = {"format", "config", "spec", "step", "images", "weights", "optimizers", "averages", "random"}
_NAME = re.compile(r"step-(\d{8,})\.pt")
_NO_COMMENT = b"\x00\x00"  # the last field of a zip file without a comment: the comment's length
_MARK = b"genlab-sha256:"
_TRAILER_BYTES = 2 + len(_MARK) + 64


def save(folder: Path, state: Mapping[str, Any], *, keep: int) -> Path:
    """Writes `folder/step-NNNNNNNN.pt`, then points `latest` at it, then deletes all but the `keep` newest.

    The file is written under another name, flushed to disk, read back and compared, and only then renamed,
    so that the old or the new checkpoint is valid whenever the process dies.

    Raises:
        StorageError: the disk is full or the folder not writable; earlier checkpoints are unchanged.
    """
    path = folder / f"step-{state['step']:08d}.pt"
    content = _seal(state)
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
            f"genlab resume run={folder.parent}"
        ) from error
    return path


def keep_newest(path: Path, keep: int) -> None:
    """Points `latest` at a valid checkpoint, and deletes all but the `keep` newest up to it.

    Later ones are damaged: they do not count, since they would displace the valid ones.
    """
    folder, content = path.parent, path.name.encode() + b"\n"
    latest = folder / "latest"
    if not latest.is_file() or latest.read_bytes() != content:
        write_atomically(latest, content)
    paths = list_checkpoints(folder)
    for old in paths[paths.index(path) + keep :]:
        old.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """Reads one checkpoint file onto the CPU, after checking every byte of it.

    Raises:
        CheckpointError: missing, damaged, not written by genlab, or of a newer format. No code in it is run.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"ckpt={path}: {error.strerror or error}; give a run folder or a .pt file"
        ) from error
    body, trailer = content[:-_TRAILER_BYTES], content[-_TRAILER_BYTES:]
    if trailer[2 : 2 + len(_MARK)] != _MARK:
        raise CheckpointError(
            f"ckpt={path}: truncated, or not a genlab checkpoint; use another one of the run"
        )
    if trailer != _trailer(body):
        raise CheckpointError(
            f"ckpt={path}: damaged (its checksum does not match); use another one of the run"
        )
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; all mean that genlab did not write the file
        raise CheckpointError(f"ckpt={path}: holds more than tensors and plain values; refused") from error
    if not isinstance(state, dict) or not state.keys() >= _KEYS:
        raise CheckpointError(f"ckpt={path}: not a genlab checkpoint")
    if state["format"] not in range(1, FORMAT + 1):
        raise CheckpointError(
            f"ckpt={path}: format {state['format']}, this genlab reads up to {FORMAT}; upgrade genlab"
        )
    try:
        return upgrade(state)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(f"ckpt={path}: not a genlab checkpoint of format {state['format']}") from error


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
            "updates": int(average["n_averaged"]),
            "weights": {
                name.removeprefix("module."): value for name, value in average.items() if name != "n_averaged"
            },
        }
        for player, average in state["averages"].items()
    }
    return state | {"averages": averages, "config": with_present_names(state["config"])}


_STEPS = {1: _from_1}
"""Format to the step that converts it to the next one."""


def find(where: str | Path) -> tuple[Path, dict[str, Any]]:
    """Finds the checkpoint that a path stands for: one file, or the newest valid one of a run folder.

    If the newest checkpoint is damaged, a warning names it and the one before is used.

    Raises:
        CheckpointError: there is no checkpoint, or no valid one.
    """
    where = Path(where)
    if where.is_file():
        return where, load(where)
    check_there(where)
    folder = where / "checkpoints" if (where / "checkpoints").is_dir() else where
    paths = list_checkpoints(folder)
    for path in paths:
        try:
            return path, load(path)
        except CheckpointError as error:
            log.warning("%s", error)
    if paths:
        raise CheckpointError(f"ckpt={where}: all {len(paths)} checkpoints are damaged; start a new run")
    raise CheckpointError(f"ckpt={where}: no checkpoint in it yet; go on with: genlab resume run={where}")


def list_checkpoints(folder: Path) -> list[Path]:
    """Returns the checkpoint files of a folder, newest first."""
    found = [(int(m[1]), p) for p in folder.glob("step-*.pt") if (m := _NAME.fullmatch(p.name))]
    return [path for _, path in sorted(found, reverse=True)]


def newest(folder: Path) -> Path | None:
    """Returns the newest valid checkpoint file, or None."""
    for path in list_checkpoints(folder):
        with contextlib.suppress(CheckpointError):
            load(path)
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
