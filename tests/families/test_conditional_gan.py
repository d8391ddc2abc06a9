"""Adversarial networks with labels: class losses and projections by hand, and samples of chosen classes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.command_line import genlab
from helpers.games import DIGITS, MNIST, batches, gradients, make
from helpers.runs import plain_config, read_json
from PIL import Image
from torch import Tensor

from genlab.adversarial import losses
from genlab.commands import train
from genlab.config.adversarial import GANLoss
from genlab.config.datasets import RingConfig
from genlab.config.run import AdamConfig
from genlab.data.points import mixture_of
from genlab.data.spec import Batch, DataSpec
from genlab.report.pictures import to_uint8
from genlab.rng import SampleRng
from genlab.trained.model import load_model

THREE = DataSpec("ring", 2, 1, 1, levels=0, classes=3, kind="points")
BOTH = ("acgan", "projection_gan")
REAL, FAKE = (
    torch.tensor(x)[:, :, None, None] for x in ([[1.0, 0.0], [0.0, 2.0]], [[1.0, 1.0], [-1.0, 0.0]])
)
LABELS, DRAWN = torch.tensor([0, 2]), torch.tensor([1, 0])
LINEAR: dict[str, Any] = {"network": "mlp", "discriminator_hidden": []}  # the features are the point itself


def linear(name: str, **settings: Any) -> Any:
    """The logit is x - y + 1/2. AC-GAN: classes 0, 1, 2 have logits x, y, 0. Projection: e(0) = (1, 0),
    e(1) = (0, 1), e(2) = (2, 3)."""
    family, _ = make(name, THREE, **LINEAR, **settings)
    opponent = family.opponent
    with torch.no_grad():
        opponent.out.weight.copy_(torch.tensor([[1.0, -1.0]]))
        opponent.out.bias.fill_(0.5)
        if name == "acgan":
            opponent.class_head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
            opponent.class_head.bias.zero_()
        else:
            opponent.embedding.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 3.0]]))
    return family


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


class TestAuxiliaryClassifier:
    e = math.e
    # data: (1, 0) is class 0 with e / (e + 2), (0, 2) is class 2 with 1 / (2 + e^2)
    REAL_CLASS_LOSS = (math.log((e + 2) / e) + math.log(2 + e**2)) / 2
    # samples: (1, 1) is class 1 with e / (2 e + 1), (-1, 0) is class 0 with (1/e) / (1/e + 2)
    FAKE_CLASS_LOSS = (math.log((2 * e + 1) / e) + math.log((1 / e + 2) * e)) / 2
    # logits of data 1.5 and -1.5, of samples 0.5 and -0.5
    ADVERSARIAL = (softplus(-1.5) + softplus(1.5) + softplus(0.5) + softplus(-0.5)) / 2

    @pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
    def test_the_discriminators_loss_by_hand(self, weight: float) -> None:
        """Both halves count whole: the class loss is the sum of that of data and that of samples."""
        family = linear("acgan", discriminator_class_weight=weight, generator_class_weight=9.0)
        loss, metrics = family.opponent_objective(REAL, FAKE, LABELS, DRAWN)
        classes = self.REAL_CLASS_LOSS + self.FAKE_CLASS_LOSS
        assert metrics["discriminator_loss"].item() == pytest.approx(self.ADVERSARIAL)
        assert metrics["discriminator_class_loss"].item() == pytest.approx(classes)
        assert loss.item() == pytest.approx(self.ADVERSARIAL + weight * classes)
        slope = gradients(loss, family.opponent)["class_head.weight"]
        assert slope.any() == (weight > 0)

    @pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
    def test_the_generators_loss_by_hand(self, weight: float) -> None:
        """Only samples, told as the class that they were to be."""
        family = linear("acgan", generator_class_weight=weight, discriminator_class_weight=9.0)
        loss, metrics = family.generator_objective(FAKE, DRAWN)
        assert metrics["generator_class_loss"].item() == pytest.approx(self.FAKE_CLASS_LOSS)
        expected = (softplus(-0.5) + softplus(0.5)) / 2 + weight * self.FAKE_CLASS_LOSS
        assert loss.item() == pytest.approx(expected)

    @pytest.mark.parametrize("kind", ["minimax", "least_squares", "hinge"])
    def test_the_class_loss_is_the_same_beside_any_adversarial_loss(self, kind: GANLoss) -> None:
        family = linear("acgan", loss=kind)
        real, fake = torch.tensor([1.5, -1.5]), torch.tensor([0.5, -0.5])
        loss, _ = family.opponent_objective(REAL, FAKE, LABELS, DRAWN)
        classes = self.REAL_CLASS_LOSS + self.FAKE_CLASS_LOSS
        expected = losses.discriminator_loss(kind, real, fake).item() + classes
        assert loss.item() == pytest.approx(expected)

    def test_with_no_class_weights_it_is_the_gan_with_a_generator_that_is_told_labels(self) -> None:
        family = linear("acgan", discriminator_class_weight=0.0, generator_class_weight=0.0)
        gan, _ = make("gan", THREE, **LINEAR)
        gan.opponent.load_state_dict(family.opponent.state_dict(), strict=False)
        expected, _ = gan.opponent_objective(REAL, FAKE)
        torch.testing.assert_close(family.opponent_objective(REAL, FAKE, LABELS, DRAWN)[0], expected)
        torch.testing.assert_close(
            family.generator_objective(FAKE, DRAWN)[0], gan.generator_objective(FAKE)[0]
        )

    def test_each_players_class_gradient_is_its_weight_times_that_of_the_class_loss(self) -> None:
        """And the generator's goes through the sample: it is what moves a sample towards its class."""
        images, latents, labels = torch.rand(6, 1, 8, 8), torch.randn(6, 4), torch.arange(6)
        drawn = torch.tensor([9, 8, 0, 1, 5, 5])
        found: dict[float, dict[str, dict[str, Tensor]]] = {}
        for weight in (0.0, 3.0):
            family, _ = make(
                "acgan", DIGITS, discriminator_class_weight=weight, generator_class_weight=2 * weight
            )
            found[weight] = {
                "discriminator": gradients(
                    family.opponent_loss(images, latents, labels, drawn)[0], family.opponent
                ),
                "generator": gradients(
                    family.generator_loss(images, latents, labels, drawn)[0], family.generator
                ),
            }

        def class_loss(x: Tensor, wanted: Tensor) -> Tensor:
            return F.cross_entropy(family.opponent.class_head(family.opponent.features(x)), wanted)

        fake = family.generator(latents, drawn)
        halves = class_loss(images * 2 - 1, labels) + class_loss(fake.detach(), drawn)
        expected = {
            "discriminator": (3.0, gradients(halves, family.opponent)),
            "generator": (6.0, gradients(class_loss(fake, drawn), family.generator)),
        }
        for player, (weight, slopes) in expected.items():
            assert any(slope.any() for slope in slopes.values())
            for name, slope in slopes.items():
                difference = found[3.0][player][name] - found[0.0][player][name]
                torch.testing.assert_close(difference, weight * slope, rtol=1e-4, atol=1e-5)


