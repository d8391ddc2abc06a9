"""Copies of training images among samples: found where they are, and not where they are not."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from genlab.errors import UserError
from genlab.metrics.memorisation import (
    Closest,
    _hypergeometric_tail,
    closest_features,
    closest_images,
    copying,
    likeliest_copies,
)


def pictures(count: int, seed: int, side: int = 20, channels: int = 1) -> Tensor:
    """Smooth random pictures in [0, 1]."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, side // 4, side // 4, generator=rng)
    return F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)


def with_ratios(ratios: Tensor) -> Closest:
    return Closest(torch.stack([ratios, torch.ones_like(ratios)], 1), torch.zeros(len(ratios), 2).long())


# Neighbours


def test_ratios_by_hand() -> None:
    distances = torch.tensor([[0.0, 1, 4], [2, 3, 4], [0, 0, 0], [5, 5, 5]])
    assert Closest(distances, torch.zeros(4, 3).long()).ratios().tolist() == [0, 0.5, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize(("side", "channels"), [(8, 1), (20, 1), (20, 3), (48, 3)])
def test_a_copy_is_found_however_bright_and_a_pixel_away(
    side: int, channels: int, dtype: torch.dtype
) -> None:
    training = pictures(60, 0, side, channels)
    source = torch.randperm(60, generator=torch.Generator().manual_seed(1))[:12]
    copies = training[source]
    step = max(1, side // 32)
    altered = {
        "exact": copies,
        "dark": 0.3 * copies,
        "faint": 0.5 + 0.4 * copies,
        "moved": F.pad(copies, (step, 0, 0, step), mode="replicate")[..., step:, :side],
    }

    def stored(images: Tensor) -> Tensor:
        return images if dtype.is_floating_point else (images * 255).round().to(dtype)

    for name, images in altered.items():
        found = closest_images(stored(images), stored(training))
        assert found.indices[:, 0].tolist() == source.tolist(), name
        assert found.ratios().max() < (1e-6 if name == "exact" else 0.5), name


def test_others_are_no_copies() -> None:
    found = closest_images(pictures(50, 2), pictures(200, 3))
    assert found.ratios().min() > 0.4
    assert (found.distances.diff(dim=1) >= 0).all()


def test_distance_is_that_of_the_nearest_place() -> None:
    """Against all places and all pairs, one by one."""
    images, training = pictures(5, 4, 8), pictures(7, 5, 8)

    def unit(image: Tensor) -> Tensor:
        flat = image.flatten() - image.mean()
        return flat / flat.norm()

    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    expected = torch.tensor([
        [
            min(
                (unit(padded[i, :, top : top + 8, left : left + 8]) - unit(other)).norm().item()
                for top, left in itertools.product(range(3), repeat=2)
            )
            for other in training
        ]
        for i in range(5)
    ])  # fmt: skip
    found = closest_images(images, training, neighbours=7)
    torch.testing.assert_close(found.distances, expected.sort(1).values, rtol=1e-3, atol=1e-4)
    assert found.indices.tolist() == expected.argsort(1).tolist()


def test_empty_images_are_no_evidence() -> None:
    training = torch.cat([pictures(20, 6), torch.ones(9, 1, 20, 20)])
    found = closest_images(torch.ones(4, 1, 20, 20), training)
    assert found.distances.isfinite().all()
    assert found.ratios().min() > 0.9


def test_features_have_euclidean_distances() -> None:
    rng = torch.Generator().manual_seed(7)
    features, training = torch.randn(6, 4, generator=rng), torch.randn(9, 4, generator=rng)
    features[2] = training[5]
    found = closest_features(features, training, neighbours=3)
    expected = torch.cdist(features.double(), training.double()).sort(1)
    torch.testing.assert_close(found.distances, expected.values[:, :3], atol=1e-9, rtol=1e-9)
    assert torch.equal(found.indices, expected.indices[:, :3])
    assert found.distances[2, 0] == 0


def test_too_few_training_images() -> None:
    with pytest.raises(UserError, match="at least 5"):
        closest_images(pictures(3, 0), pictures(4, 1))
    with pytest.raises(UserError, match="at least 5"):
        closest_features(torch.zeros(3, 2), torch.zeros(4, 2))


# The test


@pytest.mark.parametrize(("drawn", "marked", "unmarked"), [(4, 6, 5), (5, 3, 9), (8, 9, 2), (1, 1, 1)])
def test_tail_is_that_of_counting(drawn: int, marked: int, unmarked: int) -> None:
    draws = list(itertools.combinations([1] * marked + [0] * unmarked, drawn))
    for at_least in range(min(drawn, marked) + 1):
        expected = sum(sum(draw) >= at_least for draw in draws) / len(draws)
        assert _hypergeometric_tail(at_least, drawn, marked, unmarked) == pytest.approx(expected, abs=1e-12)


def test_far_tails_are_not_rounded_to_nothing() -> None:
    assert _hypergeometric_tail(100, 100, 1000, 9000) == pytest.approx(
        math.exp(sum(math.log((1000 - i) / (10000 - i)) for i in range(100))), rel=1e-6
    )


def test_shares_by_hand() -> None:
    held_out = torch.linspace(0.5, 1, 200)
    samples = torch.full((50,), 0.7)
    samples[:5] = 0.1
    found = copying(with_ratios(samples), with_ratios(held_out))
    assert found.nearer_share == 0.1
    assert found.held_out_share == 0.01
    assert found.p_value < 0.01


@pytest.mark.parametrize(
    ("samples", "held_out", "enough"), [(1000, 10000, 5), (2000, 2000, 20), (100, 1000, 6)]
)
def test_how_many_copies_are_found(samples: int, held_out: int, enough: int) -> None:
    ratios = torch.linspace(0.5, 1, samples)
    others = with_ratios(torch.linspace(0.5, 1, held_out))
    assert copying(with_ratios(ratios), others).p_value > 0.01
    ratios[:enough] = 0.1
    assert copying(with_ratios(ratios), others).p_value < 0.01


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("samples", "held_out"), [(100, 1000), (300, 300), (1000, 100), (3, 4)])
def test_false_alarms_are_as_rare_as_the_p_value_says(samples: int, held_out: int, ties: bool) -> None:
    """Also where many are equally near, as in data with duplicates."""
    rng = torch.Generator().manual_seed(9)
    repetitions = 1000
    found = torch.zeros(repetitions)
    for repetition in range(repetitions):
        ratios = torch.rand(samples + held_out, generator=rng)
        if ties:
            ratios = (ratios * 20).floor() / 20
        found[repetition] = copying(with_ratios(ratios[:samples]), with_ratios(ratios[samples:])).p_value
    for level in (0.01, 0.05, 0.2):
        allowed = level * repetitions + 3 * math.sqrt(level * (1 - level) * repetitions)
        assert (found <= level).sum() <= allowed


def test_likeliest_copies_come_first() -> None:
    samples = Closest(
        torch.tensor([[3.0, 4], [1, 5], [0, 2], [4, 4]]), torch.tensor([[7, 1], [2, 3], [9, 8], [5, 6]])
    )
    found = likeliest_copies(samples, 3)
    assert found.samples.tolist() == [2, 1, 0]
    assert found.training.tolist() == [[9, 8], [2, 3], [7, 1]]
    assert found.distances.tolist() == [[0, 2], [1, 5], [3, 4]]
    assert found.ratios.tolist() == pytest.approx([0, 0.2, 0.75])
    assert len(likeliest_copies(samples, 99).samples) == 4
