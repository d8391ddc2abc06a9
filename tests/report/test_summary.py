"""The table that a sweep ends with."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from helpers.command_line import genlab

from genlab.report.summary import write_summary


def test_a_row_for_each_run_with_what_was_varied_and_the_last_numbers() -> None:
    lines = {
        "a": ['{"step": 1, "loss": 3.0}', '{"step": 1, "validation/elbo_nats": 9.5}',
              '{"step": 2, "validation/elbo_nats": 8.25, "samples/modes_found": 3}', '{"step": 3}'],
        "b": ['{"step": 2, "validation/elbo_nats": 7.0}'],
    }  # fmt: skip
    for name, rows in lines.items():
        Path(name).mkdir()
        Path(name, "metrics.jsonl").write_text("\n".join(rows) + "\n")
    runs = [
        (["model.hidden=[8, 8]", "seed=0"], Path("a")),
        (["+optimizer.players.x.lr=1e-3", "seed=1"], Path("b")),
        (["seed=2"], Path("failed")),
    ]
    write_summary(Path("summary.csv"), runs)
    with Path("summary.csv").open() as file:
        table = list(csv.DictReader(file))
    assert table == [
        {"run": "a", "model.hidden": "[8, 8]", "seed": "0", "step": "2", "optimizer.players.x.lr": "",
         "validation/elbo_nats": "8.25", "samples/modes_found": "3"},
        {"run": "b", "model.hidden": "", "seed": "1", "step": "2", "optimizer.players.x.lr": "1e-3",
         "validation/elbo_nats": "7.0", "samples/modes_found": ""},
        {"run": "failed", "model.hidden": "", "seed": "2", "step": "", "optimizer.players.x.lr": "",
         "validation/elbo_nats": "", "samples/modes_found": ""},
    ]  # fmt: skip
    assert list(table[0])[-2:] == ["validation/elbo_nats", "samples/modes_found"]


def test_a_sweep_writes_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["model=unrolled_gan", "dataset=ring", "trainer=smoke", "trainer.device=cpu", "trainer.steps=2"]
    genlab("train", "-m", *words, "model.unrolled_steps=0,1", "run_dir=all")
    assert "wrote all: summary.csv" in capsys.readouterr().out
    with Path("all/summary.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["model.unrolled_steps"] for row in table] == ["0", "1"]
    assert all(0 <= float(row["samples/modes_found"]) <= 8 for row in table)
