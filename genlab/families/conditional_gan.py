"""Adversarial networks with labels: AC-GAN (Odena et al. 2017) and projection (Miyato and Koyama 2018)."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from genlab.adversarial import losses
from genlab.config.adversarial import ACGANConfig, ProjectionGANConfig
from genlab.data.spec import DataSpec
from genlab.errors import ConfigError
from genlab.families.base import Metrics
from genlab.families.checks import labels_remedy
from genlab.families.gan import GAN


class ProjectionGAN(GAN):
    """The discriminator's logit gets the inner product of its features with a vector of the label.

    Both players are given labels: those of the data, and uniformly drawn ones for samples.
    """

    Config = ProjectionGANConfig
    takes_labels = True
    conditioning = "projection"

    def __init__(self, config: Any, spec: DataSpec) -> None:
        if spec.classes < 2:
            raise ConfigError(f"model={config.name}: {spec.name} has no labels; {labels_remedy(spec, 'gan')}")
        super().__init__(config, spec)


class ACGAN(ProjectionGAN):
    """The discriminator also classifies; only the generator is given labels."""

    Config = ACGANConfig
    conditioning = "auxiliary"

    def opponent_objective(
        self, real: Tensor, fake: Tensor, labels: Tensor | None = None, drawn: Tensor | None = None
    ) -> tuple[Tensor, Metrics]:
        """Returns -L_S - weight * L_C, with L_C over data and samples (Odena et al. 2017, eqs. 2 and 3).

        L_C is a sum over the two halves, as L_S is.
        """
        assert labels is not None
        assert drawn is not None
        features = self.opponent.features_of_both(real, fake)
        loss, metrics = self.adversarial_objective(real, features)
        class_loss = self.class_loss(features[0], labels) + self.class_loss(features[1], drawn)
        metrics["discriminator_class_loss"] = class_loss
        return loss + self.config.discriminator_class_weight * class_loss, metrics

    def generator_objective(self, fake: Tensor, drawn: Tensor | None = None) -> tuple[Tensor, Metrics]:
        """Returns its adversarial loss, plus weight * L_C of samples and the labels drawn for them."""
        assert drawn is not None
        features = self.opponent.features(fake)
        loss = losses.generator_loss(self.config.loss, self.opponent.logits(features))
        class_loss = self.class_loss(features, drawn)
        metrics = {"generator_loss": loss, "generator_class_loss": class_loss}
        return loss + self.config.generator_class_weight * class_loss, metrics

    def class_loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Returns -E log P(C = c | x) from the discriminator's features of x, a scalar."""
        return F.cross_entropy(self.opponent.class_logits(features).float(), labels)
