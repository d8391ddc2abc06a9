"""Distances between the distributions of generated and real images, by features (N, F) of both.

Everything is computed in float64; only the groups of `frechet_at_infinity` are random.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from genlab.errors import UserError

_BLOCK_ELEMENTS = 2**23  # of a float64 matrix in memory at once: 64 MiB


class Moments(NamedTuple):
    """The moments of a set of features that a Fréchet distance needs.

    mean: (F,) float64.
    covariance: (F, F) float64, unbiased: divided by N - 1.
    count: N, at least 2.
    """

    mean: Tensor
    covariance: Tensor
    count: int


def moments(features: Tensor) -> Moments:
    """Returns mean and covariance of features (N, F).

    Raises:
        UserError: fewer than 2 images, or a value that is not finite.
    """
    mean, scatter, count = _scatter(checked(features))
    return Moments(mean, scatter / (count - 1), count)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Returns the squared Fréchet distance of two Gaussians with these moments (Dowson and Landau 1982).

    |m - m'|^2 + tr(C + C' - 2 (C C')^1/2), where the last trace is the sum of the square roots of the
    eigenvalues of A^T C' A, with C = A A^T: a symmetric matrix, so that they are real. They are exact up to
    1e-8 of the traces for covariances of any rank. The distance is 0 or more.

    With few images it is biased upwards; see `frechet_at_infinity`.
    """
    a, b = sorted((a, b), key=lambda side: side.count)  # fewer images have lower rank: a smaller root
    return _frechet(a, _root(a.covariance), b)


