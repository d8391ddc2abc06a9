"""The VQ-VAE: an autoencoder whose latents are a map of discrete codes (van den Oord et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from genlab.config.autoencoders import VQVAEConfig
from genlab.data.spec import Batch, DataSpec
from genlab.data.statistics import PixelStatistics
from genlab.distributions.likelihoods import (
    DiscretizedLogistic,
    Likelihood,
    bits_per_dim,
    make_likelihood,
)
from genlab.errors import ConfigError
from genlab.families.autoencoder import in_turn
from genlab.families.base import LatentFamily, Loader, Metrics, UpdateProtocol
from genlab.families.checks import check_images, check_sides
from genlab.families.latent_variable import choose_likelihood, make_log_sigma, sigma_warning, start_log_sigma
from genlab.nets.vqvae import Codebook, Use, VQVAEDecoder, VQVAEEncoder, map_sizes, perplexity
from genlab.rng import SampleRng

_SMALLEST_MAP = 2  # places to a side
_FEW_CODES = 0.05


class VQVAENet(nn.Module):
    """Encoder, codebook and decoder.

    Args:
        config, spec: see VQVAEConfig; of the images.
        outputs: channels of the decoder's result.
        learns_sigma: holds the Gaussian likelihood's log standard deviation as a weight.
    """

    def __init__(self, config: VQVAEConfig, spec: DataSpec, outputs: int, learns_sigma: bool) -> None:
        super().__init__()
        sizes = (config.width, config.residual_blocks, config.halvings, config.code_dimensions)
        self.encoder = VQVAEEncoder(spec.channels, *sizes)
        self.decoder = VQVAEDecoder((outputs, spec.height, spec.width), *sizes)
        places = math.prod(map_sizes(spec.height, spec.width, config.halvings)[-1])
        self.codebook = Codebook(config.codes, config.code_dimensions, places, config.ema_decay)
        self.log_sigma = make_log_sigma(learns_sigma)

    def encode(self, images: Tensor) -> Tensor:
        """Returns the vectors of images, before they are quantised: (B, D, h, w) float32."""
        return self.encoder(images - 0.5).float()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns vectors (B, D, h, w) of images, their nearest codes (B, h, w), and the decoder's outputs.

        The decoder gets the codes' vectors e of vectors z; z gets the gradient of e (section 3.2).
        """
        latents = self.encode(images)
        codes = self.codebook.nearest(latents)
        straight_through = latents + (self.codebook(codes) - latents).detach()
        return latents, codes, self.decoder(straight_through)


