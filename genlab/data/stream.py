"""Composition of batch i, and the sources of its images: the device's memory, or a stream."""

from __future__ import annotations

import hashlib
import itertools
import signal
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from genlab.data.pixels import Pixels
from genlab.data.spec import Batch
from genlab.errors import ConfigError, UserError
from genlab.rng import derive_seed
from genlab.stop import STOPPING_SIGNALS


class Levels(NamedTuple):
    """The stored data of a batch of images, on the device.

    levels: (B, C, H, W) uint8, or int16 codes; of points float32.
    labels: (B,) int64, if there are any.
    factors: (B, F) int64, if they are known.
    """

    levels: Tensor
    labels: Tensor | None
    factors: Tensor | None = None


class Source(Protocol):
    """The images of one split."""

    device: torch.device
    """The device on which the indices of images are expected."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> Source: ...

    def read(self, rows: Iterable[Tensor]) -> Iterator[Levels]:
        """Yields one item for each tensor of image indices, in that order."""
        ...


def fingerprint(source: Source) -> str:
    """Returns a hash of a split's data, by which a later session sees that they have changed.

    It costs little: images in memory are hashed whole up to 512 MiB, and as evenly spaced ones above; images
    that are read on access are hashed by what describes them (names and sizes of files), or as 256 evenly
    spaced ones. Times of files do not count: a copy of the data is the same data.
    """
    digest = hashlib.blake2b(digest_size=16)
    parts = getattr(source, "fingerprint_of", None)  # a source of a plug-in may have none
    for part in parts() if parts else ():
        digest.update(part)
    return digest.hexdigest()


_HASHED_BYTES = 2**29
_HASHED_ITEMS = 256


def _bytes_of(tensors: Iterable[Tensor | None]) -> Iterator[bytes | memoryview]:
    """Yields the bytes of tensors (N, ...): of each the whole, or evenly spaced rows of a large one."""
    for tensor in tensors:
        if tensor is None or not tensor.numel():
            continue
        every = -(-tensor.numel() * tensor.element_size() // _HASHED_BYTES)
        part = tensor[::every].cpu().contiguous()
        yield f"{part.dtype} {tuple(tensor.shape)}".encode()
        yield part.view(-1).view(torch.uint8).numpy().data


class Resident:
    """Images stored on one device.

    Args:
        images: (N, C, H, W) uint8, or int16.
        labels: (N,) int64 or None, on the same device.
        factors: (N, F) int64 or None, on the same device.
    """

    def __init__(self, images: Tensor, labels: Tensor | None, factors: Tensor | None = None) -> None:
        self.device = images.device
        self._shape = images.shape[1:]
        self._flat = images.flatten(1).contiguous()  # selecting rows of a matrix is fastest
        self._labels, self._factors = labels, factors

    def __len__(self) -> int:
        return len(self._flat)

    def to(self, device: torch.device) -> Resident:
        images = self._flat.to(device).view(len(self), *self._shape)
        more = (None if each is None else each.to(device) for each in (self._labels, self._factors))
        return Resident(images, *more)

    def read(self, rows: Iterable[Tensor]) -> Iterator[Levels]:
        known = (self._labels, self._factors)
        for index in rows:
            levels = self._flat.index_select(0, index).view(len(index), *self._shape)
            yield Levels(levels, *(None if each is None else each.index_select(0, index) for each in known))

    def fingerprint_of(self) -> Iterator[bytes | memoryview]:
        """Yields what is hashed for `fingerprint`."""
        return _bytes_of((self._flat, self._labels, self._factors))


class Items(Protocol):
    """Images that are read on access, possibly in another process."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Returns (B, C, H, W) uint8 for indices (B,) int64."""
        ...


@runtime_checkable
class Described(Protocol):
    """Images with a description that is cheaper to read than they are, and changes when they do."""

    def description(self) -> Iterator[bytes]: ...


