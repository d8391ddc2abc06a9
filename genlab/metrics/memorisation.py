"""A test for copies of training images: distances of samples to them, compared with held-out images.

A sample that copies a training image is much nearer to it than to the next ones. Held-out images show how
near a new image of the same kind comes by chance: a perfect model's samples are not nearer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from genlab.errors import UserError
from genlab.metrics.distances import blocks, checked
from genlab.metrics.neighbours import nearest

NEIGHBOURS = 5
"""Training images whose distances are compared. A larger number does not matter for images without copies."""

_TAIL = 0.01
_MOST_PIXELS = 32  # maximum side of compared images
_FEWEST_AVERAGED = 16  # side in pixels from which squares of 4 by 4 are averaged
_SAME = 4e-6  # squared distance of unit vectors below the resolution of float32
_BLANK = 1e-3  # norm of an image in [0, 1] minus its mean, below which it is empty


class Closest(NamedTuple):
    """The nearest training images of M images, nearest first.

    distances: (M, k).
    indices: (M, k) among the training images.
    """

    distances: Tensor
    indices: Tensor

    def ratios(self) -> Tensor:
        """Returns the distance to the nearest over that to the k-th, (M,), in [0, 1]: 0 for a copy.

        Carlini et al. 2023, section 4.2, also divide by a mean of neighbours' distances: by the distance
        alone simple images count as copies, since they are near to everything. Where all k are equal to the
        image it is 1.
        """
        first, last = self.distances[:, 0], self.distances[:, -1]
        return torch.where(last > 0, first / last, 1.0)


class Copying(NamedTuple):
    """The result of `copying`.

    nearer_share: share of the samples that are nearer to a training image than all but the nearest 1 % of
        the held-out images.
    held_out_share: the same share of the held-out images: 0.01, or more where several are equally near. A
        model that does not copy has about the same `nearer_share`.
    p_value: of a test against "the samples are no nearer than held-out images"; valid for any numbers of
        images and any distances.
    """

    nearer_share: float
    held_out_share: float
    p_value: float


class Pairs(NamedTuple):
    """Samples and their nearest training images, the most likely copies first.

    samples: (n,) indices.
    training: (n, k) indices, nearest first.
    distances: (n, k) to these.
    ratios: (n,) see `Closest.ratios`.
    """

    samples: Tensor
    training: Tensor
    distances: Tensor
    ratios: Tensor


def closest_images(
    images: Tensor, training: Tensor, *, neighbours: int = NEIGHBOURS, shift: int = 1
) -> Closest:
    """Finds the most similar training images, whatever the brightness, contrast and shifts by a pixel.

    Images of more than 32 pixels a side are reduced to 32; from 16 on, squares of 4 by 4 pixels are averaged,
    one at every second pixel, to reduce noise. The result is compared without its mean and at unit length, so
    distances are in [0, 2]; each image at all shifts up to `shift` pixels, of which the nearest counts.
    Distances under 0.002 are 0. On one core 1,000 images of 28x28 take 2.5 s against 60,000.

    Args:
        images: (M, C, H, W), float in [0, 1], or uint8 of 256 levels.
        training: (N, C, H, W), likewise.

    Raises:
        UserError: fewer training images than `neighbours`.
    """
    _enough(training, neighbours)
    references = torch.cat([_outline(_small(training[rows])) for rows in blocks(*_sizes(training))])
    found = []
    for rows in blocks(len(images), len(training)):
        likeness = torch.full((), -torch.inf, device=references.device)
        for moved in _places(_small(images[rows]), shift):
            likeness = torch.maximum(likeness, _outline(moved) @ references.T)
        found.append(likeness.topk(neighbours, dim=1))
    squares = 2 - 2 * torch.cat([block.values for block in found])
    squares = squares.where(squares > _SAME, 0)
    return Closest(squares.sqrt(), torch.cat([block.indices for block in found]))


def closest_features(features: Tensor, training: Tensor, *, neighbours: int = NEIGHBOURS) -> Closest:
    """Finds the training images with the nearest features, by Euclidean distance.

    Args:
        features: (M, F).
        training: (N, F).

    Raises:
        UserError: fewer training images than `neighbours`, or a value that is not finite.
    """
    _enough(training, neighbours)
    squares, indices = nearest(checked(features), checked(training), neighbours)
    return Closest(squares.sqrt(), indices)


def copying(samples: Closest, held_out: Closest) -> Copying:
    """Tests whether samples are nearer to training images than held-out images from the same source are.

    Both are sorted together by their ratios. Without copies, each sample is as likely to come first as each
    held-out image, and the number of samples among the first K is hypergeometric. K is 4, 8, 16 ... up to
    half of all, so that few copies among many samples are found as well as a slight closeness of all; the
    smallest of these p-values is multiplied by their number (Bonferroni). The more held-out images, the fewer
    copies suffice: with ten times as many, five. Meehan et al. 2020 compare mean ranks, and miss so few.

    The held-out images must have the same source as the training images. MNIST's test images were written by
    other people than its training images, and are a little farther from them than a perfect model's samples:
    use validation images.
    """
    ratios, others = samples.ratios(), held_out.ratios()
    if not len(ratios) or not len(others):
        raise UserError("a test of copying needs samples and held-out images")
    limit = others.sort().values[max(0, round(_TAIL * len(others)) - 1)]
    pooled = torch.cat([ratios, others]).sort().values
    tails: dict[int, float] = {}
    level = 4
    while level <= max(4, len(pooled) // 2):
        end = pooled[min(level, len(pooled)) - 1]
        first = int((pooled <= end).sum())  # more than `level` if several are equally near
        tails[first] = _hypergeometric_tail(int((ratios <= end).sum()), first, len(ratios), len(others))
        level *= 2
    return Copying(
        nearer_share=(ratios <= limit).double().mean().item(),
        held_out_share=(others <= limit).double().mean().item(),
        p_value=min(1.0, len(tails) * min(tails.values())),
    )


def likeliest_copies(samples: Closest, count: int) -> Pairs:
    """Returns the `count` samples, or all, that are most likely copies, and their nearest training images."""
    ratios = samples.ratios()
    order = ratios.argsort(stable=True)[:count]
    return Pairs(order, samples.indices[order], samples.distances[order], ratios[order])


def _enough(training: Tensor, neighbours: int) -> None:
    if len(training) < neighbours:
        raise UserError(f"{len(training)} training images: a test of copying needs at least {neighbours}")


def _sizes(images: Tensor) -> tuple[int, int]:
    return len(images), images[0].numel()


def _small(images: Tensor) -> Tensor:
    """Converts images to float32 in [0, 1], at most 32 pixels a side."""
    images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    largest = max(images.shape[-2:])
    if largest <= _MOST_PIXELS:
        return images
    height, width = (max(1, round(side * _MOST_PIXELS / largest)) for side in images.shape[-2:])
    return F.interpolate(images, (height, width), mode="area")


def _places(images: Tensor, shift: int) -> Iterator[Tensor]:
    """Yields the images shifted by up to `shift` pixels along both axes, their edges repeated."""
    height, width = images.shape[-2:]
    padded = F.pad(images, (shift,) * 4, mode="replicate")
    for top in range(2 * shift + 1):
        for left in range(2 * shift + 1):
            yield padded[..., top : top + height, left : left + width]


def _outline(images: Tensor) -> Tensor:
    """Returns (B, F) of length 1 and mean 0; about 0 for an empty image."""
    if min(images.shape[-2:]) >= _FEWEST_AVERAGED:
        images = F.avg_pool2d(images, 4, 2)
    flat = images.flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    return flat / flat.norm(dim=1, keepdim=True).clamp(min=_BLANK)


def _hypergeometric_tail(at_least: int, drawn: int, marked: int, unmarked: int) -> float:
    """Returns the probability of at least this many marked ones among those drawn without replacement."""
    marked_drawn = torch.arange(max(at_least, drawn - unmarked), min(drawn, marked) + 1, dtype=torch.float64)
    logs = (
        _log_choose(marked, marked_drawn)
        + _log_choose(unmarked, drawn - marked_drawn)
        - _log_choose(marked + unmarked, torch.tensor(float(drawn), dtype=torch.float64))
    )
    return min(1.0, logs.logsumexp(0).exp().item())


def _log_choose(total: int, chosen: Tensor) -> Tensor:
    """Returns the logarithm of the binomial coefficient."""
    whole = torch.tensor(total + 1.0, dtype=torch.float64)
    return whole.lgamma() - (chosen + 1).lgamma() - (total - chosen + 1).lgamma()
