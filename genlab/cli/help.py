"""The help pages, and `genlab list`: what there is to choose from, read from the configuration folders."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from genlab.cli.verbs import VERBS
from genlab.cli.words import groups, options

_LISTED = {
    "model": "models",
    "dataset": "datasets",
    "optimizer": "optimizers",
    "schedule": "schedules",
    "trainer": "trainers",
    "recipe": "recipes",
    "experiment": "experiments",
    "sweep": "sweeps",
}

_DEFAULTS = {
    "model": "vae", "dataset": "digits", "optimizer": "adam", "schedule": "constant", "trainer": "default",
}  # fmt: skip

_OVERVIEW = """\
genlab: a laboratory bench for generative models of images.

usage: genlab VERB [key=value ...] [flags]

{verbs}

start with:
  genlab train                                   a VAE on small digits, a few minutes on a laptop
  genlab sample ckpt=outputs/train/...           then images; training ends with the folder's name
  genlab train --help                            what can be changed"""

_TRAIN = """\
genlab train: trains a model and leaves a run folder with checkpoints, sample grids and metrics.

usage: genlab train [group=option ...] [key=value ...] [flags]

groups (group=option; the first of each line is the default):
{groups}
  recipe=none leaves out the settings that come by themselves with a model and a dataset.

keys used most:
  seed=0                       every random number follows from it
  run_dir=PATH                 where the run goes; outputs/train/DATE-TIME-MODEL-DATASET without it
  trainer.steps=4000           length of the run
  trainer.batch_size=128       images of one update
  trainer.device=auto          auto, cpu, cuda, cuda:1, mps
  trainer.precision=fp32       fp32 or bf16
  optimizer.lr=0.001           learning rate
  dataset.root=PATH            where the data are, or go; the variable GENLAB_DATA without it
  model.latent=16              and whatever else the model has: genlab train --cfg job shows all of it

examples:
  genlab train model=vae dataset=mnist optimizer=adam schedule=warmup_cosine
  genlab train model=vqvae dataset=emoji                       colour, with nothing to download
  genlab train model=gated_pixelcnn dataset=codes dataset.ckpt=RUN   a prior over the codes of a VQ-VAE
  genlab train -m model=vae model.latent=2,8,32 seed=0,1       a sweep: a run for each combination
  genlab train --config-dir mine model=my                      with your own mine/model/my.yaml
"""

_RESUME = """\
genlab resume: goes on with a run from its newest whole checkpoint, as if it had never stopped.

usage: genlab resume run=PATH [key=value ...] [flags]

keys used most:
  run=PATH                     the run folder
  trainer.steps=20000          go on for longer: the length of the whole run
  trainer.device=cpu           on another machine
  dataset.root=PATH            where the data are now

examples:
  genlab resume run=outputs/train/20260101-120000-vae-digits
  genlab resume run=outputs/train/20260101-120000-vae-digits trainer.steps=20000
  genlab resume run=outputs/train/20260101-120000-vae-digits --cfg job     shows its configuration
"""

_SAMPLE = """\
genlab sample: draws images from a trained model: a grid, a PNG for each, and arrays on request.

usage: genlab sample ckpt=PATH [key=value ...] [flags]

keys used most:
  ckpt=PATH                    a run folder (its newest checkpoint) or one checkpoint file
  n=64                         how many images; without it one for each of labels, else 64
  seed=0                       image k depends on the seed and k alone
  labels=[3,3,7]               one class for each image, for models that take labels
  temperature=0.8              below 1 keeps to what is likely, for autoregressive models
  prior=fit components=10      Gaussians fitted to the codes of training images, for models with an encoder
  dataset.ckpt=PATH            where the VQ-VAE is now, for a prior over its codes
  weights=auto                 auto (the moving average where there is one), average, raw
  npz=true                     samples.npz too: images, uint8 (n, H, W, C)
  run_dir=PATH                 where they go; outputs/sample/DATE-TIME-MODEL-DATASET without it

examples:
  genlab sample ckpt=outputs/train/20260101-120000-vae-digits
  genlab sample ckpt=outputs/train/20260101-120000-vae-digits n=1000 seed=3 npz=true
  genlab sample ckpt=outputs/train/20260101-120000-vae-digits/checkpoints/step-00004000.pt run_dir=pictures
"""

_COMPLETE = """\
genlab complete: draws the rest of images of which a part is known, with an autoregressive model.

usage: genlab complete ckpt=PATH [key=value ...] [flags]

