"""Speed of the adversarial families: compiled beside eager, and `genlab train` beside a plain script.

    python benchmarks/adversarial_speed.py                  # MNIST from --root, or the variable GENLAB_DATA
    python benchmarks/adversarial_speed.py --quick          # a minute, random images

Compiled: a generator's step through 5 unrolled steps of the discriminator on the ring, with the paper's
networks and batch (Metz et al. 2017), and a critic's step with a gradient penalty, on the ring and on 28x28
images. Each step is timed whole, with its optimizer; the eager and the compiled one take turns.

Plain: what most public scripts do for a fully connected GAN: a torchvision dataset behind a DataLoader, two
Adam optimizers, an item() of each loss in each step. The networks, the batch and the updates are the same,
with new latents for the generator's step (Goodfellow et al. 2014, Algorithm 1).

Everything runs in one process, several times over, and medians are compared: single figures drift with the
machine, ratios less so.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from train_speed import Pictures, endless, genlab_loop, timed

from genlab import registry
from genlab.data.dataset import Dataset
from genlab.device import Processes, resolve
from genlab.families.gan import GAN
from genlab.training.update import Update

UNROLLED: dict[str, Any] = {
    "name": "unrolled_gan", "network": "mlp", "unrolled_steps": 5, "hidden": [128, 128], "latent": 256,
    "discriminator_hidden": [128], "initialization": "orthogonal", "input_scale": 0.25,
}  # fmt: skip
RING: dict[str, Any] = {"name": "ring"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", default=os.environ.get("GENLAB_DATA"), help="folder of MNIST/raw/")
    parser.add_argument("--quick", action="store_true", help="few steps, random images; figures mean little")
    parser.add_argument("--steps", type=int, default=200, help="timed steps of each turn")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", choices=("compiled", "plain"), help="one of the two comparisons")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    if arguments.quick:
        arguments.steps, arguments.repetitions = 60, 2
    device = resolve(arguments.device)
    print(
        f"{arguments.steps} steps, {arguments.repetitions} repetitions, {device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        images = images_of(arguments, Path(folder))
        if arguments.only != "plain":
            compare_compiled(arguments, images, device)
        if arguments.only != "compiled":
            compare_plain(arguments, images, device, Path(folder))


def images_of(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The settings of a dataset of 28x28 images."""
    if arguments.root is not None:
        return {"name": "mnist", "root": arguments.root, "download": False}
    if not arguments.quick:
        raise SystemExit("give --root or set GENLAB_DATA to a folder that holds MNIST/raw/; or --quick")
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, (10_000, 28, 28), dtype=np.uint8)
    np.savez(folder / "random.npz", train_images=pixels, test_images=pixels[:100])
    return {"name": "npz", "path": str(folder / "random.npz")}


def compare_compiled(arguments: argparse.Namespace, images: dict[str, Any], device: torch.device) -> None:
    """Prints milliseconds of single steps, eager and compiled, and their ratio."""
    penalized = {
        "name": "wgan_gp",
        "network": "mlp",
        "hidden": [128, 128],
        "discriminator_hidden": [128, 128],
    }
    steps: dict[str, Callable[[bool], Callable[[], Any]]] = {
        "generator through 5 unrolled steps, ring, batch 512": lambda compiled: one_step(
            UNROLLED, RING, 512, compiled, device, "update_generator"
        ),
        "critic with penalty, ring, mlp, batch 256": lambda compiled: one_step(
            penalized, RING, 256, compiled, device, "update_opponent"
        ),
        "critic with penalty, 28x28, mlp, batch 64": lambda compiled: one_step(
            penalized, images, 64, compiled, device, "update_opponent"
        ),
        "critic with penalty, 28x28, dcgan, batch 64": lambda compiled: one_step(
            {"name": "wgan_gp", "network": "dcgan"}, images, 64, compiled, device, "update_opponent"
        ),
    }
    if arguments.quick:  # convolutions take minutes to compile
        del steps["critic with penalty, 28x28, dcgan, batch 64"]
    print(f"{'one step, milliseconds, medians':54}{'eager':>10}{'compiled':>10}{'eager / compiled':>18}")
    for name, make in steps.items():
        turns = {compiled: make(compiled) for compiled in (False, True)}
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(arguments.repetitions):
            for compiled, step in turns.items():
                times[compiled].append(1000 / timed(arguments.steps, 1, device, step))
        eager, compiled = (statistics.median(times[kind]) for kind in (False, True))
        ratio = statistics.median(e / c for e, c in zip(times[False], times[True], strict=True))
        print(f"{name:54}{eager:10.2f}{compiled:10.2f}{ratio:18.2f}", flush=True)


