"""The categorical VAE against exact enumeration of all its latents, and torch.distributions."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import genlab, one_line
from helpers.pictures import drawn, near, originals, pictures
from helpers.runs import plain_config, read_json, untimed_rows
from helpers.vaes import BINARY, COLOUR, CONTINUOUS, GREY, SPECS, Constant, Recorder, images_of
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, kl_divergence

from genlab.commands import train
from genlab.commands.next import after_training
from genlab.config.autoencoders import CategoricalVAEConfig
from genlab.config.schema import from_plain
from genlab.data.spec import Batch, DataSpec
from genlab.distributions.categorical import gumbel_noise, one_hot
from genlab.families.categorical_vae import CategoricalVAE
from genlab.rng import SampleRng
from genlab.runs import checkpoint
from genlab.trained.latent_space import latent_family
from genlab.trained.model import load_model

CPU = torch.device("cpu")
TINY = DataSpec("tiny", 1, 3, 4, levels=2)
COPIES = 1000
"""Of an image, each with a stream of its own: estimates of an expectation."""


def model_of(spec: DataSpec = BINARY, **settings: Any) -> CategoricalVAE:
    torch.manual_seed(0)
    plain = {"hidden": [24], "width": 4, "variables": 4, "classes": 3} | settings
    return CategoricalVAE(from_plain(CategoricalVAEConfig, plain, "model"), spec)


def standard_errors(values: Tensor, expected: Tensor | float) -> Tensor:
    return (values.mean() - expected).abs() / (values.std() / math.sqrt(len(values)))


class TestBounds:
    """Two variables of three classes: all nine latents can be summed over."""

    def model(self) -> tuple[CategoricalVAE, Tensor]:
        """With weights large enough for the latent to count; and an image."""
        model = model_of(TINY, hidden=[8], variables=2, classes=3)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.7)
        return model, images_of(TINY, 1)

    def exact(self, model: CategoricalVAE, image: Tensor) -> tuple[float, float]:
        """-log p(x), and the negative evidence lower bound."""
        every = torch.cartesian_prod(torch.arange(3), torch.arange(3))
        latents = one_hot(every, 3).flatten(1)
        with torch.no_grad():
            logits = model.vae.decoder(latents).double()
            log_q = model.vae.encoder(image).view(2, 3).double().log_softmax(-1)
        likelihood = Bernoulli(logits=logits).log_prob(image.double()).flatten(1).sum(1)
        joint = likelihood - math.log(9)
        posterior = log_q[0, every[:, 0]] + log_q[1, every[:, 1]]
        return -joint.logsumexp(0).item(), -(posterior.exp() * (joint - posterior)).sum().item()

    def test_the_bound_is_the_exact_one_and_lies_above(self) -> None:
        model, image = self.model()
        nll, bound = self.exact(model, image)
        assert bound > nll + 0.1
        batch = Batch(image.expand(COPIES, 1, 3, 4), None)
        with torch.no_grad():
            values = model.evaluate(batch, rng=SampleRng(0, range(COPIES)))
        assert standard_errors(values["elbo_nats"], bound) < 5
        torch.testing.assert_close(values["elbo_nats"], values["reconstruction_nats"] + values["kl_nats"])

    def test_the_importance_weighted_bound_falls_to_the_exact_likelihood(self) -> None:
        model, image = self.model()
        nll, bound = self.exact(model, image)
        images, bounds = image.expand(COPIES, 1, 3, 4), {}
        with torch.no_grad():
            for samples in (1, 3, 10, 100):
                rng = SampleRng(samples, range(COPIES))
                bounds[samples] = model.importance_weighted_nats(images, samples, rng)
        assert standard_errors(bounds[1], bound) < 5
        means = [bounds[samples].mean().item() for samples in bounds]
        assert means == sorted(means, reverse=True)
        assert means[2] < means[0] - 0.05
        # what is left after K samples is var(w) / (2 K p(x)^2) to first order
        bias = (nll - bounds[1].double()).exp().var().item() / 200
        assert abs(means[-1] - nll) < bias + 5 * bounds[100].std().item() / math.sqrt(COPIES)
        assert bias < 0.05

    def test_of_the_true_posterior_every_weight_is_the_likelihood(self) -> None:
        """Each variable has pixels of its own, so that the true posterior has independent variables too."""
        model, image = self.model()
        logits = torch.randn(2, 3, 6)  # of 6 pixels for each class of each variable
        decoder = nn.Linear(6, 12)
        with torch.no_grad():
            decoder.weight.copy_(torch.block_diag(logits[0].T, logits[1].T))
            decoder.bias.zero_()
        scores = Bernoulli(logits=logits).log_prob(image.view(2, 1, 6)).sum(-1)
        model.vae.decoder = nn.Sequential(decoder, nn.Unflatten(1, (1, 3, 4)))
        model.vae.encoder = nn.Sequential(nn.Flatten(), Constant(scores.flatten()))
        nll = math.log(9) - scores.logsumexp(-1).sum().item()
        assert self.exact(model, image) == pytest.approx((nll, nll))
        with torch.no_grad():
            weights = model.importance_weighted_nats(image.expand(50, 1, 3, 4), 1, SampleRng(0, range(50)))
        torch.testing.assert_close(weights, torch.full((50,), nll))

    def test_a_low_temperature_trains_on_the_bound_itself(self) -> None:
        """With samples that are one-hot the loss is an estimate of it; so it is with straight-through."""
        model, image = self.model()
        _, bound = self.exact(model, image)
        noise = gumbel_noise(50, 100, 2, 3, device=CPU)
        for straight_through, temperature in ((False, 1e-3), (True, 1.0)):
            model.vae.straight_through = straight_through  # type: ignore[assignment]
            with torch.no_grad():
                images = image.expand(100, 1, 3, 4)
                losses = torch.stack([model.objective(images, part, 1.0, temperature)[0] for part in noise])
            assert standard_errors(losses, bound) < 5


class TestLoss:
    @pytest.mark.parametrize("straight_through", [False, True])
    def test_is_the_formula(self, straight_through: bool) -> None:
        model, images = model_of(straight_through=straight_through), images_of(BINARY, 7)
        noise = gumbel_noise(7, 4, 3, device=CPU)
        logits = model.vae.encoder(images).view(7, 4, 3)
        if straight_through:
            latents = one_hot((logits.log_softmax(-1) + noise).argmax(-1), 3)
        else:
            latents = ((logits.log_softmax(-1) + noise) / 0.7).softmax(-1)
        likelihood = Bernoulli(logits=model.vae.decoder(latents.flatten(1))).log_prob(images)
        even = Categorical(logits=torch.zeros(7, 4, 3))
        reconstruction = -likelihood.flatten(1).sum(1).mean()
        kl = kl_divergence(Categorical(logits=logits), even).sum(1).mean()
        for weight in (0.0, 0.5, 2.0):
            loss, metrics = model.objective(images, noise, weight, 0.7)
            torch.testing.assert_close(loss, reconstruction + weight * kl)
            kind = "" if straight_through else "relaxed_"
            torch.testing.assert_close(metrics[f"{kind}negative_elbo_nats"], reconstruction + kl)
            torch.testing.assert_close(metrics[f"{kind}reconstruction_nats"], reconstruction)
            torch.testing.assert_close(metrics["kl_nats"], kl)
            assert metrics["temperature"].item() == pytest.approx(0.7)

    @pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name + str(spec.levels))
    def test_gradients_flow_through_the_relaxed_latent(self, spec: DataSpec) -> None:
        """Against finite differences along random directions of the encoder's weights, at fixed noise."""
        model, images = model_of(spec), images_of(spec, 6)
        for layers in (model.vae.encoder.net.layers, model.vae.decoder.net.layers):  # type: ignore[union-attr]
            layers[-1].weight.data.mul_(100)  # type: ignore[index, operator]  # a fresh one's signal is too small
        noise = gumbel_noise(6, 4, 3, device=CPU)
        parameters = list(model.vae.encoder.parameters())

        def value() -> Tensor:
            return model.objective(images, noise, 0.0, 0.8)[0]

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

    @pytest.mark.parametrize(
        ("step", "weight", "temperature"),
        [(0, 0.0, 2.0), (25, 1.5, 2**0.5), (50, 3.0, 1.0), (75, 3.0, 0.5**0.5)],
    )
    def test_follows_progress(self, step: int, weight: float, temperature: float) -> None:
        model = model_of(beta=3.0, kl_warmup=0.5, start_temperature=2.0, final_temperature=0.5)
        metrics = model.step(iter([Batch(images_of(BINARY, 4), None)]), Recorder(step))
        assert metrics["temperature"].item() == pytest.approx(temperature)
        expected = metrics["relaxed_reconstruction_nats"] + weight * metrics["kl_nats"]
        torch.testing.assert_close(metrics["loss"], expected)

    def test_every_weight_learns_straight_through(self) -> None:
        model = model_of(straight_through=True)
        model.loss(images_of(BINARY, 6), 1.0, 0.5)[0].backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name

    def test_a_pass_is_one_graph_for_the_compiler_at_every_temperature(self) -> None:
        model, images = model_of(), images_of(BINARY, 2)
        noise, graphs = gumbel_noise(2, 4, 3, device=CPU), []

        def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
            graphs.append(graph)
            return graph.forward

        compiled = torch.compile(model.vae, backend=backend, fullgraph=True)
        for temperature in (1.0, 0.9, 0.8):
            given = (images, noise, torch.full((), temperature))
            for a, b in zip(compiled(*given), model.vae(*given), strict=True):
                torch.testing.assert_close(a, b)
        assert len(graphs) == 1

    @pytest.mark.parametrize("network", ["mlp", "conv"])
    def test_under_bf16_both_terms_stay_in_float32(self, network: str) -> None:
        model, images = model_of(COLOUR, network=network), images_of(COLOUR, 8)
        noise = gumbel_noise(8, 4, 3, device=CPU)
        with torch.autocast("cpu", torch.bfloat16):
            rough, metrics = model.objective(images, noise, 1.0, 0.7)
        exact, _ = model.objective(images, noise, 1.0, 0.7)
        assert rough.dtype == metrics["kl_nats"].dtype == torch.float32
        torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.2)
        assert not torch.equal(rough, exact)  # the network did run in bf16


