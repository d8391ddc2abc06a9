"""Drawing of samples, one random stream for each image, and checks of temperature and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genlab.errors import ConfigError
from genlab.families.base import Family
from genlab.rng import SampleRng
from genlab.trained.model import LoadedModel


def draw(
    family: Family,
    indices: range,
    seed: int,
    torch_device: torch.device,
    labels: Tensor | None = None,
    temperature: float = 1.0,
    progress: bool = False,
) -> Tensor:
    """Draws samples `indices` of a seed, (n, C, H, W) in [0, 1]; each depends on seed and index alone.

    Args:
        temperature, progress: used only by a family that takes a temperature.
    """
    rng = SampleRng(seed, indices, torch_device)
    if labels is not None:
        labels = labels[list(indices)].to(torch_device)
    more: dict[str, Any] = {"temperature": temperature, "progress": progress}
    with torch.no_grad():
        return family.sample(len(indices), rng=rng, labels=labels, **more if family.takes_temperature else {})


def check_temperature(temperature: float, model: LoadedModel) -> None:
    """Refuses a temperature for a family that does not support one.

    Raises:
        ConfigError: it is not 1, and the family draws no pixel from a distribution of its own.
    """
    if temperature != 1 and not model.family.takes_temperature:
        name = model.config.model.name
        raise ConfigError(f"temperature={temperature:g}: {name} takes none; leave temperature out")


def check_labels(labels: Sequence[int], model: LoadedModel, key: str = "labels") -> None:
    """Refuses labels for a model that takes none, and labels of classes that do not exist.

    Args:
        key: the setting's name; "label" for a single one.

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
