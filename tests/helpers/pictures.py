"""Picture files that commands write, beside what a model and its data say that they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genlab import registry
from genlab.data.subsets import shuffled
from genlab.report.pictures import to_uint8
from genlab.trained.latent_space import latent_family
from genlab.trained.model import load_model

CPU = torch.device("cpu")


def picture(path: str) -> np.ndarray:
    """Returns a picture file's levels."""
    return np.asarray(Image.open(path))


def write_picture(path: str, values: np.ndarray) -> str:
    """Writes levels as a picture file, makes its folder, and returns the path."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def pictures(folder: str, rows: int, steps: int) -> np.ndarray:
    """Returns the single images of a sheet, (rows, steps, 8, 8)."""
    return np.stack(
        [[picture(f"{folder}/images/{k:05d}-{s:02d}.png") for s in range(steps)] for k in range(rows)]
    )


def cells(path: str, rows: int, columns: int) -> np.ndarray:
    """Returns the images of a sheet of enlarged digits, (rows, columns, 8, 8)."""
    sheet = picture(path).reshape(rows * 50 + 2, columns * 50 + 2)
    return np.stack(
        [
            [sheet[50 * k + 2 : 50 * k + 50 : 6, 50 * s + 2 : 50 * s + 50 : 6] for s in range(columns)]
            for k in range(rows)
        ]
    )


def samples(folder: str) -> np.ndarray:
    """Returns the images of samples.npz, (n, H, W, C) levels."""
    return np.load(f"{folder}/samples.npz")["images"]


def originals(run: str, count: int, split: str = "test") -> Tensor:
    """Returns the images that a command is given by default, (count, C, H, W)."""
    dataset = registry.dataset(load_model(run, "auto", CPU).config.dataset)
    return dataset.examples(split, count, 0)[1].images


def numbers(count: int, size: int = 500) -> list[int]:
    """Returns the places of those images in a split of `size`."""
    return shuffled(size)[:count].tolist()


def drawn(run: str, latents: Tensor, labels: Tensor | None = None) -> np.ndarray:
    """Returns what the model decodes, (n, 8, 8) levels."""
    with torch.no_grad():
        images = latent_family(load_model(run, "auto", CPU)).decode(latents, labels)
    return to_uint8(images)[:, 0].numpy()


def near(a: np.ndarray, b: np.ndarray) -> bool:
    """Tells whether levels are equal but for the rounding of a half."""
    return bool((np.abs(a.astype(int) - b.astype(int)) <= 1).all())
