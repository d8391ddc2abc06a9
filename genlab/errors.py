"""Errors that end a command, and the exit codes that scripts can rely on.

0 success, 2 a user error, 3 a loss that is not finite, 75 interrupted and ready to resume.
"""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

EXIT_USER_ERROR = 2
EXIT_DIVERGED = 3
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: batch systems run such a job again


class UserError(Exception):
    """An error that the user can fix. The message is one line: the key, the value and the remedy."""

    exit_code = EXIT_USER_ERROR


class ConfigError(UserError):
    """An error in the configuration: an unknown key, a wrong type or a value out of range."""


class DataError(UserError):
    """A dataset that is missing, damaged or not suitable for the model."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, not written by genlab or of a newer format."""


class TooLargeError(UserError):
    """A request that needs more memory than there is."""


class StorageError(UserError):
    """A file that could not be written: a full disk, a read-only folder."""


class DivergedError(UserError):
    """A loss that is not finite."""

    exit_code = EXIT_DIVERGED


class Interrupted(BaseException):
    """A signal that asked the run to stop. It is not an `Exception`, so no handler treats it as a failure."""

    exit_code = EXIT_INTERRUPTED


_LONGEST_WORD, _LONGEST_LINE = 160, 500


def one_line(text: object) -> str:
    """Returns a message as one printable line of bounded length.

    Words of a file or a command may be of any length and contain escapes that change a terminal.
    """
    printable = "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in str(text))
    words = [_shortened(word, _LONGEST_WORD) for word in printable.split(" ")]
    return _shortened(" ".join(words).strip(), _LONGEST_LINE)


def _shortened(text: str, longest: int) -> str:
    """Returns a text with its middle left out, if it is too long."""
    return text if len(text) <= longest else f"{text[: longest - 41]}...{text[-38:]}"


@contextlib.contextmanager
def storage_errors(where: Path) -> Iterator[None]:
    """Turns the error of a full disk or a read-only folder into one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG):
            raise
        raise StorageError(
            f"{where}: could not be written ({error.strerror}); make room, then genlab resume run={where}"
        ) from error
