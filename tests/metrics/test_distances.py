"""Distances of features: against formulas, other libraries, and repeated draws."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from genlab.errors import UserError
from genlab.metrics import distances
from genlab.metrics.distances import Moments, frechet_at_infinity, frechet_distance, kernel_distance, moments


def drawn(count: int, size: int, seed: int, *, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """Correlated features that are not Gaussian, positive as those of a network with ReLUs."""
    mixing = torch.randn(size, size, generator=torch.Generator().manual_seed(99)) / math.sqrt(size)
    normal = torch.randn(count, size, generator=torch.Generator().manual_seed(seed))
    return (normal * scale @ mixing + shift).relu()


def gaussian(mean: Tensor, covariance: Tensor) -> Moments:
    return Moments(mean.double(), covariance.double(), 10**6)


# moments


@pytest.mark.parametrize("block", [2**23, 50])
def test_moments_are_numpys(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "_BLOCK_ELEMENTS", block)
    features = drawn(57, 12, 0) + 100
    found = moments(features)
    np.testing.assert_allclose(found.mean, features.double().numpy().mean(0), rtol=1e-13)
    np.testing.assert_allclose(found.covariance, np.cov(features.double().numpy(), rowvar=False), rtol=1e-9)
    assert found.count == 57
    assert found.mean.dtype == found.covariance.dtype == torch.float64


@pytest.mark.parametrize("bad", [torch.zeros(1, 3), torch.tensor([[0.0, math.nan], [1.0, 1.0]])])
def test_what_has_no_distance_is_refused(bad: Tensor) -> None:
    with pytest.raises(UserError):
        moments(bad)
    with pytest.raises(UserError):
        kernel_distance(torch.randn(4, bad.shape[1]), bad)


# Fréchet distance


def test_gaussians_with_diagonal_covariances_by_hand() -> None:
    a = gaussian(torch.tensor([0.0, 1.0]), torch.diag(torch.tensor([1.0, 4.0])))
    b = gaussian(torch.tensor([3.0, 1.0]), torch.diag(torch.tensor([9.0, 0.0])))
    assert frechet_distance(a, b) == pytest.approx(9 + (1 - 3) ** 2 + (2 - 0) ** 2)


@pytest.mark.parametrize(("count", "other"), [(500, 300), (40, 300), (40, 25), (3, 500)])
def test_root_is_scipys_for_any_rank(count: int, other: int) -> None:
    a, b = moments(drawn(count, 50, 1)), moments(drawn(other, 50, 2, scale=1.3, shift=0.1))
    # scipy's root needs a matrix of full rank; so much of the identity changes the distance by under 1e-6.
    little = 1e-12 * torch.eye(50, dtype=torch.float64)
    root = sqrtm(((a.covariance + little) @ (b.covariance + little)).numpy())
    expected = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace()
    expected = expected.item() - 2 * np.trace(root).real
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-7)


@pytest.mark.parametrize("count", [10, 400])
@pytest.mark.parametrize("decay", [0, 4, 20])
def test_a_set_has_no_distance_from_itself(count: int, decay: int) -> None:
    features = drawn(count, 64, 3).double() * torch.logspace(0, -decay, 64, dtype=torch.float64)
    own = moments(features)
    assert 0 <= frechet_distance(own, own) <= 1e-8 * own.covariance.trace()


def test_a_shift_is_its_squared_length_and_a_scale_is_known() -> None:
    features = drawn(300, 20, 4).double()
    own = moments(features)
    assert frechet_distance(own, moments(features + 0.5)) == pytest.approx(20 * 0.25)
    scaled = Moments(own.mean, 9 * own.covariance, own.count)  # tr(C + 9C - 2 * 3C)
    assert frechet_distance(own, scaled) == pytest.approx(4 * own.covariance.trace().item())


@pytest.mark.parametrize(("count", "size"), [(2000, 48), (300, 128)])
def test_frechet_is_that_of_torchmetrics_and_torch_fidelity(count: int, size: int) -> None:
    a, b = drawn(count, size, 5).double(), drawn(count, size, 6, scale=1.1).double()
    found = frechet_distance(moments(a), moments(b))
    torchmetrics = pytest.importorskip("torchmetrics.image.fid")
    theirs = torchmetrics._compute_fid(a.mean(0), a.T.cov(), b.mean(0), b.T.cov())
    assert found == pytest.approx(theirs.item(), rel=1e-4)
    fidelity = pytest.importorskip("torch_fidelity.metric_fid")
    statistics = [fidelity.fid_features_to_statistics(side) for side in (a, b)]
    theirs = fidelity.fid_statistics_to_metric(*statistics, verbose=False)
    assert found == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)


@pytest.mark.slow
def test_2048_features_take_seconds() -> None:
    few, many = moments(torch.randn(500, 2048)), moments(torch.randn(4000, 2048))
    start = time.process_time()
    found = frechet_distance(few, many)
    assert time.process_time() - start < 20  # 1 s and 3 s on one core for few and many
    assert found > 0


# At infinity


def test_extrapolation_is_unbiased_and_its_error_honest() -> None:
    size, count, repetitions = 24, 400, 60
    spread = torch.linspace(0.5, 2, size)
    real = gaussian(torch.zeros(size), torch.eye(size))
    true = (spread - 1).square().sum().item() + size * 0.01
    values, errors, plain = [], [], []
    for repetition in range(repetitions):
        noise = torch.randn(count, size, generator=torch.Generator().manual_seed(repetition))
        features = noise * spread + 0.1
        value, error = frechet_at_infinity(real, features, seed=repetition)
        values.append(value)
        errors.append(error)
        plain.append(frechet_distance(real, moments(features)))
    mean, spread_of_values = np.mean(values), np.std(values)
    assert abs(mean - true) < 3 * spread_of_values / math.sqrt(repetitions)
    assert np.mean(plain) - true > 5 * spread_of_values / math.sqrt(repetitions)  # what is taken away
    assert 1 / 1.5 < np.mean(errors) / spread_of_values < 1.5


@pytest.mark.parametrize("groups", [2, 3, 10])
def test_extrapolation_is_the_line_through_distances_of_subsets(groups: int) -> None:
    real, features = moments(drawn(300, 10, 7)), drawn(101, 10, 8, scale=1.2)
    order = torch.randperm(101, generator=torch.Generator().manual_seed(5))
    without = []
    for group in order.tensor_split(groups):
        kept = torch.ones(101, dtype=torch.bool)
        kept[group] = False
        without.append(frechet_distance(real, moments(features[kept])))
    whole = frechet_distance(real, moments(features))
    value, error = frechet_at_infinity(real, features, groups=groups, seed=5)
    assert value == pytest.approx(groups * whole - (groups - 1) * np.mean(without))
    assert error == pytest.approx(math.sqrt((groups - 1) * np.var(without)))
    # The line through (1/N, whole) and (1/(N - N/groups), mean without), at 0.
    slope = (np.mean(without) - whole) / (1 / (101 - 101 / groups) - 1 / 101)
    assert value == pytest.approx(whole - slope / 101)


def test_too_few_to_extrapolate() -> None:
    with pytest.raises(UserError, match="at least 4"):
        frechet_at_infinity(moments(drawn(9, 3, 0)), drawn(3, 3, 1))


# Kernel distance


def kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x.double() @ y.double().T / x.shape[1] + 1) ** 3


def test_kernel_distance_is_the_sum_over_pairs() -> None:
    x, y = drawn(9, 5, 10), drawn(7, 5, 11, shift=0.2)
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    expected = (xx.sum() - xx.trace()) / 72 + (yy.sum() - yy.trace()) / 42 - 2 * xy.mean()
    assert kernel_distance(x, y)[0] == pytest.approx(expected.item())
    assert kernel_distance(y, x) == pytest.approx(kernel_distance(x, y))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = drawn(33, 5, 12), drawn(20, 5, 13)
    whole = kernel_distance(x, y)
    monkeypatch.setattr(distances, "_BLOCK_ELEMENTS", 70)
    assert kernel_distance(x, y) == pytest.approx(whole, rel=1e-9)


def test_kernel_distance_is_that_of_torchmetrics_and_torch_fidelity() -> None:
    a, b = drawn(400, 48, 14).double(), drawn(400, 48, 15, scale=1.05).double()
    found, _ = kernel_distance(a, b)
    torchmetrics = pytest.importorskip("torchmetrics.image.kid")
    assert found == pytest.approx(torchmetrics.poly_mmd(a, b).item(), rel=1e-4)
    fidelity = pytest.importorskip("torch_fidelity.metric_kid")
    theirs = fidelity.kid_features_to_metric(a, b, kid_subsets=1, kid_subset_size=400, verbose=False)
    assert found == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1.05, 0.0), (1.5, 0.3)])
@pytest.mark.parametrize(("m", "n"), [(150, 150), (60, 300)])
def test_error_of_the_kernel_distance_is_honest(scale: float, shift: float, m: int, n: int) -> None:
    """For equal distributions, where the second order is all, near ones, and far ones."""
    found = [
        kernel_distance(drawn(m, 8, 2 * seed), drawn(n, 8, 2 * seed + 1, scale=scale, shift=shift))
        for seed in range(200)
    ]
    values, errors = torch.tensor(found, dtype=torch.float64).T
    spread = values.std().item()
    if scale == 1:
        assert abs(values.mean().item()) < 3 * spread / math.sqrt(200)
    assert 1 / 1.5 < errors.square().mean().sqrt().item() / spread < 1.5