class TestProjection:
    # data: (1, 0) of class 0 has 1.5 + 1, (0, 2) of class 2 has -1.5 + 6
    # samples: (1, 1) of class 1 has 0.5 + 1, (-1, 0) of class 0 has -0.5 - 1
    REAL_LOGITS, FAKE_LOGITS = torch.tensor([2.5, 4.5]), torch.tensor([1.5, -1.5])

    def test_the_logit_by_hand(self) -> None:
        """w.f + b + e(y).f (Miyato and Koyama 2018, eq. 3)."""
        opponent = linear("projection_gan").opponent
        torch.testing.assert_close(opponent(REAL, LABELS), self.REAL_LOGITS)
        torch.testing.assert_close(opponent(FAKE, DRAWN), self.FAKE_LOGITS)

    @pytest.mark.parametrize("kind", ["hinge", "non_saturating", "least_squares"])
    def test_data_are_judged_with_their_labels_and_samples_with_those_they_were_made_of(
        self, kind: GANLoss
    ) -> None:
        family = linear("projection_gan", loss=kind)
        loss, metrics = family.opponent_objective(REAL, FAKE, LABELS, DRAWN)
        expected = losses.discriminator_loss(kind, self.REAL_LOGITS, self.FAKE_LOGITS)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(metrics["discriminator_loss"], expected)
        loss, _ = family.generator_objective(FAKE, DRAWN)
        torch.testing.assert_close(loss, losses.generator_loss(kind, self.FAKE_LOGITS))
        assert loss != family.generator_objective(FAKE, LABELS)[0]

    def test_the_penalty_on_data_is_that_of_the_logit_with_the_label(self) -> None:
        """Slopes of data: w + e(0) = (2, -1) and w + e(2) = (3, 2)."""
        family = linear("projection_gan", r1=4.0)
        loss, metrics = family.opponent_objective(REAL, FAKE, LABELS, DRAWN)
        assert metrics["r1_penalty"].item() == pytest.approx((5 + 13) / 2 / 2)
        torch.testing.assert_close(loss, metrics["discriminator_loss"] + 4 * metrics["r1_penalty"])

    def test_its_loss_is_the_hinge_unless_told(self) -> None:
        assert make("projection_gan", THREE)[0].config.loss == "hinge"

    def test_spectral_normalisation_is_of_the_labels_vectors_too(self) -> None:
        family, _ = make("projection_gan", MNIST, spectral_norm=True)
        vectors = family.opponent.embedding.normalized_weight()
        assert torch.linalg.matrix_norm(vectors, 2).item() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("name", BOTH)
