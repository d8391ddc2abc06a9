"""Sprites: the same at every call, no two alike, and their factors can be read off the pictures."""

from __future__ import annotations

import colorsys
import dataclasses
import functools
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.runs import plain_config
from PIL import Image
from torch import Tensor

from genlab import registry
from genlab.commands import evaluate, train
from genlab.config.datasets import DigitsConfig, RingConfig, ShapesConfig
from genlab.config.schema import from_plain
from genlab.data import shapes
from genlab.data.dataset import Dataset, training_rows
from genlab.data.digits import Digits
from genlab.data.points import Ring
from genlab.data.shapes import SHAPES, Shapes, Sprites, choose, draw_stamps, factors_of
from genlab.data.spec import DataSpec
from genlab.errors import ConfigError
from genlab.trained.model import load_model

FEW = {"test": 30, "validation": 20}
stamps_of = functools.cache(draw_stamps)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "_HELD_OUT", FEW)


def load(**settings: object) -> Dataset:
    return Shapes.load(ShapesConfig(**settings))  # type: ignore[arg-type]


def whole(dataset: Dataset, split: str) -> tuple[Tensor, Tensor, Tensor]:
    ((_, batch),) = dataset.evaluation_batches(split, 10**6, 0)
    assert batch.labels is not None
    assert batch.factors is not None
    return batch.images, batch.labels, batch.factors


