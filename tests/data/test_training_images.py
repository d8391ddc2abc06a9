"""`dataset.training_images`: a part of the training images, the same at every run."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import genlab
from PIL import Image
from torch import Tensor

from genlab import registry
from genlab.config.schema import from_plain
from genlab.data.dataset import Dataset
from genlab.errors import ConfigError

SPLITS = ("train", "validation", "test")


def load(name: str = "digits", **settings: Any) -> Dataset:
    source = registry.look_up(registry.DATASETS, name, "dataset")
    return registry.dataset(from_plain(source.Config, {"name": name, **settings}, "dataset"))


def split_of(dataset: Dataset, split: str) -> tuple[Tensor, Tensor]:
    """All its images and labels."""
    batches = [batch for _, batch in dataset.evaluation_batches(split, 500, 0)]
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return torch.cat([batch.images for batch in batches]), torch.cat(labels)


def places(some: Tensor, among: Tensor) -> list[int]:
    """Where each image of `some` stands among others."""
    return [int((among == image).flatten(1).all(1).nonzero()[0, 0]) for image in some]


def test_so_many_training_images_are_left_and_every_other_split_is_whole() -> None:
    part, whole = load(training_images=100), load()
    assert part.size("train") == 100
    assert part.spec == whole.spec
    for split in ("validation", "test"):
        for a, b in zip(split_of(part, split), split_of(whole, split), strict=True):
            assert torch.equal(a, b)


def test_the_images_keep_their_order_and_their_labels_and_come_from_everywhere() -> None:
    images, labels = split_of(load(training_images=100), "train")
    all_images, all_labels = split_of(load(), "train")
    rows = places(images, all_images)
    assert rows == sorted(set(rows))
    assert torch.equal(all_labels[rows], labels)
    # the mean of 100 of 0..1196 without replacement; four standard errors
    assert abs(np.mean(rows) - 598) < 4 * 1197 / 12**0.5 / 10
    assert set(labels.tolist()) == set(range(10))


def test_they_are_the_same_whatever_the_seed_and_leave_its_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    first = split_of(load(training_images=50), "train")[0]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    dataset = load(training_images=50)
    assert torch.equal(split_of(dataset, "train")[0], first)
    for seed in (0, 1):  # an epoch of either run is these fifty
        batches = islice(dataset.batches(seed, 10), 5)
        rows = [place for batch in batches for place in places(batch.images, first)]
        assert sorted(rows) == list(range(50))


def test_fewer_are_among_more() -> None:
    few, more = (split_of(load(training_images=n), "train")[0] for n in (20, 60))
    assert len(set(places(few, more))) == 20


def test_as_many_as_there_are_is_all_of_them() -> None:
    assert torch.equal(split_of(load(training_images=1197), "train")[0], split_of(load(), "train")[0])


def test_a_stream_of_arrays_has_the_same_part() -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 6, 5), dtype=np.uint8)
    np.savez("a.npz", images=images, labels=np.arange(60))
    resident, streamed = (
        load("npz", path="a.npz", training_images=15, memory_limit_gib=limit) for limit in (4, 0)
    )
    for split in SPLITS:
        for a, b in zip(split_of(resident, split), split_of(streamed, split), strict=True):
            assert torch.equal(a, b)
    assert resident.size("train") == 15
    assert resident.size("test") == 6


def test_a_folder_of_pictures_in_memory_and_streamed() -> None:
    for k in range(60):
        path = Path("pictures", "ab"[k % 2], f"{k}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 4 * k).save(path)
    settings = {"path": "pictures", "size": 4, "channels": 1, "workers": 0}
    whole = load("folder", **settings)
    resident, streamed = (
        load("folder", **settings, training_images=12, memory_limit_gib=limit) for limit in (4, 0)
    )
    for split in SPLITS:
        for a, b in zip(split_of(resident, split), split_of(streamed, split), strict=True):
            assert torch.equal(a, b)
    assert resident.size("train") == 12
    assert resident.size("validation") == whole.size("validation")
    rows = places(split_of(resident, "train")[0], split_of(whole, "train")[0])
    assert rows == sorted(set(rows))


@pytest.mark.parametrize("limit", [4, 0])
def test_more_than_there_are_is_refused_before_anything_is_written(
    limit: int, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("a.npz", images=np.full((40, 8, 8), 255, np.uint8))
    words = ["train", "model=ae", "dataset=npz", "dataset.path=a.npz", f"dataset.memory_limit_gib={limit}"]
    genlab(*words, "dataset.training_images=35", "trainer.device=cpu", "run_dir=run", code=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "genlab: dataset.training_images=35: there are 34; use fewer, or null for all"
    assert not Path("run").exists()


def test_none_at_all_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"dataset.training_images=0: must be at least 1"):
        load(training_images=0)
