"""Adversarial losses and gradient penalties against their formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.adversarial.losses import (
    discriminator_loss,
    generator_loss,
    gradient_norms,
    gradient_penalty,
    r1_penalty,
)
from genlab.config.adversarial import GANLoss

REAL, FAKE = torch.tensor([2.0, -0.5, 0.3]), torch.tensor([-1.5, 0.25, 3.0])
KINDS: tuple[GANLoss, ...] = get_args(GANLoss)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


class TestLosses:
    def test_cross_entropy_by_hand(self) -> None:
        # D = 3/4 and 1/2 on data, 1/4 on a sample
        real, fake = torch.tensor([math.log(3), 0.0]), torch.tensor([-math.log(3)])
        expected = -(math.log(0.75) + math.log(0.5)) / 2 - math.log(0.75)
        for kind in ("minimax", "non_saturating"):
            assert discriminator_loss(kind, real, fake).item() == pytest.approx(expected)
        assert generator_loss("minimax", fake).item() == pytest.approx(math.log(0.75))
        assert generator_loss("non_saturating", fake).item() == pytest.approx(-math.log(0.25))

    def test_least_squares_by_hand(self) -> None:
        # ((1 + 2.25 + 0.49) / 3 + (2.25 + 0.0625 + 9) / 3) / 2
        assert discriminator_loss("least_squares", REAL, FAKE).item() == pytest.approx(2.5087500)
        # ((1.1)^2 + (1.4)^2 + (0.6)^2) / 3 with the label 0.9
        smoothed = ((1.1**2 + 1.4**2 + 0.6**2) / 3 + 11.3125 / 3) / 2
        assert discriminator_loss("least_squares", REAL, FAKE, 0.9).item() == pytest.approx(smoothed)
        assert generator_loss("least_squares", FAKE).item() == pytest.approx((6.25 + 0.5625 + 4) / 6)

    def test_hinge_by_hand(self) -> None:
        # data: 0, 1.5, 0.7; samples: 0, 1.25, 4
        assert discriminator_loss("hinge", REAL, FAKE).item() == pytest.approx(2.2 / 3 + 5.25 / 3)
        assert generator_loss("hinge", FAKE).item() == pytest.approx(-1.75 / 3)

    @pytest.mark.parametrize("target", [1.0, 0.9, 0.6])
    @pytest.mark.parametrize("kind", ["minimax", "non_saturating"])
    def test_cross_entropy_is_that_of_torch(self, kind: GANLoss, target: float) -> None:
        real, fake = torch.randn(9) * 3, torch.randn(5) * 3
        bce = F.binary_cross_entropy
        expected = bce(real.sigmoid(), torch.full((9,), target)) + bce(fake.sigmoid(), torch.zeros(5))
        torch.testing.assert_close(discriminator_loss(kind, real, fake, target), expected)
        bernoulli = torch.distributions.Bernoulli(logits=fake)
        sign, label = {"minimax": (1, 0.0), "non_saturating": (-1, 1.0)}[kind]
        expected = sign * bernoulli.log_prob(torch.full((5,), label)).mean()
        torch.testing.assert_close(generator_loss(kind, fake), expected)

    def test_smoothing_is_of_data_alone(self) -> None:
        real, fake = torch.tensor([0.0]), torch.tensor([1.3])
        for target in (1.0, 0.8):
            by_hand = -target * math.log(sigmoid(0)) - (1 - target) * math.log(1 - sigmoid(0))
            by_hand -= math.log(1 - sigmoid(1.3))
            value = discriminator_loss("non_saturating", real, fake, target)
            assert value.item() == pytest.approx(by_hand)

    @pytest.mark.parametrize("kind", ["minimax", "non_saturating"])
    def test_logits_of_any_size_stay_finite(self, kind: GANLoss) -> None:
        real, fake = torch.tensor([-300.0], requires_grad=True), torch.tensor([300.0], requires_grad=True)
        loss = discriminator_loss(kind, real, fake, 0.9)
        assert loss.item() == pytest.approx(0.9 * 300 + 300)
        loss.backward()
        assert real.grad is not None
        assert real.grad.item() == pytest.approx(-0.9)
        assert torch.isfinite(generator_loss(kind, -fake))

    def test_where_the_discriminator_is_sure_only_the_non_saturating_loss_has_a_gradient(self) -> None:
        slopes = {}
        for kind in KINDS:
            fake = torch.tensor([-20.0], requires_grad=True)
            generator_loss(kind, fake).backward()
            assert fake.grad is not None
            slopes[kind] = fake.grad.item()
        assert slopes["non_saturating"] == pytest.approx(-1)
        assert slopes["hinge"] == -1
        assert slopes["least_squares"] == pytest.approx(-21)
        assert -1e-8 < slopes["minimax"] < 0

    @pytest.mark.parametrize("kind", KINDS)
    def test_players_pull_the_logit_of_a_sample_apart(self, kind: GANLoss) -> None:
        fake = torch.tensor([0.1], requires_grad=True)
        (down,) = torch.autograd.grad(discriminator_loss(kind, torch.tensor([0.0]), fake), fake)
        (up,) = torch.autograd.grad(generator_loss(kind, fake), fake)
        assert down > 0 > up

    @pytest.mark.parametrize("kind", KINDS)
    def test_losses_of_bf16_logits_are_float32(self, kind: GANLoss) -> None:
        real, fake = REAL.bfloat16(), FAKE.bfloat16()
        assert discriminator_loss(kind, real, fake).dtype == torch.float32
        torch.testing.assert_close(
            discriminator_loss(kind, real, fake), discriminator_loss(kind, real.float(), fake.float())
        )
        torch.testing.assert_close(generator_loss(kind, fake), generator_loss(kind, fake.float()))


def linear(weight: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: (x * weight).sum((1, 2, 3)) + 0.7


def unit(*shape: int) -> Tensor:
    weight = torch.randn(shape)
    return weight / weight.norm()


def smooth_critic() -> nn.Module:
    """Of (B, 3, 5, 4), with slopes on both sides of 1."""
    critic = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 3 * 2, 5), nn.Softplus(), nn.Linear(5, 1)
    )
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.mul_(2.5)
    return critic


class TestGradientPenalty:
    def test_of_a_quadratic_critic_by_hand(self) -> None:
        """f(x) = |x|^2 / 2 has the gradient x."""
        real = torch.zeros(2, 2, 1, 2)
        fake = torch.zeros(2, 2, 1, 2)
        real[0, 0, 0] = torch.tensor([3.0, 0.0])
        real[0, 1, 0] = torch.tensor([0.0, 4.0])  # the norm over both channels is 5
        fake[1, 1, 0] = torch.tensor([0.0, 8.0])
        share = torch.tensor([1.0, 0.75])  # x^: real of the first; a quarter of the second's sample, norm 2

        def critic(x: Tensor) -> Tensor:
            return x.square().sum((1, 2, 3)) / 2

        assert gradient_norms(critic, share.view(-1, 1, 1, 1) * real).tolist() == pytest.approx([5, 1e-6])
        penalty = gradient_penalty(critic, real, fake, share)
        assert penalty.item() == pytest.approx((4**2 + 1**2) / 2)

    @pytest.mark.parametrize("n", [1, 6])
    @pytest.mark.parametrize("shape", [(3, 4, 5), (2, 1, 1), (1, 1, 1)])
    def test_is_zero_for_a_unit_slope_over_all_dimensions(self, shape: tuple[int, ...], n: int) -> None:
        """It is not where the norm is taken over channels, over the batch, or for any other slope."""
        weight = unit(*shape)
        real, fake, share = torch.randn(n, *shape), torch.randn(n, *shape), torch.rand(n)
        assert gradient_penalty(linear(weight), real, fake, share).item() < 1e-10
        if shape[1] > 1:
            assert (weight.norm(dim=0) < 0.99).all()  # a norm over channels alone would not be 1
        assert gradient_penalty(linear(3 * weight), real, fake, share).item() == pytest.approx(4, rel=1e-4)
        assert gradient_penalty(linear(0.5 * weight), real, fake, share).item() == pytest.approx(0.25)

    def test_is_the_mean_of_penalties_of_single_images(self) -> None:
        critic, share = smooth_critic(), torch.rand(5)
        real, fake = torch.randn(5, 3, 5, 4), torch.randn(5, 3, 5, 4)
        single = [gradient_penalty(critic, real[k, None], fake[k, None], share[k, None]) for k in range(5)]
        assert len({value.item() for value in single}) == 5
        torch.testing.assert_close(gradient_penalty(critic, real, fake, share), torch.stack(single).mean())

    def test_one_sided_leaves_slopes_under_1_alone(self) -> None:
        real, fake, share = torch.randn(4, 1, 2, 2), torch.randn(4, 1, 2, 2), torch.rand(4)
        for slope, expected in ((0.3, 0.0), (1.0, 0.0), (3.0, 4.0)):
            critic = linear(slope * unit(1, 2, 2))
            value = gradient_penalty(critic, real, fake, share, one_sided=True).item()
            assert value == pytest.approx(expected, rel=1e-4, abs=1e-10)

    @pytest.mark.parametrize("one_sided", [False, True])
    def test_agrees_with_autograd_to_second_order(self, one_sided: bool) -> None:
        critic = smooth_critic()
        real, fake, share = torch.randn(7, 3, 5, 4), torch.randn(7, 3, 5, 4), torch.rand(7)
        between = share.view(-1, 1, 1, 1) * real + (1 - share.view(-1, 1, 1, 1)) * fake
        norms = autograd_gradient(critic, between).flatten(1).norm(dim=1)
        assert 0 < (norms > 1).sum() < 7
        excess = F.relu(norms - 1) if one_sided else norms - 1
        assert_same_to_second_order(
            critic, gradient_penalty(critic, real, fake, share, one_sided), excess.square().mean()
        )

    def test_of_a_pack_is_over_all_its_images(self) -> None:
        """A critic of two images at a time: its unit slope is spread over both, at one share for both."""
        weight = unit(6, 4, 4)
        packed = linear(weight)
        real, fake = torch.randn(6, 3, 4, 4), torch.randn(6, 3, 4, 4)

        def critic(x: Tensor) -> Tensor:
            return packed(x.reshape(3, 6, 4, 4))

        torch.testing.assert_close(gradient_norms(critic, real, packing=2), torch.ones(3))
        assert gradient_penalty(critic, real, fake, torch.rand(3)).item() < 1e-10
        seen = []

        def quadratic(x: Tensor) -> Tensor:
            seen.append(x.detach())
            return x.reshape(3, -1).square().sum(1) / 2

        gradient_penalty(
            quadratic, torch.ones(6, 3, 4, 4), torch.zeros(6, 3, 4, 4), torch.tensor([0.1, 0.5, 1])
        )
        assert seen[0][:, 0, 0, 0].tolist() == pytest.approx([0.1, 0.1, 0.5, 0.5, 1, 1])

    def test_a_flat_critic_has_a_finite_gradient(self) -> None:
        weight = torch.zeros(1, 2, 2, requires_grad=True)
        x = torch.randn(3, 1, 2, 2)
        penalty = gradient_penalty(linear(weight), x, x, torch.rand(3))
        assert penalty.item() == pytest.approx(1, rel=1e-5)
        penalty.backward()
        assert weight.grad is not None
        assert torch.isfinite(weight.grad).all()


class TestR1:
    def test_by_hand(self) -> None:
        """f(x) = |x|^2: the gradient is 2 x, its squared norm 4 |x|^2, over all dimensions of an image."""
        x = torch.zeros(2, 2, 1, 2)
        x[0, 0, 0], x[0, 1, 0] = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 3.0])
        x[1, 1, 0] = torch.tensor([-1.0, 0.0])
        penalty = r1_penalty(lambda x: x.square().sum((1, 2, 3)), x)
        assert penalty.item() == pytest.approx((4 * 14 + 4 * 1) / 2 / 2)
        packed = r1_penalty(lambda x: x.reshape(1, -1).square().sum(1), x, packing=2)
        assert packed.item() == pytest.approx((4 * 14 + 4 * 1) / 2)

    def test_agrees_with_autograd_to_second_order(self) -> None:
        critic, x = smooth_critic(), torch.randn(7, 3, 5, 4)
        expected = autograd_gradient(critic, x).square().sum((1, 2, 3)).mean() / 2
        assert_same_to_second_order(critic, r1_penalty(critic, x), expected)


def autograd_gradient(critic: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(critic(x).sum(), x, create_graph=True)[0]


def assert_same_to_second_order(critic: nn.Module, penalty: Tensor, expected: Tensor) -> None:
    """Value, and gradient with respect to the critic's weights."""
    torch.testing.assert_close(penalty, expected)
    parameters = list(critic.parameters())
    ours = torch.autograd.grad(penalty, parameters, allow_unused=True, materialize_grads=True)
    theirs = torch.autograd.grad(expected, parameters, allow_unused=True, materialize_grads=True)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert ours[0].abs().max() > 1e-3  # of the convolution's weights


@pytest.mark.parametrize("kind", ["penalty", "one_sided", "r1"])
def test_under_bf16_autocast_penalties_stay_in_float32(kind: str) -> None:
    critic = smooth_critic()
    real, fake, share = torch.randn(7, 3, 5, 4), torch.randn(7, 3, 5, 4), torch.rand(7)

    def penalty() -> Tensor:
        if kind == "r1":
            return r1_penalty(critic, real)
        return gradient_penalty(critic, real, fake, share, kind == "one_sided")

    def gradients(value: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(value, list(critic.parameters())[:3])

    exact = penalty()
    assert exact > 0
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        assert critic(real).dtype == torch.bfloat16
        rough = penalty()
    assert rough.dtype == torch.float32
    assert torch.equal(rough, exact)
    for a, b in zip(gradients(rough), gradients(exact), strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)
