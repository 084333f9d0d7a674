"""PReLU: a rectifier whose negative slope is learnt, and XOR with it (He et al., 2015; Pinto and Tavares, 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.kinds.activation import Tags, activation
from netwright.part import Claim, Identity, Learn, Paper


def prelu(x: Tensor, a: Tensor) -> Tensor:
    return torch.where(x > 0, x, a * x)


def reference(x: float, a: float) -> float:
    return max(x, 0.0) + (a * x if x < 0 else 0.0)


def claim_xor() -> bool:
    """f(x1 - x2) with a = -1 is |x1 - x2|, which is XOR: two weights and one slope, no bias."""
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = prelu(x @ torch.tensor([1.0, -1.0]), torch.tensor(-1.0))
    return y.tolist() == [0.0, 1.0, 1.0, 0.0]


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
    identities=(Identity("activation/relu", options={"a": 0.0}, tolerance=0.0),),
    claims=(Claim("xor", "one unit without bias solves XOR once its slope is negative", check=claim_xor),),
)
