"""The variational autoencoder with labels (Kingma et al. 2014, M2; Sohn et al. 2015)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from genlab.config.autoencoders import ConditionalVAEConfig
from genlab.data.spec import Batch, DataSpec
from genlab.errors import ConfigError
from genlab.families.checks import labels_remedy
from genlab.families.vae import VAE
from genlab.rng import SampleRng

_ANALOGIES, _ANALOGY_CLASSES = 10, 30


class ConditionalVAE(VAE):
    """A variational autoencoder that maximises a bound on log p(x | y) of images with their labels.

    The latent is independent of the label a priori, so that it is left with what the label does not say, the
    style: p(x, z | y) = p(x | y, z) p(z), with q(z | x, y) (Kingma et al. 2014, eqs. 2 and 6, without the
    constant log p(y)).
    """

    Config = ConditionalVAEConfig
    takes_labels = True

    def __init__(self, config: ConditionalVAEConfig, spec: DataSpec) -> None:
        if spec.classes < 2 and spec.kind != "none":
            lacks = "no labels" if spec.classes == 0 else "a single class"
            raise ConfigError(f"model={config.name}: {spec.name} has {lacks}; {labels_remedy(spec, 'vae')}")
        super().__init__(config, spec)

    def log_evidence(self, images: Tensor, noise: Tensor) -> Tensor:
        """Returns log [p(x, z | y) / q(z | x, y)] of each class y, for one latent each: (B, classes) nats.

        Each estimates log p(x | y), and in expectation lies below it.

        Args:
            noise: standard normal, (B, latent); the same for all classes.
        """
        columns = []
        for label in range(self.spec.classes):  # one by one, so that memory does not grow with the classes
            labels = torch.full((len(images),), label, device=images.device)
            posterior = self.vae.encode(images, labels)
            columns.append(self.log_weights(images, posterior, posterior.sample(noise)[None], labels)[0])
        return torch.stack(columns, 1)

    def infer_labels(self, images: Tensor, *, rng: SampleRng) -> Tensor:
        """Returns the class of the greatest `log_evidence`: Bayes' rule for classes of equal probability."""
        return self.log_evidence(images, self.draw_noise(rng)).argmax(1)

    def evaluate(
        self, batch: Batch, *, rng: SampleRng, importance_samples: int | None = None
    ) -> dict[str, Tensor]:
        """Returns the bounds on log p(x | y) for the true label y, and one without the label.

        Returns:
            also unlabelled_nats, an upper bound on -log p(x) for classes of equal probability, by one latent
            of each: the one to compare with models without labels. And label_accuracy, 1 where the class of
            the greatest `log_evidence` is the label, else 0.
        """
        evidence = self.log_evidence(batch.images, self.draw_noise(rng))
        values = super().evaluate(batch, rng=rng, importance_samples=importance_samples)
        values["unlabelled_nats"] = math.log(self.spec.classes) - evidence.logsumexp(1)
        values |= self._bits_per_dim("unlabelled", values["unlabelled_nats"])
        values["label_accuracy"] = (evidence.argmax(1) == batch.labels).float()
        return values

    def pictures(self, batch: Batch, *, rng: SampleRng) -> dict[str, Tensor]:
        """Returns reconstructions, and analogies: each image in a row, then its latent with every label.

        The latent is the posterior's mean (Kingma et al. 2014, figure 1b). Of many classes: the first 30.
        """
        pictures = super().pictures(batch, rng=rng)
        if self.spec.kind != "images":
            return pictures
        assert batch.labels is not None
        images = batch.images[:_ANALOGIES]
        codes = self.encode(images, batch.labels[:_ANALOGIES])
        classes = torch.arange(min(self.spec.classes, _ANALOGY_CLASSES), device=images.device)
        drawn = self.decode(codes.repeat_interleave(len(classes), 0), classes.repeat(len(codes)))
        pictures["analogies"] = torch.cat([images[:, None], drawn.unflatten(0, (len(codes), -1))], 1)
        return pictures

    def facts(self) -> dict[str, Any]:
        bound = "negative ELBO on log p(x | label), 1 posterior sample"
        return super().facts() | {"bound": bound}
