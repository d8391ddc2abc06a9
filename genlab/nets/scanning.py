"""Drawing images from an autoregressive network: pixel by pixel with everything cached, or naively.

Each pixel's numbers are computed once; what a naive sampler spends on H * W passes over whole images costs
about the arithmetic of one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from genlab.device import capture
from genlab.distributions.pixels import PixelDistribution
from genlab.log import progress_bar
from genlab.nets.autoregressive import PixelNet
from genlab.nets.causal import Scan, channels_last


class Clamped(NamedTuple):
    """Pixels that are known and are not drawn.

    images: (B, C, H, W) in [0, 1].
    mask: (B, 1, H, W), true where a pixel is known.
    """

    images: Tensor
    mask: Tensor


@contextlib.contextmanager
def graphs_kept() -> Iterator[None]:
    """Within it the CUDA graphs of a batch are replayed for later batches of the same size too.

    A capture costs far more than a replay. The weights of a network must stay as they are, in the same
    memory. The graphs and their memory are freed at the end.
    """
    if _kept.get() is not None:  # whoever began it keeps them for longer
        yield
        return
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


@dataclass
class _Work:
    """The numbers that the work of one pixel reads and writes, in memory that a graph may refer to.

    Attributes:
        scan: position and caches.
        noise, images, drawn: (B, W, U) and (B, W, C), of the row.
        mask: (B, W, 1), where a pixel of `images` is known.
        log_prob: (B,) nats of the known pixels so far.
        graphs: by the scan's level.
    """

    scan: Scan
    noise: Tensor
    images: Tensor
    drawn: Tensor
    mask: Tensor
    log_prob: Tensor
    graphs: dict[int, torch.cuda.CUDAGraph] = field(default_factory=dict)

    def tensors(self) -> dict[Hashable, Tensor]:
        """Returns all tensors but those of the network, by their places."""
        return dict(_tensors((self.scan, self.noise, self.images, self.drawn, self.mask, self.log_prob), ()))

    def take_over(self, other: _Work) -> bool:
        """Takes over all that another has done within the first row, and where it stands.

        Returns:
            whether it did: False, and nothing happens, if not all tensors have their counterparts.
        """
        mine, theirs = self.tensors(), other.tensors()
        if {place: x.shape for place, x in mine.items()} != {place: x.shape for place, x in theirs.items()}:
            return False
        for place, x in mine.items():
            if x is not theirs[place]:  # as weights are
                x.copy_(theirs[place])
        self.scan.stand_at(other.scan.row, other.scan.column)
        return True


def _tensors(value: Any, place: tuple[Hashable, ...]) -> Iterator[tuple[Hashable, Tensor]]:
    """Yields the tensors within containers and objects, but not within modules, with their places."""
    if isinstance(value, Tensor):
        yield place, value
        return
    if isinstance(value, (tuple, list)):
        value = dict(enumerate(value))
    elif not isinstance(value, Mapping):
        value = {} if isinstance(value, nn.Module) else getattr(value, "__dict__", {})
    for key, part in value.items():
        yield from _tensors(part, (*place, key))


_kept: ContextVar[dict[Hashable, _Work] | None] = ContextVar("_kept", default=None)
"""Within `graphs_kept`: what has drawn a batch, by the kind of batch."""


class Scanner:
    """Draws a batch of images in one pass.

    On a GPU the work of one pixel, the draw included, is captured once as a CUDA graph and replayed: for a
    network with coarser stages once for each number of stages that take part. See also `graphs_kept`.

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
        if graph and labels is not None:
            labels = labels.clone()  # in memory of the graph's, which another batch overwrites
        scan = network.start(batch, labels, graph if on_device is None else on_device)
        self.noise = noise
        self.images = scan.zeros(height, width, channels)
        self.clamped = clamped and Clamped(
            channels_last(clamped.images).to(self.images),
            channels_last(clamped.mask).expand(batch, -1, -1, 1),
        )
        double = torch.float32 if noise.device.type == "mps" else torch.float64  # which Apple's lacks
        self.log_prob_clamped = torch.zeros(batch, dtype=double, device=noise.device)
        self._work = _Work(
            scan,
            noise=torch.empty_like(noise[:, 0]),
            images=scan.zeros(width, channels),
            drawn=scan.zeros(width, channels),
            mask=torch.zeros(batch, width, 1, dtype=torch.bool, device=noise.device),
            log_prob=torch.zeros_like(self.log_prob_clamped),
        )

    def run(self, progress: bool = False) -> Tensor:
        """Draws the images, (B, C, H, W) in [0, 1], and sets `log_prob_clamped`, nats of those clamped."""
        _, height, width = self.network.spec.shape
        kept = _kept.get() if self.graph else None
        earlier = None if kept is None else kept.get(self._kind())
        with progress_bar(total=height * width, unit="pixel", leave=False, delay=1, shown=progress) as bar:
            for row in range(height):
                self._begin_row(row)
                for column in range(width):
                    self._replay() if self.graph else self._pixel()
                    # The first pixel is of this batch alone: all caches are there, and as a new scan's are.
                    if earlier is not None and row == column == 0 and earlier.take_over(self._work):
                        self._work = earlier
                self.images[:, row] = self._work.drawn
                bar.update(width)
        self.log_prob_clamped.copy_(self._work.log_prob)
        if kept is not None:
            kept[self._kind()] = self._work
        return self.images.permute(0, 3, 1, 2).contiguous()

    def _kind(self) -> Hashable:
        """Returns all that a graph depends on, but for what it reads from memory."""
        return (
            self.network,
            (type(self.distribution), *sorted(vars(self.distribution).items())),
            self.temperature,
            (self.noise.shape, self.noise.dtype, self.noise.device, self.images.dtype),
            self._work.scan.labels is None,
            self.clamped is None,
        )

    def _begin_row(self, row: int) -> None:
        work = self._work
        self.network.begin_row(work.scan, row)
        work.noise.copy_(self.noise[:, row])
        if self.clamped is not None:
            work.images.copy_(self.clamped.images[:, row])
            work.mask.copy_(self.clamped.mask[:, row])

    def _pixel(self) -> None:
        """Draws the pixel at the scan's position, channel by channel, and moves on."""
        work, scan = self._work, self._work.scan
        noise = scan.read(work.noise)
        pixel = known = scan.read(work.images)
        mask = scan.read(work.mask)
        parameters = pixel
        for part in range(self.distribution.passes):
            parameters = self.network.look(scan, pixel, again=part > 0)
            pixel = self.distribution.draw(parameters, noise, pixel, part, self.temperature)
            if self.clamped is not None:
                pixel = torch.where(mask, known, pixel)
        if self.clamped is not None:
            work.log_prob += self.distribution.log_prob(parameters, pixel) * mask[:, 0]
        scan.write(work.drawn, pixel)
        self.network.keep(scan, pixel)

    def _replay(self) -> None:
        """`_pixel` as a CUDA graph. The first row is drawn without one, which makes the caches."""
        work, kind = self._work, self._work.scan.level
        seen = work.graphs.get(kind)
        if seen is not None:
            seen.replay()
            work.scan.move_on(replayed=True)
            return
        if work.scan.row == 0:  # caches are made here, and kernels chosen
            self._pixel()
            return
        graph = torch.cuda.CUDAGraph()
        with capture(graph, self.noise.device):
            self._pixel()
        work.graphs[kind] = graph
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
