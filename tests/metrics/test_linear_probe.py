"""The linear probe: what it must find, what it must not, and the optimum that it stands at."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from genlab.metrics import linear_probe as module
from genlab.metrics.linear_probe import PENALTIES, Labelled, linear_probe


def clusters(count: int, classes: int, distance: float, dimensions: int = 8) -> Labelled:
    """Normal clusters of variance 1 around as many axes."""
    labels = torch.arange(count) % classes
    features = torch.randn(count, dimensions)
    features[torch.arange(count), labels] += distance
    return Labelled(features, labels)


def test_separable_codes_are_told_apart_without_an_error() -> None:
    probe = linear_probe(clusters(300, 5, 30.0), clusters(200, 5, 30.0), clusters(100, 5, 30.0))
    assert (probe.accuracy, probe.standard_error) == (1.0, 0.0)


def test_shuffled_labels_leave_chance() -> None:
    features = clusters(5000, 4, 30.0).features
    labels = torch.randint(4, (5000,))
    train, test = (Labelled(features[part], labels[part]) for part in (slice(1000), slice(1000, None)))
    probe = linear_probe(train, test)
    assert probe.standard_error == pytest.approx(math.sqrt(0.25 * 0.75 / 4000), rel=0.1)
    assert abs(probe.accuracy - 0.25) < 4 * probe.standard_error


def test_two_normal_classes_come_near_the_best_that_any_rule_does() -> None:
    """Means 2 apart in variance 1: the half-way line errs with probability Phi(-1)."""
    probe = linear_probe(clusters(4000, 2, math.sqrt(2)), clusters(4000, 2, math.sqrt(2)))
    best = torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(1.0)).item()
    assert abs(probe.accuracy - best) < 4 * probe.standard_error


def test_a_feature_s_unit_and_a_constant_feature_change_nothing() -> None:
    train, test = clusters(400, 3, 2.0), clusters(600, 3, 2.0)

    def changed(features: Tensor) -> Tensor:
        scaled = features * torch.logspace(-3, 3, 8) + 5
        return torch.cat([scaled, torch.full((len(features), 1), 7.0)], 1)

    other = linear_probe(*(Labelled(changed(part.features), part.labels) for part in (train, test)))
    assert other.accuracy == pytest.approx(linear_probe(train, test).accuracy, abs=2 / 600)


@pytest.mark.parametrize("count", [100, 1000])
def test_the_penalty_is_that_of_half_the_squares_beside_a_mean_loss(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient of the stated objective vanishes at what is fitted, however many images there are."""
    from sklearn import linear_model

    fitted = []

    class Kept(linear_model.LogisticRegression):
        def fit(self, *args: Any, **kwargs: Any) -> Any:
            fitted.append(self)
            return super().fit(*args, **kwargs)

    monkeypatch.setattr(linear_model, "LogisticRegression", Kept)
    train = clusters(count, 3, 1.0)
    linear_probe(train, train, standardize=False)
    weight = torch.from_numpy(fitted[0].coef_).double().requires_grad_()
    bias = torch.from_numpy(fitted[0].intercept_).double()
    logits = (train.features - train.features.mean(0)).double() @ weight.T + bias
    penalty = module._PENALTY * weight.square().sum() / 2
    (torch.nn.functional.cross_entropy(logits, train.labels) + penalty).backward()
    assert weight.grad is not None
    assert weight.grad.abs().max() < 1e-3 < (module._PENALTY * weight).abs().max()


def test_the_penalty_is_chosen_on_the_validation_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few noisy images of many features: a strong penalty does best, and the weak ones are not tried."""
    train, validation, test = (clusters(n, 3, 1.5, dimensions=60) for n in (60, 2000, 2000))
    alone = []
    for penalty in PENALTIES:
        monkeypatch.setattr(module, "_PENALTY", penalty)
        alone.append(linear_probe(train, validation).accuracy)
    chosen = linear_probe(train, test, validation)
    assert chosen.penalty == PENALTIES[alone.index(max(alone))] == 0.1
    assert max(alone) > alone[-1] + 0.02


def test_it_draws_nothing_and_repeats() -> None:
    train, test = clusters(200, 3, 1.0), clusters(200, 3, 1.0)
    state = torch.random.get_rng_state()
    first = linear_probe(train, test, test)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert linear_probe(train, test, test) == first
