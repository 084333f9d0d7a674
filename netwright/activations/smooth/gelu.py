"""GELU: x times the probability that a standard normal variable is below x (Hendrycks and Gimpel, 2016)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Example, Identity, Option, Paper, Protocol


def gelu(x: Tensor, *, approximate: str) -> Tensor:
    if approximate == "sigmoid":
        return F.silu(1.702 * x) / 1.702
    return F.gelu(x, approximate=approximate)


def reference(x: float, approximate: str) -> float:
    if math.isinf(x):
        return max(x, 0.0)
    if approximate == "tanh":
        return x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    if approximate == "sigmoid":
        return x / (1 + math.exp(-1.702 * x)) if x > -400.0 else 0.0
    return x * math.erfc(-x / math.sqrt(2.0)) / 2


def claim_symmetry() -> bool:
    """f(x) - f(-x) = x, since the gate and its mirror image add up to 1."""
    x = torch.linspace(-8.0, 8.0, 257, dtype=torch.float64)
    return bool(torch.allclose(gelu(x, approximate="none") - gelu(-x, approximate="none"), x, atol=1e-14))


def claim_approximation() -> bool:
    """On [-6, 6] the tanh form is within 4.74e-4 of the exact one, the sigmoid form within 2.04e-2."""
    x = torch.linspace(-6.0, 6.0, 4801, dtype=torch.float64)
    tanh, sigmoid = (float((gelu(x, approximate="none") - gelu(x, approximate=form)).abs().max()) for form in ("tanh", "sigmoid"))
    return 4.7e-4 < tanh < 4.74e-4 and 2.02e-2 < sigmoid < 2.04e-2


def claim_relu() -> bool:
    """x Phi(x / s), GELU squeezed by s, tends to ReLU: the largest distance is s times GELU's, 0.17."""
    x = torch.linspace(-3.0, 3.0, 6001, dtype=torch.float64)
    far = [float((s * gelu(x / s, approximate="none") - x.relu()).abs().max()) for s in (1.0, 0.1, 0.01)]
    return abs(far[0] - 0.169971) < 1e-5 and abs(far[1] - 0.0169971) < 1e-5 and far[2] < 0.0018


PART = activation(
    gelu,
    cls="GELU",
    native=True,
    reference=reference,
    formula=r"x\,\Phi(x)",
    limits=(0.0, math.inf),
    paper=Paper("gelu"),
    options=(
        Option(
            "approximate",
            "none",
            "the exact form, the approximation by a tanh, or that by a sigmoid, x sigma(1.702 x)",
            allowed=("none", "tanh", "sigmoid"),
        ),
    ),
    tags=Tags(
        smooth=True,
        reasons={
            "numbers": "torch's kernel: 1 + erf(x / sqrt 2) cancels left of -3, leaving an absolute error of 1e-7",
            "infinities": "torch's kernel: -inf times a gate of 0 is NaN",
        },
    ),
    values={-3.0: -0.004050, -1.0: -0.158655, -0.5: -0.154269, 0.0: 0.0, 1.0: 0.841345, 2.0: 1.954500},
    examples=(
        Example([-3.0, -1.0, 1.0, 3.0], [-0.003637, -0.158808, 0.841192, 2.996363], options={"approximate": "tanh"}),
        Example([-3.0, -1.0, 1.0, 3.0], [-0.018071, -0.154204, 0.845796, 2.981929], options={"approximate": "sigmoid"}),
    ),
    flops=4.0,
    identities=(
        Identity(
            "activation/swish", options={"approximate": "sigmoid"}, other_options={"beta": 1.702}, note="approximate='sigmoid'"
        ),
    ),
    claims=(
        Claim("symmetry", "f(x) - f(-x) = x", check=claim_symmetry),
        Claim("approximation", "the tanh form is close to the exact one, the sigmoid form less so", check=claim_approximation),
        Claim("relu", "tends to ReLU as the normal variable's spread tends to 0", check=claim_relu),
        Claim(
            "mnist",
            "beats ReLU on MNIST",
            protocol=Protocol("task/mnist", "activation/relu", "better"),
        ),
        Claim(
            "cifar10",
            "beats ReLU on CIFAR-10",
            protocol=Protocol("task/cifar10", "activation/relu", "better"),
        ),
    ),
)
