"""Categorical latents against torch.distributions, and their relaxation (Jang et al. 2017) by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Dirichlet, OneHotCategorical, RelaxedOneHotCategorical, kl_divergence

from genlab.distributions.categorical import (
    CategoricalPosterior,
    EvenCategorical,
    gumbel_noise,
    one_hot,
    temperature_at,
)
from genlab.rng import SampleRng

CPU = torch.device("cpu")
PROBABILITIES = torch.tensor([0.2, 0.3, 0.5])
DRAWS = 40_000


def posterior(images: int = 4, variables: int = 3, classes: int = 5) -> CategoricalPosterior:
    return CategoricalPosterior.of_logits(2 * torch.randn(images, variables, classes))


def of_one_variable() -> CategoricalPosterior:
    return CategoricalPosterior.of_logits(PROBABILITIES.log().view(1, 1, 3))


def standard_errors(values: Tensor, expected: Tensor | float) -> Tensor:
    """How many of the mean's own the mean of (N, ...) is away."""
    return (values.mean(0) - expected).abs() / (values.std(0) / math.sqrt(len(values)))


class TestDistribution:
    def test_of_logits_by_hand(self) -> None:
        found = CategoricalPosterior.of_logits(torch.tensor([[[0.0, math.log(3)], [5.0, 5.0]]]))
        assert found.mean.flatten().tolist() == pytest.approx([0.25, 0.75, 0.5, 0.5])
        assert found.mean.shape == (1, 4)
        torch.testing.assert_close(found.spread.exp().flatten(1), found.mean)
        assert found.variance.flatten().tolist() == pytest.approx([0.1875, 0.1875, 0.25, 0.25])

    def test_a_draw_is_by_inversion(self) -> None:
        noise = torch.tensor([0.0, 0.1999, 0.2001, 0.4999, 0.5001, 1 - 2.0**-24]).view(6, 1, 1)
        classes = of_one_variable().sample(noise).argmax(-1).flatten()
        assert classes.tolist() == [0, 0, 1, 1, 2, 2]

    def test_draws_are_one_hot_and_as_frequent_as_they_are_probable(self) -> None:
        found = posterior()
        drawn = found.sample(torch.rand(DRAWS, 4, 3))
        assert drawn.shape == (DRAWS, 4, 15)
        assert set(drawn.unique().tolist()) == {0.0, 1.0}
        assert (drawn.unflatten(-1, (3, 5)).sum(-1) == 1).all()
        likely = found.mean > 1e-3  # for which a normal distribution of the frequency will do
        assert (standard_errors(drawn, found.mean)[likely] < 5).all()

    def test_densities_are_those_of_torch(self) -> None:
        found = posterior()
        reference = OneHotCategorical(logits=found.spread)
        drawn = reference.sample((7,))
        torch.testing.assert_close(found.log_prob(drawn.flatten(-2)), reference.log_prob(drawn).sum(-1))
        torch.testing.assert_close(found.entropy(), reference.entropy().sum(-1))

    def test_sure_posteriors_stay_finite(self) -> None:
        found = CategoricalPosterior.of_logits(torch.tensor([[[0.0, 1000.0, -1000.0]]]))
        assert found.sample(torch.tensor([[0.0]])).tolist() == [[0, 1, 0]]
        assert found.entropy().item() == 0
        assert found.log_prob(found.sample(torch.tensor([[0.5]]))).item() == 0

    def test_detach_and_rows_keep_the_kind(self) -> None:
        found = CategoricalPosterior.of_logits(torch.randn(4, 3, 5, requires_grad=True))
        assert not found.detach().mean.requires_grad
        rows = found.rows(torch.tensor([2, 0]))
        assert isinstance(rows, CategoricalPosterior)
        assert torch.equal(rows.mean, found.mean[[2, 0]])


class TestPrior:
    def test_the_divergence_is_that_of_torch(self) -> None:
        found = posterior()
        even = TorchCategorical(logits=torch.zeros(4, 3, 5))
        expected = kl_divergence(TorchCategorical(logits=found.spread), even).sum(-1)
        torch.testing.assert_close(EvenCategorical(3, 5).kl(found), expected)

    def test_the_divergence_is_the_expected_ratio(self) -> None:
        found, prior = posterior(), EvenCategorical(3, 5)
        drawn = found.sample(torch.rand(DRAWS, 4, 3))
        assert (standard_errors(found.log_prob(drawn) - prior.log_prob(drawn), prior.kl(found)) < 5).all()

    def test_by_hand(self) -> None:
        prior = EvenCategorical(2, 3)
        assert prior.log_prob(torch.zeros(4, 5, 6)).shape == (4, 5)
        assert prior.log_prob(torch.zeros(6)).item() == pytest.approx(-math.log(9))
        sure = CategoricalPosterior.of_logits(torch.tensor([[[0.0, 100.0, 0.0], [0.0, 0.0, 0.0]]]))
        assert prior.kl(sure).item() == pytest.approx(math.log(3))  # one of the two is known

    def test_samples_are_even_and_each_depends_on_its_own_stream(self) -> None:
        prior = EvenCategorical(4, 3)
        drawn = prior.sample(SampleRng(0, range(3000)))
        assert drawn.shape == (3000, 12)
        assert (drawn.unflatten(-1, (4, 3)).sum(-1) == 1).all()
        assert (standard_errors(drawn, 1 / 3) < 5).all()
        assert torch.equal(drawn[17:19], prior.sample(SampleRng(0, [17, 18])))


