"""ReLU-KAN: bases made of two ReLUs each, whose ends are learnt, in place of a KAN's splines (Qiu et al., 2024)."""

from __future__ import annotations

import math
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.part import Claim, Option, Paper
from netwright.layers._kind import Tags, layer, uniform_
from netwright.layers.kan._basis_layer import FUSED, BasisLayer, by_loops
from netwright.tensor.modules import drawn


def bumps(x_BI: Tensor, starts_MI: Tensor, ends_MI: Tensor, height: Tensor) -> Tensor:
    """(height relu(x - s_m) relu(e_m - x))^2 (B, M, I)."""
    x = x_BI[:, None]
    return (torch.relu(x - starts_MI) * torch.relu(ends_MI - x) * height).square()


@final
class ReLUKAN(BasisLayer):
    """y_o = a_o + sum_im c_omi R_mi(x_i), R = (r relu(x - s) relu(e - x))^2; (..., d_in) -> (..., d_out).

    Every input has grid + order bases, each order + 1 of the grid's steps wide at the start and a step from the next, over
    low to high. s and e are learnt unless trainable=False; r makes every peak 1 at the start. An input outside the grid
    gives nothing and gets no gradient: scale inputs to it.
    """

    basis: ClassVar[Any] = staticmethod(bumps)

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        grid: int = 5,
        order: int = 3,
        low: float = 0.0,
        high: float = 1.0,
        trainable: bool = True,
        fused: bool = False,
        products: str = "",
    ) -> None:
        super().__init__()
        if not low < high:
            raise BadInput(f"layer/relu-kan: low={low!r} and high={high!r}; the grid runs from the lower to the higher")
        self._setup(d_in, d_out, grid + order, "none", bias=True, products=products)
        self.grid, self.order, self.low, self.high = grid, order, low, high
        self.starts, self.ends = (nn.Parameter(torch.empty(grid + order, d_in), trainable) for _ in range(2))

    @property
    def span(self) -> float:
        """How wide a basis is at the start."""
        return (self.high - self.low) * (self.order + 1) / self.grid

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """c, a ~ U(-1, 1) / sqrt(d_in (grid + order)), as the code's convolution draws them; the bases a step apart."""
        for t in (self.coef, self.bias):
            if t is not None:
                uniform_(t, 1 / math.sqrt(self.starts.numel()), generator)
        steps = torch.arange(-self.order, self.grid, dtype=torch.float64, device=self.coef.device) / self.grid
        starts = self.low + (self.high - self.low) * steps
        self.starts.copy_(starts[:, None].expand_as(self.starts))
        self.ends.copy_((starts + self.span)[:, None].expand_as(self.ends))

    def tensors(self) -> tuple[Tensor, ...]:
        # Of no dimension: it moves no computation to another dtype.
        dtype = torch.float64 if self.coef.dtype == torch.float64 else torch.float32
        return self.starts, self.ends, torch.full((), 4 / self.span**2, dtype=dtype, device=self.coef.device)


def reference(layer: Any, x_BI: Tensor) -> Tensor:
    grid, order, low, high = (layer.options[name] for name in ("grid", "order", "low", "high"))
    factor = 16 / ((order + 1) / grid * (high - low)) ** 4

    def phi(x: float, i: int) -> list[float]:
        ends = zip(layer.starts[:, i].tolist(), layer.ends[:, i].tolist(), strict=True)
        return [(max(e - x, 0.0) * max(x - s, 0.0)) ** 2 * factor for s, e in ends]

    return by_loops(layer, x_BI, phi)


def claim_peak() -> bool:
    """Every basis is 1 half-way between its ends, where it is largest, and 0 outside them: order + 1 at once at most."""
    for options in ({}, {"order": 1}, {"grid": 8, "order": 5, "low": -1.0}):
        kan = drawn(ReLUKAN, 1, 1, **options)
        middle = (kan.starts + kan.ends) / 2
        peaks = kan.features(middle)[..., 0].diagonal()
        x = torch.linspace(-2, 2, 2001, dtype=torch.float64)[:, None]
        b = kan.features(x)[..., 0]
        outside = (x <= kan.starts.T) | (x >= kan.ends.T)
        few = int((b > 1e-12).sum(1).max()) <= kan.order + 1 and not bool((b * outside).any())
        if float((peaks - 1).abs().max()) > 1e-13 or float(b.max()) > 1 + 1e-13 or not few:
            return False
    return True


def claim_sum() -> bool:
    """With 5 steps and order 3 the bases sum to between 2.125 and 2.141 on the grid: nearly, not quite a constant."""
    sums = drawn(ReLUKAN, 1, 1).features(torch.linspace(0, 1, 1001, dtype=torch.float64)[:, None]).sum(1)
    return 2.125 - 1e-12 <= float(sums.min()) < 2.126 and 2.14 < float(sums.max()) < 2.141


def claim_forgetting() -> bool:
    """A step on inputs of one end of the grid changes nothing at the other: what is learnt there stays."""
    kan = drawn(ReLUKAN, 1, 1, grid=10, trainable=False)
    x = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None]
    before = kan(x).detach()
    (gradient,) = torch.autograd.grad(kan(x[:20]).square().sum(), kan.coef)
    with torch.no_grad():
        kan.coef -= gradient
    moved = (kan(x) - before).abs()[:, 0]
    return float(moved[:20].max()) > 0.01 and not bool(moved[60:].any())


PART = layer(
    ReLUKAN,
    name="relu-kan",
    reference=reference,
    formula=r"a_o + \sum_{i,m} c_{omi} \left(r\, \mathrm{relu}(e_{mi} - x_i)\, \mathrm{relu}(x_i - s_{mi})\right)^2",
    paper=Paper(
        title="ReLU-KAN: New Kolmogorov-Arnold Networks that Only Need Matrix Addition, Dot Multiplication, and ReLU",
        authors="Qi Qiu, Tao Zhu, Helin Gong, Liming Chen, Huansheng Ning",
        year=2024,
        arxiv="2406.02075",
        code="quiqi/relu_kan",
        equation="(6)",
    ),
    tags=Tags(nonlinear=True, delicate=True),
    options=(
        Option("grid", 5, "steps of the grid", bounds=(0, 10000)),
        Option("order", 3, "steps that a basis reaches beyond one", bounds=(-1, 1000)),
        Option("low", 0.0, "where the grid begins"),
        Option("high", 1.0, "where the grid ends"),
        Option("trainable", True, "whether the ends of the bases are learnt", allowed=(False, True)),
        *FUSED,
    ),
    settings=({"order": 1}, {"grid": 4, "low": -2.0, "high": 2.0}),
    parameters="(grid + order) * d_in * (d_out + 2 * trainable) + d_out",
    products="2 * d_in * d_out * (grid + order)",
    elementwise="7 * d_in * (grid + order)",
    claims=(
        Claim("peak", "every basis peaks at exactly 1 and is local", check=claim_peak),
        Claim("sum", "the bases sum to nearly a constant", check=claim_sum),
        Claim("forgetting", "what is learnt in one place leaves others alone", where="abstract", check=claim_forgetting),
    ),
    deviations=(
        "r is that of the bases at the start, as in the code; the paper's 16 / (e - s)^4 follows e and s, and has no value"
        " where they meet",
        "takes (..., d_in); the code's layer takes (B, d_in, 1) and fails on (B, d_in)",
        "the grid can lie elsewhere than on [0, 1]",
    ),
)
