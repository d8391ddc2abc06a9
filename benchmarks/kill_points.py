"""Kills training at every event of its files and at random times, and checks what resuming makes of it.

    python benchmarks/kill_points.py            # all branches, one process and two, and the random cuts
    python benchmarks/kill_points.py --quick    # a few dozen points of one branch, in seconds

An event is an opening for writing, a write, fsync, rename, removal, new folder or truncation inside the run
folder. At each one the process is killed before it, after the half of a write (torn), or gets SIGTERM. Then
`genlab resume` goes on, or `genlab train` if the run had not begun. The outcome must be that of a run which
nobody disturbed: the same lines of metrics.jsonl without times, the same pictures, the same files, and the
newest checkpoint equal bit for bit. No checkpoint that was complete may be lost.

A process that has imported torch forks a child for each run, which saves the seconds of importing. Two ranks
are two such children that talk by gloo; like torchrun, their parent ends the other one when one fails.
"""

from __future__ import annotations

import argparse
import builtins
import functools
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import genlab
from genlab import registry
from genlab.cli import overrides
from genlab.cli.main import _guarded
from genlab.commands import train
from genlab.device import Processes
from genlab.errors import EXIT_INTERRUPTED, UserError
from genlab.runs import checkpoint
from genlab.runs.folder import has_begun
from genlab.stop import Stop
from genlab.training.state import TrainingState

RUN = "run"
"""The run folder, in a working folder of its own."""

SECONDS = 120
"""Longest time of one run; one that takes longer counts as hanging."""

TINY = (
    "trainer.device=cpu trainer.batch_size=16 trainer.steps=6 trainer.log_every=4 trainer.evaluate_every=3 "
    "trainer.sample_every=3 trainer.checkpoint_every=2 trainer.keep_checkpoints=1 trainer.evaluate_images=20 "
    "trainer.sample_images=4 trainer.ema_half_life_images=50 recipe=none"
)
"""A run with every kind of event, in a fraction of a second."""

VQVAE = "model=vqvae dataset=digits model.codes=16 model.width=8 model.halvings=1"
BRANCHES = {
    "vae": "model=vae dataset=digits model.hidden=[16]",
    "gan": "model=gan dataset=digits model.hidden=[16]",
    "autoregressive": "model=gated_pixelcnn dataset=digits model.width=8 model.layers=1 model.head=8",
    "two-stage: vqvae": VQVAE,
    "two-stage: codes": "model=gated_pixelcnn dataset=codes dataset.ckpt=../vqvae/run model.width=8 "
    "model.layers=1 model.head=8",
}

LONGER = TINY.replace("steps=6", "steps=40").replace("checkpoint_every=2", "checkpoint_every=7")
SETTINGS = {
    "vae": (f"{BRANCHES['vae']} {LONGER}", 1),
    "gan": (f"{BRANCHES['gan']} {LONGER}", 1),
    "wgan_gp": (f"model=wgan_gp dataset=digits model.hidden=[16] {LONGER}", 1),
    "autoregressive": (f"{BRANCHES['autoregressive']} {LONGER}", 1),
    "vqvae": (f"{VQVAE} {LONGER}", 1),
    "codes": (f"{BRANCHES['two-stage: codes']} {LONGER}", 1),
    "bf16": (f"{BRANCHES['vae']} {LONGER} trainer.precision=bf16", 1),
    "no average, three kept": (
        f"{BRANCHES['vae']} {LONGER} trainer.ema_half_life_images=0 trainer.keep_checkpoints=3",
        1,
    ),
    "saved at the end only": (f"{BRANCHES['vae']} {LONGER} trainer.checkpoint_every=0", 1),
    "streaming, two workers": (
        f"model=vae dataset=folder dataset.path=../pictures dataset.size=8 dataset.channels=1 "
        f"dataset.memory_limit_gib=1e-9 dataset.workers=2 model.hidden=[16] {LONGER}",
        1,
    ),
    "two ranks, vae": (f"{BRANCHES['vae']} {LONGER}", 2),
    "two ranks, gan": (f"{BRANCHES['gan']} {LONGER}", 2),
}
"""Name to the words and the number of processes of the runs that are cut at random times."""


