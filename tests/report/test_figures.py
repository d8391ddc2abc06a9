"""Figures of points: what is drawn, where, and that nothing odd breaks them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from genlab.config.datasets import Gaussian1DConfig, GridConfig, PointsConfig, RingConfig, SwissRollConfig
from genlab.data.points import mixture_of
from genlab.report import figures

RING = mixture_of(RingConfig())
LINE = mixture_of(Gaussian1DConfig())
SIZE = (400, 400)


@pytest.fixture(autouse=True)
def no_warning() -> Iterator[None]:
    """Whatever is drawn, users are told nothing that they can do nothing about."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def as_images(points: Tensor) -> Tensor:
    return points[:, :, None, None]


def drawn(samples: Tensor, mixture: Any, judge: Any = None, title: str = "") -> np.ndarray:
    """The picture of samples (N, D), as (H, W, 3) int."""
    path = Path("figure.png")
    figures.points(as_images(samples), mixture, path, title, judge)
    picture = Image.open(path)
    assert picture.format == "PNG"
    assert picture.size == SIZE
    return np.asarray(picture.convert("RGB")).astype(int)


def reddish(picture: np.ndarray) -> np.ndarray:
    return picture[..., 0] - picture[..., 1:].max(-1) > 60


def greenish(picture: np.ndarray) -> np.ndarray:
    return picture[..., 1] - np.maximum(picture[..., 0], picture[..., 2]) > 30


def bluish(picture: np.ndarray) -> np.ndarray:
    return picture[..., 2] - picture[..., 0] > 60


@pytest.mark.parametrize("kind", [RingConfig, GridConfig, SwissRollConfig, Gaussian1DConfig])
def test_a_figure_shows_the_data_and_the_samples(kind: type[PointsConfig]) -> None:
    mixture = mixture_of(kind())
    picture = drawn(mixture.draw(1000, seed=0)[0] + 0.3, mixture)
    assert reddish(picture).sum() > 300
    assert greenish(picture).sum() > 100
    assert picture[0, 0].tolist() == [255, 255, 255]


def test_samples_are_drawn_where_they_are() -> None:
    right = reddish(drawn(torch.tensor([[2.0, 0.0]]).repeat(50, 1), RING))
    top = reddish(drawn(torch.tensor([[0.0, 2.0]]).repeat(50, 1), RING))
    (row, column), (top_row, top_column) = (np.argwhere(x).mean(0) for x in (right, top))
    assert column > top_column + 80
    assert top_row < row - 80


def test_the_density_lies_under_samples_of_it() -> None:
    """A density on its side, or upside down, would leave one of three modes that form no square bare."""
    mixture = mixture_of(RingConfig(modes=3, sigma=0.1))
    bare = drawn(torch.full((1, 2), 100.0), mixture)
    green = greenish(bare)
    assert green.sum() > 500
    covered = drawn(mixture.means.repeat(200, 1), mixture)
    rows, columns = np.nonzero(reddish(covered))
    assert len(rows) > 10
    assert green[rows, columns].all()


def test_components_narrower_than_a_pixel_are_still_seen() -> None:
    picture = drawn(torch.full((1, 2), 100.0), mixture_of(RingConfig(sigma=1e-4)))
    assert greenish(picture).sum() > 50


def test_other_samples_make_another_picture_and_the_same_the_same() -> None:
    a, b = torch.randn(200, 2), torch.randn(200, 2)
    first = drawn(a, RING)
    assert (first == drawn(a, RING)).all()
    assert (first != drawn(b, RING)).any()
    assert (first != drawn(a, RING, title="step 5")).any()


def test_the_histogram_is_of_all_samples_not_of_those_in_sight() -> None:
    """Half of the samples far off: the other half must look half as dense."""
    near = LINE.draw(2000, seed=0)[0]
    whole = np.argwhere(reddish(drawn(near, LINE)))[:, 0].min()
    half = np.argwhere(reddish(drawn(torch.cat([near, torch.full((2000, 1), 1e4)]), LINE)))
    middle = half[half[:, 1] < 250][:, 0].min()  # to the left of the legend
    assert middle > whole + 50


def test_the_judge_is_asked_along_the_line_and_drawn() -> None:
    asked: list[Tensor] = []

    def judge(x: Tensor) -> Tensor:
        asked.append(x)
        return x.flatten().sigmoid()

    points = LINE.draw(500, seed=0)[0]
    with_judge = drawn(points, LINE, judge)
    assert len(asked) == 1
    assert asked[0].shape[1:] == (1, 1, 1)
    assert float(asked[0].min()) < LINE.means.min() - 3 * LINE.sigma
    assert float(asked[0].max()) > LINE.means.max() + 3 * LINE.sigma
    assert bluish(with_judge).sum() > 100
    assert bluish(drawn(points, LINE)).sum() == 0
    assert bluish(drawn(points, LINE, lambda x: None)).sum() == 0


