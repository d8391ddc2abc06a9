"""Autoregressive models small enough for exact tests; `test_autoregressive.py` runs all of them."""

from __future__ import annotations

from typing import Any

import torch

from genlab import registry
from genlab.data.spec import DataSpec
from genlab.families.autoregressive import Autoregressive
from genlab.nets.autoregressive import PixelNet, PixelSpec
from genlab.nets.causal import Scan

TINY: dict[str, dict[str, Any]] = {
    "gated_pixelcnn": {"width": 24, "layers": 4, "kernel": 5, "head": 36, "first_kernel": 5},
    "pixelcnnpp": {"width": 4, "blocks": 2, "stages": 3, "head": 6},
    "pixelcnn": {"width": 12, "layers": 3, "first_kernel": 3, "kernel": 3, "head": 12},
    "row_lstm": {"width": 8, "layers": 2, "first_kernel": 3, "kernel": 3, "head": 8},
    "diagonal_bilstm": {"width": 9, "layers": 2, "first_kernel": 3, "head": 24},
    "pixelsnail": {
        "width": 12,
        "blocks": 1,
        "residuals": 1,
        "heads": 2,
        "key_width": 4,
        "value_width": 6,
        "head": 12,
    },
}
"""model.name -> settings that make it small, though every pixel of 10x9 sees all pixels before it."""

BLIND: set[str] = {"pixelcnn", "row_lstm"}
"""Models that have a blind spot, by their papers."""


def tiny(
    name: str, shape: tuple[int, int, int], levels: int, classes: int = 0, **settings: Any
) -> Autoregressive:
    """A model with weights large enough for every path to count."""
    spec = DataSpec("tiny", *shape, levels=levels, classes=classes)
    config = registry.look_up(registry.FAMILIES, name, "model").Config(
        **TINY[name] | settings, class_conditional=classes > 0
    )
    family = registry.family(config, spec)
    assert isinstance(family, Autoregressive)
    randomize(family)
    assert family.network.offset is not None
    for constant in family.network.offset.buffers():  # as those of a run are, not 0
        constant.copy_(torch.randn_like(constant) * 0.5)
    return family


def randomize(module: torch.nn.Module) -> None:
    """Weights as they may be after training: none of them 0, as biases and class vectors are at the start."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    module.eval()


def tiny_network(family: Autoregressive, shape: tuple[int, int, int]) -> PixelNet:
    """The family's network for images of another shape, down to 2x2."""
    ordered = shape[0] > 1 and family.distribution.passes > 1
    network = family.make_network(PixelSpec(shape, family.distribution.parameters, ordered))
    randomize(network)
    return network


def advance(network: PixelNet, scan: Scan, pixel: torch.Tensor | None = None) -> torch.Tensor:
    """Takes in the pixel just drawn, (B, C), and gives the next one's parameters, (B, P).

    Of an ordered network only those of the first channel count; see `PixelNet.look` for the others.
    """
    if pixel is None:
        network.begin_row(scan, 0)
    else:
        network.keep(scan, pixel)
        if scan.column == scan.width:
            network.begin_row(scan, scan.row + 1)
    return network.look(scan, scan.zeros(network.spec.shape[0]))
