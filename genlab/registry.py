"""The registry: turns a name in the configuration into a family, dataset, optimizer or schedule.

Names are looked up in the dictionaries of this module: classes of genlab, those that installed packages
announce through the entry points `genlab.families` and `genlab.datasets`, and those of `register_family` and
`register_dataset`. A dotted path in a configuration is never imported.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, NamedTuple

from genlab.config.run import (
    MOST_SEED,
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
    player_settings,
)
from genlab.config.schema import from_plain, setting, settings_of, show, suggest
from genlab.errors import ConfigError, ElsewhereError
from genlab.log import log

if TYPE_CHECKING:
    from genlab.data.dataset import Dataset
    from genlab.data.spec import DataSpec
    from genlab.families.base import Family


class Shipped(NamedTuple):
    """A class of genlab: its location as `module:name`, and its settings, which need no torch."""

    target: str
    config: str


Entry = Shipped | str | type
"""A class, or its location: the class is imported at its first use."""

FAMILIES: dict[str, Entry] = {
    "gated_pixelcnn": Shipped(
        "genlab.families.gated_pixelcnn:GatedPixelCNN", "genlab.config.autoregressive:GatedPixelCNNConfig"
    ),
    "pixelcnn": Shipped("genlab.families.pixelcnn:PixelCNN", "genlab.config.autoregressive:PixelCNNConfig"),
    "pixelsnail": Shipped(
        "genlab.families.pixelsnail:PixelSNAIL", "genlab.config.autoregressive:PixelSNAILConfig"
    ),
    "row_lstm": Shipped("genlab.families.pixelrnn:RowLSTM", "genlab.config.autoregressive:RowLSTMConfig"),
    "pixelcnnpp": Shipped(
        "genlab.families.pixelcnnpp:PixelCNNPP", "genlab.config.autoregressive:PixelCNNPPConfig"
    ),
    "diagonal_bilstm": Shipped(
        "genlab.families.pixelrnn:DiagonalBiLSTM", "genlab.config.autoregressive:DiagonalBiLSTMConfig"
    ),
    "vae": Shipped("genlab.families.vae:VAE", "genlab.config.autoencoders:VAEConfig"),
    "iwae": Shipped("genlab.families.iwae:IWAE", "genlab.config.autoencoders:IWAEConfig"),
    "conditional_vae": Shipped(
        "genlab.families.conditional_vae:ConditionalVAE", "genlab.config.autoencoders:ConditionalVAEConfig"
    ),
    "categorical_vae": Shipped(
        "genlab.families.categorical_vae:CategoricalVAE", "genlab.config.autoencoders:CategoricalVAEConfig"
    ),
    "hierarchical_vae": Shipped(
        "genlab.families.hierarchical_vae:HierarchicalVAE", "genlab.config.autoencoders:HierarchicalVAEConfig"
    ),
    "ae": Shipped("genlab.families.autoencoder:AE", "genlab.config.autoencoders:AEConfig"),
    "dae": Shipped("genlab.families.autoencoder:DAE", "genlab.config.autoencoders:DAEConfig"),
    "stacked_dae": Shipped(
        "genlab.families.stacked_dae:StackedDAE", "genlab.config.autoencoders:StackedDAEConfig"
    ),
    "classifier": Shipped(
        "genlab.families.classifier:Classifier", "genlab.config.autoencoders:ClassifierConfig"
    ),
    "vqvae": Shipped("genlab.families.vqvae:VQVAE", "genlab.config.autoencoders:VQVAEConfig"),
    "gan": Shipped("genlab.families.gan:GAN", "genlab.config.adversarial:GANConfig"),
    "acgan": Shipped("genlab.families.conditional_gan:ACGAN", "genlab.config.adversarial:ACGANConfig"),
    "projection_gan": Shipped(
        "genlab.families.conditional_gan:ProjectionGAN", "genlab.config.adversarial:ProjectionGANConfig"
    ),
    "unrolled_gan": Shipped(
        "genlab.families.unrolled_gan:UnrolledGAN", "genlab.config.adversarial:UnrolledGANConfig"
    ),
    "wgan": Shipped("genlab.families.wgan:WGAN", "genlab.config.adversarial:WGANConfig"),
    "wgan_gp": Shipped("genlab.families.wgan:WGANGP", "genlab.config.adversarial:WGANGPConfig"),
    "bilinear_game": Shipped(
        "genlab.families.bilinear_game:BilinearGame", "genlab.config.adversarial:BilinearGameConfig"
    ),
}
"""model.name -> the family's class or its location."""

