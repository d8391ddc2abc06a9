"""Generators and discriminators (or critics): fully connected, DCGAN's, and residual.

Images are in [-1, 1] and points (D, 1, 1) are not bounded.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genlab.nets.autoencoder import LARGEST_PIXELS, SMALLEST_PIXELS, Shape, beside_labels
from genlab.nets.backbones import (
    LEAK,
    DCGANFeatures,
    DCGANGenerator,
    MLPFeatures,
    MLPGenerator,
    ResidualFeatures,
    ResidualGenerator,
)
from genlab.nets.layers import (
    ORTHOGONAL_GAIN,
    POWER_ITERATIONS,
    SpectralConv2d,
    SpectralEmbedding,
    SpectralLinear,
    SpectralNorm,
    append_minibatch_std,
    discriminator_norm,
    initialize,
    kaiming,
)
from genlab.nets.start import Offset

__all__ = [
    "ORTHOGONAL_GAIN",
    "SIZES",
    "Discriminator",
    "Generator",
    "Shape",
    "make_discriminator",
    "make_generator",
]

_BRIGHTEST = 0.9  # of a new generator's mean in [-1, 1]: further out the slope of tanh is gone
NETWORKS = ("mlp", "dcgan", "resnet")
SIZES = {"dcgan": (SMALLEST_PIXELS, LARGEST_PIXELS), "resnet": (32, 32)}
"""Shortest and longest side in pixels; `mlp` takes any."""


class Generator(nn.Module):
    """Latents, and labels, to images or points.

    Args:
        net: (B, latent + classes) to (B, C, H, W).
        shape: C, H, W.
        classes: how many; 0 for a generator without labels.
        bounded: whether a tanh keeps the samples in [-1, 1].
    """

    def __init__(self, net: nn.Module, shape: Shape, classes: int, bounded: bool) -> None:
        super().__init__()
        self.net = net
        self.classes = classes
        self.bounded = bounded
        self.offset = Offset(*shape)

    def start(self, mean: Tensor) -> None:
        """Makes the samples of a new generator lie around an image (C, H, W) in [0, 1]."""
        self.offset.set((mean * 2 - 1).clamp(-_BRIGHTEST, _BRIGHTEST).atanh())

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns samples (B, C, H, W).

        Args:
            latents: (B, latent).
            labels: (B,), whole numbers under `classes`, joined to the latents as one-hot vectors; ignored
                by a generator without classes.

        Raises:
            ValueError: where a generator with classes gets no labels.
        """
        samples = self.net(beside_labels(latents, labels, self.classes))
        return torch.tanh(self.offset(samples)) if self.bounded else samples


