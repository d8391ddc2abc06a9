"""Optional logging of the lines of metrics.jsonl to TensorBoard and Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genlab.config.run import TrainConfig
from genlab.config.schema import to_plain
from genlab.errors import ConfigError


class Trackers:
    """Receivers of metrics: those of `trainer.tensorboard` and `trainer.wandb` that are on, possibly none.

    Raises:
        ConfigError: the extra is not installed.
    """

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        self._tensorboard: Any = None
        self._wandb: Any = None
        if config.trainer.tensorboard:
            self._tensorboard = _require("torch.utils.tensorboard", "tensorboard").SummaryWriter(
                str(folder / "tensorboard")
            )
        if config.trainer.wandb:
            self._wandb = _require("wandb", "wandb").init(
                project="genlab",
                name=folder.name,
                id=folder.name,
                resume="allow",
                dir=str(folder),
                config=to_plain(config),
            )

    def write(self, values: Mapping[str, float | int]) -> None:
        """Forwards one line of metrics; `step` is one of them."""
        step = int(values["step"])
        if self._tensorboard is not None:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(dict(values), step=step)

    def close(self) -> None:
        """Flushes pending metrics."""
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


def check_installed(config: TrainConfig) -> None:
    """Refuses a configuration whose optional package is missing, before anything is built or written."""
    if config.trainer.tensorboard:
        _require("torch.utils.tensorboard", "tensorboard")
    if config.trainer.wandb:
        _require("wandb", "wandb")


def _require(module: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f'trainer.{extra}=true: not installed; pip install "genlab[{extra}]"') from error
