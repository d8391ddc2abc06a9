"""Compiled losses that keep little for their gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def compile_recomputing(function: Callable[..., T]) -> Callable[..., T]:
    """Returns a compiled function that for its gradient computes cheap results again instead of keeping them.

    On a CPU it takes longer to store a ReLU's mask than to compare again: twice the unroll's time. torch has
    a setting for it, which it reads when a call compiles; it is changed during the calls alone.
    """
    compiled = torch.compile(function)
    try:
        from torch._functorch.config import patch  # torch does not promise to keep the name
    except ImportError:
        return compiled

    @functools.wraps(function)
    def call(*inputs: Any) -> T:
        with patch(aggressive_recomputation=True):
            return compiled(*inputs)

    return call
