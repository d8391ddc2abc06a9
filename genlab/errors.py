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


def printable(text: str) -> str:
    """Returns text as one line without control characters, for a terminal.

    Names and messages may come from a file, and a control character in them could move the cursor, change
    colours or hide what was printed before. Line breaks become spaces, and others are written as in Python.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else " " if each in "\n\r\t" else repr(each)[1:-1] for each in text
    )


class UserError(Exception):
    """An error that the user can fix. The message is one line: the key, the value and the remedy."""

    exit_code = EXIT_USER_ERROR

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(UserError):
    """An error in the configuration: an unknown key, a wrong type or a value out of range."""


class DataError(UserError):
    """A dataset that is missing, damaged or not suitable for the model."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, not written by genlab or of a newer format."""


class DamagedError(CheckpointError):
    """A checkpoint whose bytes are not those that were written."""


class ElsewhereError(CheckpointError):
    """A checkpoint that is whole, but needs what is not here: a newer genlab, a plug-in."""


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


_REMEDIES = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room, or raise the quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EACCES: "make it writable, or work in a copy",
    errno.EPERM: "make it writable, or work in a copy",
    errno.EROFS: "make it writable, or work in a copy",
    errno.EIO: "check the disk",
    errno.ESTALE: "check the disk",
}


def storage_remedy(error: OSError, folder: Path) -> str | None:
    """Returns what helps against a failure to write; None if the disk is not its cause.

    Args:
        folder: the folder that was written to.
    """
    if error.errno in (errno.ENOENT, errno.ENOTDIR) and not folder.is_dir():
        return f"{folder} is gone: bring it back"
    return _REMEDIES.get(error.errno or 0)


_LONGEST_LINE = 290
_LONGEST_WORDS = (160, 100, 60)


def one_line(text: object) -> str:
    """Returns a message as one printable line of bounded length.

    Words of a file or a command may be of any length.
    """
    line = printable(str(text)).strip()
    for longest in _LONGEST_WORDS:  # as much as is needed
        if len(line) > _LONGEST_LINE or longest == _LONGEST_WORDS[0]:
            line = " ".join(_shortened(word, longest) for word in line.split(" "))
    return _shortened(line, _LONGEST_LINE)


def _shortened(text: str, longest: int) -> str:
    """Returns a text with its middle left out, if it is too long."""
    return text if len(text) <= longest else f"{text[: longest - 41]}...{text[-38:]}"


@contextlib.contextmanager
def storage_errors(where: Path, then: str = "") -> Iterator[None]:
    """Turns the error of a full disk, a read-only or a vanished folder into one line.

    Args:
        where: the folder that is written to.
        then: the command that goes on afterwards.

    Raises:
        StorageError: names the file and the remedy.
    """
    try:
        yield
    except OSError as error:
        remedy = storage_remedy(error, where)
        if remedy is None:
            raise
        name = error.filename if isinstance(error.filename, str) else where
        after = f", then {then}" if then else ""
        raise StorageError(f"{name}: could not be written ({error.strerror}); {remedy}{after}") from error
