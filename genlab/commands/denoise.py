"""Denoising of images with a model that reconstructs them, compared with a median filter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from genlab.commands.base import finish, for_json, images_for, name_of_images, open_model, table
from genlab.config.autoencoders import NoiseKind, check_level
from genlab.config.commands import DenoiseConfig
from genlab.config.schema import typed
from genlab.data.corruption import corrupt
from genlab.errors import ConfigError, storage_errors
from genlab.files import write_json
from genlab.log import log
from genlab.metrics.fidelity import mean_squared_error, psnr_db
from genlab.report.pictures import save_bands, write_images
from genlab.rng import SampleRng
from genlab.runs.folder import create_folder
from genlab.trained.latent_space import check_has, labels_of, reconstruct
from genlab.trained.model import LoadedModel

_PICTURED_IMAGES = 200
_DEFAULT_NOISE, _DEFAULT_LEVEL = "gaussian", 0.3


def median_filter(images: Tensor) -> Tensor:
    """Returns the median of the 3x3 neighbourhood of each pixel, mirrored at the border; (N, C, H, W)."""
    from scipy.ndimage import median_filter  # comes with scikit-learn, and is slow to import

    return torch.from_numpy(np.asarray(median_filter(images.numpy(), size=(1, 1, 3, 3), mode="reflect")))


def main(plain: Mapping[str, Any]) -> None:
    """Runs `genlab denoise`: writes denoised.png, a PNG for each denoised image, and denoised.json."""
    config, model = open_model(DenoiseConfig, plain)
    family = check_has(model, config.ckpt, "encodes", "decodes")
    noise, level = noise_of(config, model)
    given = images_for(config, model, config.count)
    folder = create_folder("denoise", config.run_dir, model.label)
    clean, count = given.images.cpu(), len(given.images)
    added = "no noise added to" if noise == "none" else f"{noise} noise of {level:g} in"
    log.info("%s %d images, denoised with the %s weights of %s", added, count, model.weights, model.path)
    noisy = clean
    if noise != "none":
        noisy = corrupt(clean, noise, level, SampleRng(config.seed, given.numbers, purpose="denoise"))
    labels = labels_of(model, given._replace(images=noisy), config.batch_size, config.seed)
    restored = reconstruct(family, noisy, config.batch_size, labels)
    shown = noisy.clamp(0, 1)  # the range of an image file
    versions = {"noisy": shown, "restored": restored, "median_filter": median_filter(shown)}
    psnr, bands = {}, versions
    if noise != "none":  # otherwise the clean images are unknown
        psnr = {name: psnr_db(mean_squared_error(clean, version)) for name, version in versions.items()}
        bands = {"clean": clean} | versions
    facts = model.describe() | {
        "images": name_of_images(config, model),
        "count": count,
        "noise": noise,
        "level": level,
        "seed": config.seed,
    }
    means = {f"{name}_psnr_db": for_json(values.mean().item()) for name, values in psnr.items()}
    with storage_errors(folder):
        pictured = [band[:_PICTURED_IMAGES] for band in bands.values()]
        save_bands(pictured, folder / "denoised.png")
        files = write_images(folder / "images", restored)
        rows = table(
            file=[f"images/{file}" for file in files],
            image=given.names,
            **{f"{name}_psnr_db": [for_json(x) for x in values.tolist()] for name, values in psnr.items()},
        )
        write_json(folder / "denoised.json", facts | means | {"denoised": rows})
    if psnr:
        described = ", ".join(f"{name.replace('_', ' ')} {x.mean():.2f} dB" for name, x in psnr.items())
        print(f"PSNR: {described}; means of {count} images with {noise} noise of {level:g}")
    print(f"denoised.png has, row by row: {', '.join(name.replace('_', ' ') for name in bands)}")
    written = f"denoised.png, images/ ({count} files), denoised.json"
    finish(folder, written, f"genlab reconstruct {typed('ckpt', config.ckpt)}")


def noise_of(config: DenoiseConfig, model: LoadedModel) -> tuple[NoiseKind | Literal["none"], float]:
    """Returns kind and level of the noise: the user's, else those of training, else Gaussian noise of 0.3.

    Raises:
        ConfigError: a share above 1, or a level for noise=none.
    """
    if config.noise == "none":
        if config.level is not None:
            raise ConfigError(f"level={config.level:g}: cannot be combined with noise=none; leave it out")
        return "none", 0.0
    own = getattr(model.config.model, "noise", None)
    noise = cast(NoiseKind, config.noise or own or _DEFAULT_NOISE)
    level = config.level
    if level is None:
        level = model.config.model.noise_level if noise == own else _DEFAULT_LEVEL
    check_level(noise, level, "level")
    return noise, level
