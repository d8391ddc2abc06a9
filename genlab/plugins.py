"""Plug-ins: the user's own modules of families and datasets, and their configuration files.

A configuration is data: a name in a file never imports anything. Only modules that a user types (`--module`),
sets (`GENLAB_MODULES`) or installs (entry points, see `genlab.registry`) are imported.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import importlib
import importlib.util
import os
import shutil
import sys
import tempfile
from importlib.metadata import entry_points
from pathlib import Path

import yaml

from genlab import registry
from genlab.config.schema import settings_of
from genlab.errors import ConfigError, UserError

VARIABLE = "GENLAB_MODULES"
"""An environment variable with names of modules, separated by commas: like `--module`, for every command."""

CONFIGS_GROUP = "genlab.configs"
"""Entry points of installed packages with configurations: the value names their folder, as `package.folder`,
which is structured like the shipped one. Nothing is imported to find it."""


_named: list[str] = []
"""The modules of `--module` that this process has imported."""


def flag() -> str:
    """Returns ` --module NAMES` for the next command to type; an empty string without such modules."""
    return f" --module {','.join(_named)}" if _named else ""


def import_modules(names: str | None) -> None:
    """Imports the modules that a user names, which register families and datasets.

    Python's search path comes first, the working folder last.

    Args:
        names: the value of `--module`: names separated by commas; those in GENLAB_MODULES are added.

    Raises:
        ConfigError: a module does not exist, or its import fails.
    """
    for source, value in ((VARIABLE, os.environ.get(VARIABLE)), ("--module", names)):
        for name in (value or "").split(","):
            if name := name.strip():
                _import(name, f"{source}={name}")
                if source == "--module" and name not in _named:
                    _named.append(name)


def _import(name: str, typed: str) -> None:
    if name.endswith(".py") or "/" in name:
        stem = Path(name).stem
        raise ConfigError(f"{typed}: expected the name of a module, not of a file; use {stem} in its folder")
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    try:
        importlib.import_module(name)
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in (name, name.partition(".")[0]):
            raise ConfigError(
                f"{typed}: no such module; run the command where {name.split('.')[0]}.py is, or install it"
            ) from error
        reason = " ".join(str(error).split())
        raise ConfigError(f"{typed}: cannot be imported ({type(error).__name__}: {reason})") from error


def config_folders(shipped: list[Path]) -> list[Path]:
    """Returns the folders of configurations that plug-ins bring.

    First those of installed packages, then one of generated files: `GROUP/NAME.yaml` with the default of
    every setting, for each registered name that has no file.

    Args:
        shipped: the folders that may already contain files for those names.

    Raises:
        ConfigError: an installed package announces a folder that does not exist.
    """
    folders = [_installed_folder(point.value, point.name) for point in entry_points(group=CONFIGS_GROUP)]
    folders += [_generated_folder()] if _generate([*shipped, *folders]) else []
    return folders


def _installed_folder(value: str, name: str) -> Path:
    package, *inner = value.split(".")
    found = importlib.util.find_spec(package)
    for where in (found and found.submodule_search_locations) or ():
        folder = Path(where, *inner)
        if folder.is_dir():
            return folder
    raise ConfigError(f"{CONFIGS_GROUP}: {name} = {value} of an installed package is no folder; reinstall it")


@functools.cache
def _generated_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="genlab-configs-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _generate(folders: list[Path]) -> bool:
    """Writes the missing files and removes those of an earlier command; returns whether there are any."""
    missing = [
        (group, name)
        for group in ("model", "dataset")
        for name in registry.own_names(group)
        if not any((folder / group / f"{name}.yaml").is_file() for folder in folders)
    ]
    if not missing:
        return False
    for old in _generated_folder().rglob("*.yaml"):
        old.unlink()
    for group, name in missing:
        path = _generated_folder() / group / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(_defaults(group, name), encoding="utf-8")
    return True


def _defaults(group: str, name: str) -> str:
    """Returns a configuration file with the default of every setting, ??? for those without a default."""
    kind = registry.look_up(registry.kinds(group), name, group)
    lines = [f"# {(kind.__doc__ or name).strip().splitlines()[0]}", f"name: {name}"]
    for each in settings_of(kind.Config):
        plain = "???" if each.default is dataclasses.MISSING else each.default
        inline = yaml.safe_dump(plain, default_flow_style=True, width=10_000).splitlines()[0]
        lines.append(f"{each.key}: {inline}" + (f" # {each.comment}" if each.comment else ""))
    return "\n".join(lines) + "\n"
