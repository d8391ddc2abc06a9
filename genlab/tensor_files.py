"""Files of tensors and plain values: their structure is checked before anything is allocated.

A file of `torch.save` is a zip archive: a pickle describes the values, and each storage is a record of bytes.
`torch.load(weights_only=True)` runs no code of a file, but does what the pickle says: it may allocate memory
without limit, nest values so deep that Python fails, or return tensors that are not what they seem. So
`outline` interprets the pickle first: only the operations that describe tensors, numbers, words, lists and
dictionaries are known to it, and each number is compared with what the archive has.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
from collections.abc import Callable
from typing import IO, Any, NamedTuple

import torch

MOST_VALUES = 1_000_000
"""Values of one file: a checkpoint of a thousand layers has about 100,000."""

MOST_DEPTH = 16
"""Lists and dictionaries within each other: a checkpoint has 6."""

_MOST_PICKLE_BYTES = 8 * 2**20
_MOST_DIRECTORY_BYTES = 4 * 2**20
_MOST_OPERATIONS = 4_000_000
_MOST_CHARACTERS = 10_000
_MOST_DIMENSIONS = 16
_PADDING_BYTES = 512  # of a record: its header, its name, and zeros up to the next multiple of 64

_END = struct.Struct("<4s4H2LH")  # the end of the archive's directory
_END_64_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")

_RECORD = re.compile(r"[^/]+/(data/\d{1,9}|data\.pkl|byteorder|version|\.[a-z_]+|\.data/serialization_id)")

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class StructureError(Exception):
    """A file that is not one of tensors and plain values, or whose parts do not agree with each other."""


class TensorOutline(NamedTuple):
    """The description of a tensor in a file.

    dtype, shape, stride: as of a tensor.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def outline(file: IO[bytes], comment_bytes: int = 0) -> Any:
    """Returns the values of a file, with a `TensorOutline` for each tensor, whose numbers are not read.

    Args:
        file: open for reading; its position is changed.
        comment_bytes: length of the archive's comment.

    Raises:
        StructureError: the file has another structure than `torch.save` gives to tensors and plain values.
    """
    try:
        records = _records(file, comment_bytes)
        description = _description(file, records)
    except (zipfile.BadZipFile, OSError, EOFError, struct.error, ValueError, NotImplementedError) as error:
        raise StructureError(f"damaged archive: {error}") from error
    sizes = {
        name.partition("/data/")[2]: each.file_size for name, each in records.items() if "/data/" in name
    }
    interpreter = _Interpreter(description, sizes)
    try:
        value = interpreter.run()
    except (IndexError, KeyError, TypeError, ValueError, struct.error, RecursionError) as error:
        raise StructureError("damaged description of its values") from error
    if interpreter.used != sizes.keys():
        raise StructureError("it has records that no tensor uses")
    _check_extent(value)
    return value


def load(source: IO[bytes]) -> Any:
    """Reads a file of tensors and plain values onto the CPU, after checking its structure.

    Raises:
        StructureError: see `outline`.
    """
    outline(source)
    source.seek(0)
    return load_checked(source)


def load_checked(source: IO[bytes]) -> Any:
    """Reads a file whose outline has been checked, onto the CPU.

    Raises:
        StructureError: torch cannot read it.
    """
    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; all mean that torch.save did not write the file
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise StructureError(reason) from error


