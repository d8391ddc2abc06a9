"""The bilinear game: every dynamics by hand and against its matrix, its thresholds, its runs."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import genlab
from helpers.runs import assert_same_run, metric_rows, plain_config
from PIL import Image

from genlab import registry
from genlab.commands import train
from genlab.commands.next import after_training
from genlab.config.run import (
    AdamConfig,
    ConstantConfig,
    OptimizerConfig,
    PlayerOptimizerConfig,
    SGDConfig,
    TrainConfig,
    TrainerConfig,
)
from genlab.config.schema import from_plain
from genlab.data.spec import DataSpec
from genlab.device import Processes
from genlab.families.bilinear_game import BilinearGame
from genlab.report import figures
from genlab.rng import SampleRng
from genlab.runs import checkpoint
from genlab.training.update import Update

NOTHING = DataSpec("none", 1, 1, 1, levels=0, kind="none")
DYNAMICS = ("simultaneous", "alternating", "extragradient", "optimistic", "consensus")
H = 0.1


def make(
    dynamics: str,
    *,
    optimizer: OptimizerConfig | None = None,
    h: float = H,
    steps: int = 1000,
    **settings: Any,
) -> tuple[BilinearGame, Update]:
    """A game and the update that really steps its players."""
    plain = {"name": "bilinear_game", "dynamics": dynamics} | settings
    config = TrainConfig(
        model=from_plain(BilinearGame.Config, plain, "model"),
        dataset=None,
        optimizer=optimizer or SGDConfig(lr=h, momentum=0.0),
        schedule=ConstantConfig(),
        trainer=from_plain(TrainerConfig, {"steps": steps}, "trainer"),
    )
    family = registry.family(config.model, NOTHING)
    assert isinstance(family, BilinearGame)
    return family, Update(family, config, Processes(0, 1, torch.device("cpu")))


def play(family: BilinearGame, update: Update, steps: int) -> np.ndarray:
    """The points at the start and after each step, (steps + 1, 2), of what the players really are."""
    points = [family.point()]
    for _ in range(steps):
        metrics = family.step(iter(()), update)  # no batch is there to be drawn
        update.step += 1
        points.append(torch.stack([metrics["x"], metrics["y"]]))
        assert torch.equal(points[-1], family.point())
        assert metrics["distance"] == points[-1].norm()
    return torch.stack(points).double().numpy()


def matrix(dynamics: str, h: float, gamma: float = 0.5) -> np.ndarray:
    """What takes (x, y), or (x, y, x before, y before) of the optimistic dynamics, to the next one."""
    one, field = np.eye(2), np.array([[0.0, -1.0], [1.0, 0.0]])  # v = (-y, x)
    match dynamics:
        case "simultaneous":
            return one + h * field
        case "alternating":
            return np.array([[1, 0], [h, 1]]) @ np.array([[1, -h], [0, 1]])
        case "extragradient":
            return one + h * field @ (one + h * field)
        case "consensus":
            return one + h * (field - gamma * field.T @ field)
    return np.block([[one + 2 * h * field, -h * field], [one, 0 * one]])


def radius(dynamics: str, h: float, gamma: float = 0.5) -> float:
    """The factor by which the distance from the equilibrium changes in the long run."""
    return float(np.abs(np.linalg.eigvals(matrix(dynamics, h, gamma))).max())


class TestStepsByHand:
    """From (1, 1) with rate 0.1, and from (2, -1) with rates 0.1 of x and 0.2 of y."""

    @pytest.mark.parametrize(
        ("dynamics", "expected"),
        [
            ("simultaneous", [(0.9, 1.1), (0.79, 1.19), (0.671, 1.269)]),
            ("alternating", [(0.9, 1.09), (0.791, 1.1691), (0.67409, 1.236509)]),
            # gradients at (0.9, 1.1), then at (0.782, 1.179)
            ("extragradient", [(0.89, 1.09), (0.7721, 1.1681)]),
            # the first step plain; then 2 * 1.1 - 1 and 2 * 0.9 - 1; then 2 * 1.18 - 1.1 and 2 * 0.78 - 0.9
            ("optimistic", [(0.9, 1.1), (0.78, 1.18), (0.654, 1.246)]),
            # x descends y + x / 2 and y ascends x - y / 2: 1.5 and 0.5, then 1.475 and 0.325
            ("consensus", [(0.85, 1.05), (0.7025, 1.0825)]),
        ],
    )
    def test_first_steps(self, dynamics: str, expected: list[tuple[float, float]]) -> None:
        points = play(*make(dynamics), len(expected))
        np.testing.assert_allclose(points, [(1, 1), *expected], rtol=2e-6)

    @pytest.mark.parametrize(
        ("dynamics", "expected"),
        [
            ("simultaneous", (2.1, -0.6)),
            ("alternating", (2.1, -0.58)),  # -1 + 0.2 * 2.1
            ("extragradient", (2.06, -0.58)),  # gradients at (2.1, -0.6)
            ("optimistic", (2.1, -0.6)),
            ("consensus", (2.0, -0.5)),  # x descends -1 + 1, y ascends 2 + 0.5
        ],
    )
    def test_each_player_has_its_rate(self, dynamics: str, expected: tuple[float, float]) -> None:
        rates = {"x": PlayerOptimizerConfig(lr=0.1), "y": PlayerOptimizerConfig(lr=0.2)}
        optimizer = SGDConfig(lr=7.0, momentum=0.0, players=rates)
        points = play(*make(dynamics, optimizer=optimizer, start=[2.0, -1.0]), 1)
        np.testing.assert_allclose(points[1], expected, rtol=2e-6, atol=1e-7)

    def test_adam_steps_by_its_rate_first(self) -> None:
        """Adam's first step is the rate times the sign of the gradient, and y's gradient ascends."""
        optimizer = AdamConfig(lr=0.01, players={"y": PlayerOptimizerConfig(lr=0.03)})
        points = play(*make("simultaneous", optimizer=optimizer, start=[2.0, -1.0]), 1)
        np.testing.assert_allclose(points[1], (2.01, -0.97), rtol=1e-6)

    def test_gradient_norms_are_those_of_the_dynamics(self) -> None:
        family, update = make("consensus", start=[2.0, -1.0])
        metrics = family.step(iter(()), update)
        assert metrics["x_gradient_norm"] == pytest.approx(0)
        assert metrics["y_gradient_norm"] == pytest.approx(2.5)


class TestInTheLongRun:
    @pytest.mark.parametrize("h", [0.05, 0.3])
    @pytest.mark.parametrize("dynamics", DYNAMICS)
    def test_points_are_those_of_the_matrix(self, dynamics: str, h: float) -> None:
        points = play(*make(dynamics, h=h, start=[1.5, -0.5]), 60)
        state = points[0]
        if dynamics == "optimistic":
            state = np.concatenate([state, state])
        for point in points:
            np.testing.assert_allclose(point, state[:2], rtol=1e-4, atol=1e-4)
            state = matrix(dynamics, h) @ state

    @pytest.mark.parametrize("h", [0.01, 0.1, 1.0])
    def test_simultaneous_grows_by_one_factor_in_every_step(self, h: float) -> None:
        distances = np.linalg.norm(play(*make("simultaneous", h=h), 50), axis=1)
        np.testing.assert_allclose(distances[1:] / distances[:-1], math.sqrt(1 + h * h), rtol=1e-6)

    def test_alternating_stays_on_an_ellipse(self) -> None:
        """x^2 + y^2 - h x y is the same after every step."""
        x, y = play(*make("alternating", h=0.5), 300).T
        np.testing.assert_allclose(x * x + y * y - 0.5 * x * y, 1.5, rtol=1e-4)
        distances = np.hypot(x, y)
        assert 1 < distances.min() < 1.2  # between sqrt(1.2) and sqrt(2)
        assert 1.4 < distances.max() < 1.4143

    @pytest.mark.parametrize("dynamics", ["extragradient", "optimistic", "consensus"])
    def test_the_others_shrink_by_the_spectral_radius(self, dynamics: str) -> None:
        h = 0.3
        distances = np.linalg.norm(play(*make(dynamics, h=h), 200), axis=1)
        assert radius(dynamics, h) < 1
        assert (distances[-1] / distances[100]) ** (1 / 100) == pytest.approx(radius(dynamics, h), rel=1e-3)

    @pytest.mark.parametrize(
        ("dynamics", "gamma", "threshold"),
        [
            ("alternating", 0.5, 2.0),
            ("extragradient", 0.5, 1.0),
            ("optimistic", 0.5, 1 / math.sqrt(3)),
            ("consensus", 0.5, 0.8),
            ("consensus", 2.0, 0.8),
            ("consensus", 0.3, 0.6 / 1.09),
        ],
    )
    def test_the_threshold_is_where_it_is_said_to_be(
        self, dynamics: str, gamma: float, threshold: float
    ) -> None:
        ends = {}
        for side in (0.97, 1.03):
            h = side * threshold
            steps = 60 if dynamics == "alternating" else 400  # it grows too fast for more
            points = play(*make(dynamics, h=h, consensus_weight=gamma, start=[1.0, 0.5]), steps)
            ends[side] = np.linalg.norm(points[-20:], axis=1).max()
        assert ends[1.03] > 4
        assert radius(dynamics, 1.03 * threshold, gamma) > 1.001
        if dynamics == "alternating":
            assert radius(dynamics, 0.97 * threshold) == pytest.approx(1)
            assert 1 < ends[0.97] < 4  # it still goes round its ellipse, which is 3.3 long
        else:
            assert radius(dynamics, 0.97 * threshold, gamma) < 0.999
            assert ends[0.97] < 0.4

    def test_consensus_of_weight_0_is_simultaneous(self) -> None:
        plain, regularised = (play(*make(d, consensus_weight=0.0), 20) for d in ("simultaneous", "consensus"))
        np.testing.assert_array_equal(plain, regularised)

    def test_the_equilibrium_is_left_by_none(self) -> None:
        for dynamics in DYNAMICS:
            assert not play(*make(dynamics, start=[0.0, 0.0]), 5).any()


class TestRecord:
    def test_sample_is_the_path_as_far_as_it_was_recorded(self) -> None:
        family, update = make("extragradient", recorded_steps=4)
        for played, rows in ((0, 1), (3, 4), (4, 5)):
            points = play(family, update, played)
            path = family.sample(1, rng=SampleRng(0, range(1)))
            assert path.shape == (rows, 2, 1, 1)
            if rows == 4:
                np.testing.assert_allclose(path.flatten(1), points)
        assert torch.equal(family.sample(9, rng=SampleRng(1, range(9))), path)

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize(
        "path",
        [
            [(0, 0)],
            [(1, 1)],
            [(0, 0), (0, 0)],
            [(1, 0), (0, 0)],
            [(1, 0), (1e30, 1e25)],
            [(1, 0), (0, 1e-40)],
        ],
        ids=str,
    )
    def test_extreme_paths_are_drawn_without_a_warning(self, path: list[tuple[float, float]]) -> None:
        figures.game(torch.tensor(path, dtype=torch.float32)[:, :, None, None], Path("game.png"), "a title")
        with Image.open("game.png") as picture:
            assert picture.size == (800, 400)

    def test_a_distance_that_hardly_varies_is_drawn_flat(self) -> None:
        """Of alternating descent it varies by 5 %: less than a tenth of the height of its plot."""
        family, update = make("alternating")
        play(family, update, 200)
        figures.game(family.sample(1, rng=SampleRng(0, range(1))), Path("game.png"))
        red, green, blue = (
            np.asarray(Image.open("game.png").convert("RGB")).astype(int)[:, 450:].transpose(2, 0, 1)
        )
        curve = (blue > red + 60) & (blue > green)
        height = np.ptp(np.nonzero(curve.any(1))[0])
        assert curve.any(0).sum() > 200
        assert height < 30


def plain_game(dynamics: str = "simultaneous", **trainer: Any) -> dict[str, Any]:
    plain = plain_config("bilinear_game", dataset="none", schedule="constant", log_every=1, **trainer)
    plain["model"] |= {"dynamics": dynamics}
    plain["optimizer"] = {"name": "sgd", "lr": H, "momentum": 0.0}
    return plain


class TestRuns:
    @pytest.mark.parametrize(("dynamics", "optimizer"), [("alternating", "sgd"), ("optimistic", "adam")])
    def test_a_run_that_was_cut_ends_as_one_that_was_not(self, dynamics: str, optimizer: str) -> None:
        plain = plain_game(dynamics)
        if optimizer == "adam":
            plain["optimizer"] = {"name": "adam", "lr": H, "players": {"y": {"lr": 0.02}}}
        whole = train.start(plain, [], "whole")
        shutil.copytree(whole, "cut")
        Path("cut/checkpoints/step-00000012.pt").unlink()
        Path("cut/samples/step-00000012.png").unlink()
        train.resume("cut", None, [])
        assert_same_run(whole, Path("cut"))
        weights = checkpoint.find(Path("cut"))[1]["weights"]
        expected = [(row["x"], row["y"]) for row in metric_rows("whole") if "x" in row]
        assert len(expected) == weights["recorded"] - 1 == 12
        np.testing.assert_allclose(weights["trajectory"][: weights["recorded"]], [(1, 1), *expected])
        assert not weights["trajectory"][weights["recorded"] :].any()

    def test_the_log_speaks_of_no_images(self) -> None:
        folder = train.start(plain_game(), [], "run")
        log = (folder / "train.log").read_text()
        assert "bilinear_game with 2 weights, 12 steps on cpu; run folder run" in log
        assert "images" not in log

    def test_plain_descent_is_seen_to_spiral_outwards(self) -> None:
        genlab("train", "model=bilinear_game", "trainer.steps=100", "run_dir=run")
        rows = metric_rows("run")
        assert [row["step"] for row in rows] == list(range(1, 101))
        distances = [math.sqrt(2), *(row["distance"] for row in rows)]
        assert all(b > a for a, b in itertools.pairwise(distances))
        assert distances[-1] == pytest.approx(math.sqrt(2) * 1.01**50, rel=1e-4)
        angles = np.unwrap([math.atan2(row["y"], row["x"]) for row in rows])
        assert angles[-1] - angles[0] == pytest.approx(99 * math.atan(0.1), rel=1e-4)  # over one turn

    def test_settings_of_the_words_reach_the_game(self) -> None:
        words = ["model.dynamics=extragradient", "model.start=[2,0]", "optimizer.players.x.lr=0.2"]
        more = ["trainer.steps=2", "trainer.sample_every=1", "run_dir=run"]
        genlab("train", "model=bilinear_game", *words, *more)
        first = metric_rows("run")[0]
        assert (first["x_learning_rate"], first["y_learning_rate"]) == (0.2, 0.1)
        # gradients at (2, 0.2)
        assert (first["x"], first["y"]) == pytest.approx((1.96, 0.2))
        for step in (1, 2):
            picture = np.asarray(Image.open(f"run/samples/step-{step:08d}.png").convert("L"))
            assert picture.std() > 10  # something is drawn
        assert sorted(p.name for p in Path("run/samples").iterdir()) == [
            "step-00000001.png",
            "step-00000002.png",
        ]

    def test_what_is_suggested_at_the_end_works(self, capsys: pytest.CaptureFixture[str]) -> None:
        genlab("train", "model=bilinear_game", "trainer.steps=3", "run_dir=run")
        figure, command = capsys.readouterr().out.splitlines()[1:]
        assert Path(figure.removeprefix("next: see ")).is_file()
        words = command.removeprefix("      genlab ").split()
        genlab(*words, "trainer.steps=3", "run_dir=other")
        assert metric_rows("other")[-1]["distance"] != metric_rows("run")[-1]["distance"]

    def test_suggestions_lead_through_all_dynamics_and_name_the_newest_figure(self) -> None:
        Path("samples").mkdir()
        for step in (900, 1000, 20):
            Path(f"samples/step-{step:08d}.png").touch()
        dynamics, seen = "simultaneous", []
        for _ in DYNAMICS:
            figure, command = after_training(make(dynamics)[0], Path())
            assert figure == "see samples/step-00001000.png"
            dynamics = command.removeprefix("genlab train model=bilinear_game model.dynamics=")
            seen.append(dynamics)
        assert sorted(seen) == sorted(DYNAMICS)

    def test_a_sweep_over_the_dynamics_suggests_no_sampling(self, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["model=bilinear_game", "model.dynamics=simultaneous,consensus", "trainer.steps=2"]
        genlab("train", "-m", *words, "run_dir=all")
        assert "genlab sample" not in capsys.readouterr().out


REFUSED = [
    (["model=bilinear_game", "dataset=digits"], "dataset=digits: bilinear_game is played without data; use"),
    (["model=vae", "dataset=none"], "dataset=none: vae needs data; choose e.g. dataset="),
    (["model=gan", "dataset=none"], "dataset=none: gan needs data; choose e.g. dataset="),
    (["model=wgan_gp", "dataset=none"], "dataset=none: wgan_gp needs data; choose e.g. dataset="),
    (
        ["model=bilinear_game", "model.start=[1]"],
        "model.start=[1.0]: expected x and y, e.g. model.start=",
    ),
    (["model=bilinear_game", "model.start=[1,2,3]"], "model.start=[1.0, 2.0, 3.0]: expected x and y"),
    (["model=bilinear_game", "model.dynamics=optimist"], "model.dynamics=optimist: "),
    (["model=bilinear_game", "model.consensus_weight=-1"], "model.consensus_weight=-1"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=lambda value: str(value)[:50])
def test_what_is_no_game_is_refused_in_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    genlab("train", *words, "trainer.steps=1", "run_dir=run", code=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"genlab: {message}")
    assert not Path("run").exists()
