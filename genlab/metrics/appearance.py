"""Mean brightness, edges and saturation of images: metrics that need no network."""

from __future__ import annotations

import torch
from torch import Tensor

_AT_ONCE = 1000


def appearance(levels: Tensor) -> dict[str, float]:
    """Returns means over images of simple visible properties.

    Noise has too many edges and blur too few; wrong colours change the saturation. Compare them with those of
    real images; they do not measure the content of images.

    Args:
        levels: (N, C, H, W) uint8, N at least 1.

    Returns:
        brightness: mean of all values, in [0, 1].
        edges: mean absolute difference between neighbouring pixels of a row or a column, in [0, 1]; 0 for a
            single pixel.
        saturation: that of the HSV colour space, (max - min) / max of a pixel's channels and 0 for black,
            mean over all pixels, in [0, 1]; only for colour images.
    """
    totals: dict[str, Tensor] = {}
    for part in levels.split(_AT_ONCE):
        images = part.double() / 255
        found = {"brightness": images.mean((1, 2, 3)), "edges": _edges(images)}
        if images.shape[1] == 3:
            greatest = images.amax(1)
            saturation = (greatest - images.amin(1)) / greatest.clamp_min(1e-9)
            found["saturation"] = saturation.mean((1, 2))
        for name, values in found.items():
            totals[name] = totals.get(name, torch.zeros((), dtype=torch.float64)) + values.sum()
    return {name: (total / len(levels)).item() for name, total in totals.items()}


def _edges(images: Tensor) -> Tensor:
    differences = [images.diff(dim=dim).abs().flatten(1) for dim in (2, 3)]
    both = torch.cat(differences, 1)
    return both.mean(1) if both.shape[1] else both.new_zeros(len(both))
