"""Checkpoints with a right checksum and false content: each is refused in one line, or loads.

    python benchmarks/checkpoint_fuzz.py --mutations 10000       # about a quarter of an hour on one core
    python benchmarks/checkpoint_fuzz.py --mutations 300         # what the tests do
    python benchmarks/checkpoint_fuzz.py --family vae --first 4711 --mutations 1 --show

Small runs of four families are trained, and the structure of their checkpoints is changed by a seeded
generator: types, names, shapes, strides, values, nesting, and records of the archive itself. Each file gets a
right checksum and is then sampled from or resumed for a step, in a child process, so that one that dies is
noticed and named. Mutation k is the same in every run of this script.

Loaded: the samples are finite, or the step was made. Refused: a `UserError` of one printable line. Everything
else is a fault: another exception or the death of the process (crashed), more than 5 seconds (hung), or more
than 1 GiB of memory beyond what the process had.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import io
import json
import logging
import math
import os
import random
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genlab.commands import train
from genlab.errors import UserError
from genlab.runs import checkpoint
from genlab.trained.api import TrainedModel, load

SECONDS = 5.0
MEMORY_BYTES = 2**30
_ADDRESS_SPACE_BYTES = 8 * 2**30
_LARGEST_FILE_BYTES = 2**27
_OF_A_PROCESS = 1000
"""Mutations of a child process, before another takes its place."""

MODELS: dict[str, dict[str, Any]] = {
    "vae": {"network": "mlp", "hidden": [16], "latent": 4, "likelihood": "gaussian"},
    "wgan_gp": {"width": 4, "latent": 4, "critic_steps": 1},
    "gated_pixelcnn": {"width": 4, "layers": 1, "head": 8, "first_kernel": 3},
    "vqvae": {"width": 8, "residual_blocks": 1, "halvings": 1, "codes": 8, "code_dimensions": 4},
}


class Base(NamedTuple):
    """A run of one family: its configuration, and its checkpoint before the last step."""

    family: str
    config: dict[str, Any]
    state: dict[str, Any]


def bases(folder: Path) -> list[Base]:
    """Trains a small run of each family, for two steps on digits, with a moving average."""
    found = []
    for name, settings in MODELS.items():
        config = {
            "model": {"name": name, **settings},
            "dataset": {"name": "digits"},
            "optimizer": {"name": "rmsprop" if name == "gated_pixelcnn" else "adam"},
            "schedule": {"name": "constant"},
            "trainer": {
                "steps": 2, "batch_size": 8, "device": "cpu", "checkpoint_every": 1, "evaluate_images": 4,
                "sample_images": 2, "ema_half_life_images": 16, "log_every": 10, "evaluate_every": 0,
            },
            "seed": 0,
        }  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):
            run = train.start(config, [], str(folder / name))
        state = checkpoint.load(run / "checkpoints/step-00000001.pt")
        found.append(Base(name, state["config"], state))
    return found


# What is put in place of a value.


def _cycle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def _doubling() -> list[Any]:
    found: list[Any] = [0]
    for _ in range(60):
        found = [found, found]
    return found


def _nested(depth: int, kind: type) -> Any:
    found: Any = {} if kind is dict else []
    for _ in range(depth):
        found = {"a": found} if kind is dict else [found]
    return found


_NUMBERS = (
    0, 1, -1, 2, 3, 255, 2**15, 10**6, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 10**18, 2**100, 10**400,
    0.0, -0.0, 0.5, -0.5, 1.5, 1e-320, 1e9, 1e18, 1e308, -1e308, math.inf, -math.inf, math.nan,
)  # fmt: skip
_WORDS = (
    "", "x", "0", "vae", "digits", "auto", "\x1b[31mred\x07", "line\nline", "\u202eabc", "\udc80",
    "a" * 9_000, "a" * 100_000, "/dev/zero", "../../etc",
)  # fmt: skip
_OTHERS = (
    None, True, False, (), (1, 2), b"bytes", [], {}, [1], [-1], [0.5], [1] * 1000, [1] * 200_000,
    {"name": "vae"}, {"a": {"b": []}}, {0: 1}, {-1: 1}, ["a", None], {1}, 1j, torch.float32, bytearray(3),
)  # fmt: skip

VALUES: list[Callable[[], Any]] = [
    *((lambda value=value: copy.deepcopy(value)) for value in (*_NUMBERS, *_WORDS, *_OTHERS)),
    _cycle,
    _doubling,
    lambda: _nested(12, list),
    lambda: _nested(300, list),
    lambda: _nested(300, dict),
    lambda: collections.OrderedDict(a=1),
    lambda: collections.Counter("aab"),
    lambda: torch.Size([1, 2]),
    lambda: torch.zeros(()),
    lambda: torch.zeros(3),
    lambda: torch.zeros(0),
    lambda: torch.zeros(2, 0, 3),
    lambda: torch.zeros((1,) * 40),
    lambda: torch.ones(2, 3, dtype=torch.int64),
    lambda: torch.zeros(3, dtype=torch.bool),
    lambda: torch.zeros(3, dtype=torch.complex64),
    lambda: torch.zeros(3).to_sparse(),
    lambda: torch.zeros(10**3, 10**3).to_sparse(),
    lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.quint8),
    lambda: torch.zeros(1).expand(10**13),
    lambda: torch.zeros(1).expand(10**6, 10**6),
    lambda: torch.zeros(9).as_strided((5, 5), (1, 1)),
    lambda: torch.zeros(3, device="meta"),
    lambda: torch.nn.Parameter(torch.zeros(3)),
    lambda: torch.full((5056,), 255, dtype=torch.uint8),
    torch.get_rng_state,
]


_WEIGHTS = {"config": 8, "spec": 3, "weights": 6, "averages": 4, "optimizers": 8}
"""How often a part of a checkpoint is changed; others 1."""


def mutate(base: Base, generator: random.Random) -> tuple[dict[str, Any], list[str]]:
    """Returns a copy of a checkpoint with one to three changes, and what they are."""
    state = copy.deepcopy(base.state)
    done = [_change(state, generator) for _ in range(generator.choice((1, 1, 1, 2, 3)))]
    return state, done


def _change(state: dict[str, Any], generator: random.Random) -> str:
    """Changes one place, chosen evenly at each level of a random depth, and returns what was done."""
    holder: Any = state
    key: Any = generator.choices(list(state), [_WEIGHTS.get(name, 1) for name in state])[0]
    path = str(key)
    while generator.random() < 0.85:
        inner = holder[key]
        keys = list(inner) if isinstance(inner, dict) else range(len(inner) if isinstance(inner, list) else 0)
        if not keys or len(path) > 200:
            break
        holder, key = inner, generator.choice(list(keys))
        path += f".{str(key)[:30]}"
    value = holder[key]
    if isinstance(value, Tensor) and generator.random() < 0.7:
        name, made = generator.choice(TENSOR_CHANGES)
        with contextlib.suppress(RuntimeError, IndexError):
            holder[key] = made(value, generator)
            return f"{path}: {name}"
    if isinstance(holder, dict) and generator.random() < 0.3:
        return f"{path}: {_change_names(holder, key, generator)}"
    if isinstance(value, list) and generator.random() < 0.5:
        return f"{path}: {_change_list(value, generator)}"
    if type(value) in (int, float) and generator.random() < 0.4:
        holder[key] = generator.choice(_like(value))
        return f"{path}: {holder[key]!r}"
    index = generator.randrange(len(VALUES))
    holder[key] = VALUES[index]()
    return f"{path}: value {index}"


def _like(value: Any) -> tuple[Any, ...]:
    return value + 1, value - 1, value * 2, -value, value * 10**6, float(value), str(value)


def _change_names(holder: dict[Any, Any], key: Any, generator: random.Random) -> str:
    other = generator.choice(list(holder))
    match generator.randrange(6):
        case 0:
            del holder[key]
            return "dropped"
        case 1:
            holder[generator.choice((f"{key}x", "", 7, 10**9, True, 0.5, "\x1b[2J"))] = holder.pop(key)
            return "renamed"
        case 2:
            holder[generator.choice(("extra", "name", 3, "weights", "\x1b]0;x\x07"))] = copy.copy(holder[key])
            return "added"
        case 3:
            holder[key], holder[other] = holder[other], holder[key]
            return f"swapped with {other}"
        case 4:
            holder[key] = holder[other]
            return f"the same as {other}"
    holder.clear()
    return "all of them dropped"


def _change_list(value: list[Any], generator: random.Random) -> str:
    match generator.randrange(5):
        case 0:
            value.clear()
            return "emptied"
        case 1:
            value.append(generator.choice(VALUES)())
            return "longer"
        case 2:
            value *= 1000
            return "1000 times"
        case 3:
            value.reverse()
            return "reversed"
    value.append(value)
    return "contains itself"


def _with(value: Tensor, number: float, generator: random.Random) -> Tensor:
    found = value.clone()
    if found.numel():
        found.view(-1)[generator.randrange(found.numel())] = number
    return found


def _expanded(value: Tensor, _: random.Random) -> Tensor:
    return value.reshape(-1)[:1].expand(value.shape)


TENSOR_CHANGES: list[tuple[str, Callable[[Tensor, random.Random], Any]]] = [
    *(
        (str(dtype), lambda t, _, dtype=dtype: t.to(dtype))
        for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
    ),
    ("complex", lambda t, _: t.to(torch.complex64)),
    *(
        (f"one number {number}", lambda t, g, number=number: _with(t, number, g))
        for number in (math.nan, math.inf, -math.inf, -1.0, 3e38, 0.0, 1e20)
    ),
    ("flat", lambda t, _: t.flatten()),
    ("one dimension more", lambda t, _: t.unsqueeze(0)),
    ("transposed", lambda t, _: t.transpose(0, -1)),
    ("transposed in memory", lambda t, _: t.transpose(0, -1).contiguous().transpose(0, -1)),
    ("half", lambda t, _: t[: len(t) // 2]),
    ("every second", lambda t, _: t[::2]),
    ("of a larger storage", lambda t, _: torch.cat([t, t])[: len(t)]),
    ("apart", lambda t, _: t.repeat_interleave(2, -1)[..., ::2]),
    ("twice", lambda t, _: torch.cat([t, t])),
    ("empty", lambda t, _: t[:0]),
    ("a scalar", lambda t, _: t.flatten()[0].clone()),
    ("expanded", _expanded),
    ("overlapping", lambda t, _: t.flatten().as_strided(t.shape, (1,) * t.ndim)),
    ("a giant", lambda t, _: t.flatten()[:1].expand(10**13)),
    ("sparse", lambda t, _: t.to_sparse()),
    ("quantised", lambda t, _: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)),
    ("a parameter", lambda t, _: torch.nn.Parameter(t)),
    ("on no device", lambda t, _: t.to("meta")),
    ("negative", lambda t, _: -t),
    ("a list", lambda t, _: t.flatten()[:100].tolist()),
    ("a number", lambda t, _: t.double().sum().item()),
    ("conjugated", lambda t, _: t.to(torch.complex64).conj()),
    ("0", lambda t, _: torch.zeros_like(t)),
]


# Changes of the archive.


def _records(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {each.filename: archive.read(each) for each in archive.infolist()}


def _archive(records: dict[str, bytes], compressed: bool = False) -> bytes:
    file = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return file.getvalue()


def damage(content: bytes, generator: random.Random) -> tuple[bytes, str]:
    """Returns an archive with one change of its records or of its pickle, and what it is."""
    records = _records(content)
    pickled = next(name for name in records if name.endswith("data.pkl"))
    storage = generator.choice([name for name in records if "/data/" in name])
    pickle = bytearray(records[pickled])
    kinds = (
        "a byte of the pickle", "operations", "a longer record", "a shorter record", "dropped", "compressed",
        "an extra record", "cut pickle", "other", "a byte of the archive", "bytearray", "deep key", "a bomb",
        "no archive", "a byte of the end",
    )  # fmt: skip
    kind = generator.choice(kinds)
    match kind:
        case "a byte of the pickle":
            for _ in range(generator.choice((1, 1, 2, 5))):
                pickle[generator.randrange(len(pickle))] = generator.randrange(256)
        case "operations":
            at = generator.randrange(2, len(pickle))
            pickle[at:at] = generator.choices(
                b"N}])(0.e2utbRQ\x85\x86\x87\x88sahKq", k=generator.choice((1, 3, 50))
            )
        case "a longer record":
            records[storage] += bytes(generator.choice((1, 64, 10**6)))
        case "a shorter record":
            records[storage] = records[storage][:-1]
        case "dropped":
            del records[generator.choice(list(records))]
        case "an extra record":
            records[generator.choice(("archive/data/99999", "archive/x", "/etc/passwd", "b/data.pkl"))] = (
                bytes(9)
            )
        case "cut pickle":
            del pickle[generator.randrange(len(pickle)) :]
        case "other":
            pickle = pickle.replace(
                b"FloatStorage", generator.choice((b"DoubleStorage", b"ByteStorage", b"X"))
            )
        case "bytearray":
            pickle = bytearray(b"\x80\x02c__builtin__\nbytearray\n\x8a\x05\x00\x00\x00\x00\x10\x85R.")
        case "deep key":
            pickle = bytearray(b"\x80\x02})" + b"\x85" * 2_000_000 + b"Ns.")
        case "a bomb":
            records["archive/data/0"] = bytes(50 * 2**20)
    records[pickled] = bytes(pickle)
    made = _archive(records, kind in ("compressed", "a bomb")) if kind != "no archive" else bytes(1000)
    if kind.startswith("a byte of the "):
        changed = bytearray(made)
        at = -generator.randrange(1, 23) if kind.endswith("end") else generator.randrange(len(made))
        changed[at] ^= 1 << generator.randrange(8)
        made = bytes(changed) if kind != "a byte of the pickle" else made
    return made, kind


def seal(state: Any) -> bytes:
    """Returns the bytes of a checkpoint with a right checksum.

    Raises:
        Exception: Python cannot write it.
    """
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def signed(content: bytes) -> bytes:
    """Returns an archive without a comment with one that has its checksum."""
    return content[:-2] + checkpoint._trailer(content[:-2])


class Mutation(NamedTuple):
    """One file: its bytes, the number of the step in its name, and what was changed."""

    family: str
    content: bytes
    step: int
    done: str


def mutation(number: int, given: list[Base]) -> Mutation:
    """Returns mutation k of these runs."""
    generator = random.Random(number)
    base = given[number % len(given)]
    while True:
        try:
            if generator.random() < 0.15:
                content, done = damage(seal(base.state), generator)
                return Mutation(base.family, signed(content), 1, done)
            state, changes = mutate(base, generator)
            content = seal(state)
        except Exception:  # nothing that Python can make or write
            continue
        if len(content) > _LARGEST_FILE_BYTES:
            continue
        step = state.get("step")
        named = step if type(step) is int and 0 <= step < 10**12 else 1
        return Mutation(base.family, signed(content), named, "; ".join(changes))


# One mutation in a child process.


class Hung(BaseException):
    """The time is over."""


def attempt(case: Mutation, base: Base, folder: Path, resume: bool) -> str:
    """Samples from a file or resumes it; returns "loaded", or why it was refused.

    Raises:
        Exception: a fault.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / f"step-{case.step:08d}.pt").write_bytes(case.content)
    try:
        if resume:
            train.resume(str(folder), copy.deepcopy(base.config), [])
        else:
            _sample(load(folder))
    except UserError as error:
        line = str(error)
        if not line.isprintable() or not line or len(line) > 3000:
            raise AssertionError(f"not a line of text: {line[:300]!r}") from error
        return line
    return "loaded"


