"""ConvKAN: a convolution with a learnt B-spline where a kernel has a weight (Bodner et al., 2024).

    y[o, p] = sum_i sum_t phi_oit(x[i, p + t]),   phi(x) = w b(x) + sum_m c_m B_m(x)

over channels i and taps t of the kernel. The splines see one pixel each, so that they are computed once a pixel and stacked
as channels, and one ordinary convolution of M c_in channels sums over channels, taps and splines. Pixels of the padding
are zeros that the functions see, as in the unfolded writing: each adds phi(0), which is not 0.

Shape suffixes: B rows, I channels in, O channels out, M splines, K knots, S positions in space (one or more dimensions),
T taps (as many dimensions), P positions of all rows, C = M I channels of splines, number m c_in + i.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.errors import BadInput
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.layers._kind import Layer, Tags, layer, per_axis, uniform_
from netwright.layers.kan._basis_layer import BASE, BASES
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
from netwright.tensor.precision import autocast_dtype

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def stacked(
    x_BIS: Tensor,
    coef_OCT: Tensor,
    *rest: Tensor,
    base: str,
    order: int,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    work: torch.dtype,
) -> Tensor:
    """The layer. rest: base weights (O, I, T) unless base is "none"; then knots (K, I), or (lo_I, rate_I) of a uniform grid."""
    weights, tensors = ((), rest) if base == "none" else (rest[:1], rest[1:])
    channels, conv = coef_OCT.shape[1], CONV[coef_OCT.dim() - 2]
    x = F.pad(x_BIS, [side for pad in reversed(padding) for side in (pad, pad)]) if any(padding) else x_BIS
    pixels_PI = x.movedim(1, -1).contiguous().flatten(0, -2)  # channels innermost, which is what pointwise work runs along
    if len(tensors) == 1:
        phi_PMI = splines(pixels_PI, *tensors, order=order)
    else:
        phi_PMI = uniform_splines(pixels_PI, *tensors, order=order, bases=channels // x.shape[1])
    phi = phi_PMI.reshape(x.shape[0], *x.shape[2:], channels).movedim(-1, 1)
    if torch.compiler.is_compiling():
        phi = phi + 0.0  # inductor orders the strides of a view that a convolution reads, and can't for symbolic sizes

    def times(features: Tensor, weight: Tensor) -> Tensor:
        return conv(features.to(work), weight.to(work), stride=stride, dilation=dilation)

    y = times(phi, coef_OCT)
    return y + times(BASES[base](x), weights[0]) if weights else y


@final
class ConvKAN(Layer):
    """y_o = sum over channels i and taps t of phi_oit; (..., c_in, *space) -> (..., c_out, *space'), sized as nn.ConvNd.

    grid: intervals on `low` to `high` at the start, of every channel; order: degree of the splines; base: b, or "none".
    Outside the grid the splines end within `order` intervals: call `update_grid` where the inputs aren't within it. Padding
    makes pixels of 0, so keep 0 on the grid.
    """

    resizable = frozenset({"coef", "knots"})
    knots: Tensor  # (grid + 2 order + 1, c_in)
    base_weight: nn.Parameter | None

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        *,
        grid: int = 5,
        order: int = 3,
        base: str = "silu",
        noise: float = 0.1,
        low: float = -1.0,
        high: float = 1.0,
        dims: int = 2,
    ) -> None:
        super().__init__()
        if not low < high:
            raise BadInput(f"layer/conv-kan: low={low!r} and high={high!r}; the grid runs from the lower to the higher")
        taps = per_axis(kernel_size, dims)
        self.order, self.noise, self.low, self.high, self.base = order, noise, low, high, base
        self.coef = nn.Parameter(torch.empty(c_out, (grid + order) * c_in, *taps))  # the weight of the convolution
        self.register_parameter("base_weight", None if base == "none" else nn.Parameter(torch.empty(c_out, c_in, *taps)))
        self.register_buffer("knots", torch.empty(grid + 2 * order + 1, c_in))
        self.constants: dict[str, Any] = {
            "base": base,
            "order": order,
            **{name: per_axis(value, dims) for name, value in (("stride", stride), ("padding", padding), ("dilation", dilation))},
        }
        self.uniform = True

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """c ~ N(0, noise^2 / n), w ~ U(-1, 1) / sqrt(n) for n = c_in times the taps, and a uniform grid."""
        c_in = self.knots.shape[1]
        root = math.sqrt(c_in * math.prod(self.coef.shape[2:]))
        self.coef.normal_(0, self.noise / root, generator=generator)
        if self.base_weight is not None:
            uniform_(self.base_weight, 1 / root, generator)
        lo, hi = (torch.full((c_in,), v, dtype=torch.float64, device=self.coef.device) for v in (self.low, self.high))
        self.knots.copy_(uniform_knots(lo, hi, self.grid, self.order).T)
        self.uniform = True

    @property
    def grid(self) -> int:
        """The number of intervals, which refine changes."""
        return self.coef.shape[1] // self.knots.shape[1] - self.order

    @property
    def quantities(self) -> dict[str, float]:
        own = {"grid": self.grid, "base": int(self.base_weight is not None), "terms": (self.order + 2) // 2}
        return {**super().quantities, **own}

    def tensors(self) -> tuple[Tensor, ...]:
        """What the splines read beside x."""
        lo = self.knots[self.order]
        return (lo, self.grid / (self.knots[-self.order - 1] - lo)) if self.uniform else (self.knots,)

    def compute(self, x_BIS: Tensor) -> Tensor:
        weights = () if self.base_weight is None else (self.base_weight,)
        work = autocast_dtype(x_BIS) or self.coef.dtype
        return stacked(x_BIS, self.coef, *weights, *self.tensors(), work=work, **self.constants)

    def adopt(self) -> None:
        self.uniform = equally_spaced(self.knots.T)

    @torch.no_grad()
    def update_grid(self, x: Tensor, grid: int | None = None, eps: float = 0.02, margin: float = 0.01) -> float:
        """Move the knots to where the pixels of x (..., c_in, *space), and of its padding, lie; keep the functions.

        grid: another number of intervals. eps: 1 is equal intervals, 0 is quantiles. Returns the largest change of a function
        on the new range. Raises BadInput where x doesn't fit, isn't finite or holds fewer than two pixels.
        """
        inner = self.inner(x)
        pads = [side for pad in reversed(self.constants["padding"]) for side in (pad, pad)]
        rows = F.pad(x.detach(), pads).movedim(-inner, -1).reshape(-1, self.knots.shape[1])
        return self._regrid(moved_knots(self, rows, grid, eps, margin))

    @torch.no_grad()
    def refine(self, grid: int) -> float:
        """Extend the grid to another number of equal intervals on the same range; returns the largest change of a function."""
        return self._regrid(finer_knots(self, grid))

    def _regrid(self, knots_IK: Tensor) -> float:
        taps, c_in = self.coef.shape[2:], self.knots.shape[1]
        per_tap = self.coef.flatten(2).movedim(2, 1)  # (O, T, C): every tap is an output to the splines
        found, change = project(per_tap.reshape(-1, self.grid + self.order, c_in), self.knots.T, knots_IK, self.order)
        coef = found.reshape(*per_tap.shape[:2], -1).movedim(1, 2).reshape(len(per_tap), -1, *taps)
        regrid(self, knots_IK, coef)
        return change


def reference(layer: Any, x_BIS: Tensor) -> Tensor:
    """Unfolded: every output gathers its pixels one by one; Cox and de Boor from its definition."""
    sizes, dims = layer.sizes, layer.options["dims"]
    (stride, pad, dilation, kernel) = (per_axis(sizes[n], dims) for n in ("stride", "padding", "dilation", "kernel_size"))
    own = {"silu": lambda v: v / (1 + math.exp(-v)), "identity": lambda v: v}.get(layer.options["base"])
    knots, order, known = layer.knots.T.tolist(), layer.options["order"], {}

    def b(t: list[float], m: int, p: int, x: float) -> float:
        if p == 0:
            return float(t[m] <= x < t[m + 1])
        left = (x - t[m]) / (t[m + p] - t[m]) * b(t, m, p - 1, x)
        return left + (t[m + p + 1] - x) / (t[m + p + 1] - t[m + 1]) * b(t, m + 1, p - 1, x)

    def phi(row: int, place: tuple[Any, ...]) -> Tensor:
        """Splines and base function of every channel's pixel (M + 1, I); outside the image the pixel is 0."""
        inside = all(0 <= q < n for q, n in zip(place, x_BIS.shape[2:], strict=True))
        key = (row, *place) if inside else (-1,)
        if key not in known:
            pixels = x_BIS[(row, slice(None), *place)].tolist() if inside else [0.0] * len(knots)
            values = [[b(t, m, order, v) for m in range(len(t) - order - 1)] for t, v in zip(knots, pixels, strict=True)]
            rows = [[*vs, own(v) if own else 0.0] for vs, v in zip(values, pixels, strict=True)]
            known[key] = torch.tensor(rows, dtype=torch.float64).T
        return known[key]

    def grid(sides: tuple[int, ...]) -> list[tuple[Any, ...]]:
        return [tuple(place) for place in torch.cartesian_prod(*map(torch.arange, sides)).view(-1, len(sides)).tolist()]

    full = zip(x_BIS.shape[2:], pad, dilation, kernel, stride, strict=True)
    space = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in full)
    y = torch.zeros(len(x_BIS), sizes["c_out"], *space, dtype=x_BIS.dtype)
    for row in range(len(x_BIS)):
        for place in grid(space):
            for tap in grid(kernel):
                at = tuple(q * s - p + t * d for q, s, p, t, d in zip(place, stride, pad, tap, dilation, strict=True))
                values_MI = phi(row, at)
                edge_OI = (layer.coef[(..., *tap)].unflatten(1, (-1, len(knots))) * values_MI[:-1]).sum(1)
                if own:
                    edge_OI = edge_OI + layer.base_weight[(..., *tap)] * values_MI[-1]
                y[(row, slice(None), *place)] += edge_OI.sum(1)
    return y


