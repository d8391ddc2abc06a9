"""A classifier, and when it takes the encoder of another run: as a new run begins, and never again."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import genlab
from helpers.runs import assert_same_run, plain_config, read_json
from torch import Tensor
from torch.distributions import Categorical

from genlab import device, registry
from genlab.commands import train
from genlab.config.autoencoders import ClassifierConfig
from genlab.config.schema import from_plain
from genlab.data.spec import Batch, DataSpec
from genlab.device import Processes
from genlab.errors import ConfigError
from genlab.families.classifier import Classifier
from genlab.rng import SampleRng
from genlab.runs import checkpoint
from genlab.trained.model import load_model
from genlab.training.state import TrainingState

GREY = DataSpec("digits", 1, 8, 8, levels=17, classes=10)
CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU)


def make(spec: DataSpec = GREY, **settings: Any) -> Classifier:
    torch.manual_seed(0)
    plain = {"hidden": [24, 16]} | settings
    return Classifier(from_plain(ClassifierConfig, plain, "model"), spec)


def batch_of(n: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 17, (n, 1, 8, 8), generator=generator) / 16
    return Batch(images, torch.randint(0, 10, (n,), generator=generator))


def scattered(family: Classifier) -> Classifier:
    """With a softmax that has an opinion."""
    torch.nn.init.normal_(family.classifier.out.weight)
    return family


# The loss


def test_the_loss_is_the_negative_log_probability_of_a_categorical_distribution() -> None:
    family, batch = scattered(make()), batch_of()
    assert batch.labels is not None
    loss, metrics = family.loss(batch.images, batch.labels)
    categorical = Categorical(logits=family.classifier(batch.images))
    expected = -categorical.log_prob(batch.labels)
    torch.testing.assert_close(loss, expected.mean())
    told = (categorical.probs.argmax(1) == batch.labels).float()  # type: ignore[union-attr]
    values = family.evaluate(batch, rng=SampleRng(0, range(6)))
    torch.testing.assert_close(values, {"accuracy": told, "cross_entropy_nats": expected})
    assert metrics == {"cross_entropy_nats": loss, "accuracy": told.mean()}


def test_before_training_every_class_is_as_likely_as_another() -> None:
    family, batch = make(), batch_of()
    values = family.evaluate(batch, rng=SampleRng(0, range(6)))
    torch.testing.assert_close(values["cross_entropy_nats"], torch.full((6,), math.log(10)))


def test_dropout_leaves_units_out_in_training_alone() -> None:
    family, batch = scattered(make(dropout=0.5, units="relu")), batch_of(200)
    family.classifier.encoder.layers = family.classifier.encoder.layers[:1]
    x = batch.images.flatten(1)
    codes = family.classifier.encoder(x)
    whole = family.classifier.encoder.one(0, x)
    kept = codes != 0
    torch.testing.assert_close(codes[kept], 2 * whole[kept])
    active = (whole > 0).sum().item()
    assert abs(kept.sum().item() / active - 0.5) < 4 * math.sqrt(0.25 / active)
    assert torch.equal(family.eval().classifier.encoder(x), whole)


def test_pictures_show_the_hardest_first_and_what_is_told_wrongly_in_negative() -> None:
    family, batch = scattered(make()), batch_of(10)
    values = family.evaluate(batch, rng=SampleRng(0, range(10)))
    order = values["cross_entropy_nats"].argsort(descending=True)
    (row,) = family.pictures(batch, rng=SampleRng(0, range(10)))["hardest"]
    assert 0 < values["accuracy"].sum() < 10
    for image, k in zip(row, order, strict=True):
        expected = batch.images[k] if values["accuracy"][k] else 1 - batch.images[k]
        assert torch.equal(image, expected)


# Runs


def plain(start: Path | str | None = None, **model: Any) -> dict[str, Any]:
    config = plain_config("classifier", sample_images=20)
    config["model"] |= {"hidden": [24, 16], "dropout": 0.2} | model
    config["model"]["start"] = None if start is None else str(start)
    config["dataset"]["training_images"] = 100
    return config


def pretraining(model: str, **settings: Any) -> dict[str, Any]:
    config = plain_config(model, steps=6, sample_every=0, evaluate_every=0, checkpoint_every=0)
    config["model"] |= {"hidden": [24, 16]} | settings
    return config


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs that classifiers of these tests begin with."""
    folder = tmp_path_factory.mktemp("runs")
    train.start(pretraining("stacked_dae"), [], str(folder / "stack"))
    train.start(pretraining("dae", latent=3), [], str(folder / "dae"))
    train.start(pretraining("ae", latent=3, network="conv", width=4), [], str(folder / "conv"))
    return folder


