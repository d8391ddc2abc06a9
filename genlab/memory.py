"""Memory: how much this machine has, requests that cannot fit, and failed allocations as one line."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from genlab.errors import TooLargeError

_UNITS = {"bytes": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40, "PiB": 50, "EiB": 60}

_ALLOCATION = re.compile(
    r"out of memory|can't allocate memory|unable to allocate|could not allocate|bad_alloc|ALLOC_FAILED"
    r"|invalid buffer size|storage size calculation overflowed",
    re.IGNORECASE,
)
"""The words of torch, numpy and CUDA for an allocation that fails."""

_ASKED = re.compile(r"(?:allocate|buffer size:) ([\d.]+) ?(bytes|[KMGTPE]?i?B)")


def gib(size: float) -> str:
    """Returns a number of bytes in GiB, in words."""
    amount = size / 2**30
    return f"{amount:.3g} GiB" if amount < 10 or amount >= 1e6 else f"{amount:,.0f} GiB"


@functools.cache
def machine_memory() -> int:
    """Returns how many bytes of memory programs on this machine may use, with the limits of its cgroup."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # a system that does not tell
        return 2**63 - 1
    return min([total, *(limit for limit, _ in _cgroups())])


def check_fits(needed: float, given: str, what: str, remedy: str, memory: int | None = None) -> None:
    """Refuses a request that cannot fit, before anything is allocated.

    Args:
        needed: bytes.
        given: the setting and its value, e.g. "trainer.batch_size=1000000".
        what: those that need the memory, in words, in the plural.
        remedy: what to do, in words.
        memory: bytes of a device's memory; None for the machine's.

    Raises:
        TooLargeError: it is more than that.
    """
    limit = machine_memory() if memory is None else memory
    if needed > limit:
        where = "this machine" if memory is None else "the GPU"
        raise TooLargeError(f"{given}: {what} take {gib(needed)}, {where} has {gib(limit)}; {remedy}")


def smaller_batch(key: str, size: int, fewer: str | None = None) -> tuple[str, str]:
    """Returns the setting to which a failed allocation is most likely due, and what to do about it.

    Args:
        key, size: the setting of the number of images at a time, and its value.
        fewer: the setting to lower; None for the same.
    """
    if size == 1:
        return f"{key}=1", "use smaller images or a smaller model"
    return f"{key}={size}", f"try {fewer or key}={size // 2}, or smaller images or a smaller model"


@contextlib.contextmanager
def memory_errors(given: str, remedy: str) -> Iterator[None]:
    """Turns an allocation that fails, on any device, into one line.

    Args:
        given: the setting to which the request is due, and its value.
        remedy: what to do, in words.

    Raises:
        TooLargeError: an allocation failed; the message says how much was asked for.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _ALLOCATION.search(str(error)):
            raise
        asked = ""
        if found := _ASKED.search(str(error)):
            asked = f" ({gib(float(found[1]) * 2.0 ** _UNITS.get(found[2], 0))} at once were asked for)"
        raise TooLargeError(f"{given}: out of memory{asked}; {remedy}") from error


_SHARE_OF_FREE_MEMORY = 0.9
"""The share that a process may take: others grow too, and the system ends one when nothing is left."""


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Limits the memory of this process to what is free, on Linux without a GPU, so that an allocation fails.

    Otherwise the system would end a process that uses more than there is.
    """
    free = _free()
    if free is None:
        yield
        return
    import resource  # only on Unix

    own, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _kib("/proc/self/status", "VmData") * 1024 + int(_SHARE_OF_FREE_MEMORY * free)
    lowest = [each for each in (limit, own, hard) if each != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(lowest), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (own, hard))


def _free() -> int | None:
    """Returns how many bytes a process can have beside its own; None if unknown, or not to be limited."""
    import torch  # slow to import; the commands that need memory have imported it

    if torch.cuda.is_available():  # its driver maps far more than it uses
        return None
    try:
        free = (_kib("/proc/meminfo", "MemAvailable") + _kib("/proc/meminfo", "SwapFree")) * 1024
    except (OSError, LookupError, ValueError):
        return None
    return min([free, *(max(0, limit - used) for limit, used in _cgroups())])


def _kib(path: str, name: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise LookupError(name)


def _cgroups(
    listed: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")
) -> Iterator[tuple[int, int]]:
    """Yields limit and use, in bytes, of each cgroup that limits this process's memory."""
    try:
        lines = listed.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = mounted / ("memory" if controllers else "")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        limit_file, use_file = names if controllers else ("memory.max", "memory.current")
        own = root / inside.lstrip("/")
        for folder in (own, *(parent for parent in own.parents if parent.is_relative_to(root))):
            with contextlib.suppress(OSError, ValueError):  # ValueError: "max", without a limit
                limit = int((folder / limit_file).read_text())
                used = int((folder / use_file).read_text())
                rows = (row.split() for row in (folder / "memory.stat").read_text().splitlines())
                stat = {row[0]: int(row[1]) for row in rows}
                yield limit, used - stat.get("inactive_file", 0) - stat.get("active_file", 0)
