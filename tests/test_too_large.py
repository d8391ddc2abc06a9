"""Requests that are too large: each is one line, found before memory is used."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import subprocess
import sys
import tracemalloc
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.checkout import CHECKOUT
from helpers.command_line import genlab, one_line
from helpers.runs import plain_config

from genlab import memory, registry
from genlab.cli.verbs import VERBS
from genlab.commands import train
from genlab.config.run import PlayerOptimizerConfig, TrainConfig, TrainerConfig
from genlab.config.schema import from_plain, settings_of
from genlab.data.dataset import Dataset
from genlab.data.spec import DataSpec
from genlab.device import counted_weights
from genlab.errors import ConfigError, TooLargeError, UserError
from genlab.memory import check_fits, machine_memory, memory_errors, smaller_batch
from genlab.trained.numbers import evaluate_split

SPEC = DataSpec("some", 1, 8, 8, levels=17, classes=3)
GROUPS = {
    "model": registry.FAMILIES,
    "dataset": registry.DATASETS,
    "optimizer": registry.OPTIMIZERS,
    "schedule": registry.SCHEDULES,
}


def configs() -> Iterator[tuple[str, type]]:
    """Yields every dataclass of settings, with the group that it belongs to."""
    for name, verb in VERBS.items():
        if verb.config is not None:
            yield name, verb.config
    for group, known in GROUPS.items():
        for name in known:
            if getattr(known[name], "target", "genlab").startswith("genlab"):
                yield f"{group} {name}", registry.config_of(known, name, group)
    yield "trainer", TrainerConfig
    yield "seed", registry._Seed
    yield "player", PlayerOptimizerConfig


def whole_numbers(kind: type) -> list[tuple[str, bool]]:
    """Returns the settings that take whole numbers, and for each whether it is a list of them."""
    hints = typing.get_type_hints(kind)
    found = []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        parts = (hint,) if typing.get_origin(hint) is tuple else (hint, *typing.get_args(hint))
        if int in parts:
            found.append((field.name, False))
        elif any(int in typing.get_args(part) for part in parts if typing.get_origin(part) is tuple):
            found.append((field.name, True))
    return found


COUNTS = [(group, kind, *each) for group, kind in configs() for each in whole_numbers(kind)]


@pytest.mark.parametrize(("group", "kind", "key", "many"), COUNTS, ids=[f"{c[0]} {c[2]}" for c in COUNTS])
def test_every_whole_number_has_a_range(group: str, kind: type, key: str, many: bool) -> None:
    values = [1e300, 10**400, 10**18, 10**12]
    if key == "seed":
        values = values[:2]
    for value in values:
        with pytest.raises(ConfigError) as error:
            from_plain(kind, {key: [value] if many else value} | _required(kind), group)
        line = str(error.value)
        assert line.startswith(f"{group}.{key}")
        assert " at most " in line or " below " in line or "not one of" in line, line
        assert "\n" not in line
        assert len(line) < 250


def _required(kind: type) -> dict[str, Any]:
    return {each.key: "x" for each in settings_of(kind) if each.default is dataclasses.MISSING}


def test_there_are_settings_that_take_whole_numbers() -> None:
    assert len(COUNTS) > 150
    assert {"n", "steps", "batch_size", "importance_samples", "images", "labels", "latent"} <= {
        count[2] for count in COUNTS
    }


LARGEST = [
    (name, field)
    for name in registry.FAMILIES
    if getattr(registry.FAMILIES[name], "target", "genlab").startswith("genlab")
    for field, _ in whole_numbers(registry.config_of(registry.FAMILIES, name, "model"))
]


@pytest.mark.parametrize(("name", "key"), LARGEST)
def test_a_model_with_the_largest_of_a_setting_is_refused_or_small(
    name: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine of 1 GiB would need no more: what is built before the line has a part of that."""
    monkeypatch.setattr("genlab.memory.machine_memory", lambda: 2**28)
    kind = registry.config_of(registry.FAMILIES, name, "model")
    (field,) = (field for field in dataclasses.fields(kind) if field.name == key)
    most = field.metadata["bounds"].get("at_most")
    if most is None:
        most = field.metadata["bounds"]["below"]
    many = dict(whole_numbers(kind))[key]
    with contextlib.suppress(TooLargeError, ConfigError):
        plain = plain_config(name, dataset="ring" if name == "bilinear_game" else "digits")
        plain["model"] |= {key: [int(most)] if many else int(most)}
        family = registry.family(registry.train_config(plain).model, SPEC, copies=5)
        assert 4 * 5 * sum(p.numel() for p in family.parameters()) <= 2**28


