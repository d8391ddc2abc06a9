"""The command line: verbs, grammar, one line for each mistake, sweeps, resume, completion, help."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.checkout import CHECKOUT

from genlab import registry
from genlab.cli import completion, words
from genlab.cli import main as main_module
from genlab.cli.composing import Job, configs_folder
from genlab.cli.main import main
from genlab.cli.verbs import VERBS
from genlab.errors import ConfigError, DivergedError, Interrupted


@pytest.fixture
def performed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Job, str | None]]:
    """What the verbs were asked to do, instead of doing it."""
    calls: list[tuple[str, Job, str | None]] = []
    monkeypatch.setattr(main_module, "perform", lambda verb, job, run_dir: calls.append((verb, job, run_dir)))
    return calls


def plain_of(performed: list, *argv: str) -> dict[str, Any]:
    """The configuration that one command composes."""
    performed.clear()
    assert main(list(argv)) == 0
    (call,) = performed
    return call[1].plain


def python(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT), **environment}
    return subprocess.run([sys.executable, *argv], capture_output=True, text=True, env=env, timeout=120)


# Grammar


def test_defaults_recipe_and_command_line(performed: list) -> None:
    plain = plain_of(performed, "train")
    assert (plain["model"]["name"], plain["dataset"]["name"]) == ("vae", "digits")
    assert plain_of(performed, "train", "trainer.steps=7", "seed=3")["trainer"]["steps"] == 7
    assert performed[0][1].overrides == ["trainer.steps=7", "seed=3"]


def test_every_group_by_name(performed: list) -> None:
    argv = ["train", "model=vae", "dataset=mnist", "optimizer=adam", "schedule=warmup_cosine"]
    plain = plain_of(performed, *argv)
    names = [plain[group]["name"] for group in ("model", "dataset", "optimizer", "schedule")]
    assert names == ["vae", "mnist", "adam", "warmup_cosine"]
    registry.train_config({k: v for k, v in plain.items() if k != "run_dir"})


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("++model.latent=3", "model.latent", 3),
        ("model.latent=3", "model.latent", 3),
        ("optimizer.betas=[0.5,0.9]", "optimizer.betas", [0.5, 0.9]),
        ("optimizer.betas.0=0.5", "optimizer.betas", [0.5, 0.999]),
        ("dataset.root='a b'", "dataset.root", "a b"),
        ("dataset.root=/x/y-z_1.0", "dataset.root", "/x/y-z_1.0"),
        ("optimizer.players.vae.lr=2e-4", "optimizer.players", {"vae": {"lr": 2e-4}}),
        ("+optimizer.players.vae.lr=0.5", "optimizer.players", {"vae": {"lr": 0.5}}),
        ("trainer.evaluate_images=null", "trainer.evaluate_images", None),
        ("seed=${trainer.keep_checkpoints}", "seed", 3),
    ],
)
def test_words_as_hydra_takes_them(performed: list, word: str, key: str, value: Any) -> None:
    found: Any = plain_of(performed, "train", "optimizer=adam", "recipe=none", word)
    for part in key.split("."):
        found = found[part]
    assert found == value
    assert performed[0][1].overrides[-1] == word


def test_taking_a_key_away_leaves_its_default(performed: list) -> None:
    assert "latent" not in plain_of(performed, "train", "~model.latent")["model"]


FLAG_ORDERS = [
    ["-m", "train", "seed=0,1", "trainer.steps=2"],
    ["train", "-m", "seed=0,1", "trainer.steps=2"],
    ["train", "seed=0,1", "--multirun", "trainer.steps=2"],
    ["train", "seed=0,1", "trainer.steps=2", "-m"],
]


@pytest.mark.parametrize("argv", FLAG_ORDERS)
def test_flags_stand_anywhere(performed: list, argv: list[str]) -> None:
    assert main(argv) == 0
    assert [job.overrides for _, job, _ in performed] == [
        ["seed=0", "trainer.steps=2"],
        ["seed=1", "trainer.steps=2"],
    ]


@pytest.mark.parametrize(
    "argv",
    [
        ["train", "seed=5", "--cfg", "job", "trainer.steps=7"],
        ["--cfg=job", "train", "trainer.steps=7", "seed=5"],
        ["train", "-c", "job", "trainer.steps=7", "--resolve", "seed=5"],
    ],
)
def test_cfg_job_prints_what_passes_the_door(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert main(argv) == 0
    plain = yaml.safe_load(capsys.readouterr().out)
    assert plain.pop("run_dir") is None
    config = registry.train_config(plain)
    assert (config.trainer.steps, config.seed) == (7, 5)


def test_a_group_chosen_by_name_is_taken_as_it_stands(
    performed: list, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = plain_of(performed, "train")
    smoke = plain_of(performed, "train", "trainer=smoke", "trainer.batch_size=16")
    assert (recipe["trainer"]["steps"], smoke["trainer"]["steps"]) == (1300, 20)
    assert smoke["trainer"]["batch_size"] == 16
    assert (smoke["model"], smoke["optimizer"]) == (recipe["model"], recipe["optimizer"])
    sgd = plain_of(performed, "train", "optimizer=sgd", "experiment=vae_beta", "recipe=vae_digits")
    assert (sgd["optimizer"]["lr"], sgd["trainer"], sgd["model"]["beta"]) == (0.1, recipe["trainer"], 4.0)
    assert main(["train", "optimizer=sgd", "--cfg", "job", "--package", "optimizer"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == sgd["optimizer"]
    assert main(["train", "--cfg", "job", "--package", "optimiser"]) == 2
    performed.clear()
    assert main(["train", "-m", "optimizer=sgd,adam", "recipe=vae_digits,vae_mnist", "seed=1"]) == 0
    found = [(job.plain["optimizer"]["lr"], job.plain["trainer"]["steps"]) for _, job, _ in performed]
    assert found == [(0.1, 1300), (0.1, 15000), (1e-3, 1300), (1e-3, 15000)]


def test_what_was_typed_gives_way_to_no_model_s_own_optimizer(performed: list, tmp_path: Path) -> None:
    write_model(tmp_path, "my", "optimizer: sgd", "schedule: step")
    where = ["--config-dir", str(tmp_path / "mine")]
    plain = plain_of(performed, "train", "model=my", *where)
    assert (plain["optimizer"]["name"], plain["schedule"]["name"]) == ("sgd", "step")
    plain = plain_of(performed, "train", *where, "model=my", "optimizer=rmsprop")
    assert (plain["optimizer"]["name"], plain["schedule"]["name"]) == ("rmsprop", "step")


def write_model(folder: Path, name: str, *choices: str) -> None:
    """A user's own model file: the shipped VAE with another optimizer and schedule."""
    lines = [f"  - override /{c.split(':')[0]}@_global_.{c}" for c in choices]
    (folder / "mine" / "model").mkdir(parents=True)
    text = "\n".join(["# My own", "defaults:", "  - vae", *lines, "  - _self_", "latent: 5", ""])
    (folder / "mine" / "model" / f"{name}.yaml").write_text(text)


