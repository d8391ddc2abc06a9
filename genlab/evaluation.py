"""Numbers of a trained model: walks a data split, means and standard errors."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from genlab import build, device
from genlab.config import EvaluateConfig, TrainConfig, from_plain, suggest, to_plain
from genlab.data.dataset import Dataset
from genlab.data.spec import check_codes_of
from genlab.errors import ConfigError, DataError
from genlab.families.base import Family
from genlab.measuring import Comparison, check_generates, generate, readable, reading_of
from genlab.metrics.modes import class_coverage, point_coverage
from genlab.report.pictures import save_grid
from genlab.rng import SampleRng
from genlab.run import create_folder, log, log_to_console, storage_errors
from genlab.trained.draw import draw
from genlab.trained.model import TrainedModel, load_model

_PICTURED_IMAGES = 40
_SAMPLES_AT_ONCE = 2**15
"""Importance samples of a batch: so the progress bar moves, and each image's stream draws many at a time."""


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
    """The family's numbers over a split; see `values_of_split` and `mean_numbers`."""
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
    """What the family's `evaluate` gives, every image once, the incomplete last batch included.

    Image k's number depends on the seed and k alone, so the batch size changes nothing but rounding.

    Args:
        batch_size: most images at a time; fewer of many importance samples.
        importance_samples: for a family that takes them.

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
        tqdm(total=total, unit="image", desc=split, leave=False, disable=quiet or None) as bar,
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
    """For each number of an image its mean, and NAME_standard_error of that mean; then the family's summary.

    Args:
        values: as `values_of_split` gives them.
    """
    numbers: dict[str, float] = {}
    for name, value in numbers_of_images(values).items():
        value = value.double()
        numbers[name] = value.mean().item()
        if len(value) > 1:
            numbers[f"{name}_standard_error"] = value.std().item() / math.sqrt(len(value))
    return numbers | family.summarize(values)


def numbers_of_images(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those of `values_of_split` that are a number for each image, (N,)."""
    return {name: value for name, value in values.items() if value.ndim == 1}


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
    """Numbers of samples beside data: the modes that they cover, where the data's modes are known.

    Args:
        n: samples for the coverage; None for 2,500 points, or 26,000 stacked digits (Lin et al. 2018, 4.2).

    Returns:
        of points in separate modes and of stacked digits, see `genlab.metrics.modes`; of an adversarial
        family sample_diversity, the total variance of 1,000 samples over that of as many images of the split.
    """
    numbers: dict[str, float] = {}
    if family.spec.kind == "none" or not family.generates:
        return numbers

    def samples(count: int) -> Iterator[torch.Tensor]:
        for start in range(0, count, batch_size):
            yield draw(family, range(start, min(start + batch_size, count)), seed, torch_device)

    was_training = family.training
    family.eval()
    if family.adversarial and dataset.size(split) > 1:
        drawn = torch.cat(list(samples(1000)))
        real = dataset.examples(split, 1000, seed)[1].images
        numbers["sample_diversity"] = float(drawn.var(0).sum() / real.var(0).sum())
    if family.spec.kind == "points" and (mixture := config.dataset.mixture()).separate:
        numbers |= point_coverage(torch.cat(list(samples(n or 2500))).flatten(1).cpu(), mixture)
    elif family.spec.name == "stacked_mnist":
        from genlab.metrics.classifier import of_digits, stacked_modes

        classifier = of_digits(config.dataset, torch_device)
        found = torch.cat([stacked_modes(classifier, part) for part in samples(n or 26_000)])
        numbers |= class_coverage(found, family.spec.classes)
        numbers["classifier_test_accuracy"] = classifier.test_accuracy
    family.train(was_training)
    return numbers


def main(plain: Mapping[str, Any]) -> None:
    """`genlab evaluate`: writes evaluation.json and the family's pictures."""
    log_to_console()
    config = from_plain(EvaluateConfig, plain)
    torch_device = device.resolve(config.device, "device")
    if config.ckpt is None:
        _evaluate_pictures(config, torch_device)
    else:
        _evaluate_model(config, config.ckpt, torch_device)


