"""What the tests of adversarial families share: small families with the update that really steps them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from genlab import registry
from genlab.config.run import AdamConfig, ConstantConfig, OptimizerConfig, TrainConfig, TrainerConfig
from genlab.config.schema import from_plain
from genlab.data.spec import Batch, DataSpec
from genlab.device import Processes
from genlab.families.gan import GAN
from genlab.training.update import Update

POINTS = DataSpec("ring", 2, 1, 1, levels=0, kind="points")
DIGITS = DataSpec("digits", 1, 8, 8, levels=17, classes=10)
MNIST = DataSpec("mnist", 1, 28, 28, classes=10)
COLOUR = DataSpec("cifar10", 3, 32, 32, classes=10)

ALL = ("gan", "unrolled_gan", "wgan", "wgan_gp", "acgan", "projection_gan")


def make(
    name: str = "gan",
    spec: DataSpec = POINTS,
    *,
    optimizer: OptimizerConfig | None = None,
    trainer: dict[str, Any] | None = None,
    **settings: Any,
) -> tuple[Any, Update]:
    """A family and its update; equal arguments make equal ones."""
    torch.manual_seed(0)
    kind = registry.look_up(registry.FAMILIES, name, "model")
    plain: dict[str, Any] = {
        "name": name,
        "hidden": [16],
        "discriminator_hidden": [16],
        "width": 4,
        "latent": 4,
    }
    config = TrainConfig(
        model=from_plain(kind.Config, plain | settings, "model"),
        dataset=SimpleNamespace(name=spec.name),
        optimizer=optimizer or AdamConfig(lr=1e-3, betas=(0.5, 0.999)),
        schedule=ConstantConfig(),
        trainer=from_plain(TrainerConfig, {"steps": 100, "batch_size": 8} | (trainer or {}), "trainer"),
    )
    kind.check(config)
    family = registry.family(config.model, spec)
    assert isinstance(family, GAN)
    return family, Update(family, config, Processes(0, 1, torch.device("cpu")))


def batches(spec: DataSpec = POINTS, n: int = 8, seed: int = 1) -> Iterator[Batch]:
    """Endless random batches, with labels where the data has them; none is like another."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        images = torch.rand(n, *spec.shape, generator=generator)
        if spec.kind == "points":
            images = images * 4 - 2
        labels = torch.randint(spec.classes, (n,), generator=generator) if spec.classes else None
        yield Batch(images, labels)


class Recorder:
    """An update that only notes what it is asked for."""

    def __init__(self, step: int = 0, steps: int = 100) -> None:
        self.step, self.steps = step, steps
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.group = Processes(0, 1, torch.device("cpu"))
        self.calls: list[tuple[str, tuple[Tensor, ...]]] = []
        self.losses: list[Any] = []

    def settings(self, player: str) -> Any:
        raise NotImplementedError

    def learning_rate(self, player: str) -> float:
        raise NotImplementedError

    def __call__(self, player: str, loss: Any, *batch: Tensor) -> dict[str, Tensor]:
        self.calls.append((player, batch))
        self.losses.append(loss)
        return {}


def snapshot(family: GAN, update: Update, player: str) -> dict[str, Any]:
    """Copies of all that training changes of a player: weights, buffers, moments."""
    return {
        "weights": copy.deepcopy(dict(family.get_submodule(player).state_dict())),
        "optimizer": copy.deepcopy(update.optimizers[player].state_dict()["state"]),
    }


def gradients(loss: Tensor, module: torch.nn.Module) -> dict[str, Tensor]:
    """Of a loss with respect to a module's weights, by name."""
    names, parameters = zip(*module.named_parameters(), strict=True)
    values = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return dict(zip(names, values, strict=True))
