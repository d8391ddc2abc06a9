"""`genlab traverse`: latents worked by hand, rows that are the model's, mistakes in a line."""

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
from helpers.runs import plain_config, read_json
from torch import Tensor

from genlab import registry
from genlab.commands import train
from genlab.commands.traverse import Space, along_dimensions, along_direction, manifold
from genlab.rng import SampleRng
from genlab.trained.latent_space import latent_family
from genlab.trained.model import load_model

CPU = torch.device("cpu")


def test_one_number_of_the_latent_is_replaced_by_standard_deviations_from_the_middle() -> None:
    space = Space(torch.tensor([10.0, 20.0, 30.0]), torch.tensor([1.0, 2.0, 3.0]))
    latents = along_dimensions(torch.tensor([5.0, 6.0, 7.0]), [2, 0], torch.tensor([-1.0, 0.0, 2.0]), space)
    expected = [[[5, 6, 27], [5, 6, 30], [5, 6, 36]], [[9, 6, 7], [10, 6, 7], [12, 6, 7]]]
    assert latents.tolist() == expected


def test_a_direction_is_left_by_its_standard_deviations() -> None:
    # the standard deviation along (3, 4) / 5 is the root of (0.6 * 5)^2 + (0.8 * 5)^2 = 5
    space = Space(torch.zeros(2), torch.full((2,), 5.0))
    centre, deviations = torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 0.0, 2.0])
    latents = along_direction(centre, torch.tensor([6.0, 8.0]), deviations, space)
    torch.testing.assert_close(latents, torch.tensor([[[-2.0, -2.0], [1.0, 2.0], [7.0, 10.0]]]))
    unequal = Space(torch.zeros(2), torch.tensor([5.0, 0.0]))
    latents = along_direction(centre, torch.tensor([6.0, 8.0]), deviations, unequal)
    torch.testing.assert_close(latents[0, 2] - centre, 2 * 3 * torch.tensor([0.6, 0.8]))


