"""Ordinary and denoising autoencoders: errors by hand, what is given to them, what they cannot do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import genlab
from helpers.runs import metric_rows, plain_config, read_json
from helpers.vaes import images_of
from torch import Tensor, nn

from genlab import registry
from genlab.commands import train
from genlab.config.schema import from_plain
from genlab.data.spec import Batch, DataSpec
from genlab.errors import ConfigError
from genlab.families.autoencoder import AE, DAE, in_turn
from genlab.rng import SampleRng

GREY = DataSpec("digits", 1, 8, 8, levels=17, classes=10)
BINARY = DataSpec("mnist", 1, 8, 8, levels=2, binarization="dynamic")
COLOUR = DataSpec("cifar10", 3, 12, 10)


def make(name: str = "ae", spec: DataSpec = GREY, **settings: Any) -> Any:
    torch.manual_seed(0)
    kind = registry.look_up(registry.FAMILIES, name, "model")
    plain = {"name": name, "hidden": [24], "latent": 5, "width": 4} | settings
    return registry.family(from_plain(kind.Config, plain, "model"), spec)


class TestError:
    def test_of_a_gaussian_is_the_squared_difference_summed(self) -> None:
        family = make()
        images = torch.zeros(2, 1, 8, 8)
        outputs = torch.full((2, 1, 8, 8), -0.5)  # means of 0
        outputs[1, 0, 0, :2] = torch.tensor([0.5, 1.5])  # means of 1 and 2
        assert family.error(outputs, images).tolist() == [0, 5]

    def test_of_bernoulli_is_the_cross_entropy_summed(self) -> None:
        family = make(spec=BINARY)
        images = torch.zeros(2, 1, 8, 8)
        images[1] = 1
        outputs = torch.full((2, 1, 8, 8), math.log(3))  # probabilities of 3/4
        assert family.error(outputs, images).tolist() == pytest.approx(
            [64 * math.log(4), 64 * math.log(4 / 3)]
        )

    @pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
    def test_is_least_where_the_output_is_the_image(self, likelihood: str) -> None:
        family = make(likelihood=likelihood)
        images = torch.full((1, 1, 8, 8), 0.25)
        outputs = torch.zeros(1, 1, 8, 8, requires_grad=True)
        best = torch.full_like(outputs, math.log(1 / 3) if likelihood == "bernoulli" else -0.25)
        assert torch.allclose(family.images_of(best), images)
        (slope,) = torch.autograd.grad(family.error(outputs, images).sum(), outputs)
        assert (slope > 0).all()
        outputs = best.detach().requires_grad_()
        (slope,) = torch.autograd.grad(family.error(outputs, images).sum(), outputs)
        assert slope.abs().max() < 1e-6

    def test_is_averaged_over_images(self) -> None:
        family, images = make(), images_of()
        loss, metrics = family.loss(images, images)
        torch.testing.assert_close(loss, family.error(family.autoencoder(images), images).mean())
        assert metrics == {"squared_error": loss}


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("spec", [GREY, BINARY, COLOUR], ids=lambda spec: spec.name)
def test_an_image_goes_through_its_code(spec: DataSpec, network: str) -> None:
    family, images = make(spec=spec, network=network), images_of(spec)
    codes = family.encode(images)
    assert codes.shape == (6, 5)
    restored = family.decode(codes)
    assert restored.shape == images.shape
    assert restored.min() >= 0
    assert restored.max() <= 1
    torch.testing.assert_close(restored, family.images_of(family.autoencoder(images)))
    assert family.likelihood_name == ("bernoulli" if spec is BINARY else "gaussian")


@pytest.mark.parametrize("noise", ["gaussian", "masking", "salt_and_pepper"])
def test_the_encoder_sees_noise_and_the_loss_does_not(noise: str) -> None:
    family, images = make("dae", noise=noise, noise_level=0.5), images_of()
    given: list[tuple[Tensor, ...]] = []

    def update(player: str, loss: Any, *batch: Tensor) -> dict[str, Tensor]:
        given.append(batch)
        return loss(*batch)[1]

    torch.manual_seed(3)
    metrics = family.step(iter([Batch(images, None)]), update)
    ((clean, noisy),) = given
    assert torch.equal(clean, images)
    changed = (noisy != images).flatten(1).sum(1)
    assert (changed > (60 if noise == "gaussian" else 15)).all()
    expected = (images - 0.5 - family.autoencoder(noisy)).square().flatten(1).sum(1).mean()
    torch.testing.assert_close(metrics["squared_error"], expected)


def test_an_ordinary_autoencoder_sees_the_images_themselves() -> None:
    family, images = make(), images_of()
    given: list[tuple[Tensor, ...]] = []
    state = torch.get_rng_state()
    family.step(iter([Batch(images, None)]), lambda player, loss, *batch: given.append(batch) or {})
    assert given[0][1] is images
    assert torch.equal(torch.get_rng_state(), state)


def test_evaluation_takes_noise_from_each_image_s_own_stream() -> None:
    family, images = make("dae", noise="gaussian", noise_level=0.3), images_of()
    with torch.no_grad():
        together = family.evaluate(Batch(images, None), rng=SampleRng(0, range(6)))
        alone = family.evaluate(Batch(images[4:5], None), rng=SampleRng(0, [4]))
    assert set(together) == {
        "squared_error", "mean_squared_error", "denoising_mean_squared_error", "noisy_mean_squared_error",
    }  # fmt: skip
    for name, values in together.items():
        assert values.shape == (6,)
        torch.testing.assert_close(values[4:5], alone[name])
    restored = family.decode(family.encode(images))
    torch.testing.assert_close(
        together["mean_squared_error"], (restored - images).double().square().mean((1, 2, 3))
    )
    noisy = (images + 0.3 * SampleRng(0, range(6)).normal(1, 8, 8)).clamp(0, 1)
    torch.testing.assert_close(
        together["noisy_mean_squared_error"], (noisy - images).double().square().mean((1, 2, 3))
    )


def test_a_linear_one_rests_at_the_principal_components() -> None:
    """There its error is the variance outside their plane (Baldi and Hornik 1989)."""
    family = make(latent=2)
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(200, 64, generator=generator) * torch.linspace(1, 0.1, 64) * 0.1 + 0.5
    images = data.view(200, 1, 8, 8)
    mean = data.mean(0)
    _, singular, directions = torch.linalg.svd(data - mean, full_matrices=False)
    encoder, decoder = nn.Linear(64, 2), nn.Linear(2, 64)
    with torch.no_grad():
        encoder.weight.copy_(directions[:2])
        encoder.bias.copy_(-directions[:2] @ mean)
        decoder.weight.copy_(directions[:2].T)
        decoder.bias.copy_(mean - 0.5)
    family.autoencoder.encoder = nn.Sequential(nn.Flatten(), encoder)
    family.autoencoder.decoder = nn.Sequential(decoder, nn.Unflatten(1, (1, 8, 8)))
    loss, _ = family.loss(images, images)
    torch.testing.assert_close(loss, singular[2:].square().sum() / 200)
    slopes = torch.autograd.grad(loss, list(family.parameters()))
    assert max(slope.abs().max() for slope in slopes) < 1e-5


def test_a_sheet_has_whole_rows_of_each_version_in_turn() -> None:
    images = torch.arange(25.0).view(25, 1, 1, 1)
    sheet = in_turn(images, images + 100)
    assert sheet.shape == (4, 10, 1, 1, 1)
    assert sheet[:, 0].flatten().tolist() == [0, 100, 10, 110]
    assert in_turn(images[:3], images[:3]).shape == (2, 3, 1, 1, 1)


@pytest.mark.parametrize(
    ("name", "spec", "settings", "line"),
    [
        ("ae", DataSpec("ring", 2, 1, 1, levels=0, kind="points"), {}, "dataset=ring: ae takes images"),
        ("ae", DataSpec("tiny", 1, 6, 8), {"network": "conv"}, "model.network=conv: images of 6x8 pixels"),
        ("dae", GREY, {"noise_level": 1.5}, "model.noise_level=1.5: masking sets a share of the pixels"),
        ("dae", GREY, {"noise": "pepper"}, "model.noise=pepper: not one of gaussian, masking"),
        ("ae", GREY, {"noise": "masking"}, "model.noise: unknown key for ae"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(name: str, spec: DataSpec, settings: dict, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        make(name, spec, **settings)
    assert str(error.value).startswith(line)


@pytest.mark.parametrize("name", ["ae", "dae"])
def test_what_a_run_leaves_and_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain = plain_config(name, steps=2, sample_every=1, evaluate_every=2, sample_images=20)
    plain["model"] |= {"hidden": [16], "latent": 3}
    train.start(plain, [], "run")
    out = capsys.readouterr().out
    uses = [
        "genlab reconstruct ckpt=run",
        "genlab sample ckpt=run prior=fit",
        "genlab evaluate ckpt=run",
    ]
    if name == "dae":
        uses.insert(0, "genlab denoise ckpt=run")
    assert out.splitlines()[1:] == [f"next: {uses[0]}", *(f"      {use}" for use in uses[1:])]
    picture = "denoised.png" if name == "dae" else "reconstructions.png"
    files = {p.name for p in Path("run/samples").iterdir()}
    assert files == {"real.png", "step-00000001.png", "step-00000002.png", picture}
    lines = metric_rows("run")
    assert any("validation/mean_squared_error" in line for line in lines)


def test_without_a_prior_there_are_no_samples_until_one_is_fitted(capsys: pytest.CaptureFixture[str]) -> None:
    plain = plain_config("ae", steps=2, sample_every=0, evaluate_every=0)
    plain["model"] |= {"hidden": [16], "latent": 3}
    train.start(plain, [], "run")
    capsys.readouterr()
    genlab("sample", "ckpt=run", "run_dir=samples", code=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "genlab: ckpt=run: ae has no prior to draw from; add prior=fit, or see genlab reconstruct"
    )
    assert not Path("samples").exists()
    for verb, key in (("interpolate", "between=samples"), ("traverse", "around=sample")):
        genlab(verb, "ckpt=run", key, "device=cpu", code=2)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("genlab: ckpt=run: ae has no prior to draw from; use ")
    genlab("traverse", "ckpt=run", "steps=3", "run_dir=walk")
    facts = read_json("walk/traversal.json")
    assert facts["standard_deviations_of"] == "the codes of training images"
    assert facts["around"] == "the mean code of training images"


def test_both_are_of_one_kind() -> None:
    assert not AE.generates
    assert issubclass(DAE, AE)
    assert make().latent_prior is None