def test_weights_are_counted_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genlab.memory.machine_memory", lambda: 10**9)
    config = from_plain(
        registry.config_of(registry.FAMILIES, "vae", "model"), {"name": "vae", "latent": 30_000}
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TooLargeError) as error:
        registry.family(dataclasses.replace(config, hidden=(30_000, 30_000)), SPEC, copies=5)
    assert str(error.value).startswith(
        "model.latent=30000: the model's weights, with gradients and averages, take"
    )
    assert "this machine has 0.931 GiB; lower model.latent" in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB
    with pytest.raises(TooLargeError, match=r"the GPU has 9\.31e-07 GiB"):
        registry.family(config, SPEC, memory=1000)
    with pytest.raises(TooLargeError, match=r"^model=vae: .*; use smaller images than 8x8, or another model"):
        registry.family(from_plain(type(config), {"name": "vae"}), SPEC, memory=1000)
    labelled = dataclasses.replace(SPEC, classes=10**9)
    kind = registry.config_of(registry.FAMILIES, "conditional_vae", "model")
    with pytest.raises(TooLargeError, match=r"^dataset=some: .*; it has 1,000,000,000 classes; use fewer"):
        registry.family(from_plain(kind, {"name": "conditional_vae"}), labelled)


def test_the_count_of_weights_is_exact() -> None:
    layer = torch.nn.Linear(100, 10)  # 1010 numbers
    layer.register_buffer("table", torch.zeros(7))
    for needed, copies in ((4 * 1017, 1), (4 * (5 * 1010 + 7), 5)):
        with counted_weights("model.width=1", "lower it", copies, needed) as count:
            assert count(layer) is layer
        with (
            pytest.raises(TooLargeError, match=r"^model.width=1: .*; lower it$"),
            counted_weights("model.width=1", "lower it", copies, needed - 1) as count,
        ):
            count(layer)


SIZES = {"a number above 64 bits": 2**70, "a product above 64 bits": 2**40, "more than there is": 2**34}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_sizes_that_torch_itself_refuses(size: int) -> None:
    class Square(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.full((size, size), 0.0))  # not counted in advance

    with (
        pytest.raises(TooLargeError, match=r"^model.width=1: .*; lower it$"),
        counted_weights("model.width=1", "lower it", 1, None),
    ):
        Square()


def numpy_fails() -> None:
    np.empty(2**60, np.uint8)


def torch_fails() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def python_fails() -> None:
    bytearray(2**60)


def cuda_fails() -> None:
    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which"
    )


FAILURES = {
    "numpy": (numpy_fails, "1.07e+09 GiB"),
    "torch": (torch_fails, "1.07e+09 GiB"),
    "python": (python_fails, ""),
}


@pytest.mark.parametrize("fails", [*FAILURES, "cuda"])
def test_an_allocation_that_fails_is_one_line(fails: str) -> None:
    function, asked = (FAILURES | {"cuda": (cuda_fails, "20 GiB")})[fails]
    with pytest.raises(TooLargeError) as error, memory_errors(*smaller_batch("batch_size", 256)):
        function()
    shown = f" ({asked} at once were asked for)" if asked else ""
    assert str(error.value) == (
        f"batch_size=256: out of memory{shown}; try batch_size=128, or smaller images or a smaller model"
    )
    assert error.value.exit_code == 2


