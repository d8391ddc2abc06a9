"""The dataclasses of the datasets. The datasets themselves, which need torch, are in `genlab.data`."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any, Literal

from genlab.config.schema import setting
from genlab.errors import CheckpointError, ConfigError, DataError

MOST_IMAGES = 1_000_000_000
"""Largest number of images that are held out or trained on."""

MOST_DRAWN = 10_000_000
"""Largest number of training images, or points, of a dataset that draws them."""

MOST_SIDE = 4096
"""Largest side of images, in pixels."""


def colour_of(background: str) -> tuple[int, ...]:
    """Returns red, green and blue, 0 to 255, of a named colour.

    Raises:
        ConfigError: the colour does not exist.
    """
    from PIL import ImageColor  # slow to import, and most datasets do not need it

    try:
        colour = ImageColor.getrgb(background)
    except ValueError:
        colour = ()
    if len(colour) != 3:
        raise ConfigError(
            f"dataset.background={background}: no such colour; use white, black, grey, another colour's name "
            "or '#rrggbb'"
        )
    return colour


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Settings of every dataset of grey or colour images."""

    name: str = setting()
    binarize: Literal["none", "dynamic", "threshold"] = setting(
        "none", help="none, dynamic (drawn anew at each use) or threshold"
    )
    threshold: float = setting(
        0.5, at_least=0, below=1, help="share of white above which binarize=threshold gives a 1"
    )
    dequantize: bool = setting(False, help="add noise uniform over one level")
    flip: bool = setting(False, help="mirror half of the training images, left to right")
    size: int | None = setting(
        None, at_least=1, at_most=MOST_SIDE, help="resize to size x size pixels; null keeps 28x28"
    )
    channels: Literal[1, 3] | None = setting(None, help="1 for grey, 3 for colour; null keeps grey")
    memory_limit_gib: float = setting(4.0, at_least=0, at_most=1_000_000, help="a larger set is streamed")
    training_images: int | None = setting(
        None,
        at_least=1,
        at_most=MOST_IMAGES,
        help="train on so many of the training images, the same at every run; null for all",
    )

    def __post_init__(self) -> None:
        if self.dequantize and self.binarize != "none":
            raise ConfigError(
                f"dataset.dequantize=true: cannot be combined with dataset.binarize={self.binarize}; "
                "use dataset.dequantize=false or dataset.binarize=none"
            )


@dataclass(frozen=True, kw_only=True)
class DownloadedConfig(DatasetConfig):
    """Settings of a published dataset, read from a folder and downloaded into it if missing."""

    root: str | None = setting(
        None, help="folder of the files; null: the variable GENLAB_DATA, else ~/.cache/genlab/data"
    )
    download: bool = setting(True, help="fetch what is missing")
    validation_images: int = setting(
        5000, at_least=0, at_most=MOST_IMAGES, help="held out from the end of the training images"
    )


@dataclass(frozen=True, kw_only=True)
class DigitsConfig(DatasetConfig):
    """1797 digits, 8x8, 17 levels: the test set of the UCI collection (Alpaydin and Kaynak 1998)."""

    name: Literal["digits"] = setting("digits")  # type: ignore[assignment]
    validation_images: int = setting(
        100,
        at_least=0,
        at_most=MOST_IMAGES,
        help=("held out from the end of the 1297 training images; the last 500 digits are the test split"),
    )


