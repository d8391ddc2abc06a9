"""Who may import whom: rooms stand on one another, and no two modules import each other."""

from __future__ import annotations

import ast
import functools
import graphlib
import tomllib
from pathlib import Path

import pytest
from helpers.checkout import CHECKOUT

PACKAGE = CHECKOUT / "genlab"

BASE = {"errors", "rng", "device", "config", "log", "files", "memory", "stop", "tensor_files"}
TOOLS = BASE | {"data", "nets", "distributions"}
BELOW_FAMILIES = TOOLS | {"adversarial", "metrics"}
BELOW_COMMANDS = BELOW_FAMILIES | {"families", "registry", "runs", "trained", "training", "report"}
ALLOWED = {
    **dict.fromkeys(BASE, BASE),
    **dict.fromkeys(("data", "nets", "distributions", "adversarial"), TOOLS | {"adversarial"}),
    "metrics": BELOW_FAMILIES,
    "families": BELOW_FAMILIES | {"families"},
    "registry": BASE,
    **dict.fromkeys(("runs", "trained", "training", "report"), BELOW_COMMANDS),
    "commands": BELOW_COMMANDS | {"commands", "plugins"},
    "plugins": BASE | {"registry"},
    "cli": BASE | {"commands", "plugins", "registry", "report", "runs"},
    "__main__": BASE | {"cli"},
}
"""Room -> the rooms that its modules import from. `genlab` itself, the version, is open to all."""

THROUGH_THE_REGISTRY = {"runs", "trained", "training", "report"}
"""Of the families these import what a family is, and no family by name."""

KNOWN_BY_NAME = {
    "genlab.trained.sampling": "genlab.families.vqvae",
    "genlab.trained.codes": "genlab.families.vqvae",
    "genlab.trained.completing": "genlab.families.autoregressive",
}
"""A family whose own kind a module is about."""


def name_of(path: Path) -> str:
    return ".".join(("genlab", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py")}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "genlab"


@functools.cache
def imports(module: str) -> set[str]:
    """All modules of the package that one imports, in functions too, but not those for annotations alone."""
    tree = ast.parse(MODULES[module].read_text())
    annotations = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    left_out = {id(node) for block in annotations for node in ast.walk(block)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in inner}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_a_module_imports_from_the_rooms_below() -> None:
    wrong: list[str] = []
    for module in MODULES:
        own = imports(module) & MODULES.keys() - {"genlab"}
        open_to_it = ALLOWED.get(room(module), set(map(room, MODULES))) | {room(module)}
        families = own - {"genlab.families.base", KNOWN_BY_NAME.get(module)}
        if room(module) not in THROUGH_THE_REGISTRY:
            families = set()
        wrong += [
            f"{module} imports {name}"
            for name in own
            if room(name) not in open_to_it or (name in families and room(name) == "families")
        ]
    assert wrong == []


def test_no_two_modules_import_each_other() -> None:
    graph = {module: imports(module) & MODULES.keys() - {"genlab"} for module in MODULES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names them


@pytest.mark.parametrize("library", ["hydra", "omegaconf"])
def test_hydra_is_imported_by_one_module_alone(library: str) -> None:
    users = {module for module in MODULES if any(name.split(".")[0] == library for name in imports(module))}
    assert users == {"genlab.cli.composer"}


def test_the_wheel_has_every_room() -> None:
    with open(PACKAGE.parent / "pyproject.toml", "rb") as file:
        listed = set(tomllib.load(file)["tool"]["setuptools"]["packages"])
    rooms = {f"genlab.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py")}
    assert listed == rooms | {"genlab", "genlab.configs"}
