"""Reading of .npz files that anyone may have written: nothing is believed before it is checked."""

from __future__ import annotations

import io
import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genlab.errors import DataError
from genlab.memory import gib, machine_memory

_HEADER_BYTES = 16_384
"""Bytes of a member in which its header must end; numpy itself accepts headers of 10,000 characters."""

_CHUNK_BYTES = 1 << 22

_DAMAGED = (
    OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError, MemoryError, RecursionError,
    OverflowError, NotImplementedError, RuntimeError, struct.error, tokenize.TokenError, zlib.error,
    zipfile.BadZipFile, zipfile.LargeZipFile,
)  # fmt: skip
"""The errors that `zipfile` and numpy raise for files that are damaged, or made to harm."""


class Header(NamedTuple):
    """The description of an array in a file.

    shape, dtype: of the array.
    fortran: the first index varies fastest in the file.
    start: position of the numbers within the member, in bytes.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    start: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class ArrayFile:
    """The arrays of one .npz file.

    A member's length is compared with its header before memory is allocated, and no more is read than the
    header says. Pickled objects are never loaded.

    Args:
        path: the file.
        given: the setting and the value that name it, for error messages, e.g. "dataset.path=a.npz".

    Attributes:
        names: of the arrays, in the file's order.

    Raises:
        DataError: it does not exist, or is no .npz file.
    """

    def __init__(self, path: Path, given: str) -> None:
        self.path, self._given = path, given
        try:
            if not path.is_file():
                raise self.error("no such file")
            with zipfile.ZipFile(path) as archive:
                self._members = {
                    info.filename.removesuffix(".npy"): info
                    for info in archive.infolist()
                    if info.filename.endswith(".npy")
                }
        except OSError as error:
            raise self.error(f"cannot be read: {error.strerror or error}") from error
        except _DAMAGED as error:
            raise self.error(
                "cannot be read as an .npz file (it is no .npz file, or a damaged one); "
                "write it with numpy.savez"
            ) from error
        self.names = list(self._members)

    def error(self, what: str) -> DataError:
        """Returns the error that says what is wrong with the file."""
        return DataError(f"{self._given}: {' '.join(what.split())}")  # names of arrays may hold anything

    def header(self, name: str) -> Header:
        """Returns the description of an array, after comparing it with the length of the member.

        Raises:
            DataError: the array is encrypted, damaged, of pickled objects or of no numbers.
        """
        info = self._members[name]
        if info.flag_bits & 1:
            raise self.error(f"{name} is encrypted; write the file with numpy.savez")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self.error(
                f"{name} is compressed by another method than numpy's; write it with numpy.savez"
            )
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(info) as member:
                found = _parse(member.read(_HEADER_BYTES))
        except _DAMAGED as error:
            raise self._damaged(name, error) from error
        if found.dtype.hasobject:
            raise self.error(f"{name} holds pickled objects, which could run code; save it as numbers")
        if found.dtype.kind not in "biufc":
            raise self.error(f"{name} is {found.dtype}; save it as numbers")
        if min(found.shape, default=0) < 0 or max(found.shape, default=0) >= 2**40 or len(found.shape) > 32:
            raise self.error(f"{name} is damaged: its header has no possible shape")
        if found.start + found.bytes != info.file_size:
            raise self.error(
                f"{name} is damaged: its header says {found.dtype} of shape {found.shape}, "
                f"{found.bytes:,} bytes, and {info.file_size - found.start:,} follow"
            )
        return found

    def compressed(self, name: str) -> bool:
        """Returns whether an array is compressed, so that it cannot be mapped."""
        return self._members[name].compress_type != zipfile.ZIP_STORED

    def read(self, name: str) -> np.ndarray:
        """Reads an array into memory.

        Raises:
            DataError: as `header`; also for an array that is larger than the machine's memory.
        """
        header = self.header(name)
        if header.bytes > machine_memory():
            raise self.error(
                f"{name} has {gib(header.bytes)}, the memory {gib(machine_memory())}; save fewer images, "
                "or lower dataset.memory_limit_gib and write it with numpy.savez"
            )
        try:
            content = np.empty(header.bytes, np.uint8)
            place = 0
            with zipfile.ZipFile(self.path) as archive, archive.open(self._members[name]) as member:
                member.read(header.start)
                while place < header.bytes:
                    part = member.read(min(_CHUNK_BYTES, header.bytes - place))
                    if not part:
                        raise EOFError
                    content[place : place + len(part)] = np.frombuffer(part, np.uint8)
                    place += len(part)
                if member.read(1):  # at the member's end zipfile compares its checksum
                    raise EOFError
            order = "F" if header.fortran else "C"
            return content.view(header.dtype).reshape(header.shape, order=order)
        except _DAMAGED as error:
            raise self._damaged(name, error) from error

    def mapped(self, name: str) -> np.ndarray:
        """Maps an array that stays in the file; numpy itself maps only files outside of archives.

        Raises:
            DataError: as `header`; also for an array that is compressed or ends after its file.
        """
        header, info = self.header(name), self._members[name]
        try:
            with self.path.open("rb") as file:
                file.seek(info.header_offset)  # a zip's local header: 30 bytes, then a name and extras
                local = file.read(30)
                end = file.seek(0, io.SEEK_END)
            if local[:4] != b"PK\3\4":
                raise ValueError("no local header")
            start = info.header_offset + 30 + sum(struct.unpack("<HH", local[26:])) + header.start
            if start + header.bytes > end:
                raise EOFError
            if not header.bytes:
                return np.empty(header.shape, header.dtype)
            order = "F" if header.fortran else "C"
            return np.memmap(self.path, header.dtype, "r", start, header.shape, order)
        except _DAMAGED as error:
            raise self._damaged(name, error) from error

    def _damaged(self, name: str, error: BaseException) -> DataError:
        return self.error(f"{name} is damaged or too large to read ({type(error).__name__})")


def listed(names: Sequence[str]) -> str:
    """Returns the names of arrays for a message: the first ones if there are many."""
    short = [name[:40] for name in names[:10]]
    return ", ".join([*short, *(["..."] if len(names) > len(short) else [])]) or "nothing"


def to_tensor(array: np.ndarray) -> Tensor:
    """Returns (N, C, H, W) from an array of any accepted layout."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if tensor.ndim == 3:
        return tensor.unsqueeze(1)
    return tensor.permute(0, 3, 1, 2) if tensor.shape[3] in (1, 3) else tensor


def _parse(content: bytes) -> Header:
    """Parses the first bytes of an .npy file.

    Raises:
        ValueError: they are no such header; also other errors of Python's parser.
    """
    readers = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    file = io.BytesIO(content)
    version, _ = np.lib.format.read_magic(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        shape, fortran, dtype = readers[version](file)
    return Header(tuple(shape), dtype, fortran, file.tell())
