"""Representative subsets of a split, for all uses that need only some images."""

from __future__ import annotations

import torch
from torch import Tensor

from genlab.rng import derive_seed


def shuffled(size: int) -> Tensor:
    """Returns the numbers 0..size-1 in an order that is the same for all runs and seeds, (size,) int64.

    The images of a split are often sorted by class or name, so that its first ones are similar. The first
    images in this order are varied, for any number of them.
    """
    generator = torch.Generator().manual_seed(derive_seed(0, "subset"))
    return torch.randperm(size, generator=generator)


def subset(size: int, limit: int | None) -> Tensor:
    """Returns the indices of `limit` images of a split of `size`: the first in the order of `shuffled`.

    A smaller subset is the beginning of a larger one. If there are no more than `limit`, or it is None, all
    images are returned in the order of the split.

    Returns:
        (min(limit, size),) int64.
    """
    if limit is None or limit >= size:
        return torch.arange(size)
    return shuffled(size)[:limit]
