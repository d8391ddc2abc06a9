"""The run folder: locked before it is read, whole or not there, repaired when a run goes on, and told of."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.runs import assert_same_run, plain_config, read_json, untimed_rows
from PIL import Image

from genlab import files, registry
from genlab.cli.main import main
from genlab.cli.overrides import stored_config
from genlab.commands import train
from genlab.config.schema import from_plain
from genlab.data.dataset import Dataset
from genlab.errors import ConfigError, Interrupted, StorageError, UserError
from genlab.files import remove_temporary_files, to_json, write_json, written_aside
from genlab.runs import checkpoint, folder
from genlab.runs.folder import Run
from genlab.training.state import TrainingState

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture
def whole(own_folder: Path) -> Path:
    return train.start(plain_config(), ["model=toy"], "whole")


def cut(steps: int, toy: Any, monkeypatch: pytest.MonkeyPatch, run: str = "cut", **trainer: Any) -> Path:
    """Trains some steps of a run, as if it were killed then."""
    step = toy.step

    def step_or_die(self: Any, batches: Any, update: Any) -> Any:
        if update.step == steps:
            raise RuntimeError("killed")
        return step(self, batches, update)

    with monkeypatch.context() as patch:
        patch.setattr(toy, "step", step_or_die)
        with pytest.raises(RuntimeError, match="killed"):
            train.start(plain_config(**trainer), [], run)
    return Path(run)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Returns what the console shows since the last call."""
    return lambda: capsys.readouterr().err


# Beginning


LEFT = [
    [".genlab"], [".genlab", ".config.yaml.999999999.tmp"],
    [".genlab", "checkpoints/", "samples/", "train.log"],
    [".genlab", "checkpoints/", "samples/", "train.log", "metrics.jsonl"],
]  # fmt: skip


@pytest.mark.parametrize("names", LEFT, ids=str)
def test_a_run_that_was_killed_before_it_began_is_trained_again(names: list[str], whole: Path) -> None:
    Path("run").mkdir()
    for name in names:
        path = Path("run", name)
        path.mkdir() if name.endswith("/") else path.touch()
    with pytest.raises(ConfigError, match="run=run: was ended before it began; type its genlab train"):
        stored_config("run")
    assert main(["resume", "run=run"]) == 2
    assert_same_run(whole, train.start(plain_config(), [], "run"))
    assert not list(Path("run").glob(".*.tmp"))


@pytest.mark.parametrize("names", [["notes.txt"], [".genlab", "notes.txt"], ["config.yaml"]], ids=str)
def test_a_folder_with_other_files_is_refused(names: list[str]) -> None:
    Path("run").mkdir()
    for name in names:
        Path("run", name).touch()
    with pytest.raises(UserError, match="run_dir=run: holds files already"):
        train.start(plain_config(), [], "run")


def test_a_run_with_a_configuration_alone_goes_on(whole: Path) -> None:
    Path("run").mkdir()
    shutil.copy(whole / "config.yaml", "run")
    train.resume("run", stored_config("run"), [])
    assert_same_run(whole, Path("run"))


