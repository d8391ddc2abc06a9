"""The simplest game that gradient descent cannot play: min over x, max over y of x y."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from genlab.config.adversarial import BilinearGameConfig
from genlab.config.run import TrainConfig
from genlab.data.spec import Batch, DataSpec
from genlab.errors import ConfigError
from genlab.families.base import AdversarialFamily, Metrics, UpdateProtocol
from genlab.rng import SampleRng


class Player(nn.Module):
    """A player whose whole strategy is one number."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, slope: Tensor) -> Tensor:
        """Returns the tangent of a payoff that has this slope in the player's number."""
        return self.value * slope


class BilinearGame(AdversarialFamily):
    """Players x, who minimises f(x, y) = x y, and y, who maximises it; the equilibrium is (0, 0).

    With rate h, of each dynamics one step and what becomes of the distance from the equilibrium:

    - simultaneous: both gradients at (x, y). The distance grows by the factor sqrt(1 + h^2) in every step.
    - alternating: y takes its gradient at the new x. The distance neither grows nor vanishes for h < 2.
    - extragradient: gradients at (x - h y, y + h x) (Korpelevich 1976). It vanishes for h < 1.
    - optimistic: 2 g_t - g_(t-1) in place of the gradient g_t (Daskalakis et al. 2018, eq. 5), the first
      step plain. It vanishes for h < 1 / sqrt(3).
    - consensus: both players also descend gamma / 2 |v|^2 of the game's vector field v = (-y, x)
      (Mescheder et al. 2017, eq. 9). It vanishes for h < 2 gamma / (1 + gamma^2).

    This is so for plain descent; momentum and Adam, and rates of each player's own, make other games of it.

    Attributes:
        trajectory: (recorded_steps + 1, 2), x and y at the start and after each step; the rest is 0.
        recorded: rows of it that are filled, at least 1.
        previous_slopes: (2,), the last step's, for the optimistic dynamics.
    """

    Config = BilinearGameConfig
    players = ("x", "y")

    trajectory: Tensor
    recorded: Tensor
    previous_slopes: Tensor

    def __init__(self, config: BilinearGameConfig, spec: DataSpec) -> None:
        super().__init__(config, spec)
        x, y = config.start
        self.x, self.y = Player(x), Player(y)
        trajectory = torch.zeros(config.recorded_steps + 1, 2)
        trajectory[0] = torch.tensor(config.start)
        self.register_buffer("trajectory", trajectory)
        self.register_buffer("recorded", torch.ones((), dtype=torch.int64))
        # As if the step before had been taken at the start too: the first optimistic step is then plain.
        self.register_buffer("previous_slopes", torch.tensor([y, x]))

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        """Refuses data, before they are read.

        Raises:
            ConfigError: there are some.
        """
        if config.dataset.name != "none":
            raise ConfigError(
                f"dataset={config.dataset.name}: {config.model.name} is played without data; use dataset=none"
            )

    def step(self, batches: Iterator[Batch], update: UpdateProtocol) -> Metrics:
        """One step of x, then one of y; no batch is drawn."""
        slopes = self.slopes(update.learning_rate("x"), update.learning_rate("y"))
        metrics = update("x", self.x_loss, slopes[:1])
        if self.config.dynamics == "alternating":
            slopes = self.point().flip(0)
        metrics |= update("y", self.y_loss, slopes[1:])
        point = self.point()
        self.record(update.step + 1, point)
        return metrics | {"x": point[0], "y": point[1], "distance": point.norm()}

    def slopes(self, x_rate: float, y_rate: float) -> Tensor:
        """Returns the slopes that x descends and y ascends, (2,). Both are known before either moves."""
        x, y = point = self.point()
        slopes = point.flip(0)  # df/dx = y, df/dy = x
        match self.config.dynamics:
            case "extragradient":
                return torch.stack([y + y_rate * x, x - x_rate * y])
            case "optimistic":
                previous = self.previous_slopes.clone()
                self.previous_slopes.copy_(slopes)
                return 2 * slopes - previous
            case "consensus":
                return slopes + self.config.consensus_weight * torch.stack([x, -y])
        return slopes

    def x_loss(self, slope: Tensor) -> tuple[Tensor, Metrics]:
        """Returns what x minimises: its gradient is `slope`, (1,)."""
        return self.x(slope).sum(), {}

    def y_loss(self, slope: Tensor) -> tuple[Tensor, Metrics]:
        """Returns what y minimises: its gradient is -`slope`, (1,)."""
        return -self.y(slope).sum(), {}

    def point(self) -> Tensor:
        """Returns a copy of x and y, (2,)."""
        return torch.stack([self.x.value.detach(), self.y.value.detach()])

    def record(self, step: int, point: Tensor) -> None:
        """Keeps the point after a step, unless the record is full."""
        if step < len(self.trajectory):
            self.trajectory[step] = point
            self.recorded.fill_(step + 1)

    def sample(self, n: int, *, rng: SampleRng, labels: Tensor | None = None) -> Tensor:
        """Returns the path so far, (T, 2, 1, 1), from the start on; nothing is drawn, whatever n."""
        return self.trajectory[: int(self.recorded), :, None, None]
