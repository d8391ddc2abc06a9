"""A linear probe: the accuracy of a linear classifier of features (Alain and Bengio 2017)."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import torch
from torch import Tensor

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)
"""Weights of half the sum of squares, beside the mean loss of an image; tried from the strongest on."""

_PENALTY = 1e-2  # without validation images to choose it


class Labelled(NamedTuple):
    """Features (N, F) and classes (N,) of N images."""

    features: Tensor
    labels: Tensor


class Probe(NamedTuple):
    """A probe's result.

    accuracy: share of the test images that are classified correctly.
    standard_error: sqrt(accuracy (1 - accuracy) / images), of a binomial distribution.
    penalty: of `PENALTIES`, the best one on the validation images; 0.01 without any.
    """

    accuracy: float
    standard_error: float
    penalty: float


def linear_probe(
    train: Labelled, test: Labelled, validation: Labelled | None = None, *, standardize: bool = True
) -> Probe:
    """Fits a multinomial logistic regression to `train` by L-BFGS in float32, without random numbers.

    Args:
        train: of two classes or more.
        standardize: divides each feature by its standard deviation over `train`, so that a penalty means the
            same for all. Features of one unit, such as pixels, do not need it.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean = train.features.mean(0)
    scale = train.features.std(0) if standardize else torch.ones_like(mean)
    scale = scale.where(scale > 0, 1)

    def accuracy(on: Labelled) -> float:
        found = torch.from_numpy(model.predict(((on.features - mean) / scale).numpy()))
        return (found == on.labels).double().mean().item()

    features, labels = ((train.features - mean) / scale).numpy(), train.labels.numpy()
    model = LogisticRegression(warm_start=True, max_iter=200)
    share, best, penalty = 0.0, -1.0, _PENALTY
    with warnings.catch_warnings():
        # With such a small penalty the last iterations do not change the accuracy.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for trial in (_PENALTY,) if validation is None else PENALTIES:
            model.set_params(C=1 / (trial * len(labels))).fit(features, labels)  # from the previous solution
            chosen_by = 0.0 if validation is None else accuracy(validation)
            if chosen_by < best:
                break  # smaller ones fit the training images even more closely
            if chosen_by > best:
                share, best, penalty = accuracy(test), chosen_by, trial
    return Probe(share, math.sqrt(share * (1 - share) / len(test.labels)), penalty)
