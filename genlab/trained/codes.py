"""The codes that a VQ-VAE gives to the images it was trained on, for a prior over them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genlab.config.datasets import CodesConfig
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
"""Of what the images' dataset draws: a binarisation is drawn once, and the same for every prior."""

_BATCH_SIZE = 500


class Codes:
    """Maps of codes of all splits, with the labels of the images; by the averaged weights where there are."""

    Config = CodesConfig

    @classmethod
    def load(cls, config: CodesConfig) -> CodeMaps:
        """Opens the VQ-VAE and its dataset; a split's images are encoded when they are first asked for.

        Raises:
            UserError: no such checkpoint, one of another model, or its dataset is not where it was.
        """
        model = load_vqvae(config)
        return CodeMaps(config, model, images_of(config, model))


class CodeMaps(Dataset):
    """Images (1, h, w) whose values are code / (K - 1), as those of K levels are.

    Args:
        config: of the codes.
        model: the VQ-VAE, on the device of the codes.
        images: what it was trained on, on the CPU.
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

    def pictures(self, images: Tensor) -> Tensor:
        return Decoder(self.model)(images)

    def more_numbers(self, values: dict[str, Tensor], split: str, batch_size: int) -> dict[str, Tensor]:
        """What prior and VQ-VAE together say of a split's images.

        They are a model with latents, and the posterior is sure of these: log p(x) is at least
        log p(x | codes) + log p(codes), the second by the prior.

        Args:
            values: the prior's, with nll_nats, -log p(codes), (N,), in the order of `rows(split, N)`.

        Returns:
            elbo_nats: an upper bound on -log p(x), lower is better. elbo_bits_per_dim: of the images' stored
            levels, see `genlab.distributions.likelihoods`. reconstruction_nats: the part that is not the
            codes'.
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
        """What a reader must know of `more_numbers`."""
        images = self.images.spec
        drawn = " drawn once" if images.binarization == "dynamic" or images.dequantized else ""
        return {
            "bound": "negative ELBO of prior and vqvae together, posterior sure of its codes",
            "reconstruction": self.model.family.facts()["likelihood"],
            "images": f"{images.name}, {images.levels} levels, binarization {images.binarization}{drawn}",
            "vqvae": str(self.model.path),
        }


class Encoded:
    """The codes of one split, int16, on the device of the VQ-VAE, made when they are first asked for."""

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
    """The VQ-VAE whose codes `config` names.

    Raises:
        UserError: no such checkpoint, or one of another model.
    """
    try:
        model = load_model(config.ckpt, "auto", torch.device(device))
    except CheckpointError as error:
        if not Path(config.ckpt).exists():  # perhaps moved, and nobody typed where it was
            raise CheckpointError(
                f"dataset.ckpt={config.ckpt}: no such run folder or checkpoint file; say where the vqvae is "
                "by dataset.ckpt=RUN"
            ) from error
        raise CheckpointError(f"dataset.{error}") from error
    if not isinstance(model.family, VQVAE):
        raise ConfigError(
            f"dataset.ckpt={config.ckpt}: {model.config.model.name} has no codes; train one that has, e.g. "
            "genlab train model=vqvae"
        )
    return model


def images_of(config: CodesConfig, model: LoadedModel) -> Dataset:
    """The images that a VQ-VAE was trained on, where `config` says that their files are."""
    moved = {key: value for key in ("root", "path") if (value := getattr(config, key)) is not None}
    return dataset_of(model, moved, "train")


def vqvae_of(model: LoadedModel) -> VQVAE:
    """Its family."""
    assert isinstance(model.family, VQVAE)
    return model.family


def fingerprint(family: Family) -> str:
    """SHA-256 of a family's weights and buffers, in hexadecimal: the same wherever they are kept.

    The decoder's offset has no part where it is 0: a VQ-VAE of an older version has none, and stays the same.
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
    """Makes images of maps of codes.

    Attributes:
        model: the VQ-VAE.
    """

    model: LoadedModel

    def __call__(self, maps: Tensor) -> Tensor:
        """The images (N, C, H, W) in [0, 1] of maps (N, 1, h, w), as `CodeMaps` has them."""
        family = vqvae_of(self.model)
        codes = (maps[:, 0] * (family.config.codes - 1)).round().long()
        with torch.no_grad():
            return torch.cat([family.images_of(part) for part in codes.split(_BATCH_SIZE)])


def decoder_of(prior: LoadedModel, changes: Mapping[str, Any], device: torch.device) -> Decoder:
    """What makes images of a prior's samples.

    Args:
        changes: settings of the dataset that say where the VQ-VAE is now: `ckpt`.

    Raises:
        UserError: it is not there, or not the same any more.
    """
    config = relocated(prior.config.dataset, changes)
    model = load_vqvae(config, device)
    check_codes_of(config.ckpt, fingerprint(model.family), prior.spec.codes_of)
    return Decoder(model)
