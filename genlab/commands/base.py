"""Shared parts of the verbs: opening a trained model, reading the given images, and finishing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from genlab import device, plugins
from genlab.config.schema import from_plain
from genlab.log import log_to_console
from genlab.trained.given import Given, given_images
from genlab.trained.model import LoadedModel, load_model, relocated


class _OnCheckpoint(Protocol):
    """The settings of a verb that loads a model."""

    @property
    def ckpt(self) -> str: ...
    @property
    def weights(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def dataset(self) -> dict[str, Any]: ...


class _OnImages(Protocol):
    """The settings of a verb that works on a user's images or on images of a split."""

    @property
    def images(self) -> str | None: ...
    @property
    def split(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def dataset(self) -> dict[str, Any]: ...


C = TypeVar("C", bound=_OnCheckpoint)


def open_model(kind: type[C], plain: Mapping[str, Any]) -> tuple[C, LoadedModel]:
    """Begins a verb: returns its settings, and the model of its `ckpt` on the right device.

    Args:
        kind: the verb's dataclass.
        plain: its settings, as composed.

    Raises:
        UserError: a setting is wrong, or the checkpoint does not exist.
    """
    log_to_console()
    config = from_plain(kind, plain)
    model = load_model(config.ckpt, config.weights, device.select(config.device, "device"))
    if "name" not in config.dataset:  # also where the verb needs no data: else a word would be without effect
        relocated(model.config.dataset, config.dataset)
    return config, model


def images_for(config: _OnImages, model: LoadedModel, count: int, at_least: int = 1) -> Given:
    """Returns the images that a verb works on: the user's, or `count` images of a split.

    Raises:
        UserError: see `genlab.trained.given.given_images`.
    """
    return given_images(
        model,
        config.images,
        split=config.split,
        count=count,
        seed=config.seed,
        changes=config.dataset,
        at_least=at_least,
    )


def name_of_images(config: _OnImages, model: LoadedModel) -> str:
    """Returns the source of a verb's images, for its file of results."""
    return config.images or f"{model.spec.name}, {config.split} split"


def finish(folder: Path, files: str, *then: str) -> None:
    """Ends a verb: prints which files it wrote and the next commands to type.

    Args:
        folder: the run folder.
        files: its content, in words.
        then: commands; the modules of `--module` are added to each.
    """
    print(f"wrote {folder}: {files}")
    if then:
        print("next: " + "\n      ".join(line + plugins.flag() for line in then))


def for_json(number: float) -> float | None:
    """Returns a number for JSON: None for one that is not finite."""
    return number if math.isfinite(number) else None


def table(**columns: list[Any]) -> list[dict[str, Any]]:
    """Returns columns of equal length as a list of rows."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
