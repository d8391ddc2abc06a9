"""The hierarchical variational autoencoder: its layers by hand, and a model of known likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from helpers.command_line import genlab
from helpers.runs import metric_rows, plain_config, read_json
from helpers.vaes import BINARY, CONTINUOUS, GREY, SPECS, Recorder, images_of
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from genlab.commands import train
from genlab.config.autoencoders import HierarchicalVAEConfig
from genlab.config.schema import from_plain
from genlab.data.spec import Batch, DataSpec
from genlab.errors import ConfigError
from genlab.families.hierarchical_vae import HierarchicalVAE
from genlab.rng import SampleRng

SMALL = {"latents": [4, 3, 2], "hidden": [16, 12, 8], "width": 4}


def model_of(spec: DataSpec = BINARY, **settings: Any) -> HierarchicalVAE:
    """With every weight as it may be after training: no prior is N(0, I), and no block the identity."""
    torch.manual_seed(0)
    plain = {"name": "hierarchical_vae"} | SMALL | settings
    model = HierarchicalVAE(from_plain(HierarchicalVAEConfig, plain, "model"), spec)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model


class ByHand(NamedTuple):
    """The outputs, the KL term of each layer, the latents z, and log p(z) - log q(z | x) of an image."""

    outputs: Tensor
    kl: Tensor
    latents: Tensor
    log_ratio: Tensor


def by_hand(model: HierarchicalVAE, images: Tensor, noise: Tensor) -> ByHand:
    """Of the latents z themselves, with precisions and torch's distributions."""
    sizes, decoder = model.config.latents, model.vae.decoder
    means, log_variances = model.vae.encoder(images).chunk(2, 1)
    top = len(sizes) - 1
    state, prior = torch.zeros(len(images), 0), Normal(torch.zeros(sizes[-1]), torch.ones(sizes[-1]))
    terms: list[Tensor] = []
    latents: list[Tensor] = []
    log_ratio = torch.zeros(len(images))
    for layer in range(top, -1, -1):
        mean, precision = means.split(sizes, 1)[layer], torch.exp(-log_variances.split(sizes, 1)[layer])
        if layer < top:
            state = decoder.rungs[layer + 1](torch.cat([state, latents[0]], 1))
            prior_mean, prior_log_variance = decoder.priors[layer](state).chunk(2, 1)
            prior = Normal(prior_mean, (prior_log_variance / 2).exp())
        precisions = precision + prior.variance.reciprocal()
        posterior = Normal((mean * precision + prior.mean / prior.variance) / precisions, precisions.rsqrt())
        terms.insert(0, kl_divergence(posterior, prior).sum(1))
        latents.insert(0, posterior.mean + posterior.stddev * noise.split(sizes, 1)[layer])
        log_ratio = log_ratio + (prior.log_prob(latents[0]) - posterior.log_prob(latents[0])).sum(1)
    outputs = decoder.out(decoder.rungs[0](torch.cat([state, latents[0]], 1)))
    return ByHand(outputs, torch.stack(terms, 1), torch.cat(latents, 1), log_ratio)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name + str(spec.levels))
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_the_terms_are_those_of_the_layers_by_hand(spec: DataSpec, network: str) -> None:
    """Of three layers, by torch's distributions of the latents themselves."""
    model, images, noise = model_of(spec, network=network), images_of(spec, 7), torch.randn(7, 9)
    outputs, kl, _, _ = by_hand(model, images, noise)
    posterior, log_likelihood = model.infer(images, noise)
    torch.testing.assert_close(model.kl_of_layers(posterior), kl, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        log_likelihood, model.likelihood.log_prob(outputs, images), rtol=1e-4, atol=1e-3
    )
    reconstruction, total, mean = model.terms(images, noise)
    torch.testing.assert_close(reconstruction, -log_likelihood)
    torch.testing.assert_close(total, kl.sum(1), rtol=1e-4, atol=1e-4)
    assert mean.shape == (7, 9)


