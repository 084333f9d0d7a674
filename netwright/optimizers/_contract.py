"""Checks of optimizers and schedules. Steps are compared by how far they moved, which of some is a millionth of the values."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap

from netwright.core.contract import Check, Skip, Wrong, expect
from netwright.core.errors import BadInput
from netwright.core.part import Option
from netwright.optimizers._kind import OptimizerPart, SchedulePart, toy
from netwright.tensor.groups import parameter_groups
from netwright.tensor.stepping import NET, REST, State, reading

STEPS = 20
DECAY = 0.1
Gradient = Callable[[Any], Any]


def of_steps(check: Callable[[Any], None]) -> Callable[[Any], None]:
    """A check of optimizers alone."""

    @wraps(check)
    def checked(part: Any) -> None:
        if not isinstance(part, OptimizerPart):
            raise Skip("a schedule")
        check(part)

    return checked


def of_schedules(check: Callable[[Any], None]) -> Callable[[Any], None]:
    """A check of schedules alone."""

    @wraps(check)
    def checked(part: Any) -> None:
        if not isinstance(part, SchedulePart):
            raise Skip("an optimizer")
        check(part)

    return checked


# What the checks run ---------------------------------------------------------------------------------------------------


def shapes(part: OptimizerPart) -> list[tuple[int, ...]]:
    """What its step is given: (matrices, out, rest), and flat."""
    if part.tags.matrices:
        return [(1, 4, 3), (1, 3, 5)]
    return [(7,), (1, 4, 3)] if part.tags.scope == "tensor" else [(7,)]


def moved(option: Option) -> Any:
    """Another value of an option."""
    value = option.default
    if option.allowed:
        return next(other for other in option.allowed if other != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 2
    if isinstance(value, float):
        low, high = option.bounds or (-math.inf, math.inf)
        tries = (0.7 * value, 1.3 * value, 0.3, 0.05, 2.0)
        return next(v for v in tries if low < v < high and not math.isclose(v, value, rel_tol=0.02, abs_tol=1e-12))
    raise Wrong(f"no other value of {option.name} is known to the checks; give allowed= or settings=")


def settings(part: OptimizerPart | SchedulePart) -> Iterator[dict[str, Any]]:
    """All options at their defaults, at each of the part's own settings, and one moved at a time from each of these."""
    bases = [part.resolve({}), *(part.resolve(base) for base in getattr(part, "settings", ()))]
    seen: list[dict[str, Any]] = []
    for base in bases:
        for options in (base, *({**base, o.name: moved(o)} for o in part.options if o.name not in REST)):
            if options not in seen:
                seen.append(options)
                yield options


def steps_of(
    part: OptimizerPart,
    p: Tensor,
    gradient: Gradient,
    n: int,
    *,
    lr: Any,
    weight_decay: Any = 0.0,
    options: Mapping[str, Any] | None = None,
    factor: Callable[[int], float] = lambda step: 1.0,
) -> Iterator[tuple[Tensor, State]]:
    """(values, state) after each of n steps of the first writing."""
    own, state = part.own(options or part.resolve({})), part.start(p)
    for t in range(1, n + 1):
        p, state = part.steps(gradient(p), state, p, t, lr=lr * factor(t - 1), weight_decay=weight_decay, **own)
        yield p, state


def rate(part: OptimizerPart) -> float:
    """A rate at which its steps on the toy's bowl, whose curvature is up to 5, don't grow."""
    return min(part.tags.published, 0.05) if part.tags.scaling == "linear" else part.tags.published


def decays(part: OptimizerPart) -> tuple[float, ...]:
    return (0.0,) if part.tags.decay == "none" else (0.0, DECAY)


def close(what: str, got: Any, wanted: Any, before: Any, tolerance: float = 1e-7, given: Any = None) -> None:
    """Both moved alike from `before`, within the tolerance of the larger of how far they moved."""
    a, b, start = (np.asarray(v.detach() if isinstance(v, Tensor) else v, dtype=np.float64) for v in (got, wanted, before))
    far = max(float(np.abs(a - start).max(initial=0.0)), float(np.abs(b - start).max(initial=0.0)), 1e-300)
    off = float(np.abs(a - b).max(initial=0.0)) / far
    expect(off <= tolerance, f"{what}: {off:.2g} of how far it moved", given=given, got=a.ravel()[:4], wanted=b.ravel()[:4])


# Optimizers ------------------------------------------------------------------------------------------------------------


