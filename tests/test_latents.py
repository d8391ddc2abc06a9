"""Posteriors and priors of latents, against torch.distributions and Monte Carlo."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from genlab.device import NUMBERS_AT_ONCE
from genlab.distributions.posteriors import DiagonalNormal, FullNormal, Posterior, kl_to_standard_normal
from genlab.distributions.priors import (
    FactorizedPrior,
    Laplace,
    MixturePrior,
    Prior,
    StandardNormal,
    Uniform,
    VampPrior,
    kl_decomposition,
)
from genlab.rng import SampleRng

D = 3


def diagonal(n: int = 4) -> DiagonalNormal:
    return DiagonalNormal(torch.randn(n, D).double(), torch.randn(n, D).double())


def full(n: int = 4) -> FullNormal:
    posterior = FullNormal.read(torch.randn(n, FullNormal.count(D)), D)
    return FullNormal(posterior.mean.double(), posterior.spread.double())


POSTERIORS = [diagonal, full]


def of_torch(posterior: Posterior) -> torch.distributions.Distribution:
    if isinstance(posterior, FullNormal):
        return torch.distributions.MultivariateNormal(posterior.mean, scale_tril=posterior.spread)
    normal = torch.distributions.Normal(posterior.mean, posterior.variance.sqrt())
    return torch.distributions.Independent(normal, 1)


def close(estimates: Tensor, expected: Tensor, errors: float = 5) -> None:
    """The mean over the first dimension lies within so many standard errors of what is expected."""
    error = estimates.std(0) / math.sqrt(len(estimates))
    assert (error < 0.1).all()
    assert ((estimates.mean(0) - expected).abs() < errors * error).all()


class TestPosteriors:
    @pytest.mark.parametrize("make", POSTERIORS)
    def test_densities_and_entropies_are_those_of_torch(self, make: Any) -> None:
        posterior = make()
        expected = of_torch(posterior)
        points = torch.randn(6, 5, 4, D).double()
        torch.testing.assert_close(posterior.log_prob(points), expected.log_prob(points))
        assert posterior.log_prob(points[0, 0]).shape == (4,)
        torch.testing.assert_close(posterior.entropy(), expected.entropy())
        torch.testing.assert_close(posterior.variance, expected.variance)

    @pytest.mark.parametrize("make", POSTERIORS)
    def test_samples_are_an_affine_map_of_noise_with_the_right_moments(self, make: Any) -> None:
        posterior = make()
        assert torch.equal(posterior.sample(torch.zeros(2, 4, D).double())[1], posterior.mean)
        units = torch.eye(D).double().unsqueeze(1).expand(D, 4, D)
        columns = (posterior.sample(units) - posterior.mean).movedim(0, -1)
        covariance = columns @ columns.mT  # of a linear map of noise whose covariance is I
        full = posterior.spread @ posterior.spread.mT if isinstance(posterior, FullNormal) else None
        expected = torch.diag_embed(posterior.variance) if full is None else full
        torch.testing.assert_close(covariance, expected)

    @pytest.mark.parametrize("kind", [DiagonalNormal, FullNormal])
    def test_the_density_of_a_sample_is_that_of_its_noise_over_the_volume(self, kind: Any) -> None:
        """In 32 dimensions and float32: log q = log N(noise; 0, I) - log det of the map."""
        posterior, noise = kind.read(3 * torch.randn(6, kind.count(32)), 32), torch.randn(50, 6, 32)
        volume = posterior.entropy() - 32 * (1 + math.log(2 * math.pi)) / 2
        expected = -(noise.square() + math.log(2 * math.pi)).sum(-1) / 2 - volume
        torch.testing.assert_close(
            posterior.log_prob(posterior.sample(noise)), expected, rtol=1e-4, atol=1e-3
        )

    def test_the_parameters_of_a_full_normal_by_hand(self) -> None:
        # mean 7, 8; log-squares of the diagonal log 4 and log 9; below it 5, over D = 2
        numbers = torch.tensor([[7, 8, math.log(4), math.log(9), 5]])
        posterior = FullNormal.read(numbers, 2)
        assert posterior.mean.tolist() == [[7, 8]]
        torch.testing.assert_close(posterior.spread, torch.tensor([[[2, 0], [2.5, 3]]]))

    @pytest.mark.parametrize("kind", [DiagonalNormal, FullNormal])
    def test_any_outputs_of_an_encoder_are_a_distribution_in_float32(self, kind: type[Posterior]) -> None:
        wild = 1000 * torch.randn(50, kind.count(D))
        posterior = kind.read(wild.bfloat16(), D)
        assert posterior.mean.dtype == posterior.spread.dtype == torch.float32
        assert (posterior.variance > 0).all()
        assert torch.isfinite(posterior.entropy()).all()
        assert torch.isfinite(posterior.log_prob(posterior.sample(torch.randn(50, D)))).all()

    @pytest.mark.parametrize("make", POSTERIORS)
    def test_half_precision_of_the_networks_does_not_reach_it(self, make: Any) -> None:
        exact = make()
        posterior, noise = type(exact)(exact.mean.float(), exact.spread.float()), torch.randn(5, 4, D)
        with torch.autocast("cpu", torch.bfloat16):
            rough = posterior.sample(noise), posterior.log_prob(noise)
        assert torch.equal(rough[0], posterior.sample(noise))
        assert torch.equal(rough[1], posterior.log_prob(noise))

    @pytest.mark.parametrize("kind", [DiagonalNormal, FullNormal])
    def test_gradients_reach_every_number_of_the_encoder_unless_detached(self, kind: Any) -> None:
        numbers = torch.randn(2, kind.count(D), requires_grad=True)
        posterior = kind.read(numbers, D)
        (gradient,) = torch.autograd.grad(posterior.sample(torch.ones(2, D)).sum(), numbers)
        assert (gradient != 0).all()
        assert not posterior.detach().log_prob(torch.ones(2, D)).requires_grad

    @pytest.mark.parametrize("make", POSTERIORS)
    def test_rows(self, make: Any) -> None:
        posterior, points = make(), torch.randn(2, D).double()
        given = posterior.rows(torch.tensor([3, 1])).log_prob(points)
        expected = posterior.log_prob(points.unsqueeze(1).expand(2, 4, D))
        torch.testing.assert_close(given, torch.stack([expected[0, 3], expected[1, 1]]))


class TestKLToStandardNormal:
    def test_by_hand(self) -> None:
        # mean (1, 0), variance (1, e): (1 + 1 - 1 - 0) / 2 + (0 + e - 1 - 1) / 2
        given = kl_to_standard_normal(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        assert given.tolist() == pytest.approx([0.5 + (math.e - 2) / 2])

    @pytest.mark.parametrize("make", POSTERIORS)
    def test_is_that_of_torch(self, make: Any) -> None:
        posterior = make()
        normal = torch.distributions.MultivariateNormal(torch.zeros(D).double(), torch.eye(D).double())
        if isinstance(posterior, DiagonalNormal):
            scale = torch.diag_embed(posterior.variance.sqrt())
            expected = kl_divergence(
                torch.distributions.MultivariateNormal(posterior.mean, scale_tril=scale), normal
            )
        else:
            expected = kl_divergence(of_torch(posterior), normal)
        torch.testing.assert_close(StandardNormal(D).kl(posterior), expected)

    def test_is_zero_at_the_prior_alone(self) -> None:
        zero = torch.zeros(3, 4)
        assert kl_to_standard_normal(zero, zero).tolist() == [0, 0, 0]
        assert (kl_to_standard_normal(zero + 0.01, zero) > 0).all()
        assert (kl_to_standard_normal(zero, zero - 0.1) > 0).all()
        identity = torch.eye(4).expand(3, 4, 4)
        torch.testing.assert_close(StandardNormal(4).kl(FullNormal(zero, identity)), torch.zeros(3))


@pytest.mark.parametrize("kind", [StandardNormal, Uniform, Laplace])
class TestFactorizedPriors:
    @pytest.mark.parametrize("make", POSTERIORS)
    def test_the_closed_form_is_the_mean_of_log_q_less_log_p(
        self, kind: type[FactorizedPrior], make: Any
    ) -> None:
        prior, posterior = kind(D), make()
        points = posterior.sample(torch.randn(20_000, 4, D).double())
        close(posterior.log_prob(points) - prior.log_prob(points), prior.kl(posterior))

    def test_its_dimensions_sum_to_it(self, kind: type[FactorizedPrior]) -> None:
        prior, posterior = kind(D), diagonal()
        torch.testing.assert_close(prior.kl_of_dimensions(posterior).sum(1), prior.kl(posterior))
        points = torch.randn(5, 4, D).double()
        torch.testing.assert_close(prior.log_prob_of_dimensions(points).sum(-1), prior.log_prob(points))

    def test_samples_follow_its_density(self, kind: type[FactorizedPrior]) -> None:
        prior = kind(D)
        points = prior.sample(SampleRng(0, range(5000)))
        assert points.shape == (5000, D)
        reference = torch.distributions.Laplace(0, 1) if kind is Laplace else torch.distributions.Normal(0, 1)
        torch.testing.assert_close(prior.log_prob_of_dimensions(points), reference.log_prob(points))
        uniform = reference.cdf(points).flatten().sort().values
        steps = (torch.arange(len(uniform)) + 0.5) / len(uniform)
        assert (uniform - steps).abs().max() < 1.63 / math.sqrt(len(uniform))  # Kolmogorov's 1 % point


def test_kl_to_laplace_by_hand() -> None:
    # mean 0, variance 1: log 2 + sqrt(2 / pi) - (1 + log 2 pi) / 2
    zero = torch.zeros(1, 1).double()
    expected = math.log(2) + math.sqrt(2 / math.pi) - (1 + math.log(2 * math.pi)) / 2
    assert Laplace(1).kl(DiagonalNormal(zero, zero)).tolist() == pytest.approx([expected])


def test_a_uniform_number_of_zero_is_no_infinite_laplace_latent() -> None:
    class Zeros(SampleRng):
        def uniform(self, *shape: int) -> Tensor:
            return torch.zeros(len(self), *shape)

    assert torch.isfinite(Laplace(D).sample(Zeros(0, range(2)))).all()


class TestUniform:
    def test_the_decoder_gets_numbers_uniform_over_minus_one_to_one(self) -> None:
        prior = Uniform(D)
        values = prior.to_decoder(prior.sample(SampleRng(0, range(5000)))).flatten().sort().values
        steps = 2 * (torch.arange(len(values)) + 0.5) / len(values) - 1
        assert (values - steps).abs().max() < 2 * 1.63 / math.sqrt(len(values))

    def test_the_divergence_is_that_of_the_pushed_posterior_to_the_uniform_density(self) -> None:
        """Of z = 2 Phi(u) - 1, by its own density: that of u over dz/du, against 1/2 a dimension."""
        posterior = diagonal()
        points = posterior.sample(torch.randn(20_000, 4, D).double()).requires_grad_()
        (slope,) = torch.autograd.grad(Uniform(D).to_decoder(points).sum(), points)
        log_density = posterior.log_prob(points.detach()) - slope.log().sum(-1)
        close(log_density - D * math.log(0.5), Uniform(D).kl(posterior))


def mixture() -> MixturePrior:
    prior = MixturePrior(D, 4).double()
    for parameter in prior.parameters():
        nn.init.normal_(parameter)
    return prior


class Encoder(nn.Module):
    """As a model has it: the prior is one of its children and uses another one."""

    def __init__(self, kind: type[Posterior], bounded: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(4, kind.count(D))
        self.kind = kind
        self.prior = VampPrior(D, 5, (1, 2, 2), bounded, self.encode)

    def encode(self, images: Tensor) -> Posterior:
        return self.kind.read(self.linear(images.flatten(1)), D)


def vampprior() -> VampPrior:
    return Encoder(DiagonalNormal).prior


class TestMixtures:
    def test_density_is_that_of_torch(self) -> None:
        prior, points = mixture(), torch.randn(6, 7, D).double()
        normal = torch.distributions.Normal(prior.means, (prior.log_variances / 2).exp())
        expected = torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(logits=prior.logits),
            torch.distributions.Independent(normal, 1),
        )
        torch.testing.assert_close(prior.log_prob(points), expected.log_prob(points))

    @pytest.mark.parametrize("kind", [DiagonalNormal, FullNormal])
    @pytest.mark.parametrize("bounded", [True, False])
    def test_density_of_a_vampprior_is_the_mean_of_its_posteriors(
        self, kind: type[Posterior], bounded: bool
    ) -> None:
        model, points = Encoder(kind, bounded), torch.randn(6, D)
        inputs = model.prior.pseudo_inputs
        posterior = of_torch(model.encode(inputs.sigmoid() if bounded else inputs))
        densities = posterior.log_prob(points[:, None]).exp()  # (6, 5)
        torch.testing.assert_close(model.prior.log_prob(points), densities.mean(1).log())

    @pytest.mark.parametrize("make", [mixture, vampprior])
    def test_samples_have_its_moments(self, make: Any) -> None:
        """Against the mean and second moments of the components, weighted."""
        prior = make()
        points = prior.sample(SampleRng(0, range(4000))).double()
        assert points.shape == (4000, D)
        components = prior._components()
        count = len(components.mean)
        weights = (
            prior.logits.softmax(0) if isinstance(prior, MixturePrior) else torch.full((count,), 1 / count)
        )
        mean = weights.double() @ components.mean.double()
        square = weights.double() @ (components.variance + components.mean.square()).double()
        assert ((points.mean(0) - mean).abs() < 5 * points.std(0) / math.sqrt(4000)).all()
        squares = points.square()
        assert ((squares.mean(0) - square).abs() < 5 * squares.std(0) / math.sqrt(4000)).all()

    @pytest.mark.parametrize("make", [mixture, vampprior])
    def test_a_sample_depends_on_its_own_stream_alone(self, make: Any) -> None:
        prior = make()
        many, one = prior.sample(SampleRng(3, range(9))), prior.sample(SampleRng(3, [7]))
        torch.testing.assert_close(many[7:8], one)

    @pytest.mark.parametrize("make", [mixture, vampprior])
    def test_it_has_no_closed_form(self, make: Any) -> None:
        assert make().kl(diagonal()) is None

    def test_the_density_is_the_same_in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        prior, points = mixture(), torch.randn(7, 5, D).double()
        whole = prior.log_prob(points)
        monkeypatch.setitem(NUMBERS_AT_ONCE, "cpu", 4 * D * 3)
        torch.testing.assert_close(prior.log_prob(points), whole)

    def test_every_parameter_learns(self) -> None:
        model = Encoder(FullNormal)
        for prior in (mixture(), model.prior):
            points = torch.randn(6, D, dtype=next(prior.parameters()).dtype)
            prior.log_prob(points).sum().backward()
            assert all((p.grad is not None) and p.grad.any() for p in prior.parameters())
        assert model.linear.weight.grad is not None  # through the pseudo-inputs' posteriors

    def test_a_copied_model_s_vampprior_uses_the_copy_s_encoder(self) -> None:
        model, points = Encoder(DiagonalNormal), torch.randn(2, D)
        before = model.prior.log_prob(points)
        copied = copy.deepcopy(model)
        with torch.no_grad():
            model.linear.bias.add_(1)
        assert not torch.equal(model.prior.log_prob(points), before)
        assert torch.equal(copied.prior.log_prob(points), before)
        assert set(copied.state_dict()) == {"linear.weight", "linear.bias", "prior.pseudo_inputs"}


@pytest.mark.parametrize("prior", [StandardNormal(D), Uniform(D), Laplace(D)])
def test_a_prior_without_weights_adds_nothing_to_a_checkpoint(prior: Prior) -> None:
    assert not prior.state_dict()


class TestDecomposition:
    def test_by_hand(self) -> None:
        """Two images, N(0, 1) and N(2, 1), with latents 1 and 2: q(z) = (N(z; 0, 1) + N(z; 2, 1)) / 2."""

        def density(distance: float) -> float:
            return math.exp(-(distance**2) / 2) / math.sqrt(2 * math.pi)

        posterior = DiagonalNormal(torch.tensor([[0.0], [2.0]]), torch.zeros(2, 1))
        parts = kl_decomposition(posterior, torch.tensor([[1.0], [2.0]]), StandardNormal(1))
        aggregate = [density(1), (density(2) + density(0)) / 2]
        information = (math.log(density(1) / aggregate[0]) + math.log(density(0) / aggregate[1])) / 2
        divergence = (math.log(aggregate[0] / density(1)) + math.log(aggregate[1] / density(2))) / 2
        assert parts == pytest.approx((information, 0, divergence), abs=1e-6)

    @pytest.mark.parametrize("prior", [StandardNormal(D), Uniform(D), Laplace(D)])
    def test_the_parts_add_up_to_the_kl_term_of_the_latents(self, prior: FactorizedPrior) -> None:
        posterior = diagonal(30)
        points = posterior.sample(torch.randn(30, D).double())
        expected = (posterior.log_prob(points) - prior.log_prob(points)).mean().item()
        assert sum(kl_decomposition(posterior, points, prior)) == pytest.approx(expected)

    def test_images_that_are_all_alike_have_no_information_and_no_correlation(self) -> None:
        one = diagonal(1)
        posterior = DiagonalNormal(one.mean.expand(50, D), one.spread.expand(50, D))
        parts = kl_decomposition(posterior, posterior.sample(torch.randn(50, D).double()), StandardNormal(D))
        assert parts[:2] == pytest.approx((0, 0), abs=1e-12)

    def test_latents_that_tell_every_image_have_the_information_of_its_number(self) -> None:
        """On a line through both dimensions, so that each of them knows the other: log N each."""
        means = torch.arange(20.0).unsqueeze(1).expand(20, 2)
        posterior = DiagonalNormal(means, torch.full((20, 2), -10.0))
        parts = kl_decomposition(posterior, posterior.sample(torch.randn(20, 2)), StandardNormal(2))
        assert parts[:2] == pytest.approx((math.log(20), math.log(20)), abs=1e-4)

    def test_of_a_normal_aggregate_is_what_is_known(self) -> None:
        """Means on a grid of quantiles of a correlated normal distribution, noise of variance 1/2 around.

        Against the covariance S of z: MI = log(det S / noise) / 2, TC = -log(1 - correlation^2) / 2, and the
        KL of each dimension to N(0, 1); within five standard errors over ten draws.
        """
        quantiles = torch.distributions.Normal(0, 1).icdf((torch.arange(36).double() + 0.5) / 36)
        factor = torch.tensor([[1.2, 0.0], [0.9, 0.6]]).double()
        means = torch.cartesian_prod(quantiles, quantiles) @ factor.T
        posterior = DiagonalNormal(means, torch.full_like(means, math.log(0.5)))
        covariance = torch.cov(means.T, correction=0) + 0.5 * torch.eye(2)
        determinant, variances = torch.logdet(covariance), covariance.diagonal()
        expected = torch.stack([
            (determinant - 2 * math.log(0.5)) / 2,
            (variances.log().sum() - determinant) / 2,
            (variances - 1 - variances.log()).sum() / 2,
        ])  # fmt: skip
        drawn = [posterior.sample(torch.randn(len(means), 2).double()) for _ in range(10)]
        close(torch.tensor([kl_decomposition(posterior, z, StandardNormal(2)) for z in drawn]), expected)
