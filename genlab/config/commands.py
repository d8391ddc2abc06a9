"""The dataclasses of the verbs for trained models.

The help of each setting is its text in `--help` and the documentation, and the comment in the verb's YAML.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from genlab.config.run import MOST_IMAGES_AT_ONCE, MOST_SEED
from genlab.config.schema import setting
from genlab.errors import ConfigError

Split = Literal["train", "validation", "test"]

MOST_SAMPLES = 10_000_000
"""Largest number of samples that `genlab sample` writes, a file each."""

MOST_CLASS = 1_000_000_000
"""Largest number of a class or of a dimension; a model's own range is checked where it is known."""

MOST_PICTURED = 10_000
"""Largest number of images that a verb pictures."""

MOST_COUNTED = 1_000_000_000
"""Largest number of images of a split; a verb takes no more than the split has."""


@dataclass(frozen=True, kw_only=True)
class OnCheckpointConfig:
    """Settings of every verb that loads a trained model."""

    ckpt: str = setting(path=True, help="a run folder (its newest checkpoint) or one checkpoint file")
    seed: int = setting(0, at_least=0, at_most=MOST_SEED, help="of every drawn number")
    batch_size: int = setting(
        256, at_least=1, at_most=MOST_IMAGES_AT_ONCE, help="images at a time; no effect on the pictures"
    )
    weights: Literal["auto", "average", "raw"] = setting(
        "auto", help="auto: the moving average where there is one"
    )
    device: str = setting("auto", help="auto, cpu, cuda, cuda:1 or mps")
    dataset: dict[str, Any] = setting({}, help="dataset.root=PATH: where the files are now")
    run_dir: str | None = setting(
        None, path=True, help="where the results go; null: outputs/VERB/DATE-TIME-MODEL-DATASET"
    )


@dataclass(frozen=True, kw_only=True)
class OnImagesConfig(OnCheckpointConfig):
    """Settings of every verb that works on a user's images or on images of the dataset."""

    images: str | None = setting(
        None, path=True, help="a picture or a folder of pictures, of the model's size; null: the dataset's"
    )
    split: Split = setting("test", help="images=null: which part of the dataset")


@dataclass(frozen=True, kw_only=True)
class SampleConfig(OnCheckpointConfig):
    """Settings of `genlab sample`."""

    n: int | None = setting(
        None, at_least=1, at_most=MOST_SAMPLES, help="images; null: one for each of labels, else 64"
    )
    seed: int = setting(0, at_least=0, at_most=MOST_SEED, help="image k depends on the seed and k alone")
    labels: tuple[int, ...] | None = setting(
        None,
        at_least=0,
        at_most=MOST_CLASS,
        help="a class for each image, e.g. [3,3,7], repeated where n says more",
    )
    temperature: float = setting(1.0, above=0, help="below 1 keeps to what is likely; autoregressive models")
    prior: Literal["model", "fit"] = setting(
        "model", help="fit: Gaussians fitted to the codes of training images; models with an encoder"
    )
    components: int = setting(10, at_least=1, at_most=10_000, help="prior=fit: how many Gaussians")
    npz: bool = setting(False, help="write samples.npz too: images, uint8 (n, H, W, C)")
    dataset: dict[str, Any] = setting(
        {}, help="where the files are now: dataset.root=PATH for prior=fit, dataset.ckpt=VQVAE for codes"
    )

    @property
    def count(self) -> int:
        """Returns the number of images to draw: `n`, or as many as there are labels, or 64."""
        return self.n or len(self.labels or ()) or 64


@dataclass(frozen=True, kw_only=True)
class CompleteConfig(OnImagesConfig):
    """Settings of `genlab complete`."""

    keep: str = setting(
        "top",
        path=True,
        words=("top", "left"),
        help="known pixels: top or left half, or a mask, white where known",
    )
    n: int = setting(8, at_least=1, at_most=65536, help="completions of each image")
    resample: int = setting(
        1,
        at_least=1,
        at_most=65536,
        help="candidates of a completion, chosen by the likelihood of known pixels",
    )
    temperature: float = setting(1.0, above=0, help="below 1 keeps to what is likely")
    labels: tuple[int, ...] | None = setting(
        None,
        at_least=0,
        at_most=MOST_CLASS,
        help="classes of an image's completions in turn, e.g. [3,7]; null: its own, else drawn",
    )
    seed: int = setting(
        0,
        at_least=0,
        at_most=MOST_SEED,
        help="a completion depends on the seed, its image, its number and resample alone",
    )
    count: int = setting(
        8,
        at_least=1,
        at_most=MOST_PICTURED,
        help="images=null: images of the split, drawn at random, always the same",
    )
    batch_size: int = setting(
        256, at_least=1, at_most=MOST_IMAGES_AT_ONCE, help="candidates at a time; no effect on the pictures"
    )


@dataclass(frozen=True, kw_only=True)
class ReconstructConfig(OnImagesConfig):
    """Settings of `genlab reconstruct`."""

    count: int = setting(
        40,
        at_least=1,
        at_most=MOST_PICTURED,
        help="images=null: images of the split, drawn at random, always the same",
    )


@dataclass(frozen=True, kw_only=True)
class EncodeConfig(OnImagesConfig):
    """Settings of `genlab encode`."""

    count: int | None = setting(
        None,
        at_least=1,
        at_most=MOST_COUNTED,
        help="images=null: images of the split, drawn at random, always the same; null: all",
    )
    map: Literal["pca", "tsne"] = setting(
        "pca", help="pca: the plane in which codes vary most; tsne: t-SNE of at most 2000"
    )
    seed: int = setting(0, at_least=0, at_most=MOST_SEED, help="of t-SNE, and of dynamic binarisation")
    dataset: dict[str, Any] = setting(
        {}, help="dataset=NAME: other images of the same shape; dataset.root=PATH: where its files are"
    )


