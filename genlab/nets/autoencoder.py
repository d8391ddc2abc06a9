"""Encoders and decoders: fully connected, or convolutional for any size from 8 to 64 pixels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.distributions.categorical import one_hot
from genlab.nets.precision import in_float32
from genlab.nets.start import Offset, shrink

Shape = tuple[int, int, int]
"""Channels, height, width."""

SMALLEST_PIXELS, LARGEST_PIXELS = 8, 64
_RESIDUAL_FROM_PIXELS = 28


class FullyConnected(nn.Module):
    """Linear layers with ReLU between them, (B, sizes[0]) to (B, sizes[-1])."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        _initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[-1](self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        """Returns what the last layer gets."""
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return x


def beside_labels(x: Tensor, labels: Tensor | None, classes: int) -> Tensor:
    """Returns vectors (B, D) with one-hot labels behind, or (B, C, H, W) with labels as constant planes.

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
    chosen = one_hot(labels, classes).to(x.dtype)
    planes = chosen.view(*chosen.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
    return torch.cat([x, planes], 1)


class MLPEncoder(nn.Module):
    """Images (B, C, H, W), and labels where there are classes, to features (B, outputs)."""

    def __init__(self, shape: Shape, hidden: Sequence[int], outputs: int, classes: int = 0) -> None:
        super().__init__()
        self.classes = classes
        self.net = FullyConnected([shape[0] * shape[1] * shape[2] + classes, *hidden, outputs])

    @property
    def last(self) -> nn.Module:
        return self.net.layers[-1]

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
        shrink(self.net.layers[-1])
        self.offset = Offset(*shape)

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        hidden = self.net.hidden(beside_labels(latent, labels, self.classes))
        return self.offset(in_float32(self.net.layers[-1], hidden).view(-1, *self.shape))


def halvings(height: int, width: int) -> list[tuple[int, int]]:
    """Returns sizes from the image down, each half the one before, until a side is under 8 pixels."""
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

    @property
    def last(self) -> nn.Module:
        return self.out

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
        channels = channels_of(shape, width)
        self.start = (channels[-1], *sizes[-1])
        self.into = nn.Linear(latent + classes, channels[-1] * sizes[-1][0] * sizes[-1][1])
        stages = list(zip(channels, channels[1:], sizes, sizes[1:], strict=False))
        self.convolutions = nn.ModuleList(_double(b, a, big, small) for a, b, big, small in reversed(stages))
        _initialize(self)
        shrink(self.convolutions[-1])
        self.offset = Offset(*shape)

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.into(beside_labels(latent, labels, self.classes)).view(-1, *self.start)
        for convolution in self.convolutions[:-1]:
            x = convolution(torch.relu(x))
        return self.offset(in_float32(self.convolutions[-1], torch.relu(x)))


class NormalizedBlock(nn.Module):
    """Two convolutions beside a shortcut, each after group normalisation and SiLU.

    It starts near the identity. The order is that of He et al. 2016, Identity Mappings in Deep Residual
    Networks.

    Args:
        channels: a multiple of 8, or fewer.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = group_norm(channels), group_norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        _initialize(self)
        shrink(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


class ResidualEncoder(nn.Module):
    """Strided convolutions to the smallest map, residual blocks on it, then fully connected layers.

    Args:
        shape: of the images, sides from 8 to 64 pixels.
        width: channels of the first convolution.
        hidden: units of the fully connected layers before the last.
        outputs: features of the result, (B, outputs).
        classes: of labels, which it sees as planes beside the image; 0 for none.
    """

    def __init__(
        self, shape: Shape, width: int, hidden: Sequence[int], outputs: int, classes: int = 0
    ) -> None:
        super().__init__()
        self.classes = classes
        (height, w), channels = halvings(*shape[1:])[-1], channels_of(shape, width)
        inputs = [channels[0] + classes, *channels[1:]]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in itertools.pairwise(inputs)
        )
        self.norms = nn.ModuleList(group_norm(n) for n in channels[1:])
        _initialize(self)
        self.block = NormalizedBlock(channels[-1])
        self.layers = FullyConnected([channels[-1] * height * w, *hidden, outputs])

    @property
    def last(self) -> nn.Module:
        return self.layers.layers[-1]

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.convolutions[0](beside_labels(images, labels, self.classes))
        for norm, convolution in zip(self.norms, self.convolutions[1:], strict=False):
            x = convolution(F.silu(norm(x)))
        return self.layers(F.silu(self.norms[-1](self.block(x))).flatten(1))


class ResidualDecoder(nn.Module):
    """Fully connected layers to the smallest map, then residual blocks and transposed convolutions.

    Args:
        latent: dimensions of the latent, (B, latent).
        width, hidden, classes: as those of `ResidualEncoder`, given from the encoder's side.
        shape: (C, H, W) of the outputs.
    """

    def __init__(
        self, latent: int, width: int, hidden: Sequence[int], shape: Shape, classes: int = 0
    ) -> None:
        super().__init__()
        self.classes = classes
        sizes, channels = halvings(*shape[1:]), channels_of(shape, width)
        self.start = (channels[-1], *sizes[-1])
        stages = list(zip(channels, channels[1:], sizes, sizes[1:], strict=False))[::-1]
        self.norms = nn.ModuleList(group_norm(b) for _, b, _, _ in stages)
        self.convolutions = nn.ModuleList(_double(b, a, big, small) for a, b, big, small in stages)
        _initialize(self)
        shrink(self.convolutions[-1])
        self.blocks = nn.ModuleList(NormalizedBlock(b) for _, b, _, _ in stages)
        self.layers = FullyConnected([latent + classes, *reversed(hidden), math.prod(self.start)])
        self.offset = Offset(*shape)

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.layers(beside_labels(latent, labels, self.classes)).view(-1, *self.start)
        for block, norm, convolution in zip(self.blocks, self.norms, self.convolutions[:-1], strict=False):
            x = convolution(F.silu(norm(block(x))))
        x = F.silu(self.norms[-1](self.blocks[-1](x)))
        return self.offset(in_float32(self.convolutions[-1], x))


ImageEncoder = MLPEncoder | ConvEncoder | ResidualEncoder
ImageDecoder = MLPDecoder | ConvDecoder | ResidualDecoder


def make_encoder(
    network: str, shape: Shape, *, hidden: Sequence[int], width: int, outputs: int, classes: int = 0
) -> ImageEncoder:
    """Returns an encoder of images; `network` is "mlp", "conv" or "resnet", the others see the classes."""
    match network:
        case "mlp":
            return MLPEncoder(shape, hidden, outputs, classes)
        case "conv":
            return ConvEncoder(shape, width, outputs, classes)
        case _:
            return ResidualEncoder(shape, width, hidden, outputs, classes)


def make_decoder(
    network: str, shape: Shape, *, hidden: Sequence[int], width: int, latent: int, classes: int = 0
) -> ImageDecoder:
    """Returns a decoder to outputs of that shape; `hidden` is given from the encoder's side."""
    match network:
        case "mlp":
            return MLPDecoder(latent, hidden, shape, classes)
        case "conv":
            return ConvDecoder(latent, width, shape, classes)
        case _:
            return ResidualDecoder(latent, width, hidden, shape, classes)


def choose_network(network: str, height: int, width: int) -> str:
    """Returns the network that "auto" stands for: "resnet" for sides from 28 to 64 pixels, else "mlp"."""
    if network != "auto":
        return network
    fits = min(height, width) >= _RESIDUAL_FROM_PIXELS and max(height, width) <= LARGEST_PIXELS
    return "resnet" if fits else "mlp"


def channels_of(shape: Shape, width: int) -> list[int]:
    """Returns channels of the image and of each map: `width`, doubled at each halving."""
    return [shape[0], *(width * 2**k for k in range(len(halvings(*shape[1:])) - 1))]


def group_norm(channels: int) -> nn.GroupNorm:
    """Returns group normalisation with groups of 8 channels, or as near to it as divides them."""
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 8)), channels)


def _double(inputs: int, outputs: int, big: tuple[int, int], small: tuple[int, int]) -> nn.ConvTranspose2d:
    """Returns a transposed 4x4 convolution to twice the size; an odd side gets its last pixel back."""
    odd = (big[0] - 2 * small[0], big[1] - 2 * small[1])
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, output_padding=odd)


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
