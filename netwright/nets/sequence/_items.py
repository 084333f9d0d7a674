"""Items before a perceptron: what nets over rows of item numbers read, number 0 being the padding.

Shape suffixes: B batch, N items of a row, D features of an item.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.engine.blocks import Blocks
from netwright.engine.task import Problem
from netwright.nets.dense import mlp


@final
class Items(nn.Module):
    """Item numbers (...) -> a learnt vector each (..., D). Padding is the zero vector: it adds nothing to a sum."""

    def __init__(self, problem: Problem, d: int) -> None:
        super().__init__()
        if problem.vocabulary is None:
            raise BadInput("the problem says no vocabulary; give Problem(vocabulary=) the number of items, padding included")
        self.vector = nn.Embedding(problem.vocabulary, d)
        self.scale = 1 / math.sqrt(d)  # torch draws embeddings with variance 1; an item starts at about length 1

    def forward(self, x: Tensor) -> Tensor:
        return self.vector(x) * self.scale * (x != 0).unsqueeze(-1)


def before(read: nn.Module, net: Blocks) -> Blocks:
    """The net, whose first block starts with `read`."""
    first, *others = net.blocks
    return Blocks([nn.Sequential(read, first), *others], net.readout, net.shapes)


# The second writing ---------------------------------------------------------------------------------------------------


def looked_up(items: Items, row: Sequence[int]) -> list[list[float]]:
    """The vector of each item of a row."""
    table = items.vector.weight.tolist()
    d = len(table[0])
    return [[value / math.sqrt(d) for value in table[item]] if item else [0.0] * d for item in row]


def perceptron(net: Any, read: list[list[float]]) -> Tensor:
    """What the net makes of rows of what it read."""
    after = SimpleNamespace(blocks=[net.blocks[0][1], *net.blocks[1:]], readout=net.readout)
    return mlp.reference(after, torch.tensor(read, dtype=torch.float64))
