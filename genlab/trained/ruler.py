"""Comparison of two sets of images by the same metrics, whatever produced them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genlab.config.run import TrainConfig, TrainerConfig
from genlab.config.schema import suggest
from genlab.data.dataset import Dataset
from genlab.data.sets import PictureSet, set_of_split, to_levels
from genlab.data.spec import DataSpec
from genlab.errors import ConfigError
from genlab.families.base import Family, LatentFamily
from genlab.log import log, progress_bar
from genlab.memory import check_fits
from genlab.metrics import cache, classifier, extractors
from genlab.metrics.coverage import overlap
from genlab.metrics.distances import frechet_at_infinity, frechet_distance, kernel_distance, moments
from genlab.metrics.extractors import Extractor
from genlab.nets.scanning import graphs_kept
from genlab.rng import derive_seed
from genlab.trained.draw import draw

METRICS = ("frechet", "kernel", "precision", "recall", "density", "coverage")
"""Metrics that compare two sets of features."""

_SURE = 0.9
"""A classifier is confident of an image if the most likely class has more than this probability."""

_MOST_CLASSES = 100
"""Maximum number of classes of the small classifier."""

MOST_IMAGES = 10_000
"""Default number of images that are compared."""

_FEATURES_FORMAT = 1
"""Version of the format of a file of features."""


Wanted = dict[str, tuple[str, ...]]
"""The requested metrics of each extractor, by name."""


def parse(measure: Sequence[str], spec: DataSpec, key: str = "measure") -> Wanted:
    """Parses requested metrics: EXTRACTOR stands for all its metrics, METRIC_EXTRACTOR for one.

    Args:
        measure: e.g. ("lenet", "frechet_random_conv"); "auto" for the extractor that fits the images.
        spec: of the images that are compared.

    Raises:
        ConfigError: the extractor or metric does not exist.
    """
    labelled = 2 <= spec.classes <= _MOST_CLASSES
    known = ("auto", *extractors.NAMES)
    wanted: Wanted = {}
    for word in measure:
        name = next((x for x in known if word == x or word.endswith(f"_{x}")), None)
        choices = [*known, *(f"{metric}_{x}" for metric in METRICS for x in known)]
        if name is None:
            raise ConfigError(f"{key}={word}: no such measure{suggest(word, choices, f'{key}=')}")
        metric = word.removesuffix(name).rstrip("_")
        if name == "auto":
            name = extractors.default(spec.channels, labelled)
        more = {"lenet": ("confident",), "inception": ("score",)}.get(name, ())
        metric = "frechet" if (name, metric) == ("inception", "fid") else metric
        if metric and metric not in (*METRICS, *more):
            choices = [f"{metric}_{name}" for metric in (*METRICS, *more)]
            raise ConfigError(f"{key}={word}: no such measure{suggest(word, choices, f'{key}=')}")
        found = (metric,) if metric else (*METRICS, *more)
        wanted[name] = tuple(dict.fromkeys((*wanted.get(name, ()), *found)))
    return wanted


def with_confidence(wanted: Wanted, spec: DataSpec) -> Wanted:
    """Adds, for labelled images, the confidence of the dataset's own classifier in samples."""
    if not 2 <= spec.classes <= _MOST_CLASSES or "confident" in wanted.get("lenet", ()):
        return wanted
    return wanted | {"lenet": (*wanted.get("lenet", ()), "confident")}


class _Real(NamedTuple):
    """The real side of one extractor: features (N, F), and probabilities (N, K) if it is a classifier."""

    features: Tensor | None
    probabilities: Tensor | None


