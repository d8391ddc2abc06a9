"""Several processes train one model as one process would: gloo on a CPU stands for NCCL on GPUs."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from helpers.checkout import CHECKOUT

from genlab.runs import checkpoint

PROGRAM = """
    import sys
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
    plain = plain_config(**{trainer!r})
    if {resume}:
        train.resume({run!r}, plain, [])
    else:
        train.start(plain, [], {run!r})
"""


def run_processes(
    world: int, run: str, *, quiet: bool = True, resume: bool = False, **trainer: object
) -> None:
    paths = [str(CHECKOUT), str(CHECKOUT / "tests")]
    program = textwrap.dedent(PROGRAM).format(
        paths=paths, run=run, quiet=quiet, resume=resume, trainer=trainer
    )
    Path("program.py").write_text(program)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={world}",
        "program.py",
    ]
    result = subprocess.run(
        launch if world > 1 else [sys.executable, "program.py"], capture_output=True, text=True
    )
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