def _evaluate_model(config: EvaluateConfig, ckpt: str, torch_device: torch.device) -> None:
    """The numbers of a trained model: of a split, and of its samples."""
    model = load_model(ckpt, config.weights, torch_device)
    if model.spec.kind == "none":
        raise ConfigError(
            f"ckpt={ckpt}: {model.config.model.name} has no data to be evaluated on; "
            "see metrics.jsonl and samples/ of its run"
        )
    if config.importance_samples is not None and not model.family.takes_importance_samples:
        raise ConfigError(
            f"importance_samples={config.importance_samples}: {model.config.model.name} has no posterior to "
            "draw them from; leave importance_samples out"
        )
    dataset = dataset_of(model, config.dataset, config.split).to(torch_device)
    walk = functools.partial(
        values_of_split,
        model.family,
        dataset,
        config.split,
        batch_size=config.batch_size,
        seed=config.seed,
        torch_device=torch_device,
    )
    if config.per_image and not numbers_of_images(walk(limit=1, quiet=True)[0]):
        name = model.config.model.name
        raise ConfigError(f"per_image=true: {name} gives no number for an image; leave per_image out")
    measured = None
    if config.measured or config.memorisation:
        check_generates(model.family, f"ckpt={ckpt}: {model.config.model.name}")
        measured = Comparison(config, dataset, torch_device, reading=reading_of(model.config.dataset))
    log.info("evaluating the %s weights of %s on %s", model.weights, model.path, config.split)
    values, labels = walk(limit=config.images, importance_samples=config.importance_samples)
    values |= dataset.more_numbers(values, config.split, config.batch_size)
    numbers = mean_numbers(model.family, values) | evaluate_samples(
        model.family,
        model.config,
        dataset,
        config.split,
        seed=config.seed,
        torch_device=torch_device,
        n=config.samples if isinstance(config.samples, int) else None,
        batch_size=config.batch_size,
    )
    setting = {
        "binarization": dataset.spec.binarization,
        "levels": dataset.spec.levels,
    }
    setting |= model.family.setting() | dataset.setting()
    if config.importance_samples is not None:
        setting["importance_weighted_bound"] = f"{config.importance_samples} posterior samples"
    folder = create_folder("evaluate", config.run_dir, model.label)
    names = write_pictures(model.family, dataset, config.split, folder, config.seed, torch_device)
    if measured is not None:
        levels = generate(
            model.family,
            dataset,
            measured.count,
            seed=config.seed,
            torch_device=torch_device,
            batch_size=config.batch_size,
            labels=measured.labels,
        )
        numbers |= measured.numbers(levels)
        setting |= measured.setting(levels)
        names += measured.write_pictures(levels, folder)
    if config.per_image:
        rows = dataset.rows(config.split, config.images)
        with storage_errors(folder):
            write_per_image(folder / "per_image.csv", rows, numbers_of_images(values), labels)
        names.insert(0, "per_image.csv")
    n = min(dataset.size(config.split), config.images or dataset.size(config.split))
    facts = model.describe() | {
        "dataset": dataset.spec.name,
        "split": config.split,
        "images": n,
        "seed": config.seed,
    }
    on = f"on {n} images of {dataset.spec.name}, {config.split} split"
    _report(folder, facts, setting, numbers, names, on)
    print(f"next: {model.family.show_line(ckpt)}")


def _evaluate_pictures(config: EvaluateConfig, torch_device: torch.device) -> None:
    """The numbers of pictures of any origin, beside a dataset's split or other pictures."""
    samples = str(config.samples)
    dataset, reading = None, {}
    if config.against is None:
        kind = build.look_up(build.DATASETS, config.dataset["name"], "dataset").Config
        dataset_config = from_plain(kind, config.dataset, "dataset")
        dataset, reading = build.dataset(dataset_config), reading_of(dataset_config)
        if dataset.spec.kind != "images":
            raise ConfigError(
                f"dataset={dataset.spec.name}: holds no images to compare samples={samples} with"
            )
        check_split(dataset, config.split)
    measured = Comparison(config, dataset, torch_device, reading=reading)
    levels = measured.given
    numbers = measured.numbers(levels)
    folder = create_folder("evaluate", config.run_dir, f"{Path(samples).stem}-{measured.reference.label}")
    names = measured.write_pictures(levels, folder)
    facts = {"samples": samples, "against": measured.reference.name, "seed": config.seed}
    _report(folder, facts, measured.setting(levels), numbers, names, f"{len(levels)} pictures of {samples}")
    print("next: genlab evaluate --help")


