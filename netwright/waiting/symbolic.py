"""A net of functions on edges as a formula: the known function nearest to every edge, all constants fitted together.

    formula = symbolic(net, x)            # net: an nn.Sequential of KAN layers; x: inputs to read it on
    formula.refit(x, y)                   # the constants, to data or to net(x)
    print(formula)                        # y1 = 1.0*exp(1.0*sin(3.14159*x1) + 1.0*x2**2), and its error

Every edge becomes c f(a x + b) + d with f from LIBRARY, chosen as the KAN paper's code chooses: by fit and simplicity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacfwd

from netwright.core.errors import BadInput, unknown
from netwright.waiting.edges import edge_layers, prunable, rows_of


@final
@dataclass(frozen=True)
class Known:
    """A function an edge can be: of tensors, of sympy's expressions (by name), how simple it is, where it is defined."""

    f: Callable[[Tensor], Tensor]
    sympy: Callable[[Any, Any], Any]
    complexity: int
    domain: Callable[[Tensor], Tensor] | None = None  # where it is finite and smooth
    power: int = 0  # n, of x^n


def _positive(x: Tensor) -> Tensor:
    return x > 1e-3


LIBRARY: dict[str, Known] = {
    "0": Known(torch.zeros_like, lambda s, x: s.Integer(0), 0),
    "x": Known(lambda x: x, lambda s, x: x, 1, power=1),
    "x^2": Known(torch.square, lambda s, x: x**2, 2, power=2),
    "x^3": Known(lambda x: x**3, lambda s, x: x**3, 3, power=3),
    "x^4": Known(lambda x: x**4, lambda s, x: x**4, 3, power=4),
    "1/x": Known(torch.reciprocal, lambda s, x: 1 / x, 2, _positive),
    "sqrt": Known(torch.sqrt, lambda s, x: s.sqrt(x), 2, _positive),
    "exp": Known(torch.exp, lambda s, x: s.exp(x), 2, lambda x: x < 30),
    "log": Known(torch.log, lambda s, x: s.log(x), 2, _positive),
    "sin": Known(torch.sin, lambda s, x: s.sin(x), 2),
    "tanh": Known(torch.tanh, lambda s, x: s.tanh(x), 3),
    "abs": Known(torch.abs, lambda s, x: s.Abs(x), 3),
    "gaussian": Known(lambda x: torch.exp(-(x**2)), lambda s, x: s.exp(-(x**2)), 3),
    "arctan": Known(torch.arctan, lambda s, x: s.atan(x), 4),
}
#: Weight of simplicity against fit: the code's 0.8 complexity + 0.2 log2(1 + 1e-5 - r2).
SIMPLE = 0.8


@final
@dataclass(frozen=True)
class Fit:
    """y ~ c f(a x + b) + d for one edge. r2: the squared correlation of y and f(a x + b)."""

    name: str
    a: float
    b: float
    c: float
    d: float
    r2: float


def fit_edge(x: Tensor, y: Tensor, library: Sequence[str] | None = None, simple: float = SIMPLE, reach: float = 10.0) -> Fit:
    """The function of the library nearest to the samples (x, y), both (N,), for its simplicity.

    (a, b) are searched on a grid of 101 x 101 over [-reach, reach]^2 and then on six narrower ones; c and d follow by
    linear regression. Raises UnknownName for a function that isn't in LIBRARY, BadInput for samples that don't fit.
    """
    fits = fits_of(x, y, library, reach)
    return min(
        fits, key=lambda fit: simple * LIBRARY[fit.name].complexity + (1 - simple) * math.log2(1 + 1e-5 - min(fit.r2, 1.0))
    )


