"""Coverage of modes by samples that were put where they are."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from genlab.config.datasets import GridConfig, RingConfig
from genlab.data.points import Mixture, mixture_of
from genlab.metrics.modes import class_coverage, point_coverage, reverse_kl

RING = mixture_of(RingConfig())


def east(sigmas: float, mixture: Mixture = RING) -> Tensor:
    """Each mean, moved east by so many standard deviations."""
    return mixture.means + torch.tensor([sigmas * mixture.sigma, 0.0])


@pytest.mark.parametrize(("mixture", "modes"), [(RING, 8), (mixture_of(GridConfig()), 25)])
def test_a_sample_on_every_mean_covers_all(mixture: Mixture, modes: int) -> None:
    found = point_coverage(mixture.means, mixture)
    assert found == {
        "modes_found": modes, "modes": modes, "high_quality_share": 1.0,
        "reverse_kl_nats": pytest.approx(0, abs=1e-12),
    }  # fmt: skip


def test_all_samples_on_one_mean_have_lost_the_logarithm_of_the_modes() -> None:
    found = point_coverage(RING.means[3].expand(500, 2), RING)
    assert found["modes_found"] == 1
    assert found["high_quality_share"] == 1.0
    assert found["reverse_kl_nats"] == pytest.approx(math.log(8))


def test_half_of_the_samples_off_are_half_of_high_quality() -> None:
    found = point_coverage(torch.cat([RING.means, east(10)]), RING)
    assert found["high_quality_share"] == 0.5
    assert found["modes_found"] == 8
    assert found["reverse_kl_nats"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("mixture", [RING, mixture_of(RingConfig(radius=100.0)), mixture_of(GridConfig())])
@pytest.mark.parametrize(("sigmas", "good"), [(2.99, True), (3.01, False)])
@pytest.mark.parametrize("repeat", [1, 40])
def test_high_quality_ends_at_three_standard_deviations(
    mixture: Mixture, sigmas: float, good: bool, repeat: int
) -> None:
    found = point_coverage(east(sigmas, mixture).repeat(repeat, 1), mixture)
    assert found["high_quality_share"] == float(good)
    assert found["modes_found"] == (len(mixture.means) if good else 0)


def test_three_standard_deviations_are_of_the_distance_not_of_each_coordinate() -> None:
    corner = RING.means + 2.5 * RING.sigma
    assert point_coverage(corner, RING)["high_quality_share"] == 0.0


def test_a_mode_that_only_poor_samples_are_near_is_not_found() -> None:
    points = torch.cat([RING.means[:5], east(4)[5:]])
    found = point_coverage(points, RING)
    assert found["modes_found"] == 5
    assert found["high_quality_share"] == pytest.approx(5 / 8)


def test_no_sample_of_quality_finds_nothing_and_the_numbers_stay_finite() -> None:
    found = point_coverage(torch.full((100, 2), 50.0), RING)
    assert (found["modes_found"], found["high_quality_share"]) == (0, 0.0)
    assert found["reverse_kl_nats"] == pytest.approx(math.log(8))


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_samples_that_are_no_numbers_are_not_of_quality(value: float) -> None:
    points = torch.cat([RING.means, torch.full((8, 2), value)])
    found = point_coverage(points, RING)
    assert found["modes_found"] == 8
    assert found["high_quality_share"] == 0.5
    assert math.isfinite(found["reverse_kl_nats"])


def test_points_drawn_from_the_data_cover_it() -> None:
    """Of a normal distribution in the plane, 1 - exp(-9/2) lies within 3 standard deviations."""
    n = 20_000
    found = point_coverage(RING.draw(n, seed=0)[0], RING)
    inside = 1 - math.exp(-4.5)
    assert found["modes_found"] == 8
    assert found["high_quality_share"] == pytest.approx(
        inside, abs=4.5 * math.sqrt(inside * (1 - inside) / n)
    )
    assert 0 <= found["reverse_kl_nats"] < 20 / n  # twice n times it is chi-squared of 7 degrees of freedom


@pytest.mark.parametrize(
    ("counts", "nats"),
    [
        ([1, 1, 1, 1], 0.0),
        ([4, 0, 0, 0], math.log(4)),
        ([1, 1, 0, 0], math.log(2)),
        ([3, 1, 0, 0], 0.75 * math.log(3) + 0.25 * math.log(1)),
        ([5, 1, 1, 1], 5 / 8 * math.log(2.5) + 3 / 8 * math.log(0.5)),
    ],
)
def test_reverse_kl_is_from_generated_to_data(counts: list[int], nats: float) -> None:
    """KL(generated || data): a mode left out costs finitely much, not infinitely."""
    found = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    assert reverse_kl(found, 4) == pytest.approx(nats, abs=1e-12)
    assert reverse_kl(found.flip(0), 4) == pytest.approx(nats, abs=1e-12)


def test_a_thousand_classes_evenly_covered_lose_nothing() -> None:
    found = class_coverage(torch.arange(1000).repeat(26), 1000)
    assert found == {"modes_found": 1000, "modes": 1000, "reverse_kl_nats": pytest.approx(0, abs=1e-12)}


def test_classes_that_are_missing_are_counted_and_cost_their_logarithm() -> None:
    found = class_coverage(torch.arange(0, 1000, 4).repeat(4), 1000)
    assert found == {"modes_found": 250, "modes": 1000, "reverse_kl_nats": pytest.approx(math.log(4))}
    one = class_coverage(torch.full((26_000,), 999), 1000)
    assert one == {"modes_found": 1, "modes": 1000, "reverse_kl_nats": pytest.approx(math.log(1000))}