def _records(file: IO[bytes], comment_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Returns the records of the archive: stored as they are, and nothing between them."""
    size = file.seek(0, io.SEEK_END)
    _check_directory(file, size, comment_bytes)
    file.seek(0)
    if file.read(4) != b"PK\3\4":
        raise StructureError("not an archive of torch.save")
    with zipfile.ZipFile(file) as archive:
        found = archive.infolist()
    records = {each.filename: each for each in found}
    if len(records) != len(found) or not all(map(_RECORD.fullmatch, records)):
        raise StructureError("it has other records than torch.save writes")
    if len({name.partition("/")[0] for name in records}) != 1:
        raise StructureError("it has records of several archives")
    end = 0
    for each in sorted(found, key=lambda each: each.header_offset):
        if each.compress_type != zipfile.ZIP_STORED or each.compress_size != each.file_size:
            raise StructureError("it has compressed records")
        if not end <= each.header_offset <= end + _PADDING_BYTES:
            raise StructureError("its records overlap, or are far apart")
        end = each.header_offset + 30 + len(each.filename.encode()) + each.file_size
    if not end <= size <= end + _PADDING_BYTES * (len(found) + 2):
        raise StructureError("its size is not that of its records")
    return records


def _check_directory(file: IO[bytes], size: int, comment_bytes: int) -> None:
    """Refuses an archive whose list of records is too long, or is not where every reader looks for it."""
    at = size - comment_bytes - _END.size
    if at < 0:
        raise StructureError("not an archive of torch.save")
    file.seek(at)
    signature, *_, count, length, start, comment = _END.unpack(file.read(_END.size))
    if signature != b"PK\5\6" or comment != comment_bytes:
        raise StructureError("not an archive of torch.save")
    found = (count, length, start)
    if at >= _END_64_LOCATOR.size + _END_64.size:
        file.seek(at - _END_64_LOCATOR.size - _END_64.size)
        large = _END_64.unpack(file.read(_END_64.size))
        signature, _, where, _ = _END_64_LOCATOR.unpack(file.read(_END_64_LOCATOR.size))
        if signature == b"PK\6\7":
            at -= _END_64_LOCATOR.size + _END_64.size
            found, short, unknown = large[7:10], found, (2**16 - 1, 2**32 - 1, 2**32 - 1)
            same = all(s in (f, u) for f, s, u in zip(found, short, unknown, strict=True))
            if large[0] != b"PK\6\6" or where != at or not same:
                raise StructureError("damaged archive")
    _, length, start = found
    if start + length != at:
        raise StructureError("damaged archive")
    if length > _MOST_DIRECTORY_BYTES:
        raise StructureError("it has too many records")


def _description(file: IO[bytes], records: dict[str, zipfile.ZipInfo]) -> bytes:
    found = [each for name, each in records.items() if name.endswith("/data.pkl")]
    if len(found) != 1 or found[0].file_size > _MOST_PICKLE_BYTES:
        raise StructureError("the description of its values is missing or too long")
    with zipfile.ZipFile(file) as archive:
        for name, each in records.items():
            if name.endswith("/byteorder") and (
                each.file_size > 8 or archive.read(each) not in (b"little", b"big")
            ):
                raise StructureError("damaged archive")
        return archive.read(found[0])


class _Storage(NamedTuple):
    """A storage in a file: its key, and the type and count of its numbers."""

    key: str
    dtype: torch.dtype
    count: int


class _Name(NamedTuple):
    """A name that the pickle may use: of `_STORAGE`, `_TENSOR` or `_ORDERED`."""

    kind: str
    dtype: torch.dtype | None = None


_TENSOR, _ORDERED = _Name("tensor"), _Name("ordered")
_NAMES = {
    b"torch._utils _rebuild_tensor_v2": _TENSOR,
    b"collections OrderedDict": _ORDERED,
    **{b"torch " + name.encode(): _Name("storage", dtype) for name, dtype in _DTYPES.items()},
}


class _Ordered(dict):
    """A dictionary that is an OrderedDict in the file."""


class _Interpreter:
    """Interprets the pickle of a file, protocol 2, without Python's own one.

    Args:
        pickle: its bytes.
        sizes: key of each storage to the length of its record, in bytes.

    Attributes:
        used: keys of the storages that tensors use.
    """

    def __init__(self, pickle: bytes, sizes: dict[str, int]) -> None:
        self.used: set[str] = set()
        self._pickle, self._sizes, self._at = pickle, sizes, 0
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._empty: list[dict] = []  # the hooks of tensors, which have none
        self._versions: list[Any] = []  # of the modules in a dictionary of weights

    def run(self) -> Any:
        """Returns the described value."""
        do, pickle = self._operations(), self._pickle
        for _ in range(_MOST_OPERATIONS):
            code = pickle[self._at]
            self._at += 1
            if code == 0x2E:  # STOP
                break
            operation = do.get(code)
            if operation is None:
                raise StructureError("it has more than tensors and plain values")
            operation()
        else:
            raise StructureError("the description of its values is too long")
        value = self._stack.pop()
        if self._stack or self._below or any(self._empty) or not all(map(_is_versions, self._versions)):
            raise StructureError("it has more than tensors and plain values")
        return value

    def _operations(self) -> dict[int, Callable[[], None]]:
        push = self._push
        constants = {b"N": lambda: None, b"\x88": lambda: True, b"\x89": lambda: False, b")": tuple}
        made = {
            **constants,
            b"}": dict,
            b"]": list,
            b"K": lambda: self._take(1)[0],
            b"M": lambda: struct.unpack("<H", self._take(2))[0],
            b"J": lambda: struct.unpack("<i", self._take(4))[0],
            b"\x8a": lambda: int.from_bytes(self._take(self._take(1)[0]), "little", signed=True),
            b"G": lambda: struct.unpack(">d", self._take(8))[0],
            b"X": self._word,
            b"c": self._name,
            b"t": lambda: tuple(self._pop_mark()),
            b"\x85": lambda: self._tuple(1),
            b"\x86": lambda: self._tuple(2),
            b"\x87": lambda: self._tuple(3),
            b"h": lambda: self._memo[self._take(1)[0]],
            b"j": lambda: self._memo[struct.unpack("<I", self._take(4))[0]],
            b"Q": lambda: self._storage(self._stack.pop()),
            b"R": self._call,
        }
        done: dict[bytes, Callable[[], Any]] = {
            b"\x80": lambda: self._take(1),
            b"(": self._mark,
            b"q": lambda: self._keep(self._take(1)[0]),
            b"r": lambda: self._keep(struct.unpack("<I", self._take(4))[0]),
            b"s": lambda: self._set([self._stack.pop(-2), self._stack.pop()]),
            b"u": lambda: self._set(self._pop_mark()),
            b"a": lambda: self._extend([self._stack.pop()]),
            b"e": lambda: self._extend(self._pop_mark()),
            b"b": self._build,
        }
        pushing = {code[0]: (lambda make=make: push(make())) for code, make in made.items()}
        return pushing | {code[0]: action for code, action in done.items()}

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _take(self, count: int) -> bytes:
        part = self._pickle[self._at : self._at + count]
        if len(part) != count:
            raise StructureError("the description of its values is truncated")
        self._at += count
        return part

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _keep(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    def _word(self) -> str:
        length = struct.unpack("<I", self._take(4))[0]
        if length > _MOST_CHARACTERS:
            raise StructureError("it has a word of too many characters")
        return self._take(length).decode("utf-8", "surrogatepass")

    def _name(self) -> _Name:
        end = self._pickle.index(b"\n", self._pickle.index(b"\n", self._at) + 1)
        name = self._pickle[self._at : end].replace(b"\n", b" ")
        self._at = end + 1
        if name not in _NAMES:
            raise StructureError("it has more than tensors and plain values")
        return _NAMES[name]

    def _tuple(self, count: int) -> tuple[Any, ...]:
        items = self._stack[-count:]
        if len(items) != count:
            raise StructureError("damaged description of its values")
        del self._stack[-count:]
        return tuple(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise StructureError("damaged description of its values")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is not str and type(key) is not int:
                raise StructureError("it has a name that is neither a word nor a number")
            target[key] = value

    def _extend(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise StructureError("damaged description of its values")
        self._stack[-1].extend(items)

    def _build(self) -> None:
        """Weights have the versions of their modules as an attribute; nothing else has attributes."""
        state = self._stack.pop()
        if type(self._stack[-1]) is not _Ordered or type(state) is not dict:
            raise StructureError("it has more than tensors and plain values")
        self._versions.append(state)

    def _storage(self, given: Any) -> _Storage:
        kind, name, key, location, count = given
        if kind != "storage" or not isinstance(name, _Name) or name.dtype is None:
            raise StructureError("it has more than tensors and plain values")
        if type(location) is not str or len(location) > 32 or type(key) is not str or type(count) is not int:
            raise StructureError("damaged description of a tensor")
        if self._sizes.get(key) != count * name.dtype.itemsize:
            raise StructureError("a tensor's storage is not as long as its record")
        return _Storage(key, name.dtype, count)

    def _call(self) -> Any:
        arguments, called = self._stack.pop(), self._stack.pop()
        if called is _ORDERED and arguments == ():
            return _Ordered()
        if called is _TENSOR and type(arguments) is tuple and len(arguments) == 6:
            return self._tensor(*arguments)
        raise StructureError("it has more than tensors and plain values")

    def _tensor(
        self, storage: Any, offset: Any, shape: Any, stride: Any, grad: Any, hooks: Any
    ) -> TensorOutline:
        if type(storage) is not _Storage or grad is not False or type(hooks) is not _Ordered:
            raise StructureError("it has a tensor with more than numbers")
        self._empty.append(hooks)
        self.used.add(storage.key)
        whole = [shape, stride] if type(shape) is tuple and type(stride) is tuple else []
        numbers = [offset, *(number for part in whole for number in part)]
        if len(whole) != 2 or len(shape) != len(stride) or len(shape) > _MOST_DIMENSIONS:
            raise StructureError("it has a tensor without a proper shape")
        if not all(type(number) is int and 0 <= number < 2**62 for number in numbers):
            raise StructureError("it has a tensor without a proper shape")
        if not _is_dense(shape, stride) or offset + math.prod(shape) > storage.count:
            raise StructureError("it has a tensor that repeats its numbers, or leaves some out")
        return TensorOutline(storage.dtype, shape, stride)


def _is_dense(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Returns whether a tensor has each number of a range once, in whatever order of its dimensions."""
    if 0 in shape:
        return True
    expected = 1
    for step, length in sorted(
        (step, length) for step, length in zip(stride, shape, strict=True) if length > 1
    ):
        if step != expected:
            return False
        expected *= length
    return True


def _is_versions(state: Any) -> bool:
    """Returns whether attributes of a dictionary of weights are the versions of modules, and nothing else."""
    modules = state.get("_metadata")
    return (
        len(state) == 1
        and isinstance(modules, dict)
        and all(type(name) is str and type(each) is dict for name, each in modules.items())
        and all(name == "version" and type(v) is int for each in modules.values() for name, v in each.items())
    )


def _check_extent(value: Any) -> None:
    """Refuses values that are too many, nested too deep, or contain themselves; only plain ones are known.

    A part that occurs at two places counts twice.
    """
    count, level = 0, [value]
    for _ in range(MOST_DEPTH):
        below: list[Any] = []
        for each in level:
            if type(each) in (dict, _Ordered):
                below.extend(each.values())
            elif type(each) in (list, tuple):
                below.extend(each)
            elif type(each) not in (TensorOutline, str, int, float, bool, type(None)):
                raise StructureError("it has more than tensors and plain values")
            if count + len(below) > MOST_VALUES:
                raise StructureError("it has too many values")
        count += len(below)
        if not below:
            return
        level = below
    raise StructureError("its values are nested too deep, or contain themselves")
