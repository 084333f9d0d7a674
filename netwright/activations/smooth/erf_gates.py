"""The input times an error function: of a softplus, of an exponential, of the input itself."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.activations._reference import reference_softplus
from netwright.activations.smooth._gates import gated, reference_gated
from netwright.activations.smooth.softplus import quick_softplus
from netwright.core.part import Identity, Learn, Option, Paper

#: erf(e^MOST) is 1, and its square still fits float32.
MOST = 40.0


def serf(x: Tensor) -> Tensor:
    return gated(x, torch.erf(F.softplus(x)))


#: Beyond it erf is 1 and its slope below 1e-35: still smaller numbers, denormal, are slow.
TOP = 9.0


def quick_serf(x: Tensor) -> Tensor:
    return x * torch.erf(quick_softplus(x).clamp(max=TOP))


def reference_serf(x: float) -> float:
    return reference_gated(x, math.erf(reference_softplus(x)))


SERF = activation(
    serf,
    compiled=quick_serf,
    cls="Serf",
    reference=reference_serf,
    summary="Serf: Mish with the error function in place of its tanh (Nag and Bhattacharyya, 2021).",
    formula=r"x\,\mathrm{erf}(\ln(1 + e^x))",
    limits=(0.0, math.inf),
    paper=Paper(
        title="SERF: Towards better training of deep neural networks using log-Softplus ERror activation Function",
        authors="Sayan Nag, Mayukh Bhattacharyya",
        year=2021,
        arxiv="2108.09598",
    ),
    tags=Tags(smooth=True, delicate=True),
    values={-3.0: -0.164346, -1.0: -0.342248, 0.0: 0.0, 1.0: 0.936722, 3.0: 2.999951},
    flops=7.0,
)


def erfact(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return gated(x, torch.erf(a * torch.exp((b * x).clamp(max=MOST))))


def quick_erfact(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return x * torch.erf((a * torch.exp((b * x).clamp(max=MOST))).clamp(max=TOP))


def reference_erfact(x: float, a: float, b: float) -> float:
    return reference_gated(x, math.erf(a * math.exp(min(b * x, 700.0))))


STARTS = "the initial values are those of public implementations, which differ among themselves"
ERFACT_PAPER = Paper(
    title="ErfAct and Pserf: Non-monotonic Smooth Trainable Activation Functions",
    authors="Koushik Biswas, Sandeep Kumar, Shilpak Banerjee, Ashish Kumar Pandey",
    year=2021,
    arxiv="2109.04386",
)
ERFACT = activation(
    erfact,
    compiled=quick_erfact,
    cls="ErfAct",
    reference=reference_erfact,
    summary="ErfAct: x times the error function of a learnt exponential (Biswas et al., 2021).",
    formula=r"x\,\mathrm{erf}(a e^{b x})",
    limits=(0.0, math.inf),
    paper=ERFACT_PAPER,
    learn=(Learn("a", 0.75), Learn("b", 0.75)),
    tags=Tags(smooth=True, delicate=True, always=("smooth",)),
    values={-3.0: -0.267037, -1.0: -0.383643, 0.0: 0.0, 1.0: 0.975259, 3.0: 3.0},
    deviations=(STARTS,),
    flops=8.0,
)


def pserf(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return gated(x, torch.erf(a * F.softplus(b * x)))


def quick_pserf(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return x * torch.erf((a * quick_softplus(b * x)).clamp(max=TOP))


def reference_pserf(x: float, a: float, b: float) -> float:
    return reference_gated(x, math.erf(a * reference_softplus(b * x)))


PSERF = activation(
    pserf,
    compiled=quick_pserf,
    cls="Pserf",
    reference=reference_pserf,
    summary="Pserf: Serf with a learnt steepness inside and outside its softplus (Biswas et al., 2021).",
    formula=r"x\,\mathrm{erf}(a \ln(1 + e^{b x}))",
    limits=(0.0, math.inf),
    paper=ERFACT_PAPER,
    learn=(Learn("a", 1.25), Learn("b", 0.85)),
    tags=Tags(smooth=True, delicate=True, always=("smooth",)),
    values={-3.0: -0.317198, -1.0: -0.470708, 0.0: 0.0, 1.0: 0.966968, 3.0: 2.999990},
    identities=(Identity("activation/serf", options={"a": 1.0, "b": 1.0}),),
    deviations=(STARTS,),
    flops=9.0,
)


def smu(x: Tensor, m: Tensor, *, a: float) -> Tensor:
    # The paper's (1 + a + (1 - a) erf(u)) / 2 is a + (1 - a) erfc(-u) / 2, which doesn't cancel left of 0.
    gate = a + (1 - a) / 2 * torch.erfc(-m * (1 - a) * x)
    return torch.where(x.isinf() & (gate == 0), 0.0, x * gate)


def smu_of_erf(x: Tensor, m: Tensor, *, a: float) -> Tensor:
    """As the paper writes it: the compiler has a vector form of erf and none of erfc."""
    return x * ((1 + a) / 2 + (1 - a) / 2 * torch.erf(m * (1 - a) * x))


def reference_smu(x: float, m: float, a: float) -> float:
    return reference_gated(x, a + (1 - a) * math.erfc(-m * (1 - a) * x) / 2)


SMU = activation(
    smu,
    compiled=smu_of_erf,
    cls="SMU",
    reference=reference_smu,
    summary="SMU: a leaky rectifier smoothed by the error function, to a learnt degree (Biswas et al., 2021).",
    formula=r"((1 + a) x + (1 - a) x\,\mathrm{erf}(m (1 - a) x)) / 2",
    limits=(-math.inf, math.inf),
    paper=Paper(
        title="SMU: smooth activation function for deep networks using smoothing maximum technique",
        authors="Koushik Biswas, Sandeep Kumar, Shilpak Banerjee, Ashish Kumar Pandey",
        year=2021,
        arxiv="2111.04682",
    ),
    options=(Option("a", 0.25, "slope towards -inf"),),
    learn=(Learn("m", 1.0),),
    tags=Tags(smooth=True, monotone=True, delicate=True, always=("smooth",)),
    values={-3.0: -0.751646, -1.0: -0.358317, 0.0: 0.0, 1.0: 0.891683, 3.0: 2.998354},
    identities=(
        Identity("activation/gelu", options={"a": 0.0, "m": math.sqrt(0.5)}),
        Identity("activation/leaky-relu", options={"m": 1e6}, other_options={"a": 0.25}, tolerance=1e-5),
    ),
    deviations=("m starts at 1; implementations in use start it at 1e6, where the function is a leaky rectifier",),
    flops=8.0,
)

PARTS = (SERF, ERFACT, PSERF, SMU)
