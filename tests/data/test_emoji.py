"""Emoji: the archive is the one that was built, its splits keep variants together, its colours are right."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genlab import registry
from genlab.config.datasets import EmojiConfig
from genlab.config.schema import from_plain
from genlab.data import build_emoji
from genlab.data.build_emoji import base_of
from genlab.data.dataset import Dataset
from genlab.data.emoji import ARCHIVE, CLASSES, SIZE, SPLITS, Archive, averaged
from genlab.errors import ConfigError

needs_font = pytest.mark.skipif(
    not (build_emoji.FONT.is_file() and build_emoji.NAMES.is_file()),
    reason="no packages fonts-noto-color-emoji and unicode-data",
)


def load(**settings: Any) -> Dataset:
    return registry.dataset(from_plain(EmojiConfig, {"name": "emoji", **settings}, "dataset"))


@pytest.fixture
def read_once(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Archive, "read", lambda path: archive)


def split(dataset: Dataset, name: str) -> torch.Tensor:
    ((_, batch),) = dataset.evaluation_batches(name, dataset.size(name), 0)
    return batch.images


@pytest.fixture(scope="module")
def archive() -> Archive:
    return Archive.read(ARCHIVE)


def points(sequence: str) -> tuple[int, ...]:
    return tuple(int(point, 16) for point in sequence.split())


def test_the_archive_is_the_one_that_was_built(archive: Archive) -> None:
    assert ARCHIVE.stat().st_size < 5e6
    assert "SIL OPEN FONT LICENSE Version 1.1" in (ARCHIVE.parent / "emoji-LICENSE.txt").read_text()
    assert hashlib.md5(ARCHIVE.read_bytes()).hexdigest() == "fb57760007c822dac7056b8b2685cc0d"
    # Of what is decoded: the same with any version of Pillow.
    assert hashlib.md5(archive.images.tobytes()).hexdigest() == "45870017e3f0277d4204e447ddccbd6a"
    assert archive.images.shape == (3867, SIZE, SIZE, 4)
    assert np.bincount(archive.labels).tolist() == [168, 2265, 154, 134, 218, 85, 262, 223, 358]
    assert np.bincount(archive.splits).tolist() == [3230, 324, 313]
    assert archive.toned.sum() == 1885
    assert len(set(archive.sequences)) == len(archive.names) == 3867


@pytest.mark.parametrize(
    ("sequence", "base"),
    [
        ("1F600", "1F600"),  # a face
        ("1F44B 1F3FD", "1F44B"),  # a hand in a skin tone
        ("1F468 1F3FF 200D 1F692", "1F9D1 1F692"), ("1F469 200D 1F692", "1F9D1 1F692"),  # firefighters
        ("1F6B6 1F3FB 200D 2640 200D 27A1", "1F6B6"),  # a woman who walks to the right
        ("1F469 1F3FB 200D 1F9B3", "1F9D1"), ("1F468", "1F9D1"),  # a woman with white hair, a man
        ("1F469 1F3FB 200D 1F91D 200D 1F468 1F3FC", "1F46D"), ("1F46B 1F3FD", "1F46D"),  # holding hands
        ("1F469 200D 2764 200D 1F48B 200D 1F468", "1F48F"), ("1F48F 1F3FC", "1F48F"),  # kissing
        ("1F468 200D 1F469 200D 1F467 200D 1F466", "1F46A"), ("1F9D1 200D 1F9D2", "1F46A"),  # families
        ("1F385 1F3FB", "1F385"), ("1F9D1 200D 1F384", "1F385"),  # Santa Claus
        ("2640", "2640"), ("27A1", "27A1"),  # the signs themselves
        ("1F1E9 1F1EA", "1F1E9 1F1EA"), ("1F3F4 200D 2620", "1F3F4 2620"),  # flags
    ],
)  # fmt: skip
def test_the_base_of_a_variant(sequence: str, base: str) -> None:
    assert base_of(points(sequence)) == points(base)


def test_variants_never_straddle_splits(archive: Archive) -> None:
    splits: dict[tuple[int, ...], set[int]] = {}
    for sequence, number in zip(archive.sequences, archive.splits.tolist(), strict=True):
        splits.setdefault(base_of(points(sequence)), set()).add(number)
    assert all(len(numbers) == 1 for numbers in splits.values())
    shares = np.bincount([number for (number,) in splits.values()]) / len(splits)
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.005)
    for label in range(len(CLASSES)):  # and each class is in each split
        held = (
            np.bincount(archive.splits[archive.labels == label], minlength=3)
            / (archive.labels == label).sum()
        )
        assert (held[1:] > 0.05).all()
        assert (held[1:] < 0.15).all()


def test_no_picture_is_in_two_splits(archive: Archive, read_once: None) -> None:
    dataset = load(size=16)
    images = split(dataset, "train").flatten(1)
    for name in ("validation", "test"):
        assert torch.cdist(split(dataset, name).flatten(1), images).min() > 0.5  # of 768 numbers in [0, 1]
    assert len({image.tobytes() for image in archive.images}) == len(archive.images)


def test_labels_and_names(archive: Archive) -> None:
    rows = {sequence: k for k, sequence in enumerate(archive.sequences)}
    for sequence, name, group in [
        ("1F600", "grinning face", "Smileys & Emotion"),
        ("1F44B 1F3FB", "waving hand: light skin tone", "People & Body"),
        ("1F93C 1F3FB", "people wrestling", "People & Body"),  # younger than the names: its base's
        ("1F6B6 200D 27A1", "person walking", "People & Body"),
        ("26D3 200D 1F4A5", "chains", "Objects"),  # the font has it also the other way round
        ("1F42C", "dolphin", "Animals & Nature"),
        ("1F34E", "red apple", "Food & Drink"),
        ("1F680", "rocket", "Travel & Places"),
        ("26BD", "soccer ball", "Activities"),
        ("2665", "heart suit", "Activities"),
        ("267B", "recycling symbol", "Symbols"),
        ("1F1EF 1F1F5", "flag: Japan", "Flags"),
        ("1F3F4 E0075 E0073 E0063 E0061 E007F", "flag: US-CA", "Flags"),
    ]:
        assert archive.names[rows[sequence]] == name
        assert CLASSES[archive.labels[rows[sequence]]] == group
    toned = [bool(set(points(sequence)) & set(range(0x1F3FB, 0x1F400))) for sequence in archive.sequences]
    assert archive.toned.tolist() == toned
    assert {CLASSES[label] for label in archive.labels[archive.toned]} == {"People & Body"}


def test_colours(archive: Archive) -> None:
    """What is known of a few flags and fruits, and of all together: red and yellow prevail over blue."""
    rows = {sequence: k for k, sequence in enumerate(archive.sequences)}

    def colour(sequence: str, row: int, column: int) -> list[int]:
        return archive.images[rows[sequence], row, column].tolist()

    red, green, blue, alpha = colour("1F1EF 1F1F5", 32, 32)  # Japan: a red disc
    assert red > 180
    assert max(green, blue) < 70
    assert alpha == 255
    assert min(colour("1F1EF 1F1F5", 32, 8)) > 220  # on white
    assert colour("1F1EB 1F1F7", 32, 10)[2] > 2 * colour("1F1EB 1F1F7", 32, 10)[0]  # France: blue, then red
    assert colour("1F1EB 1F1F7", 32, 54)[0] > 2 * colour("1F1EB 1F1F7", 32, 54)[2]
    red, green, blue, _ = colour("1F600", 20, 32)  # a yellow face
    assert min(red, green) > 1.5 * blue
    tones = [sum(colour(f"1F44B 1F3F{tone}", 36, 36)[:3]) for tone in "BCDEF"]
    assert tones == sorted(tones, reverse=True)  # from light to dark skin
    assert (archive.images[..., :3] <= archive.images[..., 3:]).all()  # colours are times alpha
    images = split(load(), "train")
    assert images.mean((0, 2, 3)).tolist() == pytest.approx([0.80, 0.75, 0.71], abs=0.01)
    assert images.std().item() == pytest.approx(0.31, abs=0.01)


def test_centred_with_a_margin(archive: Archive) -> None:
    inked = archive.images[..., 3] > 200
    touching = inked[:, [0, -1]].any((1, 2)) | inked[:, :, [0, -1]].any((1, 2))
    assert touching.mean() < 0.01
    rows, columns = np.any(inked, axis=2, keepdims=True)[..., 0], np.any(inked, axis=1, keepdims=True)[:, 0]
    top, bottom = rows.argmax(1), rows[:, ::-1].argmax(1)
    left, right = columns.argmax(1), columns[:, ::-1].argmax(1)
    assert abs(np.median(top - bottom)) <= 1
    assert abs(np.median(left - right)) <= 1
    assert np.median(np.stack([top, bottom, left, right]).min(0)) == 2


def test_settings(archive: Archive, read_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load()
    assert dataset.spec.shape == (3, 32, 32)
    assert dataset.spec.classes == len(CLASSES) == 9
    assert dataset.spec.levels == 256
    assert [load(skin_tones=False).size(name) for name in SPLITS] == [1600, 189, 193]
    large, odd = load(size=None), load(size=24)
    assert large.spec.shape == (3, 64, 64)
    assert odd.spec.shape == (3, 24, 24)
    mean = split(dataset, "test").mean().item()
    for other in (large, odd, load(size=16)):  # the same pictures
        assert split(other, "test").mean().item() == pytest.approx(mean, abs=2e-3)
    fields = [field.name for field in dataclasses.fields(Archive)]
    few = Archive(**{name: getattr(archive, name)[::20] for name in fields})
    with monkeypatch.context() as patch:
        patch.setattr(Archive, "read", lambda path: few)
        assert load(size=128).spec.shape == (3, 128, 128)
    grey = load(channels=1, binarize="dynamic")
    assert grey.spec.shape == (1, 32, 32)
    assert split(grey, "test").unique().tolist() == [0, 1]
    for name, colour in [
        ("white", [255] * 3),
        ("grey", [128] * 3),
        ("black", [0] * 3),
        ("#0a1420", [10, 20, 32]),
    ]:
        corners = split(load(background=name), "test")[:, :, 0, 0] * 255
        assert corners.round().unique(dim=0).tolist() == [colour]
    with pytest.raises(ConfigError, match=r"dataset.background=pinkish: no such colour"):
        load(background="pinkish")
    with pytest.raises(ConfigError, match=r"dataset.binarize=dynamic: emoji has colour images"):
        load(binarize="dynamic")


def test_averaged_by_hand() -> None:
    image = torch.tensor([[0, 1, 10, 20], [2, 3, 30, 41]], dtype=torch.uint8).view(1, 1, 2, 4)
    assert averaged(image, 2).flatten().tolist() == [2, 25]  # 6/4 and 101/4
    assert torch.equal(averaged(image, 1), image)
    white = torch.full((300, 4, 64, 64), 255, dtype=torch.uint8)
    assert (averaged(white, 64) == 255).all()


def test_it_is_read_quickly() -> None:
    began = time.process_time()
    load()
    assert time.process_time() - began < 3  # 0.7 s where this was written


def test_few_colours() -> None:
    """No colour is lost where there are few; of many, k-means keeps those that matter."""
    rng = np.random.default_rng(0)
    few = rng.integers(0, 256, (5, 4), dtype=np.uint8)[rng.integers(0, 5, (SIZE, SIZE))]
    assert np.array_equal(build_emoji.with_few_colours(few, 5), few)
    noisy = np.clip(few.astype(int) + rng.integers(-3, 4, few.shape), 0, 255).astype(np.uint8)
    found = build_emoji.with_few_colours(noisy, 5)
    assert len(np.unique(found.reshape(-1, 4), axis=0)) == 5
    assert np.abs(found.astype(int) - few).max() <= 1  # the noise's mean is 0


@needs_font
def test_the_archive_follows_from_the_font(archive: Archive, tmp_path: Path) -> None:
    pytest.importorskip("fontTools")
    from fontTools.ttLib import TTFont

    font = TTFont(build_emoji.FONT)
    if "2.042" not in str(font["name"].getDebugName(5)):
        pytest.skip("another version of the font")
    emoji = build_emoji.read_font(font, build_emoji.read_names(build_emoji.NAMES))
    by_sequence = {" ".join(f"{point:X}" for point in one.sequence): one for one in emoji}
    assert set(archive.sequences) <= set(by_sequence)
    drawn = font["CBDT"].strikeData[0]
    for k in range(0, len(archive.names), 130):
        one = by_sequence[archive.sequences[k]]
        image = build_emoji.with_few_colours(build_emoji.picture(drawn[one.glyph].imageData))
        assert np.array_equal(image, archive.images[k])
        assert (one.name, one.group) == (archive.names[k], CLASSES[archive.labels[k]])
    chosen = [by_sequence[sequence] for sequence in archive.sequences]
    assert build_emoji.choose_splits(chosen) == [SPLITS[k] for k in archive.splits]
    for name in ("one.npz", "two.npz"):
        dataclasses.replace(archive, images=archive.images[:20]).write(tmp_path / name)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert np.array_equal(Archive.read(tmp_path / "one.npz").images, archive.images[:20])
