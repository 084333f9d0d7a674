"""ReLU: the positive part (Nair and Hinton, 2010)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Paper


def relu(x: Tensor) -> Tensor:
    return torch.relu(x)


def reference(x: float) -> float:
    return x if x > 0 else 0.0


PART = activation(
    relu,
    cls="ReLU",
    native=True,
    reference=reference,
    formula=r"\max(0,\,x)",
    limits=(0.0, math.inf),
    paper=Paper(
        title="Rectified Linear Units Improve Restricted Boltzmann Machines",
        authors="Vinod Nair, Geoffrey E. Hinton",
        year=2010,
        venue="ICML",
    ),
    tags=Tags(monotone=True, kinks=(0.0,)),
    values={-3.0: 0.0, 0.0: 0.0, 0.5: 0.5, 3.0: 3.0},
)
