"""Generative adversarial networks (Goodfellow et al. 2014) and the remedies that stabilise them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from genlab.adversarial import health, losses
from genlab.adversarial.augmentation import augment
from genlab.adversarial.compiling import compile_recomputing
from genlab.config.adversarial import AdversarialConfig, GANConfig
from genlab.config.run import TrainConfig
from genlab.data.spec import Batch, DataSpec
from genlab.data.statistics import PixelStatistics
from genlab.errors import ConfigError
from genlab.families.base import AdversarialFamily, LatentFamily, Loader, Metrics, UpdateProtocol
from genlab.families.checks import check_sides
from genlab.nets.adversarial import SIZES, Discriminator, make_discriminator, make_generator
from genlab.rng import SampleRng


class GAN(LatentFamily, AdversarialFamily):
    """A game of a discriminator and a generator.

    In the code the discriminator, or critic, is the generator's `opponent`, whatever the player's name. A
    subclass changes a loss, the name, or what an update does around it.

    Networks work on images in [-1, 1], and on points as they are.
    """

    Config = GANConfig
    players: ClassVar[tuple[str, ...]] = ("discriminator", "generator")
    sampled_by = ("generator",)
    patience = health.PATIENCE
    conditioning: ClassVar[str] = "none"
    penalized: ClassVar[bool] = False
    compiled: ClassVar[tuple[str, ...]] = ("opponent_objective", "generator_objective")

    def __init__(self, config: Any, spec: DataSpec) -> None:
        super().__init__(config, spec)
        network = choose_network(config, spec)
        check_network(config, spec, network)
        classes = spec.classes if self.takes_labels else 0
        self.generator = make_generator(
            network,
            spec.shape,
            config.latent,
            hidden=config.hidden,
            width=config.width,
            classes=classes,
            bounded=spec.kind == "images",
            initialization=config.initialization,
        )
        opponent = make_discriminator(
            network,
            spec.shape,
            hidden=config.discriminator_hidden,
            width=config.width,
            normalization=self.normalization(config, network),
            spectral_norm=config.spectral_norm,
            minibatch_std=config.minibatch_std,
            packing=config.packing,
            classes=classes,
            conditioning=self.conditioning,
            input_scale=config.input_scale,
            initialization=config.initialization,
        )
        self.add_module(self.players[0], opponent)
        self.latent_prior = config.prior

    def begin(self, statistics: PixelStatistics | None, load: Loader | None = None) -> None:
        """The generator of images starts at the means of the training images."""
        if self.spec.kind == "images":
            assert statistics is not None
            self.generator.start(statistics.mean)

    @property
    def opponent(self) -> Discriminator:
        """Returns the discriminator or critic."""
        opponent = self.get_submodule(self.players[0])
        assert isinstance(opponent, Discriminator)
        return opponent

    @classmethod
    def normalization(cls, config: Any, network: str) -> str:
        """Returns what the discriminator's hidden layers are normalised by.

        Raises:
            ConfigError: a batch's statistics under a penalty on each image's gradient.
        """
        penalized = cls.penalized or getattr(config, "r1", 0) > 0
        if config.normalization == "batch" and penalized:
            raise ConfigError(
                "model.normalization=batch: a gradient penalty is on each image by itself, and batch "
                "normalisation makes its value depend on the others; use layer, instance or none"
            )
        if config.normalization == "instance" and network == "mlp":
            raise ConfigError(
                "model.normalization=instance: an mlp has no maps to normalise; use layer or none"
            )
        if config.normalization != "auto":
            return config.normalization
        if network == "mlp" or config.spectral_norm:
            return "none"
        return "layer" if penalized else {"dcgan": "batch", "resnet": "none"}[network]

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        """Refuses settings of the model that do not agree with others.

        Raises:
            ConfigError: a batch that cannot be packed.
        """
        super().check(config)
        packing = config.model.packing
        if packing > 1 and cls.takes_labels:
            raise ConfigError(
                f"model.packing={packing}: {config.model.name} judges single images with their labels; "
                "use model.packing=1"
            )
        for key in ("batch_size", "micro_batch_size"):
            size = getattr(config.trainer, key)
            if size is not None and size % packing:
                raise ConfigError(
                    f"model.packing={packing}: trainer.{key}={size} is no multiple of it; change one"
                )

    def step(self, batches: Iterator[Batch], update: UpdateProtocol) -> Metrics:
        """Goodfellow et al. 2014, Algorithm 1: k steps of the discriminator, one of the generator."""
        batch, metrics = None, {}
        for _ in range(self.opponent_steps):
            batch = next(batches)
            metrics |= self.update_opponent(batch, update)
        assert batch is not None
        return metrics | self.update_generator(batch, update)

    @property
    def opponent_steps(self) -> int:
        return self.config.discriminator_steps

    def update_opponent(self, batch: Batch, update: UpdateProtocol) -> Metrics:
        self.opponent.advance_spectral_norm()
        loss = partial(self.opponent_loss, noise_sigma=self.noise_sigma(update))
        return update(self.players[0], loss, *self.inputs(batch))

    def update_generator(self, batch: Batch, update: UpdateProtocol) -> Metrics:
        loss = partial(self.generator_loss, noise_sigma=self.noise_sigma(update))
        return update("generator", loss, *self.inputs(batch))

    def noise_sigma(self, update: UpdateProtocol) -> float:
        """Returns the standard deviation of a step's instance noise, which falls to 0 in a straight line."""
        progress = update.step / update.steps
        return self.config.instance_noise * max(0.0, 1 - progress / self.config.instance_noise_until)

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """Returns what both losses take: images, latents and, for families with labels, two sets of them."""
        n, device = len(batch.images), batch.images.device
        if self.config.prior == "uniform":
            latents = torch.rand(n, self.config.latent, device=device) * 2 - 1
        else:
            latents = torch.randn(n, self.config.latent, device=device)
        if not self.takes_labels:
            return batch.images, latents
        assert batch.labels is not None
        return batch.images, latents, batch.labels, torch.randint(self.spec.classes, (n,), device=device)

    def opponent_loss(
        self,
        images: Tensor,
        latents: Tensor,
        labels: Tensor | None = None,
        drawn: Tensor | None = None,
        *,
        noise_sigma: float = 0.0,
    ) -> tuple[Tensor, Metrics]:
        """Returns the discriminator's loss. No gradient reaches the generator.

        Args:
            images: (B, C, H, W) in [0, 1].
            latents: (B, latent).
            labels, drawn: of the images and for the samples, (B,) each, where the family takes labels.
            noise_sigma: standard deviation of the instance noise.
        """
        real = self.to_model(images)
        with torch.no_grad():
            fake = self.generator(latents, drawn).float()
        shown = self.disturbed(real, noise_sigma), self.disturbed(fake, noise_sigma)
        loss, metrics = self.opponent_objective(*shown, labels, drawn)
        return loss, metrics | health.of_batch(real, fake, bounded=self.spec.kind == "images")

    def opponent_objective(
        self, real: Tensor, fake: Tensor, labels: Tensor | None = None, drawn: Tensor | None = None
    ) -> tuple[Tensor, Metrics]:
        """Returns the discriminator's loss on what it is shown. It draws no random numbers."""
        return self.adversarial_objective(real, self.opponent.features_of_both(real, fake), labels, drawn)

    def adversarial_objective(
        self,
        real: Tensor,
        features: tuple[Tensor, Tensor],
        labels: Tensor | None = None,
        drawn: Tensor | None = None,
    ) -> tuple[Tensor, Metrics]:
        """Returns that loss from the features of data and of samples, without an auxiliary classifier."""
        config, player = self.config, self.players[0]
        real_logits = self.opponent.logits(features[0], labels)
        fake_logits = self.opponent.logits(features[1], drawn)
        loss = losses.discriminator_loss(config.loss, real_logits, fake_logits, 1 - config.label_smoothing)
        metrics = health.of_logits(config.loss, real_logits.float(), fake_logits.float())
        metrics[f"{player}_loss"] = loss
        if config.r1 > 0:
            penalty = losses.r1_penalty(lambda x: self.opponent(x, labels), real, config.packing)
            metrics["r1_penalty"] = penalty
            loss = loss + config.r1 * penalty
        return loss, metrics

    def generator_loss(
        self,
        images: Tensor,
        latents: Tensor,
        labels: Tensor | None = None,
        drawn: Tensor | None = None,
        *,
        noise_sigma: float = 0.0,
    ) -> tuple[Tensor, Metrics]:
        """Returns the generator's loss; arguments as `opponent_loss`."""
        fake = self.disturbed(self.generator(latents, drawn).float(), noise_sigma)
        return self.generator_objective(fake, drawn)

    def generator_objective(self, fake: Tensor, drawn: Tensor | None = None) -> tuple[Tensor, Metrics]:
        loss = losses.generator_loss(self.config.loss, self.opponent(fake, drawn))
        return loss, {"generator_loss": loss}

    def to_model(self, images: Tensor) -> Tensor:
        """Returns images in [-1, 1] for those in [0, 1]; points stay."""
        return images * 2 - 1 if self.spec.kind == "images" else images

    def disturbed(self, x: Tensor, noise_sigma: float) -> Tensor:
        """Returns what the discriminator is shown of x: augmented, with instance noise, where asked for."""
        if self.config.augmentation:
            x = augment(x, self.config.augmentation)
        return x + noise_sigma * torch.randn_like(x) if noise_sigma > 0 else x

    def warnings(self, means: dict[str, float]) -> dict[str, str]:
        return health.warnings(self.players[0], means, self.remedies())

    def remedies(self) -> dict[str, str]:
        """Returns what to try against each of the `warnings`."""
        return health.remedies(self.config, self.players[0], labels=self.takes_labels)

    def batch_statistics(self) -> list[str]:
        return super().batch_statistics() + ["model.minibatch_std"] * self.config.minibatch_std

    def sample(self, n: int, *, rng: SampleRng, labels: Tensor | None = None) -> Tensor:
        """Draws from the generator, with labels drawn uniformly where none are given."""
        latents = self.prior_latents(rng)
        if self.takes_labels and labels is None:
            labels = rng.integers(self.spec.classes)
        return self.decode(latents, labels)

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        fake = self.generator(latents, labels).float()
        return (fake + 1) / 2 if self.spec.kind == "images" else fake

    def prior_latents(self, rng: SampleRng) -> Tensor:
        latent = self.config.latent
        return rng.uniform(latent) * 2 - 1 if self.config.prior == "uniform" else rng.normal(latent)

    def discriminator_output(self, images: Tensor) -> Tensor | None:
        """Returns D(x), the probability that each of (N, C, H, W) is data, (N,), or its logit."""
        if self.config.packing > 1 or self.takes_labels:
            return None
        logits = self.opponent(self.to_model(images)).float()
        return logits if self.config.loss in ("least_squares", "hinge") else logits.sigmoid()

    def compile_networks(self) -> None:
        """Compiles the generator, and whole losses with their penalties and unrolled steps."""
        self.generator.compile()
        for name in self.compiled:
            setattr(self, name, compile_recomputing(getattr(self, name)))


def choose_network(config: AdversarialConfig, spec: DataSpec) -> str:
    """Returns the network that `auto` stands for."""
    if config.network != "auto":
        return config.network
    return "mlp" if spec.kind == "points" or min(spec.height, spec.width) < SIZES["dcgan"][0] else "dcgan"


def check_network(config: AdversarialConfig, spec: DataSpec, network: str) -> None:
    """Refuses data that a network cannot take.

    Raises:
        ConfigError: points or sizes that a convolutional network has no use for, augmented points.
    """
    if spec.kind == "none":
        raise ConfigError(
            f"dataset={spec.name}: {config.name} needs data; choose e.g. dataset=ring or dataset=emoji"
        )
    if spec.kind == "points" and config.augmentation:
        raise ConfigError(f"model.augmentation: {spec.name} has points, not images; leave it out")
    if network == "mlp":
        return
    if spec.kind == "points":
        raise ConfigError(
            f"model.network={network}: {spec.name} has points, not images; use model.network=mlp"
        )
    least, most = SIZES[network]
    remedy = "use dataset.size=32 or model.network=mlp"
    check_sides(f"model.network={network}", "it", spec, least=least, most=most, remedy=remedy)
