"""Writing of files: a file is written completely or not at all, and JSON is valid."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from genlab.log import log


def write_atomically(path: Path, content: bytes, *, verify: bool = False) -> None:
    """Replaces a file atomically: a reader, or a crash, finds the old content or the new, never a part of it.

    Raises:
        OSError: nothing was replaced, and no partial file remains.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if verify and temporary.read_bytes() != content:
            raise OSError(None, "the file's content differs from the data written")
        os.replace(temporary, path)
    except BaseException:
        _remove(temporary)
        raise
    _flush_folder(path.parent)


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yields the name under which to write a file, which gets its real name when it is complete.

    The name ends as that of the file, since many writers choose a format by it. The file is not flushed to
    disk: it survives the end of the process, but perhaps not a power failure.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        _remove(temporary)
        raise


_TEMPORARY = re.compile(r"\..+\.(?P<pid>\d+)\.tmp(\.\w+)?")


def remove_temporary_files(folder: Path) -> None:
    """Removes the incomplete files that processes left in a folder as they were killed."""
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _TEMPORARY.fullmatch(path.name)
        if match and not _other_process(int(match["pid"])):
            _remove(path)


def _other_process(pid: int) -> bool:
    """Returns whether another process of this number is alive."""
    if pid == os.getpid():
        return False
    if os.name == "nt":  # where os.kill sends Ctrl-C instead of asking
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Writes a file of results in JSON, completely or not at all.

    Numbers that are not finite become null, since JSON has none, and a warning names them.
    """
    text, names = to_json(facts, indent=2)
    if names:
        log.warning("%s: null stands for what is not finite: %s", path, ", ".join(names))
    write_atomically(path, f"{text}\n".encode())


def to_json(value: Any, indent: int | None = None) -> tuple[str, list[str]]:
    """Returns a value as valid JSON, and the names of the numbers that are not finite and so became null."""
    names: list[str] = []
    return json.dumps(_finite(value, "", names), indent=indent, allow_nan=False), names


def _finite(value: Any, name: str, names: list[str]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        names.append(name)
        return None
    if isinstance(value, Mapping):
        return {key: _finite(part, f"{name}.{key}".lstrip("."), names) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part, f"{name}[{k}]", names) for k, part in enumerate(value)]
    return value


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _flush_folder(folder: Path) -> None:
    """Makes a rename survive a power failure, on systems where a folder can be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