@torch.no_grad()
def fits_of(x: Tensor, y: Tensor, library: Sequence[str] | None = None, reach: float = 10.0) -> list[Fit]:
    """The best fit of every function of the library, best first."""
    names = list(LIBRARY) if library is None else list(library)
    for name in names:
        if name not in LIBRARY:
            raise unknown("function", name, LIBRARY, owner="the library of symbolic fits")
    if x.dim() != 1 or x.shape != y.shape or len(x) < 3 or not bool((x.isfinite() & y.isfinite()).all()):
        raise BadInput(f"samples of shapes {tuple(x.shape)} and {tuple(y.shape)}; expected two of one shape (N,), finite, N >= 3")
    x, y = x.detach().double().cpu(), y.detach().double().cpu()
    pick = x.argsort()[torch.linspace(0, len(x) - 1, min(len(x), 120)).round().long()]
    return sorted((_fit(x[pick], y[pick], name, reach) for name in names), key=lambda fit: -fit.r2)


def _fit(x_N: Tensor, y_N: Tensor, name: str, reach: float) -> Fit:
    known = LIBRARY[name]
    spread = y_N - y_N.mean()
    if name == "0" or float(spread.square().mean()) < 1e-20:
        return Fit(name, 1.0, 0.0, 0.0, float(y_N.mean()), 0.0 if float(spread.square().mean()) > 1e-20 else 1.0)
    if name == "x":
        return _line(x_N, y_N, name, 1.0, 0.0)
    best, reaches = (-1.0, 0.0, 0.0), reach
    for points in (101, *[21] * 6):  # a window of two old steps to either side
        near = torch.linspace(-reaches, reaches, points, dtype=torch.float64)
        a, b = near + best[1], near + best[2]
        score = torch.stack([_score(known, row * x_N + b[:, None], spread) for row in a])  # one a at a time: (points, N)
        i, j = divmod(int(score.argmax()), points)
        best, reaches = max(best, (float(score[i, j]), float(a[i]), float(b[j]))), 4 * reaches / (points - 1)
    return _line(x_N, y_N, name, best[1], best[2])


def _score(known: Known, u: Tensor, spread_N: Tensor) -> Tensor:
    """Squared correlation of f(u) (M, N) with the samples; -1 where f isn't defined on all of them."""
    f = known.f(u)
    centred = f - f.mean(-1, keepdim=True)
    r2 = (centred @ spread_N).square() / (centred.square().sum(-1) * spread_N.square().sum() + 1e-12)
    fine = f.isfinite().all(-1) if known.domain is None else known.domain(u).all(-1) & f.isfinite().all(-1)
    return torch.where(fine, r2.nan_to_num(-1.0), -1.0)


def _line(x_N: Tensor, y_N: Tensor, name: str, a: float, b: float) -> Fit:
    f = LIBRARY[name].f(a * x_N + b)
    centred, spread = f - f.mean(), y_N - y_N.mean()
    c = float(centred @ spread / (centred @ centred + 1e-12))
    r2 = float((centred @ spread).square() / (centred @ centred * (spread @ spread) + 1e-12))
    return Fit(name, a, b, c, float(y_N.mean() - c * f.mean()), r2)


