"""The input, or its ELU, times a ramp clipped to [0, 1]: pieces of parabolas in place of Swish, Mish and ELiSH."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Identity, Paper

INF = math.inf


def hard_swish(x: Tensor) -> Tensor:
    return torch.where(x > -3.0, x * ((x + 3) / 6).clamp(0.0, 1.0), 0.0)  # not -inf * 0


def reference_hard_swish(x: float) -> float:
    if abs(x) >= 3:
        return max(x, 0.0)
    return x * (x + 3) / 6


HARD_SWISH = activation(
    hard_swish,
    cls="HardSwish",
    reference=reference_hard_swish,
    summary="Hard Swish: x times a ramp in place of its sigmoid (Howard et al., 2019).",
    formula=r"x \min(1,\,\max(0,\,x / 6 + 1/2))",
    limits=(0.0, math.inf),
    paper=Paper(
        title="Searching for MobileNetV3",
        authors="Andrew Howard, Mark Sandler, Grace Chu, Liang-Chieh Chen, Bo Chen, Mingxing Tan, Weijun Wang, Yukun Zhu, "
        "Ruoming Pang, Vijay Vasudevan, Quoc V. Le, Hartwig Adam",
        year=2019,
        arxiv="1905.02244",
    ),
    tags=Tags(kinks=(-3.0, 3.0), delicate=True),
    values={-3.0: 0.0, -1.5: -0.375, -1.0: -0.333333, 0.0: 0.0, 1.0: 0.666667, 3.0: 3.0},
    identities=(Identity("activation/relu", domain=(3.0, 10.0)), Identity("activation/relu", domain=(-10.0, -3.0))),
    flops=6.0,
)


def hard_mish(x: Tensor) -> Tensor:
    return 0.5 * x.clamp(min=-2.0) * (x + 2).clamp(0.0, 2.0)


HARD_MISH = activation(
    hard_mish,
    cls="HardMish",
    summary="Hard Mish: a parabola between -2 and 0 in place of Mish's curve",
    formula=r"\frac{x}{2} \min(2,\, \max(0,\, x + 2))",
    reference=lambda x: x if x >= 0 else (0.0 if x <= -2 else x + x * x / 2),
    paper=Paper(title="PyTorch Image Models", authors="Ross Wightman", year=2019, code="huggingface/pytorch-image-models"),
    limits=(0.0, INF),
    flops=5.0,
    tags=Tags(kinks=(-2.0,), delicate=True),
    values={-3.0: 0.0, -1.0: -0.5, 2.0: 2.0},
)


def hard_elish(x: Tensor) -> Tensor:
    return F.elu(x) * ((x + 1) / 2).clamp(0.0, 1.0)


def reference_hard_elish(x: float) -> float:
    ramp = max(0.0, min(1.0, (x + 1) / 2))
    return x * ramp if x >= 0 else math.expm1(x) * ramp


HARD_ELISH = activation(
    hard_elish,
    cls="HardELiSH",
    reference=reference_hard_elish,
    summary="HardELiSH: an ELU times a ramp from 0 at -1 to 1 at 1 (Basirat and Roth, 2018).",
    formula=r"(\max(0,\,x) + \min(0,\,e^x - 1)) \min(1,\,\max(0,\,(x + 1) / 2))",
    limits=(0.0, math.inf),
    paper=Paper(
        title="The Quest for the Golden Activation Function", authors="Mina Basirat, Peter M. Roth", year=2018, arxiv="1808.00783"
    ),
    tags=Tags(kinks=(-1.0, 1.0), delicate=True),
    values={-3.0: 0.0, -0.5: -0.098367, 0.0: 0.0, 0.5: 0.375, 2.0: 2.0},
    identities=(Identity("activation/relu", domain=(1.0, 10.0)), Identity("activation/relu", domain=(-10.0, -1.0))),
    flops=7.0,
)

PARTS = (HARD_SWISH, HARD_MISH, HARD_ELISH)
