"""What a command offers to type next works, in folders of any name."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from helpers.checkout import config_names, narrowed
from helpers.command_line import genlab, on_cpu

from genlab import compose
from genlab.cli.main import main
from genlab.config.schema import typed

FOLDER = "a run, with = and 'quotes'"
QUICK = ("vae", "gan", "gated_pixelcnn", "dae")
SMALL = ["trainer.steps=2", "trainer.batch_size=8", "trainer.evaluate_images=20", "trainer.sample_images=4"]
FEWER = {
    "sample": ["n=4"], "complete": ["count=2"], "reconstruct": ["count=4"], "traverse": ["steps=3"],
    "interpolate": ["n=2", "steps=3"], "denoise": ["count=4"], "evaluate": [], "train": SMALL, "encode": [],
}  # fmt: skip


def offered(out: str) -> list[list[str]]:
    """Returns the commands after `next:` in what a command printed, as words without `genlab`."""
    lines = out[out.index("next: ") + len("next: ") :].splitlines() if "next: " in out else []
    return [shlex.split(line)[1:] for line in lines if line.strip().startswith("genlab ")]


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
        for name in config_names("model")
        if name != "autoregressive"  # stands for another
    ],
)
def test_what_is_offered_next_works(model: str, own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del own_folder
    dataset = "none" if model == "bilinear_game" else "digits"
    words = [f"model={model}", f"dataset={dataset}", *narrowed(model), *SMALL]
    genlab("train", *words, typed_in_python("run_dir", FOLDER))
    waiting, done = offered(capsys.readouterr().out), set()
    assert waiting
    while waiting:
        command = waiting.pop(0)
        kind = (command[0], *sorted(word.partition("=")[0] for word in command[1:]))
        if kind in done:
            continue
        done.add(kind)
        assert main([*on_cpu(*command), *FEWER[command[0]]]) == 0, command
        waiting += offered(capsys.readouterr().out)
    assert done


@pytest.mark.parametrize(
    "value", ["Müller/Büro (1)", "a=b", "a,b", "it's", "a b", "C:\\pictures\\", "50%", "a#b", "für 'x'"]
)
@pytest.mark.parametrize("key", ["run_dir", "dataset.root"])
def test_a_path_needs_no_quotes_but_the_shell_s(key: str, value: str) -> None:
    plain = compose("dataset=mnist", f"{key}={value}")
    assert (plain["run_dir"] if key == "run_dir" else plain["dataset"]["root"]) == value


def typed_in_python(key: str, value: str) -> str:
    """Returns the word as it reaches the program, after the shell has taken its quotes."""
    (word,) = shlex.split(typed(key, value))
    return word


@pytest.mark.parametrize(
    "value",
    [
        "runs/x", "a b", "a,b", "a=b", "it's", '"both" \'kinds\'', "back\\slash", "\\", 'a\\"b', "a\\\\",
        "[a]", "{a}", "é ü", "$x", "a;b", "#", "1e3", "12", "1.5", "null", "true", "NaN", "-inf",
        "20260101-1-vae",
    ],
)  # fmt: skip
def test_any_folder_s_name_is_typed_so_that_it_arrives(value: str) -> None:
    assert compose(typed_in_python("run_dir", value))["run_dir"] == value
