"""Frozen hidden blocks: the control that trains the readout alone, on random features (after Rahimi and Recht, 2008)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from torch import Tensor

from netwright.kinds.rule import Blocks, Problem, Rule, Tags, gradients, rule, toy
from netwright.part import Claim, Paper


@final
class FrozenHidden(Rule):
    """Hidden blocks stay as they were drawn; what a learning rule scores above this, it has learnt in its hidden blocks."""

    def __init__(self, net: Blocks, problem: Problem) -> None:
        super().__init__(net, problem)
        net.blocks.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        h = x
        for block in self.net.blocks:
            h = block(h)
        yield self.problem.loss(self.net.readout(h.detach()), y)


def claim_readout_only() -> bool:
    """Only the readout has an update, and it is the one backpropagation gives it."""
    t = toy()
    grad = gradients(t.bind(FrozenHidden), t.x, t.y)
    t.problem.loss(t.net(t.x), t.y).backward()
    learnt = {f"net.{name}": p.grad for name, p in t.net.named_parameters() if p.requires_grad}
    return grad.keys() == learnt.keys() and all((grad[name] == learnt[name]).all() for name in learnt)


PART = rule(
    FrozenHidden,
    formula=r"\Delta\theta_{\mathrm{hidden}} = 0",
    paper=Paper(
        title="Weighted Sums of Random Kitchen Sinks: Replacing minimization with randomization in learning",
        authors="Ali Rahimi, Benjamin Recht",
        year=2008,
        venue="Advances in Neural Information Processing Systems 21",
    ),
    tags=Tags(
        family="backprop",
        needs=frozenset({"blocks"}),
        above_control=False,
        reasons={"above_control": "it is the control"},
    ),
    claims=(Claim("readout-only", "the readout learns as under backpropagation, nothing else does", check=claim_readout_only),),
    deviations=(
        "the features are the host's own at its usual initialisation, not the paper's",
        "running statistics of normalisations in hidden blocks still follow the data",
    ),
)
