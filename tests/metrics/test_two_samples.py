"""The classifier between two samples: what it says of equal ones, and which differences it finds."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.metrics.two_samples import accuracy_between

N = 1000


def laplace(d: int) -> Tensor:
    return torch.distributions.Laplace(0.0, 1.0).sample((N, d))


def clusters(d: int) -> Tensor:
    return torch.randn(N, d) * 0.1 + 5 * torch.randint(2, (N, 1))


def one_hot(d: int) -> Tensor:
    return F.one_hot(torch.randint(4, (N, d // 4)), 4).flatten(1).float()


@pytest.mark.parametrize("draw", [lambda d: torch.randn(N, d), laplace, clusters, one_hot])
@pytest.mark.parametrize("dimensions", [4, 32, 1500])
def test_of_one_distribution_it_is_a_half(draw: Callable[[int], Tensor], dimensions: int) -> None:
    """Ten pairs: their mean within four of its standard deviations, 1 / (2 sqrt(10 n))."""
    repeats = 10 if dimensions < 100 else 2
    values = [accuracy_between(draw(dimensions), draw(dimensions)) for _ in range(repeats)]
    assert abs(sum(values) / repeats - 0.5) < 4 * 0.5 / math.sqrt(repeats * N)
    assert max(abs(value - 0.5) for value in values) < 4 * 0.5 / math.sqrt(N)


def test_normal_distributions_are_told_apart_as_often_as_theory_has_it() -> None:
    """Of N(0, I) and N(mu, I) the best rule is right in Phi(|mu| / 2) of cases."""
    shift = torch.tensor([1.5, 1.0, 0.0])
    value = accuracy_between(torch.randn(20_000, 3), torch.randn(20_000, 3) + shift)
    best = torch.special.ndtr(shift.norm() / 2).item()
    assert abs(value - best) < 4 * 0.5 / math.sqrt(20_000)


@pytest.mark.parametrize(
    "change",
    [lambda x: x + 0.5, lambda x: x * 1.5, lambda x: x * 0.5, lambda x: x.cumsum(1) / math.sqrt(8)],
    ids=["place", "wide", "narrow", "correlation"],
)
def test_it_finds_differences_of_place_scale_and_correlation(change: Callable[[Tensor], Tensor]) -> None:
    assert accuracy_between(torch.randn(N, 16), change(torch.randn(N, 16))) > 0.8


def test_apart_it_is_one_and_of_a_constant_it_is_a_number() -> None:
    assert accuracy_between(torch.zeros(8, 3), torch.ones(8, 3)) == 1
    assert accuracy_between(torch.zeros(8, 3), torch.zeros(8, 3)) == 0.5
    assert accuracy_between(torch.randn(N, 4) + 50, torch.randn(N, 4)) == 1
