"""Latent codes of images: a file of codes, a map, and a linear probe of the classes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genlab import registry
from genlab.commands.base import finish, for_json, open_model
from genlab.config.commands import EncodeConfig
from genlab.config.schema import from_plain, to_plain
from genlab.data.dataset import Dataset
from genlab.data.subsets import subset
from genlab.errors import ConfigError, DataError, storage_errors
from genlab.files import write_json, written_aside
from genlab.log import log
from genlab.metrics.fidelity import mean_squared_error
from genlab.metrics.linear_probe import Labelled, Probe, linear_probe
from genlab.runs.folder import create_folder
from genlab.trained.given import read_images
from genlab.trained.latent_space import (
    ENCODED_IMAGES,
    check_has,
    codes_of_split,
    decode,
    encode,
    labels_of,
    latent_family,
)
from genlab.trained.model import LoadedModel, check_split, dataset_of

_NEIGHBOURED = 2000
"""Maximum number of images of a t-SNE map: it takes about a minute on a slow core."""

_LEAST_NEIGHBOURED = 4
_PROBED_PIXELS = 1024
"""Maximum size of an image whose pixels are probed directly; such a probe takes seconds."""

_AS_IN_TRAINING = ("binarize", "threshold", "dequantize", "size", "channels", "root", "download")
"""Settings of the model's dataset that another dataset also gets, if it has them and they are not null."""


class Features(NamedTuple):
    """Images of one split and their codes.

    images: (N, C, H, W) in [0, 1].
    codes: (N, L) float32.
    labels: (N,) int64, or None.
    """

    images: Tensor
    codes: Tensor
    labels: Tensor | None

    def labelled(self, features: Tensor) -> Labelled:
        assert self.labels is not None
        return Labelled(features, self.labels)


class Row(NamedTuple):
    """A row of the table: a representation, its probe accuracy and its reconstruction error.

    mean_squared_error: reconstruction error of the test images, over all numbers of an image; None without a
        reconstruction.
    explained_variance: 1 - that error / the error of the training images' mean, at most 1.
    """

    name: str
    dimensions: int
    probe: Probe | None
    mean_squared_error: float | None = None
    explained_variance: float | None = None


def main(plain: Mapping[str, Any]) -> None:
    """Runs `genlab encode`: writes codes.npz, map.png and encoding.json."""
    config, model = open_model(EncodeConfig, plain)
    check_has(model, config.ckpt, "encodes")
    if config.images is not None:
        _encode_pictures(config, model)
    else:
        _encode_dataset(config, model)


def _encode_pictures(config: EncodeConfig, model: LoadedModel) -> None:
    """Writes codes and a map of a user's own images, without labels and without a probe."""
    if "name" in config.dataset:
        name = config.dataset["name"]
        raise ConfigError(f"dataset={name}: cannot be combined with images={config.images}; leave one out")
    least = _LEAST_NEIGHBOURED if config.map == "tsne" else 1
    given = read_images(str(config.images), model, least)
    folder = create_folder("encode", config.run_dir, model.label)
    log.info("encoding %d images with the %s weights of %s", len(given.images), model.weights, model.path)
    labels = labels_of(model, given, config.batch_size, config.seed)
    codes = encode(latent_family(model), given.images, config.batch_size, labels)
    facts = model.describe() | {"images": config.images, "count": len(codes), "dimensions": codes.shape[1]}
    arrays = {"codes": codes.numpy(), "image": np.array(given.names)}
    _write(folder, config, facts, arrays, codes, None, f"{len(codes)} images of {config.images}")
    _end(folder, config, model)


