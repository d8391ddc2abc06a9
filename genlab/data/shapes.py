"""Sprites drawn by genlab: images with known factors of variation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from genlab.config.datasets import ShapesConfig
from genlab.data.dataset import Dataset, make_spec, pixels_of, training_rows
from genlab.data.stream import Items, Resident, Source, Streamed
from genlab.errors import ConfigError
from genlab.memory import machine_memory
from genlab.rng import derive_seed

_HELD_OUT = {"test": 10_000, "validation": 5_000}
_COLOURS, _SIZES, _ROTATIONS, _POSITIONS = 8, 6, 24, 16
_SMALLEST = 0.5
"""The unit of length, as a share of the largest sprite's width."""

_SAMPLES = 512
"""Points in each direction of an image at which the shape is sampled: 256 per pixel of 32x32."""

_DRAWN_AT_ONCE = 4096

Inside = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""A function that returns whether points x (to the right), y (downwards) are inside a shape."""


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (y < 0.8) & (y > 2.6 * np.abs(x) - 1)


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns whether points are in a square standing on its corner, with half discs on the upper sides."""
    lobes = np.square(np.abs(x) - 0.35) + np.square(y + 0.35) < 0.245  # radius: half the side, 0.7 / sqrt 2
    return lobes | (np.abs(x) + np.abs(y) < 0.7)


