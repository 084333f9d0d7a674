"""The KAN paper's toy formulas: how the error falls as grids are extended, and what MLPs reach at equal cost.

1 000 points to train on and 1 000 to test, in float64, no noise. A KAN of the shape the paper names starts with 3 intervals
and is extended to 5, 10, 20, 50 and 100, its grids moved to where its nodes are, 200 steps of L-BFGS each (section 3.1).
Against it MLPs of two hidden layers, tanh or SiLU, trained on the same points for the processor time that the KAN took: one
as wide as makes its parameters those of the KAN, and the best by training error of several widths.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.part import Option, Paper
from netwright.engine.blocks import count_parameters
from netwright.experiments._kind import Control, Figure, Predicate, experiment
from netwright.tensor.streams import generator, initialise

PI, POINTS, GRIDS = math.pi, 1000, (3, 5, 10, 20, 50, 100)


def toy(x: Tensor) -> Tensor:
    return torch.exp(torch.sin(PI * x[:, :1]) + x[:, 1:] ** 2)


def waves(x: Tensor) -> Tensor:
    pairs = (x**2).view(-1, 2, 2).sum(2)
    return torch.exp(torch.sin(PI * pairs).mean(1, keepdim=True))


#: name -> (function of (N, inputs) on [-1, 1], widths of the KAN)
FORMULAS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "bessel": (lambda x: torch.special.bessel_j0(20 * x), (1, 1)),
    "toy": (toy, (2, 1, 1)),
    "toy, five nodes": (toy, (2, 5, 1)),
    "product": (lambda x: x[:, :1] * x[:, 1:], (2, 2, 1)),
    "four": (waves, (4, 4, 2, 1)),
    "hundred": (lambda x: torch.exp((torch.sin(PI * x / 2) ** 2).mean(1, keepdim=True)), (100, 1, 1)),
}
WIDTHS = (8, 16, 32, 64, 128)
ACTIVATIONS = {"tanh": nn.Tanh, "silu": nn.SiLU}


def fit(net: nn.Module, x: Tensor, y: Tensor, steps: int, seconds: float = math.inf) -> None:
    """Steps of L-BFGS, in pieces of 20 where processor time is limited."""
    piece = steps if math.isinf(seconds) else 20
    descent = torch.optim.LBFGS(
        net.parameters(),
        max_iter=piece,
        line_search_fn="strong_wolfe",
        history_size=100,
        tolerance_grad=0.0,
        tolerance_change=0.0,
    )
    begun = time.process_time()

    def closure() -> Tensor:
        descent.zero_grad()
        loss = (net(x) - y).square().mean()
        loss.backward()
        return loss

    for _ in range(-(-steps // piece)):
        if time.process_time() - begun > seconds:
            break
        descent.step(closure)


@torch.no_grad()
def regrid(kan: nn.Sequential, x: Tensor, grid: int | None = None) -> None:
    """Move the knots of every layer to where its inputs lie, or so many of them there; the functions stay."""
    given = [x]
    for layer in list(kan)[:-1]:
        given.append(layer(given[-1]))
    for layer, rows in zip(kan, given, strict=True):
        layer.update_grid(rows, grid, 1.0)  # type: ignore[operator]


@torch.no_grad()
def error(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Root mean square error, not divided by anything."""
    value = float((net(x) - y).square().mean().sqrt())
    return value if math.isfinite(value) else math.inf


def drawn(net: nn.Sequential, seed: int) -> nn.Sequential:
    """A net that was built on the meta device, in float64, with values by the seed."""
    net = net.double().to_empty(device="cpu")
    initialise(net, seed)
    return net


def kan_of(shape: tuple[int, ...], seed: int) -> nn.Sequential:
    with torch.device("meta"):
        sizes = zip(shape, shape[1:], strict=False)
        net = nn.Sequential(*(catalogue.make("layer/kan", d_in, d_out, grid=GRIDS[0], noise=0.3) for d_in, d_out in sizes))
    return drawn(net, seed)


def mlp_of(inputs: int, width: int, activation: str, seed: int) -> nn.Sequential:
    act = ACTIVATIONS[activation]
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(inputs, width), act(), nn.Linear(width, width), act(), nn.Linear(width, 1))
    return drawn(net, seed)


