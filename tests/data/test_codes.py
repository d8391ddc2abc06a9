"""dataset=codes: the maps of a VQ-VAE, priors over them, and images out of both."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import genlab, one_line
from helpers.pictures import samples
from helpers.runs import plain_config, read_json
from PIL import Image

from genlab import registry
from genlab.commands import train
from genlab.config.datasets import CodesConfig
from genlab.config.schema import from_plain
from genlab.data.spec import DataSpec
from genlab.errors import CheckpointError, ConfigError
from genlab.report.pictures import save_grid, to_uint8
from genlab.rng import SampleRng
from genlab.runs import checkpoint
from genlab.trained.codes import CodeMaps, Codes, fingerprint, vqvae_of
from genlab.trained.draw import draw
from genlab.trained.model import dataset_of, load_model

CPU = torch.device("cpu")
CODES = 300  # more than a byte holds


def quick(model: str, **trainer: Any) -> dict[str, Any]:
    """Two steps, and pictures only at the end."""
    plain = plain_config(model, steps=2, sample_images=12, log_every=1, sample_every=0, evaluate_every=0)
    plain["trainer"] |= trainer
    return plain


def train_vqvae(folder: Path, **settings: Any) -> str:
    plain = quick("vqvae")
    small = {"width": 6, "residual_blocks": 1, "halvings": 1, "codes": CODES, "code_dimensions": 3}
    plain["model"] |= small | settings
    plain["dataset"] |= {"binarize": "dynamic"}
    plain["optimizer"]["lr"] = 0.03  # a fresh decoder makes nearly the same of all codes
    return str(train.start(plain, [], str(folder)))


def prior_config(ckpt: str, model: str = "gated_pixelcnn", **settings: Any) -> dict[str, Any]:
    plain = quick(model)
    small = {"width": 6, "layers": 1, "head": 8} if model == "gated_pixelcnn" else {}
    plain["model"] |= small | settings
    plain["dataset"] = {"name": "codes", "ckpt": ckpt}
    return plain


@pytest.fixture(scope="module")
def vqvae(tmp_path_factory: pytest.TempPathFactory) -> str:
    return train_vqvae(tmp_path_factory.mktemp("vqvae") / "run")


@pytest.fixture(scope="module")
def prior(vqvae: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("prior") / "run"
    return str(train.start(prior_config(vqvae, class_conditional=True), [], str(folder)))


@pytest.fixture
def moved(vqvae: str) -> Iterator[str]:
    """The VQ-VAE's run, somewhere else for a while."""
    shutil.move(vqvae, "elsewhere")
    yield "elsewhere"
    shutil.move("elsewhere", vqvae)


def codes_of(ckpt: str) -> CodeMaps:
    return Codes.load(CodesConfig(ckpt=ckpt))


# The dataset


def test_the_maps_are_the_codes_of_the_images_with_their_labels(vqvae: str) -> None:
    dataset, model = codes_of(vqvae), load_model(vqvae, "auto", CPU)
    assert model.weights == "average"
    images = registry.dataset(model.config.dataset)
    assert dataset.spec == DataSpec(
        "codes", 1, 4, 4, levels=CODES, classes=10, kind="codes", codes_of=fingerprint(model.family)
    )
    for split in ("train", "validation", "test"):
        assert dataset.size(split) == images.size(split)
    family = vqvae_of(model)
    _, originals = next(images.evaluation_batches("test", 40, 0))
    indices, maps = next(dataset.evaluation_batches("test", 40, 5))  # no seed changes them
    assert indices == list(range(40))
    with torch.no_grad():
        codes = family.codes_of(originals.images)
        decoded = family.images_of(codes)
    assert codes.max() > 255
    torch.testing.assert_close(maps.images, codes[:, None] / (CODES - 1))
    assert maps.labels is not None
    assert originals.labels is not None
    assert torch.equal(maps.labels, originals.labels)
    torch.testing.assert_close(dataset.pictures(maps.images), decoded)


