"""Every autoregressive model on codes, whose numbers mean nothing: exact, causal, and scanned as trained."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from helpers.tiny_models import BLIND, TINY, advance, randomize
from torch import Tensor

from genlab import registry
from genlab.data.spec import Batch, DataSpec
from genlab.errors import ConfigError
from genlab.families.autoregressive import Autoregressive
from genlab.nets.scanning import Scanner, draw_naively
from genlab.rng import SampleRng

MODELS = sorted(TINY)
MAPS = {"5x6": (5, 6, 40), "4x4": (4, 4, 300), "2x5": (2, 5, 2)}  # height, width, codes


def make(name: str, case: str = "4x4", classes: int = 3, **settings: object) -> tuple[Autoregressive, Tensor]:
    """A model and three maps of codes."""
    height, width, codes = MAPS[case]
    spec = DataSpec("codes", 1, height, width, levels=codes, classes=classes, kind="codes")
    config = registry.look_up(registry.FAMILIES, name, "model").Config(
        **TINY[name] | {"class_conditional": classes > 0} | settings
    )
    family = registry.family(config, spec)
    assert isinstance(family, Autoregressive)
    randomize(family)
    return family, torch.randint(codes, (3, 1, height, width)) / (codes - 1)


LABELS = torch.tensor([0, 2, 1])


@pytest.mark.parametrize("case", MAPS)
@pytest.mark.parametrize("name", MODELS)
def test_cached_parameters_equal_those_of_a_full_pass(name: str, case: str) -> None:
    family, maps = make(name, case)
    family, maps = family.double(), maps.double()
    for on_device in (False, True):
        with torch.no_grad():
            full = family.network(maps, LABELS)
            scan = family.network.start(3, LABELS, on_device)
            pixel = None
            for row, column in itertools.product(*map(range, maps.shape[2:])):
                found = advance(family.network, scan, pixel)
                pixel = maps[:, :, row, column]
                torch.testing.assert_close(found, full[:, row, column], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_cached_samples_equal_naive_ones(name: str) -> None:
    family, _ = make(name)
    noise = SampleRng(7, range(3)).uniform(4, 4, 1)
    with torch.no_grad():
        cached = Scanner(family.network, family.distribution, noise, LABELS, 0.9).run()
        naive = draw_naively(family.network, family.distribution, noise, LABELS, 0.9)
    assert torch.equal(cached, naive)
    codes = cached * 299
    torch.testing.assert_close(codes, codes.round())
    assert len(codes.round().unique()) > 10


@pytest.mark.parametrize("name", MODELS)
def test_no_parameter_depends_on_its_own_code_or_a_later_one(name: str) -> None:
    family, maps = make(name, "4x4")
    with torch.no_grad():
        before = family.network(maps, LABELS).flatten(1, 2)
        for place in range(16):
            changed = maps.clone()
            changed.flatten(1)[:, place] = 1 - changed.flatten(1)[:, place]
            differs = (family.network(changed, LABELS).flatten(1, 2) - before).abs().amax((0, 2)) > 1e-6
            assert not differs[: place + 1].any(), place
            if name not in BLIND:
                assert differs[place + 1 :].all(), place


@pytest.mark.parametrize("name", MODELS)
def test_codes_have_no_order(name: str) -> None:
    """With their vectors and logits renumbered alike, maps of renumbered codes are exactly as likely."""
    family, maps = make(name, "5x6")
    renumbered = torch.randperm(40)
    codes = (maps * 39).round().long()
    with torch.no_grad():
        before = family.log_prob(maps, LABELS)
        embedding = family.network.codes
        assert embedding is not None
        embedding.weight[renumbered] = embedding.weight.clone()
        plain = family.network.forward
        family.network.forward = lambda x, y: plain(x, y)[..., renumbered.argsort()]  # type: ignore[method-assign]
        torch.testing.assert_close(family.log_prob(renumbered[codes] / 39, LABELS), before)


def test_the_probabilities_of_all_maps_sum_to_1() -> None:
    family, _ = make("gated_pixelcnn", classes=0)
    spec = DataSpec("codes", 1, 2, 2, levels=4, kind="codes")
    family = registry.family(family.config, spec)
    assert isinstance(family, Autoregressive)
    randomize(family)
    maps = torch.cartesian_prod(*[torch.arange(4) / 3] * 4).view(-1, 1, 2, 2)
    with torch.no_grad():
        log_prob = family.log_prob(maps)
        nats = family.evaluate(Batch(maps, None), rng=SampleRng(0, range(256)))["nll_nats"]
    assert log_prob.double().exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert log_prob.std() > 0.1
    torch.testing.assert_close(nats, -log_prob)


def test_hundreds_of_codes_survive_being_shares_of_one() -> None:
    """A code is code / (K - 1) on its way: it comes back whole, for the largest K."""
    family, _ = make("gated_pixelcnn", classes=0)
    codes = torch.arange(2**15)
    embedding = torch.nn.Embedding(2**15, 1)
    embedding.weight.data.copy_(codes[:, None])
    family.network.codes = embedding
    assert torch.equal(family.network.input_of((codes / (2**15 - 1))[:, None])[:, 0].long(), codes)


@pytest.mark.parametrize("output", ["bernoulli", "logistic_mixture"])
def test_outputs_with_an_order_are_refused(output: str) -> None:
    for case in ("4x4", "2x5"):  # two codes are no black and white either
        with pytest.raises(ConfigError, match=f"model.output={output}: codes have no order"):
            make("pixelsnail", case, output=output)
    assert make("pixelsnail")[0].output == make("gated_pixelcnn", "2x5")[0].output == "categorical"


def test_an_untrained_model_s_codes_are_about_even() -> None:
    """Its learned vectors are of a scale with pixels: the first loss is about log K for each code."""
    torch.manual_seed(0)
    spec = DataSpec("codes", 1, 7, 7, levels=128, kind="codes")
    config = registry.look_up(registry.FAMILIES, "gated_pixelcnn", "model").Config()
    family = registry.family(config, spec)
    assert isinstance(family, Autoregressive)
    maps = torch.randint(128, (8, 1, 7, 7)) / 127
    nats = -family.log_prob(maps).mean().item() / 49
    assert nats == pytest.approx(math.log(128), abs=0.3)