DATASETS: dict[str, Entry] = {
    "digits": Shipped("genlab.data.digits:Digits", "genlab.config.datasets:DigitsConfig"),
    "emoji": Shipped("genlab.data.emoji:Emoji", "genlab.config.datasets:EmojiConfig"),
    "mnist": Shipped("genlab.data.torchvision_sets:MNIST", "genlab.config.datasets:MNISTConfig"),
    "stacked_mnist": Shipped(
        "genlab.data.stacked_mnist:StackedMNIST", "genlab.config.datasets:StackedMNISTConfig"
    ),
    "fashion_mnist": Shipped(
        "genlab.data.torchvision_sets:FashionMNIST", "genlab.config.datasets:FashionMNISTConfig"
    ),
    "kmnist": Shipped("genlab.data.torchvision_sets:KMNIST", "genlab.config.datasets:KMNISTConfig"),
    "emnist": Shipped("genlab.data.torchvision_sets:EMNIST", "genlab.config.datasets:EMNISTConfig"),
    "cifar10": Shipped("genlab.data.torchvision_sets:CIFAR10", "genlab.config.datasets:CIFAR10Config"),
    "svhn": Shipped("genlab.data.torchvision_sets:SVHN", "genlab.config.datasets:SVHNConfig"),
    "binarized_mnist": Shipped(
        "genlab.data.binarized_mnist:BinarizedMNIST", "genlab.config.datasets:BinarizedMNISTConfig"
    ),
    "shapes": Shipped("genlab.data.shapes:Shapes", "genlab.config.datasets:ShapesConfig"),
    "folder": Shipped("genlab.data.folder:Folder", "genlab.config.datasets:FolderConfig"),
    "npz": Shipped("genlab.data.npz:Npz", "genlab.config.datasets:NpzConfig"),
    "codes": Shipped("genlab.trained.codes:Codes", "genlab.config.datasets:CodesConfig"),
    "ring": Shipped("genlab.data.points:Ring", "genlab.config.datasets:RingConfig"),
    "grid": Shipped("genlab.data.points:Grid", "genlab.config.datasets:GridConfig"),
    "gaussian1d": Shipped("genlab.data.points:Gaussian1D", "genlab.config.datasets:Gaussian1DConfig"),
    "two_moons": Shipped("genlab.data.points:TwoMoons", "genlab.config.datasets:TwoMoonsConfig"),
    "swiss_roll": Shipped("genlab.data.points:SwissRoll", "genlab.config.datasets:SwissRollConfig"),
    "none": Shipped("genlab.data.nothing:Nothing", "genlab.config.datasets:NothingConfig"),
}
"""dataset.name -> the source's class: it has `Config`, and `load(config) -> Dataset`."""

OPTIMIZERS: dict[str, Entry] = {
    "adam": AdamConfig,
    "adamw": AdamWConfig,
    "rmsprop": RMSpropConfig,
    "sgd": SGDConfig,
}

SCHEDULES: dict[str, Entry] = {
    "constant": ConstantConfig,
    "linear": LinearConfig,
    "cosine": CosineConfig,
    "warmup_cosine": WarmupCosineConfig,
    "step": StepConfig,
    "exponential": ExponentialConfig,
}


_SHIPPED = {"model": frozenset(FAMILIES), "dataset": frozenset(DATASETS)}
_NAME = re.compile(r"[A-Za-z]\w*")


def register_family(name: str, family: type) -> None:
    """Adds a model family, which every command then accepts as `model=NAME`.

    Registering a name again replaces the class, e.g. when a notebook cell is run again.

    Args:
        name: a word of letters, digits and underscores.
        family: a subclass of `genlab.families.base.Family` with a `Config`.

    Raises:
        ConfigError: genlab already has a family of this name, or the class is not a family.
    """
    _register(FAMILIES, "model", name, family, needs=("Config", "players", "step"))


