"""The autoencoder, and the denoising autoencoder (Vincent et al. 2008, 2010)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.config.autoencoders import AEConfig, DAEConfig
from genlab.data.corruption import DefaultDraws, Draws, corrupt
from genlab.data.spec import Batch, DataSpec
from genlab.data.statistics import PixelStatistics
from genlab.distributions.likelihoods import Likelihood, make_likelihood
from genlab.errors import ConfigError
from genlab.families.base import LatentFamily, Loader, Metrics, UpdateProtocol
from genlab.families.checks import check_images
from genlab.families.latent_variable import check_size
from genlab.metrics.fidelity import mean_squared_error
from genlab.nets.autoencoder import choose_network, make_decoder, make_encoder
from genlab.rng import SampleRng

_COLUMNS = 10
_ERRORS = {"bernoulli": "cross_entropy_nats", "gaussian": "squared_error"}


class AENet(nn.Module):
    """Encoder and decoder; see AEConfig, and (C, H, W) of the images."""

    def __init__(self, config: AEConfig, shape: tuple[int, int, int]) -> None:
        super().__init__()
        network = choose_network(config.network, *shape[1:])
        sizes: dict[str, Any] = {"hidden": config.hidden, "width": config.width}
        self.encoder = make_encoder(network, shape, outputs=config.latent, **sizes)
        self.decoder = make_decoder(network, shape, latent=config.latent, **sizes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns outputs (B, C, H, W): logits, or means less 1/2; see `distributions.likelihoods`."""
        return self.decoder(self.encoder(images))


class AE(LatentFamily):
    """An autoencoder reconstructs an image through a code of few numbers; it has no prior to draw from."""

    Config: ClassVar[type] = AEConfig
    players = ("autoencoder",)
    sampled_by = ("autoencoder",)
    generates = False
    encodes = True

    def __init__(self, config: AEConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        check_images(config.name, spec)
        check_size(config, spec)  # type: ignore[arg-type]
        auto = "bernoulli" if spec.levels == 2 else "gaussian"
        self.likelihood_name = auto if config.likelihood == "auto" else config.likelihood
        self.autoencoder = AENet(config, spec.shape)

    def begin(self, statistics: PixelStatistics | None, load: Loader | None = None) -> None:
        """The decoder starts at the means of the training images."""
        assert statistics is not None
        self.autoencoder.decoder.offset.set(self.likelihood.outputs_of(statistics))

    @property
    def likelihood(self) -> Likelihood:
        """Returns what outputs mean; its log-probabilities are not those of the loss."""
        return make_likelihood(self.likelihood_name, self.spec, 1.0, None)

    def step(self, batches: Iterator[Batch], update: UpdateProtocol) -> Metrics:
        """Vincent et al. 2008, section 2.3: reconstructs the images from corrupted ones."""
        images = next(batches).images
        return update("autoencoder", self.loss, images, self.corrupted(images, DefaultDraws(images)))

    def corrupted(self, images: Tensor, draws: Draws) -> Tensor:
        """Returns what the encoder is given of images: here the images themselves."""
        return images

    def loss(self, images: Tensor, corrupted: Tensor) -> tuple[Tensor, Metrics]:
        """Returns the reconstruction error for corrupted images, averaged over images."""
        error = self.error(self.autoencoder(corrupted), images).mean()
        return error, {_ERRORS[self.likelihood_name]: error}

    def error(self, outputs: Tensor, images: Tensor) -> Tensor:
        """Returns the error summed over C, H and W in float32, (B,) (Vincent et al. 2010, section 2.2).

        Bernoulli: the cross-entropy -x log y - (1 - x) log(1 - y) of logits, in nats; for grey levels it is
        no likelihood, and least at y = x all the same. Gaussian: the squared error (x - y)^2.
        """
        if self.likelihood_name == "bernoulli":
            each = F.binary_cross_entropy_with_logits(outputs.float(), images, reduction="none")
        else:
            each = (images - (outputs.float() + 0.5)).square()
        return each.flatten(1).sum(1)

    def images_of(self, outputs: Tensor) -> Tensor:
        """Returns the images that outputs stand for, in [0, 1]."""
        return self.likelihood.mean(outputs)

    def sample(self, n: int, *, rng: SampleRng, labels: Tensor | None = None) -> Tensor:
        raise ConfigError(f"model={self.config.name}: has no prior to draw from")

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.autoencoder.encoder(images).float()

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.images_of(self.autoencoder.decoder(latents))

    def evaluate(self, batch: Batch, *, rng: SampleRng) -> dict[str, Tensor]:
        """Returns the reconstruction errors of each image.

        Returns:
            the loss of images without noise, and mean_squared_error, over the numbers of an image.
        """
        outputs = self.autoencoder(batch.images)
        return {
            _ERRORS[self.likelihood_name]: self.error(outputs, batch.images),
            "mean_squared_error": mean_squared_error(batch.images, self.images_of(outputs)),
        }

    def pictures(self, batch: Batch, *, rng: SampleRng) -> dict[str, Tensor]:
        """Returns reconstructions: rows of originals, each above the row of their reconstructions."""
        return {"reconstructions": in_turn(batch.images, self.images_of(self.autoencoder(batch.images)))}

    def facts(self) -> dict[str, Any]:
        return {"reconstruction": f"through the code, {_ERRORS[self.likelihood_name]} summed over an image"}


class DAE(AE):
    """A denoising autoencoder is given images with noise and learns to reconstruct them without it."""

    Config = DAEConfig

    def corrupted(self, images: Tensor, draws: Draws) -> Tensor:
        """Returns images with the noise of the configuration."""
        return corrupt(images, self.config.noise, self.config.noise_level, draws)

    def evaluate(self, batch: Batch, *, rng: SampleRng) -> dict[str, Tensor]:
        """Returns the numbers of an autoencoder, and those of images with noise.

        Returns:
            also denoising_mean_squared_error, of the image and its reconstruction from the noisy one; and
            noisy_mean_squared_error, of the image and the same with noise, within [0, 1].
        """
        noisy = self.corrupted(batch.images, rng)
        restored = self.images_of(self.autoencoder(noisy))
        return super().evaluate(batch, rng=rng) | {
            "denoising_mean_squared_error": mean_squared_error(batch.images, restored),
            "noisy_mean_squared_error": mean_squared_error(batch.images, noisy.clamp(0, 1)),
        }

    def pictures(self, batch: Batch, *, rng: SampleRng) -> dict[str, Tensor]:
        """Returns rows of originals, of these with noise, and of the reconstructions of the latter."""
        noisy = self.corrupted(batch.images, rng)
        return {"denoised": in_turn(batch.images, noisy, self.images_of(self.autoencoder(noisy)))}

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"noise": f"{self.config.noise} {self.config.noise_level:g}"}


def in_turn(*versions: Tensor) -> Tensor:
    """Returns versions of the same images (N, C, H, W) in rows, a row of each in turn: (R, K, C, H, W)."""
    columns = min(_COLUMNS, len(versions[0]))
    whole = len(versions[0]) // columns * columns
    return torch.stack([version[:whole].unflatten(0, (-1, columns)) for version in versions], 1).flatten(0, 1)
