"""The VQ-VAE against the formulas of van den Oord et al. (2017), and its codebook against k-means."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import genlab, one_line
from helpers.runs import metric_rows, plain_config, read_json
from helpers.vaes import BINARY, CONTINUOUS, GREY, images_of
from torch import Tensor

from genlab import registry
from genlab.commands import train
from genlab.commands.next import after_training
from genlab.config.autoencoders import VQVAEConfig
from genlab.config.schema import from_plain
from genlab.data.spec import Batch, DataSpec
from genlab.device import Processes
from genlab.errors import ConfigError
from genlab.families.vqvae import VQVAE
from genlab.nets.vqvae import Codebook, Use, map_sizes, perplexity
from genlab.report.pictures import to_uint8
from genlab.rng import SampleRng
from genlab.runs import checkpoint
from genlab.trained.fitted_prior import fit
from genlab.trained.latent_space import codes_of_training
from genlab.trained.model import load_model
from genlab.training.update import Update

SMALL = {"width": 6, "residual_blocks": 1, "codes": 5, "code_dimensions": 3}


def vqvae(spec: DataSpec = BINARY, **settings: Any) -> VQVAE:
    torch.manual_seed(0)
    return VQVAE(from_plain(VQVAEConfig, {"name": "vqvae"} | SMALL | settings, "model"), spec)


def codebook(vectors: list[list[float]], decay: float = 0.9, places: int = 2) -> Codebook:
    book = Codebook(len(vectors), len(vectors[0]), places, decay)
    book.vectors.copy_(torch.tensor(vectors))
    book.sums.copy_(book.counts.unsqueeze(1) * book.vectors)
    return book


def map_of(*vectors: tuple[float, ...]) -> Tensor:
    """One image of so many places in a row, (1, D, 1, n)."""
    return torch.tensor(vectors).T[None, :, None]


# The codebook


def test_the_nearest_code_by_hand() -> None:
    book = codebook([[0, 0], [4, 0], [0, 3]])
    latents = map_of((1.9, 0), (2.1, 0), (0.5, 2), (-9, -9))
    assert book.nearest(latents).tolist() == [[[0, 1, 2, 0]]]
    chosen = book(book.nearest(latents))
    torch.testing.assert_close(chosen, map_of((0.0, 0.0), (4.0, 0.0), (0.0, 3.0), (0.0, 0.0)))


def test_the_nearest_code_is_that_of_all_distances() -> None:
    book, latents = Codebook(50, 8, 1, 0.9), torch.randn(6, 8, 4, 5)
    distances = torch.cdist(latents.movedim(1, -1).reshape(-1, 8).double(), book.vectors.double())
    assert torch.equal(book.nearest(latents).flatten(), distances.argmin(1))


def test_use_is_a_mean_over_images_of_counts_and_sums() -> None:
    book = codebook([[0], [10]])
    latents = torch.tensor([[[[1.0, 2.0]]], [[[9.0, 3.0]]]])  # two images of 1x2 places
    use = book.use(latents, book.nearest(latents))
    assert use.counts.tolist() == [1.5, 0.5]
    assert use.sums.tolist() == [[3.0], [4.5]]


def test_a_step_of_the_codebook_by_hand() -> None:
    """N = 0.9 * 1 + 0.1 * n and m likewise; then e = m / N, but for the smoothing (appendix A.1)."""
    book = codebook([[0.0], [10.0]])  # two places: the even use is 1
    assert book.counts.tolist() == [1.0, 1.0]
    book.follow(Use(torch.tensor([2.0, 0.0]), torch.tensor([[6.0], [0.0]])))
    torch.testing.assert_close(book.counts, torch.tensor([1.1, 0.9]))
    torch.testing.assert_close(book.sums, torch.tensor([[0.6], [9.0]]))
    torch.testing.assert_close(book.vectors, torch.tensor([[0.6 / 1.1], [10.0]]), rtol=1e-4, atol=0)


def test_smoothing_by_hand() -> None:
    """(N + epsilon) / (total + K epsilon) total, with epsilon = 1e-5 of the order of the smaller count."""
    book = codebook([[1.0], [1.0]], decay=0.0)
    book.follow(Use(torch.tensor([2.0, 1e-5]), torch.tensor([[2.0], [3e-5]])))
    total = 2.00001
    expected = [2 / (2.00001 / (total + 2e-5) * total), 3e-5 / (2e-5 / (total + 2e-5) * total)]
    assert book.vectors.flatten().tolist() == pytest.approx(expected, rel=1e-5)
    assert book.vectors[1].item() == pytest.approx(1.5, rel=1e-4)  # not 3, which one stray vector is worth


def lloyd(vectors: Tensor, points: Tensor) -> Tensor:
    nearest = torch.cdist(points, vectors).argmin(1)
    return torch.stack([points[nearest == k].mean(0) for k in range(len(vectors))])


def three_clouds() -> Tensor:
    middles = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    return (middles[:, None] + torch.randn(3, 40, 2)).flatten(0, 1)


def test_without_decay_a_step_is_one_of_k_means() -> None:
    points = three_clouds()
    book = codebook(points[:3].tolist(), decay=0.0, places=120)
    latents = points.T[None, :, None]
    for _ in range(5):
        expected = lloyd(book.vectors.clone(), points)
        book.follow(book.use(latents, book.nearest(latents)))
        torch.testing.assert_close(book.vectors, expected, rtol=1e-5, atol=1e-5)


def test_many_steps_on_the_same_vectors_end_where_k_means_does() -> None:
    points = three_clouds()
    book = codebook([[1.0, 1.0], [3.0, 0.0], [0.0, 3.0]], decay=0.8, places=120)
    latents, expected = points.T[None, :, None], book.vectors.clone()
    for _ in range(200):
        book.follow(book.use(latents, book.nearest(latents)))
        expected = lloyd(expected, points)
    torch.testing.assert_close(book.vectors, expected, rtol=1e-4, atol=1e-4)


def test_a_codebook_starts_at_the_means_of_what_is_nearest() -> None:
    points = three_clouds()
    book = Codebook(3, 2, 120, 0.9)
    book.start(points.T[None, :, None])
    torch.testing.assert_close(book.vectors, lloyd(book.vectors, points), rtol=0.2, atol=0.2)
    assert (torch.cdist(points, book.vectors).amin(1) < 6).all()
    torch.testing.assert_close(book.counts, torch.full((3,), 4.0))  # a tenth of the even use, 40
    torch.testing.assert_close(book.sums, 4 * book.vectors)


def test_a_codebook_starts_with_fewer_vectors_than_codes() -> None:
    book = Codebook(7, 2, 2, 0.9)
    book.start(map_of((1.0, 2.0), (3.0, 4.0)))
    assert set(map(tuple, book.vectors.tolist())) == {(1.0, 2.0), (3.0, 4.0)}


def test_dead_codes_restart_at_vectors_of_the_batch() -> None:
    book = codebook([[0.0], [1.0], [2.0], [3.0]], places=4)  # the even use is 1
    book.counts.copy_(torch.tensor([2.0, 0.29, 0.31, 0.0]))
    before = book.vectors.clone(), book.sums.clone()
    latents = torch.tensor([5.0, 6.0, 7.0, 8.0]).view(1, 1, 2, 2)
    assert book.restart(latents, below=0.3) == 2
    for k in (0, 2):
        assert torch.equal(book.vectors[k], before[0][k])
        assert torch.equal(book.sums[k], before[1][k])
    fresh = [book.vectors[k].item() for k in (1, 3)]
    assert set(fresh) < {5.0, 6.0, 7.0, 8.0}
    assert len(set(fresh)) == 2
    torch.testing.assert_close(book.counts, torch.tensor([2.0, 0.3, 0.31, 0.3]))
    torch.testing.assert_close(book.sums[[1, 3]], 0.3 * book.vectors[[1, 3]])


def test_a_restarted_code_lives_on_if_it_finds_its_share() -> None:
    for found, dies in ((0.25, True), (0.35, False)):
        book = codebook([[0.0], [1.0]])  # the even use is 1
        book.counts.copy_(torch.tensor([2.0, 0.1]))
        latents = torch.tensor([5.0, 6.0]).view(1, 1, 1, 2)
        book.restart(latents, below=0.3)
        for _ in range(3):
            book.follow(Use(torch.tensor([2 - found, found]), torch.tensor([[0.0], [found * 5.5]])))
        assert book.restart(latents, below=0.3) == dies


def test_perplexity_by_hand() -> None:
    assert perplexity(torch.tensor([5.0, 5.0, 5.0, 5.0])).item() == pytest.approx(4)
    assert perplexity(torch.tensor([0.0, 3.0])).item() == pytest.approx(1)
    # 1/2, 1/4, 1/4: an entropy of 3/2 bits
    assert perplexity(torch.tensor([2.0, 1.0, 1.0, 0.0])).item() == pytest.approx(2**1.5)


# The loss


def test_the_gradient_goes_straight_through() -> None:
    """Of the encoder's vectors z: that of the decoder at the codes' vectors e, and 2 beta (z - e) over B."""
    model, images = vqvae(commitment=0.25), images_of(BINARY, 4)
    latents = model.vqvae.encode(images).detach().requires_grad_()
    model.vqvae.encode = lambda _: latents  # type: ignore[method-assign]
    loss, metrics = model.loss(images)
    (found,) = torch.autograd.grad(loss, latents)
    vectors = model.vqvae.codebook(model.vqvae.codebook.nearest(latents)).requires_grad_()
    reconstruction = -model.likelihood.log_prob(model.vqvae.decoder(vectors), images).mean()
    (at_the_codes,) = torch.autograd.grad(reconstruction, vectors)
    torch.testing.assert_close(found, at_the_codes + 0.5 * (latents - vectors) / 4)
    error = (latents - vectors).square().sum() / 4
    torch.testing.assert_close(loss, reconstruction + 0.25 * error)
    torch.testing.assert_close(metrics["quantization_error"], error)


def test_the_reconstruction_is_summed_over_pixels_and_averaged_over_images() -> None:
    model, images = vqvae(), images_of(BINARY, 4)
    outputs = model.vqvae.decoder(model.vqvae.codebook(model.codes_of(images)))
    expected = torch.distributions.Bernoulli(logits=outputs).log_prob(images).sum() / 4
    torch.testing.assert_close(model.loss(images)[1]["reconstruction_nats"], -expected, rtol=1e-5, atol=0)


def test_the_loss_changes_no_buffer_and_draws_nothing() -> None:
    model, images = vqvae(), images_of(BINARY, 4)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    random = torch.get_rng_state()
    first, second = model.loss(images)[0], model.loss(images)[0]
    assert torch.equal(first, second)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


@pytest.mark.parametrize(
    ("spec", "settings", "name"),
    [
        (BINARY, {}, "bernoulli"),
        (GREY, {}, "discretized_logistic"),
        (CONTINUOUS, {}, "gaussian"),
        (GREY, {"likelihood": "gaussian", "sigma": 0.2}, "gaussian"),
    ],
)
def test_the_likelihood_is_chosen_as_that_of_a_vae(spec: DataSpec, settings: Any, name: str) -> None:
    model = vqvae(spec, **settings)
    assert model.likelihood_name == name
    value = model.evaluate(Batch(images_of(spec, 3), None), rng=SampleRng(0, range(3)))
    assert value["elbo_nats"].isfinite().all()
    assert ("elbo_bits_per_dim" in value) == (not settings)  # a density of levels is none
    learned = [parameter for parameter in model.parameters() if parameter.ndim == 0]
    assert len(learned) == (spec.dequantized and name == "gaussian")


# Training


def steps(count: int, group: Processes | None = None, **trainer: Any) -> tuple[VQVAE, list[dict[str, float]]]:
    """A short training on the same batches each time, and the metrics of its steps."""
    plain = plain_config("vqvae", **trainer)
    plain["model"] |= SMALL | {"restart_every": 2, "restart_below": 0.9}
    config = registry.train_config(plain)
    torch.manual_seed(3)
    family = registry.family(config.model, GREY)
    assert isinstance(family, VQVAE)
    update = Update(family, config, group or Processes(0, 1, torch.device("cpu")))
    batches = iter([Batch(images_of(GREY, 10 * (k + 1))[-10:], None) for k in range(count)])
    found = []
    for _ in range(count):
        found.append({name: value.item() for name, value in family.step(batches, update).items()})
        update.step += 1
    return family, found


def test_micro_batches_give_the_same_codebook() -> None:
    (whole, one), (parts, other) = steps(5), steps(5, micro_batch_size=4)  # of 4, 4 and 2 images
    for name, buffer in whole.named_buffers():
        torch.testing.assert_close(buffer, parts.get_buffer(name), rtol=1e-4, atol=1e-5)
    for mine, yours in zip(one, other, strict=True):
        assert mine == pytest.approx(yours, rel=1e-4)


def test_the_use_of_codes_is_averaged_over_processes_and_codebooks_are_shared() -> None:
    asked: list[tuple[str, list[int]]] = []

    class Group(Processes):
        def mean_(self, tensors: list[Tensor]) -> None:
            asked.append(("mean", [tensor.numel() for tensor in tensors]))

        def broadcast_(self, tensors: list[Tensor]) -> None:
            asked.append(("broadcast", [tensor.numel() for tensor in tensors]))

    steps(2, Group(0, 1, torch.device("cpu")))
    buffers, use = ("broadcast", [15, 5, 15]), ("mean", [5, 15])
    shared = [entry for entry in asked if entry in (buffers, use)]
    assert shared == [buffers, use, use, buffers]  # the start; two steps, and a restart with the second


def test_dead_codes_are_counted_when_they_are_looked_for() -> None:
    found = steps(4)[1]
    assert [("dead_codes_restarted" in metrics) for metrics in found] == [False, True, False, True]
    assert found[1]["dead_codes_restarted"] > 0
    for metrics in found:
        assert 1 <= metrics["codebook_perplexity"] <= 5
        assert metrics["codes_used_share"] in [k / 5 for k in range(1, 6)]


def test_the_moving_average_of_weights_takes_the_codebook_as_it_is() -> None:
    """It is one update behind: the codebook follows after the optimizer's step."""
    plain = plain_config("vqvae", ema_half_life_images=100)
    config = registry.train_config(plain | {"model": {"name": "vqvae"} | SMALL})
    family = registry.family(config.model, GREY)
    assert isinstance(family, VQVAE)
    update = Update(family, config, Processes(0, 1, torch.device("cpu")))
    batches = iter([Batch(images_of(GREY, 10), None)] * 3)
    for _ in range(3):
        before = family.vqvae.codebook.vectors.clone()
        family.step(batches, update)
        update.step += 1
    average: Any = update.averages["vqvae"].module
    assert torch.equal(average.codebook.vectors, before)
    assert not torch.equal(average.decoder.into.weight, family.vqvae.decoder.into.weight)


