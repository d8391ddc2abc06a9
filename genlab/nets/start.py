"""Where networks that put out parameters of pixels start: small last weights, and offsets from the data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_SHRINK = 0.01
_SHRINK_MEANS = 0.3


def shrink(layer: nn.Module, factor: float | Tensor = _SHRINK) -> nn.Module:
    """Makes the weights of a network's last layer small and its bias 0, and returns the layer.

    The initial values of He et al. 2015 are for a layer before a ReLU. As parameters of a pixel, whose values
    are in [0, 1], they would be noise that training has to take out again.

    Args:
        layer: with `weight` and `bias`.
        factor: of the weights, one for all or one for each output, (outputs, 1).
    """
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    with torch.no_grad():
        weight.mul_(factor)
        if isinstance(bias, Tensor):
            bias.zero_()
    return layer


def shrink_posterior(layer: nn.Module, latent: int) -> None:
    """Makes a layer's posteriors start near the prior, N(0, I).

    The means keep some of their spread. Where all of them start at 0, latents are noise at first, and the
    first gradients, alike for all of them, make them speak of the same few things.

    Args:
        layer: the last of an encoder; its first `latent` outputs are means or logits, the others spreads.
    """
    assert isinstance(layer.weight, Tensor)
    factors = layer.weight.new_full((len(layer.weight), 1), _SHRINK)
    factors[:latent] = _SHRINK_MEANS
    shrink(layer, factors)


class _Constants(nn.Module):
    """Tensors that are 0 until a run sets them, and where a checkpoint of an older version has none."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, value in (*self.named_buffers(), *self.named_parameters()):
            state_dict.setdefault(prefix + name, torch.zeros_like(value))
        super()._load_from_state_dict(state_dict, prefix, *args)


class Offset(_Constants):
    """Adds a constant to a network's outputs, which a new run sets to what is known of the data.

    Args:
        shape: of the constant, that of one output.
        learned: it is a weight, for a network of convolutions alone: these do not know where they are, and so
            could not take out again what they have no need of. Otherwise nothing changes it.
    """

    value: Tensor

    def __init__(self, *shape: int, learned: bool = False) -> None:
        super().__init__()
        if learned:
            self.value = nn.Parameter(torch.zeros(shape))
        else:
            self.register_buffer("value", torch.zeros(shape))

    def forward(self, outputs: Tensor) -> Tensor:
        return outputs + self.value

    @torch.no_grad()
    def set(self, value: Tensor) -> None:
        """Sets the constant."""
        self.value.copy_(value)


class PixelOffset(_Constants):
    """Adds to parameters of each pixel, (H, W, P), of which few numbers differ from pixel to pixel.

    It is `common` + `per_pixel` @ `basis`. The numbers of a pixel are weights: a convolution does not know
    where it is, and so could not take out again what it has no need of.

    Args:
        height, width, parameters: H, W and P.
        ranks: R, numbers that differ.
    """

    common: Tensor
    basis: Tensor

    def __init__(self, height: int, width: int, parameters: int, ranks: int) -> None:
        super().__init__()
        self.register_buffer("common", torch.zeros(parameters))
        self.per_pixel = nn.Parameter(torch.zeros(height, width, ranks))
        self.register_buffer("basis", torch.zeros(ranks, parameters))

    def forward(self, row: int | None = None) -> Tensor:
        """Returns what is added, (H, W, P), or in one row, (W, P); in full precision under autocast."""
        numbers = self.per_pixel if row is None else self.per_pixel[row]
        with torch.autocast(numbers.device.type, enabled=False):
            return self.common + numbers @ self.basis

    @torch.no_grad()
    def set(self, common: Tensor, per_pixel: Tensor, basis: Tensor) -> None:
        """Sets (P,), (H, W, R) and (R, P)."""
        self.common.copy_(common)
        self.per_pixel.copy_(per_pixel)
        self.basis.copy_(basis)
