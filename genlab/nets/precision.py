"""Layers that stay in full precision under autocast."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """Returns a layer's output for x, in float32 (or more) under bf16 autocast too.

    For the last layer before a likelihood: bf16 has three digits, too few for logits and scales.
    """
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.to(torch.promote_types(x.dtype, torch.float32)))
