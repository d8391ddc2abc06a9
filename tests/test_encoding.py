"""`genlab encode`: codes, map and table are those of the model and the data, mistakes take a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import genlab, one_line
from helpers.pictures import write_picture
from helpers.runs import read_json, trained
from torch import Tensor

from genlab import registry
from genlab.commands import encode, train
from genlab.commands.encode import Features, compare, places_of
from genlab.config.datasets import NpzConfig
from genlab.data.subsets import shuffled
from genlab.report import figures
from genlab.rng import SampleRng
from genlab.trained.latent_space import latent_family
from genlab.trained.model import dataset_of, load_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vae(trained_run: Callable[..., str]) -> str:
    return trained_run("vae", hidden=[8], latent=3)


@pytest.fixture(scope="module")
def gan(trained_run: Callable[..., str]) -> str:
    return trained_run("gan", network="mlp")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for a table."""
    monkeypatch.setattr(encode, "ENCODED_IMAGES", 300)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What a map is made of, in place of pixels: places, labels, names of the axes, title."""
    calls: list[tuple] = []
    real = figures.code_map

    def kept(*arguments: Any) -> Any:
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(figures, "code_map", kept)
    return calls


def facts_of(folder: str) -> dict[str, Any]:
    return read_json(folder, "encoding.json")


def split_of(run: str, split: str, limit: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Images, codes and labels, in one batch and without the command."""
    model = load_model(run, "auto", CPU)
    dataset = registry.dataset(model.config.dataset)
    batch = next(dataset.evaluation_batches(split, 10_000, 0, limit))[1]
    assert batch.labels is not None
    with torch.no_grad():
        return batch.images, latent_family(model).encode(batch.images), batch.labels


def test_the_codes_are_the_family_s_own(
    vae: str, drawn: list[tuple], capsys: pytest.CaptureFixture[str]
) -> None:
    genlab("encode", f"ckpt={vae}", "batch_size=70", "run_dir=out")
    out, err = capsys.readouterr()
    names = sorted(path.name for path in Path("out").iterdir())
    assert names == [".genlab", "codes.npz", "encoding.json", "map.png"]
    arrays = np.load("out/codes.npz", allow_pickle=False)
    _, codes, labels = split_of(vae, "test")
    assert arrays["codes"].dtype == np.float32
    np.testing.assert_allclose(arrays["codes"], codes.numpy(), atol=1e-6)
    assert arrays["labels"].tolist() == labels.tolist()
    assert arrays["index"].tolist() == list(range(500))
    assert arrays["split"].item() == "test"
    _, train_codes, train_labels = split_of(vae, "train", 300)
    np.testing.assert_allclose(arrays["train_codes"], train_codes.numpy(), atol=1e-6)
    assert arrays["train_labels"].tolist() == train_labels.tolist()
    ((places, shown, names, title),) = drawn
    expected, _, share = places_of(codes, "pca", 0)
    torch.testing.assert_close(places, expected, atol=1e-4, rtol=1e-4)
    assert shown.tolist() == labels.tolist()
    assert (names[0], title) == ("principal component 1", "500 images of digits, test split")
    facts = facts_of("out")
    assert (facts["dataset"], facts["count"], facts["dimensions"]) == ("digits", 500, 3)
    assert facts["map"] == {"method": "pca", "images": 500, "explained_variance": pytest.approx(share)}
    assert "encoding 500 images (digits, test split)" in err
    lines = out.splitlines()
    assert lines[-2:] == ["wrote out: codes.npz, map.png, encoding.json", f"next: genlab traverse ckpt={vae}"]


