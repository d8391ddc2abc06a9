"""`genlab interpolate`: paths worked by hand, ends that are images or samples, mistakes in a line."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import genlab, one_line
from helpers.pictures import cells, drawn, near, numbers, originals, picture, pictures, write_picture
from helpers.runs import read_json
from torch import Tensor

from genlab.commands.interpolate import PATHS, spherical, straight
from genlab.rng import SampleRng
from genlab.trained.latent_space import latent_family
from genlab.trained.model import load_model

CPU = torch.device("cpu")
THIRDS = torch.tensor([0.0, 1 / 3, 2 / 3, 1.0])


# Paths


def of(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def test_a_straight_path_is_linear() -> None:
    path = straight(of((0, 3), (1, 1)), of((3, 0), (1, 4)), THIRDS)
    expected = [[[0, 3], [1, 2], [2, 1], [3, 0]], [[1, 1], [1, 2], [1, 3], [1, 4]]]
    torch.testing.assert_close(path, torch.tensor(expected).float())


def test_a_spherical_path_turns_evenly() -> None:
    # a right angle in thirds: 0, 30, 60 and 90 degrees, at the radius of both ends
    path = spherical(of((2, 0)), of((0, 2)), THIRDS)
    expected = [[2, 0], [math.sqrt(3), 1], [1, math.sqrt(3)], [0, 2]]
    torch.testing.assert_close(path, torch.tensor([expected]).float())


def test_a_spherical_path_between_unequal_norms_by_hand() -> None:
    # an angle of 60 degrees, half-way: sin 30 / sin 60 = 1 / sqrt 3 of each end
    path = spherical(of((1, 0)), of((1, math.sqrt(3))), torch.tensor([0.5]))
    torch.testing.assert_close(path, torch.tensor([[[2 / math.sqrt(3), 1.0]]]))


def test_a_spherical_path_keeps_the_norm_where_a_straight_one_does_not() -> None:
    start, end = torch.nn.functional.normalize(torch.randn(2, 50, 16), dim=2) * 4
    shares = torch.linspace(0, 1, 9)
    torch.testing.assert_close(spherical(start, end, shares).norm(dim=2), torch.full((50, 9), 4.0))
    assert (straight(start, end, shares).norm(dim=2)[:, 1:-1] < 3.99).all()


@pytest.mark.parametrize("path", PATHS)
def test_both_ends_are_met(path: str) -> None:
    start, end = torch.randn(2, 7, 5)
    found = PATHS[path](start, end, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(found[:, 0], start)
    torch.testing.assert_close(found[:, 1], end)


@pytest.mark.parametrize("factor", [1.0, 1.0 + 1e-6, 3.0, -1.0, -1.0 + 1e-6, -2.0, 0.0])
def test_parallel_and_opposite_latents_have_a_finite_path(factor: float) -> None:
    start = torch.randn(20, 6)
    end = start * factor
    path = spherical(start, end, THIRDS)
    assert path.isfinite().all()
    torch.testing.assert_close(path[:, 0], start)
    torch.testing.assert_close(path[:, -1], end)
    if factor:  # of a latent of norm 0 no angle is known
        torch.testing.assert_close(path, straight(start, end, THIRDS))


def test_a_path_of_nearly_parallel_latents_is_nearly_straight() -> None:
    start = torch.nn.functional.normalize(torch.randn(20, 6), dim=1)
    for distance in (1e-2, 1e-3, 1e-5):  # on both sides of where the formula ends
        end = torch.nn.functional.normalize(start + distance * torch.randn(20, 6), dim=1)
        path = spherical(start, end, THIRDS)
        torch.testing.assert_close(path, straight(start, end, THIRDS), atol=distance**2 * 10, rtol=1e-5)


# The commands


@pytest.fixture(scope="module")
def vae(trained_run: Callable[..., str]) -> str:
    return trained_run("vae", hidden=[8], latent=2)


@pytest.fixture(scope="module")
def gan(trained_run: Callable[..., str]) -> str:
    return trained_run("gan", network="mlp", latent=5)


@pytest.fixture(scope="module")
def labelled(trained_run: Callable[..., str]) -> str:
    return trained_run("acgan", network="mlp", latent=5)


def facts_of(path: str) -> dict[str, Any]:
    return read_json(path)


@pytest.mark.parametrize("model", ["vae", "gan"])
def test_rows_lead_from_sample_to_sample(
    model: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    run = request.getfixturevalue(model)
    capsys.readouterr()
    genlab("interpolate", f"ckpt={run}", "n=3", "steps=4", "path=spherical", "seed=7", "run_dir=out")
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "wrote out: interpolations.png, images/ (12 files), interpolations.json"
    assert out.splitlines()[1].startswith("next: genlab ")
    assert "4 steps between each of 3 pairs" in err
    each = pictures("out", 3, 4)
    assert len(list(Path("out/images").iterdir())) == 12
    assert (cells("out/interpolations.png", 3, 4) == each).all()
    ends = latent_family(load_model(run, "auto", CPU)).prior_latents(SampleRng(7, range(6)))
    path = spherical(ends[::2], ends[1::2], THIRDS)
    assert near(each.reshape(12, 8, 8), drawn(run, path.flatten(0, 1)))
    genlab("sample", f"ckpt={run}", "n=6", "seed=7", "run_dir=samples")
    for pair in range(3):
        for end, step in ((0, 0), (1, 3)):
            assert near(each[pair, step], picture(f"samples/images/{2 * pair + end:05d}.png"))
    facts = facts_of("out/interpolations.json")
    assert (facts["between"], facts["path"], facts["steps"], facts["n"]) == ("samples", "spherical", 4, 3)
    row = facts["pairs"][1]
    assert (row["from"], row["to"]) == ("sample 2 of seed 7", "sample 3 of seed 7")
    assert row["files"] == [f"images/00001-0{k}.png" for k in range(4)]
    assert row["norms"] == pytest.approx(path[1].norm(dim=1).tolist(), rel=1e-5)


def test_rows_lead_from_reconstruction_to_reconstruction(vae: str) -> None:
    genlab("interpolate", f"ckpt={vae}", "between=images", "n=2", "steps=3", "batch_size=2", "run_dir=out")
    each = pictures("out", 2, 3)
    family = latent_family(load_model(vae, "auto", CPU))
    with torch.no_grad():
        codes = family.encode(originals(vae, 4))
    path = torch.stack([codes[::2], (codes[::2] + codes[1::2]) / 2, codes[1::2]], 1)
    assert near(each.reshape(6, 8, 8), drawn(vae, path.flatten(0, 1)))
    names = [(row["from"], row["to"]) for row in facts_of("out/interpolations.json")["pairs"]]
    a, b, c, d = (f"digits test {k}" for k in numbers(4))
    assert names == [(a, b), (c, d)]


def test_one_s_own_pictures_make_pairs(vae: str) -> None:
    for k in range(5):
        write_picture(f"mine/{k}.png", np.full((8, 8), 50 * k))
    genlab("interpolate", f"ckpt={vae}", "between=images", "images=mine", "steps=2", "run_dir=out")
    facts = facts_of("out/interpolations.json")
    names = [(row["from"], row["to"]) for row in facts["pairs"]]
    assert names == [("mine/0.png", "mine/1.png"), ("mine/2.png", "mine/3.png")]  # the fifth has no other


def test_a_pair_keeps_its_class(labelled: str) -> None:
    words = ["interpolate", f"ckpt={labelled}", "n=3", "steps=2"]
    genlab(*words, "labels=[3,7]", "run_dir=given")
    assert [row["label"] for row in facts_of("given/interpolations.json")["pairs"]] == [3, 7, 3]
    latents = SampleRng(0, range(6)).normal(5)
    expected = drawn(labelled, latents, torch.tensor([3, 3, 7, 7, 3, 3]))
    assert near(pictures("given", 3, 2).reshape(6, 8, 8), expected)
    genlab(*words[:2], "n=20", "steps=2", "run_dir=drawn")
    labels = [row["label"] for row in facts_of("drawn/interpolations.json")["pairs"]]
    assert 5 < len(set(labels)) <= 10
    genlab(*words, "run_dir=fewer")  # a pair's class depends on seed and place alone
    assert [row["label"] for row in facts_of("fewer/interpolations.json")["pairs"]] == labels[:3]


INTERPOLATE_MISTAKES = {
    "between=images images=alone.png": "images=alone.png: 1 there, 2 are needed",
    "images=alone.png": "images=alone.png: goes with between=images",
    "labels=[3]": "labels=[3]: vae takes no labels; leave labels out",
    "steps=1": "steps=1: must be at least 2",
    "n=0": "n=0: must be at least 1",
    "path=round": "path=round: not one of straight, spherical",
}


@pytest.mark.parametrize("typed", INTERPOLATE_MISTAKES)
def test_a_mistake_of_interpolation_gives_one_line(
    vae: str, typed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture("alone.png", np.zeros((8, 8)))
    assert INTERPOLATE_MISTAKES[typed] in one_line(capsys, "interpolate", f"ckpt={vae}", *typed.split())


def test_a_model_without_an_encoder_leads_between_samples_alone(
    gan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = one_line(capsys, "interpolate", f"ckpt={gan}", "between=images")
    assert line == "genlab: between=images: gan encodes no images; use between=samples"


def test_a_model_without_latents_is_refused(
    trained_run: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained_run()
    line = one_line(capsys, "interpolate", f"ckpt={run}")
    assert line.startswith(f"genlab: ckpt={run}: gated_pixelcnn has no latents; models that do: acgan, ")
