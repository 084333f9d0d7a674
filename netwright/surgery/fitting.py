"""init_from="old": parameters with which a new module starts as the function that stood in its place.

Distance between two functions f and g here is the root of the weighted mean square of f - g over 401 points evenly
spaced on [-5, 5], with weights proportional to exp(-x^2 / 2) that sum to 1: about the RMS difference for N(0, 1) input.
It is made small by the Levenberg-Marquardt method in float64: from the part's own start and, while it is above 0.001,
from every other start the part offers and from random ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacfwd

from netwright.core.errors import Misfit, NetwrightError
from netwright.surgery.sites import Place
from netwright.tensor.sites import Target

LIMIT = 0.05
GOOD = 0.001  # no further start is tried
MOST = 256  # parameters of one function; the method solves dense systems of that size
GRID = torch.linspace(-5.0, 5.0, 401, dtype=torch.float64)
WEIGHTS = torch.softmax(-GRID.square() / 2, 0)


@final
@dataclass
class Fits:
    """Fits the new modules of one swap; equal old functions are fitted once."""

    target: Target
    known: dict[bytes, tuple[list[Tensor], float]] = field(default_factory=dict)
    first: bytes | None = None  # what a module shared by all places started as

    def start(self, place: Place) -> str:
        """Give place.new the parameters that make it the old function. Returns why that can't be, or ""."""
        path, label = place.paths[0], self.target.label
        if why := self.target.unlike:
            return why
        columns = function_of(place.old, place.width.channels)
        if columns is None:
            return f"{path} is {type(place.old).__name__}, which is no elementwise function that {label} could start as"
        spread = getattr(place.new, "per", None) == "channel"
        if len(columns) > 1 and not spread:
            return f"{path} computes another function for every channel; {label} could only follow with per='channel'"
        if self.target.shared:
            key = torch.stack(columns).numpy().tobytes()
            self.first = self.first or key
            if key != self.first:
                return f"{path} is another function than the first place, and {label} is one module for all of them"
        fits = []
        for column in columns:
            key = column.numpy().tobytes()
            if key not in self.known:
                try:
                    self.known[key] = self._fit(place.new, column)
                except NetwrightError as error:
                    return str(error)
            fits.append(self.known[key])
        place.fit_error = max(error for _, error in fits)
        if not place.fit_error <= LIMIT:
            return (
                f"{label} can't start as the {type(place.old).__name__} at {path}: the nearest is "
                f"{place.fit_error:.3g} away (RMS weighted as N(0, 1) on [-5, 5]; at most {LIMIT})"
            )
        with torch.no_grad():
            for i, parameter in enumerate(place.new.parameters()):
                if spread:
                    value = torch.stack([values[i] for values, _ in fits], -1).reshape(-1, len(fits))
                    parameter.copy_(value.reshape(*parameter.shape[:-1], len(fits)).expand_as(parameter))
                else:
                    parameter.copy_(fits[0][0][i].reshape(parameter.shape))
        return ""

    def _fit(self, new: nn.Module, y: Tensor) -> tuple[list[Tensor], float]:
        probes = self._probes(new)
        first = next(iter(probes))
        names = [name for name, _ in first.named_parameters()]
        shapes = [p.shape for p in first.parameters()]
        sizes = [p.numel() for p in first.parameters()]
        if sum(sizes) > MOST:
            raise Misfit(f"{self.target.label} has {sum(sizes)} parameters in one function; init_from takes at most {MOST}")
        lo, hi = self._bounds(names, sizes)

        def residual(flat: Tensor) -> Tensor:
            values = {n: v.reshape(s) for n, v, s in zip(names, flat.split(sizes), shapes, strict=True)}
            return WEIGHTS.sqrt() * (functional_call(first, values, (GRID,)) - y)

        dtype = next((p.dtype for p in new.parameters()), torch.float64)
        delivered = copy.deepcopy(first).to(dtype)

        def off(flat: Tensor) -> float:
            """How far the new module is in its own dtype, in which large coefficients that cancel don't."""
            pieces = zip(names, flat.to(dtype).split(sizes), shapes, strict=True)
            with torch.no_grad():
                out = functional_call(delivered, {n: v.reshape(s) for n, v, s in pieces}, (GRID.to(dtype),))
            found = float((WEIGHTS.sqrt() * (out.double() - y)).square().sum().sqrt())
            return found if found == found else torch.inf

        starts = [torch.cat([p.detach().reshape(-1) for p in m.parameters()] or [GRID[:0]]) for m in probes]
        g = torch.Generator().manual_seed(0)
        if sizes:
            starts += [(starts[0] + torch.randn(sum(sizes), generator=g).double()).clamp(lo, hi) for _ in range(3)]
        ends: list[tuple[Tensor, float]] = []
        try:
            for start in starts:
                found, _ = _least_squares(residual, start, lo, hi)
                ends.append((found, off(found)))
                if ends[-1][1] < GOOD:
                    break
        except NetwrightError:
            raise
        except Exception as error:  # a module of the user's may do anything
            raise Misfit(f"{self.target.label} can't be fitted: {type(error).__name__}: {error}") from error
        best = min(ends, key=lambda end: end[1])
        return list(best[0].split(sizes)) if sizes else [], best[1]

    def _probes(self, new: nn.Module) -> list[nn.Module]:
        """Copies in float64 with one function each: as it starts, and as every choice of how to start it."""
        probes = self.target.starts() or [copy.deepcopy(new).to("cpu", torch.float64).eval()]
        shapes = [p.shape for p in probes[0].parameters()]
        return [probe for probe in probes if [p.shape for p in probe.parameters()] == shapes]

    def _bounds(self, names: list[str], sizes: list[int]) -> tuple[Tensor, Tensor]:
        declared = self.target.bounds()
        pairs = [declared.get(name, (-torch.inf, torch.inf)) for name in names]
        low, high = ([pair[i] for pair, size in zip(pairs, sizes, strict=True) for _ in range(size)] for i in (0, 1))
        return torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)


