"""The mass that a logistic distribution gives to one of a row of levels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def log_mass(x: Tensor, location: Tensor, inverse_scale: Tensor, half_bin: float, least: float) -> Tensor:
    """Returns log[sigmoid(a) - sigmoid(b)] at the edges a > b of each level's bin, nats.

    The lowest bin reaches down to -infinity and the highest up to infinity, so that the masses sum to 1
    (Salimans et al. 2017, eq. 2). sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), each
    factor of which has a stable logarithm, however thin the tail.

    Args:
        x: levels, from `least` to 1; the arguments broadcast.
        location, inverse_scale: of the distribution, in the units of x.
        half_bin: half the distance of two levels.
    """
    upper = (x + half_bin - location) * inverse_scale
    lower = (x - half_bin - location) * inverse_scale
    width = torch.log(-torch.expm1(-2 * half_bin * inverse_scale))
    lowest, highest = x <= least + half_bin, x >= 1 - half_bin
    return (
        torch.where(highest, 0.0, F.logsigmoid(upper))
        + torch.where(lowest, 0.0, F.logsigmoid(-lower))
        + torch.where(lowest | highest, 0.0, width)
    )
