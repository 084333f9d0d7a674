"""What checks of layers and norms share: modules at every setting, inputs, and the checks that both kinds make."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.contract import Skip, expect
from netwright.core.errors import BadInput, UnknownName
from netwright.tensor.modules import LOW, SizedPart, drawn
from netwright.tensor.streams import generator, initialise
from netwright.tensor.tap import tapped


@final
@dataclass(frozen=True)
class Case:
    """One setting of one part."""

    part: SizedPart
    options: dict[str, Any]

    def __str__(self) -> str:
        return ", ".join(f"{k}={v!r}" for k, v in self.options.items()) or "default"

    def build(self, dtype: torch.dtype = torch.float64, seed: int = 0, shaken: bool = False, train: bool = False) -> Any:
        """The module drawn by the seed; shaken: parameters and running statistics moved off their start."""
        built = drawn(self.part.cls, **{**self.part.toy, **self.options}, seed=seed, dtype=dtype)
        if shaken:
            g = generator(seed, "probe", "shake")
            with torch.no_grad():
                for p in built.parameters():
                    if p.requires_grad:
                        p.add_(0.1 * torch.randn(p.shape, generator=g, dtype=torch.float64).to(p))
                if self.part.tags.stateful:
                    with torch.random.fork_rng(devices=[]):
                        torch.manual_seed(seed)
                        built.train()(self.rows(5, seed + 1, dtype))
        return built.train(train)

    def rows(self, n: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        """n rows of standard normal numbers."""
        g = generator(seed, "probe", "rows")
        return torch.randn(n, *self.part.row(**self.options), generator=g, dtype=torch.float64).to(dtype)


def cases(part: SizedPart) -> Iterator[Case]:
    """Every setting the checks run, the toy's own first."""
    for options in part.points():
        yield Case(part, options)


def default(part: SizedPart) -> Case:
    return Case(part, part.points()[0])


def near(what: str, got: Tensor, wanted: Tensor, tolerance: float, given: Any = None) -> None:
    """Raise Wrong unless shapes agree and values are within tolerance * max(1, the largest wanted magnitude)."""
    expect(got.shape == wanted.shape, f"{what}: shape", given=given, got=tuple(got.shape), wanted=tuple(wanted.shape))
    if not wanted.numel():
        return
    a, b = got.detach().double(), wanted.detach().double()
    gap = (a - b).abs().nan_to_num(torch.inf)
    worst = int(gap.argmax())
    fits, label = float(gap.max()) <= tolerance * max(1.0, float(b.abs().max())), f"{what} (difference {float(gap.max()):.3g})"
    expect(fits, label, given=given, got=a.flatten()[worst].item(), wanted=b.flatten()[worst].item())


def raises(what: str, named: str, call: Any) -> None:
    """The call has to raise one of netwright's own errors that names what was wrong."""
    try:
        call()
    except (BadInput, UnknownName) as error:
        expect(named in str(error), f"{what}: the message doesn't name {named!r}", got=str(error))
        return
    except Exception as error:  # any other error is the failure being looked for
        expect(False, f"{what}: raises {type(error).__name__} ({error})", wanted="BadInput or UnknownName")
    expect(False, f"{what}: is accepted", wanted="BadInput or UnknownName")


