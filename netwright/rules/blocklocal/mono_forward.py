"""Mono-Forward: every block learns from the loss of its own linear projection to the classes (Gong, Li, Abdulla)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import Misfit
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.blocks import Blocks, pooled, pooled_width
from netwright.engine.rule import Rule, trainable
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, gradients, linear_gradients, softmax_error, true_gradients


@final
class Head(nn.Module):
    """A linear map without bias of a block's output: (B, D) -> (B, O), per position (B, L, D) -> (B, L, O),
    and of the mean over H and W where it is (B, C, H, W).

    frozen: a buffer drawn from N(0, 1 / D) takes the place of the weight.
    """

    def __init__(self, shape: tuple[int, ...], outputs: int, frozen: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.linear = Fixed(pooled_width(shape), outputs) if frozen else nn.Linear(pooled_width(shape), outputs, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return self.linear(pooled(h, self.shape))


@final
class Fixed(nn.Module):
    """A linear map (.., D) -> (.., O) that never learns, drawn from N(0, 1 / D)."""

    weight: Tensor

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(outputs, features))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        self.weight.normal_(0.0, 1 / math.sqrt(self.weight.shape[1]), generator=generator)

    def forward(self, h: Tensor) -> Tensor:
        return F.linear(h, self.weight)


@final
class MonoForward(Rule):
    """G_k = h_k M_k^T, L_k = loss(G_k, y), and the next block reads h_k detached.

    The last projection is the host's readout. predict: "last" (its output) or "sum" (the sum of all G_k).
    frozen: all projections stay as they were drawn, M_1 .. M_(n-1) from N(0, 1 / D) and the readout as the host drew it;
    the blocks learn to be read by them, so that both predictions keep their meaning.
    Raises Misfit for predict="sum" where the output is not a score a class: sums of estimates are no estimate.
    """

    def __init__(self, net: Blocks, problem: Problem, predict: str = "last", frozen: bool = False) -> None:
        super().__init__(net, problem)
        if predict == "sum" and problem.classes is None:
            raise Misfit("predict='sum' adds scores of classes, and this problem has no classes; use predict='last'")
        self.predict = predict
        self.heads = nn.ModuleList(Head(shape, problem.output[-1], frozen) for shape in net.shapes[:-1])
        if frozen:
            net.readout.requires_grad_(False)

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


def reference(rule: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """d = (softmax(h M^T) - Y) / B; dM = d^T h unless M is frozen; dW = ((d M) * 1[h > 0])^T x, block by block."""
    last = len(rule.net.blocks) - 1
    grads: dict[str, Tensor] = {}
    for k, block in enumerate(rule.net.blocks):
        path = "net.readout" if k == last else f"heads.{k}.linear"
        m_KD = rule.state_dict()[f"{path}.weight"]
        h = (x @ block[0].weight.T + block[0].bias).clamp(min=0)
        d_BK = softmax_error(h @ m_KD.T + (rule.net.readout.bias if k == last else 0), y)
        grads |= linear_gradients(f"net.blocks.{k}.0", (d_BK @ m_KD) * (h > 0), x)
        if rule.net.readout.weight.requires_grad:
            projection = linear_gradients(path, d_BK, h)
            grads |= projection if k == last else {f"{path}.weight": projection[f"{path}.weight"]}
        x = h
    return grads


def claim_one_block() -> bool:
    """With one block nothing is cut: the update is the gradient of the loss through the whole net."""
    toy = Toy(widths=(6,))
    mono, (x, y) = toy.bind(MonoForward), toy.batch()
    got, exact = gradients(mono, x, y), true_gradients(mono, x, y)
    return all(torch.equal(got[name], g) for name, g in exact.items())


PART = rule(
    MonoForward,
    reference=reference,
    formula=r"L_k = \mathrm{CE}\left(h_k M_k^\top,\ y\right),\quad h_k = f_k(\mathrm{sg}(h_{k-1}))",
    paper=Paper("mono-forward"),
    tags=Tags(family="local", local=True, needs=frozenset({"blocks"})),
    options=(
        Option("predict", "last", "read the last projection, or the sum of all", allowed=("last", "sum")),
        Option("frozen", False, "keep all projections as they were drawn", allowed=(False, True)),
    ),
    claims=(
        Claim("one-block", "with one hidden layer the update is backpropagation's", check=claim_one_block),
        Claim(
            "forward-forward",
            "outperforms Forward-Forward",
            where="abstract",
            protocol=Protocol(task="digits", against="rule/forward-forward", expect="better"),
        ),
        Claim(
            "backprop",
            "competitive with backpropagation",
            where="abstract",
            protocol=Protocol(task="digits", against="rule/backprop", expect="not worse"),
        ),
    ),
    deviations=(
        "the last projection is the host's readout, with its bias; maps (C, H, W) are averaged over height and width",
        "the default prediction is the last projection alone, which also fits outputs that are not classes",
        "the loss is the task's; where outputs have positions, each position is projected",
        "frozen=True is not the paper's: it tells what the projections gain by learning",
    ),
)
