"""Backpropagation: the gradient of the task's loss at every parameter (Rumelhart, Hinton and Williams, 1986)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from torch import Tensor

from netwright.kinds.rule import Rule, Tags, rule
from netwright.part import Paper


@final
class Backprop(Rule):
    """One loss at the readout; its gradient reaches every block."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        yield self.problem.loss(self.net(x), y)


PART = rule(
    Backprop,
    formula=r"\Delta\theta \propto -\partial L(f_\theta(x), y) / \partial\theta",
    paper=Paper(
        title="Learning representations by back-propagating errors",
        authors="David E. Rumelhart, Geoffrey E. Hinton, Ronald J. Williams",
        year=1986,
        venue="Nature 323",
    ),
    tags=Tags(family="backprop"),
)
