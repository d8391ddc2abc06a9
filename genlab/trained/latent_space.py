"""Shared parts of the commands on latents: which models have them, and encoding and decoding in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from genlab import registry
from genlab.data.dataset import Dataset
from genlab.errors import ConfigError
from genlab.families.base import Family, LatentFamily
from genlab.log import log, progress_bar
from genlab.rng import SampleRng
from genlab.trained.given import Given
from genlab.trained.model import LoadedModel, dataset_of

_NEEDS = {"encodes": "encodes no images", "decodes": "has no latents"}

ENCODED_IMAGES = 10_000
"""Number of training images to whose codes something is fitted."""


def check_has(model: LoadedModel, ckpt: str, *needs: str) -> LatentFamily:
    """Refuses a model without the abilities that a command needs; returns the family otherwise.

    Args:
        needs: "encodes", "decodes".

    Raises:
        ConfigError: it lacks one of them, or is a model of points.
    """
    family = model.family
    for need in needs:
        if not _has(type(family), need):
            raise ConfigError(
                f"ckpt={ckpt}: {model.config.model.name} {_NEEDS[need]}; models that do: "
                f"{', '.join(families_that(*needs))}"
            )
    if model.spec.kind != "images":
        raise ConfigError(f"ckpt={ckpt}: {model.spec.name} has points, not images; see genlab sample")
    return latent_family(model)


def latent_family(model: LoadedModel) -> LatentFamily:
    """Returns the family of a model that has latents, see `check_has`."""
    assert isinstance(model.family, LatentFamily)
    return model.family


def check_prior(model: LoadedModel, ckpt: str, remedy: str) -> None:
    """Refuses a model without a prior to draw latents from.

    Raises:
        ConfigError: it has none; the message ends with the remedy.
    """
    if not isinstance(model.family, LatentFamily) or model.family.latent_prior is None:
        raise ConfigError(f"ckpt={ckpt}: {model.config.model.name} has no prior to draw from; {remedy}")


def families_that(*needs: str) -> list[str]:
    """Returns the names of the families that have all these abilities."""
    families = {name: registry.look_up(registry.FAMILIES, name, "model") for name in registry.FAMILIES}
    return sorted(name for name, family in families.items() if all(_has(family, need) for need in needs))


def _has(family: type[Family], need: str) -> bool:
    return issubclass(family, LatentFamily) and getattr(family, need)


def device_of(family: Family) -> torch.device:
    """Returns the device of a family's weights."""
    return next(family.parameters()).device


def encode(family: LatentFamily, images: Tensor, batch_size: int, labels: Tensor | None = None) -> Tensor:
    """Returns the latent codes of images (N, C, H, W): (N, L) on the CPU.

    Args:
        labels: (N,), for families that take labels.
    """
    with torch.no_grad():
        parts = _parts(device_of(family), batch_size, images, labels)
        return torch.cat([family.encode(*part).cpu() for part in parts])


def decode(family: LatentFamily, latents: Tensor, batch_size: int, labels: Tensor | None = None) -> Tensor:
    """Returns the images of latents (N, L): (N, C, H, W) on the CPU.

    Args:
        labels: (N,), for families that take labels.
    """
    with torch.no_grad():
        parts = _parts(device_of(family), batch_size, latents, labels)
        return torch.cat([family.decode(*part).cpu() for part in parts])


def _parts(
    device: torch.device, batch_size: int, of: Tensor, labels: Tensor | None
) -> Iterator[tuple[Tensor, ...]]:
    """Yields batches of a tensor, with their labels if there are any, on the device."""
    both = (of,) if labels is None else (of, labels)
    yield from zip(*(tensor.to(device).split(batch_size) for tensor in both), strict=True)


def labels_of(model: LoadedModel, images: Given, batch_size: int, seed: int) -> Tensor | None:
    """Returns the classes that the family needs to encode images, (N,) on the CPU; None without labels.

    Where they are unknown, each image gets the class with the highest likelihood under the family.

    Args:
        seed: of the random numbers that this needs.
    """
    if not model.family.takes_labels:
        return None
    if images.labels is not None:
        return images.labels.cpu()
    log.info("no labels: each image gets the class with the greatest likelihood bound under the model")
    found = []
    with torch.no_grad():
        for k in range(0, len(images.images), batch_size):
            part = images.images[k : k + batch_size]
            rng = SampleRng(seed, images.numbers[k : k + batch_size], model.device, purpose="label")
            found.append(latent_family(model).infer_labels(part.to(model.device), rng=rng).cpu())
    return torch.cat(found)


def codes_of_training(
    model: LoadedModel, changes: Mapping[str, Any], batch_size: int, seed: int
) -> tuple[Tensor, Tensor | None]:
    """Returns codes of 10,000 training images, (N, L), and their labels, (N,), both on the CPU.

    Args:
        changes: settings of the dataset that give its files' present location.
        seed: of the dataset's random numbers.
    """
    dataset = dataset_of(model, changes, "train")
    return codes_of_split(latent_family(model), dataset, "train", ENCODED_IMAGES, batch_size, seed)


def codes_of_split(
    family: LatentFamily,
    dataset: Dataset,
    split: str,
    limit: int | None,
    batch_size: int,
    seed: int,
    infer_labels: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Returns codes of a split's images, (N, L), and their labels, (N,), on the CPU; see `Dataset.rows`.

    Args:
        limit: maximum number of images; None for all.
        seed: of the dataset's random numbers.
        infer_labels: a family that takes labels infers them, so that a code depends on the image alone.
    """
    total = min(dataset.size(split), limit or dataset.size(split))
    codes, labels = [], []
    with progress_bar(total=total, unit="image", desc=split, leave=False) as bar:
        for indices, batch in dataset.evaluation_batches(split, batch_size, seed, limit):
            given = batch.labels if family.takes_labels else None
            if family.takes_labels and infer_labels:
                where = device_of(family)
                with torch.no_grad():
                    given = family.infer_labels(
                        batch.images.to(where), rng=SampleRng(seed, indices, where, purpose="label")
                    )
            codes.append(encode(family, batch.images, batch_size, given))
            if batch.labels is not None:
                labels.append(batch.labels.cpu())
            bar.update(len(indices))
    return torch.cat(codes), torch.cat(labels) if labels else None


def reconstruct(
    family: LatentFamily, images: Tensor, batch_size: int, labels: Tensor | None = None
) -> Tensor:
    """Encodes and decodes images (N, C, H, W); returns the reconstructions, on the CPU.

    Args:
        labels: (N,), for families that take labels.
    """
    return decode(family, encode(family, images, batch_size, labels), batch_size, labels)
