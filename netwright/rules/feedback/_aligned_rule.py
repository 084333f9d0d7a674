"""Rules that carry the error back layer by layer through matrices B instead of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from netwright.engine.rule import Rule
from netwright.engine.task import Problem
from netwright.rules._toy import gradients, true_gradients
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


def equals_backprop(rule: Rule, x: Tensor, y: Tensor, *draws: Tensor) -> bool:
    """Whether the rule's update is the gradient of the loss through the forward weights (to 1e-12)."""
    got, exact = gradients(rule, x, y, *draws), true_gradients(rule, x, y)  # predictions know no B
    return all(torch.allclose(got[name], g, rtol=1e-12, atol=1e-14) for name, g in exact.items())
