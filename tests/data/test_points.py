"""Points of a known density: where the modes are, how they are drawn, what their density is."""

from __future__ import annotations

import math
from itertools import islice

import pytest
import torch
from helpers.command_line import genlab
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from genlab import registry
from genlab.config.datasets import (
    Gaussian1DConfig,
    GridConfig,
    PointsConfig,
    RingConfig,
    SwissRollConfig,
    TwoMoonsConfig,
)
from genlab.data.dataset import Dataset
from genlab.data.points import Mixture, mixture_of

ALL = [RingConfig, GridConfig, Gaussian1DConfig, TwoMoonsConfig, SwissRollConfig]
SEPARATE = [RingConfig, GridConfig]


def held_out(dataset: Dataset, split: str = "test", seed: int = 0) -> tuple[Tensor, Tensor | None]:
    """All points of a split, (N, D), and their labels."""
    parts = [batch for _, batch in dataset.evaluation_batches(split, 3000, seed)]
    points = torch.cat([batch.images for batch in parts]).flatten(1)
    labels = [batch.labels for batch in parts if batch.labels is not None]
    return points, torch.cat(labels) if labels else None


def test_the_ring_has_eight_distinct_means_evenly_spaced_on_its_circle() -> None:
    means = mixture_of(RingConfig(radius=3.0)).means
    assert means.shape == (8, 2)
    torch.testing.assert_close(means.norm(dim=1), torch.full((8,), 3.0))
    apart = (means - means.roll(1, 0)).norm(dim=1)
    torch.testing.assert_close(apart, torch.full((8,), 2 * 3.0 * math.sin(math.pi / 8)))
    assert torch.cdist(means, means).fill_diagonal_(math.inf).min() > 2


def test_the_grid_has_twenty_five_means_two_apart_around_zero() -> None:
    means = mixture_of(GridConfig()).means
    expected = {(x, y) for x in (-4.0, -2.0, 0.0, 2.0, 4.0) for y in (-4.0, -2.0, 0.0, 2.0, 4.0)}
    assert len(means) == 25
    assert {(x, y) for x, y in means.tolist()} == expected


@pytest.mark.parametrize(("config", "modes"), [(RingConfig(modes=3), 3), (GridConfig(side=2, spacing=1), 4)])
def test_modes_are_as_many_as_asked_for(config: PointsConfig, modes: int) -> None:
    assert len(mixture_of(config).means) == modes
    assert registry.dataset(config).spec.classes == modes


def test_the_moons_are_one_turned_into_the_other() -> None:
    upper, lower = mixture_of(TwoMoonsConfig()).means.chunk(2)
    assert torch.equal(upper, -lower)
    center = torch.tensor([-0.5, -0.25])
    torch.testing.assert_close((upper - center).norm(dim=1), torch.ones(len(upper)))
    assert bool((upper[:, 1] >= -0.25 - 1e-6).all())


def test_the_swiss_roll_winds_one_turn_and_a_half_from_two_thirds_to_two() -> None:
    means = mixture_of(SwissRollConfig()).means
    radii = means.norm(dim=1)
    assert bool((radii.diff() > 0).all())
    assert radii[[0, -1]].tolist() == pytest.approx([2 / 3, 2])
    angles = torch.atan2(means[:, 1], means[:, 0]).double()
    turned = (angles.diff() + math.pi).remainder(2 * math.pi) - math.pi
    assert float(turned.sum()) == pytest.approx(3 * math.pi, abs=1e-4)


@pytest.mark.parametrize("kind", [TwoMoonsConfig, SwissRollConfig])
def test_curves_have_no_beads(kind: type[PointsConfig]) -> None:
    mixture = mixture_of(kind())
    apart = (mixture.means[1:] - mixture.means[:-1]).norm(dim=1)
    assert apart.quantile(0.99) < mixture.sigma / 2


@pytest.mark.parametrize("kind", ALL)
def test_drawn_points_spread_around_their_component_by_sigma(kind: type[PointsConfig]) -> None:
    mixture = mixture_of(kind(sigma=0.3))
    points, components = mixture.draw(40_000, seed=0)
    assert points.dtype == torch.float32
    assert components.dtype == torch.int64
    away = points - mixture.means[components]
    torch.testing.assert_close(away.std(0), torch.full((points.shape[1],), 0.3), rtol=0.02, atol=0)
    assert float(away.mean(0).abs().max()) < 5 * 0.3 / 200


@pytest.mark.parametrize("kind", SEPARATE)
def test_components_are_equally_likely(kind: type[PointsConfig]) -> None:
    mixture = mixture_of(kind())
    n, modes = 50_000, len(mixture.means)
    counts = torch.bincount(mixture.draw(n, seed=1)[1], minlength=modes)
    error = math.sqrt(n / modes * (1 - 1 / modes))
    assert len(counts) == modes
    assert float((counts - n / modes).abs().max()) < 4.5 * error


def reference(mixture: Mixture, points: Tensor) -> Tensor:
    means = mixture.means.double()
    normals = Independent(Normal(means, mixture.sigma), 1)
    return MixtureSameFamily(Categorical(torch.ones(len(means))), normals).log_prob(points.double())


