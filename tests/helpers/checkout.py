"""What lies in the checkout and beside it: shipped configurations, benchmarks, data for tests."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from genlab.cli.composing import configs_folder
from genlab.config.schema import show

CHECKOUT = Path(__file__).parents[2]
TEST_DATA = Path(os.environ.get("GENLAB_TEST_DATA", CHECKOUT.parent / "shared" / "data"))


def config_names(group: str) -> list[str]:
    """Returns the names that a group of the shipped configurations offers, sorted."""
    return sorted(file.stem for file in (configs_folder() / group).glob("*.yaml"))


def read_config(group: str, name: str) -> dict[str, Any]:
    """Returns what one file of a group holds."""
    return yaml.safe_load((configs_folder() / group / f"{name}.yaml").read_text())


def required_words(dataset: str) -> list[str]:
    """Returns the words that a command needs for the settings of a dataset that have no default."""
    keys = {"folder": "path", "npz": "path", "codes": "ckpt"}
    return [f"dataset.{keys[dataset]}=somewhere"] if dataset in keys else []


def sweep_values(name: str) -> dict[str, list[str]]:
    """Returns the keys that a shipped sweep varies, with their values."""
    varied = read_config("sweep", name)["sweep"]
    return {key: [show(value) for value in values] for key, values in varied.items()}


NARROW = {"width": 8, "layers": 1, "blocks": 1, "residuals": 1, "head": 12}
"""Settings that keep networks small, of whichever model has them."""


def narrowed(model: str) -> list[str]:
    """Returns the words that make a model's networks small: the papers' take minutes."""
    settings = read_config("model", model)
    for base in settings.get("defaults", []):  # an alias has the settings of the model that it stands for
        settings = (read_config("model", base) if base in config_names("model") else {}) | settings
    return [f"model.{key}={value}" for key, value in NARROW.items() if key in settings]


def load_benchmark(name: str) -> ModuleType:
    """Returns benchmarks/NAME.py as a module; its name is none that a test module may have."""
    path = CHECKOUT / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module
