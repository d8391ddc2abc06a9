"""The dispatcher: a name in the configuration becomes a family, a dataset, an optimizer or a schedule.

Names look up dictionaries of this package and nothing else: no dotted path is ever imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genlab.config.run import (
    AdamConfig,
    AdamWConfig,
    ConstantConfig,
    CosineConfig,
    ExponentialConfig,
    LinearConfig,
    RMSpropConfig,
    SGDConfig,
    StepConfig,
    TrainConfig,
    TrainerConfig,
    WarmupCosineConfig,
)
from genlab.config.schema import from_plain, setting, suggest
from genlab.errors import ConfigError

if TYPE_CHECKING:
    from genlab.data.dataset import Dataset
    from genlab.data.spec import DataSpec
    from genlab.families.base import Family

FAMILIES: dict[str, str | type] = {
    "gated_pixelcnn": "genlab.families.gated_pixelcnn:GatedPixelCNN",
    "pixelcnn": "genlab.families.pixelcnn:PixelCNN",
    "pixelsnail": "genlab.families.pixelsnail:PixelSNAIL",
    "row_lstm": "genlab.families.pixelrnn:RowLSTM",
    "pixelcnnpp": "genlab.families.pixelcnnpp:PixelCNNPP",
    "diagonal_bilstm": "genlab.families.pixelrnn:DiagonalBiLSTM",
    "vae": "genlab.families.vae:VAE",
    "iwae": "genlab.families.iwae:IWAE",
    "conditional_vae": "genlab.families.conditional_vae:ConditionalVAE",
    "categorical_vae": "genlab.families.categorical_vae:CategoricalVAE",
    "hierarchical_vae": "genlab.families.hierarchical_vae:HierarchicalVAE",
    "ae": "genlab.families.autoencoder:AE",
    "dae": "genlab.families.autoencoder:DAE",
    "stacked_dae": "genlab.families.stacked_dae:StackedDAE",
    "classifier": "genlab.families.classifier:Classifier",
    "vqvae": "genlab.families.vqvae:VQVAE",
    "gan": "genlab.families.gan:GAN",
    "acgan": "genlab.families.conditional_gan:ACGAN",
    "projection_gan": "genlab.families.conditional_gan:ProjectionGAN",
    "unrolled_gan": "genlab.families.unrolled_gan:UnrolledGAN",
    "wgan": "genlab.families.wgan:WGAN",
    "wgan_gp": "genlab.families.wgan:WGANGP",
    "bilinear_game": "genlab.families.bilinear_game:BilinearGame",
}
"""model.name -> the family's class, or where it is; imported when it is asked for."""

DATASETS: dict[str, str | type] = {
    "digits": "genlab.data.digits:Digits",
    "emoji": "genlab.data.emoji:Emoji",
    "mnist": "genlab.data.torchvision_sets:MNIST",
    "stacked_mnist": "genlab.data.stacked_mnist:StackedMNIST",
    "fashion_mnist": "genlab.data.torchvision_sets:FashionMNIST",
    "kmnist": "genlab.data.torchvision_sets:KMNIST",
    "emnist": "genlab.data.torchvision_sets:EMNIST",
    "cifar10": "genlab.data.torchvision_sets:CIFAR10",
    "svhn": "genlab.data.torchvision_sets:SVHN",
    "binarized_mnist": "genlab.data.binarized_mnist:BinarizedMNIST",
    "shapes": "genlab.data.shapes:Shapes",
    "folder": "genlab.data.folder:Folder",
    "npz": "genlab.data.npz:Npz",
    "codes": "genlab.trained.codes:Codes",
    "ring": "genlab.data.points:Ring",
    "grid": "genlab.data.points:Grid",
    "gaussian1d": "genlab.data.points:Gaussian1D",
    "two_moons": "genlab.data.points:TwoMoons",
    "swiss_roll": "genlab.data.points:SwissRoll",
    "none": "genlab.data.nothing:Nothing",
}
"""dataset.name -> the source's class: `Config`, and `load(config) -> Dataset`."""

OPTIMIZERS: dict[str, str | type] = {
    "adam": AdamConfig,
    "adamw": AdamWConfig,
    "rmsprop": RMSpropConfig,
    "sgd": SGDConfig,
}

SCHEDULES: dict[str, str | type] = {
    "constant": ConstantConfig,
    "linear": LinearConfig,
    "cosine": CosineConfig,
    "warmup_cosine": WarmupCosineConfig,
    "step": StepConfig,
    "exponential": ExponentialConfig,
}


def look_up(registry: Mapping[str, str | type], name: Any, key: str) -> Any:
    """The class registered under a name.

    Raises:
        ConfigError: no such name; says which there are.
    """
    if name not in registry:
        raise ConfigError(f"{key}={name}: no such {key}{suggest(str(name), registry, f'{key}=')}")
    entry = registry[name]
    if isinstance(entry, str):
        module, _, attribute = entry.partition(":")
        return getattr(importlib.import_module(module), attribute)
    return entry


def train_config(plain: Mapping[str, Any]) -> TrainConfig:
    """A whole run's configuration through the one door.

    Raises:
        ConfigError: see `genlab.config.schema.from_plain`; also settings that do not go together.
    """
    for word in plain:
        if word not in {"model", "dataset", "optimizer", "schedule", "trainer", "seed"}:
            known = ["model", "dataset", "optimizer", "schedule", "trainer", "seed", "run_dir"]
            raise ConfigError(f"{word}: unknown key for genlab train{suggest(word, known)}")
    parts = {}
    for key, registry in _POLYMORPHIC.items():
        part = plain.get(key)
        if not isinstance(part, Mapping) or "name" not in part:
            raise ConfigError(f"{key}: missing; choose one: {', '.join(sorted(registry))}")
        entry = look_up(registry, part["name"], key)
        parts[key] = from_plain(getattr(entry, "Config", entry), part, key)
    config = TrainConfig(
        **parts,
        trainer=from_plain(TrainerConfig, plain.get("trainer", {}), "trainer"),
        seed=from_plain(_Seed, {"seed": plain.get("seed", 0)}).seed,
    )
    family_class = look_up(FAMILIES, config.model.name, "model")
    family_class.check(config)
    players = family_class.players
    for player in config.optimizer.players:
        if player not in players:
            hint = suggest(player, players, "optimizer.players.")
            raise ConfigError(f"optimizer.players.{player}: {config.model.name} has no such player{hint}")
    return config


def family(config: Any, spec: DataSpec) -> Family:
    """The model that `config` names, for images of `spec`, on the CPU."""
    return look_up(FAMILIES, config.name, "model")(config, spec)


def dataset(config: Any) -> Dataset:
    """The dataset that `config` names, read from disk or downloaded."""
    return look_up(DATASETS, config.name, "dataset").load(config)


@dataclass(frozen=True)
class _Seed:
    seed: int = setting(0, at_least=0)


_POLYMORPHIC: dict[str, Mapping[str, str | type]] = {
    "model": FAMILIES,
    "dataset": DATASETS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
