"""The importance-weighted autoencoder against Burda et al. (2016) and Tucker et al. (2019)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers.runs import metric_rows, plain_config
from helpers.vaes import BINARY, Rows, images_of, vae
from torch import Tensor, nn

from genlab.commands import train
from genlab.config.autoencoders import IWAEConfig
from genlab.config.schema import from_plain
from genlab.data.spec import Batch, DataSpec
from genlab.distributions.posteriors import POSTERIORS
from genlab.families.iwae import IWAE
from genlab.rng import SampleRng


def iwae(spec: DataSpec = BINARY, **settings: Any) -> IWAE:
    torch.manual_seed(0)
    plain = {"name": "iwae", "hidden": [24], "latent": 5, "width": 4, "importance_samples": 6} | settings
    return IWAE(from_plain(IWAEConfig, plain, "model"), spec)


DOUBLY = [False, True]


@pytest.mark.parametrize("doubly", DOUBLY)
class TestObjective:
    def test_is_the_bound_of_its_noise(self, doubly: bool) -> None:
        model, images = iwae(doubly_reparameterized=doubly), images_of(BINARY, 4)
        noise = SampleRng(0, range(4)).normal(6, 5).transpose(0, 1)
        loss, metrics = model.objective(images, noise)
        expected = model.importance_weighted_nats(images, 6, SampleRng(0, range(4)))
        torch.testing.assert_close(loss, expected.mean())
        posterior = model.vae.encode(images)
        log_weights = model.log_weights(images, posterior, posterior.sample(noise))
        torch.testing.assert_close(metrics["negative_elbo_nats"], -log_weights.mean())
        assert loss < metrics["negative_elbo_nats"]

    def test_the_best_sample_gets_the_greatest_weight(
        self, doubly: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Weights 1, 2 and 5 of an image's latents: their log-weights are pushed up by 1/8, 2/8 and 5/8."""
        model = iwae(doubly_reparameterized=doubly)
        log_weights = torch.tensor([[1.0, 30.0], [2.0, 10.0], [5.0, 60.0]]).log().requires_grad_()
        monkeypatch.setattr(model, "log_weights", lambda *_: log_weights)
        loss, _ = model.objective(images_of(BINARY, 2), torch.randn(3, 2, 5))
        assert loss.item() == pytest.approx(-(math.log(8 / 3) + math.log(100 / 3)) / 2)
        (gradient,) = torch.autograd.grad(loss, log_weights)
        shares = torch.tensor([[1 / 8, 0.3], [2 / 8, 0.1], [5 / 8, 0.6]])
        torch.testing.assert_close(gradient, -shares / 2)  # a mean over two images

    def test_every_weight_learns(self, doubly: bool) -> None:
        for posterior, prior in (("diagonal", "standard_normal"), ("full", "vampprior")):
            model = iwae(doubly_reparameterized=doubly, posterior=posterior, prior=prior, prior_components=3)
            model.loss(images_of(BINARY, 6))[0].backward()
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None, name
                assert parameter.grad.any(), name


