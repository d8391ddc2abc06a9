"""The GAN: its algorithm box, who is changed by what, its health, its refusals; runs of every game resume."""

from __future__ import annotations

import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import genlab
from helpers.games import ALL, COLOUR, DIGITS, MNIST, POINTS, Recorder, batches, make, snapshot
from helpers.runs import assert_same, assert_same_run, metric_rows, plain_config
from torch import Tensor

from genlab.adversarial import health, losses
from genlab.commands import train
from genlab.config.adversarial import GANConfig, GANLoss
from genlab.config.run import PlayerOptimizerConfig, SGDConfig
from genlab.config.schema import from_plain
from genlab.data.spec import Batch, DataSpec
from genlab.errors import ConfigError, Interrupted
from genlab.rng import SampleRng
from genlab.runs import checkpoint
from genlab.training.update import Update

NETWORKS: list[tuple[DataSpec, dict[str, Any]]] = [
    (POINTS, {}),
    (DIGITS, {"network": "mlp", "normalization": "layer"}),
    (DIGITS, {"spectral_norm": True}),
    (MNIST, {}),
    (MNIST, {"spectral_norm": True, "minibatch_std": True}),
    (COLOUR, {"network": "resnet"}),
]


def describe(value: Any) -> str | None:
    if isinstance(value, DataSpec):
        return value.name
    return "-".join(map(str, value.items())) or "default" if isinstance(value, dict) else None