class Ruler:
    """A comparison of image sets with one real set, whose features are computed once and cached on disk.

    Args:
        real: the reference images.
        wanted: see `parse`.
        torch_device: the device of the networks.
        dataset: labelled images on which `lenet` is trained; None if there is none.
        weights_file: see `genlab.metrics.extractors.inception`.
        key: the setting that names the extractors, for error messages.

    Raises:
        UserError: an extractor is not available, or there are too few real images.
    """

    def __init__(
        self,
        real: PictureSet,
        wanted: Wanted,
        torch_device: torch.device,
        *,
        dataset: Dataset | None = None,
        weights_file: str | None = None,
        key: str = "measure",
    ) -> None:
        self.real, self.wanted, self._device = real, wanted, torch_device
        teach = None
        if dataset is not None and dataset.spec.classes >= 2:
            teach = lambda: classifier.load_or_train(dataset, torch_device)
        self.extractors: dict[str, Extractor] = {
            name: extractors.make(name, torch_device, classifier=teach, weights=weights_file, key=key)
            for name in wanted
        }
        self._real = {name: self._read_real(name) for name in wanted}

    def measure(self, levels: Tensor, *, extrapolate: bool = False, seed: int = 0) -> dict[str, float]:
        """Returns the metrics of generated images.

        Args:
            levels: (N, C, H, W) uint8, of the shape of the real ones.
            extrapolate: also estimates the Fréchet distance at infinitely many images, with its error.
            seed: of the extrapolation's subsets.

        Returns:
            METRIC_EXTRACTOR_COUNT to value, where the count is the smaller of the two sets', e.g.
            frechet_lite0_10k.
        """
        numbers: dict[str, float] = {}
        for name, metrics in self.wanted.items():
            extractor, real = self.extractors[name], self._real[name]
            count = count_name(min(len(levels), len(self.real.levels)))
            if real.features is not None:
                features = self._on_device(extractor, levels)
                found = _compare(real.features, features, metrics)
                numbers |= {_named(metric, name, count): value for metric, value in found.items()}
                if extrapolate and "frechet" in metrics:
                    if len(features) < features.shape[1]:
                        log.warning(
                            "extrapolate=true: %d images are fewer than the %d features of %s, so that its "
                            "distance at infinity is too low; give n=%d or more, or look at kernel_%s",
                            *(len(features), features.shape[1], name, features.shape[1], name),
                        )
                    value, error = frechet_at_infinity(moments(real.features), features, seed=seed)
                    numbers |= {_named("frechet", name, "infinity"): value}
                    numbers |= {_named("frechet", name, "infinity", "standard_error"): error}
            if real.probabilities is not None:
                probabilities = self._on_device(extractor, levels, classes=True)
                if "score" in metrics:
                    value, error = inception_score(probabilities)
                    numbers |= {f"inception_score_{count}": value}
                    numbers |= {f"inception_score_{count}_standard_error": error}
                if "confident" in metrics:
                    for of, rows in ((count, probabilities), ("real", real.probabilities)):
                        share, entropy = _sureness(rows)
                        numbers |= {f"confident_share_{name}_{of}": share}
                        numbers |= {f"class_entropy_nats_{name}_{of}": entropy}
        return numbers

    def setting(self, generated: int) -> dict[str, Any]:
        """Returns the conditions of the metrics of `generated` images."""
        found: dict[str, Any] = {
            "compared_with": f"{len(self.real.levels)} images of {self.real.name}",
            "generated_images": generated,
        }
        for name, extractor in self.extractors.items():
            found[f"extractor_{name}"] = extractor.version + (f", {extractor.note}" if extractor.note else "")
        return found

    def _read_real(self, name: str) -> _Real:
        """Reads features from the cache, or computes them and caches them under all that they depend on."""
        extractor, metrics, levels = self.extractors[name], self.wanted[name], self.real.levels
        features = any(metric in METRICS for metric in metrics)
        classes = any(metric not in METRICS for metric in metrics)
        if name == "pixels":
            return _Real(self._on_device(extractor, levels), None)
        wanted = {"features": features, "probabilities": classes}
        digest = cache.digest(repr((_FEATURES_FORMAT, name, extractor.version, torch.__version__)), levels)
        path = cache.folder("features") / f"{self.real.label}-{name}-{len(levels)}-{digest[:16]}.pt"
        kept = cache.load(path, digest) or {}
        if any(value.ndim != 2 or len(value) != len(levels) for value in kept.values()):
            log.warning("%s: damaged (it holds those of other images); it is computed again", path)
            kept = {}
        if any(wanted[kind] and kind not in kept for kind in wanted):
            log.info("computing %s of %d images of %s once, for the cache", name, len(levels), self.real.name)
            kept = {
                kind: self._on_device(extractor, levels, classes=kind == "probabilities")
                for kind in wanted
                if wanted[kind] or kind in kept
            }
            cache.save(path, digest, kept)
        found = {kind: kept[kind].to(self._device) if wanted[kind] else None for kind in wanted}
        return _Real(found["features"], found["probabilities"])

    def _on_device(self, extractor: Extractor, levels: Tensor, classes: bool = False) -> Tensor:
        """Returns features or probabilities of images that are on the CPU, computed on the device."""
        function = extractor.probabilities if classes else extractor
        parts = levels.split(512)
        with progress_bar(total=len(levels), unit="image", desc=extractor.name, leave=False) as bar:
            found = []
            for part in parts:
                found.append(function(part.to(self._device)))
                bar.update(len(part))
        return torch.cat(found)


def count_name(count: int) -> str:
    """Returns a count as it appears in a metric's name: 10k for 10000, 2500 for 2500."""
    return f"{count // 1000}k" if count >= 1000 and count % 1000 == 0 else str(count)


def readable(value: float, size: float) -> str:
    """Formats a number with four decimals, or up to seven if `size`, it or its error, is below 0.01."""
    decimals = 4 if abs(size) >= 0.01 or not size else min(7, 2 - math.floor(math.log10(abs(size))))
    return f"{value:.{decimals}f}"


def _named(metric: str, *parts: str) -> str:
    """Returns a metric's name; only the Fréchet distance of Inception's features is called FID."""
    if metric == "frechet" and parts[0] == "inception":
        metric = "fid"
    if metric.endswith("_standard_error"):
        metric, parts = metric.removesuffix("_standard_error"), (*parts, "standard_error")
    return "_".join((metric, *parts))