def test_the_table_compares_codes_components_and_pixels(vae: str, capsys: pytest.CaptureFixture[str]) -> None:
    genlab("encode", f"ckpt={vae}", "run_dir=out")
    heading, codes_line, pca_line, pixels_line, on, *_ = capsys.readouterr().out.splitlines()
    assert heading.split("  ")[-1].strip() == "explained variance"
    assert on == "on 300 training images, 100 validation images, 300 test images of digits"
    facts = facts_of("out")
    codes, components, pixels = facts["representations"]
    assert [row["dimensions"] for row in (codes, components, pixels)] == [3, 3, 64]
    for line, row in ((codes_line, codes), (pca_line, components), (pixels_line, pixels)):
        assert line.startswith(row["name"])
        probe = f"{row['probe_accuracy']:.4f} +- {row['probe_accuracy_standard_error']:.4f}"
        assert probe in line
    images, _, _ = split_of(vae, "test", 300)
    family = latent_family(load_model(vae, "auto", CPU))
    with torch.no_grad():
        error = (family.decode(family.encode(images)) - images).double().square().mean().item()
    assert codes["mean_squared_error"] == pytest.approx(error, rel=1e-5)
    mean = split_of(vae, "train", 300)[0].mean(0)
    spread = (images - mean).double().square().mean().item()
    assert codes["explained_variance"] == pytest.approx(1 - error / spread, rel=1e-5)
    assert pixels["mean_squared_error"] is None
    assert pixels["probe_accuracy"] > components["probe_accuracy"] + 0.1  # 64 numbers against three
    assert facts["compared_on"] == {"training_images": 300, "validation_images": 100, "test_images": 300}


def test_principal_components_lose_what_linear_algebra_says(vae: str) -> None:
    """The error of the best three dimensions, by a singular value decomposition of the training images."""
    model = load_model(vae, "auto", CPU)
    train, test, validation = (Features(*split_of(vae, s)) for s in ("train", "test", "validation"))
    _, components, _ = compare(model, train, test, validation, 100)
    rows = train.images.flatten(1).double()
    _, _, directions = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    centred = test.images.flatten(1).double() - rows.mean(0)
    restored = centred @ directions[:3].T @ directions[:3] + rows.mean(0)
    error = (restored.clamp(0, 1) - test.images.flatten(1)).square().mean().item()
    assert components.mean_squared_error == pytest.approx(error, rel=1e-4)


def test_a_map_of_components_keeps_the_greatest_distances() -> None:
    codes = torch.randn(400, 6) * torch.tensor([0.1, 5.0, 0.2, 0.3, 2.0, 0.1]) + 7
    places, names, share = places_of(codes, "pca", 0)
    centred = codes.double() - codes.double().mean(0)
    variances = torch.linalg.eigvalsh(centred.T @ centred / 399).flip(0)
    torch.testing.assert_close(places.double().T.cov().diagonal(), variances[:2], atol=1e-4, rtol=1e-5)
    assert share == pytest.approx((variances[:2].sum() / variances.sum()).item())
    assert names == ("principal component 1", "principal component 2")
    turned, _, _ = places_of(codes.flip(1), "pca", 0)  # the order of dimensions turns nothing round
    torch.testing.assert_close(turned, places, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_map_of_few_codes_or_dimensions(count: int) -> None:
    two, one = torch.randn(count, 2), torch.randn(count, 1)
    assert places_of(two, "pca", 0) == (two, ("dimension 0", "dimension 1"), 1.0)
    places, names, _ = places_of(one, "pca", 0)
    assert torch.equal(places, torch.cat([one, torch.zeros(count, 1)], 1))
    assert names == ("dimension 0", "")
    many, _, _ = places_of(torch.randn(count, 5), "pca", 0)
    assert many.shape == (count, 2)
    assert many.isfinite().all()


def test_t_sne_keeps_clusters_together_and_repeats() -> None:
    labels = torch.arange(90) % 3
    codes = torch.randn(90, 5)
    codes[torch.arange(90), labels] += 20
    places, names, share = places_of(codes, "tsne", 3)
    distances = torch.cdist(places, places).fill_diagonal_(torch.inf)
    assert (labels[distances.argmin(1)] == labels).all()
    assert (names, share) == (("t-SNE 1", "t-SNE 2"), None)
    assert torch.equal(places_of(codes, "tsne", 3)[0], places)


def test_t_sne_takes_some_images_and_says_so(
    vae: str, drawn: list[tuple], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "_NEIGHBOURED", 30)
    genlab("encode", f"ckpt={vae}", "map=tsne", "split=validation", "count=40", "run_dir=out")
    ((places, labels, _, title),) = drawn
    assert places.shape == (30, 2)
    assert labels.tolist() == split_of(vae, "validation", 40)[2][shuffled(40)[:30]].tolist()
    assert title == "30 of 40 images of digits, validation split"
    assert facts_of("out")["map"] == {"method": "tsne", "images": 30, "explained_variance": None}
    arrays = np.load("out/codes.npz")
    assert len(arrays["codes"]) == 40
    assert arrays["index"].tolist() == shuffled(100)[:40].tolist()
    assert arrays["labels"].tolist() == split_of(vae, "validation")[2][arrays["index"]].tolist()


def test_the_same_command_gives_the_same_files(vae: str) -> None:
    for folder in ("one", "two"):
        genlab("encode", f"ckpt={vae}", f"run_dir={folder}")
    for name in ("map.png", "encoding.json"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()
    one, two = (np.load(f"{folder}/codes.npz") for folder in ("one", "two"))
    assert all(np.array_equal(one[name], two[name]) for name in one.files)


def write_npz(path: str, side: int = 8, **more: np.ndarray) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, side, side), dtype=np.uint8)
    np.savez(path, images=images, **more)  # type: ignore[arg-type]


