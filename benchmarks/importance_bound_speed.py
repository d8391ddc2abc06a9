"""Milliseconds an image of an importance-weighted bound: `genlab evaluate importance_samples=K`, and others.

    python benchmarks/importance_bound_speed.py                     # networks of Burda et al. 2016, K = 5000
    python benchmarks/importance_bound_speed.py --hidden 512 256 --latent 32
    python benchmarks/importance_bound_speed.py --gradients         # as code without torch.no_grad() does it
    python benchmarks/importance_bound_speed.py --quick             # seconds, tiny; the figures mean little

genlab: what the command does: the encoder once, images and samples in one batch, a running log-sum-exp.
sample by sample: an image at a time, a sample at a time, encoder and decoder for each.
chunks of 100: an image at a time, the encoder and the decoder on 100 copies of it at a time.
image by image: an image at a time, the encoder once, the decoder on all its K latents.

All have the same weights and the same noise, whose drawing counts for genlab alone, and must agree; the
greatest difference is printed. They are timed in turns in one process, several times over, and medians of
each repetition's ratios are given: single figures drift with the machine, ratios less so. Weights and images
are random: they make no difference to the work.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from genlab.config.autoencoders import VAEConfig
from genlab.data.dataset import Dataset
from genlab.data.pixels import Pixels
from genlab.data.spec import DataSpec
from genlab.data.stream import Resident
from genlab.device import resolve
from genlab.families.vae import VAE
from genlab.rng import SampleRng
from genlab.runs.folder import describe_environment
from genlab.trained.numbers import values_of_split

CHUNK = 100
TOLERANCE_NATS = 1e-3
"""Of some hundred nats in float32, summed in another order."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes; figures mean little")
    parser.add_argument("--samples", type=int, default=5000, help="K")
    parser.add_argument("--images", type=int, default=24, help="of genlab's; the other ways take fewer")
    parser.add_argument("--side", type=int, default=28, help="pixels of a side")
    parser.add_argument(
        "--hidden", type=int, nargs="+", default=[200, 200], help="units of the hidden layers"
    )
    parser.add_argument("--latent", type=int, default=50)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--gradients", action="store_true", help="the other ways keep what gradients need")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.samples, arguments.side, arguments.images, arguments.repetitions = 200, 8, 8, 2
    compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    """Times the ways in turn, checks that they agree, and prints a table of medians and ratios."""
    device = resolve(arguments.device, "--device")
    torch.manual_seed(0)
    model, dataset = setup(
        arguments.side, tuple(arguments.hidden), arguments.latent, arguments.images, device
    )
    ways = {"genlab": genlab, **NAIVE}
    images = {way: arguments.images if way == "genlab" else 1 for way in ways}
    numbers: dict[str, Tensor] = {}
    times: dict[str, list[float]] = {way: [] for way in ways}
    noise_of(model, arguments.samples, 0)
    for compute in ways.values():  # memory pools and threads grow
        compute(model, dataset, min(CHUNK, arguments.samples), 1)
    for _ in range(arguments.repetitions):
        for way, compute in ways.items():
            with torch.set_grad_enabled(arguments.gradients):
                start = time.perf_counter()
                numbers[way] = compute(
                    model, dataset, arguments.samples, images[way]
                ).cpu()  # waits for a GPU
            times[way].append((time.perf_counter() - start) / images[way] * 1000)
    machine = describe_environment()
    print(
        f"{machine['gpus'][0] if device.type == 'cuda' else machine['processor']}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}\n"
        f"K = {arguments.samples}, binary images of {arguments.side}x{arguments.side}, "
        f"hidden {arguments.hidden}, latent {arguments.latent}, {arguments.repetitions} repetitions"
        f"{'; all but genlab keep what gradients need' if arguments.gradients else ''}"
    )
    print(f"{'':20}{'ms/image, median':>18}{'lowest':>10}{'highest':>10}{'times genlab':>14}")
    for way, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(values, times["genlab"], strict=True))
        median = statistics.median(values)
        print(f"{way:20}{median:18.1f}{min(values):10.1f}{max(values):10.1f}{ratio:14.1f}")
    rows = {way: dataset.rows("test", images[way]).tolist() for way in ways}  # a part of others' images
    off = 0.0
    for way in NAIVE:
        same = numbers["genlab"][[rows["genlab"].index(row) for row in rows[way]]]
        off = max(off, float((same - numbers[way]).abs().max()))
    print(f"greatest difference of an image's number: {off:.1e} nats")
    if off > TOLERANCE_NATS:
        raise SystemExit("the ways do not agree")


