"""From levels to images: scale, exact probabilities, noise of one level, flips."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from genlab.config.datasets import DigitsConfig
from genlab.data.dataset import convert, from_arrays
from genlab.data.digits import Digits
from genlab.data.pixels import DeviceNoise, HostNoise, Noise, Pixels
from genlab.errors import ConfigError, DataError
from genlab.rng import SampleRng

EVERY_LEVEL = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)


@pytest.mark.parametrize("top", [255, 16])
def test_scale(top: int) -> None:
    levels = torch.arange(top + 1, dtype=torch.uint8).view(1, 1, 1, -1)
    images = Pixels(levels=top + 1).training_images(levels, 0)
    assert images.dtype == torch.float32
    assert torch.equal(images.flatten(), torch.arange(top + 1).float() / top)


def frequencies(noise: Noise, levels: int, shape: tuple[int, int]) -> Tensor:
    """How often a pixel of each level is 1, over shape[0] images of shape[1] rows, a column for a level."""
    image = torch.arange(levels, dtype=torch.uint8).repeat(shape[0], 1, shape[1], 1)
    return Pixels(levels, binarize="dynamic").images(image, noise).mean((0, 1, 2))


@pytest.mark.parametrize("levels", [256, 17, 5])
@pytest.mark.parametrize("kind", ["host", "device", "evaluation"])
def test_probability_of_one_is_level_over_white(kind: str, levels: int) -> None:
    noise: Noise = {
        "host": HostNoise(1, 20),
        "device": DeviceNoise(1, 20, torch.device("cpu")),
        "evaluation": SampleRng(1, range(20), purpose="evaluation-data"),
    }[kind]
    seen, wanted = frequencies(noise, levels, (20, 1000)), torch.arange(levels) / (levels - 1)
    deviation = (seen - wanted) / (wanted * (1 - wanted) / 20_000).sqrt().clamp(min=1e-9)
    assert seen[0] == 0
    assert seen[-1] == 1
    assert deviation.abs().max() < 4.5  # in standard deviations
    assert deviation[1:-1].square().mean() == pytest.approx(1, abs=5 * (2 / levels) ** 0.5)


@pytest.mark.parametrize("high", [2, 3, 16, 100, 129, 255, 256])
def test_bytes_are_exactly_uniform(high: int) -> None:
    noise = HostNoise(0, 1)
    # In place of random words every byte equally often: what is kept of them must be equally often too.
    noise._raw = lambda *_: np.tile(np.arange(256, dtype=np.uint8), 9)  # type: ignore[method-assign]
    redrawn: list[int] = []

    class Counting:
        def integers(self, high: int, size: int, dtype: type) -> np.ndarray:
            redrawn.append(size)
            return np.zeros(size, dtype)

    noise._generator = Counting()  # type: ignore[assignment]
    values = noise.integers(high, 9 * 256).flatten().bincount(minlength=high)
    kept = 256 // high * 9
    assert values[1:].tolist() == [kept] * (high - 1)
    assert values[0] == kept + sum(redrawn)
    assert sum(redrawn) == 256 % high * 9


def test_threshold() -> None:
    for share, first_white in [(0.5, 128), (0.0, 1), (0.2, 52), (0.999, 255)]:
        images = Pixels(binarize="threshold", threshold=share).images(EVERY_LEVEL, None).flatten()
        assert images.tolist() == [float(level >= first_white) for level in range(256)]


@pytest.mark.parametrize("kind", ["host", "device", "evaluation"])
@pytest.mark.parametrize("levels", [256, 17])
def test_dequantisation_stays_within_its_level(kind: str, levels: int) -> None:
    class Largest(HostNoise):
        def uniform(self, *shape: int) -> Tensor:
            return torch.full((self._batch, *shape), 1 - 2.0**-24)

    image = torch.arange(levels, dtype=torch.uint8).repeat(40, 1, 50, 1)
    noises: list[Noise] = [
        {
            "host": HostNoise(1, 40),
            "device": DeviceNoise(1, 40, torch.device("cpu")),
            "evaluation": SampleRng(1, range(40)),
        }[kind],
        Largest(0, 40),
    ]
    for noise in noises:
        images = Pixels(levels, dequantize=True).images(image, noise)
        scaled = images.double() * levels
        # Dividing by 17 rounds: within half a unit in the last place, 256 levels are exact.
        assert (scaled - image).min() >= -1e-5 * (levels != 256)
        assert (scaled - image).max() < 1 + 1e-5 * (levels != 256)
        assert images.max() <= 1
    u = (Pixels(levels, dequantize=True).images(image, noises[0]) * levels - image).flatten()
    assert u.mean() == pytest.approx(0.5, abs=0.01)
    assert u.std() == pytest.approx(12**-0.5, abs=0.01)


def test_half_of_the_images_are_flipped() -> None:
    levels = torch.arange(6, dtype=torch.uint8).view(1, 1, 1, 6).repeat(4000, 1, 1, 1)
    images = Pixels(flip=True).training_images(levels, 7)
    flipped = images[:, 0, 0, 0] > images[:, 0, 0, -1]
    assert flipped.float().mean() == pytest.approx(0.5, abs=0.04)
    assert torch.equal(images[flipped].flip(-1), images[~flipped][:1].expand(int(flipped.sum()), -1, -1, -1))
    assert torch.equal(Pixels(flip=True).images(levels, None), levels / 255)  # never in an evaluation


def test_spec_says_what_was_done() -> None:
    spec = Digits.load(DigitsConfig()).spec
    assert (spec.levels, spec.binarization, spec.dequantized, spec.shape) == (17, "none", False, (1, 8, 8))
    spec = Digits.load(DigitsConfig(binarize="dynamic", size=16, channels=1)).spec
    assert (spec.levels, spec.binarization, spec.shape) == (2, "dynamic", (1, 16, 16))
    assert Digits.load(DigitsConfig(dequantize=True)).spec.dequantized


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match=r"dequantize=true.*dataset.binarize=none"):
        DigitsConfig(binarize="dynamic", dequantize=True)
    with pytest.raises(
        ConfigError, match=r"binarize=threshold: digits has colour images; add dataset.channels=1"
    ):
        Digits.load(DigitsConfig(binarize="threshold", channels=3))
    with pytest.raises(ConfigError, match=r"dataset.validation_images=2000: there are 1297"):
        Digits.load(DigitsConfig(validation_images=2000))
    with pytest.raises((ConfigError, DataError), match=r"dataset.validation_images=1297"):
        Digits.load(DigitsConfig(validation_images=1297))


def test_grey_is_luma_and_white_stays_white() -> None:
    colours = torch.tensor([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]])
    grey = convert(colours.to(torch.uint8).view(5, 3, 1, 1), None, 1)
    assert grey.flatten().tolist() == [255, 0, 76, 150, 29]
    assert torch.equal(convert(grey, None, 3), grey.expand(-1, 3, -1, -1))


def test_resizing_is_of_each_image_by_itself() -> None:
    images = torch.randint(0, 256, (9, 3, 12, 10), dtype=torch.uint8)
    whole = convert(images, 7, 1)
    assert whole.shape == (9, 1, 7, 7)
    assert torch.equal(torch.cat([convert(image[None], 7, 1) for image in images]), whole)
    assert convert(images[:0], 7, 1).shape == (0, 1, 7, 7)
    flat = torch.full((1, 1, 8, 8), 200, dtype=torch.uint8)
    assert torch.equal(convert(flat, 28, None), torch.full((1, 1, 28, 28), 200, dtype=torch.uint8))


def test_digits() -> None:
    dataset = Digits.load(DigitsConfig(validation_images=97))
    assert [dataset.size(split) for split in ("train", "validation", "test")] == [1200, 97, 500]
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    _, batch = next(dataset.evaluation_batches("test", 1000, 0))
    assert np.allclose(batch.images.flatten(1).numpy() * 16, pixels[-500:])
    assert batch.labels is not None
    assert batch.labels.tolist() == classes[-500:].tolist()


def test_a_colour_set_in_memory_is_made_grey() -> None:
    images = torch.full((10, 3, 8, 8), 255, dtype=torch.uint8)
    dataset = from_arrays(DigitsConfig(channels=1, binarize="dynamic"), (images, None), (images, None))
    batch = next(dataset.batches(0, 4))
    assert torch.equal(batch.images, torch.ones(4, 1, 8, 8))
    assert batch.labels is None