def _moon(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (np.square(x) + np.square(y) < 1) & (np.square(x - 0.55) + np.square(y) > 0.64)


def _arrow(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    head = (y < 0) & (y > 1.4 * np.abs(x) - 1)
    return head | ((y >= 0) & (y < 0.9) & (np.abs(x) < 0.25))


SHAPES: dict[str, Inside] = {"triangle": _triangle, "heart": _heart, "moon": _moon, "arrow": _arrow}
"""No shape has a rotational symmetry, so that an image determines every factor."""


class Shapes:
    """Images of one sprite each, on black; the label is the shape.

    Every combination of the factors is drawn at most once, and no two splits share one. The combination of
    image i of a split depends on i alone, not on the number of images or a run's seed. A combination is the
    same picture at 32 and at 64 pixels. After the example of dSprites (Matthey et al. 2017) and 3D Shapes
    (Burgess and Kim 2018).
    """

    Config = ShapesConfig

    @staticmethod
    def load(config: ShapesConfig) -> Dataset:
        """Draws all images, or each on access if they exceed the memory limit."""
        most = math.prod(factors_of(config.channels).values()) - sum(_HELD_OUT.values())
        if config.images > most:
            raise ConfigError(
                f"dataset.images={config.images}: there are only {most} different images; use fewer"
            )
        factors = factors_of(config.channels)
        shape = (config.channels, config.size, config.size)
        spec = make_spec(config, shape, 256, classes=factors["shape"])
        stamps = draw_stamps(config.size)
        combinations = choose(factors, config.images)
        combinations["train"] = combinations["train"][training_rows(config, config.images)]
        total = sum(len(chosen) for chosen in combinations.values())
        sources: dict[str, Source] = {}
        for split, chosen in combinations.items():
            sprites, labels = Sprites(stamps, config, chosen), chosen[:, 0]
            if total * spec.dimensions > min(config.memory_limit_gib * 2**30, machine_memory()):
                sources[split] = Streamed(sprites, labels, workers=0, factors=chosen)
            else:
                sources[split] = Resident(sprites[torch.arange(len(chosen))], labels, chosen)
        return Dataset(dataclasses.replace(spec, factors=factors), sources, pixels_of(config, 256))


def factors_of(channels: int) -> dict[str, int]:
    """Returns the factors of variation and their numbers of values; colour only for colour images.

    shape: see SHAPES. colour: hue, evenly spaced from red. size: width, evenly spaced from half of the
    largest; all shapes of one size have one area. rotation: clockwise, evenly spaced over a turn. horizontal,
    vertical: position of the centre of mass, evenly spaced from the left and from the top.
    """
    factors = {"shape": len(SHAPES), "colour": _COLOURS, "size": _SIZES, "rotation": _ROTATIONS}
    factors |= {"horizontal": _POSITIONS, "vertical": _POSITIONS}
    if channels == 1:
        del factors["colour"]
    return factors


def choose(factors: Mapping[str, int], images: int) -> dict[str, Tensor]:
    """Chooses the factors of the images of each split, the same at every call.

    Args:
        factors: as returned by `factors_of`.
        images: number of training images; a larger set starts with the same ones.

    Returns:
        the value of each factor, (N, F) int64; combinations are not repeated.
    """
    counts = list(factors.values())
    order = torch.randperm(
        math.prod(counts), generator=torch.Generator().manual_seed(derive_seed(0, "shapes"))
    )
    chosen, start = {}, 0
    for split, size in (_HELD_OUT | {"train": images}).items():
        numbers = np.unravel_index(order[start : start + size].numpy(), counts)
        chosen[split] = torch.from_numpy(np.stack(numbers, 1))
        start += size
    return {split: chosen[split] for split in ("train", "validation", "test")}


def draw_stamps(size: int) -> Tensor:
    """Draws every sprite, in the centre of a square just large enough for the largest.

    Args:
        size: side of the images in pixels; that of the square is 17 / 32 of it.

    Returns:
        (shapes, sizes, rotations, side + 1, side + 1) uint8, 255 times the share of a pixel that is inside;
        the last row and column are empty.
    """
    side = size * (33 - _POSITIONS) // 32
    normal = [_normalized(inside) for inside in SHAPES.values()]
    largest = max(radius for _, radius in normal)
    places = (np.arange(side * _SAMPLES // size) + 0.5) / (side * _SAMPLES // size) * 2 - 1
    y, x = np.meshgrid(places, places, indexing="ij")
    stamps = np.zeros((len(SHAPES), _SIZES, _ROTATIONS, side + 1, side + 1), np.uint8)
    samples = _SAMPLES // size
    for s, (inside, _) in enumerate(normal):
        for k, width in enumerate(np.linspace(_SMALLEST, 1, _SIZES)):
            for r in range(_ROTATIONS // 4):  # the others are these, rotated by right angles
                turn = 2 * math.pi * r / _ROTATIONS
                u, v = (math.cos(turn) * x + math.sin(turn) * y, math.cos(turn) * y - math.sin(turn) * x)
                found = inside(u * largest / width, v * largest / width)
                share = found.reshape(side, samples, side, samples).mean((1, 3))
                level = np.rint(255 * share).astype(np.uint8)
                for quarter in range(4):
                    turned = np.rot90(level, -quarter)
                    stamps[s, k, r + quarter * _ROTATIONS // 4, :-1, :-1] = turned
    return torch.from_numpy(stamps)


def _normalized(inside: Inside) -> tuple[Inside, float]:
    """Returns the shape with its centre of mass at 0 and an area of 1, and its radius."""
    places = (np.arange(1000) + 0.5) / 500 - 1
    y, x = np.meshgrid(places, places, indexing="ij")
    found = inside(x, y)
    scale = math.sqrt(found.mean() * 4)
    right, down = x[found].mean(), y[found].mean()
    radius = np.hypot(x[found] - right, y[found] - down).max() / scale
    return lambda u, v: inside(u * scale + right, v * scale + down), radius


class Sprites(Items):
    """Images that are drawn on access.

    Args:
        stamps: as returned by `draw_stamps`.
        config: size and channels.
        combinations: (N, F), as returned by `choose`.
    """

    def __init__(self, stamps: Tensor, config: ShapesConfig, combinations: Tensor) -> None:
        self._stamps, self._config, self._combinations = stamps, config, combinations

    def __len__(self) -> int:
        return len(self._combinations)

    def __getitem__(self, rows: Tensor) -> Tensor:
        shape = (self._config.channels, self._config.size, self._config.size)
        images = torch.empty(len(rows), *shape, dtype=torch.uint8)
        for place in range(0, len(rows), _DRAWN_AT_ONCE):
            part = slice(place, place + _DRAWN_AT_ONCE)
            self._draw(self._combinations[rows[part]], images[part])
        return images

    def _draw(self, combinations: Tensor, images: Tensor) -> None:
        shape, *colour, size, rotation, horizontal, vertical = combinations[:, :, None, None].unbind(1)
        side, step = self._stamps.shape[-1] - 1, self._config.size // 32
        pixels = torch.arange(self._config.size)

        def of_stamp(offset: Tensor) -> Tensor:
            """Returns the row or column of the stamp at each pixel; its empty last one outside."""
            places = pixels - offset * step
            return torch.where((places >= 0) & (places < side), places, side)

        rows, columns = of_stamp(vertical).mT, of_stamp(horizontal)
        sprites = self._stamps[shape, size, rotation, rows, columns][:, None]
        if colour:
            levels = torch.round(sprites * _palette()[colour[0].flatten()][:, :, None, None])
            images.copy_(levels)
        else:
            images.copy_(sprites)


def _palette() -> Tensor:
    """Returns red, green and blue of each colour, (colours, 3) in [0, 1], of full saturation and value."""
    hue = torch.arange(_COLOURS)[:, None] * (6 / _COLOURS)
    distance = (hue - torch.tensor([0.0, 2.0, 4.0]) + 3).remainder(6) - 3  # to red, green and blue
    return (2 - distance.abs()).clamp(0, 1)
