"""Images out of a trained model: one seed for each image, grids, files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from genlab import build, checkpoint, device
from genlab.averaging import averaged_weights
from genlab.config import SampleConfig, TrainConfig, from_plain
from genlab.data.spec import DataSpec
from genlab.errors import CheckpointError, ConfigError
from genlab.families.base import Family
from genlab.rng import SampleRng
from genlab.run import create_folder, last_validation, log, log_to_console, storage_errors

_TILE_PIXELS = 48
"""Smaller images are enlarged in a grid by a whole factor, so that a person can see them."""

_GAP_PIXELS = 2
"""Between the images of a grid, and around them."""


@dataclass(frozen=True)
class TrainedModel:
    """A family with a checkpoint's weights, ready to sample and evaluate.

    Attributes:
        weights: "average" (of the moving average) or "raw".
        path: the checkpoint file.
        step, images: of training, when it was written.
    """

    family: Family
    config: TrainConfig
    spec: DataSpec
    weights: str
    path: Path
    step: int
    images: int

    @property
    def label(self) -> str:
        return f"{self.config.model.name}-{self.config.dataset.name}"

    def describe(self) -> dict[str, Any]:
        """What a file of results says of the model behind it."""
        return {
            "checkpoint": str(self.path),
            "model": self.config.model.name,
            "trained_on": self.config.dataset.name,
            "step": self.step,
            "images_seen": self.images,
            "weights": self.weights,
        }


def load_model(ckpt: str, weights: str, torch_device: torch.device) -> TrainedModel:
    """The model of a run folder or checkpoint file.

    Args:
        ckpt: a run folder (its newest whole checkpoint) or a file.
        weights: "average", "raw", or "auto" for the average where there is one.

    Raises:
        CheckpointError: missing, damaged, or without the average that was asked for.
    """
    path, state = checkpoint.find(ckpt)
    config = build.train_config(state["config"])
    spec = from_plain(DataSpec, state["spec"], "spec")
    family = build.family(config.model, spec)
    averages = state["averages"]
    if weights == "average" and not averages:
        raise CheckpointError(f"weights=average: {path} has no moving average; use weights=raw")
    used = "raw" if weights == "raw" or not averages else "average"
    try:
        family.load_state_dict(state["weights"])
        for player in averages if used == "average" else ():
            family.get_submodule(player).load_state_dict(averaged_weights(averages[player]))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"ckpt={path}: its weights do not fit its configuration ({reason})") from error
    family.to(torch_device).eval().requires_grad_(False)
    return TrainedModel(family, config, spec, used, path, state["step"], state["images"])


def main(plain: Mapping[str, Any]) -> None:
    """`genlab sample`: writes a grid, one PNG for each image, and samples.npz on request.

    Points are drawn over their true density, and written as points.csv.
    """
    log_to_console()
    config = from_plain(SampleConfig, plain)
    torch_device = device.resolve(config.device, "device")
    model = load_model(config.ckpt, config.weights, torch_device)
    labels = _labels(config, model)
    if model.spec.kind == "none":
        raise ConfigError(
            f"ckpt={config.ckpt}: {model.config.model.name} has no data; see samples/ of its run"
        )
    check_temperature(config.temperature, model)
    draw_part = _drawing(config, model, torch_device, labels)
    decoder = None
    if model.spec.kind == "codes":
        from genlab.data import codes  # which imports this module

        decoder = codes.decoder_of(model, config.dataset, torch_device)
    log.info("sampling %d images with the %s weights of %s", config.count, model.weights, model.path)
    if config.prior == "model":
        _warn_of_validation(model)
    folder = create_folder("sample", config.run_dir, model.label)
    points = model.spec.kind == "points"
    with storage_errors(folder):
        if not points:
            (folder / "images").mkdir()
        digits = max(5, len(str(config.count - 1)))
        kept = []
        with tqdm(total=config.count, unit="image", disable=None) as bar:
            for start in range(0, config.count, config.batch_size):
                indices = range(start, min(start + config.batch_size, config.count))
                drawn = draw_part(indices)
                if decoder is not None:
                    drawn = decoder(drawn)
                kept.append(drawn if points else to_uint8(drawn))
                for index, image in zip(indices, () if points else kept[-1], strict=not points):
                    to_picture(image).save(folder / "images" / f"{index:0{digits}d}.png")
                bar.update(len(indices))
        images = torch.cat(kept)
        write_samples(
            model.family, model.config, images[:10_000] if points else images[:400], folder / "grid.png"
        )
        if points:
            np.savetxt(folder / "points.csv", images.flatten(1).cpu().numpy(), delimiter=",")
        if config.npz:
            values = images.flatten(1).cpu() if points else images.permute(0, 2, 3, 1)
            arrays: dict[str, Any] = {"points" if points else "images": values.numpy()}
            if labels is not None:
                arrays["labels"] = labels.numpy()
            np.savez_compressed(folder / "samples.npz", **arrays)
        facts = model.describe() | {"n": config.count, "seed": config.seed, "temperature": config.temperature}
        if config.prior == "fit":
            facts |= {"prior": "Gaussians fitted to codes", "components": config.components}
        if decoder is not None:
            facts |= {"vqvae": decoder.model.describe()}
        (folder / "samples.json").write_text(json.dumps(facts, indent=2) + "\n")
    files = "points.csv" if points else f"images/ ({config.count} files)"
    print(f"wrote {folder}: grid.png, {files}{', samples.npz' if config.npz else ''}")
    print(f"next: genlab evaluate ckpt={config.ckpt}")


def _drawing(
    config: SampleConfig, model: TrainedModel, torch_device: torch.device, labels: Tensor | None
) -> Callable[[range], Tensor]:
    """What draws images of given numbers.

    Raises:
        ConfigError: the model has no prior, and none is to be fitted.
    """
    family, given = model.family, f"ckpt={config.ckpt}: {model.config.model.name}"
    if not family.generates and not family.decodes:
        raise ConfigError(f"{given} makes no images; see genlab evaluate")
    if config.prior == "fit":
        from genlab import fitting  # which imports this module

        return fitting.sampler(config, model, torch_device, labels)
    if not family.generates:
        raise ConfigError(f"{given} has no prior to draw from; {family.prior_line(config.ckpt)}")
    return lambda indices: draw(
        model.family, indices, config.seed, torch_device, labels, config.temperature, progress=True
    )


def _warn_of_validation(model: TrainedModel) -> None:
    """Says what the run's last validation found wrong, where its folder has the numbers."""
    if numbers := last_validation(model.path.parents[1], model.step):
        for line in model.family.validation_warnings(numbers).values():
            log.warning("%s", line)


