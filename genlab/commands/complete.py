"""Image completion: known pixels are kept, an autoregressive model draws the others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genlab.commands.base import finish, images_for, name_of_images, open_model
from genlab.config.commands import CompleteConfig
from genlab.config.schema import suggest, typed
from genlab.data.spec import DataSpec
from genlab.errors import ConfigError, storage_errors
from genlab.files import write_json
from genlab.log import log
from genlab.report.pictures import save_grid, write_images
from genlab.rng import SampleRng
from genlab.runs.folder import create_folder
from genlab.trained.completing import Completions, check_count, complete, completing_family, is_prefix, stream
from genlab.trained.draw import check_labels
from genlab.trained.given import Given, read_picture, size_of
from genlab.trained.model import LoadedModel

_PICTURED_IMAGES, _PICTURED_COMPLETIONS = 40, 30
_GREY = 0.5
_SUGGESTED_CANDIDATES = 16


def main(plain: Mapping[str, Any]) -> None:
    """Runs `genlab complete`: writes completions.png, a PNG for each completion, and completions.json."""
    config, model = open_model(CompleteConfig, plain)
    family = completing_family(model, f"ckpt={config.ckpt}")
    if config.labels is not None:
        check_labels(config.labels, model)
    mask = read_mask(config.keep, model.spec)
    known = images_for(config, model, config.count)
    check_count(len(known.images), config.n, model.spec.dimensions)
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
            "keep=%s: a pixel is drawn without regard to known pixels later in the scan; resample=%d reduces "
            "the error",
            config.keep, _SUGGESTED_CANDIDATES,
        )  # fmt: skip
    done = complete(
        family,
        known.images.to(model.device),
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
        "images": name_of_images(config, model),
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
        write_json(folder / "completions.json", facts | {"completions": rows})
    if candidates > 1:
        print(
            f"keep={config.keep}: each completion is one of {candidates} candidates, by the likelihood of "
            f"the known pixels; effective sample size {done.effective.mean():.1f} on average"
        )
    then = f"genlab sample {typed('ckpt', config.ckpt)}"
    if not prefix and candidates == 1:
        images = "" if config.images is None else f" {typed('images', config.images)}"
        then = f"genlab complete {typed('ckpt', config.ckpt)}{images} {typed('keep', config.keep)} "
        then += f"resample={_SUGGESTED_CANDIDATES}"
    finish(folder, f"completions.png, images/ ({len(files)} files), completions.json", then)


def read_mask(keep: str, spec: DataSpec) -> Tensor:
    """Returns the mask of known pixels, (H, W): the upper or left half, or the white pixels of an image.

    Raises:
        ConfigError: the image does not exist or has another size, or the mask keeps all pixels or none.
    """
    mask = torch.zeros(spec.height, spec.width, dtype=torch.bool)
    if keep == "top":
        mask[: spec.height // 2] = True
        return mask
    if keep == "left":
        mask[:, : spec.width // 2] = True
        return mask
    path = Path(os.path.expanduser(keep))
    if not os.path.isfile(path):
        hint = suggest(keep, ("top", "left"), "keep=")
        hint = hint if "mean" in hint else "; use keep=top or keep=left, or make one: white pixels are kept"
        raise ConfigError(f"keep={keep}: no such mask image{hint}")
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


def labels_of(config: CompleteConfig, known: Given, model: LoadedModel) -> Tensor | None:
    """Returns each completion's label, (N, n): the user's in turn, else the image's, else drawn evenly."""
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
    """Writes a row for each image: the image, its known pixels with the rest grey, and its completions."""
    images = images[:_PICTURED_IMAGES].cpu()
    completed = completed[:_PICTURED_IMAGES, :_PICTURED_COMPLETIONS]
    kept = torch.where(mask, images, _GREY)
    table = torch.cat([images[:, None], kept[:, None], completed], 1)
    save_grid(table.flatten(0, 1), path, columns=table.shape[1])


def describe(
    files: list[str], names: list[str], labels: Tensor | None, done: Completions, candidates: int
) -> list[dict[str, Any]]:
    """Returns the entries of completions.json, one for each completion."""
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
