"""A user's own data: folders of pictures in every state, and arrays."""

from __future__ import annotations

import logging
import os
import re
import struct
import zlib
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.checkout import TEST_DATA
from helpers.runs import plain_config
from PIL import Image

from genlab.commands import train
from genlab.config.schema import from_plain
from genlab.data import folder as folder_module
from genlab.data.dataset import Dataset
from genlab.data.folder import Folder, find_pictures, read_picture, split_of
from genlab.data.npz import Npz
from genlab.data.spec import DataSpec
from genlab.errors import ConfigError, DataError
from genlab.runs import checkpoint
from genlab.trained.given import read_images
from genlab.trained.model import dataset_of, load_model

SPLITS = ("train", "validation", "test")


def load(kind: Any, path: Path | str, **settings: Any) -> Dataset:
    plain = {"name": kind.__name__.lower(), "path": str(path), **settings}
    return kind.load(from_plain(kind.Config, plain, "dataset"))


def sizes(dataset: Dataset) -> list[int]:
    return [dataset.size(split) for split in SPLITS]


def picture(path: Path, colour: Any, mode: str = "RGB", size: tuple[int, int] = (20, 14)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Three classes of 20 pictures, each class of its own colour."""
    root = tmp_path / "pictures"
    for k, name in enumerate(["birds", "cats", "dogs/small"]):
        for i in range(20):
            picture(root / name / f"{i}.png", (80 * k + i, 10, 200))
    return root


def test_subfolders_are_the_classes(classes: Path) -> None:
    dataset = load(Folder, classes, size=8)
    assert dataset.spec.shape == (3, 8, 8)
    assert dataset.spec.classes == 3
    assert sum(sizes(dataset)) == 60
    assert min(sizes(dataset)) > 0
    for split in SPLITS:
        for _, batch in dataset.evaluation_batches(split, 7, 0):
            assert batch.labels is not None
            assert torch.equal((batch.images[:, 0, 0, 0] * 255).round().long() // 80, batch.labels)


def test_pictures_without_classes(tmp_path: Path, classes: Path) -> None:
    picture(classes / "loose.png", "red")
    dataset = load(Folder, classes)
    assert dataset.spec.classes == 0
    assert next(dataset.batches(0, 4)).labels is None
    assert load(Folder, classes / "cats").spec.classes == 0


def test_adding_pictures_moves_none(classes: Path) -> None:
    before = {name: split_of(name, 0.1, 0.2) for name in find_pictures(classes)}
    picture(classes / "ants" / "new.png", "red")
    after = {name: split_of(name, 0.1, 0.2) for name in find_pictures(classes)}
    assert before.items() < after.items()
    many = [split_of(f"{k}.png", 0.1, 0.2) for k in range(20_000)]
    assert many.count("validation") / 20_000 == pytest.approx(0.1, abs=0.01)
    assert many.count("test") / 20_000 == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_of_pictures_gives_what_memory_gives(classes: Path, workers: int) -> None:
    for settings in ({}, {"flip": True, "dequantize": True}, {"channels": 1, "binarize": "dynamic"}):
        resident = load(Folder, classes, size=6, **settings)
        streamed = load(Folder, classes, size=6, memory_limit_gib=0, workers=workers, **settings)
        assert streamed.spec == resident.spec
        pairs = zip(islice(resident.batches(1, 8, 3), 12), islice(streamed.batches(1, 8, 3), 12), strict=True)
        for a, b in pairs:
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.labels, b.labels)  # type: ignore[arg-type]
        (_, a), (_, b) = (next(d.evaluation_batches("test", 99, 0)) for d in (resident, streamed))
        assert torch.equal(a.images, b.images)


def test_a_picture_that_vanishes_from_a_stream(classes: Path) -> None:
    dataset = load(Folder, classes, memory_limit_gib=0, workers=1, validation_share=0, test_share=0)
    (classes / "cats" / "3.png").unlink()
    with pytest.raises(DataError, match=r"^dataset.path=.*cats/3.png cannot be read") as error:
        next(dataset.batches(0, 60))
    assert "\n" not in str(error.value)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def enormous_png(path: Path, side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(1000)))
        + png_chunk(b"IEND", b"")
    )  # fmt: skip


@pytest.mark.parametrize("limit", [4, 0])
def test_broken_and_enormous_files_are_named_and_skipped(
    classes: Path, caplog: pytest.LogCaptureFixture, limit: int
) -> None:
    good = picture(classes / "cats" / "whole.jpg", "red", size=(200, 200)).read_bytes()
    (classes / "cats" / "cut.jpg").write_bytes(good[: len(good) // 2])
    (classes / "cats" / "empty.png").write_bytes(b"")
    (classes / "dogs" / "text.jpeg").write_text("not a picture")
    enormous_png(classes / "dogs" / "enormous.png", 60_000)
    enormous_png(classes / "dogs" / "large.png", 10_000)
    Image.new("F", (4, 4)).save(classes / "dogs" / "floats.tif")
    (classes / "dogs" / "notes.txt").write_text("not a picture by its name")
    (classes / ".hidden.png").write_bytes(good)
    (classes / ".thumbnails").mkdir()
    (classes / ".thumbnails" / "a.jpg").write_bytes(good)
    (classes / "dangling.png").symlink_to(classes / "nowhere.png")
    (classes / "cats" / "loop").symlink_to(classes, target_is_directory=True)
    os.mkfifo(classes / "pipe.png")
    with caplog.at_level(logging.INFO, "genlab"):
        dataset = load(Folder, classes, memory_limit_gib=limit, workers=0)
    assert sum(sizes(dataset)) == 61
    assert dataset.spec.classes == 3
    for name in ("cut.jpg", "empty.png", "text.jpeg", "enormous.png", "large.png", "floats.tif"):
        assert any(name in r.getMessage() and r.levelname == "WARNING" for r in caplog.records), name
    assert "61 pictures used, 6 skipped" in caplog.text
    assert "notes.txt" not in caplog.text
    assert len(next(dataset.batches(0, 61)).images) == 61


def test_many_broken_files_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "_NAMED", 2)
    for k in range(5):
        (tmp_path / f"{k}.png").write_bytes(b"")
    picture(tmp_path / "good.png", "red")
    with caplog.at_level(logging.INFO, "genlab"):
        load(Folder, tmp_path, validation_share=0, test_share=0)
    assert [r.getMessage() for r in caplog.records][2:] == [
        "skipped: 3 more",
        f"{tmp_path}: 1 pictures used, 5 skipped",
    ]


def test_pictures_of_every_kind(tmp_path: Path) -> None:
    def read(path: Path, channels: int = 3) -> list[int]:
        return read_picture(path, 4, channels)[:, 0, 0].tolist()

    assert read(picture(tmp_path / "grey.png", 77, "L")) == [77] * 3
    assert read(picture(tmp_path / "bits.png", 1, "1")) == [255] * 3
    assert read(picture(tmp_path / "clear.png", (9, 9, 9, 0), "RGBA")) == [255] * 3  # on white
    assert read(picture(tmp_path / "solid.png", (9, 8, 7, 255), "RGBA")) == [9, 8, 7]
    assert read(picture(tmp_path / "pair.png", (50, 255), "LA")) == [50] * 3
    assert read(picture(tmp_path / "palette.gif", (0, 0, 255))) == [0, 0, 255]
    assert read(picture(tmp_path / "ink.jpg", (0, 0, 0, 0), "CMYK")) == [255] * 3
    for level in (0, 257 * 100, 65535):
        Image.fromarray(np.full((5, 5), level, np.uint16)).save(tmp_path / "deep.png")
        assert read(tmp_path / "deep.png") == [level // 257] * 3
        assert read(tmp_path / "deep.png", 1) == [level // 257]
    assert read(picture(tmp_path / "red.png", "red"), 1) == [76]
    assert read(picture(tmp_path / "thin.png", "red", size=(3000, 1))) == [255, 0, 0]
    assert read(picture(tmp_path / "tiny.png", "red", size=(1, 1))) == [255, 0, 0]


@pytest.mark.parametrize(
    ("background", "colour"),
    [
        ("white", (255, 255, 255)), ("black", (0, 0, 0)), ("grey", (128, 128, 128)),
        ("#1080f0", (16, 128, 240)), ("tomato", (255, 99, 71)),
    ],
)  # fmt: skip
def test_what_lies_behind_transparent_pictures(
    background: str, colour: tuple[int, ...], tmp_path: Path
) -> None:
    def read(path: Path, channels: int = 3) -> list[int]:
        return read_picture(path, 4, channels, background)[:, 0, 0].tolist()

    half = [round(100 * 51 / 255 + c * 204 / 255) for c in colour]  # a fifth of it is 100
    assert read(picture(tmp_path / "clear.png", (9, 9, 9, 0), "RGBA")) == list(colour)
    assert read(picture(tmp_path / "solid.png", (9, 8, 7, 255), "RGBA")) == [9, 8, 7]
    assert read(picture(tmp_path / "half.png", (100, 100, 100, 51), "RGBA")) == pytest.approx(half, abs=1)
    assert read(picture(tmp_path / "grey.png", (100, 51), "LA")) == pytest.approx(half, abs=1)
    palette = Image.new("P", (5, 5), 1)
    palette.putpalette([0, 0, 255, 200, 100, 0])
    palette.save(tmp_path / "solid_index.png", transparency=0)
    assert read(tmp_path / "solid_index.png") == [200, 100, 0]
    palette.save(tmp_path / "clear_index.png", transparency=1)
    assert read(tmp_path / "clear_index.png") == list(colour)
    palette.save(tmp_path / "clear_index.gif", transparency=1)
    assert read(tmp_path / "clear_index.gif") == list(colour)
    picture(tmp_path / "key.png", (1, 2, 3))
    Image.open(tmp_path / "key.png").save(tmp_path / "clear_key.png", transparency=(1, 2, 3))
    assert read(tmp_path / "clear_key.png") == list(colour)
    luma = (299 * colour[0] + 587 * colour[1] + 114 * colour[2]) / 1000
    assert read(tmp_path / "clear.png", 1) == [pytest.approx(luma, abs=1)]


@pytest.mark.parametrize("background", ["whit", "#12", "#11223344", "transparent", ""])
def test_a_background_that_is_no_colour(background: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^dataset.background={background}: no such colour; use white"):
        load(Folder, tmp_path, background=background)


def test_nearest_resampling_makes_no_new_colours(tmp_path: Path) -> None:
    tile = np.random.default_rng(0).choice(np.array([0, 90, 255], np.uint8), (8, 8, 3))
    large = tile.repeat(4, 0).repeat(4, 1)  # 32x32
    for k, array in enumerate((tile, large)):
        Image.fromarray(array).save(tmp_path / f"{k}.png")
    wanted = tile.transpose(2, 0, 1)
    for name in ("nearest", "area"):
        assert np.array_equal(read_picture(tmp_path / "1.png", 8, 3, resampling=name), wanted)
    larger = read_picture(tmp_path / "0.png", 32, 3, resampling="nearest")
    assert np.array_equal(larger, large.transpose(2, 0, 1))
    for name in ("lanczos", "bicubic", "bilinear"):
        assert len(np.unique(read_picture(tmp_path / "0.png", 32, 3, resampling=name))) > 10
    for limit in (4, 0):
        np.savez(tmp_path / "a.npz", images=np.stack([large] * 8))
        dataset = load(Npz, tmp_path / "a.npz", size=8, resampling="nearest", memory_limit_gib=limit)
        assert np.array_equal((next(dataset.batches(0, 1)).images[0] * 255).round().numpy(), wanted)
        smooth = load(Npz, tmp_path / "a.npz", size=8, memory_limit_gib=limit)
        assert not np.array_equal((next(smooth.batches(0, 1)).images[0] * 255).round().numpy(), wanted)


def test_settings_that_an_old_checkpoint_lacks_mean_what_was_before(tmp_path: Path) -> None:
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    image.paste((10, 200, 30, 255), (4, 4, 15, 15))
    image.save(tmp_path / "a.png")
    config = from_plain(Folder.Config, {"name": "folder", "path": str(tmp_path)}, "dataset")
    assert (config.background, config.resampling) == ("white", "lanczos")
    on_white = Image.alpha_composite(Image.new("RGBA", (20, 20), "white"), image).convert("RGB")
    expected = np.asarray(on_white.resize((8, 8), Image.Resampling.LANCZOS)).transpose(2, 0, 1)
    assert np.array_equal(read_picture(tmp_path / "a.png", 8, 3), expected)


def test_pictures_for_a_model_lie_on_what_its_own_lay_on(tmp_path: Path) -> None:
    picture(tmp_path / "clear.png", (9, 9, 9, 0), "RGBA", size=(4, 4))
    for settings, expected in (({"background": "#ff0000"}, [1, 0, 0]), ({}, [1, 1, 1])):
        config = Folder.Config(path="elsewhere", **settings)  # type: ignore[arg-type]
        model: Any = SimpleNamespace(config=SimpleNamespace(dataset=config), spec=DataSpec("folder", 3, 4, 4))
        assert read_images(str(tmp_path), model).images[0, :, 0, 0].tolist() == expected


def test_the_log_says_what_was_made_of_the_pictures(
    classes: Path, own_folder: Path, toy: type, caplog: pytest.LogCaptureFixture
) -> None:
    plain = plain_config(steps=1)
    plain["dataset"] = {
        "name": "folder", "path": str(classes), "size": 8, "background": "black", "resampling": "nearest",
    }  # fmt: skip
    train.start(plain, [], "run")
    dataset = load(Folder, classes)
    counts = [dataset.size(split) for split in SPLITS]
    line = (
        f"{classes}: the middle square of each picture, 8x8 by nearest resampling, colour, transparent "
        "ones on black; 3 classes; train {}, validation {}, test {}".format(*counts)
    )
    assert line in Path("run/train.log").read_text()


def test_the_middle_square_upright(tmp_path: Path) -> None:
    array = np.zeros((10, 30, 3), np.uint8)
    array[:, 10:20] = 200  # the middle
    array[:5, 10:20, 0] = 100  # its upper half
    image = Image.fromarray(array)
    image.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 3  # held upside down
    image.rotate(180).save(tmp_path / "b.png", exif=exif)
    for name in ("a.png", "b.png"):
        square = read_picture(tmp_path / name, 10, 3)
        assert square[0, 0].tolist() == [100] * 10
        assert square[0, 9].tolist() == [200] * 10
        assert (square[1] == 200).all()


def test_folders_that_will_not_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^dataset.path=.*nowhere: no such folder$"):
        load(Folder, tmp_path / "nowhere")
    with pytest.raises(DataError, match="contains no pictures"):
        load(Folder, tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of its 1 pictures can be read"):
        load(Folder, tmp_path)
    with pytest.raises(ConfigError, match=r"dataset.test_share=0.6: nothing is left"):
        load(Folder, tmp_path, test_share=0.6, validation_share=0.4)
    with pytest.raises(ConfigError, match=r"dataset.path: missing; add dataset.path=..."):
        from_plain(Folder.Config, {"name": "folder", "path": "???"}, "dataset")


def arrays(count: int = 40, shape: tuple[int, ...] = (6, 5)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(np.uint8)


@pytest.mark.parametrize(("shape", "channels"), [((6, 5), 1), ((6, 5, 1), 1), ((6, 5, 3), 3), ((3, 6, 5), 3)])
@pytest.mark.parametrize("limit", [4, 0])
def test_layouts_of_arrays(shape: tuple[int, ...], channels: int, limit: int, tmp_path: Path) -> None:
    images = arrays(shape=shape)
    np.savez(tmp_path / "a.npz", train_images=images[:30], test_images=images[30:])
    dataset = load(Npz, tmp_path / "a.npz", memory_limit_gib=limit)
    assert dataset.spec.shape == (channels, 6, 5)
    assert sizes(dataset) == [28, 2, 10]
    _, batch = next(dataset.evaluation_batches("test", 10, 0))
    wanted = images[30:].reshape(10, 6, 5, -1).transpose(0, 3, 1, 2) if shape[0] != 3 else images[30:]
    assert np.array_equal((batch.images * 255).round().numpy(), wanted)
    assert batch.labels is None


@pytest.mark.parametrize("settings", [{}, {"size": 8, "channels": 1, "binarize": "dynamic"}, {"flip": True}])
def test_a_stream_of_arrays_gives_what_memory_gives(settings: dict, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=arrays(shape=(6, 5, 3)), labels=np.arange(40))
    resident = load(Npz, tmp_path / "a.npz", **settings)
    streamed = load(Npz, tmp_path / "a.npz", memory_limit_gib=0, **settings)
    assert streamed.spec == resident.spec
    assert sizes(streamed) == sizes(resident) == [34, 2, 4]
    for a, b in zip(islice(resident.batches(1, 8), 9), islice(streamed.batches(1, 8), 9), strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)  # type: ignore[arg-type]


def test_labels_stay_with_their_arrays(tmp_path: Path) -> None:
    images = np.arange(40, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    np.savez_compressed(tmp_path / "a.npz", images=images, labels=np.arange(40, dtype=np.int16))
    dataset = load(Npz, tmp_path / "a.npz", test_share=0.25)
    seen = []
    for split in SPLITS:
        for _, batch in dataset.evaluation_batches(split, 3, 0):
            assert batch.labels is not None
            assert torch.equal((batch.images[:, 0, 0, 0] * 255).round().long(), batch.labels)
            seen += batch.labels.tolist()
    assert sorted(seen) == list(range(40))
    assert seen != list(range(40))  # not merely the last ones
    assert sizes(dataset) == [28, 2, 10]


class Malicious:
    def __reduce__(self) -> Any:
        return open, ("it-ran", "w")


def test_pickles_in_arrays_are_not_run(tmp_path: Path) -> None:
    objects = np.array([Malicious()] * 3, dtype=object)
    for limit in (4, 0):
        contents: list[dict[str, Any]] = [{"images": objects}, {"images": arrays(), "labels": objects}]
        for content in contents:
            np.savez(tmp_path / "a.npz", **content)
            with pytest.raises(DataError, match=r"^dataset.path=.*(images|labels).* holds .*objects"):
                load(Npz, tmp_path / "a.npz", memory_limit_gib=limit)
    np.save(tmp_path / "b.npy", objects)
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    with pytest.raises(DataError, match=r"no .npz file"):
        load(Npz, tmp_path / "b.npz")
    assert not Path("it-ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": arrays() / 255.0}, r"images is float64, not uint8; save \(255 \* x\)"),
        ({"images": arrays() > 5}, "images is bool, not uint8"),
        ({"images": arrays(shape=(7,))}, r"images has shape \(40, 7\); expected"),
        ({"images": arrays(shape=(6, 5, 4))}, r"images has shape \(40, 6, 5, 4\); expected"),
        ({"pictures": arrays()}, "has no array train_images or images, but pictures"),
        ({"test_images": arrays()}, "has no array train_images or images"),
        (
            {"images": arrays(), "labels": np.arange(39)},
            "labels is int64 of shape .* expected 40 whole numbers",
        ),
        ({"images": arrays(), "labels": np.arange(40) - 1}, "labels is int64"),
        ({"images": arrays(), "labels": np.arange(40) / 2}, "labels is float64"),
        (
            {"train_images": arrays(), "test_images": arrays(), "test_labels": np.arange(40)},
            "labels for some of its splits only",
        ),
        ({"train_images": arrays(), "test_images": arrays(shape=(5, 5))}, "images of different shapes"),
        ({"images": arrays(0)}, "no training images are left"),
        ({}, "has no array train_images or images, but nothing"),
    ],
)
def test_arrays_that_will_not_do(content: dict, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(DataError, match=message) as error:
        load(Npz, tmp_path / "a.npz")
    assert "\n" not in str(error.value)


def test_damaged_arrays(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    with pytest.raises(DataError, match=r"^dataset.path=.*a.npz: no such file$"):
        load(Npz, file)
    np.savez_compressed(file, images=arrays(400))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    with pytest.raises(DataError, match="images is damaged"):
        load(Npz, file)
    file.write_bytes(content[:100])
    with pytest.raises(DataError, match=r"no .npz file, or a damaged one"):
        load(Npz, file)
    np.savez_compressed(file, images=arrays())
    with pytest.raises(DataError, match=r"compressed and larger than dataset.memory_limit_gib=0"):
        load(Npz, file, memory_limit_gib=0)


@pytest.mark.skipif(not (TEST_DATA / "cifar10-subset.npz").is_file(), reason="no part of CIFAR-10")
def test_a_part_of_cifar() -> None:
    path = TEST_DATA / "cifar10-subset.npz"
    dataset = load(Npz, path)
    assert sizes(dataset) == [9500, 500, 2000]
    assert dataset.spec.classes == 10
    assert dataset.spec.shape == (3, 32, 32)
    _, batch = next(dataset.evaluation_batches("test", 2000, 0))
    with np.load(path, allow_pickle=False) as content:
        assert np.array_equal(
            (batch.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy(), content["test_images"]
        )
        assert batch.labels is not None
        assert batch.labels.tolist() == content["test_labels"].tolist()


def test_a_run_goes_on_from_another_folder_and_with_data_that_moved(
    toy: type, own_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("a.npz", images=arrays(shape=(8, 8)))
    plain = plain_config(steps=1) | {"dataset": {"name": "npz", "path": "a.npz"}}
    train.start(plain, [], "run")
    (own_folder / "elsewhere").mkdir()
    monkeypatch.chdir(own_folder / "elsewhere")
    saved = checkpoint.find("../run")[1]["config"]
    assert saved["dataset"]["path"] == str(own_folder / "a.npz")
    longer = saved | {"trainer": saved["trainer"] | {"steps": 2}}
    train.resume("../run", longer, [])
    Path("../a.npz").rename("b.npz")
    moved = "a.npz: no such file; {} says so: if it was moved, add dataset.path=NEW"
    with pytest.raises(DataError, match=re.escape(moved.format("run=../run"))):
        train.resume("../run", longer, [])
    model = load_model("../run", "auto", torch.device("cpu"))
    with pytest.raises(DataError, match=re.escape(moved.format(model.path))):
        dataset_of(model, {}, "test")
    assert dataset_of(model, {"path": "b.npz"}, "test").size("test") == 4
    relocated = saved | {
        "dataset": saved["dataset"] | {"path": "b.npz"},
        "trainer": saved["trainer"] | {"steps": 3},
    }
    train.resume("../run", relocated, ["dataset.path=b.npz"])
    assert checkpoint.find("../run")[1]["config"]["dataset"]["path"] == str(own_folder / "elsewhere/b.npz")
    Path("b.npz").unlink()
    with pytest.raises(DataError, match=r"^dataset.path=/.*/elsewhere/b.npz: no such file$"):
        train.resume("../run", relocated, ["dataset.path=b.npz"])
