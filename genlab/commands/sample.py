"""Images out of a trained model: one seed for each image, grids, files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from genlab import device
from genlab.commands.next import to_have_samples
from genlab.config.commands import SampleConfig
from genlab.config.schema import from_plain
from genlab.errors import ConfigError, storage_errors
from genlab.families.base import LatentFamily, row_labels
from genlab.log import log, log_to_console
from genlab.report.pictures import to_picture, to_uint8, write_samples
from genlab.runs.folder import create_folder, last_validation
from genlab.trained import codes, fitted_prior
from genlab.trained.draw import check_labels, check_temperature, draw
from genlab.trained.model import TrainedModel, load_model


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
    """Returns the function that draws images of given numbers.

    Raises:
        ConfigError: the model has no prior, and none is to be fitted.
    """
    family, given = model.family, f"ckpt={config.ckpt}: {model.config.model.name}"
    if not family.generates and not isinstance(family, LatentFamily):
        raise ConfigError(f"{given} makes no images; see genlab evaluate")
    if config.prior == "fit":
        return fitted_prior.sampler(config, model, torch_device, labels)
    if not family.generates:
        raise ConfigError(f"{given} has no prior to draw from; {to_have_samples(type(family), config.ckpt)}")
    return lambda indices: draw(
        model.family, indices, config.seed, torch_device, labels, config.temperature, progress=True
    )


def _warn_of_validation(model: TrainedModel) -> None:
    """Says what the run's last validation found wrong, where its folder has the numbers."""
    if numbers := last_validation(model.path.parents[1], model.step):
        for line in model.family.validation_warnings(numbers).values():
            log.warning("%s", line)


def _labels(config: SampleConfig, model: TrainedModel) -> Tensor | None:
    if config.labels is None:
        return row_labels(model.family, config.count)
    check_labels(config.labels, model)
    repeats = math.ceil(config.count / len(config.labels))
    return torch.tensor((list(config.labels) * repeats)[: config.count])
