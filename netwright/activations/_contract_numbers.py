"""Numbers of an activation: its values and gradients against the reference, at extremes and at infinity."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from netwright.activations._contract_settings import (
    STATELESS,
    agree,
    agree_rows,
    arguments_of,
    dtypes,
    elementwise,
    grid,
    module,
    only,
    referenced,
    rows,
    scalar,
    settings,
    spread,
)
from netwright.activations._kind import ActivationPart
from netwright.core.contract import Skip, expect

EXTREMES = (1e4, 1e10, 1e20, math.inf)  # the last stands for the largest finite number


def reference(part: ActivationPart) -> None:
    """In float64 the function equals its reference, at the default, perturbed and every other setting."""
    only(part, *STATELESS)
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
    only(part, *STATELESS)
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
    only(part, "elementwise")
    for dtype in dtypes(part):
        built = module(part, dtype=dtype)
        x = [-math.inf, math.inf]
        got = scalar(built, torch.tensor(x, dtype=dtype)).double().tolist()
        agree(f"{dtype} at infinity", x, got, referenced(part, built, x), spread(dtype))


def limits(part: ActivationPart) -> None:
    """The reference tends to the declared limits."""
    only(part, "elementwise")
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
    only(part, *STATELESS)
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
    only(part, *STATELESS)
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
