"""`genlab sample` and `genlab evaluate` with an autoregressive model: temperature, labels, exact numbers."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from genlab import build, cli, sampling, train
from genlab.rng import SampleRng

CPU = torch.device("cpu")


def trained(folder: Path, model: str = "gated_pixelcnn", **settings: object) -> str:
    """A run of two steps on digits; its folder."""
    small = {"width": 8, "layers": 1, "head": 8} if model == "gated_pixelcnn" else {}
    plain = {
        "model": {"name": model} | small | settings,
        "dataset": {"name": "digits"},
        "optimizer": {"name": "adam"},
        "schedule": {"name": "constant"},
        "trainer": {
            "steps": 2, "batch_size": 16, "device": "cpu", "evaluate_images": 10, "sample_images": 10,
        },
    }  # fmt: skip
    return str(train.start(plain, [], str(folder)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return trained(tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> str:
    return trained(tmp_path_factory.mktemp("conditional") / "run", class_conditional=True)


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> str:
    return trained(tmp_path_factory.mktemp("vae") / "run", "vae", hidden=[8])


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> str:
    return trained(tmp_path_factory.mktemp("gan") / "run", "gan", network="mlp")


def genlab(*words: str) -> None:
    assert cli.main([*words, "device=cpu"]) == 0


def one_line(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that answers a mistake, after which nothing is written."""
    before = sorted(Path().rglob("*"))
    capsys.readouterr()
    assert cli.main([*words, "device=cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sorted(Path().rglob("*")) == before
    return line


def samples(folder: str) -> np.ndarray:
    return np.load(f"{folder}/samples.npz")["images"]


def test_a_temperature_reaches_the_model_and_the_file(run: str) -> None:
    genlab("sample", f"ckpt={run}", "n=3", "temperature=0.1", "npz=true", "run_dir=cold")
    genlab("sample", f"ckpt={run}", "n=3", "npz=true", "run_dir=warm")
    family = sampling.load_model(run, "auto", CPU).family
    with torch.no_grad():
        expected = family.sample(3, rng=SampleRng(0, range(3)), temperature=0.1)  # type: ignore[call-arg]
    assert np.array_equal(samples("cold"), sampling.to_uint8(expected).permute(0, 2, 3, 1).numpy())
    assert not np.array_equal(samples("cold"), samples("warm"))
    assert json.loads(Path("cold/samples.json").read_text())["temperature"] == 0.1
    assert json.loads(Path("warm/samples.json").read_text())["temperature"] == 1.0


def test_mistakes_of_temperature(run: str, vae: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = one_line(capsys, "sample", f"ckpt={run}", "temperature=0")
    assert line == "genlab: temperature=0.0: must be above 0"
    line = one_line(capsys, "sample", f"ckpt={vae}", "temperature=0.8")
    assert line == "genlab: temperature=0.8: vae takes none; leave temperature out"
    genlab("sample", f"ckpt={vae}", "temperature=1", "n=1", "run_dir=out")
    line = one_line(capsys, "sample", f"ckpt={run}", "labels=[3]")
    assert line == "genlab: labels=[3]: gated_pixelcnn takes no labels; leave labels out"


def test_labels_of_a_class_conditional_model(conditional: str, capsys: pytest.CaptureFixture[str]) -> None:
    genlab("sample", f"ckpt={conditional}", "n=3", "labels=[3,7]", "npz=true", "run_dir=given")
    family = sampling.load_model(conditional, "auto", CPU).family
    with torch.no_grad():
        expected = family.sample(3, rng=SampleRng(0, range(3)), labels=torch.tensor([3, 7, 3]))
    assert np.array_equal(samples("given"), sampling.to_uint8(expected).permute(0, 2, 3, 1).numpy())
    genlab("sample", f"ckpt={conditional}", "n=20", "npz=true", "run_dir=rows")
    assert np.load("rows/samples.npz")["labels"].tolist() == [k for k in range(10) for _ in range(2)]
    line = one_line(capsys, "sample", f"ckpt={conditional}", "labels=[10]")
    assert line == "genlab: labels=[10]: digits has classes 0 to 9"