@final
class Formula(nn.Module):
    """A net whose every edge is c f(a x + b) and every node a sum plus one constant; (B, inputs) -> (B, outputs).

    edges: for every layer, (output, input) -> Fit. error: set by `symbolic` and `refit`: the root mean square error over
    the deviation of what it was fitted to.
    """

    def __init__(self, layers: Sequence[Mapping[tuple[int, int], Fit]], widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = [dict(layer) for layer in layers]
        self.widths = tuple(widths)
        self.scales = nn.ParameterList(
            nn.Parameter(torch.tensor([[f.a, f.b, f.c] for f in layer.values()] or torch.zeros(0, 3), dtype=torch.float64))
            for layer in self.layers
        )
        shifts = [
            [sum(f.d for (o, _), f in layer.items() if o == out) for out in range(width)]
            for layer, width in zip(self.layers, self.widths[1:], strict=True)
        ]
        self.shifts = nn.ParameterList(nn.Parameter(torch.tensor(row, dtype=torch.float64)) for row in shifts)
        self.error = math.nan

    def forward(self, x: Tensor) -> Tensor:
        """In float64."""
        h = x.double()
        for layer, scale, shift, width in zip(self.layers, self.scales, self.shifts, self.widths[1:], strict=True):
            sums: list[list[Tensor]] = [[] for _ in range(width)]
            for ((o, i), fit), (a, b, c) in zip(layer.items(), scale, strict=True):
                sums[o].append(c * LIBRARY[fit.name].f(a * h[..., i] + b))
            zero = torch.zeros_like(h[..., 0])
            h = torch.stack([shift[o] + (sum(parts) if parts else zero) for o, parts in enumerate(sums)], -1)
        return h

    def refit(self, x: Tensor, y: Tensor, steps: int = 100) -> float:
        """Fit all constants together to y (B, outputs) by least squares. Returns the error, never a larger one."""
        try:
            from scipy.optimize import least_squares
        except ImportError:
            raise BadInput("refit needs SciPy: pip install netwright[bench]") from None
        rows, target = x.detach(), y.detach().double()
        state, before = {k: v.clone() for k, v in self.state_dict().items()}, self.measure(x, target)
        names, sizes = list(state), [v.numel() for v in state.values()]

        def residual(flat: Tensor) -> Tensor:
            parts = (v.view_as(state[k]) for k, v in zip(names, flat.split(sizes), strict=True))
            return (functional_call(self, dict(zip(names, parts, strict=True)), (rows,)) - target).flatten()

        start, slopes = torch.cat([v.flatten() for v in state.values()]), jacfwd(residual)
        found = start
        if before < math.inf:  # a trial step out of a function's domain is no smaller, and so is refused
            found = torch.from_numpy(
                least_squares(
                    lambda p: residual(torch.from_numpy(p)).detach().nan_to_num(1e100, 1e100, -1e100).numpy(),
                    start.numpy(),
                    lambda p: slopes(torch.from_numpy(p)).detach().numpy(),
                    x_scale="jac",
                    max_nfev=steps,
                    xtol=1e-14,
                    ftol=1e-14,
                    gtol=1e-14,
                ).x
            )
        self.load_state_dict({k: v.view_as(state[k]) for k, v in zip(names, found.split(sizes), strict=True)})
        if not (after := self.measure(x, target)) <= before:
            self.load_state_dict(state)
            after = before
        self.error = after
        return after

    @torch.no_grad()
    def measure(self, x: Tensor, y: Tensor) -> float:
        """Root mean square error on (x, y) over the deviation of y."""
        target = y.double()
        error = (self(x) - target).square().mean() / target.var(correction=0).clamp(min=1e-30)
        return math.sqrt(float(error)) if bool(error.isfinite()) else math.inf

    def expressions(self, names: Sequence[str] | None = None, digits: int = 4) -> list[Any]:
        """One sympy expression an output, with constants to so many digits; what is smaller beside them is left out.

        names: of the inputs; x1, x2, ... by default.
        """
        import sympy

        known = [f"x{i + 1}" for i in range(self.widths[0])] if names is None else list(names)
        if len(known) != self.widths[0]:
            raise BadInput(f"names={names!r}; expected {self.widths[0]} of them")
        h: list[Any] = [sympy.Symbol(name) for name in known]
        constants = [0.0] * len(h)  # of the nodes, which go into the b of the edges that leave them
        for layer, scale, shift in zip(self.layers, self.scales, self.shifts, strict=True):
            sums: list[dict[Any, float]] = [{sympy.Integer(1): float(v)} for v in shift.detach()]
            for ((o, i), fit), (a, b, c) in zip(layer.items(), scale.detach().tolist(), strict=True):
                for factor, term in _terms(sympy, fit.name, a, b + a * constants[i], c, h[i]):
                    sums[o][term] = sums[o].get(term, 0.0) + factor
            last = layer is self.layers[-1]
            constants = [0.0 if last else terms.pop(sympy.Integer(1)) for terms in sums]
            h = [_sum(sympy, terms, digits, digits if last else 15) for terms in sums]
        return h

    def __str__(self) -> str:
        lines = [f"y{o + 1} = {e}" for o, e in enumerate(self.expressions())]
        return "\n".join([*lines, f"relative error {self.error:.2g}"])


def _terms(sympy: Any, name: str, a: float, b: float, c: float, x: Any) -> list[tuple[float, Any]]:
    """c f(a x + b) as (factor, expression) pairs: powers multiplied out, a shift inside an exponential made a factor."""
    known = LIBRARY[name]
    if known.power:
        n = known.power
        return [(c * math.comb(n, k) * a**k * b ** (n - k), x**k) for k in range(n + 1)]
    if name == "exp":
        return [(c * math.exp(b), sympy.exp(sympy.Float(a) * x))]
    return [(c, known.sympy(sympy, sympy.Float(a) * x + sympy.Float(b)))]


def _sum(sympy: Any, terms: Mapping[Any, float], digits: int, shown: int) -> Any:
    """The sum of factor times expression; those left out that are smaller by so many digits, constants shown with so many."""
    least = max(map(abs, terms.values()), default=0.0) * 10.0**-digits

    def rounded(value: float) -> Any:
        text = float(f"{value:.{shown}g}")
        return sympy.Integer(round(text)) if text == round(text) else sympy.Float(text, shown)

    kept = [rounded(factor) * _tidy(sympy, expression, rounded) for expression, factor in terms.items() if abs(factor) > least]
    return sum(kept, sympy.Integer(0))


def _tidy(sympy: Any, expression: Any, rounded: Callable[[float], Any]) -> Any:
    """An expression with its floating constants rounded, and those that round away inside a sum left out."""
    floats = {value: float(value) for value in expression.atoms(sympy.Float)}
    return expression.xreplace({v: rounded(f) if abs(f) > 1e-6 else sympy.Integer(0) for v, f in floats.items()})


def symbolic(
    net: nn.Module, x: Tensor, library: Sequence[str] | None = None, simple: float = SIMPLE, reach: float = 10.0
) -> Formula:
    """The formula of a net of layers of functions that follow one another: an nn.Sequential of KAN layers, or one layer.

    x: rows on which the functions are read. Pruned edges stay out. The constants are then fitted to net(x) together, and
    `error` says how far the formula is from the net. Raises BadInput where something else stands between the layers.
    """
    with torch.no_grad():
        rows, wanted = rows_of(net, x), net(x)
    layers = [layer for _, layer in edge_layers(net)]
    others = [type(m).__name__ for m in net.children() if m not in layers and not isinstance(m, (nn.Identity, nn.Flatten))]
    if net not in layers and (others or [layer for _, layer, _ in rows] != layers or not isinstance(net, nn.Sequential)):
        raise BadInput(
            f"symbolic reads an nn.Sequential of layers of functions; {type(net).__name__} also has {', '.join(others)}"
        )
    found: list[dict[tuple[int, int], Fit]] = []
    for _, layer, given in rows:
        if not getattr(layer, "separate", True) or getattr(layer, "bias", None) is not None:
            raise BadInput(f"{layer.part.id}: only sums of functions of single inputs can be read as a formula")
        with torch.no_grad():
            phi_BOI = layer.edges(given)
        mask = layer.mask if prunable(layer) else None
        found.append(
            {
                (o, i): fit_edge(given[:, i], phi_BOI[:, o, i], library, simple, reach)
                for o in range(phi_BOI.shape[1])
                for i in range(phi_BOI.shape[2])
                if mask is None or bool(mask[o, i])
            }
        )
    formula = Formula(found, [rows[0][1].sizes["d_in"], *(layer.sizes["d_out"] for _, layer, _ in rows)])
    formula.refit(x, wanted)
    return formula
