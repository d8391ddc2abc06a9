"""The importance-weighted bound (Burda et al. 2016): against formulas, and where the likelihood is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import genlab
from helpers.runs import plain_config, read_json
from helpers.vaes import BINARY, CONTINUOUS, GREY, PRIORS, images_of, vae
from torch import Tensor, nn

from genlab import registry
from genlab.commands import train
from genlab.config.datasets import DigitsConfig
from genlab.data.spec import Batch, DataSpec
from genlab.device import NUMBERS_AT_ONCE
from genlab.families import latent_variable
from genlab.families.vae import VAE
from genlab.rng import SampleRng
from genlab.trained import numbers
from genlab.trained.numbers import values_of_split

SIGMA = 0.5
COPIES = 300
"""Of an image, each with a stream of its own: estimates of an expectation."""


def pca() -> tuple[VAE, Tensor, Tensor]:
    """Probabilistic PCA with an encoder that is off; an image (1, 1, 4, 4), and its exact -log p(x)."""
    spec = DataSpec("points", 1, 4, 4, levels=17, dequantized=True)
    model = vae(spec, latent=2, likelihood="gaussian", sigma=SIGMA)
    weights = torch.linalg.qr(torch.randn(16, 2))[0] * torch.tensor([1.5, 0.8])
    precision = torch.eye(2) + weights.T @ weights / SIGMA**2
    to_mean = precision.inverse() @ weights.T / SIGMA**2
    encoder, decoder = nn.Linear(16, 4), nn.Linear(2, 16)
    with torch.no_grad():
        encoder.weight.copy_(torch.cat([to_mean, torch.zeros(2, 16)]))
        off = torch.tensor([0.2, -0.2, 0.3, 0.3])
        encoder.bias.copy_(torch.cat([-0.5 * to_mean.sum(1), -precision.diagonal().log()]) + off)
        decoder.weight.copy_(weights)
        decoder.bias.zero_()  # outputs are means less 1/2
    model.vae.encoder = nn.Sequential(nn.Flatten(), encoder)
    model.vae.decoder = nn.Sequential(decoder, nn.Unflatten(1, (1, 4, 4)))
    covariance = weights @ weights.T + SIGMA**2 * torch.eye(16)
    normal = torch.distributions.MultivariateNormal(torch.full((16,), 0.5), covariance)
    image = torch.rand(1, 1, 4, 4)
    return model, image, -normal.log_prob(image.flatten(1)).squeeze()


def bound(model: VAE, images: Tensor, samples: int, seed: int = 0) -> Tensor:
    with torch.no_grad():
        return model.importance_weighted_nats(images, samples, SampleRng(seed, range(len(images))))


def error(estimates: Tensor) -> float:
    return float(estimates.std() / math.sqrt(len(estimates)))


class TestBound:
    def test_by_hand(self) -> None:
        """log p(x | z) + log p(z) - log q(z | x) of each image and sample on its own, summed in float64."""
        model, images = vae(), images_of(BINARY, 3)
        noise = SampleRng(0, range(3)).normal(4, 5)
        for k, image in enumerate(images):
            mean, log_variance = model.vae.encoder(image[None]).double().chunk(2, dim=1)
            posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
            total = 0.0
            for sample in range(4):
                latent = mean + (log_variance / 2).exp() * noise[k, sample]
                logits = model.vae.decoder(latent.float())
                likelihood = torch.distributions.Bernoulli(logits=logits.double()).log_prob(image.double())
                prior = torch.distributions.Normal(0, 1).log_prob(latent)
                weight = likelihood.sum() + prior.sum() - posterior.log_prob(latent).sum()
                total += weight.exp().item()
            assert bound(model, images, 4)[k].item() == pytest.approx(-math.log(total / 4), rel=1e-5)

    @pytest.mark.parametrize("prior", ["mixture", "vampprior"])
    def test_of_one_sample_is_the_bound_for_the_same_noise(self, prior: str) -> None:
        """Where the KL term is of that sample too."""
        model, images = vae(prior=prior, prior_components=3), images_of(BINARY, 6)
        with torch.no_grad():
            reconstruction, kl, _ = model.terms(images, SampleRng(0, range(6)).normal(5))
        torch.testing.assert_close(bound(model, images, 1), reconstruction + kl)

    def test_of_one_sample_is_the_bound_in_expectation(self) -> None:
        model, image, _ = pca()
        images = image.expand(4000, 1, 4, 4)
        with torch.no_grad():
            reconstruction, kl, _ = model.terms(images, torch.randn(4000, 2))
        elbo, one = reconstruction + kl, bound(model, images, 1)
        assert abs(one.mean() - elbo.mean()) < 5 * math.hypot(error(elbo), error(one))

    def test_falls_with_more_samples_to_the_exact_likelihood(self) -> None:
        model, image, exact = pca()
        images = image.expand(COPIES, 1, 4, 4)
        bounds = {k: bound(model, images, k, seed=k) for k in (1, 5, 50, 1000)}
        means = [bounds[k].mean().item() for k in bounds]
        assert means == sorted(means, reverse=True)
        assert means[0] > exact + 0.1
        assert abs(means[-1] - exact) < 5 * error(bounds[1000]) < 0.03

    @pytest.mark.parametrize("prior", PRIORS)
    @pytest.mark.parametrize("posterior", ["diagonal", "full"])
    def test_is_tighter_than_that_of_one_sample_for_every_prior(self, prior: str, posterior: str) -> None:
        model = vae(prior=prior, posterior=posterior, prior_components=3)
        for part in ("encoder", "decoder"):  # a fresh model's latents say next to nothing
            model.get_parameter(f"vae.{part}.net.layers.1.weight").data.mul_(100)
        images = images_of(BINARY, 1).expand(COPIES, 1, 8, 8)
        one, many = bound(model, images, 1), bound(model, images, 20)
        assert many.mean() < one.mean() - 5 * math.hypot(error(one), error(many))


class TestParts:
    def test_the_size_of_the_parts_changes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model, images = vae(), images_of(BINARY, 6)
        whole = bound(model, images, 23)
        for rows in (1, 7, 12, 60):
            monkeypatch.setattr(latent_variable, "_ROWS_AT_ONCE", rows)
            torch.testing.assert_close(bound(model, images, 23), whole)

    def test_an_image_s_number_depends_on_no_other_image(self) -> None:
        model, images = vae(), images_of(BINARY, 6)
        with torch.no_grad():
            part = model.importance_weighted_nats(images[4:], 9, SampleRng(0, [4, 5]))
        torch.testing.assert_close(part, bound(model, images, 9)[4:])

    def test_the_encoder_runs_once_and_no_part_is_larger_than_allowed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model, images = vae(), images_of(BINARY, 6)
        encoded: list[int] = []
        decoded: list[int] = []
        model.vae.encoder.register_forward_pre_hook(lambda _, inputs: encoded.append(len(inputs[0])))
        model.vae.decoder.register_forward_pre_hook(lambda _, inputs: decoded.append(len(inputs[0])))
        monkeypatch.setitem(NUMBERS_AT_ONCE, "cpu", 64 * 25)
        bound(model, images, 10)
        assert (encoded, decoded) == ([6], [24, 24, 12])

    def test_many_samples_make_a_split_s_batches_small_and_its_numbers_no_other(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A batch of a few seconds, so that the progress bar moves."""
        model = vae(GREY)
        dataset = registry.dataset(DigitsConfig())
        seen: list[int] = []
        evaluate = model.evaluate

        def counted(batch: Batch, **arguments: Any) -> dict[str, Tensor]:
            seen.append(len(batch.images))
            return evaluate(batch, **arguments)

        monkeypatch.setattr(model, "evaluate", counted)
        found = []
        for most, sizes in ((2**15, [10]), (50, [6, 4]), (3, [1] * 10)):
            seen.clear()
            monkeypatch.setattr(numbers, "_SAMPLES_AT_ONCE", most)
            values, _ = values_of_split(
                model, dataset, "test", batch_size=500, seed=0, torch_device=torch.device("cpu"), limit=10,
                quiet=True, importance_samples=8,
            )  # fmt: skip
            assert seen == sizes
            found.append(values["importance_weighted_nats"])
        torch.testing.assert_close(found[1], found[0])
        torch.testing.assert_close(found[2], found[0])


