"""Fixtures of all tests: a folder of their own, a toy family in the registry, runs that many read."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.runs import trained
from helpers.toy import ToyFamily

from genlab import registry
from genlab.families.base import Family

if "PYTEST_XDIST_WORKER" in os.environ:  # a core each: threads of several workers would fight for them
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> type[Family]:
    monkeypatch.setitem(registry.FAMILIES, "toy", ToyFamily)
    return ToyFamily


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a folder of its own, with random numbers of its own."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    return tmp_path


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Returns a function that has a folder filled once in a session, by whichever worker asks for it first.

    Tests read such a folder and never change it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made_once"
    shared.mkdir(exist_ok=True)

    def made_once(key: str, fill: Callable[[Path], object]) -> Path:
        folder = shared / hashlib.sha256(key.encode()).hexdigest()[:16]
        done = folder.with_suffix(".done")
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what an attempt that failed has left
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return made_once


@pytest.fixture(scope="session")
def trained_run(made_once: Callable[..., Path]) -> Callable[..., str]:
    """Returns a function that gives the folder of a short run, which `helpers.runs.trained` makes."""

    def trained_run(model: str = "gated_pixelcnn", **settings: object) -> str:
        key = json.dumps([model, settings], sort_keys=True)
        return str(made_once(key, lambda folder: trained(folder / "run", model, **settings)) / "run")

    return trained_run
