"""`genlab reconstruct`: pictures and numbers are those of the model, mistakes take a line."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import genlab, one_line
from helpers.pictures import numbers, originals, picture, write_picture
from helpers.runs import read_json

from genlab.report.pictures import save_bands, to_uint8
from genlab.trained.latent_space import latent_family
from genlab.trained.model import load_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vae(trained_run: Callable[..., str]) -> str:
    return trained_run("vae", hidden=[8], latent=3)


@pytest.fixture(scope="module")
def gan(trained_run: Callable[..., str]) -> str:
    return trained_run("gan", network="mlp")


def facts_of(folder: str, verb: str = "reconstructions") -> dict:
    return read_json(folder, f"{verb}.json")


def test_originals_stand_above_reconstructions(vae: str, capsys: pytest.CaptureFixture[str]) -> None:
    genlab("reconstruct", f"ckpt={vae}", "count=12", "batch_size=5", "run_dir=out")
    out, err = capsys.readouterr()
    facts = facts_of("out")
    assert out.splitlines() == [
        f"mean squared error {facts['mean_squared_error']:.5f}, PSNR {facts['psnr_db']:.2f} dB; "
        "means of 12 images",
        "wrote out: reconstructions.png, images/ (12 files), reconstructions.json",
        out.splitlines()[2],
    ]
    assert out.splitlines()[2].startswith("next: genlab ")
    assert "reconstructing 12 images" in err
    model, images = load_model(vae, "auto", CPU), originals(vae, 12)
    with torch.no_grad():
        restored = latent_family(model).decode(latent_family(model).encode(images))
    names = [f"{k:05d}.png" for k in range(12)]
    assert sorted(p.name for p in Path("out/images").iterdir()) == names
    for k, name in enumerate(names):
        assert (picture(f"out/images/{name}") == to_uint8(restored[k, 0]).numpy()).all()
    sheet = picture("out/reconstructions.png").reshape(4 * 50 + 2, 10 * 50 + 2)
    for k in range(12):
        for row, shown in ((0, images), (1, restored)):
            top, left = (k // 10 * 2 + row) * 50 + 2, k % 10 * 50 + 2
            cell = sheet[top : top + 48 : 6, left : left + 48 : 6]
            assert (cell == to_uint8(shown[k, 0]).numpy()).all()
    assert (sheet[102:, 102:] == 128).all()  # nothing after the last image
    rows = facts["reconstructions"]
    error = (images - restored).double().square().mean((1, 2, 3))
    assert [row["mean_squared_error"] for row in rows] == pytest.approx(error.tolist(), rel=1e-5)
    assert [row["psnr_db"] for row in rows] == pytest.approx((-10 * error.log10()).tolist(), rel=1e-5)
    assert facts["mean_squared_error"] == pytest.approx(error.mean().item(), rel=1e-5)
    assert facts["psnr_db"] == pytest.approx(sum(row["psnr_db"] for row in rows) / 12)
    assert [row["image"] for row in rows] == [f"digits test {k}" for k in numbers(12)]
    assert [row["file"] for row in rows] == [f"images/{name}" for name in names]
    assert (facts["model"], facts["images"], facts["count"]) == ("vae", "digits, test split", 12)


def test_the_batch_size_changes_no_number(vae: str) -> None:
    for batch_size in (3, 256):
        genlab("reconstruct", f"ckpt={vae}", "count=7", f"batch_size={batch_size}", f"run_dir=b{batch_size}")
    few, many = (facts_of(f"b{size}")["reconstructions"] for size in (3, 256))
    assert [r["psnr_db"] for r in few] == pytest.approx([r["psnr_db"] for r in many], rel=1e-5)


def test_one_s_own_pictures(vae: str) -> None:
    grey = np.arange(64).reshape(8, 8) * 4
    write_picture("mine/a.png", grey)
    write_picture("mine/more/b.png", np.stack([grey.T] * 3, -1))
    genlab("reconstruct", f"ckpt={vae}", "images=mine", "run_dir=out")
    facts = facts_of("out")
    assert facts["images"] == "mine"
    assert [row["image"] for row in facts["reconstructions"]] == ["mine/a.png", "mine/more/b.png"]
    levels = torch.from_numpy(np.round(grey / 255 * 16) / 16).float()[None, None]
    family = latent_family(load_model(vae, "auto", CPU))
    with torch.no_grad():
        error = (family.decode(family.encode(levels)) - levels).square().mean().item()
    assert facts["reconstructions"][0]["mean_squared_error"] == pytest.approx(error, rel=1e-5)
    assert facts["reconstructions"][0]["psnr_db"] == pytest.approx(10 * math.log10(1 / error), rel=1e-5)


def test_a_sheet_has_a_row_of_each_version_in_turn() -> None:
    versions = [torch.full((3, 1, 48, 48), value) for value in (0.0, 1.0, 0.2)]
    save_bands(versions, Path("sheet.png"), columns=2)
    cells = picture("sheet.png")[2 + 24 :: 50, 2 + 24 :: 50]
    assert cells.tolist() == [[0, 0], [255, 255], [51, 51], [0, 128], [255, 128], [51, 128]]


MISTAKES = {
    "images=nowhere": "images=nowhere: no such picture or folder",
    "images=wide.png": "images=wide.png: 8x10 pixels (height x width), the model's images have 8x8",
    "count=0": "count=0: must be at least 1",
    "split=tset": "did you mean split=test?",
    "dataset.flip=true": "dataset.flip: dataset settings are fixed by the checkpoint",
    "run_dir=full": "run_dir=full: holds files already",
}


@pytest.mark.parametrize("word", MISTAKES)
def test_a_mistake_gives_one_line_and_writes_nothing(
    vae: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture("wide.png", np.zeros((8, 10)))
    write_picture("full/good.png", np.zeros((8, 8)))
    assert MISTAKES[word] in one_line(capsys, "reconstruct", f"ckpt={vae}", word)


def test_a_model_without_an_encoder_is_refused(gan: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = one_line(capsys, "reconstruct", f"ckpt={gan}")
    assert line.startswith(f"genlab: ckpt={gan}: gan encodes no images; models that do: ")
    assert "vae" in line


def test_points_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from helpers.runs import plain_config

    from genlab.commands import train

    plain = plain_config("vae", dataset="ring", steps=1, batch_size=4, evaluate_every=0, sample_every=0)
    plain["model"] |= {"hidden": [4], "latent": 2}
    run = str(train.start(plain, [], str(tmp_path / "ring")))
    line = one_line(capsys, "reconstruct", f"ckpt={run}")
    assert line == f"genlab: ckpt={run}: ring has points, not images; see genlab sample"
