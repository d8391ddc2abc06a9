"""The hierarchical variational autoencoder: several stochastic layers, inferred from the top down.

Sønderby et al. 2016 (the ladder VAE), with the deterministic state beside the latents that Kingma et al. 2016
and Vahdat and Kautz 2020 have in their bidirectional inference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from genlab.config.autoencoders import HierarchicalVAEConfig
from genlab.data.spec import Batch
from genlab.distributions.posteriors import DiagonalNormal, Posterior
from genlab.distributions.priors import FactorizedPrior
from genlab.families.base import Metrics
from genlab.families.latent_variable import VAENet, active
from genlab.families.vae import VAE
from genlab.nets.autoencoder import Shape, choose_network
from genlab.nets.ladder import LadderDecoder, LadderEncoder, LadderPosterior
from genlab.rng import SampleRng


class HierarchicalNet(VAENet):
    """The two ladders, without labels; latents are those of all layers. See `genlab.nets.ladder`."""

    decoder: LadderDecoder

    def forward(
        self, images: Tensor, noise: Tensor, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the tensors of `VAENet.forward`, of the distributions on the sample's way down.

        The mean and the log-variance of a layer are those given the sample of the layers above.
        """
        estimates = DiagonalNormal.read(self.encoder(images), self.latent)
        walk = self.decoder.walk(estimates, noise, sample=True)
        return walk.posterior.mean, walk.posterior.spread, self.decoder.outputs(walk.bottom)

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Posterior:
        return LadderPosterior.of(self.encoder(images), self.decoder)

    def _make_networks(
        self, config: HierarchicalVAEConfig, shape: Shape, out_shape: Shape
    ) -> tuple[nn.Module, nn.Module]:
        network = choose_network(config.network, *shape[1:])
        sizes = (config.latents, config.hidden, config.blocks, network, config.width)
        return LadderEncoder(shape, *sizes), LadderDecoder(out_shape, *sizes)


class HierarchicalVAE(VAE):
    """A variational autoencoder that maximises the evidence lower bound of several stochastic layers.

    To everything outside it is a variational autoencoder of the non-centred latents of all layers, layer 1
    first, whose prior is N(0, I); its posterior of a layer depends on the sample of those above.
    """

    Config = HierarchicalVAEConfig
    Network = HierarchicalNet
    vae: HierarchicalNet

    def objective(
        self, images: Tensor, noise: Tensor, kl_weight: float, labels: Tensor | None = None
    ) -> tuple[Tensor, Metrics]:
        """Returns -log p(x | z) + kl_weight * KL, summed over dimensions and layers, averaged over images.

        The KL term of a layer is in closed form, given the sample of the layers above (Sønderby et al. 2016).
        Under free bits it counts, averaged over the images, as no less than they are (Kingma et al. 2016,
        free bits, with a group for each layer).
        """
        posterior, log_likelihood = self.infer(images, noise)
        reconstruction = -log_likelihood.mean()
        layers = self.kl_of_layers(posterior).mean(0)
        kl, penalty = layers.sum(), layers.clamp(min=self.config.free_bits).sum()
        metrics = {
            "negative_elbo_nats": reconstruction + kl,
            "reconstruction_nats": reconstruction,
            "kl_nats": kl,
        }
        return reconstruction + kl_weight * penalty, metrics | by_layer("kl_nats", layers)

    def kl_of_layers(self, posterior: Posterior) -> Tensor:
        """Returns the KL term of each layer given the sample of those above, (B, layers) nats."""
        assert isinstance(self.vae.prior, FactorizedPrior)
        assert isinstance(posterior, DiagonalNormal)
        each = self.vae.prior.kl_of_dimensions(posterior)
        return torch.stack([part.sum(1) for part in each.split(self.config.latents, 1)], 1)

    def evaluate(
        self, batch: Batch, *, rng: SampleRng, importance_samples: int | None = None
    ) -> dict[str, Tensor]:
        """Returns the numbers of a variational autoencoder, with the KL term of each layer.

        Returns:
            also kl_nats_layer_1 and so on, from the image upwards. posterior_mean is that of the
            non-centred latents, given the sample of the layers above.
        """
        values = super().evaluate(batch, rng=rng, importance_samples=importance_samples)
        # The KL term has no three parts here: a layer's posterior is known on its own image's way down alone.
        posterior = DiagonalNormal(values["posterior_mean"], values.pop("posterior_log_variance"))
        return values | by_layer("kl_nats", self.kl_of_layers(posterior))

    def summarize(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Returns active_units as a variational autoencoder, and active_units_layer_1 and so on."""
        numbers = super().summarize(values)
        if not numbers:
            return {}
        layers = values["posterior_mean"].split(self.config.latents, 1)
        return numbers | {
            f"active_units_layer_{k}": int(active(part).sum()) for k, part in enumerate(layers, 1)
        }

    def validation_warnings(self, numbers: Mapping[str, float]) -> dict[str, str]:
        """Warns as a variational autoencoder; also of layers of which no latent is used, while others are."""
        found = super().validation_warnings(numbers)
        layers = range(1, len(self.config.latents) + 1)
        unused = [str(k) for k in layers if numbers.get(f"active_units_layer_{k}") == 0]
        if unused and "posterior_collapse" not in found:
            found["layer_collapse"] = (
                f"no latent of layer {' and '.join(unused)} says anything of an image: the model "
                f"works as one of fewer layers; {self.collapse_remedy()}"
            )
        return found

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"stochastic_layers": len(self.config.latents)}


def by_layer(name: str, values: Tensor) -> dict[str, Tensor]:
    """Returns values (..., layers) as NAME_layer_1 and so on."""
    return {f"{name}_layer_{k}": value for k, value in enumerate(values.unbind(-1), 1)}
