"""`genlab sample` and `genlab evaluate` with an autoregressive model: temperature, labels, exact numbers."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import genlab, one_line
from helpers.fake_gpu import RecordedGraph, recorded_graphs
from helpers.pictures import samples
from helpers.runs import read_json

from genlab import registry
from genlab.commands.evaluate import write_per_image
from genlab.families import autoregressive
from genlab.nets.scanning import Scanner
from genlab.report.pictures import to_uint8
from genlab.rng import SampleRng
from genlab.trained.model import load_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(trained_run: Callable[..., str]) -> str:
    return trained_run()


@pytest.fixture(scope="module")
def conditional(trained_run: Callable[..., str]) -> str:
    return trained_run(class_conditional=True)


@pytest.fixture(scope="module")
def vae(trained_run: Callable[..., str]) -> str:
    return trained_run("vae", hidden=[8])


@pytest.fixture(scope="module")
def gan(trained_run: Callable[..., str]) -> str:
    return trained_run("gan", network="mlp")


def test_a_temperature_reaches_the_model_and_the_file(run: str) -> None:
    genlab("sample", f"ckpt={run}", "n=3", "temperature=0.1", "npz=true", "run_dir=cold")
    genlab("sample", f"ckpt={run}", "n=3", "npz=true", "run_dir=warm")
    family = load_model(run, "auto", CPU).family
    with torch.no_grad():
        expected = family.sample(3, rng=SampleRng(0, range(3)), temperature=0.1)  # type: ignore[call-arg]
    assert np.array_equal(samples("cold"), to_uint8(expected).permute(0, 2, 3, 1).numpy())
    assert not np.array_equal(samples("cold"), samples("warm"))
    assert read_json("cold/samples.json")["temperature"] == 0.1
    assert read_json("warm/samples.json")["temperature"] == 1.0


@pytest.mark.parametrize(
    "words", [("sample", "n=6", "batch_size=2"), ("complete", "n=2", "count=3", "batch_size=2")]
)
def test_the_batches_of_a_command_share_a_graph(
    run: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    genlab(*words, f"ckpt={run}", "run_dir=eager")
    monkeypatch.setattr(autoregressive, "Scanner", lambda *given, graph: Scanner(*given, graph=True))
    with recorded_graphs():
        genlab(*words, f"ckpt={run}", "run_dir=graph")
        assert RecordedGraph.captures == 1
    eager, graphed = (sorted(Path(folder).glob("images/*.png")) for folder in ("eager", "graph"))
    assert len(eager) == 6
    assert [path.read_bytes() for path in eager] == [path.read_bytes() for path in graphed]


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
    family = load_model(conditional, "auto", CPU).family
    with torch.no_grad():
        expected = family.sample(3, rng=SampleRng(0, range(3)), labels=torch.tensor([3, 7, 3]))
    assert np.array_equal(samples("given"), to_uint8(expected).permute(0, 2, 3, 1).numpy())
    genlab("sample", f"ckpt={conditional}", "n=20", "npz=true", "run_dir=rows")
    assert np.load("rows/samples.npz")["labels"].tolist() == [k for k in range(10) for _ in range(2)]
    line = one_line(capsys, "sample", f"ckpt={conditional}", "labels=[10]")
    assert line == "genlab: labels=[10]: digits has classes 0 to 9"


def test_mean_and_standard_error_are_those_of_one_batch_in_float64(run: str) -> None:
    genlab("evaluate", f"ckpt={run}", "images=10", "batch_size=4", "run_dir=numbers")
    numbers = read_json("numbers/evaluation.json")
    model = load_model(run, "auto", CPU)
    _, batch = registry.dataset(model.config.dataset).examples("test", 10, 0)
    images = batch.images.double()
    with torch.no_grad():
        logits = model.family.double().get_submodule("network")(images)  # (10, 8, 8, 17)
    levels = (images[:, 0] * 16).round().long()
    of_levels = logits.exp().gather(-1, levels[..., None])[..., 0] / logits.exp().sum(-1)
    nats = -of_levels.log().sum((1, 2))
    for name, each in {"nll_nats": nats, "nll_bits_per_dim": nats / 64 / math.log(2)}.items():
        mean = each.sum() / 10
        error = ((each - mean).square().sum() / 9).sqrt() / math.sqrt(10)
        assert numbers[name] == pytest.approx(mean.item(), rel=1e-6)
        assert numbers[f"{name}_standard_error"] == pytest.approx(error.item(), rel=1e-5)
    assert numbers["setting"]["likelihood"] == "exact, categorical pixels"


def read_csv(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_each_image_has_a_line_and_the_mean_of_a_column_is_the_reported_one(
    run: str, vae: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for ckpt, names in (
        (run, ["nll_nats", "nll_bits_per_dim"]),
        (vae, ["elbo_nats", "reconstruction_nats", "kl_nats", "elbo_bits_per_dim"]),
    ):
        folder = f"numbers-{len(names)}"
        words = ["evaluate", f"ckpt={ckpt}", "images=10", "batch_size=4", "per_image=true"]
        genlab(*words, f"run_dir={folder}")
        assert f"wrote {folder}: evaluation.json, per_image.csv" in capsys.readouterr().out
        rows = read_csv(f"{folder}/per_image.csv")
        assert list(rows[0]) == ["index", "label", *names]
        model = load_model(ckpt, "auto", CPU)
        dataset = registry.dataset(model.config.dataset)
        indices, batch = next(dataset.evaluation_batches("test", 10, 0, 10))
        assert [int(row["index"]) for row in rows] == indices
        assert batch.labels is not None
        assert [int(row["label"]) for row in rows] == batch.labels.tolist()
        numbers = read_json(folder, "evaluation.json")
        for name in names:
            values = [float(row[name]) for row in rows]
            assert len(set(values)) == 10
            assert sum(values) / 10 == pytest.approx(numbers[name], rel=1e-12)
    genlab("evaluate", f"ckpt={run}", "images=3", "run_dir=without")
    assert not Path("without/per_image.csv").exists()


def test_without_labels_there_is_no_column_of_them(tmp_path: Path) -> None:
    write_per_image(tmp_path / "a.csv", torch.tensor([7, 3]), {"nll_nats": torch.tensor([0.5, 2.0])}, None)
    assert (tmp_path / "a.csv").read_text() == "index,nll_nats\n7,0.5\n3,2.0\n"


def test_a_family_without_numbers_of_an_image_is_refused(
    gan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = one_line(capsys, "evaluate", f"ckpt={gan}", "images=10", "per_image=true", "run_dir=out")
    assert line == "genlab: per_image=true: gan has no metric of single images; leave per_image out"
