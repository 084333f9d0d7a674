"""PReLU: a rectifier whose negative slope is learnt, and XOR with it (He et al., 2015; Pinto and Tavares, 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Identity, Learn, Paper


def prelu(x: Tensor, a: Tensor) -> Tensor:
    return torch.where(x > 0, x, a * x)


def reference(x: float, a: float) -> float:
    return max(x, 0.0) + (a * x if x < 0 else 0.0)


def claim_xor() -> bool:
    """f(x1 - x2) with a = -1 is |x1 - x2|, which is XOR: two weights and one slope, no bias."""
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = prelu(x @ torch.tensor([1.0, -1.0]), torch.tensor(-1.0))
    return y.tolist() == [0.0, 1.0, 1.0, 0.0]


def claim_descent() -> bool:
    """With inputs -1 and 1, gradient descent on two weights and the slope finds XOR from 32 of 32 starts at each of 4 rates.

    With inputs 0 and 1 a start with two positive weights stays there: the slope gets no gradient, and the fit is linear.
    """
    signs = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    target = torch.tensor([0.0, 1.0, 1.0, 0.0])
    rate = torch.tensor([0.03, 0.1, 0.3, 1.0]).repeat_interleave(32)[:, None]
    start = torch.rand(128, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def solved(x: Tensor, steps: int) -> Tensor:
        w, a = start.clone().requires_grad_(), torch.full((128, 1), 0.25, requires_grad=True)
        for _ in range(steps):
            loss = (prelu(w @ x.T, a) - target).square().mean(1).sum()
            gradients = torch.autograd.grad(loss, (w, a))
            w, a = ((p - rate * g).detach().requires_grad_() for p, g in zip((w, a), gradients, strict=True))
        return ((prelu(w @ x.T, a) - target).abs() < 0.5).all(1)

    stuck = (start > 0).all(1) & (rate[:, 0] < 0.5)
    return bool(solved(signs, 150).all()) and not bool(solved((signs + 1) / 2, 50)[stuck].any())


PART = activation(
    prelu,
    cls="PReLU",
    reference=reference,
    formula=r"\max(0,\,x) + a \min(0,\,x)",
    limits=(-math.inf, math.inf),
    paper=Paper("prelu-xor"),
    learn=(Learn("a", 0.25),),
    tags=Tags(monotone=True, kinks=(0.0,)),
    values={-3.0: -0.75, -1.0: -0.25, 0.0: 0.0, 2.0: 2.0},
    flops=2.0,
    identities=(
        Identity("activation/relu", options={"a": 0.0}, tolerance=0.0, note="a = 0"),
        Identity("activation/abs", options={"a": -1.0}, tolerance=0.0, note="a = -1, the solution of XOR"),
        Identity("activation/leaky-relu", options={"a": 0.01}, note="a = 0.01"),
    ),
    claims=(
        Claim("xor", "one unit without bias solves XOR once its slope is negative", check=claim_xor),
        Claim("descent", "gradient descent finds that solution, over a wide range of learning rates", check=claim_descent),
    ),
    deviations=("one slope for the whole module by default, as in the XOR paper; per='channel' learns one a channel",),
)
