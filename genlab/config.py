"""The dataclasses of a run, and `from_plain`, the one door through which every configuration passes.

Hydra's composed configuration and the one stored in a checkpoint are both plain dictionaries. Both become
frozen dataclasses here or end in one line that names the key, the value and what would do. This module
imports neither torch nor hydra.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from genlab.errors import ConfigError

T = TypeVar("T")


def setting(
    default: Any = MISSING,
    *,
    help: str = "",
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> Any:
    """A field of a configuration dataclass, with the range its value must lie in.

    Args:
        default: the value when the key is absent; without one the key is required.
        help: one line for people.
        at_least, above, at_most, below: bounds of a number, or of each number of a tuple.
    """
    bounds = {"at_least": at_least, "above": above, "at_most": at_most, "below": below}
    metadata = {"help": help, "bounds": {k: v for k, v in bounds.items() if v is not None}}
    if isinstance(default, dict | list):
        frozen = default
        return dataclasses.field(default_factory=lambda: type(frozen)(frozen), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def suggest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """`; did you mean X?` for a mistyped word, or the choices when nothing is near."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {prefix}{near[0]}?"
    return f"; there is: {', '.join(sorted(known))}" if known else ""


def from_plain(cls: type[T], plain: Any, key: str = "") -> T:
    """Turns a plain dictionary into the frozen dataclass `cls`, strictly.

    Args:
        cls: a dataclass whose fields are made with `setting`.
        plain: dictionary, list, string, number, bool and None only.
        key: where the dictionary sits, e.g. "model"; "" for the whole configuration.

    Raises:
        ConfigError: an unknown or missing key, a wrong type, or a value out of range.
    """
    if not isinstance(plain, Mapping):
        raise ConfigError(f"{key or 'config'}={plain!r}: expected a group of settings")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    prefix = f"{key}." if key else ""
    owner = plain.get("name") or key or "this command"
    for word in plain:
        if word not in fields:
            hint = suggest(str(word), fields, prefix)
            raise ConfigError(f"{prefix}{word}: unknown key for {owner}{hint}")
    hints = typing.get_type_hints(cls)
    values = {}
    for name, field in fields.items():
        if name not in plain or plain[name] == "???":
            if field.default is MISSING and field.default_factory is MISSING:
                raise ConfigError(f"{prefix}{name}: missing; add {prefix}{name}=...")
            continue
        bounds = field.metadata.get("bounds", {})
        values[name] = _convert(hints[name], plain[name], f"{prefix}{name}", bounds)
    return cls(**values)


def to_plain(config: Any) -> Any:
    """The inverse of `from_plain`: dictionaries, lists, strings, numbers, bools and None only."""
    if dataclasses.is_dataclass(config):
        return {f.name: to_plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(k): to_plain(v) for k, v in config.items()}
    if isinstance(config, list | tuple):
        return [to_plain(v) for v in config]
    return config


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}


def _convert(kind: Any, value: Any, key: str, bounds: dict[str, float]) -> Any:
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        options = get_args(kind)
        if value is None and type(None) in options:
            return None
        rest = [k for k in options if k is not type(None)]
        for k in rest[:-1]:
            try:
                return _convert(k, value, key, bounds)
            except ConfigError:
                pass
        return _convert(rest[-1], value, key, bounds)
    if origin is Literal:
        choices = get_args(kind)
        if value not in choices or isinstance(value, bool) != any(
            value is c for c in choices if isinstance(c, bool)
        ):
            hint = suggest(str(value), map(str, choices), f"{key}=")
            hint = hint if "mean" in hint else ""
            raise ConfigError(f"{key}={_show(value)}: not one of {', '.join(map(_show, choices))}{hint}")
        return value
    if origin in (tuple, list):
        items = get_args(kind)
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{key}={_show(value)}: expected a list, e.g. {key}=[1,2]")
        return tuple(_convert(items[0], v, f"{key}[{i}]", bounds) for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key}={_show(value)}: expected names with settings")
        return {str(k): _convert(get_args(kind)[1], v, f"{key}.{k}", bounds) for k, v in value.items()}
    if dataclasses.is_dataclass(kind):
        return from_plain(typing.cast(type, kind), value, key)
    return _number_or_word(kind, value, key, bounds)