def setup(
    side: int, hidden: tuple[int, ...], latent: int, count: int, device: torch.device
) -> tuple[VAE, Dataset]:
    """A variational autoencoder with random weights, and random images."""
    spec = DataSpec("random", 1, side, side, levels=2, binarization="static")
    model = VAE(VAEConfig(hidden=hidden, latent=latent), spec).to(device).eval()
    images = torch.randint(0, 2, (count, *spec.shape), dtype=torch.uint8)
    sources = {split: Resident(images, None) for split in ("train", "test")}
    return model, Dataset(spec, {**sources}, Pixels(levels=2)).to(device)


def genlab(model: VAE, dataset: Dataset, samples: int, images: int) -> Tensor:
    """As `genlab evaluate` does it, the evidence lower bound included: (N,) nats."""
    values, _ = values_of_split(
        model, dataset, "test", batch_size=500, seed=0, torch_device=device_of(model), limit=images,
        quiet=True, importance_samples=samples,
    )  # fmt: skip
    return values["importance_weighted_nats"]


def device_of(model: VAE) -> torch.device:
    return next(model.parameters()).device


_drawn: dict[tuple[int, int], Tensor] = {}


def noise_of(model: VAE, samples: int, image: int) -> Tensor:
    """What `genlab evaluate` draws for an image, (K, 1, latent); drawn once, before anything is timed."""
    if (samples, image) not in _drawn:
        rng = SampleRng(0, [image], device_of(model), purpose="evaluation")
        rng.normal(model.config.latent)  # of the evidence lower bound
        _drawn[samples, image] = rng.normal(samples, model.config.latent).transpose(0, 1)
    return _drawn[samples, image]


def log_weights(model: VAE, image: Tensor, noise: Tensor) -> Tensor:
    """log p(x, z) - log q(z | x) of latents of the noise (S, 1, latent), by copies of the image: (S,)."""
    copies = image.expand(len(noise), -1, -1, -1)
    posterior = model.vae.encode(copies)
    latents = posterior.sample(noise[:, 0])
    log_likelihood = model.likelihood.log_prob(model.vae.decode(latents), copies)
    return log_likelihood + model.vae.prior.log_prob(latents) - posterior.log_prob(latents)


def by_parts(model: VAE, dataset: Dataset, samples: int, images: int, part: int) -> Tensor:
    """An image at a time, `part` of its samples at a time, with the encoder for each."""
    numbers = []
    for indices, batch in dataset.evaluation_batches("test", 1, 0, images):
        parts = noise_of(model, samples, indices[0]).split(part)
        weights = torch.cat([log_weights(model, batch.images, noise) for noise in parts])
        numbers.append(math.log(samples) - weights.logsumexp(0))
    return torch.stack(numbers).detach()


def sample_by_sample(model: VAE, dataset: Dataset, samples: int, images: int) -> Tensor:
    return by_parts(model, dataset, samples, images, 1)


def in_chunks(model: VAE, dataset: Dataset, samples: int, images: int) -> Tensor:
    return by_parts(model, dataset, samples, images, CHUNK)


def image_by_image(model: VAE, dataset: Dataset, samples: int, images: int) -> Tensor:
    numbers = []
    for indices, batch in dataset.evaluation_batches("test", 1, 0, images):
        posterior = model.vae.encode(batch.images)
        latents = posterior.sample(noise_of(model, samples, indices[0]))
        copies = batch.images.repeat(samples, 1, 1, 1)
        log_likelihood = model.likelihood.log_prob(model.vae.decode(latents[:, 0]), copies)
        prior, entropy = model.vae.prior.log_prob(latents), posterior.log_prob(latents)
        weights = log_likelihood + (prior - entropy)[:, 0]
        numbers.append(math.log(samples) - weights.logsumexp(0))
    return torch.stack(numbers).detach()


NAIVE: dict[str, Callable[[VAE, Dataset, int, int], Tensor]] = {
    "sample by sample": sample_by_sample,
    f"chunks of {CHUNK}": in_chunks,
    "image by image": image_by_image,
}


if __name__ == "__main__":
    main()