class TestRelaxation:
    def test_by_hand(self) -> None:
        """Two classes: the logistic function of the difference over the temperature."""
        found = CategoricalPosterior.of_logits(torch.tensor([[[0.3, -0.4]]]))
        noise = torch.tensor([[[0.5, 0.2]]])
        expected = 1 / (1 + math.exp(-(0.7 + 0.3) / 0.25))
        assert found.relax(noise, 0.25).flatten().tolist() == pytest.approx([expected, 1 - expected])
        assert found.relax(noise, torch.tensor(0.25)).flatten().tolist() == pytest.approx(
            [expected, 1 - expected]
        )

    def test_several_samples_of_an_image_at_once(self) -> None:
        found, noise = posterior(), torch.randn(6, 4, 3, 5)
        together = found.relax(noise, 0.7)
        assert together.shape == (6, 4, 15)
        torch.testing.assert_close(together[2], found.relax(noise[2], 0.7))

    def test_gumbel_noise_has_the_moments_of_its_distribution(self) -> None:
        noise = gumbel_noise(DRAWS, device=CPU)
        assert noise.isfinite().all()
        assert standard_errors(noise, 0.5772156649) < 5  # Euler's constant
        assert standard_errors((noise - 0.5772156649).square(), math.pi**2 / 6) < 5

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
    def test_samples_have_the_moments_of_torch_s(self, temperature: float) -> None:
        ours = of_one_variable().relax(gumbel_noise(DRAWS, 1, 1, 3, device=CPU), temperature)[:, 0]
        reference = RelaxedOneHotCategorical(torch.tensor(temperature), probs=PROBABILITIES)
        theirs = torch.as_tensor(reference.sample((DRAWS,)))
        for power in (1, 2, 3):
            a, b = ours**power, theirs**power
            error = ((a.var(0) + b.var(0)) / DRAWS).sqrt()
            assert ((a.mean(0) - b.mean(0)).abs() < 5 * error).all()

    @pytest.mark.parametrize("temperature", [1.0, 1.5])
    def test_samples_have_the_density_of_the_relaxed_distribution(self, temperature: float) -> None:
        """The mean of another density over it is 1, the integral of the other one."""
        samples = of_one_variable().relax(gumbel_noise(DRAWS, 1, 1, 3, device=CPU), temperature)[:, 0]
        samples = samples.double().clamp(min=1e-12)
        samples = samples / samples.sum(-1, keepdim=True)
        density = RelaxedOneHotCategorical(
            torch.tensor(temperature).double(), probs=PROBABILITIES.double()
        ).log_prob(samples)
        other = Dirichlet(torch.full((3,), 4.0).double()).log_prob(samples)
        assert standard_errors((other - density).exp(), 1.0) < 5

    def test_as_the_temperature_falls_samples_become_draws_of_the_distribution(self) -> None:
        noise = gumbel_noise(DRAWS, 1, 1, 3, device=CPU)
        distances = []
        for temperature in (1.0, 0.3, 0.1, 0.01):
            samples = of_one_variable().relax(noise, temperature)[:, 0]
            greatest = one_hot(samples.argmax(-1), 3)
            assert (standard_errors(greatest, PROBABILITIES) < 5).all()
            distances.append((samples - greatest).abs().sum(-1).mean().item())
        assert distances == sorted(distances, reverse=True)
        assert distances[0] > 0.5
        assert distances[-1] < 0.02

    def test_straight_through_is_one_hot_forward_and_relaxed_backward(self) -> None:
        logits = torch.randn(4, 3, 5, requires_grad=True)
        noise, weights = gumbel_noise(4, 3, 5, device=CPU), torch.randn(4, 15)
        gradients = []
        for straight_through in (False, True):
            latents = CategoricalPosterior.of_logits(logits).relax(noise, 0.6, straight_through)
            (gradient,) = torch.autograd.grad((weights * latents).sum(), logits)
            gradients.append(gradient)
        assert torch.equal(gradients[0], gradients[1])
        assert gradients[0].abs().min() > 0
        expected = one_hot((logits + noise).argmax(-1), 5)
        assert torch.equal(latents.view(4, 3, 5), expected)

    def test_the_straight_through_gradient_by_hand(self) -> None:
        """Of the first of two classes with respect to its logit: y (1 - y) / temperature."""
        logits = torch.tensor([[[0.3, -0.4]]], requires_grad=True)
        noise = torch.tensor([[[0.5, 0.2]]])
        latents = CategoricalPosterior.of_logits(logits).relax(noise, 0.25, straight_through=True)
        assert latents.tolist() == [[1, 0]]
        (gradient,) = torch.autograd.grad(latents[0, 0], logits)
        y = 1 / (1 + math.exp(-4))
        assert gradient.flatten().tolist() == pytest.approx([y * (1 - y) * 4, -y * (1 - y) * 4], rel=1e-4)


def test_the_temperature_falls_by_equal_factors_of_progress() -> None:
    found = [temperature_at(2.0, 0.5, progress) for progress in (0, 0.25, 0.5, 1)]
    assert found == pytest.approx([2, math.sqrt(2), 1, 0.5])
    assert temperature_at(0.7, 0.7, 0.3) == pytest.approx(0.7)
