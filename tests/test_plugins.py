"""Families and datasets of the user's own: one module by name, and an installed package."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from helpers.checkout import CHECKOUT
from helpers.command_line import as_a_process, genlab

from genlab import registry
from genlab.cli.main import main
from genlab.config.schema import setting
from genlab.errors import ConfigError
from genlab.registry import register_dataset, register_family

PLUGINS = CHECKOUT / "tests" / "plugins"
SMALL = ("trainer=smoke", "trainer.device=cpu", "trainer.steps=6", "trainer.evaluate_every=0")


@dataclass(frozen=True)
class OwnConfig:
    name: str = setting("own")


class Own:
    """A stand-in with what the registry asks for."""

    Config = OwnConfig
    players = ()
    step = load = None


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    for name in ("FAMILIES", "DATASETS"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    monkeypatch.setitem(registry._POLYMORPHIC, "model", registry.FAMILIES)
    monkeypatch.setitem(registry._POLYMORPHIC, "dataset", registry.DATASETS)


def run(
    folder: Path,
    *argv: str,
    code: int = 0,
    python: str | Path = sys.executable,
    variables: dict[str, str] | None = None,
) -> str:
    """One command in a process of its own; what it printed."""
    left_out = ("GENLAB_MODULES", "PYTHONPATH") if python != sys.executable else ("GENLAB_MODULES",)
    env = {key: value for key, value in os.environ.items() if key not in left_out} | (variables or {})
    command = [str(python), "-c", "import sys; from genlab.__main__ import main; sys.exit(main())", *argv]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def run_here(folder: Path, *argv: str, code: int = 0, variables: dict[str, str] | None = None) -> str:
    """One command in this process, which forgets what it registers; what it printed."""
    printed = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(folder),
        as_a_process(),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        patch.delenv("GENLAB_MODULES", raising=False)
        for name, value in (variables or {}).items():
            patch.setenv(name, value)
        assert main([*argv]) == code, printed.getvalue()
    return printed.getvalue()


@pytest.mark.parametrize(
    "run", [run_here, pytest.param(run, marks=pytest.mark.slow)], ids=["one process", "processes"]
)
def test_a_module_is_taken_by_every_command(run: Callable[..., str], own_folder: Path) -> None:
    shutil.copy(PLUGINS / "my_models.py", own_folder)
    module = ("--module", "my_models")
    listing = run(own_folder, "list", *module)
    assert "A few mean images" in listing
    assert "Grey stripes of 8x8 pixels" in listing
    assert "my_mixture" in run(own_folder, "train", *module, "--help")
    chosen = ("model=my_mixture", "dataset=stripes")
    shown = yaml.safe_load(run(own_folder, "train", *module, *chosen, "model.components=3", "--cfg", "job"))
    assert shown["model"] == {"name": "my_mixture", "components": 3}
    trained = run(own_folder, "train", *module, *chosen, *SMALL, "run_dir=run")
    assert "next: genlab sample ckpt=run --module my_models" in trained
    line = run(own_folder, "sample", "ckpt=run", "n=4", code=2)
    assert line.strip().endswith("add --module NAME or install the package that provides it")
    assert "model=my_mixture" in line
    variable = {"GENLAB_MODULES": "my_models"}
    run(own_folder, "sample", "ckpt=run", "n=4", "run_dir=samples", variables=variable)
    assert len(list((own_folder / "samples/images").iterdir())) == 4
    run(own_folder, *module, "evaluate", "ckpt=run", "run_dir=numbers")
    run(own_folder, "resume", *module, "run=run", "trainer.steps=8")
    assert (own_folder / "run/checkpoints/step-00000008.pt").is_file()
    sweep = run(own_folder, "train", *module, "-m", *chosen, "model.components=2,3", *SMALL, "run_dir=sweep")
    assert re.search(r"sweep/1\s+done", sweep)
    line = run(own_folder, "train", *module, "model=my_mixture", "model.componets=2", code=2)
    assert "model.componets: unknown key for my_mixture; did you mean model.components?" in line
    words = {"COMP_LINE": "genlab train --module my_models model=my"}
    assert "model=my_mixture\n" in run(own_folder, "-sc", "query=bash", variables=words)
    words = {"COMP_LINE": "genlab train --module my_models model=my_mixture model.com"}
    assert "model.components=\n" in run(own_folder, "-sc", "query=bash", variables=words)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("nowhere", None, "--module=nowhere: no such module; run the command where nowhere.py is"),
        ("own.py", "", "--module=own.py: expected the name of a module, not of a file; use own"),
        ("broken", "1 / 0", "--module=broken: cannot be imported (ZeroDivisionError: division by zero)"),
        ("needy", "import not_there", "--module=needy: cannot be imported (ModuleNotFoundError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(
    name: str, content: str | None, line: str, own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (own_folder / f"{name.removesuffix('.py')}.py").write_text(content)
    genlab("train", "--module", name, code=2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"genlab: {line}")
    assert err.count("\n") == 1


@pytest.mark.usefixtures("own_registry")
def test_a_class_is_registered_under_a_name_of_its_own() -> None:
    register_family("own", Own)
    register_dataset("own", Own)
    assert registry.look_up(registry.FAMILIES, "own", "model") is Own
    assert registry.look_up(registry.DATASETS, "own", "dataset") is Own
    register_family("own", Own)  # a cell of a notebook that is run again
    for register in (register_family, register_dataset):
        with pytest.raises(ConfigError, match="no Config"):
            register("another", int)
        with pytest.raises(ConfigError, match="letters, digits"):
            register("a.b", Own)
    with pytest.raises(ConfigError, match="model=vae: genlab has one of this name"):
        register_family("vae", Own)
    with pytest.raises(ConfigError, match="dataset=mnist: genlab has one of this name"):
        register_dataset("mnist", Own)


@pytest.mark.slow
def test_an_installed_package_brings_families_datasets_and_recipes(tmp_path: Path) -> None:
    """In an environment of its own, with this checkout and the libraries of this environment."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", where], capture_output=True, text=True).stdout.strip())
    (site / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n{CHECKOUT}\n")
    source = shutil.copytree(PLUGINS / "package", tmp_path / "source")
    how = ("install", "--quiet", "--no-deps", "--no-build-isolation", "--target", site)
    subprocess.run([sys.executable, "-m", "pip", *how, source], check=True)
    folder = tmp_path / "elsewhere"
    folder.mkdir()

    def genlab(*argv: str, code: int = 0) -> str:
        return run(folder, *argv, code=code, python=python)

    listing = genlab("list")
    for line in ("Mean images, from a package", "Bars, from a package", "Mean images of bars: one for each"):
        assert line in listing
    chosen = ("model=mean_images", "dataset=bars")
    shown = yaml.safe_load(genlab("train", *chosen, "--cfg", "job"))
    assert (shown["model"]["components"], shown["trainer"]["steps"]) == (8, 30)
    assert shown["optimizer"]["name"] == "adamw"
    assert "recipe mean_images_bars" in genlab("train", *chosen, "trainer.device=cpu", "run_dir=run")
    genlab("sample", "ckpt=run", "n=4", "run_dir=samples")
    genlab("evaluate", "ckpt=run", "run_dir=numbers")
    genlab("resume", "run=run", "trainer.steps=40")
    sweep = genlab("train", "-m", *chosen, *SMALL, "seed=0,1", "run_dir=sweep")
    assert re.search(r"sweep/1\s+done", sweep)
    assert (folder / "run/checkpoints/step-00000040.pt").is_file()
