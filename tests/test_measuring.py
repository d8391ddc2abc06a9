"""The ruler: its words, its numbers for every family, its cache, and that it never disturbs a run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import genlab
from helpers.runs import metric_rows, plain_config, read_json
from PIL import Image

from genlab import registry
from genlab.commands import train
from genlab.config.datasets import DigitsConfig
from genlab.data.sets import PictureSet, set_at, set_of_split, to_levels
from genlab.data.spec import DataSpec
from genlab.errors import ConfigError, DataError
from genlab.metrics import classifier
from genlab.trained.model import load_model
from genlab.trained.ruler import Ruler, count_name, generate, inception_score, parse

CPU = torch.device("cpu")
GREY = DataSpec("digits", 1, 8, 8, levels=17, classes=10)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(classifier, "_STEPS", 100)
    return tmp_path / "cache"


def numbers_of(folder: str | Path) -> dict[str, Any]:
    return read_json(folder, "evaluation.json")


def test_words() -> None:
    everything = ("frechet", "kernel", "precision", "recall", "density", "coverage")
    assert parse(["pixels"], GREY) == {"pixels": everything}
    assert parse(["frechet_random_conv", "kernel_random_conv"], GREY) == {
        "random_conv": ("frechet", "kernel")
    }
    assert parse(["auto"], GREY) == {"lenet": (*everything, "confident")}
    assert parse(["frechet_auto"], DataSpec("x", 1, 8, 8)) == {"random_conv": ("frechet",)}
    assert parse(["fid_inception", "score_inception"], GREY) == {"inception": ("frechet", "score")}
    assert parse(["pixels", "frechet_pixels"], GREY) == {"pixels": everything}


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("lennet", "did you mean measure=lenet?"),
        ("recal_lenet", "did you mean measure=recall_lenet?"),
        ("confident_pixels", "no such measure"),
        ("fid_lite0", "no such measure"),  # nothing but Inception's is called so
        ("", "no such measure"),
    ],
)
def test_unknown_words(word: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=rf"^measure={word}: .*{hint}".replace("?", r"\?")):
        parse([word], GREY)


def test_counts_in_names() -> None:
    assert [count_name(n) for n in (10_000, 2_000, 2_500, 999)] == ["10k", "2k", "2500", "999"]


def test_inception_score_by_hand() -> None:
    sure = torch.eye(4).repeat(25, 1)
    assert inception_score(sure, parts=1)[0] == pytest.approx(4)
    assert inception_score(torch.full((100, 4), 0.25))[0] == pytest.approx(1)
    half = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    kl = [0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25), np.log(1 / 0.75)]
    assert inception_score(half, parts=1)[0] == pytest.approx(np.exp(np.mean(kl)))


def test_levels_are_those_of_written_pictures() -> None:
    images = torch.rand(5, 1, 8, 8)
    once = to_levels(images, GREY)
    assert len(once.unique()) <= 17
    assert torch.equal(to_levels(once.float() / 255, GREY), once)
    written = (images * 255).round() / 255
    assert torch.equal(to_levels(written, GREY), once)
    fine = DataSpec("x", 1, 8, 8)
    assert torch.equal(to_levels(images, fine), (images * 255).round().byte())


def test_real_against_itself_and_its_cache(own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = registry.dataset(DigitsConfig())
    real = set_of_split(dataset, "test")
    wanted = parse(["random_conv", "lenet"], dataset.spec)
    caplog.set_level("INFO", "genlab")

    def made() -> int:
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return sum("once" in message for message in messages)

    first = Ruler(real, wanted, CPU, dataset=dataset).measure(real.levels)
    assert made() == 3  # a classifier, and what two extractors see
    assert first["frechet_random_conv_500"] == pytest.approx(0, abs=1e-6)
    assert first["precision_lenet_500"] == first["coverage_lenet_500"] == 1
    assert first["confident_share_lenet_500"] == first["confident_share_lenet_real"] > 0.3
    assert Ruler(real, wanted, CPU, dataset=dataset).measure(real.levels) == first
    assert made() == 0
    for path in (own_cache / "features").iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    assert Ruler(real, wanted, CPU, dataset=dataset).measure(real.levels) == first
    assert made() == 2
    other = PictureSet(real.levels[:400], None, real.name, real.label)
    Ruler(other, wanted, CPU, dataset=dataset)
    assert made() == 2
    assert len(list((own_cache / "features").iterdir())) == 4


def test_a_model_and_the_folder_of_its_samples_measure_alike(toy: Any) -> None:
    train.start(plain_config(steps=4), [], "run")
    words = ["measure=[pixels,lenet]", "images=300", "device=cpu"]
    genlab("evaluate", "ckpt=run", *words, "run_dir=a")
    genlab("sample", "ckpt=run", "n=300", "npz=true", "run_dir=samples")
    for k, where in enumerate(("samples", "samples/images", "samples/samples.npz")):
        genlab("evaluate", f"samples={where}", "dataset=digits", *words, f"run_dir=b{k}")
        from_model, from_folder = numbers_of("a"), numbers_of(f"b{k}")
        names = [name for name in from_model if name.endswith("_300") or "_real" in name]
        assert len(names) == 20
        assert {name: from_folder[name] for name in names} == pytest.approx({n: from_model[n] for n in names})
    setting = numbers_of("a")["setting"]
    assert setting["compared_with"] == "300 images of digits test"
    assert setting["generated_images"] == 300
    assert "test accuracy of its classifier 0." in setting["extractor_lenet"]


def test_two_folders(capsys: pytest.CaptureFixture[str]) -> None:
    stream = np.random.default_rng(0)
    for folder in ("first", "second"):
        Path(folder).mkdir()
        for k in range(20):
            array = stream.integers(256, size=(12, 12, 3), dtype=np.uint8)
            Image.fromarray(array).save(Path(folder) / f"{k}.png")
    words = ["samples=first", "against=second", "measure=[frechet_pixels,random_conv]", "device=cpu"]
    genlab("evaluate", *words, "extrapolate=true", "run_dir=numbers")
    found = numbers_of("numbers")
    assert found["frechet_pixels_20"] > 0
    assert found["frechet_random_conv_infinity"] < found["frechet_random_conv_20"]
    assert "frechet_random_conv_infinity_standard_error" in found
    captured = capsys.readouterr()
    assert "frechet_random_conv_infinity " in captured.out
    assert "extrapolate=true: 20 images are fewer than the " in captured.err


def test_counts_that_differ_are_both_said(toy: Any) -> None:
    train.start(plain_config(steps=4), [], "run")
    words = ["measure=pixels", "n=120", "images=60", "device=cpu", "run_dir=numbers"]
    genlab("evaluate", "ckpt=run", *words)
    found = numbers_of("numbers")
    assert "frechet_pixels_60" in found
    assert (found["setting"]["compared_with"][:9], found["setting"]["generated_images"]) == ("60 images", 120)


MISTAKES = {
    "": r"^genlab: ckpt: missing; add ckpt=..., or samples=FOLDER",
    "samples=here": r"^genlab: dataset: missing; compare samples=here with dataset=NAME or with against=",
    "samples=here dataset=digits against=here": "^genlab: dataset: cannot be combined with against",
    "samples=here ckpt=run": "^genlab: samples=here: measured without a model",
    "samples=0 ckpt=run": "^genlab: samples=0: must be at least 1",
    "samples=here dataset=digits per_image=true": "^genlab: per_image=True: a metric of a model",
    "samples=gone dataset=digits": "^genlab: samples=gone: no such folder of pictures or .npz file",
    "samples=empty dataset=digits": "^genlab: samples=empty: no pictures in this folder",
    "samples=here dataset=digitz": "^genlab: dataset=digitz: no such dataset; did you mean dataset=digits",
    "samples=here dataset=ring": "^genlab: dataset=ring: has no images",
    "samples=here against=here measure=lenet": "^genlab: measure=lenet: needs a dataset with labels",
    "samples=here dataset=digits measure=nonsense": "^genlab: measure=nonsense: no such measure",
    "samples=here dataset=digits n=3": "^genlab: n=3: must be at least 10",
    "samples=broken dataset=digits": "^genlab: samples=broken: a.png cannot be used",
    "samples=bad.npz dataset=digits": "^genlab: samples=bad.npz: cannot be read as an .npz",
    "samples=other.npz dataset=digits": "^genlab: samples=other.npz: has no array images, but x; rename it",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_mistakes_are_one_line(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("here", "empty", "broken"):
        Path(folder).mkdir()
    Image.new("L", (8, 8)).save("here/a.png")
    Path("broken/a.png").write_text("no picture")
    Path("bad.npz").write_text("no archive")
    np.savez("other.npz", x=np.zeros(3))
    genlab("evaluate", *typed.split(), code=2)
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(MISTAKES[typed], line), line
    assert not Path("outputs").exists()


def test_pictures_of_another_size_are_cut_and_said(caplog: pytest.LogCaptureFixture) -> None:
    Path("mixed").mkdir()
    Image.new("L", (8, 8), 200).save("mixed/a.png")
    Image.new("RGB", (20, 10), (255, 0, 0)).save("mixed/b.png")
    found = set_at("mixed", "samples")
    assert found.levels.shape == (2, 1, 8, 8)
    assert "1 of 2 pictures are cut and resized" in caplog.text
    assert set_at("mixed", "samples", (3, 6, 6)).levels.shape == (2, 3, 6, 6)
    with pytest.raises(DataError, match=r"its size is not"):
        set_at("mixed", "samples", (1, 8, 10))


def test_measuring_never_disturbs_training(toy: Any) -> None:
    """With it or without, cut off or not, a run's weights are the same, bit for bit."""
    measured = {"measure": ["frechet_lenet", "frechet_pixels"], "measure_every": 4, "measure_images": 50}
    train.start(plain_config(), [], "plain")
    train.start(plain_config(**measured), [], "measured")
    train.start(plain_config(**measured, steps=12, keep_checkpoints=9), [], "cut")
    for name in ("step-00000008.pt", "step-00000012.pt"):
        (Path("cut/checkpoints") / name).unlink()
    train.resume("cut", None, [])
    states = [torch.load(Path(run) / "checkpoints/step-00000012.pt") for run in ("plain", "measured", "cut")]
    for state in states[1:]:
        for name, value in states[0]["weights"].items():
            assert torch.equal(value, state["weights"][name]), name
        assert all(map(torch.equal, states[0]["random"][0].values(), state["random"][0].values()))
    lines = [metric_rows(run)
             for run in ("measured", "cut")]  # fmt: skip
    for line in (line for run in lines for line in run):
        line |= {"seconds": 0, "images_per_second": 0}
    assert lines[0] == lines[1]
    found = [line for line in lines[0] if "samples/frechet_lenet_50" in line]
    assert [line["step"] for line in found] == [4, 8, 12]
    assert all(line["samples/frechet_pixels_50"] > 0 for line in found)