def test_a_run_resumes_bit_for_bit_codebook_included() -> None:
    plain = plain_config("vqvae", steps=6, checkpoint_every=4, sample_every=0, evaluate_every=0)
    plain["model"] |= SMALL | {"restart_every": 3, "restart_below": 0.9}
    whole = checkpoint.find(train.start(plain, [], "whole"))[1]["weights"]
    shutil.copytree("whole", "cut")
    Path("cut/checkpoints/step-00000006.pt").unlink()
    train.resume("cut", None, [])
    again = checkpoint.find(Path("cut"))[1]["weights"]
    assert {"vqvae.codebook.vectors", "vqvae.codebook.counts", "vqvae.codebook.sums"} < whole.keys()
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_it_learns_more_codes_than_it_starts_with_and_better_images() -> None:
    plain = plain_config("vqvae", steps=160, log_every=20, sample_every=0, evaluate_every=0)
    plain["model"] |= {"width": 16, "codes": 32, "code_dimensions": 8, "halvings": 1}
    plain["optimizer"]["lr"] = 3e-3
    train.start(plain, [], "run")
    rows = metric_rows("run")
    first, *_, last = [row for row in rows if "reconstruction_nats" in row]
    assert last["reconstruction_nats"] < 0.85 * first["reconstruction_nats"]
    assert last["codebook_perplexity"] > 8
    assert "dead_codes_restarted" in last


