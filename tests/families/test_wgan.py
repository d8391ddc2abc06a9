"""Wasserstein GANs: losses of critics that can be computed, clipping, the penalty and what it measures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.games import COLOUR, DIGITS, MNIST, POINTS, batches, gradients, make
from helpers.runs import metric_rows, plain_config
from torch import Tensor

from genlab.adversarial import losses
from genlab.commands import train
from genlab.config.run import AdamConfig, RMSpropConfig, SGDConfig
from genlab.data.spec import Batch, DataSpec
from genlab.device import autocast
from genlab.errors import ConfigError

LINE = DataSpec("gaussian1d", 1, 1, 1, levels=0, kind="points")
BOTH = ("wgan", "wgan_gp")
LINEAR: dict[str, Any] = {"network": "mlp", "discriminator_hidden": []}  # f(x) = w.x + b


def linear(name: str, weight: Tensor, bias: float = 0.7, spec: DataSpec = POINTS, **settings: Any) -> Any:
    """A family whose critic is w.x + b."""
    family, _ = make(name, spec, **LINEAR, **settings)
    with torch.no_grad():
        family.opponent.out.weight.copy_(weight.view(1, -1))
        family.opponent.out.bias.fill_(bias)
    return family


def points(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows)[:, :, None, None]


def hold_generator_at_0(family: Any) -> None:
    """Whatever the latent, its sample is 0."""
    family.generator.forward = lambda latents, labels=None: torch.zeros(len(latents), *family.spec.shape)


def direction(n: int) -> Tensor:
    weight = torch.randn(n)
    return weight / weight.norm()


class TestLosses:
    REAL, FAKE = points((1, 0), (0, 3), (2, 2)), points((0, 0), (1, 1), (-1, 4))
    # f(x, y) = 2 x - y + 0.7: of data 2.7, -2.3, 2.7; of samples 0.7, 1.7, -5.3
    ESTIMATE = 3.1 / 3 + 2.9 / 3

    @pytest.mark.parametrize("name", BOTH)
    def test_of_a_linear_critic_by_hand(self, name: str) -> None:
        family = linear(name, torch.tensor([2.0, -1.0]))
        loss, metrics = family.opponent_objective(self.REAL, self.FAKE)
        assert metrics["critic_loss"].item() == pytest.approx(-self.ESTIMATE)
        assert metrics["wasserstein_estimate"].item() == pytest.approx(self.ESTIMATE)
        penalty = 10 * (5**0.5 - 1) ** 2 if name == "wgan_gp" else 0.0
        assert loss.item() == pytest.approx(penalty - self.ESTIMATE, rel=1e-5)
        loss, metrics = family.generator_objective(self.FAKE)
        assert loss.item() == metrics["generator_loss"].item() == pytest.approx(2.9 / 3)

    def test_data_and_samples_are_told_apart_by_the_middle_of_their_means(self) -> None:
        """The border is (3.1 - 2.9) / 6: two of data lie over it, and one of the samples under it."""
        family = linear("wgan", torch.tensor([2.0, -1.0]))
        _, metrics = family.opponent_objective(self.REAL, self.FAKE)
        assert metrics["critic_accuracy_real"].item() == pytest.approx(2 / 3)
        assert metrics["critic_accuracy_generated"].item() == pytest.approx(1 / 3)

    @pytest.mark.parametrize("name", BOTH)
    def test_a_constant_added_to_the_critic_changes_nothing(self, name: str) -> None:
        values = []
        for bias in (0.0, 5.0):
            family = linear(name, torch.tensor([2.0, -1.0]), bias)
            loss, _ = family.opponent_objective(self.REAL, self.FAKE)
            values.append((loss, gradients(loss, family.opponent)["out.weight"]))
        torch.testing.assert_close(values[0], values[1])

    @pytest.mark.parametrize("name", BOTH)
    def test_losses_are_of_data_and_of_samples_of_the_latents(self, name: str) -> None:
        """On images: the critic sees both on the scale from -1 to 1."""
        family, _ = make(name, DIGITS, network="mlp")
        images, latents = next(batches(DIGITS)).images, torch.randn(8, 4)
        fake = family.generator(latents)
        estimate = family.opponent(images * 2 - 1).mean() - family.opponent(fake).mean()
        _, metrics = family.opponent_loss(images, latents)
        torch.testing.assert_close(metrics["wasserstein_estimate"], estimate)
        loss, _ = family.generator_loss(images, latents)
        torch.testing.assert_close(loss, -family.opponent(fake).mean())

    def test_the_players_pull_against_each_other(self) -> None:
        """One step of each by plain descent: the critic's raises the estimate, the generator's lowers it."""
        family, update = make("wgan", clip=10.0, optimizer=SGDConfig(lr=1e-3, momentum=0.0))
        batch, latents = next(batches()), torch.randn(8, 4)

        def estimate() -> float:
            return family.opponent_loss(batch.images, latents)[1]["wasserstein_estimate"].item()

        before = estimate()
        update("critic", family.opponent_loss, batch.images, latents)
        between = estimate()
        assert between > before
        update("generator", family.generator_loss, batch.images, latents)
        assert estimate() < between

    def test_judge_is_the_critics_value(self) -> None:
        family, _ = make("wgan_gp", DIGITS, network="mlp")
        images = next(batches(DIGITS)).images
        torch.testing.assert_close(family.discriminator_output(images), family.opponent(images * 2 - 1))
        assert make("wgan", packing=2)[0].discriminator_output(images) is None


class TestClipping:
    @pytest.mark.parametrize("clip", [0.01, 0.2])
    def test_after_every_critic_step_all_weights_lie_within_the_bound_and_the_generators_do_not(
        self, clip: float
    ) -> None:
        """Normalisation's scales and all biases are weights too, as in Algorithm 1."""
        family, update = make("wgan", MNIST, clip=clip, optimizer=RMSpropConfig(lr=0.05))
        critic, generator = list(family.opponent.parameters()), list(family.generator.parameters())
        assert max(p.abs().max() for p in critic) > clip
        before = [p.clone() for p in generator]
        stream = batches(MNIST)
        for _ in range(3):
            metrics = family.update_opponent(next(stream), update)
            assert all(p.abs().max() <= clip for p in critic)
        assert all(torch.equal(a, b) for a, b in zip(before, generator, strict=True))
        assert metrics["critic_saturated_share"] > 0.1
        family.update_generator(next(stream), update)
        assert max(p.abs().max() for p in generator) > 0.9  # batch normalisation's scales
        assert all(p.abs().max() <= clip for p in critic)

    def test_a_step_is_the_optimizers_and_then_the_clipping(self) -> None:
        family, update = make("wgan", clip=0.3, optimizer=SGDConfig(lr=0.1, momentum=0.0))
        before = {name: p.detach().clone() for name, p in family.opponent.named_parameters()}
        family.update_opponent(next(batches()), update)
        inside = 0
        for name, parameter in family.opponent.named_parameters():
            moved = before[name] - 0.1 * parameter.grad
            torch.testing.assert_close(parameter.detach(), moved.clamp(-0.3, 0.3))
            inside += int((moved.abs() < 0.3).sum())
        assert 0 < inside < sum(p.numel() for p in family.opponent.parameters())

    def test_share_at_the_bound_by_hand(self) -> None:
        family = linear("wgan", torch.tensor([0.5, -0.5]), bias=0.1, clip=0.5)
        assert family.clipped_share() == {"critic_saturated_share": pytest.approx(2 / 3)}
        assert linear("wgan_gp", torch.tensor([0.5, -0.5])).clipped_share() == {}

    def test_the_critic_with_a_penalty_is_not_clipped(self) -> None:
        family, update = make("wgan_gp", optimizer=SGDConfig(lr=0.1, momentum=0.0))
        before = {name: p.detach().clone() for name, p in family.opponent.named_parameters()}
        family.update_opponent(next(batches()), update)
        for name, parameter in family.opponent.named_parameters():
            torch.testing.assert_close(parameter.detach(), before[name] - 0.1 * parameter.grad)

    def test_a_clipped_linear_critic_measures_clip_times_the_sum_of_absolute_differences(self) -> None:
        """max over |w_i| <= c of w.(x - y) = c sum |x_i - y_i|."""
        family, update = make("wgan", **LINEAR, clip=0.05, optimizer=RMSpropConfig(lr=0.01))
        hold_generator_at_0(family)
        batch = Batch(points(*[(1.0, -2.0)] * 4), None)
        metrics = [family.update_opponent(batch, update) for _ in range(20)][-1]
        assert metrics["wasserstein_estimate"].item() == pytest.approx(0.05 * 3)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("steps", [1, 3])
