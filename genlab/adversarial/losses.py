"""The losses of adversarial games, as pure functions of logits or critic values, and gradient penalties."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.config.adversarial import GANLoss


def discriminator_loss(kind: GANLoss, real: Tensor, fake: Tensor, real_target: float = 1.0) -> Tensor:
    """Returns what the discriminator minimises.

    Args:
        kind: `minimax` and `non_saturating`: -E log D(x) - E log(1 - D(G(z))) with D = sigmoid(logit)
            (Goodfellow et al. 2014, eq. 1, negated); `least_squares`: E (D(x) - 1)^2 / 2 + E D(G(z))^2 / 2
            (Mao et al. 2017, eq. 2 with a = 0, b = 1); `hinge`: E max(0, 1 - D(x)) + E max(0, 1 + D(G(z)))
            (Miyato et al. 2018, eq. 16).
        real, fake: logits of data and of generated samples, (B,) each.
        real_target: the label of data, under 1 for one-sided smoothing (Salimans et al. 2016, 3.4).

    Returns:
        a scalar, in float32.
    """
    real, fake = real.float(), fake.float()
    if kind == "least_squares":
        return ((real - real_target).square().mean() + fake.square().mean()) / 2
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    # -t log sigmoid(l) - (1 - t) log sigmoid(-l) = softplus(-l) + (1 - t) l
    return (F.softplus(-real) + (1 - real_target) * real).mean() + F.softplus(fake).mean()


def generator_loss(kind: GANLoss, fake: Tensor) -> Tensor:
    """Returns what the generator minimises, from the logits of its samples, (B,).

    `minimax`: E log(1 - D(G(z))) (Goodfellow et al. 2014, eq. 1); `non_saturating`: -E log D(G(z)) (section 3
    there); `least_squares`: E (D(G(z)) - 1)^2 / 2 (Mao et al. 2017, eq. 2 with c = 1); `hinge`: -E D(G(z)).
    """
    fake = fake.float()
    match kind:
        case "minimax":
            return -F.softplus(fake).mean()
        case "non_saturating":
            return F.softplus(-fake).mean()
        case "least_squares":
            return (fake - 1).square().mean() / 2
        case "hinge":
            return -fake.mean()


def gradient_norms(critic: Callable[[Tensor], Tensor], x: Tensor, packing: int = 1) -> Tensor:
    """Returns the norm of the critic's gradient at each x, over a whole image: (B / packing,) float32.

    By torch.func, so that it can be differentiated again and compiled; autocast is off, since bf16 has too
    few digits for a gradient of a gradient.

    Args:
        critic: (B, C, H, W) to (B / packing,) values.
        x: (B, C, H, W).
        packing: images in a row that share a value (Lin et al. 2018); the norm is then over all of them.
    """
    with torch.autocast(x.device.type, enabled=False):
        gradient = torch.func.grad(lambda images: critic(images).sum())(x.float())
        # the root of a sum that is 0 has no gradient
        return (gradient.reshape(len(x) // packing, -1).square().sum(1) + 1e-12).sqrt()


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, share: Tensor, one_sided: bool = False
) -> Tensor:
    """Returns E (|grad D(x^)| - 1)^2 at points between data and samples.

    Gulrajani et al. 2017, eq. 3, less lambda.

    Args:
        critic: (B, C, H, W) to (B / packing,) values.
        real, fake: (B, C, H, W).
        share: (B / packing,) uniform over [0, 1): x^ = share * real + (1 - share) * fake.
        one_sided: E max(0, |grad| - 1)^2 instead (Petzka et al. 2018, eq. 7: WGAN-LP).
    """
    packing = len(real) // len(share)
    share = share.repeat_interleave(packing).view(-1, 1, 1, 1)
    excess = gradient_norms(critic, share * real + (1 - share) * fake, packing) - 1
    return (F.relu(excess) if one_sided else excess).square().mean()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor, packing: int = 1) -> Tensor:
    """Returns E |grad D(x)|^2 / 2 over data, whose x is a pack of images.

    Mescheder et al. 2018, eq. 9, less gamma.
    """
    with torch.autocast(real.device.type, enabled=False):
        gradient = torch.func.grad(lambda images: discriminator(images).sum())(real.float())
        return gradient.square().sum() / (len(real) // packing) / 2
