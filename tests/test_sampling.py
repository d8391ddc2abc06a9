"""Images out: one seed for each image, whatever the batch; the weights that were asked for; whole files."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.runs import plain_config, read_json
from PIL import Image
from torchvision.utils import make_grid

from genlab.commands import evaluate, sample, train
from genlab.errors import CheckpointError, ConfigError, UserError
from genlab.report.pictures import grid, to_uint8
from genlab.rng import SampleRng, derive_seed
from genlab.runs import checkpoint
from genlab.trained.model import load_model
from genlab.trained.numbers import evaluate_split

pytestmark = pytest.mark.usefixtures("toy")
CPU = torch.device("cpu")


@pytest.fixture
def run(own_folder: Path) -> Path:
    return train.start(plain_config(), [], "run")


def test_sample_depends_on_seed_and_number_alone(run: Path) -> None:
    sample.main({"ckpt": "run", "n": 7, "seed": 3, "batch_size": 7, "npz": True, "run_dir": "a"})
    sample.main({"ckpt": "run", "n": 5, "seed": 3, "batch_size": 2, "npz": True, "run_dir": "b"})
    sample.main({"ckpt": "run", "n": 5, "seed": 4, "batch_size": 2, "npz": True, "run_dir": "c"})
    a, b, c = (np.load(f"{folder}/samples.npz")["images"] for folder in "abc")
    assert a.shape == (7, 8, 8, 1)
    assert a.dtype == np.uint8
    assert np.array_equal(a[:5], b)
    assert not np.array_equal(b, c)
    assert sorted(p.name for p in Path("a/images").iterdir()) == [f"0000{k}.png" for k in range(7)]
    for k in range(7):
        assert np.array_equal(np.asarray(Image.open(f"a/images/0000{k}.png")), a[k, :, :, 0])
    facts = read_json("a/samples.json")
    assert (facts["seed"], facts["n"], facts["step"], facts["weights"]) == (3, 7, 12, "average")


def test_a_checkpoint_file_and_its_run_give_the_same_images(run: Path) -> None:
    file = checkpoint.list_checkpoints(run / "checkpoints")[0]
    sample.main({"ckpt": str(file), "n": 2, "npz": True, "run_dir": "a"})
    sample.main({"ckpt": "run", "n": 2, "npz": True, "run_dir": "b"})
    assert np.array_equal(np.load("a/samples.npz")["images"], np.load("b/samples.npz")["images"])


def test_average_and_raw_weights_differ_and_are_those_of_training(run: Path) -> None:
    state = checkpoint.find(run)[1]
    for weights in ("average", "raw"):
        model = load_model("run", weights, CPU)
        stored = (
            state["averages"]["one"]["weights"]["first.weight"]
            if weights == "average"
            else state["weights"]["one.first.weight"]
        )
        assert torch.equal(model.family.get_parameter("one.first.weight"), stored)
    assert load_model("run", "auto", CPU).weights == "average"
    train.start(plain_config(ema_half_life_images=0), [], "without")
    assert load_model("without", "auto", CPU).weights == "raw"
    with pytest.raises(CheckpointError, match="weights=raw"):
        load_model("without", "average", CPU)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 0}, "n=0: must be at least 1"),
        ({"nn": 3}, "nn: unknown key for this command; did you mean n?"),
        ({"ckpt": "nowhere"}, "ckpt=nowhere: no such run folder"),
        ({"labels": [3]}, "toy takes no labels"),
        ({"dataset": {"size": 4}}, "dataset.size: dataset settings are fixed by the checkpoint"),
        ({"dataset": {"nothing": 4}}, "dataset.nothing: dataset settings are fixed by the checkpoint"),
        ({"device": "tpu"}, "device=tpu: no such device"),
        ({"run_dir": "run"}, "holds files already"),
    ],
)
def test_mistakes(run: Path, changes: dict, message: str) -> None:
    before = sorted(Path().rglob("*"))
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        sample.main({"ckpt": "run", "n": 2} | changes)
    assert sorted(Path().rglob("*")) == before


def test_the_checkpoint_is_found_from_wherever_a_user_points(run: Path) -> None:
    newest = checkpoint.find(run)[0]
    for inside in ("checkpoints", "checkpoints/latest", f"checkpoints/{newest.name}"):
        assert checkpoint.find(run / inside)[0] == newest


def test_a_folder_that_is_no_run_is_told_apart_from_one_without_checkpoints(
    run: Path, tmp_path: Path
) -> None:
    (tmp_path / "sweep").mkdir()
    shutil.copytree(run, tmp_path / "sweep" / "0")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "latest").write_text("step-00000003.pt\n")
    for inside, message in {
        "sweep": f"holds 1 runs; give one of them, e.g. ckpt={tmp_path / 'sweep' / '0'}",
        "sweep/0/samples": "no run folder and no checkpoint file",
        "new": "no checkpoint in it yet; go on with: genlab resume",
        "latest": "names no checkpoint beside it",
    }.items():
        with pytest.raises(CheckpointError, match=re.escape(message)):
            checkpoint.find(tmp_path / inside)


def test_evaluation_does_not_depend_on_the_batch_size(run: Path) -> None:
    for batch_size in (500, 7):
        evaluate.main({"ckpt": "run", "split": "test", "batch_size": batch_size, "run_dir": f"b{batch_size}"})
    a, b = (read_json(f"b{n}/evaluation.json") for n in (500, 7))
    assert a["images"] == b["images"] > 100
    assert a["squared_error"] == pytest.approx(b["squared_error"], rel=1e-6)
    assert a["largest_code"] == 1.0
    assert a["split"] == "test"
    assert a["setting"]["levels"] == 17


def test_mean_and_standard_error_by_hand(run: Path) -> None:
    from genlab import registry

    model = load_model("run", "auto", CPU)
    dataset = registry.dataset(model.config.dataset).to(CPU)
    errors = torch.cat(
        [
            model.family.evaluate(batch, rng=SampleRng(5, indices, purpose="evaluation"))["squared_error"]
            for indices, batch in dataset.evaluation_batches("test", 64, 5, 100)
        ]
    )
    assert len(errors) == 100  # 64 + an incomplete batch of 36
    numbers = evaluate_split(
        model.family, dataset, "test", batch_size=64, seed=5, torch_device=CPU, limit=100, quiet=True
    )
    assert numbers["squared_error"] == pytest.approx(errors.mean().item(), rel=1e-6)
    assert numbers["squared_error_standard_error"] == pytest.approx(errors.std().item() / 10, rel=1e-6)


def test_evaluate_refuses_other_data(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.flip: dataset settings are fixed by the checkpoint"):
        evaluate.main({"ckpt": "run", "dataset": {"flip": True}})


def test_streams_of_random_numbers() -> None:
    many, few = SampleRng(1, range(10)).normal(3), SampleRng(1, [7, 2]).normal(3)
    assert torch.equal(many[[7, 2]], few)
    assert not torch.equal(many, SampleRng(2, range(10)).normal(3))
    assert not torch.equal(many, SampleRng(1, range(10), purpose="other").normal(3))
    assert len({tuple(row) for row in many.tolist()}) == 10
    big = SampleRng(0, range(2000))
    z, u, k = big.normal(50), big.uniform(50), big.integers(5, 50)
    assert abs(z.mean()) < 0.02
    assert abs(z.std() - 1) < 0.02
    assert abs(u.mean() - 0.5) < 0.01
    assert u.min() >= 0
    assert u.max() < 1
    assert sorted(k.unique().tolist()) == [0, 1, 2, 3, 4]
    assert derive_seed(1, "a", 2) == derive_seed(1, "a", 2) != derive_seed(1, "a", 3)


@pytest.mark.parametrize(("count", "channels", "columns"), [(1, 1, 1), (5, 3, 3), (7, 1, 3), (12, 3, 20)])
def test_grid_is_torchvision_s(count: int, channels: int, columns: int) -> None:
    """Whose import costs more than that of all else but torch."""
    pixels = torch.randint(256, (count, channels, 48, 40), dtype=torch.uint8)
    expected = make_grid(pixels, nrow=columns, padding=2, pad_value=128)
    assert torch.equal(grid(pixels, columns), expected[:channels])


def test_grid_is_enlarged_and_row_by_row() -> None:
    pixels = torch.zeros(6, 1, 8, 8, dtype=torch.uint8)
    pixels[1] = 255
    sheet = grid(pixels, columns=3)
    assert sheet.shape == (1, 2 * 50 + 2, 3 * 50 + 2)
    assert sheet[0, 20, 20] == 0
    assert sheet[0, 20, 70] == 255
    assert sheet[0, 70, 70] == 0
    assert torch.equal(
        to_uint8(torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0])),
        torch.tensor([0, 0, 128, 255, 255], dtype=torch.uint8),
    )