def encoder_of(family: Any) -> list[Tensor]:
    return [p.detach() for p in family.classifier.encoder.parameters()]


def taken_from(run: Path, prefix: str, weights: str) -> list[Tensor]:
    """The weights of a checkpoint whose names begin so."""
    state = checkpoint.find(run)[1]
    if weights == "raw":
        return [value for name, value in state["weights"].items() if name.startswith(prefix)]
    player, _, rest = prefix.partition(".")
    average = state["averages"][player]["weights"]
    return [value for name, value in average.items() if name.startswith(rest)]


@pytest.mark.parametrize(
    ("run", "prefix", "units"),
    [("stack", "stack.encoder.layers", "sigmoid"), ("dae", "autoencoder.encoder.net.layers", "relu")],
)
def test_a_new_run_begins_with_exactly_the_other_run_s_averaged_weights(
    runs: Path, run: str, prefix: str, units: str
) -> None:
    state = TrainingState(registry.train_config(plain(runs / run, units=units)), ALONE)
    expected = taken_from(runs / run, prefix, "average")[:4]  # of a dae without its latent
    assert len(encoder_of(state.family)) == 4
    for own, taken in zip(encoder_of(state.family), expected, strict=True):
        assert torch.equal(own, taken)
    raw = taken_from(runs / run, prefix, "raw")
    assert not torch.equal(raw[2], expected[2])  # of the layer that a stack trains last


def test_fewer_layers_begin_with_the_lowest(runs: Path) -> None:
    state = TrainingState(registry.train_config(plain(runs / "stack", hidden=[24])), ALONE)
    expected = taken_from(runs / "stack", "stack.encoder.layers.0", "average")
    for own, taken in zip(encoder_of(state.family), expected, strict=True):
        assert torch.equal(own, taken)


def test_with_and_without_a_start_all_else_is_equal(runs: Path) -> None:
    """The softmax, the random numbers of training, and the images in their order."""
    seen = []
    for start in (None, runs / "stack"):
        state = TrainingState(registry.train_config(plain(start)), ALONE)
        family: Any = state.family
        seen.append((family.classifier.out.weight, torch.get_rng_state(), next(state.batches).images))
    for a, b in zip(*seen, strict=True):
        assert torch.equal(a, b)


def test_a_state_that_will_be_restored_takes_nothing(runs: Path) -> None:
    config = registry.train_config(plain("nowhere"))
    state = TrainingState(config, ALONE, new=False)
    random = TrainingState(registry.train_config(plain()), ALONE)
    assert all(
        torch.equal(a, b) for a, b in zip(encoder_of(state.family), encoder_of(random.family), strict=True)
    )
    with pytest.raises(ConfigError, match=r"model\.start=nowhere: no such run folder or checkpoint file"):
        TrainingState(config, ALONE)


def test_a_run_goes_on_and_is_loaded_without_the_run_that_it_began_with(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "stack", "stack")
    whole = train.start(plain("stack"), [], "whole")
    assert "began with 2 layers, average weights of stack" in Path("whole/train.log").read_text() + (
        capsys.readouterr().err
    )
    shutil.copytree(whole, "cut")
    for step in (8, 12):
        Path(f"cut/checkpoints/step-{step:08d}.pt").unlink()
    shutil.rmtree("stack")
    train.resume("cut", None, [])
    assert_same_run(whole, Path("cut"))
    model = load_model("cut", "raw", CPU)
    saved = checkpoint.find("cut")[1]["weights"]
    assert torch.equal(model.family.state_dict()["classifier.out.weight"], saved["classifier.out.weight"])
    genlab("evaluate", "ckpt=cut", "images=50", "run_dir=numbers")
    report = read_json("numbers/evaluation.json")
    assert report["setting"]["encoder"] == "begun from stack"
    accuracy = report["accuracy"]
    assert report["accuracy_standard_error"] == pytest.approx(math.sqrt(accuracy * (1 - accuracy) / 49))
    assert Path("numbers/hardest.png").is_file()
    assert capsys.readouterr().out.splitlines()[-1] == "next: genlab evaluate ckpt=cut per_image=true"