@of_steps
def second_writing(part: OptimizerPart) -> None:
    """After each of 20 steps on a dense, ill-conditioned bowl it is where the second writing is, at every setting."""
    for shape in shapes(part):
        start, gradient = toy(shape)
        flat = start[0] if len(shape) == 3 else start  # the second writing knows one matrix
        slope = _one_matrix(gradient, shape)
        for lr, decay, options in itertools.product((rate(part),), decays(part), settings(part)):
            own = part.own(options)
            ours = steps_of(part, torch.from_numpy(start), gradient, STEPS, lr=lr, weight_decay=decay, options=options)
            theirs = part.reference(flat.copy(), slope, STEPS, lr=lr, weight_decay=decay, **own)
            for t, ((p, state), wanted) in enumerate(zip(ours, theirs, strict=True), 1):
                given = {"step": t, "shape": shape, "weight_decay": decay, **own}
                values, read = wanted if part.read is not None else (wanted, None)
                close("the values", p.reshape(flat.shape), values, flat, given=given)
                if part.read is not None:
                    close("what is read", part.read(p, state, **own).reshape(flat.shape), read, flat, given=given)


def _one_matrix(gradient: Gradient, shape: tuple[int, ...]) -> Gradient:
    return lambda p: gradient(p.reshape(shape)).reshape(p.shape)


@of_steps
def twin(part: OptimizerPart) -> None:
    """torch's own class, given the same options, is at the same values after every step."""
    if part.twin is None:
        raise Skip("torch has none that the engine uses")
    start, gradient = toy((7,))
    for weight_decay in decays(part):
        for options in settings(part):
            p = torch.from_numpy(start.copy())
            theirs = part.build([p], rate(part), weight_decay, **options)
            for own, _ in steps_of(part, p.clone(), gradient, STEPS, lr=rate(part), weight_decay=weight_decay, options=options):
                p.grad = gradient(p)
                theirs.step()
                close(part.twin.cls.__name__, own, p, start, 1e-7, {"weight_decay": weight_decay, **options})


@of_steps
def scope(part: OptimizerPart) -> None:
    """What is said to know nothing of each other (values, tensors) doesn't, and what is said to know does."""
    start, slope = toy((2, 4, 3) if part.tags.scope == "tensor" else (6,))
    at = torch.from_numpy(start)

    def run(g: Tensor, options: Mapping[str, Any], at: Tensor = at) -> Tensor:
        *_, (p, _) = steps_of(part, at, lambda p: g * (1 + 0.1 * p), 5, lr=rate(part), options=options)
        return p

    first = slope(at)
    other, one = first.clone(), first.clone()
    other[-1] = 0.3 - 2.5 * other[-1]
    one.view(-1)[0] *= -2
    coupled = False
    for base in ({}, *part.settings):
        options = part.resolve(base)
        a, b = run(first, options), run(other, options)
        if part.tags.scope == "net":
            coupled |= not torch.equal(a[:-1], b[:-1])
            continue
        expect(torch.equal(a[:-1], b[:-1]), f"scope {part.tags.scope!r}, yet the gradient of another changes it", given=base)
        if part.tags.scope == "value":
            order = torch.tensor([3, 1, 5, 0, 4, 2])
            same = torch.equal(run(first[order], options, at[order]), a[order])
            expect(same, "it isn't the same for every place of a tensor", given=base)
        coupled |= bool((run(one, options) != a).view(-1)[1:].any())
    if part.tags.scope != "value":
        whole = {"net": "to sum over a net", "tensor": "to know its whole matrix"}[part.tags.scope]
        expect(coupled, f"it is said {whole}, yet no value's gradient moves another")


@of_steps
def stacked(part: OptimizerPart) -> None:
    """Mapped over copies, each with its rate, it gives what it gives one by one; and branches on no value."""
    if part.why_not_stackable:
        raise Skip(part.why_not_stackable)
    own, decay = part.own(part.resolve({})), decays(part)[-1]
    shares = (1.0, 1.0, 1.0) if part.tags.free else (1.0, 0.5, 0.1)
    rates = rate(part) * torch.tensor(shares, dtype=torch.float64)
    for shape in shapes(part):
        at, slope = toy(shape)
        copies = torch.from_numpy(np.stack([at, 0.5 * at, -at]))
        p, state = copies, vmap(part.start)(copies)
        for t in range(1, 6):
            step = vmap(lambda g, s, p, lr, t=t: part.steps(g, s, p, t, lr=lr, weight_decay=decay, **own))
            p, state = step(torch.stack([slope(one) for one in p]), state, p, rates)
        for k in range(3):
            *_, (alone, _) = steps_of(part, copies[k], slope, 5, lr=float(rates[k]), weight_decay=decay)
            close(f"copy {k}", p[k], alone, copies[k], 1e-8)


