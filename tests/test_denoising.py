"""`genlab denoise`: numbers of noisy, restored and filtered images, mistakes in a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import genlab, one_line
from helpers.pictures import numbers, originals, picture, write_picture
from helpers.runs import read_json
from torch import Tensor

from genlab.commands.denoise import median_filter
from genlab.config.autoencoders import NoiseKind
from genlab.data.corruption import corrupt
from genlab.report.pictures import to_uint8
from genlab.rng import SampleRng
from genlab.trained.latent_space import families_that, latent_family
from genlab.trained.model import load_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dae(trained_run: Callable[..., str]) -> str:
    return trained_run("dae", hidden=[8], latent=3, noise="salt_and_pepper", noise_level=0.2)


@pytest.fixture(scope="module")
def vae(trained_run: Callable[..., str]) -> str:
    return trained_run("vae", hidden=[8], latent=3)


@pytest.fixture(scope="module")
def gan(trained_run: Callable[..., str]) -> str:
    return trained_run("gan", network="mlp")


def facts_of(folder: str) -> dict[str, Any]:
    return read_json(folder, "denoised.json")


def psnr(image: Tensor, other: Tensor) -> float:
    return -10 * (image - other).double().square().mean().log10().item()


def median(image: Tensor) -> Tensor:
    """Of the 3x3 around each pixel of (H, W), by sorting; the border is doubled."""
    rows, columns = image.shape
    found = torch.empty_like(image)
    for y in range(rows):
        for x in range(columns):
            around = [
                image[min(max(y + dy, 0), rows - 1), min(max(x + dx, 0), columns - 1)]
                for dy in (-1, 0, 1)
                for dx in (-1, 0, 1)
            ]
            found[y, x] = sorted(around)[4]
    return found


def test_the_median_of_nine_pixels() -> None:
    images = torch.rand(3, 2, 5, 6)
    found = median_filter(images)
    assert found.shape == images.shape
    for image, filtered in zip(images.flatten(0, 1), found.flatten(0, 1), strict=True):
        assert torch.equal(filtered, median(image))


def test_clean_noisy_and_restored_with_their_numbers(vae: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    words = ["denoise", f"ckpt={vae}", "count=3", "noise=gaussian", "level=0.4", "seed=2"]
    genlab(*words, "run_dir=out")
    out, err = capsys.readouterr()
    facts = facts_of("out")
    means = [facts[f"{name}_psnr_db"] for name in ("noisy", "restored", "median_filter")]
    assert out.splitlines() == [
        "PSNR: noisy {:.2f} dB, restored {:.2f} dB, median filter {:.2f} dB".format(*means)
        + "; means of 3 images with gaussian noise of 0.4",
        "denoised.png has, row by row: clean, noisy, restored, median filter",
        "wrote out: denoised.png, images/ (3 files), denoised.json",
        f"next: genlab reconstruct ckpt={vae}",
    ]
    assert "gaussian noise of 0.4 in 3 images" in err
    clean = originals(vae, 3)
    noisy = clean + 0.4 * SampleRng(2, numbers(3), purpose="denoise").normal(1, 8, 8)
    family = latent_family(load_model(vae, "auto", CPU))
    with torch.no_grad():
        restored = family.decode(family.encode(noisy))  # noise is not cut off before the model
    shown = noisy.clamp(0, 1)
    sheet = picture("out/denoised.png").reshape(202, 152)
    for k, row in enumerate(facts["denoised"]):
        assert row["noisy_psnr_db"] == pytest.approx(psnr(shown[k], clean[k]), rel=1e-5)
        assert row["restored_psnr_db"] == pytest.approx(psnr(restored[k], clean[k]), rel=1e-5)
        filtered = median(shown[k, 0])
        assert row["median_filter_psnr_db"] == pytest.approx(psnr(filtered, clean[k, 0]), rel=1e-5)
        assert (row["file"], row["image"]) == (f"images/0000{k}.png", f"digits test {numbers(3)[k]}")
        assert (picture(f"out/{row['file']}") == to_uint8(restored[k, 0]).numpy()).all()
        for band, version in enumerate((clean, shown, restored, median_filter(shown))):
            cell = sheet[50 * band + 2 : 50 * band + 50 : 6, 50 * k + 2 : 50 * k + 50 : 6]
            assert (cell == to_uint8(version[k, 0]).numpy()).all()
    for name in ("noisy", "restored", "median_filter"):
        mean = sum(row[f"{name}_psnr_db"] for row in facts["denoised"]) / 3
        assert facts[f"{name}_psnr_db"] == pytest.approx(mean)
    assert (facts["noise"], facts["level"], facts["seed"]) == ("gaussian", 0.4, 2)


def test_noise_is_that_of_training_unless_another_is_asked_for(dae: str, vae: str) -> None:
    cases: list[tuple[str, list[str], tuple[NoiseKind, float]]] = [
        (dae, [], ("salt_and_pepper", 0.2)),
        (dae, ["level=0.5"], ("salt_and_pepper", 0.5)),
        (dae, ["noise=salt_and_pepper"], ("salt_and_pepper", 0.2)),
        (dae, ["noise=masking"], ("masking", 0.3)),
        (vae, [], ("gaussian", 0.3)),
    ]
    for run, words, expected in cases:
        folder = f"out-{Path(run).parent.name}-{'-'.join(words).replace('=', '-')}"
        genlab("denoise", f"ckpt={run}", "count=2", *words, f"run_dir={folder}")
        facts = facts_of(folder)
        assert (facts["noise"], facts["level"]) == expected
        noisy = corrupt(originals(run, 2), *expected, SampleRng(0, numbers(2), purpose="denoise")).clamp(0, 1)
        expected_psnr = [psnr(a, b) for a, b in zip(noisy, originals(run, 2), strict=True)]
        found = [row["noisy_psnr_db"] for row in facts["denoised"]]
        assert found == pytest.approx(expected_psnr, rel=1e-5)


def test_without_noise_there_is_no_ratio_to_it(dae: str) -> None:
    genlab("denoise", f"ckpt={dae}", "count=1", "level=0", "run_dir=out")
    facts = facts_of("out")
    assert facts["noisy_psnr_db"] is None  # infinite, which JSON has no word for
    assert facts["denoised"][0]["noisy_psnr_db"] is None
    genlab("reconstruct", f"ckpt={dae}", "count=1", "run_dir=same")
    restored = read_json("same/reconstructions.json")["psnr_db"]
    assert facts["restored_psnr_db"] == pytest.approx(restored, rel=1e-6)


def test_one_s_own_pictures(dae: str) -> None:
    for k in range(2):
        write_picture(f"mine/{k}.png", np.full((8, 8), 100 * k))
    genlab("denoise", f"ckpt={dae}", "images=mine", "run_dir=out")
    assert [row["image"] for row in facts_of("out")["denoised"]] == ["mine/0.png", "mine/1.png"]


def test_pictures_that_are_noisy_already_get_no_noise_and_no_ratio(
    dae: str, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = (torch.rand(8, 8) * 255).to(torch.uint8)
    write_picture("mine/0.png", noisy.numpy())
    genlab("denoise", f"ckpt={dae}", "images=mine", "noise=none", "run_dir=out")
    family = latent_family(load_model(dae, "auto", CPU))
    with torch.no_grad():
        levels = (noisy.float() / 255 * 16).round() / 16 if family.spec.levels == 17 else noisy.float() / 255
        restored = family.decode(family.encode(levels.view(1, 1, 8, 8)))
    difference = picture("out/images/00000.png").astype(int) - to_uint8(restored[0, 0]).numpy()
    assert abs(difference).max() <= 1
    facts = facts_of("out")
    assert facts["noise"] == "none"
    assert not any(name.endswith("psnr_db") for name in facts)
    assert facts["denoised"] == [{"file": "images/00000.png", "image": "mine/0.png"}]
    assert "row by row: noisy, restored, median filter\n" in capsys.readouterr().out


MISTAKES = {
    "noise=none level=0.1": "level=0.1: cannot be combined with noise=none; leave it out",
    "level=1.5": "level=1.5: salt_and_pepper sets a share of the pixels; use a number up to 1",
    "noise=masking level=2": "level=2: masking sets a share of the pixels",
    "noise=salt": "noise=salt: ",
    "level=-0.1": "level=-0.1: must be at least 0",
    "images=nowhere": "images=nowhere: no such picture or folder",
    "count=0": "count=0: must be at least 1",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_gives_one_line_and_writes_nothing(
    dae: str, typed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert MISTAKES[typed] in one_line(capsys, "denoise", f"ckpt={dae}", *typed.split())


def test_a_model_without_an_encoder_is_refused(gan: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = one_line(capsys, "denoise", f"ckpt={gan}")
    models = ", ".join(families_that("encodes", "decodes"))
    assert {"ae", "dae", "iwae", "vae"} <= set(models.split(", "))
    assert line == f"genlab: ckpt={gan}: gan encodes no images; models that do: {models}"
