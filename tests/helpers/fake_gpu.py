"""A GPU that is not there, for machines without one: what makes the host wait for it, and CUDA graphs.

`FakeGpu` stands for a GPU by torch's device "meta", whose tensors have shapes and no values. So it finds
whatever reads a value of the device, and tensors that stayed behind on the CPU. `recorded_graphs` leaves
tensors on the CPU, and has in place of CUDA graphs what records operations and repeats them. Neither knows
anything of a GPU's kernels, their numbers, its memory and its streams.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
from collections.abc import Iterator
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from genlab.nets import scanning

FAKE = torch.device("meta")

aten = torch.ops.aten
_COPIES = {aten._to_copy.default, aten.copy_.default}
_VALUES_READ = {aten._local_scalar_dense.default, aten.nonzero.default, aten.lift_fresh.default}

T = TypeVar("T")


class HostWaitsError(AssertionError):
    """The host would wait until the device has done all work before."""


class FakeGpu(TorchDispatchMode):
    """A context for a step whose tensors are on the fake GPU; see `on_fake`.

    Raises:
        HostWaitsError: a tensor is copied between CPU and GPU.
        RuntimeError, NotImplementedError: the host reads a value of the GPU, or an operation has tensors of
            both.
    """

    def __enter__(self) -> FakeGpu:
        self._patch = pytest.MonkeyPatch()
        optimizers = importlib.import_module("torch.optim.optimizer")  # as a name torch.optim hides it
        self._patch.setattr(optimizers, "_get_fused_kernels_supported_devices", lambda: ["meta"])
        self._patch.setattr(torch, "autocast", _autocast)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patch.undo()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten._fused_sgd_.default:  # has no implementation for shapes alone, and nothing to give
            return None
        out = func(*args, **(kwargs or {}))
        if func in _COPIES:
            devices = {x.device.type for x in (*args[:2], out) if isinstance(x, Tensor)}
            if len(devices) > 1:
                raise HostWaitsError(f"{func} of {tuple(out.shape)} between {' and '.join(sorted(devices))}")
        return out


_real_autocast = torch.autocast


def _autocast(device_type: str, *arguments: Any, **settings: Any) -> torch.autocast:
    return _real_autocast("cpu" if device_type == "meta" else device_type, *arguments, **settings)


def on_fake(value: T) -> T:
    """Returns a copy of a module, or of nested tensors, on the fake GPU."""
    if isinstance(value, nn.Module):
        return copy.deepcopy(value).to(FAKE)
    return tree_map(lambda x: x.to(FAKE) if isinstance(x, Tensor) else x, value)


class RecordedGraph(TorchDispatchMode):
    """In place of torch.cuda.CUDAGraph: operations on tensors of the CPU, recorded in it as in a context.

    As in a capture nothing has happened afterwards: what was written is as before, and what was made is NaN
    until the graph is replayed.
    """

    replays = 0
    """Of all graphs since `recorded_graphs` began."""
    captures = 0
    """The number of graphs since then."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, Any]] = []
        self._before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _VALUES_READ:
            raise HostWaitsError(f"{func} within a graph")
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info and argument.alias_info.is_write:
                self._before += [(x, x.clone()) for x in tree_leaves(value) if isinstance(x, Tensor)]
        out = func(*args, **kwargs)
        if not func.is_view:  # a view needs no repetition: its memory stays
            self._calls.append((func, args, kwargs, None if func._schema.is_mutable else out))
        return out

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        RecordedGraph.captures += 1
        for tensor, before in reversed(self._before):
            tensor.copy_(before)
        self._before = []
        for _, _, _, made in self._calls:
            for tensor in tree_leaves(made):
                if isinstance(tensor, Tensor) and tensor.is_floating_point():
                    tensor.fill_(torch.nan)

    def replay(self) -> None:
        for func, args, kwargs, made in self._calls:
            again = func(*args, **kwargs)
            if made is not None:
                for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor):
                        old.copy_(new)
        RecordedGraph.replays += 1


@contextlib.contextmanager
def recorded_graphs() -> Iterator[None]:
    """Within it a `Scanner` with `graph=True` works on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordedGraph, "replays", 0)
        patch.setattr(RecordedGraph, "captures", 0)
        patch.setattr(torch.cuda, "CUDAGraph", RecordedGraph)
        patch.setattr(scanning, "capture", lambda graph, device: graph)
        yield
