"""Logging: one logger, its lines on the console, and progress bars."""

from __future__ import annotations

import logging
import sys
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
        tqdm.write(warning + "\n".join(map(printable, lines)), sys.stderr)