@pytest.mark.parametrize("sigma", [0.001, 0.02, 1.0])
@pytest.mark.parametrize("kind", ALL)
def test_the_density_is_that_of_the_mixture(kind: type[PointsConfig], sigma: float) -> None:
    mixture = mixture_of(kind(sigma=sigma))
    points = torch.cat([mixture.draw(200, seed=0)[0], torch.randn(200, mixture.means.shape[1]) * 3])
    found = mixture.log_prob(points)
    assert found.shape == (400,)
    torch.testing.assert_close(found.double(), reference(mixture, points), rtol=1e-5, atol=1e-3)


def test_the_density_integrates_to_one() -> None:
    places = torch.linspace(-4, 4, 400)
    density = mixture_of(RingConfig(sigma=0.2)).log_prob(torch.cartesian_prod(places, places)).exp()
    assert float(density.sum() * (8 / 399) ** 2) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("kind", ALL)
def test_points_are_images_of_one_pixel_with_a_channel_for_each_dimension(kind: type[PointsConfig]) -> None:
    config = kind(points=50)
    spec = registry.dataset(config).spec
    mixture = mixture_of(config)
    assert spec.shape == (mixture.means.shape[1], 1, 1)
    assert (spec.name, spec.kind, spec.levels) == (config.name, "points", 0)
    assert spec.classes == (len(mixture.means) if mixture.separate else 0)


@pytest.mark.parametrize("kind", SEPARATE)
def test_labels_are_the_components(kind: type[PointsConfig]) -> None:
    config = kind(points=500)
    dataset = registry.dataset(config)
    means = mixture_of(config).means
    points, labels = held_out(dataset)
    batch = next(dataset.batches(seed=0, batch_size=500))
    assert labels is not None
    assert batch.labels is not None
    assert torch.equal(torch.cdist(points, means).argmin(1), labels)
    assert torch.equal(torch.cdist(batch.images.flatten(1), means).argmin(1), batch.labels)


@pytest.mark.parametrize("kind", [Gaussian1DConfig, TwoMoonsConfig, SwissRollConfig])
def test_what_is_no_mode_is_no_label(kind: type[PointsConfig]) -> None:
    dataset = registry.dataset(kind(points=50))
    assert held_out(dataset)[1] is None
    assert next(dataset.batches(seed=0, batch_size=4)).labels is None


def test_splits_share_no_point() -> None:
    dataset = registry.dataset(RingConfig(points=5000))
    splits = [{tuple(p) for p in held_out(dataset, s)[0].tolist()} for s in ("train", "validation", "test")]
    assert [dataset.size(split) for split in ("train", "validation", "test")] == [5000, 5000, 10_000]
    assert not splits[0] & splits[1]
    assert not splits[0] & splits[2]
    assert not splits[1] & splits[2]


@pytest.mark.parametrize("kind", ALL)
def test_points_are_the_same_each_time_and_for_every_seed_of_a_run(kind: type[PointsConfig]) -> None:
    first, second = (registry.dataset(kind(points=100)) for _ in range(2))
    for split in ("train", "validation", "test"):
        assert torch.equal(held_out(first, split, seed=0)[0], held_out(second, split, seed=9)[0])


def test_each_dataset_has_points_of_its_own() -> None:
    ring, grid = RingConfig(sigma=1.0, points=100), GridConfig(sigma=1.0, points=100)
    noises = []
    for config in (ring, grid):
        points, labels = held_out(registry.dataset(config), "train")
        assert labels is not None
        noises.append(points - mixture_of(config).means[labels])
    assert float((noises[0] - noises[1]).abs().min(1).values.median()) > 1e-3


def test_training_order_follows_from_the_seed_and_every_point_comes_once_an_epoch() -> None:
    dataset = registry.dataset(RingConfig(points=96))
    batches = [b.images for b in islice(dataset.batches(seed=3, batch_size=16), 6)]
    again = [b.images for b in islice(dataset.batches(seed=3, batch_size=16, start=2), 4)]
    assert all(torch.equal(a, b) for a, b in zip(batches[2:], again, strict=True))
    assert not torch.equal(batches[0], next(dataset.batches(seed=4, batch_size=16)).images)
    epoch = torch.cat(batches).flatten(1)
    assert {tuple(p) for p in epoch.tolist()} == {tuple(p) for p in held_out(dataset, "train")[0].tolist()}


@pytest.mark.parametrize(
    ("dataset", "setting", "value"),
    [
        ("ring", "sigma", "0"),
        ("ring", "sigma", "-1"),
        ("ring", "modes", "0"),
        ("ring", "radius", "0"),
        ("ring", "points", "0"),
        ("grid", "side", "0"),
        ("grid", "spacing", "0"),
        ("gaussian1d", "sigma", "0"),
        ("two_moons", "sigma", "0"),
        ("swiss_roll", "sigma", "0"),
    ],
)
def test_a_bound_is_refused_in_one_line(
    dataset: str, setting: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "model=gan", f"dataset={dataset}", f"dataset.{setting}={value}", "trainer.device=cpu"]
    genlab(*words, code=2)
    line = capsys.readouterr().err.strip()
    assert "\n" not in line
    assert f"dataset.{setting}={value}" in line
    assert "above 0" in line or "at least 1" in line