class TestLabels:
    def test_both_losses_generate_with_the_drawn_labels_and_see_data_with_their_own(self, name: str) -> None:
        family, _ = make(name, DIGITS, network="mlp")
        images, latents = torch.rand(4, 1, 8, 8), torch.randn(4, 4)
        labels, drawn = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5, 6, 7])
        fake = family.generator(latents, drawn)
        expected, _ = family.opponent_objective(images * 2 - 1, fake, labels, drawn)
        torch.testing.assert_close(family.opponent_loss(images, latents, labels, drawn)[0], expected)
        expected, _ = family.generator_objective(fake, drawn)
        torch.testing.assert_close(family.generator_loss(images, latents, labels, drawn)[0], expected)

    def test_of_samples_are_drawn_uniformly_from_all_classes(self, name: str) -> None:
        """In training, and in sampling where none are given; chi squared of 9 degrees, 0.1 %."""
        family, _ = make(name, DIGITS, network="mlp")
        told: list[Tensor] = []
        generate = family.generator.forward
        family.generator.forward = lambda latents, labels: told.append(labels) or generate(latents, labels)
        family.sample(4000, rng=SampleRng(3, range(4000)))
        zeros = Batch(torch.zeros(4000, 1, 8, 8), torch.zeros(4000, dtype=torch.long))
        for labels in (told[0], family.inputs(zeros)[3]):
            counts = torch.bincount(labels, minlength=10)
            assert len(counts) == 10
            assert ((counts - 400) ** 2 / 400).sum() < 27.9

    def test_a_sample_depends_on_seed_number_and_its_own_label_alone(self, name: str) -> None:
        family, update = make(name, DIGITS)
        for _ in range(2):
            family.step(batches(DIGITS), update)
        family.eval()
        labels = torch.tensor([3, 3, 7, 0, 1, 9])

        def sample(indices: range, chosen: Tensor | None) -> Tensor:
            with torch.no_grad():
                return family.sample(len(indices), rng=SampleRng(5, indices), labels=chosen)

        many = sample(range(6), labels)
        torch.testing.assert_close(sample(range(2, 3), labels[2:3]), many[2:3])
        torch.testing.assert_close(
            sample(range(6), labels.clone().index_fill(0, torch.tensor([0]), 8))[1:], many[1:]
        )
        assert not torch.allclose(sample(range(6), (labels + 1) % 10), many)
        drawn = sample(range(40), None)  # the label that number k draws is its own, too
        torch.testing.assert_close(sample(range(30, 40), None), drawn[30:])

    def test_data_without_labels_are_refused_in_one_line(
        self, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        images = np.zeros((20, 8, 8), np.uint8)
        np.savez("pictures.npz", train_images=images, test_images=images)
        Path("pictures").mkdir()
        for k in range(8):
            Image.fromarray(images[k]).save(f"pictures/{k}.png")
        folder = ["dataset=folder", "dataset.path=pictures", "dataset.size=8"]
        for words, lacks, remedy in (
            (["dataset=two_moons"], "two_moons", "use model=gan or dataset=mnist"),
            (
                ["dataset=npz", "dataset.path=pictures.npz"],
                "npz",
                "add an array of labels to the file, or use model=gan",
            ),
            (
                folder,
                "folder",
                "put the pictures of each class into a subfolder of its own, or use model=gan",
            ),
        ):
            command = [
                "train",
                f"model={name}",
                *words,
                "trainer.steps=1",
                "trainer.device=cpu",
                "run_dir=run",
            ]
            genlab(*command, code=2)
            error = capsys.readouterr().err.splitlines()
            assert error[-1] == f"genlab: model={name}: {lacks} has no labels; {remedy}"
            assert not Path("run").exists()

    def test_after_training_samples_of_a_label_lie_at_the_mode_of_that_label(self, name: str) -> None:
        """Three modes of a ring, apart; by chance a third of the samples would lie at theirs."""
        mixture = mixture_of(RingConfig(modes=3, sigma=0.1))

        def stream() -> Iterator[Batch]:
            for seed in range(1000):
                drawn, components = mixture.draw(64, seed)
                yield Batch(drawn[:, :, None, None], components)

        optimizer = AdamConfig(lr=2e-3, betas=(0.5, 0.999))
        family, update = make(name, THREE, hidden=[64], discriminator_hidden=[64], optimizer=optimizer)
        data = stream()
        for _ in range(300):
            family.step(data, update)
        labels = torch.arange(300) % 3
        with torch.no_grad():
            samples = family.sample(300, rng=SampleRng(0, range(300)), labels=labels).flatten(1)
        nearest = torch.cdist(samples, mixture.means).argmin(1)
        assert (nearest == labels).float().mean() > 0.8


@pytest.fixture(params=BOTH)
def run(request: pytest.FixtureRequest, own_folder: Path) -> Path:
    plain = plain_config(
        request.param, steps=3, batch_size=16, evaluate_every=0, sample_every=0, sample_images=25
    )
    plain["model"] |= {"width": 4, "latent": 4}
    return train.start(plain, [], "run")


class TestCommand:
    def test_writes_samples_of_the_classes_that_were_asked_for(self, run: Path) -> None:
        for n, folder in ((3, "three"), (5, "five")):
            words = ["labels=[3,3,7]", f"n={n}", "seed=4", "batch_size=2", "npz=true", f"run_dir={folder}"]
            genlab("sample", "ckpt=run", *words)
        file = np.load("five/samples.npz")
        assert file["labels"].tolist() == [3, 3, 7, 3, 3]  # repeated as needed
        assert np.array_equal(np.load("three/samples.npz")["images"], file["images"][:3])
        family = load_model("run", "auto", torch.device("cpu")).family
        for k, label in enumerate(file["labels"]):
            expected = family.sample(1, rng=SampleRng(4, range(k, k + 1)), labels=torch.tensor([label]))
            difference = to_uint8(expected)[0, 0].int() - torch.tensor(file["images"][k, :, :, 0]).int()
            assert difference.abs().max() <= 1  # rounding of another batch size
        pictures = [np.asarray(Image.open(f"five/images/0000{k}.png")) for k in range(5)]
        assert np.array_equal(np.stack(pictures), file["images"][..., 0])
        assert read_json("five/samples.json")["n"] == 5

    def test_without_a_count_there_is_an_image_for_each_label(self, run: Path) -> None:
        genlab("sample", "ckpt=run", "labels=[3,3,7]", "run_dir=three")
        assert len(list(Path("three/images").iterdir())) == 3
        genlab("sample", "ckpt=run", "run_dir=some")
        assert len(list(Path("some/images").iterdir())) == 64

    def test_a_grid_has_a_class_a_row(self, run: Path) -> None:
        """Unless labels are given. Tiles of 8x8 pixels are enlarged 6 times, with 2 pixels between them."""
        genlab("sample", "ckpt=run", "n=30", "npz=true", "run_dir=rows")
        file = np.load("rows/samples.npz")
        assert file["labels"].tolist() == [k // 3 for k in range(30)]
        grid = np.asarray(Image.open("rows/grid.png"))
        assert grid.shape == (10 * 50 + 2, 3 * 50 + 2)
        for k in range(30):
            top, left = 2 + 50 * (k // 3), 2 + 50 * (k % 3)
            assert np.array_equal(grid[top : top + 48 : 6, left : left + 48 : 6], file["images"][k, :, :, 0])
        final = np.asarray(Image.open("run/samples/step-00000003.png"))
        assert final.shape == (10 * 50 + 2, 2 * 50 + 2)  # 25 images: whole rows only

    @pytest.mark.parametrize(
        ("word", "line"),
        [
            ("labels=[10]", "labels=[10]: digits has classes 0 to 9"),
            ("labels=[0,3,11]", "labels=[0, 3, 11]: digits has classes 0 to 9"),
            ("labels=[-1]", "labels[0]=-1: must be at least 0"),
            ("labels=3", "labels=3: expected a list, e.g. labels=[1,2]"),
            ("labels=[]", "labels=[]: give at least one class, e.g. labels=[3,3,7]"),
            ("labels=[three]", "labels[0]=three: expected a whole number"),
        ],
    )
    def test_a_wrong_label_is_refused_in_one_line(
        self, run: Path, word: str, line: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        capsys.readouterr()
        genlab("sample", "ckpt=run", word, "run_dir=out", code=2)
        assert capsys.readouterr().err.splitlines() == [f"genlab: {line}"]
        assert not Path("out").exists()


def test_labels_are_refused_by_a_model_without_them(capsys: pytest.CaptureFixture[str]) -> None:
    plain = plain_config("gan", steps=1, batch_size=16, evaluate_every=0, sample_every=0)
    plain["model"] |= {"width": 4, "latent": 4}
    train.start(plain, [], "run")
    capsys.readouterr()
    genlab("sample", "ckpt=run", "labels=[3]", "run_dir=out", code=2)
    expected = "genlab: labels=[3]: gan takes no labels; leave labels out"
    assert capsys.readouterr().err.splitlines() == [expected]
    assert not Path("out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", BOTH)
def test_compiled_losses_have_the_eager_gradients_to_rounding(name: str) -> None:
    results = []
    for compiled in (False, True):
        family, _ = make(name, THREE, r1=0.5)
        if compiled:
            family.compile_networks()
        inputs = family.inputs(next(batches(THREE)))
        for loss, player in ((family.opponent_loss, "discriminator"), (family.generator_loss, "generator")):
            value, metrics = loss(*inputs)
            found = {key: metric.detach() for key, metric in metrics.items()}
            results.append((value.detach(), found, gradients(value, family.get_submodule(player))))
    torch.testing.assert_close(results[2:], results[:2], rtol=1e-3, atol=1e-5)