class TestEvaluation:
    @pytest.mark.parametrize("spec", [BINARY, GREY, CONTINUOUS], ids=["binary", "grey", "continuous"])
    def test_an_image_s_numbers_depend_on_no_other_image(self, spec: DataSpec) -> None:
        model, images = model_of(spec), images_of(spec, 6)
        with torch.no_grad():
            whole = model.evaluate(Batch(images, None), rng=SampleRng(4, range(6)), importance_samples=3)
            part = model.evaluate(Batch(images[4:], None), rng=SampleRng(4, [4, 5]), importance_samples=3)
        assert {"elbo_nats", "elbo_bits_per_dim", "importance_weighted_nats"} <= whole.keys()
        for name, value in part.items():
            torch.testing.assert_close(whole[name][4:], value)

    def test_of_the_variables_by_hand(self) -> None:
        """One is the same for all images, one tells two halves apart, one is nearly even."""
        model = model_of(variables=3, classes=2)
        of_half = torch.tensor(
            [[[1.0, 0.0], [1.0, 0.0], [0.53, 0.47]], [[1.0, 0.0], [0.0, 1.0], [0.47, 0.53]]]
        )
        numbers = model.summarize({"posterior_mean": of_half.repeat(50, 1, 1).flatten(1)})
        # the last one's variance is 2 * 0.03^2 = 0.0018, under 0.01
        assert numbers["active_variables"] == 1
        assert numbers["class_perplexity"] == pytest.approx((1 + 2 + 2) / 3)
        assert numbers["class_usage"] == pytest.approx(5 / 6)
        assert model.summarize({"posterior_mean": of_half[:1].flatten(1)}) == {}

    def test_says_what_it_is_of(self) -> None:
        setting = model_of().facts()
        assert setting["bound"] == "negative ELBO, 1 posterior sample"
        assert setting["latents"] == "4 variables of 3 classes, one-hot"


