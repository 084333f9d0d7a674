"""Tempered sigmoid: a bounded family around tanh, for training with differential privacy (Papernot et al., 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Identity, Option, Paper


def tempered_sigmoid(x: Tensor, *, s: float, T: float, o: float) -> Tensor:
    # s sigmoid(T x) - o, with sigmoid(u) = (1 + tanh(u / 2)) / 2: at s = 2 o nothing cancels around 0.
    return s / 2 * torch.tanh(T / 2 * x) + (s / 2 - o)


def of_a_sigmoid(x: Tensor, *, s: float, T: float, o: float) -> Tensor:
    """As the paper writes it: compiled, a sigmoid takes less than half a tanh's time."""
    return s * torch.sigmoid(T * x) - o


def reference(x: float, s: float, T: float, o: float) -> float:
    return s / (1 + math.exp(-T * x)) - o if T * x > -700.0 else -o


def claim_tanh() -> bool:
    """(s, T, o) = (2, 2, 1) is tanh."""
    x = torch.linspace(-20.0, 20.0, 801, dtype=torch.float64)
    return bool(torch.allclose(tempered_sigmoid(x, s=2.0, T=2.0, o=1.0), torch.tanh(x), rtol=1e-15, atol=1e-15))


def claim_bounded() -> bool:
    """The range is (-o, s - o) and the slope at most s T / 4, at 0: what a training example can change is bounded."""
    for s, t, o in ((2.0, 2.0, 1.0), (1.0, 1.0, 0.0), (1.6, 3.0, 0.4)):
        x = torch.linspace(-30.0, 30.0, 6001, dtype=torch.float64, requires_grad=True)
        y = tempered_sigmoid(x, s=s, T=t, o=o)
        (slope,) = torch.autograd.grad(y.sum(), x)
        y = y.detach()
        ends = math.isclose(float(y[0]), -o, abs_tol=1e-9) and math.isclose(float(y[-1]), s - o, abs_tol=1e-9)
        steepest = math.isclose(float(slope.max()), s * t / 4, rel_tol=1e-9) and int(slope.argmax()) == 3000
        if not (ends and steepest and bool((y >= -o - 1e-12).all()) and bool((y <= s - o + 1e-12).all())):
            return False
    return True


PART = activation(
    tempered_sigmoid,
    compiled=of_a_sigmoid,
    cls="TemperedSigmoid",
    reference=reference,
    formula=r"s\,\sigma(T x) - o",
    limits=(-1.0, 1.0),
    paper=Paper("tempered-sigmoid"),
    options=(
        Option("s", 2.0, "scale: the length of the range", bounds=(0.0, math.inf), search=(0.5, 4.0, "log")),
        Option("T", 2.0, "inverse temperature: steepness", bounds=(0.0, math.inf), search=(0.5, 4.0, "log")),
        Option("o", 1.0, "offset: the range is (-o, s - o)", search=(0.0, 2.0, "linear")),
    ),
    tags=Tags(smooth=True, monotone=True, odd=True, delicate=True, always=("smooth", "monotone")),
    values={-3.0: -0.995055, -1.0: -0.761594, 0.0: 0.0, 0.5: 0.462117, 2.0: 0.964028},
    flops=4.0,
    identities=(
        Identity("activation/tanh", tolerance=1e-15, note="(s, T, o) = (2, 2, 1)"),
        Identity("activation/sigmoid", options={"s": 1.0, "T": 1.0, "o": 0.0}, note="(s, T, o) = (1, 1, 0)"),
    ),
    equals_at_init=("activation/tanh",),
    claims=(
        Claim("tanh", "contains tanh, at scale 2, inverse temperature 2 and offset 1", check=claim_tanh),
        Claim("bounded", "is bounded, with a bounded slope", check=claim_bounded),
    ),
)
