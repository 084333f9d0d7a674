"""Straight pieces whose slopes, corners and offsets are learnt."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Identity, Learn, Paper

INF = math.inf


def shilu(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return a * torch.relu(x) + b


SHILU = activation(
    shilu,
    cls="ShiLU",
    summary="ShiLU: ReLU with a learnt slope and offset",
    formula=r"a \max(0,\,x) + b",
    reference=lambda x, a, b: (a * x if x > 0 else 0.0) + b,
    paper=Paper(
        title="Trainable Activations for Image Classification",
        authors="Evgenii Pishchik",
        year=2023,
        code="Pe4enIks/TrainableActivation",
    ),
    learn=(Learn("a", 1.0), Learn("b", 1.0)),
    limits=(1.0, INF),
    flops=3.0,
    tags=Tags(monotone=True, kinks=(0.0,), delicate=True),
    values={-2.0: 1.0, 0.5: 1.5, 3.0: 4.0},
    identities=(Identity("activation/relu", options={"a": 1.0, "b": 0.0}),),
)


def srelu(x: Tensor, t_r: Tensor, a_r: Tensor, t_l: Tensor, a_l: Tensor) -> Tensor:
    return torch.where(x >= t_r, t_r + a_r * (x - t_r), torch.where(x <= t_l, t_l + a_l * (x - t_l), x))


def srelu_reference(x: float, t_r: float, a_r: float, t_l: float, a_l: float) -> float:
    if x >= t_r:
        return a_r * x + t_r * (1 - a_r)
    return a_l * x + t_l * (1 - a_l) if x <= t_l else x


SRELU = activation(
    srelu,
    cls="SReLU",
    summary="SReLU: three straight pieces with learnt corners and outer slopes",
    formula=r"t_r + a_r (x - t_r) \text{ for } x \geq t_r;\; x;\; t_l + a_l (x - t_l) \text{ for } x \leq t_l",
    reference=srelu_reference,
    paper=Paper(
        title="Deep Learning with S-shaped Rectified Linear Activation Units",
        year=2015,
        arxiv="1512.07030",
        authors="Xiaojie Jin, Chunyan Xu, Jiashi Feng, Yunchao Wei, Junjun Xiong, Shuicheng Yan",
    ),
    learn=(Learn("t_r", 1.0), Learn("a_r", 1.0), Learn("t_l", 0.0), Learn("a_l", 0.2)),
    limits=(-INF, INF),
    flops=6.0,
    tags=Tags(monotone=True, kinks=(0.0,), delicate=True),
    values={-2.0: -0.4, 0.5: 0.5, 3.0: 3.0},
    identities=(Identity("activation/prelu", options={"a_l": 0.25}, other_options={"a": 0.25}),),
    deviations=("the paper first trains a leaky ReLU and then sets t_r from the data; here t_r = 1 on a slope of 0.2",),
)


def aplu(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    finite = x.clamp(min=torch.finfo(x.dtype).min)  # a hinge of weight 0 adds 0 at -inf too
    y = torch.relu(x)
    for a_s, b_s in zip(a.unbind(0), b.unbind(0), strict=True):
        y = y + a_s * torch.relu(b_s - finite)
    return y


def aplu_reference(x: float, a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return max(0.0, x) + sum(a_s * max(0.0, b_s - x) for a_s, b_s in zip(a, b, strict=True) if a_s)


APLU = activation(
    aplu,
    cls="APLU",
    summary="APLU: ReLU plus hinges whose slopes and places are learnt",
    formula=r"\max(0,\,x) + \sum_s a_s \max(0,\,b_s - x)",
    reference=aplu_reference,
    paper=Paper(
        title="Learning Activation Functions to Improve Deep Neural Networks",
        year=2014,
        arxiv="1412.6830",
        authors="Forest Agostinelli, Matthew Hoffman, Peter Sadowski, Pierre Baldi",
        equation="(1)",
    ),
    learn=(Learn("a", (0.0,) * 5, decay=True), Learn("b", (-2.0, -1.0, 0.0, 1.0, 2.0))),
    limits=(0.0, INF),
    flops=16.0,
    tags=Tags(monotone=True, kinks=(0.0,), delicate=True),
    values={-2.0: 0.0, 0.5: 0.5, 3.0: 3.0},
    equals_at_init=("activation/relu", "activation/tmaf"),
    deviations=("the number of hinges is free in the paper; here five, flat at the start, at -2 to 2",),
)


def arelu(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(x > 0, (1 + torch.sigmoid(b)) * x, a * x)


ARELU = activation(
    arelu,
    cls="AReLU",
    summary="AReLU: ReLU that amplifies positive and damps negative inputs by learnt amounts",
    formula=r"(1 + \sigma(b))\,x \text{ for } x > 0;\; \mathrm{clamp}(a,\,0.01,\,0.99)\,x",
    reference=lambda x, a, b: x + x / (1 + math.exp(-b)) if x > 0 else a * x,
    paper=Paper(
        title="AReLU: Attention-based Rectified Linear Unit",
        authors="Dengsheng Chen, Jun Li, Kai Xu",
        year=2020,
        arxiv="2006.13858",
        code="densechen/AReLU",
    ),
    learn=(Learn("a", 0.9, bounds=(0.01, 0.99)), Learn("b", 2.0)),
    limits=(-INF, INF),
    flops=3.0,
    tags=Tags(monotone=True, kinks=(0.0,), delicate=True, always=("monotone",)),
    values={-2.0: -1.8, 1.0: 1.880797},
)


def rprelu(x: Tensor, gamma: Tensor, zeta: Tensor, beta: Tensor) -> Tensor:
    return torch.where(x > gamma, x + (zeta - gamma), beta * x + (zeta - beta * gamma))


def rprelu_reference(x: float, gamma: float, zeta: float, beta: float) -> float:
    return max(0.0, x - gamma) + (beta * (x - gamma) if x < gamma else 0.0) + zeta


RPRELU = activation(
    rprelu,
    cls="RPReLU",
    summary="RPReLU: PReLU with its corner at a learnt point of the plane, for binary nets",
    formula=r"x - \gamma + \zeta \text{ for } x > \gamma;\; \beta (x - \gamma) + \zeta",
    reference=rprelu_reference,
    paper=Paper(
        title="ReActNet: Towards Precise Binary Neural Network with Generalized Activation Functions",
        authors="Zechun Liu, Zhiqiang Shen, Marios Savvides, Kwang-Ting Cheng",
        year=2020,
        arxiv="2003.03488",
        code="liuzechun/ReActNet",
    ),
    learn=(Learn("gamma", 0.0), Learn("zeta", 0.0), Learn("beta", 0.25)),
    limits=(-INF, INF),
    flops=5.0,
    tags=Tags(monotone=True, kinks=(0.0,), delicate=True),
    values={-2.0: -0.5, 3.0: 3.0},
    equals_at_init=("activation/prelu",),
    deviations=("one set of parameters for all by default; per='channel' is the paper's",),
)

PARTS = (SHILU, SRELU, APLU, ARELU, RPRELU)
