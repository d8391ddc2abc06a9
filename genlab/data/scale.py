"""The scale of images' values: what to save where they are not levels of 0 to 255."""

from __future__ import annotations

import numpy as np

from genlab.log import log

_DARK = 32
"""Levels below which the brightest of a whole set is taken for a mistake of scale."""


def remedy_for(array: np.ndarray) -> str:
    """Returns how to save images that are not uint8, by the range of their values."""
    if array.dtype.kind == "b":
        return "save 255 * x.astype('uint8')"
    if array.dtype.kind == "c" or not array.size:
        return "save levels of 0 to 255 as uint8"
    low, high = array.min(), array.max()  # NaN if one value is
    if not (np.isfinite(low) and np.isfinite(high)):
        return "it has values that are not finite; remove these, and save levels of 0 to 255 as uint8"
    whole = array.dtype.kind in "iu"
    # the first range that holds all values; whole numbers of 0 and 1 are black and white
    if low >= 0 and high <= 1:
        remedy = "(255 * x).astype('uint8')" if whole else "(255 * x).round().astype('uint8')"
    elif low >= -1 and high <= 1 and not whole:
        remedy = "(127.5 * (x + 1)).round().astype('uint8')"
    elif low >= 0 and high <= 255:
        remedy = "x.astype('uint8')" if whole else "x.round().astype('uint8')"
    elif low >= -128 and high <= 127 and whole:
        remedy = "(x.astype('int16') + 128).astype('uint8')"
    elif low >= 0 and high <= 65535:
        remedy = "(x / 257).round().astype('uint8')"
    else:
        remedy = "((x - x.min()) * (255 / (x.max() - x.min()))).round().astype('uint8')"
    return f"save {remedy}, as its values are {low:g} to {high:g}"


def warn_if_dark(given: str, levels: np.ndarray, binary: bool = False) -> None:
    """Warns of images (N, ...) uint8 that are almost black, most often since white was saved as 1.

    Args:
        given: the images, for the message.
        binary: whether the dataset's settings make them binary, so that their scale does not matter.
    """
    brightest = int(levels.max(initial=0))
    if brightest >= _DARK or binary or not len(levels):
        return
    remedy = f"save (x * (255 / {brightest})).round().astype('uint8')" if brightest else "save other images"
    if brightest == 1:
        remedy = "save 255 * x, or, for grey images, add dataset.binarize=threshold dataset.threshold=0"
    log.warning("%s: its brightest level is %d of 255, so that all is black; %s", given, brightest, remedy)