def claim_looped() -> bool:
    """It is the authors' loop: unfold, and a KAN of as many inputs as the kernel has taps for each pair of channels."""
    part: Any = catalogue.get("layer/kan")
    conv, g = drawn(ConvKAN, 3, 2, 3, 2, 1, noise=1.0), torch.Generator().manual_seed(0)
    x_BIHW = torch.randn(2, 3, 7, 6, generator=g, dtype=torch.float64)
    windows_BITP = F.unfold(x_BIHW, 3, padding=1, stride=2).unflatten(1, (3, 9))
    looped = torch.zeros(2, 2, 12, dtype=torch.float64)
    for o in range(2):
        for i in range(3):
            kan = drawn(part.cls, 9, 1)
            with torch.no_grad():
                kan.coef.copy_(conv.coef[o, i::3].flatten(1))
                kan.base_weight.copy_(conv.base_weight[o, i].flatten())
                kan.knots.copy_(conv.knots[:, i, None].expand(-1, 9))
            looped[:, o] += kan(windows_BITP[:, i].transpose(1, 2))[..., 0]
    return bool(torch.allclose(conv(x_BIHW).flatten(2), looped, atol=1e-12))


def claim_padding() -> bool:
    """A pixel of the padding adds phi(0): an image of zeros gives one value everywhere, its border included."""
    conv = drawn(ConvKAN, 2, 3, 3, 1, 1, noise=1.0)
    y = conv(torch.zeros(1, 2, 5, 5, dtype=torch.float64)).flatten(2)
    return bool(torch.allclose(y, y[..., :1].expand_as(y))) and bool((y.abs() > 1e-3).all())


