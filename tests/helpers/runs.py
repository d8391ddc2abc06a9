"""Short runs, what their folders hold, and whether two of them are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from genlab.commands import train
from genlab.runs import checkpoint


def plain_config(
    model: str = "toy", *, schedule: str = "cosine", dataset: str = "digits", **trainer: Any
) -> dict[str, Any]:
    """Returns a short run's plain configuration, as Hydra would compose it."""
    return {
        "model": {"name": model},
        "dataset": {"name": dataset},
        "optimizer": {"name": "adam"},
        "schedule": {"name": schedule},
        "trainer": {
            "steps": 12, "batch_size": 32, "device": "cpu", "log_every": 5, "evaluate_every": 6,
            "sample_every": 6, "checkpoint_every": 4, "evaluate_images": 40, "sample_images": 4,
            "ema_half_life_images": 100,
        } | trainer,
        "seed": 0,
    }  # fmt: skip


def trained(folder: Path, model: str = "gated_pixelcnn", **settings: object) -> str:
    """Trains two steps on digits, and returns the run's folder."""
    small = {"width": 8, "layers": 1, "head": 8} if model == "gated_pixelcnn" else {}
    plain = plain_config(model, schedule="constant")
    plain["model"] |= small | settings
    plain["trainer"] = {
        "steps": 2, "batch_size": 16, "device": "cpu", "evaluate_images": 10, "sample_images": 10
    }  # fmt: skip
    return str(train.start(plain, [], str(folder)))


def read_json(*path: str | Path) -> Any:
    """Returns what a JSON file holds; its path may come in parts."""
    return json.loads(Path(*path).read_text())


def metric_rows(run: str | Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def untimed_rows(run: str | Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's metrics.jsonl without what depends on the clock."""
    timed = ("seconds", "images_per_second")
    return [{k: v for k, v in row.items() if k not in timed} for row in metric_rows(run)]


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """Asserts that two values are equal, tensors of nested lists and dictionaries bit for bit."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for k, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{where}[{k}]")
    else:
        assert a == b, where


def assert_same_run(a: Path, b: Path, ignore: tuple[str, ...] = ("seconds", "metrics_bytes")) -> None:
    """Asserts that two runs have the same newest checkpoint, metrics and pictures."""
    (path_a, state_a), (path_b, state_b) = checkpoint.find(a), checkpoint.find(b)
    assert path_a.name == path_b.name
    for state in (state_a, state_b):
        for key in ignore:
            state.pop(key)
    assert_same(state_a, state_b)
    assert untimed_rows(a) == untimed_rows(b)
    pictures = sorted(p.name for p in (a / "samples").iterdir())
    assert pictures == sorted(p.name for p in (b / "samples").iterdir())
    for name in pictures:
        assert (a / "samples" / name).read_bytes() == (b / "samples" / name).read_bytes(), name