def frechet_at_infinity(
    real: Moments, generated: Tensor, *, groups: int = 10, seed: int = 0
) -> tuple[float, float]:
    """Returns the Fréchet distance for infinitely many generated images, and its standard error.

    The distance to N images is linear in 1/N for large N; the value is the line's at 1/N = 0 (Chong and
    Forsyth 2020). They fit it to subsets of a tenth of the images or more. Here it passes through the
    distance of all images and the mean distance when one of `groups` random groups is left out: the jackknife
    (Quenouille 1956), which has less bias (the line bends where N approaches F) and a correct error. With
    4,000 Gaussian samples of 256 features, true distance 5.99: bias -0.002 and standard deviation 0.034,
    estimated as 0.034; the fit on subsets has -0.076 and 0.038, estimated as 0.022.

    The bias caused by the number of real images remains. With fewer generated images than features the value
    is too low.

    Args:
        generated: (N, F).
        seed: of the groups.
    """
    generated = checked(generated)
    count = len(generated)
    groups = min(groups, count // 2)
    if groups < 2:
        raise UserError(f"{count} generated images: an extrapolation needs at least 4")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(generated.device)
    root = _root(real.covariance)
    mean, scatter, _ = _scatter(generated)
    whole = _frechet(real, root, Moments(mean, scatter / (count - 1), count))
    without = []
    for group in order.tensor_split(groups):
        its_mean, its_scatter, left_out = _scatter(generated[group])
        kept = count - left_out
        shift = its_mean - mean
        rest = scatter - its_scatter - count * left_out / kept * torch.outer(shift, shift)
        rest_moments = Moments(mean - left_out / kept * shift, rest / (kept - 1), kept)
        without.append(_frechet(real, root, rest_moments))
    distances = torch.tensor(without, dtype=torch.float64)
    value = groups * whole - (groups - 1) * distances.mean()
    variance = (groups - 1) * distances.var(correction=0)
    return value.item(), variance.sqrt().item()


def kernel_distance(real: Tensor, generated: Tensor) -> tuple[float, float]:
    """Returns the kernel distance of features (M, F) and (N, F), and its standard error.

    The squared maximum mean discrepancy with the kernel (x.y / F + 1)^3 (Binkowski et al. 2018), unbiased: it
    is below 0 half of the time for equal distributions, and its mean does not depend on the counts. All pairs
    are used at once; the mean over random subsets, common in the literature, estimates the same value with a
    larger error, and the spread of overlapping subsets is not a standard error.

    The variance is that of the two-sample U-statistic by its Hoeffding decomposition (Serfling 1980, section
    5.2): a first-order term from the means over each image's pairs, corrected for the finite number of pairs,
    and a second-order term, the only one for equal distributions. Both sets are treated as random.
    """
    real, generated = checked(real), checked(generated)
    within_real = _kernel_means(real, real)
    within_generated = _kernel_means(generated, generated)
    between = _kernel_means(real, generated)
    value = within_real.mean() + within_generated.mean() - 2 * between.mean()
    m, n = len(real), len(generated)

    def first_order(difference: Tensor, noise: Tensor) -> Tensor:
        return 4 / len(difference) * (difference.var() - noise)

    of_real, of_generated, of_both = (
        pairs.interaction() for pairs in (within_real, within_generated, between)
    )
    first = (
        first_order(within_real.rows - between.rows, of_real / (m - 1) + of_both / n)
        + first_order(within_generated.rows - between.columns, of_generated / (n - 1) + of_both / m)
    )  # fmt: skip
    variance = (
        first.clamp(min=0)
        + 2 * of_real / (m * (m - 1))
        + 2 * of_generated / (n * (n - 1))
        + 4 * of_both / (m * n)
    )
    return value.item(), variance.sqrt().item()


def checked(features: Tensor) -> Tensor:
    """Checks features (N, F), and returns them for the computation of a distance.

    Raises:
        UserError: fewer than 2 images, or a value that is not finite.
    """
    if features.ndim != 2:
        raise ValueError(f"features of shape {tuple(features.shape)}: they are (N, F)")
    if len(features) < 2:
        raise UserError(f"{len(features)} image: a distance of distributions needs at least 2 on each side")
    if not features.isfinite().all():
        raise UserError("features are not finite: the images, or the network that reads them, hold NaN")
    return features


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Yields slices of the rows of a matrix (rows, columns); a block takes 64 MiB in float64."""
    step = max(1, _BLOCK_ELEMENTS // columns)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _scatter(features: Tensor) -> tuple[Tensor, Tensor, int]:
    """Returns the mean (F,), the sum of outer products of deviations (F, F), and the count."""
    count, size = features.shape
    mean = features.mean(0, dtype=torch.float64)
    scatter = torch.zeros(size, size, dtype=torch.float64, device=features.device)
    for rows in blocks(count, size):
        deviations = features[rows].double() - mean
        scatter.addmm_(deviations.T, deviations)
    return mean, scatter, count


def _root(covariance: Tensor) -> Tensor:
    """Returns A (F, R) with A A^T the covariance, R its numerical rank."""
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
    rounding = len(eigenvalues) * torch.finfo(torch.float64).eps * eigenvalues[-1]
    kept = eigenvalues > rounding
    return eigenvectors[:, kept] * eigenvalues[kept].sqrt()


def _frechet(a: Moments, root: Tensor, b: Moments) -> float:
    """Returns the Fréchet distance, given the root of the covariance of `a`."""
    eigenvalues = torch.linalg.eigvalsh(root.T @ b.covariance @ root)
    overlap = eigenvalues.clamp(min=0).sqrt().sum()
    means = (a.mean - b.mean).square().sum()
    return max(0.0, (means + a.covariance.trace() + b.covariance.trace() - 2 * overlap).item())


class _KernelMeans(NamedTuple):
    """Means of the kernel over pairs: of each row, of each column, and of its square over all."""

    rows: Tensor
    columns: Tensor
    square: Tensor

    def mean(self) -> Tensor:
        return self.rows.mean()

    def interaction(self) -> Tensor:
        """Returns the interaction variance: the part that neither image of a pair explains alone."""
        explained = self.rows.square().mean() + self.columns.square().mean() - self.mean().square()
        return (self.square - explained).clamp(min=0)


def _kernel_means(x: Tensor, y: Tensor) -> _KernelMeans:
    """Averages the kernel over all pairs of x and y; without those of equal index if y is x."""
    other = y.double()
    rows, squares, columns = [], [], torch.zeros(len(y), dtype=torch.float64, device=y.device)
    for block in blocks(len(x), len(y)):
        kernel = (x[block].double() @ other.T).div_(x.shape[1]).add_(1).pow_(3)
        if x is y:
            kernel[:, block].fill_diagonal_(0)
        rows.append(kernel.sum(1))
        columns += kernel.sum(0)
        squares.append(kernel.square_().sum())
    own = 1 if x is y else 0
    in_row, in_column = len(y) - own, len(x) - own
    return _KernelMeans(
        torch.cat(rows) / in_row, columns / in_column, torch.stack(squares).sum() / (len(x) * in_row)
    )
