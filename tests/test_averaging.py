"""The moving average of weights: its half-life, what is averaged, and that a short run has a good one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from helpers.runs import plain_config
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from genlab import registry
from genlab.device import Processes
from genlab.nets.adversarial import make_generator
from genlab.runs import checkpoint
from genlab.trained.numbers import evaluate_split
from genlab.training.averaging import MovingAverage
from genlab.training.state import TrainingState

CPU = torch.device("cpu")
IMAGES = 32
"""Of one update."""


def step(module: nn.Module) -> None:
    """Changes all weights, as a step of an optimizer does."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))


def trained(
    name: str, steps: int, model: dict[str, Any], optimizer: dict[str, Any] | None = None, **trainer: Any
) -> Any:
    """A run's state that can be trained on, with `go_on(state, step)`."""
    plain = plain_config(name, schedule="constant", steps=steps, **trainer)
    plain["model"] |= model
    plain["optimizer"] |= optimizer or {}
    return TrainingState(registry.train_config(plain), Processes(0, 1, CPU))


def go_on(state: TrainingState, until: int) -> None:
    while state.update.step < until:
        state.family.step(state.batches, state.update)
        state.update.step += 1


class TestHalfLife:
    def test_it_is_a_share_of_the_images_seen_until_it_is_whole(self) -> None:
        net = nn.Linear(2, 2)
        average = MovingAverage(net, 160, IMAGES, ramp=0.5)
        seen = []
        for _ in range(14):
            seen.append((average.half_life_images, average.ramps))
            average.update(net)
        assert seen[:10] == [(16.0 * k, True) for k in range(10)]
        assert seen[10:] == [(160, False)] * 4

    def test_the_average_is_that_of_its_half_lives(self) -> None:
        net = nn.Linear(3, 2)
        average, expected = MovingAverage(net, 100, IMAGES, ramp=0.5), torch.full_like(net.weight, torch.nan)
        for k in range(12):
            step(net)
            average.update(net)
            half_life = min(100, 0.5 * k * IMAGES)
            kept = 0.5 ** (IMAGES / half_life) if k else 0.0
            expected = (
                expected * kept + net.weight.detach() * (1 - kept) if k else net.weight.detach().clone()
            )
        torch.testing.assert_close(average.module.get_parameter("weight"), expected)

    def test_a_player_s_own_steps_count_and_no_other_s(self) -> None:
        """Two steps of the discriminator for one of the generator are no two for its average."""
        state = trained(
            "gan", 3, {"width": 4, "latent": 4, "discriminator_steps": 2}, ema_half_life_images=10**6
        )
        go_on(state, 3)
        average = state.update.averages["generator"]
        assert average.updates == 3
        assert average.half_life_images == pytest.approx(0.05 * 3 * IMAGES)


class TestBuffers:
    def make(self) -> nn.Module:
        generator = make_generator("dcgan", (1, 16, 16), 4, hidden=(), width=4)
        generator.register_buffer("codes", torch.zeros(3))
        return generator

    def test_running_statistics_are_averaged_and_the_rest_copied(self) -> None:
        net = self.make()
        average = MovingAverage(net, 10**6, IMAGES, ramp=1e9)
        norm = next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d))
        for _ in range(2):
            net(torch.randn(8, 4) * 3)
            net.get_buffer("codes").add_(1)
            before = {k: v.clone() for k, v in average.module.state_dict().items()}
            average.update(net)
        own = next(m for m in average.module.modules() if isinstance(m, nn.BatchNorm2d))
        assert own.running_var is not None
        assert norm.running_var is not None
        (name,) = (k for k, m in average.module.named_modules() if m is own)
        kept = 0.5 ** (IMAGES / 10**6)
        expected = before[f"{name}.running_var"] * kept + norm.running_var * (1 - kept)
        torch.testing.assert_close(own.running_var, expected)
        assert not torch.equal(own.running_var, norm.running_var)
        assert own.num_batches_tracked == norm.num_batches_tracked == 2
        assert torch.equal(average.module.get_buffer("codes"), torch.full((3,), 2.0))

    def test_with_constant_weights_they_become_those_of_the_samples(self) -> None:
        net = self.make()
        average = MovingAverage(net, 64, IMAGES, ramp=0.05)
        for _ in range(300):
            net(torch.randn(IMAGES, 4))
            average.update(net)
        for ratio in variance_ratios(average.module, latent=4):
            assert (ratio.log().abs() < 0.1).all()

    def test_the_average_fits_its_statistics_from_the_first_step_on(self) -> None:
        """As well as the raw generator fits its own, within a twentieth; that takes a dozen steps itself."""
        state = trained(
            "gan",
            60,
            {"width": 8, "latent": 16},
            {"lr": 1e-3, "betas": [0.5, 0.9]},
            ema_half_life_images=5000,
        )
        for until in (1, 3, 10, 25, 60):
            go_on(state, until)
            raw, average = (
                torch.cat(variance_ratios(net, latent=16)).log().abs().mean().exp()
                for net in (
                    state.family.get_submodule("generator"),
                    state.update.averages["generator"].module,
                )
            )
            assert average < raw * 1.05, until
            if until >= 25:
                assert average < 1.1


