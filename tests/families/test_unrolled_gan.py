"""The unrolled GAN: a gradient through the discriminator's optimizer, that leaves the discriminator alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.games import DIGITS, POINTS, batches, gradients, make, snapshot
from helpers.runs import assert_same
from torch import Tensor

from genlab.adversarial import losses
from genlab.config.run import AdamConfig, OptimizerConfig, PlayerOptimizerConfig, RMSpropConfig, SGDConfig
from genlab.data.spec import DataSpec
from genlab.errors import ConfigError
from genlab.families.unrolled_gan import UnrolledGAN, Unrolling
from genlab.training.update import Update, make_optimizer

ADAM = AdamConfig(lr=0.02, betas=(0.5, 0.999))
MOMENTUM = SGDConfig(lr=0.3, momentum=0.9)
OPTIMIZERS: dict[str, OptimizerConfig] = {
    "adam": ADAM,
    "momentum": MOMENTUM,
    "rmsprop": RMSpropConfig(lr=0.01),
    "adam, clipped, with L2": AdamConfig(lr=0.02, clip_grad_norm=0.2, weight_decay=0.1),
}


@pytest.fixture
def in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the families bring to float32 stays in float64, so that finite differences have digits."""
    to_float32 = Tensor.float

    def at_least_float32(self: Tensor) -> Tensor:
        return self if self.dtype == torch.float64 else to_float32(self)

    monkeypatch.setattr(Tensor, "float", at_least_float32)


def unrolled(spec: DataSpec = POINTS, **settings: Any) -> tuple[UnrolledGAN, Update]:
    return make("unrolled_gan", spec, **settings)


def trained(
    optimizer: OptimizerConfig = ADAM, steps: int = 3, double: bool = True, **settings: Any
) -> tuple[UnrolledGAN, Update]:
    """A family on points after a few real steps, so that its moments are not 0.

    The settings are those of the model from then on.
    """
    family, update = unrolled(optimizer=optimizer, unrolled_steps=0)
    stream = batches(n=12)
    for _ in range(steps):
        family.step(stream, update)
        update.step += 1
    family.config = replace(family.config, **settings)
    family.requires_grad_(True)
    if double:
        family.double()
        for moments in update.optimizers["discriminator"].state.values():
            for name, value in moments.items():
                if isinstance(value, Tensor) and name != "step":
                    moments[name] = value.double()
    return family, update


