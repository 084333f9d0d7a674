"""What the variants of NoProp share: embeddings of classes, the noise of predictions, heads that read time, Euler steps.

A label y is a vector u_y, a row of W. Training shows the net x and a noisy u_y; predicting starts without y.

Shape suffixes: B batch, C classes, D values of an embedding, S vectors of noise, F features of a time.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.part import Option
from netwright.engine.blocks import Blocks
from netwright.engine.task import Problem
from netwright.rules._toy import linear_gradients

#: The options that every variant has.
EMBEDDING = Option("embedding", "one-hot", "class y is the unit vector y, or a row that learns", allowed=("one-hot", "learned"))
DIM = Option("dim", 20, "values of an embedding that learns", bounds=(0, 4097))
NOISE = Option("noise", "none", "in predictions: its mean, 0, or one draw a net for all rows", allowed=("none", "fixed"))
#: Of those with a head that reads time.
HIDDEN = Option("hidden", 64, "units of the head that reads z and t", bounds=(0, 4097))

OCTAVES = 4  # frequencies of a time's features


def copies(net: Blocks, n: int) -> nn.ModuleList:
    """n nets built like this one, with parameters of their own."""
    return nn.ModuleList(copy.deepcopy(net) for _ in range(n))


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


def time_features(t_B: Tensor) -> Tensor:
    """sin and cos of 2^j pi t / 2, j = 0 .. 3: (B, F)."""
    angles = torch.stack([t_B * (math.pi / 2 * 2**j) for j in range(OCTAVES)], -1)
    return torch.cat([angles.sin(), angles.cos()], -1)


@final
class Timed(nn.Module):
    """A head with one hidden layer that reads vectors (B, *) and a time (B,)."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs + 2 * OCTAVES, hidden)
        self.last = nn.Linear(hidden, outputs)

    def forward(self, t_B: Tensor, *given: Tensor) -> Tensor:
        return self.last(torch.relu(self.hidden(torch.cat([*given, time_features(t_B)], -1))))


def uniform_and_normal(x: Tensor, width: int, normals: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Draws of a step: t (B,) from U(0, 1), then `normals` times (B, D) from N(0, I)."""
    dtype, device = x.dtype, generator.device
    t = torch.rand(len(x), generator=generator, dtype=dtype, device=device)
    eps = torch.randn(normals, len(x), width, generator=generator, dtype=dtype, device=device)
    return t.to(x.device), *eps.to(x.device)


def euler(field: Callable[[Tensor, Tensor], Tensor], z_BD: Tensor, steps: int) -> Tensor:
    """z at time 1 of dz/dt = field(z, t), from z at time 0, in equal Euler steps; field takes t as (B,)."""
    for k in range(steps):
        z_BD = z_BD + field(z_BD, z_BD.new_full(z_BD.shape[:1], k / steps)) / steps
    return z_BD


def softmax_gradient(p_BC: Tensor, g_BC: Tensor) -> Tensor:
    """Gradient at the logits for a gradient g at p = softmax(logits)."""
    return p_BC * (g_BC - (p_BC * g_BC).sum(-1, keepdim=True))


def timed_forward(head: Any, t: Tensor, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a `Timed` reads, its hidden layer and its output."""
    waves = [wave(math.pi / 2 * 2**j * t)[:, None] for wave in (torch.sin, torch.cos) for j in range(OCTAVES)]
    read = torch.cat([*given, *waves], -1)
    hidden = (read @ head.hidden.weight.T + head.hidden.bias).clamp(min=0)
    return read, hidden, hidden @ head.last.weight.T + head.last.bias


def timed_gradients(head: Any, path: str, read: Tensor, hidden: Tensor, delta: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Gradients of the `Timed` called `path` for an error at its output, and the error at what it reads."""
    inner = (delta @ head.last.weight) * (hidden > 0)
    grads = linear_gradients(f"{path}.last", delta, hidden) | linear_gradients(f"{path}.hidden", inner, read)
    return grads, inner @ head.hidden.weight
