"""Denoising autoencoders trained layer by layer: losses by hand, and whose turn it is, bit for bit."""

from __future__ import annotations

import copy
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import genlab
from helpers.runs import assert_same_run, metric_rows, plain_config, read_json
from helpers.vaes import images_of
from torch import Tensor
from torch.distributions import Bernoulli

from genlab import registry
from genlab.commands import train
from genlab.commands.next import after_training
from genlab.config.autoencoders import StackedDAEConfig
from genlab.config.run import (
    AdamConfig,
    AdamWConfig,
    ConstantConfig,
    CosineConfig,
    RMSpropConfig,
    ScheduleConfig,
    SGDConfig,
    TrainConfig,
    TrainerConfig,
    WarmupCosineConfig,
)
from genlab.config.schema import from_plain
from genlab.data.spec import Batch, DataSpec
from genlab.device import Processes
from genlab.errors import ConfigError
from genlab.families.stacked_dae import StackedDAE, filters
from genlab.rng import SampleRng
from genlab.runs import checkpoint
from genlab.training.update import Update

GREY = DataSpec("digits", 1, 8, 8, levels=17, classes=10)
TWO_PIXELS = DataSpec("two", 1, 1, 2)
ALONE = Processes(0, 1, torch.device("cpu"))


def make(spec: DataSpec = GREY, **settings: Any) -> StackedDAE:
    torch.manual_seed(0)
    plain = {"hidden": [24, 16, 8]} | settings
    return StackedDAE(from_plain(StackedDAEConfig, plain, "model"), spec)


def update_of(
    family: StackedDAE,
    optimizer: Any = None,
    schedule: ScheduleConfig | None = None,
    **trainer: Any,
) -> Update:
    config = TrainConfig(
        model=family.config,
        dataset=None,
        optimizer=optimizer or AdamWConfig(),
        schedule=schedule or ConstantConfig(),
        trainer=TrainerConfig(**trainer),
    )
    return Update(family, config, ALONE)


def set_weights(family: StackedDAE, layer: int, weight: list, bias: list, visible: list) -> None:
    linear: Any = family.stack.encoder.layers[layer]
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(weight))
        linear.bias.copy_(torch.tensor(bias))
        family.stack.biases[layer].copy_(torch.tensor(visible))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# The loss


def test_the_loss_of_the_first_layer_by_hand() -> None:
    family = make(TWO_PIXELS, hidden=[1])
    set_weights(family, 0, [[1.0, -2.0]], [0.5], [0.0, 0.25])
    inputs, spoiled = torch.tensor([[1.0, 0.5]]), torch.tensor([[1.0, 0.0]])
    code = sigmoid(1.5)
    first, second = sigmoid(code), sigmoid(-2 * code + 0.25)  # with the same weights, transposed
    expected = -math.log(first) - 0.5 * math.log(second) - 0.5 * math.log(1 - second)
    loss, metrics = family.loss(0, inputs, spoiled)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert metrics == {"layer1_cross_entropy_nats": loss}


def test_the_loss_of_a_relu_layer_above_the_first_by_hand() -> None:
    family = make(TWO_PIXELS, hidden=[2, 1], units="relu")
    set_weights(family, 1, [[2.0, -1.0]], [1.0], [0.5, -3.0])
    inputs, spoiled = torch.tensor([[3.0, 0.0]]), torch.tensor([[3.0, 0.5]])
    code = 2 * 3 - 0.5 + 1  # 6.5
    expected = (3 - (2 * code + 0.5)) ** 2 + (0 - (-code - 3)) ** 2
    loss, metrics = family.loss(1, inputs, spoiled)
    assert loss.item() == pytest.approx(expected)
    assert metrics == {"layer2_squared_error": loss}
    assert family.stack.inputs_of(1, torch.tensor([2.0, -1.0])).tolist() == [2, 0]  # as units can be


@pytest.mark.parametrize("units", ["sigmoid", "relu"])
def test_images_of_two_levels_are_given_back_with_the_probability_of_bernoulli(units: str) -> None:
    family = make(units=units)
    images = images_of().round().flatten(1)
    outputs = family.stack(0, images)
    expected = -Bernoulli(logits=outputs).log_prob(images).sum(1)
    torch.testing.assert_close(family.error(0, outputs, images), expected)


