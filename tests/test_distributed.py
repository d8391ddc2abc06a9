"""Several processes train one model as one process would: gloo on a CPU stands for NCCL on GPUs."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.checkout import CHECKOUT
from helpers.runs import untimed_rows

from genlab import device
from genlab.errors import Interrupted
from genlab.runs import checkpoint

PROGRAM = """
    import sys, time
    sys.path[:0] = {paths!r}
    import torch
    from helpers.runs import plain_config
    from helpers.toy import ToyFamily, ToyNet
    from genlab.commands import train
    from genlab import registry
    registry.FAMILIES["toy"] = ToyFamily
    torch.set_num_threads(1)
    if {quiet}:
        torch.randn_like = torch.zeros_like  # without noise of their own, two processes are exactly one
    # no BatchNorm: it sees half a batch
    ToyNet.forward = lambda self, x: self.second(torch.tanh(self.first(x)))
    step = ToyFamily.step
    ToyFamily.step = lambda *a: (time.sleep({step_seconds}), step(*a))[1]
    plain = plain_config(**{trainer!r})
    if {resume}:
        train.resume({run!r}, plain, [])
    else:
        train.start(plain, [], {run!r})
"""


def launch(
    world: int, run: str, *, quiet: bool = True, resume: bool = False, step_seconds: float = 0,
    **trainer: object,
) -> list[str]:  # fmt: skip
    """Returns the command that trains."""
    paths = [str(CHECKOUT), str(CHECKOUT / "tests")]
    program = textwrap.dedent(PROGRAM).format(
        paths=paths, run=run, quiet=quiet, resume=resume, trainer=trainer, step_seconds=step_seconds
    )
    Path("program.py").write_text(program)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    return [sys.executable, *(torchrun if world > 1 else ()), "program.py"]


def run_processes(world: int, run: str, **settings: Any) -> None:
    result = subprocess.run(launch(world, run, **settings), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]


def test_two_processes_train_as_one() -> None:
    run_processes(1, "one")
    run_processes(2, "two")
    one, two = checkpoint.find("one")[1], checkpoint.find("two")[1]
    assert one["images"] == two["images"] == 12 * 2 * 32
    torch.testing.assert_close(two["weights"], one["weights"], rtol=1e-4, atol=1e-5)
    assert len(two["random"]) == 2


@pytest.mark.slow
def test_two_processes_resume_exactly() -> None:
    run_processes(2, "whole", quiet=False, schedule="constant")
    run_processes(2, "cut", quiet=False, schedule="constant", steps=8)
    run_processes(2, "cut", quiet=False, schedule="constant", resume=True)
    whole, cut = checkpoint.find("whole")[1], checkpoint.find("cut")[1]
    assert cut["step"] == 12
    torch.testing.assert_close(cut["weights"], whole["weights"], rtol=0, atol=0)
    assert not torch.equal(whole["random"][0]["cpu"], whole["random"][1]["cpu"])


@pytest.mark.slow
@pytest.mark.parametrize("at", [0.0, 1.3])
def test_slow_steps_are_saved_before_torchrun_kills(at: float) -> None:
    """torchrun waits 30 s; a question every 8 steps of 5 s would come too late."""
    settings: dict[str, Any] = {"quiet": False, "schedule": "constant", "log_every": 3, "evaluate_every": 0}
    settings |= {"sample_every": 0, "checkpoint_every": 0}
    process = subprocess.Popen(
        launch(2, "cut", step_seconds=5, **settings), stderr=subprocess.PIPE, text=True
    )
    metrics = Path("cut/metrics.jsonl")
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(at)
    sent = time.monotonic()
    process.terminate()
    _, text = process.communicate(timeout=60)
    assert time.monotonic() - sent < 25
    assert f"saved at step {checkpoint.find('cut')[1]['step']}; go on with" in text
    assert checkpoint.find("cut")[1]["step"] in (4, 5)
    run_processes(2, "cut", resume=True, **settings)
    run_processes(2, "whole", **settings)
    whole, cut = checkpoint.find("whole")[1], checkpoint.find("cut")[1]
    torch.testing.assert_close(cut["weights"], whole["weights"], rtol=0, atol=0)
    assert untimed_rows("cut") == untimed_rows("whole")


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("[pair.cc:545] Read error [127.0.0.1]:20626: Connection reset by peer. GLHF", Interrupted),
        ("NCCL error: remote process exited or there was a network error", Interrupted),
        ("mat1 and mat2 shapes cannot be multiplied", RuntimeError),
    ],
)
def test_a_process_whose_group_has_lost_another_says_so(
    message: str, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[bool] = []
    monkeypatch.setattr(device, "_processes_started", lambda: 2)
    monkeypatch.setattr(device.dist, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(device.dist, "get_rank", lambda: 1)
    monkeypatch.setattr(device.dist, "destroy_process_group", lambda: left.append(True))
    with pytest.raises(kind), device.processes("cpu"):
        raise RuntimeError(message)
    assert left == [True]