def state(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, those that are not saved too, as they are now."""
    named = (*module.named_parameters(), *module.named_buffers())
    return {name: t.detach().clone() for name, t in named}


def same_state(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    """Names whose values differ."""
    return sorted(name for name in a.keys() | b.keys() if name not in a or name not in b or not torch.equal(a[name], b[name]))


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
            ("normal", case.rows(4, dtype=torch.float32)), ("times 1e4", 1e4 * case.rows(4, dtype=torch.float32)),
            ("zeros", torch.zeros_like(case.rows(4, dtype=torch.float32))), ("one row", case.rows(1, dtype=torch.float32)),
            ("equal rows", case.rows(1, dtype=torch.float32).expand(4, *part.row(**case.options)).contiguous()),
        ):  # fmt: skip
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


def arguments(part: SizedPart) -> None:
    """Bad sizes and options raise with their name and value; the class takes exactly what is declared."""
    sizes = {k: v for k, v in part.toy.items() if k in part.size_names}
    own = {k: v for k, v in part.toy.items() if k not in part.size_names}
    raises("an option that doesn't exist", "no-such-option", lambda: part.build(**part.toy, **{"no-such-option": 1}))
    for name in sizes:
        for wrong in (0, -1, 1.5, True, "one"):
            if name in ("padding", "channel_dim") and wrong in (0, -1) and wrong is not True:
                continue
            shown = f"{name}={wrong!r}"
            raises(shown, shown, lambda name=name, wrong=wrong: part.build(**{**sizes, name: wrong}, **own))
    required = [name for name, value in part.size_names.items() if value is None]
    for name in required:
        raises(f"without {name}", name, lambda name=name: part.build(**{k: v for k, v in part.toy.items() if k != name}))
    for option in part.options:
        other = f"not-{option.default}" if isinstance(option.default, str) or option.allowed else "one"
        shown = f"{option.name}={other!r}"
        raises(shown, shown, lambda option=option, other=other: part.build(**{**part.toy, option.name: other}))
        if option.bounds is not None and math.isfinite(option.bounds[0]):
            low = type(option.default)(option.bounds[0])
            shown = f"{option.name}={low!r}"
            raises(shown, shown, lambda option=option, low=low: part.build(**{**part.toy, option.name: low}))
    taken = list(inspect.signature(part.cls).parameters.values())
    named = {p.name: p.default for p in taken if p.kind is p.KEYWORD_ONLY}
    declared = {o.name: o.default for o in part.options}
    expect(named == declared, "the class's keywords aren't the declared options", got=named, wanted=declared)
    in_order = [p.name for p in taken if p.kind is not p.KEYWORD_ONLY]
    expect(in_order == list(part.size_names), "the class's sizes", got=in_order, wanted=list(part.size_names))


def initialised(part: SizedPart) -> None:
    """Built on meta it draws nothing; the seed then fills all, and every seed otherwise. Built on real tensors it is ready."""
    for case in cases(part):
        rng = torch.get_rng_state()
        filled = []
        for seed in (3, 3, 4):
            with torch.device("meta"):
                built = part.cls(**{**part.toy, **case.options})
            expect(all(t.is_meta for t in (*built.parameters(), *built.buffers())), "not all on the meta device", given=case)
            built.to_empty(device="cpu")
            for t in (*built.parameters(), *built.buffers()):
                t.data.fill_(math.nan if t.is_floating_point() else 77 if t.dtype != torch.bool else False)
            initialise(built, seed)
            filled.append(state(built))
        expect(torch.equal(rng, torch.get_rng_state()), "the global random generator was used", given=case)
        strange = sorted(built.no_decay - set(built._parameters))
        expect(not strange, f"no_decay names {strange}, which are no parameters", given=case)
        expect(not same_state(filled[0], filled[1]), "one seed gives two starts", given=case, got=same_state(*filled[:2]))
        for name, t in filled[0].items():
            empty = bool(t.isnan().any()) if t.is_floating_point() else t.dtype != torch.bool and bool((t == 77).any())
            expect(not empty, f"{name} isn't filled", given=case)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            first = state(part.cls(**{**part.toy, **case.options}))
            second = state(part.cls(**{**part.toy, **case.options}))
            torch.manual_seed(0)
            again = state(part.cls(**{**part.toy, **case.options}))
        varies = bool(same_state(filled[0], filled[2]))
        expect(bool(same_state(first, second)) == varies, "two modules built one after the other start alike", given=case)
        expect(not same_state(first, again), "torch.manual_seed doesn't decide what is drawn", given=case)


def costs(part: SizedPart) -> None:
    """Declared parameters and products equal the counted ones; elementwise work is within a factor of two of the count."""
    from torch.utils.flop_counter import FlopCounterMode

    from netwright.layers._contract_costs import Pointwise

    for case in cases(part):
        built, x = case.build(torch.float32), case.rows(5, dtype=torch.float32)
        count = sum(p.numel() for p in built.parameters() if p.requires_grad)
        expect(
            part.cost(built, "parameters") == count, "parameters", given=case, got=part.cost(built, "parameters"), wanted=count
        )
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            y = built(x)
        inner = sum(
            m.part.rows(m, x) * m.part.cost(m, "products", x, y) for m in built.modules()
            if m is built and hasattr(m, "part")
        )  # fmt: skip
        counted = counter.get_total_flops()
        expect(math.isclose(inner, counted), "products", given=case, got=inner, wanted=counted)
        said = 0.0

        def look(path: str, module: Any, args: Any, output: Any) -> None:
            nonlocal said
            said += module.part.operations(module, args[0], output)  # noqa: B023

        parts = {path: m for path, m in built.named_modules() if hasattr(getattr(m, "part", None), "operations")}
        with tapped(parts, look), torch.no_grad(), Pointwise() as seen:
            built(x)
        fits = seen.count / 2 <= said <= 2 * seen.count or max(seen.count, said) <= 2 * y.numel()
        expect(fits, "elementwise operations", given=case, got=said, wanted=f"about {seen.count}")


def descent(part: SizedPart) -> None:
    """Fifty steps of Adam towards another module of the same kind bring the output nearer to it."""
    case = default(part)
    student, teacher, x = case.build(train=True), case.build(seed=5, shaken=True), case.rows(24)
    learns = [p for p in student.parameters() if p.requires_grad]
    if not learns:
        raise Skip("has nothing to train")
    target = teacher(x).detach()
    optimizer = torch.optim.Adam(learns, lr=1e-2)

    def gap() -> float:
        with torch.no_grad():
            return float((student(x) - target).square().mean())

    before = gap()
    for _ in range(50):
        optimizer.zero_grad()
        (student(x) - target).square().mean().backward()
        optimizer.step()
    after = gap()
    expect(after < before, "fifty steps don't bring it nearer to its target", got=after, wanted=f"below {before}")
