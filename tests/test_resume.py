"""A run that was cut off and resumed ends bit for bit as one that was not, and nothing saved is ever lost."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.checkout import CHECKOUT
from helpers.runs import assert_same, assert_same_run, plain_config, untimed_rows

from genlab.commands import train
from genlab.errors import CheckpointError, ConfigError, DivergedError, Interrupted, UserError
from genlab.runs import checkpoint

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture
def whole(own_folder: Path) -> Path:
    return train.start(plain_config(), [], "whole")


@pytest.mark.parametrize("cut", range(13))
def test_signal_at_any_step_then_resume_equals_uninterrupted(
    whole: Path, cut: int, monkeypatch: pytest.MonkeyPatch, toy: Any
) -> None:
    step = toy.step

    def step_and_signal(self: Any, batches: Any, update: Any) -> Any:
        if update.step == cut - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batches, update)

    with monkeypatch.context() as patch:
        if cut == 0:
            announce = train._announce
            patch.setattr(train, "_announce", lambda *a: (announce(*a), os.kill(os.getpid(), signal.SIGUSR1)))
        patch.setattr(toy, "step", step_and_signal)
        with pytest.raises(Interrupted, match=rf"saved at step {cut}; go on with: genlab resume run=cut"):
            train.start(plain_config(), [], "cut")
    assert checkpoint.find("cut")[1]["step"] == cut
    train.resume("cut", None, [])
    assert_same_run(whole, Path("cut"))


def test_signal_during_evaluation_saves_and_evaluates_again(
    whole: Path, monkeypatch: pytest.MonkeyPatch, toy: Any
) -> None:
    evaluate = toy.evaluate

    def evaluate_and_signal(self: Any, batch: Any, *, rng: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return evaluate(self, batch, rng=rng)

    with monkeypatch.context() as patch:
        patch.setattr(toy, "evaluate", evaluate_and_signal)
        with pytest.raises(Interrupted, match="SIGINT; saved at step 6"):
            train.start(plain_config(), [], "cut")
    train.resume("cut", None, [])
    assert_same_run(whole, Path("cut"))


def test_longer_run_by_resuming(whole: Path) -> None:
    """With a constant rate a run of 12 steps that goes on to 20 is a run of 20 steps."""
    train.start(plain_config(schedule="constant", steps=20, log_every=4), [], "twenty")
    train.start(plain_config(schedule="constant", log_every=4), [], "twelve")
    train.resume("twelve", plain_config(schedule="constant", steps=20, log_every=4), ["trainer.steps=20"])
    a, b = checkpoint.find("twenty")[1], checkpoint.find("twelve")[1]
    assert b["step"] == 20
    for key in ("weights", "optimizers", "averages", "random", "batches"):
        assert_same(a[key], b[key], key)
    assert "trainer.steps=20" in Path("twelve/overrides.txt").read_text()


KILLER = """
    import os, sys
    sys.path[:0] = {paths!r}
    from helpers.runs import plain_config
    from helpers.toy import ToyFamily
    from genlab.commands import train
    from genlab import files, registry
    from genlab.runs import checkpoint
    registry.FAMILIES["toy"] = ToyFamily
    calls = 0
    def dying(function, at):
        def call(*args, **kwargs):
            global calls
            calls += 1
            if calls == at:
                os._exit(9)
            return function(*args, **kwargs)
        return call
    class Os:
        def __init__(self, at):
            self.at = at
        def __getattr__(self, name):
            value = getattr(os, name)
            return dying(value, self.at) if name in ("fsync", "replace", "open", "close") else value
    def train_and_die(at):
        os.mkdir(str(at))
        os.chdir(str(at))
        for module in (checkpoint, files):
            module.os = Os(at)
            module.open = lambda *a: dying(open, at)(*a)
        checkpoint.Path.unlink = dying(checkpoint.Path.unlink, at)
        train.start(plain_config(keep_checkpoints=1), [], "killed")
    for at in {points}:
        process = os.fork()
        if not process:
            train_and_die(at)
            os._exit(0)
        print(at, os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""
KILLED_AT = range(1, 50, 6)
"""Calls of the system, counted from the start of a run, at which a process dies."""


@pytest.fixture(scope="module")
def killed(made_once: Callable[..., Path]) -> Path:
    """Runs that died at each of those calls: one process imports torch, and a fork of it does each run."""

    def kill(folder: Path) -> None:
        paths = [str(CHECKOUT), str(CHECKOUT / "tests")]
        code = textwrap.dedent(KILLER).format(points=list(KILLED_AT), paths=paths)
        result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[-2000:]
        (folder / "codes").write_text(result.stdout)

    return made_once("killed", kill)


@pytest.mark.parametrize("at", KILLED_AT)
def test_kill_at_any_point_of_a_save(whole: Path, killed: Path, at: int) -> None:
    assert f"{at} 9" in (killed / "codes").read_text().splitlines()
    if (killed / str(at) / "killed").exists():
        shutil.copytree(killed / str(at) / "killed", "killed")
    config = (
        None if checkpoint.list_checkpoints(Path("killed/checkpoints")) else plain_config(keep_checkpoints=1)
    )
    train.resume("killed", config, [])
    a, b = checkpoint.find(whole)[1], checkpoint.find("killed")[1]
    for key in ("weights", "optimizers", "averages", "random", "batches", "step"):
        assert_same(a[key], b[key], key)
    assert untimed_rows(whole) == untimed_rows(Path("killed"))


@pytest.mark.parametrize("damage", ["truncated", "one byte", "first byte", "last byte", "empty"])
def test_damaged_newest_checkpoint_is_named_and_the_one_before_used(
    whole: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    newest, before = checkpoint.list_checkpoints(whole / "checkpoints")[:2]
    content = bytearray(newest.read_bytes())
    match damage:
        case "truncated":
            content = content[: len(content) // 2]
        case "empty":
            content = bytearray()
        case _:
            content[{"one byte": len(content) // 3, "first byte": 0, "last byte": -1}[damage]] ^= 1
    newest.write_bytes(content)
    with pytest.raises(CheckpointError, match=newest.name):
        checkpoint.load(newest)
    messages: list[str] = []
    checkpoint.log.addHandler(handler := _Collector(messages))
    try:
        assert checkpoint.find(whole)[0] == before
    finally:
        checkpoint.log.removeHandler(handler)
    assert any(newest.name in message for message in messages)


class _Collector(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__()
        self.messages = messages

    def emit(self, record: Any) -> None:
        self.messages.append(record.getMessage())


def test_every_flipped_byte_is_detected(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, _state(1), keep=1)
    content = path.read_bytes()
    for k in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[k] ^= 0x10
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError):
            checkpoint.load(path)


def _state(step: int) -> dict[str, Any]:
    empty = {key: {} for key in ("config", "spec", "weights", "optimizers", "averages")}
    return empty | {"step": step, "images": 0, "random": [], "tensor": torch.arange(10.0)}


def test_a_strangers_pickle_runs_no_code(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path}/exploded",)

    path = checkpoint.save(tmp_path, _state(1), keep=1)
    torch.save({"format": 1, "config": Bomb()}, path)
    with pytest.raises(CheckpointError):
        checkpoint.load(path)  # no checksum
    body = path.read_bytes()[:-2]
    path.write_bytes(body + checkpoint._trailer(body))
    with pytest.raises(CheckpointError, match="refused"):
        checkpoint.load(path)  # a right checksum does not make it right
    assert not (tmp_path / "exploded").exists()


def test_full_disk_leaves_the_last_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, _state(1), keep=1)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("genlab.files.os.fsync", full)
        with pytest.raises(UserError, match=r"No space left on device.*step-00000001.pt.*genlab resume"):
            checkpoint.save(tmp_path, _state(2), keep=1)
    assert checkpoint.find(tmp_path)[1]["step"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-00000001.pt"]
    checkpoint.save(tmp_path, _state(2), keep=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-00000002.pt"]
    assert (tmp_path / "latest").read_text() == "step-00000002.pt\n"


def test_not_finite_loss_stops_with_step_player_and_last_good_checkpoint() -> None:
    plain = plain_config()
    plain["model"]["break_at_step"] = 7
    with pytest.raises(
        DivergedError, match=r"loss of two is not finite at step 7; last good checkpoint: .*step-00000004"
    ):
        train.start(plain, [], "diverged")
    assert checkpoint.find("diverged")[1]["step"] == 4


def test_resume_refuses_another_run(whole: Path) -> None:
    wider = checkpoint.find(whole)[1]["config"]
    wider["model"]["hidden"] = 16
    with pytest.raises(ConfigError, match=r"model.hidden=16: the run has 8"):
        train.resume("whole", wider, [])
    shorter = checkpoint.find(whole)[1]["config"]
    shorter["trainer"]["steps"] = 5
    with pytest.raises(ConfigError, match="already"):
        train.resume("whole", shorter, [])


def test_run_folder_is_taken_once(whole: Path) -> None:
    with pytest.raises(UserError, match="holds files already"):
        train.start(plain_config(), [], "whole")


def test_signal_to_a_process_exits_within_ten_seconds(own_folder: Path) -> None:
    paths = [str(CHECKOUT), str(CHECKOUT / "tests")]
    code = f"""
        import sys
        sys.path[:0] = {paths!r}
        from helpers.runs import plain_config
        from helpers.toy import ToyFamily
        from genlab.commands import train
        from genlab import registry
        from genlab.errors import Interrupted
        registry.FAMILIES["toy"] = ToyFamily
        try:
            plain = plain_config(steps=10**7, evaluate_every=0, checkpoint_every=0, log_every=10)
            train.start(plain, [], "long")
        except Interrupted as error:
            sys.exit(error.exit_code)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.PIPE, text=True
    )
    metrics = Path("long/metrics.jsonl")
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    sent = time.monotonic()
    process.terminate()
    assert process.wait(timeout=30) == 75
    assert time.monotonic() - sent < 10
    assert checkpoint.find("long")[1]["step"] > 0