def test_training_batches_are_rows_of_the_split(vqvae: str) -> None:
    dataset = codes_of(vqvae)
    every = torch.cat([batch.images for _, batch in dataset.evaluation_batches("train", 400, 0)])
    assert len(every) == dataset.size("train")
    known = {tuple(row) for row in (every.flatten(1) * (CODES - 1)).round().int().tolist()}
    batch = next(dataset.batches(3, 50))
    rows = [tuple(row) for row in (batch.images.flatten(1) * (CODES - 1)).round().int().tolist()]
    assert set(rows) <= known
    assert len(set(rows)) > 10


def test_a_binarisation_is_drawn_once(vqvae: str) -> None:
    first, second = (next(codes_of(vqvae).evaluation_batches("test", 30, 0))[1].images for _ in "ab")
    assert torch.equal(first, second)


def test_what_tells_a_vqvae_apart_is_its_weights_alone(vqvae: str) -> None:
    first = codes_of(vqvae).spec.codes_of
    assert codes_of(str(Path(vqvae, "checkpoints/step-00000002.pt"))).spec.codes_of == first
    shutil.copytree(vqvae, "copy")
    assert codes_of("copy").spec.codes_of == first
    family = load_model(vqvae, "auto", CPU).family
    assert fingerprint(family) == first
    family.get_buffer("vqvae.codebook.vectors")[3, 1] += 1e-4
    assert fingerprint(family) != first


def test_a_spec_without_codes_is_kept_as_ever() -> None:
    assert "codes_of" not in DataSpec("digits", 1, 8, 8).to_plain()
    spec = DataSpec("codes", 1, 4, 4, kind="codes", codes_of="abc")
    assert from_plain(DataSpec, spec.to_plain()) == spec


# Priors


def test_training_shows_decoded_codes(prior: str, vqvae: str) -> None:
    config = registry.train_config(checkpoint.find(prior)[1]["config"])
    dataset = registry.dataset(config.dataset)
    _, batch = dataset.examples("train", 12, 0)
    save_grid(dataset.pictures(batch.images), Path("expected.png"))
    assert Path("expected.png").read_bytes() == Path(prior, "samples/real.png").read_bytes()
    width, height = Image.open(Path(prior, "samples/step-00000002.png")).size
    assert (width, height) == (1 * 50 + 2, 10 * 50 + 2)  # 10 classes, a row of one each; 8x8 pixels enlarged


def test_samples_are_decoded_and_both_checkpoints_named(prior: str, vqvae: str) -> None:
    genlab("sample", f"ckpt={prior}", "n=6", "labels=[3,7]", "npz=true", "temperature=0.9", "run_dir=out")
    model = load_model(prior, "auto", CPU)
    labels = torch.tensor([3, 7] * 3)
    drawn = draw(model.family, range(6), 0, CPU, labels, 0.9)
    assert drawn.shape == (6, 1, 4, 4)
    family = vqvae_of(load_model(vqvae, "auto", CPU))
    with torch.no_grad():
        images = family.images_of((drawn[:, 0] * (CODES - 1)).round().long())
    assert (samples("out")[..., 0] == to_uint8(images)[:, 0].numpy()).all()
    facts = read_json("out/samples.json")
    assert facts["checkpoint"].startswith(prior)
    assert facts["vqvae"]["checkpoint"].startswith(vqvae)
    assert (facts["model"], facts["vqvae"]["model"]) == ("gated_pixelcnn", "vqvae")


def test_samples_depend_on_seed_and_number_alone(prior: str) -> None:
    for batch_size, run_dir in ((256, "whole"), (2, "parts")):
        genlab("sample", f"ckpt={prior}", "n=5", "npz=true", f"batch_size={batch_size}", f"run_dir={run_dir}")
    genlab("sample", f"ckpt={prior}", "n=5", "npz=true", "seed=1", "run_dir=other")
    difference = samples("whole").astype(int) - samples("parts").astype(int)
    assert np.abs(difference).max() <= 1  # rounding to bytes
    assert (samples("whole") != samples("other")).any()


