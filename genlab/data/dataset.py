"""Datasets: three splits of images, the spec a family builds on, the batches of training and evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from genlab.config.datasets import DatasetConfig
from genlab.data.pixels import Pixels
from genlab.data.spec import Batch, DataSpec
from genlab.data.stream import BatchStream, Items, Order, Resident, Source, Streamed
from genlab.data.subsets import shuffled, subset
from genlab.errors import ConfigError, DataError
from genlab.rng import SampleRng, derive_seed

Split = Literal["train", "validation", "test"]
Images = tuple[Tensor, Tensor | None]
"""(N, C, H, W) uint8 levels, and (N,) int64 labels where there are any."""

_INTERPOLATIONS = {"bilinear": "bilinear", "bicubic": "bicubic", "nearest": "nearest-exact"}
"""Torchvision's names; its "nearest" takes a corner of each pixel, not the middle."""


def training_rows(config: DatasetConfig, count: int) -> Tensor:
    """Returns which of `count` training images are used, ascending: see `DatasetConfig.training_images`.

    They are the first so many of one permutation of all, whatever the run's seed, so that runs of several
    seeds train on the same images and fewer of them are among more. Classes come as they fall.

    Raises:
        ConfigError: more are wanted than there are.
    """
    wanted = config.training_images
    if wanted is None:
        return torch.arange(count)
    if wanted > count:
        raise ConfigError(f"dataset.training_images={wanted}: there are {count}; use fewer, or null for all")
    generator = torch.Generator().manual_seed(derive_seed(0, "training-images"))
    return torch.randperm(count, generator=generator)[:wanted].sort().values


def pixels_of(config: DatasetConfig, levels: int) -> Pixels:
    """Returns how stored levels become images."""
    return Pixels(levels, config.binarize, config.threshold, config.dequantize, config.flip)


class Dataset:
    """Train, validation and test images of one spec.

    Args:
        spec: what a family must know.
        sources: the images of each split.
        pixels: how their levels become images.
        remark: what a reader of the training's log should know of them, in one line.
    """

    def __init__(self, spec: DataSpec, sources: dict[str, Source], pixels: Pixels, remark: str = "") -> None:
        self.spec, self.remark = spec, remark
        self._sources, self._pixels = sources, pixels
        if not len(sources["train"]):
            raise DataError(f"dataset={spec.name}: no training images are left; hold out fewer of them")

    def size(self, split: str) -> int:
        """Images of a split."""
        return len(self._sources[split])

    def to(self, device: torch.device | str) -> Dataset:
        """The same dataset with its images, or the batches of a streamed one, on `device`."""
        moved = {split: source.to(torch.device(device)) for split, source in self._sources.items()}
        return Dataset(self.spec, moved, self._pixels, self.remark)

    @property
    def originals(self) -> Dataset:
        """The images that samples are compared with: these, unless they are codes of others."""
        return self

    def pictures(self, images: Tensor) -> Tensor:
        """How a person sees images or samples (B, C, H, W): as they are, unless they are codes of others."""
        return images

    def more_numbers(self, values: dict[str, Tensor], split: str, batch_size: int) -> dict[str, Tensor]:
        """Numbers that follow from those of a family, for each image of a split or of a subset: none here.

        Args:
            values: name to (N, ...), on the CPU, in the order of `rows(split, N)`.
            batch_size: images at a time.
        """
        return {}

    def setting(self) -> dict[str, Any]:
        """What a reader must know of `more_numbers`."""
        return {}

    def batches(
        self, seed: int, batch_size: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> BatchStream:
        """Endless training batches from number `start` on; see `genlab.data.stream.Order`.

        Args:
            seed: order and noise follow from it; batch i depends on (seed, i, batch_size) alone.
            batch_size: images of a batch, over all processes.
            rank, world: this process, and how many there are: each takes batch_size / world rows.

        Raises:
            ConfigError: batch_size is not a multiple of world.
        """
        source = self._sources["train"]
        order = Order(len(source), seed, batch_size, rank, world, source.device)
        return BatchStream(source, self._pixels, order, start)

    def rows(self, split: str, limit: int | None = None) -> Tensor:
        """The numbers of the images that `evaluation_batches` gives, in its order, (N,) int64."""
        return subset(self.size(split), limit)

    def evaluation_batches(
        self, split: str, batch_size: int, seed: int, limit: int | None = None
    ) -> Iterator[tuple[list[int], Batch]]:
        """A split from its first image to its last, the incomplete last batch included, never flipped.

        What is drawn for image k depends on (seed, k) alone, so the batch size changes nothing, and an image
        is the same in a subset as in the whole.

        Args:
            limit: only so many images, chosen by `genlab.data.subsets.subset`; None for all.

        Yields:
            the images' numbers within the split, and the images.
        """
        yield from self._batches_of(split, self.rows(split, limit), batch_size, seed)

    def examples(self, split: str, count: int, seed: int) -> tuple[list[int], Batch]:
        """Images to look at, of all kinds, in one batch: the first `count` in the order of `shuffled`.

        Args:
            count: fewer where the split has fewer; the split must have some.
            seed: of what is drawn for them, as in `evaluation_batches`.

        Returns:
            the images' numbers within the split, and the images.
        """
        rows = shuffled(self.size(split))[:count]
        return next(self._batches_of(split, rows, len(rows), seed))

    def _batches_of(
        self, split: str, rows: Tensor, batch_size: int, seed: int
    ) -> Iterator[tuple[list[int], Batch]]:
        """The images of these numbers (N,), in this order."""
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
    """A dataset of arrays in memory, resized and recoloured as `config` says.

    Args:
        validation: its images, or how many to hold out from the end of `train`.
        levels: how many values a stored pixel takes.
        classes: number of labels, 0 without.
        resampling: see `convert`.

    Raises:
        ConfigError: more images held out or wanted than there are, or colour images binarised.
    """
    if isinstance(validation, int):
        validation, train = _hold_out(train, validation)
    if config.training_images is not None:
        rows = training_rows(config, len(train[0]))
        train = train[0][rows], None if train[1] is None else train[1][rows]
    splits = {"train": train, "validation": validation, "test": test}
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
    """The spec of images of `shape` (C, H, W) as `config` processes them.

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
    """Resizes and recolours, each image by itself.

    Args:
        images: (N, C, H, W) uint8, C = 1 or 3.
        size: of the result, size x size; None keeps it.
        channels: of the result; None keeps them. Grey is the luma of ITU-R BT.601, rounded.
        resampling: "bilinear" or "bicubic", both antialiased, or "nearest", which makes no new colours.
    """
    resized = size is not None and tuple(images.shape[2:]) != (size, size)
    recoloured = channels is not None and channels != images.shape[1]
    if not (resized or recoloured) or not len(images):
        shape = (channels or images.shape[1], *((size, size) if size else images.shape[2:]))
        return images.reshape(len(images), *shape)
    from torchvision.transforms.v2 import functional  # not needed, and slow to import, for most runs

    parts = []
    for part in images.split(4096):  # bounds the memory of what is in between
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
