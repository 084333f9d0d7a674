"""Rectifiers of the survey that are straight between their corners: shifted, bounded, shrunk, with learnt corners."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Identity, Learn, Option, Paper

INF = math.inf
SURVEY = Paper("four-hundred-activations")


def shilu(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return a * torch.relu(x) + b


def srelu(x: Tensor, t_r: Tensor, a_r: Tensor, t_l: Tensor, a_l: Tensor) -> Tensor:
    return torch.where(x >= t_r, t_r + a_r * (x - t_r), torch.where(x <= t_l, t_l + a_l * (x - t_l), x))


def srelu_reference(x: float, t_r: float, a_r: float, t_l: float, a_l: float) -> float:
    if x >= t_r:
        return a_r * x + t_r * (1 - a_r)
    return a_l * x + t_l * (1 - a_l) if x <= t_l else x


def aplu(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    finite = x.clamp(min=torch.finfo(x.dtype).min)  # a hinge of weight 0 adds 0 at -inf too
    y = torch.relu(x)
    for a_s, b_s in zip(a.unbind(0), b.unbind(0), strict=True):
        y = y + a_s * torch.relu(b_s - finite)
    return y


def aplu_reference(x: float, a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return max(0.0, x) + sum(a_s * max(0.0, b_s - x) for a_s, b_s in zip(a, b, strict=True) if a_s)


def arelu(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(x > 0, (1 + torch.sigmoid(b)) * x, a * x)


def rprelu(x: Tensor, gamma: Tensor, zeta: Tensor, beta: Tensor) -> Tensor:
    return torch.where(x > gamma, x + (zeta - gamma), beta * x + (zeta - beta * gamma))


def rprelu_reference(x: float, gamma: float, zeta: float, beta: float) -> float:
    return max(0.0, x - gamma) + (beta * (x - gamma) if x < gamma else 0.0) + zeta


def brelu(x: Tensor, *, a: float) -> Tensor:
    return x.clamp(0.0, a)


def plu(x: Tensor, *, alpha: float, c: float) -> Tensor:
    return torch.maximum(alpha * (x + c) - c, torch.minimum(alpha * (x - c) + c, x))


def plu_reference(x: float, alpha: float, c: float) -> float:
    return x if abs(x) <= c else math.copysign(c + alpha * (abs(x) - c), x)


def softshrink(x: Tensor, *, bound: float) -> Tensor:
    return (x - bound).clamp(min=0.0) + (x + bound).clamp(max=0.0)


def hardshrink(x: Tensor, *, bound: float) -> Tensor:
    return torch.where(x.abs() > bound, x, 0.0)


BOUND = (Option("bound", 0.5, "inputs up to this magnitude give 0", bounds=(0.0, INF)),)

PARTS = (
    activation(
        shilu, cls="ShiLU", summary="ShiLU: ReLU with a learnt slope and offset",
        formula=r"a \max(0,\,x) + b", reference=lambda x, a, b: (a * x if x > 0 else 0.0) + b,
        paper=Paper(title="Trainable Activations for Image Classification", authors="Evgenii Pishchik", year=2023,
                    code="Pe4enIks/TrainableActivation"),
        learn=(Learn("a", 1.0), Learn("b", 1.0)), limits=(1.0, INF), flops=3.0,
        tags=Tags(monotone=True, kinks=(0.0,), delicate=True), values={-2.0: 1.0, 0.5: 1.5, 3.0: 4.0},
        identities=(Identity("activation/relu", options={"a": 1.0, "b": 0.0}),),
    ),
    activation(
        srelu, cls="SReLU", summary="SReLU: three straight pieces with learnt corners and outer slopes",
        formula=r"t_r + a_r (x - t_r) \text{ for } x \geq t_r;\; x;\; t_l + a_l (x - t_l) \text{ for } x \leq t_l",
        reference=srelu_reference,
        paper=Paper(title="Deep Learning with S-shaped Rectified Linear Activation Units", year=2015, arxiv="1512.07030",
                    authors="Xiaojie Jin, Chunyan Xu, Jiashi Feng, Yunchao Wei, Junjun Xiong, Shuicheng Yan"),
        learn=(Learn("t_r", 1.0), Learn("a_r", 1.0), Learn("t_l", 0.0), Learn("a_l", 0.2)), limits=(-INF, INF), flops=6.0,
        tags=Tags(monotone=True, kinks=(0.0,), delicate=True), values={-2.0: -0.4, 0.5: 0.5, 3.0: 3.0},
        identities=(Identity("activation/prelu", options={"a_l": 0.25}, other_options={"a": 0.25}),),
        deviations=("the paper first trains a leaky ReLU and then sets t_r from the data; here t_r = 1 on a slope of 0.2",),
    ),
    activation(
        aplu, cls="APLU", summary="APLU: ReLU plus hinges whose slopes and places are learnt",
        formula=r"\max(0,\,x) + \sum_s a_s \max(0,\,b_s - x)", reference=aplu_reference,
        paper=Paper(title="Learning Activation Functions to Improve Deep Neural Networks", year=2014, arxiv="1412.6830",
                    authors="Forest Agostinelli, Matthew Hoffman, Peter Sadowski, Pierre Baldi", equation="(1)"),
        learn=(Learn("a", (0.0,) * 5, decay=True), Learn("b", (-2.0, -1.0, 0.0, 1.0, 2.0))), limits=(0.0, INF), flops=16.0,
        tags=Tags(monotone=True, kinks=(0.0,), delicate=True), values={-2.0: 0.0, 0.5: 0.5, 3.0: 3.0},
        equals_at_init=("activation/relu", "activation/tmaf"),
        deviations=("the number of hinges is free in the paper; here five, flat at the start, at -2 to 2",),
    ),
    activation(
        arelu, cls="AReLU", summary="AReLU: ReLU that amplifies positive and damps negative inputs by learnt amounts",
        formula=r"(1 + \sigma(b))\,x \text{ for } x > 0;\; \mathrm{clamp}(a,\,0.01,\,0.99)\,x",
        reference=lambda x, a, b: x + x / (1 + math.exp(-b)) if x > 0 else a * x,
        paper=Paper(title="AReLU: Attention-based Rectified Linear Unit", authors="Dengsheng Chen, Jun Li, Kai Xu",
                    year=2020, arxiv="2006.13858", code="densechen/AReLU"),
        learn=(Learn("a", 0.9, bounds=(0.01, 0.99)), Learn("b", 2.0)), limits=(-INF, INF), flops=3.0,
        tags=Tags(monotone=True, kinks=(0.0,), delicate=True, always=("monotone",)), values={-2.0: -1.8, 1.0: 1.880797},
    ),
    activation(
        rprelu, cls="RPReLU", summary="RPReLU: PReLU with its corner at a learnt point of the plane, for binary nets",
        formula=r"x - \gamma + \zeta \text{ for } x > \gamma;\; \beta (x - \gamma) + \zeta", reference=rprelu_reference,
        paper=Paper(title="ReActNet: Towards Precise Binary Neural Network with Generalized Activation Functions",
                    authors="Zechun Liu, Zhiqiang Shen, Marios Savvides, Kwang-Ting Cheng", year=2020, arxiv="2003.03488",
                    code="liuzechun/ReActNet"),
        learn=(Learn("gamma", 0.0), Learn("zeta", 0.0), Learn("beta", 0.25)), limits=(-INF, INF), flops=5.0,
        tags=Tags(monotone=True, kinks=(0.0,), delicate=True), values={-2.0: -0.5, 3.0: 3.0},
        equals_at_init=("activation/prelu",),
        deviations=("one set of parameters for all by default; per='channel' is the paper's",),
    ),
    activation(
        brelu, cls="BReLU", summary="BReLU: ReLU bounded from above",
        formula=r"\min(\max(0,\,x),\,a)", reference=lambda x, a: min(max(0.0, x), a),
        paper=Paper(title="Bounded activation functions for enhanced training stability of deep neural networks on visual "
                          "pattern recognition problems", authors="S. S. Liew, M. Khalil-Hani, R. Bakhteri", year=2016),
        options=(Option("a", 1.0, "the largest output", bounds=(0.0, INF)),), limits=(0.0, 1.0), flops=2.0,
        tags=Tags(monotone=True, kinks=(0.0, 1.0), always=("monotone",)), values={-2.0: 0.0, 0.5: 0.5, 3.0: 1.0},
        identities=(Identity("activation/relu6", options={"a": 6.0}),),
    ),
    activation(
        plu, cls="PLU", summary="PLU: the identity between -c and c, straight lines of a small slope outside",
        formula=r"\max(\alpha (x + c) - c,\, \min(\alpha (x - c) + c,\, x))", reference=plu_reference,
        paper=Paper(title="PLU: The Piecewise Linear Unit Activation Function", authors="Andrei Nicolae", year=2018,
                    arxiv="1809.09534"),
        options=(Option("alpha", 0.1, "slope outside [-c, c]", bounds=(0.0, 1.0)),
                 Option("c", 1.0, "where the slope changes", bounds=(0.0, INF))),
        limits=(-INF, INF), flops=8.0, values={-3.0: -1.2, 0.5: 0.5, 2.0: 1.1},
        tags=Tags(monotone=True, odd=True, kinks=(-1.0, 1.0), delicate=True, always=("monotone", "odd")),
    ),
    activation(
        softshrink, cls="Softshrink", summary="Softshrink: soft thresholding, every input moved towards 0",
        formula=r"\mathrm{sign}(x) \max(0,\,|x| - b)", options=BOUND, paper=SURVEY,
        reference=lambda x, bound: math.copysign(max(abs(x) - bound, 0.0), x), limits=(-INF, INF), flops=4.0,
        tags=Tags(monotone=True, odd=True, kinks=(-0.5, 0.5), always=("monotone", "odd")), values={-2.0: -1.5, 0.25: 0.0},
    ),
    activation(
        hardshrink, cls="Hardshrink", summary="Hardshrink: hard thresholding, small inputs set to 0 and the others kept",
        formula=r"x \text{ where } |x| > b,\; 0 \text{ elsewhere}", options=BOUND, paper=SURVEY,
        reference=lambda x, bound: 0.0 if -bound <= x <= bound else x, limits=(-INF, INF), flops=2.0,
        tags=Tags(monotone=True, odd=True, kinks=(-0.5, 0.5), always=("monotone", "odd")), values={-2.0: -2.0, 0.25: 0.0},
    ),
)  # fmt: skip
