"""Backpropagation: the gradient of the task's loss at every parameter (Rumelhart, Hinton and Williams, 1986)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, final

from torch import Tensor

from netwright.core.part import Paper
from netwright.engine.rule import Rule
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import linear_gradients, softmax_error


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
    linears = [block[0] for block in rule.net.blocks] + [rule.net.readout]
    hidden = [x]
    for linear in linears[:-1]:
        hidden.append((hidden[-1] @ linear.weight.T + linear.bias).clamp(min=0))
    delta = softmax_error(hidden[-1] @ linears[-1].weight.T + linears[-1].bias, y)
    grads = linear_gradients("net.readout", delta, hidden[-1])
    for k in reversed(range(len(linears) - 1)):
        delta = (delta @ linears[k + 1].weight) * (hidden[k + 1] > 0)
        grads |= linear_gradients(f"net.blocks.{k}.0", delta, hidden[k])
    return grads


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
