"""Errors between images against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from genlab.metrics.fidelity import mean_squared_error, psnr_db


def test_the_mean_squared_error_is_over_all_dimensions_of_one_image() -> None:
    images = torch.zeros(2, 1, 1, 4)
    others = torch.tensor([[0.0, 0.0, 0.0, 0.2], [1.0, 1.0, 0.0, 1.0]]).view(2, 1, 1, 4)
    assert mean_squared_error(images, others).tolist() == pytest.approx([0.01, 0.75])


def test_a_tenth_of_the_error_is_ten_decibels_more() -> None:
    errors = torch.tensor([1.0, 0.1, 0.01, 0.02, 0.0], dtype=torch.float64)
    assert psnr_db(errors).tolist() == pytest.approx([0, 10, 20, 20 - 10 * math.log10(2), math.inf])
