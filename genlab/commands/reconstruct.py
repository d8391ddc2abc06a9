"""Reconstruction of images by a model with an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genlab.commands.base import finish, for_json, images_for, name_of_images, open_model, table
from genlab.config.commands import ReconstructConfig
from genlab.config.schema import typed
from genlab.errors import storage_errors
from genlab.files import write_json
from genlab.log import log
from genlab.metrics.fidelity import mean_squared_error, psnr_db
from genlab.report.pictures import save_bands, write_images
from genlab.runs.folder import create_folder
from genlab.trained.latent_space import check_has, labels_of, reconstruct

_PICTURED_IMAGES = 200


def main(plain: Mapping[str, Any]) -> None:
    """Runs `genlab reconstruct`: writes reconstructions.png, a PNG for each image, reconstructions.json."""
    config, model = open_model(ReconstructConfig, plain)
    family = check_has(model, config.ckpt, "encodes", "decodes")
    given = images_for(config, model, config.count)
    folder = create_folder("reconstruct", config.run_dir, model.label)
    count = len(given.images)
    log.info("reconstructing %d images with the %s weights of %s", count, model.weights, model.path)
    labels = labels_of(model, given, config.batch_size, config.seed)
    restored = reconstruct(family, given.images, config.batch_size, labels)
    error = mean_squared_error(given.images, restored)
    psnr = psnr_db(error)
    facts = model.describe() | {
        "images": name_of_images(config, model),
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
        write_json(folder / "reconstructions.json", facts | {"reconstructions": rows})
    print(f"mean squared error {error.mean():.5f}, PSNR {psnr.mean():.2f} dB; means of {count} images")
    written = f"reconstructions.png, images/ ({count} files), reconstructions.json"
    finish(folder, written, f"genlab interpolate {typed('ckpt', config.ckpt)} between=images")
