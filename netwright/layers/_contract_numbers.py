"""Numbers of layers and norms: the reference, finite and repeatable outputs, gradients, dtypes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core.contract import Skip, expect
from netwright.layers._contract_cases import cases, default, near, raises, same_state, state
from netwright.tensor.modules import LOW, SizedPart

# Checks ---------------------------------------------------------------------------------------------------------------


def reference(part: Any) -> None:
    """In float64 the module equals its second writing at every setting: as drawn and shaken, in training where it differs."""
    expect(part.reference, "no reference: write the module as loops, without its own methods")
    for case in cases(part):
        for shaken in (False, True):
            for train in (False, True) if part.tags.stateful else (False,):
                built, twin = (case.build(shaken=shaken, train=train).requires_grad_(False) for _ in range(2))
                x = case.rows()
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)
                    got = built(x)
                    torch.manual_seed(0)
                    wanted = part.reference(twin, x)
                mode = "training" if train else "evaluation"
                near(f"differs from the reference in {mode}{', shaken' if shaken else ''}", got, wanted, 1e-9, case)


def pure(part: SizedPart) -> None:
    """In evaluation a forward changes nothing: input, state, torch's generator; called again it gives the same."""
    for case in cases(part):
        built, x = case.build(), case.rows()
        before, given, rng = state(built), x.clone(), torch.get_rng_state()
        first, second = built(x), built(x)
        expect(torch.equal(first, second), "two calls on one input differ", given=case)
        expect(torch.equal(x, given), "changes its input", given=case)
        expect(not same_state(before, state(built)), "evaluation changes", given=case, got=same_state(before, state(built)))
        expect(torch.equal(rng, torch.get_rng_state()), "evaluation draws from torch's generator", given=case)
        if not part.tags.stateful:
            near("training differs from evaluation; tag it stateful", built.train()(x), first, 0.0, case)
            expect(not same_state(before, state(built)), "training changes state; tag it stateful", given=case)


def mates(part: SizedPart) -> None:
    """In evaluation no row of a batch depends on another, nor in training unless tagged batchwise; alone it gives the same."""
    for case in cases(part):
        for train in (False, True):
            if train and part.tags.batchwise:
                continue
            built, x = case.build(shaken=True, train=train), case.rows(4)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                y = case.build(shaken=True, train=train)(x)
                moved = x.clone()
                moved[2] = case.rows(1, seed=9)[0]
                torch.manual_seed(0)
                changed = case.build(shaken=True, train=train)(moved)
            others = torch.tensor([0, 1, 3])
            where = f"{case}, {'training' if train else 'evaluation'}"
            near("a row depends on another row", changed[others], y[others], 1e-12, where)
            expect(not torch.equal(changed[2], y[2]), "a row doesn't depend on itself", given=where)
            if not part.tags.stateful or not train:
                near("a batch of one row", built(x[:1]), y[:1], 1e-9, where)


def finite(part: SizedPart) -> None:
    """Outputs and gradients are finite far outside the usual range, on constant and equal rows, and on a batch of one."""
    for case in cases(part):
        for label, x in (
            ("normal", case.rows(4, dtype=torch.float32)),
            ("times 1e4", 1e4 * case.rows(4, dtype=torch.float32)),
            ("zeros", torch.zeros_like(case.rows(4, dtype=torch.float32))),
            ("one row", case.rows(1, dtype=torch.float32)),
            ("equal rows", case.rows(1, dtype=torch.float32).expand(4, *part.row(**case.options)).contiguous()),
        ):
            built = case.build(torch.float32, train=True)
            if label == "one row" and part.tags.batchwise:
                built.eval()
            x.requires_grad_()
            y = built(x)
            wanted = [p for p in built.parameters() if p.requires_grad]
            grads = torch.autograd.grad(y.sum(), [x, *wanted], allow_unused=True)
            where = f"{case}, {label}"
            expect(y.isfinite().all(), "the output isn't finite", given=where)
            expect(all(g is None or g.isfinite().all() for g in grads), "a gradient isn't finite", given=where)
            expect(not same_nonfinite(built), "the state isn't finite after training", given=where, got=same_nonfinite(built))


def same_nonfinite(module: nn.Module) -> list[str]:
    return [n for n, t in state(module).items() if t.is_floating_point() and not bool(t.isfinite().all())]


def gradcheck(part: SizedPart) -> None:
    """Gradients by input and parameters agree with differences in float64."""
    if not part.tags.smooth or not part.tags.exact_gradient:
        raise Skip("its gradient jumps" if not part.tags.smooth else "its backward is declared not to be the derivative")
    for case in cases(part):
        built = case.build(shaken=True)
        names = [n for n, p in built.named_parameters() if p.requires_grad]
        x = case.rows(2).requires_grad_()

        def function(x: Tensor, *values: Tensor, built: Any = built, names: list[str] = names) -> Tensor:
            return torch.func.functional_call(built, dict(zip(names, values, strict=True)), (x,))

        values = [built.get_parameter(n).detach().requires_grad_() for n in names]
        try:
            torch.autograd.gradcheck(function, (x, *values), atol=1e-5, rtol=1e-4, fast_mode=True)
        except RuntimeError as error:  # the kind that gradcheck raises
            expect(False, "gradients are off", given=case, got=" ".join(str(error).split())[:300])


def dtype(part: SizedPart) -> None:
    """A module in bfloat16 or float16 gives that dtype and comes near its float32 values; whole numbers are refused."""
    case = default(part)
    for low in LOW:
        built = case.build(low)
        wide, x = copy.deepcopy(built).float(), case.rows(4, dtype=low)
        y = built(x)
        expect(y.dtype == low, "dtype of the output", given=low, got=y.dtype)
        near(f"in {low}", y, wide(x.float()), 0.05 if low == torch.bfloat16 else 0.02, case)
    raises("whole numbers", "torch.int64", lambda: case.build()(case.rows().long()))


def autocast(part: SizedPart) -> None:
    """Under autocast a float32 or bfloat16 input gives a finite output near the float32 one, and gradients in float32."""
    case = default(part)
    built, x = case.build(torch.float32), case.rows(4, dtype=torch.float32)
    wanted = built(x)
    for given in (x, x.bfloat16()):
        built.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            y = built(given)
        near(f"under autocast from {given.dtype}", y, wanted, 0.05, case)
        if any(p.requires_grad for p in built.parameters()):
            y.float().square().sum().backward()
            grads = [p.grad for p in built.parameters() if p.grad is not None]
            expect(grads and all(g.dtype == torch.float32 for g in grads), "dtype of parameter gradients under autocast")
