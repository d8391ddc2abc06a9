"""A family with the weights of a checkpoint, and the dataset that it was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from genlab import registry
from genlab.config.datasets import check_files
from genlab.config.run import TrainConfig
from genlab.config.schema import from_plain, suggest, to_plain
from genlab.data.dataset import Dataset
from genlab.data.spec import DataSpec, check_codes_of
from genlab.errors import CheckpointError, ConfigError, DataError
from genlab.families.base import Family
from genlab.runs import checkpoint, content


@dataclass(frozen=True)
class LoadedModel:
    """A family with a checkpoint's weights, ready for sampling and evaluation.

    Attributes:
        weights: "average" (the moving average) or "raw".
        path: the checkpoint file.
        step, images: training steps and training images at the time of the checkpoint.
    """

    family: Family
    config: TrainConfig
    spec: DataSpec
    weights: str
    path: Path
    step: int
    images: int

    @property
    def device(self) -> torch.device:
        """Returns the device of the weights."""
        return next(self.family.parameters()).device

    @property
    def label(self) -> str:
        """Returns MODEL-DATASET, for names of folders."""
        return f"{self.config.model.name}-{self.config.dataset.name}"

    def describe(self) -> dict[str, Any]:
        """Returns the description of the model for a file of results."""
        return {
            "checkpoint": str(self.path),
            "model": self.config.model.name,
            "trained_on": self.config.dataset.name,
            "step": self.step,
            "images_seen": self.images,
            "weights": self.weights,
        }


def load_model(ckpt: str, weights: str, torch_device: torch.device) -> LoadedModel:
    """Loads the model of a run folder or checkpoint file.

    Args:
        ckpt: a run folder (its newest valid checkpoint) or a file.
        weights: "average", "raw", or "auto" for the average if there is one.

    Raises:
        CheckpointError: missing, damaged, or without the requested average.
    """
    path, found = checkpoint.find(ckpt, content.read)
    family, averages = found.family, found.state["averages"]
    if weights == "average" and not averages:
        raise CheckpointError(f"weights=average: {path} has no moving average; use weights=raw")
    used = "raw" if weights == "raw" or not averages else "average"
    for player in averages if used == "average" else ():
        family.get_submodule(player).load_state_dict(averages[player]["weights"])
    family.to(torch_device).eval().requires_grad_(False)
    step, images = found.state["step"], found.state["images"]
    return LoadedModel(family, found.config, found.spec, used, path, step, images)


def dataset_of(model: LoadedModel, changes: Mapping[str, Any], split: str) -> Dataset:
    """Returns the dataset that a model was trained on.

    Args:
        changes: settings that give its files' present location.
        split: a split that the dataset must have.

    Raises:
        ConfigError: `changes` would change the data.
        DataError: its images have changed, or the split has none.
    """
    config = relocated(model.config.dataset, changes)
    check_files(config, None if "path" in changes else model.path)
    dataset = registry.dataset(config)
    if model.spec.kind == "codes":
        check_codes_of(config.ckpt, dataset.spec.codes_of, model.spec.codes_of)
    if dataset.spec != model.spec:
        raise DataError(f"dataset.name={dataset.spec.name}: its images are not like those of {model.path}")
    check_split(dataset, split)
    return dataset


def check_split(dataset: Dataset, split: str) -> None:
    """Refuses a split without images.

    Raises:
        DataError: it has none; the message names a split that has images.
    """
    if dataset.size(split) == 0:
        other = next(name for name in ("test", "validation", "train") if dataset.size(name))
        raise DataError(f"split={split}: {dataset.spec.name} has no such images; use split={other}")


def relocated(stored: Any, changes: Mapping[str, Any]) -> Any:
    """Returns the dataset's settings with `changes`, which may only give its files' present location.

    Raises:
        ConfigError: `changes` would change the data.
    """
    known = {field.name for field in dataclasses.fields(stored)}
    movable = {"root", "path", "ckpt", "download", "memory_limit_gib"} & known
    for key in changes:
        if key not in movable:
            raise ConfigError(
                f"dataset.{key}: dataset settings are fixed by the checkpoint"
                f"{suggest(key, movable, 'dataset.')}"
            )
    return from_plain(type(stored), to_plain(stored) | dict(changes), "dataset")
