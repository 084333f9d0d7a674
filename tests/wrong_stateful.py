"""Toy activations with statistics, draws and declared backwards: one of each that is right, and several that are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from netwright.activations import ActivationPart, Tags, activation
from netwright.core.part import Paper, State

PAPER = Paper(title="Toys", authors="A. Toy", year=2000)
Rows = Sequence[Sequence[float]]


def centre(x: Tensor, mean: Tensor, noise: Tensor, *, dim: int) -> tuple[Tensor, Tensor]:
    """x less the running mean, plus noise; the running mean moves half-way to the batch's."""
    others = [d for d in range(x.dim()) if d != dim % x.dim()]
    return x - mean + noise, (mean + (x.mean(others, keepdim=True) if others else x)) / 2


def draw(x: Tensor, generator: torch.Generator | None, *, dim: int) -> tuple[Tensor, ...]:
    return (torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device),)


def evaluate(x: Tensor, mean: Tensor, *, dim: int) -> Tensor:
    return x - mean


def reference(rows: Rows, mean: Sequence[float], noise: Rows) -> tuple[list[list[float]], list[float]]:
    y = [[v - m + e for v, m, e in zip(row, mean, drawn, strict=True)] for row, drawn in zip(rows, noise, strict=True)]
    return y, [(m + sum(column) / len(column)) / 2 for m, column in zip(mean, zip(*rows, strict=True), strict=True)]


def reference_eval(rows: Rows, mean: Sequence[float]) -> list[list[float]]:
    return [[v - m for v, m in zip(row, mean, strict=True)] for row in rows]


CENTRE = activation(
    centre,
    cls="Centre",
    name="toy-centre",
    summary="A toy.",
    reference=reference,
    reference_eval=reference_eval,
    draw=draw,
    evaluate=evaluate,
    state=(State("mean", 0.0),),
    paper=PAPER,
    tags=Tags(shape="stateful"),
)


def drawing(x: Tensor, mean: Tensor, *, dim: int) -> Tensor:
    return x - mean + 0 * torch.rand(1)


def forgetful(x: Tensor, mean: Tensor, noise: Tensor, *, dim: int) -> tuple[Tensor, Tensor]:
    return x - mean + noise, mean


def undefined(x: Tensor, mean: Tensor, *, dim: int) -> Tensor:
    return x - mean + 0 * (x - x).abs().sqrt()  # the slope of the root at 0


def step(x: Tensor) -> Tensor:
    """x > 0, with the slope of x clamped to [-1, 1]."""
    soft = x.clamp(-1.0, 1.0)
    return (x > 0).to(x.dtype) + (soft - soft.detach())


def straight(x: float) -> float:
    return 1.0 if abs(x) <= 1 else 0.0


STEP = activation(
    step,
    cls="Step",
    name="toy-step",
    summary="A toy.",
    reference=lambda x: float(x > 0),
    backward=straight,
    paper=PAPER,
    tags=Tags(exact_gradient=False, monotone=True, scale_invariant=True, kinks=(-1.0, 1.0)),
    limits=(0.0, 1.0),
)
TANH = activation(
    torch.tanh, cls="Tanh", name="toy-smooth", summary="A toy.", reference=lambda x: 0.0, paper=PAPER, tags=Tags(smooth=True)
)


class Kinked(torch.autograd.Function):
    """The sine, with a backward that can't be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * ctx.saved_tensors[0].detach().cos()


SOUND: dict[str, ActivationPart] = {"statistics and draws": CENTRE, "declared backward": STEP}
WRONG: list[tuple[str, str, ActivationPart]] = [
    ("training", "other statistics", replace(CENTRE, subject=forgetful)),
    ("training", "another reference", replace(CENTRE, reference=lambda rows, mean, noise: (rows, mean))),
    ("evaluation", "draws", replace(CENTRE, evaluate=drawing)),
    ("evaluation", "another reference", replace(CENTRE, reference_eval=lambda rows, mean: rows)),
    ("evaluation", "no reference", replace(CENTRE, reference_eval=None)),
    ("evaluation", "a gradient that is NaN", replace(CENTRE, evaluate=undefined)),
    ("backward", "another slope", replace(STEP, backward=lambda x: 1.0)),
    ("backward", "none declared", replace(STEP, backward=None)),
    (
        "backward",
        "the derivative declared to be another",
        replace(TANH, backward=lambda x: 0.0, tags=Tags(smooth=True, exact_gradient=True)),
    ),
    ("double_backward", "of first order only", replace(TANH, subject=Kinked.apply)),
]
