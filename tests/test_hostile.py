"""Configurations of a stranger's: nothing that they name is run, and none is too large to be refused."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest
from helpers.checkout import CHECKOUT, load_benchmark

from genlab import UserError, compose

refusals = load_benchmark("refusals")
OLD_RUN = CHECKOUT / "tests" / "old_runs_format_1"


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(*typed: str, files: dict[str, str] | None = None) -> str:
    """Returns the one line that refuses a command, which leaves nothing behind."""
    answer = refusals.answer(refusals.Case([*typed], files or {}))
    assert answer.fault is None, (typed, answer)
    return answer.err


@pytest.mark.parametrize("name", refusals.NODES)
def test_no_file_sets_anything_of_hydra_s(name: str, there: Path) -> None:
    ways = itertools.cycle([[], ["-m"], ["--cfg", "job"], ["--info"]])  # benchmarks/refusals.py takes all
    for files, typed in refusals.places(refusals.NODES[name]).values():
        assert "hydra" in refused("train", "--config-dir", "mine", *typed, *next(ways), files=files)
        if "--config-name" not in typed:
            with pytest.raises(UserError, match="hydra"):
                compose(f"--config-dir={there / 'mine'}", *typed)


@pytest.mark.parametrize("verb", ["sample", "evaluate", "encode", "resume"])
def test_no_other_command_takes_a_file_that_sets_something_of_hydra_s(verb: str, there: Path) -> None:
    (there / "run").mkdir()
    key = "run" if verb == "resume" else "ckpt"
    for node in refusals.NODES.values():
        text = refusals.file("", {"hydra": node})
        (there / "run" / "config.yaml").write_text(text)
        for way in ([], ["--config-name", "x"]):
            files = {f"{verb}.yaml": text, "x.yaml": text}
            line = refused(verb, "--config-dir", "mine", f"{key}=run", *way, files=files)
            assert "hydra" in line or "--config-name" in line


@pytest.mark.slow
def test_every_hostile_command_is_refused(there: Path) -> None:
    for case in refusals.hostile_files():
        assert refusals.answer(case).fault is None, case.words


@pytest.mark.parametrize("verb", ["train", "resume", "sample", "evaluate", "interpolate"])
def test_no_word_sets_anything_of_hydra_s(verb: str, there: Path) -> None:
    shutil.copytree(next(path for path in OLD_RUN.iterdir() if path.is_dir()), there / "run")
    where = {"train": [], "resume": ["run=run"]}.get(verb, ["ckpt=run"])
    for prefix, key, value in itertools.product(("", "+", "++", "~"), refusals.KEYS, refusals.VALUES):
        line = refused(verb, *where, f"{prefix}{key}={value}")
        assert "genlab takes no settings of Hydra's own" in line
    for key in ("model@hydra", "model@hydra.callbacks", "model@_global_.hydra", "+thing@hydra.x"):
        assert "hydra" in refused(verb, *where, f"{key}=vae")


@pytest.mark.parametrize("name", refusals.BOMBS)
def test_a_bomb_is_refused_in_a_second(name: str, there: Path) -> None:
    for path, typed in {
        "experiment/e.yaml": ["experiment=e"],
        "recipe/vae_mnist.yaml": ["dataset=mnist"],
        "train.yaml": [],
    }.items():
        files = {path: "# @package _global_\n" + refusals.BOMBS[name]}
        for way in ([], ["--cfg", "job"], ["-m", "seed=0,1"]):
            refused("train", "--config-dir", "mine", *typed, *way, files=files)
    (there / "run").mkdir()
    (there / "run" / "config.yaml").write_text(refusals.BOMBS[name])
    refused("resume", "run=run")


@pytest.mark.parametrize(
    "word",
    [
        "model.hidden=" + "[" * 5_000, "model.hidden=" + "[" * 500 + "]" * 500, "seed=" + "9" * 5_000,
        "model.hidden=" + "{a:" * 300 + "1" + "}" * 300, "a" * 5_000 + "=1", "run_dir=" + "x" * 5_000,
        "model." + "a." * 3_000 + "b=1", "seed=shuffle(range(0,1000000000))", "model.x=${model.x}",
        "model.latent=${oc.env:NOTHING_OF_THIS_NAME}", "model.latent=${nothing:1}", "seed=int(" * 300,
    ],
    ids=range(12),
)  # fmt: skip
def test_a_word_without_end_is_refused_in_a_second(word: str, there: Path) -> None:
    for way in ([], ["-m"], ["--cfg", "job"]):
        if not (word.startswith("run_dir") and way):
            refused("train", word, *way)


def test_files_outside_the_folders_are_not_read(there: Path) -> None:
    (there / "outside.yaml").write_text("seed: 5\n")
    for name in ("../../outside", str(there / "outside")):
        files = {"experiment/e.yaml": f"# @package _global_\ndefaults:\n  - {name}\n"}
        refused("train", "--config-dir", "mine", "experiment=e", "--cfg", "job", files=files)