def one_step(
    model: dict[str, Any],
    dataset: dict[str, Any],
    batch_size: int,
    compiled: bool,
    device: torch.device,
    method: str,
) -> Callable[[], Any]:
    """A player's step on one batch, as the bench takes it, already called once."""
    family, update, data = build_game(model, dataset, batch_size, device)
    if compiled:
        family.compile_networks()
    batch = next(data.batches(0, batch_size))
    step = getattr(family, method)
    step(batch, update)
    return lambda: step(batch, update)


def build_game(
    model: dict[str, Any], dataset: dict[str, Any], batch_size: int, device: torch.device
) -> tuple[GAN, Update, Dataset]:
    """A family with the update that steps it, and its data on the device."""
    config = registry.train_config(plain_config(model, dataset, batch_size, 1000, str(device)))
    data = registry.dataset(config.dataset).to(device)
    torch.manual_seed(0)
    family = registry.family(config.model, data.spec).to(device)
    assert isinstance(family, GAN)
    return family, Update(family, config, Processes(0, 1, device)), data


def plain_config(
    model: dict[str, Any], dataset: dict[str, Any], batch_size: int, steps: int, device: str
) -> dict[str, Any]:
    return {
        "model": model,
        "dataset": dataset,
        "optimizer": {"name": "adam", "lr": 2e-4, "betas": [0.5, 0.999]},
        "schedule": {"name": "constant"},
        "trainer": {
            "steps": steps, "batch_size": batch_size, "device": device, "log_every": 50,
            "evaluate_every": 0, "sample_every": 0, "checkpoint_every": 0, "evaluate_images": 100,
        },
        "seed": 0,
    }  # fmt: skip


def compare_plain(
    arguments: argparse.Namespace, images: dict[str, Any], device: torch.device, folder: Path
) -> None:
    """Prints images per second of `genlab train` and of the plain script, and their ratio."""
    model = {"name": "gan", "network": "mlp", "hidden": [128, 128], "discriminator_hidden": [128, 128]}
    config = plain_config(model, images, 64, max(arguments.steps, 100), str(device))
    loops: dict[str, Callable[[], float]] = {
        "genlab": lambda: genlab_loop(config, folder),
        "plain": lambda: plain_loop(config, device, workers=0),
        "plain, 2 workers": lambda: plain_loop(config, device, workers=2),
    }
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(arguments.repetitions):
        for name, loop in loops.items():
            rates[name].append(loop())
    print(f"{'mlp GAN, 28x28, batch 64':26}{'images/s, median':>18}{'genlab / loop':>16}")
    for name, values in rates.items():
        ratio = statistics.median(g / v for g, v in zip(rates["genlab"], values, strict=True))
        print(f"{name:26}{statistics.median(values):18,.0f}{ratio:16.2f}")


def plain_loop(config: dict[str, Any], device: torch.device, workers: int) -> float:
    """Goodfellow's algorithm as scripts have it: a loader, two optimizers, two item() a step."""
    family, _, data = build_game(config["model"], config["dataset"], 64, device)
    generator, discriminator = family.generator, family.opponent
    optimizers = [
        torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999)) for net in (discriminator, generator)
    ]
    loader = DataLoader(Pictures(data), 64, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    batches, entropy = endless(loader), torch.nn.BCEWithLogitsLoss()
    next(batches)  # the workers' start is not counted

    def step() -> None:
        real = next(batches).to(device) * 2 - 1
        ones, zeros = torch.ones(len(real), device=device), torch.zeros(len(real), device=device)
        fake = generator(torch.randn(len(real), family.config.latent, device=device)).detach()
        optimizers[0].zero_grad()
        loss = entropy(discriminator(real), ones) + entropy(discriminator(fake), zeros)
        loss.backward()
        optimizers[0].step()
        loss.item()
        fake = generator(torch.randn(len(real), family.config.latent, device=device))
        optimizers[1].zero_grad()
        loss = entropy(discriminator(fake), ones)
        loss.backward()
        optimizers[1].step()
        loss.item()

    return timed(config["trainer"]["steps"], 64, device, step)


if __name__ == "__main__":
    main()