@dataclass
class Event:
    """What a process is about to do with a file of the run folder."""

    kind: str
    path: str


class Watch:
    """Counts the events of this process inside a folder, and strikes before one of them.

    Args:
        root: the folder.
        at: the number of the event; None to strike never.
        strike: what happens there; it gets the event, and for a write a function that writes its half.
    """

    def __init__(
        self, root: Path, at: int | None, strike: Callable[[Event, Callable[[], None]], None]
    ) -> None:
        self.events: list[Event] = []
        self._root, self._at, self._strike = f"{root}{os.sep}", at, strike
        self._busy = False
        sys.addaudithook(self._audit)
        open_, fsync = builtins.open, os.fsync

        def watched_open(file: Any, mode: str = "r", *args: Any, **settings: Any) -> Any:
            opened = open_(file, mode, *args, **settings)
            path = self._inside(file)
            return _Watched(opened, self, path) if path and set(mode) & set("wax+") else opened

        def watched_fsync(descriptor: int) -> None:
            if path := self._inside(descriptor):
                self.event("fsync", path)
            fsync(descriptor)

        builtins.open = io.open = watched_open  # type: ignore[assignment]
        os.fsync = watched_fsync  # type: ignore[assignment]

    def event(self, kind: str, path: str, half: Callable[[], None] = lambda: None) -> None:
        """Counts an event, and strikes if it is the one."""
        self.events.append(Event(kind, path.removeprefix(self._root)))
        if len(self.events) - 1 == self._at:
            self._strike(self.events[-1], half)

    def saved_step(self) -> int:
        """Returns the step of the last checkpoint that was completely written; 0 without one."""
        names = [event.path for event in self.events[:-1] if event.kind == "rename"]
        found = [int(m[1]) for name in names if (m := re.search(r"step-(\d+)\.pt$", name))]
        return max(found, default=0)

    def _audit(self, name: str, args: tuple[Any, ...]) -> None:
        kind = {"os.rename": "rename", "os.remove": "remove", "os.mkdir": "mkdir", "os.truncate": "truncate"}
        if self._busy or (name != "open" and name not in kind):
            return
        self._busy = True
        try:
            if name == "open":
                flags = args[2] if isinstance(args[2], int) else 0
                if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                    return
            path = self._inside(args[1] if name == "os.rename" else args[0])
        finally:
            self._busy = False
        if path:
            self.event(kind.get(name, "open"), path)

    def _inside(self, file: Any) -> str | None:
        """Returns the absolute path of a file, or of an open one by its number, if it is in the folder."""
        try:
            path = os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else os.path.abspath(file)
        except (OSError, TypeError):
            return None
        path = os.fsdecode(path)
        return path if path.startswith(self._root) or path + os.sep == self._root else None


