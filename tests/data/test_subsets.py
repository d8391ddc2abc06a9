"""Some images of a split: of all kinds, the same for all, and each as it is in the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.checkout import TEST_DATA
from helpers.runs import plain_config
from PIL import Image

from genlab import registry
from genlab.commands import train
from genlab.config.datasets import BinarizedMNISTConfig, DigitsConfig, MNISTConfig
from genlab.data.binarized_mnist import BinarizedMNIST
from genlab.data.dataset import Dataset, from_arrays
from genlab.data.subsets import shuffled, subset
from genlab.data.torchvision_sets import MNIST
from genlab.trained.model import load_model
from genlab.trained.numbers import numbers_of_images, values_of_split

CPU = torch.device("cpu")
CLASSES, EACH = 10, 50


def sorted_by_class(**settings: object) -> Dataset:
    """10 classes of 50 images in each split, one class after the other."""
    labels = torch.arange(CLASSES).repeat_interleave(EACH)
    images = torch.randint(0, 256, (len(labels), 1, 4, 4), generator=torch.Generator().manual_seed(1))
    split = images.to(torch.uint8), labels
    return from_arrays(DigitsConfig(**settings), split, split, validation=split, classes=CLASSES)  # type: ignore[arg-type]


def test_a_smaller_subset_begins_a_larger_one() -> None:
    assert torch.equal(subset(1000, 100), subset(1000, 400)[:100])
    assert torch.equal(subset(1000, 999), shuffled(1000)[:999])
    assert shuffled(1000).sort().values.tolist() == list(range(1000))


@pytest.mark.parametrize("limit", [None, 1000, 1001])
def test_a_whole_split_stays_in_order(limit: int | None) -> None:
    assert subset(1000, limit).tolist() == list(range(1000))


def test_the_order_is_the_same_for_all() -> None:
    assert shuffled(10).tolist() == [1, 3, 2, 0, 6, 4, 8, 7, 9, 5]


def test_a_subset_of_a_sorted_split_has_all_classes() -> None:
    dataset = sorted_by_class()
    labels = [batch.labels for _, batch in dataset.evaluation_batches("test", 30, 0, limit=100)]
    counts = torch.cat(labels).bincount(minlength=CLASSES)  # type: ignore[arg-type]
    assert counts.min() >= 4  # of 10 on average; the standard deviation is 2.7
    _, batch = dataset.examples("test", 40, 0)
    assert len(batch.labels.unique()) == CLASSES  # type: ignore[union-attr]


@pytest.mark.parametrize("settings", [{}, {"binarize": "dynamic"}, {"dequantize": True}])
@pytest.mark.parametrize("memory_limit_gib", [4, 0])
def test_an_image_is_the_same_in_a_subset_as_in_the_whole(settings: dict, memory_limit_gib: float) -> None:
    dataset = sorted_by_class(memory_limit_gib=memory_limit_gib, **settings)
    whole = torch.cat([batch.images for _, batch in dataset.evaluation_batches("test", 70, 3)])
    seen = []
    for indices, batch in dataset.evaluation_batches("test", 7, 3, limit=20):
        assert torch.equal(batch.images, whole[indices])
        assert torch.equal(batch.labels, torch.tensor(indices) // EACH)  # type: ignore[arg-type]
        seen += indices
    assert seen == dataset.rows("test", 20).tolist() == shuffled(CLASSES * EACH)[:20].tolist()
    indices, batch = dataset.examples("test", 20, 3)
    assert indices == seen
    assert torch.equal(batch.images, whole[indices])


def test_examples_of_a_small_split_are_all_of_it() -> None:
    indices, batch = sorted_by_class().examples("test", 1000, 0)
    assert indices == shuffled(CLASSES * EACH).tolist()
    assert len(batch.images) == CLASSES * EACH


@pytest.mark.usefixtures("toy")
def test_numbers_of_an_image_do_not_depend_on_the_subset(own_folder: Path) -> None:
    train.start(plain_config(), [], "run")
    model = load_model("run", "auto", CPU)
    dataset = registry.dataset(model.config.dataset)

    def errors(limit: int | None) -> torch.Tensor:
        values, labels = values_of_split(
            model.family, dataset, "test", batch_size=64, seed=5, torch_device=CPU, limit=limit, quiet=True
        )
        assert labels is not None
        return numbers_of_images(values)["squared_error"]

    torch.testing.assert_close(errors(90), errors(None)[dataset.rows("test", 90)])


@pytest.mark.usefixtures("toy")
def test_the_sheet_of_real_images_begins_with_the_first_of_the_order(own_folder: Path) -> None:
    train.start(plain_config(sample_images=4), [], "run")
    dataset = registry.dataset(load_model("run", "auto", CPU).config.dataset)
    whole = next(dataset.evaluation_batches("train", dataset.size("train"), 0))[1].images
    sheet = np.asarray(Image.open("run/samples/real.png"))
    first = sheet[2 : 2 + 48 : 6, 2 : 2 + 48 : 6]
    expected = whole[shuffled(dataset.size("train"))[0], 0]
    assert (first == (expected * 255).round().numpy()).all()


def test_digits_of_a_subset_of_binarized_mnist() -> None:
    """The published test split is sorted by class; a digit's class is here that of its nearest neighbour."""
    if not (TEST_DATA / "binarized_mnist.npz").is_file():
        pytest.skip("needs the files of binarized_mnist and MNIST; set GENLAB_TEST_DATA")
    known = MNIST.load(MNISTConfig(root=str(TEST_DATA), binarize="threshold"))
    _, reference = known.examples("train", 5000, 0)
    of_reference = reference.images.flatten(1)

    def counts_of(images: torch.Tensor) -> torch.Tensor:
        nearest = torch.cdist(images.flatten(1), of_reference).argmin(1)
        assert reference.labels is not None
        return reference.labels[nearest].bincount(minlength=10)

    dataset = BinarizedMNIST.load(BinarizedMNISTConfig(root=str(TEST_DATA)))
    indices, some = next(dataset.evaluation_batches("test", 1000, 0, 1000))
    assert counts_of(some.images).min() > 70
    assert counts_of(some.images).max() < 135
    fewer, _ = next(dataset.evaluation_batches("test", 1000, 0, 100))
    assert fewer == indices[:100]
    _, in_order = next(dataset.evaluation_batches("test", 1000, 0))
    assert counts_of(in_order.images).max() > 900  # what the first thousand would be