def function_of(module: nn.Module, channels: int | None) -> list[Tensor] | None:
    """The values of an elementwise module on GRID: one column, or one a channel where they differ; None where it isn't."""
    try:
        module = copy.deepcopy(module).to("cpu", torch.float64).eval()
    except Exception:  # not every module can be copied
        return None
    for width in (None, channels) if channels else (None,):  # PReLU with several slopes takes no vector
        try:
            with torch.no_grad():
                columns, others = (_columns(module, width, shift) for shift in (37, 90))
        except Exception:
            continue
        if any(not torch.allclose(c, o, rtol=1e-9, atol=1e-12) for c, o in zip(columns, others, strict=True)):
            return None  # an output depends on more than its own input
        if not all(torch.isfinite(column).all() for column in columns):
            return None
        return columns[:1] if all(torch.equal(column, columns[0]) for column in columns) else columns
    return None


def _columns(module: nn.Module, width: int | None, shift: int) -> list[Tensor]:
    """What the module gives for the grid, for each channel in another order and without some points, put in order again.

    An elementwise function gives the same for every shift; what mixes elements doesn't.
    """
    orders = [torch.arange(len(GRID)).roll(shift * (i + 1)) for i in range(width or 1)]
    halves = [order.split(shift + 100) for order in orders]
    pieces = []
    for rows in zip(*halves, strict=True):
        x = torch.stack([GRID[at] for at in rows], 1) if width else GRID[rows[0]]
        y = module(x.clone())
        if y.shape != x.shape:
            raise Misfit(f"{type(module).__name__} changes the shape")
        pieces.append(y)
    whole = torch.cat(pieces)
    columns = whole.unbind(1) if width else [whole]
    return [column[order.argsort()].contiguous() for column, order in zip(columns, orders, strict=True)]


def _least_squares(
    residual: Callable[[Tensor], Tensor], theta: Tensor, lo: Tensor, hi: Tensor, steps: int = 60
) -> tuple[Tensor, float]:
    """Levenberg-Marquardt: the parameters found and the root of the sum of squares there."""

    def cost_of(flat: Tensor) -> tuple[Tensor, float]:
        r = residual(flat).detach()
        cost = float(r @ r)
        return r, cost if cost == cost else torch.inf

    r, cost = cost_of(theta)
    damping = 1e-3
    for _ in range(steps if theta.numel() else 0):
        jacobian = jacfwd(residual)(theta).detach()
        if cost < 1e-26 or not jacobian.isfinite().all():
            break
        normal, slope = jacobian.T @ jacobian, jacobian.T @ r
        before = cost
        while damping < 1e12:
            damped = normal + torch.diag(damping * normal.diagonal() + 1e-14)
            trial = (theta - torch.linalg.lstsq(damped, slope[:, None]).solution[:, 0]).clamp(lo, hi)
            r_trial, cost_trial = cost_of(trial)
            if cost_trial < cost:
                theta, r, cost, damping = trial, r_trial, cost_trial, max(damping / 4, 1e-12)
                break
            damping *= 5
        if before - cost <= 1e-4 * before:
            break
    return theta, cost**0.5
