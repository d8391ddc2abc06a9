"""Differentiable augmentation: what may change, by how much, for each image by itself."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.adversarial.augmentation import augment, color, cutout, translation
from genlab.config.adversarial import OPERATIONS

SHAPES = [(1, 16, 32), (3, 16, 32), (3, 9, 9), (1, 8, 8)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("operation", OPERATIONS)
class TestEach:
    def test_shape_and_range(self, shape: tuple[int, int, int], operation: str) -> None:
        images = torch.rand(64, *shape) * 2 - 1
        changed = augment(images, (operation,))
        assert changed.shape == images.shape
        assert changed.dtype == torch.float32
        assert not torch.equal(changed, images)
        if operation == "color":
            assert torch.isfinite(changed).all()
            assert changed.abs().max() < 1.5 * 5  # of a sum of bounded changes
        else:
            assert changed.abs().max() <= 1

    def test_each_image_has_randomness_of_its_own(self, shape: tuple[int, int, int], operation: str) -> None:
        image = torch.rand(1, *shape) * 2 - 1
        changed = augment(image.expand(64, *shape), (operation,))
        assert len(changed.flatten(1).unique(dim=0)) > 4  # an 8x8 image moves to 9 places
        torch.manual_seed(5)
        first = augment(image.expand(3, *shape), (operation,))
        second = augment(image.expand(3, *shape), (operation,))
        torch.manual_seed(5)
        again = augment(image.expand(3, *shape), (operation,))
        assert torch.equal(first, again)
        assert not torch.equal(first, second)

    def test_no_image_sees_another(self, shape: tuple[int, int, int], operation: str) -> None:
        images = (torch.rand(6, *shape) * 2 - 1).requires_grad_()
        (gradient,) = torch.autograd.grad(augment(images, (operation,))[2].square().sum(), images)
        assert gradient[2].abs().sum() > 0
        assert not gradient[[0, 1, 3, 4, 5]].any()


def test_operations_in_the_order_given() -> None:
    images = torch.rand(9, 3, 16, 16) * 2 - 1
    assert torch.equal(augment(images, ()), images)
    for order in (OPERATIONS, OPERATIONS[::-1]):
        torch.manual_seed(3)
        changed = augment(images, order)
        torch.manual_seed(3)
        expected = images
        for name in order:
            expected = {"color": color, "translation": translation, "cutout": cutout}[name](expected)
        assert torch.equal(changed, expected)


def moves(image: Tensor, down: int, right: int) -> dict[tuple[int, int], Tensor]:
    """The image (C, H, W) at every place that it may be moved to, its edge repeated."""
    padded = F.pad(image[None], (right, right, down, down), mode="replicate")[0]
    height, width = image.shape[1:]
    return {
        (y - down, x - right): padded[:, y : y + height, x : x + width]
        for y in range(2 * down + 1)
        for x in range(2 * right + 1)
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_translation_moves_by_an_eighth_at_most_and_repeats_the_edge(channels: int) -> None:
    image = torch.rand(channels, 16, 32)
    changed = translation(image.expand(600, -1, -1, -1))
    places = moves(image, 16 // 8, 32 // 8)  # pixels up or down, and to the sides
    seen = set()
    for one in changed:
        found = [move for move, expected in places.items() if torch.equal(one, expected)]
        assert len(found) == 1
        seen.add(found[0])
    assert seen == set(places)  # all the 5 * 9 are drawn, the ends included


@pytest.mark.parametrize("ground", [-1.0, 1.0, 0.3])
def test_translation_leaves_a_plain_ground_plain(ground: float) -> None:
    images = torch.full((50, 3, 16, 16), ground)
    images[:, :, 6:10, 6:10] = 0.7
    changed = translation(images)
    assert set(changed.unique().tolist()) == set(images.unique().tolist())
    assert ((changed == images[0, 0, 8, 8]).sum((1, 2, 3)) == 3 * 16).all()  # and all of the object in sight


def test_gradient_of_a_translation_counts_how_often_a_pixel_is_seen() -> None:
    images = torch.arange(40 * 2 * 16 * 16.0).view(40, 2, 16, 16).requires_grad_()  # each has its own value
    moved = translation(images)
    (gradient,) = torch.autograd.grad(moved.sum(), images)
    assert torch.equal(
        gradient.flatten(), moved.detach().flatten().long().bincount(minlength=images.numel()).float()
    )
    assert gradient.min() == 0
    assert gradient.max() > 1  # an edge


@pytest.mark.parametrize(("height", "width"), [(16, 32), (9, 9), (8, 5)])
def test_cutout_is_one_square_of_half_the_side(height: int, width: int) -> None:
    images = torch.rand(1200, 3, height, width) + 0.1
    images.requires_grad_()
    changed = cutout(images)
    (gradient,) = torch.autograd.grad(changed.sum(), images)
    hole = changed == 0
    assert torch.equal(gradient, (~hole).float())
    assert torch.equal(changed[~hole], images[~hole])
    assert torch.equal(hole[:, 0], hole[:, 1])  # of all channels
    assert torch.equal(hole[:, 0], hole[:, 2])
    sides = []
    for rows, columns in zip(hole[:, 0].any(2), hole[:, 0].any(1), strict=True):
        for line in (rows, columns):
            places = line.nonzero().flatten()
            assert len(places) == places[-1] - places[0] + 1  # in one piece
        sides.append((int(rows.sum()), int(columns.sum())))
    assert torch.equal(hole[:, 0].sum((1, 2)), torch.tensor([a * b for a, b in sides]))  # a rectangle
    assert max(a for a, _ in sides) == int(height / 2 + 0.5)
    assert max(b for _, b in sides) == int(width / 2 + 0.5)
    assert min(a for a, _ in sides) < int(height / 2 + 0.5)  # partly outside
    covered = hole[:, 0].float().mean(0)
    assert covered.min() > 0  # anywhere


def test_color_of_grey_images_is_one_line_for_each_image() -> None:
    images = torch.rand(2000, 1, 4, 5) * 2 - 1
    changed = color(images)
    x, y = images.flatten(1), changed.flatten(1)
    x_mean, y_mean = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    slope = ((x - x_mean) * (y - y_mean)).sum(1) / (x - x_mean).square().sum(1)  # least squares
    torch.testing.assert_close(y, y_mean + slope[:, None] * (x - x_mean), rtol=0, atol=1e-5)
    assert 0.5 <= slope.min() < 0.52  # contrast
    assert 1.48 < slope.max() <= 1.5
    brightness = (y_mean - x_mean).flatten()
    assert -0.5 <= brightness.min() < -0.48
    assert 0.48 < brightness.max() <= 0.5


def test_color_of_colour_images_changes_saturation_too() -> None:
    images = torch.rand(2000, 3, 4, 5) * 2 - 1
    changed = color(images)
    greys, colours = zip(*(parts(x) for x in (images, changed)), strict=True)

    def slope(x: Tensor, y: Tensor) -> Tensor:
        x, y = (v.flatten(1) - v.flatten(1).mean(1, keepdim=True) for v in (x, y))
        s = (x * y).sum(1) / x.square().sum(1)
        torch.testing.assert_close(y, s[:, None] * x, rtol=0, atol=1e-4)  # one factor for a whole image
        return s

    contrast = slope(*greys)
    saturation = slope(*colours) / contrast
    assert 0.5 <= contrast.min() < 0.52 < 1.48 < contrast.max() <= 1.5
    assert -1e-4 <= saturation.min() < 0.03 < 1.97 < saturation.max() <= 2 + 1e-4


def parts(images: Tensor) -> tuple[Tensor, Tensor]:
    """Grey, and what a pixel's channels differ from it by."""
    grey = images.mean(1, keepdim=True)
    return grey, images - grey


@pytest.mark.parametrize("operations", [("color",), ("translation",), ("cutout",), OPERATIONS])
def test_gradients_are_those_of_finite_differences(operations: tuple[str, ...]) -> None:
    def fixed(images: Tensor) -> Tensor:
        torch.manual_seed(1)
        return augment(images, operations)

    images = (torch.rand(2, 3, 6, 5, dtype=torch.float64) * 2 - 1).requires_grad_()
    assert torch.autograd.gradcheck(fixed, images)
    (gradient,) = torch.autograd.grad(fixed(images).square().sum(), images)
    assert (gradient.flatten(1).abs().sum(1) > 0).all()
