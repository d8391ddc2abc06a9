"""Stacked MNIST: which digits make up an image, its class, its splits, its order."""

from __future__ import annotations

import gc
import struct
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.checkout import TEST_DATA
from torch import Tensor

from genlab import registry
from genlab.config.schema import from_plain
from genlab.data import stacked_mnist
from genlab.data.dataset import Dataset
from genlab.data.modes import modes
from genlab.data.torchvision_sets import MNIST
from genlab.errors import ConfigError, DataError

SPLITS = ("train", "validation", "test")
needs_mnist = pytest.mark.skipif(not (TEST_DATA / "MNIST").is_dir(), reason="no MNIST files")


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Tensor, Tensor]]:
    """Forty training and ten test digits, written as MNIST's unpacked files, and what is in them.

    The first two pixels of each are its number among all fifty, the others are noise.
    """
    monkeypatch.setattr(MNIST, "images", {"train": 40, "t10k": 10})
    monkeypatch.setattr(MNIST, "contents", {})  # any content will do
    monkeypatch.setattr(stacked_mnist, "_HELD_OUT_IMAGES", 60)
    monkeypatch.setenv("GENLAB_DATA", str(tmp_path))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (50, 28, 28), dtype=np.uint8)
    pixels[:, 0, :2] = np.arange(50)[:, None]
    classes = rng.integers(0, 10, 50, dtype=np.uint8)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, rows in (("train", slice(40)), ("t10k", slice(40, 50))):
        for name, array in (("images-idx3", pixels[rows]), ("labels-idx1", classes[rows])):
            header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (raw / f"{part}-{name}-ubyte").write_bytes(header + array.tobytes())
    images, labels = torch.from_numpy(pixels), torch.from_numpy(classes).long()
    rows = {"train": slice(32), "validation": slice(32, 40), "test": slice(40, 50)}
    return {split: (images[rows[split]], labels[rows[split]]) for split in SPLITS}


def load(**settings: Any) -> Dataset:
    plain = {"name": "stacked_mnist", "images": 200, "validation_images": 8, **settings}
    return registry.dataset(from_plain(stacked_mnist.StackedMNISTConfig, plain, "dataset"))


def whole(dataset: Dataset, split: str) -> tuple[Tensor, Tensor]:
    ((_, (images, labels, _)),) = dataset.evaluation_batches(split, dataset.size(split), 0)
    assert labels is not None
    return images, labels


@pytest.mark.parametrize("memory", [4.0, 0.0])  # held on the device, streamed
@pytest.mark.parametrize("split", SPLITS)
def test_each_channel_is_a_digit_of_the_split_and_the_label_says_which(
    digits: dict[str, tuple[Tensor, Tensor]], split: str, memory: float
) -> None:
    pixels, classes = digits[split]
    images, labels = whole(load(memory_limit_gib=memory), split)
    assert len(images) == {"train": 200, "validation": 60, "test": 60}[split]
    numbers = (images[:, :, 0, 0] * 255).round().long() - {"train": 0, "validation": 32, "test": 40}[split]
    assert numbers.unique().tolist() == list(range(len(pixels)))  # all its digits, and no other's
    assert torch.equal((images * 255).round().to(torch.uint8), pixels[numbers])
    red, green, blue = classes[numbers].T
    assert labels.dtype == torch.int64
    assert labels.tolist() == [int(f"{a}{b}{c}") for a, b, c in zip(red, green, blue, strict=True)]


@pytest.mark.usefixtures("digits")
def test_the_spec() -> None:
    spec = load().spec
    assert (spec.name, spec.shape, spec.levels, spec.classes) == ("stacked_mnist", (3, 28, 28), 256, 1000)
    assert spec.binarization == "none"


def test_the_same_images_at_every_run() -> None:
    # Written down: another version of torch or of this module must not make another data set.
    assert stacked_mnist.choose("train", 3, 50000).tolist() == [
        [30851, 31516, 1725], [39942, 37462, 18291], [24532, 32592, 32473],
    ]  # fmt: skip
    assert torch.equal(stacked_mnist.choose("test", 100, 10), stacked_mnist.choose("test", 100, 10))
    assert not torch.equal(stacked_mnist.choose("test", 100, 10), stacked_mnist.choose("train", 100, 10))


