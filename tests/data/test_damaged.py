"""Files of strangers: each ends in one line or is read as it is, quickly and within bounds of memory."""

from __future__ import annotations

import gzip
import io
import logging
import struct
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genlab.config.datasets import EMNISTConfig, FolderConfig, NpzConfig
from genlab.config.schema import from_plain
from genlab.data import idx as idx_module
from genlab.data import pictures
from genlab.data.folder import Folder
from genlab.data.idx import read_idx
from genlab.data.labels import check_labels, count_classes, warn_of_missing
from genlab.data.npz import Npz
from genlab.data.pictures import open_picture, read_picture
from genlab.data.scale import remedy_for
from genlab.data.sets import set_at
from genlab.data.torchvision_sets import EMNIST
from genlab.errors import ConfigError, DataError, UserError

CASES = 300
"""Damaged files of each kind."""


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Returns content with some bytes changed, cut out, doubled, or cut off."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        place, length = int(rng.integers(len(data) or 1)), int(rng.integers(1, 9))
        match rng.integers(6):
            case 0:
                data[place : place + length] = rng.bytes(length)
            case 1:
                data[place : place + 1] = bytes([data[place] ^ 1 << rng.integers(8)]) if data else b""
            case 2:
                del data[place : place + length]
            case 3:
                data[place:place] = data[place : place + length]
            case 4:
                data[place : place + length] = rng.choice([b"\0" * length, b"\xff" * length])
            case 5 if rng.integers(3) == 0:
                del data[place:]
    return bytes(data)


