"""Unrolled generative adversarial networks (Metz et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from genlab.adversarial import losses
from genlab.adversarial.unrolling import InnerOptimizer, Moments, Tensors
from genlab.config.adversarial import UnrolledGANConfig
from genlab.config.run import TrainConfig
from genlab.data.spec import Batch
from genlab.errors import ConfigError
from genlab.families.base import Metrics, UpdateProtocol
from genlab.families.gan import GAN
from genlab.nets.decay import decayed_names


@dataclass(frozen=True)
class Unrolling:
    """Where an unroll starts: the discriminator's weights, the moments of its optimizer, and the rate."""

    inner: InnerOptimizer
    parameters: Tensors
    moments: Moments
    lr: Tensor


class UnrolledGAN(GAN):
    """A GAN whose generator minimises its loss against the discriminator of K steps later.

    The generator's gradient is that of eq. 10 of Metz et al. 2017, through all K steps of the optimizer that
    the discriminator really has; the discriminator itself is not touched by them. Each of the K steps is on
    the minibatch at hand.
    """

    Config = UnrolledGANConfig
    compiled = ("opponent_objective", "generator_objective", "unrolled_objective")

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        super().check(config)
        if config.model.recompute and config.trainer.compile:
            raise ConfigError(
                "model.recompute=true: does not go with trainer.compile=true, which decides what it keeps; "
                "leave one out"
            )

    def update_generator(self, batch: Batch, update: UpdateProtocol) -> Metrics:
        if self.config.unrolled_steps == 0:
            return super().update_generator(batch, update)
        start = self.start(update)
        loss = partial(self.unrolled_loss, start, noise_sigma=self.noise_sigma(update))
        return update("generator", loss, *self.inputs(batch))

    def start(self, update: UpdateProtocol) -> Unrolling:
        """Returns copies of the discriminator's weights and moments before the generator's step."""
        player = self.players[0]
        inner = InnerOptimizer(update.settings(player), decayed_names(self.opponent))
        parameters = {name: p.detach().clone() for name, p in self.opponent.named_parameters()}
        live = self.config.inner_moments == "live"
        moments = inner.live(self.opponent, update.optimizers[player]) if live else inner.fresh(parameters)
        lr = self.config.inner_lr or update.learning_rate(player)
        device = next(iter(parameters.values())).device
        # filled on the device: a copy from the host would wait for it
        return Unrolling(inner, parameters, moments, torch.full((), lr, device=device))

    def unrolled_loss(
        self, start: Unrolling, images: Tensor, latents: Tensor, *, noise_sigma: float = 0.0
    ) -> tuple[Tensor, Metrics]:
        """Returns the generator's loss against the discriminator after K steps from `start`."""
        real = self.disturbed(self.to_model(images), noise_sigma)
        fake = self.disturbed(self.generator(latents).float(), noise_sigma)
        return self.unrolled_objective(start, real, fake)

    def unrolled_objective(self, start: Unrolling, real: Tensor, fake: Tensor) -> tuple[Tensor, Metrics]:
        """Returns f(theta_G, theta_D^K) (Metz et al. 2017, eq. 9), in float32.

        With loss=minimax it is the whole of f, its part on data included: theta_D^K depends on the generator,
        and where K steps bring D near its optimum the gradients through D of both parts cancel.

        Args:
            start: theta_D^0 and the optimizer's moments.
            real, fake: (B, C, H, W) as the discriminator is shown them; gradients flow into `fake`.
        """
        with torch.autocast(real.device.type, enabled=False):
            parameters, moments = start.parameters, start.moments
            step = self.recomputed_step if self.config.recompute else self.inner_step
            for _ in range(self.config.unrolled_steps):
                parameters, moments = step(start, parameters, moments, real, fake)
            if not self.config.unrolled_gradient:
                parameters = {name: p.detach() for name, p in parameters.items()}
            if self.config.loss == "minimax":
                logits = self.unrolled_logits(parameters, real, fake)
                loss = -losses.discriminator_loss(
                    "minimax", logits[0], logits[1], 1 - self.config.label_smoothing
                )
            else:
                logits = functional_call(self.opponent, parameters, (fake,))
                loss = losses.generator_loss(self.config.loss, logits)
        return loss, {"generator_loss": loss}

    def inner_step(
        self, start: Unrolling, parameters: Tensors, moments: Moments, real: Tensor, fake: Tensor
    ) -> tuple[Tensors, Moments]:
        """Returns weights and moments after a step on the discriminator's loss (Metz et al. 2017, eq. 8)."""

        def loss(weights: Tensors) -> Tensor:
            logits = self.unrolled_logits(weights, real, fake)
            value = losses.discriminator_loss(
                self.config.loss, logits[0], logits[1], 1 - self.config.label_smoothing
            )
            if self.config.r1 > 0:

                def discriminator(x: Tensor) -> Tensor:
                    return functional_call(self.opponent, weights, (x,))

                penalty = losses.r1_penalty(discriminator, real, self.config.packing)
                value = value + self.config.r1 * penalty
            return value

        return start.inner.step(parameters, torch.func.grad(loss)(parameters), moments, start.lr)

    def unrolled_logits(self, weights: Tensors, real: Tensor, fake: Tensor) -> tuple[Tensor, ...]:
        """Returns logits of data and of samples, for a discriminator with these weights."""
        if self.opponent.looks_at_batches:
            return tuple(functional_call(self.opponent, weights, (x,)) for x in (real, fake))
        return functional_call(self.opponent, weights, (torch.cat([real, fake]),)).chunk(2)

    def recomputed_step(
        self, start: Unrolling, parameters: Tensors, moments: Moments, real: Tensor, fake: Tensor
    ) -> tuple[Tensors, Moments]:
        """Returns `inner_step`, computed again for the gradient instead of keeping its activations."""
        names = [("", name) for name in parameters]
        names += [(kind, name) for kind, values in moments.items() for name in values]

        def step(real: Tensor, fake: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
            before = _grouped(names, values)
            after, moments = self.inner_step(start, before.pop(""), before, real, fake)
            state = {"": after, **moments}
            return tuple(state[kind][name] for kind, name in names)

        state = {"": parameters, **moments}
        flat = [state[kind][name] for kind, name in names]  # no gradient would reach tensors in dictionaries
        # The older kind: the newer one's hooks are refused by torch.func's transforms.
        after = _grouped(names, checkpoint(step, real, fake, *flat, use_reentrant=True))
        return after.pop(""), after


def _grouped(names: Sequence[tuple[str, str]], values: Iterable[Tensor]) -> dict[str, Tensors]:
    """Returns values by their kind and name."""
    groups: dict[str, Tensors] = {}
    for (kind, name), value in zip(names, values, strict=True):
        groups.setdefault(kind, {})[name] = value
    return groups
