"""What a checkpoint says, compared with its own configuration and the model that it describes.

A checksum says that a file is as it was written; anyone can write one. So the outline of a file is compared
first, before a tensor is read: its configuration passes the check of every configuration, a model is built
which may be no larger than the weights in the file, and all shapes, types and counts must be those of this
model and of its optimizers. Then the numbers themselves are looked at.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from genlab import registry
from genlab.config.run import (
    AdamConfig,
    AdamWConfig,
    OptimizerConfig,
    RMSpropConfig,
    SGDConfig,
    TrainConfig,
    player_settings,
)
from genlab.config.schema import from_plain
from genlab.data.spec import DataSpec
from genlab.errors import CheckpointError, UserError
from genlab.families.base import Family
from genlab.nets.decay import decay_groups, in_groups
from genlab.runs import checkpoint
from genlab.tensor_files import TensorOutline

MOST_NUMBERS_OF_AN_IMAGE = 10_000_000
MOST_COUNTED = 2**53
"""Largest count of a checkpoint: a float holds every whole number up to it."""

_MOST_RANDOM_BYTES = 2**16
_LONGEST_NAME = 200
_FLAGS = {"amsgrad", "centered", "maximize", "capturable", "differentiable", "foreach", "fused"}
"""Settings of torch's optimizers that no configuration of ours turns on, and whether they use one kernel."""


class ContentError(Exception):
    """What is wrong with the content of a checkpoint; the message begins with its place."""


@dataclass(frozen=True)
class Content:
    """A checkpoint whose content has been checked.

    Attributes:
        path: the file.
        state: all that it holds, on the CPU.
        config, spec: what it says of its run.
        family: the model, with the weights in it; not those of the moving average.
    """

    path: Path
    state: dict[str, Any]
    config: TrainConfig
    spec: DataSpec
    family: Family


def read(path: Path, *, resuming: bool = False) -> Content:
    """Reads a checkpoint and checks its content, for `genlab.runs.checkpoint.find`.

    Args:
        resuming: the numbers of the optimizers are looked at too.

    Raises:
        CheckpointError: missing, damaged, or with content that is not that of a run; one line says what.
    """
    described: list[tuple[TrainConfig, DataSpec, Family]] = []
    try:
        state = checkpoint.load(path, lambda outline: described.append(_described(path, outline)))
        config, spec, family = described[0]
        _check_numbers(state, family)
        if resuming:
            _check_moments(state["optimizers"])
    except ContentError as error:
        raise CheckpointError(f"ckpt={path}: {error}; use another checkpoint of the run") from error
    return Content(path, state, config, spec, family)


def read_to_resume(path: Path) -> Content:
    """Reads a checkpoint from which a run goes on; see `read`."""
    return read(path, resuming=True)


def _described(path: Path, outline: dict[str, Any]) -> tuple[TrainConfig, DataSpec, Family]:
    """Checks the outline of a checkpoint, and returns what it describes."""
    config = _config_of(path, outline["config"])
    _check_counts(outline, config)
    try:
        spec = from_plain(DataSpec, outline["spec"], "spec")
    except UserError as error:
        raise ContentError(str(error)) from error
    if spec.dimensions > MOST_NUMBERS_OF_AN_IMAGE:
        raise ContentError(f"spec: an image of {spec.channels}x{spec.height}x{spec.width} is too large")
    for name in (spec.name, *spec.factors):  # they are shown, and are part of names of files
        if not name.isprintable() or len(name) > _LONGEST_NAME or "/" in name or "\\" in name:
            raise ContentError(f"spec: {_shown(name)} is no name of a dataset or of a factor")
    family = _built(config, spec, _tensors_of("weights", outline["weights"]))
    _check_weights("weights", outline["weights"], family)
    averages = _mapping("averages", outline["averages"])
    if averages and averages.keys() != set(family.sampled_by):
        raise ContentError("averages: not of the players that are averaged")
    for player, average in averages.items():
        place = f"averages.{player}"
        if _mapping(place, average).keys() != {"updates", "weights"}:
            raise ContentError(f"{place}: expected updates and weights")
        _check_count(f"{place}.updates", average["updates"])
        _check_weights(f"{place}.weights", average["weights"], family.get_submodule(player))
    _check_optimizers(outline["optimizers"], config.optimizer, family)
    _check_random(outline["random"])
    return config, spec, family


