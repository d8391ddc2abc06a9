"""The VAE with labels: its bound against torch.distributions, what the label does, Bayes' rule by hand."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.command_line import genlab, one_line
from helpers.pictures import drawn, near, picture, pictures, write_picture
from helpers.runs import plain_config, read_json
from helpers.vaes import Recorder, images_of
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence

from genlab import registry
from genlab.commands import train
from genlab.commands.next import after_training
from genlab.config.autoencoders import ConditionalVAEConfig
from genlab.config.schema import from_plain
from genlab.data.spec import Batch, DataSpec
from genlab.errors import ConfigError
from genlab.families.conditional_vae import ConditionalVAE
from genlab.nets.autoencoder import beside_labels
from genlab.report.pictures import to_uint8
from genlab.rng import SampleRng
from genlab.runs import checkpoint
from genlab.trained import fitted_prior
from genlab.trained.latent_space import latent_family
from genlab.trained.model import load_model

CPU = torch.device("cpu")
BINARY = DataSpec("mnist", 1, 8, 8, levels=2, classes=4)
COLOUR = DataSpec("cifar10", 3, 12, 10, classes=10)


def model_of(spec: DataSpec = BINARY, **settings: Any) -> ConditionalVAE:
    torch.manual_seed(0)
    plain = {"hidden": [24], "latent": 5, "width": 4} | settings
    return ConditionalVAE(from_plain(ConditionalVAEConfig, plain, "model"), spec)


def batch_of(spec: DataSpec, n: int) -> Batch:
    return Batch(images_of(spec, n), torch.arange(n) % spec.classes)


def test_labels_stand_beside_vectors_and_as_planes_behind_maps() -> None:
    labels = torch.tensor([2, 0])
    vectors = beside_labels(torch.tensor([[5.0], [6.0]]), labels, 3)
    assert vectors.tolist() == [[5, 0, 0, 1], [6, 1, 0, 0]]
    maps = beside_labels(torch.full((2, 1, 2, 3), 7.0), labels, 3)
    assert maps.shape == (2, 4, 2, 3)
    assert (maps == vectors.where(vectors < 2, 7.0)[..., None, None]).all()
    assert beside_labels(vectors, None, 0) is vectors
    with pytest.raises(ValueError, match="needs labels"):
        beside_labels(vectors, None, 3)


class TestNetworks:
    @pytest.mark.parametrize("network", ["mlp", "conv"])
    def test_the_label_changes_posterior_and_image(self, network: str) -> None:
        model = model_of(COLOUR, network=network)
        images, latents = images_of(COLOUR, 1).expand(10, 3, 12, 10), torch.randn(1, 5).expand(10, 5)
        labels = torch.arange(10)
        with torch.no_grad():
            for outputs in (model.vae.encode(images, labels).mean, model.vae.decode(latents, labels)):
                distances = torch.pdist(outputs.flatten(1))
                assert distances.min() > 1e-3 * outputs.std()

    @pytest.mark.parametrize("network", ["mlp", "conv"])
    def test_gradients_reach_the_weights_of_the_labels_that_are_there(self, network: str) -> None:
        model = model_of(network=network)
        model.loss(images_of(BINARY, 6), 1.0, torch.tensor([1, 3, 1, 3, 1, 3]))[0].backward()
        if network == "mlp":
            first, into = model.vae.encoder.net.layers[0], model.vae.decoder.net.layers[0]  # type: ignore[union-attr]
        else:
            first, into = model.vae.encoder.convolutions[0], model.vae.decoder.into  # type: ignore[union-attr]
        for layer in (first, into):
            of_classes = layer.weight.grad[:, -4:].transpose(0, 1).flatten(1)  # type: ignore[union-attr]
            assert of_classes.any(1).tolist() == [False, True, False, True]

    def test_without_labels_the_networks_are_those_of_the_vae(self) -> None:
        assert model_of(network="conv").vae.encoder.convolutions[0].in_channels == 5  # type: ignore[union-attr]
        assert model_of().vae.decoder.net.layers[0].in_features == 9  # type: ignore[union-attr]

    def test_a_pass_is_one_graph_for_the_compiler(self) -> None:
        model, (images, labels, _) = model_of(network="conv"), batch_of(BINARY, 4)
        noise = torch.randn(4, 5)
        compiled = torch.compile(model.vae, backend="eager", fullgraph=True)
        found = zip(compiled(images, noise, labels), model.vae(images, noise, labels), strict=True)
        for a, b in found:
            torch.testing.assert_close(a, b)


class TestLoss:
    def written_out(self, model: ConditionalVAE, batch: Batch, noise: Tensor) -> tuple[Tensor, Tensor]:
        """-log p(x | y, z) and KL(q(z | x, y) || p(z)) by torch, (B,) each."""
        assert batch.labels is not None
        one_hot = F.one_hot(batch.labels, 4).float()
        encoder, decoder = model.vae.encoder.net, model.vae.decoder.net
        numbers = encoder(torch.cat([batch.images.flatten(1), one_hot], 1))  # type: ignore[operator]
        mean, log_variance = numbers.chunk(2, 1)
        posterior = Normal(mean, (log_variance / 2).exp())
        logits = decoder(torch.cat([mean + posterior.scale * noise, one_hot], 1))  # type: ignore[operator]
        likelihood = Bernoulli(logits=logits).log_prob(batch.images.flatten(1)).sum(1)
        kl = kl_divergence(posterior, Normal(torch.zeros(5), torch.ones(5))).sum(1)
        return -likelihood, kl

    def test_is_the_formula_and_weighs_the_kl_alone(self) -> None:
        model, batch = model_of(), batch_of(BINARY, 7)
        torch.manual_seed(3)
        reconstruction, kl = self.written_out(model, batch, torch.randn(7, 5))
        for weight in (0.0, 0.3, 1.0):
            torch.manual_seed(3)
            loss, metrics = model.loss(batch.images, weight, batch.labels)
            torch.testing.assert_close(loss, (reconstruction + weight * kl).mean())
            torch.testing.assert_close(metrics["negative_elbo_nats"], (reconstruction + kl).mean())

    def test_a_step_gives_the_batch_s_labels(self) -> None:
        model, batch = model_of(beta=3.0, kl_warmup=0.5), batch_of(BINARY, 4)
        metrics = model.step(iter([batch]), Recorder(25))
        torch.manual_seed(0)
        loss, _ = model.loss(batch.images, 1.5, batch.labels)
        assert torch.equal(metrics["loss"], loss)

    def test_evaluation_is_of_the_true_label(self) -> None:
        model, batch = model_of(), batch_of(BINARY, 8)
        with torch.no_grad():
            values = model.evaluate(batch, rng=SampleRng(2, range(8)), importance_samples=3)
            rng = SampleRng(2, range(8))
            rng.normal(5)  # of the bounds of all classes
            reconstruction, kl = self.written_out(model, batch, rng.normal(5))
            assert batch.labels is not None
            other = Batch(batch.images, batch.labels.roll(1))
            others = model.evaluate(other, rng=SampleRng(2, range(8)), importance_samples=3)
        torch.testing.assert_close(values["elbo_nats"], reconstruction + kl)
        assert (values["elbo_nats"] != others["elbo_nats"]).all()
        assert (values["importance_weighted_nats"] != others["importance_weighted_nats"]).all()
        assert torch.equal(values["unlabelled_nats"], others["unlabelled_nats"])
        assert "log p(x | label)" in model.facts()["bound"]

    @pytest.mark.parametrize("prior", ["standard_normal", "uniform", "laplace", "mixture"])
    def test_every_prior_trains(self, prior: str) -> None:
        model, batch = model_of(prior=prior, prior_components=3), batch_of(BINARY, 8)
        model.loss(batch.images, 1.0, batch.labels)[0].backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name


class TestBayesRule:
    def test_by_hand(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = model_of()
        evidence = torch.tensor([[0.1, 0.3, 0.2, 0.4], [0.7, 0.1, 0.1, 0.1]]).log() - 40
        monkeypatch.setattr(model, "log_evidence", lambda images, noise: evidence)
        images = images_of(BINARY, 2)
        values = model.evaluate(Batch(images, torch.tensor([1, 0])), rng=SampleRng(0, range(2)))
        assert values["label_accuracy"].tolist() == [0, 1]
        assert values["unlabelled_nats"].tolist() == pytest.approx([40 + math.log(4)] * 2)
        bits = (40 + math.log(4)) / 64 / math.log(2)
        assert values["unlabelled_bits_per_dim"].tolist() == pytest.approx([bits] * 2)
        assert model.infer_labels(images, rng=SampleRng(0, range(2))).tolist() == [3, 0]

    def test_the_evidence_of_a_class_is_the_weight_of_its_latent(self) -> None:
        model, images, noise = model_of(), images_of(BINARY, 3), torch.randn(3, 5)
        with torch.no_grad():
            found = model.log_evidence(images, noise)
            for label in range(4):
                labels = torch.full((3,), label)
                posterior = model.vae.encode(images, labels)
                latents = posterior.sample(noise)
                likelihood = Bernoulli(logits=model.vae.decode(latents, labels)).log_prob(images)
                prior = Normal(0.0, 1.0).log_prob(latents).sum(1)
                inferred = Normal(posterior.mean, (posterior.spread / 2).exp()).log_prob(latents).sum(1)
                expected = likelihood.flatten(1).sum(1) + prior - inferred
                torch.testing.assert_close(found[:, label], expected)

    def test_the_bound_without_a_label_lies_above_the_likelihood(self) -> None:
        """-log p(x) of an even mixture of the classes, each by 3,000 importance samples."""
        model, copies = model_of(latent=2), 500
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.25)
            image = images_of(BINARY, 1)
            rng = SampleRng(1, range(4))
            of_classes = model.importance_weighted_nats(image.expand(4, 1, 8, 8), 3000, rng, torch.arange(4))
            exact = math.log(4) - (-of_classes).logsumexp(0).item()
            batch = Batch(image.expand(copies, 1, 8, 8), torch.zeros(copies, dtype=torch.long))
            bound = model.evaluate(batch, rng=SampleRng(0, range(copies)))["unlabelled_nats"]
        error = bound.std().item() / math.sqrt(copies)
        assert bound.mean() > exact + 5 * error
        weights = (exact - bound.double()).exp()  # whose mean is 1, for p(x | y) without bias
        assert abs(weights.mean() - 1) < 5 * weights.std() / math.sqrt(copies)

    def test_an_image_s_numbers_depend_on_no_other_image(self) -> None:
        model, batch = model_of(), batch_of(BINARY, 6)
        assert batch.labels is not None
        with torch.no_grad():
            whole = model.evaluate(batch, rng=SampleRng(4, range(6)), importance_samples=3)
            part = model.evaluate(
                Batch(batch.images[4:], batch.labels[4:]), rng=SampleRng(4, [4, 5]), importance_samples=3
            )
        for name, value in part.items():
            torch.testing.assert_close(whole[name][4:], value)


class TestSamplesAndPictures:
    def test_a_sample_is_its_latent_s_with_the_label_that_was_asked_for(self) -> None:
        model, labels = model_of().eval(), torch.tensor([3, 3, 1, 0])
        with torch.no_grad():
            images = model.sample(4, rng=SampleRng(5, range(4)), labels=labels)
            latents = model.prior_latents(SampleRng(5, range(4)))
            torch.testing.assert_close(images, model.decode(latents, labels))
            one = model.sample(1, rng=SampleRng(5, [1]), labels=labels[1:2])
            torch.testing.assert_close(images[1:2], one)
            other = model.sample(4, rng=SampleRng(5, range(4)), labels=labels.flip(0))
        assert not torch.allclose(images, other)

    def test_labels_are_drawn_evenly_where_none_are_given(self) -> None:
        model = model_of().eval()
        with torch.no_grad():
            rng = SampleRng(5, range(8))
            latents, labels = rng.normal(5), rng.integers(4)
            expected = model.decode(latents, labels)
            torch.testing.assert_close(model.sample(8, rng=SampleRng(5, range(8))), expected)
        assert len(labels.unique()) > 1

    def test_analogies_are_an_image_and_its_latent_with_every_label(self) -> None:
        model, batch = model_of(), batch_of(BINARY, 12)
        assert batch.labels is not None
        with torch.no_grad():
            sheets = model.pictures(batch, rng=SampleRng(0, range(12)))
            codes = model.encode(batch.images, batch.labels)
        assert sheets["reconstructions"].shape == (2, 10, 1, 8, 8)
        sheet = sheets["analogies"]
        assert sheet.shape == (10, 5, 1, 8, 8)
        assert torch.equal(sheet[:, 0], batch.images[:10])
        for label in range(4):
            expected = model.decode(codes[:10], torch.full((10,), label))
            torch.testing.assert_close(sheet[:, 1 + label], expected)

    def test_analogies_of_a_thousand_classes_are_of_the_first_thirty(self) -> None:
        spec = DataSpec("stacked_mnist", 1, 8, 8, levels=2, classes=1000)
        with torch.no_grad():
            sheets = model_of(spec).pictures(batch_of(spec, 3), rng=SampleRng(0, range(3)))
        assert sheets["analogies"].shape == (3, 31, 1, 8, 8)


def test_reconstructions_are_offered_where_there_are_images() -> None:
    ring = DataSpec("ring", 2, 1, 1, levels=0, classes=8, kind="points")
    assert "genlab reconstruct ckpt=run" in after_training(model_of(), Path("run"))
    assert not any("reconstruct" in line for line in after_training(model_of(ring), Path("run")))


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit() -> None:
    plain = plain_config("conditional_vae", steps=6, checkpoint_every=3, log_every=1, evaluate_every=6)
    plain["model"] |= {"hidden": [8], "latent": 3}
    train.start(plain, [], "whole")
    shutil.copytree("whole", "cut")
    Path("cut/checkpoints/step-00000006.pt").unlink()
    train.resume("cut", None, [])
    whole, cut = (checkpoint.find(Path(run))[1] for run in ("whole", "cut"))
    assert all(torch.equal(whole["weights"][key], cut["weights"][key]) for key in whole["weights"])
    assert Path("whole/samples/analogies.png").read_bytes() == Path("cut/samples/analogies.png").read_bytes()


# The commands


@pytest.fixture(scope="module")
def run(trained_run: Callable[..., str]) -> str:
    return trained_run("conditional_vae", hidden=[8], latent=2)


def of_dataset(run: str, split: str, count: int) -> tuple[Tensor, Tensor]:
    dataset = registry.dataset(load_model(run, "auto", CPU).config.dataset)
    _, batch = dataset.examples(split, count, 0)
    assert batch.labels is not None
    return batch.images, batch.labels


def encoded(run: str, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return latent_family(load_model(run, "auto", CPU)).encode(images, labels)


def rows_of(folder: str, verb: str) -> Any:
    return read_json(folder, f"{verb}.json")


def test_samples_of_the_classes_asked_for(run: str) -> None:
    genlab("sample", f"ckpt={run}", "n=6", "labels=[3,3,7]", "seed=4", "run_dir=out")
    expected = drawn(run, SampleRng(4, range(6)).normal(2), torch.tensor([3, 3, 7, 3, 3, 7]))
    for k in range(6):
        assert near(picture(f"out/images/{k:05d}.png"), expected[k])


def test_a_reconstruction_has_its_image_s_class(run: str) -> None:
    genlab("reconstruct", f"ckpt={run}", "count=5", "batch_size=2", "run_dir=out")
    images, labels = of_dataset(run, "test", 5)
    expected = drawn(run, encoded(run, images, labels), labels)
    for k in range(5):
        assert near(picture(f"out/images/{k:05d}.png"), expected[k])
    rows = rows_of("out", "reconstructions")["reconstructions"]
    assert [row["label"] for row in rows] == labels.tolist()


def test_one_s_own_pictures_get_the_likeliest_class(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    images, _ = of_dataset(run, "test", 3)
    for k, image in enumerate(to_uint8(images)):
        write_picture(f"mine/{k}.png", image[0].numpy())
    genlab("reconstruct", f"ckpt={run}", "images=mine", "batch_size=2", "seed=1", "run_dir=out")
    assert (
        "no labels: each image gets the class with the greatest likelihood bound" in capsys.readouterr().err
    )
    family = latent_family(load_model(run, "auto", CPU))
    with torch.no_grad():
        labels = family.infer_labels(images, rng=SampleRng(1, range(3), purpose="label"))
    rows = rows_of("out", "reconstructions")["reconstructions"]
    assert [row["label"] for row in rows] == labels.tolist()
    expected = drawn(run, encoded(run, images, labels), labels)
    assert all(near(picture(f"out/images/{k:05d}.png"), expected[k]) for k in range(3))


def test_on_the_way_between_images_the_class_is_the_nearer_end_s(run: str) -> None:
    words = ["interpolate", f"ckpt={run}", "between=images", "n=1", "steps=4"]
    genlab(*words, "run_dir=out")
    genlab(*words, "labels=[6]", "run_dir=given")
    images, labels = of_dataset(run, "test", 2)
    assert labels[0] != labels[1]
    one, other = encoded(run, images, labels)
    path = torch.stack([one + (other - one) * share for share in (0, 1 / 3, 2 / 3, 1)])
    assert near(pictures("out", 1, 4)[0], drawn(run, path, labels.repeat_interleave(2)))
    assert rows_of("out", "interpolations")["pairs"][0]["labels"] == labels.repeat_interleave(2).tolist()
    assert near(pictures("given", 1, 4)[0], drawn(run, path, torch.full((4,), 6)))
    assert rows_of("given", "interpolations")["pairs"][0]["label"] == 6


def test_a_walk_around_an_image_keeps_its_class_unless_told(run: str) -> None:
    words = ["traverse", f"ckpt={run}", "around=image", "number=2", "dimensions=[1]", "steps=2", "range=1"]
    genlab(*words, "run_dir=out")
    genlab(*words, "label=3", "run_dir=told")
    images, labels = of_dataset(run, "test", 3)
    latents = encoded(run, images, labels)[2].repeat(2, 1)
    latents[:, 1] = torch.tensor([-1.0, 1.0])
    assert near(pictures("out", 1, 2)[0], drawn(run, latents, labels[2].repeat(2)))
    assert rows_of("out", "traversal")["label"] == labels[2]
    assert near(pictures("told", 1, 2)[0], drawn(run, latents, torch.tensor([3, 3])))


def test_a_fitted_prior_is_of_codes_with_their_labels(run: str) -> None:
    words = ["sample", f"ckpt={run}", "prior=fit", "components=1", "n=4"]
    genlab(*words, "labels=[3,7]", "run_dir=out")
    codes = encoded(run, *of_dataset(run, "train", 1197))
    rng = SampleRng(0, range(4))
    latents = fitted_prior.fit(codes, 1, 0).draw(rng)
    expected = drawn(run, latents, torch.tensor([3, 7, 3, 7]))
    for k in range(4):
        assert np.abs(picture(f"out/images/{k:05d}.png").astype(int) - expected[k]).max() <= 2
    genlab(*words, "run_dir=drawn")
    expected = drawn(run, latents, rng.integers(10))
    for k in range(4):
        assert np.abs(picture(f"drawn/images/{k:05d}.png").astype(int) - expected[k]).max() <= 2


def test_denoising_takes_the_dataset_s_labels(run: str) -> None:
    genlab("denoise", f"ckpt={run}", "noise=masking", "level=0.0", "count=3", "run_dir=out")
    images, labels = of_dataset(run, "test", 3)
    expected = drawn(run, encoded(run, images, labels), labels)
    assert all(near(picture(f"out/images/{k:05d}.png"), expected[k]) for k in range(3))


def test_the_report_says_that_the_bound_is_given_the_label(run: str) -> None:
    genlab("evaluate", f"ckpt={run}", "images=20", "importance_samples=5", "run_dir=out")
    report = read_json("out/evaluation.json")
    assert "log p(x | label)" in report["setting"]["bound"]
    assert 0 <= report["label_accuracy"] <= 1
    error = report["elbo_nats_standard_error"]  # after two steps all samples weigh about the same
    assert report["importance_weighted_nats"] == pytest.approx(report["elbo_nats"], abs=error)
    assert Path("out/analogies.png").is_file()


def test_a_dataset_without_labels_is_refused_in_a_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    images = {f"{split}_images": rng.integers(0, 256, (20, 8, 8), np.uint8) for split in ("train", "test")}
    np.savez(tmp_path / "mine.npz", allow_pickle=False, **images)
    words = ["train", "model=conditional_vae", "dataset=npz", f"dataset.path={tmp_path}/mine.npz"]
    genlab(*words, "trainer.device=cpu", "run_dir=run", code=2)
    (line,) = capsys.readouterr().err.splitlines()
    remedy = "add an array of labels to the file, or use model=vae"
    assert line == f"genlab: model=conditional_vae: npz has no labels; {remedy}"
    assert not Path("run").exists()


def test_a_single_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="model=conditional_vae: npz has a single class; use model=vae"):
        model_of(DataSpec("npz", 1, 8, 8, classes=1))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("sample labels=[10]", "labels=[10]: digits has classes 0 to 9"),
        ("sample labels=[]", "labels=[]: give at least one class"),
        ("traverse label=10", "label=10: digits has classes 0 to 9"),
    ],
)
def test_a_class_that_there_is_not_gives_a_line(
    run: str, words: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *rest = words.split()
    assert one_line(capsys, verb, f"ckpt={run}", *rest).startswith(f"genlab: {line}")


def test_a_prior_that_needs_images_without_labels_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    genlab("train", "model=conditional_vae", "model.prior=vampprior", "run_dir=run", code=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("genlab: model.prior=vampprior: not one of standard_normal, uniform, laplace, ")