def test_a_folder_of_one_s_own(performed: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(tmp_path, "my")
    plain = plain_of(performed, "train", "--config-dir", "mine", "model=my")
    assert plain["model"]["latent"] == 5
    assert plain["model"]["name"] == "vae"
    assert main(["list", "--config-dir", "mine"]) == 0
    assert re.search(r"^  my +My own", capsys.readouterr().out, re.MULTILINE)


def test_experiment_over_recipe_and_command_line_over_both(performed: list, tmp_path: Path) -> None:
    write_model(tmp_path, "my")
    for file, lr in (("recipe/my_digits", 0.5), ("experiment/mine", 0.25)):
        path = tmp_path / "mine" / f"{file}.yaml"
        path.parent.mkdir()
        path.write_text(f"# @package _global_\noptimizer:\n  lr: {lr}\n")
    where = ["--config-dir", "mine", "model=my"]
    assert plain_of(performed, "train", *where)["optimizer"]["lr"] == 0.5
    assert plain_of(performed, "train", *where, "experiment=mine")["optimizer"]["lr"] == 0.25
    assert plain_of(performed, "train", *where, "experiment=mine", "optimizer.lr=1")["optimizer"]["lr"] == 1
    without = plain_of(performed, "train", *where, "recipe=none")["optimizer"]["lr"]
    assert without not in (0.5, 0.25)
    assert plain_of(performed, "train", *where, "recipe=null")["optimizer"]["lr"] == without
    assert (
        plain_of(performed, "train", *where, "recipe=null", "experiment=null")["optimizer"]["lr"] == without
    )


# Mistakes

MISTAKES = {
    "tran": "tran: no such command; did you mean train?",
    "seed=1": "missing command before seed=1",
    "train --mutirun": "did you mean --multirun?",
    "train --cfg": "--cfg: needs a value",
    "train --cfg jab": "not one of job",
    "train --cfg hydra": "not one of job",
    "train -m seed=range(0,100000)": "more than 10000 jobs",
    "train -m seed=range(0,100) model.latent=range(1,1000)": "more than 10000 jobs",
    "train -m optimizer.lr=interval(0,1)": "an interval has no list of values",
    "train sweep=vae_latent,unrolled_ring -m": "sweeps run one at a time",
    "train sweep.seed=0,1": "type seed=0,1 and -m instead",
    "train --config-dir nowhere": "no such folder",
    "train --config-name nowhere": "nowhere: no such configuration",
    "train --experimental-rerun=x.pickle": "no such flag",
    "train -m --cfg job": "--multirun: cannot be combined with --cfg",
    "train --resolve": "add --cfg job",
    "train model": "did you mean model=",
    "train model.latent = 3": "model.latent: expected key=value",
    "train =3": "=3: expected key=value",
    "train modle=vae": "modle=vae: unknown key for genlab train; did you mean model?",
    "train modle.latent=3": "modle: unknown key for genlab train; did you mean model?",
    "train model=vea": "model=vea: no such model; did you mean model=vae?",
    "train model=null": "model=null: no such model",
    "train model=3": "model=3: no such model",
    "train dataset=minst": "did you mean dataset=mnist?",
    "train optimizer=adm": "did you mean optimizer=adam",
    "train recipe=nothing_like_it": "recipe=nothing_like_it: no such recipe",
    "train recipe=null,none -m": "cannot be swept over",
    "train experiment=nothing_like_it": "no such experiment",
    "train ++model=vae": "++model=vae: choose a group without ++",
    "train +paper.name=x": "paper: unknown key for genlab train",
    "train dataset@other=mnist": "dataset@other",
    "train hydra/launcher=joblib": "hydra/launcher=joblib: genlab takes no settings of Hydra's own; a sweep",
    "train hydra.nothing=1": "hydra.nothing=1: genlab takes no settings of Hydra's own; leave it out",
    "train model.latnt=3": "model.latnt: unknown key for vae; did you mean model.latent?",
    "train +model.latent=3": "+model.latent: the key already exists; leave out the +",
    "train ~model.latnt": "~model.latnt: cannot delete: no such key",
    "train ~model": "model",
    "train model.latent=[1,2": "model.latent=[1,2: a bracket is not closed",
    "train trainer.device=a=b": "trainer.device=a=b: the value cannot be parsed; put it in two pairs",
    "train model.latent=1,2": "model.latent=1,2: several values; add -m",
    "train seed=range(1,3)": "add -m",
    "train hydra.job.name=a,b -m": "leave it out",
    "train hydra.run.dir=x": "run_dir=PATH",
    "train hydra.sweep.dir=x -m": "run_dir=PATH",
    "train hydra.mode=MULTIRUN seed=0,1": "add -m",
    "train dataset=folder dataset.path=": "dataset.path=: empty; give a path",
    "train run_dir=": "run_dir=: empty; give a path",
    "train seed=${sead}": "sead",
    "train model.latent=many": "model.latent=many: expected a whole number",
    "train model.latent=-1": "model.latent=-1: must be at least",
    "train trainer.steps=0": "trainer.steps=0: must be at least 1",
    "train trainer.steps.more=1": "trainer.steps",
    "train trainer.precision=fp16": "trainer.precision=fp16: not one of fp32, bf16",
    "train optimizer.players.critic.lr=1": "optimizer.players.critic: vae has no such player",
    "train optimizer.lr=0": "optimizer.lr=0.0: must be above 0",
    "train optimizer.betas=0.9": "expected a list",
    "train schedule.final=0.5 schedule=constant": "schedule.final: unknown key for constant",
    "train seed=-1": "seed=-1: must be at least 0",
    "train run_dir=a,b -m": "run_dir: one folder for a whole sweep",
    "sample": "ckpt: missing; add ckpt=...",
    "sample ckpt=nowhere": "nowhere",
    "sample ckpt=x n=0": "n=0: must be at least 1",
    "sample ckpt=x m=3": "m=3: unknown key for genlab sample",
    "sample ckpt=x model=vae": "takes the model from the checkpoint",
    "sample ckpt=x model.latent=3": "genlab sample takes the model from the checkpoint; leave it out",
    "sample ckpt=x trainer.device=cpu": "unknown key for genlab sample; did you mean device=cpu?",
    "train seed=0..2": "seed=0..2: expected a whole number; for several runs: -m seed=range(0,3)",
    "train optimizer.betas=[0.9]": "expected two numbers",
    "train optimizer.betas=[0.9,0.99,0.5]": "give at most 2",
    "train optimizer.players.vae.betas=[0.9]": "expected two numbers",
    "train optimizer=sgd optimizer.nesterov=true optimizer.momentum=0": "needs a momentum",
    "train schedule=step schedule.milestones=[0.9,0.5]": "schedule.milestones=[0.9,0.5]: must rise",
    "train trainer.device=cpu:7": "trainer.device=cpu:7: no such device",
    "train lr=1": "did you mean optimizer.lr=1?",
    "train batch_size=1": "did you mean trainer.batch_size=1?",
    "train epochs=3": "did you mean trainer.steps=3?",
    "train trainer.epochs=3": "did you mean trainer.steps?",
    "train latent=3": "did you mean model.latent=3?",
    "train output_dir=x": "did you mean run_dir=x?",
    "train --steps 5": "keys are typed without dashes: trainer.steps=5",
    "sample --ckpt x": "keys are typed without dashes: ckpt=x",
    "train --model=vae": "keys are typed without dashes: model=vae",
    "train model=VAE": "did you mean model=vae?",
    "train dataset=MNIST": "did you mean dataset=mnist?",
    "train model=dcgan": "did you mean model=gan?",
    "train model=pixelrnn": "did you mean model=row_lstm or model=diagonal_bilstm?",
    "train vae": "did you mean model=vae?",
    "train dataset.name=mnist": "did you mean dataset=mnist?",
    "train model=[vae]": "expected a name; for several, add -m and separate them by commas",
    "train recipe=nothing": "recipes; see genlab list recipes",
    "train trainer.steps = 5": "write trainer.steps=5, without blanks",
    "train run_dir=[a]": "expected the path of a folder",
    "list models vaes": "genlab list takes one word; leave it out",
    "completion bash zsh": "genlab completion takes one word; leave it out",
    "sample --help x": "genlab sample --help takes no further words",
    "train --help nothing": "nothing: expected key=value",
    "help": "did you mean genlab --help?",
    "resume run=x/checkpoints/step-00000020.pt": "resume goes on from the newest checkpoint; give run=x",
    "complete": "ckpt: missing; add ckpt=...",
    "complete ckpt=nowhere": "nowhere",
    "complete ckpt=x resample=0": "resample=0: must be at least 1",
    "complete ckpt=x resmple=3": "did you mean resample?",
    "complete ckpt=x dataset=mnist": "takes the dataset from the checkpoint",
    "reconstruct": "ckpt: missing; add ckpt=...",
    "reconstruct ckpt=x count=0": "count=0: must be at least 1",
    "reconstruct ckpt=x latent=3": "latent=3: unknown key for genlab reconstruct",
    "reconstruct ckpt=x dataset=mnist": "takes the dataset from the checkpoint",
    "encode": "ckpt: missing; add ckpt=...",
    "encode ckpt=x map=tnse": "map=tnse: not one of pca, tsne; did you mean map=tsne?",
    "encode ckpt=x model=vae": "takes the model from the checkpoint",
    "encode ckpt=x dataset=minst": "dataset=minst: no such dataset; did you mean dataset=mnist?",
    "encode ckpt=x dataset=null": "dataset=null: no such dataset; choices: binarized_mnist, ",
    "interpolate": "ckpt: missing; add ckpt=...",
    "interpolate ckpt=x steps=1": "steps=1: must be at least 2",
    "interpolate ckpt=x path=strait": "did you mean path=straight?",
    "interpolate ckpt=x between=image": "did you mean between=images?",
    "traverse": "ckpt: missing; add ckpt=...",
    "traverse ckpt=x range=0": "range=0.0: must be above 0",
    "traverse ckpt=x dimensions=3": "dimensions=3: expected a list, e.g. dimensions=[1,2]",
    "traverse ckpt=x around=sampel": "did you mean around=sample?",
    "denoise": "ckpt: missing; add ckpt=...",
    "denoise ckpt=x noise=gausian": "did you mean noise=gaussian?",
    "denoise ckpt=x level=-1": "level=-1.0: must be at least 0",
    "evaluate ckpt=x split=tset": "did you mean split=test?",
    "evaluate ckpt=x dataset=mnist": "takes the dataset from the checkpoint",
    "resume": "run: missing; add run=outputs/train/...",
    "resume run=nowhere": "run=nowhere: no such folder",
    "resume run=. -m": "--multirun",
    "resume run=.": "run=.: has no config.yaml",
    "completion": "bash, zsh, fish",
    "completion bsh": "bsh: no completion for this shell; did you mean bash?",
}


def test_two_words_in_one_pair_of_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "trainer.steps=5 seed=3"]) == 2
    assert "two words in one pair of quotes; close them before seed=3" in capsys.readouterr().err
    assert main(["train", "seed=3", "--cfg", "job", "model.likelihood='a b=c'"]) == 0


