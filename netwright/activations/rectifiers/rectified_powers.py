"""A curve of ReLU: its square, its cube, its logarithm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Identity, Learn, Option, Paper

INF = math.inf


def starrelu(x: Tensor, s: Tensor, b: Tensor) -> Tensor:
    return s * torch.relu(x).square() + b


STARRELU = activation(
    starrelu,
    cls="StarReLU",
    summary="StarReLU: squared ReLU scaled and shifted to zero mean and unit variance",
    formula=r"s \max(0,\,x)^2 + b",
    reference=lambda x, s, b: (s * x * x if x > 0 else 0.0) + b,
    paper=Paper(
        title="MetaFormer Baselines for Vision",
        year=2022,
        arxiv="2210.13452",
        authors="Weihao Yu, Chenyang Si, Pan Zhou, Mi Luo, Yichen Zhou, Jiashi Feng, Shuicheng Yan, Xinchao Wang",
    ),
    learn=(Learn("s", 0.8944), Learn("b", -0.4472)),
    limits=(-0.4472, INF),
    flops=4.0,
    tags=Tags(smooth=True, monotone=True, delicate=True, always=("smooth",)),
    values={-1.0: -0.4472, 2.0: 3.1304},
    identities=(Identity("activation/relu2", options={"s": 1.0, "b": 0.0}),),
)


def recu(x: Tensor) -> Tensor:
    r = torch.relu(x)
    return r * r * r


RECU = activation(
    recu,
    cls="ReCU",
    summary="ReCU: cubed ReLU, the rectified power unit of third degree",
    formula=r"\max(0,\,x)^3",
    reference=lambda x: x**3 if x > 0 else 0.0,
    paper=Paper(
        title="Better Approximations of High Dimensional Smooth Functions by Deep Neural Networks with Rectified Power Units",
        authors="Bo Li, Shanshan Tang, Haijun Yu",
        year=2019,
        arxiv="1903.05858",
    ),
    limits=(0.0, INF),
    flops=3.0,
    tags=Tags(smooth=True, monotone=True, delicate=True),
    values={-1.0: 0.0, 1.5: 3.375},
)


def nlrelu(x: Tensor, *, beta: float) -> Tensor:
    return torch.log1p(beta * torch.relu(x))


def nlrelu_of_log(x: Tensor, *, beta: float) -> Tensor:
    return torch.log(1 + beta * torch.relu(x))


NLRELU = activation(
    nlrelu,
    cls="NLReLU",
    compiled=nlrelu_of_log,
    summary="NLReLU: the logarithm of one plus ReLU",
    formula=r"\ln(\beta \max(0,\,x) + 1)",
    reference=lambda x, beta: math.log1p(beta * x) if x > 0 else 0.0,
    paper=Paper(
        title="Natural-Logarithm-Rectified Activation Function in Convolutional Neural Networks",
        year=2019,
        authors="Yang Liu, Jianpeng Zhang, Chao Gao, Jinghua Qu, Lixin Ji",
        arxiv="1908.03682",
    ),
    options=(Option("beta", 1.0, "slope at 0 from above", bounds=(0.0, INF)),),
    limits=(0.0, INF),
    flops=4.0,
    tags=Tags(monotone=True, kinks=(0.0,), delicate=True, always=("monotone",)),
    values={-1.0: 0.0, 1.0: 0.693147},
    identities=(Identity("activation/symlog", domain=(0.0, 10.0)),),
)

PARTS = (STARRELU, RECU, NLRELU)
