"""The GPU's path on a machine without a GPU: no step waits for it, and graphs draw what eager code draws."""

from __future__ import annotations

import contextlib
import importlib
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.fake_gpu import FAKE, FakeGpu, HostWaitsError, RecordedGraph, on_fake, recorded_graphs
from helpers.runs import plain_config
from helpers.tiny_models import TINY, tiny
from torch import Tensor

from genlab import device, registry
from genlab.cli.verbs import VERBS
from genlab.commands import train
from genlab.device import Processes
from genlab.errors import ConfigError
from genlab.families.base import Family
from genlab.nets.causal import Scan
from genlab.nets.scanning import Clamped, Scanner, graphs_kept
from genlab.rng import SampleRng
from genlab.training.state import TrainingState
from genlab.training.update import Update

ALONE = Processes(0, 1, torch.device("cpu"))
SMALL: dict[str, dict[str, Any]] = TINY | {
    "unrolled_gan": {"unrolled_steps": 2},
    "wgan_gp": {"critic_steps": 2},
}
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("vae", {"trainer": {"micro_batch_size": 10}}),
    ("vae", {"optimizer": {"clip_grad_norm": 1.0}}),
    ("vae", {"model": {"prior": "vampprior", "prior_components": 3}}),
    ("vae", {"model": {"prior": "mixture", "posterior": "full"}}),
    ("gan", {"model": {"r1": 1.0, "spectral_norm": True, "instance_noise": 0.1}}),
    ("gan", {"model": {"augmentation": ["color", "translation", "cutout"], "minibatch_std": True}}),
    ("gan", {"optimizer": {"name": "rmsprop"}}),
    ("vqvae", {"optimizer": {"name": "sgd"}}),
    ("vae", {"optimizer": {"name": "adamw"}, "dataset": {"binarize": "dynamic"}}),
]


def steps_on_fake(name: str, settings: dict[str, Any]) -> None:
    """Performs two steps on the fake GPU."""
    plain = plain_config(name, dataset="none" if name == "bilinear_game" else "digits")
    plain["model"] |= SMALL.get(name, {})
    config = registry.train_config(plain | {key: plain[key] | more for key, more in settings.items()})
    state = TrainingState(config, ALONE)
    batch = None if name == "bilinear_game" else next(state.batches)
    family = on_fake(state.family)
    update, batches = Update(family, config, ALONE), itertools.repeat(on_fake(batch))
    with FakeGpu():
        for _ in range(2):
            metrics = family.step(batches, update)  # type: ignore[arg-type]
            update.end_step()
    assert {value.device for value in metrics.values()} == {FAKE}
    assert all(
        value.device == FAKE for average in update.averages.values() for value in average.module.parameters()
    )


@pytest.mark.parametrize("name", registry.FAMILIES)
def test_no_family_waits_for_the_device_in_a_step(name: str) -> None:
    steps_on_fake(name, {})


@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=str)
def test_no_setting_makes_a_step_wait_for_the_device(name: str, settings: dict[str, Any]) -> None:
    steps_on_fake(name, settings)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.sum() > 0),
        lambda x: x[x > 0],
        lambda x: x.cpu(),
        lambda x: x + torch.ones(3),
        lambda x: x * torch.tensor([1.0, 2.0, 3.0]).to(x.device),
        lambda x: x.copy_(torch.ones(3)),
    ],
)
def test_the_fake_gpu_finds_what_waits(mistake: Callable[[Tensor], object]) -> None:
    x = on_fake(torch.ones(3))
    with FakeGpu(), pytest.raises((HostWaitsError, RuntimeError, NotImplementedError)):
        mistake(x)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("clamped", [False, True])
def test_a_recorded_graph_draws_what_the_eager_scan_draws(name: str, clamped: bool) -> None:
    family = tiny(name, (3, 9, 8), 4, 3, output="categorical").double()
    labels = torch.tensor([0, 1])
    noise = SampleRng(3, range(2)).uniform(9, 8, family.distribution.uniforms).double()
    known = (
        Clamped(torch.rand(2, 3, 9, 8).double().round(), torch.rand(2, 1, 9, 8) < 0.4) if clamped else None
    )
    given = family.network, family.distribution, noise, labels, 0.9, known
    with torch.no_grad(), recorded_graphs():
        eager, graphed = Scanner(*given), Scanner(*given, graph=True)
        assert torch.equal(eager.run(), graphed.run())
        assert RecordedGraph.replays > 6 * 8
    torch.testing.assert_close(graphed.log_prob_clamped, eager.log_prob_clamped)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize(("clamped", "classes"), [(False, 3), (True, 0)])
