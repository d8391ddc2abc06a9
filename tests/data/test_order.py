"""Batch i is a function of the seed and i: the order, the noise, the processes, the stream."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
import torch
from torch import Tensor

from genlab.config.datasets import DigitsConfig
from genlab.data.dataset import Dataset, from_arrays
from genlab.data.stream import Order
from genlab.errors import ConfigError


def numbered(size: int = 50, **settings: object) -> Dataset:
    """Images whose first pixel is their number, labelled with it too; 8 for validation, 5 for test."""
    images = torch.randint(0, 256, (size, 1, 4, 6), generator=torch.Generator().manual_seed(1))
    images[:, 0, 0, 0] = torch.arange(size)
    images, labels = images.to(torch.uint8), torch.arange(size)
    config = DigitsConfig(**settings)  # type: ignore[arg-type]
    return from_arrays(config, (images, labels), (images[:5], labels[:5]), validation=8, classes=size)


def take(dataset: Dataset, count: int, batch_size: int = 16, seed: int = 3, **where: int) -> list[Tensor]:
    return [batch.images for batch in islice(dataset.batches(seed, batch_size, **where), count)]


AUGMENTED = [
    {}, {"flip": True}, {"binarize": "dynamic"}, {"binarize": "threshold"}, {"dequantize": True},
    {"flip": True, "binarize": "dynamic"},
]  # fmt: skip


@pytest.mark.parametrize("settings", AUGMENTED)
def test_batch_i_depends_on_seed_and_i_alone(settings: dict) -> None:
    dataset = numbered(**settings)
    batches = take(dataset, 9)
    for a, b in zip(batches[4:], take(dataset, 5, start=4), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(batches[0], take(dataset, 1, seed=4)[0])


def test_the_stream_counts() -> None:
    stream = numbered().batches(0, 16, start=7)
    assert stream.index == 7
    next(stream)
    assert stream.index == 8


@pytest.mark.parametrize("batch_size", [1, 7, 16, 42, 100])
def test_every_image_once_in_each_epoch(batch_size: int) -> None:
    order, size = Order(42, 0, batch_size), 42
    rows = torch.cat([order.rows(i) for i in range(3 * size // batch_size + 1)])[: 3 * size]
    epochs = rows.view(3, size) if len(rows) == 3 * size else rows[: 2 * size].view(2, size)
    for epoch in epochs:
        assert epoch.sort().values.tolist() == list(range(size))
    assert not torch.equal(epochs[0], epochs[1])


def test_labels_stay_with_their_images() -> None:
    for batch in islice(numbered().batches(0, 20), 8):
        assert batch.labels is not None
        assert torch.equal((batch.images[:, 0, 0, 0] * 255).round().long(), batch.labels)
    for _, batch in numbered().evaluation_batches("validation", 3, 0):
        assert batch.labels is not None
        assert torch.equal((batch.images[:, 0, 0, 0] * 255).round().long(), batch.labels)


def test_processes_share_a_batch() -> None:
    dataset = numbered()
    for i, whole in enumerate(take(dataset, 6)):
        parts = [take(dataset, 1, start=i, rank=r, world=4)[0] for r in range(4)]
        assert all(len(part) == 4 for part in parts)
        assert torch.equal(torch.stack(parts, 1).flatten(0, 1), whole)


def test_processes_draw_different_noise() -> None:
    white = torch.full((8, 1, 16, 16), 128, dtype=torch.uint8)
    dataset = from_arrays(DigitsConfig(binarize="dynamic"), (white, None), (white, None))
    a, b = (next(dataset.batches(0, 8, rank=r, world=2)).images for r in range(2))
    assert not torch.equal(a, b)


def test_a_batch_that_cannot_be_shared() -> None:
    with pytest.raises(ConfigError, match=r"^trainer.batch_size=10: .*use trainer.batch_size=12$"):
        numbered().batches(0, 10, rank=0, world=4)


@pytest.mark.parametrize("settings", AUGMENTED)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_evaluation_does_not_depend_on_the_batch_size(settings: dict, split: str) -> None:
    dataset = numbered(**settings)
    whole = torch.cat([batch.images for _, batch in dataset.evaluation_batches(split, 1000, 5)])
    parts = list(dataset.evaluation_batches(split, 3, 5))
    assert [k for indices, _ in parts for k in indices] == list(range(dataset.size(split)))
    assert torch.equal(torch.cat([batch.images for _, batch in parts]), whole)
    assert len(parts[-1][1].images) == dataset.size(split) % 3 or dataset.size(split) % 3 == 0


def test_limit_of_an_evaluation() -> None:
    sizes = [len(b.images) for _, b in numbered().evaluation_batches("train", 4, 0, limit=10)]
    assert sizes == [4, 4, 2]
    assert sum(len(b.images) for _, b in numbered().evaluation_batches("test", 4, 0, limit=10)) == 5


@pytest.mark.parametrize("settings", AUGMENTED)
def test_a_stream_gives_what_memory_gives(settings: dict) -> None:
    resident, streamed = numbered(**settings), numbered(memory_limit_gib=0, **settings)
    for where in ({}, {"start": 5}, {"rank": 1, "world": 2}):
        for a, b in zip(take(resident, 6, **where), take(streamed, 6, **where), strict=True):
            assert torch.equal(a, b)
    for split in ("train", "test"):
        pairs = zip(
            resident.evaluation_batches(split, 4, 1), streamed.evaluation_batches(split, 4, 1), strict=True
        )
        for (i, a), (j, b) in pairs:
            assert i == j
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.labels, b.labels)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"memory_limit_gib": 0}, {"flip": True, "binarize": "dynamic"}])
def test_data_leave_the_random_numbers_of_training_alone(settings: dict) -> None:
    before = torch.get_rng_state()
    take(numbered(**settings), 3)
    list(numbered(**settings).evaluation_batches("test", 2, 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_moving_keeps_the_batches() -> None:
    dataset = numbered()
    assert torch.equal(take(dataset, 1)[0], take(dataset.to("cpu"), 1)[0])
    assert Counter(map(dataset.to("cpu").size, ("train", "validation", "test"))) == Counter((42, 8, 5))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("settings", AUGMENTED)
def test_the_order_is_the_same_on_a_gpu(settings: dict) -> None:
    dataset = numbered(**settings)
    moved = dataset.to("cuda")
    for a, b in zip(islice(dataset.batches(0, 16), 5), islice(moved.batches(0, 16), 5), strict=True):
        assert b.images.is_cuda
        assert torch.equal(a.labels, b.labels.cpu())  # type: ignore[union-attr, arg-type]
    assert torch.equal(next(moved.batches(0, 16)).images, next(moved.batches(0, 16)).images)
