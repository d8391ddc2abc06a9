"""Hydra's grammar and composition of configuration files: the only module that imports Hydra.

Hydra composes here and does nothing else. Its own configuration, whose callbacks, loggers, launchers and
sweepers name code, is not loaded, and its application (`hydra.main`) is not started: nothing is there that
could run what a file or a word names. A key `hydra` is refused, wherever it comes from.
"""

from __future__ import annotations

import io
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genlab.cli import hints, words
from genlab.config.text import read_text, scalars
from genlab.errors import ConfigError

MOST_JOBS = 10_000
_MOST_CHARACTERS = 1_000_000
"""The largest length of a configuration in which the interpolations `${...}` are written out."""
_SIZE_OF_A_REFERENCE = 100
"""Characters that an interpolation counts for, in addition to its value: the time that it takes."""
_MOST_REFERENCES = 100
"""Interpolations `${...}` of one value."""
_MOST_FILES = 200
"""Files of one configuration: those that a file's defaults list names, and their own in turn."""
_MOST_DIGITS = 300


class Composed(NamedTuple):
    """One configuration.

    Attributes:
        plain: its resolved values.
        choices: the chosen option of each group.
        files: the files that it consists of, in the order in which they are merged, and their packages.
    """

    plain: dict[str, Any]
    choices: dict[str, Any]
    files: list[tuple[Path, str]]


class Composer:
    """Composes configurations from files and overrides.

    Args:
        name: the primary configuration.
        folders: folders of configuration files; a file of an earlier folder hides those of later ones.
        stored: a primary configuration that is given, instead of a file.
    """

    def __init__(self, name: str, folders: Sequence[Path], stored: Mapping[str, Any] | None = None) -> None:
        self._name = name
        self._files = _Files(folders, {} if stored is None else {name: stored})
        self._parser = OverridesParser.create(_Options(self._files))  # type: ignore[arg-type]

    def parse(self, typed: Sequence[str]) -> list[Override]:
        """Parses overrides in Hydra's grammar."""
        return self._parser.parse_overrides(list(typed))

    def compose(self, typed: Sequence[str]) -> Composed:
        """Composes the configuration with these overrides, none of which has several values."""
        repository = _Repository(self._files)
        overrides = self.parse(typed)
        found = create_defaults_list(
            repository, self._name, overrides, prepend_hydra=False, skip_missing=False
        )
        config = OmegaConf.create()
        files = []
        for default in found.defaults:
            assert default.config_path is not None
            loaded = repository.load_config(default.config_path)
            assert loaded is not None
            part: Any = loaded.config
            if default.package:
                part = OmegaConf.create()
                OmegaConf.update(part, default.package, loaded.config, merge=False)
            file = self._files.find(default.config_path)
            try:
                config.merge_with(part)
            except (OmegaConfBaseException, TypeError) as error:
                reason = str(error).splitlines()[0][:120]
                raise ConfigError(
                    f"{file}: does not fit the others ({reason}); see --info defaults"
                ) from error
            if file is not None:
                files.append((file, default.package or ""))
        OmegaConf.set_struct(config, True)
        ConfigLoaderImpl._apply_overrides_to_config(found.config_overrides, config)
        if "hydra" in config:
            raise ConfigError("hydra: genlab takes no settings of Hydra's own; leave them out")
        _check_interpolations(OmegaConf.to_container(config, resolve=False))
        plain: Any = OmegaConf.to_container(config, resolve=True)
        return Composed(plain, dict(found.overrides.known_choices), files)


def sweep(overrides: Sequence[Override]) -> list[list[str]]:
    """Returns the overrides of each job: all combinations of those that have several values.

    Raises:
        ConfigError: values that cannot be enumerated, or more than `MOST_JOBS` jobs.
    """
    choices, jobs = [], 1
    for override in overrides:
        if override.is_sweep_override():
            if not override.is_discrete_sweep():
                raise ConfigError(
                    f"{override.input_line}: an interval has no list of values; give some, e.g. range(1,5)"
                )
            key = override.get_key_element()
            values = itertools.islice(_values(override), MOST_JOBS + 1)
            found = [f"{key}={_TYPED.get(value, value)}" for value in values]
            if not found:
                raise ConfigError(f"{override.input_line}: matches nothing; give values, or see genlab list")
        else:
            found = [str(override.input_line)]
        jobs *= len(found)
        if jobs > MOST_JOBS:
            typed = str(override.input_line).removeprefix("++")
            raise ConfigError(f"{typed}: more than {MOST_JOBS} jobs; sweep over fewer values")
        choices.append(found)
    return [list(each) for each in itertools.product(*choices)]


