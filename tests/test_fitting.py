"""A prior fitted to codes: its draws have its moments, its images are those of its latents."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.command_line import genlab, one_line
from helpers.pictures import samples
from helpers.runs import read_json

from genlab import registry
from genlab.commands import traverse
from genlab.report.pictures import to_uint8
from genlab.rng import SampleRng
from genlab.trained import fitted_prior
from genlab.trained.fitted_prior import FittedMixture
from genlab.trained.latent_space import latent_family
from genlab.trained.model import load_model

CPU = torch.device("cpu")


def test_draws_have_the_mixture_s_shares_and_moments() -> None:
    roots = torch.tensor([[[2.0, 0.0], [1.0, 0.5]], [[0.1, 0.0], [0.0, 0.1]]], dtype=torch.float64)
    means = torch.tensor([[0.0, 1.0], [50.0, 0.0]], dtype=torch.float64)
    mixture = FittedMixture(torch.tensor([0.3, 0.7], dtype=torch.float64), means, roots)
    drawn = mixture.draw(SampleRng(0, range(4000))).double()
    first = drawn[:, 0] < 25
    n = int(first.sum())
    assert abs(n - 1200) < 4 * math.sqrt(4000 * 0.21)
    covariance = roots[0] @ roots[0].T
    assert ((drawn[first].mean(0) - means[0]).abs() < 4 * (covariance.diag() / n).sqrt()).all()
    variances = (
        covariance.diag()[:, None] * covariance.diag() + covariance.square()
    )  # of a sample covariance, n times
    assert ((drawn[first].T.cov() - covariance).abs() < 4 * (variances / n).sqrt()).all()
    assert ((drawn[~first].mean(0) - means[1]).abs() < 4 * 0.1 / math.sqrt(4000 - n)).all()


def test_one_component_has_the_codes_mean_and_covariance() -> None:
    codes = torch.randn(300, 3, dtype=torch.float64) @ torch.randn(3, 3, dtype=torch.float64) + 5
    mixture = fitted_prior.fit(codes.float(), 1, seed=0)
    assert mixture.weights.tolist() == [1]
    torch.testing.assert_close(mixture.means[0], codes.mean(0), rtol=1e-5, atol=1e-5)
    covariance = codes.T.cov(correction=0) + 1e-6 * torch.eye(3)  # scikit-learn keeps it from being singular
    torch.testing.assert_close(mixture.roots[0] @ mixture.roots[0].T, covariance, rtol=1e-5, atol=1e-5)


def test_long_codes_are_fitted_in_their_principal_components() -> None:
    directions = torch.linalg.qr(torch.randn(200, 3, dtype=torch.float64)).Q.T
    codes = torch.randn(500, 3, dtype=torch.float64) * torch.tensor([3.0, 2.0, 1.0]) @ directions + 7
    mixture = fitted_prior.fit(codes.float(), 1, seed=0)
    assert mixture.means.shape == (1, 64)
    drawn = mixture.draw(SampleRng(0, range(4000))).double()
    assert drawn.shape == (4000, 200)
    beside = (drawn - 7) - (drawn - 7) @ directions.T @ directions
    assert beside.abs().max() < 0.02  # scikit-learn's least variance, 1e-6, in 64 directions
    variances = ((drawn - 7) @ directions.T).var(0)
    torch.testing.assert_close(variances, ((codes - 7) @ directions.T).var(0), rtol=0.1, atol=0)


@pytest.fixture(scope="module")
def ae(trained_run: Callable[..., str]) -> str:
    return trained_run("ae", hidden=[8], latent=3)


@pytest.fixture(scope="module")
def gan(trained_run: Callable[..., str]) -> str:
    return trained_run("gan", network="mlp")


def test_samples_of_a_model_without_a_prior(ae: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sample", f"ckpt={ae}", "prior=fit", "components=2", "npz=true"]
    genlab(*words, "n=5", "batch_size=2", "run_dir=few")
    assert "fitting 2 Gaussians to the codes of 1197 training images" in capsys.readouterr().err
    model = load_model(ae, "auto", CPU)
    _, batch = next(registry.dataset(model.config.dataset).evaluation_batches("train", 1197, 0))
    with torch.no_grad():
        latents = fitted_prior.fit(latent_family(model).encode(batch.images), 2, 0).draw(
            SampleRng(0, range(5))
        )
        expected = to_uint8(latent_family(model).decode(latents)).permute(0, 2, 3, 1).numpy()
    assert (np.abs(samples("few").astype(int) - expected) <= 2).all()
    genlab(*words, "n=3", "run_dir=fewer")
    assert (np.abs(samples("few")[:3].astype(int) - samples("fewer")) <= 1).all()
    facts = read_json("few/samples.json")
    assert (facts["prior"], facts["components"]) == ("Gaussians fitted to codes", 2)


def test_mistakes_of_fitting(ae: str, gan: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = one_line(capsys, "sample", f"ckpt={ae}", "prior=fit", "components=1198")
    assert line == "genlab: components=1198: there are 1197 training images; use fewer"
    line = one_line(capsys, "sample", f"ckpt={gan}", "prior=fit")
    assert line.startswith(f"genlab: ckpt={gan}: gan encodes no images; models that do: ae, ")
    line = one_line(capsys, "sample", f"ckpt={ae}", "prior=fitted")
    assert "did you mean prior=fit?" in line


@pytest.mark.parametrize(
    ("words", "given"), [("sample prior=fit components=1", "prior=fit: "), ("traverse", "ckpt=")]
)
def test_a_model_of_one_image_has_no_spread_of_codes(
    words: str, given: str, ae: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (fitted_prior, traverse):
        monkeypatch.setattr(module, "codes_of_training", lambda *_: (torch.zeros(1, 3), None))
    verb, *more = words.split()
    line = one_line(capsys, verb, f"ckpt={ae}", *more)
    assert line.startswith(f"genlab: {given}")
    assert "trained on one image: its codes have no spread" in line


def test_what_to_type_next_works(ae: str, capsys: pytest.CaptureFixture[str]) -> None:
    genlab("evaluate", f"ckpt={ae}", "images=5", "run_dir=numbers")
    assert capsys.readouterr().out.splitlines()[-1] == f"next: genlab sample ckpt={ae} prior=fit"
    short = ["trainer.steps=1", "trainer.batch_size=4", "trainer.evaluate_images=4", "trainer.device=cpu"]
    words = ["train", "-m", "model=ae", "model.hidden=[4]", "model.latent=2,3", *short, "run_dir=sweep"]
    genlab(*words)
    assert capsys.readouterr().out.splitlines()[-1] == "next: genlab sample ckpt=sweep/0 prior=fit"
