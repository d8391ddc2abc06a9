"""The variational autoencoder against the formulas of Kingma and Welling (2014)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.runs import metric_rows, plain_config
from helpers.vaes import BINARY, COLOUR, CONTINUOUS, GREY, SPECS, Constant, Recorder, images_of, vae
from torch import Tensor, nn

from genlab.commands import train
from genlab.config.autoencoders import VAEConfig
from genlab.data.spec import Batch, DataSpec
from genlab.data.subsets import subset
from genlab.errors import ConfigError
from genlab.families import latent_variable
from genlab.families.latent_variable import choose_likelihood
from genlab.families.vae import VAE
from genlab.rng import SampleRng


def test_the_default_is_the_paper_s_bit_for_bit() -> None:
    """Its loss and gradients written out once more, for a diagonal posterior and a standard normal prior."""
    model, images = vae(), images_of(BINARY, 7)
    torch.manual_seed(3)
    loss, _ = model.loss(images, 0.7)
    torch.manual_seed(3)
    noise = torch.randn(7, 5)
    mean, log_variance = model.vae.encoder(images).chunk(2, dim=1)
    outputs = model.vae.decoder(mean + torch.exp(log_variance / 2) * noise)
    cross_entropy = nn.functional.binary_cross_entropy_with_logits(outputs, images, reduction="none")
    kl = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
    expected = cross_entropy.flatten(1).sum(1).mean() + 0.7 * kl.mean()
    assert torch.equal(loss, expected)
    parameters = list(model.parameters())
    for a, b in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        assert torch.equal(a, b)
    assert set(model.state_dict()) == {"vae.decoder.offset.value"} | {
        f"vae.{part}.net.layers.{k}.{kind}"
        for part in ("encoder", "decoder")
        for k in (0, 1)
        for kind in ("weight", "bias")
    }
    assert torch.equal(
        model.sample(4, rng=SampleRng(1, range(4))),
        model.vae.decoder(SampleRng(1, range(4)).normal(5)).sigmoid(),
    )


class TestBound:
    """A linear-Gaussian model, probabilistic PCA (Tipping and Bishop 1999), where log p(x) is known."""

    sigma = 0.3

    def model(self) -> tuple[VAE, Tensor]:
        """With the true posterior for an encoder, and W, (16, 2), of orthogonal columns."""
        spec = DataSpec("points", 1, 4, 4, levels=17, dequantized=True)
        model = vae(spec, latent=2, likelihood="gaussian", sigma=self.sigma).double()
        directions, _ = torch.linalg.qr(torch.randn(16, 2, dtype=torch.float64))
        weights = directions * torch.tensor([1.5, 0.4], dtype=torch.float64)
        scales = weights.square().sum(0) + self.sigma**2  # posterior covariance: sigma^2 / scales, diagonal
        encoder, decoder = nn.Linear(16, 4).double(), nn.Linear(2, 16).double()
        with torch.no_grad():
            encoder.weight.copy_(torch.cat([(weights / scales).T, torch.zeros(2, 16)]))
            encoder.bias.copy_(
                torch.cat([-0.5 * (weights / scales).T.sum(1), (self.sigma**2 / scales).log()])
            )
            decoder.weight.copy_(weights)
            decoder.bias.zero_()  # outputs are means less 1/2
        model.vae.encoder = nn.Sequential(nn.Flatten(), encoder)
        model.vae.decoder = nn.Sequential(decoder, nn.Unflatten(1, (1, 4, 4)))
        model.vae.forward = in_float64(model)  # type: ignore[method-assign]
        return model, weights

    def exact(self, images: Tensor, weights: Tensor) -> Tensor:
        covariance = weights @ weights.T + self.sigma**2 * torch.eye(16)
        normal = torch.distributions.MultivariateNormal(torch.full((16,), 0.5).double(), covariance)
        return -normal.log_prob(images.flatten(1).double())

    def negative_elbo(self, model: VAE, images: Tensor) -> Tensor:
        """Averaged over noise drawn in pairs z and -z and rescaled to unit second moments, (B,)."""
        noise = torch.randn(2000, 2).double()
        noise = torch.cat([noise, -noise])
        noise = noise / noise.square().mean(0).sqrt()
        cross = (noise[:, 0] * noise[:, 1]).mean()
        noise[:, 1] -= cross * noise[:, 0]
        noise[:, 1] /= noise[:, 1].square().mean().sqrt()
        terms = [model.terms(image.expand(len(noise), *image.shape), noise)[:2] for image in images]
        return torch.stack([(reconstruction + kl).mean() for reconstruction, kl in terms])

    def test_equals_the_log_likelihood_for_the_true_posterior(self) -> None:
        model, weights = self.model()
        images = torch.rand(5, 1, 4, 4).double()
        torch.testing.assert_close(
            self.negative_elbo(model, images), self.exact(images, weights), rtol=1e-4, atol=1e-3
        )

    def test_lies_above_it_for_any_other(self) -> None:
        model, weights = self.model()
        images = torch.rand(5, 1, 4, 4).double()
        encoder = model.vae.encoder[1]  # type: ignore[index]
        for name in ("weight", "bias"):
            before = getattr(encoder, name).detach().clone()
            with torch.no_grad():
                getattr(encoder, name).add_(0.1 * torch.randn_like(before))
            assert (self.negative_elbo(model, images) > self.exact(images, weights) + 1e-3).all(), name
            with torch.no_grad():
                getattr(encoder, name).copy_(before)


def in_float64(model: VAE) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """The network's forward without its return to float32."""

    def forward(images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = model.vae.encoder(images).chunk(2, dim=1)
        return mean, log_variance, model.vae.decoder(mean + torch.exp(log_variance / 2) * noise)

    return forward


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name + str(spec.levels))
def test_gradients_flow_through_the_sampled_latent(spec: DataSpec) -> None:
    """Against finite differences along random directions of the weights, at fixed noise."""
    model = vae(spec)
    # a fresh decoder's last layer passes on too little for float32
    model.get_parameter("vae.decoder.net.layers.1.weight").data.mul_(100)
    images, noise = images_of(spec, 6), torch.randn(6, 5)

    def value() -> Tensor:
        reconstruction, kl, _ = model.terms(images, noise)
        return (reconstruction + kl).mean()

    parameters = list(model.vae.encoder.parameters())
    gradients = torch.autograd.grad(value(), parameters)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        directions = [torch.randn(p.shape, generator=generator) for p in parameters]
        expected = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
        steps = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, d in zip(parameters, directions, strict=True):
                    p.add_(sign * 1e-4 * d)
                steps.append(value())
                for p, d in zip(parameters, directions, strict=True):
                    p.sub_(sign * 1e-4 * d)
        slope = (steps[0] - steps[1]) / 2e-4
        assert slope.item() == pytest.approx(float(expected), rel=0.03, abs=0.3)


