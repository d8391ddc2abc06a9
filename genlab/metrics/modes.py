"""Mode coverage: counts the modes of the data that samples cover, to detect mode collapse."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genlab.data.points import Mixture, distances

_HIGH_QUALITY_SIGMAS = 3.0


def point_coverage(points: Tensor, mixture: Mixture) -> dict[str, float]:
    """Computes the coverage of a mixture's components by points (N, D).

    A point is of high quality within 3 standard deviations of a mean, and a mode is found if it has at least
    one such point (Srivastava et al. 2017, section 4.1; Lin et al. 2018, section 4.1).

    Returns:
        modes_found: number of modes found.
        high_quality_share: share of the points that are of high quality.
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
    """Computes the coverage of equally likely classes by the classes of samples, (N,) int64."""
    return {
        "modes_found": len(classes.unique()),
        "modes": modes,
        "reverse_kl_nats": reverse_kl(classes, modes),
    }


def reverse_kl(found: Tensor, modes: int) -> float:
    """Computes KL(samples || data) over modes that are equally likely in the data, in nats.

    Args:
        found: (N,) the mode of each sample, 0..modes-1.

    Returns:
        sum q log(q * modes): 0 for a uniform distribution, log(modes) for a single mode.
    """
    share = torch.bincount(found.flatten().cpu(), minlength=modes).double() / found.numel()
    share = share[share > 0]
    return float((share * (share.log() + math.log(modes))).sum())
