"""SAFS: p1 f(p2 x), with f one of thirteen candidates searched for sparse nets (Loni et al., 2023).

The search itself is two ordinary choices: f, place by place, with p1 = p2 = 1 fixed (learnable=False); then p1 and p2.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Identity, Learn, Option, Paper

FAR = 80.0  # e^80 fits float32, with room for p1 and a sum


def symlog(u: Tensor) -> Tensor:
    # Clamped before the logarithm: each branch is finite where the other is taken, and the slope at 0 is 1.
    return torch.where(u >= 0, torch.log1p(u.clamp(min=0)), -torch.log1p((-u).clamp(min=0)))


def symexp(u: Tensor) -> Tensor:
    size = torch.where(u >= 0, u.clamp(min=0), (-u).clamp(min=0))
    grown = torch.expm1(size.clamp(max=FAR)) + math.exp(FAR) * (size - FAR).clamp(min=0)
    return torch.where(u >= 0, grown, -grown)


def srs(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """x / (x / a + exp(-x / b)), numerator and denominator times exp(x / b) left of 0."""
    e = torch.exp(-(x / b).abs())
    return torch.where(x >= 0, x, x * e) / torch.where(x >= 0, x / a + e, x * e / a + 1)


#: f of p1 f(p2 x).
SCALED: dict[str, Callable[[Tensor], Tensor]] = {
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "swish": F.silu,
    "tanhsoft-1": lambda u: torch.tanh(u) * F.softplus(u),
    "gelu": lambda u: u * torch.special.erfc(-u / math.sqrt(2)) / 2,
    "elu": F.elu,
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "logsigmoid": F.logsigmoid,
    "symlog": symlog,
    "symexp": symexp,
}
#: f(x, p1, p2), where the two numbers have a place of their own.
SHAPED: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "acon": lambda x, p1, p2: (p1 - p2) * x * torch.sigmoid((p1 - p2) * x) + p2 * x,
    "srs": srs,
}


def safs(x: Tensor, p1: Tensor, p2: Tensor, *, f: str) -> Tensor:
    return SHAPED[f](x, p1, p2) if f in SHAPED else p1 * SCALED[f](p2 * x)


def reference(x: float, p1: float, p2: float, f: str) -> float:
    u = p2 * x
    if f == "acon":
        d = (p1 - p2) * x
        return d / (1 + math.exp(-d)) + p2 * x
    if f == "srs":
        return x / (x / p1 + math.exp(-x / p2))
    softplus = max(u, 0.0) + math.log1p(math.exp(-abs(u)))
    sigmoid = 0.5 * (1 + math.tanh(u / 2))
    candidates: dict[str, Callable[[], float]] = {
        "relu6": lambda: min(max(u, 0.0), 6.0),
        "hardswish": lambda: u * min(max(u + 3, 0.0), 6.0) / 6,
        "swish": lambda: u * sigmoid,
        "tanhsoft-1": lambda: math.tanh(u) * softplus,
        "gelu": lambda: u * math.erfc(-u / math.sqrt(2)) / 2,
        "elu": lambda: u if u > 0 else math.expm1(u),
        "tanh": lambda: math.tanh(u),
        "softplus": lambda: softplus,
        "logsigmoid": lambda: u - softplus,
        "symlog": lambda: math.copysign(math.log1p(abs(u)), u),
        "symexp": lambda: math.copysign(math.expm1(min(abs(u), FAR)) + math.exp(FAR) * max(abs(u) - FAR, 0.0), u),
    }
    return p1 * candidates[f]()


def claim_inverse() -> bool:
    """symlog and symexp undo each other."""
    x = torch.linspace(-20.0, 20.0, 401, dtype=torch.float64)
    return bool(torch.allclose(symlog(symexp(x)), x)) and bool(torch.allclose(symexp(symlog(x)), x))


def claim_trained_scales() -> bool:
    """At the start p1 and p2 leave f as it is; their gradients are f(x) and x f'(x)."""
    x = torch.linspace(-4.0, 4.0, 81, dtype=torch.float64)
    for f, plain in SCALED.items():
        one = torch.ones_like(x).requires_grad_()
        two = torch.ones_like(x).requires_grad_()
        v = x.clone().requires_grad_()
        y = safs(v, one, two, f=f)
        dx, d1, d2 = torch.autograd.grad(y.sum(), (v, one, two))
        if not (torch.equal(y, plain(x)) and torch.allclose(d1, y) and torch.allclose(d2, x * dx)):
            return False
    return True


PART = activation(
    safs,
    cls="SAFS",
    reference=reference,
    formula=r"p_1 f(p_2 x)",
    limits=(-math.inf, math.inf),
    paper=Paper("safs"),
    learn=(Learn("p1", 1.0), Learn("p2", 1.0)),
    options=(Option("f", "symlog", "the candidate", allowed=(*SCALED, *SHAPED)),),
    tags=Tags(smooth=True, monotone=True, odd=True, delicate=True),
    values={-1.0: -math.log(2), 0.0: 0.0, math.e - 1: 1.0},
    flops=5.0,
    identities=(
        Identity("activation/silu", options={"f": "swish"}),
        Identity("activation/gelu", options={"f": "gelu"}),
        Identity("activation/swish", options={"f": "swish", "p2": 1.5, "p1": 1 / 1.5}, other_options={"beta": 1.5}),
    ),
    claims=(
        Claim("inverse", "has candidates that compress and expand: symlog and symexp are inverse", check=claim_inverse),
        Claim("scales", "starts as the candidate itself, for all candidates that are scaled", check=claim_trained_scales),
    ),
    deviations=(
        "the part is the parametrised activation; the search (late acceptance hill climbing, then tuning) is left to a study",
        "swish and TanhSoft-1 are p1 f(p2 x) like the others; the official code writes p1 x sigmoid(p2 x) and "
        "tanh(p1 x) softplus(x)",
        "acon keeps its third number at 1 and starts, as coded with p1 = p2 = 1, as the identity",
        "symexp goes on as a straight line beyond |p2 x| = 80, where float32 would overflow",
        "symlog by default, where the official code asks for a choice",
    ),
)
