"""Rectifiers of the survey that bend on one side: squared, cubed, logarithmic, saturating below."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Identity, Learn, Option, Paper

INF = math.inf
SURVEY = Paper("four-hundred-activations")


def sigmoid_reference(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def starrelu(x: Tensor, s: Tensor, b: Tensor) -> Tensor:
    return s * torch.relu(x).square() + b


def recu(x: Tensor) -> Tensor:
    r = torch.relu(x)
    return r * r * r


def nlrelu(x: Tensor, *, beta: float) -> Tensor:
    return torch.log1p(beta * torch.relu(x))


def nlrelu_of_log(x: Tensor, *, beta: float) -> Tensor:
    return torch.log(1 + beta * torch.relu(x))


def fts(x: Tensor, *, t: float) -> Tensor:
    r = torch.relu(x)
    return r * torch.sigmoid(r) + t


def maxsig(x: Tensor) -> Tensor:
    return torch.maximum(x, torch.sigmoid(x))


def maxtanh(x: Tensor) -> Tensor:
    return torch.maximum(x, torch.tanh(x))


def trelu(x: Tensor, b: Tensor) -> Tensor:
    return torch.where(x >= 0, x, torch.tanh(b * x))


def trelu_of_exponential(x: Tensor, b: Tensor) -> Tensor:
    """tanh(u) = 2 / (1 + exp(-2 u)) - 1; beyond |u| = 20 it is 1 or -1 in float32."""
    return torch.where(x >= 0, x, 2 / (1 + torch.exp(-2 * (b * x).clamp(-20.0, 20.0))) - 1)


def maxtanh_of_exponential(x: Tensor) -> Tensor:
    return torch.where(x >= 0, x, 2 / (1 + torch.exp(-2 * x.clamp(-20.0, 20.0))) - 1)


def slu(x: Tensor) -> Tensor:
    return torch.where(x >= 0, x, 2 * torch.log1p(torch.expm1(x.clamp(max=0.0)) / 2))


def slu_of_log(x: Tensor) -> Tensor:
    return torch.where(x >= 0, x, 2 * torch.log((1 + torch.exp(x.clamp(max=0.0))) / 2))


def delu(x: Tensor, n: Tensor) -> Tensor:
    above, below = torch.relu(x), x.clamp(max=0.0)
    gate = torch.sigmoid(below)
    return (n + 0.5) * above - torch.expm1(-above) + torch.where(gate > 0, below * gate, 0.0)  # not -inf * 0


def delu_reference(x: float, n: float) -> float:
    if x > 0:
        return (n + 0.5) * x + abs(math.expm1(-x))
    return x * sigmoid_reference(x) if x > -700 else 0.0


def hard_mish(x: Tensor) -> Tensor:
    return 0.5 * x.clamp(min=-2.0) * (x + 2).clamp(0.0, 2.0)


PARTS = (
    activation(
        starrelu, cls="StarReLU", summary="StarReLU: squared ReLU scaled and shifted to zero mean and unit variance",
        formula=r"s \max(0,\,x)^2 + b", reference=lambda x, s, b: (s * x * x if x > 0 else 0.0) + b,
        paper=Paper(title="MetaFormer Baselines for Vision", year=2022, arxiv="2210.13452",
                    authors="Weihao Yu, Chenyang Si, Pan Zhou, Mi Luo, Yichen Zhou, Jiashi Feng, Shuicheng Yan, Xinchao Wang"),
        learn=(Learn("s", 0.8944), Learn("b", -0.4472)), limits=(-0.4472, INF), flops=4.0,
        tags=Tags(smooth=True, monotone=True, delicate=True, always=("smooth",)), values={-1.0: -0.4472, 2.0: 3.1304},
        identities=(Identity("activation/relu2", options={"s": 1.0, "b": 0.0}),),
    ),
    activation(
        recu, cls="ReCU", summary="ReCU: cubed ReLU, the rectified power unit of third degree",
        formula=r"\max(0,\,x)^3", reference=lambda x: x**3 if x > 0 else 0.0,
        paper=Paper(title="Better Approximations of High Dimensional Smooth Functions by Deep Neural Networks with Rectified "
                          "Power Units", authors="Bo Li, Shanshan Tang, Haijun Yu", year=2019, arxiv="1903.05858"),
        limits=(0.0, INF), flops=3.0, tags=Tags(smooth=True, monotone=True, delicate=True), values={-1.0: 0.0, 1.5: 3.375},
    ),
    activation(
        nlrelu, cls="NLReLU", compiled=nlrelu_of_log, summary="NLReLU: the logarithm of one plus ReLU",
        formula=r"\ln(\beta \max(0,\,x) + 1)", reference=lambda x, beta: math.log1p(beta * x) if x > 0 else 0.0,
        paper=Paper(title="Natural-Logarithm-Rectified Activation Function in Convolutional Neural Networks", year=2019,
                    authors="Yang Liu, Jianpeng Zhang, Chao Gao, Jinghua Qu, Lixin Ji", arxiv="1908.03682"),
        options=(Option("beta", 1.0, "slope at 0 from above", bounds=(0.0, INF)),), limits=(0.0, INF), flops=4.0,
        tags=Tags(monotone=True, kinks=(0.0,), delicate=True, always=("monotone",)), values={-1.0: 0.0, 1.0: 0.693147},
        identities=(Identity("activation/symlog", domain=(0.0, 10.0)),),
    ),
    activation(
        fts, cls="FTS", summary="FTS, flatten-T swish: SiLU from 0 on, a negative constant below, both shifted by it",
        formula=r"x\,\sigma(x) + T \text{ for } x \geq 0,\; T \text{ below}",
        reference=lambda x, t: x * sigmoid_reference(x) + t if x > 0 else t,
        paper=Paper(title="Flatten-T Swish: a thresholded ReLU-Swish-like activation function for deep learning", year=2018,
                    authors="Hock Hung Chieng, Noorhaniza Wahid, Pauline Ong, Sai Raj Kishore Perla", arxiv="1812.06247"),
        options=(Option("t", -0.2, "T, the value below 0"),), limits=(-0.2, INF), flops=6.0,
        tags=Tags(monotone=True, kinks=(0.0,), delicate=True, always=("monotone",)), values={-1.0: -0.2, 1.0: 0.531059},
        identities=(Identity("activation/silu", options={"t": 0.0}, domain=(0.0, 10.0)),),
    ),
    activation(
        maxsig, cls="MaxSig", summary="MaxSig: the larger of the input and its sigmoid",
        formula=r"\max(x,\,\sigma(x))", reference=lambda x: max(x, sigmoid_reference(x)),
        paper=Paper(title="Is it Time to Swish? Comparing Deep Learning Activation Functions Across NLP tasks", year=2018,
                    authors="Steffen Eger, Paul Youssef, Iryna Gurevych", arxiv="1901.02671"),
        limits=(0.0, INF), flops=5.0, tags=Tags(monotone=True, kinks=(0.659046068,)), values={0.0: 0.5, -1.0: 0.268941, 2.0: 2.0},
    ),
    activation(
        maxtanh, cls="MaxTanh", compiled=maxtanh_of_exponential,
        summary="MaxTanh: the larger of the input and its hyperbolic tangent",
        formula=r"\max(x,\,\tanh x)", reference=lambda x: x if x > 0 else math.tanh(x),
        paper=Paper(title="Is it Time to Swish? Comparing Deep Learning Activation Functions Across NLP tasks", year=2018,
                    authors="Steffen Eger, Paul Youssef, Iryna Gurevych", arxiv="1901.02671"),
        limits=(-1.0, INF), flops=6.0, tags=Tags(smooth=True, monotone=True), values={-1.0: -0.761594, 2.0: 2.0},
    ),
    activation(
        trelu, cls="TReLU", compiled=trelu_of_exponential,
        summary="TReLU: the identity from 0 on, a hyperbolic tangent of learnt steepness below",
        formula=r"x \text{ for } x \geq 0,\; \tanh(b x) \text{ below}", paper=SURVEY,
        reference=lambda x, b: x if x >= 0 else math.tanh(b * x),
        learn=(Learn("b", 1.0),), limits=(-1.0, INF), flops=6.0, tags=Tags(smooth=True, monotone=True, delicate=True),
        values={-1.0: -0.761594, 2.0: 2.0}, equals_at_init=("activation/maxtanh",),
    ),
    activation(
        slu, cls="SLU", compiled=slu_of_log, summary="SLU: the identity from 0 on, a shifted softplus below",
        formula=r"x \text{ for } x \geq 0,\; 2 \ln((e^x + 1) / 2) \text{ below}",
        reference=lambda x: x if x >= 0 else 2 * math.log1p(math.expm1(x) / 2),
        paper=Paper(title="A novel softplus linear unit for deep convolutional neural networks", year=2018,
                    authors="Huizhen Zhao, Fuxian Liu, Longyue Li, Chang Luo", venue="Applied Intelligence"),
        limits=(-2 * math.log(2), INF), flops=6.0, tags=Tags(smooth=True, monotone=True, delicate=True),
        values={-1.0: -0.759771, 2.0: 2.0},
    ),
    activation(
        delu, cls="DELU", summary="DELU: SiLU below 0, above it a learnt slope minus a decaying exponential",
        formula=r"x\,\sigma(x) \text{ for } x \leq 0,\; (n + 0.5)\,x + |e^{-x} - 1| \text{ above}", reference=delu_reference,
        paper=Paper(title="Trainable Activations for Image Classification", authors="Evgenii Pishchik", year=2023,
                    code="Pe4enIks/TrainableActivation"),
        learn=(Learn("n", 0.0),), limits=(0.0, INF), flops=10.0,
        tags=Tags(kinks=(0.0,), delicate=True), values={-1.0: -0.268941, 0.0: 0.0, 1.0: 1.132121},
    ),
    activation(
        hard_mish, cls="HardMish", summary="Hard Mish: a parabola between -2 and 0 in place of Mish's curve",
        formula=r"\frac{x}{2} \min(2,\, \max(0,\, x + 2))",
        reference=lambda x: x if x >= 0 else (0.0 if x <= -2 else x + x * x / 2),
        paper=Paper(title="PyTorch Image Models", authors="Ross Wightman", year=2019, code="huggingface/pytorch-image-models"),
        limits=(0.0, INF), flops=5.0, tags=Tags(kinks=(-2.0,), delicate=True), values={-3.0: 0.0, -1.0: -0.5, 2.0: 2.0},
    ),
)  # fmt: skip
