"""Generated mistakes: each gets one short line and exit code 2, and nothing is written."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from helpers.command_line import genlab
from helpers.mistakes import mistakes

from genlab.cli.main import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    genlab("train", "trainer=smoke", "trainer.steps=2", "model.hidden=[4]", f"run_dir={folder}")
    return folder


@pytest.mark.parametrize(
    ("seed", "count"), [(0, 160), pytest.param(1, 1600, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_a_mistake_gets_one_line_and_writes_nothing(
    seed: int, count: int, trained: Path, own_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del own_folder
    shutil.copytree(trained, "run")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    wrong, verbs = [], Counter()
    for words in mistakes(seed, count, "run"):
        capsys.readouterr()
        code = main(words)
        out, err = capsys.readouterr()
        lines = err.splitlines()
        verbs[words[0]] += 1
        if code != 2 or out or len(lines) != 1 or len(err) > 300 or not err.startswith("genlab: "):
            wrong.append((words, code, out[:80], err[-400:]))
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    assert wrong == []
    assert len(verbs) > 9
