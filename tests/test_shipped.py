"""Every shipped configuration, typed as a user would: trains, resumes bit for bit, samples, is evaluated."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.checkout import config_names, narrowed, required_words
from helpers.command_line import composed, genlab
from helpers.runs import metric_rows, read_json

from genlab import registry
from genlab.commands import train
from genlab.runs import checkpoint

STEPS = 4
SHORT = [
    f"trainer.steps={STEPS}", "trainer.batch_size=8", "trainer.checkpoint_every=2",
    "trainer.evaluate_images=8",
    "trainer.sample_images=4", "trainer.sample_every=2", "trainer.log_every=1", "trainer.device=cpu",
]  # fmt: skip
COLOUR = ("cifar10", "svhn", "emoji", "folder", "npz")
SHAPES = dict.fromkeys(COLOUR, (32, 32, 3)) | {"digits": (8, 8)}  # others are 28x28 and grey
OPTIONS = [
    f"{group}={name}"
    for group in ("model", "optimizer", "schedule", "trainer", "experiment")
    for name in config_names(group)
]


def pictures_like(dataset: dict[str, Any]) -> dict[str, Any]:
    """Random images of a dataset's shape, treated as the configuration says."""
    shape = SHAPES.get(dataset["name"], (28, 28))
    rng = np.random.default_rng(0)
    arrays = {
        f"{split}_{kind}": values
        for split, n in (("train", 100), ("test", 20))
        for kind, values in {
            "images": rng.integers(0, 256, (n, *shape), dtype=np.uint8),
            "labels": rng.integers(0, 10, n),
        }.items()
    }
    np.savez("pictures.npz", allow_pickle=False, **arrays)
    kept = ("binarize", "threshold", "dequantize", "flip", "size", "channels")
    return {"name": "npz", "path": "pictures.npz"} | {k: dataset[k] for k in kept if k in dataset}


def codes_of_pictures() -> dict[str, Any]:
    """The codes of random images by a VQ-VAE that is as good as new."""
    small = ["model.width=4", "model.codes=20", "model.code_dimensions=2"]
    genlab("train", "model=vqvae", *small, *SHORT, "run_dir=vqvae")
    return {"name": "codes", "ckpt": "vqvae"}


@pytest.mark.parametrize("word", OPTIONS)
def test_every_option_trains(word: str) -> None:
    # plain descent on a sum over pixels needs its gradient clipped, as the message of a diverged run says
    more = ["optimizer.clip_grad_norm=1"] if word in ("optimizer=sgd", "optimizer=plain_sgd") else []
    genlab("train", word, *SHORT, *more, "run_dir=run")
    state = checkpoint.find(Path("run"))[1]
    assert state["step"] == STEPS
    rows = metric_rows("run")
    assert [row["step"] for row in rows if "images_per_second" in row] == [1, 2, 3, 4]
    assert all(np.isfinite(value) for row in rows for value in row.values())


def in_default_run(recipe: str) -> bool:
    """Autoregressive models are sampled pixel by pixel: most of their recipes wait for the slow tests.

    So do the recipes of emoji and npz, which are those of folder.
    """
    autoregressive = ("pixel", "gated_pixelcnn", "row_lstm", "diagonal_bilstm", "autoregressive")
    quick = ("gated_pixelcnn_mnist", "gated_pixelcnn_codes", "autoregressive_digits")
    return recipe in quick or not (recipe.startswith(autoregressive) or recipe.endswith(("_emoji", "_npz")))


RECIPES = [
    name if in_default_run(name) else pytest.param(name, marks=pytest.mark.slow)
    for name in config_names("recipe")
]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_and_resumes_bit_for_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, dataset = next(
        (m, d) for m in config_names("model") for d in config_names("dataset") if f"{m}_{d}" == name
    )
    with monkeypatch.context() as patch:
        words = [f"model={model}", f"dataset={dataset}", *required_words(dataset)]
        (plain,) = composed(patch, *words, *SHORT, *narrowed(model))
    plain["dataset"] = codes_of_pictures() if dataset == "codes" else pictures_like(plain["dataset"])
    registry.train_config(plain)
    train.start(plain, [], "whole")
    shutil.copytree("whole", "cut")
    Path("cut/checkpoints/step-00000004.pt").unlink()
    train.resume("cut", None, [])
    whole, cut = (checkpoint.find(Path(run))[1] for run in ("whole", "cut"))
    assert whole["step"] == cut["step"] == STEPS
    assert whole["weights"].keys() == cut["weights"].keys()
    assert all(torch.equal(whole["weights"][key], cut["weights"][key]) for key in whole["weights"])
    assert (
        Path("whole/samples/step-00000004.png").read_bytes()
        == Path("cut/samples/step-00000004.png").read_bytes()
    )


WITHOUT_DATA = ("bilinear_game",)
WITHOUT_IMAGES = ("classifier",)
WITHOUT_PRIOR = ("ae", "dae", "stacked_dae")
WITHOUT_SAMPLES = ("vqvae",)


@pytest.mark.parametrize(
    "name", [n for n in config_names("model") if n not in (*WITHOUT_DATA, *WITHOUT_IMAGES)]
)
def test_every_model_samples_and_is_evaluated(name: str) -> None:
    genlab("train", f"model={name}", *SHORT, "run_dir=run")
    if name not in WITHOUT_SAMPLES:
        prior = ["prior=fit", "components=1"] if name in WITHOUT_PRIOR else []
        genlab("sample", "ckpt=run", "n=3", *prior, "run_dir=samples")
        assert len(list(Path("samples/images").iterdir())) == 3
    genlab("evaluate", "ckpt=run", "images=10", "run_dir=numbers")
    numbers = read_json("numbers/evaluation.json")
    assert numbers["images"] == 10
    assert numbers["split"] == "test"
    assert Path("numbers/reconstructions.png").is_file() or name not in ("vae", "vqvae")


@pytest.mark.parametrize("name", WITHOUT_DATA)
def test_a_model_without_data_is_neither_sampled_nor_evaluated(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    genlab("train", f"model={name}", *SHORT, "run_dir=run")
    assert "ckpt=" not in capsys.readouterr().out  # not suggested either
    for verb, reason in (
        ("sample", "has no data; see samples/"),
        ("evaluate", "has no data to be evaluated"),
    ):
        genlab(verb, "ckpt=run", "device=cpu", f"run_dir={verb}", code=2)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"genlab: ckpt=run: {name} {reason}")
        assert not Path(verb).exists()
