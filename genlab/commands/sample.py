"""Sampling from a trained model: grids, image files and arrays; image k depends on seed and k alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from genlab.commands.base import finish, open_model
from genlab.config.commands import SampleConfig
from genlab.errors import storage_errors
from genlab.files import write_json, written_aside
from genlab.log import log, progress_bar
from genlab.report.pictures import save_picture, to_uint8, write_samples
from genlab.runs.folder import create_folder, last_validation
from genlab.trained.model import LoadedModel
from genlab.trained.sampling import sampler_of


def main(plain: Mapping[str, Any]) -> None:
    """Runs `genlab sample`: writes a grid, one PNG for each image, and samples.npz on request.

    Points are drawn over their true density, and written as points.csv.
    """
    config, model = open_model(SampleConfig, plain)
    sampler = sampler_of(config, model)
    labels, decoder = sampler.labels, sampler.decoder
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
        with progress_bar(total=config.count, unit="image") as bar:
            for start in range(0, config.count, config.batch_size):
                indices = range(start, min(start + config.batch_size, config.count))
                drawn = sampler.draw(indices)
                kept.append(drawn if points else to_uint8(drawn))
                for index, image in zip(indices, () if points else kept[-1], strict=not points):
                    save_picture(image, folder / "images" / f"{index:0{digits}d}.png")
                bar.update(len(indices))
        images = torch.cat(kept)
        write_samples(
            model.family, model.config, images[:10_000] if points else images[:400], folder / "grid.png"
        )
        if points:
            with written_aside(folder / "points.csv") as aside:
                np.savetxt(aside, images.flatten(1).cpu().numpy(), delimiter=",")
        if config.npz:
            values = images.flatten(1).cpu() if points else images.permute(0, 2, 3, 1)
            arrays: dict[str, Any] = {"points" if points else "images": values.numpy()}
            if labels is not None:
                arrays["labels"] = labels.numpy()
            with written_aside(folder / "samples.npz") as aside:
                np.savez_compressed(aside, **arrays)
        facts = model.describe() | {"n": config.count, "seed": config.seed, "temperature": config.temperature}
        if config.prior == "fit":
            facts |= {"prior": "Gaussians fitted to codes", "components": config.components}
        if decoder is not None:
            facts |= {"vqvae": decoder.model.describe()}
        write_json(folder / "samples.json", facts)
    files = "points.csv" if points else f"images/ ({config.count} files)"
    written = f"grid.png, {files}{', samples.npz' if config.npz else ''}"
    finish(folder, written, f"genlab evaluate ckpt={config.ckpt}")


def _warn_of_validation(model: LoadedModel) -> None:
    """Repeats the warnings of the run's last validation, if its folder has the metrics."""
    if numbers := last_validation(model.path.parents[1], model.step):
        for line in model.family.validation_warnings(numbers).values():
            log.warning("%s", line)
