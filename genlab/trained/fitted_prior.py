"""A prior fitted to the codes of training images, for models without one (Ghosh et al. 2020, section 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from genlab.config.commands import SampleConfig
from genlab.distributions.categorical import one_hot
from genlab.errors import CheckpointError, ConfigError
from genlab.log import log
from genlab.rng import SampleRng
from genlab.trained.latent_space import check_has, codes_of_training, decode
from genlab.trained.model import LoadedModel

_MOST_DIMENSIONS = 64
"""Dimensions of the fitted Gaussians: larger covariances have too many parameters for 10,000 codes."""


class FittedMixture(NamedTuple):
    """K Gaussians of P dimensions, in the space of latents or in a subspace of it.

    weights: (K,), with sum 1.
    means: (K, P).
    roots: (K, P, P), lower triangles A of the covariances A A^T.
    subspace: its origin, (L,), and its directions, (P, L); None where latents have P dimensions.
    """

    weights: Tensor
    means: Tensor
    roots: Tensor
    subspace: tuple[Tensor, Tensor] | None = None

    def draw(self, rng: SampleRng) -> Tensor:
        """Draws a latent from each stream, (n, L)."""
        cumulative = self.weights.cumsum(0)[:-1]
        component = torch.searchsorted(cumulative, rng.uniform().to(cumulative), right=True)
        noise = rng.normal(self.means.shape[1]).to(self.means)
        latents = self.means[component] + (self.roots[component] @ noise[..., None])[..., 0]
        if self.subspace is not None:
            origin, directions = self.subspace
            latents = origin + latents @ directions
        return latents.float()


def fit(codes: Tensor, components: int, seed: int) -> FittedMixture:
    """Fits Gaussians with full covariances by EM; long codes are first reduced to 64 principal components.

    Args:
        codes: (N, L).
        seed: of the algorithm's initialization.
    """
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    rows, start, subspace = codes.double().numpy(), seed % 2**32, None
    if rows.shape[1] > _MOST_DIMENSIONS:
        plane = PCA(min(_MOST_DIMENSIONS, len(rows)), random_state=start)
        rows = plane.fit_transform(rows)
        subspace = torch.from_numpy(plane.mean_), torch.from_numpy(plane.components_)
    fitted = GaussianMixture(components, random_state=start).fit(rows)
    covariances = torch.from_numpy(fitted.covariances_)
    return FittedMixture(
        torch.from_numpy(fitted.weights_),
        torch.from_numpy(fitted.means_),
        torch.linalg.cholesky(covariances),
        subspace,
    )


def sampler(
    config: SampleConfig, model: LoadedModel, labels: Tensor | None = None
) -> Callable[[range], Tensor]:
    """Returns a function that draws images of given indices from a fitted prior, like `genlab.trained.draw`.

    Args:
        labels: (n,), for families that take labels, of all images that may be drawn; None for even ones.

    Raises:
        ConfigError: the model has no encoder, or there are fewer images than components, or than two.
    """
    family = check_has(model, config.ckpt, "encodes", "decodes")
    codes, _ = codes_of_training(model, config.dataset, config.batch_size, config.seed)
    if len(codes) < 2:
        raise ConfigError(
            f"prior=fit: {model.config.model.name} was trained on one image: its codes have no spread; "
            "see genlab reconstruct"
        )
    if config.components > len(codes):
        raise ConfigError(
            f"components={config.components}: there are {len(codes)} training images; use fewer"
        )
    if not codes.isfinite().all():
        raise CheckpointError(
            f"ckpt={config.ckpt}: its codes of images are not finite; use another checkpoint"
        )
    log.info("fitting %d Gaussians to the codes of %d training images", config.components, len(codes))
    prior = fit(codes, config.components, config.seed)

    def draw(indices: range) -> Tensor:
        rng = SampleRng(config.seed, indices)
        latents, own = prior.draw(rng), None
        if classes := family.latent_classes:  # Gaussians over probabilities: takes the likeliest class
            latents = one_hot(latents.unflatten(1, (-1, classes)).argmax(2), classes).flatten(1)
        if family.takes_labels:
            own = rng.integers(model.spec.classes) if labels is None else labels[list(indices)]
        return decode(family, latents, config.batch_size, own)

    return draw
