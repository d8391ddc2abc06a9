"""Tests, speed, sampling and short trainings on one GPU, each with a time limit, and one table of all.

    benchmarks/gpu.sh            # see its head; at most eight minutes
    benchmarks/gpu.sh --brief    # sampling with CUDA graphs alone: its tests and its speed, in 100 seconds
    benchmarks/gpu.sh --quick    # on the CPU, on small images; the figures mean nothing

Every part is a process of its own. One that fails or runs over is a row of the table that says so, and stops
no other. Processes write their rows, one JSON object a line, as soon as they have them.

Speed of training is that of `genlab train` itself, read from its metrics.jsonl: the median of the intervals
between two log lines, with the lowest and the highest. `DataLoader` is the same step of the same model, fed
by a torchvision dataset behind a DataLoader with workers.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import io
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import autoregressive_speed
import torch
from torch.utils.data import DataLoader
from train_speed import Pictures, endless

import genlab
from genlab import device, registry
from genlab.data.spec import Batch
from genlab.errors import Interrupted
from genlab.training.state import TrainingState

HERE = Path(__file__).resolve()
CHECKOUT = HERE.parent.parent


@dataclass(frozen=True)
class Case:
    """A model that is trained.

    Attributes:
        model: its name.
        words: more words of `genlab train`.
    """

    model: str
    words: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return " ".join((self.model, *self.words))


@dataclass(frozen=True)
class Sizes:
    """What is run.

    Attributes:
        dataset, device: of everything but the tests and the sampling of random weights.
        cases: models whose speed of training is measured, in fp32 and bf16, and fed by a DataLoader.
        compiled: those that are measured compiled as well.
        log_every: steps of an interval.
        seconds: measured of each setting.
        drawn: models whose sampling is measured.
        sampling: words of autoregressive_speed.py.
        trained: models that are trained and evaluated, with words of their evaluation.
        train_seconds: the length of such a training, at the speed that was measured before, alone.
        test_processes: that share the tests; 0 for none beside pytest's own.
        limits: of each part, in seconds.
        total_seconds: all parts end before.
        flags: words of this script that choose these sizes.
        tests: of those marked gpu, which: an expression of pytest's -k.
    """

    dataset: str
    device: str
    cases: tuple[Case, ...]
    compiled: tuple[Case, ...]
    log_every: int
    seconds: float
    drawn: tuple[str, ...]
    sampling: tuple[str, ...]
    trained: dict[Case, tuple[str, ...]]
    train_seconds: float
    test_processes: int
    limits: dict[str, float]
    total_seconds: float = 460  # the rest of eight minutes is for starting, stopping and printing
    flags: tuple[str, ...] = ()
    tests: str = ""


VAE, GAN, WGAN_GP = Case("vae"), Case("gan"), Case("wgan_gp")
PIXELCNN = Case("gated_pixelcnn", ("trainer.batch_size=64",))
FULL = Sizes(
    dataset="mnist",
    device="cuda",
    cases=(VAE, GAN, WGAN_GP, PIXELCNN, Case("pixelsnail", ("trainer.batch_size=64",))),
    compiled=(VAE, GAN, PIXELCNN, WGAN_GP),
    log_every=50,
    seconds=3.0,
    drawn=autoregressive_speed.MODELS,
    sampling=("--repetitions", "2"),
    trained={VAE: (), GAN: ("measure=[lenet]", "n=2000"), PIXELCNN: ()},
    train_seconds=33.0,
    test_processes=6,
    limits={"tests": 140, "speed": 115, "sampling": 70, "training": 120, "compiled": 120},
)
BRIEF = dataclasses.replace(
    FULL,
    cases=(),
    compiled=(),
    drawn=("gated_pixelcnn", "row_lstm", "pixelsnail"),
    trained={},
    limits=FULL.limits | {"tests": 45, "sampling": 60},
    total_seconds=90,
    flags=("--brief",),
    tests="graph",
)
QUICK = Sizes(
    dataset="digits",
    device="cpu",
    cases=(VAE, GAN, Case("gated_pixelcnn", ("model.width=8", "model.layers=1"))),
    compiled=(Case("vae", ("model.hidden=[32]", "model.latent=4")),),
    log_every=5,
    seconds=0.5,
    drawn=("gated_pixelcnn", "pixelcnnpp"),
    sampling=("--quick",),
    trained={VAE: (), GAN: ("measure=[lenet]", "n=200")},
    train_seconds=3.0,
    test_processes=0,
    limits={"tests": 60, "speed": 90, "sampling": 60, "training": 90, "compiled": 90},
    flags=("--quick",),
)


@dataclass
class Rows:
    """The file to which a part writes its rows, as it has them."""

    path: Path

    def add(self, part: str, what: str, setting: str = "", **values: Any) -> None:
        """Adds a row.

        Args:
            part, what, setting: the first columns of the table.
            values: `result` is the text of the result; others are numbers for other parts to read.
        """
        with self.path.open("a") as file:
            file.write(json.dumps({"part": part, "what": what, "setting": setting, **values}) + "\n")

    def read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines()]


def last_line(error: BaseException) -> str:
    """Returns an exception in one short line."""
    lines = [line for line in traceback.format_exception_only(error) if line.strip()]
    return " ".join(lines[-1].split())[:200] if lines else type(error).__name__


def words_of(case: Case, sizes: Sizes, *more: str) -> list[str]:
    """Returns the words of `genlab train`, without a run folder."""
    chosen = f"model={case.model}", f"dataset={sizes.dataset}", f"trainer.device={sizes.device}"
    return [*chosen, *case.words, *more]


def speed(sizes: Sizes, rows: Rows, work: Path, cases: list[Case], settings: dict[str, list[str]]) -> None:
    """Measures training in several settings; one whose name begins with DataLoader is fed by one."""
    for case in cases:
        for setting, words in settings.items():
            print(f"{case.name}, {setting}", flush=True)
            only_training = [
                "trainer.steps=1000000", f"trainer.log_every={sizes.log_every}", "trainer.sample_every=0",
                "trainer.evaluate_every=0", "trainer.checkpoint_every=0",
            ]  # fmt: skip
            typed = words_of(case, sizes, *only_training, *words)
            measure = loader_intervals if setting.startswith("DataLoader") else genlab_intervals
            try:
                first, intervals = measure(typed, sizes, work)
            except Exception as error:
                traceback.print_exc()
                rows.add("speed", case.name, setting, result=f"failed: {last_line(error)}")
                continue
            rates = [interval.images / interval.seconds for interval in intervals]
            median, images_per_step = statistics.median(rates), first.images / sizes.log_every
            result = (
                f"{median:,.0f} images/s ({min(rates):,.0f} to {max(rates):,.0f} in {len(rates)} intervals; "
                f"{images_per_step:.0f} images a step; first {sizes.log_every} steps {first.seconds:.1f} s)"
            )
            rows.add("speed", case.name, setting, result=result, rate=median, images_per_step=images_per_step)


class Interval(NamedTuple):
    """What happens between two log lines."""

    images: int
    seconds: float


Intervals = tuple[Interval, list[Interval]]
"""The first interval, in which everything starts, and all others."""


def genlab_intervals(typed: list[str], sizes: Sizes, work: Path) -> Intervals:
    """Runs `genlab train`, and stops it some seconds after its first log line."""
    run = Path(tempfile.mkdtemp(dir=work)) / "run"
    metrics, over = run / "metrics.jsonl", threading.Event()

    def stop_later() -> None:
        while not over.wait(0.05):
            if metrics.exists() and metrics.stat().st_size:
                if not over.wait(sizes.seconds):
                    os.kill(os.getpid(), signal.SIGUSR1)  # as a batch system stops a run: it saves and ends
                return

    timer = threading.Thread(target=stop_later)
    timer.start()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Interrupted):
            genlab.train(*typed, run_dir=run)
    finally:
        over.set()
        timer.join()
    lines = [Interval(0, 0.0)]
    for line in map(json.loads, metrics.read_text().splitlines()):
        if "images_per_second" in line:  # of training, not of validation
            lines.append(Interval(line["images"], line["seconds"]))
    first, *others = [Interval(b.images - a.images, b.seconds - a.seconds) for a, b in pairwise(lines)]
    return first, others or [first]


def loader_intervals(typed: list[str], sizes: Sizes, work: Path) -> Intervals:
    """Takes the steps of `genlab train` on batches of torch's DataLoader."""
    plain = genlab.compose(*typed)
    plain.pop("run_dir")
    config = registry.train_config(plain)
    found: list[Interval] = []
    with device.processes(config.trainer.device) as group:
        state = TrainingState(config, group)
        loader = DataLoader(
            Pictures(state.dataset),
            config.trainer.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=loader_workers(),
            persistent_workers=True,
            pin_memory=group.device.type == "cuda",
        )
        seen = 0

        def batches() -> Iterator[Batch]:
            nonlocal seen
            for images in endless(loader):
                seen += len(images)
                yield Batch(images.to(group.device, non_blocking=True), None)

        stream = batches()
        while len(found) < 2 or sum(interval.seconds for interval in found[1:]) < sizes.seconds:
            before, started = seen, time.perf_counter()
            for _ in range(sizes.log_every):
                state.record(state.family.step(stream, state.update))
                state.update.end_step()
            state.read_window()  # waits for the device
            found.append(Interval(seen - before, time.perf_counter() - started))
    return found[0], found[1:]


