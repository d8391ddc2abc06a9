"""Completing images: known pixels stay, an autoregressive model draws the others."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from genlab import registry
from genlab.errors import ConfigError
from genlab.families.autoregressive import Autoregressive
from genlab.log import progress_bar
from genlab.nets.scanning import Clamped
from genlab.rng import SampleRng
from genlab.trained.model import LoadedModel


class Completions(NamedTuple):
    """n completions of each of N images.

    images: (N, n, C, H, W) in [0, 1].
    log_prob_known: (N, n) float64, nats: log p of each known pixel given those before it in the completion,
        summed.
    effective: (N, n) float64, of the candidates' weights: 1 / sum w^2, their number where all weigh the same.
    """

    images: Tensor
    log_prob_known: Tensor
    effective: Tensor


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
    """Draws the unknown pixels in scan order, the known ones held in their places.

    Where the known pixels are a prefix of the scan that is the model's conditional, exactly. Elsewhere a
    pixel is drawn without regard to known ones that come later. With p(x) = prod_i p(x_i | x_<i), such a
    draw has the density q = prod over unknown i, and p(unknown | known) is proportional to q w, where w =
    prod over known i is what the scan multiplies up. So of `resample` candidates one is drawn in proportion
    to w: sampling-importance-resampling (Rubin 1988), which approaches the conditional as they become many.

    Completion j of image i depends on seed, i, j and `resample`, not on n or the batch size.

    Args:
        images: (N, C, H, W) in [0, 1]; what unknown pixels are set to makes no difference.
        mask: (H, W), true where a pixel is known.
        n: completions of each image.
        labels: (N, n), for a class-conditional family: all candidates of a completion have its label.
        resample: candidates of a completion; 1 for a prefix, where all weigh the same.
        temperature: of the draws; weights are the model's own.
        batch_size: candidates at a time.
    """
    candidates = 1 if is_prefix(mask) else resample
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


def stream(image: int, completion: int, candidate: int = 0) -> int:
    """The number of a candidate's stream of random numbers; completions and candidates are below 2^16."""
    return (image << 32) + (completion << 16) + candidate


def choose(pixels: Tensor, log_weights: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One of K candidates in proportion to its weight.

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
    """Whether no known pixel of a mask (H, W) comes after an unknown one, row by row from the top left."""
    in_order = mask.flatten()
    return bool(in_order[: int(in_order.sum())].all())


def completing_family(model: LoadedModel, given: str) -> Autoregressive:
    """Returns the family of a model that completes images.

    Args:
        given: the model as the user named it, for the message.

    Raises:
        ConfigError: it draws no pixels one after another, or is a model of codes.
    """
    if not isinstance(model.family, Autoregressive):
        raise ConfigError(
            f"{given}: {model.config.model.name} completes no images; models that do: "
            f"{', '.join(families_that_complete())}"
        )
    if model.spec.kind == "codes":
        raise ConfigError(
            f"{given}: a model of codes, no pixel of which is known; use one of images, or see genlab sample"
        )
    return model.family


def families_that_complete() -> list[str]:
    """Names of the autoregressive families."""
    families = {name: registry.look_up(registry.FAMILIES, name, "model") for name in registry.FAMILIES}
    return sorted(name for name, family in families.items() if issubclass(family, Autoregressive))
