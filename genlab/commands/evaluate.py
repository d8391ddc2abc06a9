"""`genlab evaluate`: the metrics of a trained model, or of images from any source."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from genlab import device, registry
from genlab.commands.base import finish
from genlab.commands.next import to_show
from genlab.config.commands import EvaluateConfig
from genlab.config.schema import from_plain
from genlab.errors import ConfigError, storage_errors
from genlab.files import write_json, written_aside
from genlab.log import log_to_console
from genlab.report.pictures import write_pictures
from genlab.runs.folder import create_folder
from genlab.trained.comparison import Comparison, reading_of
from genlab.trained.evaluation import evaluate
from genlab.trained.model import LoadedModel, check_split, load_model
from genlab.trained.numbers import numbers_of_images
from genlab.trained.ruler import readable


def main(plain: Mapping[str, Any]) -> None:
    """Runs `genlab evaluate`: writes evaluation.json and the family's pictures."""
    log_to_console()
    config = from_plain(EvaluateConfig, plain)
    torch_device = device.select(config.device, "device")
    if config.ckpt is None:
        _evaluate_pictures(config, torch_device)
    else:
        _evaluate_model(config, load_model(config.ckpt, config.weights, torch_device))


def _evaluate_model(config: EvaluateConfig, model: LoadedModel) -> None:
    """Evaluates a trained model: on a split, and by its samples."""
    found = evaluate(model, config)
    folder = create_folder("evaluate", config.run_dir, model.label)
    names = write_pictures(model.family, found.dataset, config.split, folder, config.seed, model.device)
    if found.comparison is not None and found.generated is not None:
        names += found.comparison.write_pictures(found.generated, folder)
    if config.per_image:
        rows = found.dataset.rows(config.split, config.images)
        with storage_errors(folder):
            write_per_image(folder / "per_image.csv", rows, numbers_of_images(found.values), found.labels)
        names.insert(0, "per_image.csv")
    facts = model.describe() | {
        "dataset": found.dataset.spec.name,
        "split": config.split,
        "images": found.images,
        "seed": config.seed,
    }
    on = f"on {found.images} images of {found.dataset.spec.name}, {config.split} split"
    _report(
        folder, facts, found.setting, found.numbers, names, on, to_show(type(model.family), str(config.ckpt))
    )


def _evaluate_pictures(config: EvaluateConfig, torch_device: torch.device) -> None:
    """Evaluates images from any source by comparison with a dataset's split or other images."""
    samples = str(config.samples)
    dataset, reading = None, {}
    if config.against is None:
        kind = registry.look_up(registry.DATASETS, config.dataset["name"], "dataset").Config
        dataset_config = from_plain(kind, config.dataset, "dataset")
        dataset, reading = registry.dataset(dataset_config), reading_of(dataset_config)
        if dataset.spec.kind != "images":
            raise ConfigError(f"dataset={dataset.spec.name}: has no images to compare samples={samples} with")
        check_split(dataset, config.split)
    measured = Comparison(config, dataset, torch_device, reading=reading)
    levels = measured.given
    numbers = measured.numbers(levels)
    folder = create_folder("evaluate", config.run_dir, f"{Path(samples).stem}-{measured.reference.label}")
    names = measured.write_pictures(levels, folder)
    facts = {"samples": samples, "against": measured.reference.name, "seed": config.seed}
    _report(
        folder,
        facts,
        measured.setting(levels),
        numbers,
        names,
        f"{len(levels)} pictures of {samples}",
        "genlab evaluate --help",
    )


def _report(
    folder: Path,
    facts: Mapping[str, Any],
    setting: Mapping[str, Any],
    numbers: Mapping[str, float],
    names: Sequence[str],
    on: str,
    then: str,
) -> None:
    """Writes evaluation.json; prints the metrics, their data and the names of the written files."""
    with storage_errors(folder):
        write_json(folder / "evaluation.json", {**facts, "setting": dict(setting), **numbers})
    printed = [name for name in numbers if not name.endswith("_standard_error")]
    width = max(map(len, printed), default=0)
    for name in printed:
        error = numbers.get(f"{name}_standard_error")
        value = readable(numbers[name], numbers[name] if error is None else error)
        print(f"{name:{width}} {value}" + (f" +- {readable(error, error)}" if error is not None else ""))
    described = ", ".join(f"{key} {value}" for key, value in setting.items())
    print(f"{on}; {described}")
    finish(folder, ", ".join(["evaluation.json", *names]), then)


def write_per_image(
    path: Path, rows: torch.Tensor, columns: dict[str, torch.Tensor], labels: torch.Tensor | None
) -> None:
    """Writes a line for each image: index in the split, label if there are labels, and its metrics.

    Args:
        rows: (N,), the indices.
        columns: name to (N,).
        labels: (N,), or None.
    """
    known = {} if labels is None else {"label": labels}
    table = {"index": rows} | known | columns
    with written_aside(path) as aside, open(aside, "w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(table)
        lines.writerows(zip(*(column.tolist() for column in table.values()), strict=True))
