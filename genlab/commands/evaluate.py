"""`genlab evaluate`: the numbers of a trained model, or of pictures of any origin."""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from genlab import device, registry
from genlab.commands.next import to_show
from genlab.config.commands import EvaluateConfig
from genlab.config.schema import from_plain
from genlab.errors import ConfigError, storage_errors
from genlab.log import log, log_to_console
from genlab.report.pictures import write_pictures
from genlab.runs.folder import create_folder
from genlab.trained.model import check_split, dataset_of, load_model
from genlab.trained.numbers import evaluate_samples, mean_numbers, numbers_of_images, values_of_split
from genlab.trained.ruler import Comparison, check_generates, generate, readable, reading_of


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
    setting |= model.family.facts() | dataset.setting()
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
    print(f"next: {to_show(type(model.family), ckpt)}")


def _evaluate_pictures(config: EvaluateConfig, torch_device: torch.device) -> None:
    """The numbers of pictures of any origin, beside a dataset's split or other pictures."""
    samples = str(config.samples)
    dataset, reading = None, {}
    if config.against is None:
        kind = registry.look_up(registry.DATASETS, config.dataset["name"], "dataset").Config
        dataset_config = from_plain(kind, config.dataset, "dataset")
        dataset, reading = registry.dataset(dataset_config), reading_of(dataset_config)
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
