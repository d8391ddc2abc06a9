"""Conversion of the levels of stored pixels to images, and the noise that it needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

_FINEST = 2.0**-16
"""Step of the uniform noise: level + noise is then exact in float32 and never rounds up to the next level."""


class Noise(Protocol):
    """Random numbers for a batch, along the first dimension; `genlab.rng.SampleRng` is one implementation."""

    def uniform(self, *shape: int) -> Tensor:
        """Draws numbers uniform over [0, 1), (B, *shape), float32."""
        ...

    def integers(self, high: int, *shape: int) -> Tensor:
        """Draws integers uniform over 0..high-1, (B, *shape)."""
        ...


class HostNoise:
    """Noise on the CPU, several times faster than torch's generator: words of SFC64, split into bytes."""

    def __init__(self, seed: int, batch: int) -> None:
        self._words = np.random.SFC64(seed)
        self._generator = np.random.Generator(self._words)
        self._batch = batch

    def uniform(self, *shape: int) -> Tensor:
        """Draws multiples of 2**-16 in [0, 1), float32."""
        sixteen_bits = self._raw(2, shape).view(np.uint16)
        return torch.from_numpy(sixteen_bits.astype(np.float32)).mul_(_FINEST).view(self._batch, *shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Draws uint8, exactly uniform for high <= 256: bytes past high's last multiple are drawn again."""
        values = self._raw(1, shape)
        limit = 256 - 256 % high
        if limit < 256:
            rejected = np.flatnonzero(values >= limit)
            values[rejected] = self._generator.integers(high, size=len(rejected), dtype=np.uint8)
        if high <= 128:
            values %= high
        return torch.from_numpy(values).view(self._batch, *shape)

    def _raw(self, bytes_each: int, shape: tuple[int, ...]) -> np.ndarray:
        count = self._batch * math.prod(shape) * bytes_each
        return self._words.random_raw((count + 7) // 8).view(np.uint8)[:count]


class DeviceNoise:
    """Noise drawn on an accelerator by torch's generator, without synchronisation."""

    def __init__(self, seed: int, batch: int, device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(seed)
        self._batch, self._device = batch, device

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(self._batch, *shape, generator=self._generator, device=self._device)

    def integers(self, high: int, *shape: int) -> Tensor:
        values = torch.empty(self._batch, *shape, dtype=torch.uint8, device=self._device)
        return values.random_(0, high, generator=self._generator)


def batch_noise(seed: int, batch: int, device: torch.device) -> Noise:
    """Returns the noise of one training batch, drawn on the batch's device."""
    return HostNoise(seed, batch) if device.type == "cpu" else DeviceNoise(seed, batch, device)


@dataclass(frozen=True)
class Pixels:
    """The conversion of stored levels to images.

    Attributes:
        levels: number of values of a stored pixel, 2 to 256, of codes up to 2^15; white is levels - 1.
        binarize: "none", "dynamic" (a pixel is 1 with probability level / (levels - 1), drawn again in each
            epoch: Salakhutdinov and Murray 2008) or "threshold".
        threshold: share of full scale above which a pixel is 1.
        dequantize: add noise uniform over one level (Theis, van den Oord and Bethge 2016, section 3.1).
        flip: mirror half of the training images, left to right.
    """

    levels: int = 256
    binarize: str = "none"
    threshold: float = 0.5
    dequantize: bool = False
    flip: bool = False

    @property
    def draws(self) -> bool:
        """Returns whether images of an evaluation need noise."""
        return self.dequantize or self.binarize == "dynamic"

    def training_images(self, levels: Tensor, seed: int) -> Tensor:
        """Converts (B, C, H, W) uint8 to float32 in [0, 1], augmented; all noise is determined by `seed`."""
        if not (self.flip or self.draws):
            return self.images(levels, None)
        noise = batch_noise(seed, len(levels), levels.device)
        if self.flip:
            mirrored = noise.integers(2, 1, 1, 1).bool()
            levels = torch.where(mirrored, levels.flip(-1), levels)
        return self.images(levels, noise)

    def images(self, levels: Tensor, noise: Noise | None) -> Tensor:
        """Converts (B, C, H, W) uint8 to float32 in [0, 1], not flipped; noise is needed only if `draws`."""
        if self.binarize == "threshold":
            cut = math.floor(self.threshold * (self.levels - 1) + 1e-9)  # 0.2 * 255 is a little under 51
            return torch.gt(levels, cut, out=torch.empty(levels.shape, device=levels.device))
        if self.binarize == "dynamic":
            assert noise is not None
            draw = noise.integers(self.levels - 1, *levels.shape[1:])
            # Writes floats directly: via booleans it takes four times as long.
            return torch.lt(draw, levels, out=torch.empty(levels.shape, device=levels.device))
        images = levels.float()
        if self.dequantize:
            assert noise is not None
            u = noise.uniform(*levels.shape[1:]).clamp_(max=1 - _FINEST)
            return images.add_(u).div_(self.levels)
        return images.div_(self.levels - 1)