keys used most:
  ckpt=PATH                    a run folder (its newest checkpoint) or one checkpoint file
  images=PATH                  a picture or a folder of pictures, of the model's size; without it
  count=8 split=test           so many of a split of the dataset, drawn at random, always the same
  keep=top                     what is known: top (the upper half), left, or a picture of a mask, white there
  n=8                          completions of each image
  resample=16                  looks ahead: of so many candidates one, by the likelihood of known pixels
  temperature=0.8              below 1 keeps to what is likely
  labels=[3,7]                 classes in turn, for models that take labels; without it the image's own
  seed=0                       a completion depends on the seed, its place and resample alone
  run_dir=PATH                 where they go; outputs/complete/DATE-TIME-MODEL-DATASET without it

Pixels are drawn row by row. Where what is known comes first (keep=top), completions are exact draws of the
model given it; elsewhere resample=... comes closer, the more candidates the closer.

examples:
  genlab complete ckpt=outputs/train/20260101-120000-gated_pixelcnn-digits keep=top
  genlab complete ckpt=outputs/train/20260101-120000-gated_pixelcnn-digits keep=left resample=16 n=4
  genlab complete ckpt=outputs/train/20260101-120000-gated_pixelcnn-digits images=mine.png keep=mask.png
"""

_RECONSTRUCT = """\
genlab reconstruct: what a model with an encoder makes of images, and how near that comes to them.

usage: genlab reconstruct ckpt=PATH [key=value ...] [flags]

keys used most:
  ckpt=PATH                    a run folder (its newest checkpoint) or one checkpoint file
  images=PATH                  a picture or a folder of pictures, of the model's size; without it
  count=40 split=test          so many of a split of the dataset, drawn at random, always the same
  weights=auto                 auto (the moving average where there is one), average, raw
  run_dir=PATH                 where they go; outputs/reconstruct/DATE-TIME-MODEL-DATASET without it

An image goes through the mean of its code, without noise. The peak signal-to-noise ratio of images in [0, 1]
is 10 log10(1 / mean squared error), in decibels. A model that takes labels is given the dataset's; pictures
of your own get the class that it thinks likeliest.

examples:
  genlab reconstruct ckpt=outputs/train/20260101-120000-vae-digits
  genlab reconstruct ckpt=outputs/train/20260101-120000-vae-digits split=train count=100
  genlab reconstruct ckpt=outputs/train/20260101-120000-vae-digits images=mine.png
"""

_ENCODE = """\
genlab encode: the latent codes of images, a map of them, and how well a straight line reads a class off them.

usage: genlab encode ckpt=PATH [key=value ...] [flags]

keys used most:
  ckpt=PATH                    a run folder (its newest checkpoint) or one checkpoint file
  split=test                   train, validation or test
  count=1000                   only so many images of the split, drawn at random, always the same
  dataset=NAME                 another dataset's images, of the same shape, with its own settings, e.g.
                               dataset=folder dataset.path=mine dataset.size=28 dataset.channels=1
  images=PATH                  a picture or a folder of pictures, of the model's size, without labels
  map=pca                      pca: the plane in which codes vary most; tsne: t-SNE of at most 2000
  seed=0                       of t-SNE
  run_dir=PATH                 where it goes; outputs/encode/DATE-TIME-MODEL-DATASET without it

Writes codes.npz (codes, labels, index, split; also train_codes and train_labels), map.png and encoding.json.
The linear probe is a multinomial logistic regression on standardised codes of 10,000 training images, its
penalty chosen on validation images; its accuracy is that on test images. Beside it stand as many principal
components of the pixels, and what either loses of an image.

examples:
  genlab encode ckpt=outputs/train/20260101-120000-vae-digits
  genlab encode ckpt=outputs/train/20260101-120000-vae-digits map=tsne split=train count=1000
  genlab encode ckpt=outputs/train/20260101-120000-vae-mnist dataset=fashion_mnist
"""

_INTERPOLATE = """\
genlab interpolate: what lies between two images, or two samples, in a latent space: a row for each pair.

usage: genlab interpolate ckpt=PATH [key=value ...] [flags]

keys used most:
  ckpt=PATH                    a run folder (its newest checkpoint) or one checkpoint file
  between=samples              samples; or images, for models with an encoder: the ends are reconstructions
  path=straight                straight, or spherical, which keeps to the shell where a normal prior's mass is
  steps=10                     images of a row, both ends included
  n=8                          pairs: samples 0 and 1, 2 and 3 and so on, of which genlab sample has the same
  images=PATH                  between=images: a folder of pictures, of the model's size; without it
  split=test                   those of a split of the dataset, drawn at random, always the same
  labels=[3,7]                 classes in turn, for models that take labels; without it those of the images,
                               the nearer end's each, or drawn ones
  seed=0                       of the samples
  run_dir=PATH                 where they go; outputs/interpolate/DATE-TIME-MODEL-DATASET without it

