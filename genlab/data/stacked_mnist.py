"""Stacked MNIST: three digits per image, one per channel, with 1000 modes to test for mode collapse."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from genlab.config.datasets import StackedMNISTConfig
from genlab.data.dataset import Dataset, pixels_of
from genlab.data.modes import modes
from genlab.data.stream import Levels, Source
from genlab.data.torchvision_sets import MNIST
from genlab.rng import derive_seed

_SEED = 0
"""Seed of the choice of digits. It is not the run's, so that all runs learn the same images."""

_HELD_OUT_IMAGES = 26000
"""Number of images of the validation and of the test split, as in the counts of Srivastava et al. 2017."""


class StackedMNIST:
    """Images whose channels are digits a, b and c, uniform and independent; the class is 100a + 10b + c.

    Introduced by Metz et al. 2017 (section 3.3.1) to count the modes that a GAN covers; 128,000 training
    images as in Lin et al. 2018 (PacGAN). No digit is in two splits: training and validation images are made
    of MNIST's training digits without and with the last `validation_images`, test images of its test digits.
    """

    Config = StackedMNISTConfig

    @staticmethod
    def load(config: StackedMNISTConfig) -> Dataset:
        """Reads the files of MNIST, downloading missing ones, and draws the digits of each image.

        Raises:
            DataError: a file is missing or damaged.
        """
        digits = MNIST.load(dataclasses.replace(config, channels=None))  # resized, split, still grey
        counts = {"train": config.images, "validation": _HELD_OUT_IMAGES, "test": _HELD_OUT_IMAGES}
        sources: dict[str, Source] = {
            split: Stacked(source, choose(split, counts[split], len(source)))
            for split, source in digits._sources.items()
        }
        spec = dataclasses.replace(digits.spec, channels=3, classes=1000)
        return Dataset(spec, sources, pixels_of(config, 256))


def choose(split: str, images: int, digits: int) -> Tensor:
    """Draws the digits of each image of a split, the same at every call.

    Args:
        split: its name; splits are independent.
        images: number of images; there are none if there are no digits.
        digits: number of digits to choose from.

    Returns:
        (images, 3) int64, uniform over 0..digits-1.
    """
    if not digits:
        return torch.empty(0, 3, dtype=torch.int64)
    generator = torch.Generator().manual_seed(derive_seed(_SEED, "stacked_mnist", split))
    return torch.randint(digits, (images, 3), generator=generator)


class Stacked:
    """Images composed of single digits when they are read, so that each digit is stored once.

    Args:
        digits: the source of (B, 1, H, W) digits and their labels 0..9.
        table: (N, 3) int64, the digits of each image.
    """

    def __init__(self, digits: Source, table: Tensor) -> None:
        self.device = digits.device
        self._digits, self._table = digits, table.to(digits.device)

    def __len__(self) -> int:
        return len(self._table)

    def to(self, device: torch.device) -> Stacked:
        return Stacked(self._digits.to(device), self._table)

    def read(self, rows: Iterable[Tensor]) -> Iterator[Levels]:
        chosen = (self._table.index_select(0, index).flatten() for index in rows)
        for levels, labels, _ in self._digits.read(chosen):
            assert labels is not None
            yield Levels(levels.view(-1, 3, *levels.shape[2:]), modes(labels.view(-1, 3)))
