"""A laboratory bench for generative models of images.

>>> import genlab
>>> run = genlab.train("model=vae", "dataset=digits", "trainer.steps=500")
>>> model = genlab.load(run)
>>> images = model.sample(64, seed=3)

torch is not imported before a function is called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from genlab.cli.api import compose, train
    from genlab.errors import UserError
    from genlab.registry import register_dataset, register_family
    from genlab.trained.api import TrainedModel, load

__all__ = [
    "TrainedModel",
    "UserError",
    "__version__",
    "compose",
    "load",
    "register_dataset",
    "register_family",
    "train",
]

_HOMES = {
    "TrainedModel": "genlab.trained.api",
    "UserError": "genlab.errors",
    "compose": "genlab.cli.api",
    "load": "genlab.trained.api",
    "register_dataset": "genlab.registry",
    "register_family": "genlab.registry",
    "train": "genlab.cli.api",
}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
