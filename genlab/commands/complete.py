"""Completing images: what is known stays, an autoregressive model draws the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from genlab import device, registry
from genlab.config.commands import CompleteConfig
from genlab.config.schema import from_plain, suggest
from genlab.data.spec import DataSpec
from genlab.errors import ConfigError, storage_errors
from genlab.families.autoregressive import Autoregressive
from genlab.log import log, log_to_console
from genlab.nets.scanning import Clamped
from genlab.report.pictures import save_grid, to_picture, to_uint8
from genlab.rng import SampleRng
from genlab.runs.folder import create_folder
from genlab.trained.draw import check_labels
from genlab.trained.given import Given, given_images, read_picture, size_of
from genlab.trained.model import TrainedModel, load_model

_PICTURED_IMAGES, _PICTURED_COMPLETIONS = 40, 30
_GREY = 0.5
_SUGGESTED_CANDIDATES = 16


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
        tqdm(total=len(places), unit="completion", disable=None if progress else True) as bar,
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


def main(plain: Mapping[str, Any]) -> None:
    """`genlab complete`: writes completions.png, a PNG for each completion, and completions.json."""
    log_to_console()
    config = from_plain(CompleteConfig, plain)
    torch_device = device.resolve(config.device, "device")
    model = load_model(config.ckpt, config.weights, torch_device)
    family = model.family
    if not isinstance(family, Autoregressive):
        raise ConfigError(
            f"ckpt={config.ckpt}: {model.config.model.name} completes no images; "
            f"models that do: {', '.join(families_that_complete())}"
        )
    if model.spec.kind == "codes":
        raise ConfigError(
            f"ckpt={config.ckpt}: a model of codes, no pixel of which is known; use one of images, or see "
            "genlab sample"
        )
    if config.labels is not None:
        check_labels(config.labels, model)
    mask = read_mask(config.keep, model.spec)
    known = given_images(
        model,
        config.images,
        split=config.split,
        count=config.count,
        seed=config.seed,
        changes=config.dataset,
    )
    labels = labels_of(config, known, model)
    prefix = is_prefix(mask)
    candidates = 1 if prefix else config.resample
    folder = create_folder("complete", config.run_dir, model.label)
    log.info(
        "%d completions of each of %d images with the %s weights of %s",
        config.n, len(known.images), model.weights, model.path,
    )  # fmt: skip
    if candidates == 1 and not prefix:
        log.info(
            "keep=%s: known pixels that come later in the scan are not looked ahead to; resample=%d comes "
            "closer",
            config.keep, _SUGGESTED_CANDIDATES,
        )  # fmt: skip
    done = complete(
        family,
        known.images.to(torch_device),
        mask,
        config.n,
        seed=config.seed,
        labels=labels,
        resample=candidates,
        temperature=config.temperature,
        batch_size=config.batch_size,
        progress=True,
    )
    facts = model.describe() | {
        "images": config.images or f"{model.spec.name}, {config.split} split",
        "keep": config.keep,
        "known_pixels": int(mask.sum()),
        "n": config.n,
        "seed": config.seed,
        "temperature": config.temperature,
        "resample": candidates,
        "exact": prefix and config.temperature == 1,
    }
    with storage_errors(folder):
        write_table(folder / "completions.png", known.images, mask, done.images.cpu())
        files = write_images(folder / "images", done.images)
        rows = describe(files, known.names, labels, done, candidates)
        (folder / "completions.json").write_text(json.dumps(facts | {"completions": rows}, indent=2) + "\n")
    if candidates > 1:
        print(
            f"keep={config.keep}: each completion is one of {candidates} candidates, by the likelihood of "
            f"the known pixels; effective sample size {done.effective.mean():.1f} on average"
        )
    print(f"wrote {folder}: completions.png, images/ ({len(files)} files), completions.json")
    if prefix or candidates > 1:
        print(f"next: genlab sample ckpt={config.ckpt}")
    else:
        images = "" if config.images is None else f" images={config.images}"
        print(
            f"next: genlab complete ckpt={config.ckpt}{images} keep={config.keep} "
            f"resample={_SUGGESTED_CANDIDATES}"
        )


def families_that_complete() -> list[str]:
    """Names of the autoregressive families."""
    families = {name: registry.look_up(registry.FAMILIES, name, "model") for name in registry.FAMILIES}
    return sorted(name for name, family in families.items() if issubclass(family, Autoregressive))


def read_mask(keep: str, spec: DataSpec) -> Tensor:
    """What is known of every image: (H, W), true for the upper or the left half, or where a picture is white.

    Raises:
        ConfigError: no such picture, one of another size, or a mask that leaves nothing to do.
    """
    mask = torch.zeros(spec.height, spec.width, dtype=torch.bool)
    if keep == "top":
        mask[: spec.height // 2] = True
        return mask
    if keep == "left":
        mask[:, : spec.width // 2] = True
        return mask
    path = Path(keep).expanduser()
    if not path.is_file():
        hint = suggest(keep, ("top", "left"), "keep=")
        hint = hint if "mean" in hint else "; use keep=top or keep=left, or make one: white is kept"
        raise ConfigError(f"keep={keep}: no such picture of a mask{hint}")
    white = read_picture(path, "keep", 1)[0] > 127
    if white.shape != mask.shape:
        raise ConfigError(
            f"keep={keep}: a mask of {size_of(white)} pixels (height x width), the images have "
            f"{size_of(mask)}; resize it, or use keep=top or keep=left"
        )
    if white.all() or not white.any():
        which = "every pixel, so that none is left to draw" if white.all() else "no pixel; see genlab sample"
        raise ConfigError(f"keep={keep}: keeps {which}; make it white where pixels are kept, black elsewhere")
    return white


def labels_of(config: CompleteConfig, known: Given, model: TrainedModel) -> Tensor | None:
    """The label of each completion, (N, n): the user's in turn, else the image's own, else drawn evenly."""
    if not model.family.takes_labels:
        return None
    shape = (len(known.images), config.n)
    if config.labels is not None:
        return torch.tensor(config.labels)[torch.arange(config.n) % len(config.labels)].expand(shape)
    if known.labels is not None:
        return known.labels[:, None].expand(shape)
    numbers = [stream(image, completion) for image in range(shape[0]) for completion in range(shape[1])]
    return SampleRng(config.seed, numbers, purpose="complete-label").integers(model.spec.classes).view(shape)


def write_table(path: Path, images: Tensor, mask: Tensor, completed: Tensor) -> None:
    """A row for each image: itself, what is known of it with the rest grey, its completions."""
    images = images[:_PICTURED_IMAGES].cpu()
    completed = completed[:_PICTURED_IMAGES, :_PICTURED_COMPLETIONS]
    kept = torch.where(mask, images, _GREY)
    table = torch.cat([images[:, None], kept[:, None], completed], 1)
    save_grid(table.flatten(0, 1), path, columns=table.shape[1])


def write_images(folder: Path, completed: Tensor) -> list[str]:
    """A PNG for each completion, e.g. 00003-01.png for the second one of the fourth image; their names."""
    folder.mkdir()
    count, n = completed.shape[:2]
    wide, narrow = max(5, len(str(count - 1))), max(2, len(str(n - 1)))
    names = [f"{image:0{wide}d}-{k:0{narrow}d}.png" for image in range(count) for k in range(n)]
    for name, pixels in zip(names, to_uint8(completed).flatten(0, 1), strict=True):
        to_picture(pixels).save(folder / name)
    return names


def describe(
    files: list[str], names: list[str], labels: Tensor | None, done: Completions, candidates: int
) -> list[dict[str, Any]]:
    """What completions.json says of each completion."""
    columns: dict[str, list[Any]] = {
        "file": [f"images/{file}" for file in files],
        "image": [name for name in names for _ in range(done.images.shape[1])],
    }
    if labels is not None:
        columns["label"] = labels.flatten().tolist()
    columns["known_log_prob_nats"] = done.log_prob_known.flatten().tolist()
    if candidates > 1:
        columns["effective_sample_size"] = done.effective.flatten().tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
