"""Bells: one peak at 0, and nothing or less and less away from it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Learn, Option, Paper

SURVEY = Paper("four-hundred-activations")


def gaussian(x: Tensor, *, sigma: float) -> Tensor:
    return torch.exp(x.clamp(-1e15, 1e15).square() * (-0.5 / sigma**2))


GAUSSIAN = activation(
    gaussian,
    cls="Gaussian",
    summary="Gaussian: a bell, used for coordinates in place of sines",
    formula=r"e^{-x^2 / (2 \sigma^2)}",
    reference=lambda x, sigma: math.exp(-((x / sigma) ** 2) / 2),
    paper=Paper(
        title="Beyond Periodicity: Towards a Unifying Framework for Activations in Coordinate-MLPs",
        authors="Sameera Ramasinghe, Simon Lucey",
        year=2021,
        arxiv="2111.15135",
    ),
    options=(Option("sigma", 1.0, "width of the bell", bounds=(0.0, math.inf), search=(0.02, 2.0, "log")),),
    limits=(0.0, 0.0),
    flops=3.0,
    tags=Tags(smooth=True, even=True, delicate=True, always=("smooth", "even")),
    values={0.0: 1.0, 1.0: 0.606531, 2.0: 0.135335},
)


def tent(x: Tensor, delta: Tensor) -> Tensor:
    return torch.relu(delta - x.abs())


TENT = activation(
    tent,
    cls="Tent",
    summary="Tent: a triangle of learnt height and width, 0 on open space",
    formula=r"\max(0,\,\delta - |x|)",
    reference=lambda x, delta: max(0.0, delta - abs(x)),
    paper=Paper(
        title="Improved Adversarial Robustness by Reducing Open Space Risk via Tent Activations",
        year=2019,
        authors="Andras Rozsa, Terrance E. Boult",
        arxiv="1908.02435",
    ),
    learn=(Learn("delta", 1.0),),
    limits=(0.0, 0.0),
    flops=3.0,
    tags=Tags(even=True, kinks=(-1.0, 0.0, 1.0), delicate=True, always=("even",)),
    values={-2.0: 0.0, 0.0: 1.0, 0.5: 0.5},
    deviations=("starts at delta = 1",),
)


def sinc(x: Tensor) -> Tensor:
    whole = torch.round(x)
    part = torch.where(x.isinf(), 0.0, x - whole)  # sin(pi x) = (-1)^whole sin(pi part), exactly 0 at whole x
    sign = 1 - 2 * torch.where(x.isinf(), 0.0, whole.abs() % 2)
    far = sign * torch.sin(math.pi * part) / (math.pi * torch.where(x.abs() < 0.1, 1.0, x))
    square = (math.pi * x.clamp(-0.1, 0.1)).square()
    near = 1 - square / 6 * (1 - square / 20 * (1 - square / 42))
    return torch.where(x.abs() < 0.1, near, far)


def sinc_reference(x: float) -> float:
    if x == 0:
        return 1.0
    if math.isinf(x) or x == round(x):
        return 0.0
    whole = round(x)
    return (-1) ** whole * math.sin(math.pi * (x - whole)) / (math.pi * x)


SINC = activation(
    sinc,
    cls="Sinc",
    summary="Sinc: a decaying wave, the ideal low-pass filter",
    formula=r"\sin(\pi x) / (\pi x)",
    reference=sinc_reference,
    paper=SURVEY,
    limits=(0.0, 0.0),
    flops=14.0,
    tags=Tags(smooth=True, even=True, delicate=True),
    values={0.0: 1.0, 0.5: 0.63662, 1.0: 0.0, 1.5: -0.212207},
)

PARTS = (GAUSSIAN, TENT, SINC)
