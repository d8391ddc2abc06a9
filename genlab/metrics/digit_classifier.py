"""A small classifier of MNIST's digits, trained once and kept: it counts the modes that samples cover."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genlab import build
from genlab.checkpoint import write_atomically
from genlab.data.dataset import Dataset
from genlab.data.stacked_mnist import StackedMNISTConfig, modes
from genlab.errors import ConfigError
from genlab.rng import derive_seed
from genlab.run import log

FORMAT = 1
"""Version of the file. Raise it with every change of the network or of how it is trained."""

_SEED = 0
_STEPS = 700
_BATCH_SIZE = 128
_LEARNING_RATE = 0.01
_EVALUATION_BATCH = 1000


class DigitClassifier(nn.Module):
    """A convolutional network that tells digits apart, 43,000 weights.

    Attributes:
        test_accuracy: share of the test split that it got right, 0 to 1; 0 before the training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.test_accuracy = 0.0
        self.layers = nn.Sequential(
            *_convolution(1, 16, kernel=5, stride=2),  # 14x14
            *_convolution(16, 32, kernel=3, stride=2),  # 7x7
            *_convolution(32, 32, kernel=3, stride=1),
            *_convolution(32, 64, kernel=3, stride=2),  # 4x4
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, 28, 28) in [0, 1] to (B, 10) logits."""
        return self.layers(images * 2 - 1)

    @torch.no_grad()
    def classify(self, images: Tensor) -> Tensor:
        """The likeliest digit of each image.

        Args:
            images: (N, 1, 28, 28) in [0, 1], on any device.

        Returns:
            (N,) int64 in 0..9, on the device of the images.

        Raises:
            ValueError: the images have another shape.
        """
        if images.shape[1:] != (1, 28, 28):
            raise ValueError(f"images of shape {tuple(images.shape)}; wanted (N, 1, 28, 28)")
        device = next(self.parameters()).device
        parts = [self(part.to(device)).argmax(1) for part in images.split(_EVALUATION_BATCH)]
        return torch.cat(parts).to(images.device)


def stacked_modes(classifier: DigitClassifier, images: Tensor) -> Tensor:
    """The mode of each image of Stacked MNIST, its channels classified one by one (Metz et al. 2017).

    Args:
        images: (N, 3, H, W) in [0, 1]. The classifier knows digits of 28x28 pixels: others are resized as
            datasets are, and the smaller they were, the less of a digit there is to tell.

    Returns:
        (N,) int64 in 0..999: 100 * red + 10 * green + blue.

    Raises:
        ValueError: the images have another shape.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images of shape {tuple(images.shape)}; wanted (N, 3, H, W)")
    if images.shape[2:] != (28, 28):
        images = F.interpolate(images, (28, 28), mode="bilinear", antialias=True)
    return modes(classifier.classify(images.reshape(-1, 1, 28, 28)).view(-1, 3))


def load_or_train(
    mnist_config: Any, torch_device: torch.device, *, folder: Path | None = None
) -> DigitClassifier:
    """The classifier of one MNIST: from its file, or trained and written there for the next time.

    The digits are taken as they were published, whatever binarisation or noise the configuration asks for.
    torch's default generators are left as they are.

    Args:
        mnist_config: of a dataset of 28x28 grey digits; train and test splits are used. Of Stacked MNIST,
            the MNIST that it is made of.
        torch_device: where to train, and where the classifier is put.
        folder: of the file; None for `classifiers` in GENLAB_CACHE, else in ~/.cache/genlab.

    Raises:
        ConfigError: the dataset is not one of 28x28 grey digits.
        DataError: its files are missing or damaged.
    """
    if isinstance(mnist_config, StackedMNISTConfig):
        mnist_config = mnist_config.single_digits()
    plain = dataclasses.replace(mnist_config, binarize="none", dequantize=False, flip=False)
    dataset = build.dataset(plain)
    if dataset.spec.shape != (1, 28, 28) or dataset.spec.classes != 10:
        raise ConfigError(
            f"dataset={plain.name}: the digit classifier learns from grey 28x28 images of 10 classes"
        )
    digest = _digest_of_training(dataset)
    path = (folder or _default_folder()) / f"{plain.name}-{digest[:16]}.pt"
    classifier = _load(path, digest)
    if classifier is None:
        classifier = _train(dataset.to(torch_device), torch_device)
        _save(path, classifier, digest)
    return classifier.to(torch_device).eval().requires_grad_(False)


