"""The IDX format, in which MNIST and similar datasets are published."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genlab.data.files import MOST_BYTES, damaged, read_file


def parse_idx(content: bytes) -> Tensor:
    """Parses an array of bytes in the IDX format of MNIST's authors.

    Raises:
        ValueError: it is not such an array, or its length differs from its header.
    """
    dimensions = content[3] if len(content) > 3 else 0
    header = 4 + 4 * dimensions
    if content[:3] != b"\0\0\x08" or not dimensions or len(content) < header:
        raise ValueError("no IDX array of bytes")
    shape = [int.from_bytes(content[k : k + 4], "big") for k in range(4, header, 4)]
    if len(content) - header != math.prod(shape):
        raise ValueError(f"{len(content) - header} bytes for a shape of {shape}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).view(shape)


def unpacked(content: bytes) -> bytes:
    """Decompresses gzipped content, of at most the size of a published file.

    Raises:
        ValueError: there is more; also other errors for damaged content.
    """
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        found = file.read(MOST_BYTES + 1)
    if len(found) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    return found


def read_idx(config: Any, path: Path, shape: tuple[int, ...] | None, md5: str | None = None) -> Tensor:
    """Reads the array of an IDX file, gzipped or not.

    Args:
        config: of the dataset, for the message.
        shape: the expected shape; None for any.
        md5: of the unpacked content, which does not depend on the compression; None if it is not known.

    Raises:
        DataError: the file is damaged or cannot be read.
    """
    content = read_file(config, path)
    try:
        if path.suffix == ".gz":
            content = unpacked(content)
        array = parse_idx(content)
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(config, path) from error
    if md5 and hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise damaged(config, path)
    if shape is not None and tuple(array.shape) != shape:
        raise damaged(config, path)
    return array
