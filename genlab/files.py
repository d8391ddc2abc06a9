"""Atomic writing of files: a file is written completely or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def printable(name: str) -> str:
    """Returns a file's name for messages, with escapes in place of bytes that are not UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


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
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Makes a rename survive a power failure, on systems where a folder can be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