def test_a_collapsed_codebook_is_warned_of() -> None:
    model = vqvae()
    assert "model.commitment" in model.warnings({"codebook_perplexity": 1.2})["collapse"]
    assert model.warnings({"codebook_perplexity": 12.0}) == {}


# Evaluation, encoding and decoding


def test_the_bound_is_that_of_a_sure_posterior_and_a_uniform_prior() -> None:
    """Below log p(x), which is the sum over all maps of codes: enumerated for one place of 5 codes."""
    model, images = vqvae(DataSpec("small", 1, 8, 8, levels=2), halvings=2, codes=3), images_of(BINARY, 3)
    found = model.evaluate(Batch(images, None), rng=SampleRng(0, range(3)))
    every = torch.cartesian_prod(*[torch.arange(3)] * 4).view(-1, 2, 2)  # maps of 2x2 codes
    outputs = model.vqvae.decoder(model.vqvae.codebook(every))
    of_map = torch.stack([model.likelihood.log_prob(outputs, image.expand(81, 1, 8, 8)) for image in images])
    chosen = (model.codes_of(images).flatten(1) * torch.tensor([27, 9, 3, 1])).sum(1)
    bound = -(of_map[torch.arange(3), chosen] + 4 * math.log(1 / 3))
    torch.testing.assert_close(found["elbo_nats"], bound)
    torch.testing.assert_close(found["elbo_nats"], found["reconstruction_nats"] + found["kl_nats"])
    torch.testing.assert_close(found["elbo_bits_per_dim"], bound / (64 * math.log(2)))
    exact = -(of_map.logsumexp(1) - 4 * math.log(3))
    assert (found["elbo_nats"] > exact).all()