@pytest.mark.parametrize("name", ["D(x)", "critic"])
def test_the_legend_names_the_judge(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    legends = []
    legend = Axes.legend

    def kept(self: Axes, *args: Any, **settings: Any) -> Any:
        legends.append(legend(self, *args, **settings))
        return legends[-1]

    monkeypatch.setattr(Axes, "legend", kept)
    scale = 1.0 if name == "D(x)" else 7.0
    drawn(LINE.draw(100, seed=0)[0], LINE, lambda x: x.flatten().sigmoid() * scale)
    assert [text.get_text() for text in legends[-1].get_texts()] == ["data", "samples", name]


@pytest.mark.parametrize("value", [0.5, -3.0, 1e30, math.nan, math.inf])
def test_a_judge_that_says_the_same_of_all_is_drawn(value: float) -> None:
    picture = drawn(LINE.draw(100, seed=0)[0], LINE, lambda x: torch.full((len(x),), value))
    assert greenish(picture).sum() > 100
    assert reddish(picture).sum() > 100
    line = bluish(picture)[:, 60:340].any(0).mean()  # the legend's key alone is narrower
    assert (line > 0.5) == math.isfinite(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e30])
@pytest.mark.parametrize("mixture", [RING, LINE], ids=["plane", "line"])
@pytest.mark.parametrize("all_of_them", [True, False])
def test_samples_out_of_sight_break_nothing(value: float, mixture: Any, all_of_them: bool) -> None:
    points = mixture.draw(500, seed=0)[0] + 0.3  # beside the data, which they would hide
    points[slice(None) if all_of_them else slice(10)] = value
    picture = drawn(points, mixture)
    assert greenish(picture).sum() > 50
    if not all_of_them:
        assert reddish(picture).sum() > 50


@pytest.mark.parametrize("sigma", [1e-6, 1e-2, 1e3])
@pytest.mark.parametrize("kind", [RingConfig, Gaussian1DConfig])
def test_any_width_of_the_data_can_be_drawn(kind: type[PointsConfig], sigma: float) -> None:
    mixture = mixture_of(kind(sigma=sigma))
    assert greenish(drawn(mixture.draw(500, seed=0)[0], mixture)).sum() > 10


def colored(path: str, color: tuple[int, int, int], size: tuple[int, int] = (6, 4)) -> Path:
    Image.new("RGB", size, color).save(path)
    return Path(path)


@pytest.mark.parametrize(
    ("count", "most", "chosen"),
    [
        (1, 8, [0]),
        (3, 8, [0, 1, 2]),
        (8, 8, list(range(8))),
        (15, 8, [0, 2, 4, 6, 8, 10, 12, 14]),
        (5, 2, [0, 4]),
        (5, 1, [0]),
    ],
)
def test_over_time_shows_the_first_the_last_and_evenly_spaced_ones(
    count: int, most: int, chosen: list[int]
) -> None:
    paths = [colored(f"{k}.png", (k, 0, 0)) for k in range(count)]
    figures.over_time(paths, Path("sheet.png"), most)
    sheet = Image.open("sheet.png")
    assert sheet.format == "PNG"
    assert sheet.size == (6 * len(chosen), 4)
    assert np.asarray(sheet)[0, ::6, 0].tolist() == chosen


def test_over_time_takes_pictures_of_several_kinds_and_sizes() -> None:
    Image.new("L", (3, 9), 7).save("grey.png")
    figures.over_time([colored("color.png", (1, 2, 3)), Path("grey.png")], Path("sheet.png"))
    sheet = np.asarray(Image.open("sheet.png"))
    assert sheet.shape == (9, 9, 3)
    assert sheet[0, 0].tolist() == [1, 2, 3]
    assert sheet[8, 8].tolist() == [7, 7, 7]
    assert sheet[8, 0].tolist() == [255, 255, 255]


def test_a_game_is_drawn_beside_its_distance_from_the_equilibrium() -> None:
    angles = torch.linspace(0, 20, 200)
    spiral = torch.stack([angles.cos(), angles.sin()], 1)
    pictures = []
    for shrinks in (0.0, 0.1):
        figures.game(as_images(spiral * (-shrinks * angles).exp()[:, None]), Path("game.png"), "a title")
        picture = Image.open("game.png")
        assert picture.format == "PNG"
        assert picture.size == (800, 400)
        pictures.append(np.asarray(picture.convert("RGB")).astype(int))
    for half in (np.s_[:, :400], np.s_[:, 400:]):
        assert bluish(pictures[0][half]).sum() > 100
        assert (pictures[0][half] != pictures[1][half]).any()


def test_no_figure_stays_open() -> None:
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    drawn(torch.randn(10, 2), RING)
    drawn(torch.randn(10, 1), LINE, lambda x: x.flatten())
    figures.game(torch.randn(10, 2, 1, 1), Path("game.png"))
    assert pyplot.get_fignums() == before
