"""What a model family is: the paper's networks, losses and algorithm box, and nothing of the machinery."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from genlab.config.run import TrainConfig
from genlab.data.spec import Batch, DataSpec
from genlab.data.statistics import PixelStatistics
from genlab.device import Processes
from genlab.errors import ConfigError
from genlab.rng import SampleRng

Metrics = dict[str, Tensor]
"""Names with their unit to scalar tensors, detached and left on the device.

A loss may also give tensors that its family's `step` takes out again: an update averages all alike."""


class Loaded(Protocol):
    """A model with a checkpoint's weights; see `genlab.trained.model.LoadedModel`."""

    @property
    def family(self) -> Family: ...

    @property
    def spec(self) -> DataSpec: ...

    @property
    def weights(self) -> str: ...

    @property
    def path(self) -> Path: ...


Loader = Callable[[str], Loaded]
"""Loads the model of a run folder or checkpoint file on the CPU, of its moving average if there is one."""


class UpdateProtocol(Protocol):
    """One optimizer step on one player; see `genlab.training.update.Update`."""

    step: int
    """Steps of the algorithm box completed so far; a family reads it, and never sets it."""

    steps: int
    """Steps of the whole run."""

    optimizers: dict[str, torch.optim.Optimizer]
    """torch's optimizer of each player."""

    group: Processes
    """The processes that train together."""

    def settings(self, player: str) -> Any:
        """Returns the settings of a player's optimizer, its own ones laid over the common ones."""
        ...

    def learning_rate(self, player: str) -> float:
        """Returns the rate of the coming step."""
        ...

    def __call__(
        self, player: str, loss: Callable[..., tuple[Tensor, Metrics]], *batch: Tensor
    ) -> Metrics: ...


class Family(nn.Module):
    """Base of every model family.

    A subclass holds one child module for each player, named like the player, and writes `step` as its paper's
    algorithm box. All randomness of `step` comes from torch's default generator; `sample`, `evaluate` and
    `pictures` draw from `rng` alone, so that they never disturb training.

    Attributes:
        Config: a frozen dataclass of fields made with `genlab.config.schema.setting`; the first is `name`.
        players: child modules, each stepped by an optimizer of its own.
        sampled_by: the players that `sample` and `evaluate` use: they get the moving average.
        takes_labels: whether `sample` draws a class that the user asks for.
        takes_temperature: whether `sample` takes a temperature, and shows its progress.
        takes_importance_samples: whether `evaluate` takes their number, for an importance-weighted bound.
        generates: it has `sample`; without it a run shows its pictures in place of samples.
    """

    Config: ClassVar[type]
    players: ClassVar[tuple[str, ...]]
    sampled_by: ClassVar[tuple[str, ...]] = ()
    takes_labels: bool = False
    takes_temperature: ClassVar[bool] = False
    takes_importance_samples: ClassVar[bool] = False
    generates: ClassVar[bool] = True

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        """Refuses settings of the model that do not agree with others of the run.

        Raises:
            ConfigError: they do not; here, codes for a family that is no model of codes.
        """
        if config.dataset.name == "codes":
            raise ConfigError(
                f"dataset=codes: {config.model.name} takes no codes, which have no order; use an "
                "autoregressive model, e.g. model=gated_pixelcnn"
            )

    def __init__(self, config: Any, spec: DataSpec) -> None:
        super().__init__()
        self.config = config
        self.spec = spec

    def begin(self, statistics: PixelStatistics | None, load: Loader | None = None) -> None:
        """Takes what a new run begins with beside its random weights.

        A model of images starts at the training data as independent pixels; another may take weights of
        another run. It is called once for a new run, before anything is written; never for a run that goes on
        or for a model that is loaded, whose checkpoint has it all.

        Args:
            statistics: of the training data, on the model's device; None where there are no data.
            load: for a family that takes weights of another run.

        Raises:
            UserError: what it wants is not there, or does not fit.
        """

    def step(self, batches: Iterator[Batch], update: UpdateProtocol) -> Metrics:
        """One step of the paper's algorithm: draws what batches it needs and updates each player in turn."""
        raise NotImplementedError

    def schedule_progress(self, step: int, steps: int) -> float:
        """Returns the share of the learning rate's schedule that is done after `step` of `steps`, in [0, 1].

        A family that trains its parts one after another begins the schedule anew for each.
        """
        return step / steps

    def sample(self, n: int, *, rng: SampleRng, labels: Tensor | None = None) -> Tensor:
        """Draws n images, (n, C, H, W) in [0, 1]. `labels` is (n,) int64, for families that take labels."""
        raise NotImplementedError

    def evaluate(self, batch: Batch, *, rng: SampleRng) -> dict[str, Tensor]:
        """Returns numbers for each image of a batch.

        Returns:
            name to (B,) tensor, the unit in the name: averaged over the split, with a standard error.
            A tensor of more dimensions, (B, ...), is not averaged but gathered for `summarize`.
        """
        return {}

    def summarize(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Returns numbers of a whole split, from all that `evaluate` gave: (N, ...) on the CPU."""
        return {}

    def pictures(self, batch: Batch, *, rng: SampleRng) -> dict[str, Tensor]:
        """Returns pictures that show what the numbers cannot: name to (rows, columns, C, H, W) in [0, 1]."""
        return {}

    def warnings(self, means: dict[str, float]) -> dict[str, str]:
        """Returns what has gone wrong in training, name to plain words, from a logging interval's means."""
        return {}

    def validation_warnings(self, numbers: Mapping[str, float]) -> dict[str, str]:
        """Returns what is wrong with the model, name to plain words, from the numbers of validation."""
        return {}

    def batch_statistics(self) -> list[str]:
        """Returns what training computes over a batch as a whole, and so for each micro-batch anew."""
        normalized = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.modules())
        return ["batch normalisation"] if normalized else []

    def compile_networks(self) -> None:
        """Compiles the players in place: the names of the weights stay."""
        for player in self.players:
            self.get_submodule(player).compile()

    def facts(self) -> dict[str, Any]:
        """Returns what a reader must know of `evaluate`'s numbers: likelihood, bound, samples per image."""
        return {}


