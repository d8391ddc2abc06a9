"""Settings of dataclasses, and `from_plain`, which checks every configuration.

Hydra's composed configuration and the one stored in a checkpoint are both plain dictionaries. Here both
become frozen dataclasses, or an error of one line that names the key, the value and the remedy. This package
imports neither torch nor hydra.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import re
import shlex
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from genlab.config.renamed import RENAMED, SYNONYMS
from genlab.errors import ConfigError

T = TypeVar("T")

_BOUNDS = {"at_least": "at least", "above": "above", "at_most": "at most", "below": "below"}


class Setting(NamedTuple):
    """One field of a configuration dataclass, for help pages and comments.

    key: its name.
    default: as plain data; MISSING for a required one.
    help: one line.
    choices: the values of a Literal, null included; empty for others.
    bounds: the range in words, e.g. "at least 1"; "" without one.
    path: whether it is the path of a file or folder.
    words: other values that the shell's completion offers.
    """

    key: str
    default: Any
    help: str
    choices: tuple[Any, ...]
    bounds: str
    path: bool
    words: tuple[str, ...]

    @property
    def comment(self) -> str:
        """Returns the help, preceded by the choices that it does not name."""
        others = [show(choice) for choice in self.choices if choice not in ("auto", self.default)]
        missing = not all(re.search(rf"\b{re.escape(choice)}\b", self.help) for choice in others)
        listed = " | ".join(map(show, self.choices)) if missing and len(self.choices) > 1 else ""
        return "; ".join(part for part in (listed, self.help) if part)


def settings_of(cls: type) -> list[Setting]:
    """Returns the settings of a configuration dataclass but `name`: its own before inherited ones."""
    hints = typing.get_type_hints(cls)
    found = []
    for field in dataclasses.fields(cls):
        if field.name == "name":
            continue
        default = field.default if field.default_factory is MISSING else field.default_factory()
        meta = field.metadata
        bounds = _in_words(_of_interest(meta.get("bounds", {})))
        found.append(
            Setting(
                field.name,
                default if default is MISSING else to_plain(default),
                meta.get("help", ""),
                _choices(hints[field.name]),
                bounds,
                meta.get("path", False),
                meta.get("words", ()),
            )
        )
    bases = [base for base in cls.__bases__ if dataclasses.is_dataclass(base)]
    inherited = {field.name for base in bases for field in dataclasses.fields(base)}
    return sorted(found, key=lambda each: (each.key != "ckpt", each.key in inherited))


_GUARD = 10_000


def _of_interest(bounds: Mapping[str, float]) -> dict[str, float]:
    """Returns the bounds that a user needs to know: not those that only keep out what no machine can do."""
    return {name: bound for name, bound in bounds.items() if name != "at_most" or bound < _GUARD}


def _in_words(bounds: Mapping[str, float]) -> str:
    return " and ".join(
        f"{_BOUNDS[name]} {bound:,}" if isinstance(bound, int) else f"{_BOUNDS[name]} {bound:g}"
        for name, bound in bounds.items()
    )


def _choices(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) is Literal:
        return get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        parts = [_choices(part) for part in get_args(kind)]
        found = tuple(choice for part in parts for choice in part)
        return (*found, None) if found and type(None) in get_args(kind) else found
    return ()


def setting(
    default: Any = MISSING,
    *,
    help: str = "",
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    longest: int | None = None,
    path: bool = False,
    words: tuple[str, ...] = (),
) -> Any:
    """Declares a field of a configuration dataclass, with the range of its values.

    Args:
        default: the value when the key is absent; without one the key is required.
        help: one line for help pages.
        at_least, above, at_most, below: bounds of a number, or of each number of a tuple.
        longest: most values of a tuple.
        path: the value is the path of a file or folder.
        words: other values that the shell's completion offers.
    """
    bounds = {"at_least": at_least, "above": above, "at_most": at_most, "below": below}
    metadata = {
        "help": help,
        "bounds": {k: v for k, v in bounds.items() if v is not None},
        "longest": longest,
        "path": path,
        "words": words,
    }
    if isinstance(default, dict | list):
        frozen = default
        return dataclasses.field(default_factory=lambda: type(frozen)(frozen), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


_MOST_CHOICES = 150  # characters


def suggest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """Returns `; did you mean X?` for a mistyped word or one of another project, else the choices."""
    known = list(known)
    lower = {name.lower(): name for name in known}
    meant = [name for name in SYNONYMS.get(word.lower().replace("-", "_"), ()) if name in known]
    near = meant or [
        lower[name] for name in difflib.get_close_matches(word.lower()[:100], lower, n=1, cutoff=0.6)
    ]
    if near:
        return f"; did you mean {' or '.join(prefix + name for name in near)}?"
    if not known:
        return ""
    shown, count = "", 0
    for count, name in enumerate(sorted(known)):
        if len(shown) + len(name) > _MOST_CHOICES:
            return f"; choices: {shown}, ... ({len(known)} in all)"
        shown += f", {name}" if count else name
    return f"; choices: {shown}"


def from_plain(cls: type[T], plain: Any, key: str = "") -> T:
    """Converts a plain dictionary to the frozen dataclass `cls`, strictly.

    Args:
        cls: a dataclass whose fields are made with `setting`.
        plain: dictionary, list, string, number, bool and None only.
        key: position of the dictionary, e.g. "model"; "" for the whole configuration.

    Raises:
        ConfigError: an unknown or missing key, a wrong type, or a value out of range.
    """
    if not isinstance(plain, Mapping):
        raise ConfigError(f"{key or 'config'}={brief(plain)}: expected a group of settings")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    prefix = f"{key}." if key else ""
    owner = plain.get("name") or key or "this command"
    for word in plain:
        if word not in fields:
            known = RENAMED.get(f"{prefix}{word}")
            hint = f"; its name is {known} now" if known else suggest(brief(word), fields, prefix)
            raise ConfigError(f"{prefix}{brief(word)}: unknown key for {brief(owner)}{hint}")
    hints = typing.get_type_hints(cls)
    values = {}
    for name, field in fields.items():
        if name not in plain or plain[name] == "???":
            if field.default is MISSING and field.default_factory is MISSING:
                raise ConfigError(f"{prefix}{name}: missing; add {prefix}{name}=...")
            continue
        bounds, longest = field.metadata.get("bounds", {}), field.metadata.get("longest")
        if longest is not None and isinstance(plain[name], list | tuple) and len(plain[name]) > longest:
            raise ConfigError(f"{prefix}{name}: has {len(plain[name])} values; give at most {longest}")
        values[name] = _convert(hints[name], plain[name], f"{prefix}{name}", bounds)
    return cls(**values)


def to_plain(config: Any) -> Any:
    """Converts a dataclass to plain data, the inverse of `from_plain`."""
    if dataclasses.is_dataclass(config):
        return {f.name: to_plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(k): to_plain(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [to_plain(v) for v in config]
    return config


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}


def _convert(kind: Any, value: Any, key: str, bounds: dict[str, float]) -> Any:
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        options = get_args(kind)
        if value is None and type(None) in options:
            return None
        rest = [k for k in options if k is not type(None)]
        if isinstance(value, float) or type(value) is int:  # out of range, a number is no word instead
            rest = [k for k in rest if k in (int, float)] or rest
        for k in rest[:-1]:
            try:
                return _convert(k, value, key, bounds)
            except ConfigError:
                pass
        return _convert(rest[-1], value, key, bounds)
    if origin is Literal:
        choices = get_args(kind)
        if value not in choices or isinstance(value, bool) != any(
            value is c for c in choices if isinstance(c, bool)
        ):
            hint = suggest(brief(value), map(str, choices), f"{key}=")
            hint = hint if "mean" in hint else ""
            raise ConfigError(f"{key}={brief(value)}: not one of {', '.join(map(show, choices))}{hint}")
        return value
    if origin in (tuple, list):
        items = get_args(kind)
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{key}={brief(value)}: expected a list, e.g. {key}=[1,2]")
        return tuple(_convert(items[0], v, f"{key}[{i}]", bounds) for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key}={brief(value)}: expected names with settings")
        return {str(k): _convert(get_args(kind)[1], v, f"{key}.{k}", bounds) for k, v in value.items()}
    if dataclasses.is_dataclass(kind):
        return from_plain(typing.cast(type, kind), value, key)
    return _number_or_word(kind, value, key, bounds)


def _number_or_word(kind: Any, value: Any, key: str, bounds: dict[str, float]) -> Any:
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)  # 1e4 is a whole number too, but YAML reads it as a float
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) <= sys.float_info.max else math.inf
    elif kind is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)  # YAML 1.1 reads 1e-3 as a string
    elif kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str) and not value.isascii():
        readable = value.encode("utf-8", "backslashreplace").decode()
        if readable != value:  # it has bytes of a file's name that are no text
            raise ConfigError(f"{key}={readable}: has bytes that are not UTF-8; rename it")
    if type(value) is not kind:
        several = re.fullmatch(r"(\d+)(?:\.\.\.?|-|:)(\d+)", str(value)[:40]) if kind is int else None
        hint = f"; for several runs: -m {key}=range({several[1]},{int(several[2]) + 1})" if several else ""
        quoted = (
            isinstance(value, str) and kind in (int, float, bool) and value.strip().lstrip("+-").isdecimal()
        )
        hint = "; type it without quotes" if quoted else hint
        raise ConfigError(f"{key}={brief(value)}: expected {_TYPE_NAMES.get(kind, kind)}{hint}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}={value}: expected a finite number")
    checks = {
        "at_least": lambda v, b: v >= b,
        "above": lambda v, b: v > b,
        "at_most": lambda v, b: v <= b,
        "below": lambda v, b: v < b,
    }
    if not isinstance(value, str):
        crossed = {name: bound for name, bound in bounds.items() if not checks[name](value, bound)}
        if crossed:
            raise ConfigError(f"{key}={brief(value)}: must be {_in_words(_of_interest(bounds) | crossed)}")
    return value


_MOST_SHOWN = 200


def brief(value: Any) -> str:
    """Returns a value for a message: as it is typed on the command line, but shortened."""
    if not _has_few(value):
        return f"{len(value)} values"
    try:
        text = show(value)
    except (RecursionError, ValueError):  # nested too deep, or a number of thousands of digits
        text = type(value).__name__
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _has_few(value: Any, most: int = 1000) -> bool:
    """Returns whether a value with all that is in it is short enough to be written out."""
    count, left = 0, [value]
    while left:
        each = left.pop()
        inner = each.values() if isinstance(each, Mapping) else each
        if isinstance(each, Mapping | list | tuple):
            count += len(inner)
            if count > most:
                return False
            left.extend(inner)
    return True


def typed(key: str, value: object) -> str:
    """Returns a word of a command that sets a key, quoted for the shell and for Hydra where it must be."""
    text = str(value)
    is_a_name = re.search(r"[A-Za-z_/]", text) and not re.fullmatch(
        r"(?i)null|true|false|nan|[+-]?inf|[\d.e+-]*", text
    )
    if is_a_name and re.fullmatch(r"[\w./~+@%:-]+", text, re.ASCII):
        return f"{key}={text}"
    return shlex.quote(f"{key}={quoted(text)}")


def quoted(text: str) -> str:
    """Returns a text in quotes of Hydra's grammar, where backslashes count only before a quote."""
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', text)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f'"{escaped}{chr(92) * trailing}"'


def show(value: Any) -> str:
    """Returns a value as it is typed on the command line; of a whole number of over 18 digits the size."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > 63:
        digits = math.log10(abs(value))
        return f"{value:.3g}" if digits < 300 else f"{'-' if value < 0 else ''}1e+{digits:.0f}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(show, value))}]"
    return str(value)