def test_other_errors_stay_what_they_are() -> None:
    for raised in (RuntimeError("shapes do not match"), ValueError("x"), ConfigError("y")):
        with pytest.raises(type(raised)) as error, memory_errors("a", "b"):
            raise raised
        assert error.value is raised


def test_what_to_try_next() -> None:
    assert smaller_batch("batch_size", 3)[1].startswith("try batch_size=1, ")
    assert smaller_batch("trainer.batch_size", 8, "trainer.micro_batch_size")[1].startswith(
        "try trainer.micro_batch_size=4, "
    )
    assert smaller_batch("batch_size", 1) == ("batch_size=1", "use smaller images or a smaller model")


def test_the_memory_of_this_machine() -> None:
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 2**28 < machine_memory() <= physical
    check_fits(machine_memory(), "n=1", "images", "lower n")
    with pytest.raises(TooLargeError, match=r"^n=1: images take .* GiB, this machine has .* GiB; lower n$"):
        check_fits(machine_memory() + 1, "n=1", "images", "lower n")


def test_the_limits_of_cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    for folder, limit in ((new, "max"), (new / "jobs", str(2**33)), (new / "jobs/mine", str(2**32))):
        folder.mkdir()
        (folder / "memory.max").write_text(limit)
        (folder / "memory.current").write_text("3000")
        (folder / "memory.stat").write_text("anon 5\ninactive_file 1000\nactive_file 500\n")
    (old / "memory").mkdir(parents=True)
    (old / "memory/memory.limit_in_bytes").write_text(str(2**31))
    (old / "memory/memory.usage_in_bytes").write_text("70")
    (old / "memory/memory.stat").write_text("")
    listed = tmp_path / "cgroup"
    for root, line, found in (
        (new, "0::/jobs/mine", [(2**32, 1500), (2**33, 1500)]),
        (old, "4:memory,cpu:/gone\n3:cpu:/x", [(2**31, 70)]),
        (old, "1:name=systemd:/", []),
    ):
        listed.write_text(line)
        assert list(memory._cgroups(listed, root)) == found


