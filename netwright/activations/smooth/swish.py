"""Swish: x gated by a sigmoid of learnable steepness (Ramachandran, Zoph and Le, 2017)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Identity, Learn, Paper, Protocol


def swish(x: Tensor, beta: Tensor) -> Tensor:
    gate = torch.sigmoid(beta * x)
    return torch.where(gate > 0, x * gate, 0.0)  # not -inf * 0


def reference(x: float, beta: float) -> float:
    u = beta * x
    return x / (1 + math.exp(-u)) if u > -700.0 else 0.0


def claim_between() -> bool:
    """beta = 0 gives x / 2; beta = 200 is ReLU to 1e-2 / 2."""
    x = torch.linspace(-5.0, 5.0, 201)
    half = torch.equal(swish(x, torch.tensor(0.0)), x / 2)
    return half and float((swish(x, torch.tensor(200.0)) - x.relu()).abs().max()) < 5e-3


PART = activation(
    swish,
    cls="Swish",
    reference=reference,
    formula=r"x\,\sigma(\beta x)",
    limits=(0.0, math.inf),
    paper=Paper("swish-search"),
    learn=(Learn("beta", 1.0),),
    tags=Tags(smooth=True, delicate=True, always=("smooth",)),
    values={-3.0: -0.142278, -1.0: -0.268941, 0.0: 0.0, 1.0: 0.731059, 3.0: 2.857722},
    flops=5.0,
    identities=(Identity("activation/silu", options={"beta": 1.0}),),
    equals_at_init=("activation/silu",),
    claims=(
        Claim("between", "lies between a linear map (beta = 0) and ReLU (beta to infinity)", check=claim_between),
        Claim(
            "cifar10",
            "at least ReLU's accuracy on CIFAR-10",
            protocol=Protocol("task/cifar10", "activation/relu", "not worse"),
        ),
    ),
)
