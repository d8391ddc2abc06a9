"""YAML that anybody may have written, read within bounds of size, depth and repetition."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from genlab.errors import ConfigError

LARGEST_BYTES = 1 << 20
DEEPEST_LEVEL = 50
MOST_VALUES = 10_000
"""Values of a document once its aliases are written out."""
LONGEST_PLAIN = 1_000
"""Characters of a value without quotes: longer ones may be numbers whose conversion takes long."""

_Parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path, named: str | None = None) -> Any:
    """Returns the plain data of a YAML file.

    Args:
        path: the file.
        named: what messages call it; None for its path.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it cannot be read, is not valid YAML, or exceeds a bound.
    """
    named = str(path) if named is None else named
    text = read_text(path, named)
    try:
        return yaml.load(text, Loader=_Parser)
    except (
        yaml.YAMLError,
        ValueError,
        OverflowError,
    ) as error:  # ValueError: a date or number that cannot be
        raise ConfigError(f"{named}: not valid YAML ({_reason(error)}); correct it") from None


def read_text(path: Path, named: str) -> str:
    """Returns the text of a YAML file, having checked its size, its syntax, its depth and its aliases.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: as for `read_yaml`.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{named}: is no file; give a file of settings")
        if status.st_size > LARGEST_BYTES:
            raise ConfigError(
                f"{named}: too large for a file of settings ({status.st_size} bytes); shorten it"
            )
        text = path.read_text(encoding="utf-8-sig")  # some editors put a byte order mark first
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        raise ConfigError(f"{named}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{named}: cannot be read ({error.strerror}); restore it") from None
    check_text(text, named)
    return text


def check_text(text: str, named: str) -> None:
    """Checks a YAML document without building it, in a time proportional to its length.

    An alias counts as often as what it repeats, so that nested aliases cannot grow beyond `MOST_VALUES`.

    Raises:
        ConfigError: it is not valid YAML, is nested too deeply, or has too many values.
    """
    sizes: dict[str, int] = {}  # of what an anchor names
    open_nodes: list[tuple[str | None, int]] = []  # anchor and number of values before it
    values = 0
    try:
        for event in yaml.parse(text, Loader=_Parser):
            anchor = getattr(event, "anchor", None)
            if isinstance(event, yaml.AliasEvent):
                if any(anchor == name for name, _ in open_nodes):
                    raise ConfigError(f"{named}: its alias *{anchor} contains itself; write it out")
                values += sizes.get(str(anchor), 1)
            elif isinstance(event, yaml.ScalarEvent):
                values += 1
                if event.implicit[0] and len(event.value) > LONGEST_PLAIN:
                    raise ConfigError(
                        f"{named}: {event.value[:20]}...: {len(event.value)} characters without quotes; "
                        f"give at most {LONGEST_PLAIN}"
                    )
                if anchor is not None:
                    sizes[anchor] = 1
            elif isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append((anchor, values))
                values += 1
                if len(open_nodes) > DEEPEST_LEVEL:
                    raise ConfigError(
                        f"{named}: nested more than {DEEPEST_LEVEL} levels deep; settings have few levels"
                    )
            elif isinstance(event, yaml.CollectionEndEvent):
                name, before = open_nodes.pop()
                if name is not None:
                    sizes[name] = values - before
            if values > MOST_VALUES:
                raise ConfigError(f"{named}: has more than {MOST_VALUES} values; settings are few")
    except yaml.YAMLError as error:
        raise ConfigError(f"{named}{_line(error)}: not valid YAML ({_reason(error)}); correct it") from None


def scalars(text: str) -> Iterator[str]:
    """Yields the words and numbers of a YAML document that `check_text` has passed, as they are written."""
    for event in yaml.parse(text, Loader=_Parser):
        if isinstance(event, yaml.ScalarEvent):
            yield event.value


def _line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return "" if mark is None else f", line {mark.line + 1}"


def _reason(error: Exception) -> str:
    text = getattr(error, "problem", None) or str(error)
    return " ".join(text.split())[:120]