_TYPED = {"True": "true", "False": "false"}
"""Hydra writes the values of a sweep as Python does."""


def _values(override: Override) -> Iterator[str]:
    value = override.value()
    if isinstance(value, RangeSweep):
        assert value.start is not None
        assert value.stop is not None
        if (
            not value.step or not abs((value.stop - value.start) / value.step) <= MOST_JOBS
        ):  # also not a number
            raise ConfigError(f"{override.input_line}: more than {MOST_JOBS} jobs; sweep over fewer values")
    return override.sweep_string_iterator()


class _Files(ConfigSource):
    """The configuration files of several folders as one source; none is read from elsewhere."""

    def __init__(self, folders: Sequence[Path], stored: Mapping[str, Any]) -> None:
        super().__init__("genlab", "genlab://")
        self._folders = folders
        self._stored = stored
        for plain in stored.values():
            _check_values("config.yaml", plain)
        self._read: dict[Path, tuple[Any, dict[str, str | None]]] = {}

    @staticmethod
    def scheme() -> str:
        return "genlab"

    def find(self, config_path: str) -> Path | None:
        """Returns the file of a configuration, e.g. `model/vae`; None if there is none."""
        inner = Path(self._normalize_file_name(config_path))
        if not _is_inside(inner):
            return None
        return next((file for folder in self._folders if (file := folder / inner).is_file()), None)

    def load_config(self, config_path: str) -> ConfigResult:
        if config_path in self._stored:
            plain, header = dict(self._stored[config_path]), {"package": None}
        else:
            file = self.find(config_path)
            if file is None:
                raise ConfigLoadError(f"Config not found: {config_path}")
            if file not in self._read:
                self._read[file] = self._read_file(file)
            plain, header = self._read[file]
        return ConfigResult(self.provider, self.full_path(), OmegaConf.create(plain), dict(header))

    def _read_file(self, file: Path) -> tuple[Any, dict[str, str | None]]:
        text = read_text(file, str(file))
        for value in scalars(text) if "${" in text else ():
            _references(value, str(file))  # first, since OmegaConf parses them as it loads them
        try:
            header = self._get_header_dict(text[:512])
            plain: Any = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"{file}: {' '.join(str(error).split())[:160]}; correct it") from error
        if not isinstance(plain, dict):
            raise ConfigError(f"{file}: expected keys with values, e.g. seed: 1")
        _check_values(str(file), plain)
        _refuse_hydra(file, plain, header)
        group = file.parent.name
        if group in ("experiment", "recipe", "sweep") and header["package"] is None:
            raise ConfigError(f"{file}: its first line must be: # @package _global_")
        return plain, header

    def is_group(self, config_path: str) -> bool:
        inner = Path(config_path)
        return _is_inside(inner) and any((folder / inner).is_dir() for folder in self._folders)

    def is_config(self, config_path: str) -> bool:
        return config_path in self._stored or self.find(config_path) is not None

    def available(self) -> bool:
        return True

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return list(words.options(self._folders, config_path)) if _is_inside(Path(config_path)) else []


def _is_inside(inner: Path) -> bool:
    """Returns whether a path below the folders stays there, and is one that a file can have."""
    return not inner.is_absolute() and ".." not in inner.parts and len(os.fsencode(inner)) <= 255


class _Repository(ConfigRepository):
    """The configurations that one composition reads, each once, since its defaults are taken out."""

    def __init__(self, files: _Files) -> None:
        self.sources = [files]
        self._loaded: dict[str, ConfigResult | None] = {}
        self._asked = 0  # once for each place in the tree of defaults lists, and for each part that is merged

    def load_config(self, config_path: str) -> ConfigResult | None:
        self._asked += 1
        if self._asked > 2 * _MOST_FILES:
            raise ConfigError(
                f"{config_path}: the defaults lists name over {_MOST_FILES} files; do they name one another?"
            )
        if config_path not in self._loaded:
            self._loaded[config_path] = super().load_config(config_path)
        return self._loaded[config_path]


class _Options:
    """The options of each group, which Hydra's grammar asks for where `glob(*)` is typed."""

    def __init__(self, files: _Files) -> None:
        self._files = files

    def get_group_options(self, group_name: str, results_filter: ObjectType | None = None) -> list[str]:
        return self._files.list(group_name, results_filter)


