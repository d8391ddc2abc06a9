"""A small classifier of a dataset's images, trained once and cached, for measuring samples."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genlab.data.dataset import Dataset
from genlab.data.modes import modes
from genlab.errors import DataError
from genlab.log import log
from genlab.metrics import cache
from genlab.rng import derive_seed

FORMAT = 2
"""Version of the file. Increase it with every change of the network or of its training."""

_SEED = 0
_STEPS = 1000
_BATCH_SIZE = 128
_LEARNING_RATE = 0.01
_EVALUATION_BATCH = 1000
_FEATURES = 128
_MOST_TRAINING_IMAGES, _MOST_TEST_IMAGES = 60_000, 10_000
_SEEN_OFTEN = 5
"""Images that are seen more often than this are shifted a little, to avoid overfitting."""


class Classifier(nn.Module):
    """A convolutional network that classifies small images, with about 170,000 weights.

    Convolutions halve the image until the side is 4 pixels; a layer of 128 features follows, and a linear
    layer for the classes.

    Args:
        shape: (C, H, W) of the images.
        classes: the number of classes.

    Attributes:
        test_accuracy: share of the held-out images that are classified correctly, 0 to 1; 0 before training.
        digest: identifies the data that it was trained on; "" before training.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.test_accuracy, self.digest = 0.0, ""
        self.shape = tuple(shape)
        channels, height, width = shape
        layers: list[nn.Module] = []
        filters = 16
        while max(height, width) > 4:
            kernel = 5 if not layers and max(height, width) >= 16 else 3
            layers += _convolution(channels, filters, kernel=kernel, stride=2)
            channels, height, width = filters, (height + 1) // 2, (width + 1) // 2
            if 4 < max(height, width) <= 8:
                layers += _convolution(channels, channels, kernel=3, stride=1)
            filters = min(2 * filters, 64)
        self.body = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(channels * height * width, _FEATURES, bias=False),
            nn.BatchNorm1d(_FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Linear(_FEATURES, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Computes (B, classes) logits of (B, C, H, W) in [0, 1]."""
        return self.head(self.body(images * 2 - 1))

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Returns the last hidden features, (N, 128) float32, of (N, C, H, W) in [0, 1]."""
        return self._in_parts(images, lambda part: self.body(part * 2 - 1))

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Returns the probability of each class, (N, classes) float32, of (N, C, H, W) in [0, 1]."""
        return self._in_parts(images, lambda part: self(part).softmax(1))

    @torch.no_grad()
    def classify(self, images: Tensor) -> Tensor:
        """Returns the most likely class of each image, (N,) int64, of (N, C, H, W) in [0, 1]."""
        return self._in_parts(images, lambda part: self(part).argmax(1))

    def _in_parts(self, images: Tensor, function: Any) -> Tensor:
        """Applies a function to images in batches; the result is on the device of the images.

        Raises:
            ValueError: the images have another shape.
        """
        if images.shape[1:] != self.shape:
            wanted = ", ".join(map(str, self.shape))
            raise ValueError(f"images of shape {tuple(images.shape)}; expected (N, {wanted})")
        device = next(self.parameters()).device
        parts = [function(part.to(device)) for part in images.split(_EVALUATION_BATCH)]
        return torch.cat(parts).to(images.device)


def stacked_modes(classifier: Classifier, images: Tensor) -> Tensor:
    """Returns the modes of Stacked MNIST's images; each channel is classified by itself (Metz et al. 2017).

    Args:
        images: (N, 3, H, W) in [0, 1]. The classifier expects digits of 28x28 pixels: others are resized like
            datasets, and smaller ones are harder to classify.

    Returns:
        (N,) int64 in 0..999: 100 * red + 10 * green + blue.

    Raises:
        ValueError: the images have another shape.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images of shape {tuple(images.shape)}; expected (N, 3, H, W)")
    if images.shape[2:] != (28, 28):
        images = F.interpolate(images, (28, 28), mode="bilinear", antialias=True)
    return modes(classifier.classify(images.reshape(-1, 1, 28, 28)).view(-1, 3))


def load_or_train(dataset: Dataset, torch_device: torch.device, *, folder: Path | None = None) -> Classifier:
    """Returns the classifier of a dataset: from its file, or trained and written to that file.

    It is trained on the training images as a model sees them, at most 60,000, and tested on at most 10,000 of
    the test split (of the validation split if there is no test split). The state of torch's default
    generators does not change.

    Args:
        dataset: of labelled images.
        torch_device: the device of the training, and of the classifier.
        folder: of the file; None for `classifiers` in the cache.

    Raises:
        DataError: the dataset has no labels, or no held-out images.
    """
    spec = dataset.spec
    if spec.classes < 2:
        raise DataError(f"dataset={spec.name}: has no labels to train a classifier with")
    split = "test" if dataset.size("test") else "validation"
    if not dataset.size(split):
        raise DataError(f"dataset={spec.name}: has no held-out images to test a classifier on")
    train = levels_of(dataset, "train", _MOST_TRAINING_IMAGES)
    test = levels_of(dataset, split, _MOST_TEST_IMAGES)
    settings = (FORMAT, _SEED, _STEPS, _BATCH_SIZE, _LEARNING_RATE, spec.to_plain())
    digest = cache.digest(repr(settings), *train, *test)
    path = (folder or cache.folder("classifiers")) / f"{spec.name}-{digest[:16]}.pt"
    classifier = _initial(spec.shape, spec.classes)
    state = cache.load(path, digest)
    try:
        if state is not None:
            classifier.load_state_dict({k: v for k, v in state.items() if k != "test_accuracy"})
            classifier.test_accuracy = state["test_accuracy"].item()
    except (KeyError, RuntimeError):
        log.warning("%s: damaged (it holds other weights); the classifier is trained again", path)
        state = None
    if state is None:
        classifier = _train(spec.name, _initial(spec.shape, spec.classes), train, test, torch_device)
        accuracy = torch.tensor(classifier.test_accuracy, dtype=torch.float64)
        cache.save(path, digest, {**classifier.state_dict(), "test_accuracy": accuracy})
    classifier.digest = digest
    return classifier.to(torch_device).eval().requires_grad_(False)


def levels_of(dataset: Dataset, split: str, limit: int | None = None) -> tuple[Tensor, Tensor | None]:
    """Returns the first images of a split as a model sees them, rounded to 8 bits.

    Returns:
        (N, C, H, W) uint8, and (N,) int64 labels if there are any, on the CPU.
    """
    images, labels = [], []
    for _, batch in dataset.evaluation_batches(split, 5000, _SEED, limit):
        images.append((batch.images.clamp(0, 1) * 255).round().to("cpu", torch.uint8))
        labels += [batch.labels.cpu()] if batch.labels is not None else []
    empty = torch.zeros(0, *dataset.spec.shape, dtype=torch.uint8)
    return torch.cat([empty, *images]), torch.cat(labels) if labels else None


def _convolution(channels: int, filters: int, *, kernel: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, filters, kernel, stride, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(filters), nn.ReLU()]


def _initial(shape: tuple[int, int, int], classes: int) -> Classifier:
    """Builds the untrained classifier, on the CPU; the state of the default generator does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(_SEED, "initial weights"))
        return Classifier(shape, classes)


@torch.enable_grad()  # a caller that evaluates has disabled gradients
def _train(
    name: str,
    classifier: Classifier,
    train: tuple[Tensor, Tensor | None],
    test: tuple[Tensor, Tensor | None],
    device: torch.device,
) -> Classifier:
    log.info("classifier: training once on %d images of %s", len(train[0]), name)
    start = time.monotonic()
    classifier.to(device).train()
    generator = torch.Generator().manual_seed(derive_seed(_SEED, "order"))
    images, labels = (part.to(device) for part in train if part is not None)
    often = _SEEN_OFTEN * len(images) < _STEPS * _BATCH_SIZE
    margin = max(images.shape[2:]) // 14 if often else 0
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=_STEPS)
    for _ in range(_STEPS):
        rows = torch.randint(len(images), (_BATCH_SIZE,), generator=generator).to(device)
        batch = _shifted(images[rows].float() / 255, margin, generator)
        optimizer.zero_grad()
        F.cross_entropy(classifier(batch), labels[rows]).backward()
        optimizer.step()
        schedule.step()
    classifier.eval()
    held, answers = (part.to(device) for part in test if part is not None)
    right = torch.cat(
        [
            classifier.classify(part.float() / 255) == answer
            for part, answer in zip(held.split(1000), answers.split(1000), strict=True)
        ]
    )
    classifier.test_accuracy = right.double().mean().item()
    seconds = time.monotonic() - start
    log.info("classifier: test accuracy %.4f after %.0f s", classifier.test_accuracy, seconds)
    return classifier


def _shifted(images: Tensor, margin: int, generator: torch.Generator) -> Tensor:
    """Shifts images by up to `margin` pixels, all of a batch alike; the edge is repeated."""
    if not margin:
        return images
    height, width = images.shape[2:]
    down, right = torch.randint(2 * margin + 1, (2,), generator=generator).tolist()
    padded = F.pad(images, (margin,) * 4, mode="replicate")
    return padded[:, :, down : down + height, right : right + width]