def _compare(real: Tensor, generated: Tensor, metrics: Sequence[str]) -> dict[str, float]:
    """Returns metrics of two sets of features, (M, F) and (N, F)."""
    numbers: dict[str, float] = {}
    if "frechet" in metrics:
        numbers["frechet"] = frechet_distance(moments(real), moments(generated))
    if "kernel" in metrics:
        numbers["kernel"], numbers["kernel_standard_error"] = kernel_distance(real, generated)
    if shares := [metric for metric in metrics if metric in ("precision", "recall", "density", "coverage")]:
        found = overlap(real, generated)
        numbers |= {share: getattr(found, share) for share in shares}
    return numbers


def _sureness(probabilities: Tensor) -> tuple[float, float]:
    """Returns the share of images (N, K) classified with confidence, and the entropy over classes."""
    share = (probabilities.amax(1) > _SURE).double().mean().item()
    found = torch.bincount(probabilities.argmax(1), minlength=probabilities.shape[1]).double()
    return share, torch.special.entr(found / found.sum()).sum().item()


def inception_score(probabilities: Tensor, parts: int = 10) -> tuple[float, float]:
    """Returns the Inception score (Salimans et al. 2016) of probabilities (N, K): mean and spread over parts.

    exp(mean KL(p(y | x) || p(y))), in each of `parts` equal parts of the images, as is customary.
    """
    scores = []
    for part in probabilities.double().tensor_split(min(parts, len(probabilities))):
        log_ratio = part.clamp_min(1e-300).log() - part.mean(0).clamp_min(1e-300).log()
        scores.append(math.exp((part * log_ratio).sum(1).mean().item()))
    values = torch.tensor(scores, dtype=torch.float64)
    return values.mean().item(), values.std(correction=0).item()


def check_generates(family: Family, given: str) -> None:
    """Refuses a model whose samples are not images.

    Raises:
        ConfigError: see above; names the remedy.
    """
    if family.spec.kind == "points":
        raise ConfigError(f"{given}: points are no pictures; their modes are counted without measure")
    if not family.generates:
        remedy = "add prior=fit to genlab sample, then measure its folder: genlab evaluate samples=FOLDER"
        if not isinstance(family, LatentFamily):
            remedy = "leave measure out"
        raise ConfigError(f"{given}: has no prior to draw samples from; {remedy}")


@graphs_kept()
def generate(
    family: Family,
    dataset: Dataset,
    n: int,
    *,
    seed: int,
    torch_device: torch.device,
    batch_size: int,
    labels: Tensor | None = None,
    quiet: bool = False,
) -> Tensor:
    """Draws samples 0 to n-1 of a seed, those of `genlab sample`, as (n, C, H, W) uint8 on the CPU.

    Args:
        dataset: that of the family; it decodes codes to images.
        labels: of data, (M,): a family that takes labels gets them in their frequencies; None lets it draw.
    """
    spec = dataset.originals.spec
    if labels is not None and family.takes_labels:
        generator = torch.Generator().manual_seed(derive_seed(seed, "classes"))
        order = torch.randperm(len(labels), generator=generator).repeat(-(-n // len(labels)))
        labels = labels[order[:n]]
    else:
        labels = None
    check_fits(2 * n * spec.dimensions, f"n={n}", f"{n:,} samples", "measure fewer")  # in parts, then joined
    parts = []
    was_training = family.training
    family.eval()
    with progress_bar(total=n, unit="image", desc="sampling", leave=False, shown=not quiet) as bar:
        for start in range(0, n, batch_size):
            indices = range(start, min(start + batch_size, n))
            drawn = draw(family, indices, seed, torch_device, labels)
            parts.append(to_levels(dataset.pictures(drawn), spec))
            bar.update(len(indices))
    family.train(was_training)
    return torch.cat(parts)


def ruler_of_run(
    config: TrainConfig, family: Family, dataset: Dataset, torch_device: torch.device
) -> Ruler | None:
    """Returns the object that measures a run's samples against validation images; None without `measure`.

    Training's random numbers are not touched. The training images replace a validation split without
    images.

    Raises:
        UserError: see `parse`, `check_generates` and `Ruler`.
    """
    words, key = config.trainer.measure, "trainer.measure"
    if not words:
        return None
    check_generates(family, f"{key}=[{','.join(words)}]: {config.model.name}")
    images = dataset.originals
    split = "validation" if images.size("validation") else "train"
    wanted = parse(words, images.spec, key)
    real = set_of_split(images, split, config.trainer.measure_images)
    ruler = Ruler(real, wanted, torch_device, dataset=images, key=key)
    notes = [f"{name} ({x.note})" if x.note else name for name, x in ruler.extractors.items()]
    log.info("comparing samples with %d images of %s: %s", len(real.levels), real.name, ", ".join(notes))
    return ruler


def measure_run(
    ruler: Ruler,
    family: Family,
    dataset: Dataset,
    trainer: TrainerConfig,
    seed: int,
    torch_device: torch.device,
) -> dict[str, float]:
    """Returns the metrics of a run's samples; the same samples are drawn each time."""
    levels = generate(
        family,
        dataset,
        trainer.measure_images,
        seed=seed,
        torch_device=torch_device,
        batch_size=trainer.evaluated_at_once,
        labels=ruler.real.labels,
    )
    return ruler.measure(levels, seed=seed)
