"""Priors, posteriors and free bits of the variational autoencoder."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.runs import plain_config
from helpers.vaes import BINARY, PRIORS, Constant, Rows, images_of, vae
from torch import Tensor, nn

from genlab import registry
from genlab.commands import train
from genlab.data.spec import Batch, DataSpec
from genlab.distributions.priors import StandardNormal, VampPrior
from genlab.errors import ConfigError
from genlab.families.vae import VAE
from genlab.rng import SampleRng
from genlab.trained.model import load_model


class TestFullCovariance:
    """Probabilistic PCA with directions that are not orthogonal, so that the posterior is correlated."""

    sigma = 0.3

    def model(self, posterior: str) -> tuple[VAE, Tensor]:
        """With the true posterior, or the best diagonal one, for an encoder; and W, (16, 2)."""
        spec = DataSpec("points", 1, 4, 4, levels=17, dequantized=True)
        model = vae(spec, latent=2, likelihood="gaussian", sigma=self.sigma, posterior=posterior)
        first, second = torch.linalg.qr(torch.randn(16, 2))[0].T
        weights = torch.stack([first, 0.8 * first + 0.5 * second], 1)
        precision = torch.eye(2) + weights.T @ weights / self.sigma**2  # Bishop 2006, eq. 12.42
        covariance = precision.inverse()
        to_mean = covariance @ weights.T / self.sigma**2
        if posterior == "full":
            factor = torch.linalg.cholesky(covariance)
            spread = torch.cat([factor.diagonal().square().log(), factor[1:, 0] * 2])
        else:
            spread = -precision.diagonal().log()  # of the least KL(q || p): Bishop 2006, eq. 10.13
        encoder, decoder = nn.Linear(16, 2 + len(spread)), nn.Linear(2, 16)
        with torch.no_grad():
            encoder.weight.copy_(torch.cat([to_mean, torch.zeros(len(spread), 16)]))
            encoder.bias.copy_(torch.cat([-0.5 * to_mean.sum(1), spread]))
            decoder.weight.copy_(weights)
            decoder.bias.zero_()
        model.vae.encoder = nn.Sequential(nn.Flatten(), encoder)
        model.vae.decoder = nn.Sequential(decoder, nn.Unflatten(1, (1, 4, 4)))
        return model, weights

    def gap(self, posterior: str) -> Tensor:
        """Of one-sample bounds to the log-likelihood: estimates of KL(q || p(z | x)), (samples, images)."""
        model, weights = self.model(posterior)
        covariance = weights @ weights.T + self.sigma**2 * torch.eye(16)
        normal = torch.distributions.MultivariateNormal(torch.full((16,), 0.5), covariance)
        images = torch.rand(3, 1, 4, 4)
        with torch.no_grad():
            inferred = model.vae.encode(images)
            latents = inferred.sample(torch.randn(4000, 3, 2))
            prior = model.vae.prior.log_prob(latents)
            outputs = model.vae.decode(latents.flatten(0, 1))
            likelihood = model.likelihood.log_prob(outputs, images.repeat(4000, 1, 1, 1)).view(4000, 3)
        return normal.log_prob(images.flatten(1)) - (likelihood + prior - inferred.log_prob(latents))

    def test_the_bound_of_the_true_posterior_is_tight_for_every_sample(self) -> None:
        torch.testing.assert_close(self.gap("full"), torch.zeros(4000, 3), rtol=0, atol=1e-3)

    def test_the_best_diagonal_posterior_leaves_the_gap_that_is_known(self) -> None:
        """KL(q || p) = (log prod precision_jj - log det precision) / 2, for equal means."""
        _, weights = self.model("diagonal")
        precision = torch.eye(2) + weights.T @ weights / self.sigma**2
        expected = (precision.diagonal().log().sum() - torch.logdet(precision)) / 2
        assert expected > 0.3
        gap = self.gap("diagonal")
        assert ((gap.mean(0) - expected).abs() < 5 * gap.std(0) / math.sqrt(4000)).all()


@pytest.mark.parametrize("posterior", ["diagonal", "full"])
@pytest.mark.parametrize("prior", PRIORS)
class TestPriorsAndPosteriors:
    def test_every_weight_learns(self, prior: str, posterior: str) -> None:
        model = vae(prior=prior, posterior=posterior, prior_components=4)
        loss, metrics = model.loss(images_of(BINARY, 6), 1.0)
        loss.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
        torch.testing.assert_close(loss, metrics["negative_elbo_nats"])

    def test_is_evaluated_and_sampled_image_by_image(self, prior: str, posterior: str) -> None:
        model, images = vae(prior=prior, posterior=posterior, prior_components=4), images_of(BINARY, 6)
        with torch.no_grad():
            whole = model.evaluate(Batch(images, None), rng=SampleRng(4, range(6)))
            part = model.evaluate(Batch(images[4:], None), rng=SampleRng(4, range(4, 6)))
            samples = model.sample(5, rng=SampleRng(0, range(5)))
        for name, value in part.items():
            torch.testing.assert_close(whole[name][4:], value)
        assert samples.shape == (5, 1, 8, 8)
        assert 0 <= samples.min() < samples.max() <= 1

    def test_the_bound_is_that_of_a_latent_drawn_from_the_posterior(self, prior: str, posterior: str) -> None:
        """E[log q(z | x) - log p(z)] over 4,000 samples, in closed form or not."""
        model, images = vae(prior=prior, posterior=posterior, prior_components=4), images_of(BINARY, 3)
        with torch.no_grad():
            inferred = model.vae.encode(images)
            latents = inferred.sample(torch.randn(4000, 3, 5))
            ratios = inferred.log_prob(latents) - model.vae.prior.log_prob(latents)
            noise = torch.randn(4000, 3, 5)
            kl = torch.stack([model.divergence(inferred, part) for part in noise[:1000]])
        error = (ratios.var(0) / 4000 + kl.var(0) / 1000).sqrt()
        assert ((kl.mean(0) - ratios.mean(0)).abs() < 5 * error).all()


def test_a_mixture_of_one_standard_normal_has_the_default_s_bound_in_expectation() -> None:
    model, images = vae(prior="mixture", prior_components=1), images_of(BINARY, 3)
    with torch.no_grad():
        model.vae.prior.means.zero_()  # type: ignore[union-attr]
        posterior = model.vae.encode(images)
        kl = torch.stack([model.divergence(posterior, torch.randn(3, 5)) for _ in range(2000)])
        expected = StandardNormal(5).kl(posterior)
    assert ((kl.mean(0) - expected).abs() < 5 * kl.std(0) / math.sqrt(2000)).all()


def test_the_decoder_of_a_uniform_prior_sees_latents_between_minus_one_and_one() -> None:
    model = vae(prior="uniform")
    model.vae.decoder = nn.Identity()
    model.vae.encoder = nn.Sequential(nn.Flatten(), Constant(torch.tensor([0.0, 1.0, -9, 0, 0] + [0.0] * 5)))
    latents = model.vae(torch.zeros(1, 1, 8, 8), torch.tensor([[0.0, 0, 0, 1, -1]]))[2]
    # 2 Phi(1) - 1 = 0.6827, the share within one standard deviation
    assert latents.flatten().tolist() == pytest.approx([0, 0.6826895, -1, 0.6826895, -0.6826895])


class TestFreeBits:
    def test_by_hand(self) -> None:
        """Means 0, 1 and 2 of unit variance cost 0, 1/2 and 2 nats: with 0.7 free, 0.7 + 0.7 + 2."""
        model, images = vae(latent=3, free_bits=0.7), images_of(BINARY, 4)
        encoder = Constant(torch.tensor([0.0, 1.0, 2.0, 0.0, 0.0, 0.0]))
        model.vae.encoder = nn.Sequential(nn.Flatten(), encoder)
        for weight in (1.0, 0.5):
            loss, metrics = model.loss(images, weight)
            assert metrics["kl_nats"].item() == pytest.approx(2.5)  # what is logged is not changed
            expected = metrics["reconstruction_nats"].item() + weight * 3.4
            assert loss.item() == pytest.approx(expected)
        torch.manual_seed(0)
        bound = model.negative_elbo(images)[0]
        torch.manual_seed(0)
        assert torch.equal(bound, model.loss(images, 3.0)[1]["negative_elbo_nats"])

    @pytest.mark.parametrize("prior", ["standard_normal", "uniform", "laplace"])
    def test_a_dimension_below_them_is_not_pressed_further_and_one_above_is(self, prior: str) -> None:
        model, images = vae(latent=2, prior=prior, free_bits=0.3), images_of(BINARY, 4)
        value = torch.tensor([0.1, 2.0, -0.1, -0.5], requires_grad=True)
        model.vae.encoder = nn.Sequential(nn.Flatten(), Constant(value))
        model.vae.decoder = nn.Sequential(Detached(), nn.Linear(2, 64), nn.Unflatten(1, (1, 8, 8)))
        (gradient,) = torch.autograd.grad(model.loss(images, 1.0)[0], value)
        assert (gradient == 0).tolist() == [True, False, True, False]

    def test_the_average_over_images_counts(self) -> None:
        """KLs of 0 and 2 nats average to 1, which is over 0.9, though one of them is not."""
        model, images = vae(latent=1, free_bits=0.9), torch.zeros(2, 1, 8, 8)
        model.vae.encoder = Rows(torch.tensor([[0.0, 0.0], [2.0, 0.0]]))
        loss, metrics = model.loss(images, 1.0)
        assert (loss - metrics["reconstruction_nats"]).item() == pytest.approx(1.0)

    def test_evaluation_knows_nothing_of_them(self) -> None:
        batch = Batch(images_of(BINARY, 4), None)
        free, plain = (vae(free_bits=bits).evaluate(batch, rng=SampleRng(0, range(4))) for bits in (9.0, 0.0))
        assert torch.equal(free["elbo_nats"], plain["elbo_nats"])

    @pytest.mark.parametrize(
        ("settings", "line"),
        [
            (
                {"prior": "mixture"},
                "model.free_bits=0.5: model.prior=mixture has no KL term of each dimension; "
                "use model.prior=standard_normal, uniform or laplace",
            ),
            ({"prior": "vampprior"}, "model.free_bits=0.5: model.prior=vampprior has no KL term"),
            (
                {"posterior": "full"},
                "model.free_bits=0.5: model.posterior=full has no KL term of each dimension; "
                "use model.posterior=diagonal",
            ),
        ],
    )
    def test_need_a_kl_term_of_each_dimension(self, settings: dict[str, str], line: str) -> None:
        plain = plain_config("vae")
        plain["model"] |= settings
        registry.train_config(plain)
        plain["model"] |= {"free_bits": 0.5}
        with pytest.raises(ConfigError) as error:
            registry.train_config(plain)
        assert str(error.value).startswith(line)
        assert "\n" not in str(error.value)


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


@pytest.mark.parametrize("posterior", ["diagonal", "full"])
def test_a_pass_is_one_graph_for_the_compiler(posterior: str) -> None:
    model, images, noise = vae(posterior=posterior), images_of(BINARY, 2), torch.randn(2, 5)
    compiled = torch.compile(model.vae, backend="eager", fullgraph=True)
    for a, b in zip(compiled(images, noise), model.vae(images, noise), strict=True):
        torch.testing.assert_close(a, b)


def test_the_averaged_weights_of_a_vampprior_use_their_own_encoder() -> None:
    plain = plain_config("vae", steps=3, evaluate_every=0, checkpoint_every=0, sample_every=0)
    plain["model"] |= {"hidden": [8], "latent": 2, "prior": "vampprior", "prior_components": 3}
    train.start(plain, [], "run")
    average, raw = (load_model("run", weights, torch.device("cpu")).family for weights in ("average", "raw"))
    latents = torch.randn(4, 2)
    densities = []
    for family in (average, raw):
        assert isinstance(family, VAE)
        net = family.vae
        assert isinstance(net.prior, VampPrior)
        posterior = net.encode(net.prior.pseudo_inputs.sigmoid())
        densities.append(net.prior.log_prob(latents))
        expected = posterior.log_prob(latents[:, None].expand(4, 3, 2)).exp().mean(1).log()
        torch.testing.assert_close(densities[-1], expected)
    assert not torch.equal(*densities)


@pytest.mark.parametrize(("prior", "posterior"), [("vampprior", "full"), ("mixture", "diagonal")])
def test_under_bf16_latents_and_their_densities_stay_in_float32(prior: str, posterior: str) -> None:
    model = vae(prior=prior, posterior=posterior, prior_components=3)
    images, noise = images_of(BINARY, 8), torch.randn(8, 5)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.terms(images, noise)
    for a, b in zip(rough, model.terms(images, noise), strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.2)
    inferred, latents = model.vae.encode(images), torch.randn(8, 5)
    with torch.autocast("cpu", torch.bfloat16):
        density = inferred.log_prob(latents)
    assert torch.equal(density, inferred.log_prob(latents))
