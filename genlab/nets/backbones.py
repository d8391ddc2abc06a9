"""Parts of generators and discriminators: fully connected, DCGAN's, and residual backbones."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.nets.autoencoder import Shape, halvings
from genlab.nets.layers import ResamplingBlock, discriminator_norm, glorot, kaiming

LEAK = 0.2
"""Slope of the discriminators' leaky ReLU below 0 (Radford et al. 2016)."""


class MLPGenerator(nn.Module):
    """Linear layers with ReLU between them, (B, inputs) to (B, C, H, W)."""

    def __init__(self, inputs: int, hidden: Sequence[int], shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        sizes = [inputs, *hidden, shape[0] * shape[1] * shape[2]]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        for k, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            kaiming(layer, 0 if k < len(hidden) else 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        return self.layers[-1](x).view(-1, *self.shape)


class DCGANGenerator(nn.Module):
    """A linear layer to the smallest map, then transposed convolutions (Radford et al. 2016, figure 1).

    Each 4x4 convolution doubles the sides and halves the channels, down to `width` channels next to the
    image; batch normalisation and ReLU stand before each.
    """

    def __init__(self, inputs: int, width: int, shape: Shape, batch_norm: bool) -> None:
        super().__init__()
        sizes = halvings(*shape[1:])
        channels = [shape[0], *(width * 2**k for k in range(len(sizes) - 1))]
        self.start = (channels[-1], *sizes[-1])
        self.into = nn.Linear(inputs, channels[-1] * sizes[-1][0] * sizes[-1][1])
        stages = list(zip(channels, channels[1:], sizes, sizes[1:], strict=False))[::-1]
        self.norms = nn.ModuleList(generator_norm(b, batch_norm) for _, b, _, _ in stages)
        self.convolutions = nn.ModuleList(
            nn.ConvTranspose2d(
                b,
                a,
                kernel_size=4,
                stride=2,
                padding=1,
                # an odd side loses its last pixel in halving, and gets it back here
                output_padding=(big[0] - 2 * small[0], big[1] - 2 * small[1]),
                bias=not batch_norm or big == sizes[0],
            )
            for a, b, big, small in stages
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x).view(-1, *self.start)
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            x = convolution(torch.relu(norm(x)))
        return x


class ResidualGenerator(nn.Module):
    """Three residual blocks that double the sides from 4 to 32 (Gulrajani et al. 2017, appendix F)."""

    def __init__(self, inputs: int, width: int, shape: Shape, batch_norm: bool) -> None:
        super().__init__()
        self.start = (width, 4, 4)
        self.into = nn.Linear(inputs, width * 16)
        glorot(self.into)
        self.blocks = nn.ModuleList(
            ResamplingBlock(
                width,
                width,
                (generator_norm(width, batch_norm), generator_norm(width, batch_norm)),
                resample="up",
                bias=not batch_norm,
            )
            for _ in range(3)
        )
        self.norm = generator_norm(width, batch_norm)
        self.out = nn.Conv2d(width, shape[0], 3, padding=1)
        glorot(self.out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x).view(-1, *self.start)
        for block in self.blocks:
            x = block(x)
        return self.out(torch.relu(self.norm(x)))


def generator_norm(channels: int, batch_norm: bool) -> nn.Module:
    """Returns batch normalisation with running statistics, or nothing."""
    return nn.BatchNorm2d(channels) if batch_norm else nn.Identity()


class MLPFeatures(nn.Module):
    """Linear layers, each with its normalisation and a (leaky) ReLU, (B, C, H, W) to (B, outputs)."""

    def __init__(
        self, shape: Shape, hidden: Sequence[int], normalization: str, slope: float, linear: type[nn.Linear]
    ) -> None:
        super().__init__()
        self.slope = slope
        sizes = [shape[0] * shape[1] * shape[2], *hidden]
        self.outputs = sizes[-1]
        self.layers = nn.ModuleList(
            linear(a, b, bias=normalization != "batch") for a, b in itertools.pairwise(sizes)
        )
        self.norms = nn.ModuleList(discriminator_norm(normalization, b, maps=False) for b in hidden)
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            kaiming(layer, slope)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.leaky_relu(norm(layer(x)), self.slope)
        return x


class DCGANFeatures(nn.Module):
    """4x4 convolutions that halve the sides and double the channels, to the smallest map, (B, outputs, h, w).

    Each but the first has its normalisation (Radford et al. 2016): an image under 16 pixels, with one
    convolution, has none.
    """

    def __init__(self, shape: Shape, width: int, normalization: str, conv: type[nn.Conv2d]) -> None:
        super().__init__()
        sizes = halvings(*shape[1:])
        channels = [shape[0], *(width * 2**k for k in range(len(sizes) - 1))]
        self.outputs, self.map = channels[-1], sizes[-1]
        kinds = ["none", *[normalization] * (len(sizes) - 2)]
        self.convolutions = nn.ModuleList(
            conv(a, b, 4, stride=2, padding=1, bias=kind not in ("batch", "instance"))
            for (a, b), kind in zip(itertools.pairwise(channels), kinds, strict=True)
        )
        self.norms = nn.ModuleList(
            discriminator_norm(kind, b, maps=True) for b, kind in zip(channels[1:], kinds, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.leaky_relu(norm(convolution(x)), LEAK)
        return x


class ResidualFeatures(nn.Module):
    """Two residual blocks that halve the sides and two that keep them, (B, C, 32, 32) to (B, outputs, 8, 8).

    Gulrajani et al. 2017, appendix F; the first block, next to the image, has no normalisation.
    """

    def __init__(self, shape: Shape, width: int, normalization: str, conv: type[nn.Conv2d]) -> None:
        super().__init__()
        self.outputs = width
        kinds = ["none", *[normalization] * 3]
        self.blocks = nn.ModuleList(
            ResamplingBlock(
                shape[0] if k == 0 else width,
                width,
                (
                    discriminator_norm(kind, width, maps=True),
                    discriminator_norm(kind, width, maps=True),
                ),
                resample="down" if k < 2 else "none",
                first=k == 0,
                bias=kind not in ("batch", "instance"),
                conv=conv,
            )
            for k, kind in enumerate(kinds)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return torch.relu(x)