@of_steps
def pure(part: OptimizerPart) -> None:
    """A step changes nothing in place and keeps shape and dtype; the state is as large as the values, or one number."""
    for shape in (*shapes(part), *([(0,)] if not part.tags.matrices else [])):
        for dtype in (torch.float32, torch.float64):
            start, gradient = toy(shape) if math.prod(shape) else (np.zeros(0), lambda p: p)
            p = torch.from_numpy(start).to(dtype)
            state, g, own = part.start(p), gradient(p), part.own(part.resolve({}))
            for t in (1, 2):
                before = {name: s.clone() for name, s in state.items()} | {"the gradient": g.clone(), "the values": p.clone()}
                new, after = part.steps(g, state, p, t, lr=rate(part), weight_decay=decays(part)[-1], **own)
                for name, s in {**state, "the gradient": g, "the values": p}.items():
                    expect(torch.equal(s, before[name]), f"{name} was changed in place", given=(shape, t))
                expect((new.shape, new.dtype) == (p.shape, dtype), "another shape or dtype", got=(new.shape, new.dtype))
                expect(
                    after.keys() == state.keys(), "the state has other names after a step", got=list(after), wanted=list(state)
                )
                for name, s in after.items():
                    expect(s.dtype == dtype, f"the state {name!r} is {s.dtype}", wanted=dtype)
                    expect(s.dim() == 0 or s.shape == p.shape, f"the state {name!r} has the shape {tuple(s.shape)}", wanted=shape)
                expect(bool(torch.isfinite(new).all()), "not finite", given=(shape, t))
                p, state = new, after


@of_steps
def decay(part: OptimizerPart) -> None:
    """Decay enters where it is said to, at two rates."""
    if part.tags.decay == "none":
        try:
            part.accept(rate(part), DECAY)
        except BadInput:
            return
        raise Wrong("it has no decay, and takes one")
    start, gradient = toy(shapes(part)[0])
    p = torch.from_numpy(start)
    for lr in (rate(part), 0.1 * rate(part)):
        if part.tags.decay == "decoupled":
            own, state = part.own(part.resolve({})), part.start(p)
            new = p
            for t in (1, 2):
                new, state = part.steps(torch.zeros_like(p), state, new, t, lr=lr, weight_decay=DECAY, **own)
            close("without a gradient, p (1 - lr decay)^2", new, p * (1 - lr * DECAY) ** 2, p, 1e-6, lr)
            continue
        *_, (a, _) = steps_of(part, p, gradient, 5, lr=lr, weight_decay=DECAY)
        *_, (b, _) = steps_of(part, p, lambda p: gradient(p) + DECAY * p, 5, lr=lr)
        close("a decay is a part of the gradient", a, b, p, 1e-8, lr)


@of_steps
def options_matter(part: OptimizerPart) -> None:
    """Every option, moved off its default, changes where it gets to."""
    start, slope = toy(shapes(part)[-1])
    p = torch.from_numpy(start)

    def end(options: Mapping[str, Any], lr: float) -> Tensor:
        run = steps_of(part, p, slope, STEPS, lr=lr, weight_decay=decays(part)[-1], options=options)
        *_, (end, state) = run
        return torch.stack([end, part.read(end, state, **part.own(options)) if part.read else end])

    bases = [part.resolve(base) for base in ({}, *part.settings)]
    rates = (rate(part),) if part.tags.free else (rate(part), 30 * rate(part))
    for option in part.options:
        if option.name not in REST:
            tries = [(base, lr) for base in bases for lr in rates]
            ends = [(end(base, lr), end({**base, option.name: moved(option)}, lr)) for base, lr in tries]
            matters = any(not torch.equal(a, b) for a, b in ends if bool(torch.isfinite(a).all()))
            expect(matters, f"{option.name}={moved(option)!r} does nothing", given=bases)


@of_steps
def scaling(part: OptimizerPart) -> None:
    """The first step of a loss ten times as large is the same, or ten times as large, as declared."""
    start, slope = toy(shapes(part)[0])
    p, own = torch.from_numpy(start), part.own(part.resolve({}))

    def first(c: float) -> Tensor:
        return part.steps(c * slope(p), part.start(p), p, 1, lr=rate(part), weight_decay=0.0, **own)[0] - p

    a, b = first(1.0), first(10.0)
    found = [name for name, c in (("same", 1.0), ("linear", 10.0)) if float((b - c * a).abs().max() / (c * a).abs().max()) < 1e-4]
    expect(found == [part.tags.scaling] * bool(part.tags.scaling), "scaling", got=found, wanted=part.tags.scaling)


