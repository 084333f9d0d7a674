"""The input, or an input with a ripple, times a sigmoid of it: scaled, raised to a power, under a logarithm."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.activations._reference import reference_sigmoid
from netwright.activations.smooth._gates import gated, reference_gated
from netwright.core.part import Identity, Learn, Option, Paper

INF = math.inf
#: sin and cos of infinity are NaN, and so is SiLU of -inf.
FAR = 1e30


def logish(x: Tensor) -> Tensor:
    return gated(x, torch.log1p(torch.sigmoid(x)))


def logish_of_a_logarithm(x: Tensor) -> Tensor:
    return x * torch.log(1 + torch.sigmoid(x))


def reference_logish(x: float) -> float:
    return reference_gated(x, math.log1p(reference_sigmoid(x)))


LOGISH = activation(
    logish,
    compiled=logish_of_a_logarithm,
    cls="Logish",
    reference=reference_logish,
    summary="Logish: x times the logarithm of 1 plus its sigmoid; its slope tends to ln 2 (Zhu et al., 2021).",
    formula=r"x \ln(1 + \sigma(x))",
    limits=(0.0, math.inf),
    paper=Paper(
        title="Logish: A new nonlinear nonmonotonic activation function for convolutional neural network",
        authors="Hegui Zhu, Huimin Zeng, Jinhai Liu, Xiangde Zhang",
        year=2021,
        venue="Neurocomputing",
    ),
    tags=Tags(smooth=True, delicate=True),
    values={-3.0: -0.139007, -1.0: -0.238183, 0.0: 0.0, 1.0: 0.548733, 3.0: 2.007446},
    flops=6.0,
)


def e_swish(x: Tensor, *, beta: float) -> Tensor:
    return beta * F.silu(x.clamp(min=-FAR))


def reference_e_swish(x: float, beta: float) -> float:
    return beta * reference_gated(x, reference_sigmoid(x))


E_SWISH = activation(
    e_swish,
    cls="ESwish",
    reference=reference_e_swish,
    summary="E-swish: SiLU with a slope that tends to beta instead of 1 (Alcaide, 2018).",
    formula=r"\beta x\,\sigma(x)",
    limits=(0.0, math.inf),
    paper=Paper(
        title="E-swish: Adjusting Activations to Different Network Depths", authors="Eric Alcaide", year=2018, arxiv="1801.07145"
    ),
    options=(Option("beta", 1.375, "the slope at +inf", search=(1.0, 2.0, "linear")),),
    tags=Tags(smooth=True, delicate=True, always=("smooth",)),
    values={-3.0: -0.195632, -1.0: -0.369794, 0.0: 0.0, 1.0: 1.005206, 3.0: 3.929368},
    identities=(Identity("activation/silu", scale_y=1.375), Identity("activation/silu", options={"beta": 1.0})),
    flops=5.0,
)


def acon_c(x: Tensor, p1: Tensor, p2: Tensor, beta: Tensor) -> Tensor:
    step = p1 - p2
    gate = step * torch.sigmoid(beta * step * x) + p2
    return torch.where(x.isinf() & (gate == 0), 0.0, x * gate)


def reference_acon_c(x: float, p1: float, p2: float, beta: float) -> float:
    step = p1 - p2
    return reference_gated(x, step * reference_sigmoid(beta * step * x) + p2)


ACON_C = activation(
    acon_c,
    cls="ACONC",
    reference=reference_acon_c,
    summary="ACON-C: a smooth maximum of two learnt lines through 0, p1 x and p2 x (Ma et al., 2020).",
    formula=r"(p_1 - p_2) x\,\sigma(\beta (p_1 - p_2) x) + p_2 x",
    limits=(0.0, math.inf),
    paper=Paper(
        title="Activate or Not: Learning Customized Activation",
        authors="Ningning Ma, Xiangyu Zhang, Ming Liu, Jian Sun",
        year=2020,
        arxiv="2009.04759",
        code="https://github.com/nmaxbitapp/acon",
    ),
    learn=(Learn("p1", 1.0), Learn("p2", 0.0), Learn("beta", 1.0)),
    tags=Tags(smooth=True, delicate=True, always=("smooth",)),
    values={-3.0: -0.142278, -1.0: -0.268941, 0.0: 0.0, 1.0: 0.731059, 3.0: 2.857722},
    identities=(
        Identity("activation/swish", options={"beta": 2.0}, other_options={"beta": 2.0}),
        Identity("activation/relu", options={"beta": 4000.0}, tolerance=1e-4, note="large beta: the maximum of the two lines"),
        Identity("activation/prelu", options={"p2": 0.25, "beta": 4000.0}, tolerance=1e-4),
    ),
    equals_at_init=("activation/silu", "activation/swish", "activation/xsilu", "activation/aglu"),
    deviations=(
        "one set of parameters for the module unless per='channel', which is the paper's choice",
        "p1 and p2 start at 1 and 0, as the paper has it; implementations in use draw both from N(0, 1)",
    ),
    flops=8.0,
)


def sinlu(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return gated(x + a * torch.sin(b * x.clamp(-FAR, FAR)), torch.sigmoid(x))


def reference_sinlu(x: float, a: float, b: float) -> float:
    return reference_gated(x if math.isinf(x) else x + a * math.sin(b * x), reference_sigmoid(x))


SINLU = activation(
    sinlu,
    cls="SinLU",
    reference=reference_sinlu,
    summary="SinLU: SiLU with a learnt sine wave added to its line (Paul et al., 2022).",
    formula=r"(x + a \sin(b x))\,\sigma(x)",
    limits=(0.0, math.inf),
    paper=Paper(
        title="SinLU: Sinu-Sigmoidal Linear Unit",
        authors="Ashis Paul, Rajarshi Bandyopadhyay, Jin Hee Yoon, Zong Woo Geem, Ram Sarkar",
        year=2022,
        venue="Mathematics",
    ),
    learn=(Learn("a", 1.0), Learn("b", 1.0)),
    tags=Tags(smooth=True, delicate=True, always=("smooth",)),
    values={-3.0: -0.148970, -1.0: -0.495248, 0.0: 0.0, 1.0: 1.346223, 3.0: 2.992150},
    identities=(Identity("activation/silu", options={"a": 0.0}),),
    flops=8.0,
)


def coslu(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return gated(x + a * torch.cos(b * x.clamp(-FAR, FAR)), torch.sigmoid(x))


def reference_coslu(x: float, a: float, b: float) -> float:
    return reference_gated(x if math.isinf(x) else x + a * math.cos(b * x), reference_sigmoid(x))


COSLU = activation(
    coslu,
    cls="CosLU",
    reference=reference_coslu,
    summary="CosLU: SiLU with a learnt cosine wave added to its line (Pishchik, 2023).",
    formula=r"(x + a \cos(b x))\,\sigma(x)",
    limits=(0.0, math.inf),
    paper=Paper(title="Trainable Activations for Image Classification", authors="Evgenii Pishchik", year=2023, venue="Preprints"),
    learn=(Learn("a", 1.0), Learn("b", 1.0)),
    tags=Tags(smooth=True, delicate=True, always=("smooth",)),
    values={-3.0: -0.189229, -1.0: -0.123632, 0.0: 0.5, 1.0: 1.126051, 3.0: 1.914681},
    identities=(Identity("activation/silu", options={"a": 0.0}),),
    flops=8.0,
)


def elish(x: Tensor) -> Tensor:
    return F.elu(x) * torch.sigmoid(x)


def reference_elish(x: float) -> float:
    return (x if x >= 0 else math.expm1(x)) * reference_sigmoid(x)


ELISH = activation(
    elish,
    cls="ELiSH",
    reference=reference_elish,
    summary="ELiSH: an ELU times a sigmoid, which is SiLU right of 0 (Basirat and Roth, 2018).",
    formula=r"(\max(0,\,x) + \min(0,\,e^x - 1))\,\sigma(x)",
    limits=(0.0, math.inf),
    paper=Paper(
        title="The Quest for the Golden Activation Function", authors="Mina Basirat, Peter M. Roth", year=2018, arxiv="1808.00783"
    ),
    tags=Tags(smooth=True, delicate=True),
    values={-3.0: -0.045065, -1.0: -0.170003, 0.0: 0.0, 1.0: 0.731059, 3.0: 2.857722},
    identities=(Identity("activation/silu", domain=(0.0, 10.0)),),
    flops=6.0,
)


def aria2(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    gate = torch.exp(alpha * F.logsigmoid((beta * x).clamp(-1e4, 1e4)))
    return torch.where(gate > 0, x * gate, 0.0)  # not -inf * 0


def aria2_of_log(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    gate = torch.exp(-alpha * torch.log(1 + torch.exp((-beta * x).clamp(max=80.0))))
    return torch.where(gate > 0, x * gate, 0.0)


def aria2_reference(x: float, alpha: float, beta: float) -> float:
    if x < 0:  # (1 + e^-u)^-a = e^(a u) (1 + e^u)^-a
        return x * math.exp(alpha * beta * x) * (1 + math.exp(beta * x)) ** -alpha if x > -1e4 else 0.0
    return x * (1 + math.exp(-beta * x)) ** -alpha


ARIA2 = activation(
    aria2,
    cls="ARiA2",
    compiled=aria2_of_log,
    summary="ARiA-2: x gated by a power of a sigmoid (Richards' curve)",
    formula=r"x\,(1 + e^{-\beta x})^{-\alpha}",
    reference=aria2_reference,
    paper=Paper(
        title="ARiA: Utilizing Richard's Curve for Controlling the Non-monotonicity of the Activation Function in "
        "Deep Neural Nets",
        authors="Narendra Patwardhan, Madhura Ingalhalikar, Rahee Walambe",
        year=2018,
        arxiv="1805.08878",
    ),
    options=(
        Option("alpha", 1.5, "power of the gate", bounds=(0.0, INF)),
        Option("beta", 2.0, "steepness of the gate", bounds=(0.0, INF)),
    ),
    limits=(0.0, INF),
    flops=7.0,
    tags=Tags(smooth=True, delicate=True, always=("smooth",)),
    identities=(
        Identity("activation/silu", options={"alpha": 1.0, "beta": 1.0}),
        Identity("activation/swish", options={"alpha": 1.0, "beta": 2.0}, other_options={"beta": 2.0}),
    ),
)

PARTS = (LOGISH, E_SWISH, ACON_C, SINLU, COSLU, ELISH, ARIA2)