def register_dataset(name: str, source: type) -> None:
    """Adds a dataset, which every command then accepts as `dataset=NAME`.

    Args:
        name: a word of letters, digits and underscores.
        source: a class with a `Config`, and `load(config)`, which returns a `genlab.data.dataset.Dataset`.

    Raises:
        ConfigError: genlab already has a dataset of this name, or the class is not a dataset.
    """
    _register(DATASETS, "dataset", name, source, needs=("Config", "load"))


def _register(registry: dict[str, Entry], key: str, name: str, entry: type, needs: tuple[str, ...]) -> None:
    given = f"{key}={name}"
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{given}: cannot be registered; use letters, digits and underscores")
    if name in _SHIPPED[key]:
        raise ConfigError(f"{given}: genlab has one of this name; register yours under another")
    lacking = [attribute for attribute in needs if not hasattr(entry, attribute)]
    if not isinstance(entry, type) or lacking:
        raise ConfigError(f"{given}: cannot be registered; its class has no {', '.join(lacking or needs)}")
    config = entry.Config  # pyright: ignore[reportAttributeAccessIssue]
    if not dataclasses.is_dataclass(config) or "name" not in {f.name for f in dataclasses.fields(config)}:
        raise ConfigError(f"{given}: cannot be registered; its Config must be a dataclass with a `name`")
    registry[name] = entry


def kinds(group: str) -> Mapping[str, Entry]:
    """Returns the dictionary in which the names of a config group are looked up: model, dataset and so on."""
    return _POLYMORPHIC[group]


def own_names(key: str) -> list[str]:
    """Returns the names of a key, "model" or "dataset", that are registered by plug-ins."""
    read_entry_points()
    return sorted(_POLYMORPHIC[key].keys() - _SHIPPED.get(key, _POLYMORPHIC[key].keys()))


@functools.cache
def read_entry_points() -> None:
    """Registers the classes that installed packages announce, once; each is imported at its first use."""
    for group, registry in (("genlab.families", FAMILIES), ("genlab.datasets", DATASETS)):
        for point in entry_points(group=group):
            if point.name in registry:
                log.warning("%s: %s of an installed package has a name already in use; ignored", group, point)
            else:
                registry[point.name] = point.value


def look_up(registry: Mapping[str, Entry], name: Any, key: str) -> Any:
    """Returns the class that is registered under a name.

    Raises:
        ConfigError: the name is unknown, or an installed package's class cannot be imported.
    """
    if name not in registry:
        read_entry_points()
    if name not in registry:
        own = "; a module of your own: --module NAME" if key in _SHIPPED else ""
        raise ConfigError(f"{key}={name}: no such {key}{suggest(str(name), registry, f'{key}=')}{own}")
    entry = registry[name]
    return _imported(entry.target if isinstance(entry, Shipped) else entry, f"{key}={name}")


def config_of(registry: Mapping[str, Entry], name: Any, key: str) -> type:
    """Returns the dataclass of the settings of a registered name; imports torch only for plug-ins.

    Raises:
        ConfigError: as `look_up`.
    """
    entry = registry.get(name)
    if isinstance(entry, Shipped):
        return _imported(entry.config, f"{key}={name}")
    found = look_up(registry, name, key)
    return getattr(found, "Config", found)


def _imported(entry: str | type, given: str) -> Any:
    """Returns a class, importing it if only its location `module:name` is given."""
    if not isinstance(entry, str):
        return entry
    module, _, attribute = entry.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        if module.startswith("genlab."):
            raise
        raise ConfigError(
            f"{given}: {entry} of an installed package cannot be imported "
            f"({type(error).__name__}: {' '.join(str(error).split())})"
        ) from error


