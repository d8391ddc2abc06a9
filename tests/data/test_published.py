"""Published datasets: read-only folders, damage, strangers' pickles, no network."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import shutil
import socket
import struct
import tarfile
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.checkout import TEST_DATA
from torchvision import datasets

from genlab import registry
from genlab.config.schema import from_plain
from genlab.data import binarized_mnist, files, idx
from genlab.data.dataset import Dataset
from genlab.data.torchvision_sets import MNIST, FashionMNIST
from genlab.errors import DataError

needs_mnist = pytest.mark.skipif(not (TEST_DATA / "MNIST").is_dir(), reason="no MNIST files")
needs_binarized = pytest.mark.skipif(
    not (TEST_DATA / "binarized_mnist.npz").is_file(), reason="no fixed binarised MNIST"
)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
needs_debian = pytest.mark.skipif(not DEBIAN.is_dir(), reason="no package dataset-fashion-mnist")
DOWNLOADED = ["mnist", "fashion_mnist", "kmnist", "emnist", "cifar10", "svhn", "binarized_mnist"]


def load(name: str, **settings: Any) -> Dataset:
    config = registry.look_up(registry.DATASETS, name, "dataset").Config
    return registry.dataset(from_plain(config, {"name": name, **settings}, "dataset"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("GENLAB_DATA", raising=False)


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without packages of datasets."""
    monkeypatch.setattr(FashionMNIST, "system_folders", ())


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def one_line(error: pytest.ExceptionInfo[DataError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@needs_mnist
def test_mnist_from_a_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (TEST_DATA / "MNIST" / "raw").glob("*.gz"):
        shutil.copy(file, raw)
    before = sorted(os.listdir(raw))
    raw.chmod(0o555)
    monkeypatch.setenv("GENLAB_DATA", str(tmp_path))
    dataset = load("mnist")
    raw.chmod(0o755)
    assert sorted(os.listdir(raw)) == before
    assert [dataset.size(split) for split in ("train", "validation", "test")] == [50000, 10000, 10000]
    _, batch = next(dataset.evaluation_batches("test", 10000, 0))
    assert batch.labels is not None
    assert batch.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert batch.images.mean() == pytest.approx(0.13251, abs=1e-4)  # the published mean of the test images
    _, batch = next(dataset.evaluation_batches("train", 5, 0))
    assert batch.labels is not None
    assert batch.labels.tolist() == [5, 0, 4, 1, 9]


@needs_mnist
def test_a_damaged_file_of_mnist(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(TEST_DATA / "MNIST" / "raw", raw, copy_function=shutil.copyfile)
    file = raw / "t10k-images-idx3-ubyte.gz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError) as error:
        load("mnist", root=str(tmp_path))
    assert str(file) in one_line(error)
    assert "damaged" in str(error.value)
    assert "delete it" in str(error.value)


@needs_mnist
def test_mnist_unpacked(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (TEST_DATA / "MNIST" / "raw").glob("*.gz"):
        (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    packed, plain = load("mnist", root=str(TEST_DATA)), load("mnist", root=str(tmp_path))
    assert torch.equal(next(packed.batches(0, 500)).images, next(plain.batches(0, 500)).images)
    file = raw / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match="train-images-idx3-ubyte is damaged"):
        load("mnist", root=str(tmp_path))


def small_files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The four files of a small set, which is taken for the published Fashion-MNIST: k images of level k."""
    contents = {}
    for part, count in (("train", 6), ("t10k", 4)):
        pixels = np.full((count, 28, 28), count, np.uint8)
        contents[f"{part}-images-idx3-ubyte"] = idx_bytes(pixels)
        contents[f"{part}-labels-idx1-ubyte"] = idx_bytes(np.arange(count, dtype=np.uint8))
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(FashionMNIST, "contents", md5)
    monkeypatch.setattr(FashionMNIST, "images", {"train": 6, "t10k": 4})
    return contents


def check_small(dataset: Dataset) -> None:
    assert [dataset.size(split) for split in ("train", "validation", "test")] == [4, 2, 4]
    _, batch = next(dataset.evaluation_batches("validation", 2, 0))
    assert (batch.images * 255).round().unique().tolist() == [6]
    assert batch.labels is not None
    assert batch.labels.tolist() == [4, 5]


@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_of_a_package(packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed again, as Debian does it, or unpacked; the user's own files come first."""
    system, own = tmp_path / "system", tmp_path / "own" / "FashionMNIST" / "raw"
    system.mkdir()
    own.mkdir(parents=True)
    for name, content in small_files(monkeypatch).items():
        file = system / (f"{name}.gz" if packed else name)
        file.write_bytes(gzip.compress(content, compresslevel=1, mtime=77) if packed else content)
    monkeypatch.setattr(FashionMNIST, "system_folders", (tmp_path / "not there", system))
    check_small(load("fashion_mnist", root=str(tmp_path / "own"), download=False, validation_images=2))
    assert not list(own.iterdir())
    for name in FashionMNIST.contents:
        wrong = own / name
        wrong.write_bytes(idx_bytes(np.full(1, 9, np.uint8)))
        with pytest.raises(DataError) as error:
            load("fashion_mnist", root=str(tmp_path / "own"), validation_images=2)
        assert f"{wrong} is damaged" in one_line(error)
        wrong.unlink()
    for file in system.iterdir():
        content = file.read_bytes()
        for broken in (content[:-9], content[:-1] + b"x", b"", b"\x1f\x8b\x08 not gzip"):
            file.write_bytes(broken)
            with pytest.raises(DataError) as error:
                load("fashion_mnist", root=str(tmp_path / "own"), validation_images=2)
            assert f"{file} is damaged" in one_line(error)
        file.write_bytes(content)


def test_of_the_right_shape_and_another_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in small_files(monkeypatch).items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(FashionMNIST, "system_folders", (tmp_path,))
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1] + b"\7")
    with pytest.raises(DataError, match="train-images-idx3-ubyte is damaged"):
        load("fashion_mnist", root=str(tmp_path), validation_images=2)


@needs_debian
def test_fashion_mnist_of_debian(tmp_path: Path) -> None:
    dataset = load("fashion_mnist", root=str(tmp_path / "nothing"), download=False, validation_images=0)
    assert [dataset.size(split) for split in ("train", "validation", "test")] == [60000, 0, 10000]
    _, batch = next(dataset.evaluation_batches("train", 60000, 0))
    assert batch.labels is not None
    assert batch.labels.bincount().tolist() == [6000] * 10
    assert batch.labels[:5].tolist() == [9, 0, 0, 3, 0]  # an ankle boot, then a T-shirt
    assert batch.images.double().mean() == pytest.approx(
        0.2860, abs=1e-4
    )  # the mean that people normalise by


def test_missing_fashion_mnist_names_the_package(tmp_path: Path, no_package: None) -> None:
    with pytest.raises(DataError, match="apt-get install dataset-fashion-mnist"):
        load("fashion_mnist", root=str(tmp_path))


@needs_mnist
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_mnist_packed_again(name: str, tmp_path: Path) -> None:
    """The published checksums and those of the contents stand for the same files."""
    content = gzip.decompress((TEST_DATA / "MNIST" / "raw" / f"{name}.gz").read_bytes())
    assert hashlib.md5(content).hexdigest() == MNIST.contents[name]
    assert (
        files.md5_of(TEST_DATA / "MNIST" / "raw" / f"{name}.gz")
        == dict(datasets.MNIST.resources)[f"{name}.gz"]
    )


@pytest.mark.parametrize("content", [b"", b"\0\0\x08", b"\0\0\x0d\1\0\0\0\1a", b"\0\0\x08\1\0\0\0\2a"])
def test_what_is_no_idx_array(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"IDX|bytes for a shape"):
        idx.parse_idx(content)


@pytest.mark.parametrize("name", DOWNLOADED)
@pytest.mark.parametrize("download", [True, False])
def test_missing_and_not_to_be_had(name: str, download: bool, tmp_path: Path, no_package: None) -> None:
    root = tmp_path / "nowhere"
    with pytest.raises(DataError) as error:
        load(name, root=str(root), download=download)
    message = one_line(error)
    assert message.startswith(f"dataset={name}: {root}/")
    assert ("no network in this test" in message) == download
    assert ("dataset.download=false" in message) != download
    assert "dataset.root=..." in message
    assert "GENLAB_DATA=..." in message
    assert ("dataset=emoji" in message) == (name in ("cifar10", "svhn"))
    assert not root.exists()  # nothing is left behind


def test_where_the_files_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert files.data_root(None) == tmp_path / "cache" / "genlab" / "data"
    monkeypatch.setenv("GENLAB_DATA", str(tmp_path / "shared"))
    assert files.data_root(None) == tmp_path / "shared"
    assert files.data_root(str(tmp_path / "own")) == tmp_path / "own"


class _Response(io.BytesIO):
    length = None


@pytest.mark.parametrize("sent", [b"what was published", b"something else"])
def test_a_download_is_checked_before_it_takes_its_name(
    sent: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(request: urllib.request.Request, timeout: float) -> _Response:
        asked.append(request.full_url)
        assert timeout <= 30
        if "first" in request.full_url:
            raise OSError("gone")
        return _Response(sent)

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    config = registry.look_up(registry.DATASETS, "mnist", "dataset").Config()
    md5 = hashlib.md5(b"what was published").hexdigest()
    path = tmp_path / "folder" / "file"
    urls = ["http://first/file", "http://second/file"]
    if sent == b"what was published":
        files.obtain(config, path, md5, urls)
        assert path.read_bytes() == sent
    else:
        with pytest.raises(DataError, match="is not the published one"):
            files.obtain(config, path, md5, urls)
        assert not path.exists()
    assert asked == urls
    assert os.listdir(path.parent) == (["file"] if path.exists() else [])


class Malicious:
    """Unpickling it makes a file."""

    def __reduce__(self) -> Any:
        return open, ("it-ran", "w")


def cifar_files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Six small files in CIFAR-10's format, whose checksums are taken for the published ones."""
    contents = {}
    for k, (name, _) in enumerate(datasets.CIFAR10.train_list + datasets.CIFAR10.test_list):
        pixels = np.full((4, 3072), k, np.uint8)
        pixels[:, 1024:2048] += 10  # green
        contents[name] = pickle.dumps({"data": pixels, "labels": [k, 1, 2, 3]})
    listed = [[name, hashlib.md5(content).hexdigest()] for name, content in contents.items()]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", listed[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", listed[5:])
    return contents


def write_cifar(root: Path, contents: dict[str, bytes]) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def check_cifar(dataset: Dataset) -> None:
    assert [dataset.size(split) for split in ("train", "validation", "test")] == [18, 2, 4]
    _, batch = next(dataset.evaluation_batches("validation", 2, 0))
    assert (batch.images[0, :, 5, 5] * 255).round().tolist() == [4, 14, 4]
    assert batch.labels is not None
    assert batch.labels.tolist() == [2, 3]


def test_cifar_from_its_folder_and_from_its_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = cifar_files(monkeypatch)
    folder = write_cifar(tmp_path, contents)
    check_cifar(load("cifar10", root=str(tmp_path), validation_images=2))
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, "cifar-10-batches-py")
    shutil.rmtree(folder)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", files.md5_of(archive))
    check_cifar(load("cifar10", root=str(tmp_path), validation_images=2))
    assert not folder.exists()


@pytest.mark.parametrize("which", range(6))
def test_no_pickle_runs_before_every_checksum_agrees(
    which: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = cifar_files(monkeypatch)
    folder = write_cifar(tmp_path, contents)
    name = list(contents)[which]
    (folder / name).write_bytes(pickle.dumps(Malicious()))
    monkeypatch.setattr(pickle, "loads", lambda *_, **__: pytest.fail("unpickled"))
    with pytest.raises(DataError) as error:
        load("cifar10", root=str(tmp_path))
    assert f"{folder / name} is damaged" in one_line(error)
    assert not Path("it-ran").exists()


def test_the_malicious_pickle_would_run() -> None:
    pickle.loads(pickle.dumps(Malicious())).close()
    assert Path("it-ran").exists()


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    split_list = {}
    for part in ("train", "test"):
        pixels = np.zeros((32, 32, 3, 5), np.uint8)
        pixels[2, 3, 1] = np.arange(5)  # row 2, column 3, green
        savemat(tmp_path / f"{part}.mat", {"X": pixels, "y": np.array([[10], [1], [2], [9], [10]], np.uint8)})
        split_list[part] = ["http://nowhere", f"{part}.mat", files.md5_of(tmp_path / f"{part}.mat")]
    monkeypatch.setattr(datasets.SVHN, "split_list", split_list)
    dataset = load("svhn", root=str(tmp_path), validation_images=1)
    _, batch = next(dataset.evaluation_batches("test", 5, 0))
    assert (batch.images[:, 1, 2, 3] * 255).round().tolist() == [0, 1, 2, 3, 4]
    assert batch.images[:, [0, 2]].sum() == 0
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1, 2, 9, 0]
    (tmp_path / "test.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(DataError, match=r"test.mat is damaged"):
        load("svhn", root=str(tmp_path), validation_images=1)


@pytest.mark.parametrize("kind", ["idx", "gz", "zip"])
def test_emnist_letters_stand_upright(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.zeros((6, 28, 28), np.uint8)
    pixels[:, 20, 3] = 255  # in the file: row 20, column 3
    contents = {}
    for part in ("train", "test"):
        contents[f"emnist-letters-{part}-images-idx3-ubyte"] = idx_bytes(pixels)
        labels = np.array([1, 26, 3, 4, 5, 6], np.uint8)
        contents[f"emnist-letters-{part}-labels-idx1-ubyte"] = idx_bytes(labels)
    if kind == "zip":
        with zipfile.ZipFile(raw / "gzip.zip", "w") as archive:
            for name, content in contents.items():
                archive.writestr(f"gzip/{name}.gz", gzip.compress(content))
        monkeypatch.setattr(datasets.EMNIST, "md5", files.md5_of(raw / "gzip.zip"))
    for name, content in contents.items() if kind != "zip" else []:
        file = raw / (name if kind == "idx" else f"{name}.gz")
        file.write_bytes(content if kind == "idx" else gzip.compress(content))
    dataset = load("emnist", root=str(tmp_path), split="letters", validation_images=1)
    _, batch = next(dataset.evaluation_batches("test", 6, 0))
    assert batch.images[0, 0].nonzero().tolist() == [[3, 20]]
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 25, 2, 3, 4, 5]
    assert dataset.spec.classes == 26
    damaged = raw / "gzip.zip" if kind == "zip" else next(raw.glob("*test-images*"))
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.raises(DataError, match="is damaged"):
        load("emnist", root=str(tmp_path), split="letters", validation_images=1)


@needs_binarized
def test_binarized_mnist() -> None:
    dataset = load("binarized_mnist", root=str(TEST_DATA))
    assert [dataset.size(split) for split in ("train", "validation", "test")] == [50000, 10000, 10000]
    assert dataset.spec.binarization == "static"
    assert dataset.spec.levels == 2
    batch = next(dataset.batches(0, 64))
    assert batch.images.unique().tolist() == [0, 1]
    assert batch.labels is None
    with np.load(TEST_DATA / "binarized_mnist.npz") as arrays:
        wanted = np.unpackbits(arrays["test"], axis=1)
    _, batch = next(dataset.evaluation_batches("test", 10000, 0))
    assert np.array_equal(batch.images.flatten(1).numpy(), wanted)


@needs_binarized
@pytest.mark.parametrize("folder", ["", "binarized_mnist"])
def test_binarized_mnist_as_text(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    # The smallest of the published files stands for all three, which saves 90 MB.
    monkeypatch.setattr(
        binarized_mnist,
        "_PARTS",
        dict.fromkeys(("train", "validation", "test"), binarized_mnist._PARTS["test"]),
    )
    with np.load(TEST_DATA / "binarized_mnist.npz") as arrays:
        pixels = np.unpackbits(arrays["test"], axis=1)
    text = np.full((len(pixels), 784 * 2), ord(" "), np.uint8)
    text[:, ::2] = pixels + ord("0")
    text[:, -1] = ord("\n")
    file = tmp_path / folder / "binarized_mnist_test.amat"
    file.write_bytes(text.tobytes())
    a, b = load("binarized_mnist", root=str(tmp_path)), load("binarized_mnist", root=str(TEST_DATA))
    pairs = zip(a.evaluation_batches("test", 5000, 0), b.evaluation_batches("test", 5000, 0), strict=True)
    for (_, x), (_, y) in pairs:
        assert torch.equal(x.images, y.images)
    text[77, 100] ^= 1
    file.write_bytes(text.tobytes())
    with pytest.raises(DataError, match=r"binarized_mnist_test.amat is damaged"):
        load("binarized_mnist", root=str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"PK nonsense", pickle.dumps({"train": 1})])
def test_damaged_binarized_mnist(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "binarized_mnist.npz").write_bytes(content)
    with pytest.raises(DataError) as error:
        load("binarized_mnist", root=str(tmp_path))
    assert "binarized_mnist.npz is damaged" in one_line(error)


@pytest.mark.download
@pytest.mark.parametrize("name", DOWNLOADED)
def test_downloads(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(FashionMNIST, "system_folders", ())
    next(load(name, root=str(tmp_path)).batches(0, 8))
