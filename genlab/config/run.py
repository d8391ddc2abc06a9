"""The dataclasses of a run: optimizers, schedules, the trainer, and all of it together."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

from genlab.config.schema import from_plain, setting, show, to_plain
from genlab.errors import ConfigError

MOST_STEPS = 1_000_000_000
"""Largest number of steps, and of steps between two events: years of training on any machine."""

MOST_IMAGES_AT_ONCE = 1_048_576
"""Largest number of images of a batch."""

MOST_SEED = 2**63 - 1


@dataclass(frozen=True)
class PlayerOptimizerConfig:
    """Settings of one player that override those of `optimizer`; null keeps the common value."""

    lr: float | None = setting(None, above=0, help="learning rate of this player")
    weight_decay: float | None = setting(None, at_least=0, help="weight decay of this player")
    betas: tuple[float, ...] | None = setting(None, at_least=0, below=1, longest=2, help="of Adam")
    momentum: float | None = setting(None, at_least=0, below=1, help="of sgd and rmsprop")
    clip_grad_norm: float | None = setting(None, at_least=0, help="largest norm of its gradient")


@dataclass(frozen=True)
class AdamConfig:
    """Adam (Kingma and Ba 2015)."""

    name: Literal["adam"] = setting("adam")
    lr: float = setting(1e-3, above=0, help="learning rate, multiplied by the schedule")
    betas: tuple[float, ...] = setting(
        (0.9, 0.999), at_least=0, below=1, longest=2, help="decay rates of the two moments"
    )
    eps: float = setting(1e-8, above=0, help="added to the denominator of a step")
    weight_decay: float = setting(0.0, at_least=0, help="L2 term added to the gradient")
    clip_grad_norm: float = setting(
        0.0, at_least=0, help="largest norm of a player's gradient; 0 for no clipping"
    )
    players: dict[str, PlayerOptimizerConfig] = setting(
        {}, help="settings of one player: optimizer.players.NAME.lr=..."
    )

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ConfigError(f"optimizer.betas={list(self.betas)}: expected two numbers, e.g. [0.9,0.999]")


@dataclass(frozen=True)
class AdamWConfig(AdamConfig):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    name: Literal["adamw"] = setting("adamw")  # type: ignore[assignment]
    weight_decay: float = setting(
        0.01, at_least=0, help="decoupled: each step subtracts lr * weight_decay * weight"
    )


@dataclass(frozen=True)
class RMSpropConfig:
    """RMSprop (Tieleman and Hinton 2012)."""

    name: Literal["rmsprop"] = setting("rmsprop")
    lr: float = setting(5e-5, above=0, help="learning rate, multiplied by the schedule")
    alpha: float = setting(0.99, at_least=0, below=1, help="decay rate of the mean squared gradient")
    eps: float = setting(1e-8, above=0, help="added to the denominator of a step")
    momentum: float = setting(0.0, at_least=0, below=1, help="share of the last step that is kept")
    weight_decay: float = setting(0.0, at_least=0, help="L2 term added to the gradient")
    clip_grad_norm: float = setting(
        0.0, at_least=0, help="largest norm of a player's gradient; 0 for no clipping"
    )
    players: dict[str, PlayerOptimizerConfig] = setting(
        {}, help="settings of one player: optimizer.players.NAME.lr=..."
    )


@dataclass(frozen=True)
class SGDConfig:
    """Stochastic gradient descent, with momentum (Nesterov's on request)."""

    name: Literal["sgd"] = setting("sgd")
    lr: float = setting(0.1, above=0, help="learning rate, multiplied by the schedule")
    momentum: float = setting(0.9, at_least=0, below=1, help="share of the last step that is kept")
    nesterov: bool = setting(False, help="look ahead along the momentum; needs momentum > 0")
    weight_decay: float = setting(0.0, at_least=0, help="L2 term added to the gradient")
    clip_grad_norm: float = setting(
        0.0, at_least=0, help="largest norm of a player's gradient; 0 for no clipping"
    )
    players: dict[str, PlayerOptimizerConfig] = setting(
        {}, help="settings of one player: optimizer.players.NAME.lr=..."
    )

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise ConfigError("optimizer.nesterov=true: needs a momentum; set optimizer.momentum=0.9")


OptimizerConfig = AdamConfig | AdamWConfig | RMSpropConfig | SGDConfig


def player_settings(config: OptimizerConfig, player: str) -> OptimizerConfig:
    """Returns the optimizer's settings, overridden by those of `optimizer.players.PLAYER`."""
    own = config.players.get(player)
    plain = {k: v for k, v in to_plain(own).items() if v is not None} if own else {}
    return from_plain(type(config), to_plain(config) | {"players": {}} | plain, f"optimizer.players.{player}")


@dataclass(frozen=True)
class ConstantConfig:
    """A constant learning rate."""

    name: Literal["constant"] = setting("constant")


@dataclass(frozen=True)
class LinearConfig:
    """A linear schedule from 1 to `final`."""

    name: Literal["linear"] = setting("linear")
    final: float = setting(0.0, at_least=0, at_most=1, help="share of optimizer.lr at the end of the run")


@dataclass(frozen=True)
class CosineConfig:
    """Half a cosine from 1 to `final` (Loshchilov and Hutter 2017, eq. 5, one cycle)."""

    name: Literal["cosine"] = setting("cosine")
    final: float = setting(0.0, at_least=0, at_most=1, help="share of optimizer.lr at the end of the run")


@dataclass(frozen=True)
class WarmupCosineConfig:
    """A linear warm-up to 1 over `warmup` of the run, then half a cosine to `final`."""

    name: Literal["warmup_cosine"] = setting("warmup_cosine")
    warmup: float = setting(0.02, at_least=0, below=1, help="share of the run that is spent rising")
    final: float = setting(0.0, at_least=0, at_most=1, help="share of optimizer.lr at the end of the run")


@dataclass(frozen=True)
class StepConfig:
    """A schedule that multiplies the rate by `factor` at each milestone."""

    name: Literal["step"] = setting("step")
    milestones: tuple[float, ...] = setting(
        (0.5, 0.75), above=0, longest=1000, below=1, help="shares of the run"
    )
    factor: float = setting(0.1, above=0, at_most=1, help="of the rate at each milestone")

    def __post_init__(self) -> None:
        if any(later <= earlier for earlier, later in itertools.pairwise(self.milestones)):
            raise ConfigError(
                f"schedule.milestones={show(self.milestones)}: must rise, e.g. schedule.milestones=[0.5,0.75]"
            )


@dataclass(frozen=True)
class ExponentialConfig:
    """Geometric decay from 1 to `final`."""

    name: Literal["exponential"] = setting("exponential")
    final: float = setting(0.01, above=0, at_most=1, help="share of optimizer.lr at the end of the run")


ScheduleConfig = (
    ConstantConfig | LinearConfig | CosineConfig | WarmupCosineConfig | StepConfig | ExponentialConfig
)


@dataclass(frozen=True)
class TrainerConfig:
    """Settings of training: its length, its device, and the intervals of logging and saving."""

    steps: int = setting(4000, at_least=1, at_most=MOST_STEPS, help="steps of the family's algorithm box")
    batch_size: int = setting(
        128,
        at_least=1,
        at_most=MOST_IMAGES_AT_ONCE,
        help="images of one update, over all processes and micro-batches",
    )
    micro_batch_size: int | None = setting(
        None,
        at_least=1,
        at_most=MOST_IMAGES_AT_ONCE,
        help="images at a time within an update, a validation or a measurement, to save memory; null for all",
    )
    device: str = setting("auto", help="auto, cpu, cuda, cuda:1 or mps")
    precision: Literal["fp32", "bf16"] = setting("fp32", help="bf16: autocast")
    compile: bool = setting(False, help="torch.compile each player's network")
    deterministic: bool = setting(
        False, help="refuse operations that do not repeat bit for bit, at some speed"
    )
    ema_half_life_images: int = setting(
        0,
        at_least=0,
        at_most=10**12,
        help="half-life of the weights' moving average, in images; 0 for none",
    )
    ema_ramp: float = setting(0.05, above=0, help="share of the images seen that the half-life is at most")
    log_every: int = setting(100, at_least=1, at_most=MOST_STEPS, help="steps between lines of metrics.jsonl")
    sample_every: int = setting(
        1000, at_least=0, at_most=MOST_STEPS, help="steps between sample grids; 0 for only at the end"
    )
    evaluate_every: int = setting(
        1000,
        at_least=0,
        at_most=MOST_STEPS,
        help="steps between evaluations on the validation split; 0 for only at the end",
    )
    evaluate_images: int | None = setting(
        2000,
        at_least=1,
        at_most=1_000_000_000,
        help="validation images of one evaluation, always the same; null for all",
    )
    checkpoint_every: int = setting(
        1000, at_least=0, at_most=MOST_STEPS, help="steps between checkpoints; 0 for only at the end"
    )
    keep_checkpoints: int = setting(3, at_least=1, at_most=1_000_000, help="how many of the newest are kept")
    sample_images: int = setting(64, at_least=1, at_most=10_000, help="images in a sample grid")
    measure: tuple[str, ...] = setting(
        (), help="what is measured of samples, e.g. [frechet_lenet]; see genlab evaluate --help"
    )
    measure_every: int = setting(
        1000, at_least=0, at_most=MOST_STEPS, help="steps between measurements; 0 for only at the end"
    )
    measure_images: int = setting(2000, at_least=10, at_most=1_000_000, help="samples that are measured")
    tensorboard: bool = setting(False, help='needs pip install "genlab[tensorboard]"')
    wandb: bool = setting(False, help='needs pip install "genlab[wandb]"')

    @property
    def evaluated_at_once(self) -> int:
        """Returns how many images are evaluated at a time: up to 500, no more than fit into an update."""
        return min(500, self.batch_size * 4, self.micro_batch_size or 500)


@dataclass(frozen=True)
class TrainConfig:
    """A whole run. `model` and `dataset` are the chosen family's and dataset's own dataclasses."""

    model: Any
    dataset: Any
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    trainer: TrainerConfig
    seed: int = setting(0, at_least=0, at_most=MOST_SEED)
