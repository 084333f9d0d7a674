"""Layers of functions on edges: y_o = sum_i phi_oi(x_i), every phi_oi a sum of the same M basis functions.

The bases are computed once an input, not once an edge, and the sum over inputs and bases is one matrix product of width
M d_in; a base function of x itself is a second one. They are laid out (B, M, I), so that pointwise work runs along the inputs.

Shape suffixes: B rows, I inputs, O outputs, M bases.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.part import Option
from netwright.layers._kind import Layer
from netwright.tensor.fused import fuse
from netwright.tensor.precision import autocast_dtype

#: Functions of x itself that an edge can have beside its basis functions.
BASES: dict[str, Callable[[Tensor], Tensor]] = {"silu": F.silu, "identity": lambda x: x}
#: Options of every layer of this family.
FUSED = (
    Option("fused", False, "compile forward and backward, and keep nothing between them but the input and the weights"),
    Option("products", "", 'dtype of the matrix products, "bfloat16", or "" for the weights\' own'),
)
BASE = Option("base", "silu", "function of x with a weight an edge, beside the bases", allowed=("silu", "identity", "none"))


def edges(
    x_BI: Tensor,
    coef_OMI: Tensor,
    *rest: Tensor,
    basis: Callable[..., Tensor],
    base: str,
    bias: bool,
    work: str,
    out: str,
    constants: tuple[tuple[str, Any], ...],
) -> Tensor:
    """sum_im coef_omi B_m(x_i) + sum_i base_oi b(x_i) + bias_o; rest: base_OI, bias_O, and what the basis reads.

    work, out: dtypes of the products and of the result.
    """
    tensors = list(rest)
    base_OI = tensors.pop(0) if base != "none" else None
    bias_O = tensors.pop(0) if bias else None
    dtype, result = getattr(torch, work), getattr(torch, out)

    def times(features: Tensor, weight: Tensor) -> Tensor:  # cast as they lie: a compiler can't vectorise what was flattened
        return F.linear(features.to(dtype).flatten(1), weight.to(dtype).flatten(1)).to(result)

    y_BO = times(basis(x_BI, *tensors, **dict(constants)), coef_OMI)
    if base_OI is not None:  # a product of its own: joining the weights would copy them in every call
        y_BO = y_BO + times(BASES[base](x_BI), base_OI)
    return y_BO if bias_O is None else y_BO + bias_O.to(result)


@cache
def _fused(label: str) -> Callable[..., Tensor]:
    return fuse(edges, label)


class BasisLayer(Layer):
    """Base of the layers whose edges are sums of basis functions.

    basis(x_BI, *tensors(), **constants) -> (B, M, I): a pure function. coef (O, M, I); base_weight (O, I), where there is
    a base function; bias (O,), where there is one.
    """

    basis: ClassVar[Callable[..., Tensor]]
    base_weight: nn.Parameter | None
    bias: nn.Parameter | None

    def _setup(self, d_in: int, d_out: int, bases: int, base: str, bias: bool, products: str) -> None:
        if products not in ("", "bfloat16"):
            raise BadInput(f"{self.part.id}: products={products!r}; allowed: '', 'bfloat16'")
        self.coef = nn.Parameter(torch.empty(d_out, bases, d_in))
        self.register_parameter("base_weight", None if base == "none" else nn.Parameter(torch.empty(d_out, d_in)))
        self.register_parameter("bias", nn.Parameter(torch.empty(d_out)) if bias else None)

    @property
    def separate(self) -> bool:
        """Whether the function on an edge sees its own input alone."""
        return True

    @property
    def constants(self) -> dict[str, Any]:
        """Keywords of the basis: plain values that can be hashed."""
        return {}

    def tensors(self) -> tuple[Tensor, ...]:
        """What the basis reads beside x."""
        return ()

    def weights(self) -> tuple[Tensor, Tensor | None]:
        """The coefficients (O, M, I) and base weights (O, I) in use."""
        return self.coef, self.base_weight

    @abstractmethod
    def reset_parameters(self, generator: torch.Generator | None = None) -> None: ...

    @property
    def quantities(self) -> dict[str, float]:
        own = {"bases": self.coef.shape[1], "base": int(self.base_weight is not None), "bias": int(self.bias is not None)}
        return {**super().quantities, **own}

    def features(self, x_BI: Tensor) -> Tensor:
        """The values of the basis functions (B, M, I)."""
        return type(self).basis(x_BI, *self.tensors(), **self.constants)

    def edges(self, x_BI: Tensor) -> Tensor:
        """phi_oi(x_i) for every edge: (B, O, I). Memory grows with O times I; the layer itself never makes it."""
        coef_OMI, base_OI = self.weights()
        phi_BOI = torch.einsum("bmi,omi->boi", self.features(x_BI), coef_OMI)
        return phi_BOI if base_OI is None else phi_BOI + base_OI * BASES[self.options["base"]](x_BI)[:, None]

    def compute(self, x_BI: Tensor) -> Tensor:
        coef, base = self.weights()
        rest = [t for t in (base, self.bias) if t is not None]
        work = out = autocast_dtype(x_BI) or coef.dtype
        if work == coef.dtype and self.options["products"]:
            work = getattr(torch, self.options["products"])
        run = _fused(self.part.id) if self.options["fused"] else edges
        constants = self.constants
        return run(
            x_BI,
            coef,
            *rest,
            *self.tensors(),
            basis=type(self).basis,
            base="none" if base is None else self.options["base"],
            bias=self.bias is not None,
            work=_name(work),
            out=_name(out),
            constants=tuple((name, constants[name]) for name in sorted(constants)),
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# References -----------------------------------------------------------------------------------------------------------


def by_loops(layer: Any, x_BI: Tensor, phi: Callable[[float, int], list[float]], coef_OMI: Tensor | None = None) -> Tensor:
    """The second writing of every layer of this family. phi(value, i): the basis functions of input i, in Python floats."""
    coef = layer.coef if coef_OMI is None else coef_OMI
    y = torch.zeros(len(x_BI), layer.sizes["d_out"], dtype=torch.float64)
    for b, row in enumerate(x_BI.tolist()):
        for i, value in enumerate(row):
            bases = phi(value, i)
            own = {"silu": value / (1 + math.exp(-value)), "identity": value}.get(layer.options.get("base", "none"), 0.0)
            for o in range(y.shape[1]):
                edge = sum(float(c) * v for c, v in zip(coef[o, :, i], bases, strict=True))
                y[b, o] += edge + (0.0 if layer.base_weight is None else float(layer.base_weight[o, i]) * own)
    return y if layer.bias is None else y + layer.bias