def variance_ratios(generator: nn.Module, latent: int) -> list[torch.Tensor]:
    """Of each batch normalisation: its running variance over that of what it is given, by channel."""
    measured = copy.deepcopy(generator).train()
    pairs = [
        (own, copied)
        for own, copied in zip(generator.modules(), measured.modules(), strict=True)
        if isinstance(own, nn.BatchNorm2d) and isinstance(copied, nn.BatchNorm2d)
    ]
    for _, copied in pairs:
        copied.momentum = 1.0  # the statistics are those of the last batch
    with torch.no_grad():
        measured(torch.randn(4000, latent))
    assert pairs
    return [
        own.running_var / copied.running_var
        for own, copied in pairs
        if own.running_var is not None and copied.running_var is not None
    ]


class TestStates:
    def test_it_reads_torchs_and_goes_on_as_if_never_stored(self) -> None:
        net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        theirs = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        for _ in range(5):
            step(net)
            theirs.update_parameters(net)
        first, second = (MovingAverage(net, 1000, IMAGES, ramp=0.05) for _ in range(2))
        stored = {"format": 1, "config": {}, "averages": {"net": theirs.state_dict()}}
        first.load_state_dict(checkpoint.upgrade(stored)["averages"]["net"])
        assert first.updates == 5
        assert first.state_dict()["weights"].keys() == theirs.module.state_dict().keys()
        for key, value in theirs.module.state_dict().items():
            assert torch.equal(first.state_dict()["weights"][key], value)
        step(net)
        first.update(net)
        second.load_state_dict(first.state_dict())
        step(net)
        for average in (first, second):
            average.update(net)
        assert second.updates == first.updates
        for key, value in first.state_dict()["weights"].items():
            assert torch.equal(second.state_dict()["weights"][key], value)


RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "vae": ("elbo_nats", {"hidden": [64], "latent": 8}),
    "gated_pixelcnn": ("nll_nats", {"width": 8, "layers": 1, "head": 16}),
    "vqvae": ("elbo_nats", {"width": 8, "codes": 16, "code_dimensions": 4, "halvings": 1}),
}


@pytest.mark.parametrize("name", RUNS)
def test_after_any_number_of_steps_the_average_loses_little(name: str) -> None:
    """At most 6 % of the loss, where it falls steeply; a constant half-life loses hundreds of per cent."""
    key, model = RUNS[name]
    state = trained(name, 200, model, ema_half_life_images=100_000)
    for until in (1, 3, 10, 50, 200):
        go_on(state, until)
        raw = evaluated(state)[key]
        with state.update.averaged_weights(state.family):
            average = evaluated(state)[key]
        assert average <= 1.06 * raw, until


def evaluated(state: TrainingState) -> dict[str, float]:
    return evaluate_split(
        state.family, state.dataset, "validation", batch_size=200, seed=0, torch_device=CPU, limit=200
    )
