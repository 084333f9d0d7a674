"""Checks of an activation as a function: values, numbers, gradients, and the tags that describe its shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from netwright.activations._contract_settings import (
    agree,
    agree_rows,
    arguments_of,
    dtypes,
    elementwise,
    grid,
    module,
    referenced,
    rows,
    scalar,
    settings,
    spread,
)
from netwright.activations._kind import ActivationPart
from netwright.core import catalogue
from netwright.core.contract import Skip, expect

EXTREMES = (1e4, 1e10, 1e20, math.inf)  # the last stands for the largest finite number


def _only(part: ActivationPart, *shapes: str) -> None:
    if part.tags.shape not in shapes:
        raise Skip(f"says nothing of the shape class {part.tags.shape}")


STATELESS = ("elementwise", "rowwise", "gated", "channels")


def reference(part: ActivationPart) -> None:
    """In float64 the function equals its reference, at the default, perturbed and every other setting."""
    _only(part, *STATELESS)
    for label, built in settings(part):
        if elementwise(part):
            x = grid()[::3].clamp(-30, 30)
            got, wanted = scalar(built, x).tolist(), referenced(part, built, x.tolist())
            what = f"differs from the reference at the {label}"
            agree(what, x.tolist(), got, wanted, lambda w: 1e-9 * max(1.0, abs(w)))
        else:
            for x in rows(part):
                wanted = referenced(part, built, x.tolist())
                agree_rows(f"differs from the reference at the {label}", x, built(x), wanted, 1e-9)


def numbers(part: ActivationPart) -> None:
    """On [-100, 100] every dtype is within 4 ulp or 1e-5 of the float64 reference, or infinite where that can't fit."""
    _only(part, *STATELESS)
    for dtype in dtypes(part):
        largest = torch.finfo(dtype).max
        for label, built in settings(part, choices=False):
            built = built.to(dtype)
            what = f"{dtype} is off at the {label}"
            if elementwise(part):
                x = grid(dtype)
                exact = referenced(part, built, x.double().tolist())
                wanted = [w if abs(w) <= largest else math.copysign(math.inf, w) for w in exact]
                got = scalar(built, x).double().tolist()
                agree(what, x.double().tolist(), got, wanted, spread(dtype))
            else:
                relative = max(4 * torch.finfo(dtype).eps, 1e-5)
                for x in rows(part, dtype=dtype):
                    agree_rows(what, x, built(x), referenced(part, built, x.double().tolist()), relative)


def infinities(part: ActivationPart) -> None:
    """At minus and plus infinity every dtype gives what the reference gives."""
    _only(part, "elementwise")
    for dtype in dtypes(part):
        built = module(part, dtype=dtype)
        x = [-math.inf, math.inf]
        got = scalar(built, torch.tensor(x, dtype=dtype)).double().tolist()
        agree(f"{dtype} at infinity", x, got, referenced(part, built, x), spread(dtype))


def limits(part: ActivationPart) -> None:
    """The reference tends to the declared limits."""
    _only(part, "elementwise")
    expect(part.limits is not None, "declares no limits; give limits=(at -inf, at +inf), math.nan where there is none")
    assert part.limits is not None
    far = [-1e9, 1e9]
    for x, value, limit in zip(far, referenced(part, module(part), far), part.limits, strict=True):
        if math.isinf(limit):
            expect(value * math.copysign(1, limit) > 10, "doesn't tend to its limit", given=x, got=value, wanted=limit)
        elif not math.isnan(limit):
            expect(abs(value - limit) < 1e-3, "doesn't tend to its limit", given=x, got=value, wanted=limit)


def values(part: ActivationPart) -> None:
    """The declared values and worked examples come out."""
    if not part.values and not part.examples:
        raise Skip("declares no values and no examples")
    if part.values:
        x = list(part.values)
        got = scalar(module(part), torch.tensor(x, dtype=torch.float64)).tolist()
        agree("declared value", x, got, list(part.values.values()), lambda w: 1e-6 * max(1.0, abs(w)))
    for example in part.examples:
        row = torch.tensor(example.input, dtype=torch.float64)
        got_row = module(part, row.shape[-1], **example.options).train()(row)
        error = (got_row - torch.tensor(example.output, dtype=torch.float64)).abs().max()
        expect(error <= example.tolerance, "example", given=example.input, got=got_row.tolist(), wanted=example.output)


