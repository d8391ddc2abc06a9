"""A dataset of the user's own pictures in a folder, of any size and format."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from genlab.config.datasets import FolderConfig, check_files
from genlab.data.dataset import Dataset, make_spec, pixels_of, training_rows
from genlab.data.labels import warn_of_missing
from genlab.data.pictures import SUFFIXES, read_picture
from genlab.data.scale import warn_if_dark
from genlab.data.spec import DataSpec
from genlab.data.stream import Items, Resident, Source, Streamed
from genlab.errors import DataError, printable
from genlab.log import log, progress_bar
from genlab.memory import machine_memory

_NAMED = 20  # maximum number of unreadable files that are named in warnings


class Folder:
    """Pictures, each cropped to its central square.

    The class of a picture is the first subfolder of its path, unless pictures lie in `path` itself or in a
    single subfolder: then there are no labels. The split of a picture depends only on its name within the
    folder, so that adding pictures moves none from one split to another. A file that cannot be read is named
    and left out.
    """

    Config = FolderConfig

    @staticmethod
    def load(config: FolderConfig) -> Dataset:
        """Reads every picture once; keeps them in memory if they fit, otherwise reads them again as needed.

        Raises:
            DataError: the folder does not exist, or has no readable picture.
        """
        check_files(config)
        root = Path(os.path.expanduser(config.path))
        names = find_pictures(root)
        if not names:
            kinds = ", ".join(sorted(SUFFIXES))
            raise DataError(f"dataset.path={config.path}: contains no pictures; supported formats: {kinds}")
        pictures = Pictures(root, names, config)
        limit = min(config.memory_limit_gib * 2**30, machine_memory())
        too_large = len(names) * config.channels * config.size**2 > limit
        workers = config.workers if config.workers is not None else min(8, os.cpu_count() or 1)
        kept, images = _read_all(pictures, keep=not too_large, workers=workers if len(names) > 500 else 0)
        log.info("%s: %d pictures used, %d skipped", root, len(kept), len(names) - len(kept))
        if not kept:
            raise DataError(f"dataset.path={config.path}: none of its {len(names)} pictures can be read")
        names = [names[k] for k in kept]
        labels, classes = class_labels(names)
        splits: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
        for k, name in enumerate(names):
            splits[split_of(name, config.validation_share, config.test_share)].append(k)
        splits["train"] = [splits["train"][k] for k in training_rows(config, len(splits["train"])).tolist()]
        if labels is not None:
            warn_of_missing(config.name, labels[splits["train"]], classes)
        sources: dict[str, Source] = {}
        for split, members in splits.items():
            rows = torch.tensor(members, dtype=torch.int64)
            of_split = None if labels is None else labels[rows]
            if images is not None:
                sources[split] = Resident(images[rows], of_split)
            else:
                part = Pictures(root, [names[k] for k in members], config)
                sources[split] = Streamed(part, of_split, workers)
        shape = (config.channels, config.size, config.size)
        spec = make_spec(config, shape, 256, classes)
        return Dataset(spec, sources, pixels_of(config, 256), remark=_remark(config, spec, sources))


def find_pictures(root: Path) -> list[str]:
    """Returns the names of the pictures under `root`, relative to it, sorted; without hidden ones."""
    names, seen = [], set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        try:
            state = os.stat(folder)
        except OSError:  # removed meanwhile, or a name that is too long
            continue
        if (state.st_dev, state.st_ino) in seen:  # a link to a parent folder would cause an endless loop
            subfolders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        subfolders[:] = sorted(s for s in subfolders if not s.startswith((".", "__MACOSX")))
        for name in files:
            path = Path(folder, name)
            if not name.startswith(".") and path.suffix.lower() in SUFFIXES and os.path.isfile(path):
                names.append(path.relative_to(root).as_posix())
    return sorted(names)


def split_of(name: str, validation_share: float, test_share: float) -> str:
    """Returns the split of a picture, which depends only on its relative name."""
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
    place = int.from_bytes(digest, "little") / 2**64
    if place < test_share:
        return "test"
    return "validation" if place < test_share + validation_share else "train"


def class_labels(names: list[str]) -> tuple[Tensor | None, int]:
    """Returns labels from the first subfolder of each name, in alphabetical order, and their number."""
    folders = [name.partition("/")[0] if "/" in name else "" for name in names]
    classes = sorted(set(folders))
    if "" in classes or len(classes) < 2:
        return None, 0
    numbers = {folder: k for k, folder in enumerate(classes)}
    return torch.tensor([numbers[folder] for folder in folders]), len(classes)


def _remark(config: FolderConfig, spec: DataSpec, sources: Mapping[str, Source]) -> str:
    """Returns a line that describes how the pictures were processed."""
    counts = ", ".join(f"{split} {len(source):,}" for split, source in sources.items())
    return (
        f"{config.path}: the middle square of each picture, {config.size}x{config.size} by "
        f"{config.resampling} resampling, {'grey' if config.channels == 1 else 'colour'}, transparent ones "
        f"on {config.background}; {spec.classes or 'no'} classes; {counts}"
    )


class Pictures(Items):
    """Pictures that are read from their files on access."""

    def __init__(self, root: Path, names: list[str], config: FolderConfig) -> None:
        self.root, self.names, self.config = root, names, config

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: Tensor) -> Tensor:
        found = [self.read(k) for k in rows.tolist()]
        for image in found:
            if isinstance(image, str):
                raise DataError(f"dataset.path={self.root}: {image}; it could be read when the run began")
        return torch.from_numpy(np.stack(found))  # type: ignore[arg-type]

    def description(self) -> Iterator[bytes]:
        """Yields the name and the size of each file."""
        for name in self.names:
            with contextlib.suppress(OSError):
                size = os.stat(self.root / name).st_size
                yield f"{name}\0{size}\n".encode(errors="surrogateescape")

    def read(self, k: int) -> np.ndarray | str:
        """Returns picture k, or the reason why it cannot be read."""
        config = self.config
        try:
            return read_picture(
                self.root / self.names[k],
                config.size,
                config.channels,
                config.background,
                config.resampling,
            )
        except Exception as error:  # a broken file can cause any exception
            reason = " ".join(str(error).split()) or type(error).__name__
            return f"{printable(self.names[k])} cannot be read: {printable(reason)}"


class _EachPicture:
    """A picture for each index, or the reason why it cannot be read."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, k: int) -> np.ndarray | str:
        return self.pictures.read(k)


