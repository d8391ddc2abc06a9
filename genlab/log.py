"""The log of the bench: one logger, and its lines on the console."""

from __future__ import annotations

import logging
import sys

from tqdm import tqdm

log = logging.getLogger("genlab")


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