class Discriminator(nn.Module):
    """Images or points to one logit (or a critic's value) each; no forward pass changes its state.

    Args:
        net: (B / packing, C * packing, H, W) to its last maps or vectors.
        channels: of those maps, or length of the vectors.
        places: how many of a map's places are flattened into the features that the logit is linear in.
        pool: whether maps are averaged over their places instead.

    The others are those of `make_discriminator`.

    Attributes:
        looks_at_batches: the logit of an image depends on the others of its batch.
    """

    def __init__(
        self,
        net: nn.Module,
        channels: int,
        *,
        places: int = 1,
        pool: bool = False,
        spectral_norm: bool = False,
        minibatch_std: bool = False,
        packing: int = 1,
        classes: int = 0,
        conditioning: str = "none",
        input_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if conditioning not in ("none", "projection", "auxiliary"):
            raise ValueError(f"conditioning: {conditioning!r} is not one of none, projection, auxiliary")
        if conditioning != "none" and classes < 1:
            raise ValueError(f"conditioning: {conditioning} needs classes")
        if conditioning != "none" and packing > 1:
            raise ValueError(f"conditioning: {conditioning} has one label an image, and packing joins images")
        self.net = net
        batch_norms = (nn.BatchNorm1d, nn.BatchNorm2d)
        self.looks_at_batches = minibatch_std or any(isinstance(m, batch_norms) for m in net.modules())
        self.pool = pool
        self.minibatch_std = minibatch_std
        self.packing = packing
        self.input_scale = input_scale
        width = (channels + minibatch_std) * places
        linear = SpectralLinear if spectral_norm else nn.Linear
        embedding = SpectralEmbedding if spectral_norm else nn.Embedding
        self.out = linear(width, 1)
        kaiming(self.out, 1)
        self.embedding = embedding(classes, width) if conditioning == "projection" else None
        self.class_head = linear(width, classes) if conditioning == "auxiliary" else None
        if self.embedding is not None:
            nn.init.xavier_uniform_(self.embedding.weight)
        if self.class_head is not None:
            kaiming(self.class_head, 1)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns logits (B / packing,) of images (B, C, H, W); see `features` and `logits`."""
        return self.logits(self.features(x), labels)

    def features(self, x: Tensor) -> Tensor:
        """Returns the features that the logits are linear in, (B / packing, F).

        Args:
            x: (B, C, H, W). With packing m, m images in a row are one of m times the channels
                (Lin et al. 2018).

        Raises:
            ValueError: where B is no multiple of the packing.
        """
        if x.shape[0] % self.packing:
            raise ValueError(f"a batch of {x.shape[0]} cannot be packed by {self.packing}")
        packed = x.reshape(x.shape[0] // self.packing, self.packing * x.shape[1], *x.shape[2:])
        features = self.net(packed * self.input_scale)
        if self.minibatch_std:
            features = append_minibatch_std(features)
        return features.mean((2, 3)) if self.pool else features.flatten(1)

    def features_of_both(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Returns features of data and of samples, in one pass where no layer looks at batches.

        Args:
            real, fake: (B, C, H, W) each; a layer that looks at batches sees one, then the other.
        """
        if self.looks_at_batches:
            return self.features(real), self.features(fake)
        features = self.features(torch.cat([real, fake]))
        return features[: len(features) // 2], features[len(features) // 2 :]

    def logits(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns logits (B / packing,) from features (B / packing, F).

        With projection they are w^T f + b + e(label)^T f (Miyato and Koyama 2018, eq. 3).

        Args:
            features: from `features`.
            labels: (B,), whole numbers under `classes`; only projection looks at them.

        Raises:
            ValueError: where projection gets no labels.
        """
        logits = self.out(features).squeeze(1)
        if self.embedding is None:
            return logits
        if labels is None:
            raise ValueError("a discriminator with projection needs labels")
        return logits + (self.embedding(labels) * features).sum(1)

    def class_logits(self, features: Tensor) -> Tensor:
        """Returns logits of the classes, (B, classes), from features (B, F) (Odena et al. 2017).

        Raises:
            ValueError: for a discriminator without an auxiliary classifier.
        """
        if self.class_head is None:
            raise ValueError("only a discriminator with conditioning auxiliary tells classes")
        return self.class_head(features)

    def advance_spectral_norm(self, iterations: int = 1) -> None:
        """Power iterations in every layer with spectral normalisation, in place, before a step's gradient."""
        for module in self.modules():
            if isinstance(module, SpectralNorm):
                module.advance(iterations)


def make_generator(
    network: str,
    shape: Shape,
    latent: int,
    *,
    hidden: Sequence[int],
    width: int,
    classes: int = 0,
    bounded: bool = True,
    batch_norm: bool = True,
    initialization: str = "default",
) -> Generator:
    """Returns a generator.

    Args:
        network: "mlp", "dcgan" or "resnet".
        shape: of its samples; `SIZES` says which sides a convolutional network takes.
        latent: size of the latents.
        hidden: sizes of the hidden layers of "mlp", from the latent to the sample.
        width: channels of "dcgan" next to the image, and of "resnet" everywhere.
        classes: whose one-hot labels are joined to the latents; 0 for none.
        bounded: whether the samples end in tanh (images), or are linear (points).
        batch_norm: in "dcgan" and "resnet"; "mlp" has none.
        initialization: "default" (He et al. 2015 for "mlp", torch's for "dcgan", Glorot and Bengio 2010 for
            "resnet"), "normal_0.02" or "orthogonal"; see `initialize`.

    Raises:
        ValueError: for an unknown name, or a shape that the network cannot take.
    """
    _check(network, shape)
    if network == "mlp":
        net = MLPGenerator(latent + classes, hidden, shape)
    else:
        kind = DCGANGenerator if network == "dcgan" else ResidualGenerator
        net = kind(latent + classes, width, shape, batch_norm)
    generator = Generator(net, shape, classes, bounded)
    initialize(generator, initialization)
    return generator


def make_discriminator(
    network: str,
    shape: Shape,
    *,
    hidden: Sequence[int],
    width: int,
    normalization: str = "none",
    spectral_norm: bool = False,
    minibatch_std: bool = False,
    packing: int = 1,
    classes: int = 0,
    conditioning: str = "none",
    input_scale: float = 1.0,
    initialization: str = "default",
) -> Discriminator:
    """Returns a discriminator or critic.

    Args:
        network: "mlp" (with leaky ReLU for images, ReLU for points as in Metz et al. 2017), "dcgan" (leaky
            ReLU) or "resnet" (ReLU, averaged over places).
        shape: of its inputs; `SIZES` says which sides a convolutional network takes.
        hidden: sizes of the hidden layers of "mlp", from the input on.
        width: channels of "dcgan" next to the image, and of "resnet" everywhere.
        normalization: "none", "batch" (of the batch at hand, always), "layer", or "instance" (convolutions
            only). A convolutional network has none next to the image.
        spectral_norm: whether to divide all weights by their largest singular value (Miyato et al. 2018).
        minibatch_std: whether the last features get one of how the batch varies (Karras et al. 2018).
        packing: how many images are one input (Lin et al. 2018).
        classes: how many, for `conditioning`.
        conditioning: "none", "projection" (Miyato and Koyama 2018) or "auxiliary" (Odena et al. 2017).
        input_scale: multiplies the inputs.
        initialization: as for `make_generator`.

    Raises:
        ValueError: for an unknown name, a shape that the network cannot take, instance normalisation in an
            "mlp", conditioning without classes or with packing, or a packing under 1.
    """
    _check(network, shape)
    if packing < 1:
        raise ValueError(f"packing: {packing} is under 1")
    packed = (shape[0] * packing, *shape[1:])
    discriminator_norm(normalization, 1, maps=network != "mlp")  # refuses what the network cannot take
    conv = SpectralConv2d if spectral_norm else nn.Conv2d
    places = 1
    if network == "mlp":
        linear = SpectralLinear if spectral_norm else nn.Linear
        net = MLPFeatures(packed, hidden, normalization, 0.0 if shape[1:] == (1, 1) else LEAK, linear)
    elif network == "dcgan":
        net = DCGANFeatures(packed, width, normalization, conv)
        places = net.map[0] * net.map[1]
    else:
        net = ResidualFeatures(packed, width, normalization, conv)
    discriminator = Discriminator(
        net,
        net.outputs,
        places=places,
        pool=network == "resnet",
        spectral_norm=spectral_norm,
        minibatch_std=minibatch_std,
        packing=packing,
        classes=classes,
        conditioning=conditioning,
        input_scale=input_scale,
    )
    initialize(discriminator, initialization)
    discriminator.advance_spectral_norm(POWER_ITERATIONS)
    return discriminator


def _check(network: str, shape: Shape) -> None:
    """Refuses unknown networks, and shapes that a network cannot take."""
    if network not in NETWORKS:
        raise ValueError(f"network: {network!r} is not one of {', '.join(NETWORKS)}")
    if network in SIZES:
        low, high = SIZES[network]
        if not all(low <= side <= high for side in shape[1:]):
            sides = f"of {low}" if low == high else f"from {low} to {high}"
            raise ValueError(f"network: {network} takes sides {sides} pixels, not {shape[1]}x{shape[2]}")
