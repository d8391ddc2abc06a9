"""The table of verbs, used by dispatch, help, completion and the check of words."""

from __future__ import annotations

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
from genlab.config.schema import Setting, settings_of


@dataclass(frozen=True)
class Verb:
    """One command.

    Attributes:
        summary: one line, for the overview and the top of the verb's help page.
        examples: commands without `genlab VERB`; an optional remark follows after two or more blanks.
        config: the dataclass of a verb for trained models, whose module `genlab.commands.NAME` has a
            `main(plain)`; None for the verbs that `genlab.cli.main` handles by name.
        usage: the arguments that may follow the verb, one line for each form.
        notes: further information for the help page.
        other_datasets: whether dataset=NAME is accepted as short for dataset.name=NAME.
    """

    summary: str
    examples: tuple[str, ...]
    config: type | None = None
    usage: tuple[str, ...] = ("ckpt=PATH [key=value ...] [flags]",)
    notes: str = ""
    other_datasets: bool = False

    @property
    def settings(self) -> list[Setting]:
        """Returns the settings of a verb for trained models; none for the others."""
        return settings_of(self.config) if self.config else []

    @property
    def keys(self) -> list[str]:
        """Returns the keys without a dot that a verb for trained models accepts."""
        return [each.key for each in self.settings if each.key != "dataset" or self.other_datasets]


_VAE = "ckpt=outputs/train/20260101-120000-vae-digits"
_PIXELCNN = "ckpt=outputs/train/20260101-120000-gated_pixelcnn-digits"

