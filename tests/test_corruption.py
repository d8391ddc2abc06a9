"""Noise on images: counted, compared with its distribution, and drawn by each image for itself."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from genlab.config.autoencoders import check_level
from genlab.data.corruption import DefaultDraws, corrupt, lowest
from genlab.errors import ConfigError
from genlab.rng import SampleRng

GREY = torch.full((50, 1, 10, 10), 0.25)


def spoiled(noise: Any, level: float, images: Tensor = GREY) -> Tensor:
    return corrupt(images, noise, level, SampleRng(0, range(len(images))))


def test_masking_sets_exactly_its_share_of_each_image_to_0() -> None:
    for level, count in ((0.0, 0), (0.1, 10), (0.254, 25), (1.0, 100)):
        found = spoiled("masking", level)
        assert ((found == 0).flatten(1).sum(1) == count).all()
        assert ((found == 0) | (found == 0.25)).all()


def test_salt_and_pepper_are_equally_likely() -> None:
    found = spoiled("salt_and_pepper", 0.4)
    salt, pepper = ((found == value).flatten(1).sum(1) for value in (1.0, 0.0))
    assert (salt + pepper == 40).all()
    assert abs(salt.sum() - 1000) < 4 * math.sqrt(2000 / 4)  # of 50 x 40 tosses
    assert ((found == 0.25).flatten(1).sum(1) == 60).all()


def test_every_pixel_is_equally_likely_to_be_set() -> None:
    images = torch.ones(2000, 1, 3, 3)
    share = (spoiled("masking", 1 / 3, images) == 0).float().mean(0)
    assert ((share - 1 / 3).abs() < 4.5 * math.sqrt(2 / 9 / 2000)).all()


def test_gaussian_noise_has_its_standard_deviation_and_no_bounds() -> None:
    noise = spoiled("gaussian", 0.3) - GREY
    n = noise.numel()
    assert abs(noise.mean()) < 4 * 0.3 / math.sqrt(n)
    assert abs(noise.std() - 0.3) < 4 * 0.3 / math.sqrt(2 * n)
    assert (noise + GREY).min() < 0
    assert torch.equal(spoiled("gaussian", 0.0), GREY)


@pytest.mark.parametrize("noise", ["gaussian", "masking", "salt_and_pepper"])
def test_the_noise_of_an_image_depends_on_its_number_alone(noise: Any) -> None:
    together = spoiled(noise, 0.4)
    alone = corrupt(GREY[:1], noise, 0.4, SampleRng(0, [7]))
    assert torch.equal(together[7:8], alone)
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("noise", ["gaussian", "masking", "salt_and_pepper"])
def test_training_draws_from_torch_s_default_generator(noise: Any) -> None:
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(corrupt(GREY, noise, 0.4, DefaultDraws(GREY)))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_the_lowest_of_each_row() -> None:
    values = torch.tensor([[0.3, 0.1, 0.2, 0.9], [0.5, 0.8, 0.7, 0.6]]).view(2, 1, 2, 2)
    assert lowest(values, 0.5).flatten(1).tolist() == [[False, True, True, False], [True, False, False, True]]


def test_a_share_is_at_most_1() -> None:
    check_level("gaussian", 2.0, "level")
    check_level("masking", 1.0, "level")
    with pytest.raises(ConfigError, match=r"^level=1.5: salt_and_pepper sets a share of the pixels"):
        check_level("salt_and_pepper", 1.5, "level")