def test_a_kept_graph_draws_later_batches(name: str, clamped: bool, classes: int) -> None:
    channels, levels, output = (2, 4, "categorical") if classes else (1, 5, "logistic_mixture")
    family = tiny(name, (channels, 9, 8), levels, classes, output=output).double()

    def scanners(seed: int, batch: int = 2, temperature: float = 0.9) -> tuple[Scanner, Scanner]:
        rng, generator = SampleRng(seed, range(batch)), torch.Generator().manual_seed(seed)
        noise = rng.uniform(9, 8, family.distribution.uniforms).double()
        labels = rng.integers(classes) if classes else None
        images = torch.rand(batch, channels, 9, 8, generator=generator).double().round()
        known = Clamped(images, torch.rand(batch, 1, 9, 8, generator=generator) < 0.4) if clamped else None
        given = family.network, family.distribution, noise, labels, temperature, known
        return Scanner(*given), Scanner(*given, graph=True)

    def captures(*given: tuple[Scanner, Scanner]) -> int:
        before, results = RecordedGraph.captures, []
        for eager, graphed in given:
            assert torch.equal(eager.run(), graphed.run())
            results.append((eager, graphed, graphed.log_prob_clamped.clone()))
        for eager, graphed, log_prob in results:  # and no batch writes into the results of another
            torch.testing.assert_close(log_prob, eager.log_prob_clamped)
            assert torch.equal(log_prob, graphed.log_prob_clamped)
        return RecordedGraph.captures - before

    with torch.no_grad(), recorded_graphs():
        with graphs_kept():
            of_one = captures(scanners(0))
            assert of_one >= 1
            with graphs_kept():
                assert captures(scanners(1), scanners(6)) == 0
            assert captures(scanners(2, batch=1), scanners(3)) == of_one
            assert captures(scanners(4, temperature=1.1)) == of_one
        assert captures(scanners(5)) == of_one


def test_a_cache_that_comes_late_is_no_part_of_a_kept_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    family = tiny("pixelcnn", (1, 9, 8), 2).double()
    begin_row = family.network.begin_row

    def begin_late(scan: Scan, row: int) -> None:
        begin_row(scan, row)
        if row == 1:
            scan.caches["late"] = scan.zeros(1)

    monkeypatch.setattr(family.network, "begin_row", begin_late)
    with torch.no_grad(), recorded_graphs(), graphs_kept():
        for seed in range(2):
            noise = SampleRng(seed, range(2)).uniform(9, 8, 1).double()
            given = family.network, family.distribution, noise
            assert torch.equal(Scanner(*given).run(), Scanner(*given, graph=True).run())
        assert RecordedGraph.captures == 2


def test_labels_of_the_caller_stay_as_they_are() -> None:
    family = tiny("gated_pixelcnn", (1, 9, 8), 2, 3).double()
    given = [torch.tensor([0, 1]), torch.tensor([2, 2])]
    with torch.no_grad(), recorded_graphs(), graphs_kept():
        for seed, labels in enumerate(given):
            noise = SampleRng(seed, range(2)).uniform(9, 8, 1).double()
            Scanner(family.network, family.distribution, noise, labels, graph=True).run()
    assert [labels.tolist() for labels in given] == [[0, 1], [2, 2]]


def test_a_recorded_graph_refuses_to_read_a_value() -> None:
    graph, x = RecordedGraph(), torch.ones(2)
    with pytest.raises(HostWaitsError), graph:
        x.sum().item()
    graph = RecordedGraph()
    with graph:
        y = x.add_(1) * 2
    assert torch.equal(x, torch.ones(2))
    assert y.isnan().all()
    graph.replay()
    graph.replay()
    assert torch.equal(y, torch.full((2,), 6.0))


class Reached(Exception):
    """What a test waits for has happened."""


@pytest.fixture
def vae_run(trained_run: Callable[..., str]) -> str:
    return trained_run("vae")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """torch says that there are two GPUs; returns the list of those that become the current one."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


def test_the_gpu_of_a_name_becomes_the_current_one(two_gpus: list[torch.device]) -> None:
    assert device.select("cuda:1") == torch.device("cuda:1")
    assert device.select("cuda") == torch.device("cuda")
    assert device.select("cpu") == torch.device("cpu")
    assert two_gpus == [torch.device("cuda:1")]
    with pytest.raises(ConfigError, match=r"^device=cuda:2: this machine has 2 GPUs, counted from cuda:0$"):
        device.select("cuda:2", "device")


@pytest.mark.parametrize(
    "verb",
    [name for name, verb in VERBS.items() if verb.config is not None and name not in ("train", "resume")],
)
def test_each_verb_makes_its_gpu_the_current_one(
    verb: str, vae_run: str, two_gpus: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"genlab.commands.{verb}")
    for place in ("genlab.commands.base", f"genlab.commands.{verb}"):
        if hasattr(importlib.import_module(place), "load_model"):
            monkeypatch.setattr(f"{place}.load_model", raise_reached)
    with pytest.raises(Reached):
        module.main({"ckpt": vae_run, "device": "cuda:1"})
    assert two_gpus == [torch.device("cuda:1")]


def raise_reached(*_: Any, **__: Any) -> None:
    raise Reached


def test_training_makes_its_gpu_the_current_one(two_gpus: list[torch.device]) -> None:
    with device.processes("cuda:1") as group:
        assert group.device == torch.device("cuda:1")
    assert two_gpus == [torch.device("cuda:1")]


@pytest.fixture
def in_a_group(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Process 1 of 2 of torchrun, alone; returns the list of groups that it begins."""
    begun: list[tuple[Any, ...]] = []
    started = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "here", "MASTER_PORT": "1"}
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda *given, **named: begun.append((*given, named))
    )
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    return begun