@pytest.mark.parametrize("group", ["experiment", "recipe", "sweep"])
def test_a_file_without_its_first_line_is_told_so(
    group: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine" / group).mkdir(parents=True)
    (tmp_path / "mine" / group / "x.yaml").write_text("trainer: {steps: 3}\n")
    assert main(["train", "--config-dir", "mine", f"{group}=x"]) == 2
    assert "its first line must be: # @package _global_" in capsys.readouterr().err


def test_the_folder_of_a_sweep_is_told_from_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    for number in ("0", "1", "10"):
        (Path("sweep") / number / "checkpoints").mkdir(parents=True)
        (Path("sweep") / number / "config.yaml").write_text("seed: 0\n")
    for verb, key in (("resume", "run"), ("sample", "ckpt"), ("evaluate", "ckpt")):
        assert main([verb, f"{key}=sweep"]) == 2
        line = capsys.readouterr().err
        assert line == f"genlab: {key}=sweep: holds 3 runs; give one of them, e.g. {key}=sweep/0\n"


@pytest.mark.parametrize(
    "typed",
    [
        "train -m seed=x,y",
        "train -m trainer.steps=0 seed=0,1",
        "sample -m ckpt=nowhere,gone",
        "train -m sweep=vae_latent trainer.stps=1",
    ],
)
def test_a_sweep_of_mistakes_alone_writes_nothing(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(typed.split()) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not Path("outputs").exists()


def test_run_and_ckpt_stand_for_each_other(performed: list) -> None:
    (Path("some_run") / "checkpoints").mkdir(parents=True)
    Path("some_run/config.yaml").write_text("trainer:\n  steps: 3\n")
    for inside in ("", "/checkpoints", "/checkpoints/latest"):
        assert main(["resume", f"ckpt=some_run{inside}"]) == 0
        assert performed[-1][1].plain["run"] == "some_run"
    assert main(["sample", "run=some_run"]) == 0
    assert performed[-1][1].plain["ckpt"] == "some_run"


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_gives_one_line_and_exit_code_2(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(typed.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("genlab: ")
    assert err.count("\n") == 1, err
    assert MISTAKES[typed] in err
    assert not Path("outputs").exists()


def test_a_broken_file_of_one_s_own_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "my.yaml").write_text("name: vae\nlatent: [1\n")
    assert main(["train", "--config-dir", "mine", "model=my"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "my.yaml" in err


def test_a_file_of_the_user_s_replaces_the_shipped_one_and_a_line_says_so(
    tmp_path: Path, performed: list, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = tmp_path / "mine" / "recipe"
    recipes.mkdir(parents=True)
    (recipes / "vae_mnist.yaml").write_text("# @package _global_\ntrainer:\n  steps: 77\n")
    (recipes / "gan_mnist.yaml").write_text("nothing: 1\n")  # not used by the command
    assert main(["train", "--config-dir", "mine", "dataset=mnist"]) == 0
    assert performed[-1][1].plain["trainer"]["steps"] == 77
    assert performed[-1][1].recipe == "vae_mnist"
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"genlab: {recipes / 'vae_mnist.yaml'} replaces the shipped recipe/vae_mnist.yaml"


def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GENLAB_TRACEBACK", "1")
    assert main(["train", "modle=vae"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2), (DivergedError("x"), 3), (Interrupted("x"), 75), (KeyboardInterrupt(), 130),
        (RuntimeError("x"), 1),
    ],
)  # fmt: skip
def test_exit_codes(monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(main_module, "perform", fail)
    assert main(["train"]) == code


# What the verbs are given


def test_each_verb_calls_its_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from genlab.commands import (
        complete,
        denoise,
        encode,
        evaluate,
        interpolate,
        reconstruct,
        sample,
        train,
        traverse,
    )

    calls: list[tuple] = []
    (Path("run") / "checkpoints").mkdir(parents=True)
    monkeypatch.setattr(train, "start", lambda *a: calls.append(("start", *a)))
    monkeypatch.setattr(train, "resume", lambda *a: calls.append(("resume", *a)))
    monkeypatch.setattr(sample, "main", lambda *a: calls.append(("sample", *a)))
    monkeypatch.setattr(complete, "main", lambda *a: calls.append(("complete", *a)))
    monkeypatch.setattr(reconstruct, "main", lambda *a: calls.append(("reconstruct", *a)))
    monkeypatch.setattr(encode, "main", lambda *a: calls.append(("encode", *a)))
    monkeypatch.setattr(interpolate, "main", lambda *a: calls.append(("interpolate", *a)))
    monkeypatch.setattr(traverse, "main", lambda *a: calls.append(("traverse", *a)))
    monkeypatch.setattr(denoise, "main", lambda *a: calls.append(("denoise", *a)))
    monkeypatch.setattr(evaluate, "main", lambda *a: calls.append(("evaluate", *a)))
    assert main(["train", "run_dir=here", "seed=2"]) == 0
    name, plain, overrides, run_dir, recipe = calls.pop()
    assert (name, overrides, run_dir) == ("start", ["run_dir=here", "seed=2"], "here")
    assert recipe == "vae_digits"
    assert "run_dir" not in plain
    registry.train_config(plain)
    assert main(["sample", "ckpt=run", "n=3", "labels=[1,2]"]) == 0
    name, plain = calls.pop()
    assert (plain["ckpt"], plain["n"], plain["labels"], plain["run_dir"]) == ("run", 3, [1, 2], None)
    assert main(["complete", "ckpt=run", "keep=left", "dataset.root=there"]) == 0
    name, plain = calls.pop()
    assert (name, plain["keep"], plain["dataset"]) == ("complete", "left", {"root": "there"})
    assert main(["reconstruct", "ckpt=run", "split=train", "dataset.root=there"]) == 0
    name, plain = calls.pop()
    assert (name, plain["split"], plain["dataset"]) == ("reconstruct", "train", {"root": "there"})
    assert main(["encode", "ckpt=run", "dataset.root=there", "dataset=mnist"]) == 0
    name, plain = calls.pop()
    assert (name, plain["map"], plain["dataset"]) == ("encode", "pca", {"root": "there", "name": "mnist"})
    assert main(["interpolate", "ckpt=run", "path=spherical"]) == 0
    name, plain = calls.pop()
    assert (name, plain["path"], plain["steps"]) == ("interpolate", "spherical", 10)
    assert main(["traverse", "ckpt=run", "dimensions=[0,3]"]) == 0
    name, plain = calls.pop()
    assert (name, plain["dimensions"], plain["range"]) == ("traverse", [0, 3], 3.0)
    assert main(["denoise", "ckpt=run", "noise=masking"]) == 0
    name, plain = calls.pop()
    assert (name, plain["noise"], plain["level"]) == ("denoise", "masking", None)
    assert main(["evaluate", "ckpt=run", "dataset.root=there", "run_dir=here"]) == 0
    name, plain = calls.pop()
    assert (name, plain["dataset"], plain["run_dir"]) == ("evaluate", {"root": "there"}, "here")


def test_resume_gives_the_stored_configuration_with_changes(
    monkeypatch: pytest.MonkeyPatch, performed: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = plain_of(performed, "train", "trainer.steps=5", "optimizer.lr=1e-05")
    stored.pop("run_dir")
    (tmp_path / "run 1").mkdir()
    (tmp_path / "run 1" / "config.yaml").write_text(yaml.safe_dump(stored))
    from genlab.commands import train

    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    calls: list[tuple] = []
    monkeypatch.setattr(train, "resume", lambda *a: calls.append(a))
    assert main(["resume", "run=run 1", "trainer.steps=20000"]) == 0
    run, plain, overrides = calls.pop()
    assert (run, overrides) == ("run 1", ["trainer.steps=20000"])
    assert plain == stored | {"trainer": stored["trainer"] | {"steps": 20000}}
    assert main(["--cfg", "job", "resume", "run=run 1"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == stored
    assert main(["resume", "run=run 1", "optimizer=sgd"]) == 2
    assert "a resumed run keeps its optimizer" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["hydra:\n  callbacks:\n    x:\n      _target_: os.abort\n", "- 1\n", "a: [", "\0"]
)
def test_resume_takes_nothing_but_a_run_s_settings(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("run").mkdir()
    Path("run/config.yaml").write_text(text)
    assert main(["resume", "run=run"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "run=run: its config.yaml" in err


# Sweeps


def test_a_sweep_gives_each_job_a_folder_and_ends_with_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def perform(verb: str, job: Job, run_dir: str | None) -> None:
        seen.append((job.plain["model"]["latent"], job.plain["seed"], run_dir))
        if job.plain["seed"] == 1:
            raise DivergedError("loss: not finite")
        if job.plain["model"]["latent"] == 8:
            raise ConfigError("model.latent=8: too many")

    monkeypatch.setattr(main_module, "perform", perform)
    assert main(["train", "-m", "model=vae", "model.latent=2,8", "seed=0,1", "run_dir=all"]) == 3
    expected = [(2, 0), (2, 1), (8, 0), (8, 1)]
    assert seen == [(latent, seed, f"all/{k}") for k, (latent, seed) in enumerate(expected)]
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["job", "overrides", "run", "folder", "status"]
    assert table[1].split() == ["0", "model=vae", "model.latent=2", "seed=0", "all/0", "done"]
    assert table[2].endswith("all/1       diverged")
    assert table[3].endswith("all/2       failed: model.latent=8: too many")
    assert table[-2:] == [
        "wrote all: summary.csv, and a folder for each job",
        "next: genlab sample ckpt=all/0",
    ]
    assert sorted(p.name for p in Path().iterdir()) == ["all"]  # nothing of Hydra's


def test_a_sweep_without_run_dir_has_a_folder_of_its_own(performed: list) -> None:
    for _ in range(2):
        assert main(["train", "-m", "seed=0,1"]) == 0
    folders = [Path(str(run_dir)) for _, _, run_dir in performed]
    assert len(set(folders)) == 4
    assert [f.name for f in folders] == ["0", "1", "0", "1"]
    assert all(f.parts[:2] == ("outputs", "train") and "=" not in str(f) for f in folders)


def test_an_interrupted_sweep_stops(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def perform(verb: str, job: Job, run_dir: str | None) -> None:
        if job.plain["seed"] == 1:
            raise Interrupted("stopped by SIGTERM")

    monkeypatch.setattr(main_module, "perform", perform)
    assert main(["train", "-m", "seed=0,1,2"]) == 75
    states = [line.rsplit("  ", 1)[-1].strip() for line in capsys.readouterr().out.splitlines()[1:4]]
    assert states == ["done", "interrupted", "not started"]


def test_a_sweep_s_file_sweeps_by_itself_and_gives_way(performed: list) -> None:
    assert main(["train", "sweep=vae_latent", "seed=0"]) == 0
    assert [job.plain["model"]["latent"] for _, job, _ in performed] == [2, 4, 8, 16, 32, 64]
    performed.clear()
    assert main(["train", "sweep=vae_latent", "model.latent=4"]) == 0
    assert [(job.plain["model"]["latent"], job.plain["seed"]) for _, job, _ in performed] == [(4, 0), (4, 1)]
    assert sorted(performed[0][1].overrides) == ["model.latent=4", "seed=0", "sweep=vae_latent"]


@pytest.mark.parametrize(
    "values",
    [
        "model.latent: [2, 4]\n  seed: 0,1\n",
        "model: {latent: [2, 4]}\n  seed: range(0,2)\n",
        "++model.latent: [2, 4]\n  seed: [0, 1]\n",
    ],
)
def test_a_file_s_key_sweep_in_all_its_forms(values: str, tmp_path: Path, performed: list) -> None:
    (tmp_path / "mine" / "sweep").mkdir(parents=True)
    (tmp_path / "mine" / "sweep" / "both.yaml").write_text(f"# @package _global_\nsweep:\n  {values}")
    assert main(["train", "--config-dir", "mine", "sweep=both"]) == 0
    found = [(job.plain["model"]["latent"], job.plain["seed"]) for _, job, _ in performed]
    assert found == [(2, 0), (2, 1), (4, 0), (4, 1)]


def test_words_in_the_values_of_a_sweep_are_quoted(tmp_path: Path, performed: list) -> None:
    (tmp_path / "mine" / "sweep").mkdir(parents=True)
    paths = "sweep:\n  dataset.path: ['a, b', \"c'd\", e]\n"
    text = f"# @package _global_\ndefaults:\n  - override /dataset: folder\n{paths}"
    (tmp_path / "mine" / "sweep" / "paths.yaml").write_text(text)
    for name in ("a, b", "c'd", "e"):
        Path(name).mkdir()
    assert main(["train", "--config-dir", "mine", "sweep=paths"]) == 0
    assert [job.plain["dataset"]["path"] for _, job, _ in performed] == ["a, b", "c'd", "e"]


def test_no_sweep_in_a_group_of_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "-m", "seed=0,1"]) == 2
    assert "start torchrun separately for each job" in capsys.readouterr().err


# Help, list, completion, imports

WITHOUT_TORCH = [
    [], ["--help"], ["train", "--help"], ["-h", "sample"], ["list"], ["completion", "bash"], ["--version"],
    ["tran"], ["train", "modle=vae"], ["train", "--cfg", "job"], ["sample"], ["complete", "ckpt=x", "n=0"],
    ["traverse", "ckpt=x", "steps=1"], ["encode", "ckpt=x", "dataset=minst"], ["list", "recipes"],
    ["train", "--help", "model=vqvae"], ["train", "+model.latnt=3"], ["train", "model=gan", "model.latent=0"],
    ["train", "model=pixelcnn", "model.kernel=4"], ["train", "dataset.size=x"], ["train", "dataset=folder"],
    ["train", "optimizer.lr=-1"], ["train", "schedule.final=2"], ["train", "trainer.steps=0"],
    ["train", "recipe=vae_dgits"], ["train", "-m", "sweep=vae_latnt"], ["train", "run_dir=/"],
    ["train", "dataset=folder", "dataset.path=nowhere"], ["train", "dataset=npz", "dataset.path=nowhere"],
    ["train", "model=pixelcnn", "dataset=codes", "dataset.ckpt=nowhere"],
    ["resume", "run=nowhere"], ["sample", "ckpt=nowhere"], ["evaluate", "ckpt=/", "run_dir=/"],
]  # fmt: skip


@pytest.mark.parametrize("argv", WITHOUT_TORCH, ids=" ".join)
def test_answers_without_torch(argv: list[str]) -> None:
    """What needs no torch, mistakes above all, is answered without its seconds and hundreds of megabytes."""
    code = f"import sys; from genlab.cli.main import main; main({argv!r}); sys.exit('torch' in sys.modules)"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", words.VERBS)
def test_help_pages_teach(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    page = capsys.readouterr().out
    assert page.count(f"\n  genlab {verb}") >= 2 or "eval" in page
    assert "exit codes: 0 success, 2" in page
    assert max(map(len, page.splitlines())) <= 120
    if verb == "train":
        assert "model=        vae" in page
        assert "dataset=      digits, " in page


def test_list_names_everything_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    folder = configs_folder()
    for group in ("model", "dataset", "optimizer", "schedule", "recipe", "experiment"):
        for file in (folder / group).glob("*.yaml"):
            assert any(line.split()[:1] == [file.stem] and len(line.split()) > 2 for line in lines), file


@pytest.mark.parametrize(
    ("line", "some", "none"),
    [
        ("genlab tr", ["train"], ["sample"]),
        ("genlab ", ["train", "resume", "sample"], ["model="]),
        ("genlab train mod", ["model=", "model."], ["train"]),
        ("genlab train model=", ["model=vae"], ["model=digits"]),
        ("genlab train model=v", ["model=vae"], []),
        ("genlab train model=vae model.la", ["model.latent="], ["model.name="]),
        ("genlab train -m dataset=mnist trainer.st", ["trainer.steps="], []),
        ("genlab train trainer.steps=3 -m optimizer=adam", ["optimizer=adam", "optimizer=adamw"], []),
        ("/usr/bin/genlab train schedule=war", ["schedule=warmup_cosine"], []),
        ("python -m genlab train schedule=war", ["schedule=warmup_cosine"], []),
        ("genlab train ", ["model=", "dataset=", "seed="], ["hydra/", "hydra."]),
        ("genlab train --mu", ["--multirun"], []),
        ("genlab train --cfg ", ["job"], ["model="]),
        ("genlab sample c", ["ckpt="], []),
        ("genlab sample ", ["ckpt=", "n="], ["model=", "dataset="]),
        ("genlab sample ckpt=so", ["ckpt=some_run/"], []),
        ("genlab complete ", ["ckpt=", "keep="], ["model=", "dataset="]),
        ("genlab complete images=so", ["images=some_run/"], []),
        ("genlab complete keep=", ["keep=top", "keep=left", "keep=some_run/"], []),
        ("genlab reconstruct ", ["ckpt=", "images="], ["model=", "dataset="]),
        ("genlab reconstruct images=so", ["images=some_run/"], []),
        ("genlab encode ", ["ckpt=", "map=", "dataset="], ["model="]),
        ("genlab encode dataset=m", ["dataset=mnist"], ["dataset=digits"]),
        ("genlab encode images=so", ["images=some_run/"], []),
        ("genlab interpolate ", ["ckpt=", "between=", "path="], ["model=", "dataset="]),
        ("genlab interpolate images=so", ["images=some_run/"], []),
        ("genlab traverse ", ["ckpt=", "dimensions=", "around="], ["model=", "dataset="]),
        ("genlab traverse images=so", ["images=some_run/"], []),
        ("genlab denoise ", ["ckpt=", "noise=", "level="], ["model=", "dataset="]),
        ("genlab denoise images=so", ["images=some_run/"], []),
        ("genlab resume ", ["run="], ["model="]),
        ("genlab resume run=some_run trainer.st", ["trainer.steps="], []),
        ("genlab completion ", ["bash", "zsh", "fish"], []),
        ("genlab train modle=vae model.la", [], ["model.latent="]),
    ],
)
def test_completion(
    line: str, some: list[str], none: list[str],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    Path("some_run").mkdir()
    Path("some_run/config.yaml").write_text("trainer:\n  steps: 3\n")
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    assert main(["-sc", "query=bash"]) == 0
    out, err = capsys.readouterr()
    assert set(some) <= set(out.split())
    assert not set(none) & set(out.split())
    assert err == ""


def test_completion_reads_up_to_the_cursor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", "genlab trai model=vae")
    monkeypatch.setenv("COMP_POINT", "11")
    assert main(["-sc", "query=fish"]) == 0
    assert capsys.readouterr().out.split() == ["train"]


@pytest.mark.parametrize("breaks", ["= \n", " \n"])
def test_bash_completes_with_the_script(tmp_path: Path, breaks: str) -> None:
    """Bash itself evaluates the script and is asked for the words after `genlab train optimizer=ad`."""
    fake = tmp_path / "genlab"
    fake.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m genlab "$@"\n')
    fake.chmod(0o755)
    line = "genlab train optimizer=ad"
    test = f"""
        {completion.script("bash")}
        compopt() {{ :; }}
        COMP_WORDBREAKS=$'{breaks.replace(chr(10), chr(92) + "n")}' COMP_LINE='{line}' COMP_POINT={len(line)}
        _genlab_complete
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", test], capture_output=True, text=True, env=env, timeout=120)
    before = "" if "=" in breaks else "optimizer="
    assert done.stdout.split() == [f"{before}adam", f"{before}adamw"], done.stderr


def test_help_lists_the_settings_of_what_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help", "model=vae", "optimizer=gan_adam"]) == 0
    out = capsys.readouterr().out
    assert "model=vae: Variational autoencoder" in out
    assert re.search(r"^  model\.latent=16 +dimensions of the latent; at least 1$", out, re.MULTILINE)
    assert re.search(
        r"^  model\.posterior=diagonal +covariance of an image's latent: diagonal or full$", out, re.MULTILINE
    )
    assert "optimizer.clip_grad_norm=" in out
    assert main(["train", "--help", "model=vea"]) == 2
    assert capsys.readouterr().err == "genlab: model=vea: no such model; did you mean model=vae?\n"


@pytest.mark.parametrize("verb", [verb for verb, row in VERBS.items() if row.config])
def test_a_page_has_every_setting_of_its_verb(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 112
    for each in VERBS[verb].settings:
        assert each.help
        assert sum(line.startswith(f"  {each.key}=") for line in lines) == 1


def test_one_group_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("sweeps", "sweep"):
        assert main(["list", word]) == 0
        out = capsys.readouterr().out
        assert "vae_latent" in out
        assert "models" not in out
    assert main(["list", "recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    columns = {
        len(line) - len(line[2:].lstrip("abcdefghijklmnopqrstuvwxyz0123456789_").lstrip()) for line in lines
    }
    assert len(columns) == 1  # where the descriptions begin
    assert main(["list", "modls"]) == 2
    assert capsys.readouterr().err == "genlab: modls: no such group; did you mean models?\n"


def test_as_a_module(tmp_path: Path) -> None:
    done = python("-m", "genlab", "train", "modle=vae")
    assert done.returncode == 2
    assert done.stderr.startswith("genlab: modle=vae")


def test_a_reader_that_has_seen_enough_gets_no_traceback() -> None:
    listing = subprocess.Popen(
        [sys.executable, "-u", "-m", "genlab", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert listing.stdout is not None
    listing.stdout.close()  # before a word was written
    _, errors = listing.communicate(timeout=60)
    assert errors == b""
    assert listing.returncode == 141


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("model=vae", "recipe vae_digits; recipe=none leaves it out"),
        ("model=gan recipe=gan_mnist", "recipe gan_mnist;"),
        ("model=vae recipe=none", None),
        ("model=vae dataset=two_moons", None),  # it has no recipe
    ],
)
def test_the_recipe_that_was_chosen_is_in_the_log(typed: str, line: str | None) -> None:
    short = ["trainer.steps=1", "trainer.batch_size=8", "trainer.device=cpu", "run_dir=run"]
    assert main(["train", *typed.split(), *short]) == 0
    text = Path("run/train.log").read_text()
    assert (line in text) if line else ("recipe" not in text)


PRINTING = (["--version"], ["--help"], ["list"], ["train", "--help"], ["train", "--cfg", "job"],
            ["train", "--info"], ["completion", "bash"])  # fmt: skip


@pytest.mark.parametrize("typed", PRINTING, ids=" ".join)
def test_output_that_cannot_be_written_gets_one_line(typed: list[str]) -> None:
    with open("/dev/full", "w") as full:
        found = subprocess.run(
            [sys.executable, "-m", "genlab", *typed], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert found.returncode == 2
    assert found.stderr == "genlab: output: cannot be written (No space left on device); make room\n"


@pytest.mark.parametrize(
    "setting", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_an_output_of_another_encoding_gets_what_it_can_show(
    setting: dict[str, str], own_folder: Path
) -> None:
    (own_folder / "mine" / "model").mkdir(parents=True)
    (own_folder / "mine" / "model" / "bü.yaml").write_text("# ein Modell für 日本\nname: vae\n")
    line = "genlab train --config-dir mine model="
    environment = {**os.environ, **setting, "COMP_LINE": line, "COMP_POINT": str(len(line))}
    for typed in (["list", "--config-dir", "mine"], ["-sc", "query=bash"], ["train", "--help"]):
        found = subprocess.run([sys.executable, "-m", "genlab", *typed], env=environment, capture_output=True)
        assert (found.returncode, found.stderr) == (0, b""), typed
        assert b"gated_pixelcnn" in found.stdout


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("seed: []", "seed: has no values"),
        ("model: {latent: []}", "model.latent: has no values"),
        ("seed: [{a: 1}]", "seed: groups of settings"),
        ("sweep: [s, t]", "a sweep cannot contain sweeps"),
        ("trainer.steps: range(0,200)\n  seed: range(0,200)", "range(0,200): more than 10000 jobs"),
    ],
)
def test_a_file_s_sweep_of_nothing_or_too_much_gets_one_line(
    text: str, named: str, own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_folder / "mine" / "experiment").mkdir(parents=True)
    file = own_folder / "mine" / "experiment" / "e.yaml"
    file.write_text(f"# @package _global_\nsweep:\n  {text}\n")
    assert main(["train", "--config-dir", "mine", "experiment=e", "--cfg", "job"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert named in err
    assert "++" not in err


def test_a_sweep_names_values_as_they_are_typed(
    own_folder: Path, performed: list, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "-m", "model.sample_mean=true,false"]) == 0
    assert [call[1].overrides for call in performed] == [
        ["model.sample_mean=true"],
        ["model.sample_mean=false"],
    ]


def test_a_group_of_a_file_s_sweep_comes_without_the_recipe_s_settings(
    own_folder: Path, performed: list
) -> None:
    (own_folder / "mine" / "sweep").mkdir(parents=True)
    (own_folder / "mine" / "sweep" / "s.yaml").write_text(
        "# @package _global_\nsweep: {optimizer: [adam, sgd], trainer: [default, smoke]}\n"
    )
    of_a_file = ["train", "--config-dir", "mine", "sweep=s", "model=vae", "dataset=mnist"]
    typed = ["train", "-m", "optimizer=adam,sgd", "trainer=default,smoke", "model=vae", "dataset=mnist"]
    found = []
    for each in (of_a_file, typed):
        performed.clear()
        assert main(each) == 0
        found.append([call[1].plain for call in performed])
    assert found[0] == found[1]
    assert {plain["optimizer"]["lr"] for plain in found[0]} == {0.001, 0.1}


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        (["--config-dir", ""], "no such folder"),
        (["--config-dir", "a" * 5000], "no such folder"),
        (["--config-dir", ".", "--config-dir", ".."], "given twice"),
        (["--config-name", "mine/own.yaml"], "type --config-dir mine --config-name own"),
        (["~model"], "a run needs a model"),
        (["~optimizer=adam"], "a run needs an optimizer"),
        (["model=${dataset}"], "expected a name"),
        (["model=configs/model/vae.yaml"], "did you mean model=vae?"),
        (["model=../model/vae"], "did you mean model=vae?"),
        (["experiment=mine/other.yaml"], "--config-dir PATH adds a folder"),
        (["seed=glob(zzz)", "-m"], "matches nothing"),
        (["+/model=vae"], "+/model is no key"),
        (["model@a@b=vae"], "model@a@b is no key"),
        (["--resume", "."], "genlab resume 'run=\".\"'"),
        (["ckpt=mine"], "genlab resume run=PATH"),
        (["resume=true"], "genlab resume run=PATH"),
        (["run=nowhere"], "genlab resume run=PATH"),
        (["--output", "x"], "run_dir=x"),
        (["--config", "mine/x.yaml"], "--config-dir mine --config-name x"),
        (["x.yaml"], "--config-dir . --config-name x"),
        (["dataset=./pictures"], "dataset=folder dataset.path=./pictures"),
        (["dataset=."], "dataset=folder 'dataset.path="),
        (["dataset=C:\\pictures"], "dataset=folder 'dataset.path="),
        (["dataset=" + "a" * 3000], "no such dataset"),
        (["optimizer.betas=(0.9,0.999)"], "write optimizer.betas=[0.9,0.999]"),
        (["model.hidden=[4,]"], "write model.hidden=[4]"),
        (["model=vae,"], "write model=vae"),
        (["model=vae;"], "write model=vae"),
        (["model=“vae”"], "type straight ones"),
        (["seed=1\x07"], r"has the character '\x07'; leave it out"),
    ],
)
def test_a_word_s_answer_says_what_is_wrong_with_it(
    typed: list[str], named: str, own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *typed]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
    assert len(line) < 300


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("mnist", "genlab train dataset=mnist"), ("vae", "genlab train model=vae"), ("fit", "train"),
        ("generate", "sample"), ("test", "evaluate"),
    ],
)  # fmt: skip
def test_a_first_word_that_is_no_command_gets_the_command_that_is_meant(
    word: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word]) == 2
    assert capsys.readouterr().err == f"genlab: {word}: no such command; did you mean {meant}?\n"
