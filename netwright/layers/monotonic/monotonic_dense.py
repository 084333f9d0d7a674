"""Monotonic dense layer: weights of one sign, then a convex, a concave and a saturated activation (Runje et al., 2022).

y = act(W' x + b): W' is |W| for inputs in which the layer rises, -|W| for those in which it falls, and W for free ones. Of
the outputs 7, 7 and 2 of 16 have rho, -rho(-x) and the saturated one of the two: with weights of one sign a net of rho
alone is convex, whatever it learns, and a net of all three need not be.

Shape suffixes: B rows, I inputs, O outputs.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.part import Claim, Option, Paper
from netwright.layers._kind import Layer, Tags, layer, product, uniform_
from netwright.layers.monotonic._signs import (
    BASE,
    KINDS,
    SIGNS,
    USES,
    activation,
    common,
    dense,
    is_monotone,
    normal,
    signed,
    signs_of,
)
from netwright.tensor.modules import drawn


@final
class MonotonicDense(Layer):
    """y = act(W' x + b), W'_oi = s |W_oi| for an input of sign s = 1 or -1, W_oi for sign 0; (..., d_in) -> (..., d_out).

    signs: one for all inputs, or a tuple with one for each. act: "mixed", "convex", "concave", or "linear", for a last layer.
    base: rho. In the layers after it all signs are 1 if the net is to be monotonic. Weights of one sign add up what inputs
    have in common: as drawn, outputs spread about three times further a layer at width 64.
    Raises BadInput where signs are not 1, -1 or 0, or neither one nor d_in of them.
    """

    sign: Tensor  # (I,), not saved: it follows from the options

    def __init__(
        self, d_in: int, d_out: int, *, signs: int | tuple[int, ...] = (1,), base: str = "elu", act: str = "mixed"
    ) -> None:
        super().__init__()
        self.signs = signs_of(self.part.id, signs, d_in)
        self.common = common(self.signs)
        self.weight = nn.Parameter(torch.empty(d_out, d_in))
        self.bias = nn.Parameter(torch.empty(d_out))
        self.register_buffer("sign", torch.empty(d_in), persistent=False)
        self.act = activation(act, base)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """W from Glorot's uniform distribution, no bias, as Keras draws a dense layer."""
        uniform_(self.weight, math.sqrt(6 / sum(self.weight.shape)), generator)
        self.bias.zero_()
        self.sign.copy_(torch.tensor(self.signs))

    def compute(self, x_BI: Tensor) -> Tensor:
        return self.act(product(x_BI, signed(self.weight, self.sign, self.common), self.bias))


def reference(layer: Any, x_BI: Tensor) -> Tensor:
    options = layer.options
    signs = (options["signs"],) if isinstance(options["signs"], int) else options["signs"]
    signs = signs if len(signs) == x_BI.shape[1] else tuple(signs) * x_BI.shape[1]
    rows = [dense(x, layer.weight, layer.bias, signs, options["act"], options["base"]) for x in x_BI.tolist()]
    return torch.tensor(rows, dtype=torch.float64).view(len(x_BI), len(layer.bias))


SOME = (1, -1, 0, 1, 0)


def claim_monotone() -> bool:
    """Layers of any weights and biases rise in inputs of sign 1 and fall in those of sign -1, with every base and activation."""
    for seed, base in enumerate(("relu", "elu", "selu")):
        for act in (*KINDS, "linear"):
            built = drawn(MonotonicDense, 5, 16, signs=SOME, base=base, act=act, seed=seed)
            with torch.no_grad():
                built.bias.copy_(3 * normal(16, seed=seed))
            if not is_monotone(built, SOME, seed):
                return False
    return True


def claim_free() -> bool:
    """In an input of sign 0 some outputs rise and some fall; without signs and activation it is the affine map."""
    built, x = drawn(MonotonicDense, 5, 16, signs=SOME), normal(20, 5).requires_grad_()
    slopes = torch.stack([torch.autograd.grad(built(x)[:, o].sum(), x)[0] for o in range(16)])
    both = all(bool((slopes[..., i] > 0).any()) and bool((slopes[..., i] < 0).any()) for i in (2, 4))
    plain = drawn(MonotonicDense, 5, 16, signs=0, act="linear")
    return both and torch.equal(plain(x), nn.functional.linear(x, plain.weight, plain.bias))


@torch.no_grad()
def claim_magnitude() -> bool:
    """Of a weight of a marked input only the magnitude counts."""
    built, x = drawn(MonotonicDense, 5, 16, signs=SOME), normal(20, 5)
    before = built(x)
    built.weight *= torch.tensor([-1.0, -1.0, 1.0, -1.0, 1.0])
    same = torch.equal(built(x), before)
    built.weight[:, 2] *= -1
    return same and not torch.equal(built(x), before)


PART = layer(
    MonotonicDense,
    reference=reference,
    formula=r"\sigma(W' x + b), \quad W'_{oi} = s_i |W_{oi}| \;(s_i \neq 0),\; W_{oi} \;(s_i = 0)",
    paper=Paper("monotonic"),
    tags=Tags(nonlinear=True, readout=False),
    options=(
        SIGNS,
        BASE,
        Option("act", "mixed", "which of the activations the outputs have", allowed=(*KINDS, "linear")),
    ),
    settings=({"signs": (1, -1, 0, 1, 0, -1)}, {"signs": -1, "d_out": 16}, {"signs": 0, "d_out": 16}),
    parameters="(d_in + 1) * d_out",
    products="2 * d_in * d_out",
    uses=USES,
    claims=(
        Claim("monotone", "is monotone in every marked input, whatever the weights", check=claim_monotone),
        Claim("free", "is not in the others, and without marks is the affine map", check=claim_free),
        Claim("magnitude", "signs of weights of marked inputs don't matter", check=claim_magnitude),
    ),
    deviations=("the shares of the activations are the code's defaults, 7, 7 and 2 of 16, which its text gives as equal",),
)
