"""Generated mistakes: each gets one short line and exit code 2, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.checkout import load_benchmark
from helpers.command_line import genlab

refusals = load_benchmark("refusals")


@pytest.mark.parametrize(
    ("seed", "count"), [(0, 160), pytest.param(1, 1600, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_a_mistake_gets_one_line_and_writes_nothing(seed: int, count: int, own_folder: Path) -> None:
    del own_folder
    genlab("train", "trainer=smoke", "trainer.steps=2", "model.hidden=[4]", "run_dir=run")
    verbs, wrong = set(), []
    for words in refusals.mistakes(seed, count, "run"):
        verbs.add(words[0])
        answer = refusals.answer(refusals.Case(words))
        if answer.fault:
            wrong.append((words, answer.fault, answer.err[-300:]))
    assert wrong == []
    assert len(verbs) > 9
