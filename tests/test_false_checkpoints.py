"""A checkpoint with a right checksum and false content is refused in one line, before it can do harm."""

from __future__ import annotations

import collections
import copy
import math
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.checkout import CHECKOUT, load_benchmark
from helpers.command_line import genlab

from genlab.cli.main import main
from genlab.commands import train
from genlab.config.schema import from_plain, setting
from genlab.errors import CheckpointError, ConfigError, UserError, printable
from genlab.runs import checkpoint, content
from genlab.trained.api import load
from genlab.trained.model import load_model

fuzz = load_benchmark("checkpoint_fuzz")

VAE = CHECKOUT / "tests/old_runs_format_1/vae"
OPTIMIZER = "optimizers.vae.state.1"
HEIGHT, LAYER = "spec.height", "weights.vae.encoder.net.layers.0.weight"


def of_run() -> dict[str, Any]:
    return checkpoint.load(VAE / "checkpoints/step-00000020.pt")


def put(state: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """Sets what stands at a place, a path of names that may have dots themselves, and numbers of lists."""
    holder: Any = state
    words = place.split(".")
    while True:
        if isinstance(holder, list):
            key, words = int(words[0]), words[1:]
        else:
            names = {str(name): name for name in holder}
            length = next((k for k in range(len(words), 0, -1) if ".".join(words[:k]) in names), len(words))
            key = names.get(".".join(words[:length]), ".".join(words[:length]))
            words = words[length:]
        if not words:
            holder[key] = value(holder[key]) if callable(value) else value
            return state
        holder = holder[key]


def written(state: Any, folder: str = "run", step: int = 20) -> str:
    """Writes a run folder with one checkpoint, with a right checksum whatever is in it."""
    path = Path(folder) / "checkpoints" / f"step-{step:08d}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(fuzz.signed(fuzz.seal(state)))
    shutil.copy(VAE / "config.yaml", folder)
    return folder


FALSE: list[tuple[str, Any, str]] = [
    ("config.model.latent", 10**18, "model.latent=1000000000000000000: must be"),
    ("config.model.latent", 99_999, "larger model than its weights"),
    ("config.model.hidden", [1] * 1_000_000, "too many values|has 1000000 values; give at most 100"),
    ("config.model.hidden", [1] * 1000, "has 1000 values; give at most 100"),
    ("config.model.hidden", [100_000] * 100, "larger model than its weights"),
    ("config.model.name", ["vae"], "model: missing"),
    ("config.model.beta", 10**400, "more than tensors|finite"),
    ("config.optimizer.betas", [0.9], "betas"),
    ("config", [], "config: expected groups of settings"),
    ("spec.height", -1, "spec.height=-1: must be at least 1"),
    ("spec.height", 10**18, "spec.height=1000000000000000000: must be"),
    ("spec.levels", 10**9, "spec.levels=1000000000: must be"),
    ("spec.kind", "pictures", "spec.kind=pictures: not one of"),
    ("spec.name", "../../\x1b[31m", "spec"),
    ("spec.width", "8", "spec.width=8: expected a whole number"),
    ("step", -1, "step=-1"),
    ("step", "20", "step='20'"),
    ("step", 21, "step=21: the run has 20 steps"),
    ("step", True, "step=True"),
    ("images", 641, "images=641: not 20 batches of 32"),
    ("batches", 2**60, "batches=1152921504606846976"),
    ("seconds", math.nan, "seconds=nan"),
    ("metrics_bytes", 1.5, "metrics_bytes=1.5"),
    ("window", {"loss": torch.zeros(10**6)}, "window.loss"),
    ("window", {"loss": 3.0}, "window.'loss': expected a tensor"),
    ("random", [], "random"),
    ("random.0.cpu", torch.zeros(5056, dtype=torch.uint8), "random.0..cpu"),
    ("random.0.cpu", torch.zeros(5056), "random.0..cpu"),
    (LAYER, lambda t: t.double(), "weights.vae.encoder.net.layers.0.weight: float64 of shape"),
    (LAYER, lambda t: t.t().contiguous(), "of shape .64, 16., expected float32 of .16, 64."),
    (LAYER, lambda t: t.flatten()[:1].expand(10**12), "repeats its numbers"),
    (LAYER, lambda t: t.flatten()[:1].expand(t.shape), "repeats its numbers"),
    (LAYER, lambda t: t.flatten().as_strided((16, 64), (1, 1)), "repeats its numbers"),
    (LAYER, lambda t: t.to_sparse(), "more than tensors"),
    (LAYER, lambda t: t.to("meta"), "more than tensors"),
    (LAYER, lambda t: t.to(torch.complex64), "complex64 of shape"),
    (
        LAYER,
        lambda t: t.index_fill(0, torch.tensor(3), math.nan),
        f"{LAYER}: has a number that is not finite",
    ),
    (
        LAYER,
        lambda t: t.index_fill(0, torch.tensor(3), math.inf),
        f"{LAYER}: has a number that is not finite",
    ),
    ("weights", {}, "do not fit its configuration"),
    ("weights.vae.more", torch.zeros(3), "do not fit its configuration"),
    ("averages.vae.updates", -3, "averages.vae.updates=-3"),
    ("averages.encoder", {}, "averages"),
    (f"{OPTIMIZER}.exp_avg", torch.zeros(1), rf"{OPTIMIZER[:-2]}.*exp_avg: expected a tensor of shape"),
    (f"{OPTIMIZER}.exp_avg", lambda t: t.half(), "exp_avg: expected a tensor of shape"),
    (f"{OPTIMIZER}.exp_avg", lambda t: t.t().contiguous().t(), "lie in another order"),
    (f"{OPTIMIZER}.exp_avg_sq", None, "exp_avg_sq: expected a tensor"),
    (f"{OPTIMIZER}.step", torch.zeros(4), "step: expected a tensor of shape"),
    (OPTIMIZER, {}, ""),  # a weight that has had no gradient has no moments
    (f"{OPTIMIZER}.more", torch.zeros(()), "expected exp_avg, exp_avg_sq, step"),
    ("optimizers.vae.state.99", {}, "state: not of the weights"),
    ("optimizers.vae.param_groups", [], "param_groups"),
    ("optimizers.vae.param_groups.0.betas", (2.0, 0.9), "betas: not that of the configuration"),
    ("optimizers.vae.param_groups.0.eps", "1e-8", "eps: not that of the configuration"),
    ("optimizers.vae.param_groups.0.lr", -1.0, "lr=-1.0"),
    ("optimizers.vae.param_groups.0.params", [0, 0, 1], "params: not that"),
    ("optimizers.vae.param_groups.0.amsgrad", True, "amsgrad"),
    ("optimizers.vae.param_groups.0.fused", torch.zeros(3), "fused"),
    ("optimizers", {}, "optimizers"),
]


@pytest.mark.parametrize(
    ("place", "value", "line"), FALSE, ids=[f"{k} {p}" for k, (p, *_) in enumerate(FALSE)]
)
def test_false_content_is_named(place: str, value: Any, line: str) -> None:
    run = written(put(of_run(), place, value))
    began = time.perf_counter()
    if line:
        with pytest.raises(CheckpointError, match=line) as error:
            content.read_to_resume(Path(run, "checkpoints/step-00000020.pt"))
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 1000
    else:
        content.read_to_resume(Path(run, "checkpoints/step-00000020.pt"))
    assert time.perf_counter() - began < 5


def test_a_moment_that_is_no_number_is_refused_where_a_run_goes_on() -> None:
    run = written(put(of_run(), f"{OPTIMIZER}.exp_avg_sq", lambda t: -t))
    load_model(run, "auto", torch.device("cpu"))  # a sample has no use for it
    with pytest.raises(CheckpointError, match="exp_avg_sq: is negative"):
        train.resume(run, None, [])
    state = of_run()
    moments = state["optimizers"]["vae"]["state"]
    moments[2]["exp_avg"] = moments[2]["exp_avg_sq"]
    with pytest.raises(CheckpointError, match="at the place of others"):
        train.resume(written(state), None, [])


@pytest.mark.parametrize("key", ["step", "images", "batches", "seconds", "metrics_bytes", "window", "random"])
def test_a_missing_part_is_named(key: str) -> None:
    state = of_run()
    del state[key]
    with pytest.raises(CheckpointError, match=f"{key}|not a genlab checkpoint"):
        load(written(state))


@pytest.mark.parametrize("verb", [["sample"], ["evaluate"], ["reconstruct"], ["traverse"], ["encode"]])
def test_every_verb_answers_in_one_line(verb: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    written(put(of_run(), LAYER, lambda t: t * math.nan))
    assert main([*verb, "ckpt=run"]) == 2
    assert main(["resume", "run=run", "trainer.steps=21"]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.endswith(f"{LAYER}: has a number that is not finite; use another checkpoint of the run")
               for line in lines)  # fmt: skip


def test_words_of_a_file_have_no_control_characters(capfd: pytest.CaptureFixture[str]) -> None:
    written(put(of_run(), "config.model.network", "\x1b[2J\x1b]0;title\x07\nnext\u202e"))
    assert main(["sample", "ckpt=run"]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert r"model.network=\x1b[2J\x1b]0;title\x07 next\u202e: not one of" in err
    assert printable("plain, and é, 数字") == "plain, and é, 数字"
    assert printable("\x9b1m \udc80") == r"\x9b1m \udc80"
    with pytest.raises(UserError) as error:
        load("run")
    assert str(error.value).isprintable()


def test_a_name_of_another_step_is_not_the_newest(capfd: pytest.CaptureFixture[str]) -> None:
    written(of_run())
    written(of_run(), step=30)
    assert checkpoint.find("run", content.read)[0].name == "step-00000020.pt"
    assert checkpoint.newest(Path("run/checkpoints")) == Path("run/checkpoints/step-00000020.pt")
    genlab("sample", "ckpt=run", "n=1", "run_dir=one")
    assert "step-00000030.pt: its content is of step 20; rename it, or remove it" in capfd.readouterr().err
    checkpoint.save(Path("run/checkpoints"), of_run(), keep=1)
    assert checkpoint.newest(Path("run/checkpoints")) == Path("run/checkpoints/step-00000020.pt")


def test_a_newer_format_is_not_called_damaged() -> None:
    written(of_run() | {"format": 3})
    with pytest.raises(CheckpointError, match="format 3, this genlab reads up to 2; upgrade genlab"):
        load("run")
    written(of_run(), step=20)
    written(of_run() | {"format": 3, "step": 30}, step=30)
    with pytest.raises(CheckpointError, match="upgrade genlab"):  # not the older one, as if nothing were
        load("run")


def test_the_reason_is_said_where_none_can_be_used() -> None:
    written(put(of_run(), "step", -1))
    written(put(of_run(), "spec.height", 0), step=10)
    with pytest.raises(CheckpointError, match=r"none of its 2 checkpoints can be used: .*step=-1"):
        load("run")
    for path in Path("run/checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=r"all 2 checkpoints are damaged; start a new run"):
        load("run")


def test_a_sparse_file_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    path = Path(written(of_run())) / "checkpoints/step-00000020.pt"
    body = path.read_bytes()
    trailer = body[-checkpoint._TRAILER_BYTES :]
    for start in (b"", body[: -checkpoint._TRAILER_BYTES]):
        with path.open("wb") as file:
            file.write(start)
            file.seek(2**40)
            file.write(trailer)
        began = time.perf_counter()
        with pytest.raises(CheckpointError, match="GiB are more than this machine's memory"):
            load(path)
        assert time.perf_counter() - began < 1
    with path.open("wb") as file:  # within the memory, but not what the archive's directory says
        file.write(body[: -checkpoint._TRAILER_BYTES])
        file.seek(2**31)
        file.write(trailer)
    began = time.perf_counter()
    with pytest.raises(CheckpointError, match="refused"):
        load(path)
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    "pickle",
    [
        b"\x80\x02c__builtin__\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x10\x85R.",
        b"\x80\x02})" + b"\x85" * 4_000_000 + b"Ns.",
        b"\x80\x02" + b"]" * 1_000_000 + b"a" * 999_999 + b".",
        b"\x80\x02]q\x00" + b"h\x00a" * 500_000 + b".",
        b"\x80\x02" + b"]0" * 3_000_000 + b"N.",
        b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsK\x01sb.",
        b"\x80\x02X\xff\xff\xff\xffabc.",
        b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.",
        b"",
    ],
    ids=[
        "giant bytes",
        "deep key",
        "deep list",
        "in itself",
        "endless",
        "attributes",
        "long word",
        "code",
        "empty",
    ],
)
def test_a_description_cannot_cost_time_or_memory(pickle: bytes) -> None:
    path = Path(written(of_run())) / "checkpoints/step-00000020.pt"
    records = fuzz._records(path.read_bytes())
    records["archive/data.pkl"] = pickle
    path.write_bytes(fuzz.signed(fuzz._archive(records)))
    began = time.perf_counter()
    with pytest.raises(CheckpointError, match="refused"):
        load(path)
    assert time.perf_counter() - began < 10


def test_a_pipe_is_not_waited_for() -> None:
    written(of_run())
    os.mkfifo("run/checkpoints/step-00000030.pt")
    assert checkpoint.find("run", content.read)[0].name == "step-00000020.pt"


def test_a_file_cannot_name_a_place_outside_the_cache() -> None:
    with pytest.raises(CheckpointError, match=r"spec: '../x' is no name"):
        load(written(put(of_run(), "spec.name", "../x")))


def test_a_model_that_cannot_be_kept_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="could not be read again"):
        checkpoint.save(tmp_path, put(of_run(), "weights.vae.more", torch.zeros(3).to_sparse()), keep=1)


def test_a_list_longer_than_its_setting_is_refused() -> None:
    @dataclass(frozen=True)
    class Some:
        sizes: tuple[int, ...] = setting((1,), longest=2)

    assert from_plain(Some, {"sizes": [1, 2]}).sizes == (1, 2)
    with pytest.raises(ConfigError, match="sizes: has 3 values; give at most 2"):
        from_plain(Some, {"sizes": [1, 2, 3]})


def test_changed_structures_are_refused_in_one_line_or_load(own_folder: Path) -> None:
    """The same is done with 10,000 by benchmarks/checkpoint_fuzz.py."""
    rows = fuzz.fuzz(300)
    kinds = collections.Counter(row["kind"] for row in rows)
    assert [row for row in rows if fuzz.faulty(row)] == []
    assert len(rows) == 300
    assert kinds["loaded"] > 10
    assert kinds["refused"] > 200


def test_the_fuzz_test_notices_a_process_that_dies(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = fuzz.bases(own_folder)
    attempt: Callable[..., str] = fuzz.attempt

    def dies(case: Any, *others: Any, **more: Any) -> str:
        if case == fuzz.mutation(2, given):
            os.kill(os.getpid(), signal.SIGKILL)
        if case == fuzz.mutation(3, given):
            raise KeyError("x")
        return attempt(case, *others, **more)

    monkeypatch.setattr(fuzz, "attempt", dies)
    rows = {row["number"]: row for row in fuzz.results([1, 2, 3, 4], copy.deepcopy(given), own_folder)}
    assert sorted(rows) == [1, 2, 3, 4]
    assert "ended with -9" in rows[2]["said"]
    assert "KeyError" in rows[3]["said"]
    assert [number for number, row in rows.items() if fuzz.faulty(row)] == [2, 3]
