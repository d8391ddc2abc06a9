"""Images per second of `genlab train` beside two hand-written loops over the same network, batch and device.

    python benchmarks/train_speed.py                        # MNIST from --root, or the variable GENLAB_DATA
    python benchmarks/train_speed.py --quick                # a few seconds, random images

`bare`: the least that trains: images already on the device, a random index, the loss, the same fused Adam.
`dataloader`: what most public code does: a torchvision dataset behind a DataLoader, an item() each step.
`genlab`: the bench's own loop, with its metrics lines, moving on from batch to batch as `genlab train` does.

All three run in one process, one after another, several times over, and the medians are compared: single
figures drift with the machine, ratios less so.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import VisionDataset

from genlab import registry
from genlab.commands import train
from genlab.data.dataset import BatchStream, Dataset

WARM_UP_STEPS = 50
"""Steps of each loop that are not counted: pools of memory and threads grow in them."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", default=os.environ.get("GENLAB_DATA"), help="folder of MNIST/raw/")
    parser.add_argument(
        "--quick", action="store_true", help="few steps on random images; figures mean little"
    )
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=200, help="units of the small VAE's two hidden layers")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    if arguments.quick:
        arguments.steps, arguments.repetitions = 100, 2
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments, Path(folder))


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    """Runs the loops in turn and prints a table of medians and ratios."""
    plain = plain_config(arguments, folder)
    device = train.device.resolve(arguments.device)
    images = registry.dataset(registry.train_config(plain).dataset).to(device)
    loops: dict[str, Callable[[], float]] = {
        "bare": lambda: bare_loop(plain, images, device),
        "genlab": lambda: genlab_loop(plain, folder),
        "dataloader": lambda: dataloader_loop(plain, images, device, workers=0),
        "dataloader, 2 workers": lambda: dataloader_loop(plain, images, device, workers=2),
    }
    rates: dict[str, list[float]] = {name: [] for name in loops}
    loops["bare"]()  # warm-up: memory pools, threads, lazy initialisation
    for _ in range(arguments.repetitions):
        for name, loop in loops.items():
            rates[name].append(loop())
    drawn = plain | {"dataset": plain["dataset"] | {"binarize": "dynamic"}}
    drawn_images = registry.dataset(registry.train_config(drawn).dataset).to(device)
    waits: dict[str, list[float]] = {"fetched": [], "drawn": []}
    for _ in range(arguments.repetitions):
        waits["fetched"].append(data_share(plain, images, device))
        waits["drawn"].append(data_share(drawn, drawn_images, device))
    print(
        f"{images.spec.height}x{images.spec.width} images, VAE of 2 x {arguments.hidden} units, batch "
        f"{arguments.batch_size}, {arguments.steps} steps, {arguments.repetitions} repetitions, {device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(f"{'loop':24}{'images/s, median':>18}{'lowest':>10}{'highest':>10}{'genlab / loop':>16}")
    for name, values in rates.items():
        median = statistics.median(values)
        ratio = statistics.median(g / v for g, v in zip(rates["genlab"], values, strict=True))
        print(f"{name:24}{median:18,.0f}{min(values):10,.0f}{max(values):10,.0f}{ratio:16.2f}")
    fetched, drawn_share = (statistics.median(waits[kind]) for kind in ("fetched", "drawn"))
    print(
        f"share of a step until its batch is there: {fetched:.1%}; {drawn_share:.1%} with a new binarisation"
    )


def plain_config(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The small VAE on MNIST, black and white by a threshold, or on random images of that size."""
    dataset: dict[str, Any] = {
        "name": "mnist",
        "root": arguments.root,
        "download": False,
        "binarize": "threshold",
    }
    if arguments.root is None:
        if not arguments.quick:
            raise SystemExit("give --root or set GENLAB_DATA to a folder that holds MNIST/raw/; or --quick")
        import numpy as np

        pixels = np.random.default_rng(0).integers(0, 256, (10_000, 28, 28), dtype=np.uint8)
        np.savez(folder / "random.npz", train_images=pixels, test_images=pixels[:100])
        dataset = {"name": "npz", "path": str(folder / "random.npz"), "binarize": "threshold"}
    return {
        "model": {"name": "vae", "network": "mlp", "hidden": [arguments.hidden] * 2, "latent": 20},
        "dataset": dataset,
        "optimizer": {"name": "adam", "lr": 1e-3},
        "schedule": {"name": "constant"},
        "trainer": {
            "steps": arguments.steps, "batch_size": arguments.batch_size, "device": arguments.device,
            "log_every": WARM_UP_STEPS, "evaluate_every": 0, "sample_every": 0, "checkpoint_every": 0,
            "evaluate_images": 100,
        },
        "seed": 0,
    }  # fmt: skip


def genlab_loop(plain: dict[str, Any], folder: Path) -> float:
    """`genlab train` itself, whole; its own clock leaves out the saving and evaluating at the end."""
    import contextlib
    import io
    import json

    with contextlib.redirect_stdout(io.StringIO()):
        path = train.start(plain, [], str(folder / f"run-{time.time_ns()}"))
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    first, last = rows[0], rows[-1]  # the first line is of step WARM_UP_STEPS
    return (last["images"] - first["images"]) / (last["seconds"] - first["seconds"])


def bare_loop(plain: dict[str, Any], dataset: Dataset, device: torch.device) -> float:
    """Images already on the device as floats; nothing but the loss, backward and the optimizer."""
    family = registry.family(registry.train_config(plain).model, dataset.spec).to(device)
    optimizer = torch.optim.Adam(family.parameters(), 1e-3, fused=True)
    steps, size = plain["trainer"]["steps"], plain["trainer"]["batch_size"]
    images = next(batch.images for _, batch in dataset.evaluation_batches("train", 10_000, 0, 10_000))
    return timed(
        steps,
        size,
        device,
        lambda: train_on(family, optimizer, images[torch.randint(len(images), (size,), device=device)]),
    )


def dataloader_loop(plain: dict[str, Any], dataset: Dataset, device: torch.device, workers: int) -> float:
    """torchvision's way: a PIL image, ToTensor, collated by a DataLoader; an item() each step."""
    family = registry.family(registry.train_config(plain).model, dataset.spec).to(device)
    optimizer = torch.optim.Adam(family.parameters(), 1e-3)
    steps, size = plain["trainer"]["steps"], plain["trainer"]["batch_size"]
    loader = DataLoader(
        Pictures(dataset), size, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    batches = endless(loader)
    next(batches)  # the workers' start is not counted
    return timed(steps, size, device, lambda: train_on(family, optimizer, next(batches).to(device)).item())


class Pictures(VisionDataset):
    """A dataset as torchvision writes them: an array of pixels, a PIL image for each item."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(transform=transforms.ToTensor())
        batches = dataset.evaluation_batches("train", 1000, 0, 60_000)
        self.data = torch.cat([(batch.images * 255).to(torch.uint8).cpu() for _, batch in batches])

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, k: int) -> Tensor:
        from PIL import Image

        assert self.transform is not None
        return self.transform(Image.fromarray(self.data[k, 0].numpy()))


def endless(loader: DataLoader) -> Iterator[Tensor]:
    while True:
        yield from loader


def train_on(family: Any, optimizer: torch.optim.Optimizer, images: Tensor) -> Tensor:
    optimizer.zero_grad(set_to_none=True)
    loss, _ = family.negative_elbo(images)
    loss.backward()
    optimizer.step()
    return loss.detach()


def timed(steps: int, batch_size: int, device: torch.device, step: Callable[[], Any]) -> float:
    """Images per second of so many calls less the first WARM_UP_STEPS, as in `genlab_loop`."""
    for _ in range(WARM_UP_STEPS):
        step()
    synchronize(device)
    started = time.perf_counter()
    for _ in range(steps - WARM_UP_STEPS):
        step()
    synchronize(device)
    return (steps - WARM_UP_STEPS) * batch_size / (time.perf_counter() - started)


def data_share(plain: dict[str, Any], dataset: Dataset, device: torch.device) -> float:
    """Share of a step that passes between asking for a batch and having it on the device."""
    config = registry.train_config(plain)
    family = registry.family(config.model, dataset.spec).to(device)
    optimizer = torch.optim.Adam(family.parameters(), 1e-3, fused=True)
    stream: BatchStream = dataset.batches(0, config.trainer.batch_size)
    waited, started = 0.0, time.perf_counter()
    for _ in range(config.trainer.steps):
        asked = time.perf_counter()
        images = next(stream).images
        synchronize(device)
        waited += time.perf_counter() - asked
        train_on(family, optimizer, images)
        synchronize(device)
    return waited / (time.perf_counter() - started)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
