"""B-splines: their values on equally spaced and on any knots, knots that follow the inputs, and splines on other knots.

Shape suffixes: B rows, I inputs, O outputs, M bases, K knots, P points.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput

#: Order -> the whole numbers (-1)^j C(order + 1, j) for j <= h, and order!; a table, since a compiler traces no binomials.
PIECES = {k: (tuple((-1) ** j * math.comb(k + 1, j) for j in range((k + 2) // 2)), math.factorial(k)) for k in range(1, 9)}


def uniform_splines(x_BI: Tensor, lo_I: Tensor, rate_I: Tensor, *, order: int, bases: int) -> Tensor:
    """B_m(x) (B, M, I) on equally spaced knots, `rate` of them a unit; spline number `order` ends where the grid begins, at lo.

    With a = |u - c_m| the distance from the centre in steps and h = (order + 1) / 2,
    B_m = sum_{j <= h} (-1)^j C(order + 1, j) relu(h - j - a)^order / order!: no recursion, no division, no comparison.
    """
    u_BI, h = (x_BI - lo_I) * rate_I, (order + 1) / 2
    centres_M = torch.arange(bases, dtype=x_BI.dtype, device=x_BI.device) + (1 - order) / 2
    a_BMI = (u_BI[:, None] - centres_M[:, None]).abs()
    signed, below = PIECES[order]
    total = power(torch.relu(h - a_BMI), order)
    for j in range(1, len(signed)):
        total = total + signed[j] * power(torch.relu(h - j - a_BMI), order)
    return total * (1 / below)


def power(x: Tensor, n: int) -> Tensor:
    """x^n by products, which a compiler vectorises."""
    return x if n == 1 else x * power(x, n - 1)


def splines(x_BI: Tensor, knots_KI: Tensor, *, order: int) -> Tensor:
    """B_m(x) (B, M, I) on any increasing knots (K, I), by the recursion of Cox and de Boor from order 0 up; M = K - order - 1."""
    x, t = x_BI[:, None], knots_KI
    b = ((x >= t[:-1]) & (x < t[1:])).to(x.dtype)
    for p in range(1, order + 1):
        rise, fall = 1 / (t[p:-1] - t[: -p - 1]), 1 / (t[p + 1 :] - t[1:-p])
        b = (x - t[: -p - 1]) * rise * b[:, :-1] + (t[p + 1 :] - x) * fall * b[:, 1:]
    return b


def uniform_knots(lo_I: Tensor, hi_I: Tensor, grid: int, order: int) -> Tensor:
    """(I, grid + 2 order + 1): `grid` equal intervals on [lo, hi] and `order` more on each side."""
    steps = torch.arange(-order, grid + order + 1, dtype=lo_I.dtype, device=lo_I.device)
    return lo_I[:, None] + (hi_I - lo_I)[:, None] / grid * steps


def equally_spaced(knots_IK: Tensor) -> bool:
    """Whether every input's knots are equally far apart, to the rounding of their dtype."""
    steps = knots_IK.double().diff(dim=1)
    slack = 4 * torch.finfo(knots_IK.dtype).eps * knots_IK.double().abs().amax(1)
    return bool((steps.amax(1) - steps.amin(1) <= slack).all())


def adapted_knots(x_BI: Tensor, knots_IK: Tensor, grid: int, order: int, eps: float, margin: float) -> Tensor:
    """Knots (I, grid + 2 order + 1) where the samples are: eps of equal intervals, 1 - eps of quantiles.

    The range reaches a share `margin` beyond the samples. An input whose samples hardly vary keeps its range, moved no
    further than to hold them, in equal intervals: quantiles of a constant would be empty intervals. No interval is
    shorter than a hundredth of the mean one.
    """
    x = x_BI.double().sort(0).values
    old = knots_IK.double()
    old_lo, old_hi = old[:, order], old[:, -order - 1]
    least, most = x[0], x[-1]
    flat = (most - least) < 1e-3 * (old_hi - old_lo)
    moved = (most - old_hi).clamp(min=0) + (least - old_lo).clamp(max=0)
    lo = torch.where(flat, old_lo + moved, least - margin * (most - least))
    hi = torch.where(flat, old_hi + moved, most + margin * (most - least))
    share = torch.linspace(0, 1, grid + 1, dtype=torch.float64, device=x.device)
    equal = lo[:, None] + (hi - lo)[:, None] * share
    quantiles = torch.quantile(x, share, 0).T
    quantiles[:, 0], quantiles[:, -1] = lo, hi
    inner = torch.where(flat[:, None], equal, eps * equal + (1 - eps) * quantiles)
    mean = ((hi - lo) / grid)[:, None]
    width = inner.diff(dim=1).clamp(min=0.01 * mean)
    inner = torch.cat((lo[:, None], lo[:, None] + width.cumsum(1) * ((hi - lo) / width.sum(1))[:, None]), 1)
    steps = mean * torch.arange(1, order + 1, dtype=torch.float64, device=x.device)
    return torch.cat((inner[:, :1] - steps.flip(0), inner, inner[:, -1:] + steps), 1)


