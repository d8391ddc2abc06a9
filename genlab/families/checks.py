"""Refusals that several families share: data that a family cannot take, each in one line."""

from __future__ import annotations

from genlab.data.spec import DataSpec
from genlab.errors import ConfigError
from genlab.nets.autoencoder import LARGEST_PIXELS, SMALLEST_PIXELS


def check_images(model: str, spec: DataSpec) -> None:
    """Refuses data other than images.

    Args:
        model: the family's name.

    Raises:
        ConfigError: points, codes, or no data at all.
    """
    if spec.kind != "images":
        raise ConfigError(
            f"dataset={spec.name}: {model} takes images; choose e.g. dataset=digits or dataset=emoji"
        )


def check_sides(
    key: str,
    taker: str,
    spec: DataSpec,
    *,
    least: int = SMALLEST_PIXELS,
    most: int = LARGEST_PIXELS,
    remedy: str = "use dataset.size=32",
) -> None:
    """Refuses images with a side that is too short or too long.

    Args:
        key: of the setting to blame, with its value.
        taker: what takes other sides.
        least, most: pixels of the shortest and of the longest side.

    Raises:
        ConfigError: they are; ends with the remedy.
    """
    if least <= min(spec.height, spec.width) <= max(spec.height, spec.width) <= most:
        return
    wanted = f"{least}x{least}" if least == most else f"sides from {least} to {most}"
    raise ConfigError(f"{key}: images of {spec.height}x{spec.width} pixels, {taker} takes {wanted}; {remedy}")


def labels_remedy(spec: DataSpec, model: str) -> str:
    """Returns the remedy for a dataset without two classes of labels, for an error message.

    Args:
        spec: of the dataset.
        model: a family that needs none.
    """
    own = {
        "folder": "put the pictures of each class into a subfolder of its own, or ",
        "npz": "add an array of labels to the file, or " if not spec.classes else "",
    }
    return f"{own.get(spec.name, '')}use model={model}" + ("" if spec.name in own else " or dataset=mnist")
