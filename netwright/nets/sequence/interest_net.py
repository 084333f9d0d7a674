"""Interests: a history of items is pooled by what each has to do with a candidate, then a multilayer perceptron.

The first item of a row is the candidate q, the others are the history k_1 .. k_L, in which 0 is padding. With a local
activation unit w (Zhou et al., 2018) the history is sum_j w(q, k_j) k_j: the weights needn't sum to 1, so that how much of
a history bears on the candidate is not lost. What the unit is compared with: the mean, the sum, no history at all.

Shape suffixes: B batch, L items of a history, N items of a row (1 + L), D features of an item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.part import Claim, Option, Paper
from netwright.engine.blocks import Blocks, Factory
from netwright.engine.task import Problem
from netwright.nets._kind import Case, net
from netwright.nets._toy import by_hand, problem
from netwright.nets.dense.mlp import Dense, Mlp
from netwright.nets.sequence._items import Items, before, looked_up, perceptron
from netwright.tensor.streams import initialise

#: What a history becomes: a sum weighted by the activation unit, a plain one, its mean; or nothing.
POOLINGS = ("attention", "sum", "mean", "none")


@final
class ActivationUnit(nn.Module):
    """The weight of each item of a history for a candidate: a Dense over [q, k, q - k, q k], and a linear map to a number."""

    def __init__(self, d: int, hidden: int, fill: Mapping[str, Factory]) -> None:
        super().__init__()
        self.hidden = Dense(4 * d, hidden, fill)
        self.out = nn.Linear(self.hidden.width, 1)

    def forward(self, q_BD: Tensor, k_BLD: Tensor) -> Tensor:
        q_BLD = q_BD.unsqueeze(1).expand_as(k_BLD)
        return self.out(self.hidden(torch.cat([q_BLD, k_BLD, q_BLD - k_BLD, q_BLD * k_BLD], -1)))


@final
class Interests(nn.Module):
    """Item numbers (B, N) -> the pooled history and the candidate (B, 2 D), or the candidate alone (B, D)."""

    def __init__(self, problem: Problem, pooling: str, d: int, hidden: int, fill: Mapping[str, Factory]) -> None:
        super().__init__()
        self.pooling = pooling
        self.items = Items(problem, d)
        self.unit = ActivationUnit(d, hidden, fill) if pooling == "attention" else None
        self.width = d if pooling == "none" else 2 * d

    def forward(self, x_BN: Tensor) -> Tensor:
        e_BND = self.items(x_BN)
        q_BD, k_BLD = e_BND[:, 0], e_BND[:, 1:]
        if self.pooling == "none":
            return q_BD
        if self.unit is not None:
            k_BLD = self.unit(q_BD, k_BLD) * k_BLD
        pooled_BD = k_BLD.sum(1)
        if self.pooling == "mean":
            count_B1 = (x_BN[:, 1:] != 0).sum(1, keepdim=True)
            pooled_BD = pooled_BD / count_B1.clamp(min=1)  # of an empty history the mean is 0
        return torch.cat([pooled_BD, q_BD], -1)


def interest_net(
    problem: Problem, widths: Sequence[int], fill: Mapping[str, Factory], pooling: str, d: int, hidden: int
) -> Blocks:
    """Interests, then an Mlp of these widths."""
    read = Interests(problem, pooling, d, hidden, fill)
    return before(read, Mlp(read.width, problem.output[-1], widths, fill))


def reference(net: Any, x: Tensor) -> Tensor:
    """A row at a time, an item of its history after the other, padding left out."""
    read, found = net.blocks[0][0], []
    for row in x.tolist():
        q, *history = looked_up(read.items, [item for place, item in enumerate(row) if item or not place])
        pooled = [0.0] * len(q)
        for k in history:
            weight = 1.0 / len(history) if read.pooling == "mean" else 1.0
            if read.pooling == "attention":
                pairs = list(zip(q, k, strict=True))
                asked, unit = [*q, *k, *(a - b for a, b in pairs), *(a * b for a, b in pairs)], read.unit.hidden
                (weight,) = by_hand(read.unit.out, by_hand(unit.act, by_hand(unit.norm, by_hand(unit.linear, asked))))
            pooled = [total + weight * value for total, value in zip(pooled, k, strict=True)]
        found.append(q if read.pooling == "none" else [*pooled, *q])
    return perceptron(net, found)


def claim_intensity() -> bool:
    """A history that is seen twice weighs twice as much: two weights of one item aren't made to share a sum of 1."""
    once, twice = torch.tensor([[1, 2, 3, 0, 0]]), torch.tensor([[1, 2, 3, 2, 3]])
    read = Interests(problem("tokens", (5,), (1,), vocabulary=4), "attention", 4, 8, {}).double()
    initialise(read, 0)
    pooled_once, pooled_twice = (read(x)[:, :4] for x in (once, twice))
    return torch.allclose(pooled_twice, 2 * pooled_once, rtol=1e-12)


def cases() -> tuple[Case, ...]:
    """Every pooling, among the histories one that is padding alone."""
    x = torch.tensor([[3, 1, 4, 0, 0], [2, 2, 1, 5, 4], [5, 0, 0, 0, 0], [1, 3, 0, 2, 0]])
    few = problem("tokens", (5,), (2,), vocabulary=6)
    return (
        Case(few, (6, 4), x, {"pooling": "attention", "d": 3, "hidden": 5}),
        *(Case(few, (5,), x, {"pooling": pooling, "d": 3}) for pooling in ("mean", "sum", "none")),
        Case(problem("tokens", (3,), (1,), vocabulary=4), (4,), x[:, :3] % 4, {"pooling": "attention", "d": 2}),
    )


PART = net(
    interest_net,
    reference=reference,
    cases=cases,
    formula=r"\mathrm{MLP}\left(\left[\sum_j w(q, k_j)\, k_j,\; q\right]\right)",
    paper=Paper("deep-interest-network", equation="(3)"),
    takes=frozenset({"tokens"}),
    places=("activation", "mlp", "norm", "layer", "head"),
    options=(
        Option("pooling", "attention", "what a history becomes", allowed=POOLINGS),
        Option("d", 8, "features of an item", bounds=(0, 2**20)),
        Option("hidden", 8, "width of the activation unit", bounds=(0, 2**20)),
    ),
    claims=(Claim("intensity", "keeps how strong an interest is: no softmax", "section 4.3", claim_intensity),),
    deviations=(
        "the activation unit reads [q, k, q - k, q k] as in the official code, through one hidden layer in place of that code's"
        " two; that code then takes a softmax of its outputs over sqrt(D), which the paper gives up (section 4.3)",
        "the official code also hands the product of pooled history and candidate, batch-normalised, to the perceptron",
        "items have no categories, users no profile, rows no context; the output is a logit in place of a softmax over two",
        "embeddings are drawn from N(0, 1 / D); the paper's mini-batch aware regularisation is left out",
    ),
)