def test_the_critics_optimizer_makes_that_many_steps_for_one_of_the_generators(name: str, steps: int) -> None:
    family, update = make(name, critic_steps=steps)
    stream = batches()
    for _ in range(4):
        family.step(stream, update)
    made = {
        player: {int(state["step"]) for state in update.optimizers[player].state.values()}
        for player in family.players
    }
    assert made == {"critic": {4 * steps}, "generator": {4}}


class TestPenalty:
    @pytest.mark.parametrize("spec", [POINTS, DIGITS, COLOUR], ids=lambda spec: spec.name)
    @pytest.mark.parametrize(
        ("slope", "one_sided", "expected"),
        [(1, False, 0), (3, False, 4), (0.5, False, 0.25), (1, True, 0), (3, True, 4), (0.5, True, 0)],
    )
    def test_of_a_linear_critic_is_of_its_slope_over_all_dimensions_of_an_image(
        self, spec: DataSpec, slope: float, one_sided: bool, expected: float
    ) -> None:
        family = linear(
            "wgan_gp", slope * direction(spec.dimensions), spec=spec, one_sided=one_sided, penalty=7.0
        )
        for n in (1, 8):
            real, fake = torch.randn(n, *spec.shape), torch.randn(n, *spec.shape)
            loss, metrics = family.opponent_objective(real, fake)
            assert metrics["gradient_penalty"].item() == pytest.approx(expected, rel=1e-4, abs=1e-8)
            torch.testing.assert_close(loss, metrics["critic_loss"] + 7 * metrics["gradient_penalty"])

    def test_the_slope_is_that_with_respect_to_the_image_not_to_its_scaled_copy(self) -> None:
        family = linear("wgan_gp", 2 * direction(2), input_scale=0.5)
        assert family.opponent_objective(*torch.randn(2, 8, 2, 1, 1))[1]["gradient_penalty"] < 1e-8

    def test_the_penalised_points_lie_between_each_image_and_a_sample_at_a_place_drawn_for_each(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        family, _ = make("wgan_gp", DIGITS, network="mlp")
        real, fake = torch.randn(2, 2000, *DIGITS.shape)
        seen: list[Tensor] = []
        norms = losses.gradient_norms
        monkeypatch.setattr(
            losses,
            "gradient_norms",
            lambda critic, x, packing: seen.append(x) or norms(critic, x, packing),
        )
        for _ in range(2):
            family.opponent_objective(real, fake)
        along = (real - fake).flatten(1)
        places = []
        for between in seen:
            offset = (between - fake).flatten(1)
            place = (offset * along).sum(1) / along.square().sum(1)
            torch.testing.assert_close(offset, place[:, None] * along)
            places.append(place)
        for place in places:
            assert place.min() > -1e-5
            assert place.max() < 1 + 1e-5
            ordered = place.sort().values
            uniform = (torch.arange(2000) + 0.5) / 2000
            assert (ordered - uniform).abs().max() < 1.95 / 2000**0.5  # Kolmogorov and Smirnov, 0.1 %
        assert torch.corrcoef(torch.stack(places))[0, 1].abs() < 0.1  # new places at each call

    @pytest.mark.parametrize("one_sided", [False, True])
    @pytest.mark.usefixtures("in_float64")
    def test_the_gradient_of_the_loss_is_that_of_finite_differences(self, one_sided: bool) -> None:
        """Of the layer-normalised convolutions of the shipped networks, in random directions."""
        family, _ = make("wgan_gp", MNIST, penalty=10.0, one_sided=one_sided)
        family.double()
        critic = family.opponent
        with torch.no_grad():
            critic.out.weight.mul_(8)  # slopes on both sides of 1
        real, fake = torch.randn(2, 3, 1, 28, 28, dtype=torch.float64)
        share = torch.rand(3, dtype=torch.float64)
        loss, metrics = family.penalized_objective(real, fake, share)
        assert loss.dtype == torch.float64
        assert 10 * metrics["gradient_penalty"] > 0.1 * metrics["critic_loss"].abs()
        slopes = gradients(loss, critic)
        for _ in range(5):
            directions = {name: torch.randn_like(p) for name, p in critic.named_parameters()}
            expected = sum((slopes[name] * d).sum() for name, d in directions.items())
            values = []
            for h in (1e-7, -1e-7):
                with torch.no_grad():
                    for name, parameter in critic.named_parameters():
                        parameter += h * directions[name]
                values.append(family.penalized_objective(real, fake, share)[0].detach())
                with torch.no_grad():
                    for name, parameter in critic.named_parameters():
                        parameter -= h * directions[name]
            torch.testing.assert_close((values[0] - values[1]) / 2e-7, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture
def in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the losses bring to float32 stays in float64, so that finite differences have digits."""
    to_float32 = Tensor.float
    monkeypatch.setattr(
        Tensor, "float", lambda self: self if self.dtype == torch.float64 else to_float32(self)
    )


class TestPrecision:
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_only_the_critics_loss_is_in_bf16(self, precision: str) -> None:
        """Data and samples, then the penalty's points, whose gradient and its gradient are in float32."""
        family, update = make("wgan_gp", MNIST, trainer={"precision": precision})
        seen: list[torch.dtype] = []
        family.opponent.net.register_forward_hook(lambda module, x, y: seen.append(y.dtype))
        metrics = family.update_opponent(next(batches(MNIST)), update)
        rough = torch.bfloat16 if precision == "bf16" else torch.float32
        assert seen == [rough, torch.float32]
        assert {value.dtype for value in metrics.values()} == {torch.float32}
        assert {p.grad.dtype for p in family.opponent.parameters()} == {torch.float32}

    def test_under_bf16_the_penalty_and_its_gradient_are_those_of_float32(self) -> None:
        family, _ = make("wgan_gp", MNIST)
        with torch.no_grad():
            family.opponent.out.weight.mul_(8)
        real, fake, share = *torch.randn(2, 8, 1, 28, 28), torch.rand(8)
        found = []
        for precision in ("fp32", "bf16"):
            with autocast(torch.device("cpu"), precision):
                _, metrics = family.penalized_objective(real, fake, share)
            penalty = metrics["gradient_penalty"]
            found.append((penalty.detach(), gradients(penalty, family.opponent), metrics["critic_loss"]))
        assert found[0][0] > 0.1
        torch.testing.assert_close(found[1][:2], found[0][:2], rtol=0, atol=0)
        assert found[1][2] != found[0][2]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "spec"), [("wgan", POINTS), ("wgan_gp", MNIST)], ids=["wgan", "wgan_gp"])