def _report(
    folder: Path,
    facts: Mapping[str, Any],
    setting: Mapping[str, Any],
    numbers: Mapping[str, float],
    names: Sequence[str],
    on: str,
) -> None:
    """Writes evaluation.json and prints the numbers, what they were taken on, and what was written."""
    with storage_errors(folder):
        report = json.dumps({**facts, "setting": dict(setting), **numbers}, indent=2)
        (folder / "evaluation.json").write_text(report + "\n")
    printed = [name for name in numbers if not name.endswith("_standard_error")]
    width = max(map(len, printed), default=0)
    for name in printed:
        error = numbers.get(f"{name}_standard_error")
        value = readable(numbers[name], numbers[name] if error is None else error)
        print(f"{name:{width}} {value}" + (f" +- {readable(error, error)}" if error is not None else ""))
    described = ", ".join(f"{key} {value}" for key, value in setting.items())
    print(f"{on}; {described}")
    print(f"wrote {folder}: {', '.join(['evaluation.json', *names])}")


def write_pictures(
    family: Family, dataset: Dataset, split: str, folder: Any, seed: int, torch_device: torch.device
) -> list[str]:
    """Writes the family's pictures of some of a split's images; gives the files' names."""
    names = []
    indices, batch = dataset.examples(split, _PICTURED_IMAGES, seed)
    rng = SampleRng(seed, indices, torch_device, purpose="pictures")
    with torch.no_grad(), storage_errors(folder):
        for name, sheet in family.pictures(batch, rng=rng).items():
            save_grid(sheet.flatten(0, 1), folder / f"{name}.png", columns=sheet.shape[1])
            names.append(f"{name}.png")
    return names


def write_per_image(
    path: Path, rows: torch.Tensor, columns: dict[str, torch.Tensor], labels: torch.Tensor | None
) -> None:
    """Writes a line for each image: index in the split, label if there are labels, and its numbers.

    Args:
        rows: (N,), the indices.
        columns: name to (N,).
        labels: (N,), or None.
    """
    known = {} if labels is None else {"label": labels}
    table = {"index": rows} | known | columns
    with open(path, "w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(table)
        lines.writerows(zip(*(column.tolist() for column in table.values()), strict=True))


def dataset_of(model: TrainedModel, changes: Mapping[str, Any], split: str) -> Dataset:
    """The dataset that a model was trained on.

    Args:
        changes: settings that say where its files are now.
        split: one that is wanted of it.

    Raises:
        ConfigError: `changes` would make other data of it.
        DataError: its images are others now, or there are none in the split.
    """
    config = relocated(model.config.dataset, changes)
    dataset = build.dataset(config)
    if model.spec.kind == "codes":
        check_codes_of(config.ckpt, dataset.spec.codes_of, model.spec.codes_of)
    if dataset.spec != model.spec:
        raise DataError(f"dataset.name={dataset.spec.name}: its images are not like those of {model.path}")
    check_split(dataset, split)
    return dataset


def check_split(dataset: Dataset, split: str) -> None:
    """Refuses a split without images.

    Raises:
        DataError: it has none; names one that has.
    """
    if dataset.size(split) == 0:
        other = next(name for name in ("test", "validation", "train") if dataset.size(name))
        raise DataError(f"split={split}: {dataset.spec.name} has no such images; use split={other}")


def relocated(stored: Any, changes: Mapping[str, Any]) -> Any:
    """The dataset's settings with what says where the files are now.

    Raises:
        ConfigError: `changes` would make other data of it.
    """
    known = {field.name for field in dataclasses.fields(stored)}
    movable = {"root", "path", "ckpt", "download", "memory_limit_gib"} & known
    for key in changes:
        if key not in movable:
            raise ConfigError(
                f"dataset.{key}: the data stay as in training{suggest(key, movable, 'dataset.')}"
            )
    return from_plain(type(stored), to_plain(stored) | dict(changes), "dataset")
