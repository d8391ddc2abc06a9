"""Configurations of a stranger's: nothing that they name is run, and none is too large to be refused."""

from __future__ import annotations

import itertools
import shutil
import time
from pathlib import Path

import pytest
import yaml
from helpers.checkout import CHECKOUT

from genlab import UserError, compose
from genlab.cli.main import main

OLD_RUN = CHECKOUT / "tests" / "old_runs_format_1"

TOUCH = {
    "call": {"_target_": "subprocess.call", "args": ["touch", "PWNED"], "_args_": [["touch", "PWNED"]]},
    "system": {"_target_": "os.system", "_args_": ["touch PWNED"]},
    "path": {"_target_": "pathlib.Path.touch", "_args_": [{"_target_": "pathlib.Path", "_args_": ["PWNED"]}]},
    "library": {"_target_": "torch.utils.collect_env.run", "command": "touch PWNED"},
}
HANDLER = {
    "version": 1,
    "handlers": {"x": {"()": "logging.FileHandler", "filename": "PWNED"}},
    "root": {"handlers": ["x"]},
}
NODES = {
    **{f"callbacks-{name}": {"callbacks": {"x": node}} for name, node in TOUCH.items()},
    "job_logging": {"job_logging": HANDLER},
    "hydra_logging": {"hydra_logging": HANDLER},
    "launcher": {"launcher": TOUCH["call"]},
    "sweeper": {"sweeper": TOUCH["call"], "mode": "MULTIRUN"},
    "searchpath": {"searchpath": ["/tmp"]},
    "run": {"run": {"dir": "PWNED"}, "output_subdir": "PWNED"},
}
"""What a file sets under `hydra`, and what would leave a trace if it were instantiated."""


def file(header: str, content: dict) -> str:
    return f"# @package {header}\n{yaml.safe_dump(content)}" if header else yaml.safe_dump(content)


VAE = yaml.safe_load((CHECKOUT / "configs" / "model" / "vae.yaml").read_text())