def test_compiled_losses_have_the_eager_gradients_to_rounding(name: str, spec: DataSpec) -> None:
    real, latents = next(batches(spec)).images, torch.randn(8, 4)
    results = []
    for compiled in (False, True):
        family, _ = make(name, spec)
        if compiled:
            family.compile_networks()
        torch.manual_seed(3)
        for loss, player in ((family.opponent_loss, "critic"), (family.generator_loss, "generator")):
            value, metrics = loss(real, latents)
            found = {key: metric.detach() for key, metric in metrics.items()}
            results.append((value.detach(), found, gradients(value, family.get_submodule(player))))
    torch.testing.assert_close(results[2:], results[:2], rtol=1e-3, atol=1e-5)


class TestNormalization:
    NETWORKS: list[tuple[DataSpec, str, str]] = [
        (MNIST, "dcgan", "auto"), (MNIST, "dcgan", "layer"), (MNIST, "dcgan", "instance"),
        (COLOUR, "resnet", "auto"), (COLOUR, "resnet", "instance"), (DIGITS, "mlp", "layer"),
    ]  # fmt: skip

    @pytest.mark.parametrize(("spec", "network", "normalization"), NETWORKS)
    def test_with_a_penalty_an_images_value_does_not_depend_on_the_others(
        self, spec: DataSpec, network: str, normalization: str
    ) -> None:
        family, _ = make("wgan_gp", spec, network=network, normalization=normalization)
        assert self.dependence(family, spec) < 1e-6

    def test_with_batch_normalisation_it_does_and_so_a_penalty_refuses_it(self) -> None:
        clipped, _ = make("wgan", MNIST, normalization="batch")
        assert self.dependence(clipped, MNIST) > 1e-3
        for network, spec in (("dcgan", MNIST), ("mlp", POINTS)):
            with pytest.raises(ConfigError, match="on each image by itself, and batch normalisation makes"):
                make("wgan_gp", spec, network=network, normalization="batch")

    @staticmethod
    def dependence(family: Any, spec: DataSpec) -> float:
        """How much the first image's value changes with the others, beside how much values differ."""
        x, other = torch.rand(2, 6, *spec.shape) * 2 - 1
        mixed = torch.cat([x[:1], 3 * other[1:]])
        with torch.no_grad():
            before, after = family.opponent(x), family.opponent(mixed)
        return ((before[0] - after[0]).abs() / before.std()).item()


