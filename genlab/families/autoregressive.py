"""Autoregressive models: p(x) = prod_i p(x_i | x_1, ..., x_{i-1}), each likelihood exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from torch import Tensor

from genlab.config.autoregressive import AutoregressiveConfig
from genlab.config.run import TrainConfig
from genlab.data.spec import Batch, DataSpec
from genlab.data.statistics import PixelStatistics
from genlab.distributions.pixels import (
    BernoulliPixel,
    CategoricalPixel,
    LogisticMixture,
    PixelDistribution,
)
from genlab.errors import ConfigError
from genlab.families.base import Family, Loader, Metrics, UpdateProtocol
from genlab.families.checks import check_images, check_sides
from genlab.nets.autoregressive import PixelNet, PixelSpec
from genlab.nets.scanning import Clamped, Scanner
from genlab.rng import SampleRng


class Autoregressive(Family):
    """A family that maximises the exact likelihood, with one player.

    Attributes:
        Network: the paper's; it takes a `PixelSpec`, and as keywords what the configuration adds to the
            common settings.
        distribution: of a pixel given the network's parameters.
    """

    players = ("network",)
    sampled_by = ("network",)
    takes_temperature: ClassVar[bool] = True
    Network: ClassVar[Callable[..., PixelNet]]
    output_of_levels: ClassVar[str] = "categorical"
    """The output distribution that `auto` stands for with more than two levels."""

    network: PixelNet

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        """Takes whatever its images are checked for, codes too; see `genlab.trained.codes`."""

    def __init__(self, config: Any, spec: DataSpec) -> None:
        super().__init__(config, spec)
        check_pixels(config, spec)
        self.output = choose_output(config, spec, self.output_of_levels)
        self.takes_labels = config.class_conditional
        classes = spec.classes if config.class_conditional else 0
        ordered = spec.channels > 1 and self.distribution.passes > 1
        codes = spec.levels if spec.kind == "codes" else 0
        self.network = self.make_network(
            PixelSpec(spec.shape, self.distribution.parameters, ordered, classes, codes)
        )
        self.network.add_offset(self.distribution.ranks)

    def begin(self, statistics: PixelStatistics | None, load: Loader | None = None) -> None:
        """Every pixel starts as an independent one with the mean, or the levels, of the training data."""
        assert statistics is not None
        assert self.network.offset is not None
        self.network.offset.set(*self.distribution.start(statistics))

    def make_network(self, spec: PixelSpec) -> PixelNet:
        """Returns the paper's network with the settings of the configuration."""
        return self.Network(spec, **self.config.of_network())

    @property
    def distribution(self) -> PixelDistribution:
        match self.output:
            case "bernoulli":
                return BernoulliPixel(self.spec.channels)
            case "categorical":
                return CategoricalPixel(self.spec.channels, self.spec.levels)
            case _:
                return LogisticMixture(self.spec.channels, self.spec.levels, self.config.components)

    def step(self, batches: Iterator[Batch], update: UpdateProtocol) -> Metrics:
        """Maximum likelihood, teacher-forced: one pass gives every pixel's distribution."""
        batch = next(batches)
        if self.takes_labels:
            assert batch.labels is not None
            return update("network", self.loss, batch.images, batch.labels)
        return update("network", self.loss, batch.images)

    def loss(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Metrics]:
        """Returns -log p(x), summed over an image's dimensions and averaged over images."""
        nats = -self.log_prob(images, labels).mean()
        return nats, {"nll_nats": nats, "nll_bits_per_dim": self.bits_per_dim(nats)}

    def log_prob(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns log p(x), or log p(x | label), exactly: (B,) nats, of images (B, C, H, W) in [0, 1]."""
        parameters = self.network(images, labels)
        pixels = images.permute(0, 2, 3, 1)
        return self.distribution.log_prob(parameters, pixels).flatten(1).sum(1)

    def bits_per_dim(self, nats: Tensor) -> Tensor:
        """Returns nats / (C H W log 2)."""
        return nats / (self.spec.dimensions * math.log(2))

    def sample(
        self,
        n: int,
        *,
        rng: SampleRng,
        labels: Tensor | None = None,
        temperature: float = 1.0,
        progress: bool = False,
    ) -> Tensor:
        """Draws images pixel by pixel, each from its own stream of random numbers.

        Args:
            labels: (n,); None draws them, for a class-conditional model.
            temperature: 1 draws from the model; less keeps to what is likely, more strays from it.
        """
        return self.scanner(n, rng, labels, temperature).run(progress)

    def scanner(
        self,
        n: int,
        rng: SampleRng,
        labels: Tensor | None = None,
        temperature: float = 1.0,
        clamped: Clamped | None = None,
    ) -> Scanner:
        """Returns what draws n images, with the clamped pixels in their places."""
        _, height, width = self.spec.shape
        noise = rng.uniform(height, width, self.distribution.uniforms)
        if self.takes_labels and labels is None:
            labels = rng.integers(self.spec.classes)
        return Scanner(
            self.network, self.distribution, noise, labels, temperature, clamped, graph=noise.is_cuda
        )

    def evaluate(self, batch: Batch, *, rng: SampleRng) -> dict[str, Tensor]:
        """Returns the exact negative log-likelihood of each image, in nats and in bits per dimension."""
        nats = -self.log_prob(batch.images, batch.labels if self.takes_labels else None)
        return {"nll_nats": nats, "nll_bits_per_dim": self.bits_per_dim(nats)}

    def facts(self) -> dict[str, Any]:
        given = " given the label" if self.takes_labels else ""
        what = "codes" if self.spec.kind == "codes" else "pixels"
        return {"likelihood": f"exact{given}, {self.output} {what}"}


def choose_output(config: AutoregressiveConfig, spec: DataSpec, of_levels: str) -> str:
    """Returns the output distribution that `auto` stands for, or the user's, if it is one of such images.

    Raises:
        ConfigError: a Bernoulli for grey levels, or an order where there is none.
    """
    if spec.kind == "codes":
        if config.output in ("auto", "categorical"):
            return "categorical"
        raise ConfigError(
            f"model.output={config.output}: codes have no order, each has a probability of its own; "
            "use model.output=categorical"
        )
    if config.output == "auto":
        return "bernoulli" if spec.levels == 2 else of_levels
    if config.output == "bernoulli" and spec.levels != 2:
        raise ConfigError(
            f"model.output=bernoulli: {spec.name} has {spec.levels} levels; use dataset.binarize=dynamic "
            "or model.output=categorical"
        )
    return config.output


def check_pixels(config: AutoregressiveConfig, spec: DataSpec) -> None:
    """Refuses what has no pixels in an order, or no levels.

    Raises:
        ConfigError: points, sides out of range, dequantised values, or labels asked for that are not there.
    """
    if spec.kind != "codes":  # a map of codes is what a vqvae has made small
        check_images(config.name, spec)
        check_sides(f"dataset={spec.name}", config.name, spec)
    if spec.dequantized:
        raise ConfigError(
            f"dataset.dequantize=true: {config.name} gives probabilities of levels; "
            "use dataset.dequantize=false"
        )
    if config.class_conditional and not spec.classes:
        raise ConfigError(
            f"model.class_conditional=true: {spec.name} has no labels; use model.class_conditional=false"
        )
