"""Maxout with two pieces: the larger of each pair of neighbouring channels, half the channels (Goodfellow et al., 2013)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.errors import BadInput
from netwright.core.part import Claim, Example, Paper, Protocol


def maxout(x: Tensor, *, dim: int) -> Tensor:
    if x.shape[dim] % 2:
        raise BadInput(f"activation/maxout: dimension {dim} of the input has size {x.shape[dim]}; expected an even size")
    pieces = x.unflatten(dim, (-1, 2))
    return torch.maximum(*pieces.unbind(dim + 1 if dim >= 0 else dim))


def reference(x: Sequence[float]) -> list[float]:
    return [x[i] if x[i] > x[i + 1] else x[i + 1] for i in range(0, len(x), 2)]


def claim_absolute() -> bool:
    """Of the pair (v, -v) it makes |v|, of (v, 0) ReLU."""
    v = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    absolute = maxout(torch.stack((v, -v), -1).flatten(1), dim=1)
    relu = maxout(torch.stack((v, 0 * v), -1).flatten(1), dim=1)
    return torch.equal(absolute, v.abs()) and torch.equal(relu, v.relu())


def claim_convex() -> bool:
    """At the middle of two inputs it is at most the mean of its outputs."""
    a, b = torch.randn(2, 64, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    chord = (maxout(a, dim=1) + maxout(b, dim=1)) / 2
    return bool((maxout((a + b) / 2, dim=1) <= chord + 1e-12).all())


PART = activation(
    maxout,
    cls="Maxout",
    reference=reference,
    formula=r"\max(x_{2i},\, x_{2i+1})",
    ratio=0.5,
    paper=Paper(
        title="Maxout Networks",
        authors="Ian J. Goodfellow, David Warde-Farley, Mehdi Mirza, Aaron Courville, Yoshua Bengio",
        year=2013,
        arxiv="1302.4389",
    ),
    tags=Tags(shape="channels"),
    examples=(Example([1.0, -2.0, 0.0, 3.0], [1.0, 3.0]),),
    flops=1.0,
    claims=(
        Claim("absolute", "makes the absolute value and ReLU out of two linear pieces", check=claim_absolute),
        Claim("convex", "is convex", check=claim_convex),
        Claim(
            "vision",
            "at least ReLU's accuracy on image classification",
            protocol=Protocol("task/mnist", "activation/relu", "not worse"),
        ),
    ),
    deviations=("two pieces a unit, where the paper takes k; between equal pieces the gradient is shared",),
)