def test_a_process_ends_with_a_line_and_not_by_the_system(tmp_path: Path) -> None:
    """Many small allocations, each of which the system would grant, until it ends the process."""
    script = """
import torch
from genlab import memory
memory._free = lambda: 2**28
kept = []
try:
    with memory.limited_memory(), memory.memory_errors("batch_size=2", "lower it"):
        while True:
            kept.append(torch.ones(2**20))
except memory.TooLargeError as error:
    assert 20 < len(kept) < 100, len(kept)
    print(error)
torch.ones(2**27)  # the limit is gone
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("batch_size=2: out of memory")


@pytest.mark.parametrize(
    ("typed", "line"),
    {
        "train model=vae trainer.batch_size=1000000 dataset=digits dataset.size=256": (
            "genlab: trainer.batch_size=1000000: 1,000,000 images of 1x256x256 take"
        ),
        "train model=vae dataset=digits dataset.size=4096 dataset.memory_limit_gib=1000": (
            "genlab: dataset.size=4096: 1,797 images of this size take 28 GiB, this machine has 4 GiB"
        ),
        "train model=vae dataset=digits trainer.steps=1e300": "genlab: trainer.steps=1e+300: must be",
        "train model=gated_pixelcnn dataset=digits model.width=10000 model.layers=500": (
            "genlab: model.width=10000: the model's weights, with gradients and averages, take"
        ),
    }.items(),
)
def test_training_that_cannot_fit(
    typed: str, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genlab.memory.machine_memory", lambda: 2**32)
    assert one_line(capsys, *typed.split()).startswith(line)


def test_a_step_that_does_not_fit_names_the_micro_batch_to_try(
    toy: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: Any, batches: Any, update: Any) -> Any:
        cuda_fails()

    monkeypatch.setattr(toy, "step", step)
    tried: list[tuple[dict[str, Any], str]] = [
        (
            {},
            "trainer.batch_size=32: out of memory (20 GiB at once were asked for); "
            "try trainer.micro_batch_size=16,",
        ),
        ({"micro_batch_size": 4}, "trainer.micro_batch_size=4: .*; try trainer.micro_batch_size=2,"),
        ({"micro_batch_size": 1}, "trainer.micro_batch_size=1: .*; use smaller images or a smaller model"),
    ]
    for trainer, line in tried:
        with pytest.raises(TooLargeError, match=line.replace("(", r"\(").replace(")", r"\)")):
            train.start(plain_config(**trainer), [], None)


def test_a_verb_that_does_not_fit_names_the_batch_to_try(
    trained_run: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained_run("vae")
    monkeypatch.setattr(
        "genlab.families.latent_variable.LatentVariableModel.sample", lambda *_, **__: torch_fails()
    )
    genlab("sample", f"ckpt={run}", "n=8", "batch_size=4", code=2)
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith(
            "genlab: batch_size=4: out of memory (1.07e+09 GiB at once were asked for); try batch_size=2,"
        )
    )


def test_validation_takes_as_many_images_at_a_time_as_an_update(
    toy: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def evaluate(family: Any, dataset: Dataset, split: str, *, batch_size: int, **settings: Any) -> Any:
        seen.append(batch_size)
        return evaluate_split(family, dataset, split, batch_size=batch_size, **settings)

    monkeypatch.setattr("genlab.training.loop.evaluate_split", evaluate)
    settings: list[dict[str, Any]] = [
        {}, {"micro_batch_size": 5}, {"batch_size": 200}, {"micro_batch_size": 900}
    ]  # fmt: skip
    for trainer in settings:
        train.start(plain_config(steps=1, **trainer), [], None)
    assert seen == [128, 5, 500, 128]


def test_sampling_needs_no_more_memory_for_more_images(
    trained_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, batches = trained_run("vae"), []
    monkeypatch.setattr("genlab.commands.sample._PICTURED_IMAGES", 30)
    genlab("sample", f"ckpt={run}", "n=100", "batch_size=7", "npz=true", "run_dir=a")
    genlab("sample", f"ckpt={run}", "n=100", "batch_size=100", "npz=true", "run_dir=b")
    for k in "ab":
        with np.load(f"{k}/samples.npz") as arrays:
            batches.append(arrays["images"])
            assert arrays["images"].shape == (100, 8, 8, 1)
            assert arrays["images"].dtype == np.uint8
    assert np.array_equal(*batches)
    assert len(list(Path("a/images").iterdir())) == 100
    tracemalloc.start()
    peaks = []
    monkeypatch.setattr("genlab.commands.sample.save_picture", lambda *_: None)
    monkeypatch.setattr("genlab.commands.sample.write_samples", lambda *_: None)
    for n in (200, 2000):
        tracemalloc.reset_peak()
        genlab("sample", f"ckpt={run}", f"n={n}", "batch_size=100", "npz=true")
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_many_completions_are_refused(
    trained_run: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained_run()
    monkeypatch.setattr("genlab.memory.machine_memory", lambda: 2**32)
    genlab("complete", f"ckpt={run}", "n=65536", "count=10000", code=2)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("genlab: n=65536: 65,536 completions of each of 500 images take ")
    assert isinstance(TooLargeError(line), UserError)


def test_a_whole_configuration_with_large_numbers() -> None:
    plain = plain_config("vae")
    plain["seed"] = 2**63
    with pytest.raises(
        ConfigError, match=r"^seed=9.22e\+18: must be at least 0 and at most 9,223,372,036,854,775,807"
    ):
        registry.train_config(plain)
    assert registry.train_config(plain | {"seed": 2**63 - 1}).seed == 2**63 - 1
    assert isinstance(registry.train_config(plain_config("vae")), TrainConfig)
