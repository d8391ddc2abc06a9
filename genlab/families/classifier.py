"""A classifier of images: a probe of what representations are worth, not a generative model.

Its encoder begins with random weights or with those of a run that was trained without labels, all else equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.config.autoencoders import ClassifierConfig
from genlab.data.spec import Batch, DataSpec
from genlab.data.statistics import PixelStatistics
from genlab.errors import CheckpointError, ConfigError
from genlab.families.autoencoder import AE, in_turn
from genlab.families.base import Family, Loader, Metrics, UpdateProtocol
from genlab.families.checks import check_images
from genlab.families.stacked_dae import StackedDAE
from genlab.log import log
from genlab.nets.autoencoder import MLPEncoder
from genlab.nets.stacked import LayeredEncoder
from genlab.rng import SampleRng


class ClassifierNet(nn.Module):
    """Logits (B, classes) of images (B, C, H, W): an encoder and a linear layer.

    The linear layer begins at 0, so that every class is as likely as another.
    """

    def __init__(self, config: ClassifierConfig, spec: DataSpec) -> None:
        super().__init__()
        self.encoder = LayeredEncoder([spec.dimensions, *config.hidden], config.units, config.dropout)
        self.out = nn.Linear(config.hidden[-1], spec.classes)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.out(self.encoder(images.flatten(1)))


class Classifier(Family):
    """Softmax regression on an encoder, both trained with labels (Vincent et al. 2010, section 3.5)."""

    Config = ClassifierConfig
    players = ("classifier",)
    sampled_by = ("classifier",)
    generates = False

    def __init__(self, config: ClassifierConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        check_images(config.name, spec)
        if spec.classes < 2:
            lacks = "no labels" if spec.classes == 0 else "a single class, nothing"
            raise ConfigError(f"dataset={spec.name}: has {lacks} to learn; choose e.g. dataset=mnist")
        self.classifier = ClassifierNet(config, spec)

    def begin(self, statistics: PixelStatistics | None, load: Loader | None = None) -> None:
        """Takes the lowest layers of the encoder of `model.start`, of its moving average where there is one.

        Raises:
            ConfigError: no such run, or its encoder is another.
        """
        start, encoder = self.config.start, self.classifier.encoder
        if start is None:
            return
        try:
            assert load is not None
            model = load(start)
        except CheckpointError as error:
            raise ConfigError(f"model.start={start}: {str(error).removeprefix(f'ckpt={start}: ')}") from error
        units, layers = encoder_layers(model.family, start)
        sizes = [layers[0].in_features, *(layer.out_features for layer in layers)]
        if sizes[0] != encoder.sizes[0]:
            remedy = f"choose dataset={model.spec.name}"
            if model.spec.name == self.spec.name:
                remedy = f"use the dataset settings of its config.yaml, e.g. dataset.size={model.spec.height}"
            raise ConfigError(
                f"model.start={start}: its images are of {_by(model.spec.shape)} numbers, those of "
                f"dataset={self.spec.name} of {_by(self.spec.shape)}; {remedy}"
            )
        if list(encoder.sizes) != sizes[: len(encoder.sizes)]:
            raise ConfigError(
                f"model.start={start}: its layers have other units than model.hidden="
                f"{_listed(encoder.sizes[1:])}; use model.hidden={_listed(sizes[1:])} or the lowest of them"
            )
        if units != encoder.units:
            raise ConfigError(
                f"model.start={start}: its units are not {encoder.units}; use model.units={units}"
            )
        for own, taken in zip(encoder.layers, layers, strict=False):
            own.load_state_dict(taken.state_dict())
        log.info("began with %d layers, %s weights of %s", len(encoder.layers), model.weights, model.path)

    def step(self, batches: Iterator[Batch], update: UpdateProtocol) -> Metrics:
        """A step down the gradient of the cross-entropy, of encoder and softmax together."""
        batch = next(batches)
        assert batch.labels is not None
        return update("classifier", self.loss, batch.images, batch.labels)

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Metrics]:
        """Returns -log softmax(logits)[label], averaged over images, in nats."""
        logits = self.classifier(images).float()
        loss = F.cross_entropy(logits, labels)
        accuracy = (logits.argmax(1) == labels).float().mean()
        return loss, {"cross_entropy_nats": loss, "accuracy": accuracy}

    def sample(self, n: int, *, rng: SampleRng, labels: Tensor | None = None) -> Tensor:
        raise ConfigError(f"model={self.config.name}: makes no images")

    def evaluate(self, batch: Batch, *, rng: SampleRng) -> dict[str, Tensor]:
        """Returns how well each image is classified.

        Returns:
            accuracy: 1 where the likeliest class is the label's, else 0.
            cross_entropy_nats: of the label.
        """
        assert batch.labels is not None
        logits = self.classifier(batch.images).float()
        return {
            "accuracy": (logits.argmax(1) == batch.labels).float(),
            "cross_entropy_nats": F.cross_entropy(logits, batch.labels, reduction="none"),
        }

    def pictures(self, batch: Batch, *, rng: SampleRng) -> dict[str, Tensor]:
        """Returns images, the least probable labels first; in negative where another class was likelier."""
        values = self.evaluate(batch, rng=rng)
        order = values["cross_entropy_nats"].argsort(descending=True)
        wrong = (values["accuracy"] == 0).view(-1, 1, 1, 1)
        return {"hardest": in_turn(torch.where(wrong, 1 - batch.images, batch.images)[order])}

    def facts(self) -> dict[str, Any]:
        return {"encoder": f"begun from {self.config.start or 'random weights'}"}


def encoder_layers(family: Family, start: str) -> tuple[str, list[nn.Linear]]:
    """Returns the units and the layers of a family's encoder, from the image upwards.

    Those of an autoencoder end below its latent, which has no nonlinearity.

    Raises:
        ConfigError: it has no encoder of fully connected layers; names the run `start`.
    """
    if isinstance(family, StackedDAE):
        return family.config.units, list(family.stack.encoder.layers)  # type: ignore[arg-type]
    layers: list[Any] = []
    if isinstance(family, AE) and isinstance(encoder := family.autoencoder.encoder, MLPEncoder):
        layers = list(encoder.net.layers)[:-1]
    if not layers:
        raise ConfigError(
            f"model.start={start}: {family.config.name} has no fully connected encoder to begin with; "
            "models that do: stacked_dae, and ae and dae with model.network=mlp"
        )
    return "relu", layers


def _listed(sizes: Any) -> str:
    """Returns sizes as they are typed: [500,500]."""
    return f"[{','.join(map(str, sizes))}]"


def _by(sizes: Any) -> str:
    return "x".join(map(str, sizes))
