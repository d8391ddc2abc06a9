"""A two-sample test: the accuracy of a classifier between two samples."""

from __future__ import annotations

import torch
from torch import Tensor


def accuracy_between(a: Tensor, b: Tensor) -> float:
    """Returns the share of vectors that a classifier assigns to the right one of two samples.

    A classifier two-sample test (Lopez-Paz and Oquab 2017) whose classifier is a pair of normal distributions
    with full covariances, so that it finds differences of location, scale and correlation. It is fitted to
    one half of both samples and tested on the other, then the other way round. For samples of one
    distribution the expected value is 1/2, whatever the distribution, with a standard deviation of at most
    1 / (2 sqrt n); for samples that do not overlap the value is 1.

    Args:
        a, b: (n, D) each, n >= 4, their rows independent.
    """
    folds = [(a[0::2], b[0::2], a[1::2], b[1::2]), (a[1::2], b[1::2], a[0::2], b[0::2])]
    right = []
    for a_fitted, b_fitted, a_asked, b_asked in folds:
        first, second = _Normal(a_fitted), _Normal(b_fitted)
        right += [_above(first, second, a_asked), _above(second, first, b_asked)]
    return torch.stack(right).mean().item()


class _Normal:
    """A normal distribution fitted to rows (n, D), its covariance shrunk towards a multiple of the identity.

    The weight is D / (n + D), so that it has an inverse with fewer rows than dimensions, or one-hot vectors.
    """

    def __init__(self, rows: Tensor) -> None:
        rows = rows.double()
        count, dimensions = rows.shape
        self._mean = rows.mean(0)
        centred = rows - self._mean
        covariance = centred.T @ centred / count
        share = dimensions / (count + dimensions)
        even = covariance.diagonal().mean() + torch.finfo(torch.float32).tiny
        covariance = (1 - share) * covariance + share * even * torch.eye(dimensions, dtype=rows.dtype)
        self._root = torch.linalg.cholesky(covariance)

    def log_prob(self, rows: Tensor) -> Tensor:
        """Returns the log density of rows, (n,), up to a constant."""
        standard = torch.linalg.solve_triangular(self._root, (rows.double() - self._mean).T, upper=False)
        return -standard.square().sum(0) / 2 - self._root.diagonal().log().sum()


def _above(own: _Normal, other: _Normal, rows: Tensor) -> Tensor:
    """Returns the share of rows that are likelier under their own distribution; ties count as a half."""
    difference = own.log_prob(rows) - other.log_prob(rows)
    return (difference > 0).double().mean() + (difference == 0).double().mean() / 2