def test_the_manifold_is_even_in_the_prior_s_probability() -> None:
    latents = manifold("normal").view(20, 20, 2)
    expected = torch.tensor([0.025 + 0.05 * k for k in range(20)])
    shares = torch.distributions.Normal(0, 1).cdf(latents)
    torch.testing.assert_close(shares[..., 0], expected.expand(20, 20))
    torch.testing.assert_close(shares[..., 1], expected[:, None].expand(20, 20))
    assert latents[0, 0].tolist() == pytest.approx([-1.959964, -1.959964])  # the 2.5 % quantile
    assert manifold("uniform", 2).tolist() == [[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]


# The command


@pytest.fixture(scope="module")
def vae(trained_run: Callable[..., str]) -> str:
    return trained_run("vae", hidden=[8], latent=2)


@pytest.fixture(scope="module")
def gan(trained_run: Callable[..., str]) -> str:
    return trained_run("gan", network="mlp", latent=20, prior="uniform")


@pytest.fixture(scope="module")
def labelled(trained_run: Callable[..., str]) -> str:
    return trained_run("acgan", network="mlp", latent=5)


def facts_of(folder: str) -> dict[str, Any]:
    return read_json(folder, "traversal.json")


def encoded(run: str, images: Tensor) -> Tensor:
    with torch.no_grad():
        return latent_family(load_model(run, "auto", CPU)).encode(images)


def test_a_row_for_each_dimension_and_the_manifold(vae: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    genlab("traverse", f"ckpt={vae}", "steps=3", "range=2", "run_dir=out")
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "wrote out: traversal.png, manifold.png, images/ (6 files), traversal.json",
        f"next: genlab interpolate ckpt={vae} between=images",
    ]
    assert "2 rows of 3 steps" in err
    each = pictures("out", 2, 3)
    latents = torch.tensor([[-2.0, 0], [0, 0], [2, 0], [0, -2], [0, 0], [0, 2]])
    assert near(each.reshape(6, 8, 8), drawn(vae, latents))
    assert (cells("out/traversal.png", 2, 3) == each).all()
    assert near(cells("out/manifold.png", 20, 20).reshape(400, 8, 8), drawn(vae, manifold("normal")))
    facts = facts_of("out")
    assert (facts["around"], facts["range"], facts["label"]) == ("origin", 2.0, None)
    assert facts["standard_deviations_of"] == "the prior"
    assert facts["images"][5] == {
        "file": "images/00001-02.png", "row": "dimension 1", "standard_deviations": 2.0,
    }  # fmt: skip


def test_around_an_image_and_along_the_way_between_two_classes(vae: str) -> None:
    words = ["traverse", f"ckpt={vae}", "around=image", "number=4", "steps=3"]
    genlab(*words, "direction=[3,8]", "dimensions=[1]", "run_dir=out")
    centre = encoded(vae, originals(vae, 5))[4]
    dataset = registry.dataset(load_model(vae, "auto", CPU).config.dataset)
    _, batch = next(dataset.evaluation_batches("train", 2000, 0))
    assert batch.labels is not None
    codes = encoded(vae, batch.images)
    way = codes[batch.labels == 8].mean(0) - codes[batch.labels == 3].mean(0)
    way = 3 * way / way.norm()
    latents = torch.stack([centre, centre, centre, centre - way, centre, centre + way])
    latents[:3, 1] = torch.tensor([-3.0, 0.0, 3.0])
    assert near(pictures("out", 2, 3).reshape(6, 8, 8), drawn(vae, latents))
    facts = facts_of("out")
    assert facts["around"] == f"digits test {numbers(5)[4]}"
    rows = [step["row"] for step in facts["images"]]
    assert rows == ["dimension 1"] * 3 + ["direction from class 3 to class 8"] * 3
    genlab(*words, "direction=[3,8]", "run_dir=alone")
    assert [step["row"] for step in facts_of("alone")["images"]] == rows[3:]


def test_around_a_picture_of_one_s_own(vae: str) -> None:
    write_picture("mine.png", np.full((8, 8), 255))
    genlab("traverse", f"ckpt={vae}", "around=image", "images=mine.png", "dimensions=[0]", "run_dir=out")
    code = encoded(vae, torch.ones(1, 1, 8, 8))[0]
    code[0] = -3
    assert near(picture("out/images/00000-00.png"), drawn(vae, code[None])[0])
    assert facts_of("out")["around"] == "mine.png"


def test_a_uniform_prior_has_a_standard_deviation_of_its_own(gan: str) -> None:
    genlab("traverse", f"ckpt={gan}", "around=sample", "number=3", "seed=5", "steps=2", "run_dir=out")
    assert facts_of("out")["around"] == "sample 3 of seed 5"
    latents = (SampleRng(5, [3]).uniform(20) * 2 - 1).repeat(32, 1)
    for k in range(16):  # the first 16 dimensions of 20
        latents[2 * k, k], latents[2 * k + 1, k] = -math.sqrt(3), math.sqrt(3)
    assert near(pictures("out", 16, 2).reshape(32, 8, 8), drawn(gan, latents))
    assert not Path("out/manifold.png").exists()


def test_the_class_of_all_images(labelled: str, capsys: pytest.CaptureFixture[str]) -> None:
    genlab("traverse", f"ckpt={labelled}", "dimensions=[2]", "label=7", "steps=2", "run_dir=out")
    latents = torch.zeros(2, 5)
    latents[:, 2] = torch.tensor([-3.0, 3.0])
    assert near(pictures("out", 1, 2)[0], drawn(labelled, latents, torch.tensor([7, 7])))
    genlab("traverse", f"ckpt={labelled}", "dimensions=[2]", "steps=2", "run_dir=drawn")
    assert facts_of("drawn")["label"] in range(10)
    assert capsys.readouterr().out.splitlines()[-1] == f"next: genlab interpolate ckpt={labelled}"


MISTAKES = {
    "dimensions=[2]": "dimensions=[2]: the latent has dimensions 0 to 1",
    "dimensions=[]": "dimensions=[]: give at least one",
    "direction=[3]": "direction=[3]: expected two different classes, e.g. direction=[3,8]",
    "direction=[3,3]": "direction=[3, 3]: expected two different classes",
    "direction=[3,10]": "direction=[3, 10]: digits has classes 0 to 9",
    "images=mine.png": "images=mine.png: goes with around=image",
    "around=image images=mine.png number=1": "images=mine.png: 1 there, 2 are needed",
    "around=image number=5000": "split=test: 500 images, 5001 are needed",
    "label=3": "label=3: vae takes no labels; leave label out",
    "around=orign": "did you mean around=origin?",
    "steps=1": "steps=1: must be at least 2",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_gives_one_line_and_writes_nothing(
    vae: str, typed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture("mine.png", np.zeros((8, 8)))
    assert MISTAKES[typed] in one_line(capsys, "traverse", f"ckpt={vae}", *typed.split())


def test_what_a_model_without_an_encoder_cannot_do(gan: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = one_line(capsys, "traverse", f"ckpt={gan}", "around=image")
    assert line == "genlab: around=image: gan encodes no images; use around=sample or around=origin"
    line = one_line(capsys, "traverse", f"ckpt={gan}", "direction=[3,8]")
    assert line == "genlab: direction=[3, 8]: gan encodes no images; use dimensions=[0,1]"


def test_a_direction_needs_labels(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = {
        f"{split}_images": rng.integers(0, 256, (20, 8, 8), dtype=np.uint8) for split in ("train", "test")
    }
    np.savez(tmp_path / "mine.npz", allow_pickle=False, **images)
    plain = plain_config("vae", dataset="npz", steps=1, batch_size=4, evaluate_every=0, sample_every=0)
    plain["model"] |= {"hidden": [4], "latent": 2}
    plain["dataset"]["path"] = str(tmp_path / "mine.npz")
    run = str(train.start(plain, [], str(tmp_path / "own")))
    line = one_line(capsys, "traverse", f"ckpt={run}", "direction=[3,8]")
    assert line == "genlab: direction=[3, 8]: npz has no labels; use dimensions=[0,1]"
