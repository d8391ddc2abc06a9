"""A family with the weights of a checkpoint, and the dataset that it was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from genlab import registry
from genlab.config.run import TrainConfig
from genlab.config.schema import from_plain, suggest, to_plain
from genlab.data.dataset import Dataset
from genlab.data.spec import DataSpec, check_codes_of
from genlab.errors import CheckpointError, ConfigError, DataError
from genlab.families.base import Family
from genlab.runs import checkpoint


@dataclass(frozen=True)
class LoadedModel:
    """A family with a checkpoint's weights, ready to sample and to be evaluated.

    Attributes:
        weights: "average" (of the moving average) or "raw".
        path: the checkpoint file.
        step, images: of training, when it was written.
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
        """Where the weights are."""
        return next(self.family.parameters()).device

    @property
    def label(self) -> str:
        """MODEL-DATASET, for names of folders."""
        return f"{self.config.model.name}-{self.config.dataset.name}"

    def describe(self) -> dict[str, Any]:
        """Returns what a file of results says of the model behind it."""
        return {
            "checkpoint": str(self.path),
            "model": self.config.model.name,
            "trained_on": self.config.dataset.name,
            "step": self.step,
            "images_seen": self.images,
            "weights": self.weights,
        }


def load_model(ckpt: str, weights: str, torch_device: torch.device) -> LoadedModel:
    """The model of a run folder or checkpoint file.

    Args:
        ckpt: a run folder (its newest whole checkpoint) or a file.
        weights: "average", "raw", or "auto" for the average where there is one.

    Raises:
        CheckpointError: missing, damaged, or without the average that was asked for.
    """
    path, state = checkpoint.find(ckpt)
    for key in ("model", "dataset"):
        registry.check_known(key, state["config"].get(key), path)
    config = registry.train_config(state["config"])
    spec = from_plain(DataSpec, state["spec"], "spec")
    family = registry.family(config.model, spec)
    averages = state["averages"]
    if weights == "average" and not averages:
        raise CheckpointError(f"weights=average: {path} has no moving average; use weights=raw")
    used = "raw" if weights == "raw" or not averages else "average"
    try:
        family.load_state_dict(state["weights"])
        for player in averages if used == "average" else ():
            family.get_submodule(player).load_state_dict(averages[player]["weights"])
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"ckpt={path}: its weights do not fit its configuration ({reason})") from error
    family.to(torch_device).eval().requires_grad_(False)
    return LoadedModel(family, config, spec, used, path, state["step"], state["images"])


def dataset_of(model: LoadedModel, changes: Mapping[str, Any], split: str) -> Dataset:
    """The dataset that a model was trained on.

    Args:
        changes: settings that say where its files are now.
        split: one that is wanted of it.

    Raises:
        ConfigError: `changes` would make other data of it.
        DataError: its images are others now, or there are none in the split.
    """
    config = relocated(model.config.dataset, changes)
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
        DataError: it has none; names one that has.
    """
    if dataset.size(split) == 0:
        other = next(name for name in ("test", "validation", "train") if dataset.size(name))
        raise DataError(f"split={split}: {dataset.spec.name} has no such images; use split={other}")


def relocated(stored: Any, changes: Mapping[str, Any]) -> Any:
    """The dataset's settings with what says where the files are now.

    Raises:
        ConfigError: `changes` would make other data of it.
    """
    known = {field.name for field in dataclasses.fields(stored)}
    movable = {"root", "path", "ckpt", "download", "memory_limit_gib"} & known
    for key in changes:
        if key not in movable:
            raise ConfigError(
                f"dataset.{key}: the data stay as in training{suggest(key, movable, 'dataset.')}"
            )
    return from_plain(type(stored), to_plain(stored) | dict(changes), "dataset")