def check_known(key: str, part: Any, checkpoint: object) -> None:
    """Refuses a checkpoint whose model or dataset is not registered.

    Args:
        key: "model" or "dataset".
        part: the checkpoint's configuration of it.
        checkpoint: the checkpoint file, for the message.

    Raises:
        ElsewhereError: the name is unknown, most often because a plug-in is missing.
    """
    read_entry_points()
    name = part.get("name") if isinstance(part, Mapping) else None
    if isinstance(name, str) and name not in _POLYMORPHIC[key]:
        raise ElsewhereError(
            f"ckpt={checkpoint}: needs {key}={name}, which is not registered; add --module NAME or "
            "install the package that provides it"
        )


def parse(plain: Mapping[str, Any]) -> TrainConfig:
    """Returns the configuration of a run, checked by `from_plain`; imports torch only for plug-ins.

    Raises:
        ConfigError: see `genlab.config.schema.from_plain`.
    """
    known = ["model", "dataset", "optimizer", "schedule", "trainer", "seed"]
    for word in plain:
        if word not in known:
            raise ConfigError(f"{word}: unknown key for genlab train{suggest(word, [*known, 'run_dir'])}")
    parts = {}
    for key, registry in _POLYMORPHIC.items():
        part = plain.get(key)
        if not isinstance(part, Mapping) or not isinstance(part.get("name"), str):
            raise ConfigError(f"{key}: missing; choose one: {', '.join(sorted(registry))}")
        parts[key] = from_plain(config_of(registry, part["name"], key), part, key)
    for player in parts["optimizer"].players:
        player_settings(parts["optimizer"], player)
    return TrainConfig(
        **parts,
        trainer=from_plain(TrainerConfig, plain.get("trainer", {}), "trainer"),
        seed=from_plain(_Seed, {"seed": plain.get("seed", 0)}).seed,
    )


def train_config(plain: Mapping[str, Any]) -> TrainConfig:
    """Returns the configuration of a run, and lets the family check that its parts fit together.

    Raises:
        ConfigError: see `parse`; also if settings do not fit together.
    """
    config = parse(plain)
    family_class = look_up(FAMILIES, config.model.name, "model")
    family_class.check(config)
    players = family_class.players
    for player in config.optimizer.players:
        if player not in players:
            hint = suggest(player, players, "optimizer.players.")
            raise ConfigError(f"optimizer.players.{player}: {config.model.name} has no such player{hint}")
    return config


def family(config: Any, spec: DataSpec, copies: int = 1, memory: int | None = None) -> Family:
    """Builds the model that `config` names, for images of `spec`, on the CPU.

    Args:
        copies: how many numbers are kept for each weight: 1 to use the model, more to train it.
        memory: bytes of the device on which it is used; None for the machine's.

    Raises:
        TooLargeError: that many do not fit.
    """
    from genlab.device import counted_weights  # imports torch

    kind = look_up(FAMILIES, config.name, "model")
    with counted_weights(*_largest_setting(config, spec), copies, memory) as count:
        return count(kind(config, spec))


def _largest_setting(config: Any, spec: DataSpec) -> tuple[str, str]:
    """Returns the setting to which a model's size is most likely due, with its value, and a remedy."""
    sizes: dict[str, float] = {"": 1}
    for each in settings_of(type(config)):
        values, usual = ([x] if isinstance(x, int) else x for x in (getattr(config, each.key), each.default))
        if isinstance(values, tuple) and values and all(isinstance(x, int) for x in values):
            known = [x for x in usual or () if isinstance(x, int)] if isinstance(usual, list) else []
            sizes[each.key] = sum(values) / max([1, sum(known)])
    key = max(sizes, key=lambda name: sizes[name])
    if spec.classes > 1000 * sizes[key]:
        return f"dataset={spec.name}", f"it has {spec.classes:,} classes; use fewer"
    if not key:
        return f"model={config.name}", f"use smaller images than {spec.height}x{spec.width}, or another model"
    return f"model.{key}={show(getattr(config, key))}", f"lower model.{key}"


def dataset(config: Any) -> Dataset:
    """Loads the dataset that `config` names, from disk or by download."""
    return look_up(DATASETS, config.name, "dataset").load(config)


@dataclass(frozen=True)
class _Seed:
    seed: int = setting(0, at_least=0, at_most=MOST_SEED)


_POLYMORPHIC: dict[str, Mapping[str, Entry]] = {
    "model": FAMILIES,
    "dataset": DATASETS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
