"""Code maps of a VQ-VAE for its training dataset, on which a prior is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genlab.config.datasets import CodesConfig, check_files
from genlab.data.dataset import Dataset
from genlab.data.pixels import Pixels
from genlab.data.spec import Batch, DataSpec, check_codes_of
from genlab.data.stream import Levels, Resident, Source
from genlab.distributions.likelihoods import bits_per_dim
from genlab.errors import CheckpointError, ConfigError
from genlab.families.base import Family
from genlab.families.vqvae import VQVAE
from genlab.log import log, progress_bar
from genlab.rng import SampleRng
from genlab.trained.model import LoadedModel, dataset_of, load_model, relocated

_SEED = 0
"""Seed of the dataset's random numbers: a binarisation is drawn once, and the same for every prior."""

_BATCH_SIZE = 500


class Codes:
    """Code maps of all splits, with the images' labels, encoded with the averaged weights if possible."""

    Config = CodesConfig

    @classmethod
    def load(cls, config: CodesConfig) -> CodeMaps:
        """Opens the VQ-VAE and its dataset; a split's images are encoded at the first access.

        Raises:
            UserError: the checkpoint is missing or of another model, or its dataset has moved.
        """
        model = load_vqvae(config)
        return CodeMaps(config, model, images_of(config, model))


class CodeMaps(Dataset):
    """Images (1, h, w) whose values are code / (K - 1), like those of images with K levels.

    Args:
        config: the settings of the codes.
        model: the VQ-VAE, on the device of the codes.
        images: the dataset that it was trained on, on the CPU.
    """

    def __init__(self, config: CodesConfig, model: LoadedModel, images: Dataset) -> None:
        self.config, self.model, self.images = config, model, images
        family = vqvae_of(model)
        height, width = family.map_size
        spec = DataSpec(
            config.name,
            1,
            height,
            width,
            levels=model.config.model.codes,
            classes=images.spec.classes,
            kind="codes",
            codes_of=fingerprint(family),
        )
        sources: dict[str, Source] = {
            split: Encoded(model, images, split) for split in ("train", "validation", "test")
        }
        super().__init__(spec, sources, Pixels(spec.levels))

    def to(self, device: torch.device | str) -> CodeMaps:
        self.model.family.to(device)
        return CodeMaps(self.config, self.model, self.images)

    @property
    def originals(self) -> Dataset:
        return self.images

    def fingerprint(self) -> dict[str, dict[str, Any]]:
        """Returns that of the images: the spec has one of the VQ-VAE."""
        return self.images.fingerprint()

    def pictures(self, images: Tensor) -> Tensor:
        return Decoder(self.model)(images)

    def more_numbers(self, values: dict[str, Tensor], split: str, batch_size: int) -> dict[str, Tensor]:
        """Returns metrics of the prior and the VQ-VAE together, for a split's images.

        Together they are a latent variable model whose posterior is a point mass on the codes: log p(x) is at
        least log p(x | codes) + log p(codes), the second term by the prior.

        Args:
            values: those of the prior, with nll_nats, -log p(codes), (N,), in the order of `rows(split, N)`.

        Returns:
            elbo_nats: an upper bound on -log p(x), lower is better. elbo_bits_per_dim: for the images' stored
            levels, see `genlab.distributions.likelihoods`. reconstruction_nats: the part without that of the
            codes.
        """
        family, nll = vqvae_of(self.model), values["nll_nats"]
        device = next(family.parameters()).device
        parts = []
        with torch.no_grad():
            for indices, batch in self.images.evaluation_batches(split, batch_size, _SEED, len(nll)):
                moved = Batch(batch.images.to(device), None)
                numbers = family.evaluate(moved, rng=SampleRng(_SEED, indices, device))
                parts.append(numbers["reconstruction_nats"].cpu())
        reconstruction = torch.cat(parts)
        bound = {"elbo_nats": reconstruction + nll, "reconstruction_nats": reconstruction}
        return bound | bits_per_dim("elbo", bound["elbo_nats"], family.likelihood, family.spec)

    def setting(self) -> dict[str, Any]:
        """Returns the conditions under which `more_numbers` holds."""
        images = self.images.spec
        drawn = " drawn once" if images.binarization == "dynamic" or images.dequantized else ""
        return {
            "bound": "negative ELBO of prior and vqvae together, point-mass posterior at the codes",
            "reconstruction": self.model.family.facts()["likelihood"],
            "images": f"{images.name}, {images.levels} levels, binarization {images.binarization}{drawn}",
            "vqvae": str(self.model.path),
        }