def _sample(model: TrainedModel) -> None:
    if model.family.generates:
        images = model.sample(2)
    else:
        images = model.reconstruct(torch.rand(2, *model.spec.shape))
    assert images.isfinite().all()


def _peak_bytes() -> int:
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def _forget_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return _peak_bytes()


def _work(numbers: list[int], given: list[Base], folder: Path, report: int) -> None:
    """Tries mutations one after the other; writes a line before and after each."""
    virtual = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limit = virtual + _ADDRESS_SPACE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def over(*_: object) -> None:
        raise Hung

    signal.signal(signal.SIGALRM, over)
    logging.disable(logging.CRITICAL)
    by_name = {base.family: base for base in given}
    for number in numbers:
        case = mutation(number, given)
        os.write(report, json.dumps({"begins": number, "done": case.done[:300]}).encode() + b"\n")
        before, began = _forget_peak(), time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            said = attempt(case, by_name[case.family], folder, resume=bool(number // 7 % 2))
            kind = "loaded" if said == "loaded" else "refused"
        except Hung:
            kind, said = "hung", traceback.format_exc()[-2000:]
        except BaseException:
            kind, said = "crashed", traceback.format_exc()[-3000:]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        line = {
            "number": number, "family": case.family, "kind": kind, "said": said, "done": case.done[:300],
            "seconds": time.perf_counter() - began, "bytes": max(0, _peak_bytes() - before),
        }  # fmt: skip
        os.write(report, json.dumps(line).encode() + b"\n")


def results(numbers: list[int], given: list[Base], folder: Path) -> Iterator[dict[str, Any]]:
    """Tries mutations in a child process, and in another one after it dies."""
    left = list(numbers)
    while left:
        read, write = os.pipe()
        process = os.fork()
        if not process:
            os.close(read)
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            os.chdir(folder)
            try:
                _work(left[:_OF_A_PROCESS], given, folder / "run", write)
            except BaseException:
                os.write(write, json.dumps({"failed": traceback.format_exc()[-3000:]}).encode() + b"\n")
                os._exit(1)
            os._exit(0)
        os.close(write)
        begun: dict[str, Any] = {}
        killed = False
        with open(read, "rb", 0) as lines:
            pending = b""
            while True:
                if not select.select([lines], [], [], 4 * SECONDS)[0]:
                    os.kill(process, signal.SIGKILL)  # its own alarm has not helped
                    killed = True
                part = lines.read(2**16)
                if not part:
                    break
                *whole, pending = (pending + part).split(b"\n")
                for line in map(json.loads, whole):
                    if "failed" in line:
                        raise RuntimeError(f"the fuzz test itself failed: {line['failed']}")
                    if "begins" in line:
                        begun = line
                    else:
                        left.remove(line["number"])
                        yield line
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if left and begun and begun["begins"] in left:
            number = begun["begins"]
            left.remove(number)
            kind = "hung" if killed else "crashed"
            family = given[number % len(given)].family
            yield {
                "number": number, "family": family, "kind": kind, "said": f"the process ended with {code}",
                "done": begun["done"], "seconds": SECONDS, "bytes": 0,
            }  # fmt: skip
        elif left and code:
            raise RuntimeError(f"the child process ended with {code} before it began")


def fuzz(count: int, first: int = 0, families: tuple[str, ...] = tuple(MODELS)) -> list[dict[str, Any]]:
    """Returns what became of each mutation, on small runs that are trained first."""
    with tempfile.TemporaryDirectory() as folder:
        given = [base for base in bases(Path(folder)) if base.family in families]
        return list(results(list(range(first, first + count)), given, Path(folder)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--family", choices=list(MODELS), help="of this one alone")
    parser.add_argument("--show", action="store_true", help="print what each of them came to")
    given = parser.parse_args()
    families = (given.family,) if given.family else tuple(MODELS)
    rows = fuzz(given.mutations, given.first, families)
    names = ("loaded", "refused", "crashed", "hung")
    print(f"{'family':<16}{'mutations':>10}" + "".join(f"{name:>9}" for name in names), end="")
    print(f"{'largest MiB':>13}{'longest s':>11}{'seconds':>9}")
    for family in (*families, "all"):
        own = [row for row in rows if family in ("all", row["family"])]
        kinds = collections.Counter(row["kind"] for row in own)
        print(f"{family:<16}{len(own):>10}" + "".join(f"{kinds[name]:>9}" for name in names), end="")
        most = max((row["bytes"] for row in own), default=0) / 2**20
        seconds = [row["seconds"] for row in own] or [0.0]
        print(f"{most:>13.0f}{max(seconds):>11.2f}{sum(seconds):>9.1f}")
    for row in rows:
        if given.show or faulty(row):
            print(f"\n{row['number']} {row['family']} ({row['done']}): {row['kind']}\n{row['said']}")
    sys.exit(any(map(faulty, rows)))


def faulty(row: dict[str, Any]) -> bool:
    """Returns whether a mutation was answered as no file may be."""
    slow = row["seconds"] > SECONDS
    return row["kind"] in ("crashed", "hung") or slow or row["bytes"] > MEMORY_BYTES


if __name__ == "__main__":
    main()
