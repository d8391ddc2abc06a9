"""One optimizer step on one player, with everything that is the same for all families."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from genlab.config.run import (
    AdamConfig,
    AdamWConfig,
    OptimizerConfig,
    RMSpropConfig,
    SGDConfig,
    TrainConfig,
    player_settings,
)
from genlab.device import Processes, autocast
from genlab.errors import DivergedError
from genlab.families.base import AdversarialFamily, Family, Metrics
from genlab.nets.decay import decay_groups, in_groups
from genlab.training.averaging import MovingAverage
from genlab.training.schedule import multiplier

Loss = Callable[..., tuple[Tensor, Metrics]]


class Update:
    """A step `update(player, loss, *batch)`: freeze others, set rate, backward, all-reduce, clip, average.

    Args:
        family: on its device, its players not yet compiled (the moving average copies them).
        config: of the whole run.
        group: the processes that train together.

    Attributes:
        step: number of completed steps of the family's algorithm box; see `end_step`.
        steps: number of steps of the whole run.
    """

    def __init__(self, family: Family, config: TrainConfig, group: Processes) -> None:
        self.step = 0
        self.steps = config.trainer.steps
        self.schedule = config.schedule
        self._schedule_progress = family.schedule_progress
        self.trainer = config.trainer
        self.group = group
        self._modules = {player: family.get_submodule(player) for player in family.players}
        self._parameters = {player: list(module.parameters()) for player, module in self._modules.items()}
        self._settings = {player: player_settings(config.optimizer, player) for player in family.players}
        self.optimizers = {
            player: make_optimizer(self._settings[player], decay_groups(module))
            for player, module in self._modules.items()
        }
        self.averages = self._make_averages(family)
        self._adversarial = isinstance(family, AdversarialFamily)
        self._active: str | None = family.players[0] if len(family.players) == 1 else None
        self._unchecked: list[tuple[int, str, Tensor]] = []

    def __call__(self, player: str, loss: Loss, *batch: Tensor) -> Metrics:
        """Performs one optimizer step on one player.

        Args:
            player: the player whose weights are changed; the others get no gradient.
            loss: returns the mean loss over its images, and metrics; called once for each micro-batch.
            batch: tensors with the images (or latents, or labels) along their first dimension.

        Returns:
            the loss's metrics, averaged over the micro-batches, on the device.
        """
        self._freeze_all_but(player)
        optimizer, parameters = self.optimizers[player], self._parameters[player]
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate(player)
        for parameter in parameters:
            parameter.grad = None
        total, metrics = self._backward(loss, batch)
        self.group.mean_([p.grad for p in parameters if p.grad is not None])
        self._unchecked.append((self.step + 1, player, total))
        clip = self._settings[player].clip_grad_norm
        if clip > 0 or self._adversarial:
            norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            metrics[f"{player}_gradient_norm"] = norm
            self._unchecked.append((self.step + 1, player, norm))
            if clip > 0:
                torch.nn.utils.clip_grads_with_norm_(parameters, clip, norm)
        optimizer.step()
        if player in self.averages:
            self.averages[player].update(self._modules[player])
        return metrics

    def end_step(self) -> None:
        """Counts a step of the family's algorithm box, with all its updates, as completed."""
        self.step += 1

    def settings(self, player: str) -> OptimizerConfig:
        """Returns the settings of a player's optimizer: its own ones override the common ones."""
        return self._settings[player]

    def learning_rate(self, player: str) -> float:
        """Returns the learning rate of the next step."""
        before = self._schedule_progress(self.step, self.steps)
        after = self._schedule_progress(self.step + 1, self.steps)
        if after <= before:  # the step is the last before the schedule starts again
            after = 1.0
        return self._settings[player].lr * multiplier(self.schedule, before, after)

    def check_finite(self) -> None:
        """Checks the losses since the last call; the only place where the host waits for the device.

        Raises:
            DivergedError: a loss is not finite, on any process; the message names the first step and player.
        """
        recorded, self._unchecked = self._unchecked, []
        if not recorded:
            return
        values = torch.stack([value.detach().float() for _, _, value in recorded])
        bad = (~torch.isfinite(values)).nonzero()
        firsts = self.group.gather(int(bad[0]) if len(bad) else len(recorded))
        if min(firsts) < len(recorded):
            step, player, _ = recorded[min(firsts)]
            raise DivergedError(f"the loss of {player} is not finite at step {step}")

    @contextmanager
    def averaged_weights(self, family: Family) -> Iterator[str]:
        """Replaces the players by their moving averages for sampling; yields which weights are used."""
        for player, average in self.averages.items():
            setattr(family, player, average.module)
        try:
            yield "average" if self.averages else "raw"
        finally:
            for player in self.averages:
                setattr(family, player, self._modules[player])

    def shown_weights(self) -> str:
        """Returns a description of the weights that sampling and evaluation use."""
        if not self.averages:
            return "the weights of this step"
        average = next(iter(self.averages.values()))  # all have the same final half-life
        growing = f" (growing to {self.trainer.ema_half_life_images:,})" if average.ramps else ""
        return f"the weights' moving average, half-life {average.half_life_images:,.0f} images{growing}"

    def state(self) -> dict[str, Any]:
        """Returns the state for a checkpoint."""
        return {
            "step": self.step,
            "optimizers": {player: optimizer.state_dict() for player, optimizer in self.optimizers.items()},
            "averages": {player: average.state_dict() for player, average in self.averages.items()},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores `state`. An average that the checkpoint lacks starts from the current weights."""
        self.step = state["step"]
        for player, optimizer in self.optimizers.items():
            optimizer.load_state_dict(in_groups(state["optimizers"][player], self._modules[player]))
        for player, average in self.averages.items():
            if player in state["averages"]:
                average.load_state_dict(state["averages"][player])

    def _backward(self, loss: Loss, batch: tuple[Tensor, ...]) -> tuple[Tensor, Metrics]:
        n, size = len(batch[0]), self.trainer.micro_batch_size
        if size is None or size >= n:
            return self._backward_part(loss, batch, 1.0)
        totals: list[Tensor] = []
        sums: Metrics = {}
        for part in zip(*(tensor.split(size) for tensor in batch), strict=True):
            share = len(part[0]) / n  # so that a smaller last part has the right weight
            total, metrics = self._backward_part(loss, part, share)
            totals.append(total * share)
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0) + value * share
        return torch.stack(totals).sum(), sums

    def _backward_part(self, loss: Loss, batch: tuple[Tensor, ...], share: float) -> tuple[Tensor, Metrics]:
        with autocast(self.group.device, self.trainer.precision):
            value, metrics = loss(*batch)
        (value if share == 1 else value * share).backward()
        return value.detach(), {name: metric.detach() for name, metric in metrics.items()}

    def _freeze_all_but(self, player: str) -> None:
        if player == self._active:
            return
        for name, parameters in self._parameters.items():
            for parameter in parameters:
                parameter.requires_grad_(name == player)
        self._active = player

    def _make_averages(self, family: Family) -> dict[str, MovingAverage]:
        half_life, images = self.trainer.ema_half_life_images, self.trainer.batch_size
        if half_life == 0:
            return {}
        ramp = self.trainer.ema_ramp
        return {p: MovingAverage(self._modules[p], half_life, images, ramp) for p in family.sampled_by}


def make_optimizer(
    config: OptimizerConfig, parameters: Iterable[Tensor] | Iterable[dict[str, Any]]
) -> torch.optim.Optimizer:
    """Builds torch's optimizer of that name, fused into one kernel where torch supports it.

    Args:
        parameters: tensors, or torch's parameter groups with their own settings.
    """
    match config:
        case AdamConfig():  # AdamWConfig is a subclass
            kind = torch.optim.AdamW if isinstance(config, AdamWConfig) else torch.optim.Adam
            betas = (config.betas[0], config.betas[1])
            return kind(parameters, config.lr, betas, config.eps, config.weight_decay, fused=True)
        case RMSpropConfig():
            return torch.optim.RMSprop(
                parameters, config.lr, config.alpha, config.eps, config.weight_decay, config.momentum
            )
        case SGDConfig():
            return torch.optim.SGD(
                parameters,
                config.lr,
                config.momentum,
                weight_decay=config.weight_decay,
                nesterov=config.nesterov,
                fused=True,
            )
