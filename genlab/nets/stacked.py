"""Fully connected layers that can be trained one at a time, each as an autoencoder of what it is given."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.config.autoencoders import Units


class LayeredEncoder(nn.Module):
    """Fully connected layers with a nonlinearity after each, (B, sizes[0]) to (B, sizes[-1]).

    Args:
        sizes: numbers of an input, then units of each layer.
        units: the nonlinearity.
        dropout: share of each layer's units that are left out in training.
    """

    def __init__(self, sizes: Sequence[int], units: Units, dropout: float = 0.0) -> None:
        super().__init__()
        self.sizes, self.units = tuple(sizes), units
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.dropout = nn.Dropout(dropout)
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            if units == "sigmoid":  # Glorot and Bengio 2010, eq. 16, times 4: a sigmoid's slope at 0 is 1/4
                nn.init.xavier_uniform_(layer.weight, gain=4)
            else:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        for layer in range(len(self.layers)):
            x = self.dropout(self.one(layer, x))
        return x

    def one(self, layer: int, x: Tensor) -> Tensor:
        """Returns the units of one layer, (B, sizes[layer + 1]), for its inputs (B, sizes[layer])."""
        sums = self.layers[layer](x)
        return sums.sigmoid() if self.units == "sigmoid" else sums.relu()


class AutoencoderStack(nn.Module):
    """An autoencoder for each layer of an encoder.

    Its decoder has the layer's weights, transposed, and a bias of its own: W' = W^T (Vincent et al. 2010,
    section 2.1). Layers are counted from 0.

    Args:
        sizes, units: see `LayeredEncoder`.
    """

    def __init__(self, sizes: Sequence[int], units: Units) -> None:
        super().__init__()
        self.encoder = LayeredEncoder(sizes, units)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(size)) for size in sizes[:-1])

    def __len__(self) -> int:
        return len(self.biases)

    def forward(self, layer: int, inputs: Tensor) -> Tensor:
        """Returns a layer's reconstruction of its inputs: outputs, (B, sizes[layer]) both."""
        return self.outputs(layer, self.encoder.one(layer, inputs))

    def outputs(self, layer: int, codes: Tensor) -> Tensor:
        """Returns a decoder's outputs for codes (B, sizes[layer + 1]): logits, or values; see `bounded`."""
        weight = self.encoder.layers[layer].weight
        assert isinstance(weight, Tensor)
        return F.linear(codes, weight.T, self.biases[layer])

    def bounded(self, layer: int) -> bool:
        """Returns whether a layer's inputs are in [0, 1], as images are: its outputs are then logits."""
        return layer == 0 or self.encoder.units == "sigmoid"

    def inputs_of(self, layer: int, outputs: Tensor) -> Tensor:
        """Returns the inputs of a layer that outputs stand for, float32, in their range."""
        return outputs.float().sigmoid() if self.bounded(layer) else outputs.float().relu()

    def below(self, layer: int, x: Tensor) -> Tensor:
        """Returns a layer's inputs for those of the stack, (B, sizes[0]): the code of the layers below."""
        for k in range(layer):
            x = self.encoder.one(k, x)
        return x

    def down(self, codes: Tensor, layer: int) -> Tensor:
        """Returns the stack's inputs, (B, sizes[0]) in [0, 1], for a layer's codes (B, sizes[layer + 1])."""
        for k in range(layer, -1, -1):
            codes = self.inputs_of(k, self.outputs(k, codes))
        return codes
