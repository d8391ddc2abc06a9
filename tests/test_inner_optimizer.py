"""The pure optimizers against torch's own, and a gradient through them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.adversarial.unrolling import InnerOptimizer
from genlab.config.run import AdamConfig, AdamWConfig, RMSpropConfig, SGDConfig
from genlab.nets.decay import decay_groups, decayed_names
from genlab.training.update import make_optimizer

SETTINGS: dict[str, Any] = {
    "adam": AdamConfig(betas=(0.5, 0.9)),
    "adam with L2": AdamConfig(weight_decay=0.1),
    "adamw": AdamWConfig(weight_decay=0.2),
    "adam, clipped": AdamConfig(clip_grad_norm=0.1),
    "rmsprop": RMSpropConfig(lr=1e-2),
    "rmsprop with momentum": RMSpropConfig(momentum=0.7),
    "sgd": SGDConfig(momentum=0.0),
    "momentum": SGDConfig(momentum=0.9, weight_decay=0.01),
    "nesterov": SGDConfig(momentum=0.9, nesterov=True),
}


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def gradients_of(module: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    def loss(p: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(module, p, (x,)).square().mean()

    return torch.func.grad(loss)(parameters)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("before", [0, 3])
def test_steps_are_those_of_torch(name: str, before: int) -> None:
    settings, module, x = SETTINGS[name], net(), torch.randn(8, 3, dtype=torch.float64)
    optimizer = make_optimizer(settings, decay_groups(module))

    def torch_step() -> None:
        optimizer.zero_grad()
        module(x).square().mean().backward()
        if settings.clip_grad_norm:
            nn.utils.clip_grad_norm_(module.parameters(), settings.clip_grad_norm)
        optimizer.step()

    for _ in range(before):
        torch_step()
    inner = InnerOptimizer(settings, decayed_names(module))
    parameters = {k: p.detach().clone() for k, p in module.named_parameters()}
    moments = inner.live(module, optimizer)
    lr = torch.tensor(settings.lr, dtype=torch.float64)
    for _ in range(3):
        parameters, moments = inner.step(parameters, gradients_of(module, parameters, x), moments, lr)
        torch_step()
    for key, parameter in module.named_parameters():
        torch.testing.assert_close(parameters[key], parameter.detach(), rtol=1e-6, atol=1e-9)


def test_the_live_moments_are_copies_and_fresh_ones_are_zero() -> None:
    module, settings = net(), AdamConfig()
    optimizer = make_optimizer(settings, list(module.parameters()))
    module(torch.randn(5, 3).double()).sum().backward()
    optimizer.step()
    inner = InnerOptimizer(settings, ())
    live = inner.live(module, optimizer)
    assert live["step"][""] == 1
    before = {k: v.clone() for k, v in live["exp_avg"].items()}
    assert all(v.abs().sum() > 0 for v in before.values())
    optimizer.step()
    assert all(torch.equal(v, before[k]) for k, v in live["exp_avg"].items())
    fresh = inner.fresh({k: p.detach() for k, p in module.named_parameters()})
    assert fresh["step"][""] == 0
    assert all(not v.any() for kind in ("exp_avg", "exp_avg_sq") for v in fresh[kind].values())


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_a_gradient_that_is_zero_makes_no_nan(name: str) -> None:
    inner = InnerOptimizer(SETTINGS[name], ())
    start = {"w": torch.zeros(2, requires_grad=True)}

    def after(gradient: Tensor) -> Tensor:
        moments = inner.fresh({"w": torch.zeros(2)})
        return inner.step(start, {"w": gradient}, moments, torch.tensor(0.1))[0]["w"].sum()

    gradient = torch.zeros(2, requires_grad=True)
    after(gradient).backward()
    assert gradient.grad is not None
    assert torch.isfinite(gradient.grad).all()