def test_a_mistyped_measure_of_a_run_leaves_nothing_behind(toy: Any) -> None:
    with pytest.raises(ConfigError, match=r"^trainer.measure=frechet_lennet: .*measure=frechet_lenet\?"):
        train.start(plain_config(measure=["frechet_lennet"]), [], "run")
    assert not Path("run").exists()


def test_copies_are_found_and_shown(tmp_path: Path) -> None:
    dataset = registry.dataset(DigitsConfig())
    training, test = (set_of_split(dataset, split).levels for split in ("train", "test"))
    for name, levels in (("honest", test[:200]), ("copied", torch.cat([training[:60], test[:140]]))):
        np.savez(f"{name}.npz", images=levels.permute(0, 2, 3, 1).numpy())
        words = ["dataset=digits", "memorisation=true", "measure=frechet_pixels", "device=cpu"]
        genlab("evaluate", f"samples={name}.npz", *words, f"run_dir={name}")
        assert "beside 1197 training images" in numbers_of(name)["setting"]["memorisation"]
    assert numbers_of("honest")["memorisation_p_value"] > 0.01
    assert numbers_of("copied")["memorisation_p_value"] < 0.001
    assert numbers_of("copied")["nearer_to_training_share"] > 0.25
    with Image.open("copied/nearest.png") as sheet:
        assert sheet.width < sheet.height  # a row for each of 16: the sample and five training images


