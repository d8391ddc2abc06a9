"""Seconds of sampling from the autoregressive models: cached, naive, and beside one pass over whole images.

    python benchmarks/autoregressive_speed.py               # each model with 64 channels, 64 images of 28x28
    python benchmarks/autoregressive_speed.py --only pixelsnail --repetitions 3
    python benchmarks/autoregressive_speed.py --quick       # seconds, tiny; the figures mean little
    python benchmarks/autoregressive_speed.py --whole-naive # 8x8: runs naive sampling to its end

forward: one pass over a batch of binary images, as in training, without gradients.
cached: the same number of images drawn as `genlab sample` draws them, each pixel's numbers computed once; on
a GPU by CUDA graphs, whose capture is counted, and beside it without them (`eager`). There also `batches`,
four batches one after the other, which share one capture, as those of one command do.
naive: a pass over whole images for each pixel. It is not run to its end, but for --whole-naive: the seconds
of a few of its steps, forward and draw, are multiplied by their number, height times width.

All are timed in turns in one process, several times over, and medians are compared: single figures drift with
the machine, ratios less so. Weights and images are random: they make no difference to the work.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from genlab import registry
from genlab.data.spec import DataSpec
from genlab.device import resolve
from genlab.families.autoregressive import Autoregressive
from genlab.nets.scanning import Scanner, draw_naively, graphs_kept
from genlab.rng import SampleRng

MODELS = ("pixelcnn", "row_lstm", "diagonal_bilstm", "gated_pixelcnn", "pixelcnnpp", "pixelsnail")
NAIVE_STEPS = 3
"""Steps of naive sampling that are timed; their mean is multiplied."""
BATCHES = 4
"""Batches that share the capture of a CUDA graph."""


def main() -> None:
    arguments, side = arguments_of()
    device = resolve(arguments.device, "--device")
    print(
        f"{machine(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}\n"
        f"{arguments.batch_size} binary images of {side}x{side}, width {arguments.width}, "
        f"medians of {arguments.repetitions} repetitions\n"
        f"naive: not run to its end but a product, {side * side} times the mean of {NAIVE_STEPS} steps",
        flush=True,
    )
    rows = {}
    for name in (
        [arguments.only] if arguments.only else [name for name in MODELS if name in registry.FAMILIES]
    ):
        rows[name] = measure(name, side, arguments, device)
        print(f"  {name} measured", flush=True)
    print_table(rows)


def arguments_of(words: Sequence[str] | None = None) -> tuple[argparse.Namespace, int]:
    """Reads the command line, or other words; returns its settings, and the side of the images."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes; figures mean little")
    parser.add_argument(
        "--only", choices=[name for name in MODELS if name in registry.FAMILIES], help="one of the models"
    )
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--width", type=int, default=64, help="model.width, the channels")
    parser.add_argument("--whole-naive", action="store_true", help="8x8, naive sampling to its end as well")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args(words)
    if arguments.quick:
        arguments.repetitions, arguments.batch_size, arguments.width = 2, 4, 16
    return arguments, 8 if arguments.quick or arguments.whole_naive else 28


def machine(device: torch.device) -> str:
    """The processor's name, or the GPU's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


@torch.no_grad()
def measure(
    name: str, side: int, arguments: argparse.Namespace, device: torch.device
) -> dict[str, list[float]]:
    """Seconds by what was done, each repetition's."""
    torch.manual_seed(0)
    config = registry.look_up(registry.FAMILIES, name, "model").Config(width=arguments.width)
    family = registry.family(config, DataSpec("random", 1, side, side, levels=2)).to(device).eval()
    assert isinstance(family, Autoregressive)
    network, distribution = family.network, family.distribution
    images = torch.randint(0, 2, (arguments.batch_size, 1, side, side), device=device).float()
    noise = SampleRng(0, range(arguments.batch_size)).uniform(side, side, distribution.uniforms).to(device)

    def naive_steps() -> None:
        for column in range(NAIVE_STEPS):
            parameters, pixels = network(images)[:, 0, column], images[:, :, 0, column]
            images[:, :, 0, column] = distribution.draw(parameters, noise[:, 0, column], pixels, part=0)

    def batches() -> None:
        with graphs_kept():
            for _ in range(BATCHES):
                Scanner(network, distribution, noise, graph=True).run()

    graph = device.type == "cuda"
    actions: dict[str, Callable[[], Any]] = {
        "forward": lambda: network(images),
        "cached": lambda: Scanner(network, distribution, noise, graph=graph).run(),
        "naive": naive_steps,
    }
    if graph:
        actions["eager"] = lambda: Scanner(network, distribution, noise).run()
        actions["batches"] = batches
    if arguments.whole_naive:
        actions["whole naive"] = lambda: draw_naively(network, distribution, noise)
    network(images)  # torch chooses its kernels
    times: dict[str, list[float]] = {action: [] for action in actions}
    for _ in range(arguments.repetitions):
        for action, do in actions.items():
            times[action].append(seconds(do, device))
    times["naive"] = [spent / NAIVE_STEPS * side * side for spent in times["naive"]]
    return times


def seconds(action: Callable[[], Any], device: torch.device) -> float:
    """What an action takes, to the end of its work on a GPU."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    action()
    synchronize()
    return time.perf_counter() - start


def print_table(rows: dict[str, dict[str, list[float]]]) -> None:
    """Medians, and medians of each repetition's ratios."""
    columns: list[tuple[str, str, str | None]] = [  # heading, action, action it is divided by
        ("forward s", "forward", None),
        ("cached s", "cached", None),
        ("cached/forward", "cached", "forward"),
        ("naive s", "naive", None),
        ("naive/cached", "naive", "cached"),
        ("eager s", "eager", None),
        ("eager/cached", "eager", "cached"),
        (f"{BATCHES} batches s", "batches", None),
        ("batches/cached", "batches", "cached"),
        ("whole naive s", "whole naive", None),
        ("product/whole", "naive", "whole naive"),
    ]
    measured = next(iter(rows.values()))
    columns = [column for column in columns if {column[1], column[2] or "forward"} <= set(measured)]
    print(f"{'':16}" + "".join(f"{heading:>16}" for heading, _, _ in columns))
    for name, times in rows.items():
        values = [
            statistics.median(
                a / b
                for a, b in zip(times[action], times[by] if by else [1.0] * len(times[action]), strict=True)
            )
            for _, action, by in columns
        ]
        print(f"{name:16}" + "".join(f"{value:16.{3 if value < 10 else 1}f}" for value in values))


if __name__ == "__main__":
    main()