def test_the_use_of_the_codebook_over_a_split() -> None:
    codes = torch.tensor([[0, 0], [1, 2]])
    found = vqvae().summarize({"codes": codes})
    assert found == {"codebook_perplexity": pytest.approx(2**1.5), "codes_used_share": 0.6}


def test_encoding_gives_the_vectors_of_codes_and_decoding_the_images_of_the_nearest_ones() -> None:
    model, images = vqvae(), images_of(BINARY, 4)
    latents, codes = model.encode(images), model.codes_of(images)
    assert latents.shape == (4, 3 * 2 * 2)
    assert codes.shape == (4, 2, 2)
    torch.testing.assert_close(
        latents.view(4, 3, 2, 2)[1, :, 0, 1], model.vqvae.codebook.vectors[codes[1, 0, 1]]
    )
    torch.testing.assert_close(model.decode(latents), model.images_of(codes))
    near = latents + 1e-3 * torch.randn_like(latents)
    torch.testing.assert_close(model.decode(near), model.images_of(codes))
    assert ((model.decode(latents) >= 0) & (model.decode(latents) <= 1)).all()


@pytest.mark.parametrize(
    ("shape", "halvings", "size"),
    [((1, 28, 28), 2, (7, 7)), ((3, 13, 10), 2, (3, 2)), ((1, 8, 64), 1, (4, 32)), ((3, 33, 17), 3, (4, 2))],
)
def test_any_size_is_halved_and_doubled_again(
    shape: tuple[int, int, int], halvings: int, size: tuple[int, int]
) -> None:
    model = vqvae(DataSpec("some", *shape), halvings=halvings)
    images = torch.rand(2, *shape)
    assert map_sizes(*shape[1:], halvings)[-1] == size == tuple(model.codes_of(images).shape[1:])
    assert model.decode(model.encode(images)).shape == images.shape


