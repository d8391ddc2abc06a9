"""The networks of a VQ-VAE (van den Oord et al. 2017): encoder to a map of vectors, codebook, decoder."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.nets.autoencoder import Shape
from genlab.nets.precision import in_float32
from genlab.nets.start import Offset, shrink

_SMOOTHING = 1e-5  # vectors of an image that every code is thought to have beyond its own
_LLOYD_STEPS = 10


class Use(NamedTuple):
    """Counts and sums of the vectors nearest to each code, averaged over images.

    counts: (K,), vectors of an image that are nearest to each code.
    sums: (K, D), of these vectors.
    """

    counts: Tensor
    sums: Tensor


class Codebook(nn.Module):
    """K vectors that follow the mean of what is nearest to them; no gradient trains them.

    Everything here is a buffer: a checkpoint keeps it, and the moving average of weights takes it as it is,
    since it is a moving average already.

    Args:
        codes: K.
        dimensions: D.
        places: vectors of an image.
        decay: of the moving averages, for each step; under 1.
    """

    vectors: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, codes: int, dimensions: int, places: int, decay: float) -> None:
        super().__init__()
        self.codes = codes
        self.even = places / codes  # vectors of an image that each code has if all have the same
        self.decay = decay
        vectors = torch.randn(codes, dimensions)
        self.register_buffer("vectors", vectors)
        self.register_buffer("counts", torch.full((codes,), self.even))
        self.register_buffer("sums", self.even * vectors)

    def forward(self, codes: Tensor) -> Tensor:
        """Returns the vectors of codes (B, h, w) int64: (B, D, h, w)."""
        return F.embedding(codes, self.vectors).movedim(-1, 1)

    def nearest(self, latents: Tensor) -> Tensor:
        """Returns the nearest code of each vector of (B, D, h, w), (B, h, w) int64 (eq. 1)."""
        with torch.autocast(latents.device.type, enabled=False):  # half precision would confuse neighbours
            rows = as_rows(latents)
            squares = self.vectors.square().sum(1)
            nearest = torch.addmm(squares, rows, self.vectors.T, alpha=-2).argmin(1)
        return nearest.view(len(latents), *latents.shape[2:])

    def use(self, latents: Tensor, codes: Tensor) -> Use:
        """Returns the use of codes by vectors (B, D, h, w) with their nearest codes (B, h, w)."""
        rows, index = as_rows(latents), codes.flatten()
        counts = torch.zeros_like(self.counts).index_add_(0, index, torch.ones_like(rows[:, 0]))
        sums = torch.zeros_like(self.sums).index_add_(0, index, rows)
        return Use(counts / len(latents), sums / len(latents))

    @torch.no_grad()
    def start(self, latents: Tensor) -> None:
        """Begins as k-means of the first batch's vectors: some of them, drawn, and a few of Lloyd's steps."""
        self.vectors.copy_(draw_rows(latents, self.codes))
        for _ in range(_LLOYD_STEPS):
            counts, sums = self.use(latents, self.nearest(latents))
            counts = counts.unsqueeze(1)
            self.vectors.copy_(torch.where(counts > 0, sums / counts, self.vectors))
        self._renew(torch.ones_like(self.counts, dtype=torch.bool), 1 - self.decay)

    @torch.no_grad()
    def follow(self, use: Use) -> None:
        """Moves the codes to the moving mean of the vectors nearest to them (appendix A.1).

        N <- decay N + (1 - decay) n; m <- decay m + (1 - decay) sum of vectors; e = m / N, where N is
        smoothed: (N + epsilon) / (total + K epsilon) total.
        """
        self.counts.lerp_(use.counts, 1 - self.decay)
        self.sums.lerp_(use.sums, 1 - self.decay)
        total = self.counts.sum()
        smoothed = (self.counts + _SMOOTHING) / (total + self.codes * _SMOOTHING) * total
        self.vectors.copy_(self.sums / smoothed.unsqueeze(1))

    @torch.no_grad()
    def restart(self, latents: Tensor, below: float) -> Tensor:
        """Gives codes with less than a share `below` of the even use a vector of (B, D, h, w), drawn.

        They live on if from now on they have at least that share.

        Returns:
            how many they were.
        """
        dead = self.counts < below * self.even
        self.vectors.copy_(torch.where(dead.unsqueeze(1), draw_rows(latents, self.codes), self.vectors))
        self._renew(dead, below)
        return dead.sum()

    def _renew(self, chosen: Tensor, share: float) -> None:
        """Forgets what these codes, (K,) bool, were used for: they count for a share of the even use.

        It is small, so that they soon are where the vectors are that they find.
        """
        counts = torch.where(chosen, share * self.even, self.counts)
        self.sums.copy_(torch.where(chosen.unsqueeze(1), counts.unsqueeze(1) * self.vectors, self.sums))
        self.counts.copy_(counts)


def as_rows(latents: Tensor) -> Tensor:
    """Returns (B, D, h, w) as (B h w, D)."""
    return latents.movedim(1, -1).flatten(0, -2)


def draw_rows(latents: Tensor, count: int) -> Tensor:
    """Draws `count` different vectors of (B, D, h, w), (count, D); again the same where too few."""
    rows = as_rows(latents)
    order = torch.randperm(len(rows), device=rows.device)
    return rows[order[torch.arange(count, device=rows.device) % len(rows)]]


def perplexity(counts: Tensor) -> Tensor:
    """Returns exp of the entropy of counts of codes, (K,): K if all are equal, 1 if only one is used."""
    return torch.special.entr(counts / counts.sum()).sum().exp()


class VQVAEResidualBlock(nn.Module):
    """ReLU, 3x3 convolution, ReLU, 1x1 convolution, with a connection around them (section 4.1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(width, width, 3, padding=1)
        self.narrow = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(torch.relu(self.wide(torch.relu(x))))


def map_sizes(height: int, width: int, halvings: int) -> list[tuple[int, int]]:
    """Returns sizes from the image to the map of codes, each half the one before, rounded down."""
    return [(height >> k, width >> k) for k in range(halvings + 1)]


class VQVAEEncoder(nn.Module):
    """Images (B, C, H, W) to vectors (B, D, h, w): strided 4x4 convolutions, then residual blocks.

    Args:
        channels: C.
        width: channels between the layers.
        blocks: residual blocks.
        halvings: strided convolutions.
        dimensions: D.
    """

    def __init__(self, channels: int, width: int, blocks: int, halvings: int, dimensions: int) -> None:
        super().__init__()
        inputs = [channels] + (halvings - 1) * [width]
        self.convolutions = nn.ModuleList(nn.Conv2d(n, width, 4, stride=2, padding=1) for n in inputs)
        self.blocks = nn.ModuleList(VQVAEResidualBlock(width) for _ in range(blocks))
        self.out = nn.Conv2d(width, dimensions, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.convolutions[0](images)
        for convolution in self.convolutions[1:]:
            x = convolution(torch.relu(x))
        for block in self.blocks:
            x = block(x)
        return self.out(torch.relu(x))


class VQVAEDecoder(nn.Module):
    """The encoder turned round: vectors (B, D, h, w) to outputs (B, O, H, W).

    Args:
        shape: (O, H, W).
        width, blocks, halvings, dimensions: see `VQVAEEncoder`.
    """

    def __init__(self, shape: Shape, width: int, blocks: int, halvings: int, dimensions: int) -> None:
        super().__init__()
        self.into = nn.Conv2d(dimensions, width, 3, padding=1)
        self.blocks = nn.ModuleList(VQVAEResidualBlock(width) for _ in range(blocks))
        outputs = (halvings - 1) * [width] + [shape[0]]
        stages = itertools.pairwise(reversed(map_sizes(*shape[1:], halvings)))
        # an odd side loses its last pixel in halving, and gets it back here
        odd = [(big[0] - 2 * small[0], big[1] - 2 * small[1]) for small, big in stages]
        self.convolutions = nn.ModuleList(
            nn.ConvTranspose2d(width, n, 4, stride=2, padding=1, output_padding=more)
            for n, more in zip(outputs, odd, strict=True)
        )
        shrink(self.convolutions[-1])
        self.offset = Offset(*shape, learned=True)

    def forward(self, vectors: Tensor) -> Tensor:
        x = self.into(vectors)
        for block in self.blocks:
            x = block(x)
        for convolution in self.convolutions[:-1]:
            x = convolution(torch.relu(x))
        return self.offset(in_float32(self.convolutions[-1], torch.relu(x)))
