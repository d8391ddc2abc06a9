"""The Python door: a script gets what the command line gives, and its lines as exceptions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import command_line
from helpers.runs import read_json
from torch import Tensor

import genlab
from genlab.trained.api import TrainedModel
from genlab.trained.latent_space import check_has

SHORT = (
    "trainer.steps=4", "trainer.batch_size=16", "trainer.device=cpu", "trainer.evaluate_every=0",
    "trainer.evaluate_images=20", "trainer.sample_images=4", "recipe=none",
)  # fmt: skip
SMALL_VAE = ("model.network=mlp", "model.hidden=[16]", "model.latent=3")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    words = {
        "vae": ("model=vae", *SMALL_VAE),
        "conditional": ("model=conditional_vae", *SMALL_VAE),
        "pixels": ("model=gated_pixelcnn", "model.width=8", "model.layers=2", "dataset.binarize=threshold"),
        "gan": ("model=gan", "model.hidden=[16]", "model.discriminator_hidden=[16]"),
    }
    return {
        name: genlab.train(*own, "dataset=digits", *SHORT, run_dir=folder / name)
        for name, own in words.items()
    }


@pytest.fixture
def load(runs: dict[str, Path]) -> dict[str, TrainedModel]:
    return {name: genlab.load(path, device="cpu") for name, path in runs.items()}


def digits(model: TrainedModel, n: int = 6) -> Tensor:
    return (torch.arange(n * 64).view(n, 1, 8, 8) % 17 / 16).float()


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys, genlab; dir(genlab); genlab.UserError; print('torch' in sys.modules, genlab.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", genlab.__version__]
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        genlab.lod  # noqa: B018
    for name in genlab.__all__:
        assert getattr(genlab, name) is not None


def test_a_run_and_its_composed_configuration(own_folder: Path) -> None:
    words = ("model=vae", *SMALL_VAE, *SHORT)
    plain = genlab.compose(*words)
    assert plain["model"]["latent"] == 3
    assert plain["dataset"]["name"] == "digits"
    path = genlab.train(*words, run_dir=own_folder / "run")
    assert path == own_folder / "run"
    assert (path / "checkpoints/step-00000004.pt").is_file()
    assert json.loads((path / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 4


def test_samples_are_those_of_the_command(runs: dict[str, Path], load: dict[str, TrainedModel]) -> None:
    for name in ("vae", "conditional", "pixels", "gan"):
        images = load[name].sample(5, seed=3, batch_size=2)
        assert images.shape == (5, 1, 8, 8)
        assert images.dtype == torch.float32
        assert 0 <= images.min() <= images.max() <= 1
        words = ("n=5", "seed=3", "npz=true", "device=cpu", f"run_dir=samples-{name}")
        command_line.genlab("sample", f"ckpt={runs[name]}", *words)
        stored = np.load(f"samples-{name}/samples.npz")["images"]
        levels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(levels, stored)
    model = load["conditional"]
    assert len(model.sample(labels=[3, 7])) == 2
    torch.testing.assert_close(model.sample(labels=[3, 7])[0], model.sample(2, labels=[3])[0])
    assert (model.classes, list(model.labels)) == (10, list(range(10)))
    assert list(load["vae"].labels) == []


def test_codes_and_reconstructions(load: dict[str, TrainedModel]) -> None:
    model = load["vae"]
    images = digits(model)
    codes = model.encode(images, batch_size=4)
    assert codes.shape == (6, 3)
    torch.testing.assert_close(codes, check_has(model, "", "encodes").encode(images))
    torch.testing.assert_close(model.reconstruct(images), model.decode(codes))
    stored = (images * 255).round().to(torch.uint8)
    torch.testing.assert_close(model.encode(stored), codes)
    conditional = load["conditional"]
    labels = [0, 1, 2, 3, 4, 5]
    known = conditional.encode(images, labels)
    assert known.shape == (6, 3)
    assert conditional.encode(images).shape == (6, 3)  # the likeliest class of each
    assert conditional.decode(known, torch.tensor(labels)).shape == images.shape


def test_completions_keep_the_known_pixels(load: dict[str, TrainedModel]) -> None:
    model = load["pixels"]
    images = (digits(model) > 0.5).float()
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:3] = True
    done = model.complete(images, mask, n=2, seed=1)
    assert done.shape == (6, 2, 1, 8, 8)
    torch.testing.assert_close(done[..., :3, :], images[:, None, :, :3].expand(-1, 2, -1, -1, -1))
    assert set(done.unique().tolist()) <= {0.0, 1.0}
    assert not torch.equal(done[:, 0], done[:, 1])


def test_scores_say_what_they_are(load: dict[str, TrainedModel], runs: dict[str, Path]) -> None:
    exact = load["pixels"].score((digits(load["pixels"]) > 0.5).float(), batch_size=4)
    assert exact.kind == "exact"
    assert exact.nats.shape == (6,)
    model = load["vae"]
    bound = model.score(digits(model))
    tighter = model.score(digits(model), importance_samples=200)
    assert (bound.kind, tighter.kind) == ("elbo", "importance_weighted")
    assert tighter.nats.mean() < bound.nats.mean()
    labelled = load["conditional"].score(digits(model), labels=range(6))
    assert labelled.kind == "elbo"


def test_numbers_are_those_of_the_command(runs: dict[str, Path], load: dict[str, TrainedModel]) -> None:
    numbers = load["vae"].evaluate(split="validation", images=50)
    words = ("split=validation", "images=50", "device=cpu", "run_dir=numbers")
    command_line.genlab("evaluate", f"ckpt={runs['vae']}", *words)
    stored = read_json("numbers/evaluation.json")
    assert numbers["elbo_nats"] == stored["elbo_nats"]
    assert numbers.keys() <= stored.keys()


def test_the_module_goes_into_other_code(load: dict[str, TrainedModel]) -> None:
    model = load["vae"]
    assert not model.module.training
    assert not any(p.requires_grad for p in model.module.parameters())
    assert model.config.model.latent == 3
    assert model.spec.shape == (1, 8, 8)
    assert model.weights in ("average", "raw")


def test_mistakes_are_user_errors_of_one_line(load: dict[str, TrainedModel], own_folder: Path) -> None:
    images = digits(load["vae"])
    cases = {
        "no such run folder": lambda: genlab.load("nowhere"),
        "did you mean model.latent": lambda: genlab.compose("model=vae", "+model.latnt=3"),
        "modle=vae": lambda: genlab.train("modle=vae"),
        "several runs at once|several values": lambda: genlab.train("seed=0,1"),
        "this flag has no effect from Python": lambda: genlab.compose("-m", "seed=0,1"),
        "encodes no images": lambda: load["gan"].encode(images),
        "completes no images": lambda: load["vae"].complete(images, torch.ones(8, 8)),
        "has no likelihood": lambda: load["gan"].score(images),
        "takes no labels": lambda: load["vae"].sample(2, labels=[1]),
        "has classes 0 to 9": lambda: load["conditional"].sample(labels=[12]),
        "labels: missing": lambda: load["conditional"].decode(torch.zeros(1, 3)),
        "labels: shape": lambda: load["conditional"].encode(images, labels=[1]),
        r"images: \(8, 8\) given": lambda: load["vae"].encode(images[0, 0]),
        r"images: values outside \[0, 1\]": lambda: load["vae"].encode(images * 255),
        r"mask: has shape \(4, 4\)": lambda: load["pixels"].complete(images.round(), torch.ones(4, 4)),
        "n=0: must be at least 1": lambda: load["vae"].sample(0),
        "split=": lambda: load["vae"].evaluate(split="tset"),
        "no posterior": lambda: load["pixels"].score(images, importance_samples=3),
    }
    for line, mistake in cases.items():
        with pytest.raises(genlab.UserError, match=line) as caught:
            mistake()
        assert "\n" not in str(caught.value)
