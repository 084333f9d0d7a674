"""Embeddings of classes, the noise of predictions, and the scores read off an embedding.

A label y is a vector u_y, a row of W. Training shows the net x and a noisy u_y; predicting starts without y.

Shape suffixes: B batch, C classes, D values of an embedding, S vectors of noise.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.part import Option
from netwright.engine.task import Problem

#: The options that every variant has.
EMBEDDING = Option("embedding", "one-hot", "class y is the unit vector y, or a row that learns", allowed=("one-hot", "learned"))
DIM = Option("dim", 20, "values of an embedding that learns", bounds=(0, 4097))
NOISE = Option("noise", "none", "in predictions: its mean, 0, or one draw a net for all rows", allowed=("none", "fixed"))


@final
class Embeddings(nn.Module):
    """W (C, D): row y is u_y. "one-hot": the identity, fixed. "learned": orthonormal rows (columns if D < C) to start from."""

    weight: Tensor

    def __init__(self, kind: str, problem: Problem, dim: int) -> None:
        super().__init__()
        self.kind, classes = kind, problem.output[-1]
        self.width = classes if kind == "one-hot" else dim
        weight_CD = torch.empty(classes, self.width)
        if kind == "one-hot":
            self.register_buffer("weight", weight_CD)
        else:
            self.weight = nn.Parameter(weight_CD)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        if self.kind == "one-hot":
            nn.init.eye_(self.weight)
        else:
            nn.init.orthogonal_(self.weight, generator=generator)

    def forward(self, y_B: Tensor) -> Tensor:
        """u_y (B, D) of labels (B,)."""
        rows = y_B[:, None] == torch.arange(len(self.weight), device=y_B.device)
        return rows.to(self.weight.dtype) @ self.weight

    def mean(self, logits_BC: Tensor) -> Tensor:
        """The embedding expected under these scores of the classes: softmax(logits) W (B, D)."""
        return torch.softmax(logits_BC, -1) @ self.weight


@final
class Noise(nn.Module):
    """What predictions have for noise, the same for every row: S vectors of 0, or drawn once from N(0, I) for "fixed"."""

    vectors_SD: Tensor

    def __init__(self, kind: str, n: int, width: int) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("vectors_SD", torch.empty(n, width))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        if self.kind == "fixed":
            self.vectors_SD.normal_(generator=generator)
        else:
            self.vectors_SD.zero_()

    def forward(self, i: int, x: Tensor) -> Tensor:
        """Vector i for every row of x: (B, D)."""
        return self.vectors_SD[i].expand(len(x), -1)


@final
class Out(nn.Module):
    """p_out: linear scores (B, C) of an embedding (B, D). A convex problem of its own, it starts at 0."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, width))
        self.bias = nn.Parameter(torch.empty(classes))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        self.weight.zero_()
        self.bias.zero_()

    def forward(self, z_BD: Tensor) -> Tensor:
        return F.linear(z_BD, self.weight, self.bias)


def softmax_gradient(p_BC: Tensor, g_BC: Tensor) -> Tensor:
    """Gradient at the logits for a gradient g at p = softmax(logits)."""
    return p_BC * (g_BC - (p_BC * g_BC).sum(-1, keepdim=True))