def gradients(part: ActivationPart) -> None:
    """Gradients are never NaN for finite input: on [-100, 100] at every setting, up to the largest by default."""
    _only(part, *STATELESS)
    for dtype in dtypes(part):
        for label, built in settings(part):
            built = built.to(dtype)
            batches = [grid(dtype)[:, None]] if elementwise(part) else list(rows(part, dtype=dtype))
            for x in batches:
                x.requires_grad_()
                inputs = [x, *(p for p in built.parameters() if p.requires_grad)]
                for got in torch.autograd.grad(built(x).sum(), inputs):
                    _no_nan(f"{dtype} gradient at the {label}", x, got)
        if elementwise(part):
            largest = torch.finfo(dtype).max
            far = [s * v for v in (*(e for e in EXTREMES if e < largest), largest) for s in (-1, 1)]
            x = torch.tensor(far, dtype=dtype)[:, None].requires_grad_()
            (got,) = torch.autograd.grad(module(part, dtype=dtype)(x).sum(), x)
            _no_nan(f"{dtype} gradient", x, got)


def _no_nan(what: str, x: Tensor, got: Tensor) -> None:
    if got.isnan().any():
        bad = x[got.isnan()] if got.shape == x.shape else x.flatten()[:1]
        least = bad[bad.abs().argmin()].item()
        expect(False, f"{what} is NaN", given=least, got="nan", wanted="a number or a signed infinity")


def gradcheck(part: ActivationPart) -> None:
    """Autograd agrees with finite differences away from kinks, and lies between the one-sided slopes at them."""
    _only(part, *STATELESS)
    if part.backward is not None:
        raise Skip("the check backward compares its gradient with the one it declares")
    kinks, label, agrees = part.tags.kinks, "", True
    for name, built in settings(part, 4):
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2
        for kink in kinks:
            x = torch.where((x - kink).abs() < 0.05, x + 0.2, x)
        # An initial value may be a special one, such as the kink of |b| at 0: parameters are checked where moved.
        moved = [*built.parameters()] if name.startswith("perturbed") else []
        inputs = (x.requires_grad_(), *moved)
        if not torch.autograd.gradcheck(lambda x, *_: built(x), inputs, raise_exception=False, atol=1e-5):  # noqa: B023
            agrees, label = False, name
            break
    if not part.tags.exact_gradient:
        expect(not agrees, "declares exact_gradient=False, but its backward is the derivative of its forward")
        return
    expect(agrees, f"autograd differs from finite differences at the {label}", given=f"2 * randn(5, 4) away from {kinks}")
    built, step = module(part), 1e-6
    for kink in kinks:
        x = torch.tensor([kink], dtype=torch.float64, requires_grad=True)
        slope = torch.autograd.grad(scalar(built, x).sum(), x)[0].item()
        at = scalar(built, torch.tensor([kink - step, kink, kink + step], dtype=torch.float64))
        lo, hi = sorted((at.diff() / step).tolist())
        inside = lo - 1e-4 <= slope <= hi + 1e-4
        expect(
            inside,
            "the gradient at a kink is not between the slopes",
            given=kink,
            got=slope,
            wanted=f"{lo:.6g} to {hi:.6g}",
        )


def backward(part: ActivationPart) -> None:
    """A gradient that isn't the derivative of the forward is the one the part declares."""
    if part.backward is None:
        said = part.tags.exact_gradient or not elementwise(part)
        expect(said, "declares exact_gradient=False and no backward=, the derivative that it uses instead")
        raise Skip("its gradient is the derivative of its forward" if part.tags.exact_gradient else "not elementwise")
    expect(not part.tags.exact_gradient, "declares backward= and not Tags(exact_gradient=False)")
    near = torch.linspace(-8.0, 8.0, 12_801, dtype=torch.float64)  # steps of 1/800: no declared kink is between two
    for label, built in settings(part):
        learned, options = arguments_of(part, built)
        x = torch.cat((grid(), near, torch.tensor(part.tags.kinks, dtype=torch.float64))).requires_grad_()
        got = torch.autograd.grad(scalar(built, x).sum(), x)[0].tolist()
        wanted = [part.backward(value, *learned, **options) for value in x.tolist()]
        agree(f"differs from the declared backward at the {label}", x.tolist(), got, wanted, lambda w: 1e-9 * max(1.0, abs(w)))
    step = 1e-5
    inside = near[[bool(((v - torch.tensor(part.tags.kinks)).abs() > 2 * step).all()) for v in near]]
    built = module(part)
    slopes = (scalar(built, inside + step) - scalar(built, inside - step)) / (2 * step)
    learned, options = arguments_of(part, built)
    declared = torch.tensor([part.backward(v, *learned, **options) for v in inside.tolist()], dtype=torch.float64)
    expect(
        bool(((slopes - declared).abs() > 1e-3).any()),
        "declares exact_gradient=False, but its backward is the derivative of its forward",
    )


