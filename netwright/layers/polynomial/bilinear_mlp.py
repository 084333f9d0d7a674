"""Bilinear MLP: the product of two linear maps, whose outputs are quadratic forms with eigenvectors (Pearce et al., 2024).

y = P ((W x) * (V x)), or (W x) * (V x) where hidden is 0: a gated linear unit without the nonlinearity. Output o is
x^T Q_o x with Q_o = sum_a P_oa sym(w_a v_a^T), sym(M) = (M + M^T) / 2, so that Q_o = sum_k lambda_k u_k u_k^T explains it:
y_o = sum_k lambda_k (u_k . x)^2. With a bias x stands for [x, 1].

Shape suffixes: B rows, I inputs, O outputs, H units, D inputs and the 1 where there is one, K eigenvectors.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.layers._kind import Layer, Tags, layer, product, uniform_
from netwright.tensor.modules import drawn


@final
class BilinearMLP(Layer):
    """y = P ((W x) * (V x)); (..., d_in) -> (..., d_out). weight (2 H, I) holds W over V, projection (O, H) is P.

    hidden: H, or 0 for d_out units and no projection. bias: a 1 is appended to x.
    """

    bias: nn.Parameter | None
    projection: nn.Parameter | None

    def __init__(self, d_in: int, d_out: int, *, hidden: int = 0, bias: bool = False) -> None:
        super().__init__()
        units = hidden or d_out
        self.weight = nn.Parameter(torch.empty(2 * units, d_in))
        self.register_parameter("bias", nn.Parameter(torch.empty(2 * units)) if bias else None)
        self.register_parameter("projection", nn.Parameter(torch.empty(d_out, units)) if hidden else None)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """As nn.Linear draws: U(-1 / sqrt(fan in), 1 / sqrt(fan in))."""
        for p, fan_in in ((self.weight, self.weight.shape[1]), (self.bias, self.weight.shape[1]), (self.projection, self.units)):
            if p is not None:
                uniform_(p, 1 / math.sqrt(fan_in), generator)

    @property
    def units(self) -> int:
        """H."""
        return self.weight.shape[0] // 2

    @property
    def quantities(self) -> dict[str, float]:
        """hidden stays 0 where there is no projection."""
        return {**super().quantities, "units": self.units}

    def compute(self, x_BI: Tensor) -> Tensor:
        left_BH, right_BH = product(x_BI, self.weight, self.bias).chunk(2, -1)
        y = left_BH * right_BH
        return y if self.projection is None else product(y, self.projection)

    @torch.no_grad()
    def interaction(self, o: int | Tensor) -> Tensor:
        """The symmetric matrix Q (D, D) in float64 with x^T Q x = y_o; o: an output, or a direction (O,) over outputs."""
        d_out = self.sizes["d_out"]
        if isinstance(o, Tensor):
            if o.shape != (d_out,) or not o.is_floating_point():
                raise BadInput(f"{self.part.id}: direction of shape {tuple(o.shape)} in {o.dtype}; expected ({d_out},), floating")
            along_O = o.double()
        else:
            if isinstance(o, bool) or not isinstance(o, int) or not 0 <= o < d_out:
                raise BadInput(f"{self.part.id}: output {o!r}; expected a whole number from 0 to {d_out - 1}")
            along_O = F.one_hot(torch.tensor(o, device=self.weight.device), d_out).double()
        along_H = along_O if self.projection is None else along_O @ self.projection.double()
        whole = self.weight if self.bias is None else torch.cat((self.weight, self.bias[:, None]), 1)
        w_HD, v_HD = whole.double().chunk(2)
        q_DD = (along_H[:, None] * w_HD).T @ v_HD
        return (q_DD + q_DD.T) / 2

    def eigen(self, o: int | Tensor) -> tuple[Tensor, Tensor]:
        """(values (D,), vectors (D, D)) of `interaction(o)`, largest magnitude first; vectors[:, k] belongs to values[k]."""
        values, vectors = torch.linalg.eigh(self.interaction(o))
        order = values.abs().argsort(descending=True, stable=True)
        return values[order], vectors[:, order]

    @torch.no_grad()
    def truncated(self, x: Tensor, rank: int) -> Tensor:
        """The outputs (..., d_out) that the `rank` largest eigenvalues of every output give, in the dtype of x (..., d_in)."""
        self.inner(x)
        most = self.weight.shape[1] + (self.bias is not None)
        if isinstance(rank, bool) or not isinstance(rank, int) or not 0 <= rank <= most:
            raise BadInput(f"{self.part.id}: rank={rank!r}; expected a whole number from 0 to {most}")
        wide = x.double() if self.bias is None else F.pad(x.double(), (0, 1), value=1.0)
        outputs = []
        for o in range(self.sizes["d_out"]):
            values, vectors = self.eigen(o)
            outputs.append((wide @ vectors[:, :rank]).square() @ values[:rank])
        return torch.stack(outputs, -1).to(x.dtype)


def reference(layer: Any, x_BI: Tensor) -> Tensor:
    """The third-order tensor: y_o = sum_aij P_oa w_ai v_aj x_i x_j, over x with a 1 where there is a bias."""
    weight, units = layer.weight.tolist(), len(layer.weight) // 2
    if layer.bias is not None:
        weight = [[*row, b] for row, b in zip(weight, layer.bias.tolist(), strict=True)]
    p = (torch.eye(units) if layer.projection is None else layer.projection).tolist()
    y = torch.zeros(len(x_BI), len(p), dtype=torch.float64)
    for b, row in enumerate(x_BI.tolist()):
        x = row if layer.bias is None else [*row, 1.0]
        form = [
            sum(w * v * s * t for w, s in zip(weight[a], x, strict=True) for v, t in zip(weight[units + a], x, strict=True))
            for a in range(units)
        ]
        for o in range(len(p)):
            y[b, o] = sum(c * f for c, f in zip(p[o], form, strict=True))
    return y


def cases() -> list[Any]:
    """With and without a projection and a bias."""
    options: tuple[dict[str, Any], ...] = ({}, {"hidden": 5}, {"bias": True}, {"hidden": 9, "bias": True})
    return [drawn(BilinearMLP, 6, 4, seed=k, **given).requires_grad_(False) for k, given in enumerate(options)]


def rows(n: int, d: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def with_one(mlp: Any, x: Tensor) -> Tensor:
    return x if mlp.bias is None else F.pad(x, (0, 1), value=1.0)


def claim_form() -> bool:
    """x^T Q_o x is output o, and for a direction over outputs the sum along it; Q_o is symmetric."""
    x, along = rows(20, 6), rows(4, 1)[:, 0]
    for mlp in cases():
        wide, y = with_one(mlp, x), mlp(x)
        for o, wanted in (*((o, y[:, o]) for o in range(4)), (along, y @ along)):
            q = mlp.interaction(o)
            if not torch.equal(q, q.T) or float(((wide @ q * wide).sum(1) - wanted).abs().max()) > 1e-10:
                return False
    return True


def claim_eigenvectors() -> bool:
    """Eigenvectors are orthonormal, sorted by the magnitude of their eigenvalue, and rebuild Q_o."""
    for mlp in cases():
        values, vectors = mlp.eigen(1)
        same = torch.allclose(vectors.T @ vectors, torch.eye(len(values), dtype=torch.float64), atol=1e-12)
        rebuilt = torch.allclose((vectors * values) @ vectors.T, mlp.interaction(1), atol=1e-12)
        if not same or not rebuilt or bool((values.abs().diff() > 0).any()):
            return False
    return True


def claim_even() -> bool:
    """Without a bias f(-x) = f(x) and f(t x) = t^2 f(x); with one neither."""
    x = rows(20, 6)
    for mlp in cases():
        y = mlp(x)
        quadratic = torch.allclose(mlp(-x), y, atol=1e-13) and torch.allclose(mlp(3 * x), 9 * y, atol=1e-12)
        if quadratic != (mlp.bias is None):
            return False
    return True


def claim_truncated() -> bool:
    """Rank r errs by no more than the sum of the dropped |lambda| times |x|^2, and all ranks together by nothing."""
    x = rows(30, 6)
    for mlp in cases():
        y, size, most = mlp(x), with_one(mlp, x).square().sum(1), len(mlp.eigen(0)[0])
        for rank in range(most + 1):
            gap = (mlp.truncated(x, rank) - y).abs()
            bound = torch.stack([mlp.eigen(o)[0][rank:].abs().sum() * size for o in range(4)], 1)
            if bool((gap > bound + 1e-12).any()):
                return False
    return True


PART = layer(
    BilinearMLP,
    name="bilinear-mlp",
    reference=reference,
    formula=r"P\left((W x) \odot (V x)\right)",
    paper=Paper("bilinear-mlp"),
    tags=Tags(nonlinear=True),
    options=(
        Option("hidden", 0, "units of the product; 0: one an output, without a projection", bounds=(-1, 10**6)),
        Option("bias", False, "append a 1 to the inputs", allowed=(False, True)),
    ),
    settings=({"hidden": 7}, {"hidden": 3, "bias": True}),
    parameters="2 * units * (d_in + bias) + hidden * d_out",
    products="4 * units * d_in + 2 * hidden * d_out",
    elementwise="units",
    claims=(
        Claim("form", "every output is a quadratic form", check=claim_form),
        Claim("eigenvectors", "its eigenvectors are an orthonormal basis", check=claim_eigenvectors),
        Claim("even", "without a bias it is even, and homogeneous of degree 2", check=claim_even),
        Claim("truncated", "what is left out of the spectrum bounds the error", check=claim_truncated),
        Claim(
            "competitive",
            "achieves competitive performance without an element-wise nonlinearity",
            where="abstract",
            protocol=Protocol(task="digits", against="activation/relu", expect="not worse", seeds=6, trials=4),
        ),
    ),
    deviations=(
        "the projection has no bias; the code's has one where the layer has",
        "eigenvectors are those of the layer's own inputs; an embedding before it takes them back to its inputs by v^T E",
    ),
)