@dataclass(frozen=True, kw_only=True)
class EmojiConfig(DatasetConfig):
    """Pictures of Google's font Noto Color Emoji."""

    name: Literal["emoji"] = setting("emoji")  # type: ignore[assignment]
    size: int | None = setting(
        32, at_least=1, at_most=MOST_SIDE, help="side in pixels; null keeps 64, the stored size"
    )
    skin_tones: bool = setting(True, help="false leaves out the variants in five skin tones")
    background: str = setting(
        "white", help="behind them: white, black, grey, another colour's name or '#rrggbb'"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        colour_of(self.background)


@dataclass(frozen=True, kw_only=True)
class MNISTConfig(DownloadedConfig):
    """Handwritten digits (LeCun et al. 1998)."""

    name: Literal["mnist"] = setting("mnist")  # type: ignore[assignment]
    validation_images: int = setting(
        10000, at_least=0, at_most=MOST_IMAGES, help="held out from the end of the training images"
    )


@dataclass(frozen=True, kw_only=True)
class FashionMNISTConfig(DownloadedConfig):
    """Articles of clothing (Xiao et al. 2017)."""

    name: Literal["fashion_mnist"] = setting("fashion_mnist")  # type: ignore[assignment]
    validation_images: int = setting(
        10000, at_least=0, at_most=MOST_IMAGES, help="held out from the end of the training images"
    )


@dataclass(frozen=True, kw_only=True)
class KMNISTConfig(DownloadedConfig):
    """Cursive Japanese characters (Clanuwat et al. 2018)."""

    name: Literal["kmnist"] = setting("kmnist")  # type: ignore[assignment]
    validation_images: int = setting(
        10000, at_least=0, at_most=MOST_IMAGES, help="held out from the end of the training images"
    )


@dataclass(frozen=True, kw_only=True)
class EMNISTConfig(DownloadedConfig):
    """Handwritten letters and digits (Cohen et al. 2017)."""

    name: Literal["emnist"] = setting("emnist")  # type: ignore[assignment]
    split: Literal["balanced", "byclass", "bymerge", "letters", "digits", "mnist"] = setting(
        "balanced", help="balanced, byclass, bymerge, letters, digits or mnist"
    )
    validation_images: int = setting(
        10000, at_least=0, at_most=MOST_IMAGES, help="held out from the end of the training images"
    )


@dataclass(frozen=True, kw_only=True)
class CIFAR10Config(DownloadedConfig):
    """Tiny photographs (Krizhevsky 2009)."""

    name: Literal["cifar10"] = setting("cifar10")  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class SVHNConfig(DownloadedConfig):
    """House numbers photographed from the street (Netzer et al. 2011)."""

    name: Literal["svhn"] = setting("svhn")  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class StackedMNISTConfig(DownloadedConfig):
    """Three handwritten digits an image, in red, green and blue (Metz et al. 2017)."""

    name: Literal["stacked_mnist"] = setting("stacked_mnist")  # type: ignore[assignment]
    validation_images: int = setting(
        10000,
        at_least=0,
        at_most=MOST_IMAGES,
        help="digits held out from the end of MNIST's training images, for the validation split",
    )
    images: int = setting(
        128000,
        at_least=1,
        at_most=MOST_DRAWN,
        help="training images, of three digits each; 26,000 for validation and for test",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels == 1:
            raise ConfigError(
                "dataset.channels=1: stacked_mnist has a digit in each of three channels; "
                "use dataset.channels=null, or dataset=mnist for single digits"
            )

    def single_digits(self) -> MNISTConfig:
        """Returns the settings of the MNIST of single digits, in the same folder and with the same split."""
        return MNISTConfig(root=self.root, download=self.download, validation_images=self.validation_images)


@dataclass(frozen=True, kw_only=True)
class BinarizedMNISTConfig:
    """The published splits, 50,000 / 10,000 / 10,000, without labels (Larochelle and Murray 2011)."""

    name: Literal["binarized_mnist"] = setting("binarized_mnist")
    root: str | None = setting(
        None, help="folder of the files; null: the variable GENLAB_DATA, else ~/.cache/genlab/data"
    )
    download: bool = setting(True, help="fetch what is missing")
    flip: bool = setting(False, help="mirror half of the training images, left to right")


@dataclass(frozen=True, kw_only=True)
class ShapesConfig(DatasetConfig):
    """Sprites of known shape, colour, size, rotation and place."""

    name: Literal["shapes"] = setting("shapes")  # type: ignore[assignment]
    size: Literal[32, 64] = setting(32, help="pixels of a side: 32 or 64")  # type: ignore[assignment]
    channels: Literal[1, 3] = setting(3, help="3 for colour; 1 for white sprites")  # type: ignore[assignment]
    images: int = setting(
        20_000,
        at_least=1,
        at_most=MOST_DRAWN,
        help="training images; 5,000 others are the validation split, and 10,000 the test split",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.flip:
            raise ConfigError(
                "dataset.flip=true: a mirrored sprite has other factors than those that are stored; "
                "use dataset.flip=false"
            )


@dataclass(frozen=True, kw_only=True)
class FolderConfig(DatasetConfig):
    """Pictures of a folder and its subfolders."""

    name: Literal["folder"] = setting("folder")  # type: ignore[assignment]
    path: str = setting(help="the folder")
    size: int = setting(
        32, at_least=1, at_most=MOST_SIDE, help="side of the middle square of each picture, resized"
    )  # type: ignore[assignment]
    channels: Literal[1, 3] = setting(3, help="1 for grey, 3 for colour")  # type: ignore[assignment]
    background: str = setting(
        "white", help="behind transparent pictures: white, black, grey, another colour's name or '#rrggbb'"
    )
    resampling: Literal["lanczos", "bicubic", "bilinear", "area", "nearest"] = setting(
        "lanczos", help="how pictures are resized: lanczos, bicubic, bilinear, area; nearest for pixel art"
    )
    validation_share: float = setting(0.05, at_least=0, below=1, help="share of the pictures")
    test_share: float = setting(0.1, at_least=0, below=1, help="share of the pictures")
    workers: int | None = setting(
        None, at_least=0, at_most=256, help="processes that read pictures; null: one a core, up to 8"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_path(self.path)
        colour_of(self.background)
        if self.validation_share + self.test_share >= 1:
            raise ConfigError(
                f"dataset.test_share={self.test_share}: nothing is left to train on beside "
                f"dataset.validation_share={self.validation_share}; together they must be below 1"
            )


@dataclass(frozen=True, kw_only=True)
class NpzConfig(DatasetConfig):
    """Images in a file of numpy arrays."""

    name: Literal["npz"] = setting("npz")  # type: ignore[assignment]
    path: str = setting(help="the file")
    resampling: Literal["bilinear", "bicubic", "nearest"] = setting(
        "bilinear", help="how size resizes: bilinear, bicubic; nearest for pixel art"
    )
    validation_share: float = setting(
        0.05,
        at_least=0,
        below=1,
        help="share of the training images, where the file has no validation_images",
    )
    test_share: float = setting(
        0.1, at_least=0, below=1, help="share of the training images, where the file has no test_images"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_path(self.path)
        if self.validation_share + self.test_share >= 1:
            raise ConfigError(
                f"dataset.test_share={self.test_share}: nothing is left to train on beside "
                f"dataset.validation_share={self.validation_share}; together they must be below 1"
            )


@dataclass(frozen=True, kw_only=True)
class PointsConfig:
    """Settings of all datasets of points."""

    name: str = setting()
    points: int = setting(
        100_000,
        at_least=1,
        at_most=MOST_DRAWN,
        help="for training; 5,000 and 10,000 others are for validation and test",
    )
    sigma: float = setting(0.05, above=0, help="standard deviation of each component")


@dataclass(frozen=True, kw_only=True)
class RingConfig(PointsConfig):
    """Normal distributions evenly spaced on a circle (Metz et al. 2017, section 3.1)."""

    name: Literal["ring"] = setting("ring")  # type: ignore[assignment]
    sigma: float = setting(0.02, above=0, help="standard deviation of each component")
    modes: int = setting(8, at_least=1, at_most=10_000, help="normal distributions on the circle")
    radius: float = setting(2.0, above=0, help="of the circle")


@dataclass(frozen=True, kw_only=True)
class GridConfig(PointsConfig):
    """Normal distributions on a square grid around 0 (Lin et al. 2018, section 4.1: -4, -2, 0, 2, 4)."""

    name: Literal["grid"] = setting("grid")  # type: ignore[assignment]
    side: int = setting(5, at_least=1, at_most=100, help="modes of a row")
    spacing: float = setting(2.0, above=0, help="between neighbouring modes")


@dataclass(frozen=True, kw_only=True)
class Gaussian1DConfig(PointsConfig):
    """One normal distribution on a line."""

    name: Literal["gaussian1d"] = setting("gaussian1d")  # type: ignore[assignment]
    sigma: float = setting(1.0, above=0, help="standard deviation of each component")
    mean: float = setting(-1.0, help="of the points")


@dataclass(frozen=True, kw_only=True)
class TwoMoonsConfig(PointsConfig):
    """Two interleaved half circles of radius 1, with noise."""

    name: Literal["two_moons"] = setting("two_moons")  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class SwissRollConfig(PointsConfig):
    """A spiral of one turn and a half, radius 2/3 to 2, with noise."""

    name: Literal["swiss_roll"] = setting("swiss_roll")  # type: ignore[assignment]


@dataclass(frozen=True)
class NothingConfig:
    """See configs/dataset/none.yaml."""

    name: Literal["none"] = setting("none")


@dataclass(frozen=True, kw_only=True)
class CodesConfig:
    """Codes of images by a trained VQ-VAE (van den Oord et al. 2017, section 3.3)."""

    name: Literal["codes"] = setting("codes")
    ckpt: str = setting(help="run folder or checkpoint file of the VQ-VAE")
    root: str | None = setting(None, help="folder of its images' files; null: where they were")
    path: str | None = setting(None, help="likewise, of dataset=npz and dataset=folder")

    def __post_init__(self) -> None:
        _check_path(self.ckpt, "ckpt")


FILES = (DownloadedConfig, BinarizedMNISTConfig, FolderConfig, NpzConfig, CodesConfig)
"""The settings of the datasets that are read from files."""


def check_files(config: object, stored_in: object = None) -> None:
    """Refuses a dataset of files that a user names, if they do not exist.

    Args:
        config: the settings of any dataset; those without such files pass.
        stored_in: the run or checkpoint that the settings come from; None if the user typed them.

    Raises:
        UserError: the folder, file or checkpoint does not exist.
    """
    moved = "" if stored_in is None else f"; {stored_in} says so: if it was moved, add dataset.path=NEW"
    if isinstance(config, FolderConfig) and not os.path.isdir(os.path.expanduser(config.path)):
        raise DataError(f"dataset.path={config.path}: no such folder{moved}")
    if isinstance(config, NpzConfig) and not os.path.isfile(os.path.expanduser(config.path)):
        raise DataError(f"dataset.path={config.path}: no such file{moved}")
    if isinstance(config, CodesConfig) and not os.path.exists(os.path.expanduser(config.ckpt)):
        raise CheckpointError(  # perhaps it was moved, and the user did not type this path
            f"dataset.ckpt={config.ckpt}: no such run folder or checkpoint file; give the vqvae's "
            "new location by dataset.ckpt=RUN"
        )


def with_absolute_paths(config: Any) -> Any:
    """Returns the settings of a dataset with absolute paths, so that a run can go on from any folder."""
    if not isinstance(config, FILES):
        return config
    given = {key: getattr(config, key, None) for key in ("root", "path", "ckpt")}
    paths = {key: os.path.abspath(os.path.expanduser(path)) for key, path in given.items() if path}
    return dataclasses.replace(config, **paths)


def _check_path(path: str, key: str = "path") -> None:
    if not path.strip():
        raise ConfigError(f"dataset.{key}={path}: empty; give the files, e.g. dataset.{key}=my_{key}")