def test_the_joint_bound_is_the_reconstruction_s_and_the_prior_s(prior: str, vqvae: str) -> None:
    genlab("evaluate", f"ckpt={prior}", "images=30", "batch_size=20", "per_image=true", "run_dir=joint")
    genlab("evaluate", f"ckpt={vqvae}", "images=30", "run_dir=alone")
    joint, alone = (read_json(f, "evaluation.json") for f in ("joint", "alone"))
    model, dataset = load_model(prior, "auto", CPU), codes_of(vqvae)
    indices, batch = next(dataset.evaluation_batches("test", 30, 0, 30))
    with torch.no_grad():
        values = model.family.evaluate(batch, rng=SampleRng(0, indices))
    nll = values["nll_nats"].mean().item()
    assert joint["nll_nats"] == pytest.approx(nll, rel=1e-5)
    assert joint["nll_bits_per_dim"] == pytest.approx(nll / (16 * math.log(2)), rel=1e-5)
    assert joint["reconstruction_nats"] == pytest.approx(alone["reconstruction_nats"], rel=1e-5)
    assert joint["elbo_nats"] == pytest.approx(nll + alone["reconstruction_nats"], rel=1e-5)
    assert joint["elbo_bits_per_dim"] == pytest.approx(joint["elbo_nats"] / (64 * math.log(2)))
    assert joint["elbo_nats_standard_error"] > 0
    assert joint["setting"]["bound"].startswith("negative ELBO of prior and vqvae together")
    assert joint["setting"]["images"] == "digits, 2 levels, binarization dynamic drawn once"
    header = Path("joint/per_image.csv").read_text().splitlines()[0]
    assert "elbo_nats" in header.split(",")