def _convolution(channels: int, filters: int, *, kernel: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, filters, kernel, stride, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(filters), nn.ReLU()]


def _initial() -> DigitClassifier:
    """The classifier before its training, on the CPU; the default generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(_SEED, "initial weights"))
        return DigitClassifier()


@torch.enable_grad()  # a caller that evaluates has switched gradients off
def _train(dataset: Dataset, device: torch.device) -> DigitClassifier:
    log.info("digit classifier: training once on %d images of %s", dataset.size("train"), dataset.spec.name)
    start = time.monotonic()
    classifier = _initial().to(device).train()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=_STEPS)
    for _, (images, labels) in zip(range(_STEPS), dataset.batches(_SEED, _BATCH_SIZE), strict=False):
        assert labels is not None
        optimizer.zero_grad()
        F.cross_entropy(classifier(images), labels).backward()
        optimizer.step()
        schedule.step()
    classifier.eval()
    right = torch.cat(
        [
            classifier.classify(images) == labels
            for _, (images, labels) in dataset.evaluation_batches("test", _EVALUATION_BATCH, _SEED)
        ]
    )
    classifier.test_accuracy = right.double().mean().item()
    seconds = time.monotonic() - start
    log.info("digit classifier: test accuracy %.4f after %.0f s", classifier.test_accuracy, seconds)
    return classifier


def _save(path: Path, classifier: DigitClassifier, digest: str) -> None:
    weights = {name: value.cpu() for name, value in classifier.state_dict().items()}
    state = {
        "format": FORMAT,
        "digest": digest,
        "test_accuracy": classifier.test_accuracy,
        "weights": weights,
        "checksum": _checksum(weights, classifier.test_accuracy),
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        log.warning("%s: could not be written (%s); it will be trained again", path, error.strerror or error)


def _load(path: Path, digest: str) -> DigitClassifier | None:
    """The classifier of a file, on the CPU; None where there is none that is whole and of this training."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if (state["format"], state["digest"]) != (FORMAT, digest):
            raise ValueError("its digest is that of another training")
        if state["checksum"] != _checksum(state["weights"], state["test_accuracy"]):
            raise ValueError("its checksum does not match")  # torch.load itself checks none
        classifier = _initial()
        classifier.load_state_dict(state["weights"])
        classifier.test_accuracy = state["test_accuracy"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # torch raises many kinds; all mean that this is not our file
        reason = str(error).partition("\n")[0] or type(error).__name__
        log.warning("%s: damaged (%s); the digit classifier is trained anew", path, reason)
        return None
    return classifier


def _digest_of_training(dataset: Dataset) -> str:
    """SHA-256 of all that the weights and their accuracy follow from: settings, images and labels."""
    settings = (FORMAT, _SEED, _STEPS, _BATCH_SIZE, _LEARNING_RATE, dataset.spec.to_plain())
    digest = hashlib.sha256(repr(settings).encode())
    for split in ("train", "test"):
        for _, (images, labels) in dataset.evaluation_batches(split, 5000, _SEED):
            assert labels is not None
            levels = (images * (dataset.spec.levels - 1)).round().to(torch.uint8)
            digest.update(levels.numpy().data)
            digest.update(labels.numpy().data)
        digest.update(split.encode())
    return digest.hexdigest()


def _checksum(weights: Mapping[str, Tensor], test_accuracy: float) -> str:
    digest = hashlib.sha256(repr(test_accuracy).encode())
    for name, value in weights.items():
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _default_folder() -> Path:
    if os.environ.get("GENLAB_CACHE"):
        return Path(os.environ["GENLAB_CACHE"]).expanduser() / "classifiers"
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "genlab" / "classifiers"
