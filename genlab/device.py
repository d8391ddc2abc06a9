"""The device of a run: precision, seeds, determinism, and the processes of a distributed group."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from genlab.errors import ConfigError
from genlab.rng import derive_seed


def resolve(name: str, key: str = "trainer.device") -> torch.device:
    """Returns the device that `auto`, `cpu`, `cuda`, `cuda:1` or `mps` stands for.

    Raises:
        ConfigError: the name is unknown, or this machine does not have the device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps") or (device.type != "cuda" and device.index):
        raise ConfigError(f"{key}={name}: no such device; use auto, cpu, cuda, cuda:1 or mps")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"{key}={name}: this machine has no GPU that torch can use; use {key}=cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"{key}={name}: this machine has {torch.cuda.device_count()} GPUs, counted from cuda:0"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"{key}={name}: this machine has no Apple GPU; use {key}=cpu")
    return device


def set_determinism(deterministic: bool) -> None:
    """Forbids, or allows again, operations whose result may differ from run to run."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it to be deterministic
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Returns a context that computes in bf16, which needs no loss scaling: it has the range of fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)


def seed_initialization(seed: int) -> None:
    """Seeds the initialization of the weights: the same on every process."""
    torch.manual_seed(derive_seed(seed, "initialization"))


def seed_training(seed: int, rank: int) -> None:
    """Seeds the noise drawn by training steps: different on every process."""
    torch.manual_seed(derive_seed(seed, "training", rank))


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Returns the state of torch's default generators, as tensors on the CPU."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Restores the state from `random_state`; a generator that is not in it keeps its own state."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    if device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])


NUMBERS_AT_ONCE = {"cpu": 2**19, "cuda": 2**24}
"""Size of an intermediate result that is computed in parts: 2 MiB, to fit a CPU's cache; a GPU uses more."""


def numbers_at_once(like: Tensor) -> int:
    """Returns how many numbers of an intermediate result to compute at a time, on the device of a tensor."""
    return NUMBERS_AT_ONCE.get(like.device.type, NUMBERS_AT_ONCE["cuda"])


@dataclass(frozen=True)
class Processes:
    """The group of processes that train one model together, started by torchrun; without it, a group of one.

    Attributes:
        rank: the number of this process; process 0 chooses the run folder and writes.
        world: the number of processes.
        device: the device of this process.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def mean_(self, tensors: list[Tensor]) -> None:
        """Replaces tensors by their mean over the group, with a single all-reduce."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        dist.all_reduce(flat)
        flat /= self.world
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def broadcast_(self, tensors: list[Tensor]) -> None:
        """Sends the tensors of process 0 to every process."""
        for tensor in tensors if self.world > 1 else ():
            dist.broadcast(tensor, src=0)

    def gather(self, value: Any) -> list[Any]:
        """Collects one small value from each process, in the order of their ranks."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values


def is_first() -> bool:
    """Returns whether this process is the first of the group that `processes` will join."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def processes(device_name: str) -> Iterator[Processes]:
    """Joins the group that torchrun started, if any, and leaves it at the end."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    device = resolve(device_name)
    if world == 1:
        yield Processes(0, 1, device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), world, device)
    finally:
        dist.destroy_process_group()
