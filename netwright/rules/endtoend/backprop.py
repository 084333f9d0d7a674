"""Backpropagation: the gradient of the task's loss at every parameter (Rumelhart, Hinton and Williams, 1986)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, final

from torch import Tensor

from netwright.core.part import Paper
from netwright.engine.rule import Rule
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import chain_rule, forward_by_hand, softmax_error


@final
class Backprop(Rule):
    """One loss at the readout; its gradient reaches every block."""

    any_net: ClassVar[bool] = True

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        yield self.problem.loss(self.net(x), y)


def reference(rule: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The chain rule by hand: delta_k = (delta_(k+1) W_(k+1)) * 1[h_k > 0], dW_k = delta_k^T h_(k-1)."""
    acts = forward_by_hand(rule.net, x)
    return chain_rule(rule.net, acts, softmax_error(acts[-1], y))


PART = rule(
    Backprop,
    reference=reference,
    formula=r"\Delta\theta \propto -\partial L(f_\theta(x), y) / \partial\theta",
    paper=Paper(
        title="Learning representations by back-propagating errors",
        authors="David E. Rumelhart, Geoffrey E. Hinton, Ronald J. Williams",
        year=1986,
        venue="Nature 323",
    ),
    tags=Tags(family="backprop"),
)