def _read_all(pictures: Pictures, keep: bool, workers: int) -> tuple[list[int], Tensor | None]:
    """Returns the indices of the readable pictures; with `keep` the pictures too, (N, C, H, W) uint8."""
    loader = DataLoader(
        _EachPicture(pictures),  # type: ignore[arg-type]
        batch_size=32 if workers else 1,
        collate_fn=list,
        num_workers=workers,
        generator=torch.Generator(),  # training's random numbers are not touched
    )
    config = pictures.config
    shape = (len(pictures) if keep else 0, config.channels, config.size, config.size)
    images, kept, broken = torch.empty(shape, dtype=torch.uint8), [], 0
    with progress_bar(total=len(pictures), unit="picture", desc="reading") as bar:
        for k, image in enumerate(image for batch in loader for image in batch):
            bar.update()
            if isinstance(image, str):
                broken += 1
                if broken <= _NAMED:
                    log.warning("skipped: %s", image)
                continue
            if keep:
                images[len(kept)] = torch.from_numpy(image.copy())
            kept.append(k)
    if broken > _NAMED:
        log.warning("skipped: %d more", broken - _NAMED)
    if keep:
        warn_if_dark(
            f"dataset.path={config.path}", images[: len(kept)].numpy(), config.binarize == "threshold"
        )
    return kept, images[: len(kept)] if keep else None