def loader_workers() -> int:
    return min(8, os.cpu_count() or 1)


def sampling(sizes: Sizes, rows: Rows, cases: list[Case]) -> None:
    """Measures sampling from autoregressive models, by autoregressive_speed.py."""
    arguments, side = autoregressive_speed.arguments_of([*sizes.sampling, "--device", sizes.device])
    torch_device = device.resolve(arguments.device, "--device")
    of = f"{arguments.batch_size} of {side}x{side}, width {arguments.width}"
    settings = {
        "cached": "CUDA graph with its capture" if torch_device.type == "cuda" else "cached",
        "batches": f"CUDA graph, {autoregressive_speed.BATCHES} batches with one capture",
        "eager": "cached without a graph",
        "naive": "naive, a product",
        "forward": "one pass over images",
    }
    for case in cases:
        print(case.name, flush=True)
        try:
            times = autoregressive_speed.measure(case.name, side, arguments, torch_device)
        except Exception as error:
            traceback.print_exc()
            rows.add("sampling", case.name, of, result=f"failed: {last_line(error)}")
            continue
        for action in [action for action in settings if action in times]:
            taken = times[action]
            images = arguments.batch_size * (autoregressive_speed.BATCHES if action == "batches" else 1)
            result = (
                f"{statistics.median(taken):.3f} s ({min(taken):.3f} to {max(taken):.3f} in {len(taken)}), "
                f"{images / statistics.median(taken):,.1f} images/s"
            )
            rows.add("sampling", case.name, f"{settings[action]}; {of}", result=result)


