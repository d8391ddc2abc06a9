"""The verbs: a row each, read by dispatch, help, completion and the check of words."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from genlab.config.commands import (
    CompleteConfig,
    DenoiseConfig,
    EncodeConfig,
    EvaluateConfig,
    InterpolateConfig,
    ReconstructConfig,
    SampleConfig,
    TraverseConfig,
)


@dataclass(frozen=True)
class Verb:
    """One command.

    Attributes:
        summary: one line for the overview.
        config: the dataclass of a verb on a trained model, whose module `genlab.commands.NAME` has a
            `main(plain)`; None for the verbs that `genlab.cli.main` treats by name.
        other_datasets: it also takes dataset=NAME, which is short for dataset.name=NAME.
    """

    summary: str
    config: type | None = None
    other_datasets: bool = False

    @property
    def keys(self) -> list[str]:
        """The words that may stand before `=` without a dot, for a verb on a trained model."""
        names = [field.name for field in dataclasses.fields(self.config)] if self.config else []
        return [name for name in names if name != "dataset" or self.other_datasets]


VERBS = {
    "train": Verb("train a model; leaves a run folder in outputs/train"),
    "resume": Verb("go on with a run that was cut off, or go on for longer"),
    "sample": Verb("images out of a trained model", SampleConfig),
    "complete": Verb("the rest of images of which a part is known", CompleteConfig),
    "reconstruct": Verb("images by way of their latent codes, and how near they come", ReconstructConfig),
    "encode": Verb(
        "the latent codes of images, a map of them, and what can be read off them",
        EncodeConfig,
        other_datasets=True,
    ),
    "interpolate": Verb("what lies between two images or samples", InterpolateConfig),
    "traverse": Verb(
        "what each dimension of a latent, or the way from one class to another, does", TraverseConfig
    ),
    "denoise": Verb("images with noise, which a model takes out again", DenoiseConfig),
    "evaluate": Verb(
        "the numbers of a trained model on a split of its dataset", EvaluateConfig, other_datasets=True
    ),
    "list": Verb("the models, datasets, optimizers, schedules and recipes there are"),
    "completion": Verb("what the shell needs to complete words with the TAB key"),
}
