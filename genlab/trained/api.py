"""The Python interface to trained models: `genlab.load` and the model that it returns."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from genlab import device as devices
from genlab.config.commands import EvaluateConfig, SampleConfig
from genlab.config.schema import from_plain
from genlab.data.spec import Batch
from genlab.errors import ConfigError
from genlab.families.base import Family
from genlab.log import log_to_console
from genlab.memory import check_fits
from genlab.nets.scanning import graphs_kept
from genlab.rng import SampleRng
from genlab.trained import completing, evaluation, latent_space
from genlab.trained.draw import check_labels
from genlab.trained.given import Given, to_levels
from genlab.trained.latent_space import check_has
from genlab.trained.model import LoadedModel, load_model
from genlab.trained.sampling import sampler_of

_KINDS = {"nll_nats": "exact", "importance_weighted_nats": "importance_weighted", "elbo_nats": "elbo"}
"""Name of a metric of `Family.evaluate` to the kind of likelihood, the tightest first."""


class Score(NamedTuple):
    """The negative log-likelihood of each image: lower is better.

    nats: (N,), -log p(x), or an upper bound on it.
    kind: "exact"; "elbo", the negative evidence lower bound, with one sample of the posterior; or
        "importance_weighted", a tighter bound.
    """

    nats: Tensor
    kind: str


@dataclasses.dataclass(frozen=True)
class TrainedModel(LoadedModel):
    """A trained model in Python, as `genlab.load` returns it.

    Images are float32 (N, C, H, W) in [0, 1]; uint8 images in [0, 255] are accepted too. Methods return
    tensors on the CPU. A method that the model's family lacks raises `genlab.UserError`, with the message
    that the command line would print.

    Attributes:
        config: the run's configuration: `config.model`, `config.dataset`, `config.trainer` and so on.
        spec: the shape of the images, their levels and classes.
        weights: "average" (the moving average of the weights) or "raw".
        path: the checkpoint file.
        step, images: training steps and training images at the time of the checkpoint.
    """

    @property
    def module(self) -> Family:
        """Returns the torch module, in evaluation mode and without gradients, for use in other code."""
        return self.family

    @property
    def classes(self) -> int:
        """Returns the number of classes of the dataset; 0 without labels."""
        return self.spec.classes

    @property
    def labels(self) -> range:
        """Returns the classes that methods accept as `labels`; empty for a model without labels."""
        return range(self.spec.classes if self.family.takes_labels else 0)

    @graphs_kept()
    def sample(
        self,
        n: int | None = None,
        *,
        seed: int = 0,
        labels: Sequence[int] | None = None,
        temperature: float = 1.0,
        prior: Literal["model", "fit"] = "model",
        batch_size: int = 256,
    ) -> Tensor:
        """Draws images: those of `genlab sample` with the same settings.

        Args:
            n: number of images; None for one of each of `labels`, else 64.
            seed: image k depends on the seed and k alone.
            labels: a class for each image, repeated as needed.
            temperature: below 1 favours likely values; autoregressive models only.
            prior: "fit" draws from Gaussians fitted to the codes of training images, for models that encode.
            batch_size: images at a time; does not change the images.

        Returns:
            (n, C, H, W) float32 in [0, 1]; points, (n, D, 1, 1), have no bounds.
        """
        config = from_plain(
            SampleConfig,
            {
                "ckpt": str(self.path),
                "n": n,
                "seed": seed,
                "labels": None if labels is None else [int(label) for label in labels],
                "temperature": temperature,
                "prior": prior,
                "batch_size": batch_size,
            },
        )
        sampler = sampler_of(config, self)
        needed = 8 * config.count * self.spec.dimensions  # in parts, then joined
        check_fits(
            needed, f"n={config.count}", f"{config.count:,} images", "draw fewer at once, with other seeds"
        )
        parts = range(0, config.count, batch_size)
        return torch.cat(
            [sampler.draw(range(k, min(k + batch_size, config.count))).cpu() for k in parts]
        ).float()

    def encode(
        self, images: Tensor, labels: Sequence[int] | Tensor | None = None, *, batch_size: int = 256
    ) -> Tensor:
        """Returns the latent codes of images: the posterior's mean if the model has a posterior.

        Args:
            images: (N, C, H, W).
            labels: (N,), for models that take labels; None chooses the class with the highest likelihood.
            batch_size: images at a time.

        Returns:
            (N, L).
        """
        family = check_has(self, str(self.path), "encodes")
        images = self._images(images)
        return latent_space.encode(family, images, batch_size, self._classes(images, labels, batch_size))

    def decode(
        self, codes: Tensor, labels: Sequence[int] | Tensor | None = None, *, batch_size: int = 256
    ) -> Tensor:
        """Returns the images of latent codes, without added noise.

        Args:
            codes: (N, L).
            labels: (N,), required for models that take labels.
            batch_size: images at a time.

        Returns:
            (N, C, H, W) in [0, 1].
        """
        family = check_has(self, str(self.path), "decodes")
        if self.family.takes_labels and labels is None:
            raise ConfigError(f"labels: missing; {self.config.model.name} decodes with a class for each code")
        return latent_space.decode(family, codes, batch_size, self._given(labels, len(codes)))

    def reconstruct(
        self, images: Tensor, labels: Sequence[int] | Tensor | None = None, *, batch_size: int = 256
    ) -> Tensor:
        """Encodes and decodes images.

        Args:
            images: (N, C, H, W).
            labels: as for `encode`.
            batch_size: images at a time.

        Returns:
            (N, C, H, W) in [0, 1].
        """
        family = check_has(self, str(self.path), "encodes", "decodes")
        images = self._images(images)
        classes = self._classes(images, labels, batch_size)
        return latent_space.reconstruct(family, images, batch_size, classes)

    def complete(
        self,
        images: Tensor,
        mask: Tensor,
        n: int = 1,
        *,
        seed: int = 0,
        labels: Sequence[int] | Tensor | None = None,
        resample: int = 1,
        temperature: float = 1.0,
        batch_size: int = 256,
    ) -> Tensor:
        """Draws the unknown pixels of images, with an autoregressive model.

        Args:
            images: (N, C, H, W); unknown pixels may have any value.
            mask: (H, W) bool, true where a pixel is known.
            n: number of completions of each image.
            seed: a completion depends on the seed, its position and `resample`.
            labels: (N,), required for models that take labels.
            resample: candidates per completion: one is chosen by the likelihood of the known pixels.
            temperature: below 1 favours likely values.
            batch_size: candidates at a time.

        Returns:
            (N, n, C, H, W) in [0, 1].
        """
        family = completing.completing_family(self, f"ckpt={self.path}")
        images = self._images(images)
        if mask.shape != images.shape[2:]:
            raise ConfigError(f"mask: has shape {tuple(mask.shape)}, expected {tuple(images.shape[2:])}")
        if family.takes_labels and labels is None:
            raise ConfigError(
                f"labels: missing; {self.config.model.name} completes with a class for each image"
            )
        classes = self._given(labels, len(images))
        done = completing.complete(
            family,
            images.to(self.device),
            mask.bool(),
            n,
            seed=seed,
            labels=None if classes is None else classes[:, None].expand(-1, n),
            resample=resample,
            temperature=temperature,
            batch_size=batch_size,
        )
        return done.images.cpu()

    def score(
        self,
        images: Tensor,
        labels: Sequence[int] | Tensor | None = None,
        *,
        importance_samples: int | None = None,
        seed: int = 0,
        batch_size: int = 256,
    ) -> Score:
        """Returns the negative log-likelihood of each image, or an upper bound on it, and which of the two.

        A model of binary images treats a pixel above 1/2 as white, one of fewer than 256 levels uses the
        nearest level. The density of dequantised values is evaluated at the images without added noise.

        Args:
            images: (N, C, H, W).
            labels: (N,), for models that take labels.
            importance_samples: number of posterior samples, for a tighter bound.
            seed: the seed of these samples.
            batch_size: images at a time.
        """
        family, name = self.family, self.config.model.name
        if importance_samples is not None and not family.takes_importance_samples:
            raise ConfigError(
                f"importance_samples={importance_samples}: {name} has no posterior; leave it out"
            )
        images = self._images(images)
        classes = self._given(labels, len(images))
        if family.takes_labels and classes is None:
            raise ConfigError(f"labels: missing; {name} scores images with their classes")
        more = {} if importance_samples is None else {"importance_samples": importance_samples}
        parts, kind = [], None
        with torch.no_grad():
            for k in range(0, len(images), batch_size):
                part = images[k : k + batch_size].to(self.device)
                own = None if classes is None else classes[k : k + batch_size].to(self.device)
                rng = SampleRng(seed, range(k, k + len(part)), self.device, purpose="evaluation")
                values = family.evaluate(Batch(part, own), rng=rng, **more)
                kind = next((name for name in _KINDS if name in values), None)
                if kind is None:
                    raise ConfigError(f"ckpt={self.path}: {name} has no likelihood; see its evaluate()")
                parts.append(values[kind].cpu())
        return Score(torch.cat(parts), _KINDS[str(kind)])

    def evaluate(self, split: str = "test", **settings: Any) -> dict[str, float]:
        """Returns the metrics of `genlab evaluate`, name with its unit to value.

        Args:
            split: "train", "validation" or "test".
            settings: other settings of `genlab evaluate`, e.g. images=1000, measure=["lenet"],
                importance_samples=50, dataset={"root": "where the files are now"}.
        """
        plain = {"ckpt": str(self.path), "split": split, **settings}
        return evaluation.evaluate(self, from_plain(EvaluateConfig, plain)).numbers

    def _images(self, images: Tensor) -> Tensor:
        """Checks images, and returns them with the number of levels of the model's images."""
        if not isinstance(images, Tensor) or images.shape[1:] != self.spec.shape:
            shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            channels, height, width = self.spec.shape
            raise ConfigError(
                f"images: {shape} given; {self.spec.name} has tensors of (N, {channels}, {height}, {width})"
            )
        if self.spec.kind != "images":
            return images.float()
        if images.dtype != torch.uint8:
            if not (images.is_floating_point() and images.min() >= 0 and images.max() <= 1):
                raise ConfigError("images: values outside [0, 1]; scale them, or give uint8 in [0, 255]")
            if self.spec.dequantized:
                return images.float()
            images = (images * 255).round()
        return to_levels(images.float(), self.spec.levels)

    def _given(self, labels: Sequence[int] | Tensor | None, n: int) -> Tensor | None:
        """Checks labels, and returns them as (n,) int64."""
        if labels is None:
            return None
        classes = torch.as_tensor(labels).long().cpu()
        if classes.shape != (n,):
            raise ConfigError(f"labels: shape {tuple(classes.shape)} for {n} images; give one for each")
        check_labels(classes.tolist(), self)
        return classes

    def _classes(
        self, images: Tensor, labels: Sequence[int] | Tensor | None, batch_size: int
    ) -> Tensor | None:
        """Returns the classes with which a family encodes: the given ones, or the most likely."""
        given = self._given(labels, len(images))
        own = Given(images, given, [""] * len(images), list(range(len(images))))
        return latent_space.labels_of(self, own, batch_size, seed=0)


def load(
    path: str | os.PathLike[str],
    *,
    weights: Literal["auto", "average", "raw"] = "auto",
    device: str = "auto",
) -> TrainedModel:
    """Loads a trained model.

    The file is read as data: no code in it is run, and a name in it imports nothing.

    Args:
        path: a run folder, whose newest valid checkpoint is used, or one checkpoint file.
        weights: "auto" for the moving average if there is one, "average" or "raw".
        device: "auto" for a GPU if there is one, else a name as in torch: "cpu", "cuda:1".

    Raises:
        UserError: the checkpoint is missing, damaged, or of a family that is not registered.
    """
    log_to_console()
    loaded = load_model(str(Path(path)), weights, devices.resolve(device, "device"))
    return TrainedModel(**{field.name: getattr(loaded, field.name) for field in dataclasses.fields(loaded)})
