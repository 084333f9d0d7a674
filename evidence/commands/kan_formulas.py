"""The KAN paper's toy formulas: how the error falls as grids are extended, and what MLPs reach at equal cost.

    python evidence/commands/kan_formulas.py [--formula NAME ...] [--seeds N] [--budget MINUTES] [--workers N]

1 000 points to train on and 1 000 to test, in float64, no noise. A KAN of the shape the paper names starts with 3 intervals
and is extended to 5, 10, 20, 50 and 100, its grids moved to where its nodes are, 200 steps of L-BFGS each (section 3.1).
Against it MLPs of two hidden layers, tanh or SiLU, trained by L-BFGS on the same points for the processor time that the KAN
took: one as wide as makes its parameters those of the KAN, and the best by training error of the widths 8 to 128.
Resumable by formula and seed. Writes evidence/kan_formulas.json and evidence/kan_formulas.md.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from _studies import Cell, ending, fill
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.fingerprint import fingerprint
from netwright.engine.blocks import count_parameters
from netwright.waiting.edges import update_grids

HERE = Path(__file__).resolve().parents[1]
PI, POINTS, STEPS, GRIDS = math.pi, 1000, 200, (3, 5, 10, 20, 50, 100)


def toy(x: Tensor) -> Tensor:
    return torch.exp(torch.sin(PI * x[:, :1]) + x[:, 1:] ** 2)


def waves(x: Tensor) -> Tensor:
    pairs = (x**2).view(-1, 2, 2).sum(2)
    return torch.exp(torch.sin(PI * pairs).mean(1, keepdim=True))


#: name -> (formula as text, function of (N, inputs) on [-1, 1], widths of the KAN)
FORMULAS: dict[str, tuple[str, Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "bessel": ("J0(20 x)", lambda x: torch.special.bessel_j0(20 * x), (1, 1)),
    "toy": ("exp(sin(pi x) + y^2)", toy, (2, 1, 1)),
    "toy, five nodes": ("exp(sin(pi x) + y^2)", toy, (2, 5, 1)),
    "product": ("x y", lambda x: x[:, :1] * x[:, 1:], (2, 2, 1)),
    "four": ("exp((sin(pi (a^2 + b^2)) + sin(pi (c^2 + d^2))) / 2)", waves, (4, 4, 2, 1)),
    "hundred": (
        "exp(mean of sin^2(pi x_i / 2), 100 inputs)",
        lambda x: torch.exp((torch.sin(PI * x / 2) ** 2).mean(1, keepdim=True)),
        (100, 1, 1),
    ),
}
WIDTHS = (8, 16, 32, 64, 128)
ACTIVATIONS = {"tanh": nn.Tanh, "silu": nn.SiLU}


def optimizer(net: nn.Module, steps: int) -> torch.optim.LBFGS:
    return torch.optim.LBFGS(
        net.parameters(),
        max_iter=steps,
        line_search_fn="strong_wolfe",
        history_size=100,
        tolerance_grad=0.0,
        tolerance_change=0.0,
    )


def fit(net: nn.Module, x: Tensor, y: Tensor, steps: int, seconds: float = math.inf) -> None:
    """Steps of L-BFGS, in pieces of 20 where processor time is limited."""
    piece = steps if math.isinf(seconds) else 20
    descent, begun = optimizer(net, piece), time.process_time()

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
def error(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Root mean square error, not divided by anything."""
    value = float((net(x) - y).square().mean().sqrt())
    return value if math.isfinite(value) else math.inf


