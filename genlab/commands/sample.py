"""Sampling from a trained model: grids, image files and arrays; image k depends on seed and k alone."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genlab.commands.base import finish, open_model
from genlab.config.commands import SampleConfig
from genlab.config.schema import typed
from genlab.errors import storage_errors
from genlab.files import write_json, written_aside
from genlab.log import log, progress_bar
from genlab.nets.scanning import graphs_kept
from genlab.report.pictures import save_picture, to_uint8, write_samples
from genlab.runs.folder import create_folder, last_validation
from genlab.trained.model import LoadedModel
from genlab.trained.sampling import sampler_of

_PICTURED_IMAGES, _PLOTTED_POINTS = 400, 10_000


def main(plain: Mapping[str, Any]) -> None:
    """Runs `genlab sample`: writes a grid, one PNG for each image, and samples.npz on request.

    Points are drawn over their true density, and written as points.csv.
    """
    config, model = open_model(SampleConfig, plain)
    sampler = sampler_of(config, model)
    labels, decoder = sampler.labels, sampler.decoder
    log.info("sampling %d images with the %s weights of %s", config.count, model.weights, model.path)
    if config.prior == "model":
        _warn_of_validation(model)
    folder = create_folder("sample", config.run_dir, model.label)
    points = model.spec.kind == "points"
    with storage_errors(folder):
        if not points:
            (folder / "images").mkdir()
        digits = max(5, len(str(config.count - 1)))
        shown: list[torch.Tensor] = []  # at most so many as the grid or the figure has
        most = _PLOTTED_POINTS if points else _PICTURED_IMAGES
        with (
            _writer(config, points, labels, folder) as write,
            graphs_kept(),
            progress_bar(total=config.count, unit="image") as bar,
        ):
            for start in range(0, config.count, config.batch_size):
                indices = range(start, min(start + config.batch_size, config.count))
                drawn = sampler.draw(indices)
                drawn = drawn if points else to_uint8(drawn)
                if start < most:
                    shown.append(drawn[: most - start].clone())
                for index, image in zip(indices, () if points else drawn, strict=not points):
                    save_picture(image, folder / "images" / f"{index:0{digits}d}.png")
                write(drawn)
                bar.update(len(indices))
        write_samples(model.family, model.config, torch.cat(shown), folder / "grid.png")
        facts = model.describe() | {"n": config.count, "seed": config.seed, "temperature": config.temperature}
        if config.prior == "fit":
            facts |= {"prior": "Gaussians fitted to codes", "components": config.components}
        if decoder is not None:
            facts |= {"vqvae": decoder.model.describe()}
        write_json(folder / "samples.json", facts)
    files = "points.csv" if points else f"images/ ({config.count} files)"
    written = f"grid.png, {files}{', samples.npz' if config.npz else ''}"
    finish(folder, written, f"genlab evaluate {typed('ckpt', config.ckpt)}")


@contextlib.contextmanager
def _writer(
    config: SampleConfig, points: bool, labels: torch.Tensor | None, folder: Path
) -> Iterator[Callable[[torch.Tensor], None]]:
    """Yields a function that adds a batch to points.csv and samples.npz; so memory does not grow with n."""
    files: list[Callable[[np.ndarray], object]] = []
    with contextlib.ExitStack() as stack:
        archive = None
        if points:
            table = stack.enter_context(stack.enter_context(written_aside(folder / "points.csv")).open("w"))
            files.append(lambda rows: np.savetxt(table, rows, delimiter=","))
        if config.npz:
            aside = stack.enter_context(written_aside(folder / "samples.npz"))
            archive = zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED)
            stack.enter_context(archive)
            if labels is not None:
                with archive.open("labels.npy", "w") as member:
                    np.lib.format.write_array(member, labels.numpy())

        def write(drawn: torch.Tensor) -> None:
            rows = (drawn.flatten(1).cpu() if points else drawn.permute(0, 2, 3, 1)).numpy()
            if archive is not None and len(files) == points:  # the first batch, which tells the shape
                name = "points" if points else "images"
                files.append(stack.enter_context(_growing(archive, name, config.count, rows)))
            for add in files:
                add(rows)

        yield write


@contextlib.contextmanager
def _growing(
    archive: zipfile.ZipFile, name: str, count: int, like: np.ndarray
) -> Iterator[Callable[[np.ndarray], object]]:
    """Yields a function that adds rows to an array of `count` rows of an .npz file."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        description = np.lib.format.header_data_from_array_1_0(np.ascontiguousarray(like[:1]))
        np.lib.format.write_array_header_1_0(member, description | {"shape": (count, *like.shape[1:])})
        yield lambda rows: member.write(np.ascontiguousarray(rows).tobytes())


def _warn_of_validation(model: LoadedModel) -> None:
    """Repeats the warnings of the run's last validation, if its folder has the metrics."""
    if numbers := last_validation(model.path.parents[1], model.step):
        for line in model.family.validation_warnings(numbers).values():
            log.warning("%s", line)
