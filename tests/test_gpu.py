"""What only a GPU can show. Run with: pytest -m gpu."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from helpers.runs import metric_rows, plain_config
from helpers.tiny_models import tiny

from genlab import device, registry
from genlab.commands import sample, train
from genlab.rng import SampleRng
from genlab.runs import checkpoint
from genlab.trained.model import load_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("toy"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]

ADVERSARIAL = ("gan", "unrolled_gan", "wgan", "wgan_gp", "acgan", "projection_gan")


def plain(**trainer: Any) -> dict[str, Any]:
    return plain_config(**({"device": "cuda", "deterministic": True} | trainer))


def test_auto_takes_the_gpu() -> None:
    assert device.resolve("auto").type == "cuda"


def test_resume_is_exact_on_a_gpu() -> None:
    train.start(plain(steps=8) | {"schedule": {"name": "constant"}}, [], "constant")
    train.start(plain() | {"schedule": {"name": "constant"}}, [], "uncut")
    train.resume("constant", plain() | {"schedule": {"name": "constant"}}, [])
    a, b = checkpoint.find("uncut")[1], checkpoint.find("constant")[1]
    torch.testing.assert_close(b["weights"], a["weights"], rtol=0, atol=0)
    torch.testing.assert_close(b["averages"], a["averages"], rtol=0, atol=0)
    assert "cuda" in a["random"][0]


def test_no_wait_for_the_device_within_a_step() -> None:
    """torch raises at any synchronisation of a step when told to; log lines are the one place that waits."""
    path = train.start(plain(deterministic=False, steps=3, log_every=100), [], "run")
    state = train.TrainingState(load_model(str(path), "raw", torch.device("cpu")).config, _alone())
    state.family.step(state.batches, state.update)  # first use allocates
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        state.record(state.family.step(state.batches, state.update))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", [name for name in registry.FAMILIES if name != "bilinear_game"])
def test_no_family_waits_for_the_device_within_a_step(name: str) -> None:
    plain = plain_config(name, device="cuda", steps=10)
    state = train.TrainingState(registry.train_config(plain), _alone())
    for _ in range(3):
        state.family.step(state.batches, state.update)  # first use allocates
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        state.record(state.family.step(state.batches, state.update))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("settings", [{}, {"precision": "bf16"}, {"compile": True}], ids=str)
def test_adversarial_families_train(name: str, settings: dict[str, Any]) -> None:
    config = plain_config(name, device="cuda", steps=20, log_every=10, **settings)
    path = train.start(config, [], "run")
    state = checkpoint.find(path)[1]
    assert state["step"] == 20
    assert all(torch.isfinite(value).all() for value in state["weights"].values())


def test_graphs_are_recorded_while_a_thread_pins_memory() -> None:
    family = tiny("gated_pixelcnn", (1, 16, 16), 2).cuda()
    over, pinned = threading.Event(), []

    def pin() -> None:
        while not over.is_set():  # of another size each time, so that memory is taken from the driver
            pinned.append(torch.empty(2**16 + 2**12 * len(pinned)).pin_memory().numel())

    thread = threading.Thread(target=pin)
    thread.start()
    try:
        with torch.no_grad():
            drawn = [family.sample(2, rng=SampleRng(k, range(2), "cuda")) for k in range(5)]
    finally:
        over.set()
        thread.join()
    assert len(pinned) > 5
    for k, images in enumerate(drawn):
        with torch.no_grad():
            assert torch.equal(images, family.sample(2, rng=SampleRng(k, range(2), "cuda")))


def test_random_numbers_arrive_whole_though_nothing_waits_for_them() -> None:
    for seed in range(20):
        on_cpu, on_gpu = SampleRng(seed, range(50)), SampleRng(seed, range(50), "cuda")
        assert torch.equal(torch.stack([on_gpu.normal(3000) for _ in range(4)]).cpu(),
                           torch.stack([on_cpu.normal(3000) for _ in range(4)]))  # fmt: skip


def _alone() -> device.Processes:
    return device.Processes(0, 1, torch.device("cuda"))


def test_a_gpus_checkpoint_samples_on_a_cpu() -> None:
    train.start(plain(), [], "run")
    for name in ("cpu", "cuda"):
        sample.main({"ckpt": "run", "n": 4, "npz": True, "device": name, "run_dir": name})
    cpu, cuda = (np.load(f"{name}/samples.npz")["images"].astype(int) for name in ("cpu", "cuda"))
    assert np.abs(cpu - cuda).max() <= 1  # of 255: rounding


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("model", "objective"), [("vae", "negative_elbo_nats"), ("iwae", "importance_weighted_nats")]
)
def test_variational_autoencoders_train(model: str, objective: str, precision: str, compiled: bool) -> None:
    config = plain_config(model, device="cuda", precision=precision, compile=compiled, steps=60, log_every=20)
    path = train.start(config, [], "run")
    rows = metric_rows(path)
    losses = [row[objective] for row in rows if objective in row]
    assert losses[-1] < losses[0]