@pytest.mark.parametrize(("units", "layer"), [("sigmoid", 0), ("sigmoid", 2), ("relu", 0), ("relu", 2)])
def test_the_error_is_least_where_the_outputs_stand_for_the_inputs(units: str, layer: int) -> None:
    family = make(units=units)
    inputs = torch.full((1, 5), 0.25)
    best = torch.full((1, 5), math.log(1 / 3) if family.stack.bounded(layer) else 0.25)
    torch.testing.assert_close(family.stack.inputs_of(layer, best), inputs)
    outputs = best.requires_grad_()
    (slope,) = torch.autograd.grad(family.error(layer, outputs, inputs).sum(), outputs)
    assert slope.abs().max() < 1e-6


@pytest.mark.parametrize("units", ["sigmoid", "relu"])
def test_the_gradient_of_tied_weights_is_that_of_finite_differences(units: str) -> None:
    family = make(TWO_PIXELS, hidden=[3, 2], units=units).double()
    family.error = lambda layer, outputs, inputs: (  # type: ignore[method-assign] (in double precision)
        torch.nn.functional.binary_cross_entropy_with_logits(outputs, inputs, reduction="none").sum(1)
        if family.stack.bounded(layer)
        else (inputs - outputs).square().sum(1)
    )
    inputs = torch.rand(4, 3, dtype=torch.float64)
    weight: Any = family.stack.encoder.layers[1].weight
    (slope,) = torch.autograd.grad(family.loss(1, inputs, inputs * 0.5)[0], weight)
    for place in ((0, 0), (1, 2)):
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                weight[place] += step
                values.append(family.loss(1, inputs, inputs * 0.5)[0].item())
                weight[place] -= step
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(slope[place].item(), rel=1e-5)


# Whose turn it is


