"""From which share of copies on `genlab.metrics.memorisation.copying` finds them, and how often it errs.

    python benchmarks/memorisation.py                            # fashion_mnist, mnist, emoji
    python benchmarks/memorisation.py --datasets emoji --spaces images
    python benchmarks/memorisation.py --datasets fashion_mnist --samples 2000
    python benchmarks/memorisation.py --quick                    # digits: seconds

Images that no model has seen, of the validation and test splits, stand in for a perfect model. At each
repetition they are divided anew at random: some are the "samples", all others the held-out images. Then a
share of the samples is replaced by copies of training images drawn at random, exact or altered: one pixel to
the right; normal noise of standard deviation 0.1; darker by 15 %.

The table gives the share of repetitions whose p-value is under 0.01, and the smallest share of copies that
is found in at least 95 % of them. With no copies, what is found is a false alarm: its rate comes with its
exact upper confidence bound of 95 % (Clopper and Pearson 1934).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from genlab import registry
from genlab.data.dataset import Dataset
from genlab.metrics import extractors
from genlab.metrics.memorisation import Closest, closest_features, closest_images, copying

SHARES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
SHOWN = (0.01, 0.05, 0.2)
LEVEL = 0.01
RELIABLE = 0.95
COPIES = 500
"""Of each alteration, from which each repetition draws."""

ALTERATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "exact": lambda images, rng: images,
    "shifted": lambda images, rng: F.pad(images, (1, 0, 0, 0), mode="replicate")[..., :-1],
    "noisy": lambda images, rng: (images + 0.1 * torch.randn(images.shape, generator=rng)).clamp(0, 1),
    "darker": lambda images, rng: 0.85 * images,
}


def featurewise(extract: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Closest]:
    """Neighbours by the features of an extractor."""

    def features(images: Tensor) -> Tensor:
        return torch.cat([extract(part) for part in images.split(256)])

    return lambda images, training: closest_features(features(images), features(training))


SPACES: dict[str, Callable[[Tensor, Tensor], Closest]] = {
    "images": closest_images,
    "pixels": featurewise(extractors.pixels),
    "random_conv": featurewise(extractors.random_conv),
}


class Ranked(NamedTuple):
    """Neighbours of the images not trained on, and of copies by alteration, in one space."""

    unseen: Closest
    copies: dict[str, Closest]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="digits alone, 300 repetitions")
    parser.add_argument("--datasets", nargs="+", default=["fashion_mnist", "mnist", "emoji"])
    parser.add_argument("--spaces", nargs="+", default=list(SPACES), choices=SPACES)
    parser.add_argument("--samples", type=int, default=1000, help="at most half of the images not trained on")
    parser.add_argument("--unseen", type=int, default=10_000, help="at most so many images not trained on")
    parser.add_argument("--repetitions", type=int, default=5000, help="without copies; a fifth with")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.datasets, arguments.repetitions = ["digits"], 300
    for name in arguments.datasets:
        dataset = registry.dataset(registry.look_up(registry.DATASETS, name, "dataset").Config())
        training = images_of(dataset, "train")
        unseen = torch.cat([images_of(dataset, "validation"), images_of(dataset, "test")])
        rng = torch.Generator().manual_seed(0)
        unseen = unseen[torch.randperm(len(unseen), generator=rng)[: arguments.unseen]]
        samples = min(arguments.samples, len(unseen) // 2)
        print(
            f"{name}: {len(training)} training images, {samples} samples, "
            f"{len(unseen) - samples} held-out images"
        )
        for space in arguments.spaces:
            start = time.perf_counter()
            found = rank(space, training, unseen)
            seconds = time.perf_counter() - start
            print_table(space, found, samples, arguments.repetitions, seconds)


def images_of(dataset: Dataset, split: str) -> Tensor:
    """All of a split, (N, C, H, W) in [0, 1]."""
    parts = [batch.images for _, batch in dataset.evaluation_batches(split, 1000, seed=0)]  # pyright: ignore[reportArgumentType]
    return torch.cat(parts) if parts else torch.empty(0, *dataset.spec.shape)


def rank(space: str, training: Tensor, unseen: Tensor) -> Ranked:
    """Finds the neighbours of all that is needed, once for all repetitions."""
    rng = torch.Generator().manual_seed(1)
    sources = training[torch.randperm(len(training), generator=rng)[:COPIES]]
    queries = [unseen, *(alter(sources, rng) for alter in ALTERATIONS.values())]
    with torch.no_grad():
        everything = SPACES[space](torch.cat(queries), training)
    sizes = [len(part) for part in queries]
    parts = [
        Closest(distances, indices)
        for distances, indices in zip(
            everything.distances.split(sizes), everything.indices.split(sizes), strict=True
        )
    ]
    return Ranked(parts[0], dict(zip(ALTERATIONS, parts[1:], strict=True)))


def found_share(
    ranked: Ranked, copies: Closest | None, share: float, samples: int, repetitions: int
) -> float:
    """Share of the repetitions whose p-value is under 0.01."""
    rng = torch.Generator().manual_seed(2)
    found = 0
    for _ in range(repetitions):
        order = torch.randperm(len(ranked.unseen.distances), generator=rng)
        drawn = ranked.unseen.distances[order[:samples]]
        held_out = ranked.unseen.distances[order[samples:]]
        if copies is not None:
            planted = torch.randint(len(copies.distances), (max(1, round(share * samples)),), generator=rng)
            drawn[: len(planted)] = copies.distances[planted]
        found += copying(of(drawn), of(held_out)).p_value < LEVEL
    return found / repetitions


def of(distances: Tensor) -> Closest:
    """Neighbours by their distances; which they are makes no difference to the test."""
    return Closest(distances, torch.zeros_like(distances, dtype=torch.int64))


def print_table(space: str, ranked: Ranked, samples: int, repetitions: int, seconds: float) -> None:
    alarms = round(found_share(ranked, None, 0, samples, repetitions) * repetitions)
    print(
        f"  {space} ({seconds:.0f} s): {alarms} false alarms of {repetitions}, {alarms / repetitions:.2%}, "
        f"at most {upper_bound(alarms, repetitions):.2%}"
    )
    for name, copies in ranked.copies.items():
        rates = {
            share: found_share(ranked, copies, share, samples, max(20, repetitions // 5)) for share in SHARES
        }
        reliable = [share for share in SHARES if rates[share] >= RELIABLE]
        shown = ", ".join(f"{share:.0%} copies {rates[share]:5.1%}" for share in SHOWN)
        print(f"    {name:8} {shown}; found from {f'{min(reliable):.1%}' if reliable else 'no share'} on")


def upper_bound(successes: int, trials: int) -> float:
    """What a probability is below, with 95 % confidence."""
    from scipy.stats import beta

    return 1.0 if successes == trials else float(beta.ppf(0.95, successes + 1, trials - successes))


if __name__ == "__main__":
    main()