class TestEstimate:
    @pytest.mark.parametrize("weight", [10.0, 100.0])
    @pytest.mark.parametrize("one_sided", [False, True])
    def test_of_two_points_is_their_distance_plus_the_penaltys_bias(
        self, weight: float, one_sided: bool
    ) -> None:
        """A critic of slope s has the value s d - lambda (s - 1)^2, greatest at s = 1 + d / (2 lambda)."""
        distance = 3.0
        for spec, place in ((LINE, (3.0,)), (POINTS, (1.8, -2.4))):
            optimizer = AdamConfig(lr=0.01, betas=(0.5, 0.9))
            family, update = make("wgan_gp", spec, penalty=weight, one_sided=one_sided, optimizer=optimizer)
            hold_generator_at_0(family)
            batch = Batch(points(*[place] * 16), None)
            found = [family.update_opponent(batch, update)["wasserstein_estimate"] for _ in range(300)]
            expected = distance * (1 + distance / (2 * weight))
            assert torch.stack(found[-50:]).mean().item() == pytest.approx(expected, rel=0.02)
            assert abs(found[0].item() - expected) > 0.5

    @pytest.mark.parametrize("name", BOTH)
    def test_is_logged_with_the_critics_loss_and_what_holds_its_slope(self, name: str) -> None:
        plain = plain_config(name, schedule="constant", dataset="ring", steps=6, log_every=2, batch_size=16)
        plain["model"] |= {"hidden": [8], "discriminator_hidden": [8], "critic_steps": 2}
        plain["dataset"] |= {"points": 500}
        folder = train.start(plain, [], "run")
        rows = metric_rows(folder)
        rows = [row for row in rows if "images_per_second" in row]
        held = "gradient_penalty" if name == "wgan_gp" else "critic_saturated_share"
        assert len(rows) == 3
        for row in rows:
            assert row["critic_loss"] == pytest.approx(-row["wasserstein_estimate"])
            assert row[held] >= 0
