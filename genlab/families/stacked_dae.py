"""A stack of denoising autoencoders, trained layer by layer (Bengio et al. 2007; Vincent et al. 2008, 2010).

What it learns without labels is what a classifier may begin with: see `genlab.families.classifier`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.config.autoencoders import StackedDAEConfig
from genlab.config.run import TrainConfig
from genlab.data.corruption import DefaultDraws, corrupt
from genlab.data.spec import Batch, DataSpec
from genlab.data.statistics import PixelStatistics
from genlab.errors import ConfigError
from genlab.families.autoencoder import in_turn
from genlab.families.base import LatentFamily, Loader, Metrics, UpdateProtocol
from genlab.families.checks import check_images
from genlab.metrics.fidelity import mean_squared_error
from genlab.nets.stacked import AutoencoderStack
from genlab.rng import SampleRng

_FILTERS, _FILTER_COLUMNS = 100, 10


class StackedDAE(LatentFamily):
    """A stack of layers, each trained in its share of the run to reconstruct the code of those below.

    One player, since a step's loss reaches one layer: the optimizer passes over weights without a gradient,
    and neither its moments nor its weight decay touch the other layers. The schedule of the learning rate
    begins anew with each layer.
    """

    Config = StackedDAEConfig
    players = ("stack",)
    sampled_by = ("stack",)
    generates = False
    encodes = True

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        """Refuses fewer steps than there are layers.

        Raises:
            ConfigError: there are fewer steps.
        """
        super().check(config)
        steps, layers = config.trainer.steps, len(config.model.hidden)
        if steps < layers:
            raise ConfigError(
                f"trainer.steps={steps}: the {layers} layers of model.hidden are trained one after another; "
                f"use at least {layers}"
            )

    def __init__(self, config: StackedDAEConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        check_images(config.name, spec)
        self.stack = AutoencoderStack([spec.dimensions, *config.hidden], config.units)

    def begin(self, statistics: PixelStatistics | None, load: Loader | None = None) -> None:
        """The lowest decoder gives the mean of the training images back as itself."""
        assert statistics is not None
        with torch.no_grad():
            mean = statistics.mean.flatten()[None]
            outputs = self.stack(0, mean)[0]
            self.stack.biases[0].copy_(statistics.probability.flatten().logit() - outputs)

    def step(self, batches: Iterator[Batch], update: UpdateProtocol) -> Metrics:
        """One layer learns to reconstruct its inputs from corrupted ones (Vincent et al. 2010, section 3.5).

        The layers below are given whole images, and stay as they are.
        """
        layer, _ = self.phase(update.step, update.steps)
        images = next(batches).images
        with torch.no_grad():
            inputs = self.stack.below(layer, images.flatten(1))
        corrupted = corrupt(inputs, self.config.noise, self.config.noise_level, DefaultDraws(inputs))
        return update("stack", lambda *given: self.loss(layer, *given), inputs, corrupted)

    def phase(self, step: int, steps: int) -> tuple[int, float]:
        """Returns the layer that is trained after `step` of `steps`, and the share of its time that is over.

        All layers have the same time, but for a step. In whole numbers, since k / n * n may be below k.
        """
        layer, rest = divmod(step * len(self.stack), steps)
        return (layer, rest / steps) if layer < len(self.stack) else (layer - 1, 1.0)

    def schedule_progress(self, step: int, steps: int) -> float:
        return self.phase(step, steps)[1]

    def loss(self, layer: int, inputs: Tensor, corrupted: Tensor) -> tuple[Tensor, Metrics]:
        """Returns a layer's reconstruction error for corrupted inputs, (B, D), averaged over images."""
        error = self.error(layer, self.stack(layer, corrupted), inputs).mean()
        return error, {self._error_name(layer): error}

    def error(self, layer: int, outputs: Tensor, inputs: Tensor) -> Tensor:
        """Returns the error of a layer's outputs and its inputs, both (B, D), summed over D in float32, (B,).

        The cross-entropy -x log y - (1 - x) log(1 - y) of logits where the inputs are in [0, 1], in nats
        (Vincent et al. 2010, eq. 3): images, and the units of a sigmoid layer, each taken for the probability
        of a 1. It is least at y = x, and its gradient does not vanish where y is sure and wrong. Units of a
        ReLU layer have no upper bound: the squared error (x - y)^2.
        """
        if self.stack.bounded(layer):
            each = F.binary_cross_entropy_with_logits(outputs.float(), inputs.float(), reduction="none")
        else:
            each = (inputs.float() - outputs.float()).square()
        return each.sum(1)

    def _error_name(self, layer: int) -> str:
        """Returns the name of a layer's error for people, who count layers from 1."""
        kind = "cross_entropy_nats" if self.stack.bounded(layer) else "squared_error"
        return f"layer{layer + 1}_{kind}"

    def sample(self, n: int, *, rng: SampleRng, labels: Tensor | None = None) -> Tensor:
        raise ConfigError(f"model={self.config.name}: has no prior to draw from")

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns the code of the uppermost layer, (B, hidden[-1])."""
        return self.stack.encoder(images.flatten(1)).float()

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns the images of codes of the uppermost layer, down through all layers."""
        return self._images(self.stack.down(latents, len(self.stack) - 1))

    def evaluate(self, batch: Batch, *, rng: SampleRng) -> dict[str, Tensor]:
        """Returns the error of each layer; one that is not trained yet has random weights.

        Returns:
            layerK_cross_entropy_nats or layerK_squared_error: the loss of layer K, counted from 1, without
                noise. It is of the layer's own inputs, which differ from layer to layer.
            layerK_mean_squared_error: over the numbers of an image, of it and its reconstruction from the
                code of layer K.
        """
        values, inputs = {}, batch.images.flatten(1)
        for layer in range(len(self.stack)):
            codes = self.stack.encoder.one(layer, inputs)
            values[self._error_name(layer)] = self.error(layer, self.stack.outputs(layer, codes), inputs)
            restored = self._images(self.stack.down(codes, layer))
            values[f"layer{layer + 1}_mean_squared_error"] = mean_squared_error(batch.images, restored)
            inputs = codes
        return values

    def pictures(self, batch: Batch, *, rng: SampleRng) -> dict[str, Tensor]:
        """Returns reconstructions, and the filters of the first layer.

        Returns:
            reconstructions: rows of originals, each above its reconstructions from the code of the first
                layer, of the second, and so on.
            filters: weights of the first 100 units, each with its own contrast; 0 is grey.
        """
        versions, codes = [batch.images], batch.images.flatten(1)
        for layer in range(len(self.stack)):
            codes = self.stack.encoder.one(layer, codes)
            versions.append(self._images(self.stack.down(codes, layer)))
        weight = self.stack.encoder.layers[0].weight
        assert isinstance(weight, Tensor)
        return {"reconstructions": in_turn(*versions), "filters": filters(weight, self.spec.shape)}

    def facts(self) -> dict[str, Any]:
        return {
            "reconstruction": "from the code of each layer down to the image",
            "noise": f"{self.config.noise} {self.config.noise_level:g}",
        }

    def _images(self, flat: Tensor) -> Tensor:
        return flat.view(-1, *self.spec.shape)


def filters(weight: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Returns weights of the first 100 units, (N, C H W), as pictures in rows, (R, K, C, H, W) in [0, 1].

    0 is 1/2, and the largest weight of each in magnitude is 0 or 1.
    """
    columns = min(_FILTER_COLUMNS, len(weight))
    some = weight[: min(_FILTERS, len(weight)) // columns * columns].detach().float()
    largest = some.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return (some / largest / 2 + 0.5).view(-1, columns, *shape)
