"""APA and AGLU: a two-parameter family of gates from sigmoid to Gompertz, and x times it (Alexandridis et al., 2024).

APA(x) = (1 + lam exp(-kap x))^(-1 / lam) = exp(log(sigmoid(kap x - log lam)) / lam), and AGLU(x) = x APA(x).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Identity, Learn, Paper, Protocol


def apa(x: Tensor, lam: Tensor, kap: Tensor) -> Tensor:
    return torch.exp(F.logsigmoid(kap * x - torch.log(lam)) / lam)


def aglu(x: Tensor, lam: Tensor, kap: Tensor) -> Tensor:
    gate = apa(x, lam, kap)
    return torch.where(gate > 0, x * gate, 0.0)  # not -inf * 0


def apa_reference(x: float, lam: float, kap: float) -> float:
    if -kap * x > 700.0:  # 1 + lam exp(-kap x) is lam exp(-kap x)
        return math.exp(kap * x / lam) * lam ** (-1 / lam) if math.isfinite(x) else 0.0
    return math.exp(-math.log1p(lam * math.exp(-kap * x)) / lam)


def aglu_reference(x: float, lam: float, kap: float) -> float:
    gate = apa_reference(x, lam, kap)
    return x * gate if gate else 0.0


def tensors(*values: float) -> list[Tensor]:
    return [torch.tensor(v, dtype=torch.float64) for v in values]


def claim_sigmoid() -> bool:
    """lam = kap = 1 is the logistic sigmoid, and lam to 0 the Gompertz function exp(-exp(-kap x))."""
    x = torch.linspace(-8.0, 8.0, 321, dtype=torch.float64)
    sigmoid = torch.allclose(apa(x, *tensors(1.0, 1.0)), torch.sigmoid(x), atol=1e-15)
    return sigmoid and torch.allclose(apa(x, *tensors(1e-6, 0.8)), torch.exp(-torch.exp(-0.8 * x)), atol=1e-6)


def claim_middle() -> bool:
    """APA(0) = (1 + lam)^(-1 / lam): 0.4096 at 1/4, 4/9 at 1/2, 1/2 at 1, 3^(-1/2) at 2."""
    zero = torch.zeros((), dtype=torch.float64)
    at = {0.25: 0.4096, 0.5: 4 / 9, 1.0: 0.5, 2.0: 3**-0.5}
    return all(math.isclose(float(apa(zero, *tensors(lam, 1.0))), y, rel_tol=1e-12) for lam, y in at.items())


def claim_gelu() -> bool:
    """lam = 1, kap = 1.702 is within 0.021 of GELU; kap = 200 within 0.002 of ReLU."""
    x = torch.linspace(-6.0, 6.0, 1201, dtype=torch.float64)
    gelu = float((aglu(x, *tensors(1.0, 1.702)) - x * torch.erfc(-x / math.sqrt(2)) / 2).abs().max())
    relu = float((aglu(x, *tensors(1.0, 200.0)) - x.relu()).abs().max())
    return gelu < 0.021 and relu < 0.002


LEARN = (Learn("lam", 1.0, bounds=(1e-4, 1e4)), Learn("kap", 1.0))
DEVIATIONS = (
    "both parameters start at 1, which is {}; the official code draws them uniformly from (0, 1), and kap from (-1, 0) "
    "where APA gates the channels of an image classifier",
    "lam is kept in [0.0001, 10000]; the official code has the lower bound only",
)

AGLU = activation(
    aglu,
    cls="AGLU",
    reference=aglu_reference,
    summary="AGLU: x times a two-parameter gate, from GoLU over SiLU to ReLU (Alexandridis et al., 2024).",
    formula=r"x\,(1 + \lambda e^{-\kappa x})^{-1/\lambda}",
    limits=(0.0, math.inf),
    paper=Paper("apa"),
    learn=LEARN,
    tags=Tags(smooth=True, delicate=True, always=("smooth",)),
    values={-3.0: -0.142278, -1.0: -0.268941, 0.0: 0.0, 1.0: 0.731059, 3.0: 2.857722},
    flops=8.0,
    identities=(
        Identity("activation/silu", options={"lam": 1.0, "kap": 1.0}, tolerance=1e-14, note="lam = kap = 1"),
        Identity("activation/golu", options={"lam": 1e-4}, tolerance=1e-4, note="lam to 0, kap = 1"),
        Identity(
            "activation/gelu", options={"kap": 1.702}, other_options={"approximate": "sigmoid"}, note="lam = 1, kap = 1.702"
        ),
        Identity("activation/swish", options={"kap": 0.6}, other_options={"beta": 0.6}, note="lam = 1"),
    ),
    equals_at_init=("activation/silu", "activation/swish", "activation/xsilu", "activation/acon-c"),
    claims=(
        Claim("gelu", "comes near GELU, and near ReLU for a steep gate", check=claim_gelu),
        Claim(
            "cifar10",
            "better than ReLU on image classification",
            protocol=Protocol("task/cifar10", "activation/relu", "better"),
        ),
    ),
    deviations=(DEVIATIONS[0].format("SiLU"), DEVIATIONS[1]),
)

APA = activation(
    apa,
    cls="APA",
    reference=apa_reference,
    summary="APA: a two-parameter gate that is a sigmoid, a Gompertz function, or between (Alexandridis et al., 2024).",
    formula=r"(1 + \lambda e^{-\kappa x})^{-1/\lambda}",
    limits=(0.0, 1.0),
    paper=Paper("apa"),
    learn=LEARN,
    tags=Tags(smooth=True, monotone=True, delicate=True, always=("smooth",)),
    values={-3.0: 0.047426, -1.0: 0.268941, 0.0: 0.5, 1.0: 0.731059, 3.0: 0.952574},
    flops=7.0,
    identities=(Identity("activation/sigmoid", options={"lam": 1.0, "kap": 1.0}, tolerance=1e-14, note="lam = kap = 1"),),
    equals_at_init=("activation/sigmoid",),
    claims=(
        Claim("sigmoid", "unifies the sigmoid and the Gompertz function", check=claim_sigmoid),
        Claim("middle", "has a value at 0 that lam decides", check=claim_middle),
    ),
    deviations=(DEVIATIONS[0].format("the logistic sigmoid"), DEVIATIONS[1]),
)

PARTS = (AGLU, APA)