@pytest.mark.parametrize("damage", ["lost", "empty", "cut in a key", "cut in a value", "binary"])
def test_without_its_configuration_a_run_takes_the_checkpoint_s(
    damage: str, whole: Path, toy: Any, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    run = cut(9, toy, monkeypatch)
    path = run / "config.yaml"
    text = path.read_bytes()
    match damage:
        case "lost":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "cut in a key":
            path.write_bytes(text[: len(text) // 2])
        case "cut in a value":
            path.write_bytes(text[:-1])
        case "binary":
            path.write_bytes(b"\xff\x00" + text)
    said()
    stored = stored_config("cut")
    line = said()
    assert line.startswith(f"warning: run=cut: {'has no' if damage == 'lost' else 'its'} config.yaml")
    assert line.endswith("; using the configuration of step-00000008.pt\n")
    assert stored == checkpoint.find("cut")[1]["config"]
    train.resume("cut", stored, [])
    assert_same_run(whole, run)
    assert yaml.safe_load(path.read_text()) == yaml.safe_load((whole / "config.yaml").read_text())


def test_the_lock_is_taken_before_anything_is_read(
    whole: Path, toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second process that begins while the first one trains gets no old state to go on from."""
    cut(9, toy, monkeypatch)
    find, seen = checkpoint.find, []

    def find_while_another_one_tries(where: Any, *read: Any) -> Any:
        if not seen:
            seen.append(True)
            with pytest.raises(UserError, match="another process is training it"):
                train.resume("cut", None, [])
        return find(where, *read)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "find", find_while_another_one_tries)
        train.resume("cut", None, [])
    assert seen
    assert_same_run(whole, Path("cut"))


def test_two_that_begin_at_once_do_not_share_a_folder() -> None:
    Path("run").mkdir()
    with Run(Path("run")), pytest.raises(UserError, match="another process is training it"):
        train.start(plain_config(), [], "run")
    with Run(Path("run")) as first:
        first.begin("train", {}, [])
    with Run(Path("run")) as second, pytest.raises(UserError, match="another run uses this folder"):
        second.begin("train", {}, [])


def test_a_process_that_loads_data_does_not_hold_the_lock() -> None:
    """It outlives a killed run by seconds, in which the run could not be resumed."""
    Path("run").mkdir()
    with Run(Path("run")) as run:
        read, write = os.pipe()
        ready, begun = os.pipe()
        if not (child := os.fork()):
            os.write(begun, b"x")
            os.read(read, 1)
            os._exit(0)
        os.read(ready, 1)
        with pytest.raises(UserError, match="another process is training it"), Run(Path("run")):
            pass
        assert run._lock is not None
        run._lock.close()  # as when the process dies
        with Run(Path("run")):
            pass
        os.write(write, b"x")
        os.waitpid(child, 0)


# Going on


@pytest.mark.parametrize("keep", [0, 1, 57, 300, -1, -20, None])
def test_a_shorter_metrics_file_is_cut_to_whole_lines(
    keep: int | None, whole: Path, toy: Any, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    cut(9, toy, monkeypatch)
    path, saved = Path("cut/metrics.jsonl"), checkpoint.find("cut")[1]["metrics_bytes"]
    content = path.read_bytes()[:saved]
    if keep is None:
        path.unlink()
        keep = 0
    else:
        path.write_bytes(content[:keep])
    said()
    train.resume("cut", None, [])
    assert "the lines in between are lost" in said()
    rows, left = untimed_rows("cut"), content[:keep].count(b"\n")
    before = content.count(b"\n")
    assert rows == untimed_rows(whole)[:left] + untimed_rows(whole)[before:]


def test_a_longer_metrics_file_is_cut_without_a_word(
    whole: Path, toy: Any, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    cut(11, toy, monkeypatch)
    with open("cut/metrics.jsonl", "ab") as file:
        file.write(b'{"step": 11, "ima')
    said()
    train.resume("cut", None, [])
    assert "lost" not in said()
    assert_same_run(whole, Path("cut"))


def test_metrics_are_on_the_disk_before_the_checkpoint_that_counts_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flushed, lengths, fsync, save = [0], [], os.fsync, checkpoint.save

    def recording(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("metrics.jsonl"):
            flushed.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    def saving(where: Path, state: Any, *, keep: int) -> Path:
        lengths.append((state["metrics_bytes"], flushed[-1]))
        return save(where, state, keep=keep)

    monkeypatch.setattr(os, "fsync", recording)
    monkeypatch.setattr(checkpoint, "save", saving)
    train.start(plain_config(), [], "run")
    assert [counted <= on_disk for counted, on_disk in lengths] == [True] * 3


def test_what_killed_processes_left_is_cleared(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(11, toy, monkeypatch, keep_checkpoints=2)
    shutil.copy("cut/checkpoints/step-00000008.pt", "cut/checkpoints/step-00000002.pt")
    dead = subprocess.Popen(["true"])
    dead.wait()
    alive = os.getppid()
    names = ["checkpoints/.step-00000004.pt.{}.tmp", "samples/.real.png.{}.tmp.png", ".state.json.{}.tmp"]
    for name in names:
        for pid in (dead.pid, alive, os.getpid()):
            Path("cut", name.format(pid)).touch()
    train.resume("cut", None, [])
    left = sorted(path.relative_to("cut").as_posix() for path in Path("cut").rglob(".*.tmp*"))
    assert left == sorted(name.format(alive) for name in names)
    steps = [path.name for path in checkpoint.list_checkpoints(Path("cut/checkpoints"))]
    assert steps == ["step-00000012.pt", "step-00000008.pt"]


def test_temporary_files_of_a_number_too_large_are_cleared(tmp_path: Path) -> None:
    (tmp_path / f".x.{10**30}.tmp").touch()
    remove_temporary_files(tmp_path)
    remove_temporary_files(tmp_path / "missing")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_checkpoint_displaces_no_valid_one(
    keep: int, toy: Any, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    """The damaged one is newer than what is saved next, and counted, only it would be kept."""
    run = cut(11, toy, monkeypatch, keep_checkpoints=2)
    newest, before = checkpoint.list_checkpoints(run / "checkpoints")
    newest.write_bytes(b"damaged")
    step, plain = toy.step, plain_config(keep_checkpoints=keep)

    def step_and_signal(self: Any, batches: Any, update: Any) -> Any:
        if update.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batches, update)

    with monkeypatch.context() as patch:
        patch.setattr(toy, "step", step_and_signal)
        with pytest.raises(Interrupted, match="saved at step 6"):
            train.resume("cut", plain, [])
    assert checkpoint.find("cut")[1]["step"] == 6
    assert (run / "checkpoints/latest").read_text() == "step-00000006.pt\n"
    train.resume("cut", plain, [])
    assert untimed_rows("cut") == untimed_rows(whole)
    assert not before.exists()


def test_a_finished_run_is_left_as_it_is(whole: Path, said: Callable[[], str]) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}

    before = content()
    said()
    assert train.resume("whole", None, []) == Path("whole")
    assert content() == before
    line = "run=whole: has finished at step 12, and nothing is changed; to train for longer: genlab resume "
    assert said() == line + "run=whole trainer.steps=24\n"


def test_a_run_killed_in_its_last_evaluation_repeats_it(
    whole: Path, toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = toy.evaluate

    def die(self: Any, batch: Any, *, rng: Any) -> Any:
        if checkpoint.find("cut")[1]["step"] == 12:
            raise RuntimeError("killed")
        return evaluate(self, batch, rng=rng)

    with monkeypatch.context() as patch:
        patch.setattr(toy, "evaluate", die)
        with pytest.raises(RuntimeError):
            train.start(plain_config(), [], "cut")
    state = read_json("cut/state.json")
    assert (state["state"], state["step"], state["message"]) == ("failed", 12, "RuntimeError('killed')")
    train.resume("cut", None, [])
    assert_same_run(whole, Path("cut"))


@pytest.mark.parametrize(("schedule", "jumps"), [("cosine", True), ("linear", True), ("constant", False)])
def test_a_longer_schedule_is_said(schedule: str, jumps: bool, said: Callable[[], str]) -> None:
    train.start(plain_config(schedule=schedule), [], "run")
    said()
    train.resume("run", plain_config(schedule=schedule, steps=24), ["trainer.steps=24"])
    line = (
        f"warning: trainer.steps=24: schedule {schedule} now spreads over 24 steps instead of 12, so that the"
    )
    shown = said()
    assert (line in shown) == jumps
    if jumps:
        row = next(row for row in untimed_rows("run") if row["step"] == 15)
        rate = float(shown.partition("learning rate of one goes from ")[2].split(";")[0].split(" to ")[1])
        assert row["one_learning_rate"] <= rate <= 2.2 * row["one_learning_rate"] + 1e-3
        assert "add optimizer.lr=..." in shown
    assert read_json("run/state.json")["state"] == "finished"


def test_the_words_of_each_session_stand_apart(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    train.start(plain_config(schedule="constant"), ["model=toy", "seed=0"], "run")
    for steps in (14, 16):
        train.resume("run", plain_config(schedule="constant", steps=steps), [f"trainer.steps={steps}"])
    lines = Path("run/overrides.txt").read_text().splitlines()
    begun = ["# genlab train", "model=toy", "seed=0"]
    resumed = ["# genlab resume", "trainer.steps=14", "# genlab resume", "trainer.steps=16"]
    assert [re.sub(r"^# \S+T\S+ ", "# ", line) for line in lines] == begun + resumed


# What is known of a run


def test_the_environment_names_date_command_commit_and_data(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["genlab", "train", "x=a b"])
    train.start(plain_config(), [], "run")
    found = read_json("run/environment.json")
    assert found["command"] == "genlab train 'x=a b'"
    assert (found["git_commit"], found["git_clean"]) == (None, None)
    assert found["dataset"]["train"]["images"] == 1197

    def git(*words: str) -> str:
        author = ["-c", "user.name=x", "-c", "user.email=x@y"]
        return subprocess.run(["git", *author, *words], capture_output=True, text=True, check=True).stdout

    git("init")
    Path("code.py").write_text("1")
    git("add", "code.py")
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD").strip()
    Path("new.txt").touch()
    assert folder._git_commit() == {"git_commit": commit, "git_clean": True}
    Path("code.py").write_text("2")
    assert folder._git_commit() == {"git_commit": commit, "git_clean": False}


def pictures(path: Path, count: int, seed: int = 0) -> None:
    path.mkdir(exist_ok=True)
    levels = torch.randint(0, 256, (count, 8, 8), generator=torch.Generator().manual_seed(seed))
    for k, image in enumerate(levels.to(torch.uint8)):
        Image.fromarray(image.numpy()).save(path / f"{k:03d}.png")


CHANGES: dict[str, Callable[[Path], object]] = {
    "one more": lambda path: shutil.copy(path / "000.png", path / "zzz.png"),
    "one fewer": lambda path: (path / "000.png").unlink(),
    "another picture": lambda path: Image.new("L", (8, 8)).save(path / "003.png"),
    "renamed": lambda path: (path / "004.png").rename(path / "zz.png"),
    "only touched": lambda path: os.utime(path / "005.png", (1, 1)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_dataset_that_has_changed_is_told(
    change: str, streamed: bool, toy: Any, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
) -> None:
    pictures(Path("pictures"), 40)
    plain = plain_config(evaluate_every=0, sample_every=0) | {
        "dataset": {
            "name": "folder", "path": "pictures", "size": 8, "channels": 1, "workers": 0,
            "memory_limit_gib": 1e-9 if streamed else 1.0,
        }
    }  # fmt: skip
    plain["trainer"]["steps"] = 4
    train.start(plain, [], "run")
    CHANGES[change](Path("pictures"))
    said()
    plain["trainer"]["steps"] = 6
    train.resume("run", plain, [])
    told = "warning: run=run: the dataset has changed since the last session" in said()
    moved = change == "renamed" and not streamed  # the same pictures may stay in the same order
    assert told == (change != "only touched") or moved
    said()
    plain["trainer"]["steps"] = 8
    train.resume("run", plain, [])
    assert "has changed" not in said()


@pytest.mark.parametrize("name", sorted({*registry.DATASETS} & {"digits", "ring", "none", "shapes"}))
def test_a_fingerprint_is_that_of_the_data(name: str) -> None:
    def load(**settings: Any) -> Dataset:
        kind = registry.config_of(registry.DATASETS, name, "dataset")
        return registry.dataset(from_plain(kind, {"name": name} | settings, "dataset"))

    assert load().fingerprint() == load().fingerprint() == load().to("cpu").fingerprint()
    if name == "digits":
        other = load(training_images=100).fingerprint()
        assert other["train"] != load().fingerprint()["train"]
        assert other["test"] == load().fingerprint()["test"]
        streamed = load(memory_limit_gib=1e-9)
        assert streamed.fingerprint() == load(memory_limit_gib=1e-9).fingerprint()


# Files


@pytest.mark.parametrize(
    ("value", "expected", "names"),
    [
        ({"a": math.inf, "b": {"c": [1.0, math.nan]}}, {"a": None, "b": {"c": [1.0, None]}}, ["a", "b.c[1]"]),
        ({"a": -math.inf, "n": 3, "s": "Infinity", "t": True, "z": None}, None, ["a"]),
        ([(math.nan,)], [[None]], ["[0][0]"]),
    ],
)
def test_json_is_valid(value: Any, expected: Any, names: list[str]) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text, found = to_json(value)
    assert found == names
    assert json.loads(text, parse_constant=refuse) == (value | {"a": None} if expected is None else expected)


def test_a_result_that_is_not_finite_is_null_and_said(said: Callable[[], str]) -> None:
    folder.log.propagate = False
    train.log_to_console()
    write_json(Path("x.json"), {"psnr": math.inf})
    assert read_json("x.json") == {"psnr": None}
    assert said() == "warning: x.json: null stands for what is not finite: psnr\n"


def test_metrics_are_valid_json(monkeypatch: pytest.MonkeyPatch, toy: Any, said: Callable[[], str]) -> None:
    monkeypatch.setattr(toy, "summarize", lambda *_: {"a": math.nan, "b": 1.0})
    train.start(plain_config(), [], "run")
    rows = [row for row in untimed_rows("run") if "validation/a" in row]
    assert [(row["validation/a"], row["validation/b"]) for row in rows] == [(None, 1.0)] * 2
    assert said().count("metrics.jsonl: null stands for what is not finite: validation/a") == 1
    assert "a" not in folder.last_validation(Path("run"), 12)


def test_a_file_written_aside_is_whole_or_not_there() -> None:
    def write_half() -> None:
        with written_aside(Path("x.png")) as aside:
            assert aside.suffix == ".png"
            aside.write_text("half")
            assert not Path("x.png").exists()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert not list(Path().iterdir())
    with written_aside(Path("x.png")) as aside:
        aside.write_text("whole")
    assert Path("x.png").read_text() == "whole"
    assert len(list(Path().iterdir())) == 1


# Disks that fail


@contextlib.contextmanager
def failing(number: int, *, when: Callable[[str], bool]) -> Iterator[None]:
    """Lets the opening of some files for writing fail."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "open", opener(number, when), raising=False)
        patch.setattr(folder, "open", opener(number, when), raising=False)
        yield


def opener(number: int, when: Callable[[str], bool]) -> Callable[..., Any]:
    def open_or_fail(path: Any, mode: str = "r", **settings: Any) -> Any:
        if mode != "r" and when(str(path)):
            raise OSError(number, os.strerror(number), str(path))
        return open(path, mode, **settings)

    return open_or_fail


REMEDIES = {
    errno.ENOSPC: "make room", errno.EDQUOT: "make room", errno.EROFS: "make it writable",
    errno.EACCES: "make it writable", errno.EIO: "check the disk", errno.EFBIG: "raise the limit",
}  # fmt: skip


@pytest.mark.parametrize("number", REMEDIES, ids=errno.errorcode.get)
@pytest.mark.parametrize("name", [".genlab", "config.yaml", "metrics.jsonl", "state.json", "step-"])
def test_a_file_that_cannot_be_written_is_one_line(
    number: int, name: str, toy: Any, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    cut(9, toy, monkeypatch)
    before = checkpoint.find("cut")[1]["step"]
    with failing(number, when=lambda path: name in path), pytest.raises(StorageError) as caught:
        train.resume("cut", None, [])
    line = str(caught.value)
    assert "\n" not in line
    assert name in line
    assert REMEDIES[number] in line
    assert os.strerror(number) in line
    assert "genlab resume run=cut" in line
    assert ("make room" in line) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert checkpoint.find("cut")[1]["step"] == before
    train.resume("cut", None, [])
    assert_same_run(whole, Path("cut"))


class Full:
    """A file of which the disk takes a part only."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, content: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self.file.write(content[: self.room])
        self.room -= taken
        return taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 1, 100, 700])
def test_a_disk_that_fills_leaves_no_torn_line(room: int, toy: Any, whole: Path) -> None:
    begin = Run.begin

    def begin_on_a_full_disk(self: Run, *args: Any) -> None:
        begin(self, *args)
        self._metrics = Full(self._metrics, room)  # type: ignore[assignment]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "begin", begin_on_a_full_disk)
        with pytest.raises(StorageError, match=r"run/metrics.jsonl: could not be written \(No space"):
            train.start(plain_config(), [], "run")
    assert read_json("run/state.json")["state"] == "failed"
    assert Path("run/metrics.jsonl").read_bytes()[-1:] in (b"", b"\n")
    train.resume("run", stored_config("run"), [])
    assert_same_run(whole, Path("run"))


def test_a_short_write_is_continued(whole: Path) -> None:
    write = Run.write_metrics

    def in_pieces(self: Run, values: Any) -> None:
        metrics, self._metrics = self._metrics, Pieces(self._metrics)  # type: ignore[assignment]
        write(self, values)
        self._metrics = metrics

    class Pieces(Full):
        def __init__(self, file: Any) -> None:
            super().__init__(file, 10**9)

        def write(self, content: bytes) -> int:
            return self.file.write(content[:7])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "write_metrics", in_pieces)
        train.start(plain_config(), [], "run")
    assert_same_run(whole, Path("run"))


@pytest.mark.parametrize("step", [2, 5, 7])
def test_a_folder_that_vanishes_is_one_line_and_not_made_anew(
    step: int, toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_step = toy.step

    def step_and_remove(self: Any, batches: Any, update: Any) -> Any:
        if update.step == step:
            shutil.rmtree("run")
        return whole_step(self, batches, update)

    monkeypatch.setattr(toy, "step", step_and_remove)
    with pytest.raises(StorageError, match="run is gone: bring it back"):
        train.start(plain_config(), [], "run")
    assert not Path("run").exists()


class Two:
    """A group of two processes, of which this is one."""

    world, device = 2, torch.device("cpu")

    def __init__(self, rank: int) -> None:
        self.rank, self.first = rank, rank == 0
        self.others: list[Any] = []

    def broadcast_(self, tensors: Any) -> None: ...

    def mean_(self, tensors: Any) -> None: ...

    def gather(self, value: Any) -> list[Any]:
        return [value if rank == self.rank else self.others.pop(0) for rank in range(2)]


def test_each_process_keeps_its_own_metrics() -> None:
    config = registry.train_config(plain_config())

    def state_of(rank: int) -> TrainingState:
        return TrainingState(config, Two(rank))  # type: ignore[arg-type]

    states = [state_of(rank) for rank in range(2)]
    for rank, state in enumerate(states):
        for value in (1.0, 2.0):
            state.record({"loss": torch.tensor(10.0 * rank + value)})
    states[0].group.others = [{"loss": torch.tensor([11.0, 12.0])}, {"cpu": torch.get_rng_state()}]  # type: ignore[attr-defined]
    saved = states[0].to_checkpoint(0)
    for rank, mean in enumerate((1.5, 11.5)):
        resumed = state_of(rank)
        resumed.restore(saved)
        assert resumed.read_window() == {"loss": mean}
