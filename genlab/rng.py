"""Random numbers that depend on a seed and an index alone, never on batch size or device."""

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Derives a 63-bit seed for a purpose, e.g. `derive_seed(seed, "batch", 17)`; purposes do not overlap."""
    text = ":".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


class SampleRng:
    """Independent streams of random numbers: row k depends only on (seed, purpose, indices[k]).

    So sample 5 of seed 3 is the same image whether it is drawn alone or among 10,000, on a CPU or a GPU.
    The streams are segments of one Philox sequence (Salmon et al. 2011), 2**192 draws apart.

    Args:
        seed: any whole number >= 0.
        indices: the samples' numbers, >= 0.
        device: where the numbers are put. They are always drawn on the CPU.
        purpose: separates streams of the same seed, e.g. "sample" and "evaluate".
    """

    def __init__(
        self,
        seed: int,
        indices: Iterable[int],
        device: torch.device | str = "cpu",
        purpose: str = "sample",
    ) -> None:
        key = derive_seed(seed, purpose)
        self._streams = [
            np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, i])) for i in indices
        ]
        self.device = torch.device(device)

    def __len__(self) -> int:
        return len(self._streams)

    def normal(self, *shape: int) -> Tensor:
        """Draws standard normal numbers, (n, *shape), float32."""
        return self._stack([g.standard_normal(shape, dtype=np.float32) for g in self._streams], shape)

    def uniform(self, *shape: int) -> Tensor:
        """Draws numbers uniform over [0, 1), (n, *shape), float32."""
        return self._stack([g.random(shape, dtype=np.float32) for g in self._streams], shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Draws integers uniform over 0..high-1, (n, *shape), int64."""
        return self._stack([g.integers(high, size=shape) for g in self._streams], shape)

    def _stack(self, rows: list, shape: tuple[int, ...]) -> Tensor:
        array = np.stack(rows) if rows else np.empty((0, *shape), np.float32)
        drawn = torch.from_numpy(array)
        if self.device.type == "cuda":
            drawn = drawn.pin_memory()  # so that the copy does not wait for the device
        return drawn.to(self.device, non_blocking=True)