def points(seed: int, inputs: int) -> Tensor:
    """(POINTS, inputs), uniform on [-1, 1]."""
    return 2 * torch.rand(POINTS, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1


def kan_of(widths: tuple[int, ...], seed: int) -> nn.Sequential:
    g, layers = torch.Generator().manual_seed(seed), []
    for d_in, d_out in zip(widths, widths[1:], strict=False):
        layer: Any = catalogue.make("layer/kan", d_in, d_out, grid=GRIDS[0], noise=0.3).double()
        layer.reset_parameters(g)
        layers.append(layer)
    return nn.Sequential(*layers)


def mlp_of(inputs: int, width: int, activation: str, seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        act = ACTIVATIONS[activation]
        return nn.Sequential(nn.Linear(inputs, width), act(), nn.Linear(width, width), act(), nn.Linear(width, 1)).double()


def nearest_width(inputs: int, parameters: int) -> int:
    return min(range(1, 500), key=lambda w: abs((inputs + 1) * w + (w + 1) * w + w + 1 - parameters))


def cell(formula: str, seed: int) -> dict[str, Any]:
    """One formula at one seed: the KAN grid by grid, then MLPs for as long. Importable by name: worker processes call it."""
    _, f, widths = FORMULAS[formula]
    x, x_test = points(2 * seed, widths[0]), points(2 * seed + 1, widths[0])
    y, y_test = f(x), f(x_test)
    kan, begun = kan_of(widths, seed), time.process_time()
    stages = []
    for _ in range(5):  # nodes find their ranges first
        update_grids(kan, x, eps=1.0)
        fit(kan, x, y, 10)
    for grid in GRIDS:
        update_grids(kan, x, grid=grid, eps=1.0)
        fit(kan, x, y, STEPS)
        spent = time.process_time() - begun
        stages.append(
            {
                "grid": grid,
                "parameters": count_parameters(kan),
                "train": error(kan, x, y),
                "test": error(kan, x_test, y_test),
                "seconds": spent,
            }
        )
    mlps = []
    for activation in ACTIVATIONS:
        own = nearest_width(widths[0], stages[-1]["parameters"])
        for width in sorted({own, *WIDTHS}):
            mlp = mlp_of(widths[0], width, activation, seed)
            fit(mlp, x, y, 10**6, seconds=stages[-1]["seconds"])
            mlps.append(
                {
                    "activation": activation,
                    "width": width,
                    "parameters": count_parameters(mlp),
                    "matched": width == own,
                    "train": error(mlp, x, y),
                    "test": error(mlp, x_test, y_test),
                }
            )
    part = catalogue.get("layer/kan")
    return {"fingerprints": {part.id: fingerprint(part)}, "stages": stages, "mlps": mlps}


def cells(formulas: list[str], seeds: int) -> Iterator[tuple[str, Cell]]:
    for seed in range(seeds):
        for formula in formulas:
            yield f"{formula}/{seed}", {"formula": formula, "seed": seed}


# The page -------------------------------------------------------------------------------------------------------------


def page(saved: Mapping[str, Any]) -> str:
    out = [
        "# The KAN paper's toy formulas",
        "",
        "Written by `python evidence/commands/kan_formulas.py`; do not edit. Root mean square error on 1 000 test points, median"
        " over seeds [least, largest]. The columns are grids, each extended from the one before, 200 steps of L-BFGS on 1 000"
        " points. *slope*: of log error over log grid from 5 to 20 intervals; -4 is the order of cubic splines. MLPs of two"
        " hidden layers on the same points for the same processor time as the whole KAN: *equal parameters* as many as the"
        " KAN's last grid; *any width* the best of 8 to 128 by its training error. Of tanh and SiLU the better by training"
        " error.",
        "",
        "| formula | KAN | "
        + " | ".join(f"grid {g}" for g in GRIDS)
        + " | slope | MLP, equal parameters | MLP, any width | seeds |",
        "|" + "---|" * (len(GRIDS) + 6),
    ]
    wins = []
    for formula, (text, _, widths) in FORMULAS.items():
        rows = [row for row in saved["cells"].values() if row["formula"] == formula and "stages" in row]
        if not rows:
            continue
        tests = {g: [stage["test"] for row in rows for stage in row["stages"] if stage["grid"] == g] for g in GRIDS}
        middle = {g: statistics.median(values) for g, values in tests.items()}
        slope = math.log(middle[20] / middle[5]) / math.log(20 / 5)
        matched, free = ([best(row, only) for row in rows] for only in (True, False))
        least = min(middle.values())
        wins.append((formula, text, least, statistics.median(matched), statistics.median(free)))
        columns = [spread(tests[g]) for g in GRIDS]
        out.append(
            f"| {text} | {list(widths)} | "
            + " | ".join(columns)
            + f" | {slope:.1f} | {spread(matched)} | {spread(free)} | {len(rows)} |"
        )
    won = [f"{text} ({kan:.0e} against {mlp:.0e})" for _, text, kan, _, mlp in wins if mlp < kan]
    lost = [f"{text} ({kan:.0e} against {mlp:.0e})" for _, text, kan, _, mlp in wins if mlp >= kan]
    out += [
        "",
        "At equal time, best grid against best width, medians of the test error:",
        "",
        f"- the KAN is better on: {'; '.join(lost) or 'none'}",
        f"- the MLP is better on: {'; '.join(won) or 'none'}",
        "",
        "The shapes of the KANs are those that the formula is known to fit; a person who doesn't know the formula has to find"
        " them. The best grid is chosen by test error here, which favours the KAN.",
    ]
    stale = ["", f"Measured before the layer's file last changed: {', '.join(saved['stale'])}."] if saved["stale"] else []
    return "\n".join([*out, *stale, *ending(saved)])


def best(row: Mapping[str, Any], matched: bool) -> float:
    """Test error of the MLP with the least training error."""
    found = min((m for m in row["mlps"] if m["matched"] or not matched), key=lambda m: m["train"])
    return float(found["test"])


def spread(values: list[float]) -> str:
    """The median and, of several seeds, the least and the largest."""
    return f"{statistics.median(values):.1e}" + (f" [{min(values):.0e}, {max(values):.0e}]" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formula", nargs="+", choices=tuple(FORMULAS), default=list(FORMULAS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=60.0, help="minutes after which no further cell is begun")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    given = parser.parse_args()
    every = [key for key, _ in cells(list(FORMULAS), 1)]  # one seed is little, but no blank
    fill(cells(given.formula, given.seeds), cell, HERE / "kan_formulas.json", page, given.budget, given.workers, every)


if __name__ == "__main__":
    main()