class TestEvaluation:
    @pytest.mark.parametrize("spec", [BINARY, GREY, CONTINUOUS], ids=["binary", "grey", "continuous"])
    def test_adds_it_and_leaves_the_rest_as_it_is(self, spec: DataSpec) -> None:
        model, batch = vae(spec), Batch(images_of(spec, 4), None)
        with torch.no_grad():
            without = model.evaluate(batch, rng=SampleRng(0, range(4)))
            values = model.evaluate(batch, rng=SampleRng(0, range(4)), importance_samples=8)
        assert values.keys() - without.keys() == {
            "importance_weighted_nats",
            "importance_weighted_bits_per_dim",
        }
        assert all(torch.equal(values[name], without[name]) for name in without)
        nats = values["importance_weighted_nats"] + (64 * math.log(17) if spec.dequantized else 0)
        torch.testing.assert_close(values["importance_weighted_bits_per_dim"], nats / 64 / math.log(2))

    def test_the_report_says_how_many_samples_and_how_sure(self) -> None:
        plain = plain_config("vae", steps=2, evaluate_every=0, checkpoint_every=0, sample_every=0)
        plain["model"] |= {"hidden": [8], "latent": 2}
        train.start(plain, [], "run")
        words = ["evaluate", "ckpt=run", "device=cpu", "images=10", "importance_samples=30"]
        genlab(*words, "run_dir=whole")
        genlab(*words, "batch_size=3", "run_dir=parts")
        whole, parts = (read_json(f"{d}/evaluation.json") for d in ("whole", "parts"))
        assert whole["setting"]["importance_weighted_bound"] == "30 posterior samples"
        assert whole["importance_weighted_nats"] < whole["elbo_nats"]
        for name in ("importance_weighted_nats", "importance_weighted_nats_standard_error"):
            assert whole[name] > 0
            assert parts[name] == pytest.approx(whole[name], rel=1e-5)

    @pytest.mark.usefixtures("toy")
    def test_other_families_refuse_in_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        train.start(plain_config("toy"), [], "run")
        capsys.readouterr()
        genlab("evaluate", "ckpt=run", "importance_samples=5", "run_dir=out", code=2)
        (line,) = capsys.readouterr().err.splitlines()
        expected = "genlab: importance_samples=5: toy has no posterior to draw them from; leave"
        assert line == f"{expected} importance_samples out"
        assert not Path("out").exists()
