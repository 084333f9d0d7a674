"""Mono-Forward: every block learns from the cross-entropy of its own linear projection to the classes (Gong, Li and Abdulla)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import final

import torch
from torch import Tensor, nn

from netwright.kinds.rule import Blocks, Misfit, Problem, Rule, Tags, gradients, rule, toy, trainable
from netwright.part import Claim, Option, Paper, Protocol
from netwright.rules.blocklocal._shared import Head


@final
class MonoForward(Rule):
    """G_k = h_k M_k^T, L_k = loss(G_k, y), and the next block reads h_k detached.

    The last projection is the host's readout. predict: "last" (its output) or "sum" (the sum of all G_k).
    Raises Misfit for predict="sum" where the output is not a score a class: sums of estimates are no estimate.
    """

    def __init__(self, net: Blocks, problem: Problem, predict: str = "last") -> None:
        super().__init__(net, problem)
        if predict == "sum" and problem.classes is None:
            raise Misfit("predict='sum' adds scores of classes, and this problem has no classes; use predict='last'")
        self.predict = predict
        self.heads = nn.ModuleList(Head(shape, problem.output[-1]) for shape in net.shapes[:-1])

    def projections(self) -> list[nn.Module]:
        """M_1 .. M_n, the readout last."""
        return [*self.heads, self.net.readout]

    def forward(self, x: Tensor) -> Tensor:
        if self.predict == "last":
            return self.net(x)
        scores = [project(h) for project, h in zip(self.projections(), self.net.features(x), strict=True)]
        return torch.stack(scores).sum(0)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        h = x
        for block, project in zip(self.net.blocks, self.projections(), strict=True):
            h = block(h.detach())
            yield self.problem.loss(project(h), y)

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        return [trainable(block, project) for block, project in zip(self.net.blocks, self.projections(), strict=True)]


def claim_closed_form() -> bool:
    """d = (softmax(G) - Y) / B; dM = d^T h; dW = ((d M) * 1[h > 0])^T x, in both blocks."""
    t = toy()
    mono = t.bind(MonoForward)
    grad = gradients(mono, t.x, t.y)
    h_in, same = t.x, []
    for k, (block, project) in enumerate(zip(t.net.blocks, ("heads.0.linear", "net.readout"), strict=True)):
        h = block(h_in).detach()
        m_CD = mono.get_parameter(f"{project}.weight")
        bias = t.net.readout.bias if k else 0.0
        d_BC = (torch.softmax(h @ m_CD.T + bias, -1) - t.problem.encode(t.y)) / len(t.x)  # type: ignore[misc]
        da_BD = (d_BC @ m_CD) * (h > 0)
        same += [torch.allclose(grad[f"{project}.weight"], d_BC.T @ h, rtol=1e-12, atol=1e-14)]
        same += [torch.allclose(grad[f"net.blocks.{k}.0.weight"], da_BD.T @ h_in, rtol=1e-12, atol=1e-14)]
        h_in = h
    return all(same)


def claim_one_block() -> bool:
    """With one block nothing is cut: the update is the gradient of the loss through the whole net."""
    t = toy(widths=(6,))
    grad = gradients(t.bind(MonoForward), t.x, t.y)
    t.problem.loss(t.net(t.x), t.y).backward()
    return all(torch.equal(grad[f"net.{name}"], p.grad) for name, p in t.net.named_parameters())


PART = rule(
    MonoForward,
    formula=r"L_k = \mathrm{CE}\left(h_k M_k^\top,\ y\right),\quad h_k = f_k(\mathrm{sg}(h_{k-1}))",
    paper=Paper("mono-forward"),
    tags=Tags(family="local", local=True, needs=frozenset({"blocks"})),
    options=(Option("predict", "last", "read the last projection, or the sum of all of them", allowed=("last", "sum")),),
    claims=(
        Claim("closed-form", "the update of W_k and M_k is that of softmax regression on h_k", check=claim_closed_form),
        Claim("one-block", "with one hidden layer the update is backpropagation's", check=claim_one_block),
        Claim(
            "forward-forward", "outperforms Forward-Forward", where="abstract",
            protocol=Protocol(task="digits", against="rule/forward-forward", expect="better"),
        ),
        Claim(
            "backprop", "competitive with backpropagation", where="abstract",
            protocol=Protocol(task="digits", against="rule/backprop", expect="not worse"),
        ),
    ),
    deviations=(
        "the last projection is the host's readout, with its bias; a convolution's map is averaged over height and width",
        "the default prediction is the last projection alone, which also fits outputs that are not classes",
        "the loss is the task's; where outputs have positions, each position is projected",
    ),
)  # fmt: skip