examples:
  genlab interpolate ckpt=outputs/train/20260101-120000-vae-digits between=images
  genlab interpolate ckpt=outputs/train/20260101-120000-gan-digits path=spherical seed=3
  genlab interpolate ckpt=outputs/train/20260101-120000-vae-digits between=images images=mine steps=20
"""

_TRAVERSE = """\
genlab traverse: what each dimension of a latent does to an image, a row for each; or the way between classes.

usage: genlab traverse ckpt=PATH [key=value ...] [flags]

keys used most:
  ckpt=PATH                    a run folder (its newest checkpoint) or one checkpoint file
  dimensions=[0,3,5]           of the latent; the first 16 without it
  direction=[3,8]              a row from class 3 towards class 8: along the difference of their mean codes
  range=3 steps=11             a row goes from -3 to 3 standard deviations of the prior in 11 steps
  around=origin                what stays of the latent: origin, image (its code) or sample
  number=0                     around=image: which one, as genlab reconstruct shows them; around=sample: which
  images=PATH                  around=image: a picture or a folder of pictures; without it those of
  split=test                   a split of the dataset
  label=3                      class of all images, for models that take labels; without it the image's own,
                               else drawn
  seed=0                       of the samples
  run_dir=PATH                 where they go; outputs/traverse/DATE-TIME-MODEL-DATASET without it

In a dimension's row its number is replaced; in a direction's row the latent moves along it. A latent of two
dimensions also gives manifold.png: 20 x 20 latents, evenly spaced in the prior's probability. Where a latent
is made of categorical variables, each has a row, and each of its classes an image.

examples:
  genlab traverse ckpt=outputs/train/20260101-120000-vae-digits
  genlab traverse ckpt=outputs/train/20260101-120000-vae-digits around=image number=5 dimensions=[0,3]
  genlab traverse ckpt=outputs/train/20260101-120000-vae-digits around=image direction=[3,8]
"""

_DENOISE = """\
genlab denoise: adds noise to images and takes it out again with a model that reconstructs images.

usage: genlab denoise ckpt=PATH [key=value ...] [flags]

keys used most:
  ckpt=PATH                    a run folder (its newest checkpoint) or one checkpoint file
  noise=gaussian               gaussian, masking (pixels set to 0), salt_and_pepper (to 0 or 1); without it
                               that of a denoising autoencoder's training
  level=0.3                    gaussian: standard deviation in units of [0, 1]; else the share of pixels
  images=PATH                  a picture or a folder of pictures, of the model's size; without it
  count=40 split=test          so many of a split of the dataset, drawn at random, always the same
  seed=0                       the noise of image k depends on the seed and k alone
  run_dir=PATH                 where they go; outputs/denoise/DATE-TIME-MODEL-DATASET without it

The peak signal-to-noise ratios of the noisy image, of the restored one and of what a 3x3 median filter makes
of it are compared. A model trained without noise (vae, ae) restores what lies near its own images.

examples:
  genlab denoise ckpt=outputs/train/20260101-120000-dae-digits
  genlab denoise ckpt=outputs/train/20260101-120000-dae-digits noise=salt_and_pepper level=0.1
  genlab denoise ckpt=outputs/train/20260101-120000-vae-digits noise=gaussian level=0.2 images=mine
"""

_EVALUATE = """\
genlab evaluate: the numbers of a trained model on a split of its dataset, and of its samples beside it.

usage: genlab evaluate ckpt=PATH [key=value ...] [flags]
       genlab evaluate samples=FOLDER dataset=NAME [key=value ...] [flags]

keys used most:
  ckpt=PATH                    a run folder (its newest checkpoint) or one checkpoint file
  split=test                   train, validation or test
  images=1000                  only so many of the split, drawn at random, always the same
  measure=[lenet,random_conv]  Fréchet and kernel distance, precision, recall, density, coverage by
                               these extractors: pixels, random_conv, lenet (a classifier of the dataset),
                               lite0, inception, dinov2, or auto; frechet_lenet for one number
  n=2000                       samples that are measured; as many as the split has without it, at most 10,000
  against=PATH                 a folder or .npz file of pictures to compare with, in place of the split
  extrapolate=true             the Fréchet distance at infinitely many samples too
  memorisation=true            whether samples are copies of training images, and nearest.png
  samples=PATH                 a folder or .npz file to measure in place of a model's samples
  importance_samples=5000      a tighter bound of a variational autoencoder, from so many samples an image
  per_image=true               per_image.csv too: the numbers of each image, e.g. to find outliers
  weights=auto                 auto (the moving average where there is one), average, raw
  dataset.root=PATH            where the data are now
  run_dir=PATH                 where evaluation.json goes; outputs/evaluate/DATE-TIME-MODEL-DATASET without it