def _config_of(path: Path, plain: Any) -> TrainConfig:
    if not isinstance(plain, Mapping):
        raise ContentError("config: expected groups of settings")
    for key in ("model", "dataset"):
        registry.check_known(key, plain.get(key), path)
    try:
        return registry.train_config(plain)
    except UserError as error:
        raise ContentError(f"its configuration is wrong: {error}") from error


def _check_counts(state: Mapping[str, Any], config: TrainConfig) -> None:
    for name in ("step", "images", "batches", "metrics_bytes"):
        _check_count(name, state.get(name))
    seconds = state.get("seconds")
    if not _is_number(seconds):
        raise ContentError(f"seconds={_shown(seconds)}: expected a number, at least 0")
    if state["step"] > config.trainer.steps:
        raise ContentError(f"step={state['step']}: the run has {config.trainer.steps} steps")
    if state["images"] != state["batches"] * config.trainer.batch_size:
        raise ContentError(
            f"images={state['images']}: not {state['batches']} batches of {config.trainer.batch_size}"
        )
    others = state.get("windows_of_others", [])
    if not isinstance(others, list):
        raise ContentError("windows_of_others: expected the metrics of each process but the first")
    for window in (state.get("window"), *others):
        for name, outline in _tensors_of("window", window).items():
            if len(outline.shape) != 1 or outline.shape[0] > max(1, state["step"]):
                raise ContentError(f"window.{name}: expected a number for each step")


def _check_count(name: str, value: Any) -> None:
    if type(value) is not int or not 0 <= value <= MOST_COUNTED:
        raise ContentError(f"{name}={_shown(value)}: expected a whole number, at least 0")


def _check_random(states: Any) -> None:
    if type(states) is not list or not states:
        raise ContentError("random: expected the state of each process")
    for k, state in enumerate(states):
        tensors = _tensors_of(f"random[{k}]", state)
        if "cpu" not in tensors or not tensors.keys() <= {"cpu", "cuda", "mps"}:
            raise ContentError(f"random[{k}]: expected the state of cpu, and perhaps of cuda or mps")
        for name, outline in tensors.items():
            if (
                outline.dtype != torch.uint8
                or len(outline.shape) != 1
                or outline.shape[0] > _MOST_RANDOM_BYTES
            ):
                raise ContentError(f"random[{k}].{name}: expected the bytes of a generator's state")


def _built(config: TrainConfig, spec: DataSpec, weights: Mapping[str, TensorOutline]) -> Family:
    """Builds the model, which may be little larger than the weights in the file."""
    numbers = sum(math.prod(outline.shape) for outline in weights.values())
    try:
        with _no_larger_than(4 * numbers + 1_000_000, 4 * len(weights) + 1000):
            return registry.family(config.model, spec)
    except ContentError:
        raise
    except UserError as error:
        raise ContentError(f"its configuration is wrong: {error}") from error
    except Exception as error:  # a family is built from settings and a spec that may not fit together
        reason = " ".join(str(error).split())[:120]
        raise ContentError(f"its configuration makes no model ({type(error).__name__}: {reason})") from error


@contextlib.contextmanager
def _no_larger_than(numbers: int, tensors: int) -> Iterator[None]:
    """Stops the building of a model as soon as it has more weights than expected, before they are drawn.

    Args:
        numbers, tensors: how many weights and constants it may have at most; older runs have fewer than the
            present model, and a network may be replaced while it is built.
    """
    left, thread = [numbers, tensors], threading.get_ident()

    def count(_: nn.Module, __: str, value: Tensor | None) -> None:
        if value is None or threading.get_ident() != thread:
            return
        left[0] -= value.numel()
        left[1] -= 1
        if min(left) < 0:
            raise ContentError("its configuration makes a larger model than its weights are of")

    registered = (
        hooks.register_module_parameter_registration_hook(count),
        hooks.register_module_buffer_registration_hook(count),
    )
    try:
        yield
    finally:
        for each in registered:
            each.remove()


