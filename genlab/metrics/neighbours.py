"""Nearest neighbours by Euclidean distance, exact and in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from genlab.metrics.distances import blocks

_SAME = 1e-12  # relative to the squared norms: the resolution of float32 features


def squared_distances(queries: Tensor, references: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yields slices of the queries with their squared distances to all references, (block, N) float64.

    |x|^2 + |y|^2 - 2 x.y in float64, of vectors minus the references' mean: exact to about 1e-14 of the
    squared norms. Vectors nearer than a millionth of their norms, the resolution of float32, have distance 0,
    like equal ones.

    Args:
        queries: (M, F).
        references: (N, F).
    """
    centre = references.mean(0, dtype=torch.float64)
    others = references.double() - centre
    their_norms = others.square().sum(1)
    for rows in blocks(len(queries), len(references)):
        block = queries[rows].double() - centre
        norms = block.square().sum(1, keepdim=True) + their_norms
        squares = torch.addmm(norms, block, others.T, alpha=-2)
        yield rows, squares.masked_fill_(squares < norms.mul_(_SAME), 0)


def nearest(
    queries: Tensor, references: Tensor, count: int = 1, *, excluding_itself: bool = False
) -> tuple[Tensor, Tensor]:
    """Returns squared distances (M, count) float64, ascending, and indices (M, count) of nearest references.

    Args:
        queries: (M, F).
        references: (N, F), with N at least `count`.
        excluding_itself: query i is reference i and is not one of its own neighbours; an equal reference
            is.
    """
    found = []
    for rows, squares in squared_distances(queries, references):
        if excluding_itself:
            squares[:, rows].fill_diagonal_(torch.inf)
        found.append(squares.topk(count, dim=1, largest=False))
    return torch.cat([block.values for block in found]), torch.cat([block.indices for block in found])