class TestLatents:
    def test_a_code_is_the_posterior_s_probabilities(self) -> None:
        model, images = model_of(), images_of(BINARY, 5)
        codes = model.encode(images)
        torch.testing.assert_close(codes.view(5, 4, 3), model.vae.encoder(images).view(5, 4, 3).softmax(-1))

    @pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name + str(spec.levels))
    def test_a_sample_is_a_decoded_one_hot_latent_and_depends_on_its_stream_alone(
        self, spec: DataSpec
    ) -> None:
        model = model_of(spec).eval()
        with torch.no_grad():
            latents = model.prior_latents(SampleRng(5, range(6)))
            images = model.sample(6, rng=SampleRng(5, range(6)))
            torch.testing.assert_close(model.decode(latents), images)
            torch.testing.assert_close(images[3:4], model.sample(1, rng=SampleRng(5, [3])))
        assert (latents.view(6, 4, 3).sum(-1) == 1).all()
        assert (model.latent_prior, model.latent_classes) == ("categorical", 3)


def test_a_walk_around_an_image_is_offered_where_there_are_images() -> None:
    ring = DataSpec("ring", 2, 1, 1, levels=0, kind="points")
    assert "genlab traverse ckpt=run around=image" in after_training(model_of(), Path("run"))
    assert not any("traverse" in line for line in after_training(model_of(ring), Path("run")))


