"""Completing images: what is known stays, what is drawn has the model's conditional, mistakes take a line."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import genlab, one_line
from helpers.pictures import picture, write_picture
from helpers.runs import read_json
from torch import Tensor

from genlab import registry
from genlab.config.autoregressive import GatedPixelCNNConfig
from genlab.data.spec import DataSpec
from genlab.families.autoregressive import Autoregressive
from genlab.families.gated_pixelcnn import GatedPixelCNN
from genlab.nets.autoregressive import PixelSpec
from genlab.report.pictures import to_uint8
from genlab.trained import completing, given
from genlab.trained.model import load_model

CPU = torch.device("cpu")


# The distribution of completions


def tiny() -> GatedPixelCNN:
    """A model of 2x2 pixels of 3 levels, with weights large enough for pixels to depend on one another."""
    spec = DataSpec("tiny", 1, 8, 8, levels=3)
    family = GatedPixelCNN(GatedPixelCNNConfig(width=8, layers=1, head=8), spec)
    family.spec = dataclasses.replace(spec, height=2, width=2)
    family.network = family.make_network(PixelSpec((1, 2, 2), family.distribution.parameters, False))
    torch.manual_seed(1)
    for parameter in family.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.4)
    return family.eval()


def conditional(family: Autoregressive, image: Tensor, mask: Tensor) -> Tensor:
    """p(unknown | known) of each image that has the known pixels, by enumeration: (81,)."""
    with torch.no_grad():
        log_prob = family.log_prob(every_image()).double()
    fits = (every_image()[:, 0] == image)[:, mask].all(1)
    return torch.where(fits, log_prob, -torch.inf).softmax(0)


def every_image() -> Tensor:
    return torch.tensor(list(itertools.product((0.0, 0.5, 1.0), repeat=4))).view(81, 1, 2, 2)


def shares(completed: Tensor) -> Tensor:
    """How often each of the 81 images comes, (81,)."""
    place = (completed.flatten(1) * 2).round() @ torch.tensor([27.0, 9.0, 3.0, 1.0])
    return torch.bincount(place.long(), minlength=81) / len(completed)


IMAGE = torch.tensor([[0.5, 1.0], [0.0, 1.0]])
LAST_ROW = torch.tensor([[False, False], [True, True]])


@pytest.mark.parametrize("resample", [1, 8])
def test_completions_of_a_prefix_have_the_exact_conditional(resample: int) -> None:
    family, n = tiny(), 4000
    mask = torch.tensor([[True, True], [False, False]])
    done = completing.complete(family, IMAGE[None, None], mask, n, seed=0, resample=resample, batch_size=2000)
    exact = conditional(family, IMAGE, mask)
    error = (exact * (1 - exact) / n).sqrt()
    assert (exact > 0.01).sum() >= 6
    assert ((shares(done.images[0]) - exact).abs() <= 4.5 * error).all()
    assert (done.effective == 1).all()  # one candidate each, whatever was asked for


def test_resampling_approaches_the_exact_conditional_of_pixels_that_come_first() -> None:
    family, n = tiny(), 1500
    exact = conditional(family, IMAGE, LAST_ROW)
    found, distance = {}, {}
    for resample in (1, 32):
        done = completing.complete(
            family, IMAGE[None, None], LAST_ROW, n, seed=0, resample=resample, batch_size=10_000
        )
        assert (done.images[0, :, 0][:, LAST_ROW] == IMAGE[LAST_ROW]).all()
        found[resample] = shares(done.images[0])
        distance[resample] = (found[resample] - exact).abs().sum().item() / 2
    error = (exact * (1 - exact) / n).sqrt()
    assert ((found[32] - exact).abs() <= 4.5 * error).all()
    assert ((found[1] - exact).abs() > 10 * error).any()
    assert distance[32] < distance[1] / 4, distance


def test_a_candidate_is_chosen_in_proportion_to_its_weight() -> None:
    pixels = torch.arange(4.0).expand(1000, 4)
    log_weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).log() - 700  # as of many pixels
    uniform = (torch.arange(1000) + 0.5) / 1000
    chosen, log_weight, effective = completing.choose(pixels, log_weights.expand(1000, 4), uniform)
    assert torch.bincount(chosen.long()).tolist() == [100, 200, 300, 400]
    assert torch.equal(log_weight, log_weights[chosen.long()])
    assert effective[0].item() == pytest.approx(1 / (0.01 + 0.04 + 0.09 + 0.16))


def test_a_completion_depends_on_seed_and_place_alone() -> None:
    family = tiny()
    images = torch.stack([IMAGE, IMAGE.T])[:, None]

    def completed(images: Tensor, n: int, batch_size: int, seed: int = 5) -> Tensor:
        return completing.complete(
            family, images, LAST_ROW, n, seed=seed, resample=3, batch_size=batch_size
        ).images

    together = completed(images, 10, 1000)
    assert together.shape == (2, 10, 1, 2, 2)
    for batch_size in (2, 7):  # less than the candidates of one completion, and no multiple
        assert torch.equal(completed(images, 10, batch_size), together)
    assert torch.equal(completed(images, 5, 7), together[:, :5])
    assert torch.equal(completed(images[:1], 10, 7), together[:1])
    assert not torch.equal(completed(images, 10, 1000, seed=6), together)
    with_equal_images = completed(images[:1].expand(2, -1, -1, -1), 10, 1000)
    assert not torch.equal(with_equal_images[0], with_equal_images[1])


@pytest.mark.parametrize(
    ("rows", "prefix"),
    [("11/00", True), ("11/10", True), ("10/00", True), ("10/10", False), ("01/11", False), ("00/11", False)],
)
def test_which_masks_are_a_prefix_of_the_scan(rows: str, prefix: bool) -> None:
    mask = torch.tensor([[pixel == "1" for pixel in row] for row in rows.split("/")])
    assert completing.is_prefix(mask) is prefix


def test_levels_of_pictures() -> None:
    pictures = torch.tensor([0, 7, 8, 127, 128, 255], dtype=torch.uint8).view(1, 1, 2, 3)
    assert (given.to_levels(pictures, 2) == (pictures > 127)).all()
    assert (given.to_levels(pictures, 17) * 16).flatten().tolist() == [0, 0, 1, 8, 8, 16]
    assert torch.equal(given.to_levels(pictures, 256), pictures / 255)


# The command


@pytest.fixture(scope="module")
def run(trained_run: Callable[..., str]) -> str:
    return trained_run()


@pytest.fixture(scope="module")
def labelled(trained_run: Callable[..., str]) -> str:
    return trained_run(class_conditional=True)


@pytest.fixture(scope="module")
def vae(trained_run: Callable[..., str]) -> str:
    return trained_run("vae", hidden=[8])


def facts_of(folder: str) -> dict:
    return read_json(folder, "completions.json")


def test_upper_halves_of_test_images(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    genlab("complete", f"ckpt={run}", "count=3", "n=4", "resample=9", "run_dir=out")
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "wrote out: completions.png, images/ (12 files), completions.json",
        f"next: genlab sample ckpt={run}",
    ]
    assert "4 completions of each of 3 images" in err
    assert "without regard to known pixels" not in err
    names = [f"0000{i}-0{k}.png" for i in range(3) for k in range(4)]
    assert sorted(p.name for p in Path("out/images").iterdir()) == names
    model = load_model(run, "auto", CPU)
    numbers, batch = registry.dataset(model.config.dataset).examples("test", 3, 0)
    originals = to_uint8(batch.images)[:, 0].numpy()
    pictures = np.stack([picture(f"out/images/{name}") for name in names]).reshape(3, 4, 8, 8)
    assert (pictures[:, :, :4] == originals[:, None, :4]).all()
    assert all(len({p.tobytes() for p in row}) == 4 for row in pictures)  # no two alike
    sheet = picture("out/completions.png").reshape(3 * 50 + 2, 6 * 50 + 2)
    for i in range(3):
        cells = [sheet[50 * i + 2 : 50 * i + 50 : 6, 50 * k + 2 : 50 * k + 50 : 6] for k in range(6)]
        assert (cells[0] == originals[i]).all()
        assert (cells[1][:4] == originals[i, :4]).all()
        assert (cells[1][4:] == 128).all()
        assert (np.stack(cells[2:]) == pictures[i]).all()
    facts = facts_of("out")
    assert (facts["model"], facts["trained_on"], facts["step"]) == ("gated_pixelcnn", "digits", 2)
    assert (facts["keep"], facts["known_pixels"], facts["exact"]) == ("top", 32, True)
    assert (facts["n"], facts["seed"], facts["temperature"], facts["resample"]) == (4, 0, 1.0, 1)
    rows = facts["completions"]
    assert [row["file"] for row in rows] == [f"images/{name}" for name in names]
    assert [row["image"] for row in rows[::4]] == [f"digits test {k}" for k in numbers]
    assert list(rows[0]) == ["file", "image", "known_log_prob_nats"]
    with torch.no_grad():
        family = model.family
        assert isinstance(family, Autoregressive)
        each = family.distribution.log_prob(family.network(batch.images), batch.images.permute(0, 2, 3, 1))
    expected = each[:, :4].sum((1, 2)).repeat_interleave(4)
    assert [row["known_log_prob_nats"] for row in rows] == pytest.approx(expected.tolist(), rel=1e-5)


def test_left_halves_say_that_they_do_not_look_ahead(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    genlab("complete", f"ckpt={run}", "count=2", "n=3", "keep=left", "run_dir=one")
    out, err = capsys.readouterr()
    assert [line for line in err.splitlines() if line.startswith("keep=")] == [
        "keep=left: a pixel is drawn without regard to known pixels later in the scan; "
        "resample=16 reduces the error"
    ]
    assert out.splitlines()[-1] == f"next: genlab complete ckpt={run} keep=left resample=16"
    assert facts_of("one")["exact"] is False
    for batch_size in (256, 7):
        words = ["keep=left", "resample=4", f"batch_size={batch_size}", f"run_dir=b{batch_size}"]
        genlab("complete", f"ckpt={run}", "count=2", "n=3", *words)
    out, err = capsys.readouterr()
    assert "keep=" not in err
    assert out.splitlines()[0].startswith("keep=left: each completion is one of 4 candidates")
    facts = facts_of("b256")
    assert (facts["resample"], facts["known_pixels"], facts["exact"]) == (4, 32, False)
    for row, other in zip(facts["completions"], facts_of("b7")["completions"], strict=True):
        assert 1 <= row["effective_sample_size"] <= 4
        for name, value in row.items():
            assert value == (other[name] if isinstance(value, str) else pytest.approx(other[name], rel=1e-4))
        assert (picture(f"b256/{row['file']}") == picture(f"b7/{row['file']}")).all()
    assert any(
        (picture(f"one/{row['file']}") != picture(f"b7/{row['file']}")).any() for row in facts["completions"]
    )


def test_one_s_own_pictures_and_mask(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    grey = np.arange(64).reshape(8, 8) * 4
    write_picture("mine/a.png", grey)
    write_picture("mine/more/b.png", np.stack([grey.T] * 3, -1))  # colours, for a grey model
    mask = np.zeros((8, 8))
    mask[2:6, 3:] = 200
    write_picture("mask.png", mask)
    genlab("complete", f"ckpt={run}", "images=mine", "keep=mask.png", "n=2", "run_dir=out")
    out, err = capsys.readouterr()
    assert "the model's images have 17 levels: pictures are rounded to the nearest" in err
    assert out.splitlines()[-1] == (f"next: genlab complete ckpt={run} images=mine keep=mask.png resample=16")
    facts = facts_of("out")
    assert facts["known_pixels"] == 20
    assert [row["image"] for row in facts["completions"]] == ["mine/a.png"] * 2 + ["mine/more/b.png"] * 2
    for file, values in (("00000-01", grey), ("00001-00", grey.T)):
        levels = np.round(np.round(values / 255 * 16) / 16 * 255)
        assert (picture(f"out/images/{file}.png")[mask > 0] == levels[mask > 0]).all()
    genlab("complete", f"ckpt={run}", "images=mine/a.png", "n=1", "run_dir=alone")
    assert len(list(Path("alone/images").iterdir())) == 1


def test_a_low_temperature_makes_completions_alike(run: str) -> None:
    genlab("complete", f"ckpt={run}", "count=1", "n=3", "temperature=1e-4", "run_dir=out")
    first, *others = (picture(f"out/images/00000-0{k}.png") for k in range(3))
    assert all((first == other).mean() > 0.9 for other in others)
    assert facts_of("out")["exact"] is False  # the conditional of another distribution


def test_labels_are_the_user_s_the_image_s_or_drawn(labelled: str) -> None:
    def labels_in(folder: str) -> list[int]:
        return [row["label"] for row in facts_of(folder)["completions"]]

    genlab("complete", f"ckpt={labelled}", "count=3", "n=2", "run_dir=own")
    model = load_model(labelled, "auto", CPU)
    _, batch = registry.dataset(model.config.dataset).examples("test", 3, 0)
    assert batch.labels is not None
    assert labels_in("own") == batch.labels.repeat_interleave(2).tolist()
    genlab("complete", f"ckpt={labelled}", "count=2", "n=3", "labels=[3,7]", "run_dir=given")
    assert labels_in("given") == [3, 7, 3, 3, 7, 3]
    write_picture("mine.png", np.zeros((8, 8)))
    genlab("complete", f"ckpt={labelled}", "images=mine.png", "n=20", "run_dir=drawn")
    assert 5 < len(set(labels_in("drawn"))) <= 10


def mistakes() -> dict[str, str]:
    return {
        "keep=tpo": "keep=tpo: no such mask image; did you mean keep=top?",
        "keep=nowhere.png": "keep=nowhere.png: no such mask image; use keep=top or keep=left",
        "keep=text.png": "keep=text.png: cannot be read (cannot identify image file",
        "keep=wide.png": "keep=wide.png: a mask of 8x10 pixels (height x width), the images have 8x8; resize",
        "keep=white.png": "keep=white.png: keeps every pixel",
        "keep=black.png": "keep=black.png: keeps no pixel",
        "images=nowhere": "images=nowhere: no such picture or folder",
        "images=empty": "images=empty: no pictures in this folder",
        "images=wide.png": "images=wide.png: 8x10 pixels (height x width), the model's images have 8x8",
        "images=mixed": "images=mixed/wide.png: 8x10 pixels",
        "images=text.png": "images=text.png: cannot be read (cannot identify image file",
        "labels=[3]": "labels=[3]: gated_pixelcnn takes no labels; leave labels out",
        "labels=[]": "labels=[]: give at least one class",
        "n=0": "n=0: must be at least 1",
        "resample=0": "resample=0: must be at least 1",
        "temperature=0": "temperature=0.0: must be above 0",
        "count=0": "count=0: must be at least 1",
        "split=tset": "did you mean split=test?",
        "dataset.flip=true": "dataset.flip: dataset settings are fixed by the checkpoint",
        "run_dir=mixed": "run_dir=mixed: holds files already",
    }


@pytest.mark.parametrize("word", mistakes())
def test_a_mistake_gives_one_line_and_writes_nothing(
    run: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture("wide.png", np.zeros((8, 10)))
    write_picture("white.png", np.full((8, 8), 255))
    write_picture("black.png", np.zeros((8, 8)))
    write_picture("mixed/good.png", np.zeros((8, 8)))
    write_picture("mixed/wide.png", np.zeros((8, 10)))
    Path("text.png").write_text("not a picture")
    Path("empty").mkdir()
    line = one_line(capsys, "complete", f"ckpt={run}", word)
    assert line.startswith("genlab: ")
    assert mistakes()[word] in line


def test_a_label_that_there_is_not(labelled: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = one_line(capsys, "complete", f"ckpt={labelled}", "labels=[3,10]")
    assert line == "genlab: labels=[3, 10]: digits has classes 0 to 9"


def test_a_model_of_another_family_is_refused(vae: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = one_line(capsys, "complete", f"ckpt={vae}")
    assert line.startswith(f"genlab: ckpt={vae}: vae completes no images; models that do: ")
    assert "gated_pixelcnn" in line
