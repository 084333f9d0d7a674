"""Constrained monotonic networks: from one convex activation a concave and a saturated one (Runje and Shankaranarayana, 2022).

Of a base rho, convex, monotone and 0 at 0: rho itself; -rho(-x), which is concave; and rho(x + 1) - rho(1) left of 0 with
rho(1) - rho(1 - x) right of it, which saturates on both sides. Layers with weights of one sign keep all of it monotone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Example, Identity, Option, Paper

BASES: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "elu": F.elu, "selu": F.selu}
ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805  # SELU's


def concave(x: Tensor, *, base: str) -> Tensor:
    return -BASES[base](-x)


def saturated(x: Tensor, *, base: str) -> Tensor:
    # rho(x + 1) - rho(1) is rho(1) x on [-1, 0]: adding 1 first would lose the digits of a small x.
    line = (SCALE if base == "selu" else 1.0) * x.clamp(-1.0, 1.0)
    return line + BASES[base](-torch.relu(-1 - x)) - BASES[base](-torch.relu(x - 1))


def mixed(x: Tensor, *, dim: int, base: str) -> Tensor:
    channels = x.shape[dim]
    sizes = [round(7 / 16 * channels), round(7 / 16 * channels)]
    up, down, both = x.split([*sizes, channels - sum(sizes)], dim)
    return torch.cat((BASES[base](up), concave(down, base=base), saturated(both, base=base)), dim)


def rho(x: float, base: str) -> float:
    if base == "relu":
        return max(x, 0.0)
    scale, alpha = (SCALE, ALPHA) if base == "selu" else (1.0, 1.0)
    return scale * x if x > 0 else scale * alpha * math.expm1(x)


def concave_reference(x: float, base: str) -> float:
    return -rho(-x, base)


def saturated_reference(x: float, base: str) -> float:
    if abs(x) < 0.5:
        return rho(1.0, base) * x
    return rho(x + 1, base) - rho(1.0, base) if x < 0 else rho(1.0, base) - rho(1 - x, base)


def mixed_reference(x: Sequence[float], base: str) -> list[float]:
    n = round(7 * len(x) / 16)
    makers = [rho] * n + [concave_reference] * n + [saturated_reference] * (len(x) - 2 * n)
    return [make(v, base) for make, v in zip(makers, x, strict=True)]


def net(activation: str, x: Tensor, seed: int) -> Tensor:
    """Three layers of weights of one sign, with the convex activation only or with the mixture, over inputs (n, 1)."""
    g = torch.Generator().manual_seed(seed)
    h = x
    for fan_in, fan_out in ((1, 32), (32, 32), (32, 1)):
        weight = torch.randn(fan_out, fan_in, generator=g, dtype=torch.float64).abs() * 2 / fan_in
        h = h @ weight.T + torch.randn(fan_out, generator=g, dtype=torch.float64)
        if fan_out > 1:
            h = F.elu(h) if activation == "convex" else mixed(h, dim=-1, base="elu")
    return h[:, 0]


def claim_monotone() -> bool:
    """Random nets of positive weights are monotone with the mixture, whatever the weights."""
    x = torch.linspace(-6.0, 6.0, 241, dtype=torch.float64)[:, None]
    return all(bool((net("mixed", x, seed).diff() >= 0).all()) for seed in range(10))


def claim_convex() -> bool:
    """With the convex activation alone such nets are convex; with the mixture most are not."""
    x = torch.linspace(-6.0, 6.0, 241, dtype=torch.float64)[:, None]

    def convex(kind: str, seed: int) -> bool:
        return bool((net(kind, x, seed).diff().diff() >= -1e-12).all())

    return all(convex("convex", seed) for seed in range(10)) and sum(convex("mixed", seed) for seed in range(10)) < 5


def claim_clamp() -> bool:
    """Saturated ReLU is x clamped to [-1, 1]; saturated ELU is odd and tends to 2."""
    x = torch.linspace(-40.0, 40.0, 641, dtype=torch.float64)
    clamp = torch.equal(saturated(x, base="relu"), x.clamp(-1.0, 1.0))
    y = saturated(x, base="elu")
    return clamp and torch.allclose(y, -y.flip(0), atol=1e-13) and abs(float(y[-1]) - 2) < 1e-13


BASE = Option("base", "elu", "the convex activation that all are made of", allowed=("relu", "elu", "selu"))
PAPER = Paper("monotonic")

CONCAVE = activation(
    concave,
    name="monotonic-concave",
    cls="MonotonicConcave",
    reference=concave_reference,
    summary="A convex activation turned around: -rho(-x) (Runje and Shankaranarayana, 2022).",
    formula=r"-\rho(-x)",
    limits=(-math.inf, 1.0),
    paper=PAPER,
    options=(BASE,),
    tags=Tags(smooth=True, monotone=True, delicate=True, always=("monotone",)),
    values={-3.0: -3.0, 0.0: 0.0, 1.0: 0.632121, 3.0: 0.950213},
    flops=4.0,
    identities=(
        Identity("activation/elu", scale_x=-1.0, scale_y=-1.0, note="turned around"),
        Identity("activation/relu", options={"base": "relu"}, scale_x=-1.0, scale_y=-1.0, tolerance=0.0, note="turned around"),
    ),
    claims=(Claim("convex", "nets of its mirror image alone are convex", check=claim_convex),),
)

SATURATED = activation(
    saturated,
    name="monotonic-saturated",
    cls="MonotonicSaturated",
    reference=saturated_reference,
    summary="A convex activation and its concave mirror image joined at 0 (Runje and Shankaranarayana, 2022).",
    formula=r"\rho(x+1)-\rho(1) \;\;(x \leq 0);\;\; \rho(1)-\rho(1-x) \;\;(x > 0)",
    limits=(-2.0, 2.0),
    paper=PAPER,
    options=(BASE,),
    tags=Tags(smooth=True, monotone=True, odd=True, delicate=True, always=("monotone", "odd")),
    values={-3.0: -1.864665, -1.0: -1.0, -0.5: -0.5, 0.0: 0.0, 1.0: 1.0, 3.0: 1.864665},
    flops=8.0,
    identities=(Identity("activation/hardtanh", options={"base": "relu"}, tolerance=0.0, note="base='relu'"),),
    claims=(Claim("clamp", "of ReLU it is a clamp, of ELU a smooth one", check=claim_clamp),),
)

MIXED = activation(
    mixed,
    name="monotonic",
    cls="Monotonic",
    reference=mixed_reference,
    summary="A convex, a concave and a saturated activation on 7, 7 and 2 of 16 channels (Runje and Shankaranarayana, 2022).",
    formula=r"[\rho(x_1),\; -\rho(-x_2),\; \tilde{\rho}(x_3)]",
    paper=PAPER,
    options=(BASE,),
    tags=Tags(shape="rowwise", delicate=True),
    examples=(
        Example([-1.0, 2.0, 2.0, -3.0, 0.5], [-0.632121, 2.0, 0.864665, -3.0, 0.5]),
        Example([-1.0, 2.0, 2.0, -3.0, 5.0], [0.0, 2.0, 0.0, -3.0, 1.0], options={"base": "relu"}),
    ),
    flops=5.0,
    claims=(
        Claim("monotone", "makes nets of positive weights monotone", check=claim_monotone),
        Claim("convex", "such nets need not be convex, as those of a convex activation are", check=claim_convex),
    ),
    deviations=(
        "the part is the activation; the sign constraint on the weights belongs to the layer before it",
        "the shares 7, 7 and 2 are the defaults of the official code",
    ),
)

PARTS = (CONCAVE, SATURATED, MIXED)
