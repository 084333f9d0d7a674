"""Feedback alignment: the error travels back through fixed random matrices, not the weights (Lillicrap et al., 2014).

    delta_k = (delta_(k+1) B_(k+1)) * f'(a_k),    dW_k = delta_k^T h_(k-1),    B_k fixed, of the shape of W_k

The forward weights come to align with B, so that the update points within 90 degrees of the gradient.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, chain_rule, forward_by_hand, softmax_error
from netwright.rules.feedback._aligned_rule import AlignedRule, equals_backprop


@final
class FeedbackAlignment(AlignedRule):
    """Every linear and convolutional layer, the readout too, sends back through its own B, drawn like its first weights."""

    def __init__(self, net: nn.Module, problem: Problem, scale: float = 1.0) -> None:
        super().__init__(net, problem, "random", scale)


def reference(rule: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The chain rule by hand with B for W."""
    acts = forward_by_hand(rule.net, x)
    back = [rule.get_buffer(f"feedback.{k}.matrix") for k in range(len(rule.net.blocks) + 1)]
    return chain_rule(rule.net, acts, softmax_error(acts[-1], y), back=back)


def claim_transpose() -> bool:
    """With B = W the update is the gradient."""
    toy = Toy()
    fa: Any = toy.bind(FeedbackAlignment)
    x, y = toy.batch()
    for layer, b in zip(fa.layers(), fa.carried(), strict=True):
        b.copy_(layer.weight.detach())
    return equals_backprop(fa, x, y)


def claim_alignment() -> bool:
    """In 60 steps e B turns from more than 90 degrees off e W to within 70: the readout comes to fit its B."""
    toy = Toy(widths=(6,))
    fa: Any = toy.bind(FeedbackAlignment)
    x, y = toy.batch()
    readout, b_KN = fa.layers()[-1], fa.carried()[-1]

    def cosine() -> float:
        with torch.no_grad():
            e_BK = softmax_error(fa(x), y)
            return float(torch.cosine_similarity(e_BK @ readout.weight, e_BK @ b_KN, -1).mean())

    optimizer, first = torch.optim.SGD(fa.parameters(), lr=0.5), cosine()
    for _ in range(60):
        optimizer.zero_grad()
        next(fa.losses(x, y)).backward()
        optimizer.step()
    return first < 0 and cosine() > 0.342


PART = rule(
    FeedbackAlignment,
    reference=reference,
    formula=r"\delta_k = \left(\delta_{k+1} B_{k+1}\right) \odot f'(a_k),\quad B_k\ \mathrm{fixed\ and\ random}",
    paper=Paper(
        title="Random feedback weights support learning in deep neural networks",
        authors="Timothy P. Lillicrap, Daniel Cownden, Douglas B. Tweed, Colin J. Akerman",
        year=2014,
        arxiv="1411.0247",
    ),
    tags=Tags(family="feedback"),
    options=(Option("scale", 1.0, "factor on B, whose values are drawn like the layer's first weights", bounds=(0.0, 100.0)),),
    claims=(
        Claim("transpose", "with B = W it is backpropagation", check=claim_transpose),
        Claim("alignment", "the signal comes to lie within 90 degrees of backpropagation's", check=claim_alignment),
        Claim(
            "learns",
            "fixed random feedback weights train hidden layers",
            where="abstract",
            protocol=Protocol(task="digits", against="rule/frozen-hidden", expect="better"),
        ),
        Claim(
            "backprop",
            "as good as backpropagation",
            where="abstract",
            protocol=Protocol(task="digits", against="rule/backprop", expect="not worse"),
        ),
    ),
    deviations=(
        "B has the distribution of torch's initial weights of the same layer, U(-1, 1) / sqrt(inputs)",
        "of a convolution B is a kernel; normalisations, pooling, residual sums and attention keep exact gradients",
        "the loss is the task's",
    ),
)