def test_another_dataset_s_images(vae: str) -> None:
    write_npz("mine.npz", labels=np.arange(60) % 4)
    genlab("encode", f"ckpt={vae}", "dataset=npz", "dataset.path=mine.npz", "split=train", "run_dir=out")
    arrays, facts = np.load("out/codes.npz"), facts_of("out")
    assert (facts["dataset"], facts["trained_on"], facts["split"]) == ("npz", "digits", "train")
    from genlab.data.npz import Npz

    images = next(Npz.load(NpzConfig(path="mine.npz")).evaluation_batches("train", 100, 0))[1].images
    with torch.no_grad():
        codes = latent_family(load_model(vae, "auto", CPU)).encode(images)
    np.testing.assert_allclose(arrays["codes"], codes.numpy(), atol=1e-6)
    assert facts["compared_on"]["training_images"] == len(codes)


def test_a_split_without_images_names_one_that_has_some(vae: str, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("five.npz", images=np.full((5, 8, 8), 255, np.uint8))  # too few for other splits
    line = one_line(capsys, "encode", f"ckpt={vae}", "dataset=npz", "dataset.path=five.npz")
    assert line == "genlab: split=test: npz has no such images; use split=train"


def test_another_dataset_is_binarised_as_the_model_s_own() -> None:
    plain = {
        "model": {"name": "vae", "hidden": [4], "latent": 2},
        "dataset": {"name": "digits", "binarize": "threshold", "threshold": 0.3},
        "optimizer": {"name": "adam"},
        "schedule": {"name": "constant"},
        "trainer": {"steps": 1, "batch_size": 4, "device": "cpu", "evaluate_every": 0, "sample_every": 0},
    }
    train.start(plain, [], "run")
    write_npz("mine.npz")
    model = load_model("run", "auto", CPU)
    dataset = encode.other_dataset(model, {"name": "npz", "path": "mine.npz"}, "test")
    assert (dataset.spec.levels, dataset.spec.binarization) == (2, "threshold")
    changed = encode.other_dataset(model, {"name": "npz", "path": "mine.npz", "threshold": 0.9}, "test")
    shares = [next(d.evaluation_batches("train", 50, 0))[1].images.mean() for d in (dataset, changed)]
    assert shares[0] > 0.6 > 0.2 > shares[1]
    changes = {"name": "npz", "path": "mine.npz", "binarize": "none"}
    with pytest.raises(encode.DataError, match=r"256 levels.*add dataset.binarize=threshold"):
        encode.other_dataset(model, changes, "test")


def test_images_without_labels_have_no_probe(
    vae: str, drawn: list[tuple], capsys: pytest.CaptureFixture[str]
) -> None:
    write_npz("mine.npz")
    genlab("encode", f"ckpt={vae}", "dataset=npz", "dataset.path=mine.npz", "run_dir=out")
    out = capsys.readouterr().out
    assert "of npz; without labels there is no probe" in out
    assert "+-" not in out
    rows = facts_of("out")["representations"]
    assert [row["name"] for row in rows] == ["codes of vae", "PCA of pixels"]
    assert "probe_accuracy" not in rows[0]
    assert drawn[0][1] is None
    assert not {"labels", "train_labels"} & set(np.load("out/codes.npz").files)


def test_one_s_own_pictures(vae: str, drawn: list[tuple], capsys: pytest.CaptureFixture[str]) -> None:
    for k in range(3):
        write_picture(f"mine/{k}.png", np.full((8, 8), 17 * 5 * k))
    genlab("encode", f"ckpt={vae}", "images=mine", "run_dir=out")
    arrays = np.load("out/codes.npz", allow_pickle=False)
    assert sorted(arrays.files) == ["codes", "image"]
    assert arrays["image"].tolist() == ["mine/0.png", "mine/1.png", "mine/2.png"]
    levels = torch.tensor([round(5 * k * 17 / 255 * 16) / 16 for k in range(3)])
    images = levels.view(3, 1, 1, 1).expand(3, 1, 8, 8)
    with torch.no_grad():
        codes = latent_family(load_model(vae, "auto", CPU)).encode(images)
    np.testing.assert_allclose(arrays["codes"], codes.numpy(), atol=1e-6)
    assert drawn[0][0].shape == (3, 2)
    assert "representations" not in facts_of("out")
    assert capsys.readouterr().out.splitlines()[0].startswith("wrote out: codes.npz")


MISTAKES = {
    "images=nowhere": "images=nowhere: no such picture or folder",
    "images=one.png map=tsne": "images=one.png: 1 there, 4 are needed; give a folder of more",
    "images=one.png dataset=npz": "dataset=npz: cannot be combined with images=one.png; leave one out",
    "count=3 map=tsne": "map=tsne: has 3 images, needs at least 4; use map=pca",
    "dataset.flip=true": "dataset.flip: dataset settings are fixed by the checkpoint",
    "dataset=ring": "dataset=ring: has no images; choose another",
    "dataset=none": "dataset=none: has no images; choose another",
    "dataset=npz": "dataset.path: missing; add dataset.path=...",
    "dataset=npz dataset.path=wide.npz": "are 1x9x9 (channels, height, width), the model's 1x8x8; "
    "use dataset.size=8 dataset.channels=1",
    "dataset=npz dataset.path=wide.npz dataset.sise=8": "dataset.sise: unknown key for npz; did you mean",
    "run_dir=full": "run_dir=full: holds files already",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_gives_one_line_and_writes_nothing(
    vae: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture("full/good.png", np.zeros((8, 8)))
    write_picture("one.png", np.zeros((8, 8)))
    write_npz("wide.npz", side=9)
    assert MISTAKES[words] in one_line(capsys, "encode", f"ckpt={vae}", *words.split())


def test_a_dataset_of_another_size_is_resized_on_request(vae: str) -> None:
    write_npz("wide.npz", side=9)
    words = ["dataset=npz", "dataset.path=wide.npz", "dataset.size=8"]
    genlab("encode", f"ckpt={vae}", *words, "run_dir=out")
    assert len(np.load("out/codes.npz")["codes"]) == 6


def test_a_sweep_over_datasets(vae: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_npz("mine.npz")
    words = ["-m", "encode", f"ckpt={vae}", "count=10", "dataset=digits,npz", "++dataset.path=mine.npz"]
    genlab(*words, "device=cpu", "run_dir=out", code=2)  # digits has no path
    assert facts_of("out/1")["dataset"] == "npz"
    assert "dataset.name=npz" in capsys.readouterr().out


def test_a_model_without_an_encoder_is_refused(gan: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = one_line(capsys, "encode", f"ckpt={gan}")
    assert line.startswith(f"genlab: ckpt={gan}: gan encodes no images; models that do: ae, ")


def test_points_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from helpers.runs import plain_config

    plain = plain_config("vae", dataset="ring", steps=1, batch_size=4, evaluate_every=0, sample_every=0)
    plain["model"] |= {"hidden": [4], "latent": 2}
    run = str(train.start(plain, [], str(tmp_path / "ring")))
    line = one_line(capsys, "encode", f"ckpt={run}")
    assert line == f"genlab: ckpt={run}: ring has points, not images; see genlab sample"


def test_pictures_for_a_model_with_labels_get_the_likeliest_one(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "conditional_vae", hidden=[8], latent=3)
    for k in range(3):
        write_picture(f"mine/{k}.png", np.full((8, 8), 80 * k))
    genlab("encode", f"ckpt={run}", "images=mine", "run_dir=out")
    codes = np.load("out/codes.npz")["codes"]
    family = latent_family(load_model(run, "auto", CPU))
    levels = torch.tensor([0.0, 80.0, 160.0]).mul(16 / 255).round() / 16
    images = levels.view(3, 1, 1, 1).expand(3, 1, 8, 8)
    with torch.no_grad():
        of_labels = [family.encode(images, torch.full((3,), label)).numpy() for label in range(10)]
    for k in range(3):
        assert any(np.allclose(codes[k], of_label[k], atol=1e-6) for of_label in of_labels)


def test_the_probe_of_a_model_with_labels_gets_none_from_them(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "conditional_vae", hidden=[8], latent=3)
    genlab("encode", f"ckpt={run}", "batch_size=100", "run_dir=out")
    family = latent_family(load_model(run, "auto", CPU))
    images, true = labelled_images(run)
    with torch.no_grad():
        inferred = family.infer_labels(images, rng=SampleRng(0, range(len(images)), CPU, purpose="label"))
        codes = family.encode(images, inferred)
    assert not torch.equal(inferred, true)
    np.testing.assert_allclose(np.load("out/codes.npz")["codes"], codes.numpy(), atol=1e-5)
    assert np.load("out/codes.npz")["labels"].tolist() == true.tolist()


def labelled_images(run: str) -> tuple[Tensor, Tensor]:
    """The test images of a run, and their labels."""
    dataset = registry.dataset(load_model(run, "auto", CPU).config.dataset)
    batch = next(dataset.evaluation_batches("test", 10_000, 0))[1]
    assert batch.labels is not None
    return batch.images, batch.labels


def test_what_shapes_were_made_from_stands_beside_their_codes() -> None:
    data = ["dataset=shapes", "dataset.size=32", "dataset.images=200"]
    small = ["model.network=mlp", "model.hidden=[16]", "model.latent=4", "trainer.steps=2"]
    words = ["model=vae", *data, *small, "trainer.device=cpu", "run_dir=shapes", "recipe=none"]
    genlab("train", *words)
    genlab("encode", "ckpt=shapes", "map=pca", "count=1000", "run_dir=out", "device=cpu")
    known, names = np.load("out/codes.npz"), facts_of("out")["factors"]
    assert known["factors"].shape == (len(known["codes"]), len(names))
    dataset = load_model("shapes", "auto", torch.device("cpu"))
    found = dataset_of(dataset, {}, "test")
    batch = next(found.evaluation_batches("test", 1000, 0, 1000))[1]
    assert batch.factors is not None
    assert np.array_equal(known["factors"], batch.factors.numpy())
    assert (known["factors"].max(0) < np.array(list(names.values()))).all()
