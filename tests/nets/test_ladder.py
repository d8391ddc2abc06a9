"""The two ladders: the combination of two normal densities, and ways down that lead to the same place."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from genlab.distributions.posteriors import DiagonalNormal
from genlab.nets.ladder import LadderDecoder, LadderEncoder, LadderPosterior, Rung, combine

SHAPE = (2, 9, 8)
LATENTS = (4, 3, 2)
SIZES = (LATENTS, (12, 10, 8), 1)


def ladders(network: str = "mlp") -> tuple[LadderEncoder, LadderDecoder]:
    """With every weight as it may be after training: none of them 0."""
    torch.manual_seed(0)
    networks = LadderEncoder(SHAPE, *SIZES, network, 4), LadderDecoder(SHAPE, *SIZES, network, 4)
    for parameter in (p for ladder in networks for p in ladder.parameters()):
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    return networks


def posterior(images: int) -> LadderPosterior:
    encoder, decoder = ladders()
    return LadderPosterior.of(encoder(torch.rand(images, *SHAPE)), decoder)


class TestCombination:
    def test_by_hand(self) -> None:
        # Precisions 1 of the estimate and 1/4 of the prior: variance 4/5 around (1 * 2 + 0) / (5/4) = 8/5.
        # In standard deviations of the prior, 2 each: 4/5, with a variance of 1/5.
        estimate = DiagonalNormal(torch.tensor([[2.0]]), torch.tensor([[0.0]]))
        prior = DiagonalNormal(torch.tensor([[0.0]]), torch.tensor([[math.log(4)]]))
        found = combine(estimate, prior)
        assert found.mean.item() == pytest.approx(4 / 5)
        assert found.variance.item() == pytest.approx(1 / 5)

    def test_is_the_product_of_two_densities(self) -> None:
        """Up to a factor that does not depend on z."""
        mean, log_variance, prior_mean, prior_log_variance = torch.randn(4, 5, dtype=torch.float64)
        prior = DiagonalNormal(prior_mean, prior_log_variance)
        found = combine(DiagonalNormal(mean, log_variance), prior)
        latents = prior.sample(found.sample(torch.linspace(-4, 4, 9, dtype=torch.float64)[:, None]))
        scale = (prior_log_variance / 2).exp()
        density = Normal(prior_mean + scale * found.mean, scale * found.variance.sqrt())
        product = Normal(mean, (log_variance / 2).exp()).log_prob(latents) + Normal(
            prior_mean, scale
        ).log_prob(latents)
        difference = product - density.log_prob(latents)
        torch.testing.assert_close(difference, difference[:1].expand(9, 5))

    @pytest.mark.parametrize(("spread", "mean", "variance"), [(80.0, 0.0, 1.0), (-80.0, 3.0, 0.0)])
    def test_of_an_estimate_that_says_nothing_or_all(
        self, spread: float, mean: float, variance: float
    ) -> None:
        """It is the prior, or the estimate itself: 3 standard deviations above the prior's mean."""
        prior = DiagonalNormal(torch.tensor([[1.0]]), torch.tensor([[math.log(4)]]))
        found = combine(DiagonalNormal(torch.tensor([[7.0]]), torch.tensor([[spread]])), prior)
        assert found.mean.item() == pytest.approx(mean)
        assert found.variance.item() == pytest.approx(variance)
        assert found.spread.isfinite().all()


class TestWays:
    def test_one_s_own_latents_lead_where_the_draws_led(self) -> None:
        encoder, decoder = ladders()
        numbers, noise = encoder(torch.rand(6, *SHAPE)), torch.randn(6, 9)
        estimates = DiagonalNormal.read(numbers, 9)
        drawn = decoder.walk(estimates, noise, sample=True)
        given = decoder.walk(estimates, drawn.latents, sample=False)
        torch.testing.assert_close(given.posterior.mean, drawn.posterior.mean)
        torch.testing.assert_close(given.posterior.spread, drawn.posterior.spread)
        torch.testing.assert_close(drawn.posterior.sample(noise), drawn.latents)
        torch.testing.assert_close(decoder(drawn.latents), decoder.outputs(drawn.bottom))

    def test_a_layer_s_distribution_depends_on_the_layers_above_alone(self) -> None:
        """The Jacobian of the latents is block triangular, and the top layer's part is diagonal."""
        one = posterior(1)
        jacobian = torch.autograd.functional.jacobian(lambda noise: one.sample(noise), torch.randn(1, 9))
        assert isinstance(jacobian, Tensor)
        moved = jacobian.view(9, 9).abs() > 0
        for first, last in ((0, 4), (4, 7), (7, 9)):
            assert not moved[first:last, :first].any()
            assert torch.equal(moved[first:last, first:last], torch.eye(last - first).bool())
            assert moved[first:last, last:].all()


