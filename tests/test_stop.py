"""Signals, and a console that fails: training is saved or goes on, other commands end with a line."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.checkout import CHECKOUT
from helpers.runs import assert_same_run, plain_config, read_json
from PIL import Image

from genlab.cli import main as main_module
from genlab.cli.main import main
from genlab.commands import train
from genlab.errors import Interrupted
from genlab.log import courteous_console, log
from genlab.runs import checkpoint
from genlab.stop import STOPPING_SIGNALS, Stop
from genlab.training import loop

pytestmark = pytest.mark.usefixtures("toy")


def send(name: str) -> None:
    os.kill(os.getpid(), getattr(signal, name))


@pytest.mark.parametrize("name", STOPPING_SIGNALS)
def test_each_signal_saves(name: str, monkeypatch: pytest.MonkeyPatch, toy: Any) -> None:
    step = toy.step
    with monkeypatch.context() as patch:
        patch.setattr(toy, "step", lambda *a: (send(name) if a[2].step == 4 else None, step(*a))[1])
        with pytest.raises(Interrupted, match=f"stopped by {name}; saved at step 5; go on with"):
            train.start(plain_config(), [], "cut")
    state = read_json("cut/state.json")
    assert (state["state"], state["step"], state["pid"]) == ("interrupted", 5, os.getpid())
    assert state["began"] <= state["session_began"] <= state["ended"]
    train.resume("cut", None, [])
    assert read_json("cut/state.json")["state"] == "finished"
    assert_same_run(train.start(plain_config(), [], "whole"), Path("cut"))


@pytest.fixture
def hangup_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup_ignored")
def test_under_nohup_a_lost_connection_changes_nothing(monkeypatch: pytest.MonkeyPatch, toy: Any) -> None:
    step = toy.step
    monkeypatch.setattr(toy, "step", lambda *a: (send("SIGHUP"), step(*a))[1])
    train.start(plain_config(), [], "run")
    assert checkpoint.find("run")[1]["step"] == 12
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.parametrize("name", STOPPING_SIGNALS)
@pytest.mark.parametrize("verb", ["train", "resume"])
def test_a_signal_before_training_begins_leaves_nothing_half_done(
    name: str, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "TrainingState", lambda *_, **__: send(name))
    if verb == "resume":
        Path("run").mkdir()
        Path("run/.genlab").touch()
        Path("run/config.yaml").write_text("model: {name: vae}\n")
    before = sorted(Path().rglob("*"))
    begin = train.start if verb == "train" else train.resume
    words: Any = (plain_config(), [], "run") if verb == "train" else ("run", plain_config(), [])
    with pytest.raises(Interrupted, match=f"stopped by {name} before training"):
        begin(*words)
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("name", STOPPING_SIGNALS)
@pytest.mark.parametrize("words", ["train run_dir=run", "sample ckpt=x", "evaluate ckpt=x"])
def test_a_command_ends_with_a_line(
    words: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main_module, "compose", lambda *_: send(name))
    handlers = [signal.getsignal(getattr(signal, each)) for each in STOPPING_SIGNALS]
    assert main(words.split()) == 75
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"genlab: stopped by {name} before ")
    assert [signal.getsignal(getattr(signal, each)) for each in STOPPING_SIGNALS] == handlers


def test_a_signal_that_is_lost_in_a_destructor_still_ends_the_building(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python drops an exception that is raised there."""

    class Dying:
        def __del__(self) -> None:
            send("SIGTERM")

    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    with Stop() as outer, outer.at_once():
        Dying()
        with Stop() as inner, pytest.raises(Interrupted, match="SIGTERM before"), inner.at_once("before"):
            pass
    with Stop() as stop, stop.at_once():
        assert stop.signal_name is None


def test_a_signal_after_training_is_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    say = train._say_what_is_next
    monkeypatch.setattr(train, "_say_what_is_next", lambda *a: (send("SIGTERM"), say(*a)))
    with Stop() as stop, stop.at_once():
        train.start(plain_config(), [], "run")
    assert read_json("run/state.json")["state"] == "finished"


class Clockwork:
    """A group of two processes whose steps take a given time, and of which the second has a signal."""

    world, rank = 2, 0

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now, self.asked, self.told = seconds, 0.0, [], False

    def gather(self, value: Any) -> list[Any]:
        self.asked.append(self.now)
        return [value, ("SIGTERM" if self.told else None, value[1])]


