"""Wasserstein GANs: weight clipping (Arjovsky et al. 2017), gradient penalty (Gulrajani et al. 2017)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from genlab.adversarial import health
from genlab.adversarial.losses import gradient_penalty
from genlab.config.adversarial import WGANConfig, WGANGPConfig
from genlab.data.spec import Batch
from genlab.families.base import Metrics, UpdateProtocol
from genlab.families.gan import GAN

_AT_BOUND = 0.999
"""Share of the bound from which a weight counts as clipped."""


class WGAN(GAN):
    """A GAN whose discriminator is a critic: its values have no bounds; Arjovsky et al. 2017, Algorithm 1."""

    Config: ClassVar[type] = WGANConfig
    players = ("critic", "generator")

    @property
    def opponent_steps(self) -> int:
        return self.config.critic_steps

    def update_opponent(self, batch: Batch, update: UpdateProtocol) -> Metrics:
        """A step, after which the critic's weights are clipped to [-clip, clip]."""
        metrics = super().update_opponent(batch, update)
        bound = self.config.clip
        with torch.no_grad():
            for parameter in self.opponent.parameters():
                parameter.clamp_(-bound, bound)
        return metrics

    def opponent_objective(
        self, real: Tensor, fake: Tensor, labels: Tensor | None = None, drawn: Tensor | None = None
    ) -> tuple[Tensor, Metrics]:
        """Returns -(E f(x) - E f(G(z))), whose negative estimates the distance up to the critic's slope."""
        features = self.opponent.features_of_both(real, fake)
        values = [self.opponent.logits(of).float() for of in features]
        estimate = values[0].mean() - values[1].mean()
        metrics = {"wasserstein_estimate": estimate, "critic_loss": -estimate}
        return -estimate, metrics | health.of_critic_values(*values) | self.clipped_share()

    def clipped_share(self) -> Metrics:
        """Returns the share of the critic's weights at the bound: near 1, it has become a simple function."""
        bound = self.config.clip * _AT_BOUND
        clipped = torch.cat([p.detach().flatten() for p in self.opponent.parameters()]).abs() >= bound
        return {"critic_saturated_share": clipped.float().mean()}

    def generator_objective(self, fake: Tensor, drawn: Tensor | None = None) -> tuple[Tensor, Metrics]:
        """Returns -E f(G(z))."""
        loss = -self.opponent(fake).float().mean()
        return loss, {"generator_loss": loss}

    def discriminator_output(self, images: Tensor) -> Tensor | None:
        """Returns f(x), the critic's value."""
        return None if self.config.packing > 1 else self.opponent(self.to_model(images)).float()

    def warnings(self, means: dict[str, float]) -> dict[str, str]:
        """Leaves out accuracies: a critic that classifies all is a good one, as only its slope teaches."""
        found = super().warnings(means)
        return {name: line for name, line in found.items() if name not in ("opponent_won", "opponent_ahead")}

    def remedies(self) -> dict[str, str]:
        """Returns remedies for a flat critic of small weights too (Gulrajani et al. 2017, section 3.2)."""
        return super().remedies() | {"vanishing_gradient": "try a larger model.clip or model=wgan_gp"}


class WGANGP(WGAN):
    """Gulrajani et al. 2017, Algorithm 1: the critic's slope is kept near 1 by a penalty, not by clipping."""

    Config = WGANGPConfig
    penalized = True
    compiled = ("penalized_objective", "generator_objective")

    def update_opponent(self, batch: Batch, update: UpdateProtocol) -> Metrics:
        return GAN.update_opponent(self, batch, update)

    def opponent_objective(
        self, real: Tensor, fake: Tensor, labels: Tensor | None = None, drawn: Tensor | None = None
    ) -> tuple[Tensor, Metrics]:
        """Returns `penalized_objective` at places between images and samples, drawn here, uncompiled."""
        share = torch.rand(len(real) // self.config.packing, device=real.device)
        return self.penalized_objective(real, fake, share)

    def penalized_objective(self, real: Tensor, fake: Tensor, share: Tensor) -> tuple[Tensor, Metrics]:
        """Returns E f(G(z)) - E f(x) + lambda E (|grad f(x^)| - 1)^2 (Gulrajani et al. 2017, eq. 3).

        Args:
            real, fake: (B, C, H, W).
            share: (B / packing,) in [0, 1): x^ = share * real + (1 - share) * fake.
        """
        loss, metrics = super().opponent_objective(real, fake)
        penalty = gradient_penalty(self.opponent, real, fake, share, self.config.one_sided)
        metrics["gradient_penalty"] = penalty
        return loss + self.config.penalty * penalty, metrics

    def clipped_share(self) -> Metrics:
        return {}

    def remedies(self) -> dict[str, str]:
        vanishing = "try a higher optimizer.players.critic.lr or more model.critic_steps"
        return super().remedies() | {"vanishing_gradient": vanishing}
