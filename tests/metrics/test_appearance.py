"""Brightness, edges and saturation, by hand and against colorsys."""

from __future__ import annotations

import colorsys

import pytest
import torch

from genlab.metrics.appearance import appearance


def test_by_hand() -> None:
    levels = torch.tensor([[[[0, 255], [0, 255]]], [[[51, 51], [51, 51]]]], dtype=torch.uint8)
    found = appearance(levels)
    assert found == pytest.approx({"brightness": (0.5 + 0.2) / 2, "edges": (2 / 4 + 0) / 2})


def test_saturation_is_that_of_hsv() -> None:
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(256, (1203, 3, 4, 5), dtype=torch.uint8, generator=generator)
    levels[0] = 0  # black has none
    pixels = (levels.double() / 255).permute(0, 2, 3, 1).flatten(0, 2).tolist()
    expected = sum(colorsys.rgb_to_hsv(*pixel)[1] for pixel in pixels) / len(pixels)
    assert appearance(levels)["saturation"] == pytest.approx(expected)


def test_noise_has_more_edges_and_blur_fewer() -> None:
    ramp = torch.linspace(0, 255, 16).expand(4, 1, 16, 16)
    stripes = 255 * (ramp > 127)
    noise = (ramp + 100 * torch.randn(ramp.shape)).clamp(0, 255)
    pictures = (torch.full_like(ramp, 90), ramp, noise)
    edges = [appearance(images.to(torch.uint8))["edges"] for images in pictures]
    assert edges == sorted(edges)
    assert edges[0] == 0
    assert appearance(stripes.to(torch.uint8))["edges"] == pytest.approx(1 / 15 / 2)


def test_a_single_pixel_has_no_edges() -> None:
    assert appearance(torch.full((2, 1, 1, 1), 255, dtype=torch.uint8)) == {"brightness": 1.0, "edges": 0.0}
