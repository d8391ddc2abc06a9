"""Signs of health of an adversarial game: metrics of a step, and warnings of what has gone wrong.

A discriminator here is a critic too; `player` is the name of the one that a game has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genlab.config.adversarial import GANLoss

_SATURATED_LOGIT = math.log(99)  # its sigmoid is within 0.01 of 1
_SATURATED_OUTPUT = 0.99
_FAR_AHEAD = 0.95
_FLAT_GRADIENT = 1e-4
_COLLAPSED_DIVERSITY = 0.02

PATIENCE = {"opponent_ahead": 10}
"""Logging intervals in a row after which a warning is given; the second for those not named."""


def of_logits(loss: GANLoss, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Returns a discriminator's accuracies, and the share of its logits that pass no gradient on.

    Args:
        loss: the kind of loss, which says where a logit counts as right and as saturated.
        real, fake: logits of data and of samples, (B,) each.
    """
    border = 0.5 if loss == "least_squares" else 0.0
    health = _accuracies("discriminator", real, fake, border)
    if loss == "hinge":
        share = ((real > 1).float().mean() + (fake < -1).float().mean()) / 2
        health["discriminator_saturated_share"] = share
    elif loss != "least_squares":
        saturated = torch.cat([real, fake]).abs() > _SATURATED_LOGIT
        health["discriminator_saturated_share"] = saturated.float().mean()
    return health


def of_critic_values(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Returns a critic's accuracies for its values of data and of samples, (B,) each.

    A critic has no threshold of its own: the middle between its two means serves.
    """
    return _accuracies("critic", real, fake, (real.mean() + fake.mean()).detach() / 2)


def of_batch(real: Tensor, fake: Tensor, *, bounded: bool) -> dict[str, Tensor]:
    """Returns how much a generated batch varies, as a share of how much data do.

    The total variance is half the mean squared distance of two members of a batch.

    Args:
        real, fake: (B, C, H, W) each; a batch of one has no variance, and gives nothing.
        bounded: they are images in [-1, 1], of which the share of saturated pixels is given too.
    """
    if len(real) < 2:
        return {}
    health = {"sample_diversity": _total_variance(fake) / (_total_variance(real) + 1e-12)}
    if bounded:
        health["generator_saturated_share"] = (fake.abs() > _SATURATED_OUTPUT).float().mean()
    return health


def warnings(player: str, means: Mapping[str, float], remedies: Mapping[str, str]) -> dict[str, str]:
    """Returns what has gone wrong, name to plain words, from the means of a logging interval.

    Args:
        remedies: what to try against each; see `remedies`.
    """
    found = {}
    accuracy = min(means.get(f"{player}_accuracy_{of}", 0.0) for of in ("real", "generated"))
    if accuracy > 0.99 and means.get(f"{player}_saturated_share", 1.0) > 0.5:
        found["opponent_won"] = (
            f"the {player} has won: it tells {accuracy:.1%} of data and of samples apart, and the "
            f"generator learns little from it; {remedies['opponent_won']}"
        )
    if accuracy >= _FAR_AHEAD:
        found["opponent_ahead"] = (
            f"the {player} stays far ahead: it tells {accuracy:.1%} of data and of samples "
            f"apart, and has for a long time: the generator does not catch up; {remedies['opponent_won']}"
        )
    norm = means.get("generator_gradient_norm", math.inf)
    if norm < _FLAT_GRADIENT:
        found["vanishing_gradient"] = (
            f"the generator's gradient vanishes (norm {norm:.1g}): it has stopped learning; "
            f"{remedies['vanishing_gradient']}"
        )
    diversity = means.get("sample_diversity", 1.0)
    if diversity < _COLLAPSED_DIVERSITY:
        found["collapse"] = (
            f"samples have collapsed: a generated batch varies {diversity:.2%} as much as data; "
            f"{remedies['collapse']}"
        )
    return found


def remedies(model: Any, player: str, *, labels: bool) -> dict[str, str]:
    """Returns what to try against each warning: settings that the model has and does not use yet.

    Args:
        model: the family's configuration.
        labels: it takes labels, so that images cannot be packed, and it cannot be unrolled.
    """
    rate = f"optimizer.players.{player}.lr"
    other_loss = "model.loss=non_saturating, " if getattr(model, "loss", "") == "minimax" else ""
    others = ""
    if not labels:
        unrolled = "" if model.name == "unrolled_gan" else "model=unrolled_gan, "
        others = f"model.packing={2 * model.packing}, {unrolled}"
    return {
        "opponent_won": f"lower {rate}, or try model.instance_noise=0.1, model.r1=1 or "
        "model.spectral_norm=true",
        "vanishing_gradient": f"try {other_loss}model.instance_noise=0.1 or a lower {rate}",
        "collapse": f"try {others}model.minibatch_std=true or a lower optimizer.players.generator.lr",
    }


def _accuracies(player: str, real: Tensor, fake: Tensor, border: Tensor | float) -> dict[str, Tensor]:
    return {
        f"{player}_accuracy_real": (real > border).float().mean(),
        f"{player}_accuracy_generated": (fake < border).float().mean(),
    }


def _total_variance(x: Tensor) -> Tensor:
    """Returns the sum of the squared differences from the mean of a batch (B, C, H, W)."""
    return torch.linalg.vector_norm(x - x.mean(0)).square()  # var(0) is seven times as slow on a CPU