def test_a_process_of_a_group_has_the_gpu_of_its_number(
    two_gpus: list[torch.device], in_a_group: list[tuple[Any, ...]]
) -> None:
    with device.processes("auto") as group:
        assert (group.rank, group.world, group.device) == (1, 2, torch.device("cuda:1"))
    assert two_gpus == [torch.device("cuda:1")]
    assert in_a_group == [("cpu:gloo,cuda:nccl", {"device_id": torch.device("cuda:1")})]


def test_a_group_on_cpus(in_a_group: list[tuple[Any, ...]]) -> None:
    with device.processes("cpu") as group:
        assert (group.rank, group.world, group.device) == (1, 2, torch.device("cpu"))
    assert in_a_group == [("gloo", {})]


@pytest.mark.parametrize(
    ("changes", "name", "message"),
    [
        ({}, "cuda:1", r"trainer\.device=cuda:1: .*use trainer\.device=cuda, and .*CUDA_VISIBLE_DEVICES"),
        ({"LOCAL_RANK": "2"}, "cuda", r"process 2 .*there are 2; use torchrun --nproc-per-node=2"),
        ({"LOCAL_RANK": "7"}, "auto", r"process 7 .*there are 2; use torchrun --nproc-per-node=2"),
        ({"LOCAL_RANK": ""}, "cuda", r"LOCAL_RANK is not set; .*torchrun"),
        ({"RANK": ""}, "cpu", r"WORLD_SIZE=2: RANK is not set; .*torchrun"),
        ({"MASTER_ADDR": ""}, "cpu", r"WORLD_SIZE=2: MASTER_ADDR is not set; .*torchrun"),
        ({"WORLD_SIZE": "two"}, "cpu", r"WORLD_SIZE=two: .*whole number"),
    ],
)
def test_mistakes_of_a_group(
    changes: dict[str, str],
    name: str,
    message: str,
    two_gpus: list[torch.device],
    in_a_group: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key, value in changes.items():
        monkeypatch.setenv(key, value) if value else monkeypatch.delenv(key)
    with pytest.raises(ConfigError, match=message) as raised, device.processes(name):
        pass
    assert "\n" not in str(raised.value)
    assert not in_a_group


def test_a_graph_is_recorded_on_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    @contextlib.contextmanager
    def noted(*given: Any, **named: Any) -> Any:
        seen.append((given, named))
        yield

    for name in ("graph", "device"):
        monkeypatch.setattr(torch.cuda, name, noted)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"stream of {device}")
    device._capture_stream.cache_clear()
    for current, gpu in itertools.product((0, 1, 2), ("cuda:1", "cuda:0", "cuda:2")):
        monkeypatch.setattr(torch.cuda, "current_device", lambda current=current: current)
        seen.clear()
        with device.capture("graph", torch.device(gpu)):  # type: ignore[arg-type]
            pass
        stream = None if gpu == "cuda:0" else f"stream of {gpu}"
        assert seen.pop() == (("graph",), {"stream": stream, "capture_error_mode": "thread_local"})
        assert seen == ([] if gpu == f"cuda:{current}" else [((torch.device(gpu),), {})])
    device._capture_stream.cache_clear()


def test_kernels_are_searched_for_the_shapes_of_steps_alone(
    toy: type[Family], monkeypatch: pytest.MonkeyPatch
) -> None:
    """cuDNN would search again for each size of a batch of an evaluation or of samples."""
    seen: dict[str, set[bool]] = {}
    for name in ("step", "evaluate", "sample"):
        real = getattr(toy, name)

        def noted(self: Family, *given: Any, name: str = name, real: Any = real, **named: Any) -> Any:
            seen.setdefault(name, set()).add(torch.backends.cudnn.benchmark)
            return real(self, *given, **named)

        monkeypatch.setattr(toy, name, noted)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    train.start(plain_config(steps=8), [], "run")
    assert seen == {"step": {True}, "evaluate": {False}, "sample": {False}}
    seen.clear()
    train.start(plain_config(steps=8, deterministic=True), [], "deterministic")
    assert seen == {"step": {False}, "evaluate": {False}, "sample": {False}}
    device.set_determinism(False)


def test_random_numbers_are_copied_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[tuple[bool, Any, Any]] = []
    pinned: set[int] = set()

    def pin(tensor: Tensor) -> Tensor:
        pinned.add(id(tensor))
        return tensor

    def to(tensor: Tensor, *given: Any, **named: Any) -> Tensor:
        moved.append((id(tensor) in pinned, given, named))
        return tensor

    on_cpu = SampleRng(0, range(3)).normal(4)
    monkeypatch.setattr(Tensor, "pin_memory", pin)
    monkeypatch.setattr(Tensor, "to", to)
    assert torch.equal(SampleRng(0, range(3), "cuda").normal(4), on_cpu)
    assert moved == [(True, (torch.device("cuda"),), {"non_blocking": True})]
