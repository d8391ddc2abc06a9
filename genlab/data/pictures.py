"""Reading of single pictures: only formats of pixels, and no more memory than a picture should need."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from genlab.config.datasets import colour_of

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that a file may have, whatever its name: Pillow runs other programs for some others."""

SUFFIXES = {
    ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
}  # fmt: skip
"""Ends of the names of pictures in a folder."""

RESAMPLINGS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}

_MAX_PIXELS = 89_478_485  # Pillow's own limit against small files that decompress to enormous images
_MAX_BYTES = 2**28
"""Size of a decoded picture. At most one copy is made of it, so that a process needs twice as much."""

_STRIP_PIXELS = 2**20
"""Pixels that are converted at a time."""

_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
"""Bytes of a pixel in Pillow's modes; 4 in all others."""

_GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")


def read_picture(
    path: Path, size: int, channels: int, background: str = "white", resampling: str = "lanczos"
) -> np.ndarray:
    """Reads the central square of one picture, see `open_picture`, as (channels, size, size) uint8."""
    picture = open_picture(path, channels, background, least=size)
    array = np.asarray(ImageOps.fit(picture, (size, size), method=RESAMPLINGS[resampling]))
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def open_picture(
    path: Path, channels: int, background: str = "white", least: int | None = None
) -> Image.Image:
    """Opens one picture, upright, in grey for 1 channel and RGB for 3. Of an animation it is the first frame.

    Args:
        background: the colour behind transparent pixels; see `colour_of`.
        least: pixels of the shorter side that are enough: a JPEG file that is too large is reduced when it
            is decoded. None for the picture's own size.

    Raises:
        Exception: of many kinds, for a file that is broken, enormous or of an unknown format.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of size and unusual metadata; an unreadable file raises
        with Image.open(path, formats=FORMATS) as opened:
            _check_size(opened, least)
            ImageOps.exif_transpose(opened, in_place=True)
            return _in_strips(opened, lambda strip: _converted(strip, channels, background))


def channels_and_size(path: Path) -> tuple[int, int, int]:
    """Returns the channels, height and width of a picture, from the beginning of its file.

    Raises:
        Exception: as `open_picture`.
    """
    with Image.open(path, formats=FORMATS) as opened:
        return 1 if opened.mode in _GREY else 3, opened.height, opened.width


def _check_size(opened: Image.Image, least: int | None) -> None:
    """Refuses a picture that takes too much memory; asks for a smaller one from the decoder of JPEG."""
    width, height = opened.size
    if width * height > _MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels are more than {_MAX_PIXELS}")
    # a progressive file's coefficients, of 16 bits, are all in memory, even if the picture is reduced
    coefficients = 2 * 3 * width * height if opened.info.get("progressive") else 0
    for side in (2 * least, least) if least else ():
        if _bytes(opened) > _MAX_BYTES:
            opened.draft(None, (side, side))
    needed = max(_bytes(opened), coefficients)
    if needed > _MAX_BYTES:
        raise ValueError(
            f"{width}x{height} pixels take {needed >> 20} MiB, more than {_MAX_BYTES >> 20}; make it smaller"
        )


def _bytes(picture: Image.Image) -> int:
    return picture.width * picture.height * _BYTES.get(picture.mode, 4)


def _in_strips(picture: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Converts the pixels of a picture in strips, which limits the memory of intermediate results."""
    width, height = picture.size
    rows = max(1, _STRIP_PIXELS // width)
    if rows >= height:
        return convert(picture)
    result = None
    for top in range(0, height, rows):
        strip = convert(picture.crop((0, top, width, min(top + rows, height))))
        result = result or Image.new(strip.mode, picture.size)
        result.paste(strip, (0, top))
    assert result is not None
    return result


def _converted(image: Image.Image, channels: int, background: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits per pixel
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its pixels are not of 16 bits")
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, of unknown scale")
    elif "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, colour_of(background)), image)
    return image.convert("L" if channels == 1 else "RGB")
