"""Evaluation of a trained model on a split of its dataset, and of its samples against that split."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from genlab.config.commands import EvaluateConfig
from genlab.data.dataset import Dataset
from genlab.errors import ConfigError
from genlab.log import log
from genlab.trained.comparison import Comparison, reading_of
from genlab.trained.model import LoadedModel, dataset_of
from genlab.trained.numbers import evaluate_samples, mean_numbers, numbers_of_images, values_of_split
from genlab.trained.ruler import check_generates, generate


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a trained model, and the conditions under which they were computed.

    Attributes:
        numbers: name, with its unit, to value; NAME_standard_error beside a mean.
        setting: the conditions of the metrics: likelihood, bound, binarisation, extractors.
        images: number of images of the split.
        dataset: on the model's device.
        values: name to (N, ...) on the CPU, the metrics of each image, in the order of `Dataset.rows`.
        labels: of the images, (N,), or None.
        comparison: the object that measured the samples; None without `measure`.
        generated: these samples, (N, C, H, W) uint8.
    """

    numbers: dict[str, float]
    setting: dict[str, Any]
    images: int
    dataset: Dataset
    values: dict[str, Tensor]
    labels: Tensor | None
    comparison: Comparison | None
    generated: Tensor | None


def evaluate(model: LoadedModel, config: EvaluateConfig) -> Evaluation:
    """Evaluates a model with the settings of `genlab evaluate`; writes nothing.

    Raises:
        UserError: the model has no such metrics, or the dataset is missing.
    """
    name = model.config.model.name
    given = f"ckpt={config.ckpt}: {name}"
    if model.spec.kind == "none":
        raise ConfigError(
            f"{given} has no data to be evaluated on; see metrics.jsonl and samples/ of its run"
        )
    if config.importance_samples is not None and not model.family.takes_importance_samples:
        raise ConfigError(
            f"importance_samples={config.importance_samples}: {name} has no posterior to draw them from; "
            "leave importance_samples out"
        )
    dataset = dataset_of(model, config.dataset, config.split).to(model.device)
    walk = functools.partial(
        values_of_split,
        model.family,
        dataset,
        config.split,
        batch_size=config.batch_size,
        seed=config.seed,
        torch_device=model.device,
    )
    if config.per_image and not numbers_of_images(walk(limit=1, quiet=True)[0]):
        raise ConfigError(f"per_image=true: {name} has no metric of single images; leave per_image out")
    comparison = generated = None
    if config.measured or config.memorisation:
        check_generates(model.family, given)
        comparison = Comparison(config, dataset, model.device, reading=reading_of(model.config.dataset))
    log.info("evaluating the %s weights of %s on %s", model.weights, model.path, config.split)
    values, labels = walk(limit=config.images, importance_samples=config.importance_samples)
    values |= dataset.more_numbers(values, config.split, config.batch_size)
    numbers = mean_numbers(model.family, values) | evaluate_samples(
        model.family,
        model.config,
        dataset,
        config.split,
        seed=config.seed,
        torch_device=model.device,
        n=config.samples if isinstance(config.samples, int) else None,
        batch_size=config.batch_size,
    )
    setting: dict[str, Any] = {"binarization": dataset.spec.binarization, "levels": dataset.spec.levels}
    setting |= model.family.facts() | dataset.setting()
    if config.importance_samples is not None:
        setting["importance_weighted_bound"] = f"{config.importance_samples} posterior samples"
    if comparison is not None:
        generated = generate(
            model.family,
            dataset,
            comparison.count,
            seed=config.seed,
            torch_device=model.device,
            batch_size=config.batch_size,
            labels=comparison.labels,
        )
        numbers |= comparison.numbers(generated)
        setting |= comparison.setting(generated)
    images = min(dataset.size(config.split), config.images or dataset.size(config.split))
    return Evaluation(numbers, setting, images, dataset, values, labels, comparison, generated)