def _refuse_hydra(file: Path, plain: dict[str, Any], header: Mapping[str, str | None]) -> None:
    """Refuses a file that would set something of Hydra's own, with a line that says what to write instead."""
    if "hydra" in plain:
        inner = plain["hydra"] if isinstance(plain["hydra"], dict) else {}
        raise ConfigError(f"{file}: {hints.hydra_answer('.'.join(['hydra', *map(str, list(inner)[:1])]))}")
    defaults = plain.get("defaults")
    for each in defaults if isinstance(defaults, list) else ():
        key = str(next(iter(each), "")) if isinstance(each, dict) else str(each)
        if hints.names_hydra(key):
            raise ConfigError(f"{file}: {hints.hydra_answer(key)}")
    package = f"@package {header.get('package')}"
    if hints.names_hydra(package):
        raise ConfigError(f"{file}: {hints.hydra_answer(package)}")


def _check_values(file: str, plain: Mapping[str, Any]) -> None:
    """Refuses values of a file that are no settings, and references that `_references` refuses."""

    def check(value: Any, at: str) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                check(inner, f"{at}.{key}" if at else str(key))
        elif isinstance(value, list):
            for inner in value:
                check(inner, at)
        elif isinstance(value, str):
            _references(value, f"{file}: {at}")
        elif value is not None and not isinstance(value, bool | int | float):
            raise ConfigError(
                f"{file}: {at}: of the type {type(value).__name__}; give a word, a number or a list"
            )
        elif isinstance(value, int) and abs(value) >= 10**_MOST_DIGITS:
            raise ConfigError(f"{file}: {at}: a number of over {_MOST_DIGITS} digits; give a smaller one")

    defaults = plain.get("defaults")
    if isinstance(defaults, list) and len(defaults) > _MOST_FILES:
        raise ConfigError(f"{file}: its defaults list has {len(defaults)} entries; at most {_MOST_FILES}")
    check(plain, "")


_REFERENCE = re.compile(r"\$\{(\.*[\w\-.\[\]]{1,200}|oc\.env:\w{1,200}(?:,[^{}$]{0,200})?)\}")


def _references(value: str, named: str) -> list[str]:
    """Returns what a text refers to: the keys of its `${key}`, and `oc.env:NAME` for environment variables.

    Raises:
        ConfigError: another kind of interpolation, whose size or result would be unknown, or too many.
    """
    found = _REFERENCE.findall(value)
    if "${" in _REFERENCE.sub("", value):
        raise ConfigError(
            f"{named}={value[:40]}: only ${{key}} and ${{oc.env:NAME}} are allowed; write its value out"
        )
    if len(found) > _MOST_REFERENCES:
        raise ConfigError(f"{named}: has {len(found)} references; give at most {_MOST_REFERENCES}")
    return found


def _check_interpolations(plain: Any) -> None:
    """Refuses interpolations that repeat one another without end, or beyond `_MOST_CHARACTERS`.

    Raises:
        ConfigError: so many; a reference to itself; or one that `_references` refuses.
    """
    sizes: dict[tuple[str, ...], int] = {}  # 0: being measured

    def size(value: Any, at: tuple[str, ...]) -> int:
        if at in sizes:
            if not sizes[at]:
                raise ConfigError(f"{'.'.join(at)}: refers to itself; give it a value")
            return sizes[at]
        sizes[at] = 0
        if isinstance(value, dict):
            found = sum(size(inner, (*at, str(key))) for key, inner in value.items())
        elif isinstance(value, list):
            found = sum(size(inner, (*at, str(number))) for number, inner in enumerate(value))
        elif isinstance(value, str) and "${" in value:
            names = _references(value, ".".join(at))
            found = len(value) + sum(_SIZE_OF_A_REFERENCE + referred(name, at) for name in names)
        else:
            found = len(value) if isinstance(value, str) else 0
        if found > _MOST_CHARACTERS:
            raise ConfigError(f"{'.'.join(at)}: its references repeat too much; write its value out")
        sizes[at] = found + 1
        return found + 1

    def referred(name: str, at: tuple[str, ...]) -> int:
        if ":" in name:  # an environment variable
            return 0
        up = len(name) - len(name.lstrip("."))
        base = at[: len(at) - up] if up else ()
        target = (*base, *(part for part in re.split(r"[.\[\]]", name[up:]) if part))
        value = plain
        for part in target:
            if isinstance(value, dict) and part in value:
                value = value[part]
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                return 0
        return size(value, target)

    if isinstance(plain, dict):
        for key, value in plain.items():
            size(value, (str(key),))