@of_steps
def standing_still(part: OptimizerPart) -> None:
    """Without a gradient, and at a rate of 0, nothing moves and nothing breaks; a gradient that isn't a number shows."""
    own = {**part.own(part.resolve({})), "weight_decay": 0.0}
    for shape in shapes(part):
        start, slope = toy(shape)
        p = torch.from_numpy(start)
        state, none = part.start(p), torch.zeros_like(p)
        for t in (1, 2, 3):
            new, state = part.steps(none, state, p, t, lr=rate(part), **own)
            still = torch.allclose(new, p, rtol=1e-12, atol=1e-12)
            expect(still, "it moves without a gradient", given=(shape, t), got=new.flatten()[:3])
        new, state = part.steps(slope(p), part.start(p), p, 1, lr=0.0, **own)
        expect(torch.allclose(new, p, rtol=1e-12, atol=1e-12), "it moves at a rate of 0", given=shape)
        new, _ = part.steps(slope(p), state, new, 2, lr=rate(part), **own)
        expect(bool(torch.isfinite(new).all()) and not torch.equal(new, p), "after a rate of 0 it never moves again", given=shape)
        bad = slope(p).clone()
        bad.view(-1)[1] = math.nan
        new, _ = part.steps(bad, part.start(p), p, 1, lr=rate(part), **own)
        expect(bool(new.isnan().view(-1)[1]), "a gradient of NaN leaves its value a number", given=shape, got=new.flatten()[:3])


@of_steps
def minimum(part: OptimizerPart) -> None:
    """On a bowl of condition 10 it ends within a hundredth of the loss it began with, at one of three rates that fall to 0."""
    shape, n = shapes(part)[-1], 600
    count = math.prod(shape)
    draw = np.random.default_rng(1)
    basis, _ = np.linalg.qr(draw.standard_normal((count, count)))
    bowl = torch.from_numpy((basis * np.geomspace(0.3, 3.0, count)) @ basis.T)
    least, start = torch.from_numpy(draw.standard_normal((2, count)))

    def loss(p: Tensor) -> float:
        off = p.reshape(-1) - least
        return float(off @ bowl @ off)

    ends = []
    for factor in (1.0,) if part.tags.free else (1.0, 10.0, 100.0):
        lr, own = rate(part) * factor, part.own(part.resolve({}))
        *_, (p, state) = steps_of(
            part,
            start.reshape(shape),
            lambda p: (bowl @ (p.reshape(-1) - least)).reshape(shape),
            n,
            lr=lr,
            factor=lambda s: 1 - s / n,
        )
        ends.append(loss(part.read(p, state, **own) if part.read else p) / loss(start))
    ends = [e for e in ends if math.isfinite(e)]
    expect(ends and min(ends) <= 0.01, f"it stays away from the minimum of a bowl in {n} steps", got=ends, wanted="at most 0.01")