def shown(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Images and latents."""
    return (torch.rand(12, *POINTS.shape) * 4 - 2).to(dtype), torch.randn(12, 4).to(dtype)


class TestNoUnrolledSteps:
    def test_is_the_gan_bit_for_bit(self) -> None:
        states = []
        cases: list[tuple[str, dict[str, Any]]] = [("gan", {}), ("unrolled_gan", {"unrolled_steps": 0})]
        for name, settings in cases:
            family, update = make(name, instance_noise=0.1, discriminator_steps=2, **settings)
            stream = batches()
            for _ in range(5):
                family.step(stream, update)
                update.step += 1
            states.append([snapshot(family, update, player) for player in family.players])
        assert_same(*states)

    def test_and_one_step_is_not(self) -> None:
        weights = []
        cases: list[tuple[str, dict[str, Any]]] = [("gan", {}), ("unrolled_gan", {"unrolled_steps": 1})]
        for name, settings in cases:
            family, update = make(name, **settings)
            family.step(batches(), update)
            weights.append(family.generator.state_dict())
        assert not torch.equal(weights[0]["net.layers.0.weight"], weights[1]["net.layers.0.weight"])

    def test_its_objective_is_the_generators_loss(self) -> None:
        family, update = trained(double=False, unrolled_steps=0)
        images, latents = shown(torch.float32)
        loss, _ = family.unrolled_loss(family.start(update), images, latents)
        plain, _ = family.generator_loss(images, latents)
        assert torch.equal(loss, plain)
        assert_same(gradients(loss, family.generator), gradients(plain, family.generator))


@pytest.mark.usefixtures("in_float64")
class TestGradient:
    @pytest.mark.parametrize("moments", ["live", "fresh"])
    @pytest.mark.parametrize("unrolled_steps", [1, 3, 5])
    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_equals_finite_differences(self, name: str, unrolled_steps: int, moments: str) -> None:
        """Along random directions of the generator's weights."""
        family, update = trained(
            OPTIMIZERS[name], unrolled_steps=unrolled_steps, inner_moments=moments, inner_lr=0.01
        )
        start, (images, latents) = family.start(update), shown()
        slopes = self.slopes(family, start, images, latents)
        for slope, expected in slopes:
            assert slope == pytest.approx(expected, rel=1e-4, abs=1e-9)

    @pytest.mark.parametrize("kind", ["minimax", "least_squares", "hinge"])
    def test_of_every_loss_with_its_penalty(self, kind: str) -> None:
        family, update = trained(MOMENTUM, unrolled_steps=2, loss=kind, r1=0.3, inner_lr=0.05)
        start, (images, latents) = family.start(update), shown()
        for slope, expected in self.slopes(family, start, images, latents):
            assert slope == pytest.approx(expected, rel=1e-4, abs=1e-9)

    def slopes(
        self, family: UnrolledGAN, start: Unrolling, images: Tensor, latents: Tensor
    ) -> list[tuple[float, float]]:
        """By autograd and by central differences."""
        loss, _ = family.unrolled_loss(start, images, latents)
        gradient = gradients(loss, family.generator)
        found = []
        for seed in range(3):
            generator = torch.Generator().manual_seed(seed)
            directions = {
                name: torch.randn(g.shape, generator=generator, dtype=torch.float64)
                for name, g in gradient.items()
            }
            slope = sum((gradient[name] * d).sum().item() for name, d in directions.items())
            ends = [self.moved(family, directions, s, start, images, latents) for s in (1e-6, -1e-6)]
            found.append((slope, (ends[0] - ends[1]) / 2e-6))
        assert any(abs(slope) > 1e-3 for slope, _ in found)
        return found

    def moved(
        self, family: UnrolledGAN, directions: dict[str, Tensor], by: float, start: Unrolling, *inputs: Tensor
    ) -> float:
        with torch.no_grad():
            for name, parameter in family.generator.named_parameters():
                parameter.add_(by * directions[name])
        value = family.unrolled_loss(start, *inputs)[0].item()
        with torch.no_grad():
            for name, parameter in family.generator.named_parameters():
                parameter.sub_(by * directions[name])
        return value

    @pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
    def test_of_the_minimax_game_is_that_of_its_whole_value(self, label_smoothing: float) -> None:
        """f(theta_G, theta_D^K): the part on data depends on the generator too, through theta_D^K."""
        settings: dict[str, Any] = {
            "unrolled_steps": 3,
            "inner_lr": 0.05,
            "label_smoothing": label_smoothing,
        }
        family, update = trained(MOMENTUM, loss="minimax", **settings)
        start, (images, latents) = family.start(update), shown()
        loss, _ = family.unrolled_loss(start, images, latents)
        on_data, on_samples = self.logits_of_the_unrolled(family, start, images, latents)
        t = 1 - label_smoothing
        data_part = (t * on_data.sigmoid().log() + (1 - t) * (-on_data).sigmoid().log()).mean()
        samples_part = (-on_samples).sigmoid().log().mean()
        torch.testing.assert_close(loss, data_part + samples_part)
        found = gradients(loss, family.generator)
        of_samples = torch.autograd.grad(samples_part, list(family.generator.parameters()), retain_graph=True)
        expected = gradients(data_part + samples_part, family.generator)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient)
        assert distance(expected, dict(zip(expected, of_samples, strict=True))) > 0.02 * distance(
            expected, {}
        )

    def logits_of_the_unrolled(
        self, family: UnrolledGAN, start: Unrolling, images: Tensor, latents: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Of data and of samples, after the K steps, with the graph through them."""
        fake = family.generator(latents)
        weights, moments = start.parameters, start.moments
        for _ in range(family.config.unrolled_steps):
            weights, moments = family.inner_step(start, weights, moments, images, fake)
        on_data, on_samples = (
            torch.func.functional_call(family.opponent, weights, (x,)) for x in (images, fake)
        )
        return on_data, on_samples

    @pytest.mark.parametrize("optimizer", [ADAM, MOMENTUM], ids=["adam", "momentum"])
    def test_is_not_that_of_looking_ahead(self, optimizer: OptimizerConfig) -> None:
        """The discriminator of K steps later as a constant: the same loss, another gradient."""
        images, latents = shown()
        results = {}
        for through in (True, False):
            family, update = trained(optimizer, unrolled_steps=5, unrolled_gradient=through, inner_lr=0.05)
            loss, _ = family.unrolled_loss(family.start(update), images, latents)
            results[through] = loss, gradients(loss, family.generator)
        family, update = trained(optimizer, unrolled_steps=5, inner_lr=0.05)
        later = unrolled_parameters(family, family.start(update), images, latents)
        logits = torch.func.functional_call(family.opponent, later, (family.generator(latents),))
        detached = gradients(losses.generator_loss("non_saturating", logits), family.generator)
        for name, gradient in detached.items():
            torch.testing.assert_close(results[False][1][name], gradient)
        torch.testing.assert_close(results[True][0], results[False][0])
        difference = distance(results[True][1], results[False][1])
        assert difference > 0.02 * distance(results[True][1], {})

    @pytest.mark.parametrize("unrolled_steps", [1, 5])
    @pytest.mark.parametrize("optimizer", [ADAM, MOMENTUM], ids=["adam", "momentum"])
    def test_recomputed_activations_change_nothing(
        self, optimizer: OptimizerConfig, unrolled_steps: int
    ) -> None:
        images, latents = shown()
        results = []
        for recompute in (False, True):
            family, update = trained(
                optimizer, unrolled_steps=unrolled_steps, inner_lr=0.05, recompute=recompute
            )
            loss, _ = family.unrolled_loss(family.start(update), images, latents)
            loss.backward()
            gradient = {name: p.grad for name, p in family.generator.named_parameters()}
            results.append((loss.detach(), gradient))
        torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-12)


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return sum((v - b.get(k, 0)).square().sum().item() for k, v in a.items()) ** 0.5


def unrolled_parameters(
    family: UnrolledGAN, start: Unrolling, images: Tensor, latents: Tensor
) -> dict[str, Tensor]:
    """The discriminator's weights after the K steps, detached."""
    fake = family.generator(latents).detach()
    parameters, moments = start.parameters, start.moments
    for _ in range(family.config.unrolled_steps):
        parameters, moments = family.inner_step(start, parameters, moments, images, fake)
    return {name: p.detach() for name, p in parameters.items()}


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_unrolled_steps_land_where_the_real_optimizer_does(name: str, before: int) -> None:
    """On the same batch, from the moments that it has: the real step is `Update`'s, clipping and all."""
    family, update = trained(OPTIMIZERS[name], steps=before, unrolled_steps=4, r1=0.1, label_smoothing=0.1)
    images, latents = shown()
    later = unrolled_parameters(family, family.start(update), images, latents)
    far = max((later[k] - p).abs().max().item() for k, p in family.opponent.named_parameters())
    assert far > 0.01
    for _ in range(4):
        update("discriminator", family.opponent_loss, images, latents)
    for key, parameter in family.opponent.named_parameters():
        torch.testing.assert_close(later[key], parameter.detach(), rtol=1e-6, atol=1e-7)


def test_fresh_moments_are_those_of_a_new_optimizer() -> None:
    family, update = trained(double=False, unrolled_steps=3, inner_moments="fresh")
    images, latents = shown(torch.float32)
    later = unrolled_parameters(family, family.start(update), images, latents)
    optimizer = make_optimizer(update.settings("discriminator"), list(family.opponent.parameters()))
    for _ in range(3):
        optimizer.zero_grad()
        family.opponent_loss(images, latents)[0].backward()
        optimizer.step()
    for key, parameter in family.opponent.named_parameters():
        torch.testing.assert_close(later[key], parameter.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unrolled_gradient", [True, False])
@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("settings", [{}, {"spectral_norm": True}, {"network": "dcgan"}], ids=str)
def test_the_discriminator_is_not_touched(
    settings: dict[str, Any], recompute: bool, unrolled_gradient: bool
) -> None:
    spec = DIGITS if "network" in settings else POINTS
    family, update = unrolled(
        spec, unrolled_steps=3, recompute=recompute, unrolled_gradient=unrolled_gradient, **settings
    )
    stream = batches(spec)
    for _ in range(2):
        family.step(stream, update)
    before = snapshot(family, update, "discriminator")
    generator = snapshot(family, update, "generator")
    family.update_generator(next(stream), update)
    assert_same(snapshot(family, update, "discriminator"), before)
    after = snapshot(family, update, "generator")["weights"]
    assert not any(torch.equal(after[name], generator["weights"][name]) for name in after if "bias" in name)


def test_rate_moments_and_number_of_steps_matter() -> None:
    images, latents = shown(torch.float32)
    losses = set()
    changes: list[dict[str, Any]] = [
        {},
        {"inner_lr": 0.1},
        {"inner_moments": "fresh"},
        {"unrolled_steps": 2},
        {"label_smoothing": 0.2},
        {"r1": 1.0},
    ]
    for settings in changes:
        family, update = trained(double=False, **{"unrolled_steps": 4, **settings})
        losses.add(family.unrolled_loss(family.start(update), images, latents)[0].item())
    assert len(losses) == 6


def test_the_inner_rate_is_the_discriminators_own_unless_set() -> None:
    own = AdamConfig(lr=0.1, players={"discriminator": PlayerOptimizerConfig(lr=0.003)})
    family, update = unrolled(optimizer=own)
    assert family.start(update).lr.item() == pytest.approx(0.003)
    family, update = unrolled(optimizer=own, inner_lr=0.7)
    assert family.start(update).lr.item() == pytest.approx(0.7)


def test_recompute_is_refused_with_compile() -> None:
    with pytest.raises(ConfigError, match=r"model\.recompute=true: does not go with trainer\.compile=true"):
        unrolled(recompute=True, trainer={"compile": True})


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [ADAM, MOMENTUM], ids=["adam", "momentum"])
def test_compiled_it_is_the_same_to_rounding(optimizer: OptimizerConfig) -> None:
    images, latents = shown(torch.float32)
    results = []
    for compiled in (False, True):
        family, update = trained(optimizer, double=False, unrolled_steps=3)
        if compiled:
            family.compile_networks()
        loss, _ = family.unrolled_loss(family.start(update), images, latents)
        results.append((loss.detach(), gradients(loss, family.generator)))
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-5)
