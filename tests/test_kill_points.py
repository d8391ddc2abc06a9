"""A run is killed, torn and stopped at some of its events and times: see benchmarks/kill_points.py."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers.checkout import CHECKOUT


def kill_points(*flags: str) -> str:
    program = [sys.executable, str(CHECKOUT / "benchmarks" / "kill_points.py"), *flags]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    return done.stdout


def test_a_run_recovers_wherever_it_is_cut_off() -> None:
    assert "28 points, 28 equal, 0 problems" in kill_points("--quick")


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "points"), [(1, 25), (2, 6)])
def test_each_branch_recovers(ranks: int, points: int) -> None:
    branches = ("vae", "gan", "autoregressive", "two-stage: vqvae", "two-stage: codes")
    flags = [word for name in branches for word in ("--branch", name)]
    count = len(branches) * points
    assert f"{count} points, {count} equal" in kill_points(
        "--ranks", str(ranks), "--points", str(points), *flags
    )
