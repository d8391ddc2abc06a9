"""Labels from any source, checked: whole numbers from 0, each the number of a class with images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genlab.errors import DataError
from genlab.log import log

_FEW_CLASSES = 100
"""Number of classes up to which most of them may be without images."""

_NAMED = 10
"""Number of classes without images that are named."""


def count_classes(labels: Sequence[Tensor], given: str) -> int:
    """Returns the number of classes of labels from 0: the largest label and one more.

    Args:
        labels: those of each split, (N,) int64.
        given: the source of the labels, for the message.

    Raises:
        DataError: there are more than 100 classes, and more than half of them have no image.
    """
    numbers = torch.cat([torch.empty(0, dtype=torch.int64), *labels]).unique()
    if not len(numbers):
        return 0
    low, high = int(numbers[0]), int(numbers[-1])
    if high + 1 > max(_FEW_CLASSES, 2 * len(numbers)):
        raise DataError(
            f"{given}: its labels are {len(numbers)} different numbers from {low} to {high}, which would be "
            f"{high + 1:,} classes; save numpy.unique(labels, return_inverse=True)[1] of all splits"
        )
    return high + 1


def check_labels(name: str, labels: Tensor | None, classes: int) -> None:
    """Refuses labels that are not in 0..classes-1.

    Args:
        name: of the dataset, for the message.
        labels: (N,) int64, or None.

    Raises:
        DataError: the smallest or the largest label is not.
    """
    if labels is None or not len(labels):
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"dataset={name}: its labels are {low} to {high}, expected 0 to {classes - 1}; "
            "the files are damaged, or of another dataset"
        )


def warn_of_missing(name: str, labels: Tensor | None, classes: int) -> None:
    """Warns of classes without a training image.

    Args:
        name: of the dataset, for the message.
        labels: of the training images, (N,) int64, or None.
    """
    if labels is None or not len(labels):
        return
    missing = (torch.bincount(labels, minlength=classes) == 0).nonzero().flatten().tolist()
    if missing:
        named = ", ".join(map(str, missing[:_NAMED])) + (", ..." if len(missing) > _NAMED else "")
        log.warning(
            "dataset=%s: %d of %d classes have no training image: %s", name, len(missing), classes, named
        )
