"""A family with the weights of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from genlab import build, checkpoint
from genlab.averaging import averaged_weights
from genlab.config import TrainConfig, from_plain
from genlab.data.spec import DataSpec
from genlab.errors import CheckpointError
from genlab.families.base import Family


@dataclass(frozen=True)
class TrainedModel:
    """A family with a checkpoint's weights, ready to sample and evaluate.

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
    def label(self) -> str:
        return f"{self.config.model.name}-{self.config.dataset.name}"

    def describe(self) -> dict[str, Any]:
        """What a file of results says of the model behind it."""
        return {
            "checkpoint": str(self.path),
            "model": self.config.model.name,
            "trained_on": self.config.dataset.name,
            "step": self.step,
            "images_seen": self.images,
            "weights": self.weights,
        }


def load_model(ckpt: str, weights: str, torch_device: torch.device) -> TrainedModel:
    """The model of a run folder or checkpoint file.

    Args:
        ckpt: a run folder (its newest whole checkpoint) or a file.
        weights: "average", "raw", or "auto" for the average where there is one.

    Raises:
        CheckpointError: missing, damaged, or without the average that was asked for.
    """
    path, state = checkpoint.find(ckpt)
    config = build.train_config(state["config"])
    spec = from_plain(DataSpec, state["spec"], "spec")
    family = build.family(config.model, spec)
    averages = state["averages"]
    if weights == "average" and not averages:
        raise CheckpointError(f"weights=average: {path} has no moving average; use weights=raw")
    used = "raw" if weights == "raw" or not averages else "average"
    try:
        family.load_state_dict(state["weights"])
        for player in averages if used == "average" else ():
            family.get_submodule(player).load_state_dict(averaged_weights(averages[player]))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"ckpt={path}: its weights do not fit its configuration ({reason})") from error
    family.to(torch_device).eval().requires_grad_(False)
    return TrainedModel(family, config, spec, used, path, state["step"], state["images"])