def places(node: dict) -> dict[str, tuple[dict[str, str], list[str]]]:
    """Where a file may set `hydra`: the files of the folder, and the words that make use of them."""
    under = {"hydra": node}
    group = {"thing/x.yaml": file("", node)}
    inner = {f"thing/{k}.yaml": file("", v) for k, v in node.items() if isinstance(v, dict)}
    first = next(iter(node))

    def defaults(*entries: object, header: str = "_global_") -> str:
        return file(header, {"defaults": list(entries)})

    return {
        "experiment": ({"experiment/e.yaml": file("_global_", under)}, ["experiment=e"]),
        "experiment below": ({"experiment/e.yaml": file("_global_.hydra", node)}, ["experiment=e"]),
        "experiment at": ({"experiment/e.yaml": file("hydra", node)}, ["experiment=e"]),
        "recipe": ({"recipe/vae_mnist.yaml": file("_global_", under)}, ["dataset=mnist"]),
        "recipe of its own": ({"recipe/vae_kmnist.yaml": file("_global_", under)}, ["dataset=kmnist"]),
        "sweep": ({"sweep/s.yaml": file("_global_", under)}, ["sweep=s"]),
        "model": ({"model/vae.yaml": file("_global_", {"model": VAE, **under})}, []),
        "model at hydra": ({"model/mine.yaml": file("hydra", node)}, ["model=mine"]),
        "model's part": ({"model/mine.yaml": file("hydra.callbacks", node)}, ["model=mine"]),
        "trainer": ({"trainer/t.yaml": file("_global_", under)}, ["trainer=t"]),
        "defaults at": (group | {"experiment/e.yaml": defaults({"/thing@hydra": "x"})}, ["experiment=e"]),
        "defaults global": (
            group | {"experiment/e.yaml": defaults({"/thing@_global_.hydra": "x"})},
            ["experiment=e"],
        ),
        "defaults here": (
            group | {"experiment/e.yaml": defaults({"/thing@_here_.hydra": "x"})},
            ["experiment=e"],
        ),
        "defaults group": (
            {f"hydra/{first}/x.yaml": file("", node[first] if isinstance(node[first], dict) else node)}
            | {"experiment/e.yaml": defaults({f"override /hydra/{first}": "x"})},
            ["experiment=e"],
        ),
        "defaults file": (
            {"hydra/own.yaml": file("hydra", node), "experiment/e.yaml": defaults("/hydra/own")},
            ["experiment=e"],
        ),
        "defaults part": (
            inner | {"experiment/e.yaml": defaults(*({f"/thing@hydra.{k}": k} for k in node))},
            ["experiment=e"],
        ),
        "group of a key": ({"thing/x.yaml": file("hydra", node)}, ["+thing=x"]),
        "word at": (group, ["+thing@hydra=x"]),
        "word below": (group, ["+thing@_global_.hydra=x"]),
        "hydra's group": ({f"hydra/{first}/x.yaml": file("", node)}, [f"hydra/{first}=x"]),
        "primary": (
            {"own.yaml": file("", {"defaults": ["train", "_self_"], **under})},
            ["--config-name", "own"],
        ),
        "primary's defaults": (
            {"own.yaml": file("", {"defaults": ["train", {"override hydra/launcher": "x"}]})},
            ["--config-name", "own"],
        ),
        "shipped primary": ({"train.yaml": file("", {"defaults": ["_self_"], **under})}, []),
        "key in two": (
            {"experiment/e.yaml": file("_global_", {"hydra": node["callbacks"]})},
            ["experiment=e"],
        )
        if "callbacks" in node
        else ({"experiment/e.yaml": file("_global_", under)}, ["experiment=e"]),
    }


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, files: dict[str, str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def answer(capsys: pytest.CaptureFixture[str], *typed: str) -> str:
    """Returns the one line that refuses a command, which leaves nothing behind."""
    before = {path for path in Path().rglob("*") if "mine" not in path.parts}
    capsys.readouterr()
    start = time.process_time()
    assert main([*typed]) == 2, typed
    seconds = time.process_time() - start
    line = capsys.readouterr().err.removesuffix("\n")
    assert "\n" not in line
    assert len(line) < 500
    assert {path for path in Path().rglob("*") if "mine" not in path.parts} == before
    assert seconds < 1
    return line


@pytest.mark.parametrize("name", NODES)
def test_no_file_sets_anything_of_hydra_s(name: str, there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place, (files, typed) in places(NODES[name]).items():
        write(there / "mine", files)
        for way in ([], ["-m"], ["--cfg", "job"], ["--info"]):
            line = answer(capsys, "train", "--config-dir", "mine", *typed, *way)
            assert "hydra" in line, (place, line)
        if "--config-name" not in typed:
            with pytest.raises(UserError, match="hydra"):
                compose("--config-dir=mine", *typed)


@pytest.mark.parametrize("verb", ["sample", "evaluate", "encode", "resume"])
def test_no_other_command_takes_a_file_that_sets_something_of_hydra_s(
    verb: str, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for node in NODES.values():
        write(
            there / "mine", {f"{verb}.yaml": file("", {"hydra": node}), "x.yaml": file("", {"hydra": node})}
        )
        (there / "run").mkdir(exist_ok=True)
        (there / "run" / "config.yaml").write_text(file("", {"hydra": node}))
        key = "run" if verb == "resume" else "ckpt"
        for way in ([], ["--config-name", "x"]):
            line = answer(capsys, verb, "--config-dir", "mine", f"{key}=run", *way)
            assert "hydra" in line or "--config-name" in line


KEYS = ("hydra.callbacks.x._target_", "hydra/launcher", "hydra.job_logging.root", "hydra", "hydra.run.dir")
VALUES = ("os.abort", "{_target_:os.abort}", "a,b", "{x:{_target_:os.system,_args_:['touch PWNED']}}")


@pytest.mark.parametrize("verb", ["train", "resume", "sample", "evaluate", "interpolate"])
def test_no_word_sets_anything_of_hydra_s(verb: str, there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(next(path for path in OLD_RUN.iterdir() if path.is_dir()), there / "run")
    where = {"train": [], "resume": ["run=run"]}.get(verb, ["ckpt=run"])
    for prefix, key, value in itertools.product(("", "+", "++", "~"), KEYS, VALUES):
        line = answer(capsys, verb, *where, f"{prefix}{key}={value}")
        assert "genlab takes no settings of Hydra's own" in line
    for key in ("model@hydra", "model@hydra.callbacks", "model@_global_.hydra", "+thing@hydra.x"):
        assert "hydra" in answer(capsys, verb, *where, f"{key}=vae")


def nested(levels: int) -> str:
    return "seed: " + "[" * levels + "]" * levels


def laughs(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, levels)]
    return "\n".join(lines)


BOMBS = {
    "deep": nested(5_000),
    "deep in blocks": "\n".join(" " * k + "a:" for k in range(3_000)),
    "deeper than settings": nested(60),
    "dashes": "- " * 100_000,
    "aliases": laughs(30),
    "aliases of groups": "b0: &b0 {x: 1}\n"
    + "\n".join(f"b{k}: &b{k} {{p: *b{k - 1}, q: *b{k - 1}}}" for k in range(1, 40)),
    "itself": "seed: &a [*a]",
    "merged": "a: &a {x: 1}\nb: &b {<<: *a, y: *a}\nseed: &c {<<: *b, z: *c}",
    "large": "seed: " + "9" * 2_000_000,
    "digits": "seed: " + "9" * 10_000,
    "references": "a0: xxxxxxxxxx\n" + "\n".join(f"a{k}: ${{a{k - 1}}}${{a{k - 1}}}" for k in range(1, 40)),
    "references to lists": "a0: [x, x]\n"
    + "\n".join(f"a{k}: ['${{a{k - 1}}}', '${{a{k - 1}}}']" for k in range(1, 40)),
    "reference to itself": "a: ${b}\nb: ${a}",
    "references inside": "a: ${${b}}\nb: a",
    "tags": "seed: !!python/object/apply:os.system ['touch PWNED']",
    "names": "seed: !!python/name:os.system",
    "nothing": "\0",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_a_second(name: str, there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, typed in {
        "experiment/e.yaml": ["experiment=e"],
        "recipe/vae_mnist.yaml": ["dataset=mnist"],
        "train.yaml": [],
    }.items():
        write(there / "mine", {path: "# @package _global_\n" + BOMBS[name]})
        for way in ([], ["--cfg", "job"], ["-m", "seed=0,1"]):
            answer(capsys, "train", "--config-dir", "mine", *typed, *way)
    (there / "run").mkdir()
    (there / "run" / "config.yaml").write_text(BOMBS[name])
    answer(capsys, "resume", "run=run")


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
def test_a_word_without_end_is_refused_in_a_second(
    word: str, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for way in ([], ["-m"], ["--cfg", "job"]):
        if not (word.startswith("run_dir") and way):
            answer(capsys, "train", word, *way)


def test_files_outside_the_folders_are_not_read(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(there, {"outside.yaml": "seed: 5\n"})
    for name in ("../../outside", str(there / "outside")):
        write(there / "mine", {"experiment/e.yaml": f"# @package _global_\ndefaults:\n  - {name}\n"})
        answer(capsys, "train", "--config-dir", "mine", "experiment=e", "--cfg", "job")