def _encode_dataset(config: EncodeConfig, model: LoadedModel) -> None:
    dataset = other_dataset(model, config.dataset, config.split)
    index = dataset.rows(config.split, config.count)
    total = len(index)
    if config.map == "tsne" and total < _LEAST_NEIGHBOURED:
        raise ConfigError(f"map=tsne: has {total} images, needs at least {_LEAST_NEIGHBOURED}; use map=pca")
    folder = create_folder("encode", config.run_dir, f"{model.config.model.name}-{dataset.spec.name}")
    name = f"{dataset.spec.name}, {config.split} split"
    log.info("encoding %d images (%s) with the %s weights of %s", total, name, model.weights, model.path)

    def codes_of(split: str, limit: int | None) -> tuple[Tensor, Tensor | None]:
        return codes_of_split(
            latent_family(model),
            dataset,
            split,
            limit,
            config.batch_size,
            config.seed,
            infer_labels=True,
        )

    def features(split: str, limit: int) -> Features | None:
        if dataset.size(split) == 0:
            return None
        batch = next(dataset.evaluation_batches(split, limit, config.seed, limit))[1]
        return Features(batch.images.cpu(), *codes_of(split, limit))

    codes, labels = codes_of(config.split, config.count)
    train = features("train", ENCODED_IMAGES)
    test = features("test", ENCODED_IMAGES)
    validation = features("validation", ENCODED_IMAGES // 2)
    assert train is not None
    rows = compare(model, train, test, validation, config.batch_size) if test else []
    counts = {"training": train, "validation": validation, "test": test}
    facts = model.describe() | {
        "dataset": dataset.spec.name,
        "split": config.split,
        "count": len(codes),
        "dimensions": codes.shape[1],
        "seed": config.seed,
        "compared_on": {f"{key}_images": len(part.codes) if part else 0 for key, part in counts.items()},
        "probe": "multinomial logistic regression; codes and components standardised",
        "representations": [_for_json(row) for row in rows],
    }
    arrays = {"codes": codes.numpy(), "index": index.numpy(), "split": np.array(config.split)}
    arrays |= {"train_codes": train.codes.numpy()}
    if labels is not None and train.labels is not None:
        arrays |= {"labels": labels.numpy(), "train_labels": train.labels.numpy()}
    if dataset.spec.factors:
        arrays |= {"factors": factors_of(dataset, config.split, config.count).numpy()}
        facts |= {"factors": dataset.spec.factors}
    _write(folder, config, facts, arrays, codes, labels, f"{len(codes)} images of {name}")
    if test is not None:
        _print_table(rows)
        seen = ", ".join(f"{len(part.codes):,} {key} images" for key, part in counts.items() if part)
        print(f"on {seen} of {dataset.spec.name}{_why_no_probe(train)}")
    _end(folder, config, model)


def factors_of(dataset: Dataset, split: str, limit: int | None) -> Tensor:
    """Returns the factors of a split's images, (N, F) int64 on the CPU; see `Batch.factors`."""
    parts = []
    for _, batch in dataset.evaluation_batches(split, 1000, 0, limit):
        assert batch.factors is not None
        parts.append(batch.factors.cpu())
    return torch.cat(parts)


def other_dataset(model: LoadedModel, changes: Mapping[str, Any], split: str) -> Dataset:
    """Returns the dataset that a model was trained on, or another one with images of the same shape.

    Args:
        changes: settings of the dataset; with a `name`, those of the dataset of that name.
        split: a split that the dataset must have.

    Raises:
        UserError: its images differ in shape from the model's; see also `genlab.trained.model.dataset_of`.
    """
    stored = model.config.dataset
    name = changes.get("name", stored.name)
    if name == stored.name:
        return dataset_of(model, {key: value for key, value in changes.items() if key != "name"}, split)
    config_class = registry.look_up(registry.DATASETS, name, "dataset").Config
    known = {field.name for field in dataclasses.fields(config_class)}
    plain = to_plain(stored)
    kept = {key: plain[key] for key in _AS_IN_TRAINING if plain.get(key) is not None and key in known}
    dataset = registry.dataset(from_plain(config_class, kept | dict(changes), "dataset"))
    spec, own = dataset.spec, model.spec
    if spec.kind != "images":
        raise DataError(f"dataset={name}: has no images; choose another")
    if spec.shape != own.shape:
        sizes = ["x".join(map(str, shape)) for shape in (spec.shape, own.shape)]
        wanted = f"dataset.size={own.height} dataset.channels={own.channels}"
        if own.height != own.width or "size" not in known:
            wanted = "another dataset"
        raise DataError(
            f"dataset={name}: its images are {sizes[0]} (channels, height, width), the model's {sizes[1]}; "
            f"use {wanted}"
        )
    if own.levels == 2 != spec.levels:
        raise DataError(
            f"dataset={name}: its pixels have {spec.levels} levels, the model's images are binary; "
            "add dataset.binarize=threshold"
        )
    check_split(dataset, split)
    return dataset


def compare(
    model: LoadedModel,
    train: Features,
    test: Features,
    validation: Features | None,
    batch_size: int,
) -> list[Row]:
    """Compares the model's codes with as many principal components of the pixels, and with the pixels.

    Components are fitted to the training images; their reconstructions are clamped to [0, 1].
    """
    from sklearn.decomposition import PCA

    log.info("comparing codes and principal components of the pixels")
    sets = [part for part in (train, test, validation) if part is not None]
    pixels = train.images.flatten(1)
    mean_image = pixels.mean(0).view(test.images.shape[1:])
    variance = mean_squared_error(test.images, mean_image.expand_as(test.images)).mean().item()

    def row(
        name: str,
        features_of: Callable[[Features], Tensor],
        restored: Tensor | None,
        standardize: bool = True,
    ) -> Row:
        features = [features_of(part) for part in sets]
        probe = None
        if probed(train):
            labelled = (part.labelled(each) for part, each in zip(sets, features, strict=True))
            probe = linear_probe(*labelled, standardize=standardize)
        if restored is None:
            return Row(name, features[0].shape[1], probe)
        error = mean_squared_error(test.images, restored).mean().item()
        share = 1 - error / variance if variance > 0 else math.nan
        return Row(name, features[0].shape[1], probe, error, share)

    family, restored = latent_family(model), None
    if family.decodes and not family.takes_labels:
        restored = decode(family, test.codes, batch_size)
    rows = [row(f"codes of {model.config.model.name}", lambda part: part.codes, restored)]
    components = PCA(min(train.codes.shape[1], *pixels.shape), random_state=0).fit(pixels.numpy())

    def projected(part: Features) -> Tensor:
        return torch.from_numpy(components.transform(part.images.flatten(1).numpy()))

    back = torch.from_numpy(components.inverse_transform(projected(test).numpy()))
    rows.append(row("PCA of pixels", projected, back.clamp(0, 1).view_as(test.images)))
    if probed(train) and pixels.shape[1] <= _PROBED_PIXELS:
        rows.append(row("pixels", lambda part: part.images.flatten(1), None, standardize=False))
    return rows


def probed(train: Features) -> bool:
    """Returns whether there are at least two classes to classify."""
    return train.labels is not None and len(train.labels.unique()) > 1


def places_of(codes: Tensor, method: str, seed: int) -> tuple[Tensor, tuple[str, str], float | None]:
    """Returns the positions of codes (N, L) on a map.

    Args:
        method: "pca" or "tsne" (van der Maaten and Hinton 2008), perplexity 30, or less for few codes.
        seed: the seed of t-SNE.

    Returns:
        (N, 2); names of the two axes; and the share of the codes' variance that is shown, if known.
        A two-dimensional latent is shown as it is; for a one-dimensional latent the second axis is 0.
    """
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(codes) - 1) / 3)
        tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed % 2**32)
        return torch.from_numpy(tsne.fit_transform(codes.numpy())), ("t-SNE 1", "t-SNE 2"), None
    if codes.shape[1] == 1:
        return torch.cat([codes, torch.zeros_like(codes)], 1), ("dimension 0", ""), 1.0
    if codes.shape[1] == 2:
        return codes, ("dimension 0", "dimension 1"), 1.0
    centred = codes.double() - codes.double().mean(0)
    _, sizes, directions = torch.linalg.svd(centred, full_matrices=False)
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    places = centred @ (directions * largest.sign())[:2].T  # fixes the sign, which depends on the machine
    places = torch.nn.functional.pad(places, (0, 2 - places.shape[1]))  # a single image has one axis
    share = sizes[:2].square().sum() / sizes.square().sum()
    return places.float(), ("principal component 1", "principal component 2"), share.item()