examples:
  genlab evaluate ckpt=outputs/train/20260101-120000-vae-digits
  genlab evaluate ckpt=outputs/train/20260101-120000-vae-digits split=validation images=500
  genlab evaluate ckpt=outputs/train/20260101-120000-vae-digits weights=raw device=cpu
  genlab evaluate ckpt=outputs/train/20260101-120000-vae-digits measure=auto n=1000
  genlab evaluate samples=my_pictures dataset=emoji measure=[lite0,random_conv]
"""

_LIST = """\
genlab list: what there is to choose from, a line each.

usage: genlab list [--config-dir PATH]

examples:
  genlab list
  genlab list --config-dir mine        with your own configurations
  genlab train --help                  how to choose
"""

_COMPLETION = """\
genlab completion: prints what the shell needs to complete genlab's words with the TAB key.

usage: genlab completion bash|zsh|fish

examples:
  eval "$(genlab completion bash)"                                      now; in ~/.bashrc for always
  eval "$(genlab completion zsh)"                                       now; in ~/.zshrc for always
  genlab completion fish > ~/.config/fish/completions/genlab.fish       for always
"""

_FLAGS = """\
flags, anywhere among the words:
  -h, --help                   this page
  -m, --multirun               a sweep: a run for every combination of values given with commas
  -c, --cfg job                show the configuration and do nothing
  -cd, --config-dir PATH       a folder with your own configurations, laid out like the shipped one
  --module NAME                a module of your own that registers families or datasets; also GENLAB_MODULES
  -i, --info defaults          where the configuration comes from
"""

_EXIT_CODES = """\
exit codes: 0 done, 2 a mistake in the command (one line says which), 3 a loss was not finite,
75 interrupted by a signal and ready to resume. GENLAB_TRACEBACK=1 shows where an error was raised."""

_PAGES = {
    "train": _TRAIN, "resume": _RESUME, "sample": _SAMPLE, "complete": _COMPLETE,
    "reconstruct": _RECONSTRUCT, "encode": _ENCODE, "interpolate": _INTERPOLATE, "traverse": _TRAVERSE,
    "denoise": _DENOISE, "evaluate": _EVALUATE, "list": _LIST, "completion": _COMPLETION,
}  # fmt: skip


def page(verb: str | None, folders: list[Path]) -> str:
    """The help page of a verb, or the overview."""
    if verb is None:
        verbs = "\n".join(f"  {name:11} {row.summary}" for name, row in VERBS.items())
        return f"{_OVERVIEW.replace('{verbs}', verbs)}\n\n{_FLAGS}\n{_EXIT_CODES}"
    text = _PAGES[verb]
    if verb == "train":
        text = text.replace("{groups}", _group_lines(folders))
    return f"{text}\n{_FLAGS}\n{_EXIT_CODES}"


def _group_lines(folders: list[Path]) -> str:
    lines = []
    for group in [*_LISTED, *(g for g in groups(folders) if g not in _LISTED)]:
        names = list(options(folders, group))
        names.sort(key=lambda name, group=group: name != _DEFAULTS.get(group))
        if names:
            first = f"  {group + '=':13} "
            lines.append(
                textwrap.fill(", ".join(names), 110, initial_indent=first, subsequent_indent=" " * 16)
            )
    return "\n".join(lines)


def listing(folders: list[Path]) -> str:
    """`genlab list`: each group's options with the first comment line of their files."""
    parts = []
    for group in [*_LISTED, *(g for g in groups(folders) if g not in _LISTED)]:
        found = options(folders, group)
        if found:
            rows = [f"  {name:24} {describe(file)}".rstrip() for name, file in found.items()]
            parts.append("\n".join([f"{_LISTED.get(group, group)} ({group}=NAME)", *rows]))
    return "\n\n".join(parts)


def describe(file: Path) -> str:
    """The first comment line of a YAML file that is not Hydra's `@package`."""
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.lstrip("# ").strip()
        if not line.startswith("#"):
            break
        if text and not text.startswith("@package"):
            return text
    return ""


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows in columns as wide as they need."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
