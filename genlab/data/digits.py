"""The handwritten digits that come with scikit-learn: nothing to download."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from genlab.config.schema import setting
from genlab.data.dataset import Dataset, DatasetConfig, from_arrays

_TEST_IMAGES = 500


@dataclass(frozen=True, kw_only=True)
class DigitsConfig(DatasetConfig):
    """1797 digits, 8x8, 17 levels: the test set of the UCI collection (Alpaydin and Kaynak 1998)."""

    name: Literal["digits"] = setting("digits")  # type: ignore[assignment]
    validation_images: int = setting(100, at_least=0, help="held out from the end of the training images")


class Digits:
    """Images in the order of the collection: the last 500 are the test split."""

    Config = DigitsConfig

    @staticmethod
    def load(config: DigitsConfig) -> Dataset:
        """Reads the copy inside scikit-learn."""
        from sklearn.datasets import load_digits

        pixels, classes = load_digits(return_X_y=True)
        images = torch.from_numpy(pixels).to(torch.uint8).view(-1, 1, 8, 8)
        labels = torch.from_numpy(classes).long()
        train = images[:-_TEST_IMAGES], labels[:-_TEST_IMAGES]
        test = images[-_TEST_IMAGES:], labels[-_TEST_IMAGES:]
        return from_arrays(config, train, test, validation=config.validation_images, levels=17, classes=10)
