"""Published datasets, in the folders and with the checksums of torchvision.

Raw files that are already on disk are read directly: nothing is unpacked, so that the folder may be
read-only, and the network is not used.
"""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from genlab.config.datasets import (
    CIFAR10Config,
    EMNISTConfig,
    FashionMNISTConfig,
    KMNISTConfig,
    MNISTConfig,
    SVHNConfig,
)
from genlab.data.dataset import Dataset, Images, from_arrays
from genlab.data.files import damaged, data_root, md5_of, obtain, read_verified
from genlab.data.idx import parse_idx, read_idx, unpacked

_IN_COLOUR = "use dataset=emoji: 32x32 pixels in colour, no download needed"
"""An alternative for users without colour images that must be downloaded."""


class _IdxSet:
    """MNIST and similar datasets: four IDX files, gzipped as published or unpacked.

    They are looked for in the folder NAME/raw of the user's data, then in the system's folders; missing files
    are downloaded into the first.
    """

    published: ClassVar[type[datasets.MNIST]]
    images: ClassVar[dict[str, int]] = {"train": 60000, "t10k": 10000}
    contents: ClassVar[dict[str, str]] = {}
    """File -> MD5 of its unpacked content, if known. The published checksums are those of the gzipped files,
    whose headers contain a time. With those alone a recompressed file is refused, and of an unpacked one only
    the shape is checked."""
    system_folders: ClassVar[tuple[Path, ...]] = ()
    """The folder in which a package of the system installs the four files."""
    package: ClassVar[str] = ""
    """How to install that package."""

    @classmethod
    def load(cls, config: Any) -> Dataset:
        """Reads the four files, downloading missing ones.

        Raises:
            DataError: a file is missing or damaged.
        """
        train, test = cls._split(config, "train"), cls._split(config, "t10k")
        return from_arrays(config, train, test, validation=config.validation_images, classes=10)

    @classmethod
    def _split(cls, config: Any, part: str) -> Images:
        count = cls.images[part]
        images = cls._array(config, f"{part}-images-idx3-ubyte", (count, 28, 28))
        labels = cls._array(config, f"{part}-labels-idx1-ubyte", (count,))
        return images.unsqueeze(1), labels.long()

    @classmethod
    def _array(cls, config: Any, name: str, shape: tuple[int, ...]) -> Tensor:
        own = data_root(config.root) / cls.published.__name__ / "raw"
        places = [folder / file for folder in (own, *cls.system_folders) for file in (f"{name}.gz", name)]
        path = next((place for place in places if place.is_file()), places[0])
        md5 = dict(cls.published.resources)[f"{name}.gz"]
        obtain(config, path, md5, [f"{mirror}{name}.gz" for mirror in cls.published.mirrors], cls.package)
        if not cls.contents and path.suffix == ".gz":
            read_verified(config, path, md5)
        return read_idx(config, path, shape, cls.contents.get(name))


class MNIST(_IdxSet):
    """60,000 training and 10,000 test images of 28x28, 10 classes."""

    Config = MNISTConfig
    published = datasets.MNIST
    contents = {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }


class FashionMNIST(_IdxSet):
    """60,000 training and 10,000 test images of 28x28, 10 classes."""

    Config = FashionMNISTConfig
    published = datasets.FashionMNIST
    contents = {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    }
    system_folders = (Path("/usr/share/datasets/fashion-mnist"),)
    package = "install it on Debian or Ubuntu: apt-get install dataset-fashion-mnist"


class KMNIST(_IdxSet):
    """60,000 training and 10,000 test images of 28x28, 10 classes."""

    Config = KMNISTConfig
    published = datasets.KMNIST


