"""Traversal of a latent space: along dimensions, between the mean codes of two classes, over all of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genlab.commands.base import finish, open_model, table
from genlab.config.commands import TraverseConfig
from genlab.config.schema import typed
from genlab.errors import ConfigError, storage_errors
from genlab.files import write_json
from genlab.log import log
from genlab.report.pictures import save_grid, write_images
from genlab.rng import SampleRng
from genlab.runs.folder import create_folder
from genlab.trained.draw import check_labels
from genlab.trained.given import Given, given_images
from genlab.trained.latent_space import (
    check_has,
    check_prior,
    codes_of_training,
    decode,
    encode,
    labels_of,
    latent_family,
)
from genlab.trained.model import LoadedModel

_DIMENSIONS = 16
"""Number of rows if the user names no dimensions."""

_MANIFOLD = 20
_SIGMAS = {"normal": 1.0, "uniform": 1 / math.sqrt(3)}


class Space(NamedTuple):
    """Centre and scale of a model's latents, in each dimension.

    middle, sigma: mean and standard deviation, (L,): those of the prior; those of the codes of training
        images for a family without a prior.
    """

    middle: Tensor
    sigma: Tensor


def along_dimensions(centre: Tensor, dimensions: list[int], deviations: Tensor, space: Space) -> Tensor:
    """Returns the centre with one of its numbers set to middle + deviation * sigma.

    Args:
        centre: (L,).
        dimensions: R dimensions.
        deviations: (S,), in standard deviations.

    Returns:
        (R, S, L).
    """
    latents = centre.repeat(len(dimensions), len(deviations), 1)
    for row, k in zip(latents, dimensions, strict=True):
        row[:, k] = space.middle[k] + deviations * space.sigma[k]
    return latents


def along_direction(centre: Tensor, direction: Tensor, deviations: Tensor, space: Space) -> Tensor:
    """Returns the centre moved along a direction (L,), by standard deviations along it: (1, S, L)."""
    unit = direction / direction.norm()
    sigma = (unit * space.sigma).norm()
    return (centre + deviations[:, None] * sigma * unit)[None]


def over_classes(centre: Tensor, variables: list[int], classes: int) -> Tensor:
    """Returns the centre with one of its categorical variables set to each class in turn.

    Args:
        centre: (L,), the classes of each variable one after the other.
        variables: R variables.
        classes: S, the number of classes of each variable.

    Returns:
        (R, S, L).
    """
    latents = centre.repeat(len(variables), classes, 1)
    for row, k in zip(latents, variables, strict=True):
        row[:, k * classes : (k + 1) * classes] = torch.eye(classes)
    return latents


def manifold(prior: str, side: int = _MANIFOLD) -> Tensor:
    """Returns 2-D latents evenly spaced in the prior's probability (Kingma and Welling 2014, fig. 4).

    The first dimension grows to the right, the second downwards; quantiles (k + 1/2) / side.

    Returns:
        (side * side, 2), row by row.
    """
    shares = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    places = (torch.special.ndtri(shares) if prior == "normal" else 2 * shares - 1).float()
    down, right = torch.meshgrid(places, places, indexing="ij")
    return torch.stack([right, down], -1).flatten(0, 1)


def main(plain: Mapping[str, Any]) -> None:
    """Runs `genlab traverse`: writes traversal.png, a PNG for each step and traversal.json.

    For a two-dimensional latent space it also writes manifold.png.
    """
    config, model = open_model(TraverseConfig, plain)
    check(config, model)
    family = latent_family(model)
    prior = str(family.latent_prior)
    centre, name, space, label = start(config, model)
    deviations = torch.linspace(-config.range, config.range, config.steps)
    steps: dict[str, list[Any]] = {"standard_deviations": deviations.tolist()}
    if family.latent_classes > 0:
        variables = dimensions_of(config, len(centre) // family.latent_classes)
        latents = over_classes(centre, variables, family.latent_classes)
        rows = [f"variable {k}" for k in variables]
        steps = {"class": list(range(family.latent_classes))}
    else:
        dimensions = dimensions_of(config, len(centre))
        latents = along_dimensions(centre, dimensions, deviations, space)
        rows = [f"dimension {k}" for k in dimensions]
    if config.direction is not None:
        direction = between_classes(config, model)
        latents = torch.cat([latents, along_direction(centre, direction, deviations, space)])
        rows.append("direction from class {} to class {}".format(*config.direction))
    columns = latents.shape[1]

    def images_of(latents: Tensor) -> Tensor:
        labels = None if label is None else torch.full((len(latents),), label)
        return decode(family, latents, config.batch_size, labels)

    folder = create_folder("traverse", config.run_dir, model.label)
    log.info("%d rows of %d steps with the %s weights of %s", *latents.shape[:2], model.weights, model.path)
    images = images_of(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
    facts = model.describe() | {
        "around": name,
        "steps": columns,
        "seed": config.seed,
        "label": label,
    }
    if family.latent_classes == 0:
        facts["range"] = config.range
        own = prior in _SIGMAS
        facts["standard_deviations_of"] = "the prior" if own else "the codes of training images"
    written = ["traversal.png"]
    with storage_errors(folder):
        save_grid(images.flatten(0, 1), folder / "traversal.png", columns)
        if len(centre) == 2 and prior in _SIGMAS:
            save_grid(images_of(manifold(prior)), folder / "manifold.png", _MANIFOLD)
            written.append("manifold.png")
        files = write_images(folder / "images", images)
        listed = table(
            file=[f"images/{file}" for file in files],
            row=[row for row in rows for _ in range(columns)],
            **{kind: values * len(rows) for kind, values in steps.items()},
        )
        write_json(folder / "traversal.json", facts | {"images": listed})
    between = " between=images" if family.encodes else ""
    files_written = f"{', '.join(written)}, images/ ({len(files)} files), traversal.json"
    finish(folder, files_written, f"genlab interpolate {typed('ckpt', config.ckpt)}{between}")


def check(config: TraverseConfig, model: LoadedModel) -> None:
    """Refuses settings that the model does not support.

    Raises:
        ConfigError: see the messages.
    """
    family = check_has(model, config.ckpt, "decodes")
    name, classes = model.config.model.name, model.spec.classes
    if config.label is not None:
        check_labels([config.label], model, "label")
    if config.around == "image" and not family.encodes:
        raise ConfigError(f"around=image: {name} encodes no images; use around=sample or around=origin")
    if config.around == "sample":
        check_prior(model, config.ckpt, "use around=image")
    if config.images is not None and config.around != "image":
        raise ConfigError(f"images={config.images}: goes with around=image; add it, or leave images out")
    if config.direction is None:
        return
    given = f"direction={list(config.direction)}"
    if family.latent_classes > 0:
        raise ConfigError(
            f"{given}: the latents of {name} are classes, between which there is no direction; "
            "use dimensions=[0,1]"
        )
    if len(config.direction) != 2 or config.direction[0] == config.direction[1]:
        raise ConfigError(f"{given}: expected two different classes, e.g. direction=[3,8]")
    if not family.encodes:
        raise ConfigError(f"{given}: {name} encodes no images; use dimensions=[0,1]")
    if classes == 0:
        raise ConfigError(f"{given}: {model.spec.name} has no labels; use dimensions=[0,1]")
    if max(config.direction) >= classes:
        raise ConfigError(f"{given}: {model.spec.name} has classes 0 to {classes - 1}")


def start(config: TraverseConfig, model: LoadedModel) -> tuple[Tensor, str, Space, int | None]:
    """Returns the latent to start from, (L,), its source, the space around it, and the class of all images.

    Raises:
        ConfigError: the space is that of codes, and there is only one code.
    """
    family, number = latent_family(model), config.number
    sigma = _SIGMAS.get(str(family.latent_prior))
    if sigma is None:
        codes, _ = codes_of_training(model, config.dataset, config.batch_size, config.seed)
        if len(codes) < 2 and family.latent_classes == 0:
            raise ConfigError(
                f"ckpt={config.ckpt}: trained on one image: its codes have no spread; see genlab reconstruct"
            )
        space = Space(codes.mean(0), codes.std(0))
    else:
        like = family.prior_latents(SampleRng(config.seed, [0]))[0]
        space = Space(torch.zeros_like(like), torch.full_like(like, sigma))
    if config.around == "origin":
        name = "origin" if sigma else "the mean code of training images"
        return space.middle, name, space, label_of(config, model)
    if config.around == "sample":
        latents = family.prior_latents(SampleRng(config.seed, [number]))
        return latents[0], f"sample {number} of seed {config.seed}", space, label_of(config, model)
    given = given_images(
        model,
        config.images,
        split=config.split,
        count=number + 1,
        seed=config.seed,
        changes=config.dataset,
        at_least=number + 1,
    )
    place = slice(number, number + 1)
    own = None if given.labels is None else given.labels[place]
    one = Given(given.images[place], own, given.names[place], given.numbers[place])
    label = labels_of(model, one, 1, config.seed)
    code = encode(family, one.images, 1, label)[0]
    return code, given.names[number], space, label_of(config, model, label)


def dimensions_of(config: TraverseConfig, latent: int) -> list[int]:
    """Returns the user's dimensions; by default the first few, or none if there is a direction.

    Raises:
        ConfigError: the list is empty, or has a dimension that the latent does not have.
    """
    if config.dimensions is None:
        return [] if config.direction is not None else list(range(min(latent, _DIMENSIONS)))
    given = f"dimensions={list(config.dimensions)}"
    if not config.dimensions:
        raise ConfigError(f"{given}: give at least one, e.g. dimensions=[0,3,5]")
    if max(config.dimensions) >= latent:
        raise ConfigError(f"{given}: the latent has dimensions 0 to {latent - 1}")
    return list(config.dimensions)


def between_classes(config: TraverseConfig, model: LoadedModel) -> Tensor:
    """Returns the vector from one class's mean code to another's, over training images, (L,).

    Raises:
        ConfigError: no training image has such a class, or both have the same mean.
    """
    assert config.direction is not None
    codes, labels = codes_of_training(model, config.dataset, config.batch_size, config.seed)
    assert labels is not None
    given = f"direction={list(config.direction)}"
    for label in config.direction:
        if not (labels == label).any():
            raise ConfigError(f"{given}: no image of class {label} among the training images; choose another")
    one, other = (codes[labels == label].mean(0) for label in config.direction)
    if torch.equal(one, other):
        raise ConfigError(f"{given}: both classes have the same mean code; choose others")
    return other - one


def label_of(config: TraverseConfig, model: LoadedModel, own: Tensor | None = None) -> int | None:
    """Returns the class of all images, for a family with labels: the user's, else the image's, else drawn.

    Args:
        own: (1,), the label of the image that the latent comes from.
    """
    if not model.family.takes_labels:
        return None
    if config.label is not None:
        return config.label
    if own is not None:
        return int(own)
    return int(SampleRng(config.seed, [0], purpose="traverse-label").integers(model.spec.classes))
