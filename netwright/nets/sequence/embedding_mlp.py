"""Embeddings side by side: the vectors of a row's items, joined, are the input of a multilayer perceptron (Bengio et al., 2003).

Item number 0 is padding, a vector of zeros.

Shape suffixes: N items of a row, D features of an item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from netwright.core.part import Option, Paper
from netwright.engine.blocks import Blocks, Factory
from netwright.engine.task import Problem
from netwright.nets._kind import Case, net
from netwright.nets._toy import problem, tokens
from netwright.nets.dense.mlp import Mlp
from netwright.nets.sequence._items import Items, before, looked_up, perceptron


def embedding_mlp(problem: Problem, widths: Sequence[int], fill: Mapping[str, Factory], d: int) -> Blocks:
    """Items (B, N) -> (B, N, D), then an Mlp of these widths, which flattens its input."""
    return before(Items(problem, d), Mlp(problem.input[0] * d, problem.output[-1], widths, fill))


def reference(net: Any, x: Tensor) -> Tensor:
    """A row at a time: its vectors one behind the other."""
    items = net.blocks[0][0]
    return perceptron(net, [sum(looked_up(items, row), []) for row in x.tolist()])


def cases() -> tuple[Case, ...]:
    return (
        Case(problem("tokens", (4,), (3,), vocabulary=5), (6, 4), tokens(4, 4, 5), {"d": 3}),
        Case(problem("tokens", (2,), (1,), vocabulary=7), (5,), tokens(3, 2, 7), {"d": 2}),
    )


PART = net(
    embedding_mlp,
    reference=reference,
    cases=cases,
    paper=Paper(
        title="A Neural Probabilistic Language Model",
        authors="Yoshua Bengio, Réjean Ducharme, Pascal Vincent, Christian Jauvin",
        year=2003,
        venue="Journal of Machine Learning Research",
    ),
    takes=frozenset({"tokens"}),
    places=("activation", "mlp", "norm", "layer", "head"),
    options=(Option("d", 8, "features of an item", bounds=(0, 2**20)),),
    deviations=(
        "as many hidden layers as there are widths, of the activation in their place; the paper has one of tanh units, and"
        " optionally a linear map beside it, from the vectors to the output",
        "vectors are drawn from N(0, 1 / D), which the paper leaves open; number 0, the padding, is a vector of zeros",
    ),
)
