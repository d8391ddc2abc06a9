"""Precision, recall, density and coverage: against loops over all balls, and on cases worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from genlab.errors import UserError
from genlab.metrics import distances
from genlab.metrics.coverage import Overlap, overlap
from genlab.metrics.neighbours import nearest, squared_distances


def line(*values: float) -> Tensor:
    return torch.tensor(values)[:, None]


def by_loops(real: Tensor, generated: Tensor, k: int, k_density: int) -> Overlap:
    """The definitions, ball by ball; distances as norms of differences in float64."""
    x, y = real.double().tolist(), generated.double().tolist()

    def away(a: list[float], b: list[float]) -> float:
        return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))

    def radii(points: list[list[float]], k: int) -> list[float]:
        return [
            sorted(away(p, q) for j, q in enumerate(points) if j != i)[k - 1] for i, p in enumerate(points)
        ]

    def inside(point: list[float], centre: list[float], radius: float) -> bool:
        return away(point, centre) <= radius * (1 + 1e-9)

    near, wide, theirs = radii(x, k), radii(x, k_density), radii(y, k)
    return Overlap(
        sum(any(inside(g, c, r) for c, r in zip(x, near, strict=True)) for g in y) / len(y),
        sum(any(inside(p, c, r) for c, r in zip(y, theirs, strict=True)) for p in x) / len(x),
        sum(inside(g, c, r) for g in y for c, r in zip(x, wide, strict=True)) / (k_density * len(y)),
        sum(any(inside(g, c, r) for g in y) for c, r in zip(x, wide, strict=True)) / len(x),
    )


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("block", [2**23, 40])
def test_against_loops(seed: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random counts, sizes, offsets and k; with duplicates within and between the sides."""
    monkeypatch.setattr(distances, "_BLOCK_ELEMENTS", block)
    rng = torch.Generator().manual_seed(seed)

    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=rng))

    size, k, k_density = integer(1, 7), integer(1, 4), integer(1, 6)
    real = torch.randn(integer(8, 40), size, generator=rng)
    generated = torch.randn(integer(8, 40), size, generator=rng) * 1.3
    if seed % 2:
        real[: len(real) // 3] = real[0]
        generated[: len(generated) // 2] = real[
            torch.randint(len(real), (len(generated) // 2,), generator=rng)
        ]
    if seed % 3 == 0:  # on a grid: many equal distances
        real, generated = real.round(), generated.round()
    offset = 100.0 * (seed % 4)
    real, generated = real + offset, generated + offset
    found = overlap(real, generated, precision_neighbours=k, density_neighbours=k_density)
    assert found == pytest.approx(by_loops(real, generated, k, k_density))


def test_points_on_a_line_by_hand() -> None:
    real = line(0, 1, 2, 10)  # radii to the nearest: 1, 1, 1, 8
    generated = line(-0.5, 3.5, 30, 31)  # radii 4, 4, 1, 1
    found = overlap(real, generated, precision_neighbours=1, density_neighbours=1)
    assert found.precision == 0.5  # -0.5 by the ball of 0, 3.5 by that of 10
    assert found.recall == 0.75  # 0, 1, 2
    assert found.density == 0.5  # two balls for four images
    assert found.coverage == 0.5  # those of 0 and 10


def test_an_image_is_never_outside_its_own_ball() -> None:
    """However large the features beside the distances: copies of real images are real, with k = 1 too."""
    rng = torch.Generator().manual_seed(0)
    real = 1000 + 1e-2 * torch.randn(300, 64, generator=rng)
    real[100:200] = real[:100]  # their balls have radius 0
    found = overlap(real, real[torch.randperm(300, generator=rng)], precision_neighbours=1)
    assert found.precision == found.recall == found.coverage == 1


def test_equal_distributions_and_ones_far_away() -> None:
    rng = torch.Generator().manual_seed(1)
    real, generated = torch.randn(2, 500, 4, generator=rng)
    found = overlap(real, generated)
    assert found.density == pytest.approx(1, abs=0.15)
    assert found.coverage > 0.9
    assert found.precision > 0.9
    assert found.recall > 0.9
    assert overlap(real, generated + 50) == (0, 0, 0, 0)


def test_a_lost_mode_lowers_recall_and_coverage_and_not_precision() -> None:
    rng = torch.Generator().manual_seed(2)
    real = torch.randn(400, 3, generator=rng)
    real[:200] += 30
    generated = torch.randn(400, 3, generator=rng)
    found = overlap(real, generated)
    assert found.precision > 0.9
    assert 0.4 < found.recall < 0.55
    assert 0.4 < found.coverage < 0.55


def test_coverage_of_equal_distributions_is_what_theory_says() -> None:
    """1 - (n - 1)...(n - k) / ((2n - 1)...(2n - k)) for n real and n generated (Naeem et al. 2020, eq. 9)."""
    n, k, rng = 400, 5, torch.Generator().manual_seed(3)
    found = [overlap(*torch.randn(2, n, 2, generator=rng)).coverage for _ in range(20)]
    expected = 1.0
    for i in range(1, k + 1):
        expected *= (n - i) / (2 * n - i)
    assert sum(found) / 20 == pytest.approx(1 - expected, abs=0.005)


def test_precision_and_recall_are_those_of_torch_fidelity() -> None:
    fidelity = pytest.importorskip("torch_fidelity.metric_prc")
    rng = torch.Generator().manual_seed(4)
    real, generated = torch.randn(300, 6, generator=rng), 0.8 * torch.randn(250, 6, generator=rng)
    precision, recall = fidelity.calculate_precision_recall_full(generated.double(), real.double())
    found = overlap(real, generated)
    assert (found.precision, found.recall) == pytest.approx((precision, recall))


def test_too_few_images() -> None:
    with pytest.raises(UserError, match="more than 5 and 3"):
        overlap(torch.randn(5, 2), torch.randn(9, 2))
    with pytest.raises(UserError, match="more than 5 and 3"):
        overlap(torch.randn(9, 2), torch.randn(3, 2))
    assert overlap(torch.randn(6, 2), torch.randn(4, 2)).precision >= 0


# Neighbours


def test_distances_of_features_far_from_the_origin() -> None:
    rng = torch.Generator().manual_seed(5)
    queries, references = 1e4 + torch.randn(20, 30, generator=rng), 1e4 + torch.randn(25, 30, generator=rng)
    references[7] = queries[3]
    found = torch.cat([squares for _, squares in squared_distances(queries, references)])
    expected = (queries.double()[:, None] - references.double()).square().sum(2)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    assert found[3, 7] == 0


def test_nearest_excludes_the_image_and_not_its_double() -> None:
    points = line(0, 1, 1, 5)
    squares, indices = nearest(points, points, 2, excluding_itself=True)
    assert squares.tolist() == [[1, 1], [0, 1], [0, 1], [16, 16]]
    assert indices[1].tolist() == [2, 0]
    assert nearest(points, points)[0].flatten().tolist() == [0, 0, 0, 0]