def test_noncentred_latents_and_the_latents_themselves_stand_for_each_other() -> None:
    """z of e is what the sample by hand is, and e of that z, (z - mu_p) / sigma_p, is what it came from."""
    model, images, noise = model_of(), images_of(BINARY, 5), torch.randn(5, 9)
    decoder = model.vae.decoder
    standard = model.infer(images, noise)[0].sample(noise)
    z = by_hand(model, images, noise).latents.split((4, 3, 2), 1)
    torch.testing.assert_close(standard[:, 7:], z[2])
    states = [decoder.rungs[2](z[2])]
    states.append(decoder.rungs[1](torch.cat([states[0], z[1]], 1)))
    for layer, state, part in ((1, states[0], standard[:, 4:7]), (0, states[1], standard[:, :4])):
        mean, log_variance = decoder.priors[layer](state).chunk(2, 1)
        torch.testing.assert_close(mean + (log_variance / 2).exp() * part, z[layer], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close((z[layer] - mean) / (log_variance / 2).exp(), part, rtol=1e-4, atol=1e-5)


def test_the_kl_term_is_the_mean_of_the_logarithm_of_the_ratio_of_densities() -> None:
    """log q - log p of 20,000 samples of one image, within five standard errors."""
    model, count = model_of(), 20_000
    with torch.no_grad():
        noise = torch.randn(count, 9)
        image = images_of(BINARY, 1)
        kl = model.terms(image.expand(count, 1, 8, 8), noise)[1]
        posterior = model.vae.encode(image)
        latents = posterior.sample(noise[:, None])
        ratio = (posterior.log_prob(latents) - model.vae.prior.log_prob(latents))[:, 0]
    difference = ratio - kl
    assert abs(difference.mean()) < 5 * difference.std() / math.sqrt(count) < 0.1
    assert kl.std() > 0.01  # the sample of the layers above does make a difference


class TestBound:
    """Two layers of linear-Gaussian latents, whose likelihood is known, and whose true posterior is a ladder.

    z_2 ~ N(0, I), z_1 ~ N(a z_2 + b, s^2), x ~ N(1/2 + W z_1, sigma^2): W has orthogonal columns, so that the
    image is a measurement of each latent by itself.
    """

    sigma = 0.5
    a, b, s = torch.tensor([1.2, 0.7]), torch.tensor([0.3, -0.2]), torch.tensor([0.6, 0.9])

    def model(self, off: float = 0.0) -> tuple[HierarchicalVAE, Tensor, Tensor]:
        """With the true posterior for an encoder, but for `off`; an image, and its exact -log p(x)."""
        spec = DataSpec("points", 1, 4, 4, levels=17, dequantized=True)
        model = model_of(spec, latents=[2, 2], hidden=[4, 2], likelihood="gaussian", sigma=self.sigma)
        lengths = torch.tensor([1.5, 0.8])
        weights = torch.linalg.qr(torch.randn(16, 2))[0] * lengths
        to_first = weights.T / lengths.square()[:, None]  # x gives z_1 with a variance of sigma^2 / length^2
        variance = self.sigma**2 / lengths.square()
        to_second = to_first / self.a[:, None]
        biases = [-0.5 * to_first.sum(1), -0.5 * to_second.sum(1) - self.b / self.a]
        spreads = [variance.log(), ((variance + self.s.square()) / self.a.square()).log()]
        encoder, prior, decoder = nn.Linear(16, 8), nn.Linear(2, 4), nn.Linear(4, 16)
        with torch.no_grad():
            encoder.weight.copy_(torch.cat([to_first, to_second, torch.zeros(4, 16)]))
            encoder.bias.copy_(torch.cat(biases + spreads))
            encoder.bias.add_(off * torch.tensor([1, -1, 0.5, 1, 1, -1, 1, 1]))
            prior.weight.copy_(torch.cat([self.a.diag(), torch.zeros(2, 2)]))
            prior.bias.copy_(torch.cat([self.b, 2 * self.s.log()]))
            decoder.weight.copy_(torch.cat([torch.zeros(16, 2), weights], 1))
            decoder.bias.zero_()  # outputs are means less 1/2
        ladder = model.vae.decoder
        model.vae.encoder = nn.Sequential(nn.Flatten(), encoder)
        ladder.rungs[1], ladder.priors[0], ladder.rungs[0] = nn.Identity(), prior, nn.Identity()
        ladder.out = nn.Sequential(decoder, nn.Unflatten(1, (1, 4, 4)))  # type: ignore[assignment]
        of_first = (self.a.square() + self.s.square()).diag()
        covariance = weights @ of_first @ weights.T + self.sigma**2 * torch.eye(16)
        image = torch.rand(1, 1, 4, 4)
        normal = MultivariateNormal(0.5 + weights @ self.b, covariance)
        return model, image, -normal.log_prob(image.flatten(1)).squeeze()

    def bound(self, model: HierarchicalVAE, images: Tensor, samples: int) -> Tensor:
        with torch.no_grad():
            rng = SampleRng(samples, range(len(images)))
            return model.importance_weighted_nats(images, samples, rng)

    def test_equals_the_log_likelihood_for_the_true_posterior(self) -> None:
        """The ratio of densities for every sample, and its parts in expectation."""
        model, image, exact = self.model()
        images = image.expand(4000, 1, 4, 4)
        torch.testing.assert_close(self.bound(model, images, 1), exact.expand(4000), rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            elbo = sum(model.terms(images, torch.randn(4000, 4))[:2])
        assert isinstance(elbo, Tensor)
        assert abs(elbo.mean() - exact) < 5 * elbo.std() / math.sqrt(4000) < 0.2

    def test_lies_above_it_for_any_other_and_falls_to_it_with_more_samples(self) -> None:
        model, image, exact = self.model(off=0.4)
        images = image.expand(300, 1, 4, 4)
        bounds = {k: self.bound(model, images, k) for k in (1, 5, 50, 1000)}
        means = [bounds[k].mean().item() for k in bounds]
        assert means == sorted(means, reverse=True)
        assert means[0] > exact + 0.1
        assert abs(means[-1] - exact) < 5 * bounds[1000].std() / math.sqrt(300) < 0.05
        with torch.no_grad():
            elbo = sum(model.terms(image.expand(20_000, 1, 4, 4), torch.randn(20_000, 4))[:2])
        assert isinstance(elbo, Tensor)
        error = math.hypot(elbo.std() / math.sqrt(20_000), bounds[1].std() / math.sqrt(300))
        assert abs(elbo.mean() - means[0]) < 5 * error  # of one sample it is the bound


def test_importance_weights_by_hand() -> None:
    """log p(x | z) + log p(z) - log q(z | x) of the latents z themselves."""
    model, images = model_of(), images_of(BINARY, 3)
    noise = SampleRng(0, range(3)).normal(4, 9)
    with torch.no_grad():
        found = model.importance_weighted_nats(images, 4, SampleRng(0, range(3)))
        worked = [by_hand(model, images, noise[:, sample]) for sample in range(4)]
        weights = [model.likelihood.log_prob(each.outputs, images) + each.log_ratio for each in worked]
    torch.testing.assert_close(found, math.log(4) - torch.stack(weights).logsumexp(0), rtol=1e-4, atol=1e-4)


def test_gradients_flow_through_the_latents_of_all_layers() -> None:
    """Against finite differences along random directions of the weights, at fixed noise."""
    model, images, noise = model_of().double(), images_of(BINARY, 6).double(), torch.randn(6, 9).double()

    def value() -> Tensor:
        reconstruction, kl, _ = model.terms(images, noise)
        return (reconstruction + kl).mean()

    parameters = list(model.parameters())
    gradients = torch.autograd.grad(value(), parameters)
    for _ in range(3):
        directions = [torch.randn_like(p) for p in parameters]
        expected = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
        steps = []
        for sign in (1, -2):
            with torch.no_grad():
                for p, d in zip(parameters, directions, strict=True):
                    p.add_(sign * 1e-4 * d)
                steps.append(value())
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.add_(1e-4 * d)
        assert ((steps[0] - steps[1]) / 2e-4).item() == pytest.approx(float(expected), rel=0.002, abs=0.02)


class TestLoss:
    def test_weighs_the_kl_terms_of_all_layers_alone(self) -> None:
        model, images = model_of(), images_of(BINARY, 7)
        torch.manual_seed(3)
        outputs, kl, _, _ = by_hand(model, images, torch.randn(7, 9))
        reconstruction = -model.likelihood.log_prob(outputs, images).mean()
        for weight in (0.0, 0.3, 1.0, 4.0):
            torch.manual_seed(3)
            loss, metrics = model.loss(images, weight)
            torch.testing.assert_close(loss, reconstruction + weight * kl.sum(1).mean())
            torch.testing.assert_close(metrics["negative_elbo_nats"], reconstruction + kl.sum(1).mean())
            for layer in range(3):
                torch.testing.assert_close(metrics[f"kl_nats_layer_{layer + 1}"], kl[:, layer].mean())
        assert model.negative_elbo(images)[1].keys() == metrics.keys()

    def test_free_bits_spare_each_layer_some_nats(self) -> None:
        images = images_of(BINARY, 7)
        torch.manual_seed(3)
        kl = by_hand(model_of(), images, torch.randn(7, 9)).kl
        layers = kl.detach().mean(0)
        spared = float(layers.sort().values[:2].mean())  # more than one layer has, less than two
        torch.manual_seed(3)
        loss, metrics = model_of(free_bits=spared).loss(images, 2.0)
        penalty = layers.clamp(min=spared).sum()
        assert penalty > layers.sum() + 1e-3
        torch.testing.assert_close(loss, metrics["reconstruction_nats"] + 2 * penalty)
        torch.testing.assert_close(
            metrics["negative_elbo_nats"], metrics["reconstruction_nats"] + layers.sum()
        )

    @pytest.mark.parametrize(("step", "weight"), [(0, 0.0), (25, 1.5), (50, 3.0), (99, 3.0)])
    def test_its_weight_rises_over_the_warm_up(self, step: int, weight: float) -> None:
        model = model_of(beta=3.0, kl_warmup=0.5)
        metrics = model.step(iter([Batch(images_of(BINARY, 4), None)]), Recorder(step))
        expected = metrics["reconstruction_nats"] + weight * metrics["kl_nats"]
        torch.testing.assert_close(metrics["loss"], expected)


class TestEvaluation:
    @pytest.mark.parametrize("spec", [BINARY, GREY, CONTINUOUS], ids=["binary", "grey", "continuous"])
    def test_names_the_kl_term_of_each_layer(self, spec: DataSpec) -> None:
        model, images = model_of(spec, beta=7.0), images_of(spec, 6)
        with torch.no_grad():
            values = model.evaluate(Batch(images, None), rng=SampleRng(0, range(6)), importance_samples=3)
            kl = by_hand(model, images, SampleRng(0, range(6)).normal(9)).kl
        for layer in range(3):
            torch.testing.assert_close(
                values[f"kl_nats_layer_{layer + 1}"], kl[:, layer], rtol=1e-4, atol=1e-4
            )
        torch.testing.assert_close(values["kl_nats"], kl.sum(1), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(values["elbo_nats"], values["reconstruction_nats"] + values["kl_nats"])
        assert values["importance_weighted_nats"].shape == (6,)
        whole = {name for name, value in values.items() if value.ndim > 1}
        assert whole == {"posterior_mean", "posterior_sample"}

    def test_counts_the_active_units_of_each_layer(self) -> None:
        base = torch.tensor([-1.0, 1.0]).repeat(50)
        means = torch.zeros(100, 9)
        means[:, [0, 3, 8]] = (base / base.std())[:, None]
        means[:, 1] = 0.0999 * base / base.std()  # a variance just under 0.01
        assert model_of().summarize({"posterior_mean": means}) == {
            "active_units": 3,
            "active_units_layer_1": 2,
            "active_units_layer_2": 0,
            "active_units_layer_3": 1,
        }
        assert model_of().summarize({"posterior_mean": means[:1]}) == {}

    def test_an_image_s_number_depends_on_no_other_image(self) -> None:
        model, images = model_of(), images_of(BINARY, 6)
        with torch.no_grad():
            whole, part = (
                model.evaluate(Batch(images[k:], None), rng=SampleRng(0, range(k, 6)), importance_samples=9)
                for k in (0, 4)
            )
        for name, value in part.items():
            torch.testing.assert_close(value, whole[name][4:])


class TestLatents:
    @pytest.mark.parametrize("sample_mean", [True, False])
    def test_a_sample_is_the_decoded_latent_of_the_prior(self, sample_mean: bool) -> None:
        model = model_of(sample_mean=sample_mean)
        assert model.latent_prior == "normal"
        with torch.no_grad():
            latents = model.prior_latents(SampleRng(5, range(8)))
            images, drawn = model.decode(latents), model.sample(8, rng=SampleRng(5, range(8)))
        assert torch.equal(latents, SampleRng(5, range(8)).normal(9))
        assert torch.equal(images, drawn) == sample_mean
        assert images.shape == drawn.shape == (8, 1, 8, 8)

    def test_a_code_is_the_way_of_the_posterior_s_means(self) -> None:
        model, images = model_of(), images_of(BINARY, 4)
        still = torch.zeros(4, 9)
        with torch.no_grad():
            codes = model.encode(images)
            torch.testing.assert_close(codes, model.infer(images, still)[0].mean)
            outputs = by_hand(model, images, still).outputs
            torch.testing.assert_close(model.decode(codes), outputs.sigmoid(), rtol=1e-4, atol=1e-5)

    def test_samples_have_the_prior_s_distribution_of_latents(self) -> None:
        """Ancestral samples by hand, z_1 of a two-layer linear model: their variance is a^2 + s^2."""
        model, _, _ = TestBound().model()
        decoder = model.vae.decoder
        decoder.out = nn.Identity()  # type: ignore[assignment]
        with torch.no_grad():
            first = decoder(SampleRng(0, range(4000)).normal(4))[:, 2:]
        variance = TestBound.a.square() + TestBound.s.square()
        error = variance.sqrt() / math.sqrt(4000)
        assert ((first.mean(0) - TestBound.b).abs() < 5 * error).all()
        assert ((first.var(0) / variance - 1).abs() < 5 * math.sqrt(2 / 4000)).all()


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_under_bf16_all_terms_stay_in_float32(network: str) -> None:
    model, images, noise = model_of(network=network), images_of(BINARY, 8), torch.randn(8, 9)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.terms(images, noise)
    exact = model.terms(images, noise)
    for a, b in zip(rough, exact, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.2)
    assert not torch.equal(rough[0], exact[0])  # the network did run in bf16


@pytest.mark.parametrize(
    "network", ["mlp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("conv", "resnet"))]
)
def test_training_lowers_the_bound(network: str) -> None:
    plain = plain_config(
        "hierarchical_vae", steps=400, evaluate_every=0, checkpoint_every=0, log_every=10, sample_every=0
    )
    plain["model"] |= {"network": network, "latents": [6, 4], "hidden": [48, 24], "width": 8}
    plain["optimizer"]["lr"] = 1e-2
    run = train.start(plain, [], "run")
    rows = metric_rows(run)
    losses = [row["negative_elbo_nats"] for row in rows if "negative_elbo_nats" in row]
    assert losses[-1] < 0.92 * losses[0]  # it starts at independent pixels


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latents": [8], "hidden": [16]}, "model.latents=[8]: fewer than two layers; give two or more"),
        ({"latents": [8, 4], "hidden": [16]}, "model.hidden=[16]: not one number for each layer of "),
        ({"latents": [8, 0]}, "model.latents[1]=0: must be at least 1"),
        ({"network": "conv"}, "model.network=conv: images of 4x4 pixels"),
        ({"likelihood": "bernoulli"}, "use dataset.binarize=dynamic or model.likelihood=auto"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        model_of(DataSpec("npz", 1, 4, 4), **settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def run(trained_run: Callable[..., str]) -> str:
    return trained_run("hierarchical_vae", latents=[3, 2], hidden=[8, 8])


class TestCommands:
    @pytest.mark.parametrize("verb", ["reconstruct", "interpolate", "traverse"])
    def test_on_latents_work(self, run: str, verb: str) -> None:
        genlab(verb, f"ckpt={run}", "run_dir=out")
        assert list(Path("out/images").iterdir())
        if verb == "traverse":
            facts = read_json("out/traversal.json")
            assert [row["row"] for row in facts["images"][::11]] == [f"dimension {k}" for k in range(5)]

    def test_an_evaluation_adds_up_whatever_the_batch_size(self, run: str) -> None:
        words = ["evaluate", f"ckpt={run}", "images=10", "importance_samples=30"]
        genlab(*words, "run_dir=whole")
        genlab(*words, "batch_size=3", "run_dir=parts")
        whole, parts = (read_json(f"{d}/evaluation.json") for d in ("whole", "parts"))
        assert whole["setting"]["stochastic_layers"] == 2
        assert whole["importance_weighted_nats"] < whole["elbo_nats"]
        layers = whole["kl_nats_layer_1"] + whole["kl_nats_layer_2"]
        assert whole["kl_nats"] == pytest.approx(layers, rel=1e-5)
        for name in ("elbo_nats", "kl_nats_layer_2", "importance_weighted_nats"):
            assert parts[name] == pytest.approx(whole[name], rel=1e-5)


def test_a_mistake_is_answered_before_anything_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    genlab("train", "model=hierarchical_vae", "model.latents=[8]", "run_dir=run", code=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("genlab: model.latents=[8]: fewer than two layers; give two or more")
    assert not Path("run").exists()
