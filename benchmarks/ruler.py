"""Does each extractor order what a person orders? Real images beside others that are spoiled more and more.

    python benchmarks/ruler.py                                  # fashion_mnist, 2,000 images a side
    python benchmarks/ruler.py --dataset emoji
    python benchmarks/ruler.py --dataset digits --quick         # seconds; what CI runs
    python benchmarks/ruler.py --dataset npz --path my.npz --extractors random_conv lite0

Some training images are compared with others: as they are, with noise of growing standard deviation, blurred
ever more, and with ever more classes left out. Every row must grow from left to right, in Fréchet and in
kernel distance. The script ends with an error where one does not, but for pixels, which are no good ruler:
they do not see a little noise, and classes of photographs look alike to them. Under each extractor stands
what it costs.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from genlab import registry
from genlab.config.schema import from_plain
from genlab.data.dataset import Dataset
from genlab.data.sets import PictureSet, set_of_split
from genlab.metrics.extractors import NAMES
from genlab.trained.ruler import Ruler, readable

NOISE = (0.03, 0.06, 0.12, 0.24)
"""Standard deviations, in units of [0, 1]."""

BLUR = (0.05, 0.1, 0.2)
"""Standard deviations, in units of the image's side: 0.05 is 1.6 pixels of 32."""

MISSING = (0.2, 0.5)
"""Shares of the classes. One class of many is less than a few hundred images show."""

METRICS = ("frechet", "kernel")


def noisy(levels: Tensor, deviation: float) -> Tensor:
    """Images (N, C, H, W) uint8 with Gaussian noise, cut at black and white."""
    noise = torch.randn(levels.shape, generator=torch.Generator().manual_seed(0))
    return (levels.float() + 255 * deviation * noise).round().clamp(0, 255).to(torch.uint8)


def blurred(levels: Tensor, width: float) -> Tensor:
    """Images (N, C, H, W) uint8, filtered by a Gaussian."""
    deviation = width * levels.shape[-1]
    size = 2 * min(round(3 * deviation), levels.shape[-1] - 1) + 1
    return functional.gaussian_blur(levels, [size, size], [deviation, deviation])


def without(pool: PictureSet, missing: int, count: int) -> Tensor:
    """`count` images of a pool that lacks its `missing` last classes."""
    assert pool.labels is not None
    kept = pool.levels[pool.labels <= pool.labels.max() - missing]
    if len(kept) < count:
        raise ValueError(f"{len(kept)} images without {missing} classes; {count} are wanted")
    return kept[:count]


def halves(dataset: Dataset, count: int) -> tuple[PictureSet, PictureSet]:
    """`count` training images in a mixed order, and all the others."""
    images = set_of_split(dataset, "train", None)
    order = torch.randperm(len(images.levels), generator=torch.Generator().manual_seed(0))
    parts = []
    for name, rows in (("half", order[:count]), ("other half", order[count:])):
        labels = None if images.labels is None else images.labels[rows]
        parts.append(PictureSet(images.levels[rows], labels, name, name.replace(" ", "-")))
    return parts[0], parts[1]


def spoiled(pool: PictureSet, count: int) -> dict[str, list[tuple[str, Tensor]]]:
    """Ways to spoil images, and for each ever worse sets of `count`, the first as they are."""
    good = ("as it is", pool.levels[:count])
    ways: dict[str, list[tuple[str, Tensor]]] = {
        "noise": [good, *((f"{level:g}", noisy(good[1], level)) for level in NOISE)],
        "blur": [good, *((f"{width:g}", blurred(good[1], width)) for width in BLUR)],
    }
    if pool.labels is not None:
        classes = int(pool.labels.max()) + 1
        missing = sorted({max(1, round(share * classes)) for share in MISSING})
        ways["missing classes"] = [good, *((str(m), without(pool, m, count)) for m in missing)]
    return ways


def ordered(values: list[float]) -> bool:
    """Whether each is greater than the one before."""
    return all(a < b for a, b in itertools.pairwise(values))


def table(
    dataset: Dataset, names: list[str], count: int, device: torch.device, write: Callable[[str], None]
) -> list[str]:
    """Writes the rows of each extractor.

    Returns:
        what is not ordered rightly.
    """
    real, pool = halves(dataset, count)
    ways, wrong = spoiled(pool, count), []
    for name in names:
        start = time.monotonic()
        ruler = Ruler(real, {name: METRICS}, device, dataset=dataset)
        write(f"\n{name} ({ruler.extractors[name].note or 'nothing to learn'})")
        for way, sets in ways.items():
            found = [ruler.measure(levels) for _, levels in sets]
            for metric in METRICS:
                values = [next(v for k, v in row.items() if k.startswith(metric)) for row in found]
                good = ordered(values)
                wrong += [] if good or name == "pixels" else [f"{metric}_{name} of {way}"]
                shown = "  ".join(
                    f"{step} {readable(v, v)}" for (step, _), v in zip(sets, values, strict=True)
                )
                write(f"  {metric:8} {way:16} {shown}{'' if good else '   <- out of order'}")
        sets = sum(len(sets) for sets in ways.values()) + 1
        write(f"  {1000 * (time.monotonic() - start) / sets / count:.2f} ms an image, distances included")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--root", help="dataset.root")
    parser.add_argument("--path", help="dataset.path of npz and folder")
    parser.add_argument("--extractors", nargs="+", choices=NAMES, help="all that need no download")
    parser.add_argument(
        "--count", type=int, help="images a side; a quarter of the training images, at most 2000"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="pixels, random_conv and lenet, 400 images")
    arguments = parser.parse_args()
    settings = {"name": arguments.dataset, "root": arguments.root, "path": arguments.path}
    settings = {key: value for key, value in settings.items() if value is not None}
    kind = registry.look_up(registry.DATASETS, arguments.dataset, "dataset").Config
    dataset = registry.dataset(from_plain(kind, settings, "dataset"))
    names = arguments.extractors or [
        "pixels",
        "random_conv",
        *(["lenet"] if dataset.spec.classes > 1 else []),
    ]
    if not arguments.extractors and not arguments.quick:
        names.append("lite0")
    count = arguments.count or min(400 if arguments.quick else 2000, dataset.size("train") // 4)
    print(f"{arguments.dataset}: {count} images a side, {torch.get_num_threads()} threads")
    wrong = table(dataset, names, count, torch.device(arguments.device), print)
    if wrong:
        sys.exit(f"out of order: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
