"""What the coefficients of a rational unit start as: published, or fitted to a function."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

#: What a rational unit can start as.
TARGETS: dict[str, Callable[[Tensor], Tensor]] = {
    "leaky-relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "relu": torch.relu,
    "gelu": lambda x: x * torch.special.erfc(-x / math.sqrt(2)) / 2,
    "silu": lambda x: x * torch.sigmoid(x),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}
#: Largest error on [-3, 3] of the starting coefficients, (version A, version B); held by the claim `starts` of PAU.
ERRORS: dict[str, dict[str, tuple[float, float]]] = {
    "fitted": {
        "leaky-relu": (3.76e-2, 3.76e-2),  # at the corner
        "relu": (3.79e-2, 3.79e-2),
        "gelu": (2.32e-3, 2.32e-3),
        "silu": (1.57e-6, 1.57e-6),
        "tanh": (3.31e-6, 3.40e-6),
        "sigmoid": (1.33e-7, 1.33e-7),
        "identity": (3.60e-6, 3.60e-6),
    },
    "published": {
        "leaky-relu": (2.98e-2, 3.36e-2),
        "relu": (3.00e-2, 3.39e-2),
        "gelu": (4.14e-3, 9.47e-4),
        "silu": (1.20e-6, 1.21e-6),
        "tanh": (4.06e-5, 3.54e-6),
        "sigmoid": (1.86e-5, 5.83e-9),
        "identity": (3.60e-6, 3.60e-6),
    },
}
#: A coefficient of exactly 0 inside |b x^j| would have gradient 0 and stay there.
LEAST = 1e-8

Coefficients = tuple[tuple[float, ...], tuple[float, ...]]
#: Degrees (5, 4), from the authors' library rational_activations (rationals_config.json); "silu" is called swish there.
PUBLISHED: dict[str, dict[str, Coefficients]] = {
    "A": {
        "leaky-relu": (
            (0.02979277866, 0.6183735265, 2.323309063, 3.051936237, 1.485420326, 0.2510244961),
            (-1.141954836, 4.393159975, 0.871471231, 0.3471966234),
        ),
        "relu": (
            (0.02996380161, 0.6168978367, 2.375347597, 3.065990047, 1.524683188, 0.2528070864),
            (-1.191550122, 4.40804877, 0.9110357114, 0.3488497795),
        ),
        "gelu": (
            (-0.00124235945, 0.5080497063, 0.4158636318, 0.1302271869, 0.0243559001, 0.002902839482),
            (-0.06675015696, 0.1792764622, 0.03746682605, 1.656161085e-10),
        ),
        "silu": (
            (3.054879741e-07, 0.5000007854, 0.2499978342, 0.05326628273, 0.005803034571, 0.0002751961022),
            (-4.111554956e-06, 0.1065289934, -1.26900074e-06, 0.0005502331264),
        ),
        "tanh": (
            (-1.080462256e-08, 1.000300804, -2.587819938e-08, 0.09632129918, 3.477584163e-09, 0.0004255709235),
            (-0.001302718121, 0.4283490174, 1.452430408e-09, 0.01079664811),
        ),
        "sigmoid": (
            (0.4999992535, 0.2500215756, 0.140619245, 0.04942049243, 0.008767148519, 0.0006442412789),
            (2.169450638e-09, 0.281227661, 1.012362071e-05, 0.01753198805),
        ),
        "identity": (
            (0.0, 1.0, 0.0, 0.0, 0.0, 0.0),
            (LEAST,) * 4,
        ),
    },
    "B": {
        "leaky-relu": (
            (0.03355815733, 0.5050059187, 1.653469731, 2.010050155, 0.9319195586, 0.152426464),
            (4.812831861e-05, 3.980247906, 1.583758767e-05, 0.3018338284),
        ),
        "relu": (
            (0.0338971292, 0.499998544, 1.670136361, 1.990102163, 0.9413089613, 0.1509133374),
            (-2.104015209e-05, 3.980247851, -3.166344237e-05, 0.301833823),
        ),
        "gelu": (
            (-0.0004221071457, 0.4999995552, 0.4027053545, 0.07366976895, -0.01295478805, -0.003741400258),
            (4.95853812e-05, 0.1472977408, 1.16458257e-05, -0.007483871515),
        ),
        "silu": (
            (3.259700678e-07, 0.5000000076, 0.2500169541, 0.05327519599, 0.005804580591, 0.0002752960071),
            (3.917294261e-05, 0.1065308384, 3.799151412e-06, 0.0005503052126),
        ),
        "tanh": (
            (2.117294982e-09, 0.9999942495, 6.276332769e-07, 0.1077086451, 2.946556898e-08, 0.0008711243736),
            (6.376908338e-07, 0.4410141805, 2.27476614e-07, 0.01458103991),
        ),
        "sigmoid": (
            (0.5000000003, 0.2500039727, 0.0554447423, 0.006888449238, 0.0004849139167, 1.564601529e-05),
            (7.956371346e-06, 0.1108855095, 7.765478642e-07, 0.0009697684428),
        ),
        "identity": (
            (0.0, 1.0, 0.0, 0.0, 0.0, 0.0),
            (LEAST,) * 4,
        ),
    },
}


def start(options: Mapping[str, Any]) -> Coefficients:
    """What a unit starts as, from its options init, coefficients ("fitted" or "published") and version."""
    if options["coefficients"] == "published":
        return PUBLISHED[options["version"]][options["init"]]
    return fit(options["init"])


@cache
def fit(name: str, p: int = 5, q: int = 4) -> Coefficients:
    """Coefficients a_0..a_p and b_1..b_q of P / Q close to the named function on [-3, 3], in least squares.

    Q = 1 + sum b_j x^j takes even powers with b_j >= 0 only, so that it has no root and every way of making Q positive
    agrees. The problem is made linear by P - f Q = 0, weighted by 1 / Q of the round before (Sanathanan and Koerner).
    """
    x = torch.linspace(-3.0, 3.0, 601, dtype=torch.float64, device="cpu")  # also while a net is built on meta
    f = TARGETS[name](x)
    numerator = torch.stack([x**j for j in range(p + 1)], 1)
    even = range(2, q + 1, 2)
    supports = [[j for i, j in enumerate(even) if bits >> i & 1] for bits in range(2 ** len(even))]
    q_of_x, best = torch.ones_like(x), (math.inf, x.new_zeros(p + 1), x.new_zeros(q))
    for _ in range(8):
        rounds = []
        for support in supports:
            powers = [-f * x**j for j in support]
            system = torch.cat((numerator, *(column[:, None] for column in powers)), 1) / q_of_x[:, None]
            solution = torch.linalg.lstsq(system, f / q_of_x, driver="gelsd").solution
            b = x.new_zeros(q)
            for j, value in zip(support, solution[p + 1 :], strict=True):
                b[j - 1] = value
            if bool((b >= 0).all()):
                residual = float((system @ solution - f / q_of_x).square().sum())
                rounds.append((residual, solution[: p + 1], b))
        _, a, b = min(rounds, key=lambda row: row[0])
        q_of_x = 1 + torch.stack([b[j - 1] * x**j for j in even]).sum(0)
        error = float((numerator @ a / q_of_x - f).square().sum())
        best = min(best, (error, a, b), key=lambda row: row[0])
    return tuple(best[1].tolist()), tuple(max(value, LEAST) for value in best[2].tolist())