VERBS = {
    "train": Verb(
        "train a model; writes a run folder with checkpoints, sample grids and metrics",
        (
            "model=vae dataset=mnist optimizer=adam schedule=warmup_cosine",
            "model=vqvae dataset=emoji                            colour images, no download needed",
            "model=gated_pixelcnn dataset=codes dataset.ckpt=RUN  a prior over the codes of a VQ-VAE",
            "-m model=vae model.latent=2,8,32 seed=0,1            a sweep: one run for each combination",
            "--config-dir mine model=my                           with your own mine/model/my.yaml",
            "--module my_models model=my                          a family of your own, in my_models.py",
        ),
        usage=("[group=option ...] [key=value ...] [flags]",),
    ),
    "resume": Verb(
        "continue a run from its newest valid checkpoint, as if it had never stopped, or train it longer",
        (
            "run=outputs/train/20260101-120000-vae-digits",
            "run=outputs/train/20260101-120000-vae-digits trainer.steps=20000",
            "run=outputs/train/20260101-120000-vae-digits --cfg job     prints its configuration",
        ),
        usage=("run=PATH [key=value ...] [flags]",),
        notes="""\
run=PATH is the run folder. These settings may change: all of trainer except batch_size (trainer.steps is the
length of the whole run), optimizer.lr, and where the data are (dataset.root, dataset.path, dataset.ckpt).""",
    ),
    "sample": Verb(
        "draw images from a trained model: a grid, one PNG per image, and arrays on request",
        (
            _VAE,
            f"{_VAE} n=1000 seed=3 npz=true",
            f"{_VAE}/checkpoints/step-00004000.pt run_dir=pictures",
        ),
        SampleConfig,
    ),
    "complete": Verb(
        "fill in the unknown pixels of images, with an autoregressive model",
        (
            f"{_PIXELCNN} keep=top",
            f"{_PIXELCNN} keep=left resample=16 n=4",
            f"{_PIXELCNN} images=mine.png keep=mask.png",
        ),
        CompleteConfig,
        notes="""\
Pixels are drawn row by row. Where the known pixels come first (keep=top), completions are exact draws
from the model given them; otherwise resample=... approximates this, more closely with more candidates.""",
    ),
    "reconstruct": Verb(
        "encode and decode images, and measure the reconstruction error",
        (_VAE, f"{_VAE} split=train count=100", f"{_VAE} images=mine.png"),
        ReconstructConfig,
        notes="""\
An image is decoded from the mean of its code, without noise. The peak signal-to-noise ratio of images in
[0, 1] is 10 log10(1 / mean squared error), in decibels. A model that takes labels is given the dataset's;
for your own images, the class with the highest likelihood is used.""",
    ),
    "encode": Verb(
        "compute latent codes of images, a map of them, and a linear probe of their classes",
        (
            _VAE,
            f"{_VAE} map=tsne split=train count=1000",
            "ckpt=outputs/train/20260101-120000-vae-mnist dataset=fashion_mnist",
        ),
        EncodeConfig,
        notes="""\
Writes codes.npz (codes, labels, index, split; also train_codes and train_labels), map.png and encoding.json.
The linear probe is a multinomial logistic regression on standardised codes of 10,000 training images, its
penalty chosen on validation images; its accuracy is measured on test images. For comparison, the same is done
for as many principal components of the pixels, and the reconstruction error of both is given. Another dataset
keeps its own settings, e.g. dataset=folder dataset.path=mine dataset.size=28 dataset.channels=1.""",
        other_datasets=True,
    ),
    "interpolate": Verb(
        "interpolate between two latents, of images or samples, and decode: one row for each pair",
        (
            f"{_VAE} between=images",
            "ckpt=outputs/train/20260101-120000-gan-digits path=spherical seed=3",
            f"{_VAE} between=images images=mine steps=20",
        ),
        InterpolateConfig,
        notes="""\
Samples are those of genlab sample with the same seed; for images, the ends are reconstructions.""",
    ),
    "traverse": Verb(
        "change one dimension of a latent at a time, or move from one class towards another",
        (
            _VAE,
            f"{_VAE} around=image number=5 dimensions=[0,3]",
            f"{_VAE} around=image direction=[3,8]",
        ),
        TraverseConfig,
        notes="""\
In the row of a dimension, the latent's value in that dimension is replaced; in the row of a direction, the
latent moves along the direction. A two-dimensional latent space also gives manifold.png: 20 x 20 latents,
evenly spaced in the prior's probability. For a categorical latent, each variable has a row with one image for
each class.""",
    ),
    "denoise": Verb(
        "remove noise from images with a model that reconstructs them, and compare with a median filter",
        (
            "ckpt=outputs/train/20260101-120000-dae-digits",
            "ckpt=outputs/train/20260101-120000-dae-digits noise=salt_and_pepper level=0.1",
            f"{_VAE} noise=gaussian level=0.2 images=mine",
        ),
        DenoiseConfig,
        notes="""\
Noise is added first, except with noise=none. The peak signal-to-noise ratios of the noisy image, the denoised
image and the result of a 3x3 median filter are compared. A model trained without noise (vae, ae) works only
on images similar to its training images.""",
    ),
    "evaluate": Verb(
        "evaluate a trained model on a data split, and compare its samples with data",
        (
            _VAE,
            f"{_VAE} split=validation images=500",
            f"{_VAE} weights=raw device=cpu",
            f"{_VAE} measure=auto n=1000",
            "samples=my_pictures dataset=emoji measure=[lite0,random_conv]",
        ),
        EvaluateConfig,
        usage=(
            "ckpt=PATH [key=value ...] [flags]",
            "samples=FOLDER dataset=NAME [key=value ...] [flags]",
        ),
        notes="""\
measure compares samples with data by Fréchet and kernel distance, precision, recall, density and coverage of
features. Extractors: pixels, random_conv, lenet (a classifier of the dataset), lite0, inception, dinov2, or
auto for the extractor that fits the images; frechet_lenet for a single metric.""",
        other_datasets=True,
    ),
    "list": Verb(
        "list the models, datasets, optimizers, schedules, recipes and sweeps, one per line",
        (
            "",
            "models               one group",
            "--config-dir mine    with your own configurations",
        ),
        usage=("[GROUP] [flags]",),
    ),
    "completion": Verb(
        "print the script that makes a shell complete genlab's words with the TAB key",
        (),
        usage=("bash|zsh|fish",),
        notes="""\
eval "$(genlab completion bash)"                                      this session; in ~/.bashrc for all
eval "$(genlab completion zsh)"                                       this session; in ~/.zshrc for all
genlab completion fish > ~/.config/fish/completions/genlab.fish       all sessions""",
    ),
}
