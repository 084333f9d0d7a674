"""Frozen hidden blocks: the control that trains the readout alone, on random features (Rahimi and Recht, 2008)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, final

from torch import Tensor, nn

from netwright.core.part import Paper
from netwright.engine.rule import Rule, require_blocks
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import forward_by_hand, linear_gradients, softmax_error


@final
class FrozenHidden(Rule):
    """Hidden blocks stay as they were drawn; what a rule scores above this, it has learnt in its hidden blocks.

    net: anything with `blocks` and a `readout`; the rule runs it as a whole.
    """

    any_net: ClassVar[bool] = True

    def __init__(self, net: Any, problem: Problem) -> None:
        super().__init__(net, problem)
        if not all(isinstance(getattr(net, name, None), nn.Module) for name in ("blocks", "readout")):
            require_blocks(net, "rule/frozen-hidden")
        net.blocks.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        yield self.problem.loss(self.net(x), y)


def reference(rule: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Softmax regression on the last block's output; nothing else has an update."""
    *_, h, out = forward_by_hand(rule.net, x)
    return linear_gradients("net.readout", softmax_error(out, y), h)


PART = rule(
    FrozenHidden,
    reference=reference,
    formula=r"\Delta\theta_{\mathrm{hidden}} = 0",
    paper=Paper(
        title="Weighted Sums of Random Kitchen Sinks: Replacing minimization with randomization in learning",
        authors="Ali Rahimi, Benjamin Recht",
        year=2008,
        venue="Advances in Neural Information Processing Systems 21",
    ),
    tags=Tags(
        family="backprop",
        above_control=False,
        reasons={"above_control": "it is the control"},
    ),
    deviations=(
        "the features are the host's own at its usual initialisation, not the paper's",
        "running statistics of normalisations in hidden blocks still follow the data",
    ),
)
