"""Which images of a split stand for all of it, wherever only some are wanted."""

from __future__ import annotations

import torch
from torch import Tensor

from genlab.rng import derive_seed


def shuffled(size: int) -> Tensor:
    """The numbers 0..size-1 in an order that is the same for every run, seed and model: (size,) int64.

    The images of a split often lie sorted, by class or by name, so that its first ones are all alike. The
    first of this order are of all kinds, and so are the first of the first.
    """
    generator = torch.Generator().manual_seed(derive_seed(0, "subset"))
    return torch.randperm(size, generator=generator)


def subset(size: int, limit: int | None) -> Tensor:
    """The numbers of `limit` images of a split of `size`: the first so many in the order of `shuffled`.

    A smaller subset is the beginning of a larger one. All images, where there are no more than `limit` or it
    is None, stay in the order of the split.

    Returns:
        (min(limit, size),) int64.
    """
    if limit is None or limit >= size:
        return torch.arange(size)
    return shuffled(size)[:limit]
