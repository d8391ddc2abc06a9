"""Image completion: known pixels are kept, an autoregressive model draws the others."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from genlab import registry
from genlab.errors import ConfigError
from genlab.families.autoregressive import Autoregressive
from genlab.log import progress_bar
from genlab.memory import check_fits
from genlab.nets.scanning import Clamped, graphs_kept
from genlab.rng import SampleRng
from genlab.trained.model import LoadedModel

_BYTES_BESIDE = 2000
"""Bytes that a completion takes beside its pixels, most of them for its random numbers."""


class Completions(NamedTuple):
    """n completions of each of N images.

    images: (N, n, C, H, W) in [0, 1].
    log_prob_known: (N, n) float64, nats: log p of each known pixel given those before it in the completion,
        summed.
    effective: (N, n) float64, effective sample size of the weights: 1 / sum w^2, at most their number.
    """

    images: Tensor
    log_prob_known: Tensor
    effective: Tensor


@graphs_kept()
def complete(
    family: Autoregressive,
    images: Tensor,
    mask: Tensor,
    n: int,
    *,
    seed: int,
    labels: Tensor | None = None,
    resample: int = 1,
    temperature: float = 1.0,
    batch_size: int = 256,
    progress: bool = False,
) -> Completions:
    """Draws the unknown pixels in scan order, with the known ones fixed.

    Where the known pixels are a prefix of the scan this is exactly the model's conditional distribution.
    Otherwise a pixel is drawn without regard to known ones later in the scan. With p(x) = prod_i p(x_i |
    x_<i), such a draw has the density q = prod over unknown i, and p(unknown | known) is proportional to q w,
    where w = prod over known i, which the scan accumulates. So one of `resample` candidates is drawn in
    proportion to w: sampling-importance-resampling (Rubin 1988), which converges to the conditional as their
    number grows.

    Completion j of image i depends on seed, i, j and `resample`, not on n or the batch size.

    Args:
        images: (N, C, H, W) in [0, 1]; the values of unknown pixels are ignored.
        mask: (H, W), true where a pixel is known.
        n: number of completions of each image.
        labels: (N, n), for a class-conditional family: all candidates of a completion have its label.
        resample: candidates per completion; 1 for a prefix, where all have equal weight.
        temperature: of the draws; the weights are computed at temperature 1.
        batch_size: candidates at a time.
    """
    candidates = 1 if is_prefix(mask) else resample
    check_count(len(images), n, images[0].numel())
    mask = mask.to(images.device)[None, None]

    def draw(rows: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor]:
        rng = SampleRng(seed, [stream(*row) for row in rows], images.device, purpose="complete")
        of_image, of_completion, _ = torch.tensor(rows, device=images.device).unbind(1)
        given = None if labels is None else labels.to(images.device)[of_image, of_completion]
        scanner = family.scanner(len(rows), rng, given, temperature, Clamped(images[of_image], mask))
        return scanner.run(progress), scanner.log_prob_clamped

    def joined(parts: tuple[Tensor, ...], *shape: int) -> Tensor:
        return torch.cat(parts).unflatten(0, shape)

    places = [(image, completion) for image in range(len(images)) for completion in range(n)]
    at_a_time = max(1, batch_size // candidates)
    chosen: list[tuple[Tensor, Tensor, Tensor]] = []
    with (
        torch.no_grad(),
        progress_bar(total=len(places), unit="completion", shown=progress) as bar,
    ):
        for start in range(0, len(places), at_a_time):
            part = places[start : start + at_a_time]
            rows = [(*place, candidate) for place in part for candidate in range(candidates)]
            drawn = [draw(rows[k : k + batch_size]) for k in range(0, len(rows), batch_size)]
            pixels, log_prob = (joined(each, len(part), candidates) for each in zip(*drawn, strict=True))
            choice = SampleRng(seed, [stream(*place) for place in part], purpose="complete-choice")
            chosen.append(choose(pixels, log_prob, choice.uniform()))
            bar.update(len(part))
    return Completions(*(joined(each, len(images), n) for each in zip(*chosen, strict=True)))


def check_count(images: int, n: int, numbers: int) -> None:
    """Refuses more completions than fit into memory.

    Args:
        images: number of images.
        n: completions of each.
        numbers: of an image, C * H * W.

    Raises:
        TooLargeError: they do not fit.
    """
    check_fits(
        images * n * (8 * numbers + _BYTES_BESIDE),  # in parts, then joined
        f"n={n}",
        f"{n:,} completions of each of {images:,} images",
        "lower n, or complete fewer images",
    )


def stream(image: int, completion: int, candidate: int = 0) -> int:
    """Returns the index of a candidate's random stream; completions and candidates are below 2^16."""
    return (image << 32) + (completion << 16) + candidate


def choose(pixels: Tensor, log_weights: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draws one of K candidates in proportion to its weight.

    Args:
        pixels: (B, K, ...).
        log_weights: (B, K).
        uniform: (B,) in [0, 1).

    Returns:
        (B, ...), its log-weight (B,), and the effective sample size 1 / sum w^2 of the weights (B,).
    """
    weights = log_weights.softmax(1)
    cumulative = weights.cumsum(1)
    threshold = uniform.to(weights)[:, None] * cumulative[:, -1:]
    place = (cumulative <= threshold).sum(1).clamp(max=weights.shape[1] - 1)
    row = torch.arange(len(place), device=place.device)
    return pixels[row, place], log_weights[row, place], 1 / weights.square().sum(1)


def is_prefix(mask: Tensor) -> bool:
    """Returns whether no known pixel of a mask (H, W) follows an unknown one, in raster-scan order."""
    in_order = mask.flatten()
    return bool(in_order[: int(in_order.sum())].all())


def completing_family(model: LoadedModel, given: str) -> Autoregressive:
    """Returns the family of a model that completes images.

    Args:
        given: the model as the user named it, for the message.

    Raises:
        ConfigError: the model is not autoregressive, or is a model of codes.
    """
    if not isinstance(model.family, Autoregressive):
        raise ConfigError(
            f"{given}: {model.config.model.name} completes no images; models that do: "
            f"{', '.join(families_that_complete())}"
        )
    if model.spec.kind == "codes":
        raise ConfigError(
            f"{given}: a model of codes cannot complete images; use one of images, or see genlab sample"
        )
    return model.family


def families_that_complete() -> list[str]:
    """Returns the names of the autoregressive families."""
    families = {name: registry.look_up(registry.FAMILIES, name, "model") for name in registry.FAMILIES}
    return sorted(name for name, family in families.items() if issubclass(family, Autoregressive))
