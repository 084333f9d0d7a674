"""KAN: a learnt B-spline on every edge, and sums at the nodes (Liu et al., 2024)."""

from __future__ import annotations

import math
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.part import Claim, Option, Paper
from netwright.layers._kind import Tags, layer, uniform_
from netwright.layers.kan._basis_layer import BASE, FUSED, BasisLayer, by_loops
from netwright.layers.kan._splines import (
    equally_spaced,
    finer_knots,
    moved_knots,
    project,
    regrid,
    splines,
    uniform_knots,
    uniform_splines,
)
from netwright.tensor.modules import Change, drawn


def basis(x_BI: Tensor, *knots: Tensor, order: int, bases: int, uniform: bool) -> Tensor:
    """The B-splines B_1 .. B_(G+k) of x (B, M, I): in closed form on a uniform grid, else by recursion."""
    if uniform:
        return uniform_splines(x_BI, *knots, order=order, bases=bases)
    return splines(x_BI, *knots, order=order)


@final
class KAN(BasisLayer):
    """y_o = sum_i w_oi b(x_i) + s_oi sum_m c_omi B_m(x_i), where s_oi is 1 unless scale=True; (..., d_in) -> (..., d_out).

    grid: intervals; order: degree of the splines; base: b, or "none". The grid starts as equal intervals on `low` to
    `high` for every input. Outside it the splines end within `order` intervals, and only the base is left: call
    `update_grid` with what the layer sees where that isn't within the grid.
    """

    basis: ClassVar[Any] = staticmethod(basis)
    resizable = frozenset({"coef", "base_weight", "scale", "knots", "mask"})
    scale: nn.Parameter | None
    knots: Tensor  # (grid + 2 order + 1, I): contiguous along the inputs, which is what pointwise work runs along
    mask: Tensor  # (O, I): edges that are kept

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        grid: int = 5,
        order: int = 3,
        base: str = "silu",
        scale: bool = False,
        noise: float = 0.1,
        low: float = -1.0,
        high: float = 1.0,
        fused: bool = False,
        products: str = "",
    ) -> None:
        super().__init__()
        if not low < high:
            raise BadInput(f"layer/kan: low={low!r} and high={high!r}; the grid runs from the lower to the higher")
        self._setup(d_in, d_out, grid + order, base, bias=False, products=products)
        self.order, self.noise, self.low, self.high = order, noise, low, high
        self.register_parameter("scale", nn.Parameter(torch.empty(d_out, d_in)) if scale else None)
        self.register_buffer("knots", torch.empty(grid + 2 * order + 1, d_in))
        self.register_buffer("mask", torch.empty(d_out, d_in, dtype=torch.bool))
        self.uniform, self.pruned = True, False

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """c ~ N(0, noise^2 / d_in), w ~ U(-1, 1) / sqrt(d_in), a uniform grid, every edge kept."""
        d_in = self.coef.shape[2]
        self.coef.normal_(0, self.noise / math.sqrt(d_in), generator=generator)
        if self.base_weight is not None:
            uniform_(self.base_weight, 1 / math.sqrt(d_in), generator)
        if self.scale is not None:
            self.scale.fill_(1.0)
        lo, hi = (torch.full((d_in,), v, dtype=torch.float64, device=self.coef.device) for v in (self.low, self.high))
        self.knots.copy_(uniform_knots(lo, hi, self.grid, self.order).T)
        self.mask.fill_(True)
        self.uniform, self.pruned = True, False

    @property
    def grid(self) -> int:
        """The number of intervals, which refine changes."""
        return self.coef.shape[1] - self.order

    @property
    def quantities(self) -> dict[str, float]:
        return {**super().quantities, "grid": self.grid, "terms": (self.order + 2) // 2}

    @property
    def constants(self) -> dict[str, Any]:
        return {"order": self.order, "bases": self.coef.shape[1], "uniform": self.uniform}

    def tensors(self) -> tuple[Tensor, ...]:
        if not self.uniform:
            return (self.knots,)
        lo = self.knots[self.order]
        return lo, self.grid / (self.knots[-self.order - 1] - lo)

    def weights(self) -> tuple[Tensor, Tensor | None]:
        coef = self.coef if self.scale is None else self.coef * self.scale[:, None]
        if not self.pruned:
            return coef, self.base_weight
        return coef * self.mask[:, None], None if self.base_weight is None else self.base_weight * self.mask

    def adopt(self) -> None:
        self.sizes = {"d_in": self.coef.shape[2], "d_out": self.coef.shape[0]}
        self.uniform = equally_spaced(self.knots.T)
        self.pruned = not bool(self.mask.all())

    @torch.no_grad()
    def update_grid(self, x: Tensor, grid: int | None = None, eps: float = 0.02, margin: float = 0.01) -> float:
        """Move the knots to where the inputs x (..., d_in) of this layer lie, and keep the functions.

        grid: another number of intervals, which makes a new parameter: then make a new optimizer. eps: 1 is equal
        intervals, 0 is quantiles. Returns the largest change of an edge function on the new range. Raises BadInput where
        x doesn't fit, isn't finite or holds fewer than two rows.
        """
        self.inner(x)
        return self._regrid(moved_knots(self, x.detach().reshape(-1, x.shape[-1]), grid, eps, margin))

    @torch.no_grad()
    def refine(self, grid: int) -> float:
        """Extend the grid to another number of equal intervals on the same range, and keep the functions.

        The coefficients are a new parameter: make a new optimizer.
        Returns the largest change of an edge function, which is 0 but for rounding where the new knots contain the old.
        """
        return self._regrid(finer_knots(self, grid))

    def _regrid(self, knots_IK: Tensor) -> float:
        coef, change = project(self.coef, self.knots.T, knots_IK, self.order)  # a scale multiplies both sides alike
        regrid(self, knots_IK, coef)
        return change

    @torch.no_grad()
    def keep(self, mask_OI: Tensor) -> None:
        """Prune all edges but those that are True in the mask; what was pruned before stays so."""
        if mask_OI.shape != self.mask.shape or mask_OI.dtype != torch.bool:
            given, wanted = tuple(mask_OI.shape), tuple(self.mask.shape)
            raise BadInput(f"{self.part.id}: mask of shape {given} in {mask_OI.dtype}; expected {wanted} in torch.bool")
        self.mask &= mask_OI.to(self.mask.device)
        self.pruned = not bool(self.mask.all())

    @torch.no_grad()
    def narrow(self, inputs: Tensor, outputs: Tensor) -> None:
        """Keep these inputs and outputs alone (numbers, in order): a smaller layer with the same functions on its edges."""
        for name, value in (("coef", self.coef), ("base_weight", self.base_weight), ("scale", self.scale)):
            if value is not None:
                setattr(self, name, nn.Parameter(value[outputs][..., inputs].clone(), value.requires_grad))
        self.knots, self.mask = self.knots[:, inputs].clone(), self.mask[outputs][:, inputs].clone()
        self.adopt()


def reference(layer: Any, x_BI: Tensor) -> Tensor:
    """Cox and de Boor, one basis function at a time, from its definition."""
    k = layer.order

    def b(t: list[float], m: int, p: int, x: float) -> float:
        if p == 0:
            return float(t[m] <= x < t[m + 1])
        left = (x - t[m]) / (t[m + p] - t[m]) * b(t, m, p - 1, x)
        return left + (t[m + p + 1] - x) / (t[m + p + 1] - t[m + 1]) * b(t, m + 1, p - 1, x)

    def phi(x: float, i: int) -> list[float]:
        t = layer.knots[:, i].tolist()
        return [b(t, m, k, x) for m in range(len(t) - k - 1)]

    return by_loops(layer, x_BI, phi, layer.coef if layer.scale is None else layer.coef * layer.scale[:, None])


def claim_unity() -> bool:
    """On the grid the splines are not negative and sum to 1, at most order + 1 of them at once, for every order."""
    x = torch.linspace(-1, 1, 201, dtype=torch.float64)[:-1, None]
    for order in range(1, 6):
        b = drawn(KAN, 1, 1, order=order).features(x)
        if float((b.sum(1) - 1).abs().max()) > 1e-12 or bool((b < -1e-14).any()) or int((b > 1e-14).sum(1).max()) > order + 1:
            return False
    return True


def claim_closed_form() -> bool:
    """The closed form is the recursion, inside the grid and outside it."""
    x = torch.linspace(-4, 4, 161, dtype=torch.float64)[:, None].expand(-1, 2) + torch.tensor([0.0, 1e-3], dtype=torch.float64)
    for order in range(1, 6):
        kan = drawn(KAN, 2, 1, grid=7, order=order)
        kan.uniform = False
        slow = kan.features(x)
        kan.uniform = True
        if float((kan.features(x) - slow).abs().max()) > 1e-12:
            return False
    return True


def claim_polynomials() -> bool:
    """Every polynomial up to the order is a spline on the grid, exactly."""
    x = torch.linspace(-1, 1, 100, dtype=torch.float64)[:-1, None]
    b = drawn(KAN, 1, 1).features(x)[..., 0]
    cubic = 2 - x + 3 * x**2 - 5 * x**3
    return float((b @ torch.linalg.lstsq(b, cubic).solution - cubic).abs().max()) < 1e-10


def claim_derivative() -> bool:
    """The derivative is the spline of one order less with coefficients k (c_(m+1) - c_m) / (t_(m+k+1) - t_(m+1))."""
    kan, k = drawn(KAN, 1, 1, base="none"), 3
    x = torch.linspace(-1.5, 1.5, 50, dtype=torch.float64)[:, None].requires_grad_()
    (slope,) = torch.autograd.grad(kan(x).sum(), x)
    t, c = kan.knots[:, 0], kan.coef[0, :, 0].detach()
    inner = k * c.diff() / (t[k + 1 : -1] - t[1 : -k - 1])
    ends = torch.stack((k * c[0] / (t[k] - t[0]), -k * c[-1] / (t[-1] - t[-k - 1])))
    lower = splines(x.detach(), kan.knots, order=k - 1)[..., 0]
    return bool(torch.allclose(lower @ torch.cat((ends[:1], inner, ends[1:])), slope[:, 0], atol=1e-12))


def claim_refine() -> bool:
    """Extending the grid from 5 to 10, 20 and 50 intervals keeps the function, and so does moving it within itself."""
    kan, x = drawn(KAN, 3, 2, noise=1.0).requires_grad_(False), torch.linspace(-1, 1, 300, dtype=torch.float64).view(-1, 3)
    before = kan(x)
    changes = [kan.refine(grid) for grid in (10, 20, 50)]
    return max(changes) < 1e-10 and float((kan(x) - before)[:-1].abs().max()) < 1e-10


def claim_constant() -> bool:
    """A grid update on inputs that are constant, or take two values, keeps all finite and changes no more than it says."""
    for x, most in ((torch.full((4, 2), 0.3), 1e-12), (torch.tensor([[0.3, -0.5], [0.3, 0.5]]).repeat(5, 1), math.inf)):
        kan, x = drawn(KAN, 2, 2, noise=1.0).requires_grad_(False), x.double()
        before = kan(x)
        change = kan.update_grid(x)
        if not change <= most or not bool(((kan(x) - before).abs() <= 2 * change + 1e-12).all()):
            return False
    return True


PART = layer(
    KAN,
    name="kan",
    reference=reference,
    formula=r"\sum_i w_{oi}\, b(x_i) + \sum_m c_{omi} B_m(x_i)",
    paper=Paper("kan", equation="(2.10)"),
    tags=Tags(nonlinear=True, delicate=True),
    options=(
        Option("grid", 5, "intervals of the grid", bounds=(0, 10000)),
        Option("order", 3, "degree of the splines", bounds=(0, 8)),
        BASE,
        Option("scale", False, "a factor of its own for every spline, as in the paper", allowed=(False, True)),
        Option("noise", 0.1, "deviation of the coefficients at the start, times the root of d_in", bounds=(0.0, math.inf)),
        Option("low", -1.0, "where the grid begins"),
        Option("high", 1.0, "where the grid ends"),
        *FUSED,
    ),
    settings=({"order": 1}, {"order": 2, "grid": 3}, {"grid": 9, "low": -2.0, "high": 3.0}),
    changes=(
        Change("update_grid", lambda kan, x: kan.update_grid(x)),
        Change("refine", lambda kan, x: kan.refine(2 * kan.grid)),
        Change("keep", lambda kan, x: kan.keep(torch.arange(kan.mask.numel()).view(kan.mask.shape) % 3 > 0)),
        Change("narrow", lambda kan, x: kan.narrow(torch.arange(kan.sizes["d_in"]), torch.tensor([2, 0]))),
    ),
    parameters="d_in * d_out * (grid + order + base + scale)",
    products="2 * d_in * d_out * (grid + order + base)",
    elementwise="d_in * ((grid + order) * (2 + terms * (order + 3)) + 4 * base)",
    claims=(
        Claim("unity", "the splines are a partition of unity on the grid, at most order + 1 at once", check=claim_unity),
        Claim("closed-form", "on a uniform grid the closed form is the recursion, outside the grid too", check=claim_closed_form),
        Claim("polynomials", "polynomials up to the order are exact", check=claim_polynomials),
        Claim("derivative", "the derivative is a spline of one order less", check=claim_derivative),
        Claim("refine", "grid extension keeps the function", where="section 2.4", check=claim_refine),
        Claim("constant", "inputs that don't vary can't break a grid update", check=claim_constant),
    ),
    deviations=(
        "the factor of every spline is folded into its coefficients unless scale=True",
        "coefficients are drawn with deviation noise / sqrt(d_in), as the code's factor 1 / sqrt(d_in) makes them; the paper"
        " says N(0, 0.1^2)",
        "a grid update projects on the whole range rather than on samples, and no interval is shorter than a hundredth of"
        " the mean one",
    ),
)