@dataclass(frozen=True, kw_only=True)
class InterpolateConfig(OnImagesConfig):
    """Settings of `genlab interpolate`."""

    between: Literal["samples", "images"] = setting("samples", help="images: for models with an encoder")
    steps: int = setting(10, at_least=2, at_most=100, help="images of a row, both ends included")
    path: Literal["straight", "spherical"] = setting(
        "straight", help="spherical keeps the norm of latents on the way (White 2016)"
    )
    n: int = setting(8, at_least=1, at_most=MOST_PICTURED, help="pairs: 0 and 1, 2 and 3 and so on")
    labels: tuple[int, ...] | None = setting(
        None,
        at_least=0,
        at_most=MOST_CLASS,
        help="classes of the pairs in turn, e.g. [3,7]; null: the images', else drawn",
    )


@dataclass(frozen=True, kw_only=True)
class TraverseConfig(OnImagesConfig):
    """Settings of `genlab traverse`."""

    dimensions: tuple[int, ...] | None = setting(
        None,
        at_least=0,
        at_most=MOST_CLASS,
        help="of the latent, a row each, e.g. [0,3]; null: the first 16, none beside a direction",
    )
    direction: tuple[int, ...] | None = setting(
        None,
        at_least=0,
        at_most=MOST_CLASS,
        help="two classes, e.g. [3,8]: a row along the difference of their mean codes",
    )
    range: float = setting(3.0, above=0, help="standard deviations of the prior on both sides")
    steps: int = setting(11, at_least=2, at_most=100, help="images of a row")
    around: Literal["origin", "image", "sample"] = setting(
        "origin", help="the latent that is changed: the origin, an image's code or a sample's"
    )
    number: int = setting(0, at_least=0, at_most=MOST_COUNTED, help="around=image or sample: which one")
    label: int | None = setting(
        None, at_least=0, at_most=MOST_CLASS, help="class of all images; null: the image's, else drawn"
    )


@dataclass(frozen=True, kw_only=True)
class DenoiseConfig(OnImagesConfig):
    """Settings of `genlab denoise`."""

    noise: Literal["gaussian", "masking", "salt_and_pepper", "none"] | None = setting(
        None, help="null: as in training, else gaussian; none: the images have noise already"
    )
    level: float | None = setting(
        None,
        at_least=0,
        help="gaussian: standard deviation; else the share of pixels; null: the model's, else 0.3",
    )
    seed: int = setting(
        0, at_least=0, at_most=MOST_SEED, help="the noise of image k depends on the seed and k alone"
    )
    count: int = setting(
        40,
        at_least=1,
        at_most=MOST_PICTURED,
        help="images=null: images of the split, drawn at random, always the same",
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(OnCheckpointConfig):
    """Settings of `genlab evaluate`."""

    ckpt: str | None = setting(  # type: ignore[assignment]
        None, path=True, help="a run folder or one checkpoint file; null: samples=FOLDER is measured"
    )
    split: Split = setting("test", help="which part of the dataset")
    images: int | None = setting(
        None,
        at_least=1,
        at_most=MOST_COUNTED,
        help="of the split, drawn at random, always the same; null: all",
    )
    measure: tuple[str, ...] | str | None = setting(
        None, help="extractors that compare samples with data, e.g. [lenet,random_conv], or auto; see below"
    )
    n: int | None = setting(
        None, at_least=10, at_most=1_000_000, help="samples to measure; null: as many as data, at most 10000"
    )
    samples: int | str | None = setting(
        None,
        at_least=1,
        at_most=MOST_SAMPLES,
        path=True,
        help="samples whose modes are counted; or, without ckpt, a folder or .npz file to measure",
    )
    against: str | None = setting(
        None, path=True, help="measure: a folder or .npz file in place of the split"
    )
    extrapolate: bool = setting(False, help="measure: the Fréchet distance at infinitely many samples too")
    memorisation: bool = setting(
        False, help="test whether samples are copies of training images; nearest.png"
    )
    weights_file: str | None = setting(None, path=True, help="measure=inception: the file of its weights")
    importance_samples: int | None = setting(
        None,
        at_least=1,
        at_most=1_000_000,
        help="posterior samples of each image, for a tighter bound, e.g. 5000",
    )
    per_image: bool = setting(False, help="write per_image.csv too: the numbers of each image")
    seed: int = setting(
        0,
        at_least=0,
        at_most=MOST_SEED,
        help="of samples, of latents drawn for a bound, of dynamic binarisation",
    )
    batch_size: int = setting(
        500,
        at_least=1,
        at_most=MOST_IMAGES_AT_ONCE,
        help="images at a time; no effect on the numbers but rounding",
    )
    dataset: dict[str, Any] = setting(
        {}, help="dataset.root=PATH: where the files are now; dataset=NAME beside samples=FOLDER"
    )

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
                    f"{key}={getattr(self, key)}: a metric of a model; add ckpt=..., or leave it out"
                )
        if self.memorisation and self.against is not None:
            raise ConfigError("memorisation=true: needs training images; give dataset=NAME, not against")
        if (self.against is None) == ("name" not in self.dataset):
            both = "cannot be combined with against" if self.against else "missing"
            raise ConfigError(
                f"dataset: {both}; compare samples={folder} with dataset=NAME or with against=FOLDER"
            )

    @property
    def measured(self) -> tuple[str, ...]:
        """Returns the words of `measure`: "auto" if it is missing and another setting needs an extractor."""
        if isinstance(self.measure, str):
            return (self.measure,)
        if self.measure is not None:
            return self.measure
        asked = isinstance(self.samples, str) or self.against or self.extrapolate
        return ("auto",) if asked or (self.n and not self.memorisation) else ()