class TestAlgorithm:
    @pytest.mark.parametrize(
        ("name", "settings", "steps"),
        [
            ("gan", {}, 1),
            ("gan", {"discriminator_steps": 3}, 3),
            ("unrolled_gan", {"discriminator_steps": 2, "unrolled_steps": 0}, 2),
            ("acgan", {"discriminator_steps": 2}, 2),
            ("wgan", {}, 5),
            ("wgan_gp", {"critic_steps": 4}, 4),
        ],
    )
    def test_opponents_steps_each_on_a_new_batch_then_one_of_the_generator(
        self, name: str, settings: dict[str, Any], steps: int
    ) -> None:
        family, _ = make(name, DIGITS, **settings)
        update, seen = Recorder(), []

        def stream() -> Any:
            for batch in batches(DIGITS):
                seen.append(batch)
                yield batch

        data = stream()
        for _ in range(2):
            family.step(data, update)
        opponent = family.players[0]
        assert [player for player, _ in update.calls] == 2 * ([opponent] * steps + ["generator"])
        shown = [tensors[0] for player, tensors in update.calls if player == opponent]
        assert len(seen) == 2 * steps
        assert all(torch.equal(a, b.images) for a, b in zip(shown, seen, strict=True))
        latents = torch.stack([tensors[1] for _, tensors in update.calls])
        assert len(latents.flatten(1).unique(dim=0)) == 2 * (steps + 1)  # new ones for every update

    def test_labels_of_the_data_and_new_ones_for_samples(self) -> None:
        family, _ = make("acgan", DIGITS)
        update, batch = Recorder(), Batch(torch.rand(500, 1, 8, 8), torch.randint(10, (500,)))
        family.step(iter([batch]), update)
        for _, (_, _, labels, drawn) in update.calls:
            assert labels is batch.labels
            assert set(drawn.tolist()) == set(range(10))
            assert 0.05 < (drawn == labels).float().mean() < 0.2
        assert not torch.equal(update.calls[0][1][3], update.calls[1][1][3])

    @pytest.mark.parametrize(("prior", "scale"), [("uniform", 1 / math.sqrt(3)), ("normal", 1.0)])
    def test_prior_of_the_latent(self, prior: str, scale: float) -> None:
        family, _ = make(prior=prior, latent=50)
        update = Recorder()
        family.step(batches(n=1000), update)
        seen: list[Tensor] = []
        family.generator.forward = lambda latents, labels=None: (
            seen.append(latents) or torch.zeros(1000, 2, 1, 1)
        )
        family.sample(1000, rng=SampleRng(0, range(1000)))
        for latents in (update.calls[0][1][1], update.calls[1][1][1], seen[0]):
            assert latents.mean().item() == pytest.approx(0, abs=0.02)
            assert latents.std().item() == pytest.approx(scale, rel=0.02)
            if prior == "uniform":
                assert -1 <= latents.min() < -0.99
                assert 0.99 < latents.max() <= 1
            else:
                assert latents.abs().max() > 3

    @pytest.mark.parametrize("steps", [7, 10, 100, 4000])
    @pytest.mark.parametrize("until", [1.0, 0.29, 0.07, 0.5])
    def test_instance_noise_falls_to_exactly_0(self, until: float, steps: int) -> None:
        family, _ = make(instance_noise=0.5, instance_noise_until=until)
        x = torch.zeros(4000, 2, 1, 1)
        for step in range(0, steps, max(1, steps // 100)):
            update = Recorder(step, steps)
            family.step(batches(), update)
            expected = 0.5 * max(0.0, 1 - step / steps / until)
            sigma, same = (loss.keywords["noise_sigma"] for loss in update.losses)
            assert sigma == same  # of both players
            noise = family.disturbed(x, sigma)
            if step / steps >= until:
                assert not noise.any()
            else:
                assert noise.std().item() == pytest.approx(expected, rel=0.05)

    def test_both_losses_see_the_noise_and_the_augmentation(self) -> None:
        """At fixed random numbers, a loss is that of what `disturbed` makes of data and of samples."""
        family, _ = make(spec=MNIST, instance_noise=0.3, augmentation=["cutout", "color"])
        images, latents = next(batches(MNIST)).images, torch.randn(8, 4)
        torch.manual_seed(2)
        loss, _ = family.opponent_loss(images, latents, noise_sigma=0.3)
        torch.manual_seed(2)
        real = family.disturbed(images * 2 - 1, 0.3)
        fake = family.disturbed(family.generator(latents), 0.3)
        logits = family.opponent(real), family.opponent(fake)
        torch.testing.assert_close(loss, losses.discriminator_loss("non_saturating", *logits))
        torch.manual_seed(3)
        loss, _ = family.generator_loss(images, latents, noise_sigma=0.3)
        torch.manual_seed(3)
        fake = family.disturbed(family.generator(latents), 0.3)
        expected = losses.generator_loss("non_saturating", family.opponent(fake))
        torch.testing.assert_close(loss, expected)
        assert not torch.equal(fake, family.generator(latents))

    @pytest.mark.parametrize("kind", ["minimax", "non_saturating", "least_squares", "hinge"])
    def test_losses_are_those_of_the_settings(self, kind: GANLoss) -> None:
        smoothing = 0.0 if kind == "hinge" else 0.2
        family, _ = make(loss=kind, label_smoothing=smoothing, r1=3.0)
        images, latents = next(batches()).images, torch.randn(8, 4)
        real = images.clone().requires_grad_()
        logits = family.opponent(real), family.opponent(family.generator(latents))
        (slope,) = torch.autograd.grad(logits[0].sum(), real, retain_graph=True)
        loss, metrics = family.opponent_loss(images, latents)
        expected = losses.discriminator_loss(kind, *logits, 1 - smoothing)
        torch.testing.assert_close(metrics["discriminator_loss"], expected)
        penalty = slope.square().sum((1, 2, 3)).mean() / 2
        torch.testing.assert_close(metrics["r1_penalty"], penalty)
        torch.testing.assert_close(loss, expected + 3 * penalty)
        torch.testing.assert_close(
            family.generator_loss(images, latents)[0], losses.generator_loss(kind, logits[1])
        )


class TestWhoIsChanged:
    @pytest.mark.parametrize("name", ALL)
    def test_no_gradient_reaches_the_generator_from_the_opponents_loss(self, name: str) -> None:
        family, update = make(name, DIGITS)
        assert all(p.requires_grad for p in family.parameters())
        loss, _ = family.opponent_loss(*family.inputs(next(batches(DIGITS))))
        loss.backward()
        assert all(p.grad is None for p in family.generator.parameters())
        assert any(p.grad is not None and p.grad.any() for p in family.opponent.parameters())
        before = snapshot(family, update, "generator")
        family.update_opponent(next(batches(DIGITS)), update)
        after = snapshot(family, update, "generator")
        assert_same(after["optimizer"], before["optimizer"])
        for key, _ in family.generator.named_parameters():
            assert torch.equal(after["weights"][key], before["weights"][key])

    @pytest.mark.parametrize("name", ALL)
    @pytest.mark.parametrize(("spec", "settings"), NETWORKS, ids=describe)
    def test_the_opponent_is_bit_identical_after_the_generators_step(
        self, name: str, spec: DataSpec, settings: dict[str, Any]
    ) -> None:
        """Weights, moments and buffers; the real step of both before it makes moments that are not 0."""
        if name in ("acgan", "projection_gan") and not spec.classes:
            pytest.skip("no labels")
        settings = settings | ({"unrolled_steps": 2} if name == "unrolled_gan" else {})
        family, update = make(name, spec, **settings)
        stream = batches(spec, n=4)
        family.update_opponent(next(stream), update)
        before, generator = (snapshot(family, update, player) for player in family.players)
        assert before["optimizer"]
        for _ in range(2):
            family.update_generator(next(stream), update)
        assert_same(snapshot(family, update, family.players[0]), before)
        after = snapshot(family, update, "generator")["weights"]
        moved = [key for key, _ in family.generator.named_parameters()]
        assert not any(torch.equal(after[key], generator["weights"][key]) for key in moved)

    def test_spectral_norm_moves_once_with_each_step_of_the_opponent(self) -> None:
        family, update = make(spec=DIGITS, spectral_norm=True, discriminator_steps=2)
        family.step(batches(DIGITS), update)
        reference, other = make(spec=DIGITS, spectral_norm=True, discriminator_steps=2)
        same = batches(DIGITS)
        for _ in range(2):
            reference.opponent.advance_spectral_norm()
            other("discriminator", reference.opponent_loss, *reference.inputs(next(same)))
        vectors = {k: v for k, v in reference.opponent.state_dict().items() if k.endswith((".u", ".v"))}
        assert len(vectors) >= 4
        for key, value in vectors.items():
            assert torch.equal(family.opponent.state_dict()[key], value)

    def test_each_player_has_its_rate(self) -> None:
        """One step of SGD is the rate times the gradient."""
        own = {
            "generator": PlayerOptimizerConfig(lr=0.5),
            "discriminator": PlayerOptimizerConfig(lr=0.01),
        }
        moved = {}
        for players, rates in ((own, (0.01, 0.5)), ({}, (0.1, 0.1))):
            settings = SGDConfig(lr=0.1, momentum=0.0, players=players)
            family, update = make(optimizer=settings)
            assert tuple(update.learning_rate(p) for p in family.players) == rates
            for player, rate in zip(family.players, rates, strict=True):
                before = snapshot(family, update, player)["weights"]
                torch.manual_seed(4)
                inputs = family.inputs(next(batches()))
                loss = family.opponent_loss if player == "discriminator" else family.generator_loss
                update(player, loss, *inputs)
                for key, parameter in family.get_submodule(player).named_parameters():
                    torch.testing.assert_close(before[key] - rate * parameter.grad, parameter.detach())
            moved[bool(players)] = family
        assert not torch.equal(
            moved[True].generator.net.layers[0].weight, moved[False].generator.net.layers[0].weight
        )

    @pytest.mark.parametrize("size", [1, 3, 4, 7])
    def test_micro_batches_give_the_gradient_of_the_whole(self, size: int) -> None:
        results = []
        for micro in (None, size):
            family, update = make(
                trainer={"micro_batch_size": micro}, optimizer=SGDConfig(lr=0.1, momentum=0.0), r1=0.5
            )
            torch.manual_seed(7)
            metrics = family.step(batches(n=8), update)
            losses = {k: v for k, v in metrics.items() if k.endswith(("loss", "norm", "penalty"))}
            results.append((losses, dict(family.state_dict())))
        assert len(results[0][0]) == 5
        torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-6)


class TestSampling:
    @pytest.mark.parametrize("prior", ["normal", "uniform"])
    @pytest.mark.parametrize(("spec", "settings"), NETWORKS, ids=describe)
    def test_sample_k_depends_on_the_seed_and_k_alone(
        self, spec: DataSpec, settings: dict[str, Any], prior: str
    ) -> None:
        family, update = make(spec=spec, prior=prior, **settings)
        for _ in range(2):
            family.step(batches(spec), update)  # statistics of batch normalisation
        family.eval()
        with torch.no_grad():
            many = family.sample(9, rng=SampleRng(5, range(9)))
            one = family.sample(1, rng=SampleRng(5, range(7, 8)))
            other = family.sample(9, rng=SampleRng(6, range(9)))
        assert many.shape == (9, *spec.shape)
        torch.testing.assert_close(many[7:8], one, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(many[7], many[6])
        assert not torch.allclose(many, other)

    @pytest.mark.parametrize("spec", [DIGITS, POINTS], ids=describe)
    def test_images_are_in_0_1_and_points_have_no_bounds(self, spec: DataSpec) -> None:
        family, _ = make(spec=spec, network="mlp")
        with torch.no_grad():
            for parameter in family.generator.parameters():
                parameter.mul_(10)
            samples = family.sample(50, rng=SampleRng(0, range(50)))
        if spec.kind == "images":
            assert samples.min() == 0
            assert samples.max() == 1
        else:
            assert samples.min() < -10
            assert samples.max() > 10

    def test_training_shows_the_opponent_data_and_samples_on_one_scale(self) -> None:
        """The generator's image of a sample, x in [0, 1], is what the opponent got: 2 x - 1."""
        family, _ = make(spec=DIGITS, network="mlp")
        latents = torch.randn(3, 4)
        assert torch.equal(family.to_model(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([-1.0, 0.0, 1.0]))
        fake = family.generator(latents)
        assert fake.abs().max() <= 1
        torch.testing.assert_close(family.to_model((fake + 1) / 2), fake)
        points, _ = make()
        assert torch.equal(points.to_model(latents), latents)

    def test_its_output_is_the_probability_of_being_data(self) -> None:
        family, _ = make(spec=DIGITS, network="mlp")
        images = next(batches(DIGITS)).images
        expected = family.opponent(images * 2 - 1).sigmoid()
        torch.testing.assert_close(family.discriminator_output(images), expected)
        for kind in ("hinge", "least_squares"):
            family, _ = make(spec=DIGITS, network="mlp", loss=kind)
            torch.testing.assert_close(family.discriminator_output(images), family.opponent(images * 2 - 1))
        assert make(spec=DIGITS, packing=2)[0].discriminator_output(images) is None


class TestHealth:
    def test_accuracies_and_saturation_by_hand(self) -> None:
        real, fake = torch.tensor([5.0, 1.0, -1.0, 0.2]), torch.tensor([-6.0, -0.1, 0.3, 4.0])
        assert health.of_logits("non_saturating", real, fake) == {
            "discriminator_accuracy_real": 0.75,
            "discriminator_accuracy_generated": 0.5,
            "discriminator_saturated_share": 2 / 8,  # |logit| > log(99) = 4.6: 5 and -6
        }
        assert health.of_logits("hinge", real, fake) == {
            "discriminator_accuracy_real": 0.75,
            "discriminator_accuracy_generated": 0.5,
            "discriminator_saturated_share": (1 / 4 + 1 / 4) / 2,  # over 1 on data, under -1 on samples
        }
        assert health.of_logits("least_squares", real, fake) == {
            "discriminator_accuracy_real": 0.5,  # over 1/2
            "discriminator_accuracy_generated": 0.75,  # under it
        }

    def test_diversity_and_saturated_pixels_by_hand(self) -> None:
        real = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]).view(3, 1, 1, 2)
        fake = torch.tensor([[0.1, 1.0], [-0.1, -0.995], [0.0, 0.5]]).view(3, 1, 1, 2)
        found = health.of_batch(real, fake, bounded=True)
        total = [x.flatten(1).numpy().var(0, ddof=1).sum() for x in (fake, real)]
        assert found["sample_diversity"].item() == pytest.approx(total[0] / total[1])
        assert found["generator_saturated_share"].item() == pytest.approx(2 / 6)
        assert health.of_batch(real, real, bounded=True)["sample_diversity"].item() == pytest.approx(1)
        same = fake[:1].expand(3, -1, -1, -1)
        assert health.of_batch(real, same, bounded=True)["sample_diversity"] == 0
        assert health.of_batch(real[:1], fake[:1], bounded=True) == {}
        assert "generator_saturated_share" not in health.of_batch(real, fake, bounded=False)

    def test_norms_of_both_gradients_are_logged(self) -> None:
        family, update = make()
        metrics = family.step(batches(), update)
        for player in family.players:
            norm = torch.stack([p.grad.square().sum() for p in family.get_submodule(player).parameters()])
            torch.testing.assert_close(metrics[f"{player}_gradient_norm"], norm.sum().sqrt())

    def test_warnings_by_hand(self) -> None:
        family, _ = make()
        fine = {
            "discriminator_accuracy_real": 0.8,
            "discriminator_accuracy_generated": 0.9,
            "discriminator_saturated_share": 0.1,
            "generator_gradient_norm": 0.1,
            "sample_diversity": 0.9,
        }
        won = {
            "discriminator_accuracy_real": 1.0,
            "discriminator_accuracy_generated": 0.995,
            "discriminator_saturated_share": 0.8,
        }
        assert family.warnings(fine) == family.warnings({}) == {}
        assert family.warnings(fine | won).keys() == {"opponent_won", "opponent_ahead"}
        ahead = {"discriminator_accuracy_real": 0.96, "discriminator_accuracy_generated": 0.97}
        assert family.warnings(fine | ahead).keys() == {"opponent_ahead"}
        assert family.warnings(fine | won | {"discriminator_accuracy_generated": 0.9}) == {}
        assert family.warnings(fine | {"generator_gradient_norm": 1e-6}).keys() == {"vanishing_gradient"}
        assert family.warnings(fine | {"sample_diversity": 0.001}).keys() == {"collapse"}
        critic, _ = make("wgan")
        assert critic.warnings({k.replace("discriminator", "critic"): v for k, v in won.items()}) == {}


def ring_run(
    name: str, model: dict[str, Any], rates: dict[str, float], ring: dict[str, Any], **trainer: Any
) -> tuple[str, list[dict[str, float]]]:
    """A short run on points: the warnings in its log, and its metrics."""
    plain = plain_config("gan", schedule="constant", dataset="ring", evaluate_every=0, sample_every=0)
    plain["trainer"] |= {"steps": 80, "batch_size": 64, "log_every": 10, "checkpoint_every": 0} | trainer
    plain["model"] |= {"hidden": [64], "discriminator_hidden": [64, 64]} | model
    plain["dataset"] |= {"points": 2000} | ring
    players = {player: {"lr": lr} for player, lr in rates.items()}
    plain["optimizer"] |= {"betas": [0.5, 0.999], "players": players}
    folder = train.start(plain, [], name)
    log = (folder / "train.log").read_text().splitlines()
    rows = metric_rows(folder)
    warnings = "\n".join(line for line in log if " WARNING " in line)
    return warnings, [row for row in rows if "generator_gradient_norm" in row]


class TestRunsThatFail:
    def test_the_discriminator_has_won(self) -> None:
        """Data are far from the samples of a generator that hardly moves."""
        rates = {"generator": 1e-7, "discriminator": 0.02}
        warnings, rows = ring_run("won", {}, rates, {"radius": 10})
        assert warnings.count("the discriminator has won: it tells 100.0% of data and of samples") == 1
        assert "lower optimizer.players.discriminator.lr" in warnings
        assert rows[-1]["discriminator_accuracy_generated"] > 0.99

    def test_the_generators_gradient_vanishes(self) -> None:
        """In the game itself, against a strong discriminator (Goodfellow et al. 2014, section 3)."""
        rates, far = {"generator": 1e-7, "discriminator": 0.1}, {"radius": 20, "modes": 1}
        warnings, rows = ring_run("minimax", {"loss": "minimax"}, rates, far, steps=40)
        assert "the generator's gradient vanishes (norm" in warnings
        assert "model.loss=non_saturating" in warnings
        norms = [row["generator_gradient_norm"] for row in rows]
        assert norms[0] > 1 > 1e-4 > norms[-1]
        healed, rows = ring_run("non_saturating", {}, rates, far, steps=40)
        assert "vanishes" not in healed
        assert rows[-1]["generator_gradient_norm"] > 1

    def test_samples_collapse(self) -> None:
        """A generator with one unit, whose rate pushes the unit to where it is 0 for every latent."""
        rates = {"generator": 0.05, "discriminator": 1e-3}
        warnings, rows = ring_run("collapsed", {"hidden": [1]}, rates, {})
        assert "samples have collapsed: a generated batch varies 0.0" in warnings
        assert "model=unrolled_gan" in warnings
        assert rows[0]["sample_diversity"] > 0.1 > 0.02 > rows[-1]["sample_diversity"]

    def test_a_healthy_run_has_no_warning(self) -> None:
        rates = {"generator": 1e-3, "discriminator": 1e-4}
        warnings, rows = ring_run("healthy", {}, rates, {}, steps=200)
        assert warnings == ""
        assert len(rows) == 20


REFUSED = [
    (["model.r1=1", "model.normalization=batch"], "model.normalization=batch: a gradient penalty is on each"),
    (["model.network=resnet"], "model.network=resnet: images of 28x28 pixels, it takes 32x32"),
    (["dataset=ring", "model.network=dcgan"], "model.network=dcgan: ring has points, not images"),
    (["model.packing=3", "trainer.batch_size=8"], "model.packing=3: trainer.batch_size=8 is no multiple"),
    (
        ["model.packing=4", "trainer.batch_size=8", "trainer.micro_batch_size=2"],
        "model.packing=4: trainer.micro_batch_size=2 is no multiple",
    ),
    (["dataset=ring", "model.augmentation=[cutout]"], "model.augmentation: ring has points, not images"),
    (["model.augmentation=[colour]"], "model.augmentation=colour: not one of color, translation, cutout"),
    (["model.network=mlp", "model.normalization=instance"], "model.normalization=instance: an mlp has no"),
    (["model.loss=hinge", "model.label_smoothing=0.1"], "model.label_smoothing: the hinge loss has no"),
    (["model=acgan", "model.packing=2"], "model.packing=2: acgan judges single images"),
    (["model.label_smoothing=0.5"], "model.label_smoothing=0.5: must be at least 0 and below 0.5"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_does_not_fit_is_refused_in_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.full((20, 28, 28), 255, np.uint8)
    labels = np.arange(20) % 10
    np.savez("pictures.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    chosen = [word for word in words if word.startswith(("model=", "dataset="))]
    own = [] if any("dataset=" in word for word in chosen) else ["dataset=npz", "dataset.path=pictures.npz"]
    model = [] if any("model=" in word for word in chosen) else ["model=gan"]
    command = ["train", *model, *own, *words, "trainer.steps=1", "trainer.device=cpu", "run_dir=run"]
    genlab(*command, code=2)
    captured = capsys.readouterr().err.strip().splitlines()
    assert captured[-1].startswith(f"genlab: {message}")
    assert len(captured) == 1
    assert not Path("run").exists()  # nothing was written


@pytest.mark.parametrize(
    ("settings", "network", "chosen"),
    [
        ({}, "dcgan", "batch"),
        ({"r1": 1.0}, "dcgan", "layer"),
        ({"r1": 1.0}, "resnet", "layer"),
        ({}, "resnet", "none"),
        ({}, "mlp", "none"),
        ({"spectral_norm": True}, "dcgan", "none"),
        ({"normalization": "instance"}, "dcgan", "instance"),
        ({"normalization": "batch"}, "mlp", "batch"),
    ],
)
def test_normalization_auto(settings: dict[str, Any], network: str, chosen: str) -> None:
    family, _ = make()
    config = from_plain(GANConfig, {"name": "gan"} | settings, "model")
    assert family.normalization(config, network) == chosen


def test_data_without_images_or_points_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"gan needs data; choose e\.g\. dataset=ring"):
        make(spec=DataSpec("none", 1, 1, 1, kind="none"))


GAMES: dict[str, dict[str, Any]] = {
    "gan": {"discriminator_steps": 3, "instance_noise": 0.2, "spectral_norm": True},
    "unrolled_gan": {"discriminator_steps": 2, "unrolled_steps": 2, "inner_moments": "live"},
    "wgan": {"critic_steps": 3},
    "wgan_gp": {"critic_steps": 3},
    "acgan": {"discriminator_steps": 3, "augmentation": ["cutout"]},
    "projection_gan": {"discriminator_steps": 3},
}


def game(name: str) -> dict[str, Any]:
    """A short run on the digits, with batch normalisation and a moving average in the generator."""
    plain = plain_config(
        name, steps=5, batch_size=16, log_every=2, evaluate_every=2, sample_every=2, checkpoint_every=2,
        sample_images=10,
    )  # fmt: skip
    plain["model"] |= {"width": 4, "latent": 4, "network": "dcgan"} | GAMES[name]
    return plain


@pytest.fixture(params=ALL)
def whole(request: pytest.FixtureRequest, own_folder: Path) -> tuple[str, Path]:
    return request.param, train.start(game(request.param), [], "whole")


def test_a_run_that_was_cut_in_the_opponents_steps_ends_as_one_that_was_not(
    whole: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a signal in the middle of the opponent's steps, and by what comes after a checkpoint being lost."""
    name, folder = whole
    shutil.copytree("whole", "lost")
    (Path("lost/checkpoints") / "step-00000005.pt").unlink()
    train.resume("lost", None, [])
    assert_same_run(folder, Path("lost"))

    call, calls = Update.__call__, 0
    opponent_steps = next(v for k, v in GAMES[name].items() if k in ("discriminator_steps", "critic_steps"))

    def call_and_signal(self: Update, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2 * (opponent_steps + 1) + 2:  # the third step's second update of the opponent
            os.kill(os.getpid(), signal.SIGTERM)
        return call(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Update, "__call__", call_and_signal)
        with pytest.raises(Interrupted, match="saved at step 3"):
            train.start(game(name), [], "cut")
    state = checkpoint.find("cut")[1]
    assert state["batches"] == 3 * opponent_steps
    assert state["images"] == 3 * opponent_steps * 16
    train.resume("cut", None, [])
    assert_same_run(folder, Path("cut"))
    moments = checkpoint.find("cut")[1]["optimizers"]
    assert all(moments[player]["state"] for player in moments)
