"""What benchmarks/memorisation.py plants is found, and nothing else."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from helpers.checkout import load_benchmark

from genlab.metrics.memorisation import copying


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_benchmark("memorisation")


def test_its_quick_mode_finds_copies_and_raises_no_false_alarms(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["memorisation.py", "--quick", "--spaces", "images"])
    benchmark.main()
    head, alarms, *rows = capsys.readouterr().out.splitlines()
    assert head == "digits: 1197 training images, 300 samples, 300 held-out images"
    assert int(alarms.split(": ")[1].split()[0]) <= 3  # of 300: 1 %
    assert [row.split()[0] for row in rows] == ["exact", "shifted", "noisy", "darker"]
    assert all("20% copies 100.0%" in row for row in rows)
    assert "5% copies 100.0%" in rows[0]


@pytest.mark.parametrize("space", ["images", "pixels", "random_conv"])
def test_copies_are_of_training_images(benchmark: ModuleType, space: str) -> None:
    rng = torch.Generator().manual_seed(0)
    training, unseen = torch.rand(600, 1, 16, 16, generator=rng), torch.rand(200, 1, 16, 16, generator=rng)
    ranked = benchmark.rank(space, training, unseen)
    sources = torch.randperm(600, generator=torch.Generator().manual_seed(1))[: benchmark.COPIES]
    assert ranked.copies["exact"].indices[:, 0].tolist() == sources.tolist()
    assert copying(ranked.copies["exact"], ranked.unseen).nearer_share == 1


def test_bound_of_a_rate(benchmark: ModuleType) -> None:
    assert benchmark.upper_bound(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300))
    assert benchmark.upper_bound(5, 5) == 1
