"""Names of earlier versions and of other projects, so that old runs and known words find the present ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED = {"model.opponent_hidden": "model.discriminator_hidden"}
"""Old key to the present one. A key is never reused with another meaning."""

SYNONYMS = {
    # settings
    **dict.fromkeys(("epochs", "max_epochs", "max_steps", "num_steps", "iterations", "iters"), ("steps",)),
    **dict.fromkeys(("learning_rate", "rate"), ("lr",)),
    **dict.fromkeys(("batch", "bs", "batchsize", "mini_batch"), ("batch_size",)),
    **dict.fromkeys(("latent_dim", "latent_size", "z_dim", "nz", "z", "latents"), ("latent",)),
    **dict.fromkeys(("wd", "decay", "l2"), ("weight_decay",)),
    **dict.fromkeys(("beta1", "beta2"), ("betas",)),
    **dict.fromkeys(("ema", "ema_decay"), ("ema_half_life_images",)),
    **dict.fromkeys(("gpu", "cuda", "accelerator"), ("device",)),
    **dict.fromkeys(("out", "outdir", "output", "output_dir", "logdir", "save_dir", "dir"), ("run_dir",)),
    **dict.fromkeys(("checkpoint", "path", "weights", "model"), ("ckpt",)),
    **dict.fromkeys(("num", "count", "number", "samples", "num_samples"), ("n", "count")),
    **dict.fromkeys(("data", "data_dir", "datadir"), ("dataset", "root")),
    # commands
    **dict.fromkeys(("fit", "run"), ("train",)),
    **dict.fromkeys(("generate", "draw", "synthesize"), ("sample",)),
    **dict.fromkeys(("test", "validate", "eval"), ("evaluate",)),
    # models, datasets, optimizers, schedules
    **dict.fromkeys(("dcgan", "sngan", "lsgan", "ralsgan", "vanilla_gan"), ("gan",)),
    **dict.fromkeys(("pixelrnn", "pixel_rnn"), ("row_lstm", "diagonal_bilstm")),
    **dict.fromkeys(("beta_vae", "betavae", "variational_autoencoder"), ("vae",)),
    **dict.fromkeys(("cvae", "vae_conditional"), ("conditional_vae",)),
    **dict.fromkeys(("autoencoder",), ("ae",)),
    **dict.fromkeys(("cgan", "conditional_gan"), ("acgan", "projection_gan")),
    **dict.fromkeys(("ladder_vae", "lvae", "hvae"), ("hierarchical_vae",)),
    **dict.fromkeys(("vq_vae", "vqvae2"), ("vqvae",)),
    **dict.fromkeys(("wgangp",), ("wgan_gp",)),
    **dict.fromkeys(("pixelcnn++", "pixelcnn_pp"), ("pixelcnnpp",)),
    **dict.fromkeys(("pixel_snail",), ("pixelsnail",)),
    **dict.fromkeys(("cifar", "cifar_10"), ("cifar10",)),
    **dict.fromkeys(("fmnist", "fashionmnist", "fashion"), ("fashion_mnist",)),
    **dict.fromkeys(("static_mnist", "bmnist"), ("binarized_mnist",)),
    **dict.fromkeys(("images", "pictures", "imagefolder", "image_folder"), ("folder",)),
    **dict.fromkeys(("numpy", "npy", "array", "arrays"), ("npz",)),
    **dict.fromkeys(("fid", "frechet"), ("frechet_inception", "frechet_auto")),
    **dict.fromkeys(("kid", "kernel"), ("kernel_inception", "kernel_auto")),
    "none": ("constant",),
    "multistep": ("step",),
}
"""Words that other projects use, to the names here that may be meant."""


def with_present_names(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a run's configuration, of any version, with the present names of its keys.

    Args:
        plain: groups of settings, e.g. {"model": {"name": "gan", ...}, ...}.
    """
    found = dict(plain)
    for old, new in RENAMED.items():
        group, _, key = old.partition(".")
        settings = found.get(group)
        if isinstance(settings, Mapping) and key in settings:
            found[group] = {
                new.partition(".")[2] if name == key else name: value for name, value in settings.items()
            }
    return found