def test_a_prior_resumes_bit_for_bit(prior: str) -> None:
    shutil.copytree(prior, "again")
    whole = train.resume("again", checkpoint.find("again")[1]["config"] | _steps(4), [])
    shutil.copytree(prior, "cut")
    train.resume("cut", checkpoint.find("cut")[1]["config"] | _steps(4), [])
    one, other = (checkpoint.find(run)[1]["weights"] for run in (whole, "cut"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def _steps(steps: int) -> dict[str, Any]:
    return {"trainer": quick("gated_pixelcnn", steps=steps)["trainer"]}


def test_a_vqvae_that_has_moved(
    prior: str, vqvae: str, moved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = one_line(capsys, "sample", f"ckpt={prior}", "n=2")
    assert line.startswith(f"genlab: dataset.ckpt={vqvae}: no such run folder")
    assert line.endswith("; give the vqvae's new location by dataset.ckpt=RUN")
    genlab("sample", f"ckpt={prior}", "n=2", f"dataset.ckpt={moved}", "run_dir=samples")
    assert len(list(Path("samples/images").iterdir())) == 2
    genlab("evaluate", f"ckpt={prior}", "images=5", f"dataset.ckpt={moved}", "run_dir=numbers")
    assert Path("numbers/evaluation.json").is_file()
    shutil.copytree(prior, "resumed")
    config = checkpoint.find("resumed")[1]["config"] | _steps(3)
    train.resume("resumed", config | {"dataset": {"name": "codes", "ckpt": moved}}, [])
    assert checkpoint.find("resumed")[1]["step"] == 3


def test_another_vqvae_in_its_place_is_noticed(prior: str, capsys: pytest.CaptureFixture[str]) -> None:
    other = train_vqvae(Path("other"), residual_blocks=0)
    end = "has other weights than the vqvae whose codes the prior was trained on; give the checkpoint file of"
    for verb in ("sample", "evaluate"):
        line = one_line(capsys, verb, f"ckpt={prior}", f"dataset.ckpt={other}")
        assert line.startswith(f"genlab: dataset.ckpt=other: {end}")
    shutil.copytree(prior, "resumed")
    config = checkpoint.find("resumed")[1]["config"] | _steps(3)
    with pytest.raises(CheckpointError, match=end):
        train.resume("resumed", config | {"dataset": {"name": "codes", "ckpt": other}}, [])


# Mistakes


def one_line_of_training(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """As `one_line`, of a new run."""
    capsys.readouterr()
    genlab("train", "trainer=smoke", "run_dir=new", *words, code=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert not Path("new").exists()
    return line.removeprefix("genlab: ")


def test_what_is_no_vqvae_is_refused(prior: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("model=gated_pixelcnn", "dataset=codes")
    assert one_line_of_training(capsys, *words).startswith("dataset.ckpt: missing; add dataset.ckpt=")
    line = one_line_of_training(capsys, *words, "dataset.ckpt=nowhere")
    assert line.startswith("dataset.ckpt=nowhere: no such run folder")
    line = one_line_of_training(capsys, *words, f"dataset.ckpt={prior}")
    end = "gated_pixelcnn has no codes; train a model with codes, e.g. genlab train model=vqvae"
    assert line == f"dataset.ckpt={prior}: {end}"


@pytest.mark.parametrize("model", ["vae", "ae", "gan", "vqvae", "wgan_gp"])
def test_only_autoregressive_models_take_codes(model: str) -> None:
    """And others are refused before a checkpoint is looked for."""
    line = f"dataset=codes: {model} takes no codes, which have no order; use an autoregressive model"
    with pytest.raises(ConfigError, match=line):
        train.start(prior_config("nowhere", model), [], "new")
    assert not Path("new").exists()


def test_other_mistakes_of_a_prior(prior: str, vqvae: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"model.output=logistic_mixture: codes have no order"):
        train.start(prior_config(vqvae, output="logistic_mixture"), [], "new")
    assert "a model of codes cannot complete images" in one_line(capsys, "complete", f"ckpt={prior}")
    assert "encodes no images" in one_line(capsys, "reconstruct", f"ckpt={prior}")
    assert "encodes no images" in one_line(capsys, "sample", f"ckpt={prior}", "prior=fit")
    line = one_line(capsys, "sample", f"ckpt={prior}", "dataset.binarize=none")
    assert "dataset.binarize: dataset settings are fixed by the checkpoint" in line
    assert "codes has classes 0 to 9" in one_line(capsys, "sample", f"ckpt={prior}", "labels=[10]")


def test_files_of_the_images_that_have_moved(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    np.savez("pictures.npz", images=rng.integers(0, 256, (60, 8, 8), dtype=np.uint8))
    plain = quick("vqvae")
    plain["model"] |= {"width": 4, "halvings": 1, "codes": 8, "code_dimensions": 2}
    plain["dataset"] = {"name": "npz", "path": "pictures.npz"}
    train.start(plain, [], "vqvae")
    shutil.move("pictures.npz", "moved.npz")
    words = ("model=gated_pixelcnn", "dataset=codes", "dataset.ckpt=vqvae")
    line = one_line_of_training(capsys, *words)
    assert f"dataset.path={Path('pictures.npz').absolute()}: no such file" in line
    assert line.endswith("if it was moved, add dataset.path=NEW")
    dataset = Codes.load(CodesConfig(ckpt="vqvae", path="moved.npz"))
    assert next(dataset.evaluation_batches("test", 5, 0))[1].labels is None
    with pytest.raises(ConfigError, match=r"dataset\.root: dataset settings are fixed by the checkpoint"):
        Codes.load(CodesConfig(ckpt="vqvae", root="somewhere"))


def test_the_dataset_of_a_prior_is_found_again(prior: str) -> None:
    model = load_model(prior, "auto", CPU)
    assert dataset_of(model, {}, "test").spec == model.spec
