"""Errors that end a command, and the exit codes a script can rely on.

0 done, 2 a mistake of the user's, 3 a loss that is not finite, 75 interrupted and ready to resume.
"""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

EXIT_USER_ERROR = 2
EXIT_DIVERGED = 3
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: what batch systems read as "run me again"


class UserError(Exception):
    """Something the user can put right. The message is one line: the key, the value and the remedy."""

    exit_code = EXIT_USER_ERROR


class ConfigError(UserError):
    """A configuration that names an unknown key, a wrong type or a value out of range."""


class DataError(UserError):
    """A dataset that is missing, damaged or unfit for the model."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, foreign or of a newer format."""


class StorageError(UserError):
    """A file that could not be written: a full disk, a read-only folder."""


class DivergedError(UserError):
    """A loss that is not finite."""

    exit_code = EXIT_DIVERGED


class Interrupted(BaseException):
    """A signal asked the run to stop. Not an `Exception`, so that no handler takes it for a failure."""

    exit_code = EXIT_INTERRUPTED


@contextlib.contextmanager
def storage_errors(where: Path) -> Iterator[None]:
    """Turns a full disk or a read-only folder into one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG):
            raise
        raise StorageError(
            f"{where}: could not be written ({error.strerror}); make room, then genlab resume run={where}"
        ) from error
