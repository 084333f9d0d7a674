"""SAU: leaky ReLU convolved with a normal density, a smooth rectifier in closed form (Biswas et al., 2021).

With Phi and phi the distribution and the density of N(0, 1): f(x) = a x + (1 - a) (x Phi(b x) + phi(b x) / b), where the
second term is ReLU convolved with the density of N(0, 1 / b^2).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Example, Identity, Learn, Paper, Protocol


def within(x: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """b x, no less than -40 where Phi is 0 in every dtype (not -inf * 0), and the same no more than 40."""
    u = (b * x).clamp(min=-40.0)
    return u, u.clamp(max=40.0)


def sau(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    u, v = within(x, b)
    relu = u * torch.erfc(-v / math.sqrt(2)) / 2 + torch.exp(-0.5 * v * v) / math.sqrt(2 * math.pi)
    return a * x + (1 - a) * relu / b


def of_erf(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """With erf in place of erfc: the compiler has a vector form of it. Less exact left of -3, where a x is all but all.

    Beyond 9 the normal density is below 1e-17 and its distribution 0 or 1; products of such small numbers become denormal,
    which costs processors a hundred cycles each.
    """
    u = (b * x).clamp(min=-9.0)
    v = u.clamp(max=9.0)
    relu = u * (1 + torch.erf(v / math.sqrt(2))) / 2 + torch.exp(-0.5 * v * v) / math.sqrt(2 * math.pi)
    return a * x + (1 - a) * relu / b


def reference(x: float, a: float, b: float) -> float:
    if math.isinf(x):
        return x if x > 0 else a * x
    gate = (1 + a) / 2 + (1 - a) / 2 * math.erf(b * x / math.sqrt(2))
    return x * gate + (1 - a) / (b * math.sqrt(2 * math.pi)) * math.exp(-((b * x) ** 2) / 2)


def claim_convolution() -> bool:
    """The integral of leaky ReLU(x - s) times the density of s ~ N(0, 1 / b^2), by the trapezoid rule, is f(x)."""
    x = torch.linspace(-3.0, 3.0, 25, dtype=torch.float64)
    a, b = 0.2, 1.6
    s = torch.linspace(-10.0 / b, 10.0 / b, 8001, dtype=torch.float64)
    density = torch.exp(-((b * s) ** 2) / 2) * b / math.sqrt(2 * math.pi)
    shifted = x[:, None] - s
    mean = torch.trapezoid(torch.where(shifted > 0, shifted, a * shifted) * density, s)
    return bool(torch.allclose(mean, sau(x, *(torch.tensor(v, dtype=torch.float64) for v in (a, b))), atol=1e-6))


def claim_gelu() -> bool:
    """At a = 0, b = 1 it is GELU plus the density of N(0, 1)."""
    x = torch.linspace(-6.0, 6.0, 241, dtype=torch.float64)
    gelu = x * torch.erfc(-x / math.sqrt(2)) / 2
    density = torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return bool(torch.allclose(sau(x, torch.zeros_like(x), torch.ones_like(x)), gelu + density, atol=1e-14))


def claim_slope() -> bool:
    """The slope lies between a and 1."""
    x = torch.linspace(-9.0, 9.0, 721, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(sau(x, *(torch.tensor(v, dtype=torch.float64) for v in (0.15, 2.0))).sum(), x)
    return bool((slope > 0.15 - 1e-12).all() and (slope < 1 + 1e-12).all())


PART = activation(
    sau,
    compiled=of_erf,
    cls="SAU",
    reference=reference,
    formula=r"x \left(\frac{1+a}{2} + \frac{1-a}{2}\,\mathrm{erf}\frac{b x}{\sqrt{2}}\right)"
    r" + \frac{1-a}{b\sqrt{2\pi}}\, e^{-b^2 x^2 / 2}",
    limits=(-math.inf, math.inf),
    paper=Paper("sau"),
    learn=(Learn("a", 0.15), Learn("b", 5.0, bounds=(1e-3, 3e4))),
    tags=Tags(smooth=True, monotone=True, delicate=True, always=("smooth",)),
    values={-2.0: -0.3, -0.5: -0.074659, -0.25: -0.0289, 0.0: 0.06782, 0.25: 0.2586, 0.5: 0.500341, 2.0: 2.0},
    examples=(
        Example(
            [-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0],
            [-0.599994, -0.449675, -0.292783, -0.079182, 0.339101, 1.070818, 2.007217, 3.000325],
            options={"b": 1.0},
        ),
    ),
    flops=10.0,
    identities=(
        Identity("activation/relu", options={"a": 0.0, "b": 1e4}, tolerance=5e-5, note="b to infinity, a = 0"),
        Identity(
            "activation/prelu", options={"a": 0.25, "b": 1e4}, other_options={"a": 0.25}, tolerance=5e-5, note="b to infinity"
        ),
    ),
    claims=(
        Claim("convolution", "is leaky ReLU convolved with an approximate identity", check=claim_convolution),
        Claim("gelu", "is GELU plus a normal density where nothing leaks", check=claim_gelu),
        Claim("slope", "has a slope between a and 1", check=claim_slope),
        Claim(
            "cifar10",
            "better than ReLU on CIFAR-10",
            protocol=Protocol("task/cifar10", "activation/relu", "better"),
        ),
    ),
    deviations=(
        "the paper's initial values could not be established: a starts at 0.15, as in a public implementation by others, "
        "whose b of 20000 makes it leaky ReLU but for 2e-5; b starts at 5 here",
        "b is kept between 0.001 and 30000",
    ),
)
