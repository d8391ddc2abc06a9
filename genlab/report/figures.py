"""Figures of data that are not images: points with their density, maps of codes, bilinear games."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from genlab.data.points import Mixture
from genlab.files import written_aside

_INCHES, _DPI = 4.0, 100
_PLACES = 300  # grid points of a density along each axis
_BARS = 60  # bars of a histogram
_LEGEND = 60  # maximum number of classes in a legend; more colours cannot be distinguished


def _figure(rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """Creates a figure that needs no window, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((columns * _INCHES, rows * _INCHES), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def points(
    samples: Tensor,
    mixture: Mixture,
    path: Path,
    title: str = "",
    judge: Callable[[Tensor], Tensor | None] | None = None,
) -> None:
    """Writes a figure of samples and the density of the data.

    In two dimensions: a scatter plot over the true density. In one: the density of the data, that of the
    samples and, if there is a discriminator, D(x), in one plot (Goodfellow et al. 2014, figure 1).

    Args:
        samples: (N, D, 1, 1), D = 1 or 2.
        judge: the discriminator's output: (N, D, 1, 1) to D(x), (N,), or to None.
    """
    figure, axes = _figure()
    if samples.shape[1] == 1:
        _density(axes, samples.flatten().cpu(), mixture, judge, samples.device)
    else:
        _scatter(axes, samples.flatten(1).cpu(), mixture)
    axes.set_title(title, fontsize=10)
    save_figure(figure, path)


def _scatter(axes: Any, samples: Tensor, mixture: Mixture) -> None:
    reach = float(mixture.means.abs().max()) * 1.25 + 4 * mixture.sigma
    places = torch.linspace(-reach, reach, _PLACES)
    # components narrower than a pixel of the figure are widened; otherwise they would not be visible
    width = max(mixture.sigma, 3 * reach / _PLACES)
    # each is a product over x and y: a sum of products over a grid is a matrix product
    x, y = (torch.exp(-((places[:, None] - means) / width).square() / 2) for means in mixture.means.T)
    density = y @ x.T
    axes.imshow(density.numpy(), extent=(-reach, reach, -reach, reach), origin="lower", cmap="Greens", vmin=0)
    axes.scatter(*samples.T.numpy(), s=3, alpha=0.4, color="tab:red", linewidths=0)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")


def _density(
    axes: Any,
    samples: Tensor,
    mixture: Mixture,
    judge: Callable[[Tensor], Tensor | None] | None,
    device: torch.device,
) -> None:
    low, high = float(mixture.means.min()), float(mixture.means.max())
    reach = max(6 * mixture.sigma, (high - low) / 2 + 4 * mixture.sigma)
    places = torch.linspace((low + high) / 2 - reach, (low + high) / 2 + reach, _PLACES)
    x = places.numpy()
    lines = axes.plot(x, mixture.log_prob(places[:, None]).exp().numpy(), color="tab:green", label="data")
    # a share of all samples, including those outside the plotted range
    weights = torch.full_like(samples, _BARS / (2 * reach * len(samples)))
    lines += axes.hist(samples.numpy(), bins=_BARS, range=(x[0], x[-1]), weights=weights.numpy(),
                       histtype="step", color="tab:red", label="samples")[2]  # fmt: skip
    values = judge(places.to(device)[:, None, None, None]) if judge else None
    if values is not None:
        values = values.detach().cpu()
        bounded = not bool(((values < 0) | (values > 1)).any())
        other = axes if bounded else axes.twinx()  # a critic's values have another scale
        name = "D(x)" if bounded else "critic"
        lines += other.plot(x, values.numpy(), color="tab:blue", linestyle="--", label=name)
    axes.set(xlim=(x[0], x[-1]), xlabel="x")
    axes.legend(handles=lines, fontsize=8)


def code_map(
    places: Tensor, labels: Tensor | None, names: tuple[str, str] = ("", ""), title: str = ""
) -> Any:
    """Draws a dot for each image, coloured by its class.

    Args:
        places: (N, 2).
        labels: (N,) int64, or None for one colour.
        names: labels of the two axes.

    Returns:
        the figure, to be saved.
    """
    from matplotlib import colormaps
    from matplotlib.lines import Line2D

    figure, axes = _figure()
    figure.set_size_inches(1.75 * _INCHES, 1.5 * _INCHES)
    classes = [] if labels is None else labels.unique().tolist()
    few, rainbow = colormaps["tab10"], colormaps["gist_rainbow"]  # up to ten classes, and any number
    shades = [few(k) if len(classes) <= few.N else rainbow(k / len(classes)) for k in range(len(classes))]
    colours = dict(zip(classes, shades, strict=True))
    each = "tab:blue" if labels is None else [colours[label] for label in labels.tolist()]
    size = min(30.0, max(4.0, 15_000 / len(places)))
    # in the order of the images, so that no class covers the others
    axes.scatter(*places.T.numpy(), s=size, c=each, alpha=0.7, linewidths=0)
    axes.set(xlabel=names[0], ylabel=names[1], aspect="equal")
    axes.set_adjustable("datalim")
    axes.set_title(title, fontsize=10)
    if 0 < len(classes) <= _LEGEND:
        handles = [
            Line2D([], [], color=colours[label], marker="o", linestyle="", label=str(label))
            for label in classes
        ]
        columns = math.ceil(len(classes) / 20)
        figure.legend(handles=handles, title="class", loc="outside right upper", ncols=columns, fontsize=8)
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """Writes a figure as a picture, completely or not at all."""
    with written_aside(path) as aside:
        figure.savefig(aside)


def over_time(paths: Sequence[Path], path: Path, most: int = 8) -> None:
    """Writes pictures of one size side by side: the first, the last, and evenly spaced ones between."""
    count = min(most, len(paths))
    chosen = [paths[round(k * (len(paths) - 1) / max(count - 1, 1))] for k in range(count)]
    pictures = [Image.open(p, formats=("PNG",)).convert("RGB") for p in chosen]
    sheet = Image.new("RGB", (sum(p.width for p in pictures), max(p.height for p in pictures)), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width
    with written_aside(path) as aside:
        sheet.save(aside)


def game(trajectory: Tensor, path: Path, title: str = "") -> None:
    """Writes a figure of two players' path, (T, 2, 1, 1), and its distance from the equilibrium (0, 0)."""
    figure, (plane, time) = _figure(columns=2)
    trajectory = trajectory.flatten(1).cpu().double()
    x, y = trajectory.T.numpy()
    plane.plot(x, y, linewidth=0.8)
    plane.scatter(x[:1], y[:1], color="tab:green", label="start", zorder=3)
    plane.scatter(x[-1:], y[-1:], color="tab:red", marker="x", label="end", zorder=4)
    plane.scatter([0], [0], marker="+", color="black", label="equilibrium", zorder=3)
    plane.set(xlabel="x, which minimises xy", ylabel="y, which maximises xy")
    plane.set_aspect("equal", adjustable="datalim")  # keeps both boxes equally high
    distances = trajectory.norm(dim=1)
    time.plot(distances.numpy(), marker="o" if len(distances) == 1 else None)
    time.set(xlabel="step", ylabel="distance from the equilibrium")
    drawn = distances[distances.isfinite() & (distances > 0)]
    if len(drawn):
        # at least a decade, so that an almost constant distance looks constant
        low, high = float(drawn.min()), float(drawn.max())
        middle = (low * high) ** 0.5
        time.set(yscale="log", ylim=(min(low / 1.2, middle / 10**0.5), max(high * 1.2, middle * 10**0.5)))
    figure.suptitle(title, fontsize=10)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)  # a spiral covers all corners
    save_figure(figure, path)