def _check_weights(place: str, given: Any, module: nn.Module) -> None:
    """Refuses weights of another shape or type than those of a module; `load_state_dict` compares names."""
    expected = module.state_dict()
    for name, outline in _tensors_of(place, given).items():
        if name not in expected:
            continue
        shape, dtype = tuple(expected[name].shape), expected[name].dtype
        if outline.shape != shape or outline.dtype != dtype:
            raise ContentError(
                f"its weights do not fit its configuration ({place}.{name}: {_kind(outline.dtype)} of shape "
                f"{outline.shape}, expected {_kind(dtype)} of {shape})"
            )


def _check_optimizers(given: Any, config: OptimizerConfig, family: Family) -> None:
    if _mapping("optimizers", given).keys() != set(family.players):
        raise ContentError("optimizers: not those of the players of the model")
    for player in family.players:
        place, module = f"optimizers.{player}", family.get_submodule(player)
        try:
            settings = player_settings(config, player)
        except UserError as error:
            raise ContentError(f"its configuration is wrong: {error}") from error
        saved = _mapping(place, given[player])
        if saved.keys() != {"state", "param_groups"} or type(saved["param_groups"]) is not list:
            raise ContentError(f"{place}: expected state and param_groups")
        state, groups = _mapping(f"{place}.state", saved["state"]), saved["param_groups"]
        parameters = [each for group in decay_groups(module) for each in group["params"]]
        decayed = len(decay_groups(module)[0]["params"])
        count = len(parameters)
        if len(groups) == 1:  # as runs had them before; see `in_groups`
            named = groups[0].get("params") if isinstance(groups[0], dict) else None
            count = len(named) if isinstance(named, list) else 0
            expected = [list(range(min(count, len(parameters))))]
        else:
            expected = [list(range(decayed)), list(range(decayed, len(parameters)))]
        if len(groups) != len(expected):
            raise ContentError(f"{place}.param_groups: expected {len(expected)}")
        for k, (group, indices) in enumerate(zip(groups, expected, strict=True)):
            decay = settings.weight_decay if k == 0 else 0.0
            _check_group(f"{place}.param_groups[{k}]", group, indices, settings, decay)
        if not all(type(index) is int and 0 <= index < count for index in state):
            raise ContentError(f"{place}.state: not of the weights of {player}")
        for index, moments in in_groups(dict(saved), module)["state"].items():
            _check_state(f"{place}.state[{index}]", moments, parameters[index], settings)


def _check_group(place: str, group: Any, indices: list[int], settings: OptimizerConfig, decay: float) -> None:
    """Refuses settings of a group of weights that are not those of the configuration; the rate may be."""
    found = _mapping(place, group)
    wanted: dict[str, Any] = {"params": indices, "weight_decay": decay}
    match settings:
        case AdamConfig():
            wanted |= {"betas": settings.betas, "eps": settings.eps, "amsgrad": False}
        case RMSpropConfig():
            wanted |= {"alpha": settings.alpha, "eps": settings.eps, "momentum": settings.momentum}
            wanted |= {"centered": False}
        case SGDConfig():
            wanted |= {"momentum": settings.momentum, "nesterov": settings.nesterov, "dampening": 0}
    for name, value in wanted.items():
        given = found.get(name)
        if _kinds_of(given) != _kinds_of(value) or given != value:
            raise ContentError(f"{place}.{name}: not that of the configuration")
    for name, value in found.items():
        if name in _FLAGS and not (type(value) in (bool, type(None)) and (name == "fused" or not value)):
            raise ContentError(f"{place}.{name}={_shown(value)}: expected false")
        if name not in wanted and type(value) not in (bool, int, float, type(None)):
            raise ContentError(f"{place}.{name}: expected a number")
    rate = found.get("lr")
    if not _is_number(rate):
        raise ContentError(f"{place}.lr={_shown(rate)}: expected a number, at least 0")
    if found.get("decoupled_weight_decay", decoupled := isinstance(settings, AdamWConfig)) is not decoupled:
        raise ContentError(f"{place}.decoupled_weight_decay: not that of the configuration")