def draw(
    family: Family,
    indices: range,
    seed: int,
    torch_device: torch.device,
    labels: Tensor | None = None,
    temperature: float = 1.0,
    progress: bool = False,
) -> Tensor:
    """Samples number `indices` of a seed, (n, C, H, W) in [0, 1]; each depends on seed and number alone.

    Args:
        temperature, progress: for a family that takes a temperature; others draw as they always do.
    """
    rng = SampleRng(seed, indices, torch_device)
    if labels is not None:
        labels = labels[list(indices)].to(torch_device)
    more: dict[str, Any] = {"temperature": temperature, "progress": progress}
    with torch.no_grad():
        return family.sample(len(indices), rng=rng, labels=labels, **more if family.takes_temperature else {})


def row_labels(family: Family, n: int) -> Tensor | None:
    """Labels (n,) that make a grid of n samples with a class a row; None for a family without labels.

    Rows are of n // classes samples, the last class takes what is over; with more classes than samples they
    are drawn by the family.
    """
    classes = family.spec.classes
    if not family.takes_labels or classes > n:
        return None
    return (torch.arange(n) // (n // classes)).clamp(max=classes - 1)


def check_temperature(temperature: float, model: TrainedModel) -> None:
    """Refuses a temperature for a family that has none.

    Raises:
        ConfigError: it is not 1, and the family draws no pixel from a distribution of its own.
    """
    if temperature != 1 and not model.family.takes_temperature:
        name = model.config.model.name
        raise ConfigError(f"temperature={temperature:g}: {name} takes none; leave temperature out")


def check_labels(labels: Sequence[int], model: TrainedModel, key: str = "labels") -> None:
    """Refuses labels for a model that takes none, or of a class that there is not.

    Args:
        key: of the setting that they are; "label" for one alone.

    Raises:
        ConfigError: see above; also for no labels at all.
    """
    given = f"{key}={labels[0] if key == 'label' else list(labels)}"
    if not labels:
        raise ConfigError("labels=[]: give at least one class, e.g. labels=[3,3,7]")
    if not model.family.takes_labels:
        raise ConfigError(f"{given}: {model.config.model.name} takes no labels; leave {key} out")
    if max(labels) >= model.spec.classes:
        raise ConfigError(f"{given}: {model.spec.name} has classes 0 to {model.spec.classes - 1}")


def _labels(config: SampleConfig, model: TrainedModel) -> Tensor | None:
    if config.labels is None:
        return row_labels(model.family, config.count)
    check_labels(config.labels, model)
    repeats = math.ceil(config.count / len(config.labels))
    return torch.tensor((list(config.labels) * repeats)[: config.count])


def to_uint8(images: Tensor) -> Tensor:
    """Images in [0, 1] as 8-bit levels on the CPU, same shape."""
    return (images.clamp(0, 1) * 255).round().to("cpu", torch.uint8)


def to_picture(pixels: Tensor) -> Image.Image:
    """(C, H, W) uint8 with 1 or 3 channels as a picture."""
    array = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def grid(pixels: Tensor, columns: int | None = None) -> Tensor:
    """Images (n, C, H, W) uint8 as one, row by row: (C, H', W'); as good as square unless told."""
    columns = columns or math.ceil(math.sqrt(len(pixels)))
    factor = max(1, round(_TILE_PIXELS / max(pixels.shape[-2:])))
    enlarged = pixels.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
    count, channels, height, width = enlarged.shape
    if count == 1:
        return enlarged[0]
    columns = min(columns, count)
    across, down = width + _GAP_PIXELS, height + _GAP_PIXELS
    size = (-(-count // columns) * down + _GAP_PIXELS, columns * across + _GAP_PIXELS)
    sheet = enlarged.new_full((channels, *size), 128)
    for k, tile in enumerate(enlarged):
        row, column = divmod(k, columns)
        top, left = row * down + _GAP_PIXELS, column * across + _GAP_PIXELS
        sheet[:, top : top + height, left : left + width] = tile
    return sheet


def write_samples(family: Family, config: TrainConfig, samples: Tensor, path: Path, title: str = "") -> None:
    """Writes one picture of samples: a grid of images, or points over the density that they should have.

    Args:
        samples: as `draw` gives them, codes as the images they stand for; images may be uint8 already.
    """
    if family.spec.pictured:
        pixels = samples if samples.dtype == torch.uint8 else to_uint8(samples)
        columns = len(pixels) // family.spec.classes if row_labels(family, len(pixels)) is not None else None
        to_picture(grid(pixels, columns)).save(path)
        return
    from genlab.report import figures  # brings matplotlib, which images do without

    if family.spec.kind == "points":
        with torch.no_grad():
            figures.points(samples, config.dataset.mixture(), path, title, family.judge)
    else:
        figures.game(samples, path, title)


def save_grid(images: Tensor, path: Path, columns: int | None = None) -> None:
    """Writes images (n, C, H, W) in [0, 1] as one picture."""
    to_picture(grid(to_uint8(images), columns)).save(path)


def save_bands(bands: Sequence[Tensor], path: Path, columns: int = 10) -> None:
    """Writes several versions of the same images below one another: a row of each version in turn.

    Args:
        bands: versions, (N, C, H, W) in [0, 1] each, e.g. originals and reconstructions.
        columns: images of a row; the last row may have fewer.
    """
    rows = [
        part for parts in zip(*(band.cpu().split(columns) for band in bands), strict=True) for part in parts
    ]
    grey = torch.full((columns, *bands[0].shape[1:]), 0.5)  # the grid's own colour
    columns = min(columns, len(bands[0]))
    full = [torch.cat([row, grey[: columns - len(row)]]) for row in rows]
    save_grid(torch.cat(full), path, columns)
