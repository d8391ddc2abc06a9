"""Datasets: three splits of images, the spec a family builds on, the batches of training and evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from genlab.config.datasets import DatasetConfig
from genlab.config.schema import show
from genlab.data.labels import check_labels, warn_of_missing
from genlab.data.pixels import Pixels
from genlab.data.spec import Batch, DataSpec
from genlab.data.stream import BatchStream, Items, Order, Resident, Source, Streamed, fingerprint
from genlab.data.subsets import shuffled, subset
from genlab.errors import ConfigError, DataError
from genlab.memory import check_fits
from genlab.rng import SampleRng, derive_seed

Split = Literal["train", "validation", "test"]
Images = tuple[Tensor, Tensor | None]
"""(N, C, H, W) uint8 levels, and (N,) int64 labels if there are any."""

_CONVERTED_NUMBERS = 2**25
"""Numbers that are converted at a time, which limits the memory of intermediate results."""

_INTERPOLATIONS = {"bilinear": "bilinear", "bicubic": "bicubic", "nearest": "nearest-exact"}
"""Torchvision's names; its "nearest" uses a corner of each pixel, not the centre."""


def training_rows(config: DatasetConfig, count: int) -> Tensor:
    """Returns the indices of the training images in use, ascending: see `DatasetConfig.training_images`.

    They are the first ones of one permutation, whatever the run's seed, so that runs with different seeds
    train on the same images, and a smaller set is part of a larger one. Classes are not balanced.

    Raises:
        ConfigError: there are fewer images than requested.
    """
    wanted = config.training_images
    if wanted is None:
        return torch.arange(count)
    if wanted > count:
        raise ConfigError(f"dataset.training_images={wanted}: there are {count}; use fewer, or null for all")
    generator = torch.Generator().manual_seed(derive_seed(0, "training-images"))
    return torch.randperm(count, generator=generator)[:wanted].sort().values


def pixels_of(config: DatasetConfig, levels: int) -> Pixels:
    """Returns the conversion of stored levels to images."""
    return Pixels(levels, config.binarize, config.threshold, config.dequantize, config.flip)


