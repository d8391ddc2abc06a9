"""Likelihoods against torch.distributions, against an independent formula, by enumeration and by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from genlab.distributions.likelihoods import Bernoulli, DiscretizedLogistic, Gaussian
from genlab.rng import SampleRng

HEAD = math.log(0.1)  # the logarithm of the scale that outputs of 0 stand for


def logistic_outputs(location: Tensor, log_scale: Tensor) -> Tensor:
    """What a decoder gives for these, (B, 2C, H, W)."""
    return torch.cat([location - 0.5, log_scale - HEAD], 1)


def masses(location: float, log_scale: float, levels: int) -> Tensor:
    """Log-probability of every level of one pixel, (levels,)."""
    values = (torch.arange(levels) / (levels - 1)).view(-1, 1, 1, 1)
    outputs = logistic_outputs(torch.full_like(values, location), torch.full_like(values, log_scale))
    return DiscretizedLogistic(levels).log_prob(outputs, values)


def test_bernoulli_by_hand() -> None:
    # logits 0 and ln 3: p = 1/2 and 3/4. log p(1, 0) = log(1/2) + log(1/4).
    outputs = torch.tensor([0.0, math.log(3)]).view(1, 1, 1, 2)
    images = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    assert Bernoulli().log_prob(outputs, images).tolist() == pytest.approx([math.log(1 / 8)])


def test_bernoulli_is_that_of_torch_summed_over_all_dimensions() -> None:
    outputs = torch.randn(5, 3, 4, 6) * 4
    images = torch.randint(0, 2, outputs.shape).float()
    expected = torch.distributions.Bernoulli(logits=outputs).log_prob(images).sum((1, 2, 3))
    torch.testing.assert_close(Bernoulli().log_prob(outputs, images), expected)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 3.0])
def test_gaussian_is_that_of_torch_summed_over_all_dimensions(sigma: float) -> None:
    outputs, images = torch.randn(5, 3, 4, 6), torch.rand(5, 3, 4, 6)
    expected = torch.distributions.Normal(outputs + 0.5, sigma).log_prob(images).sum((1, 2, 3))
    given = Gaussian(torch.tensor(math.log(sigma))).log_prob(outputs, images)
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-3)


def test_gaussian_by_hand() -> None:
    # one pixel, mean 1/2 (an output of 0), sigma 1/2, at 1: -(1)^2 / 2 - log(1/2) - log(2 pi) / 2
    given = Gaussian(torch.tensor(math.log(0.5))).log_prob(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1))
    assert given.item() == pytest.approx(-0.5 + math.log(2) - math.log(2 * math.pi) / 2)


def test_a_learned_sigma_settles_at_the_root_mean_square_error() -> None:
    log_sigma = torch.zeros((), requires_grad=True)
    outputs, images = torch.zeros(64, 1, 4, 4), torch.rand(64, 1, 4, 4)
    expected = (images - 0.5).square().mean().sqrt().log()
    with torch.no_grad():
        log_sigma.copy_(expected)
    Gaussian(log_sigma).log_prob(outputs, images).sum().backward()
    assert log_sigma.grad is not None
    assert log_sigma.grad.item() == pytest.approx(0, abs=1e-3)  # of 1024 terms


def test_logistic_by_hand() -> None:
    # Two levels: the edge is 1/2. With location 1/2 + s ln 3 the mass above it is sigmoid(ln 3) = 3/4.
    scale = 0.2
    location = torch.full((1, 1, 1, 1), 0.5 + scale * math.log(3))
    outputs = logistic_outputs(location, torch.full((1, 1, 1, 1), math.log(scale)))
    for value, mass in ((0.0, 1 / 4), (1.0, 3 / 4)):
        given = DiscretizedLogistic(2).log_prob(outputs, torch.full((1, 1, 1, 1), value))
        assert given.item() == pytest.approx(math.log(mass), rel=1e-5)
    # Three levels, location 1/2: the middle one lies between 1/4 and 3/4, +-ln 3 scales for s = 0.25 / ln 3.
    outputs = logistic_outputs(
        torch.full((1, 1, 1, 1), 0.5), torch.full((1, 1, 1, 1), math.log(0.25 / math.log(3)))
    )
    given = DiscretizedLogistic(3).log_prob(outputs, torch.full((1, 1, 1, 1), 0.5))
    assert given.item() == pytest.approx(math.log(3 / 4 - 1 / 4), rel=1e-5)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("location", [-3.0, 0.0, 0.31, 1.0, 2.5])
@pytest.mark.parametrize("log_scale", [-6.9, -4.0, -1.0, 2.0])
def test_logistic_masses_sum_to_one(levels: int, location: float, log_scale: float) -> None:
    assert masses(location, log_scale, levels).double().logsumexp(0).item() == pytest.approx(0, abs=2e-4)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_logistic_is_a_difference_of_distribution_functions(levels: int) -> None:
    for location, log_scale in ((0.2, -2.0), (0.9, -3.0), (1.2, -1.0), (0.5, 0.5)):
        values = torch.arange(levels).double() / (levels - 1)
        edge = 0.5 / (levels - 1)
        upper = torch.sigmoid((values + edge - location) / math.exp(log_scale))
        lower = torch.sigmoid((values - edge - location) / math.exp(log_scale))
        upper[-1], lower[0] = 1.0, 0.0
        seen = upper - lower > 1e-6  # where the difference itself is exact enough to compare with
        expected = (upper - lower).log()[seen]
        assert seen.sum() >= 2
        torch.testing.assert_close(
            masses(location, log_scale, levels).double()[seen], expected, rtol=1e-4, atol=1e-4
        )


def test_logistic_tails_are_finite_with_finite_gradients() -> None:
    values = torch.tensor([0.0, 0.5, 1.0, 100 / 255]).view(-1, 1, 1, 1)
    for location in (-50.0, -1.0, 0.5, 30.0):
        for log_scale in (-30.0, -7.0, 0.0, 20.0):
            outputs = logistic_outputs(
                torch.full_like(values, location), torch.full_like(values, log_scale)
            ).requires_grad_()
            nats = DiscretizedLogistic(256).log_prob(outputs, values)
            nats.sum().backward()
            assert nats.isfinite().all()
            assert outputs.grad is not None
            assert outputs.grad.isfinite().all()


def test_logistic_gradient_is_that_of_finite_differences() -> None:
    values = (torch.arange(17) / 16).view(-1, 1, 1, 1)
    outputs = torch.cat([torch.full_like(values, 0.1), torch.full_like(values, 0.3)], 1).requires_grad_()
    likelihood = DiscretizedLogistic(17)
    likelihood.log_prob(outputs, values).sum().backward()
    assert outputs.grad is not None
    step = 1e-2
    for channel in (0, 1):
        shift = torch.zeros_like(outputs)
        shift[:, channel] = step
        with torch.no_grad():
            up, down = (likelihood.log_prob(outputs + sign * shift, values) for sign in (1, -1))
        slope = (up - down) / (2 * step)
        torch.testing.assert_close(outputs.grad[:, channel].flatten(), slope, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("levels", [2, 17])
def test_logistic_mean_and_samples_are_those_of_the_masses(levels: int) -> None:
    location, log_scale = 0.8, -1.2
    probabilities = masses(location, log_scale, levels).exp()
    values = torch.arange(levels) / (levels - 1)
    n = 20_000
    outputs = logistic_outputs(torch.full((n, 1, 1, 1), location), torch.full((n, 1, 1, 1), log_scale))
    likelihood = DiscretizedLogistic(levels)
    expected = (probabilities * values).sum()
    torch.testing.assert_close(likelihood.mean(outputs[:1]).squeeze(), expected, rtol=1e-5, atol=1e-5)
    drawn = likelihood.sample(outputs, SampleRng(0, range(n))).flatten() * (levels - 1)
    torch.testing.assert_close(drawn, drawn.round(), rtol=0, atol=1e-4)
    frequencies = drawn.round().long().bincount(minlength=levels) / n
    deviations = (probabilities * (1 - probabilities) / n).sqrt()
    assert ((frequencies - probabilities).abs() <= 5 * deviations + 1e-6).all()


def test_bernoulli_and_gaussian_samples() -> None:
    n = 20_000
    rng = SampleRng(0, range(n))
    outputs = torch.full((n, 1, 1, 1), math.log(3))
    assert Bernoulli().mean(outputs).mean().item() == pytest.approx(0.75)
    drawn = Bernoulli().sample(outputs, rng)
    assert drawn.unique().tolist() == [0.0, 1.0]
    assert drawn.mean().item() == pytest.approx(0.75, abs=0.02)
    drawn = Gaussian(torch.tensor(math.log(0.1))).sample(torch.zeros(n, 1, 1, 1), rng)
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.005)
    assert drawn.std().item() == pytest.approx(0.1, abs=0.005)
    wild = Gaussian(torch.tensor(2.0)).sample(torch.zeros(n, 1, 1, 1), rng)
    assert 0 <= wild.min() <= wild.max() <= 1


@pytest.mark.parametrize(
    ("likelihood", "parameters"),
    [(Bernoulli(), 1), (Gaussian(torch.tensor(-1.0)), 1), (DiscretizedLogistic(256), 2)],
)
def test_whatever_the_network_s_precision_the_result_is_float32_and_exact(
    likelihood: Any, parameters: int
) -> None:
    assert likelihood.parameters == parameters
    outputs = torch.randn(3, parameters * 3, 8, 8).bfloat16()
    images = torch.randint(0, 2, (3, 3, 8, 8)).float()
    nats = likelihood.log_prob(outputs, images)
    assert nats.dtype == torch.float32
    assert nats.shape == (3,)
    assert torch.equal(nats, likelihood.log_prob(outputs.float(), images))
    for pictures in (likelihood.mean(outputs), likelihood.sample(outputs, SampleRng(0, range(3)))):
        assert pictures.dtype == torch.float32
        assert pictures.shape == images.shape
        assert 0 <= pictures.min() <= pictures.max() <= 1


@pytest.mark.parametrize(
    "likelihood",
    [Bernoulli(), Gaussian(torch.tensor(-1.0)), DiscretizedLogistic(2)],
    ids=lambda x: type(x).__name__,
)
def test_several_outputs_of_each_image_are_as_each_by_itself(likelihood: Any) -> None:
    images = torch.randint(0, 2, (5, 3, 4, 6)).float()
    outputs = torch.randn(7, 5, likelihood.parameters * 3, 4, 6)
    expected = torch.stack([likelihood.log_prob(each, images) for each in outputs])
    torch.testing.assert_close(likelihood.log_prob(outputs, images), expected)
    copies = images.repeat(7, 1, 1, 1)
    torch.testing.assert_close(likelihood.log_prob(outputs.flatten(0, 1), copies), expected.flatten())
