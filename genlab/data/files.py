"""Files of published datasets: location, download of missing files, and verification of every byte."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genlab.errors import DataError
from genlab.log import log, progress_bar

MOST_BYTES = 2**30
"""Largest size of a published file that is read, and of its content: EMNIST's largest has 0.5 GiB."""

_TIMEOUT_SECONDS = 20
"""Seconds without a byte after which a server counts as unreachable."""


def data_root(root: str | None) -> Path:
    """Returns the folder of published datasets: `root`, else GENLAB_DATA, else ~/.cache/genlab/data."""
    if root:
        return Path(os.path.expanduser(root))
    if os.environ.get("GENLAB_DATA"):
        return Path(os.path.expanduser(os.environ["GENLAB_DATA"]))
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(cache)) / "genlab" / "data"


def obtain(config: Any, path: Path, md5: str, urls: Sequence[str], otherwise: str = "") -> None:
    """Ensures that a file exists, downloading it if allowed. An existing file is not changed.

    Args:
        md5: checksum of the published file; "" if it is not known.
        urls: sources, tried in this order.
        otherwise: an alternative for the user, for the message.

    Raises:
        DataError: the file is missing and cannot be downloaded; the message says what to do.
    """
    if path.is_file():
        return
    elsewhere = "put it there, or say where it is with dataset.root=... or GENLAB_DATA=..."
    if otherwise:
        elsewhere += f", or {otherwise}"
    if not config.download:
        raise DataError(f"dataset={config.name}: {path} is missing and dataset.download=false; {elsewhere}")
    reason = ""
    for url in urls:
        try:
            _fetch(url, path, md5)
            return
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = " ".join(str(getattr(error, "reason", None) or error).split())
            log.debug("%s: %s", url, reason)
    raise DataError(
        f"dataset={config.name}: {path} is missing and could not be downloaded ({reason}); {elsewhere}"
    )


def _fetch(url: str, path: Path, md5: str) -> None:
    """Downloads under another name beside the target, and renames if the checksum matches."""
    request = urllib.request.Request(url, headers={"User-Agent": "genlab"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
        path.parent.mkdir(parents=True, exist_ok=True)  # not earlier: without a network no folder is created
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        try:
            with (
                os.fdopen(descriptor, "wb") as file,
                progress_bar(total=response.length, unit="B", unit_scale=True, desc=path.name) as bar,
            ):
                while chunk := response.read(1 << 18):
                    file.write(chunk)
                    bar.update(len(chunk))
            if md5 and md5_of(Path(part)) != md5:
                raise ValueError(f"the file from {url} is not the published one")
            os.chmod(part, 0o644)
            os.replace(part, path)
        finally:
            Path(part).unlink(missing_ok=True)


def md5_of(path: Path) -> str:
    """Returns the MD5 of a file, the checksum that its publishers give."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def read_file(config: Any, path: Path) -> bytes:
    """Reads the content of a file.

    Raises:
        DataError: the file cannot be read, or is larger than any published one.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise damaged(config, path)
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"dataset={config.name}: {path} cannot be read: {error.strerror}") from error


def read_verified(config: Any, path: Path, md5: str) -> bytes:
    """Reads the content of a file and verifies its checksum.

    Raises:
        DataError: the file is damaged or cannot be read.
    """
    content = read_file(config, path)
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise damaged(config, path)
    return content


def damaged(config: Any, path: Path) -> DataError:
    """Returns the error for a file that differs from the published one."""
    return DataError(
        f"dataset={config.name}: {path} is damaged (its content is not the published one); "
        "delete it to download it again, or replace it"
    )
