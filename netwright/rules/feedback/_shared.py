"""What rules share that carry the error back layer by layer through matrices B instead of the weights.

Shape suffixes: B batch, N and M features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from netwright.engine.rule import Rule
from netwright.engine.task import Problem
from netwright.rules._toy import linear_gradients, softmax_error
from netwright.rules.feedback._aligned import Aligned, FeedbackWeights, align, aligned_layers


class AlignedRule(Rule):
    """Backpropagation through a net whose linear and convolutional layers have another way back. Abstract.

    Raises Misfit where the net has no such layer. The layers of the net given are replaced; their parameters stay.
    """

    any_net: ClassVar[bool] = True

    def __init__(self, net: nn.Module, problem: Problem, kind: str, scale: float) -> None:
        super().__init__(align(net), problem)  # type: ignore[arg-type]
        self.feedback = nn.ModuleList(FeedbackWeights(layer.weight, kind, scale) for layer in self.layers())

    def layers(self) -> list[Aligned]:
        """The layers that send back through other weights, in order; `feedback` has theirs."""
        return list(aligned_layers(self.net).values())

    def carried(self, *draws: Tensor) -> list[Tensor]:
        """B of every layer."""
        pairs = zip(self.layers(), self.feedback, strict=True)
        return [feedback(layer.weight, *draws[k : k + 1]) for k, (layer, feedback) in enumerate(pairs)]

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        layers = self.layers()
        try:
            for layer, b in zip(layers, self.carried(*draws), strict=True):
                layer.handed = b
            loss = self.problem.loss(self.net(x), y)
        finally:
            for layer in layers:
                layer.handed = None
        yield loss


def by_hand(rule: Any, x: Tensor, y: Tensor, carried: Sequence[Tensor]) -> dict[str, Tensor]:
    """delta_k = (delta_(k+1) B_(k+1)) * 1[h_k > 0], dW_k = delta_k^T h_(k-1), for the net of `Toy`.

    carried: B of every layer, the readout's last.
    """
    linears = [block[0] for block in rule.net.blocks] + [rule.net.readout]
    hidden = [x]
    for linear in linears[:-1]:
        hidden.append((hidden[-1] @ linear.weight.T + linear.bias).clamp(min=0))
    delta_BN = softmax_error(hidden[-1] @ linears[-1].weight.T + linears[-1].bias, y)
    grads = linear_gradients("net.readout", delta_BN, hidden[-1])
    for k in reversed(range(len(linears) - 1)):
        delta_BN = (delta_BN @ carried[k + 1]) * (hidden[k + 1] > 0)
        grads |= linear_gradients(f"net.blocks.{k}.0", delta_BN, hidden[k])
    return grads


def equals_backprop(rule: Rule, x: Tensor, y: Tensor, *draws: Tensor) -> bool:
    """Whether the rule's update is the gradient of the loss through the forward weights (to 1e-12)."""
    params = list(rule.net.parameters())
    exact = torch.autograd.grad(rule.problem.loss(rule(x), y), params)  # predictions know no B
    got = torch.autograd.grad(next(rule.losses(x, y, *draws)), params)
    return all(torch.allclose(a, b, rtol=1e-12, atol=1e-14) for a, b in zip(got, exact, strict=True))
