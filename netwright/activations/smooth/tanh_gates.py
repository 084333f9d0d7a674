"""The input times the tanh of it, of an exponential, a sigmoid or a GELU of it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.activations._reference import reference_sigmoid, reference_softplus
from netwright.activations.smooth._gates import gated, reference_gated
from netwright.activations.smooth.softplus import quick_softplus
from netwright.core.part import Identity, Learn, Option, Paper

INF = math.inf
SURVEY = Paper("four-hundred-activations")
#: tanh(e^MOST) is 1, and its square still fits float32.
MOST = 40.0


def quick_tanh(x: Tensor) -> Tensor:
    """tanh of one exponential: several times faster once compiled, exact to rounding of 1, and no slope lost near 1."""
    return 1 - 2 / (1 + torch.exp(2 * x.clamp(max=40.0)))


def lisht(x: Tensor) -> Tensor:
    return x * torch.tanh(x)


def quick_lisht(x: Tensor) -> Tensor:
    return x * quick_tanh(x)


def reference_lisht(x: float) -> float:
    return abs(x) * math.tanh(abs(x))


LISHT = activation(
    lisht,
    compiled=quick_lisht,
    cls="LiSHT",
    reference=reference_lisht,
    summary="LiSHT: x times its tanh, a smooth absolute value (Roy et al., 2019).",
    formula=r"x \tanh(x)",
    limits=(math.inf, math.inf),
    paper=Paper(
        title="LiSHT: Non-Parametric Linearly Scaled Hyperbolic Tangent Activation Function for Neural Networks",
        authors="Swalpa Kumar Roy, Suvojit Manna, Shiv Ram Dubey, Bidyut Baran Chaudhuri",
        year=2019,
        arxiv="1901.05894",
    ),
    tags=Tags(smooth=True, even=True, delicate=True),
    values={-3.0: 2.985164, -1.0: 0.761594, 0.0: 0.0, 1.0: 0.761594, 3.0: 2.985164},
    flops=5.0,
)


def tanhexp(x: Tensor) -> Tensor:
    return gated(x, torch.tanh(torch.exp(x.clamp(max=MOST))))


def quick_tanhexp(x: Tensor) -> Tensor:
    return x * quick_tanh(torch.exp(x.clamp(max=MOST)))


def reference_tanhexp(x: float) -> float:
    return reference_gated(x, math.tanh(math.exp(min(x, 700.0))))


TANHEXP = activation(
    tanhexp,
    compiled=quick_tanhexp,
    cls="TanhExp",
    reference=reference_tanhexp,
    summary="TanhExp, later also TeLU: x times the tanh of its exponential (Liu and Di, 2020).",
    formula=r"x \tanh(e^x)",
    limits=(0.0, math.inf),
    paper=Paper(
        title="TanhExp: A Smooth Activation Function with High Convergence Speed for Lightweight Neural Networks",
        authors="Xinyu Liu, Xiaoguang Di",
        year=2020,
        arxiv="2003.09855",
    ),
    tags=Tags(smooth=True, delicate=True),
    values={-3.0: -0.149238, -1.0: -0.352135, 0.0: 0.0, 1.0: 0.991329, 3.0: 3.0},
    identities=(Identity("activation/tanhsoft-2", other_options={"beta": 1.0}),),
    flops=6.0,
)


def tanhsoft_1(x: Tensor, *, a: float) -> Tensor:
    return torch.tanh(a * x) * F.softplus(x)


def quick_tanhsoft_1(x: Tensor, *, a: float) -> Tensor:
    return quick_tanh(a * x) * quick_softplus(x)


def reference_tanhsoft_1(x: float, a: float) -> float:
    return math.tanh(a * x) * reference_softplus(x)


TANHSOFT = Paper(
    title="TanhSoft -- a family of activation functions combining Tanh and Softplus",
    authors="Koushik Biswas, Sandeep Kumar, Shilpak Banerjee, Ashish Kumar Pandey",
    year=2020,
    arxiv="2009.03863",
)
TANHSOFT_1 = activation(
    tanhsoft_1,
    compiled=quick_tanhsoft_1,
    cls="TanhSoft1",
    reference=reference_tanhsoft_1,
    summary="TanhSoft-1: a tanh times a softplus (Biswas et al., 2020).",
    formula=r"\tanh(a x) \ln(1 + e^x)",
    limits=(0.0, math.inf),
    paper=TANHSOFT,
    options=(Option("a", 0.87, "steepness of the tanh", bounds=(0.0, math.inf)),),
    tags=Tags(smooth=True, delicate=True, always=("smooth",)),
    values={-3.0: -0.048065, -1.0: -0.219714, 0.0: 0.0, 1.0: 0.921088, 3.0: 3.015795},
    flops=9.0,
)


def tanhsoft_2(x: Tensor, *, beta: float, gamma: float) -> Tensor:
    return gated(x, torch.tanh(beta * torch.exp((gamma * x).clamp(max=MOST))))


def quick_tanhsoft_2(x: Tensor, *, beta: float, gamma: float) -> Tensor:
    return x * quick_tanh(beta * torch.exp((gamma * x).clamp(max=MOST)))


def reference_tanhsoft_2(x: float, beta: float, gamma: float) -> float:
    return reference_gated(x, math.tanh(beta * math.exp(min(gamma * x, 700.0))))


TANHSOFT_2 = activation(
    tanhsoft_2,
    compiled=quick_tanhsoft_2,
    cls="TanhSoft2",
    reference=reference_tanhsoft_2,
    summary="TanhSoft-2: x times the tanh of a scaled exponential (Biswas et al., 2020).",
    formula=r"x \tanh(\beta e^{\gamma x})",
    limits=(0.0, math.inf),
    paper=TANHSOFT,
    options=(
        Option("beta", 0.6, "factor of the exponential: the slope at 0 is tanh(beta)", bounds=(0.0, 1e4)),
        Option("gamma", 1.0, "rate of the exponential", bounds=(0.0, 1e4)),
    ),
    tags=Tags(smooth=True, delicate=True, always=("smooth",)),
    values={-3.0: -0.089590, -1.0: -0.217212, 0.0: 0.0, 1.0: 0.926199, 3.0: 3.0},
    flops=8.0,
)


def smish(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    n = s * (s + 2)
    return gated(x, n / (n + 2))  # tanh(ln u) = (u^2 - 1) / (u^2 + 1)


def reference_smish(x: float) -> float:
    return reference_gated(x, math.tanh(math.log1p(reference_sigmoid(x))))


SMISH = activation(
    smish,
    cls="Smish",
    reference=reference_smish,
    summary="Smish: Mish with a sigmoid in place of its exponential; its slope tends to 3/5 (Wang, Ren and Wang, 2022).",
    formula=r"x \tanh(\ln(1 + \sigma(x)))",
    limits=(0.0, math.inf),
    paper=Paper(
        title="Smish: A Novel Activation Function for Deep Learning Methods",
        authors="Xueliang Wang, Honge Ren, Achuan Wang",
        year=2022,
        venue="Electronics",
    ),
    tags=Tags(smooth=True, delicate=True),
    values={-3.0: -0.138907, -1.0: -0.233779, 0.0: 0.0, 1.0: 0.499570, 3.0: 1.753259},
    deviations=("the paper's two factors are fixed at 1, which it recommends",),
    flops=8.0,
)


def phish(x: Tensor) -> Tensor:
    y = x.clamp(min=-MOST)  # left of it the gate is 0 in every dtype
    return gated(x, torch.tanh(y / 2 * torch.erfc(-y / math.sqrt(2))))


def quick_phish(x: Tensor) -> Tensor:
    return x * quick_tanh(x / 2 * (1 + torch.erf(x / math.sqrt(2))))


def reference_phish(x: float) -> float:
    return reference_gated(x, math.tanh(reference_gated(x, math.erfc(-x / math.sqrt(2)) / 2)))


PHISH = activation(
    phish,
    compiled=quick_phish,
    cls="Phish",
    reference=reference_phish,
    summary="Phish: x times the tanh of its GELU, which is positive on both sides (Naveen, 2022).",
    formula=r"x \tanh(x\,\Phi(x))",
    limits=(0.0, math.inf),
    paper=Paper(
        title="Phish: A Novel Hyper-Optimizable Activation Function", authors="Philip Naveen", year=2022, venue="TechRxiv"
    ),
    tags=Tags(smooth=True, delicate=True),
    values={-3.0: 0.012149, -1.0: 0.157337, 0.0: 0.0, 1.0: 0.686521, 3.0: 2.985044},
    flops=9.0,
)


def pstanh(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    gate = torch.sigmoid(2 * b * x)  # (1 + tanh(b x)) / 2, without its cancellation
    return torch.where(gate > 0, 2 * a * x * gate, 0.0)


def pstanh_reference(x: float, a: float, b: float) -> float:
    u = b * x
    if u < 0:
        e = math.exp(2 * u)
        return 2 * a * x * e / (1 + e) if e else 0.0
    return a * x * (1 + math.tanh(u))


PSTANH = activation(
    pstanh,
    cls="PSTanh",
    summary="PSTanh: x gated by a hyperbolic tangent of learnt height and steepness",
    formula=r"a x\,(1 + \tanh(b x))",
    reference=pstanh_reference,
    paper=SURVEY,
    learn=(Learn("a", 0.5), Learn("b", 1.0)),
    limits=(0.0, INF),
    flops=7.0,
    tags=Tags(smooth=True, delicate=True),
    identities=(
        Identity("activation/silu", options={"a": 0.5, "b": 0.5}, note="b = 1/2"),
        Identity("activation/swish", options={"a": 0.5, "b": 1.0}, other_options={"beta": 2.0}),
    ),
    deviations=("the survey names no starting values; here a = 1/2 and b = 1",),
)

PARTS = (LISHT, TANHEXP, TANHSOFT_1, TANHSOFT_2, SMISH, PHISH, PSTANH)
