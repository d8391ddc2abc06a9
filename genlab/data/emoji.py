"""Emoji in colour, which are part of the package and need no download."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from genlab.config.datasets import EmojiConfig, colour_of
from genlab.data.dataset import Dataset, from_arrays

ARCHIVE = Path(__file__).parent / "archives" / "emoji.npz"
SIZE = 64
"""Side of a stored picture in pixels."""
SPLITS = ("train", "validation", "test")
CLASSES = (
    "Smileys & Emotion", "People & Body", "Animals & Nature", "Food & Drink", "Travel & Places", "Activities",
    "Objects", "Symbols", "Flags",
)  # fmt: skip
"""Unicode's groups; a label is an index into this list."""


class Emoji:
    """Pictures of nine classes. All variants of an emoji, such as skin tones and sexes, are in one split."""

    Config = EmojiConfig

    @staticmethod
    def load(config: EmojiConfig) -> Dataset:
        """Reads the archive that is part of the package."""
        archive = Archive.read(ARCHIVE)
        images = torch.from_numpy(archive.images).permute(0, 3, 1, 2)
        if config.size is not None and SIZE % config.size == 0:
            images = averaged(images, SIZE // config.size)
        colour = torch.tensor(colour_of(config.background), dtype=torch.int32).view(3, 1, 1)
        behind = (colour * (255 - images[:, 3:]) + 127) // 255
        levels = (images[:, :3] + behind.to(torch.uint8)).contiguous()
        labels = torch.from_numpy(archive.labels).long()
        used = torch.from_numpy(~archive.toned | config.skin_tones)
        rows = [used & torch.from_numpy(archive.splits == k) for k in range(len(SPLITS))]
        train, validation, test = ((levels[kept], labels[kept]) for kept in rows)
        return from_arrays(config, train, test, validation=validation, classes=len(CLASSES))


def averaged(images: Tensor, factor: int) -> Tensor:
    """Reduces images (N, C, H, W) uint8 by a power of two: each pixel is the rounded mean of a square."""
    parts = images.split(256)  # limits the memory of intermediate results
    means = (functional.avg_pool2d(part.float(), factor) for part in parts)  # exact in float32
    return torch.cat([(mean + 0.5).to(torch.uint8) for mean in means])


@dataclass(frozen=True)
class Archive:
    """The archive's arrays, with a row for each picture, in a fixed random order.

    Attributes:
        images: (N, SIZE, SIZE, 4) uint8: red, green and blue times alpha, and alpha.
        labels: (N,) uint8, see `CLASSES`.
        splits: (N,) uint8, see `SPLITS`.
        toned: (N,) bool, whether it is a variant with a skin tone.
        sequences: the code points in hexadecimal, as "1F44B 1F3FB".
        names: Unicode's names.
    """

    images: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    toned: np.ndarray
    sequences: list[str]
    names: list[str]

    @classmethod
    def read(cls, path: Path) -> Archive:
        """Reads a file that `write` made."""
        with np.load(path, allow_pickle=False) as stored:
            content = stored["webp"].tobytes()
            ends = stored["ends"].tolist()
            images = np.empty((len(ends), SIZE, SIZE, 4), np.uint8)
            for k, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
                picture = Image.open(io.BytesIO(content[start:end]), formats=("WEBP",))
                images[k] = np.asarray(picture.convert("RGBA"))
            texts = {key: stored[key].tobytes().decode().split("\n") for key in ("sequences", "names")}
            return cls(images, stored["labels"], stored["splits"], stored["toned"], **texts)

    def write(self, path: Path) -> None:
        """Stores pictures as lossless WebP, one after the other; the same content gives the same file."""
        pictures = [_webp(image) for image in self.images]
        arrays = {
            "webp": np.frombuffer(b"".join(pictures), np.uint8),
            "ends": np.cumsum([len(one) for one in pictures]),
            "labels": self.labels,
            "splits": self.splits,
            "toned": self.toned,
            "sequences": np.frombuffer("\n".join(self.sequences).encode(), np.uint8),
            "names": np.frombuffer("\n".join(self.names).encode(), np.uint8),
        }
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def _webp(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    # `exact` keeps the colours of transparent pixels, so that all values are stored unchanged.
    Image.fromarray(image).save(file, "WEBP", lossless=True, quality=100, method=6, exact=True)
    return file.getvalue()