class _Small(nn.Module):
    """One tensor of every sort: a table, a convolution, a norm, two matrices, biases; and one that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.conv, self.norm = nn.Embedding(5, 4), nn.Conv1d(4, 6, 3, padding=1), nn.LayerNorm(6)
        self.hidden, self.head = nn.Linear(6, 8), nn.Linear(8, 2)
        self.unused = nn.Parameter(torch.zeros(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(self.table(x).transpose(1, 2)).transpose(1, 2)
        return self.head(torch.tanh(self.hidden(self.norm(h)))).mean(1)


def small(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    """(a net of every sort of tensor, its loss on one batch)."""
    draw = torch.Generator().manual_seed(3)
    net = _Small()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.4 * torch.randn(p.shape, generator=draw))
    x, y = torch.randint(5, (16, 3), generator=draw), torch.randn(16, 2, generator=draw)
    return net.to(dtype), lambda net: (net(x).double() - y.double()).square().mean()


def train(net: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[nn.Module], Tensor], n: int) -> float:
    for _ in range(n):
        optimizer.zero_grad()
        loss(net).backward()
        optimizer.step()
    return float(loss(net).detach())


@of_steps
def trains(part: OptimizerPart) -> None:
    """As an optimizer for torch it lowers the loss of a net of every sort of tensor; what has no gradient stays as it is."""
    last = math.inf
    for share in (1.0,) if part.tags.free else (3.0, 0.3):
        net, loss = small()
        before, first = copy.deepcopy(net.state_dict()), float(loss(net).detach())
        optimizer = part.build(net, None if part.tags.free else rate(part) * share, decays(part)[-1] * 0.01)
        train(net, optimizer, loss, 120)
        with reading(optimizer):
            last = min(last, float(loss(net).detach()))
    expect(last < first, "120 steps don't lower the loss", got=last, wanted=f"below {first:.4g}")
    for name, p in net.named_parameters():
        same = torch.equal(p, before[name])
        expect(same == (name == "unused"), f"{name} {'stays as it is' if same else 'moves without a gradient'}")
    train(net, optimizer, loss, 1)
    at = copy.deepcopy(net.state_dict())
    with reading(optimizer):
        pass
    expect(all(torch.equal(v, at[k]) for k, v in net.state_dict().items()), "reading leaves the net elsewhere")


@of_steps
def resumed(part: OptimizerPart) -> None:
    """Saved, and loaded into one whose groups stand in another order, it goes on as if nothing had been."""
    (net, loss), lr = small(), None if part.tags.free else rate(part)
    optimizer = part.build(net, lr, decays(part)[-1])
    train(net, optimizer, loss, 4)
    kept, saved = copy.deepcopy(net), copy.deepcopy(optimizer.state_dict())
    train(net, optimizer, loss, 4)
    groups = parameter_groups(kept, decays(part)[-1])
    groups.reverse()
    other = part.build(groups, lr)
    other.load_state_dict(saved)
    train(kept, other, loss, 4)
    near = 1e-7 if part.tags.scope == NET else 0.0  # sums over a net are taken in the order of its groups
    for a, b in zip(net.parameters(), kept.parameters(), strict=True):
        expect(torch.allclose(a, b, rtol=near, atol=near), "resumed, it goes elsewhere", got=float((a - b).abs().max()))


# Schedules -------------------------------------------------------------------------------------------------------------


@of_schedules
def second_schedule(part: SchedulePart) -> None:
    """At every step, of runs of four lengths, and at every setting it is the second writing, a share from 0."""
    for options in settings(part):
        for steps in (1, 2, 7, 100):
            for step in range(steps + 1):
                got, wanted = part.at(step, steps=steps, **options), part.reference(step, steps, **options)
                given = {"step": step, "steps": steps, **options}
                expect(math.isclose(got, wanted, rel_tol=1e-9, abs_tol=1e-12), "the factor", given=given, got=got, wanted=wanted)


@of_schedules
def known(part: SchedulePart) -> None:
    """At steps known on paper it is what is known."""
    expect(bool(part.values), "values= names no step")
    for (step, steps), wanted in part.values.items():
        got = part.build(steps)(step)
        expect(math.isclose(got, wanted, rel_tol=1e-9, abs_tol=1e-12), "the factor", given=(step, steps), got=got, wanted=wanted)


@of_schedules
def continuous(part: SchedulePart) -> None:
    """Its jumps from step to step go to 0 as steps get many, and it bends where phases are said to meet."""
    for options in settings(part):
        jumps = []
        for steps in (2_000, 20_000):
            rows = np.array([part.at(step, steps=steps, **options) for step in range(steps + 1)])
            jumps.append(float(np.abs(np.diff(rows)).max()))
        expect(jumps[1] <= 0.4 * jumps[0] + 1e-12, "it jumps", given=options, got=jumps)
        bends = np.abs(np.diff(rows, 2))
        for joint in part.joints(**options):
            at = round(joint * 20_000)
            near = bends[max(0, at - 3) : at + 3].max(initial=0.0)
            usual = float(np.median(bends))
            expect(
                near > 3 * usual + 1e-12, f"nothing happens at {joint} of the steps, where phases meet", given=options, got=near
            )


@of_schedules
def past_its_end(part: SchedulePart) -> None:
    """Asked before its start or past its end it says so."""
    at = part.build(10)
    for step in (-1, 11):
        try:
            at(step)
        except BadInput:
            continue
        raise Wrong(f"step {step} of 10 gives {at(step)}")


@of_schedules
def schedule_options(part: SchedulePart) -> None:
    """Every option, moved off its default, changes the factor at some step."""
    for option in part.options:
        rows = [
            [part.at(s, steps=60, **{**part.resolve({}), option.name: v}) for s in range(61)]
            for v in (option.default, moved(option))
        ]
        expect(rows[0] != rows[1], f"{option.name}={moved(option)!r} does nothing")


CHECKS = (
    Check("second_writing", second_writing),
    Check("twin", twin),
    Check("scope", scope),
    Check("stacked", stacked),
    Check("pure", pure),
    Check("decay", decay),
    Check("options_matter", options_matter),
    Check("scaling", scaling),
    Check("standing_still", standing_still),
    Check("minimum", minimum),
    Check("trains", trains),
    Check("resumed", resumed),
    Check("second_schedule", second_schedule),
    Check("known", known),
    Check("continuous", continuous),
    Check("past_its_end", past_its_end),
    Check("schedule_options", schedule_options),
)
