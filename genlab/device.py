"""The device of a run: precision, seeds, determinism, and the processes of a distributed group."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.overrides import TorchFunctionMode

from genlab.errors import ConfigError, Interrupted, TooLargeError
from genlab.memory import check_fits, memory_errors
from genlab.rng import derive_seed

M = TypeVar("M", bound=torch.nn.Module)


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


def select(name: str, key: str = "trainer.device") -> torch.device:
    """Returns the device that a name stands for, and makes it the current one of its kind.

    Much of torch works on the current GPU unless told otherwise, e.g. streams and a search for kernels.

    Raises:
        ConfigError: see `resolve`.
    """
    device = resolve(name, key)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def set_determinism(deterministic: bool) -> None:
    """Forbids, or allows again, operations whose result may differ from run to run."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs it to be deterministic
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic


@contextlib.contextmanager
def any_shapes() -> Iterator[None]:
    """Leaves out cuDNN's search for the fastest kernels, which it repeats for each new shape of a batch.

    It pays where a shape comes back in every step. Evaluation and sampling have batches of several sizes.
    """
    searches = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = searches


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Returns a context that computes in bf16, which needs no loss scaling: it has the range of fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)


@contextlib.contextmanager
def capture(graph: torch.cuda.CUDAGraph, device: torch.device) -> Iterator[None]:
    """Records the work on a GPU as a graph in place of doing it.

    Other threads may meanwhile do what would spoil a recording of the whole process, as a loader's thread
    that pins memory does.
    """
    current = device.index == torch.cuda.current_device()
    with (
        contextlib.nullcontext() if current else torch.cuda.device(device),
        torch.cuda.graph(graph, stream=_capture_stream(device), capture_error_mode="thread_local"),
    ):
        yield


@functools.cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream | None:
    """Returns the stream on which graphs of a GPU are recorded, None for torch's own.

    Torch's own belongs to the GPU of the first recording, whatever the GPU of a later one: here it is left to
    the GPU cuda:0.
    """
    return None if device.index == 0 else torch.cuda.Stream(device)


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


def memory_of(device: torch.device) -> int | None:
    """Returns the bytes of a GPU's memory; None for a device that uses the machine's."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


@contextlib.contextmanager
def counted_weights(given: str, remedy: str, copies: int, memory: int | None) -> Iterator[Callable[[M], M]]:
    """Refuses a model whose weights do not fit, at the first tensor with which they do not.

    Args:
        given, remedy: see `genlab.memory.check_fits`.
        copies: how many numbers are kept for each weight.
        memory: bytes of the device on which the model is used; None for the machine's.

    Yields:
        a function that counts the weights of the finished model exactly, and returns the model.

    Raises:
        TooLargeError: they do not fit.
    """

    what = "the model's weights" + (", with gradients and averages," if copies > 1 else "")

    def check(weights: float, others: float) -> None:
        check_fits(weights * copies + others, given, what, remedy, memory)
        if memory is not None:  # it is built in the machine's memory
            check_fits(weights + others, given, "the model's weights", remedy)

    def count(model: M) -> M:
        weights, others = (
            sum(each.numel() * each.element_size() for each in tensors)
            for tensors in (model.parameters(), model.buffers())
        )
        check(weights, others)
        return model

    try:
        with memory_errors(given, remedy), _Sizes(check):
            yield count
    except TypeError as error:  # what torch raises for sizes above 64 bits
        if "Overflow" not in str(error):
            raise
        raise TooLargeError(f"{given}: a size above 64 bits; {remedy}") from error


class _Sizes(TorchFunctionMode):
    """Checks the memory of new tensors before each is made.

    Args:
        check: a function of the bytes of weights so far, which torch's layers make by `torch.empty`, and of
            one other tensor: others may be intermediate results, so they are not added up.
    """

    _OTHERS: ClassVar = {torch.zeros, torch.ones, torch.rand, torch.randn}

    def __init__(self, check: Callable[[float, float], None]) -> None:
        super().__init__()
        self._check, self._weights = check, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty or func in self._OTHERS:
            sizes = kwargs.get("size", args)
            sizes = sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
            size = math.prod(sizes) * (kwargs.get("dtype") or torch.get_default_dtype()).itemsize
            self._weights += size if func is torch.empty else 0
            self._check(self._weights, 0 if func is torch.empty else size)
        return func(*args, **kwargs)


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
    """Joins the group that torchrun started, if any, and leaves it at the end.

    Each process of a group on GPUs takes the GPU of its number. Tensors are exchanged by NCCL, and what the
    processes tell each other, small values of the host, by gloo, so that it does not wait for a GPU.

    Raises:
        ConfigError: the device does not exist, or this process has none.
        Interrupted: another process of the group has ended.
    """
    world = _processes_started()
    if world == 1:
        yield Processes(0, 1, select(device_name))
        return
    device = resolve(device_name)
    if device.type == "cuda":
        device = _own_gpu(device)
        torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    rank = dist.get_rank()
    try:
        yield Processes(rank, world, device)
    except RuntimeError as error:
        if not _LOST_PROCESS.search(str(error)):
            raise
        raise Interrupted(
            f"process {rank} stopped: another one of the group has ended; see its line"
        ) from error
    finally:
        dist.destroy_process_group()


_LOST_PROCESS = re.compile(r"reset by peer|closed by peer|broken pipe|remote process exited", re.IGNORECASE)
"""The words of gloo and NCCL for a connection whose other end is gone."""


def _processes_started() -> int:
    """Returns how many processes torchrun started, 1 without it.

    Raises:
        ConfigError: a variable of the environment that torchrun sets is missing or wrong.
    """
    world = os.environ.get("WORLD_SIZE", "1")
    if not world.isdecimal():
        raise ConfigError(f"WORLD_SIZE={world}: not a whole number; leave it to torchrun")
    if int(world) > 1:
        for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            if name not in os.environ:
                raise ConfigError(
                    f"WORLD_SIZE={world}: {name} is not set; start several processes by torchrun, one "
                    "without WORLD_SIZE"
                )
    return int(world)


def _own_gpu(device: torch.device) -> torch.device:
    """Returns the GPU of this process of a group.

    Raises:
        ConfigError: one GPU was chosen for all processes, or this machine has fewer GPUs than processes.
    """
    if device.index is not None:
        raise ConfigError(
            f"trainer.device={device}: of several processes each takes a GPU of its own; use "
            "trainer.device=cuda, and choose GPUs by CUDA_VISIBLE_DEVICES"
        )
    number, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= gpus:
        raise ConfigError(
            f"trainer.device=cuda: process {number} of this machine, counted from 0, has no GPU, since there "
            f"{'is 1' if gpus == 1 else f'are {gpus}'}; use torchrun --nproc-per-node={gpus}"
        )
    return torch.device("cuda", number)
