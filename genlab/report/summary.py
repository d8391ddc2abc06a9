"""The results of a sweep in one table: a row for each run, with its varied settings and final metrics."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from genlab.files import written_aside

EVALUATED = ("validation/", "samples/")
"""Metrics whose last value is in the table."""


def write_summary(path: Path, runs: Sequence[tuple[Sequence[str], Path]]) -> None:
    """Writes a CSV table with the columns run, each varied key, step, and metrics.

    Args:
        path: of the table.
        runs: for each run the words that it was started with, and its folder, with or without metrics.jsonl.
    """
    rows = []
    for words, folder in runs:
        varied = dict(word.lstrip("+~").split("=", 1) for word in words if "=" in word)
        rows.append({"run": str(folder)} | varied | last_metrics(folder))
    columns = list(dict.fromkeys(column for row in rows for column in row))
    columns.sort(key=lambda column: column.startswith(EVALUATED))  # metrics last; the sort is stable
    with written_aside(path) as aside, aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def last_metrics(folder: Path) -> dict[str, float]:
    """Returns the last step and the last value of each evaluated metric; empty without metrics."""
    found: dict[str, float] = {}
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return found
    for line in path.read_text().splitlines():
        row = json.loads(line)
        numbers = {name: value for name, value in row.items() if name.startswith(EVALUATED)}
        if numbers:
            found |= {"step": row["step"]} | numbers
    return found