def _number_or_word(kind: Any, value: Any, key: str, bounds: dict[str, float]) -> Any:
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)  # 1e4 is a whole number too, and YAML reads it as a float
    elif kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    elif kind is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)  # YAML 1.1 reads 1e-3 as a word
    elif kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if type(value) is not kind:
        raise ConfigError(f"{key}={_show(value)}: expected {_TYPE_NAMES.get(kind, kind)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}={value}: expected a finite number")
    words = {"at_least": "at least", "above": "above", "at_most": "at most", "below": "below"}
    checks = {
        "at_least": lambda v, b: v >= b,
        "above": lambda v, b: v > b,
        "at_most": lambda v, b: v <= b,
        "below": lambda v, b: v < b,
    }
    if not isinstance(value, str) and any(not checks[name](value, bound) for name, bound in bounds.items()):
        wanted = " and ".join(f"{words[name]} {bound:g}" for name, bound in bounds.items())
        raise ConfigError(f"{key}={_show(value)}: must be {wanted}")
    return value


def _show(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


@dataclass(frozen=True)
class PlayerOptimizerConfig:
    """What one player sets differently from `optimizer`; null keeps the common value."""

    lr: float | None = setting(None, above=0, help="learning rate of this player")
    weight_decay: float | None = setting(None, at_least=0)
    betas: tuple[float, ...] | None = setting(None, at_least=0, below=1)
    momentum: float | None = setting(None, at_least=0, below=1)
    clip_grad_norm: float | None = setting(None, at_least=0)


@dataclass(frozen=True)
class AdamConfig:
    """Adam (Kingma and Ba 2015)."""

    name: Literal["adam"] = setting("adam")
    lr: float = setting(1e-3, above=0, help="learning rate, multiplied by the schedule")
    betas: tuple[float, ...] = setting((0.9, 0.999), at_least=0, below=1)
    eps: float = setting(1e-8, above=0)
    weight_decay: float = setting(0.0, at_least=0)
    clip_grad_norm: float = setting(
        0.0, at_least=0, help="largest norm of a player's gradient; 0 for no clipping"
    )
    players: dict[str, PlayerOptimizerConfig] = setting(
        {}, help="optimizer.players.NAME.lr=... for one player"
    )


@dataclass(frozen=True)
class AdamWConfig(AdamConfig):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    name: Literal["adamw"] = setting("adamw")  # type: ignore[assignment]
    weight_decay: float = setting(0.01, at_least=0)


@dataclass(frozen=True)
class RMSpropConfig:
    """RMSprop (Tieleman and Hinton 2012)."""

    name: Literal["rmsprop"] = setting("rmsprop")
    lr: float = setting(5e-5, above=0)
    alpha: float = setting(0.99, at_least=0, below=1)
    eps: float = setting(1e-8, above=0)
    momentum: float = setting(0.0, at_least=0, below=1)
    weight_decay: float = setting(0.0, at_least=0)
    clip_grad_norm: float = setting(0.0, at_least=0)
    players: dict[str, PlayerOptimizerConfig] = setting({})


@dataclass(frozen=True)
class SGDConfig:
    """Stochastic gradient descent, with momentum (Nesterov's on request)."""

    name: Literal["sgd"] = setting("sgd")
    lr: float = setting(0.1, above=0)
    momentum: float = setting(0.9, at_least=0, below=1)
    nesterov: bool = setting(False)
    weight_decay: float = setting(0.0, at_least=0)
    clip_grad_norm: float = setting(0.0, at_least=0)
    players: dict[str, PlayerOptimizerConfig] = setting({})


OptimizerConfig = AdamConfig | AdamWConfig | RMSpropConfig | SGDConfig


@dataclass(frozen=True)
class ConstantConfig:
    """The learning rate stays as it is."""

    name: Literal["constant"] = setting("constant")


@dataclass(frozen=True)
class LinearConfig:
    """A straight line from 1 to `final`."""

    name: Literal["linear"] = setting("linear")
    final: float = setting(0.0, at_least=0, at_most=1, help="multiplier at the end of the run")


@dataclass(frozen=True)
class CosineConfig:
    """Half a cosine from 1 to `final` (Loshchilov and Hutter 2017, eq. 5, one cycle)."""

    name: Literal["cosine"] = setting("cosine")
    final: float = setting(0.0, at_least=0, at_most=1)


@dataclass(frozen=True)
class WarmupCosineConfig:
    """A straight line up to 1 over `warmup` of the run, then half a cosine to `final`."""

    name: Literal["warmup_cosine"] = setting("warmup_cosine")
    warmup: float = setting(0.02, at_least=0, below=1, help="share of the run")
    final: float = setting(0.0, at_least=0, at_most=1)


@dataclass(frozen=True)
class StepConfig:
    """Multiplied by `factor` at each milestone."""

    name: Literal["step"] = setting("step")
    milestones: tuple[float, ...] = setting((0.5, 0.75), above=0, below=1, help="shares of the run")
    factor: float = setting(0.1, above=0, at_most=1)


@dataclass(frozen=True)
class ExponentialConfig:
    """Geometric decay from 1 to `final`."""

    name: Literal["exponential"] = setting("exponential")
    final: float = setting(0.01, above=0, at_most=1)


ScheduleConfig = (
    ConstantConfig | LinearConfig | CosineConfig | WarmupCosineConfig | StepConfig | ExponentialConfig
)


@dataclass(frozen=True)
class TrainerConfig:
    """The machine: how long, on what, and how often it reports."""

    steps: int = setting(4000, at_least=1, help="steps of the family's algorithm box")
    batch_size: int = setting(
        128, at_least=1, help="images of one update, over all processes and micro-batches"
    )
    micro_batch_size: int | None = setting(
        None, at_least=1, help="images at a time within an update; null for all"
    )
    device: str = setting("auto", help="auto, cpu, cuda, cuda:1 or mps")
    precision: Literal["fp32", "bf16"] = setting("fp32")
    compile: bool = setting(False, help="torch.compile each player's network")
    deterministic: bool = setting(
        False, help="refuse operations that do not repeat bit for bit, at some speed"
    )
    ema_half_life_images: int = setting(
        0, at_least=0, help="half-life of the weights' moving average; 0 for none"
    )
    ema_ramp: float = setting(0.05, above=0, help="share of the images seen that the half-life is at most")
    log_every: int = setting(100, at_least=1, help="steps")
    sample_every: int = setting(1000, at_least=0, help="steps; 0 for only at the end")
    evaluate_every: int = setting(1000, at_least=0, help="steps; 0 for only at the end")
    evaluate_images: int | None = setting(
        2000, at_least=1, help="validation images of one evaluation; null for all"
    )
    checkpoint_every: int = setting(1000, at_least=0, help="steps; 0 for only at the end")
    keep_checkpoints: int = setting(3, at_least=1, help="how many of the newest are kept")
    sample_images: int = setting(64, at_least=1, help="images in a sample grid")
    measure: tuple[str, ...] = setting(
        (), help="what is measured of samples: [frechet_lenet]; see measure of genlab evaluate"
    )
    measure_every: int = setting(1000, at_least=0, help="steps; 0 for only at the end")
    measure_images: int = setting(2000, at_least=10, help="samples that are measured")
    tensorboard: bool = setting(False, help='needs pip install "genlab[tensorboard]"')
    wandb: bool = setting(False, help='needs pip install "genlab[wandb]"')


@dataclass(frozen=True)
class TrainConfig:
    """A whole run. `model` and `dataset` are the chosen family's and dataset's own dataclasses."""

    model: Any
    dataset: Any
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    trainer: TrainerConfig
    seed: int = setting(0, at_least=0)


@dataclass(frozen=True)
class SampleConfig:
    """`genlab sample`."""

    ckpt: str = setting(help="a run folder or one checkpoint file")
    n: int | None = setting(None, at_least=1, help="images; null: one for each of labels, else 64")
    seed: int = setting(0, at_least=0)
    labels: tuple[int, ...] | None = setting(
        None, at_least=0, help="one class for each image, repeated as needed"
    )
    temperature: float = setting(1.0, above=0, help="below 1 keeps to what is likely; autoregressive models")
    prior: Literal["model", "fit"] = setting(
        "model", help="fit: Gaussians fitted to the codes of training images; models with an encoder"
    )
    components: int = setting(10, at_least=1, help="prior=fit: how many Gaussians")
    batch_size: int = setting(256, at_least=1, help="images at a time; no effect on the pictures")
    weights: Literal["auto", "average", "raw"] = setting(
        "auto", help="auto: the moving average where there is one"
    )
    device: str = setting("auto")
    npz: bool = setting(False, help="write samples.npz too: images, uint8 (n, H, W, C)")
    dataset: dict[str, Any] = setting(
        {}, help="where the files are now: dataset.root=... for prior=fit, dataset.ckpt=... for codes"
    )
    run_dir: str | None = setting(None)

    @property
    def count(self) -> int:
        """Images to draw: `n`, or as many as there are labels, or 64."""
        return self.n or len(self.labels or ()) or 64


@dataclass(frozen=True)
class CompleteConfig:
    """`genlab complete`."""

    ckpt: str = setting(help="a run folder or one checkpoint file")
    images: str | None = setting(None, help="a picture or a folder of them; null: those of the dataset")
    keep: str = setting("top", help="top, left, or a picture of a mask, white where pixels are kept")
    n: int = setting(8, at_least=1, at_most=65536, help="completions of each image")
    resample: int = setting(1, at_least=1, at_most=65536, help="candidates of a completion")
    temperature: float = setting(1.0, above=0, help="below 1 keeps to what is likely")
    labels: tuple[int, ...] | None = setting(
        None, at_least=0, help="classes that the completions of an image have in turn"
    )
    seed: int = setting(0, at_least=0)
    split: Literal["train", "validation", "test"] = setting("test")
    count: int = setting(8, at_least=1, help="images of the split, where images is null")
    batch_size: int = setting(256, at_least=1, help="candidates at a time; no effect on the pictures")
    weights: Literal["auto", "average", "raw"] = setting("auto")
    device: str = setting("auto")
    dataset: dict[str, Any] = setting({}, help="dataset.root=... where the files are now")
    run_dir: str | None = setting(None)


@dataclass(frozen=True)
class EvaluateConfig:
    """`genlab evaluate`."""

    ckpt: str | None = setting(
        None, help="a run folder or one checkpoint file; null to measure samples=FOLDER"
    )
    split: Literal["train", "validation", "test"] = setting("test")
    images: int | None = setting(None, at_least=1, help="only so many of the split; null for all of it")
    samples: int | str | None = setting(
        None,
        at_least=1,
        help="how many for mode coverage; or, without ckpt, a folder or .npz file to measure",
    )
    measure: tuple[str, ...] | str | None = setting(
        None, help="extractors by which samples are compared with data: [lenet,random_conv]; auto for one"
    )
    n: int | None = setting(
        None, at_least=10, help="samples to measure; null: as many as data, at most 10000"
    )
    against: str | None = setting(None, help="measure: a folder or .npz file in place of the split")
    extrapolate: bool = setting(False, help="measure: the Fréchet distance at infinitely many samples too")
    memorisation: bool = setting(False, help="whether samples are copies of training images, and a picture")
    weights_file: str | None = setting(None, help="measure=inception: the file of its weights")
    seed: int = setting(0, at_least=0)
    batch_size: int = setting(500, at_least=1, help="images at a time; no effect on the numbers but rounding")
    importance_samples: int | None = setting(
        None, at_least=1, help="posterior samples of an importance-weighted bound; models with a latent"
    )
    per_image: bool = setting(False, help="write per_image.csv too: the numbers of each image, in order")
    weights: Literal["auto", "average", "raw"] = setting("auto")
    device: str = setting("auto")
    dataset: dict[str, Any] = setting(
        {}, help="dataset.root=... where the files are now; dataset=NAME beside samples=FOLDER"
    )
    run_dir: str | None = setting(None)

    def __post_init__(self) -> None:
        folder = self.samples if isinstance(self.samples, str) else None
        if folder is None and self.ckpt is None:
            raise ConfigError("ckpt: missing; add ckpt=..., or samples=FOLDER to measure pictures")
        if folder is None:
            if "name" in self.dataset:
                raise ConfigError(
                    f"dataset={self.dataset['name']}: genlab evaluate takes the dataset from the checkpoint; "
                    "leave it out"
                )
            return
        if folder.lstrip("-").isdigit():
            raise ConfigError(f"samples={folder}: must be at least 1")
        if self.ckpt is not None:
            raise ConfigError(f"samples={folder}: measured without a model; leave ckpt out, or samples")
        for key in ("importance_samples", "per_image"):
            if getattr(self, key):
                raise ConfigError(
                    f"{key}={getattr(self, key)}: a number of a model; add ckpt=..., or leave it out"
                )
        if self.memorisation and self.against is not None:
            raise ConfigError("memorisation=true: needs training images; give dataset=NAME, not against")
        if (self.against is None) == ("name" not in self.dataset):
            both = "does not go with against" if self.against else "missing"
            raise ConfigError(
                f"dataset: {both}; compare samples={folder} with dataset=NAME or with against=FOLDER"
            )

    @property
    def measured(self) -> tuple[str, ...]:
        """The words of `measure`: "auto" where another setting asks for the ruler without them."""
        if isinstance(self.measure, str):
            return (self.measure,)
        if self.measure is not None:
            return self.measure
        asked = isinstance(self.samples, str) or self.against or self.extrapolate
        return ("auto",) if asked or (self.n and not self.memorisation) else ()


@dataclass(frozen=True, kw_only=True)
class OnCheckpointConfig:
    """What every command on the latents of a trained model can be told."""

    ckpt: str = setting(help="a run folder or one checkpoint file")
    images: str | None = setting(None, help="a picture or a folder of them; null: those of the dataset")
    split: Literal["train", "validation", "test"] = setting("test")
    seed: int = setting(0, at_least=0)
    batch_size: int = setting(256, at_least=1, help="images at a time; no effect on the pictures")
    weights: Literal["auto", "average", "raw"] = setting("auto")
    device: str = setting("auto")
    dataset: dict[str, Any] = setting({}, help="dataset.root=... where the files are now")
    run_dir: str | None = setting(None)


@dataclass(frozen=True, kw_only=True)
class ReconstructConfig(OnCheckpointConfig):
    """`genlab reconstruct`."""

    count: int = setting(40, at_least=1, help="images of the split, where images is null")


@dataclass(frozen=True, kw_only=True)
class EncodeConfig(OnCheckpointConfig):
    """`genlab encode`."""

    count: int | None = setting(
        None, at_least=1, help="so many of the split, drawn at random, always the same; null: all"
    )
    map: Literal["pca", "tsne"] = setting("pca", help="how codes become a picture")
    dataset: dict[str, Any] = setting({}, help="dataset=NAME for another one, of images of the same shape")


@dataclass(frozen=True, kw_only=True)
class InterpolateConfig(OnCheckpointConfig):
    """`genlab interpolate`."""

    between: Literal["samples", "images"] = setting("samples")
    steps: int = setting(10, at_least=2, at_most=100, help="images of a row, both ends included")
    path: Literal["straight", "spherical"] = setting("straight")
    n: int = setting(8, at_least=1, help="pairs")
    labels: tuple[int, ...] | None = setting(
        None, at_least=0, help="classes that the pairs have in turn; null: the images', else drawn"
    )


@dataclass(frozen=True, kw_only=True)
class TraverseConfig(OnCheckpointConfig):
    """`genlab traverse`."""

    dimensions: tuple[int, ...] | None = setting(
        None, at_least=0, help="of the latent, a row each; null: the first 16, or none beside a direction"
    )
    direction: tuple[int, ...] | None = setting(
        None, at_least=0, help="two classes: a row along the difference of their mean codes"
    )
    range: float = setting(3.0, above=0, help="standard deviations on both sides")
    steps: int = setting(11, at_least=2, at_most=100, help="images of a row")
    around: Literal["origin", "image", "sample"] = setting("origin")
    number: int = setting(0, at_least=0, help="which image or sample")
    label: int | None = setting(None, at_least=0, help="class of all images; null: the image's, else drawn")


@dataclass(frozen=True, kw_only=True)
class DenoiseConfig(OnCheckpointConfig):
    """`genlab denoise`."""

    noise: Literal["gaussian", "masking", "salt_and_pepper", "none"] | None = setting(
        None, help="null: what the model was trained with, else gaussian; none: it is there already"
    )
    level: float | None = setting(
        None, at_least=0, help="standard deviation, or share of pixels; null: the model's own, else 0.3"
    )
    count: int = setting(40, at_least=1, help="images of the split, where images is null")