def nearest_width(inputs: int, parameters: int) -> int:
    return min(range(1, 500), key=lambda w: abs((inputs + 1) * w + (w + 1) * w + w + 1 - parameters))


def cell(seed: int, *, formula: str, steps: int, widths: int, equal: str, extended: bool) -> Mapping[str, Any]:
    """The KAN grid by grid, then MLPs for as long: test errors, and the slope of the KAN's from 20 to 100 intervals."""
    f, shape = FORMULAS[formula]
    draw = generator(seed, "experiment", "points")
    x, x_test = (2 * torch.rand(POINTS, shape[0], generator=draw, dtype=torch.float64) - 1 for _ in range(2))
    y, y_test = f(x), f(x_test)
    kan, begun = kan_of(shape, seed), time.process_time()
    for _ in range(5):  # nodes find their ranges first
        regrid(kan, x)
        fit(kan, x, y, 10)
    errors = {}
    for grid in GRIDS:
        regrid(kan, x, grid if extended else GRIDS[0])
        fit(kan, x, y, steps)
        errors[grid] = error(kan, x_test, y_test)
    spent = time.process_time() - begun
    own = nearest_width(shape[0], count_parameters(kan))
    found = []
    for activation in ACTIVATIONS:
        for width in sorted({own, *WIDTHS[:widths]}):
            mlp = mlp_of(shape[0], width, activation, seed)
            limit = (10**6, spent) if equal == "time" else (steps * len(GRIDS), math.inf)
            fit(mlp, x, y, *limit)
            found.append((error(mlp, x, y), error(mlp, x_test, y_test), width == own))
    return {
        "kan": min(errors.values()),
        "slope": math.log(errors[100] / errors[20]) / math.log(100 / 20),
        "mlp": min(found)[1],
        "mlp_equal": min(row for row in found if row[2])[1],
        **{f"grid_{grid}": value for grid, value in errors.items()},
    }


def ratio(table: Any) -> float:
    """log10 of the MLP's error over the KAN's, the mean over formulas."""
    found = [math.log10(row["mlp"] / row["kan"]) for row in table.rows]
    return sum(found) / len(found)


PART = experiment(
    cell,
    name="kan-formulas",
    paper=Paper("kan", equation="section 3.1"),
    uses=("layer/kan",),
    grid={"formula": tuple(FORMULAS)},
    gives=("kan", "slope", "mlp", "mlp_equal", *(f"grid_{grid}" for grid in GRIDS)),
    timed=("mlp", "mlp_equal"),
    options=(
        Option("steps", 200, "of L-BFGS at each grid", bounds=(0, 10**6)),
        Option("widths", len(WIDTHS), "how many of 8 to 128 the MLP tries", bounds=(0, len(WIDTHS) + 1)),
        Option("equal", "time", "what MLPs get as much of as the KAN", allowed=("time", "steps")),
        Option("extended", True, "or the grid stays as it began"),
    ),
    sizes={
        "tiny": {"formula": ("bessel",), "steps": 40, "widths": 1, "equal": "steps", "seeds": 3},
        "small": {"seeds": 5},
        "full": {"seeds": 20},
    },
    predicates=(
        Predicate(
            "order",
            "the error of J0(20 x) falls with the grid as cubic splines' does: as its fourth power",
            lambda table: table.rows[0]["slope"],
            inside=(-5.0, -3.0),
            reads=("slope",),
            at={"formula": "bessel"},
            where="section 3.1",
        ),
        Predicate(
            "mlps",
            "at equal time the KAN's error is below that of the best MLP",
            ratio,
            inside=(0.0, 100.0),
            reads=("kan", "mlp"),
            where="section 3.1",
        ),
    ),
    controls=(Control("the grid is never extended", {"extended": False}, ("order", "mlps")),),
    figure=Figure("kan", "mlp", "log-log", theory=lambda error: error, by="formula", label="error of the best MLP"),
    deviations=(
        "the shapes of the KANs are those that the formula is known to fit, as in the paper",
        "the best grid is taken by test error, which favours the KAN",
    ),
)
