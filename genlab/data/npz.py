"""Arrays of images in a .npz file."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genlab.config.datasets import NpzConfig
from genlab.data.arrays import ArrayFile, listed, to_tensor
from genlab.data.dataset import Dataset, convert, from_arrays, make_spec, pixels_of, training_rows
from genlab.data.labels import count_classes, warn_of_missing
from genlab.data.scale import remedy_for, warn_if_dark
from genlab.data.stream import Items, Source, Streamed
from genlab.log import log
from genlab.memory import machine_memory
from genlab.rng import derive_seed

_SPLITS = ("train", "test", "validation")

_WORDS = {"train": ("train",), "test": ("test",), "validation": ("validation", "valid", "val")}
"""Words for a split in the names of arrays."""

_LOOKED_AT = 4096
"""Number of images by which the scale of an array is judged, if it stays in its file."""


class Npz:
    """uint8 images, (N, H, W), (N, H, W, C) or (N, C, H, W), with C = 1 or 3.

    The file contains `train_images` and optionally `test_images` and `validation_images`, each optionally
    with its `..._labels`; or `images` and optionally `labels`. Other usual names are understood too:
    `x_train` and `y_train`; `x` and `y`; `train`; and numpy's own `arr_0` and so on, where one-dimensional
    arrays are the labels of the images before them. Missing splits are held out of the training images, the
    same ones each time. Labels are integers from 0. Pickled objects are never loaded. A file larger than the
    memory limit is read in pieces as needed, for which it must be uncompressed (numpy.savez).
    """

    Config = NpzConfig

    @classmethod
    def load(cls, config: NpzConfig) -> Dataset:
        """Opens the file.

        Raises:
            DataError: the file is missing, damaged, or has other content; the message names the array.
        """
        file = _File(config)
        arrays = file.find()
        pictures = {split: file.images(names[0]) for split, names in arrays.items()}
        labels = {split: file.labels(names[1], len(pictures[split])) for split, names in arrays.items()}
        if len({value is None for value in labels.values()}) > 1:
            raise file.error("has labels for some of its splits only; give all of them or none")
        if len({picture.shape[1:] for picture in pictures.values()}) > 1:
            raise file.error("its splits hold images of different shapes")
        rows = _hold_out({split: len(picture) for split, picture in pictures.items()}, config)
        classes = count_classes([y for y in labels.values() if y is not None], file.given)
        parts = {}
        for split in rows:
            origin, chosen = rows[split]
            y = labels[origin]
            parts[split] = (pictures[origin], chosen, None if y is None else y[chosen])
        if not file.too_large:
            train, validation, test = (
                (to_tensor(array[chosen.numpy()]), y) for array, chosen, y in parts.values()
            )
            return from_arrays(
                config, train, test, validation=validation, classes=classes, resampling=config.resampling
            )
        array, chosen, y = parts["train"]
        kept = training_rows(config, len(chosen))
        parts["train"] = array, chosen[kept], None if y is None else y[kept]
        warn_of_missing(config.name, parts["train"][2], classes)
        sources: dict[str, Source] = {}
        for split, (array, chosen, y) in parts.items():
            sources[split] = Streamed(MappedImages(array, chosen, config), y, workers=0)
        shape = convert(to_tensor(np.array(pictures["train"][:1])), config.size, config.channels).shape[1:]
        return Dataset(make_spec(config, shape, 256, classes), sources, pixels_of(config, 256))


class MappedImages(Items):
    """Images that are read from the file on access."""

    def __init__(self, array: np.ndarray, rows: Tensor, config: NpzConfig) -> None:
        self.array, self.rows, self.config = array, rows, config

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Tensor) -> Tensor:
        images, config = to_tensor(self.array[self.rows[rows].numpy()]), self.config
        return convert(images, config.size, config.channels, config.resampling)


class _File:
    """The arrays of one .npz file, checked."""

    def __init__(self, config: NpzConfig) -> None:
        self.config = config
        self.given = f"dataset.path={config.path}"
        self._file = ArrayFile(Path(os.path.expanduser(config.path)), self.given)
        self.error = self._file.error
        self.too_large = False

    def find(self) -> dict[str, tuple[str, str | None]]:
        """Returns, for each split in the file, the names of its images and of its labels.

        Raises:
            DataError: there are no training images.
        """
        known = {name.lower(): name for name in self._file.names}

        def named(images: Iterable[str], labels: Iterable[str]) -> tuple[str, str | None] | None:
            found = next((known[name] for name in images if name in known), None)
            if found is None:
                return None
            return found, next((known[name] for name in labels if name in known), None)

        arrays: dict[str, tuple[str, str | None]] = {}
        for split, words in _WORDS.items():
            images = [form.format(word) for word in words for form in ("{}_images", "x_{}", "{}")]
            labels = [form.format(word) for word in words for form in ("{}_labels", "y_{}")]
            if pair := named(images, labels):
                arrays[split] = pair
        if not arrays:
            alone = named(("images", "x"), ("labels", "y"))
            arrays = {"train": alone} if alone else self._unnamed()
        if "train" not in arrays:
            raise self.error(f"has no array train_images or images, but {listed(self._file.names)}")
        if "train_images" not in known and "images" not in known:
            words = (
                f"{x} as {split} images{f' with labels {y}' if y else ''}" for split, (x, y) in arrays.items()
            )
            log.info("%s: takes %s", self.config.path, ", ".join(words))
        stored = sum(self._file.header(x).bytes for x, _ in arrays.values())
        self.too_large = stored > min(self.config.memory_limit_gib * 2**30, machine_memory())
        return arrays

    def _unnamed(self) -> dict[str, tuple[str, str | None]]:
        """Returns the splits of arrays that numpy named in the order in which they were saved."""
        names = [name for k in range(len(self._file.names)) if (name := f"arr_{k}") in self._file.names]
        arrays: list[tuple[str, str | None]] = []
        for name in names:
            if len(self._file.header(name).shape) != 1:
                arrays.append((name, None))
            elif arrays and arrays[-1][1] is None:
                arrays[-1] = (arrays[-1][0], name)
            else:
                raise self.error(f"{name} has labels, but there are no images before it; name the arrays")
        if len(arrays) > len(_SPLITS):
            raise self.error(f"has {len(arrays)} arrays of images without names; name them train_images ...")
        return dict(zip(_SPLITS, arrays, strict=False))

    def images(self, name: str) -> np.ndarray:
        """Returns (N, H, W), (N, H, W, C) or (N, C, H, W) uint8, not yet read if the file is too large."""
        header = self._file.header(name)
        shape, dtype = header.shape, header.dtype
        layout = len(shape) == 3 or (len(shape) == 4 and (shape[3] in (1, 3) or shape[1] in (1, 3)))
        if dtype == np.uint8 and not (layout and math.prod(shape[1:])):
            raise self.error(
                f"{name} has shape {shape}; expected (N, H, W), (N, H, W, C) or (N, C, H, W), C = 1 or 3"
            )
        if self.too_large and self._file.compressed(name):
            raise self.error(
                "is compressed and larger than "
                f"dataset.memory_limit_gib={self.config.memory_limit_gib}; "
                "write it with numpy.savez, or raise the limit"
            )
        if self.too_large and header.fortran:
            raise self.error(f"{name} is in Fortran order; save numpy.ascontiguousarray({name})")
        array = self._file.mapped(name) if self.too_large else self._file.read(name)
        some = array[:: max(1, len(array) // _LOOKED_AT)] if self.too_large else array
        if dtype != np.uint8:
            raise self.error(f"{name} is {dtype}, not uint8; {remedy_for(some)}")
        warn_if_dark(f"{self.given}: {name}", some, self.config.binarize == "threshold")
        return array

    def labels(self, name: str | None, count: int) -> Tensor | None:
        """Returns (N,) int64, or None if the file has no labels."""
        if name is None:
            return None
        header = self._file.header(name)
        fits = header.dtype.kind in "iu" and header.shape == (count,)
        array = self._file.read(name) if fits else np.zeros(0, np.int64)
        if not fits or (count and (array.min() < 0 or array.max() >= 2**62)):
            raise self.error(
                f"{name} is {header.dtype} of shape {header.shape}; expected {count} whole numbers from 0"
            )
        return torch.from_numpy(array.astype(np.int64))


def _hold_out(counts: dict[str, int], config: NpzConfig) -> dict[str, tuple[str, Tensor]]:
    """Returns, for each split, the array it comes from and the rows of it, ascending."""
    rows = {split: (split, torch.arange(count)) for split, count in counts.items()}
    missing = [split for split in ("test", "validation") if split not in rows]
    shuffled = torch.randperm(counts["train"], generator=torch.Generator().manual_seed(derive_seed(0, "npz")))
    for split in missing:
        share = config.test_share if split == "test" else config.validation_share
        count = round(share * counts["train"])
        rows[split] = ("train", shuffled[:count].sort().values)
        shuffled = shuffled[count:]
    rows["train"] = ("train", shuffled.sort().values)
    return {split: rows[split] for split in ("train", "validation", "test")}