@pytest.mark.parametrize("straight_through", [False, True])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(straight_through: bool) -> None:
    plain = plain_config("categorical_vae", steps=6, checkpoint_every=3, log_every=1, evaluate_every=6)
    plain["model"] |= {"hidden": [8], "variables": 3, "classes": 4, "straight_through": straight_through}
    train.start(plain, [], "whole")
    shutil.copytree("whole", "cut")
    Path("cut/checkpoints/step-00000006.pt").unlink()
    train.resume("cut", None, [])
    whole, cut = (checkpoint.find(Path(run))[1] for run in ("whole", "cut"))
    assert all(torch.equal(whole["weights"][key], cut["weights"][key]) for key in whole["weights"])
    rows = [untimed_rows(run) for run in ("whole", "cut")]
    assert rows[0] == rows[1]
    temperatures = [row["temperature"] for row in rows[0] if "temperature" in row]
    assert temperatures == pytest.approx([0.5 ** (k / 6) for k in range(6)])


@pytest.fixture(scope="module")
def run(trained_run: Callable[..., str]) -> str:
    return trained_run("categorical_vae", hidden=[8], variables=3, classes=4)


class TestCommands:
    def test_a_walk_shows_every_class_of_a_variable(self, run: str) -> None:
        genlab("traverse", f"ckpt={run}", "around=image", "number=2", "dimensions=[2,0]", "run_dir=out")
        family = latent_family(load_model(run, "auto", CPU))
        with torch.no_grad():
            code = family.encode(originals(run, 3))[2]
        latents = code.repeat(8, 1)
        latents[:4, 8:], latents[4:, :4] = torch.eye(4), torch.eye(4)
        assert near(pictures("out", 2, 4).reshape(8, 8, 8), drawn(run, latents))
        facts = read_json("out/traversal.json")
        assert facts["images"][5] == {"file": "images/00001-01.png", "row": "variable 0", "class": 1}
        assert "range" not in facts

    def test_a_way_between_images_mixes_their_probabilities(self, run: str) -> None:
        genlab("interpolate", f"ckpt={run}", "between=images", "n=1", "steps=3", "run_dir=out")
        family = latent_family(load_model(run, "auto", CPU))
        with torch.no_grad():
            one, other = family.encode(originals(run, 2))
        latents = torch.stack([one, (one + other) / 2, other])
        assert near(pictures("out", 1, 3)[0], drawn(run, latents))
        genlab("interpolate", f"ckpt={run}", "n=1", "steps=2", "run_dir=samples")
        genlab("reconstruct", f"ckpt={run}", "count=2", "run_dir=restored")

    def test_a_fitted_prior_draws_the_likeliest_classes(
        self, run: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[Tensor] = []
        decode = CategoricalVAE.decode

        def recorded(self: CategoricalVAE, latents: Tensor, labels: Tensor | None = None) -> Tensor:
            seen.append(latents)
            return decode(self, latents, labels)

        monkeypatch.setattr(CategoricalVAE, "decode", recorded)
        genlab("sample", f"ckpt={run}", "prior=fit", "components=1", "n=6", "run_dir=fitted")
        latents = torch.cat(seen).unflatten(1, (-1, 4))
        assert latents.shape[0] == 6
        assert torch.equal(latents.sum(2), torch.ones_like(latents[:, :, 0]))
        assert set(latents.unique().tolist()) == {0.0, 1.0}  # one-hot
        assert len(list(Path("fitted/images").iterdir())) == 6

    @pytest.mark.parametrize(
        ("words", "line"),
        [
            ("traverse direction=[3,8]", "direction=[3, 8]: the latents of categorical_vae are classes, "),
            ("traverse dimensions=[3]", "dimensions=[3]: the latent has dimensions 0 to 2"),
            (
                "interpolate path=spherical",
                "path=spherical: the latents of categorical_vae are probabilities, ",
            ),
        ],
    )
    def test_what_has_no_meaning_is_refused_in_a_line(
        self, run: str, words: str, line: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        verb, *rest = words.split()
        assert one_line(capsys, verb, f"ckpt={run}", *rest).startswith(f"genlab: {line}")

    @pytest.mark.parametrize(
        ("word", "line"),
        [
            ("model.classes=1", "model.classes=1: must be at least 2"),
            ("model.final_temperature=0", "model.final_temperature=0.0: must be above 0"),
            ("model.latent=8", "model.latent: unknown key for categorical_vae"),
            ("model.prior=laplace", "model.prior: unknown key for categorical_vae"),
        ],
    )
    def test_a_mistake_in_a_setting_gives_one_line(
        self, word: str, line: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        genlab("train", "model=categorical_vae", word, "run_dir=run", code=2)
        (said,) = capsys.readouterr().err.splitlines()
        assert line in said
        assert not Path("run").exists()
