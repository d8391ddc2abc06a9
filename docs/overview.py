"""Makes images/overview.png, the picture of the README, from pictures of runs: python docs/overview.py"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
from PIL import Image

IMAGES = Path(__file__).parent / "images"
PANELS = {
    "Gated PixelCNN draws digits": ("gated_pixelcnn_mnist_samples.png", (0, 0, 466, 466)),
    "and completes them": ("gated_pixelcnn_mnist_completions.png", (0, 0, 466, 466)),
    "VAE: every code decodes to a digit": ("vae_mnist_manifold.png", (0, 0, 1162, 1162)),
    "where test images lie among them": ("vae_mnist_map.png", (66, 28, 588, 550)),
    "AC-GAN: a class a row": ("acgan_fashion_mnist_samples.png", (0, 0, 350, 350)),
    "VQ-VAE and its prior: emoji": ("vqvae_emoji_samples.png", (264, 0, 530, 266)),
    "GAN: one of eight modes": ("ring_0_unrolled_steps.png", (2046, 26, 2386, 366)),
    "unrolled GAN: all eight": ("ring_5_unrolled_steps.png", (2046, 26, 2386, 366)),
}
"""Title -> file, and the part of it that is shown: left, upper, right, lower."""


def main() -> None:
    matplotlib.use("agg")
    figure, axes = plt.subplots(2, 4, figsize=(12, 6.5), layout="constrained")
    for axis, (title, (name, box)) in zip(axes.flat, PANELS.items(), strict=True):
        axis.imshow(Image.open(IMAGES / name).convert("RGB").crop(box), interpolation="antialiased")
        axis.set_title(title, fontsize=11)
        axis.set_axis_off()
    figure.savefig(IMAGES / "overview.png", dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
