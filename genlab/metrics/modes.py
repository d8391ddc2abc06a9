"""Which modes of the data samples fall on: a generator that leaves some out has collapsed in part."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genlab.data.points import Mixture, distances

_HIGH_QUALITY_SIGMAS = 3.0


def point_coverage(points: Tensor, mixture: Mixture) -> dict[str, float]:
    """Coverage of a mixture's components by points (N, D).

    A point is of high quality within 3 standard deviations of a mean, and a mode is found when a point of
    high quality lands on it (Srivastava et al. 2017, section 4.1; Lin et al. 2018, section 4.1).

    Returns:
        modes_found: how many of the modes.
        high_quality_share: of the points.
        reverse_kl_nats: see `reverse_kl`, each point counted for the nearest mean.
    """
    away, nearest = distances(points, mixture.means.to(points)).min(1)
    good = away <= _HIGH_QUALITY_SIGMAS * mixture.sigma
    modes = len(mixture.means)
    return {
        "modes_found": len(nearest[good].unique()),
        "modes": modes,
        "high_quality_share": good.float().mean().item(),
        "reverse_kl_nats": reverse_kl(nearest, modes),
    }


def class_coverage(classes: Tensor, modes: int) -> dict[str, float]:
    """Coverage of equally likely classes by samples that a classifier put into them, (N,) int64."""
    return {
        "modes_found": len(classes.unique()),
        "modes": modes,
        "reverse_kl_nats": reverse_kl(classes, modes),
    }


def reverse_kl(found: Tensor, modes: int) -> float:
    """KL(samples || data) over modes that are equally likely in the data, in nats: sum q log(q * modes).

    Args:
        found: (N,) the mode of each sample, 0..modes-1.

    Returns:
        0 for an even spread, log(modes) for one mode.
    """
    share = torch.bincount(found.flatten().cpu(), minlength=modes).double() / found.numel()
    share = share[share > 0]
    return float((share * (share.log() + math.log(modes))).sum())