class Encoded:
    """The codes of one split, int16, on the device of the VQ-VAE, encoded at the first access."""

    def __init__(self, model: LoadedModel, images: Dataset, split: str) -> None:
        self._model, self._images, self._split = model, images, split
        self.device = next(model.family.parameters()).device
        self._codes: Resident | None = None

    def __len__(self) -> int:
        return self._images.size(self._split)

    def to(self, device: torch.device) -> Encoded:
        self._model.family.to(device)
        return Encoded(self._model, self._images, self._split)

    def read(self, rows: Iterable[Tensor]) -> Iterator[Levels]:
        if self._codes is None:
            self._codes = self._encode()
        return self._codes.read(rows)

    def _encode(self) -> Resident:
        family, codes, labels = vqvae_of(self._model), [], []
        log.info("encoding the %s images of %s", self._split, self._images.spec.name)
        with progress_bar(total=len(self), unit="image", desc=self._split, leave=False) as bar:
            for _, batch in self._images.evaluation_batches(self._split, _BATCH_SIZE, _SEED):
                with torch.no_grad():
                    codes.append(family.codes_of(batch.images.to(self.device)).short())
                if batch.labels is not None:
                    labels.append(batch.labels.to(self.device))
                bar.update(len(batch.images))
        maps = torch.cat(codes) if codes else torch.zeros(0, *family.map_size, dtype=torch.int16)
        return Resident(maps.unsqueeze(1).to(self.device), torch.cat(labels) if labels else None)


def load_vqvae(config: CodesConfig, device: torch.device | str = "cpu") -> LoadedModel:
    """Loads the VQ-VAE that `config` names.

    Raises:
        UserError: the checkpoint is missing, or of another model.
    """
    check_files(config)
    try:
        model = load_model(config.ckpt, "auto", torch.device(device))
    except CheckpointError as error:
        raise CheckpointError(f"dataset.{error}") from error
    if not isinstance(model.family, VQVAE):
        raise ConfigError(
            f"dataset.ckpt={config.ckpt}: {model.config.model.name} has no codes; train a model with "
            "codes, e.g. genlab train model=vqvae"
        )
    return model


def images_of(config: CodesConfig, model: LoadedModel) -> Dataset:
    """Loads the dataset that a VQ-VAE was trained on, from the location in `config`."""
    moved = {key: value for key in ("root", "path") if (value := getattr(config, key)) is not None}
    return dataset_of(model, moved, "train")


def vqvae_of(model: LoadedModel) -> VQVAE:
    """Returns the model's family as a `VQVAE`."""
    assert isinstance(model.family, VQVAE)
    return model.family


def fingerprint(family: Family) -> str:
    """Returns the SHA-256 of a family's weights and buffers, in hexadecimal; it is the same on any device.

    A decoder's offset of 0 is left out, so that an older VQ-VAE, which has none, keeps its fingerprint.
    """
    digest = hashlib.sha256()
    for name, value in sorted(family.state_dict().items()):
        if name.endswith("offset.value") and not value.any():
            continue
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Decoder:
    """A decoder from maps of codes to images.

    Attributes:
        model: the VQ-VAE.
    """

    model: LoadedModel

    def __call__(self, maps: Tensor) -> Tensor:
        """Returns the images (N, C, H, W) in [0, 1] of maps (N, 1, h, w), as stored in `CodeMaps`."""
        family = vqvae_of(self.model)
        codes = (maps[:, 0] * (family.config.codes - 1)).round().long()
        with torch.no_grad():
            return torch.cat([family.images_of(part) for part in codes.split(_BATCH_SIZE)])


def decoder_of(prior: LoadedModel, changes: Mapping[str, Any], device: torch.device) -> Decoder:
    """Returns the decoder of a prior's samples.

    Args:
        changes: settings of the dataset that give the VQ-VAE's present location: `ckpt`.

    Raises:
        UserError: the VQ-VAE is missing or has changed.
    """
    config = relocated(prior.config.dataset, changes)
    model = load_vqvae(config, device)
    check_codes_of(config.ckpt, fingerprint(model.family), prior.spec.codes_of)
    return Decoder(model)