def train_model(sizes: Sizes, rows: Rows, work: Path, case: Case, steps: int | None, limit: float) -> None:
    """Trains a model, evaluates it and draws samples, by `genlab`'s own commands, within `limit` seconds."""
    end = time.monotonic() + limit
    run, words = work / f"train-{case.model}", words_of(case, sizes)
    if steps is not None:
        often = max(1, steps // 2)
        words += [f"trainer.steps={steps}"]
        words += [f"trainer.{key}={often}" for key in ("sample_every", "evaluate_every", "checkpoint_every")]
    command, started = "genlab train " + " ".join(words), time.monotonic()
    code, output = run_genlab("train", *words, f"run_dir={run}", timeout=0.7 * limit)
    spent = time.monotonic() - started
    if code not in (0, 75):  # 75: stopped by a signal, and saved
        rows.add("training", case.name, command, result=f"exit code {code}: {last_words(output)}")
        return
    reached = max(int(path.stem.split("-")[-1]) for path in (run / "checkpoints").glob("step-*.pt"))
    ended = "" if code == 0 else "; stopped by SIGTERM, saved"
    rows.add(
        "training", case.name, command, result=f"{reached:,} steps, {spent:.0f} s from start to end{ended}"
    )

    for verb, more in (("evaluate", sizes.trained[case]), ("sample", ("n=64",))):
        results, started = work / f"{verb}-{case.model}", time.monotonic()
        words = [verb, f"ckpt={run}", f"device={sizes.device}", *more, f"run_dir={results}"]
        code, output = run_genlab(*words, timeout=end - time.monotonic())
        spent = time.monotonic() - started
        if code != 0:
            result = f"exit code {code}: {last_words(output)}"
        elif verb == "evaluate":
            result = evaluated(json.loads((results / "evaluation.json").read_text()))
        else:
            result = f"{case.model}.png"
            shutil.copy(results / "grid.png", rows.path.with_name(result))
        result += f"; {spent:.0f} s from start to end"
        rows.add("training", case.name, " ".join(("genlab", verb, *more)), result=result)


def evaluated(facts: dict[str, Any]) -> str:
    """Returns the metrics of an evaluation.json, which follow its setting, with their standard errors."""
    names = list(facts)
    names = names[names.index("setting") + 1 :]
    shown = []
    for name in names:
        if not name.endswith("_standard_error"):
            error = facts.get(f"{name}_standard_error")
            shown.append(f"{name} {facts[name]:.5g}" + ("" if error is None else f" ± {error:.2g}"))
    return ", ".join(shown) or "no metrics"


def run_genlab(*words: str, timeout: float) -> tuple[int, str]:
    """Runs `genlab` in a process of its own, and stops it by SIGTERM at the limit.

    Returns:
        its exit code, and all that it printed.
    """
    print("genlab " + " ".join(words), flush=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "genlab", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        output, _ = process.communicate(timeout=max(timeout, 1))
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            output, _ = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
    print(output, flush=True)
    return process.returncode, output


def last_words(output: str) -> str:
    """Returns the last line of an output."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][-200:] if lines else "no output"


class Conductor:
    """Runs the parts, each with its limit, and makes the table.

    Args:
        sizes: what is run.
        out: the folder of all files that stay.
        work: a folder for all others.
    """

    def __init__(self, sizes: Sizes, out: Path, work: Path) -> None:
        self.started = time.monotonic()
        self.sizes, self.out, self.work = sizes, out, work
        self.rows = Rows(out / "gpu.jsonl")
        self.rows.path.unlink(missing_ok=True)
        self.log = (out / "gpu.log").open("w")
        self.environment = os.environ | {
            "GENLAB_CACHE": str(work / "cache"),
            "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor"),
            "TORCHINDUCTOR_COMPILE_THREADS": "2",  # of each process, and there are many
        }

    def conduct(self) -> None:
        """Runs everything: together only what is not timed, and the trainings."""
        sizes = self.sizes
        self.say("tests, and beside them what is compiled later, for the compiler's cache on disk")
        together([self.tests, *self.warming()])
        self.say("speed of training")
        self.over_cases("speed", "speed", [case.name for case in sizes.cases])
        self.say("speed of sampling")
        self.over_cases("sampling", "sampling", list(sizes.drawn))
        self.say(f"training of {', '.join(case.model for case in sizes.trained) or 'none'}, at the same time")
        together([lambda case=case: self.training(case) for case in sizes.trained])
        self.say("speed of training, compiled")
        self.over_cases("compiled", "speed", [case.name for case in sizes.compiled])
        self.say("done")

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:4.0f} s] {text}", flush=True)

    def left(self, limit: float) -> float:
        """Returns the seconds that a part may take: its limit, or less where the whole would last longer."""
        return min(limit, self.started + self.sizes.total_seconds - time.monotonic())

    def run(self, name: str, argv: list[str], limit: float, **environment: str) -> tuple[int | None, str]:
        """Runs a process to its end or the limit, and ends all that it started.

        Returns:
            its exit code, None at the limit; and its output.
        """
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            process = subprocess.Popen(
                argv, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, cwd=CHECKOUT,
                env=self.environment | environment,
            )  # fmt: skip
            code = None
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(max(self.left(limit), 1))
            for number in (signal.SIGINT, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(5)
            output.seek(0)
            text = output.read()
        self.log.write(f"==== {name}: {' '.join(argv)}\n{text}\n")
        self.log.flush()
        return code, text

    def part(self, name: str, cases: list[str], limit: float, *more: str) -> tuple[int | None, str]:
        """Runs one of this file's parts in a process."""
        argv = [sys.executable, str(HERE), *self.sizes.flags, "--part", name, "--work", str(self.work), *more]
        argv += ["--rows", str(self.rows.path), *chain(*(("--case", case) for case in cases))]
        return self.run(name, argv, limit)

    def over_cases(self, name: str, label: str, cases: list[str]) -> None:
        """Runs a part over cases. Where its process dies at one, a new process takes the cases after it."""
        end = time.monotonic() + self.left(self.sizes.limits[name])
        while cases:
            code, output = self.part(name, cases, end - time.monotonic())
            if code == 0:
                return
            begun = [line for line in output.splitlines() if line.split(", ")[0] in cases] or [cases[0]]
            at, _, setting = begun[-1].partition(", ")
            why = "over the time limit" if code is None else f"exit code {code}: {last_words(output)}"
            self.rows.add(label, at, setting or name, result=why)
            cases = cases[cases.index(at) + 1 :]
            if code is None:
                for case in cases:
                    self.rows.add(label, case, name, result="not reached within the time limit")
                return

    def warming(self) -> Iterable[Callable[[], Any]]:
        """Returns functions that each compile one network."""
        limit = self.sizes.limits["tests"]
        for case in self.sizes.compiled:
            for setting in settings_of("compiled"):
                yield lambda case=case, setting=setting: self.part(
                    "warming", [case.name], limit, "--setting", setting
                )

    def tests(self) -> None:
        """Runs the tests marked gpu; adds a row of their outcomes, and one for each that failed."""
        tests = (CHECKOUT / "tests").rglob("test_*.py")
        files = sorted(str(path) for path in tests if "mark.gpu" in path.read_text())
        count = self.sizes.test_processes
        argv = [sys.executable, "-m", "pytest", "-o", "addopts=", "-m", "gpu", "-v", "-rs", "--tb=short"]
        argv += ["-n", str(count)] if count else ["-p", "no:xdist"]
        argv += ["-k", self.sizes.tests] if self.sizes.tests else []
        started = time.monotonic()
        code, output = self.run("tests", [*argv, *files], self.sizes.limits["tests"], OMP_NUM_THREADS="1")
        outcomes: dict[str, list[str]] = {}
        for test, outcome in outcomes_of(output).items():
            outcomes.setdefault(outcome, []).append(test)
        counts = ", ".join(f"{len(tests)} {outcome.lower()}" for outcome, tests in sorted(outcomes.items()))
        result = f"{counts or 'none'}; {time.monotonic() - started:.0f} s"
        if code is None:
            result += ", over the time limit"
        elif code not in (0, 1):
            result += f"; exit code {code}: {last_words(output)}"
        self.rows.add(
            "tests", "pytest -m gpu" + f" -k {self.sizes.tests}" * bool(self.sizes.tests), result=result
        )
        for outcome in ("FAILED", "ERROR"):
            for test in outcomes.get(outcome, ()):
                self.rows.add("tests", test, result=f"{outcome.lower()}: {error_of(test, output)}")

    def training(self, case: Case) -> None:
        """Trains a model for about the seconds wanted, at the speed that was measured, and evaluates it."""
        limit = self.left(self.sizes.limits["training"])
        measured = [row for row in self.rows.read() if (row["what"], row["setting"]) == (case.name, "fp32")]
        more = ["--limit", str(limit - 10)]
        if measured and "rate" in measured[0]:
            steps_per_second = measured[0]["rate"] / measured[0]["images_per_step"]
            more += ["--steps", str(max(10, round(self.sizes.train_seconds * steps_per_second)))]
        code, output = self.part("training", [case.name], limit, *more)
        if code != 0:
            why = "over the time limit" if code is None else f"exit code {code}: {last_words(output)}"
            self.rows.add("training", case.name, result=why)

    def table(self) -> str:
        """Returns the report in Markdown: what the figures depend on, and one table."""
        facts = {
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            **hardware(self.sizes.device),
            "command": " ".join(("`benchmarks/gpu.sh", *self.sizes.flags)) + "`",
            "wall time": f"{time.monotonic() - self.started:.0f} s",
        }
        lines = [f"- {name}: {value}" for name, value in facts.items()]
        lines += ["", "| part | what | setting | result |", "|---|---|---|---|"]
        rows = self.rows.read()
        keys = [(row["part"], row["what"]) for row in rows]
        parts = ["tests", "speed", "sampling", "training"]
        for row in sorted(
            rows, key=lambda row: (parts.index(row["part"]), keys.index((row["part"], row["what"])))
        ):
            cells = (row["part"], f"`{row['what']}`", row["setting"], row["result"])
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        return "\n".join(lines) + "\n"


def outcomes_of(output: str) -> dict[str, str]:
    """Returns the last outcome of each test, of the output of `pytest -v`, with xdist or without."""
    words = "PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS"
    alone, shared = rf"^(\S+::.+?) ({words})\b", rf"^\[gw\d+\].*? ({words}) (\S+::.+?)\s*$"
    found: dict[str, str] = {}
    for line in output.splitlines():
        if match := re.search(shared, line):
            found[match.group(2)] = match.group(1)
        elif match := re.search(alone, line):
            found[match.group(1)] = match.group(2)
    return found


def error_of(test: str, output: str) -> str:
    """Returns the first line of a failed test's error."""
    name = test.split("::", 1)[-1].replace("::", ".")
    section = re.search(
        rf"^_+ .*{re.escape(name)} _+$(.*?)(?=^_{{5,}} |^=)", output, re.MULTILINE | re.DOTALL
    )
    lines = re.findall(r"^E +(\S.*)$", section.group(1), re.MULTILINE) if section else []
    return lines[0][:300] if lines else "see gpu.log"


def together(actions: Iterable[Callable[[], Any]]) -> None:
    """Calls functions at the same time, each in a thread, and waits for all."""
    threads = [threading.Thread(target=action) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def hardware(name: str) -> dict[str, str]:
    """Returns what the figures depend on: GPU and driver, processor, versions."""
    facts = {}
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    if name == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
            facts["GPU, driver, memory"] = answer.stdout.strip()
        versions += f", CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    facts["processor"] = autoregressive_speed.machine(torch.device("cpu"))
    return facts | {"versions": versions}


def settings_of(part: str) -> dict[str, list[str]]:
    """Returns the settings in which a part measures training, with their words of `genlab train`."""
    bf16, compiled = "trainer.precision=bf16", "trainer.compile=true"
    if part == "speed":
        return {"fp32": [], "bf16": [bf16], f"DataLoader, {loader_workers()} workers, fp32": []}
    return {"compiled, fp32": [compiled], "compiled, bf16": [compiled, bf16]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="on the CPU, small; the figures mean nothing")
    parser.add_argument(
        "--brief", action="store_true", help="sampling with CUDA graphs alone, in 100 seconds"
    )
    hidden: dict[str, Any] = {"help": argparse.SUPPRESS}  # what the processes of parts are given
    for name in ("part", "setting"):
        parser.add_argument(f"--{name}", **hidden)
    for name in ("rows", "work"):
        parser.add_argument(f"--{name}", type=Path, **hidden)
    parser.add_argument("--case", action="append", **hidden)
    parser.add_argument("--steps", type=int, **hidden)
    parser.add_argument("--limit", type=float, **hidden)
    given = parser.parse_args()
    given.quick |= os.environ.get("GPU_QUICK") == "1"
    sizes = QUICK if given.quick else BRIEF if given.brief else FULL
    if given.part:
        perform(given, sizes)
        return
    out = Path(os.environ.get("OUT") or CHECKOUT / "outputs" / "gpu").resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="genlab-gpu-", ignore_cleanup_errors=True) as work:
        conductor = Conductor(sizes, out, Path(work))
        try:
            conductor.conduct()
        finally:
            table = conductor.table()
            (out / "gpu.md").write_text(table)
            print("\n" + table, flush=True)


def perform(given: argparse.Namespace, sizes: Sizes) -> None:
    """Performs a part in this process."""
    rows, work = Rows(given.rows), given.work
    known = {case.name: case for case in (*sizes.cases, *sizes.compiled, *sizes.trained)}
    cases = [known.get(name) or Case(name) for name in given.case]
    match given.part:
        case "speed" | "compiled":
            speed(sizes, rows, work, cases, settings_of(given.part))
        case "warming":
            settings = {given.setting: settings_of("compiled")[given.setting]}
            briefly = dataclasses.replace(sizes, seconds=0.0, log_every=1)
            speed(briefly, Rows(Path(os.devnull)), work, cases, settings)
        case "sampling":
            sampling(sizes, rows, cases)
        case "training":
            train_model(sizes, rows, work, cases[0], given.steps, given.limit)


if __name__ == "__main__":
    main()
