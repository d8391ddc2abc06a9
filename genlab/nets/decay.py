"""Which weights weight decay shrinks: matrices and kernels, and nothing else."""

from __future__ import annotations

from typing import Any

from torch import nn

from genlab.distributions.priors import Prior
from genlab.nets.start import Offset, PixelOffset

_NEVER_DECAYED = (
    nn.modules.batchnorm._NormBase,  # batch and instance normalisation
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.Embedding,
    nn.EmbeddingBag,
    Offset,  # a bias for each pixel
    PixelOffset,  # likewise
    Prior,  # means of a mixture, pseudo-inputs: they are places, and 0 is not where they belong
)
"""Modules whose own parameters are not shrunk, whatever their shape."""


def decayed_names(module: nn.Module) -> tuple[str, ...]:
    """Returns the names of the parameters that weight decay shrinks.

    Those of two dimensions or more: matrices of linear and recurrent layers, kernels of convolutions. Not
    biases, gains of normalisations, or scalars such as a learned log standard deviation, for which 0 is no
    better a value than another; nor embeddings and parameters of a prior, which are places, not maps.
    """
    never = {
        id(parameter)
        for owner in module.modules()
        if isinstance(owner, _NEVER_DECAYED)
        for parameter in owner.parameters(recurse=False)
    }
    return tuple(name for name, p in module.named_parameters() if p.ndim >= 2 and id(p) not in never)


def decay_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Returns a module's parameters in torch's two groups: with the optimizer's weight decay, and without."""
    decayed = decayed_names(module)
    parameters = dict(module.named_parameters())
    return [
        {"params": [p for name, p in parameters.items() if name in decayed]},
        {"params": [p for name, p in parameters.items() if name not in decayed], "weight_decay": 0.0},
    ]


def in_groups(saved: dict[str, Any], module: nn.Module) -> dict[str, Any]:
    """Returns the state of a module's optimizer in the groups of `decay_groups`.

    Args:
        saved: from `state_dict` of an optimizer with these groups, which stays as it is, or of one whose only
            group has all parameters in the module's order, as runs had them before.
    """
    if len(saved["param_groups"]) != 1:
        return saved
    decayed = decayed_names(module)
    names = [name for name, _ in module.named_parameters()]
    order = sorted(range(len(names)), key=lambda i: names[i] not in decayed)  # keeps the order within a group
    count, group = len(decayed), saved["param_groups"][0]
    return {
        "state": {new: saved["state"][old] for new, old in enumerate(order) if old in saved["state"]},
        "param_groups": [
            group | {"params": list(range(count))},
            group | {"params": list(range(count, len(order))), "weight_decay": 0.0},
        ],
    }
