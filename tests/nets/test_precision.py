"""Under bf16 the last layer before a likelihood computes in float32, and those before it in bf16."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab import registry
from genlab.data.spec import DataSpec
from genlab.families.autoregressive import Autoregressive
from genlab.families.latent_variable import LatentVariableModel
from genlab.families.vqvae import VQVAE
from genlab.nets.causal import Ordered
from genlab.nets.precision import in_float32

SPEC = DataSpec("small", 3, 16, 16, levels=256)
MODELS: dict[str, dict[str, Any]] = {
    "vae mlp": {"network": "mlp", "hidden": (8,)},
    "vae conv": {"network": "conv", "width": 4},
    "vae resnet": {"network": "resnet", "width": 8, "hidden": (8,)},
    "hierarchical_vae mlp": {"network": "mlp", "latents": (4, 2), "hidden": (8, 8)},
    "hierarchical_vae conv": {"network": "conv", "width": 4, "latents": (4, 2), "hidden": (8, 8)},
    "vqvae": {"width": 8, "codes": 8, "code_dimensions": 4},
    "gated_pixelcnn": {"width": 12, "layers": 1, "head": 12},
    "pixelcnn": {"width": 12, "layers": 1, "head": 12},
    "row_lstm": {"width": 12, "layers": 1, "head": 12},
    "diagonal_bilstm": {"width": 12, "layers": 1, "head": 12},
    "pixelcnnpp": {"width": 8, "blocks": 1, "stages": 2, "head": 8},
    "pixelsnail": {
        "width": 12,
        "blocks": 1,
        "residuals": 1,
        "heads": 1,
        "key_width": 4,
        "value_width": 4,
        "head": 6,
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_the_last_layer_is_in_float32(name: str) -> None:
    kind = registry.look_up(registry.FAMILIES, name.split()[0], "model")
    family = registry.family(kind.Config(**MODELS[name]), SPEC)
    results: list[torch.dtype] = []
    for module in family.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | Ordered):
            module.register_forward_hook(lambda layer, inputs, result: results.append(result.dtype))
    images = (torch.rand(2, *SPEC.shape) * 255).round() / 255
    with torch.autocast("cpu", torch.bfloat16):
        match family:
            case LatentVariableModel():
                family.infer(images, torch.randn(2, family.config.latent))
            case VQVAE():
                family.vqvae(images)
            case Autoregressive():
                family.network(images)
    assert results[-1] == torch.float32
    assert torch.bfloat16 in results[:-1]


def test_it_is_the_layer_s_own_result() -> None:
    layer, x = nn.Linear(4, 3), torch.randn(5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        exact: Tensor = in_float32(layer, x)
        assert not torch.equal(layer(x).float(), exact)
    assert torch.equal(exact, layer(x))
