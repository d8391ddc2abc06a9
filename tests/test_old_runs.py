"""Runs of an earlier layout load, sample, evaluate and go on.

`old_runs` holds one run folder of each branch, of 20 steps on digits, from when an optimizer had one group of
weights, the moving average a constant half-life, and its batch normalisation the raw weights' statistics.
`old_runs_format_1` holds others of the last version that wrote format 1.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.checkout import CHECKOUT
from helpers.command_line import genlab
from helpers.runs import read_json

from genlab import registry
from genlab.cli.main import main
from genlab.device import Processes
from genlab.errors import CheckpointError
from genlab.runs import checkpoint
from genlab.trained.model import load_model
from genlab.training.state import TrainingState

OLD_RUNS = CHECKOUT / "tests" / "old_runs"
NAMES = sorted(path.name for path in OLD_RUNS.iterdir() if path.is_dir())
LATER_RUNS = CHECKOUT / "tests" / "old_runs_format_1"
EVERY_RUN = sorted(
    f"{folder.name}/{path.name}"
    for folder in (OLD_RUNS, LATER_RUNS)
    for path in folder.iterdir()
    if path.is_dir()
)


@pytest.fixture
def old_runs(own_folder: Path) -> Path:
    """Copies of all, in the working folder: the prior over codes finds its model by a relative path."""
    shutil.copytree(OLD_RUNS, own_folder, dirs_exist_ok=True)
    return own_folder


@pytest.mark.parametrize("stored", EVERY_RUN)
def test_it_loads_samples_evaluates_and_goes_on(
    stored: str, old_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = Path(stored).name
    if stored.startswith(LATER_RUNS.name):
        shutil.rmtree(name, ignore_errors=True)
        shutil.copytree(LATER_RUNS / name, name)
    family = load_model(name, "auto", torch.device("cpu")).family
    if family.generates:
        genlab("sample", f"ckpt={name}", "n=2", "run_dir=sampled")
        assert len(list(Path("sampled/images").iterdir())) == 2
    genlab("evaluate", f"ckpt={name}", "run_dir=evaluated")
    numbers = read_json("evaluated/evaluation.json")
    assert all(math.isfinite(value) for value in numbers.values() if isinstance(value, float))
    genlab("resume", f"run={name}", "trainer.steps=24")
    assert "resuming from" in capsys.readouterr().err
    before = checkpoint.load(OLD_RUNS.parent / stored / "checkpoints/step-00000020.pt")
    after = checkpoint.find(name)[1]
    assert after["step"] == 24
    changed = {
        key for key in before["weights"] if not torch.equal(before["weights"][key], after["weights"][key])
    }
    assert {key.split(".")[0] for key in changed} == set(family.players)
    for player in family.sampled_by:
        assert after["averages"][player]["updates"] == before["averages"][player]["updates"] + 4


@pytest.mark.parametrize("name", NAMES)
def test_the_moments_of_its_optimizers_stay_with_their_weights(name: str, old_runs: Path) -> None:
    saved = checkpoint.find(name)[1]
    state = TrainingState(
        registry.train_config(saved["config"]), Processes(0, 1, torch.device("cpu")), new=False
    )
    state.restore(saved)
    for player, optimizer in state.update.optimizers.items():
        module, moments = state.family.get_submodule(player), saved["optimizers"][player]["state"]
        for i, (weight_name, weight) in enumerate(module.named_parameters()):  # the order they were saved in
            assert optimizer.state[weight].keys() == moments.get(i, {}).keys(), weight_name
            for kind, value in moments.get(i, {}).items():
                assert torch.equal(optimizer.state[weight][kind], value), (weight_name, kind)
        decayed, rest = optimizer.param_groups
        configured = state.update.settings(player).weight_decay
        assert (decayed["weight_decay"], rest["weight_decay"]) == (configured, 0)
        new = ("offset.per_pixel", "decoder.offset.value")
        later = [name for name, _ in module.named_parameters() if name in new]
        assert len(decayed["params"]) + len(rest["params"]) - len(later) == len(
            saved["optimizers"][player]["param_groups"][0]["params"]
        )


def test_a_checkpoint_passes_every_step_since_its_format(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A key that a later format renames is found by those who read checkpoints of any age."""
    path = shutil.copytree(OLD_RUNS / "vae", tmp_path / "vae") / "checkpoints/step-00000020.pt"
    content = path.read_bytes()
    stored = torch.load(path, weights_only=True)
    assert stored["format"] == 1
    assert "n_averaged" in stored["averages"]["vae"]
    assert checkpoint.load(path)["averages"]["vae"].keys() == {"updates", "weights"}

    def renamed(state: dict[str, Any]) -> dict[str, Any]:
        model = dict(state["config"]["model"])
        return state | {"config": state["config"] | {"model": model | {"codes": model.pop("latent")}}}

    monkeypatch.setattr(checkpoint, "FORMAT", 3)
    monkeypatch.setitem(checkpoint._STEPS, 2, renamed)
    state = checkpoint.load(path)
    assert (state["format"], state["averages"]["vae"]["updates"]) == (3, 20)
    assert state["config"]["model"]["codes"] == stored["config"]["model"]["latent"]
    assert path.read_bytes() == content


@pytest.mark.parametrize("number", [0, 3, 99, "2", None])
def test_a_format_that_is_not_known_is_refused_in_one_line(number: object, tmp_path: Path) -> None:
    state = checkpoint.load(OLD_RUNS / "vae/checkpoints/step-00000020.pt")
    path = checkpoint.save(tmp_path, state | {"format": number}, keep=1)
    with pytest.raises(CheckpointError, match=rf"format {number}, this genlab reads up to 2; upgrade genlab"):
        checkpoint.load(path)


def test_a_key_of_another_name_is_found_in_old_runs_and_named_in_a_command(
    old_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "opponent_hidden" in Path("gan/config.yaml").read_text()
    assert load_model("gan", "auto", torch.device("cpu")).config.model.discriminator_hidden
    assert main(["resume", "run=gan", "trainer.steps=21"]) == 0
    assert "discriminator_hidden" in Path("gan/config.yaml").read_text()
    assert main(["train", "model=gan", "model.opponent_hidden=[8]"]) == 2
    line = "model.opponent_hidden: unknown key for gan; its name is model.discriminator_hidden now"
    assert line in capsys.readouterr().err
