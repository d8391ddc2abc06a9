"""What every autoregressive model owes: it never looks ahead, sums to 1, and scans as it trains."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from helpers.tiny_models import BLIND, TINY, advance, tiny, tiny_network
from torch import Tensor

from genlab.data.spec import Batch
from genlab.families.autoregressive import Autoregressive
from genlab.nets import scanning
from genlab.nets.scanning import Clamped, Scanner, draw_naively
from genlab.rng import SampleRng

MODELS = sorted(TINY)
CASES = {  # (C, H, W), levels, classes, output
    "binary": ((1, 9, 8), 2, 0, "bernoulli"),
    "grey": ((1, 8, 9), 5, 3, "categorical"),
    "colour": ((3, 8, 9), 4, 3, "categorical"),
    "binary colour": ((3, 9, 8), 2, 0, "bernoulli"),
    "grey mixture": ((1, 10, 9), 256, 0, "logistic_mixture"),
    "colour mixture": ((3, 9, 10), 256, 3, "logistic_mixture"),
}


def make(name: str, case: str) -> tuple[Autoregressive, Tensor, Tensor | None]:
    """A model, three images and their labels."""
    shape, levels, classes, output = CASES[case]
    family = tiny(name, shape, levels, classes, output=output)
    images = torch.randint(0, levels, (3, *shape)) / (levels - 1)
    return family, images, torch.tensor([0, 2, 1]) if classes else None


def of_channel(family: Autoregressive, channel: int) -> slice:
    """The parameters of a channel; all where the distribution ties the channels together."""
    passes, parameters = family.distribution.passes, family.distribution.parameters
    size = parameters // passes
    return slice(channel * size, (channel + 1) * size) if passes > 1 else slice(0, parameters)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", MODELS)
def test_no_parameter_depends_on_its_own_pixel_or_a_later_one(name: str, case: str) -> None:
    family, images, labels = make(name, case)
    channels, height, width = images.shape[1:]
    images = images.double().requires_grad_()
    parameters = family.double().network(images, labels)
    for row, column in itertools.product(range(height), range(width)):
        for channel in range(family.distribution.passes):
            looked_at = parameters[:, row, column, of_channel(family, channel)]
            weights = torch.linspace(1, 2, looked_at.shape[1], dtype=torch.float64)
            (gradient,) = torch.autograd.grad((looked_at * weights).sum(), images, retain_graph=True)
            in_order = gradient.permute(0, 2, 3, 1).flatten(1)
            position = (row * width + column) * channels + channel
            assert not in_order[:, position:].any(), (row, column, channel)
            if name not in BLIND:  # in one of the images: a rectified unit may be dead in another
                assert in_order[:, :position].any(0).all(), (row, column, channel)


@pytest.mark.parametrize(
    ("precision", "on_device"), [("float32", False), ("float64", False), ("float64", True)]
)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", MODELS)
def test_cached_parameters_equal_those_of_a_full_pass(
    name: str, case: str, precision: str, on_device: bool
) -> None:
    family, images, labels = make(name, case)
    family, images = family.to(getattr(torch, precision)), images.to(getattr(torch, precision))
    channels, height, width = images.shape[1:]
    with torch.no_grad():
        full = family.network(images, labels)
        scan = family.network.start(3, labels, on_device)
        pixel = None
        for row, column in itertools.product(range(height), range(width)):
            found = advance(family.network, scan, pixel)
            pixel = images[:, :, row, column]
            for channel in range(family.distribution.passes):
                if channel:
                    later = torch.rand(3, channels - channel).to(images)
                    so_far = torch.cat([pixel[:, :channel], later], 1)
                    found = family.network.look(scan, so_far, again=True)
                of_this = of_channel(family, channel)
                difference = (found[:, of_this] - full[:, row, column, of_this]).abs().max()
                assert difference < {"float32": 1e-5, "float64": 1e-10}[precision], (row, column, channel)


@pytest.mark.parametrize("case", ["binary", "colour", "colour mixture"])
@pytest.mark.parametrize("name", MODELS)
def test_cached_samples_equal_naive_ones(name: str, case: str) -> None:
    family, _, labels = make(name, case)
    shape = family.spec.shape
    noise = SampleRng(7, range(3)).uniform(*shape[1:], family.distribution.uniforms)
    with torch.no_grad():
        cached = Scanner(family.network, family.distribution, noise, labels, 0.9).run()
        naive = draw_naively(family.network, family.distribution, noise, labels, 0.9)
    assert torch.equal(cached, naive)
    levels = cached * (family.spec.levels - 1)
    assert torch.equal(levels.round(), levels) or torch.allclose(levels.round(), levels, atol=1e-4)
    assert cached.flatten(1).var(1).min() > 0


@pytest.mark.parametrize("name", MODELS)
def test_a_sample_depends_on_seed_and_number_alone(name: str) -> None:
    family, _, _ = make(name, "binary")
    with torch.no_grad():
        together = family.sample(5, rng=SampleRng(3, range(5)))
        alone = torch.cat([family.sample(1, rng=SampleRng(3, [k])) for k in range(5)])
        others = family.sample(5, rng=SampleRng(4, range(5)))
    assert torch.equal(together, alone)
    assert not torch.equal(together, others)


@pytest.mark.parametrize(
    ("channels", "levels", "output"), [(1, 2, "bernoulli"), (1, 2, "categorical"), (2, 2, "categorical")]
)
@pytest.mark.parametrize("name", MODELS)
def test_probabilities_of_all_images_of_2x2_sum_to_1(
    name: str, channels: int, levels: int, output: str
) -> None:
    family = tiny(name, (channels, 8, 8), levels, output=output).double()
    family.network = tiny_network(family, (channels, 2, 2)).double()
    every = torch.tensor(list(itertools.product(range(levels), repeat=4 * channels)), dtype=torch.float64)
    log_prob = family.log_prob(every.view(-1, channels, 2, 2) / (levels - 1))
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert log_prob.std() > 0.01  # and not all alike


@pytest.mark.parametrize("name", MODELS)
def test_samples_of_2x2_come_as_often_as_their_probability_says(name: str) -> None:
    family = tiny(name, (1, 8, 8), 2)
    family.network = tiny_network(family, (1, 2, 2))
    noise = SampleRng(0, range(20_000)).uniform(2, 2, 1)
    with torch.no_grad():
        drawn = Scanner(family.network, family.distribution, noise).run()
        every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4))).view(-1, 1, 2, 2)
        expected = family.log_prob(every).exp()
    place = (drawn.flatten(1) @ torch.tensor([8.0, 4.0, 2.0, 1.0])).long()
    found = torch.bincount(place, minlength=16) / 20_000
    error = (expected * (1 - expected) / 20_000).sqrt()
    assert ((found - expected).abs() < 4.5 * error).all()


@pytest.mark.parametrize("name", MODELS)
def test_what_is_held_stays_and_its_probability_is_exact(name: str) -> None:
    family, images, labels = make(name, "colour")
    mask = torch.zeros(3, 1, 8, 9, dtype=torch.bool)
    mask[:, :, :4] = True
    rng = SampleRng(0, range(3))
    with torch.no_grad():
        scanner = family.scanner(3, rng, labels, clamped=Clamped(images, mask))
        completed = scanner.run()
        parameters = family.network(images, labels)
        each = family.distribution.log_prob(parameters, images.permute(0, 2, 3, 1))
    assert torch.equal(completed[:, :, :4], images[:, :, :4])
    assert not torch.equal(completed[:, :, 4:], images[:, :, 4:])
    assert torch.allclose(scanner.log_prob_clamped.float(), each[:, :4].flatten(1).sum(1), atol=1e-3)


def test_likelihood_is_a_product_of_conditionals_worked_by_hand() -> None:
    family, images, _ = make("gated_pixelcnn", "binary")
    with torch.no_grad():
        probability = torch.sigmoid(family.network(images)[..., 0].double())
        values = family.evaluate(Batch(images, None), rng=SampleRng(0, range(3)))
    by_hand = torch.where(images[:, 0] == 1, probability, 1 - probability).log().flatten(1).sum(1)
    assert torch.allclose(values["nll_nats"].double(), -by_hand, atol=1e-4)
    assert torch.allclose(values["nll_bits_per_dim"], values["nll_nats"] / (72 * math.log(2)))


def test_coordinates_tell_the_gated_pixelcnn_where_it_is() -> None:
    family = tiny("gated_pixelcnn", (1, 30, 30), 2, coordinates=True)
    images = torch.zeros(2, 1, 30, 30)
    with torch.no_grad():
        full = family.network(images)[0, ..., 0]
        scanned = []
        scan = family.network.start(2)
        pixel = None
        for _ in range(900):
            scanned.append(advance(family.network, scan, pixel)[0, 0])
            pixel = images[:, :, 0, 0]
        assert torch.allclose(torch.stack(scanned), full.flatten(), atol=1e-5)
        assert full[15:17, 15:17].std() > 1e-4  # all they see are zeros
        family = tiny("gated_pixelcnn", (1, 30, 30), 2)
        assert family.network.offset is not None
        family.network.offset.per_pixel.data.zero_()
        assert family.network(images)[0, 15:17, 15:17, 0].std() < 1e-6


def test_labels_change_what_a_class_conditional_model_draws() -> None:
    family, _, _ = make("gated_pixelcnn", "grey")
    with torch.no_grad():
        drawn = [family.sample(2, rng=SampleRng(0, range(2)), labels=torch.full((2,), k)) for k in range(2)]
    assert not torch.equal(drawn[0], drawn[1])


def test_a_low_temperature_keeps_to_the_likeliest_pixels() -> None:
    family, _, _ = make("gated_pixelcnn", "binary")
    with torch.no_grad():
        cold, warm = (
            family.sample(50, rng=SampleRng(0, range(50)), temperature=temperature)
            for temperature in (0.05, 1.0)
        )
        assert family.log_prob(cold).mean() > family.log_prob(warm).mean() + 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", MODELS)
def test_a_replayed_graph_draws_what_the_eager_scan_draws(name: str) -> None:
    family = tiny(name, (3, 9, 10), 4, 3, output="categorical").cuda().double()
    labels = torch.tensor([0, 1, 2], device="cuda")
    with torch.no_grad():
        noise = SampleRng(0, range(3), "cuda").uniform(9, 10, family.distribution.uniforms)
        eager = Scanner(family.network, family.distribution, noise, labels).run()
        replayed = Scanner(family.network, family.distribution, noise, labels, graph=True).run()
    assert torch.equal(eager, replayed)
    assert eager.flatten(1).var(1).min() > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", MODELS)
def test_a_kept_graph_draws_later_batches_on_a_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = tiny(name, (3, 9, 10), 4, 3, output="categorical").cuda().double()
    captured = []
    record = scanning.capture
    monkeypatch.setattr(scanning, "capture", lambda *given: captured.append(given) or record(*given))
    after_each = []
    with torch.no_grad(), scanning.graphs_kept():
        for seed in range(3):
            rng = SampleRng(seed, range(3), "cuda")
            noise = rng.uniform(9, 10, family.distribution.uniforms)
            labels = torch.tensor([seed, 1, 2], device="cuda")
            images = torch.rand(3, 3, 9, 10, device="cuda").double().round()
            known = Clamped(images, torch.rand(3, 1, 9, 10, device="cuda") < 0.3)
            given = family.network, family.distribution, noise, labels, 0.9, known
            eager, graphed = Scanner(*given), Scanner(*given, graph=True)
            assert torch.equal(eager.run(), graphed.run())
            torch.testing.assert_close(graphed.log_prob_clamped, eager.log_prob_clamped)
            after_each.append(len(captured))
    assert after_each[0] == after_each[2] > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_draws_what_a_cpu_draws(name: str) -> None:
    family = tiny(name, (1, 9, 8), 2).double()
    with torch.no_grad():
        on_cpu = family.sample(4, rng=SampleRng(5, range(4)))
        on_gpu = family.cuda().sample(4, rng=SampleRng(5, range(4), "cuda"))
    assert torch.equal(on_cpu, on_gpu.cpu())