def intervals(layer: Any, grid: int | None) -> int:
    """A number of intervals that was asked for; the layer's own for None. Raises BadInput."""
    if grid is None:
        return int(layer.grid)
    if isinstance(grid, bool) or not isinstance(grid, int) or grid < 1:
        raise BadInput(f"{layer.part.id}: grid={grid!r}; expected a whole number of at least 1")
    return grid


def moved_knots(layer: Any, rows: Tensor, grid: int | None, eps: float, margin: float) -> Tensor:
    """Knots (I, K) for the rows (P, I) that a layer sees. Raises BadInput."""
    if len(rows) < 2 or not bool(rows.isfinite().all()):
        raise BadInput(f"{layer.part.id}: update_grid needs at least two rows of finite inputs; given {len(rows)}")
    if not 0 <= eps <= 1:
        raise BadInput(f"{layer.part.id}: eps={eps!r}; allowed: from 0 (quantiles) to 1 (equal intervals)")
    return adapted_knots(rows, layer.knots.T, intervals(layer, grid), layer.order, eps, margin)


def finer_knots(layer: Any, grid: int) -> Tensor:
    """Knots (I, K) of another number of equal intervals on the same range. Raises BadInput."""
    lo, hi = layer.knots[layer.order].double(), layer.knots[-layer.order - 1].double()
    return uniform_knots(lo, hi, intervals(layer, grid), layer.order)


@torch.no_grad()
def regrid(layer: Any, knots_IK: Tensor, coef: Tensor) -> None:
    """Give a layer knots and the coefficients on them: in place if there are as many, so that an optimizer can go on."""
    if coef.shape == layer.coef.shape:
        layer.coef.copy_(coef)
    else:
        layer.coef = nn.Parameter(coef.contiguous(), layer.coef.requires_grad)
    layer.knots = knots_IK.T.contiguous().to(layer.knots)
    layer.uniform = equally_spaced(layer.knots.T)


def project(coef_OMI: Tensor, old_IK: Tensor, new_IK: Tensor, order: int) -> tuple[Tensor, float]:
    """Coefficients on the new knots of the splines nearest to the old ones on the new range, and the largest change.

    Nearest in the mean square over the whole range, which Gauss points between all knots compute exactly: no samples,
    so no rank is lost on samples that leave an interval empty. Where the new knots contain the old, the spline is the same.
    """
    old, new, coef = old_IK.double(), new_IK.double(), coef_OMI.double()
    lo, hi = new[:, order, None], new[:, -order - 1, None]
    breaks = torch.cat((old, new), 1).clamp(min=lo, max=hi).sort(1).values
    nodes, weights = gauss(order + 1)
    mid, half = (breaks[:, 1:] + breaks[:, :-1]) / 2, breaks.diff(dim=1) / 2
    x_PI = (mid[..., None] + half[..., None] * nodes.to(mid)).flatten(1).T
    root_PI = (half[..., None] * weights.to(mid)).flatten(1).T.sqrt()
    wanted = torch.einsum("pmi,omi->pio", splines(x_PI, old.T, order=order), coef)
    basis = splines(x_PI, new.T, order=order).permute(2, 0, 1)  # (I, P, M)
    system = basis * root_PI.T[..., None]
    size = system.norm(dim=1, keepdim=True)  # B-splines of equal size are well conditioned on any knots
    right = (wanted * root_PI[..., None]).transpose(0, 1)
    found = torch.linalg.lstsq((system / size).cpu(), right.cpu(), driver="gels").solution.to(size) / size.transpose(1, 2)
    change = (basis @ found - wanted.transpose(0, 1)).abs().max()
    return found.permute(2, 1, 0).contiguous().to(coef_OMI), float(change)


def gauss(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights (n,) of Gauss-Legendre quadrature on [-1, 1], from the eigenvalues of the Jacobi matrix."""
    k = torch.arange(1, n, dtype=torch.float64)
    off = k / (4 * k * k - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return nodes, 2 * vectors[0] ** 2