def test_each_layer_has_an_equal_share_of_the_run() -> None:
    family = make()
    assert [family.phase(step, 7)[0] for step in range(7)] == [0, 0, 0, 1, 1, 2, 2]
    for steps in (6, 300):
        shares = [family.phase(step * steps // 6, steps) for step in range(7)]
        assert shares == [(0, 0), (0, 0.5), (1, 0), (1, 0.5), (2, 0), (2, 0.5), (2, 1)]


@pytest.mark.parametrize("layers", [1, 3, 49])
def test_with_a_step_for_each_layer_none_is_left_out(layers: int) -> None:
    # 1 / 49 * 49 is below 1
    family = make(hidden=[2] * layers)
    assert [family.phase(step, layers) for step in range(layers)] == [(k, 0) for k in range(layers)]


def test_the_schedule_begins_anew_with_each_layer() -> None:
    update = update_of(make(), AdamConfig(lr=8), CosineConfig(), steps=12)
    rates = []
    for update.step in range(13):
        rates.append(update.learning_rate("stack"))
    turn = [8, 4 + 2 * math.sqrt(2), 4, 4 - 2 * math.sqrt(2)]
    assert rates == pytest.approx([*turn, *turn, *turn, 0])


def test_every_layer_warms_up_from_its_first_step_on() -> None:
    update = update_of(make(), AdamConfig(lr=8), WarmupCosineConfig(warmup=0.5), steps=12)
    rates = []
    for update.step in range(12):
        rates.append(update.learning_rate("stack"))
    assert rates == pytest.approx(3 * [4, 8, 8, 4])
    single = update_of(make(), AdamConfig(lr=8), WarmupCosineConfig(warmup=0.9), steps=3)
    for single.step in range(3):
        assert single.learning_rate("stack") == 8


OPTIMIZERS = {
    "adamw": AdamWConfig(weight_decay=0.5),
    "adam": AdamConfig(weight_decay=0.5, clip_grad_norm=0.1),
    "rmsprop": RMSpropConfig(momentum=0.9, weight_decay=0.5),
    "sgd": SGDConfig(lr=1e-3, weight_decay=0.5),
}


@pytest.mark.parametrize("units", ["sigmoid", "relu"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_layer_s_turn_leaves_the_others_and_their_moments_as_they_are_bit_for_bit(
    name: str, units: str
) -> None:
    family = make(units=units)
    update = update_of(family, OPTIMIZERS[name], steps=9, micro_batch_size=4)
    before: list[list[Any]] = []
    for update.step in range(9):
        if update.step % 3 == 0:
            before = [snapshot(family, update, layer) for layer in range(3)]
        family.step(iter([Batch(images_of(), None)]), update)
        for layer in range(3):
            now = snapshot(family, update, layer)
            same = [equal(a, b) for a, b in zip(now, before[layer], strict=True)]
            assert same == [layer != update.step // 3] * 6, (update.step, layer)


def snapshot(family: StackedDAE, update: Update, layer: int) -> list[Any]:
    """Copies of a layer's weights, and of what the optimizer keeps of each."""
    linear: Any = family.stack.encoder.layers[layer]
    parameters = [linear.weight, linear.bias, family.stack.biases[layer]]
    states = [update.optimizers["stack"].state[p] for p in parameters]
    return copy.deepcopy([p.detach() for p in parameters] + states)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return a == b


@pytest.mark.parametrize("noise", ["gaussian", "masking", "salt_and_pepper"])
def test_a_layer_is_given_the_clean_code_of_those_below_and_spoils_that_alone(noise: str) -> None:
    family, images = make(noise=noise, noise_level=0.5), images_of()
    update = update_of(family, steps=3)
    given: list[tuple[Tensor, ...]] = []

    class Recorder:
        step, steps = 0, 3

        def __call__(self, player: str, loss: Any, *batch: Tensor) -> Any:
            given.append(batch)
            return loss(*batch)[1]

    code = images.flatten(1)
    for layer in range(3):
        Recorder.step = layer
        metrics = family.step(iter([Batch(images, None)]), Recorder())  # type: ignore[arg-type]
        inputs, spoiled = given[-1]
        assert torch.equal(inputs, code)
        assert not inputs.requires_grad
        changed = (spoiled != inputs).sum(1)
        assert (
            (changed == code.shape[1]).all() if noise == "gaussian" else (changed <= code.shape[1] / 2).all()
        )
        assert (changed > code.shape[1] / 8).all()
        expected = family.error(layer, family.stack(layer, spoiled), inputs).mean()
        torch.testing.assert_close(list(metrics.values()), [expected])
        code = family.stack.encoder.one(layer, code).detach()
    assert update.steps == 3


# A run


def plain(**model: Any) -> dict[str, Any]:
    config = plain_config("stacked_dae", checkpoint_every=1, keep_checkpoints=20, sample_images=20)
    config["model"] |= {"hidden": [24, 16, 8]} | model
    return config


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train.start(plain(), [], str(tmp_path_factory.mktemp("stack") / "whole"))


@pytest.mark.parametrize("cut", [2, 4, 6, 11])
def test_a_run_cut_off_in_any_layer_s_turn_goes_on_bit_for_bit(whole: Path, cut: int) -> None:
    shutil.copytree(whole, "cut")
    for path in checkpoint.list_checkpoints(Path("cut/checkpoints")):
        if int(path.stem.removeprefix("step-")) > cut:
            path.unlink()
    assert checkpoint.find("cut")[1]["step"] == cut
    train.resume("cut", None, [])
    assert_same_run(whole, Path("cut"))


def test_a_run_s_weights_change_in_turn(whole: Path) -> None:
    weights = [
        checkpoint.load(whole / "checkpoints" / f"step-{step:08d}.pt")["weights"] for step in (4, 8, 12)
    ]
    for layer, (changed_before, changed_after) in enumerate([(False, False), (True, False), (False, True)]):
        for name in (f"encoder.layers.{layer}.weight", f"encoder.layers.{layer}.bias", f"biases.{layer}"):
            first, second, third = (w[f"stack.{name}"] for w in weights)
            assert torch.equal(first, second) != changed_before
            assert torch.equal(second, third) != changed_after


def test_what_a_run_leaves_and_says(own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.start(plain(units="relu"), [], "run")
    out = capsys.readouterr().out.splitlines()
    start = "model.hidden=[24,16,8] model.units=relu model.start=run"
    assert out[1] == f"next: genlab train model=classifier dataset=digits {start}"
    assert "      genlab reconstruct ckpt=run" in out
    files = {path.name for path in Path("run/samples").iterdir()}
    pictures = {"reconstructions.png", "filters.png", "step-00000006.png", "step-00000012.png"}
    assert files == {"real.png"} | pictures
    rows = metric_rows("run")
    logged = [{key for key in row if key.startswith("layer")} for row in rows if "learning_rate" in row]
    both = {"layer1_cross_entropy_nats", "layer2_squared_error"}
    assert logged == [both, {"layer2_squared_error", "layer3_squared_error"}, {"layer3_squared_error"}]
    for verb, more in (("reconstruct", "count=10"), ("denoise", "count=10"), ("sample", "prior=fit")):
        genlab(verb, "ckpt=run", more, "device=cpu", f"run_dir={verb}")
    assert len(list(Path("sample/images").iterdir())) == 64
    assert read_json("denoise/denoised.json")["noise"] == "masking"
    genlab("sample", "ckpt=run", code=2)
    capsys.readouterr()
    genlab("evaluate", "ckpt=run", "images=20")
    assert capsys.readouterr().out.splitlines()[-1] == "next: genlab reconstruct ckpt=run"


@pytest.mark.parametrize(("classes", "offered"), [(10, True), (1, False), (0, False)])
def test_a_classifier_is_offered_where_there_are_labels_to_learn(classes: int, offered: bool) -> None:
    lines = after_training(make(DataSpec("npz", 1, 8, 8, classes=classes)), Path("run"))
    assert any("model=classifier" in line for line in lines) == offered


@pytest.mark.parametrize("units", ["sigmoid", "relu"])
def test_a_code_goes_down_through_every_layer(units: str) -> None:
    family, images = make(units=units), images_of()
    with torch.no_grad():
        codes = family.encode(images)
        x = images.flatten(1)
        for layer in family.stack.encoder.layers:
            x = layer(x).sigmoid() if units == "sigmoid" else layer(x).relu()
        assert torch.equal(codes, x)
        for layer in (2, 1, 0):
            weight: Any = family.stack.encoder.layers[layer].weight
            x = x @ weight + family.stack.biases[layer]
            x = x.sigmoid() if units == "sigmoid" or layer == 0 else x.relu()
        restored = family.decode(codes)
    torch.testing.assert_close(restored, x.view(-1, 1, 8, 8))
    assert restored.min() >= 0
    assert restored.max() <= 1


def test_evaluation_says_what_each_layer_loses() -> None:
    family, images = make(), images_of()
    with torch.no_grad():
        values = family.evaluate(Batch(images, None), rng=SampleRng(0, range(6)))
        x = images.flatten(1)
        for layer in range(3):
            expected = family.error(layer, family.stack(layer, x), x)  # without noise
            torch.testing.assert_close(values[f"layer{layer + 1}_cross_entropy_nats"], expected)
            x = family.stack.encoder.one(layer, x)
        error = (family.decode(family.encode(images)) - images).double().square().mean((1, 2, 3))
        torch.testing.assert_close(values["layer3_mean_squared_error"], error)
        first = family.stack.inputs_of(0, family.stack(0, images.flatten(1))).view_as(images)
        error = (first - images).double().square().mean((1, 2, 3))
        torch.testing.assert_close(values["layer1_mean_squared_error"], error)
    assert len(values) == 6


def test_filters_are_a_sheet_of_the_first_units_with_0_in_the_middle() -> None:
    weight = torch.zeros(23, 2)
    weight[0] = torch.tensor([1.0, -2.0])
    weight[19] = torch.tensor([0.0, 3.0])
    weight[20:] = 9
    sheet = filters(weight, (1, 1, 2))
    assert sheet.shape == (2, 10, 1, 1, 2)
    assert sheet[0, 0].flatten().tolist() == [0.75, 0]
    assert sheet[1, 9].flatten().tolist() == [0.5, 1]
    assert (sheet.flatten(0, 1)[1:19] == 0.5).all()
    assert filters(torch.ones(230, 3), (3, 1, 1)).shape == (10, 10, 3, 1, 1)


def test_pictures_have_a_row_for_each_depth() -> None:
    family, images = make(), images_of(n=20)
    with torch.no_grad():
        pictures = family.pictures(Batch(images, None), rng=SampleRng(0, range(20)))
        restored = family.decode(family.encode(images))
    assert pictures["reconstructions"].shape == (8, 10, 1, 8, 8)
    assert torch.equal(pictures["reconstructions"][0], images[:10])
    torch.testing.assert_close(pictures["reconstructions"][7], restored[10:])


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"hidden": []}, "model.hidden=[]: give the units of at least one layer"),
        ({"hidden": [0]}, "model.hidden[0]=0: must be at least 1"),
        ({"noise_level": 1.5}, "model.noise_level=1.5: masking sets a share of the pixels"),
        ({"noise": "salt_and_pepper", "units": "relu"}, "model.noise=salt_and_pepper: relu units have no"),
    ],
)
def test_settings_that_cannot_be(settings: dict, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        make(**settings)
    assert str(error.value).startswith(line)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["trainer.steps=1"],
            "trainer.steps=1: the 2 layers of model.hidden are trained one after another; ",
        ),
        (["dataset=ring"], "dataset=ring: stacked_dae takes images; "),
    ],
)
def test_what_cannot_be_trained_is_a_line_before_anything_is_written(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    genlab("train", "model=stacked_dae", *words, "run_dir=run", code=2)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"genlab: {line}")
    assert not Path("run").exists()


def test_it_is_registered_as_a_model_without_a_prior() -> None:
    assert registry.look_up(registry.FAMILIES, "stacked_dae", "model") is StackedDAE
    assert not StackedDAE.generates
    assert make().latent_prior is None