@pytest.mark.parametrize(
    ("spec", "settings", "line"),
    [
        (DataSpec("ring", 2, 1, 1, levels=0, kind="points"), {}, "dataset=ring: vqvae takes images"),
        (DataSpec("none", 1, 1, 1, levels=0, kind="none"), {}, "dataset=none: vqvae takes images"),
        (DataSpec("large", 3, 80, 80), {}, "dataset=large: images of 80x80 pixels"),
        (GREY, {"halvings": 3}, "use at most model.halvings=2"),
        (GREY, {"likelihood": "bernoulli"}, "model.likelihood=bernoulli"),
    ],
)
def test_what_it_cannot_take_is_refused(spec: DataSpec, settings: Any, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        vqvae(spec, **settings)


# Commands


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("vqvae") / "run"
    plain = plain_config("vqvae", steps=2, sample_images=12)
    plain["model"] |= SMALL
    return str(train.start(plain, [], str(folder)))


def test_a_run_shows_reconstructions_and_says_how_to_go_on(run: str) -> None:
    assert Path(run, "samples/step-00000002.png").is_file()
    lines = after_training(vqvae(), Path(run))
    assert f"genlab train model=gated_pixelcnn dataset=codes dataset.ckpt={run} run_dir={run}-prior" in lines
    assert f"genlab sample ckpt={run}-prior" in lines


def test_samples_need_a_prior_of_codes(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert one_line(capsys, "sample", f"ckpt={run}") == (
        f"genlab: ckpt={run}: vqvae has no prior to draw from; train one: "
        f"genlab train model=gated_pixelcnn dataset=codes dataset.ckpt={run}; or, much worse, add prior=fit"
    )


def test_gaussians_of_the_codes_vectors_stand_in_for_a_prior(run: str) -> None:
    """What they draw is decoded from the nearest codes: each picture is one that codes stand for."""
    genlab("sample", f"ckpt={run}", "prior=fit", "components=2", "n=3", "npz=true", "run_dir=fitted")
    drawn = np.load("fitted/samples.npz")["images"]
    model = load_model(run, "auto", torch.device("cpu"))
    codes, _ = codes_of_training(model, {}, 256, 0)
    latents = fit(codes, 2, 0).draw(SampleRng(0, range(3)))
    assert isinstance(model.family, VQVAE)
    vectors = latents.unflatten(1, (model.config.model.code_dimensions, *model.family.map_size))
    expected = model.family.images_of(model.family.vqvae.codebook.nearest(vectors))
    assert np.array_equal(drawn, to_uint8(expected).permute(0, 2, 3, 1).numpy())


def test_the_commands_on_latents(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    genlab("reconstruct", f"ckpt={run}", "count=5", "run_dir=reconstructed")
    genlab("interpolate", f"ckpt={run}", "between=images", "n=2", "steps=4", "run_dir=interpolated")
    assert len(list(Path("reconstructed/images").iterdir())) == 5
    assert len(list(Path("interpolated/images").iterdir())) == 8
    assert "use between=images" in one_line(capsys, "interpolate", f"ckpt={run}")
    genlab("evaluate", f"ckpt={run}", "images=20", "run_dir=numbers")
    facts = read_json("numbers/evaluation.json")
    assert facts["elbo_nats"] == pytest.approx(facts["reconstruction_nats"] + 4 * math.log(5))
    assert "uniform prior over 5 codes at 2x2 places" in facts["setting"]["bound"]
    assert 1 <= facts["codebook_perplexity"] <= 5
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"next: genlab train model=gated_pixelcnn dataset=codes dataset.ckpt={run}"


@pytest.mark.slow
def test_a_compiled_network_is_the_same_function() -> None:
    model = vqvae()
    images = images_of(BINARY, 4)
    eager = model.loss(images)[0]
    model.vqvae.compile(backend="eager", fullgraph=True)
    torch.testing.assert_close(model.loss(images)[0], eager)