def _kinds_of(value: Any) -> Any:
    """Returns what numbers a value is made of: a whole one may stand for a float, true for neither."""
    if isinstance(value, list | tuple):
        return [_kinds_of(each) for each in value[:10_000]]
    return float if type(value) is int else type(value)


def _check_state(place: str, moments: Any, weight: Tensor, settings: OptimizerConfig) -> None:
    """Refuses moments of a weight that its optimizer would not have."""
    found = _mapping(place, moments)
    names, optional = set(), set()
    match settings:
        case AdamConfig():
            names = {"step", "exp_avg", "exp_avg_sq"}
        case RMSpropConfig():
            names = {"step", "square_avg"} | ({"momentum_buffer"} if settings.momentum > 0 else set())
        case SGDConfig():
            optional = {"momentum_buffer"}
    if found and not names <= found.keys() <= names | optional:
        raise ContentError(f"{place}: expected {', '.join(sorted(names | optional))}")
    for name, value in found.items():
        if name == "momentum_buffer" and value is None:
            continue
        shape = () if name == "step" else tuple(weight.shape)
        dtype = torch.float32 if name == "step" else weight.dtype
        if not isinstance(value, TensorOutline) or value.shape != shape or value.dtype != dtype:
            raise ContentError(f"{place}.{name}: expected a tensor of shape {shape}, {_kind(dtype)}")
        steps = zip(value.stride, weight.stride(), value.shape, strict=True) if name != "step" else ()
        if any(ours != theirs and length > 1 for ours, theirs, length in steps):
            raise ContentError(f"{place}.{name}: its numbers lie in another order than those of the weight")


def _check_numbers(state: Mapping[str, Any], family: Family) -> None:
    """Refuses weights that are not finite or do not fit, and puts those of the step into the model."""
    loads = [
        (f"averages.{player}.weights", family.get_submodule(player), average["weights"])
        for player, average in state["averages"].items()
    ]
    for place, module, weights in [*loads, ("weights", family, state["weights"])]:
        for name, value in weights.items():
            _check_finite(f"{place}.{name}", value)
        try:
            module.load_state_dict(weights)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise ContentError(f"its weights do not fit its configuration ({reason})") from error
    for k, states in enumerate(state["random"]):
        try:
            torch.Generator().set_state(states["cpu"])
        except RuntimeError as error:
            raise ContentError(f"random[{k}].cpu: not the state of a generator") from error


def _check_moments(optimizers: Mapping[str, Any]) -> None:
    """Refuses numbers of optimizers that are not finite, negative, or those of another weight too."""
    seen: set[int] = set()
    for player, saved in optimizers.items():
        for index, moments in saved["state"].items():
            for name, value in moments.items():
                if value is None:
                    continue
                place = f"optimizers.{player}.state[{index}].{name}"
                _check_finite(place, value)
                if name in ("step", "exp_avg_sq", "square_avg") and value.numel() and value.min() < 0:
                    raise ContentError(f"{place}: is negative")
                if value.numel() and value.data_ptr() in seen:
                    raise ContentError(f"{place}: has its numbers at the place of others")
                seen.add(value.data_ptr())


def _check_finite(place: str, value: Tensor) -> None:
    """Refuses a tensor with a number that is not finite; the sum of all is finite only if each one is."""
    if (
        not (value.is_floating_point() or value.is_complex())
        or value.sum().isfinite()
        or value.isfinite().all()
    ):
        return
    raise ContentError(f"{place}: has a number that is not finite")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def _mapping(place: str, value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise ContentError(f"{place}: expected names with values")
    return value


def _tensors_of(place: str, value: Any) -> Mapping[str, TensorOutline]:
    """Returns a dictionary whose values all are tensors."""
    for name, outline in _mapping(place, value).items():
        if type(name) is not str or not isinstance(outline, TensorOutline):
            raise ContentError(f"{place}.{_shown(name)}: expected a tensor")
    return value


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shown(value: Any) -> str:
    """Returns a value for a message, shortened; of a list or a tensor only what it is."""
    if type(value) in (str, int, float, bool, type(None)):
        return repr(value)[:60]
    return (
        "a tensor"
        if isinstance(value, TensorOutline)
        else f"a {'dict' if isinstance(value, dict) else 'list'}"
    )
