"""Metrics of a trained model over a data split: means and standard errors."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from genlab.config.run import TrainConfig
from genlab.data.dataset import Dataset
from genlab.data.points import mixture_of
from genlab.families.base import AdversarialFamily, Family
from genlab.log import progress_bar
from genlab.metrics.modes import class_coverage, point_coverage
from genlab.nets.scanning import graphs_kept
from genlab.rng import SampleRng
from genlab.trained.draw import draw

_SAMPLES_AT_ONCE = 2**15
"""Importance samples computed at once: few enough that the progress bar moves, many enough to be fast."""


def evaluate_split(
    family: Family,
    dataset: Dataset,
    split: str,
    *,
    batch_size: int,
    seed: int,
    torch_device: torch.device,
    limit: int | None = None,
    quiet: bool = False,
) -> dict[str, float]:
    """Returns the family's metrics over a split; see `values_of_split` and `mean_numbers`."""
    values, _ = values_of_split(
        family,
        dataset,
        split,
        batch_size=batch_size,
        seed=seed,
        torch_device=torch_device,
        limit=limit,
        quiet=quiet,
    )
    return mean_numbers(family, values)


def values_of_split(
    family: Family,
    dataset: Dataset,
    split: str,
    *,
    batch_size: int,
    seed: int,
    torch_device: torch.device,
    limit: int | None = None,
    quiet: bool = False,
    importance_samples: int | None = None,
) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """Returns the family's `evaluate` of every image, including the incomplete last batch.

    The values of image k depend on the seed and k alone; the batch size changes only the rounding.

    Args:
        batch_size: maximum number of images at a time; fewer with many importance samples.
        importance_samples: number of importance samples, for a family that supports them.

    Returns:
        name to (N, ...) on the CPU, in the order of `Dataset.rows`; and the images' labels, (N,), if any.
    """
    parts: dict[str, list[torch.Tensor]] = {}
    labels: list[torch.Tensor] = []
    total = min(dataset.size(split), limit or dataset.size(split))
    more = {} if importance_samples is None else {"importance_samples": importance_samples}
    if importance_samples is not None:
        batch_size = min(batch_size, max(1, _SAMPLES_AT_ONCE // importance_samples))
    was_training = family.training
    family.eval()
    with (
        torch.no_grad(),
        progress_bar(total=total, unit="image", desc=split, leave=False, shown=not quiet) as bar,
    ):
        for indices, batch in dataset.evaluation_batches(split, batch_size, seed, limit):
            rng = SampleRng(seed, indices, torch_device, purpose="evaluation")
            for name, value in family.evaluate(batch, rng=rng, **more).items():
                parts.setdefault(name, []).append(value)
            if batch.labels is not None:
                labels.append(batch.labels)
            bar.update(len(indices))
    family.train(was_training)
    values = {name: torch.cat(part).cpu() for name, part in parts.items()}
    return values, torch.cat(labels).cpu() if labels else None


def mean_numbers(family: Family, values: dict[str, torch.Tensor]) -> dict[str, float]:
    """Returns the mean of each metric, its NAME_standard_error, and the family's summary.

    Args:
        values: those of `values_of_split`.
    """
    numbers: dict[str, float] = {}
    for name, value in numbers_of_images(values).items():
        value = value.double()
        numbers[name] = value.mean().item()
        if len(value) > 1:
            numbers[f"{name}_standard_error"] = value.std().item() / math.sqrt(len(value))
    return numbers | family.summarize(values)


def numbers_of_images(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns the entries of `values_of_split` that are one number per image, (N,)."""
    return {name: value for name, value in values.items() if value.ndim == 1}


@graphs_kept()
def evaluate_samples(
    family: Family,
    config: TrainConfig,
    dataset: Dataset,
    split: str,
    *,
    seed: int,
    torch_device: torch.device,
    n: int | None = None,
    batch_size: int = 500,
) -> dict[str, float]:
    """Compares samples with data: counts the covered modes, where the data's modes are known.

    Args:
        n: number of samples; None for 2,500 points, or 26,000 stacked digits (Lin et al. 2018, 4.2).

    Returns:
        for points in separate modes and stacked digits, see `genlab.metrics.modes`; for an adversarial family
        sample_diversity, the total variance of 1,000 samples over that of as many images of the split.
    """
    numbers: dict[str, float] = {}
    if family.spec.kind == "none" or not family.generates:
        return numbers

    def samples(count: int) -> Iterator[torch.Tensor]:
        for start in range(0, count, batch_size):
            yield draw(family, range(start, min(start + batch_size, count)), seed, torch_device)

    was_training = family.training
    family.eval()
    if isinstance(family, AdversarialFamily) and dataset.size(split) > 1:
        drawn = torch.cat(list(samples(1000)))
        real = dataset.examples(split, 1000, seed)[1].images
        numbers["sample_diversity"] = float(drawn.var(0).sum() / real.var(0).sum())
    if family.spec.kind == "points" and (mixture := mixture_of(config.dataset)).separate:
        numbers |= point_coverage(torch.cat(list(samples(n or 2500))).flatten(1).cpu(), mixture)
    elif family.spec.name == "stacked_mnist":
        from genlab.metrics.classifier import stacked_modes
        from genlab.trained.classifiers import of_digits  # imports torchvision, which is slow

        classifier = of_digits(config.dataset, torch_device)
        found = torch.cat([stacked_modes(classifier, part) for part in samples(n or 26_000)])
        numbers |= class_coverage(found, family.spec.classes)
        numbers["classifier_test_accuracy"] = classifier.test_accuracy
    family.train(was_training)
    return numbers
