"""The mechanics of one optimizer step, against torch's own and against arithmetic."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from helpers.runs import metric_rows, plain_config
from helpers.toy import ToyConfig, ToyFamily
from torch import Tensor

from genlab.commands import train
from genlab.config.run import (
    AdamConfig,
    AdamWConfig,
    ConstantConfig,
    CosineConfig,
    ExponentialConfig,
    LinearConfig,
    OptimizerConfig,
    PlayerOptimizerConfig,
    RMSpropConfig,
    ScheduleConfig,
    SGDConfig,
    StepConfig,
    TrainConfig,
    TrainerConfig,
    WarmupCosineConfig,
)
from genlab.data.spec import DataSpec
from genlab.device import Processes
from genlab.errors import ConfigError, DivergedError
from genlab.training.schedule import multiplier
from genlab.training.update import Update, make_optimizer, player_settings

SPEC = DataSpec("toy", 1, 2, 2)
ALONE = Processes(0, 1, torch.device("cpu"))


def make(
    optimizer: OptimizerConfig | None = None, schedule: ScheduleConfig | None = None, **trainer: Any
) -> tuple[ToyFamily, Update]:
    torch.manual_seed(0)
    family = ToyFamily(ToyConfig(), SPEC)
    config = TrainConfig(
        model=family.config,
        dataset=None,
        optimizer=optimizer or AdamConfig(),
        schedule=schedule or ConstantConfig(),
        trainer=TrainerConfig(**trainer),
    )
    return family, Update(family, config, ALONE)


def squared_norm(family: ToyFamily, player: str) -> Any:
    """A loss of value mean(x) * |weights|^2 / 2 for images x: its gradient is mean(x) * weights."""

    def loss(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        total = sum(p.square().sum() for p in family.get_submodule(player).parameters())
        value = x.mean() * total / 2
        return value, {"loss": value}

    return loss


def test_only_the_player_moves_and_the_other_gets_no_gradient() -> None:
    family, update = make()
    before = {name: value.clone() for name, value in family.named_parameters()}
    update("one", squared_norm(family, "one"), torch.ones(4, 1))
    for name, value in family.named_parameters():
        assert torch.equal(value, before[name]) == (name.startswith("two") or not before[name].any())
    assert all(p.grad is None for p in family.two.parameters())
    update("two", squared_norm(family, "two"), torch.ones(4, 1))
    assert all(p.requires_grad for p in family.two.parameters())
    assert not any(p.requires_grad for p in family.one.parameters())


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_micro_batches_give_the_gradient_of_the_whole_batch(size: int) -> None:
    x = torch.arange(7.0).unsqueeze(1)
    sgd = SGDConfig(lr=0.1, momentum=0.0)
    whole, update = make(sgd)
    expected = update("one", squared_norm(whole, "one"), x)
    parts, update = make(sgd, micro_batch_size=size)
    metrics = update("one", squared_norm(parts, "one"), x)
    torch.testing.assert_close(metrics, expected)
    torch.testing.assert_close(parts.state_dict(), whole.state_dict())


def test_clipping_bounds_the_norm_of_the_gradient() -> None:
    family, update = make(SGDConfig(lr=1.0, momentum=0.0, clip_grad_norm=0.5))
    before = torch.cat([p.detach().flatten().clone() for p in family.one.parameters()])
    metrics = update("one", squared_norm(family, "one"), torch.full((2, 1), 100.0))
    after = torch.cat([p.detach().flatten() for p in family.one.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.5, rel=1e-4)
    assert metrics["one_gradient_norm"].item() == pytest.approx(100 * before.norm().item(), rel=1e-4)


def test_moving_average_has_the_half_life_it_says() -> None:
    family, update = make(
        SGDConfig(lr=0.1, momentum=0.0), ema_half_life_images=64, ema_ramp=1e9, batch_size=32
    )
    weight, history = family.one.first.weight, []
    for _ in range(5):
        update("one", squared_norm(family, "one"), torch.ones(32, 1))
        history.append(weight.detach().clone())
    expected = history[0]
    for value in history[1:]:
        expected = expected * 0.5**0.5 + value * (1 - 0.5**0.5)  # 32 images are half a half-life
    average = update.averages["one"].module.get_parameter("first.weight")
    torch.testing.assert_close(average, expected)
    with update.averaged_weights(family) as used:
        assert used == "average"
        assert family.get_parameter("one.first.weight") is average
    assert family.get_parameter("one.first.weight") is weight
    assert set(update.averages) == {"one"}


def test_not_finite_loss_names_the_first_step_and_the_player() -> None:
    family, update = make()
    for step, value in enumerate([1.0, math.nan, math.inf]):
        update.step = step
        update("two", squared_norm(family, "two"), torch.full((2, 1), value))
    with pytest.raises(DivergedError, match="loss of two is not finite at step 2"):
        update.check_finite()


def test_bf16_computes_in_bf16_and_keeps_weights_in_fp32() -> None:
    family, update = make(precision="bf16")
    seen = []

    def loss(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        y = family.one.first(x)
        seen.append(y.dtype)
        return y.float().square().mean(), {}

    update("one", loss, torch.ones(4, 4))
    assert seen == [torch.bfloat16]
    assert {p.dtype for p in family.parameters()} == {torch.float32}


def test_a_players_own_settings() -> None:
    own = PlayerOptimizerConfig(lr=0.5, betas=(0.0, 0.9))
    _, update = make(AdamConfig(lr=0.1, players={"two": own}))
    assert update.learning_rate("one") == 0.1
    assert update.learning_rate("two") == 0.5
    assert update.optimizers["two"].param_groups[0]["betas"] == (0.0, 0.9)
    with pytest.raises(ConfigError, match=r"optimizer\.players\.two\.betas: unknown key for rmsprop"):
        player_settings(RMSpropConfig(players={"two": own}), "two")


@pytest.mark.parametrize(
    ("config", "reference"),
    [
        (AdamConfig(lr=0.1, weight_decay=0.1), lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1)),
        (AdamWConfig(lr=0.1), lambda p: torch.optim.AdamW(p, 0.1)),
        (RMSpropConfig(lr=0.1), lambda p: torch.optim.RMSprop(p, 0.1)),
        (SGDConfig(lr=0.1, nesterov=True), lambda p: torch.optim.SGD(p, 0.1, 0.9, nesterov=True)),
    ],
)
def test_optimizers_are_torchs(config: OptimizerConfig, reference: Any) -> None:
    ours, theirs = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    for parameter, optimizer in ((ours, make_optimizer(config, [ours])), (theirs, reference([theirs]))):
        for _ in range(5):
            optimizer.zero_grad()
            (parameter**3).sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("schedule", "progress", "expected"),
    [  # a run of a hundred steps
        (ConstantConfig(), 0.7, 1.0),
        (LinearConfig(final=0.2), 0.5, 0.6),
        (CosineConfig(), 0.5, 0.5),
        (CosineConfig(final=0.1), 1.0, 0.1),
        (WarmupCosineConfig(warmup=0.2), 0.0, 0.05),
        (WarmupCosineConfig(warmup=0.2), 0.09, 0.5),
        (WarmupCosineConfig(warmup=0.2), 0.19, 1.0),
        (WarmupCosineConfig(warmup=0.001), 0.0, 1.0),
        (WarmupCosineConfig(warmup=0.2), 0.2, 1.0),
        (WarmupCosineConfig(warmup=0.2), 0.6, 0.5),
        (StepConfig(milestones=(0.5, 0.75), factor=0.1), 0.49, 1.0),
        (StepConfig(milestones=(0.5, 0.75), factor=0.1), 0.5, 0.1),
        (StepConfig(milestones=(0.5, 0.75), factor=0.1), 0.8, 0.01),
        (ExponentialConfig(final=0.01), 0.5, 0.1),
    ],
)
def test_schedules(schedule: ScheduleConfig, progress: float, expected: float) -> None:
    assert multiplier(schedule, progress, progress + 0.01) == pytest.approx(expected)


def test_every_step_of_a_warm_up_has_a_rate() -> None:
    """Step k of W, counted from 1, has k / W; a step later it falls along the cosine."""
    schedule = WarmupCosineConfig(warmup=0.2)
    _, update = make(SGDConfig(lr=2.0), schedule, steps=20)
    rates = []
    for update.step in range(20):
        rates.append(update.learning_rate("one"))
    assert rates[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert all(a > b > 0 for a, b in itertools.pairwise(rates[4:]))


def test_the_logged_rate_is_that_of_the_last_step(toy: Any) -> None:
    train.start(plain_config(schedule="linear", log_every=5, evaluate_every=0), [], "run")
    lines = metric_rows("run")
    logged = {line["step"]: line["one_learning_rate"] for line in lines if "one_learning_rate" in line}
    # of 12 steps: the fifth begins when 4 are done
    assert logged == pytest.approx({5: 1e-3 * 8 / 12, 10: 1e-3 * 3 / 12, 12: 1e-3 * 1 / 12})