def test_the_choice_neither_reads_nor_disturbs_the_run_s_random_numbers() -> None:
    torch.manual_seed(1)
    first, state = stacked_mnist.choose("train", 100, 10), torch.random.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(stacked_mnist.choose("train", 100, 10), first)
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_digits_are_uniform_and_the_channels_independent() -> None:
    table = stacked_mnist.choose("train", 128000, 10)
    assert table.shape == (128000, 3)
    counts = modes(table).bincount(minlength=1000).double()
    assert counts.min() > 0
    chi_squared = ((counts - 128) ** 2 / 128).sum().item()
    assert abs(chi_squared - 999) < 5 * (2 * 999) ** 0.5  # mean and deviation of chi squared, 999 degrees


@pytest.mark.usefixtures("digits")
def test_batch_i_depends_on_seed_and_i_alone() -> None:
    dataset = load()
    batches = list(islice(dataset.batches(3, 16), 14))
    for a, b in zip(batches[9:], dataset.batches(3, 16, start=9), strict=False):
        assert torch.equal(a.images, b.images)
        assert a.labels is not None
        assert b.labels is not None
        assert torch.equal(a.labels, b.labels)
    assert not torch.equal(batches[0].images, next(dataset.batches(4, 16)).images)
    halves = [next(dataset.batches(3, 16, rank=rank, world=2)).images for rank in range(2)]
    assert torch.equal(torch.stack(halves, 1).flatten(0, 1), batches[0].images)
    images = torch.cat([batch.images for batch in islice(dataset.batches(3, 40), 5)]).flatten(1)
    epoch, order = images.sum(1).sort().values, whole(dataset, "train")[0].flatten(1).sum(1).sort().values
    torch.testing.assert_close(epoch, order)  # every image once in an epoch


@pytest.mark.usefixtures("digits")
def test_resized_and_binarised() -> None:
    dataset = load(size=14, channels=3, binarize="threshold")
    assert dataset.spec.shape == (3, 14, 14)
    assert (dataset.spec.levels, dataset.spec.binarization) == (2, "threshold")
    batch = next(dataset.batches(0, 8))
    assert batch.images.shape == (8, 3, 14, 14)
    assert batch.images.unique().tolist() == [0, 1]


@pytest.mark.usefixtures("digits")
def test_no_image_is_stored() -> None:
    gc.collect()
    others = {id(x) for x in gc.get_objects()}  # of tests before this one
    dataset = load(images=100_000)
    next(dataset.batches(0, 8))
    own = [x for x in gc.get_objects() if type(x) is Tensor and id(x) not in others]
    largest = max(x.untyped_storage().nbytes() for x in own)
    assert largest == 100_000 * 3 * 8  # the table; the images would take 98 times as much


def test_training_images_of_fewer_digits(digits: dict[str, tuple[Tensor, Tensor]]) -> None:
    dataset = load(training_images=5)
    images, _ = whole(dataset, "train")
    numbers = (images[:, :, 0, 0] * 255).round().long().unique()
    assert len(images) == 200
    assert len(numbers) == 5
    assert numbers.max() < 32  # none of those held out
    assert torch.equal(whole(dataset, "validation")[0], whole(load(), "validation")[0])


@pytest.mark.usefixtures("digits")
def test_nothing_held_out() -> None:
    dataset = load(validation_images=0)
    assert [dataset.size(split) for split in SPLITS] == [200, 0, 60]
    assert list(dataset.evaluation_batches("validation", 10, 0)) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 1}, "dataset.channels=1: stacked_mnist has a digit in each of three channels"),
        ({"validation_images": 40}, "dataset.validation_images=40: there are 40 training images"),
        ({"images": 0}, "dataset.images=0: must be at least 1"),
    ],
)
@pytest.mark.usefixtures("digits")
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(**settings)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_missing_files_name_the_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^dataset=stacked_mnist: .* is missing and dataset.download=false"):
        load(root=str(tmp_path / "nowhere"), download=False)


@needs_mnist
def test_the_published_digits() -> None:
    dataset = load(root=str(TEST_DATA), images=128000, validation_images=10000)
    assert [dataset.size(split) for split in SPLITS] == [128000, 26000, 26000]
    _, batch = next(dataset.evaluation_batches("test", 26000, 0))
    assert batch.labels is not None
    assert batch.labels.unique().numel() == 1000
    assert batch.images.mean((0, 2, 3)).tolist() == pytest.approx([0.1325] * 3, abs=2e-3)  # MNIST's mean
