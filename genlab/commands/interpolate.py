"""Interpolation between latents: along a straight line or along a great circle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.commands.base import finish, images_for, open_model, table
from genlab.config.commands import InterpolateConfig
from genlab.config.schema import typed
from genlab.errors import ConfigError, storage_errors
from genlab.files import write_json
from genlab.log import log
from genlab.memory import check_fits
from genlab.report.pictures import save_grid, write_images
from genlab.rng import SampleRng
from genlab.runs.folder import create_folder
from genlab.trained.draw import check_labels
from genlab.trained.latent_space import check_has, check_prior, decode, encode, labels_of, latent_family
from genlab.trained.model import LoadedModel

_PICTURED_PAIRS = 40
_LEAST_SINE = 1e-4
"""Smallest angle at which latents do not count as parallel or opposite."""


class Pairs(NamedTuple):
    """n pairs of latents.

    ends: (n, 2, L).
    names: two texts for each pair that name the sources of its ends.
    labels: (n, 2), the classes with which the images were encoded; else None.
    """

    ends: Tensor
    names: list[tuple[str, str]]
    labels: Tensor | None


def straight(start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    """Returns (1 - t) start + t end.

    Args:
        start, end: (B, L).
        shares: (S,), each t in [0, 1].

    Returns:
        (B, S, L).
    """
    return _mixed(start, end, 1 - shares, shares)


def spherical(start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    """Returns [sin((1 - t) a) start + sin(t a) end] / sin a, a the angle between both (White 2016, 2.1).

    Latents of equal norm keep it on the way. Where they are parallel or opposite, so that they determine no
    single great circle, the interpolation is linear.

    Args:
        start, end: (B, L).
        shares: (S,), each t in [0, 1].

    Returns:
        (B, S, L).
    """
    one, other = (F.normalize(end_point.double(), dim=1) for end_point in (start, end))
    # accurate for small angles too, unlike the arc cosine
    angle = 2 * torch.atan2((one - other).norm(dim=1), (one + other).norm(dim=1))[:, None]
    t = shares.double()[None]
    round_about = angle.sin().abs() >= _LEAST_SINE
    sine = angle.sin().where(round_about, 1.0)
    weights = [
        (torch.sin(share * angle) / sine).where(round_about, share.expand(len(start), -1))
        for share in (1 - t, t)
    ]
    return _mixed(start, end, *weights)


def _mixed(start: Tensor, end: Tensor, of_start: Tensor, of_end: Tensor) -> Tensor:
    """Returns the weighted sum of start and end, with weights (S,) or (B, S)."""
    mixed = of_start[..., None] * start.double()[:, None] + of_end[..., None] * end.double()[:, None]
    return mixed.to(start.dtype)


PATHS = {"straight": straight, "spherical": spherical}


def main(plain: Mapping[str, Any]) -> None:
    """Runs `genlab interpolate`: writes interpolations.png, a PNG for each step, and interpolations.json."""
    config, model = open_model(InterpolateConfig, plain)
    family = check_has(model, config.ckpt, "decodes")
    if config.labels is not None:
        check_labels(config.labels, model)
    if config.path == "spherical" and family.latent_classes > 0:
        raise ConfigError(
            f"path=spherical: the latents of {model.config.model.name} are probabilities, which do not lie "
            "on a sphere; use path=straight"
        )
    pairs = pairs_of(config, model)
    n = len(pairs.ends)
    shares = torch.linspace(0, 1, config.steps)
    labels = labels_of_steps(config, model, pairs, shares)
    check_fits(
        n * config.steps * (8 * model.spec.dimensions + 16 * pairs.ends.shape[-1]),
        f"n={config.n}",
        f"{n:,} rows of {config.steps} images",
        "lower n or steps",
    )
    folder = create_folder("interpolate", config.run_dir, model.label)
    log.info(
        "%d steps between each of %d pairs with the %s weights of %s",
        config.steps, n, model.weights, model.path,
    )  # fmt: skip
    latents = PATHS[config.path](pairs.ends[:, 0], pairs.ends[:, 1], shares)
    each = None if labels is None else labels.flatten()
    images = decode(family, latents.flatten(0, 1), config.batch_size, each)
    images = images.unflatten(0, (n, config.steps))
    facts = model.describe() | {
        "between": config.between,
        "images": config.images,
        "path": config.path,
        "steps": config.steps,
        "n": n,
        "seed": config.seed,
    }
    with storage_errors(folder):
        save_grid(images[:_PICTURED_PAIRS].flatten(0, 1), folder / "interpolations.png", config.steps)
        files = [f"images/{file}" for file in write_images(folder / "images", images)]
        columns: dict[str, list[Any]] = {
            "from": [name for name, _ in pairs.names],
            "to": [name for _, name in pairs.names],
            "files": [files[k : k + config.steps] for k in range(0, len(files), config.steps)],
            "norms": latents.norm(dim=2).tolist(),
        }
        if labels is not None and pairs.labels is not None and config.labels is None:
            columns["labels"] = labels.tolist()  # the end of a row has the class of another image
        elif labels is not None:
            columns["label"] = labels[:, 0].tolist()
        write_json(folder / "interpolations.json", facts | {"pairs": table(**columns)})
    written = f"interpolations.png, images/ ({len(files)} files), interpolations.json"
    finish(folder, written, f"genlab traverse {typed('ckpt', config.ckpt)}")


def pairs_of(config: InterpolateConfig, model: LoadedModel) -> Pairs:
    """Returns the ends: the codes of images 0 and 1, 2 and 3 and so on, or the latents of these samples.

    Raises:
        ConfigError: the model has no encoder, or no prior, or there are fewer than two images.
    """
    family, wanted, labels = latent_family(model), range(2 * config.n), None
    if config.between == "samples":
        check_prior(model, config.ckpt, "use between=images")
        if config.images is not None:
            raise ConfigError(
                f"images={config.images}: goes with between=images; add it, or leave images out"
            )
        ends = family.prior_latents(SampleRng(config.seed, wanted))
        names = [f"sample {k} of seed {config.seed}" for k in wanted]
    else:
        if not family.encodes:
            raise ConfigError(
                f"between=images: {model.config.model.name} encodes no images; use between=samples"
            )
        given = images_for(config, model, len(wanted), at_least=2)
        count = min(len(given.images), len(wanted)) // 2 * 2
        labels = labels_of(model, given, config.batch_size, config.seed)
        labels = None if labels is None else labels[:count]
        ends = encode(family, given.images[:count], config.batch_size, labels)
        names = given.names[:count]
    return Pairs(
        ends.unflatten(0, (-1, 2)),
        list(zip(names[::2], names[1::2], strict=True)),
        None if labels is None else labels.unflatten(0, (-1, 2)),
    )


def labels_of_steps(
    config: InterpolateConfig, model: LoadedModel, pairs: Pairs, shares: Tensor
) -> Tensor | None:
    """Returns each image's class, (n, S): the user's in turn, else the nearer end's, else one drawn per pair.

    Args:
        shares: (S,), the position of each image between the ends, in [0, 1].
    """
    if not model.family.takes_labels:
        return None
    n = len(pairs.ends)
    if config.labels is not None:
        of_pairs = torch.tensor(config.labels)[torch.arange(n) % len(config.labels)]
    elif pairs.labels is not None:
        return torch.where(shares < 0.5, pairs.labels[:, :1], pairs.labels[:, 1:])
    else:
        rng = SampleRng(config.seed, range(n), purpose="interpolate-label")
        of_pairs = rng.integers(model.spec.classes)
    return of_pairs[:, None].expand(n, len(shares))
