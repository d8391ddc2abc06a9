"""Reconstructing images: what a model with an encoder keeps of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from genlab import device
from genlab.config.commands import ReconstructConfig
from genlab.config.schema import from_plain
from genlab.errors import storage_errors
from genlab.log import log, log_to_console
from genlab.metrics.fidelity import mean_squared_error, psnr_db
from genlab.report.pictures import save_bands
from genlab.runs.folder import create_folder
from genlab.trained.given import given_images
from genlab.trained.latent_space import check_has, for_json, labels_of, reconstruct, table, write_images
from genlab.trained.model import load_model

_PICTURED_IMAGES = 200


def main(plain: Mapping[str, Any]) -> None:
    """`genlab reconstruct`: writes reconstructions.png, a PNG for each image, and reconstructions.json."""
    log_to_console()
    config = from_plain(ReconstructConfig, plain)
    torch_device = device.resolve(config.device, "device")
    model = load_model(config.ckpt, config.weights, torch_device)
    family = check_has(model, config.ckpt, "encodes", "decodes")
    given = given_images(
        model,
        config.images,
        split=config.split,
        count=config.count,
        seed=config.seed,
        changes=config.dataset,
    )
    folder = create_folder("reconstruct", config.run_dir, model.label)
    count = len(given.images)
    log.info("reconstructing %d images with the %s weights of %s", count, model.weights, model.path)
    labels = labels_of(model, given, torch_device, config.batch_size, config.seed)
    restored = reconstruct(family, given.images, torch_device, config.batch_size, labels)
    error = mean_squared_error(given.images, restored)
    psnr = psnr_db(error)
    facts = model.describe() | {
        "images": config.images or f"{model.spec.name}, {config.split} split",
        "count": count,
        "seed": config.seed,
        "mean_squared_error": error.mean().item(),
        "psnr_db": for_json(psnr.mean().item()),
    }
    with storage_errors(folder):
        pictured = slice(0, _PICTURED_IMAGES)
        save_bands([given.images[pictured], restored[pictured]], folder / "reconstructions.png")
        files = write_images(folder / "images", restored)
        rows = table(
            file=[f"images/{file}" for file in files],
            image=given.names,
            mean_squared_error=error.tolist(),
            psnr_db=[for_json(number) for number in psnr.tolist()],
            **({} if labels is None else {"label": labels.tolist()}),
        )
        (folder / "reconstructions.json").write_text(
            json.dumps(facts | {"reconstructions": rows}, indent=2) + "\n"
        )
    print(f"mean squared error {error.mean():.5f}, PSNR {psnr.mean():.2f} dB; means of {count} images")
    print(f"wrote {folder}: reconstructions.png, images/ ({count} files), reconstructions.json")
    print(f"next: genlab interpolate ckpt={config.ckpt} between=images")