class EMNIST:
    """28x28 images with six choices of classes. The files contain them transposed; here they are upright."""

    Config = EMNISTConfig
    classes: ClassVar[dict[str, int]] = {
        "balanced": 47, "byclass": 62, "bymerge": 47, "letters": 26, "digits": 10, "mnist": 10,
    }  # fmt: skip

    @classmethod
    def load(cls, config: EMNISTConfig) -> Dataset:
        """Reads the split from gzip.zip, or from its IDX files if these are unpacked.

        Raises:
            DataError: a file is missing or damaged.
        """
        train, test = cls._split(config, "train"), cls._split(config, "test")
        classes = cls.classes[config.split]
        return from_arrays(config, train, test, validation=config.validation_images, classes=classes)

    @classmethod
    def _split(cls, config: EMNISTConfig, part: str) -> Images:
        name = f"emnist-{config.split}-{part}-images-idx3-ubyte"
        images = cls._array(config, name, None)
        if images.shape[1:] != (28, 28):
            raise damaged(config, data_root(config.root) / "EMNIST" / "raw" / name)
        labels = cls._array(config, f"emnist-{config.split}-{part}-labels-idx1-ubyte", (len(images),))
        labels = labels.long() - (1 if config.split == "letters" else 0)  # letters are numbered from 1
        return images.transpose(1, 2).unsqueeze(1), labels

    @classmethod
    def _array(cls, config: EMNISTConfig, name: str, shape: tuple[int, ...] | None) -> Tensor:
        folder = data_root(config.root) / "EMNIST" / "raw"
        archive = folder / "gzip.zip"
        if (folder / name).is_file():
            return read_idx(config, folder / name, shape)
        if (folder / f"{name}.gz").is_file():
            return read_idx(config, folder / f"{name}.gz", shape)
        obtain(config, archive, datasets.EMNIST.md5, [datasets.EMNIST.url])
        if not _known_good(archive, datasets.EMNIST.md5):
            raise damaged(config, archive)
        with zipfile.ZipFile(archive) as members:
            return parse_idx(unpacked(members.read(f"gzip/{name}.gz")))


_checked: set[tuple[Path, int, int]] = set()


def _known_good(path: Path, md5: str) -> bool:
    """Returns whether a large file has its checksum; computed once in a process."""
    state = path.stat()
    key = (path, state.st_size, state.st_mtime_ns)
    if key not in _checked and md5_of(path) == md5:
        _checked.add(key)
    return key in _checked


class CIFAR10:
    """50,000 training and 10,000 test images of 32x32 in colour, 10 classes.

    The files are pickles, which could run code: none is unpickled before its checksum is verified.
    """

    Config = CIFAR10Config
    published = datasets.CIFAR10

    @classmethod
    def load(cls, config: CIFAR10Config) -> Dataset:
        """Reads the unpacked folder if it exists, otherwise the archive, downloaded if missing.

        Raises:
            DataError: a file is missing or damaged.
        """
        root = data_root(config.root)
        folder = root / cls.published.base_folder
        listed = [*cls.published.train_list, *cls.published.test_list]
        if folder.is_dir() and all((folder / name).is_file() for name, _ in listed):
            contents = [read_verified(config, folder / name, md5) for name, md5 in listed]
        else:
            archive = root / cls.published.filename
            obtain(config, archive, cls.published.tgz_md5, [cls.published.url], _IN_COLOUR)
            packed = io.BytesIO(read_verified(config, archive, cls.published.tgz_md5))
            with tarfile.open(fileobj=packed) as tar:
                files = {name: tar.extractfile(f"{cls.published.base_folder}/{name}") for name, _ in listed}
                contents = [file.read() for file in files.values() if file]
        batches = [cls._unpickle(content) for content in contents]
        train = torch.cat([images for images, _ in batches[:-1]]), torch.cat([y for _, y in batches[:-1]])
        return from_arrays(config, train, batches[-1], validation=config.validation_images, classes=10)

    @staticmethod
    def _unpickle(content: bytes) -> tuple[Tensor, Tensor]:
        batch = pickle.loads(content, encoding="latin1")
        return torch.from_numpy(batch["data"]).view(-1, 3, 32, 32), torch.tensor(batch["labels"])


class SVHN:
    """73,257 training and 26,032 test images of 32x32 in colour, 10 classes."""

    Config = SVHNConfig

    @classmethod
    def load(cls, config: SVHNConfig) -> Dataset:
        """Reads the two MATLAB files, downloading missing ones.

        Raises:
            DataError: a file is missing or damaged.
        """
        train, test = cls._split(config, "train"), cls._split(config, "test")
        return from_arrays(config, train, test, validation=config.validation_images, classes=10)

    @staticmethod
    def _split(config: SVHNConfig, part: str) -> Images:
        from scipy.io import loadmat

        url, name, md5 = datasets.SVHN.split_list[part]
        path = data_root(config.root) / name
        obtain(config, path, md5, [url], _IN_COLOUR)
        content = loadmat(io.BytesIO(read_verified(config, path, md5)))
        labels = content["y"].astype(np.int64).reshape(-1) % 10  # the digit 0 is labelled 10
        images = np.ascontiguousarray(content["X"].transpose(3, 2, 0, 1))
        return torch.from_numpy(images), torch.from_numpy(labels)
