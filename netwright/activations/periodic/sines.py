"""Sines: alone, and beside a line or a ReLU."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Option, Paper

INF = math.inf
SURVEY = Paper("four-hundred-activations")
NLP = Paper(
    title="Is it Time to Swish? Comparing Deep Learning Activation Functions Across NLP tasks",
    authors="Steffen Eger, Paul Youssef, Iryna Gurevych",
    year=2018,
    arxiv="1901.02671",
)
FAR = 1e30


def siren(x: Tensor, *, omega: float) -> Tensor:
    return torch.where(x.abs() < FAR, torch.sin(omega * x.clamp(-FAR, FAR)), 0.0)  # the phase must not overflow


SIREN = activation(
    siren,
    cls="SirenSine",
    summary="Siren's sine: a wave of high frequency, for nets that represent signals",
    formula=r"\sin(\omega_0 x)",
    reference=lambda x, omega: math.sin(omega * x) if abs(x) < FAR else 0.0,
    paper=Paper(
        title="Implicit Neural Representations with Periodic Activation Functions",
        year=2020,
        arxiv="2006.09661",
        authors="Vincent Sitzmann, Julien N. P. Martel, Alexander W. Bergman, David B. Lindell, Gordon Wetzstein",
    ),
    options=(Option("omega", 30.0, "omega_0, the frequency", bounds=(0.0, 1e6), search=(1.0, 100.0, "log")),),
    limits=(math.nan, math.nan),
    flops=3.0,
    tags=Tags(
        smooth=True,
        odd=True,
        delicate=True,
        always=("smooth", "odd"),
        reasons={"numbers": "the phase 30 x is rounded in float32, which shows near the zeros of the sine"},
    ),
    values={0.0: 0.0, math.pi / 60: 1.0, math.pi / 30: 0.0},
    deviations=("the part is the function; the paper also prescribes how the layers' weights start", "0 beyond |x| = 1e30"),
)


def minsin(x: Tensor) -> Tensor:
    return torch.where(x <= 0, x, torch.sin(x))


MINSIN = activation(
    minsin,
    cls="MinSin",
    summary="MinSin: the smaller of the input and its sine",
    formula=r"\min(x,\,\sin x)",
    reference=lambda x: x if x <= 0 else (math.sin(x) if math.isfinite(x) else math.nan),
    paper=NLP,
    limits=(-INF, math.nan),
    flops=3.0,
    tags=Tags(smooth=True, delicate=True),
    values={-2.0: -2.0, math.pi / 2: 1.0},
)


def cosid(x: Tensor) -> Tensor:
    return torch.where(x.isinf(), -x, torch.cos(x) - x)


COSID = activation(
    cosid,
    cls="Cosid",
    summary="Cosid: a cosine on a falling line",
    formula=r"\cos x - x",
    reference=lambda x: math.sin(x + math.pi / 2) - x if math.isfinite(x) else -x,
    paper=NLP,
    limits=(INF, -INF),
    flops=3.0,
    tags=Tags(smooth=True, delicate=True),
    values={0.0: 1.0, math.pi: -1.0 - math.pi},
)


def vlu(x: Tensor, *, a: float, b: float) -> Tensor:
    near = x.abs() < FAR
    return torch.relu(x) + a * torch.where(near, torch.sin(b * x.clamp(-FAR, FAR)), 0.0)


def vlu_reference(x: float, a: float, b: float) -> float:
    return (x if x > 0 else 0.0) + (a * math.sin(b * x) if abs(x) < FAR else 0.0)


VLU = activation(
    vlu,
    cls="VLU",
    summary="VLU: ReLU with a sine on both sides",
    formula=r"\max(0,\,x) + a \sin(b x)",
    reference=vlu_reference,
    paper=SURVEY,
    options=(Option("a", 1.0, "height of the wave"), Option("b", 1.0, "frequency of the wave", bounds=(0.0, 1e6))),
    limits=(math.nan, INF),
    flops=4.0,
    tags=Tags(kinks=(0.0,), delicate=True),
    values={0.0: 0.0, math.pi / 2: 1 + math.pi / 2},
    deviations=("no wave beyond |x| = 1e30",),
)

PARTS = (SIREN, MINSIN, COSID, VLU)
