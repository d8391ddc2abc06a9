"""How quickly genlab answers: what a verb imports beside torch, and how long a mistake takes.

    python benchmarks/startup.py

Each is a process of its own; the CPU seconds of the quickest of several are printed. A verb's imports are
those of its module, so that they are the same for a small model and for a large one. The exit code is 1 where
a verb's imports take more than a third over torch's, or a mistake more than a third of torch's alone: half a
second on a machine that imports torch in 1.5. Ratios, since single figures drift with the machine.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

from genlab.cli.verbs import VERBS

MISTAKES = (
    "train modle=vae",
    "train +model.latnt=3",
    "train dataset.size=x",
    "train optimizer.lr=-1",
    "train recipe=vae_dgits",
    "train -m sweep=vae_latnt",
    "sample ckpt=nowhere",
)
MOST_ABOVE_TORCH = 1 / 3
MOST_OF_A_MISTAKE = 1 / 3


def cpu_seconds(code: str, repeats: int) -> float:
    """Returns the CPU seconds of the quickest of several processes that run a program."""
    best = float("inf")
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return best


def main() -> int:
    """Prints a table; returns the exit code."""
    parser = argparse.ArgumentParser(description="How quickly genlab answers.")
    parser.add_argument("--quick", action="store_true", help="two processes each instead of five")
    repeats = 2 if parser.parse_args().quick else 5
    torch = cpu_seconds("import torch", repeats)
    print(f"{'torch alone':28} {torch:.2f} CPU s")
    too_slow = False
    for verb, row in VERBS.items():
        if row.config is None and verb != "train":
            continue
        seconds = cpu_seconds(f"import genlab.commands.{verb}", repeats)
        above = seconds / torch - 1
        too_slow |= above > MOST_ABOVE_TORCH
        print(f"{'imports of ' + verb:28} {seconds:.2f} CPU s, {above:+.0%} of torch's")
    for typed in MISTAKES:
        code = f"from genlab.cli.main import main; main({typed.split()!r})"
        seconds = cpu_seconds(code, repeats)
        too_slow |= seconds > MOST_OF_A_MISTAKE * torch
        print(f"{'genlab ' + typed:28} {seconds:.2f} CPU s, {seconds / torch:.0%} of torch's")
    return int(too_slow)


if __name__ == "__main__":
    sys.exit(main())
