"""The logistic sigmoid and softplus of plain floats, for second writings."""

from __future__ import annotations

import math


def reference_sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700.0 else math.exp(x)


def reference_softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
