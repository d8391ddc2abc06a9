"""Parts of generators and discriminators: normalisations, residual blocks, minibatch statistics, weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ORTHOGONAL_GAIN = 0.8
"""Of `orthogonal` weights, as for the mixture of Gaussians in Metz et al. 2017, appendix A."""

POWER_ITERATIONS = 20
"""That start spectral normalisation; afterwards one for each step of training follows the weights."""


class SpectralNorm(nn.Module):
    """A layer's weight divided by its largest singular value (Miyato et al. 2018, eq. 8 and algorithm 1).

    To be mixed with the layer. The weight W is flattened to a matrix of (outputs, the rest), and its
    largest singular value is sigma = u^T W v. The singular vectors u and v are buffers and constants to the
    gradient; a forward pass only reads them, and `advance` moves them.
    """

    weight: Tensor
    u: Tensor
    v: Tensor

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        matrix = self.weight.flatten(1)
        self.register_buffer("u", F.normalize(torch.randn(matrix.shape[0]), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(matrix.shape[1]), dim=0))
        self.advance(POWER_ITERATIONS)

    def sigma(self) -> Tensor:
        """Returns the largest singular value, a scalar; a sum of products stays in float32 under autocast."""
        return (self.u[:, None] * self.weight.flatten(1) * self.v).sum()

    def normalized_weight(self) -> Tensor:
        return self.weight / self.sigma()

    @torch.no_grad()
    def advance(self, iterations: int = 1) -> None:
        """Moves u and v by power iterations, in place."""
        matrix = self.weight.flatten(1)
        for _ in range(iterations):
            self.v.copy_(F.normalize(matrix.T @ self.u, dim=0))
            self.u.copy_(F.normalize(matrix @ self.v, dim=0))


class SpectralLinear(SpectralNorm, nn.Linear):
    """A linear layer with spectral normalisation."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalized_weight(), self.bias)


class SpectralConv2d(SpectralNorm, nn.Conv2d):
    """A convolution with spectral normalisation."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.normalized_weight(), self.bias, self.stride, self.padding)


class SpectralEmbedding(SpectralNorm, nn.Embedding):
    """An embedding with spectral normalisation of its table."""

    def forward(self, labels: Tensor) -> Tensor:
        return F.embedding(labels, self.normalized_weight())


def discriminator_norm(normalization: str, features: int, *, maps: bool) -> nn.Module:
    """Returns a normalisation that a forward pass leaves as it was: batch norm keeps no running statistics.

    Args:
        normalization: "none", "batch", "layer" or "instance".
        features: channels of the maps, or length of the vectors.
        maps: whether the inputs are feature maps (B, features, H, W), or vectors (B, features).

    Raises:
        ValueError: for an unknown name, or for instance normalisation of vectors.
    """
    if normalization == "none":
        return nn.Identity()
    if normalization == "batch":
        kind = nn.BatchNorm2d if maps else nn.BatchNorm1d
        return kind(features, track_running_stats=False)
    if normalization == "layer":
        return nn.GroupNorm(1, features) if maps else nn.LayerNorm(features)
    if normalization == "instance":
        if not maps:
            raise ValueError("instance normalisation needs feature maps: a convolutional network")
        return nn.InstanceNorm2d(features, affine=True)
    raise ValueError(f"normalization: {normalization!r} is not one of none, batch, layer, instance")


class ResamplingBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, each after normalisation and ReLU.

    The block of Gulrajani et al. 2017, appendix F, and Miyato et al. 2018, figure 8. The shortcut is the
    identity, or a 1x1 convolution where the block changes the size. Weights start as Glorot and Bengio's,
    with gain sqrt(2) beside the shortcut and 1 in it.

    Args:
        inputs, outputs: channels.
        norms: the normalisations before the first and the second convolution.
        resample: "up" (nearest neighbour), "down" (mean of 2x2) or "none".
        first: whether the inputs are images: then the block starts with its convolution, without ReLU.
        bias: of the first convolution; pointless where the second normalisation takes off the mean.
        conv: class of the convolutions.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        norms: tuple[nn.Module, nn.Module],
        *,
        resample: str = "none",
        first: bool = False,
        bias: bool = True,
        conv: type[nn.Conv2d] = nn.Conv2d,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.first = first
        self.norm1, self.norm2 = norms
        self.conv1 = conv(inputs, outputs, 3, padding=1, bias=bias)
        self.conv2 = conv(outputs, outputs, 3, padding=1)
        glorot(self.conv1, 2**0.5)
        glorot(self.conv2, 2**0.5)
        self.shortcut: nn.Module = nn.Identity()
        if resample != "none" or inputs != outputs:
            self.shortcut = glorot(conv(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.first else torch.relu(self.norm1(x))
        if self.resample == "up":
            h = F.interpolate(h, scale_factor=2.0)
        h = torch.relu(self.norm2(self.conv1(h)))
        h = self.conv2(h)
        if self.resample == "down":
            h = F.avg_pool2d(h, 2)
        # a 1x1 convolution commutes with resampling, and is cheaper at the smaller size
        if self.resample == "down":
            return h + self.shortcut(F.avg_pool2d(x, 2))
        if self.resample == "up":
            return h + F.interpolate(self.shortcut(x), scale_factor=2.0)
        return h + self.shortcut(x)


def append_minibatch_std(features: Tensor) -> Tensor:
    """Returns one more feature: how much the others vary in the batch (Karras et al. 2018, section 3).

    It is the mean over all features and places of their standard deviation over the batch, the same for
    every sample; (B, F) becomes (B, F + 1), and (B, C, H, W) becomes (B, C + 1, H, W).
    """
    std = (features.var(0, correction=0) + 1e-8).sqrt().mean()
    return torch.cat([features, std.expand_as(features[:, :1])], 1)


def glorot(layer: nn.Linear | nn.Conv2d, gain: float = 1.0) -> nn.Module:
    """Initializes as Glorot and Bengio 2010, eq. 16, times the gain; biases 0. Returns the layer."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def kaiming(layer: nn.Linear, slope: float) -> None:
    """Initializes as He et al. 2015, eq. 15, for a leaky ReLU of that slope (1 for none); biases 0."""
    nn.init.kaiming_normal_(layer.weight, a=slope)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def initialize(net: nn.Module, initialization: str) -> None:
    """Starts all the weights anew.

    Args:
        net: whose linear layers, convolutions, embeddings and batch normalisations are set.
        initialization: "default" leaves what the layers' constructors chose; "normal_0.02" is Radford et al.
            2016, with the scales of batch normalisation from N(1, 0.02); "orthogonal" has the gain
            `ORTHOGONAL_GAIN`. Biases are 0 in both.

    Raises:
        ValueError: for an unknown name.
    """
    if initialization not in ("default", "normal_0.02", "orthogonal"):
        raise ValueError(f"initialization: {initialization!r} is not one of default, normal_0.02, orthogonal")
    if initialization == "default":
        return
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
            if initialization == "orthogonal":
                nn.init.orthogonal_(module.weight, ORTHOGONAL_GAIN)
            else:
                nn.init.normal_(module.weight, 0, 0.02)
            if not isinstance(module, nn.Embedding) and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and initialization == "normal_0.02":
            nn.init.normal_(module.weight, 1, 0.02)
            nn.init.zeros_(module.bias)
