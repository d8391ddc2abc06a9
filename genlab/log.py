"""The log of the bench: one logger, its lines on the console, and progress bars."""

from __future__ import annotations

import logging
import sys
from typing import Any

from tqdm.auto import tqdm

log = logging.getLogger("genlab")

_IN_A_NOTEBOOK = any("notebook" in base.__module__ for base in tqdm.__mro__)
"""Whether tqdm chose the bar of a notebook, whose output is no terminal and yet shows it."""


def progress_bar(*, shown: bool = True, **settings: Any) -> tqdm[Any]:
    """Returns tqdm's bar: in a terminal or a notebook, silent where output goes to a file.

    Args:
        shown: False for no bar at all.
        settings: of tqdm: total, unit, desc and so on.
    """
    disable = (False if _IN_A_NOTEBOOK else None) if shown else True
    return tqdm(disable=disable, **settings)


def log_to_console() -> None:
    """Sends genlab's messages to stderr, once. What is of no use there (DEBUG) goes to train.log alone."""
    log.setLevel(logging.DEBUG)
    log.propagate = False
    if not any(isinstance(handler, _ConsoleHandler) for handler in log.handlers):
        log.addHandler(_ConsoleHandler(logging.INFO))


class _ConsoleHandler(logging.Handler):
    """Prints above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(
            f"{'warning: ' if record.levelno >= logging.WARNING else ''}{record.getMessage()}", sys.stderr
        )
