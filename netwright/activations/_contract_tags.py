"""Tags that describe the curve of an activation: smooth, monotone, odd or even, invariant to scale."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from netwright.activations._contract_settings import elementwise, only, rows, scalar, settings
from netwright.activations._kind import ActivationPart
from netwright.core.contract import expect


def smooth(part: ActivationPart) -> None:
    """The derivative jumps at the declared kinks and nowhere else; `smooth` says that there are none."""
    only(part, "elementwise")
    for label, built in _tagged(part, "smooth"):
        found = _jumps(built)
        if label != "default":
            expect(not found, f"declared smooth for all parameters, but the slope jumps at the {label}", given=found[:1])
            continue
        for x in found:
            declared = any(abs(x - kink) < 1e-3 for kink in part.tags.kinks)
            expect(declared, "the slope jumps where no kink is declared", given=f"{x:.6g}", wanted=part.tags.kinks)
        for kink in part.tags.kinks:
            expect(any(abs(x - kink) < 1e-3 for x in found), "declares a kink where the slope doesn't jump", given=kink)
        holds = not found and not part.tags.kinks
        expect(part.tags.smooth == holds, "smooth", got=part.tags.smooth, wanted=holds)


def _jumps(built: nn.Module) -> list[float]:
    """Where the derivative jumps within [-20, 20], found by halving the intervals over which it changes most."""

    def slope(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(scalar(built, x).sum(), x)[0]

    x = torch.linspace(-20.0037, 20.0063, 4001, dtype=torch.float64)  # no declared kink on the grid
    change = slope(x).diff()
    # A jump stands out from both its neighbours; a slope that is steep all along doesn't.
    order = torch.minimum((change - change.roll(1)).abs(), (change - change.roll(-1)).abs()).argsort(descending=True)[:40]
    lo, hi = x[order], x[order + 1]
    for _ in range(26):
        middle = (lo + hi) / 2
        at_lo, at_middle, at_hi = slope(lo), slope(middle), slope(hi)
        left = (at_middle - at_lo).abs() >= (at_hi - at_middle).abs()
        lo, hi = torch.where(left, lo, middle), torch.where(left, middle, hi)
    jump = (slope(hi) - slope(lo)).abs()
    return sorted({round(v, 6) for v in ((lo + hi) / 2)[jump > 1e-4].tolist()})


def _tagged(part: ActivationPart, tag: str) -> list[tuple[str, nn.Module]]:
    """The default setting, and all others where the tag is declared for all parameter values."""
    return [(label, b) for label, b in settings(part) if label == "default" or tag in part.tags.always]


def _both_ways(part: ActivationPart, tag: str, holds: Callable[[nn.Module], float | None]) -> None:
    """holds(module) is None where the property holds, else an input where it fails. The tag has to say the same."""
    for label, built in _tagged(part, tag):
        counter, declared = holds(built), getattr(part.tags, tag)
        if declared:
            expect(counter is None, f"declared {tag}, but isn't at the {label}", given=counter)
        else:
            expect(counter is not None, f"is {tag} and doesn't declare it")


def monotone(part: ActivationPart) -> None:
    """Never decreasing on [-30, 30], exactly if declared."""
    only(part, "elementwise")
    x = torch.linspace(-30.0, 30.0, 6001, dtype=torch.float64)

    def holds(built: nn.Module) -> float | None:
        down = x[:-1][scalar(built, x).diff() < -1e-12]
        return down[down.abs().argmin()].item() if len(down) else None

    _both_ways(part, "monotone", holds)


def parity(part: ActivationPart) -> None:
    """Odd: f(-x) = -f(x). Even: f(-x) = f(x). Exactly if declared."""
    only(part, "elementwise")
    x = torch.linspace(0.0, 30.0, 3001, dtype=torch.float64)
    for tag, sign in (("odd", -1.0), ("even", 1.0)):

        def holds(built: nn.Module, sign: float = sign) -> float | None:
            y = scalar(built, x)
            off = x[(scalar(built, -x) - sign * y).abs() > 1e-10 * y.abs().clamp(min=1.0)]
            return off[0].item() if len(off) else None

        _both_ways(part, tag, holds)


def scale_invariant(part: ActivationPart) -> None:
    """f(c x) = f(x) for c > 0, exactly if declared."""
    only(part, "elementwise", "rowwise")

    def holds(built: nn.Module) -> float | None:
        def f(x: Tensor) -> Tensor:
            return scalar(built, x.flatten()).view_as(x) if elementwise(part) else built(x)

        for x in (4 * r for r in rows(part, seed=5) if r.shape[-1] >= 10):  # an eps inside a norm is felt by small rows
            for c in (2.0, 5.0):
                y = f(x)
                off = (f(c * x) - y).abs() > 1e-4 * y.abs().amax()
                if off.any():
                    return x[off][0].item()
        return None

    _both_ways(part, "scale_invariant", holds)
