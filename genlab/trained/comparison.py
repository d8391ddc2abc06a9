"""Samples compared with data, as `genlab evaluate` does: by the ruler, and with the training images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genlab.config.commands import EvaluateConfig
from genlab.data.dataset import Dataset
from genlab.data.sets import PictureSet, set_at, set_of_split, to_levels
from genlab.data.spec import DataSpec
from genlab.errors import DataError, storage_errors
from genlab.metrics.appearance import appearance
from genlab.metrics.memorisation import Closest, closest_images, copying, likeliest_copies
from genlab.report.pictures import save_grid
from genlab.trained.ruler import MOST_IMAGES, Ruler, count_name, parse, with_confidence

_SHOWN = 16
"""Number of the most likely copies that are shown."""


def reading_of(dataset: Any) -> dict[str, str]:
    """Returns the settings with which images of a folder are read; empty for all datasets but `folder`."""
    keys = ("background", "resampling")
    return {key: getattr(dataset, key) for key in keys if hasattr(dataset, key)}


class Comparison:
    """The comparison of images that `genlab evaluate` makes, by its settings.

    Args:
        config: settings of the command.
        dataset: its split is the reference, or its shape is that of the images of `against`; None if there
            are only folders.
        reading: `background` and `resampling` of folders, if a run has its own; see `reading_of`.

    Attributes:
        reference: the images that samples are compared with.
        count: number of samples needed.
        labels: those of the reference, if they are known.
    """

    def __init__(
        self,
        config: EvaluateConfig,
        dataset: Dataset | None,
        torch_device: torch.device,
        *,
        reading: Mapping[str, str] | None = None,
    ) -> None:
        reading = reading or {}
        self._config, self._device = config, torch_device
        self._dataset = images = None if dataset is None else dataset.originals
        self._given: PictureSet | None = None
        limit = min(config.n or MOST_IMAGES, config.images or config.n or MOST_IMAGES)
        shape = None if images is None else images.spec.shape
        if isinstance(config.samples, str):
            most = config.n or MOST_IMAGES
            self._given = set_at(config.samples, "samples", shape, limit=most, **reading)
            channels, height, width = self._given.levels.shape[1:]
            shape = channels, height, width
        if config.against is not None:
            self.reference = set_at(config.against, "against", shape, limit=limit, **reading)
        else:
            assert images is not None
            self.reference = set_of_split(images, config.split, limit)
        assert shape is not None
        self._spec = images.spec if images else DataSpec("pictures", *shape)
        self.labels = self.reference.labels
        self.count = config.n or len(self.reference.levels)
        self._memory = None
        if config.memorisation:
            assert images is not None
            self._memory = Memory(images, torch_device)
        self._ruler: Ruler | None = None
        if config.measured:
            wanted = parse(config.measured, self._spec)
            if config.against is None:
                wanted = with_confidence(wanted, self._spec)
            self._ruler = Ruler(
                self.reference, wanted, torch_device, dataset=images, weights_file=config.weights_file
            )

    @property
    def given(self) -> Tensor:
        """Returns the images of samples=FOLDER, (N, C, H, W) uint8, at the levels of the dataset."""
        assert self._given is not None
        return to_levels(self._given.levels.float() / 255, self._spec)

    def numbers(self, levels: Tensor) -> dict[str, float]:
        """Returns the metrics of generated images (N, C, H, W) uint8."""
        found: dict[str, float] = {}
        if self._ruler is not None:
            config = self._config
            found |= self._ruler.measure(levels, extrapolate=config.extrapolate, seed=config.seed)
            for of, pictures in ((count_name(len(levels)), levels), ("real", self.reference.levels)):
                found |= {f"{name}_{of}": value for name, value in appearance(pictures).items()}
        if self._memory is not None:
            found |= self._memory.numbers(levels)
        return found

    def setting(self, levels: Tensor) -> dict[str, Any]:
        """Returns the conditions of `numbers`."""
        found = {} if self._ruler is None else self._ruler.setting(len(levels))
        return found | ({} if self._memory is None else self._memory.setting(len(levels)))

    def write_pictures(self, levels: Tensor, folder: Path) -> list[str]:
        """Writes the pictures of the comparison; returns the files' names."""
        return [] if self._memory is None else self._memory.write_pictures(levels, folder)


class Memory:
    """A test for copies of training images; see `genlab.metrics.memorisation`.

    Args:
        dataset: of images, with a held-out split: validation images, else test images.
        torch_device: the device of the comparison.

    Raises:
        DataError: there is no held-out split.
    """

    def __init__(self, dataset: Dataset, torch_device: torch.device) -> None:
        self._device = torch_device
        split = next((split for split in ("validation", "test") if dataset.size(split)), None)
        if split is None:
            raise DataError(
                f"memorisation=true: {dataset.spec.name} has no held-out images to compare samples with"
            )
        self._training = set_of_split(dataset, "train")
        self._held_out = set_of_split(dataset, split, MOST_IMAGES)
        self._last: tuple[Tensor, Closest] | None = None

    def numbers(self, levels: Tensor) -> dict[str, float]:
        """Returns the shares of generated and held-out images nearer to a training image than the 1% quantile
        of held-out images, and the p-value of "no nearer than held-out images"."""
        held_out = self._closest(self._held_out.levels)
        found = copying(self._closest(levels), held_out)
        return {
            "nearer_to_training_share": found.nearer_share,
            "nearer_to_training_share_held_out": found.held_out_share,
            "memorisation_p_value": found.p_value,
        }

    def setting(self, generated: int) -> dict[str, Any]:
        """Returns the conditions of `numbers`."""
        held, training = len(self._held_out.levels), len(self._training.levels)
        return {
            "memorisation": f"{generated} samples and {held} images of {self._held_out.name}, beside "
            f"{training} training images"
        }

    def write_pictures(self, levels: Tensor, folder: Path) -> list[str]:
        """Writes nearest.png: the likeliest copies, each in a row with its nearest training images."""
        pairs = likeliest_copies(self._closest(levels), _SHOWN)
        samples, training = levels[pairs.samples.cpu()], self._training.levels[pairs.training.cpu()]
        rows = torch.cat([samples.unsqueeze(1), training], 1)
        with storage_errors(folder):
            save_grid(rows.flatten(0, 1) / 255, folder / "nearest.png", columns=rows.shape[1])
        return ["nearest.png"]

    def _closest(self, levels: Tensor) -> Closest:
        if self._last is None or self._last[0] is not levels:
            found = closest_images(levels.to(self._device), self._training.levels.to(self._device))
            self._last = levels, found
        return self._last[1]