def _write(
    folder: Path,
    config: EncodeConfig,
    facts: dict[str, Any],
    arrays: dict[str, np.ndarray],
    codes: Tensor,
    labels: Tensor | None,
    title: str,
) -> None:
    from genlab.report import figures

    some = subset(len(codes), _NEIGHBOURED if config.map == "tsne" else None)
    shown = codes[some]
    if config.map == "tsne":
        log.info("computing the t-SNE map of %d codes", len(shown))
    places, names, share = places_of(shown, config.map, config.seed)
    method = "none" if codes.shape[1] <= 2 and config.map == "pca" else config.map
    facts = facts | {
        "map": {
            "method": method,
            "images": len(shown),
            "explained_variance": None if share is None else for_json(share),
        }
    }
    if len(shown) < len(codes):
        title = f"{len(shown)} of {title}"
    figure = figures.code_map(places, None if labels is None else labels[some], names, title)
    with storage_errors(folder):
        with written_aside(folder / "codes.npz") as aside:
            np.savez_compressed(aside, **arrays)  # type: ignore[arg-type]
        figures.save_figure(figure, folder / "map.png")
        write_json(folder / "encoding.json", facts)


def _for_json(row: Row) -> dict[str, Any]:
    plain = row._asdict()
    del plain["probe"]
    if row.explained_variance is not None:
        plain["explained_variance"] = for_json(row.explained_variance)
    if row.probe is None:
        return plain
    return plain | {
        "probe_accuracy": row.probe.accuracy,
        "probe_accuracy_standard_error": row.probe.standard_error,
        "probe_penalty": row.probe.penalty,
    }


def _print_table(rows: list[Row]) -> None:
    headings = ("", "dimensions", "probe accuracy", "mean squared error", "explained variance")
    lines: list[tuple[str, ...]] = [headings]
    for row in rows:
        probe = "" if row.probe is None else f"{row.probe.accuracy:.4f} +- {row.probe.standard_error:.4f}"
        error = "" if row.mean_squared_error is None else f"{row.mean_squared_error:.5f}"
        share = "" if row.explained_variance is None else f"{row.explained_variance:.3f}"
        lines.append((row.name, str(row.dimensions), probe, error, share))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, *cells in lines:
        right = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        print("  ".join([name.ljust(widths[0]), *right]).rstrip())


def _why_no_probe(train: Features) -> str:
    if train.labels is None:
        return "; without labels there is no probe"
    return "" if probed(train) else "; with one class there is no probe"


def _end(folder: Path, config: EncodeConfig, model: LoadedModel) -> None:
    verb = "traverse" if model.family.decodes else "evaluate"
    finish(folder, "codes.npz, map.png, encoding.json", f"genlab {verb} ckpt={config.ckpt}")