class VQVAE(LatentFamily):
    """An autoencoder through a map of discrete codes. A prior over these is another model: dataset=codes."""

    Config = VQVAEConfig
    players = ("vqvae",)
    sampled_by = ("vqvae",)
    generates = False
    encodes = True

    def __init__(self, config: VQVAEConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        check_map(config, spec)
        self.likelihood_name = choose_likelihood(config, spec)  # type: ignore[arg-type]
        parameters = DiscretizedLogistic.parameters if self.likelihood_name == "discretized_logistic" else 1
        learns_sigma = self.likelihood_name == "gaussian" and config.sigma is None
        self.map_size = map_sizes(spec.height, spec.width, config.halvings)[-1]
        self.vqvae = VQVAENet(config, spec, parameters * spec.channels, learns_sigma)

    def begin(self, statistics: PixelStatistics | None, load: Loader | None = None) -> None:
        """The decoder starts at independent pixels with the means and spreads of the training data."""
        assert statistics is not None
        self.vqvae.decoder.offset.set(self.likelihood.outputs_of(statistics))
        start_log_sigma(self.vqvae.log_sigma, statistics)

    @property
    def likelihood(self) -> Likelihood:
        """Returns the likelihood, made when asked for: the moving average has its own standard deviation."""
        return make_likelihood(self.likelihood_name, self.spec, self.config.sigma, self.vqvae.log_sigma)

    def step(self, batches: Iterator[Batch], update: UpdateProtocol) -> Metrics:
        """A gradient step of encoder and decoder (eq. 3), then the codebook follows (appendix A.1).

        The codebook starts at vectors of the first batch. What it follows is averaged as gradients are, over
        micro-batches and processes.
        """
        config, codebook, images = self.config, self.vqvae.codebook, next(batches).images
        if update.step == 0:
            codebook.start(self._vectors(images))
            update.group.broadcast_(list(codebook.buffers()))
        metrics = update("vqvae", self.loss, images)
        use = Use(*(metrics.pop(name) for name in Use._fields))
        update.group.mean_(list(use))
        codebook.follow(use)
        metrics["codebook_perplexity"] = perplexity(use.counts)
        metrics["codes_used_share"] = (use.counts > 0).float().mean()
        if config.restart_every and (update.step + 1) % config.restart_every == 0:
            metrics["dead_codes_restarted"] = codebook.restart(self._vectors(images), config.restart_below)
            update.group.broadcast_(list(codebook.buffers()))
        return metrics

    def loss(self, images: Tensor) -> tuple[Tensor, Metrics]:
        """Returns -log p(x | e) + commitment |z - e|^2, averaged over images (eq. 3 without its second term).

        Both are sums over an image: the first over C, H and W, nats; the second over all h w vectors z and
        their D numbers. The scale of the vectors is the encoder's own choice, and what a vector is off by
        costs its share of nats, so that no weight depends on the size of an image.

        Returns:
            also, as metrics, the batch's `Use` of the codes.
        """
        latents, codes, outputs = self.vqvae(images)
        reconstruction = -self.likelihood.log_prob(outputs, images).mean()
        error = self.quantization_error(latents, codes).mean()
        metrics = {"reconstruction_nats": reconstruction, "quantization_error": error}
        use = self.vqvae.codebook.use(latents.detach(), codes)
        return reconstruction + self.config.commitment * error, metrics | use._asdict()

    def quantization_error(self, latents: Tensor, codes: Tensor) -> Tensor:
        """Returns |z - e|^2, summed over the vectors of each image: (B,)."""
        return (latents - self.vqvae.codebook(codes)).square().flatten(1).sum(1)

    def sample(self, n: int, *, rng: SampleRng, labels: Tensor | None = None) -> Tensor:
        raise ConfigError(f"model={self.config.name}: has no prior to draw from; train one on dataset=codes")

    def codes_of(self, images: Tensor) -> Tensor:
        """Returns the codes of images (B, C, H, W) in [0, 1], (B, h, w) int64 in 0..K-1."""
        return self.vqvae.codebook.nearest(self.vqvae.encode(images))

    def images_of(self, codes: Tensor) -> Tensor:
        """Returns the likelihood's mean for codes (B, h, w), (B, C, H, W) in [0, 1]."""
        return self.likelihood.mean(self.vqvae.decoder(self.vqvae.codebook(codes)))

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns the vectors of the codes of images, flattened: (B, D h w)."""
        return self.vqvae.codebook(self.codes_of(images)).flatten(1)

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns the images of the codes that are nearest to vectors (B, D h w)."""
        vectors = latents.unflatten(1, (self.config.code_dimensions, *self.map_size))
        return self.images_of(self.vqvae.codebook.nearest(vectors))

    def evaluate(self, batch: Batch, *, rng: SampleRng) -> dict[str, Tensor]:
        """Returns the reconstruction error of each image, and a bound on its likelihood.

        Returns:
            elbo_nats: an upper bound on -log p(x), for a prior that is uniform over codes: the posterior is
                sure of its codes, so the KL term is h w log K (section 3.1). A prior trained on the codes
                gives a lower one, which the evaluation of such a model reports.
            elbo_bits_per_dim: of the stored levels; left out for a density of values not dequantised.
            reconstruction_nats, kl_nats: its two terms.
            quantization_error: see `loss`.
            codes: (B, h w), for `summarize`.
        """
        latents, codes, outputs = self.vqvae(batch.images)
        reconstruction = -self.likelihood.log_prob(outputs, batch.images)
        kl = torch.full_like(reconstruction, math.prod(self.map_size) * math.log(self.config.codes))
        values = {"elbo_nats": reconstruction + kl, "reconstruction_nats": reconstruction, "kl_nats": kl}
        values |= bits_per_dim("elbo", reconstruction + kl, self.likelihood, self.spec)
        values["quantization_error"] = self.quantization_error(latents, codes)
        return values | {"codes": codes.flatten(1)}

    def summarize(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Returns how a split uses the codebook.

        Returns:
            codebook_perplexity: exp of the entropy of the codes, 1 to K.
            codes_used_share: of the K codes, those that any image has.
            sigma: the standard deviation of a Gaussian likelihood, where it is learned.
        """
        counts = values["codes"].flatten().bincount(minlength=self.config.codes).double()
        sigma = self.vqvae.log_sigma
        return ({} if sigma is None else {"sigma": sigma.exp().item()}) | {
            "codebook_perplexity": perplexity(counts).item(),
            "codes_used_share": (counts > 0).double().mean().item(),
        }

    def pictures(self, batch: Batch, *, rng: SampleRng) -> dict[str, Tensor]:
        """Returns reconstructions: rows of originals, each above the row of their reconstructions."""
        return {"reconstructions": in_turn(batch.images, self.images_of(self.codes_of(batch.images)))}

    def warnings(self, means: dict[str, float]) -> dict[str, str]:
        """Warns of a codebook that has collapsed."""
        if means["codebook_perplexity"] >= 2:
            return {}
        return {"collapse": "nearly all codes are the same one; lower optimizer.lr or raise model.commitment"}

    def validation_warnings(self, numbers: Mapping[str, float]) -> dict[str, str]:
        """Warns of a codebook of which little is used, and of a standard deviation at its bound."""
        found, codes = sigma_warning(numbers), self.config.codes
        if numbers["codebook_perplexity"] < _FEW_CODES * codes:
            restarts = "" if self.config.restart_every else "model.restart_every=20, "
            found["codebook_collapse"] = (
                f"the codebook has collapsed: images use {numbers['codes_used_share']:.0%} of its {codes} "
                f"codes, as if there were {numbers['codebook_perplexity']:.0f}, so images lose much; try "
                f"{restarts}a lower optimizer.lr or fewer model.codes"
            )
        return found

    def facts(self) -> dict[str, Any]:
        height, width = self.map_size
        kind = "density of values in [0, 1]" if self.likelihood.density else "probability of levels"
        return {
            "bound": f"negative ELBO, posterior sure of its codes, uniform prior over {self.config.codes} "
            f"codes at {height}x{width} places",
            "likelihood": f"{self.likelihood_name} ({kind})",
        }

    def _vectors(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.vqvae.encode(images)


def check_map(config: VQVAEConfig, spec: DataSpec) -> None:
    """Refuses what cannot be halved to a map of codes.

    Raises:
        ConfigError: no images, sides under 8 or over 64 pixels, or too many halvings of them.
    """
    check_images(config.name, spec)
    check_sides(f"dataset={spec.name}", config.name, spec)
    most = (min(spec.height, spec.width) // _SMALLEST_MAP).bit_length() - 1
    if config.halvings > most:
        raise ConfigError(
            f"model.halvings={config.halvings}: little is left of images of {spec.height}x{spec.width} "
            f"pixels; use at most model.halvings={most}"
        )
