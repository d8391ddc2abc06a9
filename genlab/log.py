"""Logging: one logger, its lines on the console, and progress bars; a console that fails ends nothing."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

from tqdm.auto import tqdm

from genlab.errors import printable

log = logging.getLogger("genlab")

_IN_A_NOTEBOOK = any("notebook" in base.__module__ for base in tqdm.__mro__)
"""Whether tqdm chose its notebook bar, which is visible although the output is not a terminal."""


def progress_bar(*, shown: bool = True, **settings: Any) -> tqdm[Any]:
    """Returns a progress bar of tqdm: visible in a terminal or a notebook, silent if output goes to a file.

    Args:
        shown: False for no bar at all.
        settings: arguments of tqdm: total, unit, desc and so on.
    """
    disable = (False if _IN_A_NOTEBOOK else None) if shown else True
    return tqdm(disable=disable, **settings)


def log_to_console() -> None:
    """Sends genlab's messages to stderr; further calls do nothing. DEBUG messages go only to train.log."""
    log.setLevel(logging.DEBUG)
    log.propagate = False
    if not any(isinstance(handler, _ConsoleHandler) for handler in log.handlers):
        log.addHandler(_ConsoleHandler(logging.INFO))


class _ConsoleHandler(logging.Handler):
    """A handler that prints above a progress bar without damaging it."""

    def emit(self, record: logging.LogRecord) -> None:
        lines = record.getMessage().split("\n")  # a message of ours may have several
        warning = "warning: " if record.levelno >= logging.WARNING else ""
        if sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):
                tqdm.write(warning + "\n".join(map(printable, lines)), sys.stderr)


@contextlib.contextmanager
def courteous_console() -> Iterator[None]:
    """Lets work go on when its console fails: what stdout and stderr do not take is dropped.

    A console fails when the program that reads it ends (`genlab train 2>&1 | head -1`), when it is a file on
    a full disk, or when it was closed before the start.
    """
    before = sys.stdout, sys.stderr
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: otherwise the next file that is opened would become stdout or stderr
            os.open(os.devnull, os.O_RDWR)
    streams = [stream if isinstance(stream, _Courteous) else _Courteous(stream) for stream in before]
    sys.stdout, sys.stderr = streams  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in streams:
            stream.end()


class _Courteous:
    """A stream that drops what cannot be written.

    Args:
        stream: stdout or stderr; None if it was closed before the start.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if self._stream is not None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding
                with contextlib.suppress(OSError, ValueError):
                    self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            except (OSError, ValueError):  # ValueError: it is closed
                pass
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.flush()

    def isatty(self) -> bool:
        try:
            return self._stream is not None and self._stream.isatty()
        except (OSError, ValueError):
            return False

    def end(self) -> None:
        """Flushes; if that fails, drops the rest, which would make the end of the process an error."""
        if self._stream is None:
            return
        try:
            self._stream.flush()
        except OSError:
            with contextlib.suppress(OSError, ValueError, AttributeError):  # it may have no number
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, self._stream.fileno())
                os.close(nothing)
                self._stream.flush()
        except ValueError:
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
