"""SiLU on one side of 0 and something simpler on the other."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.activations._reference import reference_sigmoid
from netwright.core.part import Identity, Learn, Option, Paper

INF = math.inf


def fts(x: Tensor, *, t: float) -> Tensor:
    r = torch.relu(x)
    return r * torch.sigmoid(r) + t


FTS = activation(
    fts,
    cls="FTS",
    summary="FTS, flatten-T swish: SiLU from 0 on, a negative constant below, both shifted by it",
    formula=r"x\,\sigma(x) + T \text{ for } x \geq 0,\; T \text{ below}",
    reference=lambda x, t: x * reference_sigmoid(x) + t if x > 0 else t,
    paper=Paper(
        title="Flatten-T Swish: a thresholded ReLU-Swish-like activation function for deep learning",
        year=2018,
        authors="Hock Hung Chieng, Noorhaniza Wahid, Pauline Ong, Sai Raj Kishore Perla",
        arxiv="1812.06247",
    ),
    options=(Option("t", -0.2, "T, the value below 0"),),
    limits=(-0.2, INF),
    flops=6.0,
    tags=Tags(monotone=True, kinks=(0.0,), delicate=True, always=("monotone",)),
    values={-1.0: -0.2, 1.0: 0.531059},
    identities=(Identity("activation/silu", options={"t": 0.0}, domain=(0.0, 10.0)),),
)


def delu(x: Tensor, n: Tensor) -> Tensor:
    above, below = torch.relu(x), x.clamp(max=0.0)
    gate = torch.sigmoid(below)
    return (n + 0.5) * above - torch.expm1(-above) + torch.where(gate > 0, below * gate, 0.0)  # not -inf * 0


def delu_reference(x: float, n: float) -> float:
    if x > 0:
        return (n + 0.5) * x + abs(math.expm1(-x))
    return x * reference_sigmoid(x) if x > -700 else 0.0


DELU = activation(
    delu,
    cls="DELU",
    summary="DELU: SiLU below 0, above it a learnt slope minus a decaying exponential",
    formula=r"x\,\sigma(x) \text{ for } x \leq 0,\; (n + 0.5)\,x + |e^{-x} - 1| \text{ above}",
    reference=delu_reference,
    paper=Paper(
        title="Trainable Activations for Image Classification",
        authors="Evgenii Pishchik",
        year=2023,
        code="Pe4enIks/TrainableActivation",
    ),
    learn=(Learn("n", 0.0),),
    limits=(0.0, INF),
    flops=10.0,
    tags=Tags(kinks=(0.0,), delicate=True),
    values={-1.0: -0.268941, 0.0: 0.0, 1.0: 1.132121},
)

PARTS = (FTS, DELU)
