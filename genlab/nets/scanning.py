"""Drawing images from an autoregressive network: pixel by pixel with everything cached, or naively.

Each pixel's numbers are computed once; what a naive sampler spends on H * W passes over whole images costs
about the arithmetic of one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from genlab.device import capture
from genlab.distributions.pixels import PixelDistribution
from genlab.log import progress_bar
from genlab.nets.autoregressive import PixelNet
from genlab.nets.causal import channels_last


class Clamped(NamedTuple):
    """Pixels that are known and are not drawn.

    images: (B, C, H, W) in [0, 1].
    mask: (B, 1, H, W), true where a pixel is known.
    """

    images: Tensor
    mask: Tensor


class Scanner:
    """Draws a batch of images in one pass.

    On a GPU the work of one pixel, the draw included, is captured once as a CUDA graph and replayed: for a
    network with coarser stages once for each number of stages that take part.

    Args:
        network, distribution: what draws.
        noise: (B, H, W, U) uniform over [0, 1), `distribution.uniforms` for each pixel.
        labels: (B,) int64, for a network that takes them.
        temperature: see `genlab.distributions.pixels`.
        clamped: pixels that are known already.
        graph: replay a CUDA graph.
    """

    def __init__(
        self,
        network: PixelNet,
        distribution: PixelDistribution,
        noise: Tensor,
        labels: Tensor | None = None,
        temperature: float = 1.0,
        clamped: Clamped | None = None,
        graph: bool = False,
        on_device: bool | None = None,
    ) -> None:
        channels, height, width = network.spec.shape
        batch = len(noise)
        self.network, self.distribution, self.temperature = network, distribution, temperature
        self.graph = graph
        self.scan = network.start(batch, labels, graph if on_device is None else on_device)
        self.noise = noise
        self.images = self.scan.zeros(height, width, channels)
        self.clamped = clamped and Clamped(
            channels_last(clamped.images).to(self.images),
            channels_last(clamped.mask).expand(batch, -1, -1, 1),
        )
        double = torch.float32 if noise.device.type == "mps" else torch.float64  # which Apple's lacks
        self.log_prob_clamped = torch.zeros(batch, dtype=double, device=noise.device)
        # One row of each, in memory of its own that a graph may refer to.
        self._noise = torch.empty_like(noise[:, 0])
        self._drawn = self.scan.zeros(width, channels)
        self._images = self.scan.zeros(width, channels)
        self._mask = torch.zeros(batch, width, 1, dtype=torch.bool, device=noise.device)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}

    def run(self, progress: bool = False) -> Tensor:
        """Draws the images, (B, C, H, W) in [0, 1], and sets `log_prob_clamped`, nats of those clamped."""
        _, height, width = self.network.spec.shape
        with progress_bar(total=height * width, unit="pixel", leave=False, delay=1, shown=progress) as bar:
            for row in range(height):
                self.network.begin_row(self.scan, row)
                self._noise.copy_(self.noise[:, row])
                if self.clamped is not None:
                    self._images.copy_(self.clamped.images[:, row])
                    self._mask.copy_(self.clamped.mask[:, row])
                for _ in range(width):
                    self._replay() if self.graph else self._pixel()
                self.images[:, row] = self._drawn
                bar.update(width)
        return self.images.permute(0, 3, 1, 2).contiguous()

    def _pixel(self) -> None:
        """Draws the pixel at the scan's position, channel by channel, and moves on."""
        noise = self.scan.read(self._noise)
        pixel = known = self.scan.read(self._images)
        mask = self.scan.read(self._mask)
        parameters = pixel
        for part in range(self.distribution.passes):
            parameters = self.network.look(self.scan, pixel, again=part > 0)
            pixel = self.distribution.draw(parameters, noise, pixel, part, self.temperature)
            if self.clamped is not None:
                pixel = torch.where(mask, known, pixel)
        if self.clamped is not None:
            self.log_prob_clamped += self.distribution.log_prob(parameters, pixel) * mask[:, 0]
        self.scan.write(self._drawn, pixel)
        self.network.keep(self.scan, pixel)

    def _replay(self) -> None:
        """`_pixel` as a CUDA graph. The first row is drawn without one, which makes the caches."""
        kind = self.scan.level
        seen = self._graphs.get(kind)
        if seen is not None:
            seen.replay()
            self.scan.move_on(replayed=True)
            return
        if self.scan.row == 0:  # caches are made here, and kernels chosen
            self._pixel()
            return
        graph = torch.cuda.CUDAGraph()
        with capture(graph, self.noise.device):
            self._pixel()
        self._graphs[kind] = graph
        graph.replay()


def draw_naively(
    network: PixelNet,
    distribution: PixelDistribution,
    noise: Tensor,
    labels: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Draws what `Scanner` draws, by a pass over whole images for each pixel and channel."""
    channels, height, width = network.spec.shape
    images = torch.zeros(len(noise), channels, height, width, dtype=next(network.parameters()).dtype)
    images = images.to(noise.device)
    for row in range(height):
        for column in range(width):
            for part in range(distribution.passes):
                parameters = network(images, labels)[:, row, column]
                pixel = images[:, :, row, column]
                images[:, :, row, column] = distribution.draw(
                    parameters, noise[:, row, column], pixel, part, temperature
                )
    return images
