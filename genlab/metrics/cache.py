"""A cache of slow computations: files are written atomically, verified, and computed again if damaged."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from genlab.files import write_atomically
from genlab.log import log


def folder(name: str) -> Path:
    """Returns the folder of one kind of files: in GENLAB_CACHE, else in ~/.cache/genlab."""
    if os.environ.get("GENLAB_CACHE"):
        return Path(os.path.expanduser(os.environ["GENLAB_CACHE"])) / name
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(cache)) / "genlab" / name


def digest(*parts: str | Tensor | None) -> str:
    """Returns the SHA-256 of words and tensors, in hexadecimal; the device of a tensor does not matter."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            found.update(f"{part.dtype} {tuple(part.shape)}".encode())
            found.update(part.detach().cpu().contiguous().numpy().data)
        else:
            found.update(repr(part).encode())
        found.update(b"\0")
    return found.hexdigest()


def save(path: Path, digest: str, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors; a failure causes only a warning.

    Args:
        digest: of all that the tensors depend on.
    """
    kept = {name: value.detach().cpu() for name, value in tensors.items()}
    buffer = io.BytesIO()
    torch.save({"digest": digest, "tensors": kept, "checksum": _checksum(kept)}, buffer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        log.warning("%s: could not be written (%s); it will be computed again", path, error.strerror or error)


def load(path: Path, digest: str) -> dict[str, Tensor] | None:
    """Reads what `save` wrote, on the CPU; returns None without a valid file of this digest."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["digest"] != digest:
            raise ValueError("its digest is that of other data")
        if state["checksum"] != _checksum(state["tensors"]):
            raise ValueError("its checksum does not match")  # torch.load itself checks none
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # torch raises many kinds; all mean that genlab did not write the file
        reason = str(error).partition("\n")[0] or type(error).__name__
        log.warning("%s: damaged (%s); it is computed again", path, reason)
        return None
    return state["tensors"]


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    return digest(*(part for name, value in tensors.items() for part in (name, value)))
