"""The dispatcher: a name in the configuration becomes a family, a dataset, an optimizer or a schedule.

A name is looked up in the dictionaries of this module: what is shipped, what installed packages announce
through the entry points `genlab.families` and `genlab.datasets`, and what `register_family` and
`register_dataset` were told. No dotted path of a configuration is ever imported.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
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
from genlab.errors import CheckpointError, ConfigError
from genlab.log import log

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


_SHIPPED = {"model": frozenset(FAMILIES), "dataset": frozenset(DATASETS)}
_NAME = re.compile(r"[A-Za-z]\w*")


def register_family(name: str, family: type) -> None:
    """Adds a model family of one's own, which every command then takes as `model=NAME`.

    Registering a name again replaces the class, e.g. when a cell of a notebook is run again.

    Args:
        name: a word of letters, digits and underscores.
        family: a subclass of `genlab.families.base.Family` with a `Config`.

    Raises:
        ConfigError: genlab itself has a family of this name, or the class is not one.
    """
    _register(FAMILIES, "model", name, family, needs=("Config", "players", "step"))


def register_dataset(name: str, source: type) -> None:
    """Adds a dataset of one's own, which every command then takes as `dataset=NAME`.

    Args:
        name: a word of letters, digits and underscores.
        source: a class with a `Config`, and `load(config)`, which returns a `genlab.data.dataset.Dataset`.

    Raises:
        ConfigError: genlab itself has a dataset of this name, or the class is not one.
    """
    _register(DATASETS, "dataset", name, source, needs=("Config", "load"))


def _register(
    registry: dict[str, str | type], key: str, name: str, entry: type, needs: tuple[str, ...]
) -> None:
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


def kinds(group: str) -> Mapping[str, str | type]:
    """Returns the dictionary in which the names of a config group are looked up: model, dataset and so on."""
    return _POLYMORPHIC[group]


def own_names(key: str) -> list[str]:
    """Returns the names of key "model" or "dataset" that are not genlab's own."""
    read_entry_points()
    return sorted(_POLYMORPHIC[key].keys() - _SHIPPED[key])


@functools.cache
def read_entry_points() -> None:
    """Adds what installed packages announce, once; a class is imported when it is asked for."""
    for group, registry in (("genlab.families", FAMILIES), ("genlab.datasets", DATASETS)):
        for point in entry_points(group=group):
            if point.name in registry:
                log.warning("%s: %s of an installed package has a name that is taken; left out", group, point)
            else:
                registry[point.name] = point.value


def look_up(registry: Mapping[str, str | type], name: Any, key: str) -> Any:
    """Returns the class that is registered under a name.

    Raises:
        ConfigError: no such name, or an installed package's class that cannot be imported.
    """
    if name not in registry:
        read_entry_points()
    if name not in registry:
        own = "; a module of your own: --module NAME" if key in _SHIPPED else ""
        raise ConfigError(f"{key}={name}: no such {key}{suggest(str(name), registry, f'{key}=')}{own}")
    entry = registry[name]
    if not isinstance(entry, str):
        return entry
    module, _, attribute = entry.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        if name in _SHIPPED.get(key, registry):
            raise
        raise ConfigError(
            f"{key}={name}: {entry} of an installed package cannot be imported "
            f"({type(error).__name__}: {' '.join(str(error).split())})"
        ) from error


def check_known(key: str, part: Any, checkpoint: object) -> None:
    """Refuses a checkpoint of a model or dataset that is not registered.

    Args:
        key: "model" or "dataset".
        part: what the checkpoint's configuration says of it.
        checkpoint: the file, for the message.

    Raises:
        CheckpointError: no such name; most often a plug-in is missing.
    """
    read_entry_points()
    name = part.get("name") if isinstance(part, Mapping) else None
    if isinstance(name, str) and name not in _POLYMORPHIC[key]:
        raise CheckpointError(
            f"ckpt={checkpoint}: needs {key}={name}, which is not here; add --module NAME, or install the "
            "package that brings it"
        )


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
