"""The dataclasses of the commands on trained models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from genlab.config.schema import setting
from genlab.errors import ConfigError


@dataclass(frozen=True)
class SampleConfig:
    """`genlab sample`."""

    ckpt: str = setting(help="a run folder or one checkpoint file")
    n: int | None = setting(None, at_least=1, help="images; null: one for each of labels, else 64")
    seed: int = setting(0, at_least=0)
    labels: tuple[int, ...] | None = setting(
        None, at_least=0, help="one class for each image, repeated as needed"
    )
    temperature: float = setting(1.0, above=0, help="below 1 keeps to what is likely; autoregressive models")
    prior: Literal["model", "fit"] = setting(
        "model", help="fit: Gaussians fitted to the codes of training images; models with an encoder"
    )
    components: int = setting(10, at_least=1, help="prior=fit: how many Gaussians")
    batch_size: int = setting(256, at_least=1, help="images at a time; no effect on the pictures")
    weights: Literal["auto", "average", "raw"] = setting(
        "auto", help="auto: the moving average where there is one"
    )
    device: str = setting("auto")
    npz: bool = setting(False, help="write samples.npz too: images, uint8 (n, H, W, C)")
    dataset: dict[str, Any] = setting(
        {}, help="where the files are now: dataset.root=... for prior=fit, dataset.ckpt=... for codes"
    )
    run_dir: str | None = setting(None)

    @property
    def count(self) -> int:
        """Images to draw: `n`, or as many as there are labels, or 64."""
        return self.n or len(self.labels or ()) or 64


@dataclass(frozen=True)
class CompleteConfig:
    """`genlab complete`."""

    ckpt: str = setting(help="a run folder or one checkpoint file")
    images: str | None = setting(None, help="a picture or a folder of them; null: those of the dataset")
    keep: str = setting("top", help="top, left, or a picture of a mask, white where pixels are kept")
    n: int = setting(8, at_least=1, at_most=65536, help="completions of each image")
    resample: int = setting(1, at_least=1, at_most=65536, help="candidates of a completion")
    temperature: float = setting(1.0, above=0, help="below 1 keeps to what is likely")
    labels: tuple[int, ...] | None = setting(
        None, at_least=0, help="classes that the completions of an image have in turn"
    )
    seed: int = setting(0, at_least=0)
    split: Literal["train", "validation", "test"] = setting("test")
    count: int = setting(8, at_least=1, help="images of the split, where images is null")
    batch_size: int = setting(256, at_least=1, help="candidates at a time; no effect on the pictures")
    weights: Literal["auto", "average", "raw"] = setting("auto")
    device: str = setting("auto")
    dataset: dict[str, Any] = setting({}, help="dataset.root=... where the files are now")
    run_dir: str | None = setting(None)


@dataclass(frozen=True)
class EvaluateConfig:
    """`genlab evaluate`."""

    ckpt: str | None = setting(
        None, help="a run folder or one checkpoint file; null to measure samples=FOLDER"
    )
    split: Literal["train", "validation", "test"] = setting("test")
    images: int | None = setting(None, at_least=1, help="only so many of the split; null for all of it")
    samples: int | str | None = setting(
        None,
        at_least=1,
        help="how many for mode coverage; or, without ckpt, a folder or .npz file to measure",
    )
    measure: tuple[str, ...] | str | None = setting(
        None, help="extractors by which samples are compared with data: [lenet,random_conv]; auto for one"
    )
    n: int | None = setting(
        None, at_least=10, help="samples to measure; null: as many as data, at most 10000"
    )
    against: str | None = setting(None, help="measure: a folder or .npz file in place of the split")
    extrapolate: bool = setting(False, help="measure: the Fréchet distance at infinitely many samples too")
    memorisation: bool = setting(False, help="whether samples are copies of training images, and a picture")
    weights_file: str | None = setting(None, help="measure=inception: the file of its weights")
    seed: int = setting(0, at_least=0)
    batch_size: int = setting(500, at_least=1, help="images at a time; no effect on the numbers but rounding")
    importance_samples: int | None = setting(
        None, at_least=1, help="posterior samples of an importance-weighted bound; models with a latent"
    )
    per_image: bool = setting(False, help="write per_image.csv too: the numbers of each image, in order")
    weights: Literal["auto", "average", "raw"] = setting("auto")
    device: str = setting("auto")
    dataset: dict[str, Any] = setting(
        {}, help="dataset.root=... where the files are now; dataset=NAME beside samples=FOLDER"
    )
    run_dir: str | None = setting(None)

    def __post_init__(self) -> None:
        folder = self.samples if isinstance(self.samples, str) else None
        if folder is None and self.ckpt is None:
            raise ConfigError("ckpt: missing; add ckpt=..., or samples=FOLDER to measure pictures")
        if folder is None:
            if "name" in self.dataset:
                raise ConfigError(
                    f"dataset={self.dataset['name']}: genlab evaluate takes the dataset from the checkpoint; "
                    "leave it out"
                )
            return
        if folder.lstrip("-").isdigit():
            raise ConfigError(f"samples={folder}: must be at least 1")
        if self.ckpt is not None:
            raise ConfigError(f"samples={folder}: measured without a model; leave ckpt out, or samples")
        for key in ("importance_samples", "per_image"):
            if getattr(self, key):
                raise ConfigError(
                    f"{key}={getattr(self, key)}: a number of a model; add ckpt=..., or leave it out"
                )
        if self.memorisation and self.against is not None:
            raise ConfigError("memorisation=true: needs training images; give dataset=NAME, not against")
        if (self.against is None) == ("name" not in self.dataset):
            both = "does not go with against" if self.against else "missing"
            raise ConfigError(
                f"dataset: {both}; compare samples={folder} with dataset=NAME or with against=FOLDER"
            )

    @property
    def measured(self) -> tuple[str, ...]:
        """The words of `measure`: "auto" where another setting asks for the ruler without them."""
        if isinstance(self.measure, str):
            return (self.measure,)
        if self.measure is not None:
            return self.measure
        asked = isinstance(self.samples, str) or self.against or self.extrapolate
        return ("auto",) if asked or (self.n and not self.memorisation) else ()


@dataclass(frozen=True, kw_only=True)
class OnCheckpointConfig:
    """What every command on the latents of a trained model can be told."""

    ckpt: str = setting(help="a run folder or one checkpoint file")
    images: str | None = setting(None, help="a picture or a folder of them; null: those of the dataset")
    split: Literal["train", "validation", "test"] = setting("test")
    seed: int = setting(0, at_least=0)
    batch_size: int = setting(256, at_least=1, help="images at a time; no effect on the pictures")
    weights: Literal["auto", "average", "raw"] = setting("auto")
    device: str = setting("auto")
    dataset: dict[str, Any] = setting({}, help="dataset.root=... where the files are now")
    run_dir: str | None = setting(None)


@dataclass(frozen=True, kw_only=True)
class ReconstructConfig(OnCheckpointConfig):
    """`genlab reconstruct`."""

    count: int = setting(40, at_least=1, help="images of the split, where images is null")


@dataclass(frozen=True, kw_only=True)
class EncodeConfig(OnCheckpointConfig):
    """`genlab encode`."""

    count: int | None = setting(
        None, at_least=1, help="so many of the split, drawn at random, always the same; null: all"
    )
    map: Literal["pca", "tsne"] = setting("pca", help="how codes become a picture")
    dataset: dict[str, Any] = setting({}, help="dataset=NAME for another one, of images of the same shape")


@dataclass(frozen=True, kw_only=True)
class InterpolateConfig(OnCheckpointConfig):
    """`genlab interpolate`."""

    between: Literal["samples", "images"] = setting("samples")
    steps: int = setting(10, at_least=2, at_most=100, help="images of a row, both ends included")
    path: Literal["straight", "spherical"] = setting("straight")
    n: int = setting(8, at_least=1, help="pairs")
    labels: tuple[int, ...] | None = setting(
        None, at_least=0, help="classes that the pairs have in turn; null: the images', else drawn"
    )


@dataclass(frozen=True, kw_only=True)
class TraverseConfig(OnCheckpointConfig):
    """`genlab traverse`."""

    dimensions: tuple[int, ...] | None = setting(
        None, at_least=0, help="of the latent, a row each; null: the first 16, or none beside a direction"
    )
    direction: tuple[int, ...] | None = setting(
        None, at_least=0, help="two classes: a row along the difference of their mean codes"
    )
    range: float = setting(3.0, above=0, help="standard deviations on both sides")
    steps: int = setting(11, at_least=2, at_most=100, help="images of a row")
    around: Literal["origin", "image", "sample"] = setting("origin")
    number: int = setting(0, at_least=0, help="which image or sample")
    label: int | None = setting(None, at_least=0, help="class of all images; null: the image's, else drawn")


@dataclass(frozen=True, kw_only=True)
class DenoiseConfig(OnCheckpointConfig):
    """`genlab denoise`."""

    noise: Literal["gaussian", "masking", "salt_and_pepper", "none"] | None = setting(
        None, help="null: what the model was trained with, else gaussian; none: it is there already"
    )
    level: float | None = setting(
        None, at_least=0, help="standard deviation, or share of pixels; null: the model's own, else 0.3"
    )
    count: int = setting(40, at_least=1, help="images of the split, where images is null")