class Streamed:
    """Images that exceed the memory limit, loaded by torch's DataLoader ahead of the training.

    Args:
        items: the images.
        labels: (N,) int64 or None.
        workers: number of processes that load; 0 loads in this one.
        device: the device of the batches.
        factors: (N, F) int64 or None.
    """

    def __init__(
        self,
        items: Items,
        labels: Tensor | None,
        workers: int,
        device: torch.device | str = "cpu",
        factors: Tensor | None = None,
    ) -> None:
        self.device = torch.device("cpu")
        self._target = torch.device(device)
        self._items, self._labels, self._workers, self._factors = items, labels, workers, factors

    def __len__(self) -> int:
        return len(self._items)

    def to(self, device: torch.device) -> Streamed:
        return Streamed(self._items, self._labels, self._workers, device, self._factors)

    def fingerprint_of(self) -> Iterator[bytes | memoryview]:
        """Yields what is hashed for `fingerprint`."""
        yield str(len(self)).encode()
        if isinstance(self._items, Described):
            yield from self._items.description()
        elif len(self):
            rows = torch.linspace(0, len(self) - 1, min(_HASHED_ITEMS, len(self)), dtype=torch.float64).long()
            yield from _bytes_of([self._items[rows]])
        yield from _bytes_of((self._labels, self._factors))

    def read(self, rows: Iterable[Tensor]) -> Iterator[Levels]:
        on_gpu = self._target.type == "cuda"
        known = (self._labels, self._factors)
        loader: DataLoader[Any] = DataLoader(
            _Fetch(self._items),  # type: ignore[arg-type]
            sampler=(  # type: ignore[arg-type]
                (index, tuple(None if each is None else each[index] for each in known)) for index in rows
            ),
            batch_size=None,
            num_workers=self._workers,
            pin_memory=on_gpu,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # otherwise it would draw from the generator that training uses
        )
        for levels, of_batch in loader:
            if isinstance(levels, UserError):
                raise levels
            more = (None if each is None else each.to(self._target, non_blocking=on_gpu) for each in of_batch)
            yield Levels(levels.to(self._target, non_blocking=on_gpu), *more)


class _Fetch:
    """The dataset of the worker processes."""

    def __init__(self, items: Items) -> None:
        self.items = items

    def __getitem__(self, key: tuple[Tensor, Any]) -> tuple[Tensor | UserError, Any]:
        rows, of_batch = key
        try:
            return self.items[rows], of_batch
        except UserError as error:
            return error, of_batch  # raised by the main process: a worker's would contain a traceback


def _start_worker(_: int) -> None:
    # Ctrl-C and a batch system's signals reach every process; only the main one must stop, after its step.
    # A worker ends by itself when the main process no longer needs it, or has died.
    for name in STOPPING_SIGNALS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    torch.set_num_threads(1)


class Order:
    """The order in which a training split is read: one shuffled epoch after another, cut into batches.

    Batch i takes positions i * batch_size to (i + 1) * batch_size of the infinite sequence of epochs, so that
    batches cross the border of epochs, every image occurs once in each, and a batch may be larger than the
    split. Process r of w takes rows r, r + w, ... of it.

    Args:
        size: number of images of the split.
        seed, batch_size: batch i is a function of these and i alone.
        rank, world: index of this process, and number of processes.
        device: the device of the images' indices.

    Raises:
        ConfigError: the processes cannot share the batch evenly.
    """

    def __init__(
        self,
        size: int,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        if batch_size % world:
            raise ConfigError(
                f"trainer.batch_size={batch_size}: {world} processes cannot share it evenly; "
                f"use trainer.batch_size={-(-batch_size // world) * world}"
            )
        self.size, self.seed, self.batch_size = size, seed, batch_size
        self.rank, self.world, self.device = rank, world, torch.device(device)
        self._epochs: dict[int, Tensor] = {}

    def rows(self, index: int) -> Tensor:
        """Returns the images of batch `index` that this process takes, (batch_size / world,) int64."""
        place, end = index * self.batch_size, (index + 1) * self.batch_size
        first = place // self.size
        self._epochs = {epoch: order for epoch, order in self._epochs.items() if epoch >= first}
        parts = []
        while place < end:
            epoch, offset = divmod(place, self.size)
            part = self._epoch(epoch)[offset : offset + end - place]
            parts.append(part)
            place += len(part)
        rows = parts[0] if len(parts) == 1 else torch.cat(parts)
        return rows[self.rank :: self.world]

    def _epoch(self, epoch: int) -> Tensor:
        if epoch not in self._epochs:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
            order = torch.randperm(self.size, generator=generator)
            if self.device.type == "cuda":
                order = order.pin_memory()  # so that the copy does not wait for the device
            self._epochs[epoch] = order.to(self.device, non_blocking=True)
        return self._epochs[epoch]


class BatchStream(Iterator[Batch]):
    """The endless training batches of one process.

    Attributes:
        index: index of the next batch. A checkpoint needs nothing else: batch i depends on seed and i alone.
    """

    def __init__(self, source: Source, pixels: Pixels, order: Order, start: int = 0) -> None:
        self.index = start
        self._source, self._pixels, self._order = source, pixels, order
        self._read = source.read(order.rows(i) for i in itertools.count(start))

    def __iter__(self) -> BatchStream:
        return self

    def __next__(self) -> Batch:
        levels, labels, factors = next(self._read)
        seed = derive_seed(self._order.seed, "augment", self.index, self._order.rank)
        self.index += 1
        return Batch(self._pixels.training_images(levels, seed), labels, factors)