def drawn(pixels: int = 64, **varied: Tensor) -> Tensor:
    """White sprites (N, pixels, pixels), levels 0 to 255; factors not given have their middle value."""
    factors = factors_of(1)
    middle = {name: torch.tensor(0 if name == "shape" else n // 2) for name, n in factors.items()}
    rows = torch.stack(torch.broadcast_tensors(*(middle | varied).values()), -1).view(-1, len(factors))
    sprites = Sprites(stamps_of(pixels), ShapesConfig(size=pixels, channels=1), rows)  # type: ignore[arg-type]
    return sprites[torch.arange(len(rows))][:, 0].double()


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_image_i_depends_on_i_alone(few: None, size: int, channels: int) -> None:
    fewer, more = (load(size=size, channels=channels, images=n) for n in (40, 90))
    torch.manual_seed(5)
    again = load(size=size, channels=channels, images=90)
    for split in ("train", "validation", "test"):
        first, second, third = (whole(dataset, split) for dataset in (fewer, more, again))
        assert len(first[0]) == (40 if split == "train" else FEW[split])
        for a, b, c in zip(first, second, third, strict=True):
            assert torch.equal(a, b[: len(a)])
            assert torch.equal(b, c)


@pytest.mark.parametrize("channels", [1, 3])
def test_no_combination_comes_twice_and_all_can_be_had(channels: int) -> None:
    factors = factors_of(channels)
    most = np.prod(list(factors.values())) - 15_000
    assert {split: len(part) for split, part in choose(factors, 70_000).items()} == {
        "train": 70_000, "validation": 5_000, "test": 10_000,
    }  # fmt: skip
    every = torch.cat(list(choose(factors, int(most)).values()))
    assert len(every.unique(dim=0)) == len(every) == most + 15_000
    for column, count in zip(every.T, factors.values(), strict=True):
        assert column.unique().tolist() == list(range(count))


def test_no_two_pictures_are_alike() -> None:
    images, _, factors = whole(load(images=5000), "train")
    assert len({image.numpy().tobytes() for image in images}) == 5000
    uses = [column.bincount().float() for column in factors.T]
    for use in uses:  # each value as often as the others: within five standard deviations of its binomial
        share = 1 / len(use)
        assert ((use - 5000 * share).abs() < 5 * (5000 * share * (1 - share)) ** 0.5).all()


def test_labels_are_shapes_and_factors_have_names(few: None) -> None:
    dataset = load(images=50)
    _, labels, factors = whole(dataset, "train")
    assert list(dataset.spec.factors) == ["shape", "colour", "size", "rotation", "horizontal", "vertical"]
    assert torch.equal(labels, factors[:, 0])
    assert dataset.spec.classes == dataset.spec.factors["shape"] == len(SHAPES) == 4
    assert (factors < torch.tensor(list(dataset.spec.factors.values()))).all()
    assert "colour" not in load(images=50, channels=1).spec.factors


@pytest.mark.parametrize(("size", "step"), [(32, 1), (64, 2)])
def test_a_place_is_a_shift_by_whole_pixels(size: int, step: int) -> None:
    places = torch.arange(16)
    for shape in range(4):
        kept = {"shape": torch.tensor(shape), "rotation": torch.tensor(5), "size": torch.tensor(5)}
        (origin,) = drawn(size, horizontal=places[:1], vertical=places[:1], **kept)
        for axis, name in ((1, "horizontal"), (0, "vertical")):
            other = {"horizontal", "vertical"} - {name}
            row = drawn(size, **{name: places}, **dict.fromkeys(other, places[:1]), **kept)
            for k, image in enumerate(row):
                assert torch.equal(image, origin.roll(step * k, axis))
        (last,) = drawn(size, horizontal=places[-1:], vertical=places[-1:], **kept)
        assert last.sum() == origin.sum()  # nothing is cut off


@pytest.mark.parametrize("size", [32, 64])
def test_the_centre_of_mass_is_the_place(size: int) -> None:
    images, _, factors = whole(load(size=size, channels=1, images=2000), "train")
    mass, pixels = images[:, 0].double(), torch.arange(size, dtype=torch.float64) + 0.5
    for axis, column in ((1, -2), (2, -1)):  # summed over rows it is the horizontal place
        profile = mass.sum(axis)
        centre = (profile * pixels).sum(1) / profile.sum(1)
        expected = size * 17 / 64 + factors[:, column] * (size / 32)
        assert (centre - expected).abs().max() < 0.05 * size / 32  # of a pixel of 32x32


@pytest.mark.parametrize("size", [32, 64])
def test_the_area_is_the_size_whatever_the_rest(size: int) -> None:
    images, _, factors = whole(load(size=size, channels=1, images=3000), "train")
    area = images.double().sum((1, 2, 3))
    width = (0.5 + 0.1 * factors[:, 1]) * size
    share = area / width.square()
    assert share.max() / share.min() < 1.03  # one size is 1.23 times the next in area, or more


def test_the_colour_is_the_hue() -> None:
    images, _, factors = whole(load(images=500), "train")
    for image, colour in zip(images, factors[:, 1], strict=True):
        red, green, blue = image.sum((1, 2)).tolist()
        hue, saturation, _ = colorsys.rgb_to_hsv(red, green, blue)
        assert hue * 8 % 8 == pytest.approx(colour.item(), abs=0.05)
        assert saturation > 0.99


@pytest.mark.parametrize("shape", range(4))
def test_every_rotation_looks_different_and_turns_clockwise(shape: int) -> None:
    turns = drawn(shape=torch.tensor(shape), size=torch.tensor(5), rotation=torch.arange(24))
    for k in range(18):  # a quarter of a turn, about the middle of the sprite
        centre = slice(16, 50)
        assert torch.equal(turns[k + 6, centre, centre], turns[k, centre, centre].rot90(-1))
    upright = Image.fromarray(turns[0].byte().numpy())
    for k in range(24):
        turned = upright.rotate(-15 * k, Image.Resampling.BICUBIC, center=(33, 33))  # Pillow: anticlockwise
        distances = (turns - torch.from_numpy(np.array(turned)).double()).square().sum((1, 2))
        assert distances.argmin() == k
        assert distances.sort().values[1] > 2 * distances[k]


def test_a_picture_is_the_same_at_both_sizes() -> None:
    factors = choose(factors_of(1), 300)["train"]
    names = factors_of(1)
    small, large = (drawn(size, **dict(zip(names, factors.T, strict=True))) for size in (32, 64))
    halved = large.view(-1, 32, 2, 32, 2).mean((2, 4))
    assert (halved - small).abs().max() <= 1  # each is rounded once


def test_edges_are_the_share_of_a_pixel_that_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    stamps = draw_stamps(32).double()
    monkeypatch.setattr(shapes, "_SAMPLES", 1024)
    monkeypatch.setattr(shapes, "_ROTATIONS", 4)
    difference = (draw_stamps(32)[:, :, 0].double() - stamps[:, :, 0]).abs() / 255
    # two edges through a pixel, each half of the distance between 16 points; and two roundings to levels
    assert difference.max() < 1 / 16 + 1 / 255
    assert difference.mean() < 0.001
    assert 0.1 < ((stamps > 0) & (stamps < 255)).sum() / (stamps > 0).sum() < 0.9  # there are edges


@pytest.mark.parametrize("settings", [{}, {"channels": 1, "binarize": "threshold"}, {"dequantize": True}])
def test_a_stream_gives_what_memory_gives(few: None, settings: dict) -> None:
    resident, streamed = (load(images=50, memory_limit_gib=limit, **settings) for limit in (4, 0))
    assert resident.spec == streamed.spec
    pairs = [
        *zip(islice(resident.batches(1, 16), 7), islice(streamed.batches(1, 16), 7), strict=True),
        *(
            (a[1], b[1])
            for a, b in zip(
                resident.evaluation_batches("test", 7, 1, 20),
                streamed.evaluation_batches("test", 7, 1, 20),
                strict=True,
            )
        ),
    ]
    for a, b in pairs:
        for one, other in zip(a, b, strict=True):
            assert torch.equal(one, other)  # type: ignore[arg-type]


def test_factors_stay_with_their_images(few: None) -> None:
    dataset = load(images=50)
    images, _, factors = whole(dataset, "train")
    for batch in [*islice(dataset.batches(0, 16), 5), dataset.examples("train", 20, 0)[1]]:
        for image, of_image in zip(batch.images, batch.factors, strict=True):  # type: ignore[arg-type]
            (k,) = (factors == of_image).all(1).nonzero()[:, 0].tolist()
            assert torch.equal(image, images[k])
    parts = [next(dataset.batches(0, 16, rank=r, world=2)).factors for r in range(2)]
    assert torch.equal(
        torch.stack(parts, 1).flatten(0, 1),  # type: ignore[arg-type]
        next(dataset.batches(0, 16)).factors,  # type: ignore[arg-type]
    )


def test_fewer_training_images_are_the_chosen_ones(few: None) -> None:
    config = ShapesConfig(images=50, training_images=12)
    _, _, factors = whole(Shapes.load(config), "train")
    assert torch.equal(factors, whole(load(images=50), "train")[2][training_rows(config, 50)])


def test_other_data_have_no_factors() -> None:
    for dataset in (Digits.load(DigitsConfig()), Ring.load(RingConfig(points=100))):
        assert next(dataset.batches(0, 4)).factors is None
        assert dataset.examples("test", 4, 0)[1].factors is None
        assert "factors" not in dataset.spec.to_plain()  # as checkpoints written before have it


def test_a_spec_survives_a_checkpoint(few: None) -> None:
    spec = load(images=10).spec
    assert from_plain(DataSpec, spec.to_plain(), "spec") == spec
    assert spec != dataclasses.replace(spec, factors={})


def test_a_model_of_shapes_is_trained_and_evaluated(few: None, own_folder: Path, toy: type) -> None:
    plain = plain_config(steps=2)
    plain["dataset"] = {"name": "shapes", "images": 60}
    train.start(plain, [], "run")
    evaluate.main({"ckpt": "run", "split": "test", "run_dir": "numbers"})
    model = load_model("run", "auto", torch.device("cpu"))
    assert model.spec == registry.dataset(model.config.dataset).spec
    assert model.spec.factors == factors_of(3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flip": True}, r"^dataset\.flip=true: .*; use dataset\.flip=false$"),
        (
            {"images": 132_457, "channels": 1},
            r"^dataset\.images=132457: there are only 132456 different images; use fewer$",
        ),
        ({"size": 48}, r"^dataset\.size=48: not one of 32, 64"),
    ],
)
def test_mistakes(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Shapes.load(from_plain(ShapesConfig, {"name": "shapes"} | settings, "dataset"))
    with pytest.raises(ConfigError, match=r"add dataset\.channels=1"):
        load(binarize="threshold")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_factors_are_on_the_device(few: None) -> None:
    dataset = load(images=50)
    for limit in (4, 0):
        moved = load(images=50, memory_limit_gib=limit).to("cuda")
        a, b = next(dataset.batches(0, 16)), next(moved.batches(0, 16))
        assert b.factors is not None
        assert b.factors.is_cuda
        assert torch.equal(a.factors, b.factors.cpu())  # type: ignore[arg-type]
