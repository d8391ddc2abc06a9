"""Distributions of a pixel against torch.distributions, by hand, by enumeration and by frequencies."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    MixtureSameFamily,
    SigmoidTransform,
    TransformedDistribution,
    Uniform,
)
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Categorical as TorchCategorical

from genlab.distributions.pixels import (
    BernoulliPixel,
    CategoricalPixel,
    LogisticMixture,
    PixelDistribution,
)
from genlab.rng import SampleRng

LARGEST_UNIFORM = 1 - 2.0**-24  # of float32
DRAWS = 40_000


def every_pixel(channels: int, levels: int) -> Tensor:
    """All values that a pixel may have, (levels ** channels, channels)."""
    every = torch.tensor(list(itertools.product(range(levels), repeat=channels)), dtype=torch.float64)
    return every / (levels - 1)


def mixture(
    logits: Tensor, locations: Tensor, log_scales: Tensor, coefficients: Tensor | None = None
) -> Tensor:
    """Parameters of one pixel, in the order of `LogisticMixture`, (P,) float64."""
    parts = [logits, locations, log_scales] + ([] if coefficients is None else [coefficients])
    return torch.cat([part.double().flatten() for part in parts])


def random_mixture(channels: int, components: int, scale: float = 1.0) -> Tensor:
    return mixture(
        torch.randn(components),
        torch.randn(components, channels) * scale,
        torch.randn(components, channels) * scale - 1,
        torch.randn(components, channels * (channels - 1) // 2) * scale,
    )


def log_probs(distribution: PixelDistribution, parameters: Tensor, pixels: Tensor) -> Tensor:
    """Of pixels (N, C) that all have the same parameters, (N,)."""
    return distribution.log_prob(parameters.expand(len(pixels), -1), pixels)


def draws(distribution: PixelDistribution, parameters: Tensor, temperature: float = 1.0) -> Tensor:
    """Many draws of a pixel with the same parameters, all its parts, (DRAWS, C)."""
    noise = SampleRng(0, range(1)).uniform(DRAWS, distribution.uniforms)[0]
    pixels = torch.zeros(DRAWS, getattr(distribution, "channels", distribution.parameters))
    for part in range(distribution.passes):
        pixels = distribution.draw(parameters.expand(DRAWS, -1), noise, pixels, part, temperature)
    return pixels


def assert_as_often(drawn: Tensor, levels: int, expected: Tensor) -> None:
    """Each pixel of `every_pixel` was drawn as often as expected, to 4.5 standard errors."""
    places = (drawn.double() * (levels - 1)).round().long()
    index = torch.zeros(len(drawn), dtype=torch.int64)
    for channel in places.unbind(1):
        index = index * levels + channel
    found = torch.bincount(index, minlength=len(expected)) / len(drawn)
    error = (expected * (1 - expected) / len(drawn)).sqrt()
    assert ((found - expected).abs() <= 4.5 * error).all()


def test_bernoulli_is_that_of_torch_summed_over_channels() -> None:
    parameters = torch.randn(4, 5, 3) * 5
    pixels = torch.randint(0, 2, (4, 5, 3)).float()
    expected = TorchBernoulli(logits=parameters).log_prob(pixels).sum(-1)
    torch.testing.assert_close(BernoulliPixel(3).log_prob(parameters, pixels), expected)


def test_categorical_is_that_of_torch_summed_over_channels() -> None:
    parameters = torch.randn(4, 5, 3 * 256) * 5
    level = torch.randint(0, 256, (4, 5, 3))
    expected = TorchCategorical(logits=parameters.view(4, 5, 3, 256)).log_prob(level).sum(-1)
    torch.testing.assert_close(CategoricalPixel(3, 256).log_prob(parameters, level / 255), expected)


@pytest.mark.parametrize(
    "distribution", [BernoulliPixel(2), CategoricalPixel(2, 2), LogisticMixture(2, 2, 3)]
)
def test_half_precision_parameters_are_evaluated_and_drawn_in_float32(
    distribution: PixelDistribution,
) -> None:
    parameters = torch.randn(50, distribution.parameters).bfloat16()
    pixels = torch.randint(0, 2, (50, 2)).float()
    noise = torch.rand(50, distribution.uniforms)
    same = distribution.log_prob(parameters.float(), pixels)
    assert torch.equal(distribution.log_prob(parameters, pixels), same)
    for part in range(distribution.passes):
        # numbers of which some are next to a threshold that is not a half-precision number
        noise[:, part] = torch.sigmoid(parameters[:, part].float()) - 1e-4
        same = distribution.draw(parameters.float(), noise, pixels, part)
        assert torch.equal(distribution.draw(parameters, noise, pixels, part), same)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_bernoulli_draws_come_as_often_as_their_probability_says(temperature: float) -> None:
    logits = torch.tensor([-1.0, 0.7])
    one = torch.sigmoid(logits.double() / temperature)
    expected = torch.stack([1 - one, one])[[0, 0, 1, 1], 0] * torch.stack([1 - one, one])[[0, 1, 0, 1], 1]
    assert_as_often(draws(BernoulliPixel(2), logits, temperature), 2, expected)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_categorical_draws_come_as_often_as_their_probability_says(temperature: float) -> None:
    logits = torch.randn(2, 5)
    each = torch.softmax(logits.double() / temperature, -1)
    expected = (each[0, :, None] * each[1]).flatten()
    assert_as_often(draws(CategoricalPixel(2, 5), logits.flatten(), temperature), 5, expected)


@pytest.mark.parametrize(("channels", "levels"), [(1, 16), (1, 2), (2, 5), (3, 3)])
def test_mixture_draws_come_as_often_as_their_probability_says(channels: int, levels: int) -> None:
    distribution = LogisticMixture(channels, levels, 3)
    parameters = random_mixture(channels, 3)
    expected = log_probs(distribution, parameters, every_pixel(channels, levels)).exp()
    assert_as_often(draws(distribution, parameters), levels, expected)


def test_a_temperature_divides_the_mixture_logits_and_multiplies_the_scales() -> None:
    distribution = LogisticMixture(1, 16, 3)
    logits, locations, log_scales = torch.randn(3), torch.randn(3), torch.randn(3) - 1
    tempered = mixture(logits / 0.5, locations, log_scales + math.log(0.5))
    expected = log_probs(distribution, tempered, every_pixel(1, 16)).exp()
    assert_as_often(draws(distribution, mixture(logits, locations, log_scales), 0.5), 16, expected)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_no_draw_takes_what_has_probability_0(temperature: float) -> None:
    noise = torch.tensor([0.0, LARGEST_UNIFORM])[:, None]
    nothing = torch.zeros(2, 1)
    for logit in (-2000.0, 2000.0):
        drawn = BernoulliPixel(1).draw(torch.full((2, 1), logit), noise, nothing, 0, temperature)
        assert drawn.tolist() == 2 * [[float(logit > 0)]]
    logits = torch.tensor([-2000.0, 0.0, -2000.0, 1.0, -2000.0]).expand(2, -1)
    drawn = CategoricalPixel(1, 5).draw(logits, noise, nothing, 0, temperature)
    assert drawn.tolist() == [[0.25], [0.75]]
    parameters = mixture(logits[0], torch.linspace(-0.5, 0.5, 5), torch.full((5,), -7.0)).float()
    noise = torch.tensor([[0.0, 0.5], [LARGEST_UNIFORM, 0.5]])
    drawn = LogisticMixture(1, 9, 5).draw(parameters.expand(2, -1), noise, nothing, 0, temperature)
    assert drawn.tolist() == [[0.375], [0.625]]


def test_the_smallest_and_the_largest_number_draw_the_first_and_the_last_level() -> None:
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(1, 256, generator=generator)
        for number, level in ((0.0, 0.0), (LARGEST_UNIFORM, 1.0)):
            drawn = CategoricalPixel(1, 256).draw(logits, torch.full((1, 1), number), torch.zeros(1, 1), 0)
            assert drawn.item() == level
    wide = mixture(torch.zeros(2), torch.zeros(2), torch.zeros(2)).float().expand(2, -1)
    noise = torch.tensor([[0.0, 0.0], [LARGEST_UNIFORM, LARGEST_UNIFORM]])
    assert LogisticMixture(1, 256, 2).draw(wide, noise, torch.zeros(2, 1), 0).tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize("levels", [2, 3, 5, 256])
def test_drawn_values_are_exactly_those_of_the_levels(levels: int) -> None:
    values = {level / (levels - 1) for level in range(levels)}
    for distribution in (CategoricalPixel(2, levels), LogisticMixture(2, levels, 3)):
        parameters = torch.randn(500, distribution.parameters, dtype=torch.float64)
        pixels = torch.zeros(500, 2, dtype=torch.float64)
        for part in range(distribution.passes):
            noise = torch.rand(500, distribution.uniforms)
            pixels = distribution.draw(parameters, noise, pixels, part)
        assert set(pixels.flatten().tolist()) <= values


def test_a_draw_leaves_the_channels_before_and_looks_at_no_later_one() -> None:
    for distribution in (BernoulliPixel(3), CategoricalPixel(3, 2)):
        parameters, noise = torch.randn(20, distribution.parameters), torch.rand(20, 3)
        pixels = torch.randint(0, 2, (20, 3)).float()
        drawn = distribution.draw(parameters, noise, pixels, 1)
        assert torch.equal(drawn[:, 0], pixels[:, 0])
        assert torch.equal(drawn[:, 1], distribution.draw(parameters, noise, 1 - pixels, 1)[:, 1])


@pytest.mark.parametrize("levels", [2, 3, 5, 256])
def test_mixture_of_grey_levels_sums_to_1(levels: int) -> None:
    log_prob = log_probs(LogisticMixture(1, levels, 10), random_mixture(1, 10), every_pixel(1, levels))
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("channels", "levels"), [(2, 5), (3, 2), (3, 4), (3, 7)])
def test_mixture_of_colours_sums_to_1(channels: int, levels: int) -> None:
    log_prob = log_probs(
        LogisticMixture(channels, levels, 4), random_mixture(channels, 4), every_pixel(channels, levels)
    )
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-12)


EXTREME = list(itertools.product((-1e6, -3.0, -1.0, 0.3, 1.0, 1e6), (-1e6, -50.0, -7.0, 0.0, 50.0, 1e6)))


@pytest.mark.parametrize("levels", [2, 256])
@pytest.mark.parametrize(("location", "log_scale"), EXTREME)
def test_mixture_sums_to_1_whatever_the_parameters(location: float, log_scale: float, levels: int) -> None:
    parameters = mixture(torch.tensor([-1e4, 0.0]), torch.full((2,), location), torch.full((2,), log_scale))
    log_prob = log_probs(LogisticMixture(1, levels, 2), parameters, every_pixel(1, levels))
    assert not log_prob.isnan().any()
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("levels", [2, 256])
@pytest.mark.parametrize(("location", "log_scale"), EXTREME)
def test_gradients_are_finite_at_the_edges_and_in_thin_tails(
    location: float, log_scale: float, levels: int
) -> None:
    parameters = mixture(
        torch.tensor([-1e4, 0.0]),
        torch.tensor([[location, 0.5], [-location, location]]),
        torch.full((2, 2), log_scale),
        torch.tensor([50.0, -0.1]),
    )
    parameters = parameters.float().requires_grad_()
    pixels = every_pixel(2, levels)[:: 1 if levels == 2 else 255].float()
    log_probs(LogisticMixture(2, levels, 2), parameters, pixels).sum().backward()
    assert parameters.grad is not None
    assert parameters.grad.isfinite().all()


def test_a_draw_is_finite_whatever_the_parameters() -> None:
    noise = torch.tensor([0.0, 0.5, LARGEST_UNIFORM])[:, None].expand(-1, 2)
    for location, log_scale in EXTREME:
        parameters = mixture(torch.zeros(2), torch.full((2,), location), torch.full((2,), log_scale))
        drawn = LogisticMixture(1, 256, 2).draw(parameters.float().expand(3, -1), noise, torch.zeros(3, 1), 0)
        assert ((drawn >= 0) & (drawn <= 1)).all()


def test_mixture_of_grey_levels_worked_by_hand() -> None:
    # 5 levels: values -1, -0.5, 0, 0.5, 1 with edges at -0.75, -0.25, 0.25 and 0.75
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    locations, scales = torch.tensor([-0.6, 0.4]).double(), torch.tensor([0.2, 0.05]).double()
    edges = torch.tensor([-0.75, -0.25, 0.25, 0.75], dtype=torch.float64)
    below = torch.sigmoid((edges[:, None] - locations) / scales)
    below = torch.cat([torch.zeros(1, 2), below, torch.ones(1, 2)])
    expected = ((below[1:] - below[:-1]) * weights).sum(1)
    parameters = mixture(weights.log(), locations, scales.log())
    given = log_probs(LogisticMixture(1, 5, 2), parameters, every_pixel(1, 5)).exp()
    torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-15)


def test_mixture_of_colours_worked_by_hand() -> None:
    # red, green and blue of levels 0, 2 and 1 of 3: values -1, 1, 0 with edges at -0.5 and 0.5
    weights = torch.tensor([0.4, 0.6], dtype=torch.float64)
    locations = torch.tensor([[-0.2, 0.1, 0.3], [0.5, -0.4, 0.0]], dtype=torch.float64)
    scales = torch.tensor([[0.3, 0.2, 0.5], [0.1, 0.4, 0.25]], dtype=torch.float64)
    raw = torch.tensor([[0.3, -0.8, 1.5], [-0.2, 0.6, 0.9]], dtype=torch.float64)
    alpha, beta, gamma = torch.tanh(raw).unbind(1)  # green of red, blue of red, blue of green
    red, green, blue = locations.unbind(1)
    green = green + alpha * -1
    blue = blue + beta * -1 + gamma * 1
    mass = torch.sigmoid((-0.5 - red) / scales[:, 0])
    mass = mass * (1 - torch.sigmoid((0.5 - green) / scales[:, 1]))
    mass = mass * (torch.sigmoid((0.5 - blue) / scales[:, 2]) - torch.sigmoid((-0.5 - blue) / scales[:, 2]))
    pixel = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64)
    given = LogisticMixture(3, 3, 2).log_prob(mixture(weights.log(), locations, scales.log(), raw), pixel)
    assert given.exp().item() == pytest.approx((weights * mass).sum().item(), rel=1e-12)


def test_mixture_of_grey_levels_is_that_of_torch() -> None:
    logits, locations, log_scales = torch.randn(3, 10, dtype=torch.float64)
    log_scales = log_scales - 2
    zero, one = torch.zeros(10).double(), torch.ones(10).double()
    logistics = TransformedDistribution(
        Uniform(zero, one, validate_args=False),
        [SigmoidTransform().inv, AffineTransform(locations, log_scales.exp())],
    )
    by_torch = MixtureSameFamily(TorchCategorical(logits=logits), logistics, validate_args=False)
    below = by_torch.cdf((torch.arange(255, dtype=torch.float64) + 0.5) / 127.5 - 1)
    expected = torch.diff(below, prepend=below.new_zeros(1), append=below.new_ones(1))
    parameters = mixture(logits, locations, log_scales)
    given = log_probs(LogisticMixture(1, 256, 10), parameters, every_pixel(1, 256)).exp()
    torch.testing.assert_close(given, expected, rtol=1e-9, atol=1e-14)


def test_mixture_in_a_thin_tail_worked_by_hand() -> None:
    # At level 0 of 256, of a logistic at 1 with scale e^-7: the edge is (2 - 1/255) e^7 scales below, and far
    # from the location log sigmoid(z) is z; float32 has no such probability, only its logarithm.
    parameters = mixture(torch.zeros(1), torch.ones(1), torch.full((1,), -7.0)).float()
    edge = -(2 - 1 / 255) * math.exp(7)
    given = LogisticMixture(1, 256, 1).log_prob(parameters, torch.zeros(1))
    assert given.item() == pytest.approx(edge, rel=1e-5)
    # At level 100, 155 levels away, the lower edge is negligible: 2/255 e^7 = 8.6 scales further.
    upper = -(1 - (100.5 / 127.5 - 1)) * math.exp(7)
    given = LogisticMixture(1, 256, 1).log_prob(parameters, torch.tensor([100 / 255]))
    assert given.item() == pytest.approx(upper + math.log(1 - math.exp(-2 / 255 * math.exp(7))), rel=1e-5)


def test_float32_keeps_the_mixture_close_to_float64() -> None:
    parameters = torch.stack([random_mixture(3, 10) for _ in range(200)])
    pixels = torch.randint(0, 256, (200, 3)) / 255
    distribution = LogisticMixture(3, 256, 10)
    exact = distribution.log_prob(parameters, (pixels.double() * 255).round() / 255)
    given = distribution.log_prob(parameters.float(), pixels)
    torch.testing.assert_close(given.double(), exact, rtol=1e-4, atol=1e-3)
