"""Configurations of a stranger's: nothing that they name is run, and none is too large to be refused."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from pathlib import Path

import pytest
from helpers.checkout import CHECKOUT, load_benchmark

from genlab import UserError, compose
from genlab.cli.main import main

refusals = load_benchmark("refusals")
OLD_RUN = CHECKOUT / "tests" / "old_runs_format_1"


@pytest.fixture(scope="module", autouse=True)
def hydra_is_imported() -> None:
    """The first command of a process imports Hydra, which is not what is timed here."""
    compose()


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
        "model.hidden=[" + "1," * 10_000 + "1]", "seed=sort(" + "9," * 9_000 + "1)", "seed=${oc.decode:'1'}",
        "seed=${" + "a." * 40_000 + "b}", "seed=" + "${model.latent}" * 5_000, "seed=range(nan,1)",
    ],
    ids=range(18),
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


def in_experiment(*defaults: str) -> str:
    return "# @package _global_\ndefaults:\n" + "".join(f"  - {each}\n" for each in defaults)


DEFAULTS = {
    "itself": {"e": in_experiment("e")},
    "a circle": {"e": in_experiment("f"), "f": in_experiment("g"), "g": in_experiment("/experiment/e")},
    "twice as many each time": {"e": in_experiment("a0")}
    | {f"a{k}": in_experiment(f"a{k + 1}", f"a{k + 1}@x{k}") for k in range(30)}
    | {"a30": in_experiment("_self_")},
    "pairs": {"e": in_experiment("a0")}
    | {f"{name}{k}": in_experiment(f"a{k + 1}", f"b{k + 1}") for k in range(30) for name in "ab"}
    | {f"{name}30": in_experiment("_self_") for name in "ab"},
    "a long chain": {"e": in_experiment("c0")}
    | {f"c{k}": in_experiment(f"c{k + 1}") for k in range(400)}
    | {"c400": in_experiment("_self_")},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_lists_that_do_not_end_are_refused(name: str, there: Path) -> None:
    files = {f"experiment/{stem}.yaml": text for stem, text in DEFAULTS[name].items()}
    for way in ([], ["--cfg", "job"], ["--info"], ["-m", "seed=0,1"]):
        assert "over 200 files" in refused("train", "--config-dir", "mine", "experiment=e", *way, files=files)


VAE = (CHECKOUT / "configs" / "model" / "vae.yaml").read_text()
ODD_FILES = {
    "utf-16": VAE.encode("utf-16"), "latin-1": b"# caf\xe9\n", "large": b"# " + b"x" * 5_000_000,
    "nul": b"\0",
    "control characters": b"# \x1b[31m red\nname: vae\n", "itself": b"defaults: [x]\n",
    "a circle": b"defaults: [y]\n", "an alias": b"name: &a [*a]\n", "a list": b"- a\n", "a word": b"hello\n",
    "a number": b"3\n", "a name that is a list": b"name: [a]\n", "a name that is a group": b"name: {a: b}\n",
    "no defaults": b"defaults:\n", "not YAML": b"name: [\n", "deep": b"[" * 5_000,
    "a date": b"name: 2020-13-45\n", "a tag": b"name: !!python/name:os.system\n",
    "defaults elsewhere": b"defaults: [/etc/hostname, ../../x]\n", "a list as a key": b"? [a]\n: b\n",
    "laughs": refusals.BOMBS["aliases"].encode(),
}  # fmt: skip
"""A file of a model: what is in it."""


def shown(capsys: pytest.CaptureFixture[str], *typed: str) -> tuple[int, str, str]:
    capsys.readouterr()
    start = time.process_time()
    code = main([*typed])
    assert time.process_time() - start < 1
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    return code, out, err


def look_at(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Asserts that a folder with a model x is listed, completed and explained, or refused in one line."""
    code, out, _ = shown(capsys, "list", "--config-dir", "mine")
    assert code == 0
    assert "gated_pixelcnn" in out
    for model in ("x", "y"):
        code, _, err = shown(capsys, "train", "--help", f"model={model}", "--config-dir", "mine")
        assert code in (0, 2)
        assert len(err.splitlines()) == (1 if code else 0)
        assert len(err) < 350  # of which the folder of a test has a good part
    for line in ("genlab train --config-dir mine model=", "genlab train --config-dir mine model=x model."):
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        assert shown(capsys, "-sc", "query=bash")[0] == 0


@pytest.mark.parametrize("name", ODD_FILES)
def test_odd_files_are_listed_and_explained(
    name: str, there: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (there / "mine" / "model").mkdir(parents=True)
    (there / "mine" / "model" / "x.yaml").write_bytes(ODD_FILES[name])
    (there / "mine" / "model" / "y.yaml").write_bytes(b"defaults: [x]\n")
    look_at(capsys, monkeypatch)


def test_what_is_no_file_is_no_option(
    there: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = there / "mine" / "model"
    folder.mkdir(parents=True)
    path = folder / "x.yaml"
    for make in (
        lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero"), lambda: path.symlink_to("nowhere"),
        lambda: path.symlink_to(path.name), path.mkdir,
    ):  # fmt: skip
        make()
        look_at(capsys, monkeypatch)
        code, _, err = shown(capsys, "train", "--config-dir", "mine", "model=x")
        assert code == 2
        assert "no such model" in err
        path.rmdir() if path.is_dir() else path.unlink()
    (folder / "\x1b[31m.yaml").write_text(VAE)
    look_at(capsys, monkeypatch)


def test_a_file_with_a_byte_order_mark_is_read(there: Path) -> None:
    (there / "mine" / "experiment").mkdir(parents=True)
    (there / "mine" / "experiment" / "e.yaml").write_text("\ufeff# @package _global_\r\nseed: 5\r\n")
    assert compose("--config-dir=mine", "experiment=e")["seed"] == 5