class _Watched:
    """An open file whose writes are events."""

    def __init__(self, file: Any, watch: Watch, path: str) -> None:
        self._file, self._watch, self._path = file, watch, path

    def write(self, content: Any) -> int:
        def half() -> None:
            self._file.write(content[: len(content) // 2])
            self._file.flush()

        self._watch.event("write", self._path, half)
        return self._file.write(content)

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(SECONDS)  # the signal is on its way


@dataclass
class Attempt:
    """What became of one run: exit codes of its processes, what it printed, what its first process saw."""

    codes: list[int] = field(default_factory=list)
    text: str = ""
    events: list[Event] = field(default_factory=list)
    struck: Event | None = None
    saved: int = 0


def attempt(
    folder: Path, verb: str, plain: dict[str, Any], ranks: int, at: int | None = None, how: str = "",
    cut_after: float | None = None,
) -> Attempt:  # fmt: skip
    """Trains or resumes in forked children.

    Args:
        folder: the working folder; the run is in its subfolder `run`.
        verb: train or resume.
        plain: the configuration, for train.
        ranks: number of processes.
        at: number of the event of the first process at which to strike.
        how: kill, torn, term (all processes get SIGTERM), or other (the second process is killed).
        cut_after: seconds after which all processes get the signal that `how` names.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = time.monotonic()
    pids: list[int] = []
    # As at the start of `genlab`, no signal is to come before there is somebody to catch it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    for rank in reversed(range(ranks)):  # the first one knows the others
        others = list(pids)
        pid = os.fork()
        if not pid:
            _child(folder, verb, plain, rank, ranks, port, others, at if rank == 0 else None, how)
        pids.insert(0, pid)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    codes: dict[int, int] = {}
    limit, ending, cut = begun + SECONDS, False, cut_after
    while len(codes) < ranks:
        for pid in pids:
            if pid not in codes and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                codes[pid] = os.waitstatus_to_exitcode(ended[1])
        now, alive = time.monotonic(), [pid for pid in pids if pid not in codes]
        if cut is not None and now - begun > cut:
            cut = None
            for pid in alive:
                os.kill(pid, signal.SIGKILL if how == "kill" else signal.SIGTERM)
        if any(codes.values()) and not ending:  # as torchrun does, which waits 30 s
            ending, limit = True, min(limit, now + 10)
            for pid in alive if set(codes.values()) - {EXIT_INTERRUPTED} else ():
                os.kill(pid, signal.SIGTERM)
        if now > limit:
            for pid in alive:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    result = Attempt([codes[pid] for pid in pids])
    result.text = "".join((folder / f"out-{rank}").read_text(errors="replace") for rank in range(ranks))
    if (folder / "seen.json").exists():
        seen = json.loads((folder / "seen.json").read_text())
        result.events = [Event(*event) for event in seen["events"]]
        result.saved = seen["saved"]
        result.struck = Event(*seen["struck"]) if seen["struck"] else None
        (folder / "seen.json").unlink()
    return result


def _child(
    folder: Path, verb: str, plain: dict[str, Any], rank: int, ranks: int, port: int, others: Sequence[int],
    at: int | None, how: str,
) -> None:  # fmt: skip
    """Is one process of a run; never returns."""
    code = 1
    try:
        os.chdir(folder)
        out = os.open(f"out-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        watch = None
        if rank == 0:
            watch = Watch(folder / RUN, at, lambda event, half: strike(event, half))

        def see(struck: Event | None) -> None:
            if watch is not None:
                seen = {
                    "events": [(event.kind, event.path) for event in watch.events],
                    "saved": watch.saved_step(),
                    "struck": struck and (struck.kind, struck.path),
                }
                Path("seen.json").write_text(json.dumps(seen))

        def strike(event: Event, half: Callable[[], None]) -> None:
            see(event)
            match how:
                case "kill":
                    _die()
                case "torn":
                    half()
                    _die()
                case "term":
                    for pid in (*others, os.getpid()):
                        os.kill(pid, signal.SIGTERM)
                case "other":
                    os.kill(others[0], signal.SIGKILL)

        def work() -> None:
            with Stop() as stop, stop.at_once():
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
                if verb == "train":
                    train.start(plain, [], RUN)
                else:
                    train.resume(RUN, overrides.stored_config(RUN), [])

        code = _guarded(work)[0]
        if at is None:
            see(None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@dataclass
class Outcome:
    """A complete run: what must be equal."""

    rows: list[dict[str, Any]]
    checkpoint: dict[str, Any]
    files: dict[str, bytes | None]


def outcome(run: Path) -> Outcome:
    """Reads what must be equal of a complete run."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("seconds")
        row.pop("images_per_second", None)
    path, state = checkpoint.find(run)
    del state["seconds"], state["metrics_bytes"]
    names = sorted(file.relative_to(run).as_posix() for file in run.rglob("*"))
    steps = [name for name in names if name.startswith("checkpoints/step-")]
    for k, name in enumerate(steps[:-1]):  # that of an interruption may be among the older ones
        names[names.index(name)] = f"checkpoints/{k}"
    pictures = {name: (run / name).read_bytes() if name.endswith(".png") else None for name in names}
    return Outcome(rows, state | {"name": path.name}, pictures)


def same(a: Any, b: Any) -> bool:
    """Returns whether two values are equal, tensors of nested lists and dictionaries bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@dataclass
class Tally:
    """The results of one row of the table."""

    name: str
    ranks: int
    points: int = 0
    recovered: int = 0
    equal: int = 0
    lost: int = 0
    """Runs that went on from before their last complete checkpoint."""
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def row(self) -> str:
        return (
            f"{self.name:28} {self.ranks:5} {self.points:7} {self.recovered:10} {self.equal:6} "
            f"{self.lost:10} {self.seconds:8.0f}"
        )


HEADER = f"{'branch':28} ranks  points  recovered  equal  work lost  seconds"


class Bench:
    """Runs that are disturbed, and counts what became of them.

    Args:
        base: an empty folder.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self._numbers = itertools.count()

    @functools.cache  # noqa: B019 (it lives as long as the process)
    def whole(self, typed: str, ranks: int) -> tuple[dict[str, Any], Attempt, Outcome, float]:
        """Returns the configuration of a run, and what it is when nobody disturbs it."""
        if "codes" in typed and not (self.base / "vqvae").exists():
            folder = self.base / "vqvae"
            folder.mkdir()
            done = attempt(folder, "train", configuration(f"{VQVAE} {TINY}"), 1)
            assert done.codes == [0], done.text
        plain = configuration(typed)
        folder = self.folder()
        begun = time.monotonic()
        done = attempt(folder, "train", plain, ranks)
        seconds = time.monotonic() - begun
        assert done.codes == [0] * ranks, done.text
        return plain, done, outcome(folder / RUN), seconds

    def folder(self) -> Path:
        folder = self.base / str(next(self._numbers))
        folder.mkdir()
        return folder

    def point(self, tally: Tally, typed: str, ranks: int, how: str, what: str, **strike: Any) -> None:
        """Disturbs one run, lets it go on, and counts the result."""
        plain, _, expected, _ = self.whole(typed, ranks)
        folder = self.folder()
        tally.points += 1
        try:
            struck = attempt(folder, "train", plain, ranks, how=how, **strike)
            where = f"{tally.name}, {ranks} ranks, {how} {what} {struck.struck or ''}"
            # The others may still wait for the first one to open the group, and hear no signal in it.
            if how == "term" and struck.codes[0] not in (0, EXIT_INTERRUPTED):
                raise AssertionError(f"{where}: exit codes {struck.codes}: {struck.text[-1000:]}")
            saved = struck.saved
            if stopped := re.search(r"saved at step (\d+)", struck.text):
                saved = int(stopped[1])
            run = folder / RUN
            verb = "resume" if run.is_dir() and any(run.iterdir()) and has_begun(run) else "train"
            went_on = attempt(folder, verb, plain, ranks)
            if went_on.codes != [0] * ranks:
                raise AssertionError(f"{where}: {verb} gives {went_on.codes}: {went_on.text[-1000:]}")
            tally.recovered += 1
            found = re.search(r"resuming from \S*step-(\d+)\.pt", went_on.text)
            began = int(found[1]) if found else 0
            if began < saved and "has finished at step" not in went_on.text:
                tally.lost += 1
                tally.problems.append(f"{where}: saved at step {saved}, went on from {began}")
            got = outcome(run)
            parts = [
                part for part in ("rows", "checkpoint", "files")
                if not same(getattr(got, part), getattr(expected, part))
            ]  # fmt: skip
            if parts:
                names = sorted(got.files.keys() ^ expected.files.keys())
                raise AssertionError(f"{where}: {', '.join(parts)} differ {names or ''}")
            tally.equal += 1
        except (AssertionError, UserError, OSError, ValueError) as error:
            tally.problems.append(str(error))
        shutil.rmtree(folder, ignore_errors=True)

    def kill_points(self, name: str, ranks: int, most: int | None = None) -> Tally:
        """Disturbs a run of a branch at all its events, or at `most` evenly spaced ones."""
        typed = f"{BRANCHES[name]} {TINY}"
        tally, begun = Tally(name, ranks), time.monotonic()
        events = self.whole(typed, ranks)[1].events
        points = [
            (how, k)
            for k, event in enumerate(events)
            for how in ("kill", "torn", "term", "other")
            if (how != "torn" or event.kind == "write") and (how != "other" or ranks > 1)
        ]
        if most is not None:
            points = [points[k * len(points) // most] for k in range(min(most, len(points)))]
        for how, k in points:
            self.point(tally, typed, ranks, how, f"at event {k}", at=k)
        tally.seconds = time.monotonic() - begun
        return tally

    def cuts(self, name: str, count: int, seed: int) -> Tally:
        """Cuts a run of a setting at random times, by SIGKILL or SIGTERM."""
        typed, ranks = SETTINGS[name]
        tally, begun = Tally(f"cuts: {name}", ranks), time.monotonic()
        seconds, random_number = self.whole(typed, ranks)[3], random.Random(f"{name} {seed}")
        for _ in range(count):
            how, after = random_number.choice(("kill", "term")), random_number.uniform(0, seconds)
            self.point(tally, typed, ranks, how, f"after {after:.3f} s", cut_after=after)
        tally.seconds = time.monotonic() - begun
        return tally


def configuration(typed: str) -> dict[str, Any]:
    """Returns the plain configuration that words stand for."""
    plain = genlab.compose(*typed.split())
    return {key: value for key, value in plain.items() if key != "run_dir"}


def import_all() -> None:
    """Imports, in the parent, what all runs need: it builds a model and its optimizer, and trains nothing."""
    plain = configuration(f"{BRANCHES['vae']} {TINY}")
    TrainingState(registry.train_config(plain), Processes(0, 1, torch.device("cpu")))
    Image.init()


def write_pictures(folder: Path) -> None:
    """Writes pictures for the streaming dataset."""
    folder.mkdir()
    numbers = random.Random(0)
    for k in range(120):
        Image.frombytes("L", (8, 8), numbers.randbytes(64)).save(folder / f"{k:03d}.png")


def main() -> int:
    """Prints the table; returns 1 if a run did not recover completely."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few dozen points of one branch")
    parser.add_argument("--branch", choices=BRANCHES, action="append", help="this branch only")
    parser.add_argument("--ranks", type=int, choices=(1, 2), action="append", help="1 or 2; default: both")
    parser.add_argument("--points", type=int, help="points of a branch, evenly spaced; 0: none; default: all")
    parser.add_argument("--cuts", type=int, default=20, help="random cuts of each setting")
    parser.add_argument("--seed", type=int, default=0, help="of the random times")
    chosen = parser.parse_args()
    torch.set_num_threads(1)  # threads do not survive a fork
    import_all()
    tallies: list[Tally] = []
    with tempfile.TemporaryDirectory(prefix="kill-points-") as base:
        bench = Bench(Path(base).resolve())
        write_pictures(bench.base / "pictures")
        work: list[Callable[[], Tally]]
        if chosen.quick:
            work = [lambda: bench.kill_points("vae", 1, most=24), lambda: bench.cuts("vae", 4, chosen.seed)]
        else:
            work = [
                functools.partial(bench.kill_points, name, ranks, chosen.points)
                for name in chosen.branch or BRANCHES
                for ranks in chosen.ranks or (1, 2)
                if chosen.points != 0
            ]
            if not chosen.branch:
                work += [functools.partial(bench.cuts, name, chosen.cuts, chosen.seed) for name in SETTINGS]
        print(HEADER)
        for each in work:
            tallies.append(each())
            print(tallies[-1].row(), flush=True)
    problems = [problem for tally in tallies for problem in tally.problems]
    for problem in problems:
        print(f"- {problem}")
    points = sum(tally.points for tally in tallies)
    print(f"{points} points, {sum(tally.equal for tally in tallies)} equal, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