class TestPosterior:
    def test_has_the_density_of_its_samples(self) -> None:
        """By the change of variables: that of the noise over the determinant of the map."""
        several = posterior(3)
        noise = torch.randn(5, 3, 9)
        latents = several.sample(noise)
        assert latents.shape == (5, 3, 9)
        found = several.log_prob(latents)
        assert found.shape == (5, 3)
        for sample, image in ((0, 0), (4, 2)):
            one = LadderPosterior(several.mean[image, None], several.spread[image, None], several.decoder)
            jacobian = torch.autograd.functional.jacobian(
                lambda noise, one=one: one.sample(noise), noise[sample, image, None]
            )
            assert isinstance(jacobian, Tensor)
            expected = Normal(0, 1).log_prob(noise[sample, image]).sum() - jacobian.view(9, 9).logdet()
            torch.testing.assert_close(found[sample, image], expected, rtol=1e-4, atol=1e-4)

    def test_its_mean_is_the_way_of_all_means(self) -> None:
        several = posterior(3)
        assert torch.equal(several.mean, several.sample(torch.zeros(3, 9)))

    def test_those_of_some_images_are_the_same_posteriors(self) -> None:
        both = posterior(2)
        one, noise = both.rows(torch.tensor([1])), torch.randn(3, 2, sum(LATENTS))
        latents = both.sample(noise)
        torch.testing.assert_close(one.sample(noise[:, 1:]), latents[:, 1:])
        torch.testing.assert_close(both.detach().log_prob(latents.detach()), both.log_prob(latents.detach()))
        assert not both.detach().mean.requires_grad


@pytest.mark.parametrize("network", ["mlp", "conv", "resnet"])
class TestNetworks:
    def test_every_weight_takes_part(self, network: str) -> None:
        encoder, decoder = ladders(network)
        numbers = encoder(torch.rand(6, *SHAPE))
        assert numbers.shape == (6, 18)
        walk = decoder.walk(DiagonalNormal.read(numbers, 9), torch.randn(6, 9), sample=True)
        outputs = decoder.outputs(walk.bottom)
        assert outputs.shape == (6, *SHAPE)
        (outputs * torch.randn_like(outputs)).sum().backward()
        for ladder in (encoder, decoder):
            for name, parameter in ladder.named_parameters():
                assert parameter.grad is not None, name
                assert parameter.grad.abs().sum() > 0, name

    def test_state_and_latent_begin_with_equal_shares(self, network: str) -> None:
        decoder = LadderDecoder((1, 32, 32), (8, 16), (512, 256), 0, network, 4)
        weight = decoder.get_parameter("rungs.0.into.weight")
        of_state, of_latent = weight.split([256, 8], 1)
        shares = [part.square().sum(1).mean().item() for part in (of_state, of_latent)]
        assert shares == pytest.approx([1, 1], rel=0.1)  # the sum of 4096 squares or more

    def test_training_begins_with_standard_normal_priors_and_a_signal_of_fair_size(
        self, network: str
    ) -> None:
        decoder = LadderDecoder((1, 32, 32), (16, 16), (256, 128), 2, network, 32)
        latents = torch.randn(64, 32)
        state = decoder.rungs[1](latents[:, 16:])
        assert torch.equal(decoder.priors[0](state), torch.zeros(64, 32))
        assert 0.003 < decoder(latents).std().item() < 0.04  # the last layer makes it a hundredth


def test_a_rung_by_hand() -> None:
    rung = Rung(nn.Identity(), 2, 1)
    (block,) = rung.blocks
    x = torch.tensor([[1.0, -3.0]])
    assert rung(x).tolist() == [[1, 0]]  # a block begins as the identity
    with torch.no_grad():
        block.weight.copy_(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))  # type: ignore[operator]
        block.bias.copy_(torch.tensor([0.5, -1.0]))  # type: ignore[operator]
    # W relu(x) + b = (0, 2) + (1/2, -1), added to x: (3/2, -2)
    assert rung(x).tolist() == [[1.5, 0]]
