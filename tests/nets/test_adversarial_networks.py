"""Generators and discriminators: shapes, purity of the forward pass, normalisations, conditioning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from genlab.nets.adversarial import (
    NETWORKS,
    SIZES,
    Discriminator,
    Generator,
    Shape,
    make_discriminator,
    make_generator,
)
from genlab.nets.backbones import DCGANFeatures
from genlab.nets.layers import (
    ORTHOGONAL_GAIN,
    ResamplingBlock,
    SpectralConv2d,
    SpectralEmbedding,
    SpectralLinear,
    SpectralNorm,
    append_minibatch_std,
)

SIDES = (8, 9, 16, 28, 31, 32, 45, 64)
SHAPES: dict[str, Shape] = {"mlp": (2, 6, 5), "dcgan": (3, 17, 16), "resnet": (1, 32, 32)}
NORMALIZATIONS = {
    "mlp": ("none", "batch", "layer"),
    "dcgan": ("none", "batch", "layer", "instance"),
    "resnet": ("none", "batch", "layer", "instance"),
}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *[(network, {"normalization": kind}) for network in NETWORKS for kind in NORMALIZATIONS[network]],
    *[
        (network, options)
        for network in NETWORKS
        for options in (
            {"spectral_norm": True},
            {"minibatch_std": True, "input_scale": 0.25},
            {"packing": 2},
            {"classes": 3, "conditioning": "projection"},
            {"classes": 3, "conditioning": "auxiliary", "spectral_norm": True},
            {"classes": 3, "conditioning": "projection", "spectral_norm": True, "minibatch_std": True},
            {"packing": 2, "minibatch_std": True, "spectral_norm": True, "normalization": "layer"},
        )
    ],
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def generator(network: str = "mlp", shape: Shape | None = None, latent: int = 5, **options: Any) -> Generator:
    return make_generator(
        network, shape or SHAPES[network], latent, **{"hidden": (12, 10), "width": 4, **options}
    )


def discriminator(network: str = "mlp", shape: Shape | None = None, **options: Any) -> Discriminator:
    return make_discriminator(
        network, shape or SHAPES[network], **{"hidden": (12, 10), "width": 4, **options}
    )


def clone(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def identical(net: nn.Module, before: dict[str, Tensor]) -> bool:
    after = net.state_dict()
    return after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


# Shapes and ranges ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        *[("dcgan", (channels, side, side)) for side in SIDES for channels in (1, 3)],
        ("dcgan", (1, 28, 17)),
        ("resnet", (1, 32, 32)),
        ("resnet", (3, 32, 32)),
        ("mlp", (1, 8, 8)),
        ("mlp", (3, 5, 70)),
        ("mlp", (2, 1, 1)),
    ],
)
def test_shapes_and_every_weight_takes_part(network: str, shape: Shape) -> None:
    make, judge = generator(network, shape), discriminator(network, shape)
    samples = make(torch.randn(6, 5))
    assert samples.shape == (6, *shape)
    assert samples.abs().max() <= 1
    logits = judge(samples)
    assert logits.shape == (6,)
    (logits * torch.randn(6)).sum().backward()
    for name, parameter in [*make.named_parameters(), *judge.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("network", NETWORKS)
def test_bounded_samples_end_in_tanh_and_others_are_linear(network: str) -> None:
    bounded, linear = generator(network), generator(network, bounded=False)
    linear.load_state_dict(bounded.state_dict())
    latents = 100 * torch.randn(8, 5)
    assert bounded(latents).abs().max() <= 1
    torch.testing.assert_close(bounded(latents), torch.tanh(linear(latents)))
    if network == "mlp":
        assert linear(latents).abs().max() > 1


@pytest.mark.parametrize(("network", "options"), VARIANTS)
def test_features_make_the_logits(network: str, options: dict[str, Any]) -> None:
    net = discriminator(network, **options)
    x, labels = torch.randn(6, *SHAPES[network]), torch.arange(6) % 3
    features = net.features(x)
    rows = 6 // options.get("packing", 1)
    assert features.shape == (rows, net.out.in_features)
    assert net(x, labels).shape == (rows,)
    torch.testing.assert_close(net.logits(features, labels), net(x, labels))


@pytest.mark.parametrize(("network", "options"), VARIANTS)
def test_features_of_data_and_samples_are_those_of_each_alone(network: str, options: dict[str, Any]) -> None:
    """In one pass or in two: no image of one may change a feature of the other."""
    net = discriminator(network, **options)
    real, fake = torch.rand(2, 8, *SHAPES[network]) * 2 - 1
    alone = net.features(real), net.features(fake)
    for found, expected in zip(net.features_of_both(real, fake), alone, strict=True):
        torch.testing.assert_close(found, expected)
    together = net.features(torch.cat([real, fake]))[: len(alone[0])]
    assert net.looks_at_batches != torch.allclose(together, alone[0], rtol=1e-3, atol=1e-4)


def test_channels_of_dcgan_double_away_from_the_image() -> None:
    net = discriminator("dcgan", (3, 64, 64), width=8).net
    assert isinstance(net, DCGANFeatures)
    assert [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)] == [8, 16, 32, 64]
    assert net.map == (4, 4)
    convolutions = [
        m for m in generator("dcgan", (3, 64, 64), width=8).modules() if isinstance(m, nn.ConvTranspose2d)
    ]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [(64, 32), (32, 16), (16, 8), (8, 3)]


def test_the_papers_residual_networks_have_their_number_of_weights() -> None:
    # Gulrajani et al. 2017, appendix F, by hand: 128 channels, a latent of 128
    conv = lambda a, b, k: a * b * k * k + b
    block = 2 * conv(128, 128, 3)
    critic = discriminator("resnet", (3, 32, 32), width=128)
    expected = conv(3, 128, 3) + conv(128, 128, 3) + conv(3, 128, 1) + 3 * block + conv(128, 128, 1) + 129
    assert sum(p.numel() for p in critic.parameters()) == expected
    make = generator("resnet", (3, 32, 32), latent=128, width=128)
    norms_less_biases = 7 * 2 * 128 - 3 * 128
    expected = 129 * 2048 + 3 * (block + conv(128, 128, 1)) + norms_less_biases + conv(128, 3, 3)
    assert sum(p.numel() for p in make.parameters()) == expected


@pytest.mark.parametrize("resample", ["up", "down", "none"])
def test_residual_block_against_its_order_in_the_paper(resample: str) -> None:
    norms = nn.BatchNorm2d(4), nn.BatchNorm2d(6)
    block = ResamplingBlock(4, 6, norms, resample=resample).double()
    x = torch.randn(3, 4, 8, 8, dtype=torch.float64)
    up = nn.Upsample(scale_factor=2, mode="nearest") if resample == "up" else nn.Identity()
    down = nn.AvgPool2d(2) if resample == "down" else nn.Identity()
    h = block.conv1(up(block.norm1(x).relu()))
    h = down(block.conv2(block.norm2(h).relu()))
    torch.testing.assert_close(block(x), h + down(block.shortcut(up(x))))


# Purity and gradients ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("network", "options"), VARIANTS)
def test_a_forward_pass_leaves_a_discriminator_as_it_was(network: str, options: dict[str, Any]) -> None:
    net = discriminator(network, **options).train()
    before = clone(net)
    x, labels = torch.randn(4, *SHAPES[network]), torch.arange(4) % 3
    first = net(x, labels)
    assert identical(net, before)
    assert torch.equal(net(x, labels), first)
    assert torch.equal(net.eval()(x, labels), first)


@pytest.mark.parametrize(("network", "options"), VARIANTS)
def test_functional_gradients_match_autograd_and_differentiate_twice(
    network: str, options: dict[str, Any]
) -> None:
    net = discriminator(network, **options).double()
    x = torch.randn(4, *SHAPES[network], dtype=torch.float64)
    labels = torch.arange(4) % 3
    parameters, buffers = dict(net.named_parameters()), dict(net.named_buffers())
    weights = {name: value.detach() for name, value in parameters.items()}

    def total(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(net, (weights, buffers), (x, labels)).sin().sum()

    def penalty(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return grad(total, argnums=1)(weights, x).square().sum()

    leaf = x.clone().requires_grad_()
    by_autograd = torch.autograd.grad(
        net(leaf, labels).sin().sum(), [leaf, *parameters.values()], create_graph=True, allow_unused=True
    )
    torch.testing.assert_close(grad(total, argnums=1)(weights, x), by_autograd[0].detach())
    by_func = grad(total)(weights, x)
    for name, expected in zip(parameters, by_autograd[1:], strict=True):
        torch.testing.assert_close(
            by_func[name], torch.zeros_like(weights[name]) if expected is None else expected
        )
    second = torch.autograd.grad(by_autograd[0].square().sum(), list(parameters.values()), allow_unused=True)
    by_func = grad(penalty)(weights, x)
    for name, expected in zip(parameters, second, strict=True):
        torch.testing.assert_close(
            by_func[name], torch.zeros_like(weights[name]) if expected is None else expected
        )


@pytest.mark.parametrize("network", ["mlp", "resnet"])
def test_nets_trace_into_one_graph(network: str) -> None:
    make = generator(network, classes=3)
    judge = discriminator(
        network, classes=3, conditioning="projection", spectral_norm=True, minibatch_std=True,
        normalization="batch",
    )  # fmt: skip
    latents, labels = torch.randn(4, 5), torch.arange(4) % 3

    def game(latents: Tensor, labels: Tensor) -> Tensor:
        return judge(make(latents, labels), labels)

    expected = game(latents, labels)
    compiled = torch.compile(game, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(latents, labels), expected)


# Normalisations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "initialization"),
    [
        ("mlp", "default"),
        ("mlp", "normal_0.02"),
        ("mlp", "orthogonal"),
        ("dcgan", "default"),
        ("resnet", "default"),
    ],
)
def test_sigma_is_the_largest_singular_value(network: str, initialization: str) -> None:
    net = discriminator(
        network,
        spectral_norm=True,
        classes=3,
        conditioning="projection",
        initialization=initialization,
    )
    layers = [module for module in net.modules() if isinstance(module, SpectralNorm)]
    of_torch = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Embedding)]
    assert layers == of_torch
    exact = [torch.linalg.svdvals(layer.weight.flatten(1))[0] for layer in layers]
    for layer, largest in zip(layers, exact, strict=True):
        torch.testing.assert_close(layer.sigma(), largest, rtol=0.05, atol=0)
    net.advance_spectral_norm(600)
    for layer, largest in zip(layers, exact, strict=True):
        torch.testing.assert_close(layer.sigma(), largest, rtol=1e-4, atol=1e-6)
        largest = torch.linalg.svdvals(layer.normalized_weight().flatten(1))[0]
        torch.testing.assert_close(largest, torch.ones(()), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SpectralLinear(5, 4),
        lambda: SpectralConv2d(3, 4, 3, padding=1),
        lambda: SpectralEmbedding(6, 4),
    ],
)
def test_spectral_layers_follow_the_weights_and_travel_with_the_state(make: Any) -> None:
    layer = make()
    assert layer.state_dict().keys() >= {"weight", "u", "v"}
    with torch.no_grad():
        layer.weight.normal_()
    largest = torch.linalg.svdvals(layer.weight.flatten(1))[0]
    assert (layer.sigma() - largest).abs() > 1e-2
    layer.advance(300)
    torch.testing.assert_close(layer.sigma(), largest, rtol=1e-4, atol=0)
    other = make()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.sigma(), layer.sigma())


def test_gradient_through_sigma_is_torchs() -> None:
    ours, theirs = SpectralLinear(5, 4).double(), nn.Linear(5, 4).double()
    theirs.load_state_dict({"weight": ours.weight, "bias": ours.bias})
    theirs = nn.utils.parametrizations.spectral_norm(theirs).eval()
    buffers = dict(theirs.named_buffers())
    ours.u.copy_(buffers["parametrizations.weight.0._u"])
    ours.v.copy_(buffers["parametrizations.weight.0._v"])
    x = torch.randn(3, 5, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    original = dict(theirs.named_parameters())["parametrizations.weight.original"]
    torch.testing.assert_close(ours.weight.grad, original.grad)


def test_spectral_norm_makes_an_mlp_1_lipschitz_and_advance_is_a_no_op_without() -> None:
    net = discriminator("mlp", (8, 1, 1), spectral_norm=True)
    net.advance_spectral_norm(500)
    x = torch.randn(64, 8, 1, 1, requires_grad=True)
    (slope,) = torch.autograd.grad(net(x).sum(), x)
    assert slope.flatten(1).norm(dim=1).max() <= 1.0001
    plain = discriminator()
    before = clone(plain)
    plain.advance_spectral_norm()
    assert identical(plain, before)


@pytest.mark.parametrize(
    ("network", "kind"), [(network, kind) for network in NETWORKS for kind in NORMALIZATIONS[network]]
)
def test_only_batch_norm_lets_samples_see_each_other(network: str, kind: str) -> None:
    net = discriminator(network, normalization=kind)
    x = torch.randn(4, *SHAPES[network], requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x)[1], x)
    others = gradient[[0, 2, 3]]
    assert gradient[1].abs().sum() > 0
    assert (others.abs().sum() > 0) == (kind == "batch")


def test_normalisations_are_torchs_with_torchs_constants() -> None:
    for network in ("dcgan", "resnet"):
        norms = [m for m in generator(network).modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms
        assert all((m.eps, m.momentum, m.track_running_stats) == (1e-5, 0.1, True) for m in norms)
        assert not [
            m for m in generator(network, batch_norm=False).modules() if isinstance(m, nn.BatchNorm2d)
        ]
        norms = [
            m for m in discriminator(network, normalization="layer").modules() if isinstance(m, nn.GroupNorm)
        ]
        assert norms
        assert all((m.num_groups, m.eps) == (1, 1e-5) for m in norms)
        norms = [
            m
            for m in discriminator(network, normalization="instance").modules()
            if isinstance(m, nn.InstanceNorm2d)
        ]
        assert norms
        assert all((m.affine, m.eps) == (True, 1e-5) for m in norms)
    for network in NETWORKS:
        kinds = nn.BatchNorm1d | nn.BatchNorm2d
        norms = [m for m in discriminator(network, normalization="batch").modules() if isinstance(m, kinds)]
        assert norms
        assert all((m.eps, m.track_running_stats) == (1e-5, False) for m in norms)


def test_no_normalisation_next_to_the_image() -> None:
    net = discriminator("dcgan", normalization="batch").net
    assert isinstance(net, DCGANFeatures)
    assert [type(norm) for norm in net.norms] == [nn.Identity, nn.BatchNorm2d]
    net = discriminator("resnet", normalization="batch").net
    names = {name for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert names == {f"blocks.{block}.norm{k}" for block in (1, 2, 3) for k in (1, 2)}


# Minibatch statistics, packing, labels ----------------------------------------------------------------------


def test_minibatch_std_by_hand() -> None:
    features = torch.tensor([[1.0, 5.0], [3.0, 5.0], [5.0, 5.0]])
    expected = ((8 / 3) ** 0.5 + 1e-4) / 2
    torch.testing.assert_close(append_minibatch_std(features)[:, 2], torch.full((3,), expected))
    assert torch.equal(append_minibatch_std(features)[:, :2], features)
    maps = torch.randn(5, 3, 2, 4)
    extra = append_minibatch_std(maps)[:, 3]
    assert extra.shape == (5, 2, 4)
    torch.testing.assert_close(extra, maps.std(0, correction=0).mean().expand(5, 2, 4))


@pytest.mark.parametrize("network", NETWORKS)
def test_minibatch_std_is_one_more_feature_that_tells_a_collapsed_batch(network: str) -> None:
    net, plain = discriminator(network, minibatch_std=True), discriminator(network)
    plain.net.load_state_dict(net.net.state_dict())
    x = torch.randn(4, *SHAPES[network])
    places = net.net.map[0] * net.net.map[1] if isinstance(net.net, DCGANFeatures) else 1
    features = net.features(x)
    torch.testing.assert_close(features[:, :-places], plain.features(x))
    assert (features[:, -places:] > 1e-3).all()
    collapsed = net.features(x[:1].expand_as(x))
    torch.testing.assert_close(collapsed[:, -places:], torch.full((4, places), 1e-4), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
def test_packing_joins_consecutive_images_along_the_channels(network: str) -> None:
    channels, height, width = SHAPES[network]
    packed = discriminator(network, packing=2)
    joint = discriminator(network, (2 * channels, height, width))
    joint.load_state_dict(packed.state_dict())
    x = torch.randn(6, *SHAPES[network], requires_grad=True)
    pairs = torch.stack([torch.cat([x[2 * k], x[2 * k + 1]]) for k in range(3)])
    torch.testing.assert_close(packed(x), joint(pairs))
    (gradient,) = torch.autograd.grad(packed(x)[1], x)
    assert (gradient.flatten(1).abs().sum(1) > 0).tolist() == [False, False, True, True, False, False]


@pytest.mark.parametrize("spectral_norm", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_projection_by_hand(network: str, spectral_norm: bool) -> None:
    net = discriminator(network, classes=3, conditioning="projection", spectral_norm=spectral_norm)
    x, labels = torch.randn(4, *SHAPES[network]), torch.tensor([2, 0, 1, 2])
    features = net.features(x)
    assert net.embedding is not None
    table, weight = net.embedding.weight, net.out.weight
    if spectral_norm:
        assert isinstance(net.embedding, SpectralNorm)
        assert isinstance(net.out, SpectralNorm)
        table, weight = table / net.embedding.sigma(), weight / net.out.sigma()
    expected = [weight[0] @ f + net.out.bias[0] + table[k] @ f for f, k in zip(features, labels, strict=True)]
    torch.testing.assert_close(net(x, labels), torch.stack(expected))


def test_auxiliary_classifier_is_linear_in_the_features() -> None:
    net = discriminator(classes=3, conditioning="auxiliary")
    features = torch.randn(4, 10)
    assert net.class_head is not None
    expected = features @ net.class_head.weight.T + net.class_head.bias
    torch.testing.assert_close(net.class_logits(features), expected)


@pytest.mark.parametrize("network", NETWORKS)
def test_labels_change_samples_as_one_hot_vectors(network: str) -> None:
    net = generator(network, classes=3)
    latents = torch.randn(6, 5)
    labels = torch.arange(6) % 3
    plain = generator(network, latent=8)
    plain.load_state_dict(net.state_dict())
    torch.testing.assert_close(net(latents, labels), plain(torch.cat([latents, torch.eye(3)[labels]], 1)))
    assert not torch.allclose(net(latents, labels), net(latents, (labels + 1) % 3), atol=1e-4)
    assert torch.equal(plain(torch.ones(2, 8), torch.tensor([0, 1])), plain(torch.ones(2, 8)))


def test_input_scale_multiplies_the_inputs() -> None:
    net, scaled = discriminator(), discriminator(input_scale=0.25)
    scaled.load_state_dict(net.state_dict())
    x = torch.randn(4, *SHAPES["mlp"])
    torch.testing.assert_close(scaled(x), net(x / 4))


def test_points_meet_relu_and_images_leaky_relu() -> None:
    for shape, slope in (((1, 1, 1), 0.0), ((1, 1, 2), 0.2)):
        net = discriminator("mlp", shape, hidden=(1,)).net
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.fill_(1.0)
        x = torch.full((1, *shape), -2.0)
        expected = slope * (x.sum() + 1)
        torch.testing.assert_close(net(x)[0, 0], expected)


# Weights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
def test_orthogonal_weights(network: str) -> None:
    assert ORTHOGONAL_GAIN == 0.8
    nets = (
        generator(network, initialization="orthogonal"),
        discriminator(network, initialization="orthogonal"),
    )
    for net in nets:
        for module in net.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                w = module.weight.flatten(1)
                gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
                torch.testing.assert_close(gram, 0.64 * torch.eye(len(gram)), rtol=0, atol=1e-5)
                assert module.bias is None or not module.bias.any()


@pytest.mark.parametrize("network", ["dcgan", "resnet"])
def test_normal_weights(network: str) -> None:
    nets = (
        generator(network, initialization="normal_0.02", width=32),
        discriminator(network, initialization="normal_0.02", width=32, normalization="batch"),
    )
    for net in nets:
        layers = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
        weights = torch.cat([m.weight.flatten() for m in layers])
        assert abs(weights.mean().item()) < 1e-3
        assert abs(weights.std().item() - 0.02) < 1e-3
        scales = torch.cat([m.weight for m in net.modules() if isinstance(m, nn.BatchNorm2d)])
        assert abs(scales.mean().item() - 1) < 0.01
        assert abs(scales.std().item() - 0.02) < 0.01
        assert not any(m.bias.any() for m in net.modules() if isinstance(m, nn.BatchNorm2d))
        assert not any(m.bias is not None and m.bias.any() for m in layers)


def test_signals_of_an_mlp_keep_their_size() -> None:
    samples = generator("mlp", (1, 28, 28), 64, hidden=(512, 512, 512), bounded=False)(torch.randn(64, 64))
    assert 0.5 < samples.std().item() < 2
    judge = discriminator("mlp", (1, 28, 28), hidden=(512, 512, 512))
    assert 0.3 < judge(torch.randn(256, 1, 28, 28)).std().item() < 3


# Errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: generator("resnet", (1, 28, 28)), "32 pixels, not 28x28"),
        (lambda: discriminator("resnet", (1, 28, 28)), "32 pixels, not 28x28"),
        (lambda: generator("dcgan", (1, 7, 8)), "from 8 to 64"),
        (lambda: discriminator("dcgan", (1, 64, 65)), "from 8 to 64"),
        (lambda: discriminator("dcgan", (2, 1, 1)), "from 8 to 64"),
        (lambda: make_generator("cnn", (1, 8, 8), 5, hidden=(), width=4), "cnn"),
        (lambda: make_discriminator("cnn", (1, 8, 8), hidden=(), width=4), "cnn"),
        (lambda: discriminator("mlp", normalization="instance"), "instance"),
        (lambda: discriminator("mlp", hidden=(), normalization="instance"), "instance"),
        (lambda: discriminator("dcgan", normalization="group"), "group"),
        (lambda: discriminator(conditioning="film", classes=3), "film"),
        (lambda: discriminator(conditioning="projection"), "needs classes"),
        (lambda: discriminator(conditioning="auxiliary", classes=3, packing=2), "packing"),
        (lambda: discriminator(packing=0), "under 1"),
        (lambda: discriminator(packing=2)(torch.zeros(3, *SHAPES["mlp"])), "packed"),
        (lambda: discriminator(initialization="zeros"), "zeros"),
        (lambda: generator(initialization="zeros"), "zeros"),
        (lambda: generator(classes=3)(torch.zeros(2, 5)), "labels"),
        (
            lambda: discriminator(classes=3, conditioning="projection")(torch.zeros(2, *SHAPES["mlp"])),
            "labels",
        ),
        (lambda: discriminator().class_logits(torch.zeros(2, 10)), "auxiliary"),
    ],
)
def test_errors(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


def test_sizes_are_those_that_are_taken() -> None:
    for network, (low, high) in SIZES.items():
        for side in (low, high):
            generator(network, (1, side, side))
        for side in (low - 1, high + 1):
            with pytest.raises(ValueError, match="pixels"):
                generator(network, (1, side, side))
