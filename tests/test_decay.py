"""What weight decay shrinks, in every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from genlab import registry
from genlab.config.run import AdamWConfig, OptimizerConfig, RMSpropConfig, SGDConfig
from genlab.data.spec import DataSpec
from genlab.families.base import Family
from genlab.nets.decay import decay_groups, decayed_names, in_groups
from genlab.training.update import make_optimizer

DIGITS = DataSpec("digits", 1, 8, 8, levels=17, classes=10)
DEQUANTIZED = DataSpec("digits", 1, 8, 8, levels=17, classes=10, dequantized=True)
NOTHING = DataSpec("none", 1, 1, 1, levels=0, kind="none")

SETTINGS: dict[str, dict[str, Any]] = {
    "gated_pixelcnn": {"class_conditional": True, "layers": 1},
    "vae": {"prior": "vampprior"},
    "iwae": {"prior": "mixture"},
    "projection_gan": {"spectral_norm": True},
    "wgan_gp": {"network": "mlp", "normalization": "layer"},
}

UNDECAYED = {
    "gated_pixelcnn": [
        "network.offset.per_pixel",
        "network.vertical.0.label.weight",
        "network.vertical.1.label.weight",
        "network.horizontal.0.label.weight",
        "network.horizontal.1.label.weight",
    ],
    "pixelcnn": ["network.offset.per_pixel"],
    "pixelsnail": ["network.offset.per_pixel"],
    "row_lstm": ["network.offset.per_pixel"],
    "pixelcnnpp": ["network.offset.per_pixel"],
    "diagonal_bilstm": ["network.offset.per_pixel"],
    "vae": ["vae.log_sigma", "vae.prior.pseudo_inputs"],
    "iwae": ["vae.log_sigma", "vae.prior.logits", "vae.prior.means", "vae.prior.log_variances"],
    "conditional_vae": ["vae.log_sigma"],
    "categorical_vae": ["vae.log_sigma"],
    "hierarchical_vae": ["vae.log_sigma"],
    "ae": [],
    "dae": [],
    "stacked_dae": ["stack.biases.0", "stack.biases.1", "stack.biases.2"],
    "classifier": [],
    "vqvae": ["vqvae.log_sigma", "vqvae.decoder.offset.value"],
    "gan": ["generator.net.norms.0.weight"],
    "acgan": ["generator.net.norms.0.weight"],
    "projection_gan": ["discriminator.embedding.weight", "generator.net.norms.0.weight"],
    "unrolled_gan": ["generator.net.norms.0.weight"],
    "wgan": ["generator.net.norms.0.weight"],
    "wgan_gp": ["critic.net.norms.0.weight", "critic.net.norms.1.weight"],
    "bilinear_game": ["x.value", "y.value"],
}
"""Of each family, what is not decayed beside biases."""


def make(name: str) -> Family:
    kind = registry.look_up(registry.FAMILIES, name, "model")
    learns_sigma = any(name.endswith("log_sigma") for name in UNDECAYED[name])
    spec = NOTHING if name == "bilinear_game" else DEQUANTIZED if learns_sigma else DIGITS
    return registry.family(kind.Config(**SETTINGS.get(name, {})), spec)


def test_the_table_has_every_family() -> None:
    assert UNDECAYED.keys() == registry.FAMILIES.keys()


@pytest.mark.parametrize("name", UNDECAYED)
def test_matrices_and_kernels_are_decayed_and_nothing_else(name: str) -> None:
    family = make(name)
    decayed = {
        f"{player}.{key}" for player in family.players for key in decayed_names(family.get_submodule(player))
    }
    weights = dict(family.named_parameters())
    rest = weights.keys() - decayed
    assert {key for key in rest if not key.endswith("bias")} == set(UNDECAYED[name])
    for key in decayed:
        assert weights[key].ndim >= 2
        assert key.rpartition(".")[2] in ("weight", "state_to_state")


@pytest.mark.parametrize("name", UNDECAYED)
def test_a_step_without_a_gradient_shrinks_what_is_decayed(name: str) -> None:
    family, settings = make(name), SGDConfig(lr=0.1, momentum=0.0, weight_decay=0.5)
    for player in family.players:
        module = family.get_submodule(player)
        optimizer = make_optimizer(settings, decay_groups(module))
        before = {key: p.detach().clone() for key, p in module.named_parameters()}
        for parameter in module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        for key, parameter in module.named_parameters():
            expected = before[key] * 0.95 if key in decayed_names(module) else before[key]
            torch.testing.assert_close(parameter.detach(), expected)


def test_weights_that_two_modules_share_are_decayed_as_neither_forbids() -> None:
    """An embedding that is the matrix of the last layer too is a place, wherever it is named first."""
    net = nn.Module()
    net.out, net.embedding = nn.Linear(3, 5), nn.Embedding(5, 3)
    net.embedding.weight = net.out.weight
    assert decayed_names(net) == ()


@pytest.mark.parametrize("settings", [AdamWConfig(), SGDConfig(weight_decay=0.1), RMSpropConfig()])
def test_a_state_of_one_group_is_put_in_two(settings: OptimizerConfig) -> None:
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4), nn.Linear(4, 2))
    old = make_optimizer(settings, list(net.parameters()))
    net(torch.randn(8, 3)).square().sum().backward()
    old.step()
    new = make_optimizer(settings, decay_groups(net))
    new.load_state_dict(in_groups(old.state_dict(), net))
    for parameter in net.parameters():
        for kind, value in old.state[parameter].items():
            assert torch.equal(new.state[parameter][kind], value) if torch.is_tensor(value) else value is None
    assert [len(group["params"]) for group in new.param_groups] == [2, 4]
    assert [group["weight_decay"] for group in new.param_groups] == [settings.weight_decay, 0]
    again = new.state_dict()
    assert in_groups(again, net) is again
