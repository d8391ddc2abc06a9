"""The map of codes: every image is a dot of its class's colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from PIL import Image

from genlab.report import figures


def dots(figure: object) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, 2) and colours (N, 4), or (1, 4) where all have the same."""
    (collection,) = figure.axes[0].collections  # type: ignore[attr-defined]
    return np.asarray(collection.get_offsets()), collection.get_facecolors()


@pytest.mark.parametrize("classes", [1, 10, 11, 47])
def test_each_class_has_a_colour_of_its_own_and_a_line_in_the_legend(classes: int) -> None:
    places, labels = torch.randn(300, 2), torch.arange(300) % classes
    figure = figures.code_map(places, labels, ("a", "b"), "title")
    where, colours = dots(figure)
    np.testing.assert_allclose(where, places.numpy(), rtol=1e-6)
    of_class = [{tuple(c) for c in colours[labels.numpy() == k]} for k in range(classes)]
    assert all(len(found) == 1 for found in of_class)
    assert len(set.union(*of_class)) == classes
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [str(k) for k in range(classes)]
    for handle, (colour,) in zip(legend.legend_handles, of_class, strict=True):
        assert to_rgba(handle.get_color())[:3] == pytest.approx(colour[:3])
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("a", "b", "title")


def test_without_labels_there_is_one_colour_and_no_legend() -> None:
    figure = figures.code_map(torch.randn(20, 2), None)
    assert (len(dots(figure)[0]), len(dots(figure)[1]), figure.legends) == (20, 1, [])


def test_a_class_that_is_absent_takes_no_line_and_too_many_take_none() -> None:
    few = figures.code_map(torch.randn(3, 2), torch.tensor([2, 7, 2]))
    assert [text.get_text() for text in few.legends[0].get_texts()] == ["2", "7"]
    many = figures.code_map(torch.randn(100, 2), torch.arange(100))
    assert many.legends == []
    assert len({tuple(c) for c in dots(many)[1]}) == 100


@pytest.mark.parametrize("places", [torch.zeros(1, 2), torch.zeros(5, 2), torch.randn(4, 2) * 1e6])
def test_odd_places_are_drawn_too(places: torch.Tensor) -> None:
    figures.code_map(places, None).savefig("map.png")
    assert Image.open(Path("map.png")).size == (700, 600)