def test_the_reparameterised_latent_by_hand() -> None:
    model = vae(latent=1)
    model.vae.encoder = nn.Sequential(nn.Flatten(), Constant(torch.tensor([2.0, math.log(9)])))
    model.vae.decoder = nn.Identity()
    mean, log_variance, latent = model.vae(torch.zeros(2, 1, 8, 8), torch.tensor([[1.0], [-0.5]]))
    assert mean.flatten().tolist() == [2, 2]
    assert log_variance.exp().flatten().tolist() == pytest.approx([9, 9])
    assert latent.flatten().tolist() == pytest.approx([5, 0.5])  # 2 + 3 * noise


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name + str(spec.levels))
def test_loss_sums_over_dimensions_averages_over_images_and_weighs_the_kl_alone(spec: DataSpec) -> None:
    model, images = vae(spec), images_of(spec, 7)
    torch.manual_seed(3)
    noise = torch.randn(7, 5)
    reconstruction, kl, _ = model.terms(images, noise)
    assert reconstruction.shape == kl.shape == (7,)
    for weight in (0.0, 0.3, 1.0, 4.0):
        torch.manual_seed(3)
        loss, metrics = model.loss(images, weight)
        torch.testing.assert_close(loss, reconstruction.sum() / 7 + weight * kl.sum() / 7)
        torch.testing.assert_close(metrics["negative_elbo_nats"], (reconstruction + kl).mean())
        torch.testing.assert_close(metrics["kl_nats"], kl.mean())
    torch.manual_seed(3)
    torch.testing.assert_close(model.negative_elbo(images)[0], (reconstruction + kl).mean())


@pytest.mark.parametrize(
    ("step", "settings", "weight"),
    [
        (0, {"beta": 3.0, "kl_warmup": 0.5}, 0.0),
        (25, {"beta": 3.0, "kl_warmup": 0.5}, 1.5),
        (50, {"beta": 3.0, "kl_warmup": 0.5}, 3.0),
        (99, {"beta": 3.0, "kl_warmup": 0.5}, 3.0),
        (0, {"beta": 2.0}, 2.0),
        (0, {}, 1.0),
    ],
)
def test_weight_of_the_kl_term(step: int, settings: dict[str, float], weight: float) -> None:
    model = vae(BINARY, **settings)
    metrics = model.step(iter([Batch(images_of(BINARY, 4), None)]), Recorder(step))
    expected = metrics["reconstruction_nats"] + weight * metrics["kl_nats"]
    torch.testing.assert_close(metrics["loss"], expected)


