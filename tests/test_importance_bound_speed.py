"""The ways that benchmarks/importance_bound_speed.py compares give the same numbers."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from helpers.checkout import load_benchmark


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_benchmark("importance_bound_speed")


@pytest.mark.parametrize("samples", [1, 7, 230])
def test_every_way_gives_the_same_number(benchmark: ModuleType, samples: int) -> None:
    benchmark._drawn.clear()
    model, dataset = benchmark.setup(8, (16,), 4, 3, torch.device("cpu"))
    model.vae.decoder.net.layers[-1].weight.data.mul_(100)  # a fresh one makes the same of all latents
    with torch.no_grad():
        found = benchmark.genlab(model, dataset, samples, 3)
        others = {name: way(model, dataset, samples, 3) for name, way in benchmark.NAIVE.items()}
    assert len(others) == 3
    for other in others.values():
        torch.testing.assert_close(other, found)
    assert found.std() > 0.1  # three numbers, not one


def test_a_way_that_is_off_is_an_error(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark._drawn.clear()
    monkeypatch.setattr("sys.argv", ["importance_bound_speed.py", "--quick", "--device", "cpu"])
    monkeypatch.setitem(benchmark.NAIVE, "sample by sample", lambda *_: torch.zeros(1))
    with pytest.raises(SystemExit, match="do not agree"):
        benchmark.main()