def test_a_run_without_a_checkpoint_begins_again_with_the_other_run_s_weights(runs: Path) -> None:
    whole = train.start(plain(runs / "stack"), [], "whole")
    shutil.copytree(whole, "cut")
    shutil.rmtree("cut/checkpoints")
    train.resume("cut", plain(runs / "stack"), [])
    assert_same_run(whole, Path("cut"))


def test_another_start_cannot_be_given_to_a_run_that_goes_on(runs: Path) -> None:
    train.start(plain(runs / "stack"), [], "run")
    with pytest.raises(ConfigError, match=r"model\.start=other: the run has"):
        train.resume("run", plain("other"), [])


@pytest.mark.parametrize(
    ("run", "model", "dataset", "line"),
    [
        ("missing", {}, {}, "no such run folder or checkpoint file"),
        ("stack", {"hidden": [24, 17]}, {}, "its layers have other units than model.hidden=[24,17]; use "
         "model.hidden=[24,16] or the lowest of them"),
        ("stack", {"hidden": [24, 16, 9]}, {}, "its layers have other units than model.hidden=[24,16,9]; "),
        ("stack", {"units": "relu"}, {}, "its units are not relu; use model.units=sigmoid"),
        ("dae", {}, {}, "its units are not sigmoid; use model.units=relu"),
        ("stack", {}, {"size": 9}, "its images are of 1x8x8 numbers, those of dataset=digits of 1x9x9; use "
         "the dataset settings of its config.yaml, e.g. dataset.size=8"),
        ("conv", {}, {}, "ae has no fully connected encoder to begin with; models that do: stacked_dae"),
    ],
)  # fmt: skip
def test_a_start_that_does_not_fit_is_refused(
    runs: Path, run: str, model: dict, dataset: dict, line: str
) -> None:
    config = plain(runs / run, **model)
    config["dataset"] |= dataset
    with pytest.raises(ConfigError) as error:
        TrainingState(registry.train_config(config), ALONE)
    assert str(error.value).startswith(f"model.start={runs / run}: {line}")


def test_a_start_that_does_not_fit_is_a_line_before_anything_is_written(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model=classifier", "model.hidden=[9]", f"model.start={runs / 'stack'}", "run_dir=run"]
    genlab("train", *words, code=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"genlab: model.start={runs / 'stack'}: its layers have other units than ")
    assert not Path("run").exists()


def test_images_without_labels_are_refused() -> None:
    with pytest.raises(ConfigError, match="dataset=binarized_mnist: has no labels to learn"):
        make(DataSpec("binarized_mnist", 1, 8, 8, levels=2))
    with pytest.raises(ConfigError, match="dataset=npz: has a single class, nothing to learn"):
        make(DataSpec("npz", 1, 8, 8, classes=1))
    with pytest.raises(ConfigError, match="dataset=ring: classifier takes images"):
        make(DataSpec("ring", 2, 1, 1, levels=0, kind="points"))


def test_it_makes_no_images_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    train.start(plain(), [], "run")
    assert capsys.readouterr().out.splitlines()[-1] == "next: genlab evaluate ckpt=run per_image=true"
    for words, line in (
        (["sample"], "classifier makes no images; see genlab evaluate"),
        (["sample", "prior=fit"], "classifier makes no images; see genlab evaluate"),
        (["reconstruct"], "classifier encodes no images; "),
    ):
        genlab(*words, "ckpt=run", "device=cpu", "run_dir=out", code=2)
        (said,) = capsys.readouterr().err.splitlines()
        assert said.startswith(f"genlab: ckpt=run: {line}")
        assert not Path("out").exists()


def test_the_processes_of_a_group_would_begin_alike(runs: Path) -> None:
    """Weights are taken before they are sent to all, and before each process draws numbers of its own."""
    config = registry.train_config(plain(runs / "stack"))
    first, second = (encoder_of(TrainingState(config, ALONE).family) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    device.seed_training(0, 0)
    expected = torch.get_rng_state()
    TrainingState(config, ALONE)
    assert torch.equal(torch.get_rng_state(), expected)