class LatentFamily(Family):
    """A family whose images have latents: codes that it decodes, and most often encodes.

    Attributes:
        encodes: it has `encode`.
        decodes: it has `decode`.
        latent_prior: what `prior_latents` draws each dimension of a latent from, "normal" (standard),
            "uniform" (over [-1, 1]) or another's name; None for a family without a prior of its own.
        latent_classes: of each of the variables that a latent is made of, one after the other, as one-hot
            vectors or probabilities; 0 for a latent of real numbers.
    """

    encodes: ClassVar[bool] = False
    decodes: ClassVar[bool] = True
    latent_prior: str | None = None
    latent_classes: int = 0

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns the codes of images (B, C, H, W) in [0, 1], (B, L): a posterior's mean if there is one.

        Args:
            labels: (B,) int64, for families that take labels; see `infer_labels` for images without.
        """
        raise NotImplementedError

    def infer_labels(self, images: Tensor, *, rng: SampleRng) -> Tensor:
        """Returns the likeliest class of each image, (B,) int64, for families that take labels and encode."""
        raise NotImplementedError

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns the images of latents (B, L) without added noise, (B, C, H, W) in [0, 1].

        Args:
            labels: (B,) int64, for families that take labels.
        """
        raise NotImplementedError

    def prior_latents(self, rng: SampleRng) -> Tensor:
        """Draws latents of the prior, (n, L): those of `sample` for the same `rng`."""
        raise NotImplementedError


class AdversarialFamily(Family):
    """A family whose players work against each other, so that the norms of their gradients are logged.

    Attributes:
        patience: logging intervals in a row after which a warning is given; the second where not named.
    """

    patience: ClassVar[dict[str, int]] = {}

    def discriminator_output(self, images: Tensor) -> Tensor | None:
        """Returns the discriminator's output for images (N, C, H, W), (N,); None if it takes packs."""
        return None


def row_labels(family: Family, n: int) -> Tensor | None:
    """Returns labels (n,) that make a grid of n samples with a class a row; None for a family without labels.

    Rows are of n // classes samples, the last class takes what is over; with more classes than samples they
    are drawn by the family.
    """
    classes = family.spec.classes
    if not family.takes_labels or classes > n:
        return None
    return (torch.arange(n) // (n // classes)).clamp(max=classes - 1)
