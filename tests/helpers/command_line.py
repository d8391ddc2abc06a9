"""Commands as a user types them, run inside the test's own process."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genlab import plugins, registry
from genlab.cli import main as main_module
from genlab.cli.composing import Job
from genlab.cli.main import main
from genlab.cli.verbs import VERBS


def genlab(*words: str, code: int = 0) -> None:
    """Runs a command on the CPU, and asserts its exit code."""
    words = on_cpu(*words)
    assert main([*words]) == code, "genlab " + " ".join(words)


def on_cpu(*words: str) -> tuple[str, ...]:
    """Returns the words of a command with the CPU as its device, unless they choose one."""
    verb = next((word for word in words if word in VERBS), "list")
    if verb != "train" and VERBS[verb].config is None:
        return words
    key = "trainer.device=" if verb == "train" else "device="
    return words if any(word.startswith(key) for word in words) else (*words, f"{key}cpu")


@contextlib.contextmanager
def as_a_process() -> Iterator[None]:
    """What is registered, or imported from the working folder, is gone afterwards, as when a process ends."""
    kinds = (registry.FAMILIES, registry.DATASETS)
    before, modules, path, named = (
        [dict(kind) for kind in kinds],
        set(sys.modules),
        [*sys.path],
        [*plugins._named],
    )
    try:
        yield
    finally:
        for kind, entries in zip(kinds, before, strict=True):
            kind.clear()
            kind.update(entries)
        for name in set(sys.modules) - modules:
            if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(Path.cwd()):
                del sys.modules[name]
        sys.path[:], plugins._named[:] = path, named
        plugins._generated_folder.cache_clear()


def one_line(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Returns the one line that answers a mistake, after which nothing is written."""
    before = sorted(Path().rglob("*"))
    capsys.readouterr()
    genlab(*words, code=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert sorted(Path().rglob("*")) == before
    return line


def composed(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[dict[str, Any]]:
    """Returns the plain configurations of one `genlab train` command, without run_dir; nothing is trained."""
    jobs: list[Job] = []
    with monkeypatch.context() as patch:
        patch.setattr(main_module, "perform", lambda verb, job, run_dir: jobs.append(job))
        assert main(["train", *words]) == 0
    return [{k: v for k, v in job.plain.items() if k != "run_dir"} for job in jobs]
