"""Classifiers of the data that a model was trained on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from genlab import registry
from genlab.config.datasets import StackedMNISTConfig
from genlab.errors import ConfigError
from genlab.metrics.classifier import Classifier, load_or_train


def of_digits(mnist_config: Any, torch_device: torch.device, *, folder: Path | None = None) -> Classifier:
    """Returns the classifier of an MNIST dataset, see `load_or_train`.

    The digits are used as published, without the configuration's binarisation or noise.

    Args:
        mnist_config: of a dataset of 28x28 grey digits; for Stacked MNIST, the MNIST that it is made of.

    Raises:
        ConfigError: the dataset is not one of 28x28 grey digits.
        DataError: its files are missing or damaged.
    """
    if isinstance(mnist_config, StackedMNISTConfig):
        mnist_config = mnist_config.single_digits()
    plain = dataclasses.replace(mnist_config, binarize="none", dequantize=False, flip=False)
    dataset = registry.dataset(plain)
    if dataset.spec.shape != (1, 28, 28) or dataset.spec.classes != 10:
        raise ConfigError(
            f"dataset={plain.name}: the digit classifier learns from grey 28x28 images of 10 classes"
        )
    return load_or_train(dataset, torch_device, folder=folder)
