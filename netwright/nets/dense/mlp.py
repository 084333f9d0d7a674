"""A multilayer perceptron: the input flattened, fully connected layers, a linear readout (Rumelhart et al., 1986).

Shape suffixes: B batch, D features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.part import Paper
from netwright.engine.blocks import Blocks, Factory, Flatten
from netwright.engine.task import Problem
from netwright.nets._kind import Case, activation_of, channels_after, linear_of, needs_bias, net, norm_of
from netwright.nets._toy import by_hand, problem, rows


@final
class Dense(nn.Module):
    """linear -> norm -> activation, or linear to twice the width -> gate where the slot `mlp` is filled."""

    def __init__(self, d_in: int, width: int, fill: Mapping[str, Factory]) -> None:
        super().__init__()
        wide = 2 * width if "mlp" in fill else width
        act, norm = activation_of(fill, wide, -1), norm_of(fill, wide, -1)
        self.linear = linear_of(fill, ("layer",), d_in, wide, needs_bias(norm))
        self.norm = norm
        self.act = act
        self.width = channels_after(act, wide)

    def pre(self, x_BD: Tensor) -> Tensor:
        """What the activation reads."""
        return self.norm(self.linear(x_BD))

    def forward(self, x_BD: Tensor) -> Tensor:
        return self.act(self.pre(x_BD))


class Mlp(Blocks):
    """Fully connected: input flattened, one Dense a width, a linear readout. widths: hidden widths."""

    def __init__(self, d_in: int, d_out: int, widths: Sequence[int], fill: Mapping[str, Factory]) -> None:
        blocks: list[nn.Module] = []
        shapes = []
        for i, width in enumerate(widths):
            dense = Dense(d_in, width, fill)
            blocks.append(nn.Sequential(Flatten(), dense) if i == 0 else dense)
            d_in = dense.width
            shapes.append((d_in,))
        super().__init__(blocks, linear_of(fill, ("head", "readout"), d_in, d_out), shapes)


def mlp(problem: Problem, widths: Sequence[int], fill: Mapping[str, Factory]) -> Mlp:
    return Mlp(math.prod(problem.input), problem.output[-1], widths, fill)


def reference(net: Any, x: Tensor) -> Tensor:
    """A row at a time; an image row by row of its pixels, a channel after the other."""

    def numbers(value: Any) -> list[float]:
        return [number for part in value for number in numbers(part)] if isinstance(value, list) else [value]

    out = []
    for row in x.tolist():
        h = numbers(row)
        for k, block in enumerate(net.blocks):
            dense = block[1] if k == 0 else block
            h = by_hand(dense.act, by_hand(dense.norm, by_hand(dense.linear, h)))
        out.append(by_hand(net.readout, h))
    return torch.tensor(out, dtype=torch.float64)


def cases() -> tuple[Case, ...]:
    return (
        Case(problem("vector", (5,), (3,)), (6, 4), rows(4, 5)),
        Case(problem("image", (2, 2, 3), (2,)), (7,), rows(3, 2, 2, 3)),
        Case(problem("vector", (1,), (1,)), (3, 5, 4), rows(5, 1)),
    )


PART = net(
    mlp,
    reference=reference,
    cases=cases,
    paper=Paper(
        title="Learning representations by back-propagating errors",
        authors="David E. Rumelhart, Geoffrey E. Hinton, Ronald J. Williams",
        year=1986,
        venue="Nature",
    ),
    takes=frozenset({"vector", "image"}),
    places=("activation", "mlp", "norm", "layer", "head"),
)
