"""Arrays of images in a .npz file."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genlab.config.datasets import NpzConfig
from genlab.data.dataset import Dataset, convert, from_arrays, make_spec, pixels_of, training_rows
from genlab.data.stream import Items, Source, Streamed
from genlab.errors import DataError
from genlab.rng import derive_seed

_SPLITS = ("train", "validation", "test")
_UNREADABLE = (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile, MemoryError, SyntaxError)


class Npz:
    """uint8 images, (N, H, W), (N, H, W, C) or (N, C, H, W), with C = 1 or 3.

    The file contains `train_images` and optionally `test_images` and `validation_images`, each optionally
    with its `..._labels`; or `images` and optionally `labels`. Missing splits are held out of the training
    images, the same ones each time. Labels are integers from 0. Pickled objects are never loaded. A file
    larger than the memory limit is read in pieces as needed, for which it must be uncompressed (numpy.savez).
    """

    Config = NpzConfig

    @classmethod
    def load(cls, config: NpzConfig) -> Dataset:
        """Opens the file.

        Raises:
            DataError: the file is missing, damaged, or has other content; the message names the array.
        """
        file = _File(config)
        arrays = {split: (f"{split}_images", f"{split}_labels") for split in _SPLITS}
        arrays = {split: names for split, names in arrays.items() if names[0] in file.members}
        if not arrays and "images" in file.members:
            arrays = {"train": ("images", "labels")}
        if "train" not in arrays:
            found = ", ".join(file.members) or "nothing"
            raise file.error(f"has no array train_images or images, but {found}")
        pictures = {split: file.images(names[0]) for split, names in arrays.items()}
        labels = {split: file.labels(names[1], len(pictures[split])) for split, names in arrays.items()}
        if len({value is None for value in labels.values()}) > 1:
            raise file.error("has labels for some of its splits only; give all of them or none")
        if len({picture.shape[1:] for picture in pictures.values()}) > 1:
            raise file.error("its splits hold images of different shapes")
        rows = _hold_out({split: len(picture) for split, picture in pictures.items()}, config)
        classes = max((int(y.max()) + 1 for y in labels.values() if y is not None and len(y)), default=0)
        parts = {}
        for split in _SPLITS:
            origin, chosen = rows[split]
            y = labels[origin]
            parts[split] = (pictures[origin], chosen, None if y is None else y[chosen])
        if not file.too_large:
            train, validation, test = (
                (_to_tensor(array[chosen.numpy()]), y) for array, chosen, y in parts.values()
            )
            return from_arrays(
                config, train, test, validation=validation, classes=classes, resampling=config.resampling
            )
        array, chosen, y = parts["train"]
        kept = training_rows(config, len(chosen))
        parts["train"] = array, chosen[kept], None if y is None else y[kept]
        sources: dict[str, Source] = {}
        for split, (array, chosen, y) in parts.items():
            sources[split] = Streamed(MappedImages(array, chosen, config), y, workers=0)
        shape = convert(_to_tensor(np.array(pictures["train"][:1])), config.size, config.channels).shape[1:]
        return Dataset(make_spec(config, shape, 256, classes), sources, pixels_of(config, 256))


class MappedImages(Items):
    """Images that are read from the file on access."""

    def __init__(self, array: np.ndarray, rows: Tensor, config: NpzConfig) -> None:
        self.array, self.rows, self.config = array, rows, config

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Tensor) -> Tensor:
        images, config = _to_tensor(self.array[self.rows[rows].numpy()]), self.config
        return convert(images, config.size, config.channels, config.resampling)


class _File:
    """The arrays of one .npz file, checked."""

    def __init__(self, config: NpzConfig) -> None:
        self.config = config
        self.path = Path(config.path).expanduser()
        if not self.path.is_file():
            raise self.error("no such file")
        try:
            with zipfile.ZipFile(self.path) as archive:
                self.members = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
                stored = sum(i.file_size for i in archive.infolist() if i.filename.endswith("images.npy"))
        except zipfile.BadZipFile as error:
            raise self.error("is no .npz file, or a damaged one; write it with numpy.savez") from error
        except OSError as error:
            raise self.error(f"cannot be read: {error.strerror}") from error
        self.too_large = stored > config.memory_limit_gib * 2**30

    def error(self, what: str) -> DataError:
        return DataError(f"dataset.path={self.config.path}: {what}")

    def images(self, name: str) -> np.ndarray:
        """Returns (N, H, W), (N, H, W, C) or (N, C, H, W) uint8, not yet read if the file is too large."""
        array = self._map(name) if self.too_large else self._read(name)
        if array.dtype != np.uint8:
            raise self.error(f"{name} is {array.dtype}, not uint8; save (255 * x).round().astype('uint8')")
        layout = array.ndim == 3 or (
            array.ndim == 4 and (array.shape[3] in (1, 3) or array.shape[1] in (1, 3))
        )
        if not layout or not math.prod(array.shape[1:]):
            raise self.error(
                f"{name} has shape {array.shape}; expected "
                "(N, H, W), (N, H, W, C) or (N, C, H, W), C = 1 or 3"
            )
        return array

    def labels(self, name: str, count: int) -> Tensor | None:
        """Returns (N,) int64, or None if the file has no labels."""
        if name not in self.members:
            return None
        array = self._read(name)
        if array.dtype.kind not in "iu" or array.shape != (count,) or (count and array.min() < 0):
            raise self.error(
                f"{name} is {array.dtype} of shape {array.shape}; expected {count} whole numbers from 0"
            )
        return torch.from_numpy(array.astype(np.int64))

    def _read(self, name: str) -> np.ndarray:
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                return arrays[name]
        except _UNREADABLE as error:
            if "allow_pickle" in str(error):
                raise self.error(
                    f"{name} holds pickled objects, which could run code; save it as numbers"
                ) from error
            raise self.error(f"{name} is damaged or too large to read ({type(error).__name__})") from error

    def _map(self, name: str) -> np.ndarray:
        """Maps an array that stays in the file; numpy itself maps only files outside of archives."""
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as member:
                info = archive.getinfo(f"{name}.npy")
                if info.compress_type != zipfile.ZIP_STORED:
                    raise self.error(
                        "is compressed and larger than "
                        f"dataset.memory_limit_gib={self.config.memory_limit_gib}; "
                        "write it with numpy.savez, or raise the limit"
                    )
                reader: Any = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
                shape, fortran, dtype = reader[np.lib.format.read_magic(member)[0]](member)
                header = member.tell()
            with self.path.open("rb") as file:
                file.seek(info.header_offset + 26)  # a zip's local header: 30 bytes, then a name and extras
                lengths = file.read(4)
            start = info.header_offset + 30 + int.from_bytes(lengths[:2], "little")
            start += int.from_bytes(lengths[2:], "little") + header
            if dtype.hasobject or fortran:
                raise self.error(
                    f"{name} holds pickled objects or is in Fortran order; save it as plain numbers"
                )
            return np.memmap(self.path, dtype, "r", start, shape)
        except (*_UNREADABLE, KeyError) as error:
            raise self.error(f"{name} is damaged ({type(error).__name__})") from error


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
    return {split: rows[split] for split in _SPLITS}


def _to_tensor(array: np.ndarray) -> Tensor:
    """Returns (N, C, H, W) from an array of any accepted layout."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if tensor.ndim == 3:
        return tensor.unsqueeze(1)
    return tensor.permute(0, 3, 1, 2) if tensor.shape[3] in (1, 3) else tensor
