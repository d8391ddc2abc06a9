"""The dataset of a game without data."""

from __future__ import annotations

import torch

from genlab.config.datasets import NothingConfig
from genlab.data.dataset import Dataset
from genlab.data.points import AsStored
from genlab.data.spec import DataSpec
from genlab.data.stream import Resident, Source


class Nothing:
    """One unused element, since a training split is never empty, and no validation or test data."""

    Config = NothingConfig

    @classmethod
    def load(cls, config: NothingConfig) -> Dataset:
        sizes = {"train": 1, "validation": 0, "test": 0}
        sources: dict[str, Source] = {
            split: Resident(torch.zeros(n, 1, 1, 1), None) for split, n in sizes.items()
        }
        return Dataset(DataSpec(config.name, 1, 1, 1, levels=0, kind="none"), sources, AsStored())
