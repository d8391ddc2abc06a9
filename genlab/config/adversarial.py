"""The settings of the adversarial models. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from genlab.config.schema import setting
from genlab.errors import ConfigError

GANLoss = Literal["non_saturating", "minimax", "least_squares", "hinge"]


OPERATIONS = ("color", "translation", "cutout")


Dynamics = Literal["simultaneous", "alternating", "extragradient", "optimistic", "consensus"]


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """Settings that every adversarial family has; techniques against instability are off by default."""

    name: str = setting()
    network: Literal["auto", "mlp", "dcgan", "resnet"] = setting(
        "auto", help="auto: mlp for points, else dcgan (8 to 64 pixels); mlp, dcgan, resnet (32 pixels)"
    )
    hidden: tuple[int, ...] = setting(
        (256, 256),
        at_least=1,
        at_most=100_000,
        longest=100,
        help="mlp: the generator's units, from the latent to the image",
    )
    discriminator_hidden: tuple[int, ...] = setting(
        (256, 256),
        at_least=1,
        at_most=100_000,
        longest=100,
        help="mlp: the discriminator's units, from the image on",
    )
    width: int = setting(32, at_least=1, at_most=10_000, help="dcgan, resnet: channels next to the image")
    latent: int = setting(64, at_least=1, at_most=100_000, help="dimensions of the latent")
    prior: Literal["normal", "uniform"] = setting(
        "normal", help="of the latent: normal, or uniform over [-1, 1]"
    )
    input_scale: float = setting(1.0, above=0, help="factor of the discriminator's input")
    initialization: Literal["default", "normal_0.02", "orthogonal"] = setting(
        "default", help="default, normal_0.02 (DCGAN) or orthogonal (unrolled GAN)"
    )
    normalization: Literal["auto", "none", "batch", "layer", "instance"] = setting(
        "auto",
        help=(
            "of the discriminator's hidden layers: auto, none, batch, layer or instance; "
            "auto: batch for dcgan"
        ),
    )
    spectral_norm: bool = setting(False, help="of the discriminator's weights (Miyato et al. 2018)")
    minibatch_std: bool = setting(
        False, help="the discriminator sees how much a batch varies (Karras et al. 2018)"
    )
    packing: int = setting(
        1,
        at_least=1,
        at_most=1000,
        help="images that the discriminator judges together (PacGAN, Lin et al. 2018)",
    )
    instance_noise: float = setting(
        0.0, at_least=0, help="standard deviation of noise on the discriminator's input, falling to 0"
    )
    instance_noise_until: float = setting(
        1.0, above=0, at_most=1, help="share of the run after which that noise is 0"
    )
    augmentation: tuple[str, ...] = setting(
        (), longest=100, help="of what the discriminator sees: color, translation, cutout (Zhao et al. 2020)"
    )

    def __post_init__(self) -> None:
        for word in self.augmentation:
            if word not in OPERATIONS:
                raise ConfigError(f"model.augmentation={word}: not one of {', '.join(OPERATIONS)}")


@dataclass(frozen=True, kw_only=True)
class GANConfig(AdversarialConfig):
    """See configs/model/gan.yaml."""

    name: Literal["gan"] = setting("gan")  # type: ignore[assignment]
    loss: GANLoss = setting("non_saturating", help="non_saturating, minimax, least_squares or hinge")
    discriminator_steps: int = setting(1, at_least=1, at_most=1000, help="for each step of the generator")
    label_smoothing: float = setting(
        0.0, at_least=0, below=0.5, help="data is labelled 1 less this, one-sided"
    )
    r1: float = setting(0.0, at_least=0, help="gamma of the gradient penalty on data (Mescheder et al. 2018)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_smoothing > 0 and self.loss == "hinge":
            raise ConfigError(
                "model.label_smoothing: the hinge loss has no labels; use 0 or another model.loss"
            )


@dataclass(frozen=True, kw_only=True)
class UnrolledGANConfig(GANConfig):
    """See configs/model/unrolled_gan.yaml."""

    name: Literal["unrolled_gan"] = setting("unrolled_gan")  # type: ignore[assignment]
    unrolled_steps: int = setting(
        5,
        at_least=0,
        at_most=1000,
        help="K steps of the discriminator that the generator looks through; 0 is the GAN",
    )
    inner_lr: float | None = setting(
        None, above=0, help="rate of the unrolled steps; null: the discriminator's"
    )
    inner_moments: Literal["live", "fresh"] = setting(
        "live", help="the unrolled optimizer starts from the live moments, or fresh"
    )
    unrolled_gradient: bool = setting(
        True, help="false: the generator looks ahead, but not through the steps"
    )
    recompute: bool = setting(False, help="keep no activations of the unrolled steps: less memory, more time")


@dataclass(frozen=True, kw_only=True)
class WGANConfig(AdversarialConfig):
    """See configs/model/wgan.yaml."""

    name: Literal["wgan"] = setting("wgan")  # type: ignore[assignment]
    critic_steps: int = setting(5, at_least=1, at_most=1000, help="for each step of the generator")
    clip: float = setting(0.01, above=0, help="largest absolute value of a critic's weight")


@dataclass(frozen=True, kw_only=True)
class WGANGPConfig(AdversarialConfig):
    """See configs/model/wgan_gp.yaml."""

    name: Literal["wgan_gp"] = setting("wgan_gp")  # type: ignore[assignment]
    critic_steps: int = setting(5, at_least=1, at_most=1000, help="for each step of the generator")
    penalty: float = setting(10.0, above=0, help="weight of the gradient penalty, lambda")
    one_sided: bool = setting(False, help="only slopes over 1 are penalised (WGAN-LP, Petzka et al. 2018)")


@dataclass(frozen=True, kw_only=True)
class ACGANConfig(GANConfig):
    """See configs/model/acgan.yaml."""

    name: Literal["acgan"] = setting("acgan")  # type: ignore[assignment]
    discriminator_class_weight: float = setting(
        1.0, at_least=0, help="of the classes' cross-entropy in the discriminator's loss"
    )
    generator_class_weight: float = setting(
        1.0, at_least=0, help="of the classes' cross-entropy in the generator's loss"
    )


@dataclass(frozen=True, kw_only=True)
class ProjectionGANConfig(GANConfig):
    """See configs/model/projection_gan.yaml."""

    name: Literal["projection_gan"] = setting("projection_gan")  # type: ignore[assignment]
    loss: GANLoss = setting("hinge", help="non_saturating, minimax, least_squares or hinge")


@dataclass(frozen=True)
class BilinearGameConfig:
    """See configs/model/bilinear_game.yaml."""

    name: Literal["bilinear_game"] = setting("bilinear_game")
    dynamics: Dynamics = setting(
        "simultaneous",
        help=(
            "simultaneous spirals outwards, alternating circles; extragradient, optimistic "
            "and consensus converge"
        ),
    )
    start: tuple[float, ...] = setting((1.0, 1.0), longest=100, help="x and y before the first step")
    consensus_weight: float = setting(
        0.5, at_least=0, help="gamma of dynamics: consensus (Mescheder et al. 2017)"
    )
    recorded_steps: int = setting(
        10_000, at_least=1, at_most=1_000_000, help="the first so many steps are drawn"
    )

    def __post_init__(self) -> None:
        if len(self.start) != 2:
            raise ConfigError(f"model.start={list(self.start)}: expected x and y, e.g. model.start=[1,1]")
