"""The complete state of a training run, and its storage in a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genlab import device, registry
from genlab.config.run import AdamConfig, RMSpropConfig, TrainConfig
from genlab.config.schema import from_plain, to_plain
from genlab.data.dataset import BatchStream, Dataset
from genlab.data.spec import DataSpec, check_codes_of
from genlab.data.statistics import pixel_statistics
from genlab.device import Processes
from genlab.errors import CheckpointError
from genlab.families.base import Family, Metrics
from genlab.memory import check_fits, memory_errors
from genlab.trained.model import load_model
from genlab.training.update import Update


class Clock:
    """A clock of the seconds of training. Paused while the run is saved, evaluated and sampled."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started = 0.0

    def start(self) -> None:
        self._started = time.perf_counter()

    def stop(self) -> None:
        self.seconds += time.perf_counter() - self._started


def _copies(config: TrainConfig) -> int:
    """Returns how many numbers training keeps for each weight: itself, its gradient, averages of them."""
    optimizer = config.optimizer
    averages = 2 if isinstance(optimizer, AdamConfig) else int(isinstance(optimizer, RMSpropConfig))
    averages += int(getattr(optimizer, "momentum", 0) > 0)
    return 2 + averages + int(config.trainer.ema_half_life_images > 0)


def _check_batch(config: TrainConfig, spec: DataSpec, group: Processes) -> None:
    """Refuses a batch, or a sample grid, whose images alone do not fit.

    Raises:
        TooLargeError: they do not.
    """
    trainer, memory = config.trainer, device.memory_of(group.device)
    number = torch.float32.itemsize
    for key, images, copies in (
        ("batch_size", trainer.batch_size // group.world, 1),
        ("sample_images", trainer.sample_images, 2),  # and as enlarged pictures
        ("measure_images", trainer.measure_images if trainer.measure else 0, 1 / number),
    ):
        check_fits(
            images * spec.dimensions * number * copies,
            f"trainer.{key}={getattr(trainer, key)}",
            f"{images:,} images of {spec.channels}x{spec.height}x{spec.width}",
            f"lower trainer.{key}, or use smaller images",
            memory,
        )


class TrainingState:
    """The model, its optimizers, the position in the data, random numbers and metrics not yet logged.

    The configuration determines everything: two states of one configuration are equal bit for bit.

    Args:
        config: of the run.
        group: the processes that train together.
        new: whether the run begins; otherwise `restore` follows, and the family loads nothing of another run.

    Attributes:
        dataset, family, update, batches: built from the configuration, on the group's device.
        clock: seconds of training so far.
        troubles: for each warning, in how many successive validations up to the last it was found.
    """

    def __init__(self, config: TrainConfig, group: Processes, new: bool = True) -> None:
        self.config = config
        self.group = group
        device.set_determinism(config.trainer.deterministic)
        dataset = registry.dataset(config.dataset)
        with memory_errors(f"dataset={config.dataset.name}", "lower dataset.memory_limit_gib to stream it"):
            self.dataset: Dataset = dataset.to(group.device)
        _check_batch(config, self.dataset.spec, group)
        device.seed_initialization(config.seed)
        memory = device.memory_of(group.device)
        family = registry.family(config.model, self.dataset.spec, _copies(config), memory)
        self.family: Family = family.to(group.device)
        if new:
            data = None if self.dataset.spec.kind == "none" else pixel_statistics(self.dataset)
            self.family.begin(data, lambda ckpt: load_model(ckpt, "auto", torch.device("cpu")))
        group.broadcast_(list(self.family.state_dict().values()))
        self.update = Update(self.family, config, group)
        self.batches = self._stream(0)
        self.clock = Clock()
        self.troubles: dict[str, int] = {}
        self._window: dict[str, list[Tensor]] = {}
        device.seed_training(config.seed, group.rank)
        if config.trainer.compile:
            torch.compiler.reset()  # earlier jobs of a sweep would count towards the limit of recompilations
            self.family.compile_networks()

    @property
    def images(self) -> int:
        """Returns the number of training images seen, over all processes."""
        return self.batches.index * self.config.trainer.batch_size

    def record(self, metrics: Metrics) -> None:
        """Keeps a step's metrics on the device until they are logged."""
        for name, value in metrics.items():
            self._window.setdefault(name, []).append(value)

    def read_window(self) -> dict[str, float]:
        """Returns the means since the last call, over steps and processes; waits for the device.

        Raises:
            DivergedError: a loss was not finite.
        """
        self.update.check_finite()
        means = [torch.stack(values).float().mean() for values in self._window.values()]
        self.group.mean_(means)
        numbers = torch.stack(means).tolist() if means else []
        names, self._window = list(self._window), {}
        return dict(zip(names, numbers, strict=True))

    def to_checkpoint(self, metrics_bytes: int) -> dict[str, Any]:
        """Returns a checkpoint's content. All processes must call it, since each has its own random state.

        Args:
            metrics_bytes: length of metrics.jsonl at this step.

        Raises:
            DivergedError: a loss was not finite, so that the weights are useless.
        """
        self.update.check_finite()
        window = {name: torch.stack(values).cpu() for name, values in self._window.items()}
        return {
            "config": to_plain(self.config),
            "spec": self.dataset.spec.to_plain(),
            "images": self.images,
            "batches": self.batches.index,
            "seconds": self.clock.seconds,
            "metrics_bytes": metrics_bytes,
            "window": window,
            "windows_of_others": self.group.gather(window)[1:],
            "weights": self.family.state_dict(),
            "random": self.group.gather(device.random_state(self.group.device)),
            **self.update.state(),
        }

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        """Restores the state of a checkpoint.

        Raises:
            CheckpointError: the dataset's images, or the model of its codes, have changed.
        """
        spec = from_plain(DataSpec, checkpoint["spec"], "spec")
        if spec.kind == "codes":
            check_codes_of(self.config.dataset.ckpt, self.dataset.spec.codes_of, spec.codes_of)
        if spec != self.dataset.spec:
            name = self.config.dataset.name
            raise CheckpointError(f"dataset={name}: its images changed since the run began; start a new run")
        self.family.load_state_dict(checkpoint["weights"])
        self.update.load_state(checkpoint)
        self.batches = self._stream(checkpoint["batches"])
        self.clock.seconds = checkpoint["seconds"]
        windows = [checkpoint["window"], *checkpoint.get("windows_of_others", [])]
        window = windows[min(self.group.rank, len(windows) - 1)].items()
        self._window = {name: list(values.to(self.group.device)) for name, values in window}
        if self.group.rank < len(checkpoint["random"]):
            try:
                device.restore_random_state(checkpoint["random"][self.group.rank], self.group.device)
            except RuntimeError as error:
                raise CheckpointError(f"random[{self.group.rank}]: not the state of a generator") from error

    def _stream(self, index: int) -> BatchStream:
        batch_size = self.config.trainer.batch_size
        rank, world = self.group.rank, self.group.world
        return self.dataset.batches(self.config.seed, batch_size, start=index, rank=rank, world=world)