@pytest.mark.parametrize("seconds", [0.001, 0.1, 0.7, 5.0, 60.0])
def test_processes_ask_each_other_once_a_second_or_step(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    class State:
        class update:
            step = 3

        group = Clockwork(seconds)

    monkeypatch.setattr(loop.time, "monotonic", lambda: State.group.now)
    agreement = loop._Agreement(Stop(), State)  # type: ignore[arg-type]
    for _ in range(3000):
        State.group.now += seconds
        State.update.step += 1
        assert agreement.told() is None
    waits = [b - a for a, b in zip(State.group.asked, State.group.asked[1:], strict=False)]
    assert max(waits) <= max(1.0, seconds) + 1e-6
    if seconds < 0.1:
        assert len(waits) < 3000 * seconds * 1.2 + 15
    State.group.told = True
    begun = State.group.now
    while not agreement.told():
        State.group.now += seconds
        State.update.step += 1
    assert State.group.now - begun <= max(1.0, seconds) + 1e-6


class Broken:
    """A stream that fails from a write on, as a pipe without a reader or a file on a full disk."""

    encoding = "utf-8"

    def __init__(self, error: Exception, good: int = 0) -> None:
        self.error, self.good = error, good

    def write(self, text: str) -> int:
        self.good -= 1
        if self.good < 0:
            raise self.error
        return len(text)

    def flush(self) -> None:
        if self.good < 0:
            raise self.error

    def isatty(self) -> bool:
        return True  # so that there is a progress bar


FAILURES = [
    BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device"), OSError(5, "Input/output"),
    ValueError("I/O operation on closed file"),
]  # fmt: skip


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__ + str(error)[:12])
@pytest.mark.parametrize("good", [0, 3])
@pytest.mark.parametrize("which", ["stdout", "stderr", "both"])
def test_training_goes_on_without_its_console(
    error: Exception, good: int, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        for name in ("stdout", "stderr"):
            if which in (name, "both"):
                patch.setattr(sys, name, Broken(error, good))
        train.start(plain_config(), [], "run")
    assert checkpoint.find("run")[1]["step"] == 12
    assert "samples/step-00000012.png" in Path("run/train.log").read_text()


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_training_goes_on_with_a_console_that_was_closed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, name, None)
        train.start(plain_config(), [], "run")
    assert checkpoint.find("run")[1]["step"] == 12


def test_a_signal_is_saved_without_console_and_log(
    monkeypatch: pytest.MonkeyPatch, toy: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    step, error = toy.step, OSError(28, "No space left on device")

    def break_all(self: Any, batches: Any, update: Any) -> Any:
        if update.step == 4:
            for handler in log.handlers:
                if isinstance(handler, logging.FileHandler):
                    handler.stream = Broken(error)  # type: ignore[assignment]
            log.info("not written")
            send("SIGHUP")
        return step(self, batches, update)

    with monkeypatch.context() as patch:
        patch.setattr(toy, "step", break_all)
        with pytest.raises(Interrupted, match="saved at step 5"):
            train.start(plain_config(), [], "cut")
    lines = [line for line in capsys.readouterr().err.splitlines() if "train.log" in line]
    assert len(lines) == 1
    assert "No space left on device); make room; training goes on" in lines[0]
    train.resume("cut", None, [])
    assert_same_run(train.start(plain_config(), [], "whole"), Path("cut"))


def test_what_an_encoding_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as file:
        monkeypatch.setattr(sys, "stdout", file)
        with courteous_console():
            print("Fréchet")
    assert (tmp_path / "out").read_text() == "Fr\\xe9chet\n"


def test_a_signal_in_a_long_step_is_answered_after_it(monkeypatch: pytest.MonkeyPatch, toy: Any) -> None:
    step = toy.step
    monkeypatch.setattr(toy, "step", lambda *a: (send("SIGTERM"), time.sleep(0.05), step(*a))[2])
    with pytest.raises(Interrupted, match="saved at step 1"):
        train.start(plain_config(), [], "cut")


@pytest.mark.slow
@pytest.mark.parametrize("name", STOPPING_SIGNALS)
def test_a_signal_to_all_processes_leaves_the_workers_at_work(name: str) -> None:
    """A batch system and a terminal signal them all; a worker that ended would make the step fail."""
    Path("pictures").mkdir()
    for k in range(64):
        Image.frombytes("L", (8, 8), random.Random(k).randbytes(64)).save(f"pictures/{k:02d}.png")
    words = (
        "train model=vae recipe=none model.hidden=[16] dataset=folder dataset.path=pictures dataset.size=8 "
        "dataset.channels=1 dataset.memory_limit_gib=1e-9 dataset.workers=2 trainer.device=cpu "
        "trainer.steps=100000 trainer.log_every=10 trainer.evaluate_every=0 trainer.sample_every=0 "
        "run_dir=run"
    )
    command = [sys.executable, "-m", "genlab", *words.split()]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )  # fmt: skip
    metrics, deadline = Path("run/metrics.jsonl"), time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, getattr(signal, name))
    _, text = process.communicate(timeout=60)
    assert process.returncode == 75
    step = checkpoint.find("run")[1]["step"]
    assert text.splitlines()[-1] == (
        f"genlab: stopped by {name}; saved at step {step}; go on with: genlab resume run=run"
    )