def test_of_one_sample_is_the_vae() -> None:
    """Bit for bit but for rounding, where the VAE's KL term is of its sample too; gradients included."""
    mixture = {"prior": "mixture", "prior_components": 3}
    one, plain = iwae(importance_samples=1, **mixture), vae(**mixture)
    images = images_of(BINARY, 6)
    torch.manual_seed(3)
    loss, _ = one.loss(images)
    torch.manual_seed(3)
    expected, _ = plain.loss(images, 1.0)
    torch.testing.assert_close(loss, expected)
    for a, b in zip(
        torch.autograd.grad(loss, list(one.parameters())),
        torch.autograd.grad(expected, list(plain.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("posterior", ["diagonal", "full"])
class TestDoublyReparameterized:
    """A linear decoder, and encodings that are weights: a row for each copy of one image.

    So one backward pass gives an independent gradient for each copy.
    """

    copies, samples = 4000, 5

    def gradients(self, posterior: str, doubly: bool) -> tuple[Tensor, Tensor]:
        """Of the encodings, (copies, numbers), for each copy's own loss; and of the decoder's matrix."""
        spec = DataSpec("points", 1, 2, 2, levels=17, dequantized=True)
        settings = {"latent": 2, "likelihood": "gaussian", "sigma": 0.7, "posterior": posterior}
        model = iwae(spec, doubly_reparameterized=doubly, **settings)
        row = torch.tensor([0.3, -0.2, -1.0, -0.5, 0.8])[: POSTERIORS[posterior].count(2)]
        rows = row.expand(self.copies, -1).clone().requires_grad_()
        decoder = nn.Linear(2, 4)
        nn.init.constant_(decoder.bias, 0.1)
        with torch.no_grad():
            decoder.weight.copy_(torch.tensor([[1.0, 0.2], [0.5, -0.4], [-0.3, 0.9], [0.1, 0.6]]))
        model.vae.encoder = Rows(rows)
        model.vae.decoder = nn.Sequential(decoder, nn.Unflatten(1, (1, 2, 2)))
        image = torch.tensor([0.9, 0.2, 0.4, 0.7]).view(1, 1, 2, 2)
        torch.manual_seed(7)
        noise = torch.randn(self.samples, self.copies, 2)
        loss, _ = model.objective(image.expand(self.copies, 1, 2, 2), noise)
        of_rows, of_matrix = torch.autograd.grad(loss, [rows, decoder.weight])
        return of_rows * self.copies, of_matrix

    def test_the_encoder_s_gradient_is_the_same_in_expectation_and_less_noisy(self, posterior: str) -> None:
        plain, doubly = self.gradients(posterior, False)[0], self.gradients(posterior, True)[0]
        error = (plain - doubly).std(0) / math.sqrt(self.copies)
        assert (plain.mean(0).abs() > 5 * plain.std(0) / math.sqrt(self.copies)).any()  # there is a gradient
        assert ((plain.mean(0) - doubly.mean(0)).abs() < 5 * error).all()
        assert doubly.var(0).sum() < plain.var(0).sum()

    def test_the_decoder_s_gradient_is_the_same(self, posterior: str) -> None:
        plain, doubly = self.gradients(posterior, False)[1], self.gradients(posterior, True)[1]
        torch.testing.assert_close(plain, doubly, rtol=1e-4, atol=1e-5)


def test_doubly_reparameterised_gradient_by_its_formula() -> None:
    """sum_k share_k^2 (d log w_k / dz_k) (dz_k / dmean) for means, with dz/dmean = 1."""
    model, images, noise = iwae(doubly_reparameterized=True), images_of(BINARY, 3), torch.randn(6, 3, 5)
    numbers = torch.randn(3, 10, requires_grad=True)
    model.vae.encoder = Rows(numbers)
    (gradient,) = torch.autograd.grad(model.objective(images, noise)[0], numbers)
    posterior = model.vae.encode(images).detach()
    latents = posterior.sample(noise).requires_grad_()
    log_weights = model.log_weights(images, posterior, latents)
    (slopes,) = torch.autograd.grad(log_weights.sum(), latents)
    shares = log_weights.detach().softmax(0).unsqueeze(-1)
    torch.testing.assert_close(gradient[:, :5], -(shares.square() * slopes).sum(0) / 3)


def test_evaluation_has_its_own_number_of_samples_unless_told() -> None:
    model, batch = iwae(), Batch(images_of(BINARY, 4), None)
    assert model.facts()["importance_weighted_bound"] == "6 posterior samples"
    with torch.no_grad():
        for given, used in ((None, 6), (9, 9)):
            values = model.evaluate(batch, rng=SampleRng(0, range(4)), importance_samples=given)
            rng = SampleRng(0, range(4))
            rng.normal(5)  # of the bound beside it
            expected = model.importance_weighted_nats(batch.images, used, rng)
            torch.testing.assert_close(values["importance_weighted_nats"], expected)


def test_compiling_keeps_the_weights_names() -> None:
    model = iwae()
    before = set(model.state_dict())
    model.compile_networks()
    assert set(model.state_dict()) == before
    for part in (model.vae.encoder, model.vae.decoder):
        assert part._compiled_call_impl is not None


@pytest.mark.parametrize("doubly", DOUBLY)
def test_training_lowers_the_bound(doubly: bool) -> None:
    plain = plain_config(
        "iwae", steps=400, evaluate_every=0, checkpoint_every=0, log_every=10, sample_every=0
    )
    plain["model"] |= {"hidden": [64], "latent": 4, "importance_samples": 5, "doubly_reparameterized": doubly}
    plain["optimizer"]["lr"] = 1e-2
    run = train.start(plain, [], "run")
    rows = metric_rows(run)
    logged = [row for row in rows if "images_per_second" in row]
    assert logged[-1]["importance_weighted_nats"] < 0.9 * logged[0]["importance_weighted_nats"]
    assert all(row["importance_weighted_nats"] < row["negative_elbo_nats"] for row in logged)
