"""Bilinear layer: a third-order tensor applied to its input twice, which expands along paths of a net (Sharkey, 2023).

y = (W1 x) * (W2 x), whose output o is sum_jk B_ojk x_j x_k with B_ojk = W1_oj W2_ok: linear operations and a tensor of
third order. With biases x stands for [x, 1]. Where x is a sum, as the residual stream of a transformer is of what its heads
and layers write to it, y is the sum over all pairs of terms of (W1 x_s) * (W2 x_t): a path for every pair.

Shape suffixes: B rows, I inputs, O outputs, D inputs and the 1 where there is one, S and T terms of a sum.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.layers._kind import Layer, Tags, layer, product, uniform_
from netwright.tensor.modules import drawn


@final
class BilinearLayer(Layer):
    """y = (W1 [x, 1]) * (W2 [x, 1]); (..., d_in) -> (..., d_out).

    weight (2, O, I) holds W1 and W2 but for their last columns, which are bias (2, O). bias=False: no 1 is appended.
    """

    bias: nn.Parameter | None

    def __init__(self, d_in: int, d_out: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2, d_out, d_in))
        self.register_parameter("bias", nn.Parameter(torch.empty(2, d_out)) if bias else None)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """As nn.Linear draws: U(-1 / sqrt(fan in), 1 / sqrt(fan in))."""
        for p in self.parameters():
            uniform_(p, 1 / math.sqrt(self.weight.shape[2]), generator)

    def compute(self, x_BI: Tensor) -> Tensor:
        shift = None if self.bias is None else self.bias.flatten()
        one_BO, two_BO = product(x_BI, self.weight.flatten(0, 1), shift).chunk(2, -1)
        return one_BO * two_BO

    @torch.no_grad()
    def tensor(self) -> Tensor:
        """B (O, D, D) in float64 with B[o, j, k] = W1[o, j] W2[o, k]; D is d_in, and 1 more where there is a bias."""
        w = self.weight if self.bias is None else torch.cat((self.weight, self.bias[..., None]), 2)
        one_OD, two_OD = w.double()
        return one_OD[:, :, None] * two_OD[:, None]

    def paths(self, terms: Tensor) -> Tensor:
        """(S, S, ..., d_out) for terms (S, ..., d_in) of a sum x: entry [s, t] is (W1 x_s) * (W2 x_t); all together give y.

        With a bias S is one more than there are terms: the last one is the 1 that is appended to x.
        """
        if terms.dim() < 2 or terms.shape[-1] != self.weight.shape[2] or not terms.is_floating_point():
            given, wanted = f"{tuple(terms.shape)} in {terms.dtype}", f"(terms, ..., {self.weight.shape[2]}), floating"
            raise BadInput(f"{self.part.id}: terms of shape {given}; expected {wanted}")
        one, two = (product(terms, w) for w in self.weight)
        if self.bias is not None:
            b1, b2 = (b.expand(1, *one.shape[1:]) for b in self.bias.to(one.dtype))
            one, two = torch.cat((one, b1)), torch.cat((two, b2))
        return one[:, None] * two[None]


def reference(layer: Any, x_BI: Tensor) -> Tensor:
    """y_o = sum_jk W1_oj W2_ok x_j x_k over x with a 1 where there is a bias."""
    columns = layer.weight if layer.bias is None else torch.cat((layer.weight, layer.bias[..., None]), 2)
    first, second = columns.tolist()
    y = torch.zeros(len(x_BI), len(first), dtype=torch.float64)
    for b, row in enumerate(x_BI.tolist()):
        x = row if layer.bias is None else [*row, 1.0]
        for o, (w, v) in enumerate(zip(first, second, strict=True)):
            y[b, o] = sum(p * q * s * t for p, s in zip(w, x, strict=True) for q, t in zip(v, x, strict=True))
    return y


def built(bias: bool) -> Any:
    return drawn(BilinearLayer, 6, 4, bias=bias).requires_grad_(False)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def claim_tensor() -> bool:
    """Its tensor, applied to the input on two sides, is the layer, with a bias and without."""
    x = normal(10, 6)
    for bias in (False, True):
        wide = torch.cat((x, torch.ones(10, 1, dtype=x.dtype)), 1) if bias else x
        if not torch.allclose(torch.einsum("ojk,bj,bk->bo", built(bias).tensor(), wide, wide), built(bias)(x), atol=1e-13):
            return False
    return True


def claim_paths() -> bool:
    """The paths of a sum give the layer of the sum, and a path holds no term but its two."""
    terms = normal(3, 5, 6)
    changed = terms.clone()
    changed[2] += 1
    for bias in (False, True):
        layer = built(bias)
        paths, others = layer.paths(terms), layer.paths(changed)
        if paths.shape[:2] != (3 + bias, 3 + bias) or not torch.allclose(paths.sum((0, 1)), layer(terms.sum(0)), atol=1e-12):
            return False
        kept = torch.ones(3 + bias, dtype=torch.bool)
        kept[2] = False
        if not torch.equal(paths[kept][:, kept], others[kept][:, kept]) or torch.equal(paths[2], others[2]):
            return False
    return True


def claim_biases() -> bool:
    """With biases it is the layer without them, plus a linear map, plus a constant."""
    layer, x = built(True), normal(10, 6)
    one, two = (x @ w.T for w in layer.weight)
    b1, b2 = layer.bias
    return torch.allclose(layer(x), one * two + (b1 * two + b2 * one) + b1 * b2, atol=1e-13)


PART = layer(
    BilinearLayer,
    name="bilinear-layer",
    reference=reference,
    formula=r"(W_1 x) \odot (W_2 x)",
    paper=Paper("bilinear-note"),
    tags=Tags(nonlinear=True),
    options=(Option("bias", True, "append a 1 to the inputs", allowed=(False, True)),),
    parameters="2 * (d_in + bias) * d_out",
    products="4 * d_in * d_out",
    elementwise="d_out",
    claims=(
        Claim("tensor", "is a third-order tensor applied to its input twice", where="abstract", check=claim_tensor),
        Claim("paths", "expands into paths where its input is a sum", check=claim_paths),
        Claim("biases", "biases add a linear map and a constant", check=claim_biases),
        Claim(
            "better",
            "performs better than layers with elementwise activation functions",
            where="abstract",
            protocol=Protocol(task="digits", against="activation/relu", expect="better", seeds=6, trials=4),
        ),
    ),
    deviations=(
        "the note was read in accounts by others; it is about transformers, where the paths run through attention heads: here"
        " the terms are given",
        "the forward is that of bilinear-mlp with hidden=0; what this part adds is the tensor and the paths",
    ),
)