def test_a_prior_over_codes_is_measured_by_its_pictures() -> None:
    train.start(plain_config("vqvae", steps=3), [], "vqvae")
    prior = plain_config("gated_pixelcnn", steps=2, measure=["frechet_pixels"], measure_images=20)
    train.start(prior | {"dataset": {"name": "codes", "ckpt": "vqvae"}}, [], "prior")
    last = json.loads((Path("prior") / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["samples/frechet_pixels_20"] > 0
    words = ["measure=[pixels]", "n=20", "images=20", "device=cpu"]
    genlab("evaluate", "ckpt=prior", *words, "run_dir=numbers")
    assert numbers_of("numbers")["setting"]["compared_with"] == "20 images of digits test"
    assert "confident_share_lenet_20" in numbers_of("numbers")


def test_models_without_samples(capsys: pytest.CaptureFixture[str]) -> None:
    train.start(plain_config("ae", steps=2), [], "ae")
    genlab("evaluate", "ckpt=ae", "measure=pixels", code=2)
    assert "has no prior to draw samples from; add prior=fit to genlab sample" in capsys.readouterr().err
    train.start(plain_config("gan", dataset="ring", steps=2), [], "points")
    genlab("evaluate", "ckpt=points", "measure=pixels", code=2)
    assert "points are no pictures" in capsys.readouterr().err


def test_classes_come_as_often_as_in_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    train.start(plain_config("conditional_vae", steps=2), [], "run")
    model = load_model("run", "auto", CPU)
    asked: list[torch.Tensor] = []
    sample = model.family.sample

    def watched(n: int, *, rng: Any, labels: torch.Tensor) -> torch.Tensor:
        asked.append(labels)
        return sample(n, rng=rng, labels=labels)

    monkeypatch.setattr(model.family, "sample", watched)
    labels = torch.tensor([3] * 6 + [7] * 2)
    dataset = registry.dataset(DigitsConfig())
    generate(model.family, dataset, 16, seed=0, torch_device=CPU, batch_size=5, labels=labels)
    assert torch.cat(asked).bincount(minlength=10).tolist() == [0, 0, 0, 12, 0, 0, 0, 4, 0, 0]


def test_folders_are_read_as_the_run_s_own() -> None:
    """Transparent pictures of another size, on the dataset's background and with its resampling."""
    Path("pictures").mkdir()
    generator = np.random.default_rng(0)
    for k in range(6):
        pixels = generator.integers(0, 256, (16, 16, 4), np.uint8)
        pixels[..., 3] = 255 * (pixels[..., 3] > 128)
        Image.fromarray(pixels).save(f"pictures/{k}.png")
    dataset = ["dataset=folder", "dataset.path=pictures", "dataset.size=8"]
    dataset += ["dataset.background=black", "dataset.resampling=nearest"]
    words = ["samples=pictures", "measure=[frechet_pixels]", "split=train", "device=cpu"]
    dataset += ["dataset.validation_share=0", "dataset.test_share=0"]
    genlab("evaluate", *words, *dataset, "run_dir=a")
    assert numbers_of("a")["frechet_pixels_6"] == pytest.approx(0, abs=1e-6)
