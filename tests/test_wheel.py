"""An installed wheel, with configs/ in it, trains from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from helpers.checkout import CHECKOUT

pytestmark = pytest.mark.slow


def command(*argv: str | Path) -> str:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "GENLAB_DATA")}
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, env=env, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a build leaves folders behind, which do not belong into the checkout
    kept = ["pyproject.toml", "README.md", "LICENSE", "genlab", "configs"]
    source.mkdir()
    command("cp", "-r", *(CHECKOUT / name for name in kept), source)
    how = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    command(sys.executable, "-m", "pip", "wheel", *how, folder, source)
    return next(folder.glob("genlab-*.whl"))


def test_it_holds_every_configuration_and_module(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {
        f"genlab/configs/{f.relative_to(CHECKOUT / 'configs')}" for f in CHECKOUT.glob("configs/**/*.yaml")
    }
    modules = {str(f.relative_to(CHECKOUT)) for f in CHECKOUT.glob("genlab/**/*.py")}
    archives = {f"genlab/data/archives/{name}" for name in ("emoji.npz", "emoji-LICENSE.txt")}
    assert configs | modules | archives | {"genlab/py.typed"} <= names
    assert not {name for name in names if name.startswith(("tests", "configs", "outputs"))}


def test_it_trains_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    command(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(command(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # The libraries of this environment, without the finder that leads to the checkout.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel)
    assert command(python, "-c", "import genlab; print(genlab.__file__)").startswith(str(tmp_path))
    genlab = [python, "-m", "genlab"]
    assert "vae" in command(*genlab, "list")
    command(*genlab, "train", "trainer=smoke", "trainer.device=cpu", "run_dir=run")
    command(*genlab, "train", "dataset=emoji", "trainer=smoke", "trainer.device=cpu", "run_dir=emoji")
    command(*genlab, "sample", "ckpt=run", "n=4", "device=cpu", "run_dir=samples")
    command(*genlab, "resume", "run=run", "trainer.steps=30")
    assert (tmp_path / "samples" / "grid.png").stat().st_size > 0
    assert (tmp_path / "run" / "checkpoints" / "step-00000030.pt").stat().st_size > 0
