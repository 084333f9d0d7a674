"""The affine map: a weight for every pair of input and output, and a bias; torch's nn.Linear, as the baseline."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.part import Claim, Paper
from netwright.layers._kind import Layer, layer, product, uniform_
from netwright.tensor.modules import drawn


@final
class Affine(Layer):
    """y = W x + b, drawn as nn.Linear draws: U(-1 / sqrt(d_in), 1 / sqrt(d_in))."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_out, d_in))
        self.bias = nn.Parameter(torch.empty(d_out))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        for p in (self.weight, self.bias):
            uniform_(p, 1 / math.sqrt(self.weight.shape[1]), generator)

    def compute(self, x_BI: Tensor) -> Tensor:
        return product(x_BI, self.weight, self.bias)


def reference(layer: Any, x_BI: Tensor) -> Tensor:
    rows, outs = range(len(x_BI)), range(len(layer.bias))
    sums = [[sum(w * v for w, v in zip(layer.weight[o], x_BI[b], strict=True)) for o in outs] for b in rows]
    return torch.tensor(sums, dtype=x_BI.dtype) + layer.bias


def claim_torch() -> bool:
    """With the same weights it is nn.Linear, to the last bit."""
    ours, x = drawn(Affine, 5, 3), torch.linspace(-1, 1, 20, dtype=torch.float64).view(4, 5)
    return torch.equal(ours(x), nn.functional.linear(x, ours.weight, ours.bias))


PART = layer(
    Affine,
    reference=reference,
    formula="W x + b",
    paper=Paper(
        title="The perceptron: a probabilistic model for information storage and organization in the brain",
        authors="Rosenblatt, F.",
        year=1958,
        venue="Psychological Review 65",
    ),
    parameters="(d_in + 1) * d_out",
    products="2 * d_in * d_out",
    claims=(Claim("torch", "is nn.Linear", check=claim_torch),),
)
