"""The digit classifier: trained once, kept, refused when damaged or of other digits; modes of stacked digits.

scikit-learn's digits, enlarged to 28x28, stand for MNIST, so that a training takes a second.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.checkout import TEST_DATA
from torch import nn

from genlab import registry
from genlab.config.datasets import DigitsConfig, MNISTConfig, StackedMNISTConfig
from genlab.data.spec import DataSpec
from genlab.errors import ConfigError
from genlab.metrics import cache
from genlab.metrics import classifier as module
from genlab.metrics.classifier import Classifier, stacked_modes
from genlab.rng import SampleRng
from genlab.trained import classifiers
from genlab.trained.classifiers import of_digits
from genlab.trained.numbers import evaluate_samples

CPU = torch.device("cpu")
DIGITS = DigitsConfig(size=28)
needs_mnist = pytest.mark.skipif(not (TEST_DATA / "MNIST").is_dir(), reason="no MNIST files")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    if "slow" not in request.keywords:
        monkeypatch.setattr(module, "_STEPS", 40)
        monkeypatch.setattr(module, "_BATCH_SIZE", 32)


@pytest.fixture
def kept(short: None, made_once: Callable[..., Path], tmp_path: Path) -> Path:
    """A folder with the file of a classifier of these digits, trained once for all tests that read it."""
    made = made_once("small classifier", lambda folder: of_digits(DIGITS, CPU, folder=folder))
    return Path(shutil.copytree(made, tmp_path / "kept"))


@pytest.fixture
def trained(caplog: pytest.LogCaptureFixture) -> Any:
    """How often a classifier was trained since the last time it was asked."""
    caplog.set_level(logging.INFO, "genlab")

    def count() -> int:
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        assert not any("\n" in message for message in messages)
        return sum("training once on" in message for message in messages)

    return count


def equal(a: Classifier, b: Classifier) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_trained_once_and_kept(tmp_path: Path, trained: Any, caplog: pytest.LogCaptureFixture) -> None:
    first = of_digits(DIGITS, CPU, folder=tmp_path / "new")
    assert first.test_accuracy > 0.8
    assert f"test accuracy {first.test_accuracy:.4f}" in caplog.text
    assert trained() == 1
    (path,) = files(tmp_path / "new")  # nothing half-written beside it
    written = path.stat().st_mtime_ns
    second = of_digits(DIGITS, CPU, folder=tmp_path / "new")
    assert trained() == 0
    assert path.stat().st_mtime_ns == written
    assert equal(first, second)
    assert second.test_accuracy == first.test_accuracy
    for classifier in (first, second):
        assert not classifier.training
        assert not any(p.requires_grad for p in classifier.parameters())


def test_the_accuracy_is_that_of_the_test_split(kept: Path) -> None:
    classifier = of_digits(DIGITS, CPU, folder=kept)
    ((_, (images, labels, _)),) = registry.dataset(DIGITS).evaluation_batches("test", 500, 0)
    assert (classifier.classify(images) == labels).double().mean().item() == classifier.test_accuracy


def test_the_same_weights_at_every_training(kept: Path, tmp_path: Path) -> None:
    first = of_digits(DIGITS, CPU, folder=kept)
    torch.manual_seed(99)
    with torch.no_grad():  # as a caller that evaluates
        second = of_digits(DIGITS, CPU, folder=tmp_path / "new")
    assert equal(first, second)


def test_torch_s_random_numbers_are_left_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    for _ in range(2):  # trained, read
        of_digits(DIGITS, CPU, folder=tmp_path)
        assert torch.equal(torch.random.get_rng_state(), before)


def test_other_digits_get_a_classifier_of_their_own(kept: Path, trained: Any) -> None:
    of_digits(DigitsConfig(size=28, validation_images=700), CPU, folder=kept)
    assert trained() == 1
    assert len(files(kept)) == 2
    of_digits(DIGITS, CPU, folder=kept)
    assert trained() == 0


def test_other_settings_of_the_training_train_anew(
    kept: Path, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STEPS", 20)
    of_digits(DIGITS, CPU, folder=kept)
    assert trained() == 1


def test_how_a_run_treats_its_images_does_not_matter(kept: Path, trained: Any) -> None:
    first = of_digits(DIGITS, CPU, folder=kept)
    second = of_digits(DigitsConfig(size=28, binarize="dynamic", flip=True), CPU, folder=kept)
    assert trained() == 0
    assert equal(first, second)


def test_stacked_mnist_stands_for_the_mnist_it_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def dataset(config: Any) -> Any:
        asked.append(config)
        return build_dataset(DIGITS)

    build_dataset = registry.dataset
    monkeypatch.setattr(registry, "dataset", dataset)
    of_digits(
        StackedMNISTConfig(root="here", download=False, validation_images=7, size=14, binarize="dynamic"), CPU
    )
    assert asked == [MNISTConfig(root="here", download=False, validation_images=7)]


def flipped_bit(content: bytes) -> bytes:
    middle = len(content) // 2  # among the weights, where torch.load sees nothing wrong
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage", [flipped_bit, lambda content: content[:-100], lambda content: b"", lambda content: b"nonsense"]
)
def test_a_damaged_file_is_said_and_trained_anew(
    damage: Any, kept: Path, trained: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first = of_digits(DIGITS, CPU, folder=kept)
    (path,) = files(kept)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    caplog.clear()
    second = of_digits(DIGITS, CPU, folder=kept)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.startswith(f"{path}: damaged (")
    assert trained() == 1
    assert equal(first, second)
    of_digits(DIGITS, CPU, folder=kept)
    assert trained() == 0  # the file is whole again


@pytest.mark.parametrize("change", [{"digest": "0" * 64}, {"checksum": "0" * 64}, {"tensors": {}}])
def test_a_file_of_another_training_is_not_used(change: dict[str, Any], kept: Path, trained: Any) -> None:
    first = of_digits(DIGITS, CPU, folder=kept)
    (path,) = files(kept)
    torch.save(torch.load(path, weights_only=True) | change, path)
    assert trained() == 0
    assert of_digits(DIGITS, CPU, folder=kept).test_accuracy == first.test_accuracy
    assert trained() == 1


class Malicious:
    """Unpickling it makes a file."""

    def __reduce__(self) -> Any:
        return open, ("it-ran", "w")


def test_no_code_of_a_file_is_run(kept: Path, trained: Any) -> None:
    (path,) = files(kept)
    torch.save({"format": Malicious()}, path)
    of_digits(DIGITS, CPU, folder=kept)
    assert trained() == 1
    assert not Path("it-ran").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    classifier = of_digits(DIGITS, CPU, folder=tmp_path / "file" / "folder")
    assert classifier.test_accuracy > 0.8
    assert "could not be written" in caplog.text


def test_where_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_digits(DIGITS, CPU)
    assert len(files(tmp_path / "cache" / "classifiers")) == 1
    monkeypatch.delenv("GENLAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder("classifiers") == tmp_path / "xdg" / "genlab" / "classifiers"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    wanted = tmp_path / "home" / ".cache" / "genlab" / "classifiers"
    assert cache.folder("classifiers") == wanted


def test_what_is_no_mnist() -> None:
    with pytest.raises(ConfigError, match=r"^dataset=digits: the digit classifier learns from grey 28x28"):
        of_digits(DigitsConfig(), CPU)


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier((1, 28, 28), 10).eval()
    images = torch.rand(25, 1, 28, 28)
    whole = classifier.classify(images)
    monkeypatch.setattr(module, "_EVALUATION_BATCH", 10)
    assert torch.equal(classifier.classify(images), whole)
    assert whole.shape == (25,)
    assert whole.dtype == torch.int64
    assert classifier.classify(images[:0]).shape == (0,)


@pytest.mark.parametrize("shape", [(2, 3, 28, 28), (2, 1, 32, 32), (2, 784)])
def test_images_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(N, 1, 28, 28\)"):
        Classifier((1, 28, 28), 10).classify(torch.zeros(shape))


def test_modes_are_red_green_blue(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier((1, 28, 28), 10)
    monkeypatch.setattr(classifier, "classify", lambda images: (images[:, 0, 0, 0] * 10).round().long())
    images = torch.zeros(3, 3, 28, 28)
    images[:, :, 0, 0] = torch.tensor([[0.1, 0.2, 0.3], [0.0, 0.0, 0.7], [0.9, 0.9, 0.0]])
    modes = stacked_modes(classifier, images)
    assert modes.tolist() == [123, 7, 990]
    assert modes.dtype == torch.int64
    for wrong in (images[:, :1], images[0]):
        with pytest.raises(ValueError, match=r"expected \(N, 3, H, W\)"):
            stacked_modes(classifier, wrong)


@pytest.mark.parametrize("size", [20, 32, 64])
def test_modes_of_another_size_are_those_of_the_same_digits_at_28_pixels(kept: Path, size: int) -> None:
    classifier = of_digits(DIGITS, CPU, folder=kept)
    _, (images, *_) = next(registry.dataset(DIGITS).evaluation_batches("test", 300, 0))
    stacked = images.view(-1, 3, 28, 28)
    resized = F.interpolate(stacked, (size, size), mode="bilinear", antialias=True)
    expected = stacked_modes(classifier, stacked)
    assert len(expected.unique()) > 50
    assert (stacked_modes(classifier, resized) == expected).float().mean() > 0.9


def test_samples_of_another_size_have_their_modes_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """`genlab train dataset=stacked_mnist dataset.size=32` evaluates what its networks give."""

    class Sampler(nn.Module):
        spec = DataSpec("stacked_mnist", 3, 32, 32, classes=1000)
        generates = True
        takes_temperature = False

        def sample(self, n: int, *, rng: SampleRng, labels: Any = None) -> torch.Tensor:
            return rng.uniform(3 * 32 * 32).view(n, 3, 32, 32)

    monkeypatch.setattr(classifiers, "of_digits", lambda config, device: Classifier((1, 28, 28), 10).eval())
    run: Any = SimpleNamespace(dataset=StackedMNISTConfig(size=32))
    family: Any = Sampler()
    numbers = evaluate_samples(family, run, run.dataset, "test", seed=0, torch_device=CPU, n=20, batch_size=8)
    assert 1 <= numbers["modes_found"] <= 20
    assert numbers["modes"] == 1000


def test_it_is_small() -> None:
    assert sum(p.numel() for p in Classifier((1, 28, 28), 10).parameters()) <= 200_000


@pytest.mark.slow
@needs_mnist
def test_accuracy_on_mnist_and_modes_of_stacked_mnist(tmp_path: Path) -> None:
    classifier = of_digits(MNISTConfig(root=str(TEST_DATA)), CPU, folder=tmp_path)
    assert classifier.test_accuracy >= 0.988
    for size in (28, 32):
        stacked = registry.dataset(StackedMNISTConfig(root=str(TEST_DATA), size=size))
        _, (images, labels, _) = next(stacked.evaluation_batches("test", 3000, 0))
        right = (stacked_modes(classifier, images) == labels).double().mean().item()
        assert right == pytest.approx(classifier.test_accuracy**3, abs=0.01)