def claim_refine() -> bool:
    """Extending the grid keeps the layer, and so does moving it, by no more than the change that is returned."""
    conv, g = drawn(ConvKAN, 2, 3, 3, padding=1, noise=1.0), torch.Generator().manual_seed(0)
    x = 0.9 * torch.rand(2, 2, 5, 4, generator=g, dtype=torch.float64)
    before = conv(x)
    refined = conv.refine(10) < 1e-10 and torch.allclose(conv(x), before, atol=1e-9)
    moved = conv.update_grid(x)
    return bool(refined) and float((conv(x) - before).abs().max().detach()) <= 18 * moved + 1e-9


PART = layer(
    ConvKAN,
    name="conv-kan",
    reference=reference,
    formula=r"\sum_i \sum_t w_{oit}\, b(x_{i,p+t}) + \sum_m c_{omit} B_m(x_{i,p+t})",
    paper=Paper("conv-kan"),
    tags=Tags(shape="conv", nonlinear=True, delicate=True),
    options=(
        Option("grid", 5, "intervals of the grid", bounds=(0, 10000)),
        Option("order", 3, "degree of the splines", bounds=(0, 8)),
        BASE,
        Option("noise", 0.1, "deviation of the coefficients at the start, times the root of the inputs", bounds=(0.0, math.inf)),
        Option("low", -1.0, "where the grid begins"),
        Option("high", 1.0, "where the grid ends"),
    ),
    uses=("layer/kan",),
    toy={"c_in": 2, "c_out": 3, "kernel_size": 2},
    space=(5, 4, 3),
    settings=({"order": 2, "grid": 3}, {"grid": 4, "order": 1, "low": -2.0, "high": 3.0}),
    changes=(
        Change("update_grid", lambda conv, x: conv.update_grid(x)),
        Change("refine", lambda conv, x: conv.refine(2 * conv.grid)),
    ),
    parameters="c_in * c_out * taps * (grid + order + base)",
    products="2 * places_out * c_in * c_out * taps * (grid + order + base)",
    elementwise="places_in * c_in * ((grid + order) * (2 + terms * (order + 3)) + 4 * base)",
    claims=(
        Claim("looped", "the stacked form is the loop over pairs of channels", check=claim_looped),
        Claim("padding", "pixels of the padding are zeros that the functions see", check=claim_padding),
        Claim("refine", "extending and moving the grid keep the functions", check=claim_refine),
        Claim(
            "digits",
            "no less accurate than convolutions of as many parameters",
            where="abstract",
            protocol=Protocol(
                task="digits", against="activation/relu", expect="not worse", seeds=6, trials=4, options={"host": "convnet"}
            ),
        ),
    ),
    deviations=(
        "one convolution of stacked splines; the code loops over all pairs of channels, each a layer of its own",
        "the taps of a channel share its knots; in the code each has its own, which nothing ever moves",
        "no factor of its own for every spline, which the code counts as one more parameter an edge",
        "the start is drawn for all c_in times taps inputs; the code draws every pair of channels for itself, so that outputs"
        " grow with the root of c_in",
        "kernels, strides and paddings of any shape, in 1, 2 or 3 dimensions; the code reads the first size of a kernel alone",
    ),
)
