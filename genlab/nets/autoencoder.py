"""Encoders and decoders: fully connected, or convolutional for any size from 8 to 64 pixels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]
"""Channels, height, width."""

SMALLEST_PIXELS, LARGEST_PIXELS = 8, 64


class FullyConnected(nn.Module):
    """Linear layers with ReLU between them, (B, sizes[0]) to (B, sizes[-1])."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x)


def beside_labels(x: Tensor, labels: Tensor | None, classes: int) -> Tensor:
    """One-hot labels behind the second dimension of vectors (B, D), or as constant planes of (B, C, H, W).

    Args:
        labels: (B,), whole numbers under `classes`; ignored where there are no classes.
        classes: how many; 0 gives x back.

    Raises:
        ValueError: there are classes, and no labels.
    """
    if classes == 0:
        return x
    if labels is None:
        raise ValueError("a network with classes needs labels")
    one_hot = (labels[:, None] == torch.arange(classes, device=labels.device)).to(x.dtype)
    planes = one_hot.view(*one_hot.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
    return torch.cat([x, planes], 1)


class MLPEncoder(nn.Module):
    """Images (B, C, H, W), and labels where there are classes, to features (B, outputs)."""

    def __init__(self, shape: Shape, hidden: Sequence[int], outputs: int, classes: int = 0) -> None:
        super().__init__()
        self.classes = classes
        self.net = FullyConnected([shape[0] * shape[1] * shape[2] + classes, *hidden, outputs])

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.net(beside_labels(images.flatten(1), labels, self.classes))


class MLPDecoder(nn.Module):
    """Latents (B, latent), and labels where there are classes, to (B, C, H, W).

    `hidden` is given from the encoder's side.
    """

    def __init__(self, latent: int, hidden: Sequence[int], shape: Shape, classes: int = 0) -> None:
        super().__init__()
        self.shape, self.classes = shape, classes
        self.net = FullyConnected([latent + classes, *reversed(hidden), shape[0] * shape[1] * shape[2]])

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.net(beside_labels(latent, labels, self.classes)).view(-1, *self.shape)


def halvings(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes from the image down, each half the one before rounded down, until a side is under 8 pixels."""
    sizes = [(height, width)]
    while min(sizes[-1]) >= SMALLEST_PIXELS:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    return sizes


class ConvEncoder(nn.Module):
    """Strided 4x4 convolutions, doubling the channels as they halve the image; then a linear layer.

    Args:
        shape: of the images, sides from 8 to 64 pixels.
        width: channels of the first convolution.
        outputs: features of the result, (B, outputs).
        classes: of labels, which it sees as planes beside the image; 0 for none.
    """

    def __init__(self, shape: Shape, width: int, outputs: int, classes: int = 0) -> None:
        super().__init__()
        self.classes = classes
        sizes = halvings(*shape[1:])
        channels = [shape[0] + classes, *(width * 2**k for k in range(len(sizes) - 1))]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in itertools.pairwise(channels)
        )
        self.out = nn.Linear(channels[-1] * sizes[-1][0] * sizes[-1][1], outputs)
        _initialize(self)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = beside_labels(images, labels, self.classes)
        for convolution in self.convolutions:
            x = torch.relu(convolution(x))
        return self.out(x.flatten(1))


class ConvDecoder(nn.Module):
    """The encoder turned round: a linear layer, then transposed convolutions back through the same sizes.

    Labels, where there are classes, stand beside the latent.
    """

    def __init__(self, latent: int, width: int, shape: Shape, classes: int = 0) -> None:
        super().__init__()
        self.classes = classes
        sizes = halvings(*shape[1:])
        channels = [shape[0], *(width * 2**k for k in range(len(sizes) - 1))]
        self.start = (channels[-1], *sizes[-1])
        self.into = nn.Linear(latent + classes, channels[-1] * sizes[-1][0] * sizes[-1][1])
        stages = list(zip(channels, channels[1:], sizes, sizes[1:], strict=False))
        self.convolutions = nn.ModuleList(
            # an odd side loses its last pixel in halving, and gets it back here
            nn.ConvTranspose2d(b, a, 4, 2, 1, output_padding=(big[0] - 2 * small[0], big[1] - 2 * small[1]))
            for a, b, big, small in reversed(stages)
        )
        _initialize(self)

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.into(beside_labels(latent, labels, self.classes)).view(-1, *self.start)
        for convolution in self.convolutions:
            x = convolution(torch.relu(x))
        return x


def _initialize(net: nn.Module) -> None:
    """He et al. 2015 for layers before a ReLU; biases 0."""
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            if isinstance(module, nn.ConvTranspose2d):
                # each output sees kernel / stride^2 of the inputs, which torch's fan does not know
                fan = module.in_channels * 16 / 4
                nn.init.normal_(module.weight, std=(2 / fan) ** 0.5)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            assert module.bias is not None
            nn.init.zeros_(module.bias)
