"""Small variational autoencoders, images of every kind for them, and parts with known outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from genlab.config.schema import from_plain
from genlab.data.spec import DataSpec
from genlab.device import Processes
from genlab.families.vae import VAE, VAEConfig

BINARY = DataSpec("mnist", 1, 8, 8, levels=2, binarization="dynamic")
GREY = DataSpec("digits", 1, 8, 8, levels=17)
COLOUR = DataSpec("cifar10", 3, 12, 10)
CONTINUOUS = DataSpec("digits", 1, 8, 8, levels=17, dequantized=True)
SPECS = [BINARY, GREY, COLOUR, CONTINUOUS]

PRIORS = ["standard_normal", "uniform", "laplace", "mixture", "vampprior"]


def vae(spec: DataSpec = BINARY, **settings: Any) -> VAE:
    """Returns a small model; equal arguments make equal ones."""
    torch.manual_seed(0)
    plain = {"name": "vae", "hidden": [24], "latent": 5, "width": 4} | settings
    return VAE(from_plain(VAEConfig, plain, "model"), spec)


def images_of(spec: DataSpec = GREY, n: int = 6) -> Tensor:
    """Returns random images of a specification, (n, C, H, W) in [0, 1]."""
    levels = torch.randint(0, spec.levels, (n, *spec.shape), generator=torch.Generator().manual_seed(1))
    if spec.dequantized:
        return (levels + torch.rand(levels.shape)) / spec.levels
    return levels / (spec.levels - 1)


class Constant(nn.Module):
    """One row of numbers, the same for every image."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return self.value.expand(len(x), -1)


class Rows(nn.Module):
    """Given numbers, whatever the images."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        return self.rows


class Recorder:
    """An update that only looks at the loss."""

    def __init__(self, step: int) -> None:
        self.step, self.steps = step, 100
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.group = Processes(0, 1, torch.device("cpu"))

    def settings(self, player: str) -> Any:
        raise NotImplementedError

    def learning_rate(self, player: str) -> float:
        raise NotImplementedError

    def __call__(self, player: str, loss: Any, *batch: Tensor) -> dict[str, Tensor]:
        assert player == "vae"
        torch.manual_seed(0)
        value, metrics = loss(*batch)
        return metrics | {"loss": value}
