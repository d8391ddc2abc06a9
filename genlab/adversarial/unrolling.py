"""torch's optimizers as pure functions, so that a gradient can flow through their steps.

`torch.optim.Adam(differentiable=True)` changes its moments in place, which a graph of several steps does not
survive; here every step gives new tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genlab.config.run import AdamConfig, AdamWConfig, RMSpropConfig, SGDConfig

Tensors = dict[str, Tensor]
"""One tensor for each parameter, by its name."""

Moments = dict[str, Tensors]
"""The state of an optimizer, by torch's name for it; `step` is a scalar under the name ''."""

_TINY = 1e-30  # the root of a second moment that is 0 has no gradient; too small to change any other


@dataclass(frozen=True)
class InnerOptimizer:
    """One step of the optimizer that `settings` describe, as a pure function.

    Args:
        settings: of the player, as in `genlab.config.run.player_settings`; its rate is not used.
        decayed: names of the parameters that weight decay shrinks; see `genlab.nets.decay`.
    """

    settings: AdamConfig | RMSpropConfig | SGDConfig
    decayed: tuple[str, ...]

    def fresh(self, parameters: Tensors) -> Moments:
        """Returns the moments of an optimizer that has taken no step."""
        zeros = {name: torch.zeros_like(p) for name, p in parameters.items()}
        device = next(iter(parameters.values())).device
        step = {"": torch.zeros((), device=device)}
        match self.settings:
            case AdamConfig():
                return {"step": step, "exp_avg": zeros, "exp_avg_sq": dict(zeros)}
            case RMSpropConfig():
                return {"step": step, "square_avg": zeros, "momentum_buffer": dict(zeros)}
            case SGDConfig():
                return {"step": step, "momentum_buffer": zeros}

    def live(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> Moments:
        """Returns copies of the moments that torch's optimizer of the module's parameters has at present."""
        parameters = {name: p.detach() for name, p in module.named_parameters()}
        moments = self.fresh(parameters)
        for name, parameter in module.named_parameters():
            state: Mapping[str, Any] = optimizer.state.get(parameter, {})
            for kind, values in moments.items():
                value = state.get(kind)
                if isinstance(value, Tensor):
                    values["" if kind == "step" else name] = value.detach().clone()
            if isinstance(self.settings, SGDConfig) and state.get("momentum_buffer") is not None:
                moments["step"][""] = torch.ones_like(moments["step"][""])  # its count only matters at 0
        return moments

    def step(
        self, parameters: Tensors, gradients: Tensors, moments: Moments, lr: Tensor
    ) -> tuple[Tensors, Moments]:
        """Parameters and moments after one step.

        Args:
            parameters, gradients: by name.
            moments: as `fresh`, `live` or a step before gave them.
            lr: learning rate, a scalar.
        """
        gradients = self._clipped(gradients)
        decay = self.settings.weight_decay
        if decay > 0 and not isinstance(self.settings, AdamWConfig):
            shrunk = {name: gradients[name] + decay * parameters[name] for name in self.decayed}
            gradients = gradients | shrunk
        count = moments["step"][""] + 1
        match self.settings:
            case AdamConfig() as settings:
                changes, after = _adam(settings, gradients, moments, count)
            case RMSpropConfig() as settings:
                changes, after = _rmsprop(settings, gradients, moments)
            case SGDConfig() as settings:
                changes, after = _sgd(settings, gradients, moments)
        if isinstance(self.settings, AdamWConfig):
            shrunk = {name: parameters[name] * (1 - lr * decay) for name in self.decayed}
            parameters = parameters | shrunk
        moved = {name: p - lr * changes[name] for name, p in parameters.items()}
        return moved, {"step": {"": count}, **after}

    def _clipped(self, gradients: Tensors) -> Tensors:
        largest = self.settings.clip_grad_norm
        if largest == 0:
            return gradients
        norm = (sum(g.square().sum() for g in gradients.values()) + _TINY) ** 0.5
        factor = (largest / (norm + 1e-6)).clamp(max=1)  # as torch.nn.utils.clip_grad_norm_
        return {name: g * factor for name, g in gradients.items()}


def _adam(
    settings: AdamConfig, gradients: Tensors, moments: Moments, count: Tensor
) -> tuple[Tensors, Moments]:
    """Returns changes and moments of Adam (Kingma and Ba 2015, Algorithm 1)."""
    beta1, beta2 = settings.betas[0], settings.betas[1]
    first = {k: beta1 * m + (1 - beta1) * gradients[k] for k, m in moments["exp_avg"].items()}
    second = {k: beta2 * v + (1 - beta2) * gradients[k].square() for k, v in moments["exp_avg_sq"].items()}
    bias1, bias2 = _one_less_power(beta1, count), _one_less_power(beta2, count)
    changes = {k: first[k] / bias1 / ((second[k] / bias2 + _TINY).sqrt() + settings.eps) for k in first}
    return changes, {"exp_avg": first, "exp_avg_sq": second}


def _one_less_power(beta: float, count: Tensor) -> Tensor:
    """Returns 1 - beta^count, without the cancellation that leaves float32 four digits of it."""
    return -torch.expm1(count * math.log(beta)) if beta > 0 else torch.ones_like(count)


def _rmsprop(settings: RMSpropConfig, gradients: Tensors, moments: Moments) -> tuple[Tensors, Moments]:
    """Returns changes and moments of RMSprop (Tieleman and Hinton 2012), with torch's momentum."""
    alpha = settings.alpha
    square = {k: alpha * v + (1 - alpha) * gradients[k].square() for k, v in moments["square_avg"].items()}
    changes = {k: gradients[k] / ((square[k] + _TINY).sqrt() + settings.eps) for k in square}
    if settings.momentum == 0:
        return changes, {"square_avg": square, "momentum_buffer": moments["momentum_buffer"]}
    buffer = {k: settings.momentum * b + changes[k] for k, b in moments["momentum_buffer"].items()}
    return buffer, {"square_avg": square, "momentum_buffer": buffer}


def _sgd(settings: SGDConfig, gradients: Tensors, moments: Moments) -> tuple[Tensors, Moments]:
    """Returns changes and moments of momentum, Polyak's or Nesterov's (Sutskever et al. 2013)."""
    momentum = settings.momentum
    if momentum == 0:
        return gradients, {"momentum_buffer": moments["momentum_buffer"]}
    buffer = {k: momentum * b + gradients[k] for k, b in moments["momentum_buffer"].items()}
    if not settings.nesterov:
        return buffer, {"momentum_buffer": buffer}
    return {k: gradients[k] + momentum * buffer[k] for k in buffer}, {"momentum_buffer": buffer}