def npz_of(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def images_of(count: int = 12, shape: tuple[int, ...] = (4, 5)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(np.uint8)


def refusal(action: Callable[[], Any]) -> str:
    """Returns the line by which an action is refused, "" for none; any other exception fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            action()
        except UserError as error:
            return str(error)
    return ""


def ends_in_one_line(action: Callable[[], Any]) -> bool:
    """Returns whether an action succeeds; asserts that it fails in no other way than by one line."""
    started = time.monotonic()
    line = refusal(action)
    assert "\n" not in line
    assert not line or 10 < len(line) < 700
    assert time.monotonic() - started < 5
    return not line


def read_all(dataset: Any) -> None:
    for split in ("train", "validation", "test"):
        for _ in dataset.evaluation_batches(split, 100, 0):
            pass


@pytest.mark.parametrize("limit", [4, 0])
@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_arrays(limit: float, compressed: bool, tmp_path: Path) -> None:
    rng, file = np.random.default_rng(1), tmp_path / "a.npz"
    content = npz_of(images=images_of(), labels=np.arange(12))
    if compressed:
        packed = io.BytesIO()
        np.savez_compressed(packed, images=images_of(), labels=np.arange(12))
        content = packed.getvalue()
    read = 0
    for _ in range(CASES):
        file.write_bytes(mutated(content, rng))
        config = NpzConfig(path=str(file), memory_limit_gib=limit)
        read += ends_in_one_line(lambda config=config: read_all(Npz.load(config)))
        ends_in_one_line(lambda: set_at(str(file), "samples"))
    assert read < CASES


def test_damaged_headers_of_arrays(tmp_path: Path) -> None:
    """The archive is whole, with right checksums: only what it holds is not."""
    rng, file = np.random.default_rng(2), tmp_path / "a.npz"
    with zipfile.ZipFile(io.BytesIO(npz_of(images=images_of(), labels=np.arange(12)))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for _ in range(CASES):
        name = str(rng.choice(list(members)))
        head = mutated(members[name][:80], rng)
        with zipfile.ZipFile(file, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
            for each, content in members.items():
                archive.writestr(each, head + content[80:] if each == name else content)
        for limit in (4, 0):
            config = NpzConfig(path=str(file), memory_limit_gib=limit)
            ends_in_one_line(lambda config=config: read_all(Npz.load(config)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "PPM", "TIFF", "WEBP"])
def test_damaged_pictures(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rng, picture = np.random.default_rng(3), io.BytesIO()
    Image.fromarray(images_of(1, (30, 40, 3))[0]).save(picture, kind)
    (tmp_path / "good.png").write_bytes(b"")
    for k in range(60):
        (tmp_path / f"{k}.{'png' if k % 2 else 'jpg'}").write_bytes(mutated(picture.getvalue(), rng))
    with caplog.at_level(logging.CRITICAL):
        ends_in_one_line(lambda: Folder.load(FolderConfig(path=str(tmp_path), size=8, workers=0)))


def test_damaged_idx_files(tmp_path: Path) -> None:
    rng, config = np.random.default_rng(4), SimpleNamespace(name="mnist")
    whole = b"\0\0\x08\3" + struct.pack(">III", 6, 4, 5) + images_of(6).tobytes()
    read = 0
    for k in range(2 * CASES):
        file = tmp_path / ("a.gz" if k % 2 else "a")
        content = gzip.compress(whole) if k % 2 else whole
        file.write_bytes(mutated(content, rng))
        shape = (6, 4, 5) if k % 3 else None
        read += ends_in_one_line(lambda file=file, shape=shape: read_idx(config, file, shape))
    assert 0 < read < 2 * CASES


HEADERS = {
    "negative": "{'descr': '|u1', 'fortran_order': False, 'shape': (-3, 4, 5)}",
    "enormous": "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 4, 5)}",
    "longer than the file": "{'descr': '|u1', 'fortran_order': False, 'shape': (13, 4, 5)}",
    "shorter than the file": "{'descr': '|u1', 'fortran_order': False, 'shape': (11, 4, 5)}",
    "above 64 bits": f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**30}, 4, 5)}}",
    "of thousands of digits": f"{{'descr': '|u1', 'fortran_order': False, 'shape': (0x{'f' * 8000}, 4, 5)}}",
    "many dimensions": f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({'1, ' * 100}240)}}",
    "of objects": "{'descr': '|O', 'fortran_order': False, 'shape': (12, 4, 5)}",
    "of text": "{'descr': '<U5', 'fortran_order': False, 'shape': (12,)}",
    "of records": "{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (12, 4, 5)}",
    "of arrays": "{'descr': '(9,9)u1', 'fortran_order': False, 'shape': (12,)}",
    "no type": "{'descr': 'nothing', 'fortran_order': False, 'shape': (12, 4, 5)}",
    "no dictionary": "[1, 2]",
    "a call": "__import__('os').system('touch it-ran')",
    "nested": "(" * 3000 + ")" * 3000,
    "signs": "-" * 9000 + "1",
    "long": "{'descr': '|u1', 'fortran_order': False, 'shape': (12, 4, 5)}" + " " * 70_000,
}


def npy(header: str, content: bytes, version: int = 2) -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(header) + 1)
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + b"\n" + content


@pytest.mark.parametrize("limit", [4, 0])
@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("name", ["images", "labels"])
def test_headers_that_lie(header: str, name: str, limit: float, tmp_path: Path) -> None:
    members = {"images": npz_part(images_of()), "labels": npz_part(np.arange(12))}
    members[name] = npy(HEADERS[header], images_of().tobytes())
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for each, content in members.items():
            archive.writestr(f"{each}.npy", content)
    config = NpzConfig(path=str(tmp_path / "a.npz"), memory_limit_gib=limit)
    assert not ends_in_one_line(lambda: Npz.load(config))
    assert not Path("it-ran").exists()


def npz_part(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_a_small_file_of_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    """Zeros compress to a thousandth of their length."""
    file = tmp_path / "a.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", npz_part(images_of()))
        with archive.open("labels.npy", "w", force_zip64=True) as member:
            member.write(b"\x93NUMPY\2\0" + struct.pack("<I", 2**28))  # the length of its header
            for _ in range(64):
                member.write(bytes(2**22))
    with pytest.raises(DataError, match="labels is damaged"):
        Npz.load(NpzConfig(path=str(file)))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", npz_part(images_of()))
        with archive.open("labels.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(
                member, {"descr": "<i8", "fortran_order": False, "shape": (2**25,)}
            )
            for _ in range(64):
                member.write(bytes(2**22))
    assert file.stat().st_size < 2**20
    with pytest.raises(DataError, match=r"labels is int64 of shape \(33554432,\); expected 12 whole numbers"):
        Npz.load(NpzConfig(path=str(file)))


def changed_directory(content: bytes, offset: int, value: int) -> bytes:
    """Returns an archive with two bytes of every entry of its directory changed."""
    data, place = bytearray(content), -1
    while (place := data.find(b"PK\1\2", place + 1)) >= 0:
        struct.pack_into("<H", data, place + offset, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("offset", "value", "line"),
    [(8, 1, "images is encrypted"), (10, 12, "by another method"), (10, 99, "by another method")],
)
@pytest.mark.parametrize("limit", [4, 0])
def test_archives_of_other_kinds(offset: int, value: int, line: str, limit: float, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(changed_directory(npz_of(images=images_of()), offset, value))
    with pytest.raises(DataError, match=line):
        Npz.load(NpzConfig(path=str(tmp_path / "a.npz"), memory_limit_gib=limit))


@pytest.mark.parametrize("limit", [4, 0])
def test_empty_members(limit: float, tmp_path: Path) -> None:
    for name in ("images", "labels"):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("images.npy", b"" if name == "images" else npz_part(images_of()))
            archive.writestr("labels.npy", b"" if name == "labels" else npz_part(np.arange(12)))
        with pytest.raises(DataError, match=f"{name} is damaged"):
            Npz.load(NpzConfig(path=str(tmp_path / "a.npz"), memory_limit_gib=limit))


def test_fortran_order(tmp_path: Path) -> None:
    images = images_of()
    np.savez(tmp_path / "a.npz", train_images=images[:9], test_images=np.asfortranarray(images[9:]))
    dataset = Npz.load(NpzConfig(path=str(tmp_path / "a.npz")))
    _, batch = next(dataset.evaluation_batches("test", 9, 0))
    assert np.array_equal((batch.images[:, 0] * 255).round().numpy(), images[9:])
    with pytest.raises(DataError, match=r"test_images is in Fortran order; save numpy\.ascontiguousarray"):
        Npz.load(NpzConfig(path=str(tmp_path / "a.npz"), memory_limit_gib=0))


X, Y = images_of(), np.arange(12) % 3
LAYOUTS: dict[str, tuple[dict[str, np.ndarray], list[int], bool]] = {
    "x_train": ({"x_train": X[:8], "y_train": Y[:8], "x_test": X[8:], "y_test": Y[8:]}, [8, 0, 4], True),
    "X_train": ({"X_train": X[:8], "Y_train": Y[:8], "x_val": X[8:], "y_val": Y[8:]}, [7, 4, 1], True),
    "splits": ({"train": X[:6], "valid": X[6:8], "test": X[8:]}, [6, 2, 4], False),
    "x": ({"x": X, "y": Y}, [10, 1, 1], True),
    "arr_0": ({"arr_0": X}, [10, 1, 1], False),
    "arr_0 and labels": ({"arr_0": X, "arr_1": Y}, [10, 1, 1], True),
    "arr_0 to arr_3": ({"arr_0": X[:8], "arr_1": Y[:8], "arr_2": X[8:], "arr_3": Y[8:]}, [8, 0, 4], True),
    "two arrays": ({"arr_0": X[:8], "arr_1": X[8:]}, [8, 0, 4], False),
    "three arrays": ({"arr_0": X[:6], "arr_1": X[8:], "arr_2": X[6:8]}, [6, 2, 4], False),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_names_of_arrays(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arrays, sizes, labelled = LAYOUTS[name]
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO, "genlab"):
        dataset = Npz.load(NpzConfig(path=str(tmp_path / "a.npz")))
    assert [dataset.size(split) for split in ("train", "validation", "test")] == sizes
    assert dataset.spec.classes == (3 if labelled else 0)
    seen = {}
    for split in ("train", "validation", "test"):
        for _, batch in dataset.evaluation_batches(split, 20, 0):
            for k, image in enumerate((batch.images[:, 0] * 255).round().numpy()):
                (place,) = (i for i in range(12) if np.array_equal(X[i], image))
                seen[place] = batch.labels[k] if batch.labels is not None else None
    assert sorted(seen) == list(range(12))
    assert not labelled or all(seen[k] == Y[k] for k in seen)
    assert "a.npz: takes " in caplog.text


def test_unnamed_arrays_that_make_no_sense(tmp_path: Path) -> None:
    for arrays, line in (
        ((Y, X), "arr_0 has labels, but there are no images before it"),
        ((X, Y, Y), "arr_2 has labels, but there are no images before it"),
        ((X, X, X, X), "has 4 arrays of images without names"),
    ):
        np.savez(tmp_path / "a.npz", *arrays)
        with pytest.raises(DataError, match=line):
            Npz.load(NpzConfig(path=str(tmp_path / "a.npz")))


SCALES: dict[str, np.ndarray] = {
    "floats of 0 to 1": X / 255,
    "single floats of 0 to 1": (X / 255).astype(np.float32),
    "floats of -1 to 1": X / 127.5 - 1,
    "floats of 0 to 255": X.astype(np.float64),
    "int64 of 0 to 255": X.astype(np.int64),
    "int8": (X.astype(np.int16) - 128).astype(np.int8),
    "16 bits": X.astype(np.uint16) * 257,
    "bool": X > 127,
    "int64 of 0 and 1": (X > 127).astype(np.int64),
    "floats of any range": X * 1e4 - 7,
}


@pytest.mark.parametrize("name", SCALES)
def test_the_remedy_for_a_scale_gives_the_levels(name: str, tmp_path: Path) -> None:
    array = SCALES[name]
    np.savez(tmp_path / "a.npz", images=array)
    with pytest.raises(DataError, match=rf"images is {array.dtype}, not uint8; save ") as error:
        Npz.load(NpzConfig(path=str(tmp_path / "a.npz")))
    remedy = remedy_for(array)
    assert remedy in str(error.value)
    code = remedy.removeprefix("save ").partition(", as")[0]
    saved = eval(code, {"x": array})
    assert saved.dtype == np.uint8
    binary = name in ("bool", "int64 of 0 and 1")
    wanted = np.where(X > 127, 255, 0) if binary else X
    assert np.abs(saved.astype(int) - wanted).max() <= (1 if "any" in name else 0)


def test_values_that_are_not_finite() -> None:
    assert "not finite" in remedy_for(np.array([[[0.5, np.nan]]]))
    assert "not finite" in remedy_for(np.array([[[0.5, np.inf]]]))


@pytest.mark.parametrize(
    ("white", "remedy"),
    [(1, "save 255 * x"), (16, "save (x * (255 / 16)).round()"), (0, "save other images")],
)
def test_images_that_are_black_are_warned_of(
    white: int, remedy: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    levels = ((X > 127) * white).astype(np.uint8)
    np.savez(tmp_path / "a.npz", images=levels)
    for limit in (4, 0):
        caplog.clear()
        Npz.load(NpzConfig(path=str(tmp_path / "a.npz"), memory_limit_gib=limit))
        assert f"images: its brightest level is {white} of 255, so that all is black; {remedy}" in caplog.text
    for k in range(3):
        Image.fromarray(levels[k]).save(tmp_path / f"{k}.png")
    caplog.clear()
    Folder.load(FolderConfig(path=str(tmp_path), resampling="nearest"))
    assert f"its brightest level is {white} of 255" in caplog.text
    if white == 1:
        caplog.clear()
        config = NpzConfig(path=str(tmp_path / "a.npz"), binarize="threshold", threshold=0)
        dataset = Npz.load(config)
        assert "brightest" not in caplog.text
        assert next(dataset.batches(0, 8)).images.unique().tolist() == [0, 1]


def test_labels_with_gaps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.savez(tmp_path / "a.npz", images=X, labels=Y * 1000)
    for limit in (4, 0):
        with pytest.raises(
            DataError, match="3 different numbers from 0 to 2000, which would be 2,001 classes"
        ):
            Npz.load(NpzConfig(path=str(tmp_path / "a.npz"), memory_limit_gib=limit))
    np.savez(tmp_path / "a.npz", images=X, labels=np.unique(Y * 1000, return_inverse=True)[1])
    assert Npz.load(NpzConfig(path=str(tmp_path / "a.npz"))).spec.classes == 3
    assert "no training image" not in caplog.text
    np.savez(tmp_path / "a.npz", images=X, labels=Y * 3)
    for limit in (4, 0):
        caplog.clear()
        config = NpzConfig(path=str(tmp_path / "a.npz"), memory_limit_gib=limit)
        assert Npz.load(config).spec.classes == 7
        assert "dataset=npz: 4 of 7 classes have no training image: 1, 2, 4, 5" in caplog.text


@pytest.mark.parametrize(
    "labels", [np.arange(12) - 1, np.full(12, 2**63, np.uint64), np.arange(12) / 2, np.arange(11)]
)
def test_labels_that_are_none(labels: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=X, labels=labels)
    with pytest.raises(DataError, match="expected 12 whole numbers from 0"):
        Npz.load(NpzConfig(path=str(tmp_path / "a.npz")))


def test_labels_of_any_source(caplog: pytest.LogCaptureFixture) -> None:
    import torch

    check_labels("x", torch.tensor([0, 4]), 5)
    for wrong in (-1, 5):
        with pytest.raises(DataError, match=r"^dataset=x: its labels are .*, expected 0 to 4; the files are"):
            check_labels("x", torch.tensor([0, wrong]), 5)
    assert count_classes([], "a") == 0
    assert count_classes([torch.tensor([2]), torch.tensor([99])], "a") == 100
    warn_of_missing("x", torch.zeros(3, dtype=torch.int64), 40)
    assert caplog.messages == [
        "dataset=x: 39 of 40 classes have no training image: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ..."
    ]


def emnist_file(kind: int, *shape: int, content: bytes) -> bytes:
    return b"\0\0\x08" + bytes([kind]) + struct.pack(f">{len(shape)}I", *shape) + content


def test_labels_of_an_idx_file_that_do_not_exist(tmp_path: Path) -> None:
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "test"):
        images = emnist_file(3, 4, 28, 28, content=bytes(4 * 784))
        (raw / f"emnist-letters-{part}-images-idx3-ubyte").write_bytes(images)
        labels = raw / f"emnist-letters-{part}-labels-idx1-ubyte"
        labels.write_bytes(emnist_file(1, 4, content=bytes([1, 2, 3, 0])))
    config = EMNISTConfig(root=str(tmp_path), split="letters", validation_images=0)
    with pytest.raises(DataError, match=r"^dataset=emnist: its labels are -1 to 2, expected 0 to 25"):
        EMNIST.load(config)


def test_a_gzipped_file_that_grows_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx_module, "MOST_BYTES", 2**20)
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(2**24)))
    with pytest.raises(DataError, match="is damaged"):
        read_idx(SimpleNamespace(name="mnist"), tmp_path / "a.gz", None)


def test_a_file_is_not_opened_by_another_program(tmp_path: Path) -> None:
    for name, content in {
        "a.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n",
        "b.png": b"\x00\x00\x01\x00\x01\x00" + bytes(100),
        "c.png": b"8BPS" + bytes(100),
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Image.UnidentifiedImageError):
            open_picture(tmp_path / name, 3)


def opened_without_formats() -> Iterator[str]:
    for file in Path(pictures.__file__).parents[1].rglob("*.py"):
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if "Image.open(" in line and "formats=" not in line:
                yield f"{file.name}:{number}"
            if ("np.load(" in line or "numpy.load(" in line) and "allow_pickle=False" not in line:
                yield f"{file.name}:{number}"


def test_every_picture_and_array_is_opened_with_bounds() -> None:
    assert list(opened_without_formats()) == []


def test_large_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smooth = np.linspace(0, 255, 640).astype(np.uint8)[None, :, None].repeat(512, 0).repeat(3, 2)
    for name in ("a.png", "a.jpg"):
        Image.fromarray(smooth).save(tmp_path / name)
    Image.fromarray(smooth).save(tmp_path / "progressive.jpg", progressive=True)
    whole = {name: read_picture(tmp_path / name, 16, 3) for name in ("a.png", "a.jpg")}
    monkeypatch.setattr(pictures, "_MAX_BYTES", 2**18)
    for name in ("a.png", "progressive.jpg"):
        with pytest.raises(ValueError, match=r"^640x512 pixels take 1 MiB, more than 0; make it smaller$"):
            read_picture(tmp_path / name, 16, 3)
    reduced = read_picture(tmp_path / "a.jpg", 16, 3)
    assert np.abs(reduced.astype(int) - whole["a.jpg"]).max() <= 3
    with pytest.raises(ValueError, match="make it smaller"):
        open_picture(tmp_path / "a.jpg", 3)  # its own size is wanted


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
def test_strips_give_what_the_whole_gives(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (61, 47, 4)).astype(np.uint8)
    image = Image.fromarray(levels).convert("RGB" if mode in ("P", "1") else "RGBA")
    image = Image.fromarray(levels[..., 0].astype(np.uint16) * 200) if mode == "I;16" else image.convert(mode)
    exif = Image.Exif()
    for turn in (1, 6):
        exif[0x0112] = turn
        image.save(tmp_path / "a.png", exif=exif)
        for channels in (1, 3):
            monkeypatch.setattr(pictures, "_STRIP_PIXELS", 2**20)
            whole = np.asarray(open_picture(tmp_path / "a.png", channels, "tomato"))
            monkeypatch.setattr(pictures, "_STRIP_PIXELS", 500)
            assert np.array_equal(np.asarray(open_picture(tmp_path / "a.png", channels, "tomato")), whole)


@pytest.mark.parametrize("path", ["", " ", "~nobody-of-this-name/x", "x" * 5000, "x\0y", "/dev/null"])
def test_paths_that_are_none(path: str) -> None:
    kinds: list[tuple[Any, Any]] = [(NpzConfig, Npz), (FolderConfig, Folder)]
    for kind, source in kinds:
        line = refusal(lambda kind=kind, source=source: source.load(kind(path=path)))
        assert line.startswith(f"dataset.path={path}: ".replace("\0", "\\x00"))
        assert "\n" not in line


def test_names_that_are_no_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k, name in enumerate([b"a.png", b"b\xff.png", b"c\xfe\xff.jpg"]):
        with open(bytes(folder) + b"/" + name, "wb") as file:
            Image.new("L", (4, 4), 100 + k).save(file, "PNG")
    with open(bytes(folder) + b"/d\xff.png", "wb") as file:
        file.write(b"no picture")
    dataset = Folder.load(FolderConfig(path=str(folder), validation_share=0, test_share=0))
    assert dataset.size("train") == 3
    assert "skipped: d\\udcff.png cannot be read" in caplog.text
    caplog.text.encode()  # it can be written to a file
    with pytest.raises(
        ConfigError, match=r"^dataset\.path=p\\udcff: has bytes that are not UTF-8; rename it$"
    ):
        from_plain(FolderConfig, {"path": "p\udcff"}, "dataset")
