"""The settings of the models that encode images. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from genlab.config.schema import setting
from genlab.errors import ConfigError

NetworkName = Literal["auto", "mlp", "conv", "resnet"]


NoiseKind = Literal["gaussian", "masking", "salt_and_pepper"]


Units = Literal["sigmoid", "relu"]


def check_level(noise: NoiseKind, level: float, key: str) -> None:
    """Refuses a share above 1.

    Raises:
        ConfigError: the message names `key`.
    """
    if noise != "gaussian" and level > 1:
        raise ConfigError(f"{key}={level:g}: {noise} sets a share of the pixels; use a number up to 1")


def check_hidden(hidden: tuple[int, ...]) -> None:
    """Refuses an encoder without layers.

    Raises:
        ConfigError: it has none.
    """
    if not hidden:
        raise ConfigError("model.hidden=[]: give the units of at least one layer, e.g. model.hidden=[500]")


@dataclass(frozen=True)
class NetworksConfig:
    """Settings of networks and likelihood, independent of the kind of latents."""

    name: str = setting()
    network: NetworkName = setting(
        "auto",
        help=("mlp, or for sides from 8 to 64 pixels conv or resnet; auto: resnet from 28 to 64, else mlp"),
    )
    hidden: tuple[int, ...] = setting(
        (512, 512),
        at_least=1,
        at_most=100_000,
        longest=100,
        help="mlp, resnet: fully connected units, from the image to the latent",
    )
    width: int = setting(
        16,
        at_least=1,
        at_most=10_000,
        help="conv, resnet: channels of the layer next to the image, doubled at each halving",
    )
    likelihood: Literal["auto", "bernoulli", "gaussian", "discretized_logistic"] = setting(
        "auto", help="bernoulli for binary images, gaussian for dequantised ones, else discretized_logistic"
    )
    sigma: float | None = setting(
        None, above=0, help="gaussian: standard deviation in units of [0, 1]; null learns one"
    )
    sample_mean: bool = setting(True, help="sample gives the likelihood's mean; false draws from it")


@dataclass(frozen=True)
class LatentVariableConfig(NetworksConfig):
    """Settings of networks, likelihood and latents, independent of the training objective."""

    latent: int = setting(16, at_least=1, at_most=100_000, help="dimensions of the latent")
    prior: Literal["standard_normal", "uniform", "laplace", "mixture", "vampprior"] = setting(
        "standard_normal", help="of the latent; uniform, laplace, or learned: mixture, vampprior"
    )
    prior_components: int = setting(
        100, at_least=1, at_most=100_000, help="of the mixture, or the vampprior's pseudo-inputs"
    )
    posterior: Literal["diagonal", "full"] = setting(
        "diagonal", help="covariance of an image's latent: diagonal or full"
    )


@dataclass(frozen=True)
class VAEConfig(LatentVariableConfig):
    """See configs/model/vae.yaml."""

    name: Literal["vae"] = setting("vae")
    beta: float = setting(1.0, at_least=0, help="weight of the KL term in training; evaluation never uses it")
    kl_warmup: float = setting(
        0.0, at_least=0, at_most=1, help="share of the run over which beta rises from 0"
    )
    free_bits: float = setting(
        0.0, at_least=0, help="nats of each latent dimension that cost nothing in training"
    )


@dataclass(frozen=True)
class IWAEConfig(LatentVariableConfig):
    """See configs/model/iwae.yaml."""

    name: Literal["iwae"] = setting("iwae")
    importance_samples: int = setting(
        50, at_least=1, at_most=1_000_000, help="latents of each image in a training step"
    )
    doubly_reparameterized: bool = setting(
        False, help="the encoder's gradient of Tucker et al. 2019, less noisy"
    )


@dataclass(frozen=True)
class ConditionalVAEConfig(VAEConfig):
    """See configs/model/conditional_vae.yaml."""

    name: Literal["conditional_vae"] = setting("conditional_vae")  # type: ignore[assignment]
    prior: Literal["standard_normal", "uniform", "laplace", "mixture"] = setting(
        "standard_normal", help="of the latent, whatever the label; uniform, laplace, or learned: mixture"
    )


@dataclass(frozen=True)
class CategoricalVAEConfig(NetworksConfig):
    """See configs/model/categorical_vae.yaml."""

    name: Literal["categorical_vae"] = setting("categorical_vae")
    variables: int = setting(20, at_least=1, at_most=10_000, help="categorical variables of the latent")
    classes: int = setting(10, at_least=2, at_most=10_000, help="of each variable")
    start_temperature: float = setting(
        1.0, above=0, help="of the Gumbel-softmax samples, when training begins"
    )
    final_temperature: float = setting(
        0.5, above=0, help="to which it falls by equal factors, a function of progress"
    )
    straight_through: bool = setting(
        False, help="one-hot samples in training, with the gradients of relaxed ones"
    )
    beta: float = setting(1.0, at_least=0, help="weight of the KL term in training; evaluation never uses it")
    kl_warmup: float = setting(
        0.0, at_least=0, at_most=1, help="share of the run over which beta rises from 0"
    )


@dataclass(frozen=True)
class HierarchicalVAEConfig:
    """See configs/model/hierarchical_vae.yaml."""

    name: Literal["hierarchical_vae"] = setting("hierarchical_vae")
    network: NetworkName = setting(
        "auto",
        help=(
            "to layer 1: mlp, or for sides from 8 to 64 pixels conv or resnet; auto: resnet "
            "from 28 to 64, else mlp"
        ),
    )
    latents: tuple[int, ...] = setting(
        (32, 16),
        at_least=1,
        at_most=100_000,
        longest=100,
        help="dimensions of each stochastic layer, from the image upwards; two layers or more",
    )
    hidden: tuple[int, ...] = setting(
        (512, 256), at_least=1, at_most=100_000, longest=100, help="units of each layer, as many numbers"
    )
    blocks: int = setting(
        1, at_least=0, at_most=100, help="residual blocks of each layer, on the way up and on the way down"
    )
    width: int = setting(
        16,
        at_least=1,
        at_most=10_000,
        help="conv, resnet: channels of the layer next to the image, doubled at each halving",
    )
    likelihood: Literal["auto", "bernoulli", "gaussian", "discretized_logistic"] = setting(
        "auto", help="bernoulli for binary images, gaussian for dequantised ones, else discretized_logistic"
    )
    sigma: float | None = setting(
        None, above=0, help="gaussian: standard deviation in units of [0, 1]; null learns one"
    )
    beta: float = setting(1.0, at_least=0, help="weight of the KL term in training; evaluation never uses it")
    kl_warmup: float = setting(
        0.1, at_least=0, at_most=1, help="share of the run over which beta rises from 0"
    )
    free_bits: float = setting(
        0.0, at_least=0, help="nats of each stochastic layer that cost nothing in training"
    )
    sample_mean: bool = setting(True, help="sample gives the likelihood's mean; false draws from it")

    # Attributes that a variational autoencoder expects of its configuration, fixed here: non-centred latents.
    prior: ClassVar[str] = "standard_normal"
    posterior: ClassVar[str] = "diagonal"

    def __post_init__(self) -> None:
        if len(self.latents) < 2:
            raise ConfigError(
                f"model.latents={list(self.latents)}: fewer than two layers; "
                "give two or more, e.g. model.latents=[32,16], or use model=vae"
            )
        if len(self.hidden) != len(self.latents):
            raise ConfigError(
                f"model.hidden={list(self.hidden)}: not one number for each layer of "
                f"model.latents={list(self.latents)}; give {len(self.latents)}"
            )

    @property
    def latent(self) -> int:
        """Returns the dimensions of all layers together."""
        return sum(self.latents)


@dataclass(frozen=True, kw_only=True)
class AEConfig:
    """See configs/model/ae.yaml."""

    name: Literal["ae"] = setting("ae")
    network: NetworkName = setting(
        "auto",
        help=("mlp, or for sides from 8 to 64 pixels conv or resnet; auto: resnet from 28 to 64, else mlp"),
    )
    hidden: tuple[int, ...] = setting(
        (512, 512),
        at_least=1,
        at_most=100_000,
        longest=100,
        help="mlp, resnet: fully connected units, from the image to the latent",
    )
    width: int = setting(
        16,
        at_least=1,
        at_most=10_000,
        help="conv, resnet: channels of the layer next to the image, doubled at each halving",
    )
    latent: int = setting(16, at_least=1, at_most=100_000, help="dimensions of the latent")
    likelihood: Literal["auto", "bernoulli", "gaussian"] = setting(
        "auto", help="bernoulli (cross-entropy) for binary images, else gaussian (squared error)"
    )


@dataclass(frozen=True, kw_only=True)
class DAEConfig(AEConfig):
    """See configs/model/dae.yaml."""

    name: Literal["dae"] = setting("dae")  # type: ignore[assignment]
    noise: NoiseKind = setting(
        "masking",
        help="of training: masking sets pixels to 0, salt_and_pepper to 0 or 1; gaussian adds to all",
    )
    noise_level: float = setting(
        0.25, above=0, help="share of the pixels; gaussian: standard deviation in units of [0, 1]"
    )

    def __post_init__(self) -> None:
        check_level(self.noise, self.noise_level, "model.noise_level")


@dataclass(frozen=True, kw_only=True)
class StackedDAEConfig:
    """See configs/model/stacked_dae.yaml."""

    name: Literal["stacked_dae"] = setting("stacked_dae")
    hidden: tuple[int, ...] = setting(
        (500, 500, 500),
        at_least=1,
        at_most=100_000,
        longest=100,
        help="units of each layer, from the image; each has an equal share of the run, a schedule each",
    )
    units: Units = setting(
        "sigmoid",
        help=("sigmoid (given back by cross-entropy) or relu (by squared error); images by cross-entropy"),
    )
    noise: NoiseKind = setting(
        "masking",
        help=("in a layer's inputs: masking sets some to 0, salt_and_pepper to 0 or 1; gaussian adds to all"),
    )
    noise_level: float = setting(
        0.25, above=0, help="share of the inputs; gaussian: standard deviation, images being in [0, 1]"
    )

    def __post_init__(self) -> None:
        check_hidden(self.hidden)
        check_level(self.noise, self.noise_level, "model.noise_level")
        if self.noise == "salt_and_pepper" and self.units == "relu":
            raise ConfigError(
                "model.noise=salt_and_pepper: relu units have no largest value to be set to; "
                "use model.noise=masking or model.units=sigmoid"
            )


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """See configs/model/classifier.yaml."""

    name: Literal["classifier"] = setting("classifier")
    hidden: tuple[int, ...] = setting(
        (500, 500, 500),
        at_least=1,
        at_most=100_000,
        longest=100,
        help="units of each layer, from the image; above them a softmax",
    )
    units: Units = setting("sigmoid", help="sigmoid or relu")
    dropout: float = setting(
        0.0, at_least=0, below=1, help="share of each layer's units that are left out in training"
    )
    start: str | None = setting(
        None,
        help=("a run of stacked_dae, ae or dae, whose encoder a new run begins with; null: random weights"),
    )

    def __post_init__(self) -> None:
        check_hidden(self.hidden)


@dataclass(frozen=True)
class VQVAEConfig:
    """See configs/model/vqvae.yaml."""

    name: Literal["vqvae"] = setting("vqvae")
    width: int = setting(64, at_least=1, at_most=10_000, help="channels of the layers")
    residual_blocks: int = setting(2, at_least=0, at_most=1000, help="of the encoder, and of the decoder")
    halvings: int = setting(
        2, at_least=1, at_most=10, help="from the image to the map of codes: 28x28 pixels to 7x7 codes"
    )
    codes: int = setting(512, at_least=2, at_most=2**15, help="K: vectors of the codebook")
    code_dimensions: int = setting(64, at_least=1, at_most=10_000, help="D: numbers of such a vector")
    commitment: float = setting(
        0.25, at_least=0, help="weight of the squared distance between the encoder's vectors and their codes"
    )
    ema_decay: float = setting(
        0.99,
        at_least=0,
        below=1,
        help="of the codes, which follow their vectors by a moving average, for each step",
    )
    restart_every: int = setting(
        20, at_least=0, at_most=1_000_000_000, help="steps between restarts of dead codes; 0 for none"
    )
    restart_below: float = setting(
        0.03, at_least=0, below=1, help="a code is dead that has less than this share of the even use"
    )
    likelihood: Literal["auto", "bernoulli", "gaussian", "discretized_logistic"] = setting(
        "auto", help="bernoulli for binary images, gaussian for dequantised ones, else discretized_logistic"
    )
    sigma: float | None = setting(
        None, above=0, help="gaussian: standard deviation in units of [0, 1]; null learns one"
    )
