"""Toy rules, nets and tasks for the tests of the machinery: small, in float64, and naming no part of the catalogue."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.kind import SCHEDULE
from netwright.engine.loop import Setting
from netwright.engine.rule import Phase, Rule
from netwright.engine.task import Data, Problem, accuracy, one_hot, three_splits
from netwright.nets._kind import norm_named
from netwright.nets.dense.mlp import Mlp
from netwright.tensor.streams import generator, initialise

CLASSES, INPUTS, ROWS = 3, 5, 120
#: The loss of labels that tasks have.
ENTROPY: Any = next(part for part in catalogue.parts("loss") if part.mean is not None and part.tags.proper)
PROBLEM = Problem(
    objective=ENTROPY.id,
    metric=accuracy,
    metric_name="accuracy",
    higher_is_better=True,
    worst=0.0,
    delta=0.01,
    input=(INPUTS,),
    output=(CLASSES,),
    classes=CLASSES,
    gives=frozenset({"labels", "vector"}),
    encode=partial(one_hot, classes=CLASSES),
)


def data(seed: int = 0, dtype: torch.dtype = torch.float32) -> Data:
    """120 points in three noisy clusters, split by the seed."""
    pool_x, pool_y = POOL
    return Data(pool_x, pool_y, *three_splits(ROWS, seed, 30, 30))


def _pool() -> tuple[Tensor, Tensor]:
    g = generator(7, "draw", "toys")
    y = torch.arange(ROWS) % CLASSES
    centres = torch.randn(CLASSES, INPUTS, generator=g)
    return centres[y] + 0.7 * torch.randn(ROWS, INPUTS, generator=g), y


POOL = _pool()


class Bend(nn.Module):
    """x / (1 + e^(-beta x)), beta a plain setting: two copies with different ones must not be stacked."""

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.beta * x)


class Listed(Bend):
    """The same with its setting inside a mapping."""

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.table = {"beta": [beta]}


class Tilt(nn.Module):
    """A learnt slope, which weight decay spares by its name although it is a matrix."""

    no_decay = frozenset({"slope"})

    def __init__(self, width: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.empty(1, width))

    def reset_parameters(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            self.slope.uniform_(0.5, 1.5, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.slope * x)


class Bomb(nn.Module):
    """Passes x on; in training its 7th and later calls give NaN where `armed` is 1."""

    def __init__(self, after: int = 7) -> None:
        super().__init__()
        self.after = after
        self.register_buffer("armed", torch.zeros(()))
        self.register_buffer("calls", torch.zeros(()))

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.armed.zero_()
        self.calls.zero_()

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls.add_(1)
        going = (self.calls >= self.after) * self.armed
        return torch.where(going > 0, math.nan, x)


def net(widths: Sequence[int] = (6, 4), norm: str = "none", act: Any = None) -> Mlp:
    """A small fully connected host; act(width) makes the activation."""
    fill = {"activation": lambda c, dim: act(c) if act else Bend(), "norm": norm_named(norm)}
    return Mlp(INPUTS, CLASSES, widths, fill)


class Whole(Rule):
    """Backpropagation."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        yield self.problem.loss(self.net(x), y)


class Noisy(Whole):
    """The input is shaken by noise drawn outside the step, scaled by how large the readout is now."""

    def draw(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        size = self.net.readout.weight.detach().abs().mean()
        return (size * torch.randn(x.shape, generator=generator, dtype=x.dtype), torch.rand(3, generator=generator))

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        yield self.problem.loss(self.net(x + draws[0]), y) + draws[1].sum() * 0.01


class Local(Rule):
    """One unit a block with a head of its own, and a readout that every block's loss also reads."""

    def __init__(self, net: Any, problem: Problem) -> None:
        super().__init__(net, problem)
        self.heads = nn.ModuleList(nn.Linear(shape[-1], CLASSES) for shape in net.shapes)
        self.shared = nn.Parameter(torch.empty(CLASSES))
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("average", torch.zeros(CLASSES))

    def reset_parameters(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            self.shared.normal_(generator=generator)
        self.steps.zero_()
        self.average.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + self.shared

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        h = x
        for block, head in zip(self.net.blocks, self.heads, strict=True):
            h = block(h.detach())
            yield self.problem.loss(head(h) + self.shared, y)
        yield self.problem.loss(self.net.readout(h.detach()) + self.shared, y)

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        own = [[*b.parameters(), *h.parameters()] for b, h in zip(self.net.blocks, self.heads, strict=True)]
        return [*own, [*self.net.readout.parameters(), self.shared]]

    def after_step(self) -> None:
        with torch.no_grad():
            self.shared.copy_(self.shared.clamp(-1.0, 1.0))
            self.average.mul_(0.9).add_(self.shared, alpha=0.1)
            self.steps.add_(1)


class Phased(Whole):
    """Two phases; the second one trains with half the loss."""

    scale = 1.0

    def phases(self) -> Sequence[Phase]:
        return (Phase("first", 0.3), Phase("second", 0.7))

    def enter(self, phase: Phase) -> None:
        self.seen = [*getattr(self, "seen", []), phase.name]

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        yield self.problem.loss(self.net(x), y)


class Closed(Whole):
    """The readout is solved by least squares on the blocks' features, in one pass."""

    def fit(self, batches: Any) -> None:
        with torch.no_grad():
            rows = [(self.net.features(x)[-1], self.problem.encode(y).to(x)) for x, y in batches]
            h = torch.cat([r[0] for r in rows])
            h = torch.cat((h, torch.ones_like(h[:, :1])), 1)
            solved = torch.linalg.lstsq(h, torch.cat([r[1] for r in rows])).solution
            self.net.readout.weight.copy_(solved[:-1].T)
            self.net.readout.bias.copy_(solved[-1])
            self.rows = len(h)


def build(cls: type[Rule] = Whole, seed: int = 0, norm: str = "none", act: Any = None, widths: Sequence[int] = (6, 4)) -> Rule:
    """A rule on a small net with every value drawn from the streams of the seed, as the bench builds it."""
    with torch.device("meta"):
        rule = cls(net(widths, norm, act), PROBLEM)
    rule.to_empty(device="cpu")
    initialise(rule, seed)
    return rule


_FUSED: list[Any] = [part for part in catalogue.parts("optimizer") if getattr(part, "twin", None) and part.twin.fused]
#: Optimizers: a plain step, and an adaptive one. Schedules: one that stays, and one that falls to 0.
PLAIN = next(part.name for part in _FUSED if part.tags.scaling == "linear")
ADAPTIVE = next(part.name for part in _FUSED if part.tags.published == 1e-3 and part.tags.decay == "coupled")
_SCHEDULES: dict[str, Any] = {part.name: part.build(8) for part in catalogue.parts("optimizer") if SCHEDULE in part.slots()}
STEADY = next(name for name, at in _SCHEDULES.items() if at(0) == at(8) == 1)
FALLING = next(name for name, at in _SCHEDULES.items() if (at(0), at(8)) == (1, 0))

SETTING = Setting(seed=0, lr=0.05, steps=20, batch=16, evals=(5, 10, 20), optimizer=PLAIN, schedule=STEADY, precision="fp64")


def setting(seed: int = 0, **changes: Any) -> Setting:
    """SETTING with a seed and other changes."""
    return dataclasses.replace(SETTING, seed=seed, **changes)


def smooth_elementwise() -> Any:
    """The first smooth elementwise activation of the catalogue."""
    return next(p for p in catalogue.parts("activation") if p.tags.shape == "elementwise" and p.tags.smooth)
