"""The handwritten digits of scikit-learn, which need no download."""

from __future__ import annotations

import torch

from genlab.config.datasets import DigitsConfig
from genlab.data.dataset import Dataset, from_arrays

_TEST_IMAGES = 500


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