class TestEvaluation:
    @pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name + str(spec.levels))
    def test_terms_and_bits(self, spec: DataSpec) -> None:
        model = vae(spec, beta=7.0)
        values = model.evaluate(Batch(images_of(spec, 6), None), rng=SampleRng(0, range(6)))
        torch.testing.assert_close(
            values["elbo_nats"], values["reconstruction_nats"] + values["kl_nats"]
        )  # beta has no part in it
        nats = values["elbo_nats"]
        if spec.dequantized:
            nats = nats + spec.dimensions * math.log(17)
        expected = nats / spec.dimensions / math.log(2)
        torch.testing.assert_close(values["elbo_bits_per_dim"], expected)
        assert values["posterior_mean"].shape == (6, 5)

    def test_a_density_of_undequantised_values_has_no_bits(self) -> None:
        values = vae(GREY, likelihood="gaussian").evaluate(
            Batch(images_of(GREY, 2), None), rng=SampleRng(0, range(2))
        )
        assert "elbo_bits_per_dim" not in values

    def test_bits_of_a_uniform_density_are_those_of_its_levels(self) -> None:
        # A wide Gaussian over 17 dequantised levels is nearly flat on [0, 1]: its density there is about
        # 1 / (sigma sqrt(2 pi)), so that a level costs log2(17 sigma sqrt(2 pi)) bits.
        model = vae(CONTINUOUS, sigma=1000.0, likelihood="gaussian")
        values = model.evaluate(Batch(images_of(CONTINUOUS, 3), None), rng=SampleRng(0, range(3)))
        bits = values["reconstruction_nats"] / 64 / math.log(2) + math.log2(17)
        expected = math.log2(17 * 1000 * math.sqrt(2 * math.pi))
        assert bits.tolist() == pytest.approx([expected] * 3, rel=1e-4)

    def test_an_image_s_number_depends_on_no_other_image(self) -> None:
        model, images = vae(), images_of(BINARY, 9)
        whole = model.evaluate(Batch(images, None), rng=SampleRng(4, range(9)))["elbo_nats"]
        parts = [
            model.evaluate(Batch(images[k : k + 2], None), rng=SampleRng(4, range(k, min(k + 2, 9))))
            for k in range(0, 9, 2)
        ]
        torch.testing.assert_close(whole, torch.cat([part["elbo_nats"] for part in parts]))

    def test_active_units_by_hand(self) -> None:
        # variances 0, 0.01 exactly (not over), about 0.0104, 1
        base = torch.tensor([-1.0, 1.0]).repeat(50)
        base = base / base.std()
        means = torch.stack([base * 0, base * 0.0999, base * 0.102, base], 1)
        assert vae().summarize({"posterior_mean": means}) == {"active_units": 2}
        assert vae().summarize({"posterior_mean": means[:1]}) == {}

    @pytest.mark.parametrize("prior", ["standard_normal", "uniform", "laplace"])
    def test_the_kl_term_in_three_parts(self, prior: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """They sum to it, of some images: its closed form within five standard errors."""
        model, batch = vae(prior=prior), Batch(images_of(BINARY, 600), None)
        monkeypatch.setattr(latent_variable, "_DECOMPOSED_IMAGES", 500)
        with torch.no_grad():
            values = model.evaluate(batch, rng=SampleRng(0, range(600)))
            numbers = model.summarize(values)
            posterior = model.vae.encode(batch.images[subset(600, 500)])
        latents = values["posterior_sample"][subset(600, 500)]
        ratios = posterior.log_prob(latents) - model.vae.prior.log_prob(latents)
        parts = ("index_code_mutual_information_nats", "total_correlation_nats", "dimension_wise_kl_nats")
        total = sum(numbers[name] for name in parts)
        assert total == pytest.approx(ratios.mean().item(), rel=1e-4)
        difference = ratios - values["kl_nats"][subset(600, 500)]
        assert abs(difference.mean()) < 5 * difference.std() / math.sqrt(500)
        assert 0 < numbers["index_code_mutual_information_nats"] < math.log(500)

    @pytest.mark.parametrize("settings", [{"prior": "mixture"}, {"posterior": "full"}])
    def test_has_no_such_parts_without_independent_dimensions(self, settings: dict[str, str]) -> None:
        model, batch = vae(BINARY, **settings), Batch(images_of(BINARY, 6), None)
        with torch.no_grad():
            numbers = model.summarize(model.evaluate(batch, rng=SampleRng(0, range(6))))
        assert numbers.keys() == {"active_units"}

    def test_reconstructions_stand_under_their_originals(self) -> None:
        model, images = vae(), images_of(BINARY, 20)
        pictures = model.pictures(Batch(images, None), rng=SampleRng(0, range(20)))["reconstructions"]
        assert pictures.shape == (4, 10, 1, 8, 8)
        assert torch.equal(pictures[0], images[:10])
        assert torch.equal(pictures[2], images[10:])
        assert 0 <= pictures.min() <= pictures.max() <= 1


class TestSampling:
    @pytest.mark.parametrize("sample_mean", [True, False])
    @pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name + str(spec.levels))
    def test_sample_k_depends_on_the_seed_and_k_alone(self, spec: DataSpec, sample_mean: bool) -> None:
        model = vae(spec, sample_mean=sample_mean).eval()
        many = model.sample(12, rng=SampleRng(5, range(12)))
        one = model.sample(1, rng=SampleRng(5, range(7, 8)))
        assert many.shape == (12, *spec.shape)
        assert 0 <= many.min() <= many.max() <= 1
        torch.testing.assert_close(many[7:8], one, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(many[7], many[6])
        assert not torch.allclose(many, model.sample(12, rng=SampleRng(6, range(12))))

    def test_draws_are_on_levels_and_means_are_not(self) -> None:
        drawn = vae(sample_mean=False).sample(5, rng=SampleRng(0, range(5)))
        assert set(drawn.unique().tolist()) == {0.0, 1.0}
        assert len(vae().sample(5, rng=SampleRng(0, range(5))).unique()) > 10


@pytest.mark.parametrize(
    ("spec", "chosen"),
    [(BINARY, "bernoulli"), (GREY, "discretized_logistic"), (CONTINUOUS, "gaussian"),
     (COLOUR, "discretized_logistic")],
)  # fmt: skip
def test_likelihood_auto(spec: DataSpec, chosen: str) -> None:
    assert choose_likelihood(VAEConfig(), spec) == chosen
    assert chosen in json.dumps(vae(spec).facts())


@pytest.mark.parametrize(
    ("spec", "settings", "message"),
    [
        (GREY, {"likelihood": "bernoulli"}, "model.likelihood=bernoulli: digits has 17 levels"),
        (CONTINUOUS, {"likelihood": "discretized_logistic"}, "use dataset.dequantize=false"),
        (DataSpec("npz", 1, 4, 4), {"network": "conv"}, "model.network=conv: images of 4x4 pixels"),
        (DataSpec("npz", 3, 65, 64), {"network": "conv"}, "use dataset.size=32"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    spec: DataSpec, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        vae(spec, **settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("spec", [BINARY, COLOUR], ids=["binary", "colour"])
def test_under_bf16_both_terms_stay_in_float32(spec: DataSpec, network: str) -> None:
    model, images, noise = vae(spec, network=network), images_of(spec, 8), torch.randn(8, 5)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.terms(images, noise)
    exact = model.terms(images, noise)
    for a, b in zip(rough, exact, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.2)
    assert not torch.equal(rough[0], exact[0])  # the network did run in bf16


@pytest.mark.parametrize("learns", [True, False])
def test_sigma_is_learned_or_fixed(learns: bool) -> None:
    model = vae(CONTINUOUS, sigma=None if learns else 0.2)
    assert (model.vae.log_sigma is not None) == learns
    model.negative_elbo(images_of(CONTINUOUS, 4))[0].backward()
    if model.vae.log_sigma is not None:
        assert model.vae.log_sigma.grad is not None
        assert model.vae.log_sigma.grad != 0


@pytest.mark.parametrize("network", ["mlp", "conv", pytest.param("resnet", marks=pytest.mark.slow)])
def test_training_lowers_the_bound(network: str) -> None:
    plain = plain_config("vae", steps=400, evaluate_every=0, checkpoint_every=0, log_every=10, sample_every=0)
    plain["model"] |= {"network": network, "hidden": [64], "width": 8, "latent": 4}
    plain["optimizer"]["lr"] = 1e-2
    run = train.start(plain, [], "run")
    rows = metric_rows(run)
    nats = [row["negative_elbo_nats"] for row in rows if "negative_elbo_nats" in row]
    assert nats[-1] < 0.9 * nats[0]
    assert (run / "samples" / "reconstructions.png").is_file()
