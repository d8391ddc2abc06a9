"""EfficientNet-Lite0 (Tan and Le 2019, in the variant for small devices) up to its pooled features."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

_BLOCKS = (  # expansion, kernel, stride, channels of each block
    (1, 3, 1, 16),
    (6, 3, 2, 24), (6, 3, 1, 24),
    (6, 5, 2, 40), (6, 5, 1, 40),
    (6, 3, 2, 80), (6, 3, 1, 80), (6, 3, 1, 80),
    (6, 5, 1, 112), (6, 5, 1, 112), (6, 5, 1, 112),
    (6, 5, 2, 192), (6, 5, 1, 192), (6, 5, 1, 192), (6, 5, 1, 192),
    (6, 3, 1, 320),
)  # fmt: skip

FEATURES = 1280


class EfficientNetLite0(nn.Module):
    """The network without its classifier, 3.4 million weights; their names are as in the published file.

    There is no squeeze and excitation, and the activation is min(max(x, 0), 6).
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _Convolution(3, 32, 3, 2), _norm(32)
        blocks, channels = [], 32
        for expansion, kernel, stride, filters in _BLOCKS:
            blocks.append(_Block(channels, filters, expansion, kernel, stride))
            channels = filters
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = _Convolution(channels, FEATURES, 1), _norm(FEATURES)

    def forward(self, images: Tensor) -> Tensor:
        """Computes (B, 1280), the means over all positions, of normalised images (B, 3, H, W)."""
        x = F.relu6(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))

    def load_published(self, weights: Mapping[str, Tensor]) -> None:
        """Loads the weights of the published file except those of the classifier.

        Raises:
            RuntimeError: the weights are those of another network.
        """
        self.load_state_dict({k: v for k, v in weights.items() if not k.startswith("_fc.")})


class _Convolution(nn.Conv2d):
    """A convolution without bias, padded as in TensorFlow: for stride 2 one more on the right and below."""

    def __init__(self, channels: int, filters: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, filters, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        pads = []
        for size in (input.shape[3], input.shape[2]):
            stride, kernel = self.stride[0], self.kernel_size[0]
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(input, pads) if any(pads) else input)


class _Block(nn.Module):
    """An inverted residual block: expanded, filtered channel by channel, projected back."""

    def __init__(self, channels: int, filters: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and channels == filters
        if self.expands:
            self._expand_conv, self._bn0 = _Convolution(channels, inner, 1), _norm(inner)
        self._depthwise_conv, self._bn1 = (
            _Convolution(inner, inner, kernel, stride, groups=inner),
            _norm(inner),
        )
        self._project_conv, self._bn2 = _Convolution(inner, filters, 1), _norm(filters)

    def forward(self, input: Tensor) -> Tensor:
        x = F.relu6(self._bn0(self._expand_conv(input))) if self.expands else input
        x = F.relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return x + input if self.adds else x


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def prepare(images: Tensor, size: int = 128) -> Tensor:
    """Prepares images (B, 1 or 3, H, W) in [0, 1] as in training: (B, 3, size, size) in [-1, 1].

    They are resized by antialiased bicubic interpolation.
    """
    images = images.expand(-1, 3, -1, -1)
    if images.shape[2:] != (size, size):
        images = F.interpolate(images, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
    return images * 2 - 1
