"""MNIST in Larochelle's fixed binarisation, on which most likelihoods in the literature are reported."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from genlab.config.datasets import BinarizedMNISTConfig
from genlab.data.arrays import ArrayFile
from genlab.data.dataset import Dataset
from genlab.data.files import MOST_BYTES, damaged, data_root, obtain
from genlab.data.pixels import Pixels
from genlab.data.spec import DataSpec
from genlab.data.stream import Resident, Source
from genlab.errors import DataError

_URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
_PARTS = {
    "train": ("train", 50000, "727146c35424b019f3e350e1e69faa05644a0abaf787e3f4e1a9632220a13906"),
    "validation": ("valid", 10000, "a256ac44ae26be720fad8616a05ed6ecfd1619930d9a208379bb2a4405df5b6d"),
    "test": ("test", 10000, "9fcd8da6f0fdf09b2ba30fe63a0bb784042a0de82563172530229b983e294ff2"),
}
"""Split -> name in the files, number of images, and SHA-256 of its pixels packed eight to a byte."""


class BinarizedMNIST:
    """28x28 pixels of 0 or 1, the same in every epoch."""

    Config = BinarizedMNISTConfig

    @classmethod
    def load(cls, config: BinarizedMNISTConfig) -> Dataset:
        """Reads binarized_mnist.npz, or the three .amat files, from the root or its folder binarized_mnist.

        The npz holds `train`, `valid` and `test`, (n, 98) uint8: numpy.packbits(pixels, axis=1).

        Raises:
            DataError: a file is missing or damaged.
        """
        root = data_root(config.root)
        sources: dict[str, Source] = {}
        for split, (part, count, sha256) in _PARTS.items():
            path = next((p for p in cls._places(root, part) if p.is_file()), None)
            if path is None:
                path = root / "binarized_mnist" / f"binarized_mnist_{part}.amat"
                obtain(config, path, "", [_URL + path.name])
            packed = _read_packed(path, part, count * 98)
            if packed is None or hashlib.sha256(packed.tobytes()).hexdigest() != sha256:
                raise damaged(config, path)
            pixels = torch.from_numpy(np.unpackbits(packed.reshape(count, 98), axis=1))
            sources[split] = Resident(pixels.view(count, 1, 28, 28), None)
        spec = DataSpec(config.name, 1, 28, 28, levels=2, binarization="static")
        return Dataset(spec, sources, Pixels(levels=2, flip=config.flip))

    @staticmethod
    def _places(root: Path, part: str) -> list[Path]:
        text = f"binarized_mnist_{part}.amat"
        return [root / "binarized_mnist.npz", root / "binarized_mnist" / text, root / text]


def _read_packed(path: Path, part: str, count: int) -> np.ndarray | None:
    """Reads (count,) uint8, eight pixels to a byte; returns None if the content cannot be such pixels."""
    try:
        if path.suffix == ".npz":
            file = ArrayFile(path, f"dataset.root={path.parent}")
            header = file.header(part) if part in file.names else None
            if header is None or header.dtype != np.uint8 or header.bytes != count:
                return None
            return file.read(part).reshape(-1)
        if path.stat().st_size > MOST_BYTES:
            return None
        text = np.frombuffer(path.read_bytes(), np.uint8)
    except DataError as error:
        if isinstance(error.__cause__, PermissionError):
            raise
        return None
    except OSError as error:
        raise DataError(f"dataset.root={path.parent}: {path.name} cannot be read") from error
    digits = text[text > ord(" ")] - ord("0")
    return np.packbits(digits) if len(digits) and digits.max() <= 1 else None