class Dataset:
    """Train, validation and test images of one spec.

    Args:
        spec: the description of the images for a family.
        sources: the images of each split.
        pixels: the conversion of their levels to images.
        remark: one line about them for the log of training.
    """

    def __init__(self, spec: DataSpec, sources: dict[str, Source], pixels: Pixels, remark: str = "") -> None:
        self.spec, self.remark = spec, remark
        self._sources, self._pixels = sources, pixels
        if not len(sources["train"]):
            raise DataError(f"dataset={spec.name}: no training images are left; hold out fewer of them")

    def size(self, split: str) -> int:
        """Returns the number of images of a split."""
        return len(self._sources[split])

    def fingerprint(self) -> dict[str, dict[str, Any]]:
        """Returns the number of images and a hash of each split: see `genlab.data.stream.fingerprint`."""
        return {
            split: {"images": len(source), "hash": fingerprint(source)}
            for split, source in self._sources.items()
        }

    def to(self, device: torch.device | str) -> Dataset:
        """Returns the dataset with its images, or the batches of a streamed one, on `device`."""
        moved = {split: source.to(torch.device(device)) for split, source in self._sources.items()}
        return Dataset(self.spec, moved, self._pixels, self.remark)

    @property
    def originals(self) -> Dataset:
        """Returns the dataset that samples are compared with: this one, or that of the images of codes."""
        return self

    def pictures(self, images: Tensor) -> Tensor:
        """Returns images or samples (B, C, H, W) for display: unchanged, or decoded if they are codes."""
        return images

    def more_numbers(self, values: dict[str, Tensor], split: str, batch_size: int) -> dict[str, Tensor]:
        """Returns metrics derived from those of a family, for each image of a split: none by default.

        Args:
            values: name to (N, ...), on the CPU, in the order of `rows(split, N)`.
            batch_size: images at a time.
        """
        return {}

    def setting(self) -> dict[str, Any]:
        """Returns the conditions of `more_numbers`."""
        return {}

    def batches(
        self, seed: int, batch_size: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> BatchStream:
        """Returns endless training batches from batch `start` on; see `genlab.data.stream.Order`.

        Args:
            seed: determines order and noise; batch i depends on (seed, i, batch_size) alone.
            batch_size: images of a batch, over all processes.
            rank, world: index of this process, and number of processes: each takes batch_size / world rows.

        Raises:
            ConfigError: batch_size is not a multiple of world.
        """
        source = self._sources["train"]
        order = Order(len(source), seed, batch_size, rank, world, source.device)
        return BatchStream(source, self._pixels, order, start)

    def rows(self, split: str, limit: int | None = None) -> Tensor:
        """Returns the indices of the images that `evaluation_batches` yields, in its order, (N,) int64."""
        return subset(self.size(split), limit)

    def evaluation_batches(
        self, split: str, batch_size: int, seed: int, limit: int | None = None
    ) -> Iterator[tuple[list[int], Batch]]:
        """Yields a split from first to last image, including the incomplete last batch, never flipped.

        Random numbers of image k depend on (seed, k) alone, so the batch size changes nothing, and an image
        is the same in a subset as in the whole.

        Args:
            limit: maximum number of images, chosen by `genlab.data.subsets.subset`; None for all.

        Yields:
            the images' indices within the split, and the images.
        """
        yield from self._batches_of(split, self.rows(split, limit), batch_size, seed)

    def examples(self, split: str, count: int, seed: int) -> tuple[list[int], Batch]:
        """Returns varied images for display, in one batch: the first `count` in the order of `shuffled`.

        Args:
            count: fewer if the split has fewer; the split must not be empty.
            seed: of their random numbers, as in `evaluation_batches`.

        Returns:
            the images' indices within the split, and the images.
        """
        rows = shuffled(self.size(split))[:count]
        return next(self._batches_of(split, rows, len(rows), seed))

    def _batches_of(
        self, split: str, rows: Tensor, batch_size: int, seed: int
    ) -> Iterator[tuple[list[int], Batch]]:
        """Yields the images with these indices (N,), in this order."""
        source = self._sources[split]
        parts = rows.split(batch_size) if len(rows) else ()
        read = source.read(part.to(source.device) for part in parts)
        for part, (levels, labels, factors) in zip(parts, read, strict=True):
            noise, numbers = None, part.tolist()
            if self._pixels.draws:
                noise = SampleRng(seed, numbers, levels.device, purpose="evaluation-data")
            yield numbers, Batch(self._pixels.images(levels, noise), labels, factors)


def from_arrays(
    config: DatasetConfig,
    train: Images,
    test: Images,
    *,
    validation: Images | int = 0,
    levels: int = 256,
    classes: int = 0,
    resampling: str = "bilinear",
) -> Dataset:
    """Builds a dataset from arrays in memory, resized and converted to grey or colour by `config`.

    Args:
        validation: the validation images, or how many to hold out from the end of `train`.
        levels: number of values of a stored pixel.
        classes: number of labels; 0 without labels.
        resampling: see `convert`.

    Raises:
        ConfigError: too many images are held out or requested, or colour images are to be binarised.
        DataError: a label is not below `classes`.
    """
    if isinstance(validation, int):
        validation, train = _hold_out(train, validation)
    if config.training_images is not None:
        rows = training_rows(config, len(train[0]))
        train = train[0][rows], None if train[1] is None else train[1][rows]
    splits = {"train": train, "validation": validation, "test": test}
    count, (channels, height, width) = sum(len(x) for x, _ in splits.values()), train[0].shape[1:]
    check_fits(
        count * (config.channels or channels) * (config.size or height) * (config.size or width),
        f"dataset.size={show(config.size)}",
        f"{count:,} images of this size",
        "use a smaller dataset.size, or fewer images",
    )
    for _, labels in splits.values():
        check_labels(config.name, labels, classes)
    warn_of_missing(config.name, train[1], classes)
    images = {
        name: convert(split[0], config.size, config.channels, resampling) for name, split in splits.items()
    }
    spec = make_spec(config, images["train"].shape[1:], levels, classes)
    sources: dict[str, Source] = {}
    too_large = sum(x.numel() for x in images.values()) > config.memory_limit_gib * 2**30
    for name, (_, labels) in splits.items():
        if too_large:
            sources[name] = Streamed(ArrayItems(images[name]), labels, workers=0)
        else:
            sources[name] = Resident(images[name], labels)
    return Dataset(spec, sources, pixels_of(config, levels))


def make_spec(config: DatasetConfig, shape: tuple[int, ...], levels: int, classes: int) -> DataSpec:
    """Returns the spec of images of `shape` (C, H, W) as processed by `config`.

    Raises:
        ConfigError: colour images are to be binarised.
    """
    if config.binarize != "none" and shape[0] != 1:
        raise ConfigError(
            f"dataset.binarize={config.binarize}: {config.name} has colour images; add dataset.channels=1"
        )
    channels, height, width = shape
    return DataSpec(
        config.name,
        channels,
        height,
        width,
        levels=levels if config.binarize == "none" else 2,
        classes=classes,
        binarization=config.binarize,
        dequantized=config.dequantize,
    )


def _hold_out(train: Images, count: int) -> tuple[Images, Images]:
    images, labels = train
    kept = len(images) - count
    if kept < 1:
        raise ConfigError(
            f"dataset.validation_images={count}: there are {len(images)} training images; hold out fewer"
        )
    held = images[kept:], None if labels is None else labels[kept:]
    return held, (images[:kept], None if labels is None else labels[:kept])


def convert(images: Tensor, size: int | None, channels: int | None, resampling: str = "bilinear") -> Tensor:
    """Resizes images and converts them to grey or colour, each image separately.

    Args:
        images: (N, C, H, W) uint8, C = 1 or 3.
        size: side of the result, size x size; None keeps it.
        channels: of the result; None keeps them. Grey is the luma of ITU-R BT.601, rounded.
        resampling: "bilinear" or "bicubic", both antialiased, or "nearest", which creates no new colours.
    """
    resized = size is not None and tuple(images.shape[2:]) != (size, size)
    recoloured = channels is not None and channels != images.shape[1]
    if not (resized or recoloured) or not len(images):
        shape = (channels or images.shape[1], *((size, size) if size else images.shape[2:]))
        return images.reshape(len(images), *shape)
    from torchvision.transforms.v2 import functional  # slow to import, and most runs do not need it

    parts = []
    largest = max(math.prod(images.shape[1:]), (size or 0) ** 2 * (channels or images.shape[1]))
    for part in images.split(max(1, min(4096, _CONVERTED_NUMBERS // largest))):
        if recoloured and channels == 1:
            red, green, blue = part.int().unbind(1)
            part = ((299 * red + 587 * green + 114 * blue + 500) // 1000).to(torch.uint8).unsqueeze(1)
        if resized:
            mode = functional.InterpolationMode(_INTERPOLATIONS[resampling])
            part = functional.resize(part, [size, size], mode, antialias=True)  # type: ignore[list-item]
        if recoloured and channels == 3:
            part = part.expand(-1, 3, -1, -1)
        parts.append(part)
    return torch.cat(parts)


class ArrayItems(Items):
    """Images of an array in the host's memory: (N, C, H, W) uint8."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor) -> Tensor:
        return self.images[rows]