def smooth(part: ActivationPart) -> None:
    """The derivative jumps at the declared kinks and nowhere else; `smooth` says that there are none."""
    _only(part, "elementwise")
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
    _only(part, "elementwise")
    x = torch.linspace(-30.0, 30.0, 6001, dtype=torch.float64)

    def holds(built: nn.Module) -> float | None:
        down = x[:-1][scalar(built, x).diff() < -1e-12]
        return down[down.abs().argmin()].item() if len(down) else None

    _both_ways(part, "monotone", holds)


def parity(part: ActivationPart) -> None:
    """Odd: f(-x) = -f(x). Even: f(-x) = f(x). Exactly if declared."""
    _only(part, "elementwise")
    x = torch.linspace(0.0, 30.0, 3001, dtype=torch.float64)
    for tag, sign in (("odd", -1.0), ("even", 1.0)):

        def holds(built: nn.Module, sign: float = sign) -> float | None:
            y = scalar(built, x)
            off = x[(scalar(built, -x) - sign * y).abs() > 1e-10 * y.abs().clamp(min=1.0)]
            return off[0].item() if len(off) else None

        _both_ways(part, tag, holds)


def scale_invariant(part: ActivationPart) -> None:
    """f(c x) = f(x) for c > 0, exactly if declared."""
    _only(part, "elementwise", "rowwise")

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


def _relative(tolerance: float, wanted: float) -> float:
    return tolerance * max(1.0, abs(wanted))


def identities(part: ActivationPart) -> None:
    """Declared identities hold, and so do alias_of and equals_at_init; what is equal at every setting is an alias."""
    if not (part.identities or part.equals_at_init or part.alias_of):
        raise Skip("declares no identity")
    for identity in part.identities:
        other = catalogue.get(identity.other)
        x = torch.linspace(*identity.domain, 402, dtype=torch.float64).reshape(67, 6)
        ours = module(part, 6, **identity.options)(x)
        theirs = identity.scale_y * module(other, 6, **identity.other_options)(identity.scale_x * x)  # type: ignore[arg-type]
        what = f"differs from {identity.other} ({identity.note or identity.options})"
        inputs, got, wanted = (t.flatten().tolist() for t in (x, ours, theirs))
        agree(what, inputs, got, wanted, partial(_relative, identity.tolerance))
    for name in (*part.equals_at_init, *filter(None, (part.alias_of,))):
        same = agreement(part, catalogue.get(name))  # type: ignore[arg-type]
        expect(same in ("alias", "init"), f"differs from {name} at the default setting")
        wanted = "alias_of" if same == "alias" else "equals_at_init"
        expect((name == part.alias_of) == (same == "alias"), f"equal to {name}; declare it as {wanted}")


def agreement(a: ActivationPart, b: ActivationPart) -> str:
    """Where two parts agree, gradients included: "alias" at the default and both perturbed settings, "init" at the default."""
    if a.tags.shape != b.tags.shape or a.ratio != b.ratio:
        return ""
    verdicts: list[bool] = []
    ours, theirs = (list(settings(p, 4, choices=False)) for p in (a, b))
    for i in range(max(len(ours), len(theirs))):
        (_, f), (_, g) = ours[min(i, len(ours) - 1)], theirs[min(i, len(theirs) - 1)]
        verdicts.append(all(torch.allclose(u, v, rtol=1e-9, atol=1e-10) for u, v in zip(trace(f), trace(g), strict=True)))
        if not verdicts[0]:
            return ""
    return "alias" if all(verdicts) else "init"


def trace(built: Any) -> tuple[Tensor, Tensor]:
    """Outputs and gradients (of a weighted sum) of a module of four channels on the same rows for every part."""
    x = torch.cat([r[:, :4] for r in rows(built.part, seed=7) if r.shape[1] >= 4]).requires_grad_()
    y = built(x)
    weight = torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).reshape(y.shape)
    return y.detach(), torch.autograd.grad((y * weight).sum(), x)[0]


def twins(parts: Sequence[ActivationPart]) -> Iterator[tuple[ActivationPart, ActivationPart, str]]:
    """Every pair that agrees at its defaults, and how: "alias" or "init"."""
    traces = [trace(module(part, 4)) for part in parts]
    for (a, ours), (b, theirs) in combinations(zip(parts, traces, strict=True), 2):
        if all(u.shape == v.shape and torch.allclose(u, v, rtol=1e-9, atol=1e-10) for u, v in zip(ours, theirs, strict=True)):
            if found := agreement(a, b):
                yield a, b, found
