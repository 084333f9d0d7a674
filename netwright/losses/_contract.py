"""Checks of losses. Outputs, targets and weights are made for what a loss reads (its tag `outputs`)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vmap

from netwright.core.contract import Check, Skip, Wrong, expect
from netwright.core.errors import Misfit
from netwright.core.part import Option
from netwright.losses._kind import IGNORED, LossPart
from netwright.tensor.terms import reduced

ROWS = 12


def batch(part: LossPart, seed: int = 0, rows: int = ROWS, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Generic outputs and targets of one example a row."""
    draw = torch.Generator().manual_seed(seed)
    out = torch.randn(rows, part.columns, generator=draw, dtype=torch.float64)
    if part.tags.outputs == "values":
        return out.to(dtype), torch.randn(rows, part.columns, generator=draw, dtype=torch.float64).to(dtype)
    if part.tags.outputs == "lists":
        return out.to(dtype), torch.randint(4, (rows, part.columns), generator=draw)
    if part.tags.outputs == "ordinal":
        return out.abs().cumsum(1).to(dtype) - 1, torch.randint(part.columns + 1, (rows,), generator=draw)
    if part.tags.outputs == "binary":
        return 0.3 * out.to(dtype), torch.arange(rows) % 2
    return out.to(dtype), torch.randint(part.columns, (rows,), generator=draw)


def moved(option: Option) -> Any:
    """Another value of an option."""
    if option.allowed:
        return next(value for value in option.allowed if value != option.default)
    if isinstance(option.default, bool):
        return not option.default
    if isinstance(option.default, int):
        return option.default + 100  # 0, of labels to ignore
    low, high = option.bounds or (-math.inf, math.inf)
    return next(v for v in (0.7 * option.default, 0.3, 1.3) if low < v < high and not math.isclose(v, option.default))


def settings(part: LossPart) -> Iterator[dict[str, Any]]:
    """The defaults, the part's own settings, and one option moved at a time from each."""
    seen: list[dict[str, Any]] = []
    for base in (part.resolve({}), *(part.resolve(given) for given in part.settings)):
        for options in (base, *({**base, o.name: moved(o)} for o in part.options)):
            if options not in seen:
                seen.append(options)
                yield options


def mean_of(part: LossPart, out: Tensor, y: Tensor, **options: Any) -> Tensor:
    return reduced(part.terms(out, y, **options))


def near(what: str, got: Tensor, wanted: Any, given: Any = None, tolerance: float = 1e-9) -> None:
    wanted = torch.as_tensor(wanted, dtype=torch.float64)
    off = float((got.double() - wanted).abs().max()) if wanted.numel() else 0.0
    limit = tolerance * max(1.0, float(wanted.abs().max()) if wanted.numel() else 1.0)
    expect(
        off <= limit, f"{what}: {off:.2g} off", given=given, got=got.flatten()[:3].tolist(), wanted=wanted.flatten()[:3].tolist()
    )


def targets(part: LossPart) -> Iterator[tuple[Tensor, Tensor]]:
    """Outputs with every sort of target: as they come, and as probabilities where it takes these."""
    out, y = batch(part)
    yield out, y
    if part.tags.soft:
        yield out, torch.softmax(batch(part, 5)[0], -1)


def reference(part: LossPart) -> None:
    """Values and weights of every example are those of the second writing, at every setting and for every sort of target."""
    for options in settings(part):
        for out, y in targets(part):
            ours, theirs = part.terms(out, y, **options), part.reference(out.tolist(), y.tolist(), **options)
            expect(len(ours) == len(theirs), "the second writing has another number of terms", got=len(ours), wanted=len(theirs))
            for term, rows in zip(ours, theirs, strict=True):
                near("weights", term.weights, [w for _, w in rows], options)
                near("values", torch.where(term.weights > 0, term.values, 0), [v if w else 0.0 for v, w in rows], options)


def known(part: LossPart) -> None:
    """What is known on paper is what comes out."""
    if not part.values:
        raise Skip("no values are declared")
    for out, y, wanted in part.values:
        got = mean_of(part, torch.tensor(out, dtype=torch.float64), torch.tensor(y))
        near("the loss", got, wanted, out, 1e-6)


def shapes(part: LossPart) -> None:
    """Terms are pairs (B,), also of positions and of no examples; a batch in which nothing counts has the loss 0, gradient 0."""
    for rows in (ROWS, 1, 0):
        out, y = batch(part, rows=rows)
        for values, weights in part.terms(out, y):
            expect(values.shape == weights.shape == (rows,), "a term isn't (B,)", given=rows, got=(values.shape, weights.shape))
            expect(values.dtype == out.dtype, "the dtype changed", got=values.dtype)
    out, y = batch(part, rows=0)
    value, slope = part.build()(out, y), grad(lambda o: part.build()(o, y))(out)
    expect(float(value) == 0 and slope.shape == out.shape, "no examples: the loss isn't 0", got=value)
    if part.tags.outputs not in ("scores", "ordinal"):
        return
    out, y = batch(part, rows=6)
    (term,) = part.terms(out.reshape(2, 3, -1), y.reshape(2, 3))
    (flat,) = part.terms(out, y)
    near("positions: an example's value is their mean", term.values, flat.values.reshape(2, 3).mean(1))
    near("positions: its weight is their number", term.weights, [3.0, 3.0])


def ignored(part: LossPart) -> None:
    """Labels told to count for nothing change neither value nor gradient, whatever stands beside them; all of them give 0."""
    if not part.ignores:
        raise Skip("no label can be ignored")
    out, y = batch(part)
    for index in (-100, 1):
        gone = torch.arange(ROWS) % 3 == 0
        marked = torch.where(gone, index, torch.where(y == index, 0, y))
        wild = torch.where(gone[:, None], torch.tensor(math.inf), out)
        for given in (out, wild, torch.where(gone[:, None], torch.tensor(math.nan), out)):
            value = mean_of(part, given, marked, ignore_index=index)
            near("ignored rows move the loss", value, mean_of(part, out[~gone], marked[~gone], ignore_index=index))
            slope = grad(lambda o, m=marked, i=index: mean_of(part, o, m, ignore_index=i))(given)
            expect(bool((slope[gone] == 0).all()) and bool(slope.isfinite().all()), "ignored rows have a gradient", given=index)
        every = torch.full_like(y, index)
        value = mean_of(part, wild, every, ignore_index=index)
        slope = grad(lambda o, m=every, i=index: mean_of(part, o, m, ignore_index=i))(wild)
        expect(float(value) == 0 and bool((slope == 0).all()), "all rows ignored: not 0", got=value)


def options_matter(part: LossPart) -> None:
    """Every option, moved off its default, changes the loss."""
    out, y = batch(part)
    bases = [part.resolve(base) for base in ({}, *part.settings)]
    for option in part.options:
        pairs = [(mean_of(part, out, y, **base), mean_of(part, out, y, **{**base, option.name: moved(option)})) for base in bases]
        expect(any(not torch.equal(a, b) for a, b in pairs), f"{option.name}={moved(option)!r} does nothing")


def gradient(part: LossPart) -> None:
    """The gradient agrees with differences, reaches every example, and is finite; a score that isn't a number shows."""
    for options in settings(part):
        for out, y in targets(part):
            terms = part.terms(out, y, **options)
            idle = sum(term.weights * (term.values != part.tags.least) for term in terms) == 0  # a margin is a flat place
            slope = grad(lambda o, y=y, options=options: mean_of(part, o, y, **options))(out)
            expect(bool(slope.isfinite().all()), "the gradient isn't finite", given=options)
            reached = (slope.abs().flatten(1).sum(1) > 0) | torch.as_tensor(idle) | _alike(part, y)
            expect(bool(reached.all()), "an example that counts has no gradient", given=options, got=reached.tolist())
            turn = torch.randn(out.shape, generator=torch.Generator().manual_seed(7), dtype=out.dtype)
            up, down = (mean_of(part, out + h * turn, y, **options) for h in (1e-6, -1e-6))
            wanted = (slope * turn).sum()
            close = abs(float((up - down) / 2e-6 - wanted)) <= 1e-5 * max(1e-2, float(slope.norm() * turn.norm()))
            expect(close, "the gradient isn't the slope", given=options, got=float(wanted), wanted=float((up - down) / 2e-6))
    out, y = batch(part)
    out[0, 0] = math.nan
    expect(bool(mean_of(part, out, y).isnan()), "a score of NaN doesn't show in the loss")


def _alike(part: LossPart, y: Tensor) -> Tensor:
    """Lists whose worths are all alike have no pair."""
    if part.tags.outputs != "lists":
        return torch.zeros(len(y), dtype=torch.bool)
    return (y == y[:, :1]).all(1)


def _changes(part: LossPart, change: Any) -> float:
    """By how much a change of the outputs moves the values, over their size."""
    out, y = batch(part)
    one, other = part.terms(out, y), part.terms(change(out), y)
    return max(float((a.values - b.values).abs().max() / a.values.abs().max()) for a, b in zip(one, other, strict=True))


def shift(part: LossPart) -> None:
    """Adding a number to all outputs of an example changes nothing, where declared, and something where not."""
    off = _changes(part, lambda out: out + torch.linspace(0.5, 2, len(out), dtype=out.dtype)[:, None])
    expect((off < 1e-9) == part.tags.shift, "shift", got=f"moved by {off:.2g}", wanted=part.tags.shift)


def scale(part: LossPart) -> None:
    """Multiplying all outputs of an example by a number above 0 changes nothing, where declared, and something where not."""
    off = _changes(part, lambda out: out * torch.linspace(0.5, 2, len(out), dtype=out.dtype)[:, None])
    expect((off < 1e-9) == part.tags.scale, "scale", got=f"moved by {off:.2g}", wanted=part.tags.scale)


def convex(part: LossPart) -> None:
    """On 400 chords it is convex in the outputs, where declared, and not where not."""
    (a, y), (b, _) = batch(part, 1, 400), batch(part, 2, 400)
    a, b = 3 * a, 3 * b
    if part.tags.batchwise:
        rows = [(a[i : i + 20], b[i : i + 20], y[i : i + 20]) for i in range(0, 400, 20)]
        above = [float(mean_of(part, (p + q) / 2, t) - (mean_of(part, p, t) + mean_of(part, q, t)) / 2) for p, q, t in rows]
    else:
        middle, ends = part.terms((a + b) / 2, y)[0].values, [part.terms(end, y)[0].values for end in (a, b)]
        above = (middle - (ends[0] + ends[1]) / 2).tolist()
    expect((max(above) <= 1e-9) == part.tags.convex, "convex", got=f"{max(above):.2g} above a chord", wanted=part.tags.convex)


def perfect(part: LossPart, y: Tensor, certain: float = 30.0) -> Tensor:
    """Outputs that are as good as can be, in the limit."""
    if part.tags.outputs == "values":
        return y.clone()
    if part.tags.outputs == "lists":
        return certain * y.double()
    if part.tags.outputs == "ordinal":
        return certain * torch.sign(torch.arange(part.columns)[None] - y[:, None].double() + 0.5) + torch.arange(part.columns)
    return certain * (torch.arange(part.columns) == y[:, None]).double()


def least(part: LossPart) -> None:
    """The perfect prediction reaches the least value, and none of 200 others comes below it."""
    out, y = batch(part, rows=200)
    if part.tags.least is None:
        raise Wrong("no least value is declared")
    at = float(mean_of(part, perfect(part, y), y))
    expect(abs(at - part.tags.least) < 1e-6, "the perfect prediction", got=at, wanted=part.tags.least)
    lowest = min(float(term.values.min()) for term in part.terms(3 * out, y))
    expect(lowest >= part.tags.least - 1e-9, "another prediction is better than the perfect one", got=lowest)


def proper(part: LossPart) -> None:
    """Over a grid of distributions the outputs that lower the expected loss most give the truth back, where declared."""
    if part.tags.outputs != "scores" or not part.tags.proper:
        raise Skip("it isn't declared, or reads no scores")
    for q in ([0.6, 0.3, 0.1], [0.34, 0.33, 0.33], [0.9, 0.05, 0.05]):
        truth = torch.tensor(q, dtype=torch.float64)
        labels = torch.arange(3)

        def expected(z: Tensor, truth: Tensor = truth, labels: Tensor = labels) -> Tensor:
            return (truth * part.terms(z.expand(3, 3), labels)[0].values).sum()

        z = torch.zeros(3, dtype=torch.float64)
        for _ in range(400):
            z = z - 0.7 * grad(expected)(z)
        order = torch.argsort(z, descending=True)
        expect(
            bool((truth[order].diff() <= 1e-9).all()), "the order of outputs isn't that of probabilities", given=q, got=z.tolist()
        )
        flat = grad(expected)(z).abs().max()
        expect(float(flat) < 1e-4, "no minimum is found", given=q, got=float(flat))


def pieces(part: LossPart) -> None:
    """Divided by the totals of the whole step, the losses of unequal pieces, an empty one too, add up to the whole's."""
    out, y = batch(part)
    loss: Any = part.build()
    totals = loss.totals(torch.zeros_like(out), y)
    cuts = (slice(0, 1), slice(1, 1), slice(1, 8), slice(8, None))
    if part.tags.batchwise:
        try:
            loss(out, y, of=totals)
        except Misfit:
            return
        raise Wrong("it reads a batch as a whole, and takes pieces")
    if part.ignores:
        y = torch.where(torch.arange(len(y)) % 4 == 0, IGNORED.default, y)
        totals = loss.totals(torch.zeros_like(out), y)

    def cut_up(o: Tensor) -> Tensor:
        return torch.stack([loss(o[c], y[c], of=totals) for c in cuts]).sum()

    near("the sum of pieces", cut_up(out), loss(out, y), tolerance=1e-12)
    whole, cut = grad(lambda o: loss(o, y))(out), grad(cut_up)(out)
    near("their gradient", cut, whole, tolerance=1e-12)
    alone = torch.stack([mean_of(part, out[i : i + 1], y[i : i + 1]) for i in range(len(y))])
    near(
        "an example's value depends on others",
        torch.where(part.terms(out, y)[0].weights > 0, part.terms(out, y)[0].values, 0),
        alone,
    )


def whole_mean(part: LossPart) -> None:
    """The faster mean is the loss of a batch at the defaults, in value and gradient."""
    if part.mean is None:
        raise Skip("it has none")
    out, y = batch(part)
    near("mean", part.mean(out, y), mean_of(part, out, y))
    near("its gradient", grad(lambda o: part.mean(o, y))(out), grad(lambda o: mean_of(part, o, y))(out))  # type: ignore[misc]


def copies(part: LossPart) -> None:
    """Under vmap it gives for every copy what it gives for it alone, gradients too."""
    pairs = [batch(part, seed) for seed in range(3)]
    out, y = torch.stack([o for o, _ in pairs]), torch.stack([t for _, t in pairs])
    got, slopes = vmap(lambda o, t: mean_of(part, o, t))(out, y), vmap(grad(lambda o, t: mean_of(part, o, t)))(out, y)
    for k, (o, t) in enumerate(pairs):
        near(f"copy {k}", got[k], mean_of(part, o, t))
        near(f"the gradient of copy {k}", slopes[k], grad(lambda o, t=t: mean_of(part, o, t))(o))


def half(part: LossPart) -> None:
    """Scores of 1e4 in half precision give finite values and gradients, near those of double precision."""
    sure = part.tags.outputs in ("scores", "binary", "ordinal", "lists")
    for dtype in (torch.float16, torch.bfloat16):
        for size in (1.0, 1e4) if sure else (1.0, 100.0):
            out, y = batch(part)
            out = (size * out / out.abs().max()).to(dtype)
            value = mean_of(part, out, y)
            expect(value.dtype in (torch.float32, torch.float64) and bool(value.isfinite()), f"{dtype} at {size:g}", got=value)
            near(f"{dtype} at {size:g}", value, mean_of(part, out.double(), y), tolerance=2e-3)
            slope = grad(lambda o, y=y: mean_of(part, o, y))(out)
            expect(bool(slope.isfinite().all()), f"the gradient in {dtype} at {size:g} isn't finite")


def module(part: LossPart) -> None:
    """As a module it is copied, and says its options."""
    loss: Any = part.build()
    out, y = batch(part)
    expect(torch.equal(copy.deepcopy(loss)(out, y), loss(out, y)), "a copy gives another loss")
    expect(part.name in repr(loss), "its name isn't in its text", got=repr(loss))


CHECKS = tuple(
    Check(check.__name__, check)
    for check in (
        reference,
        known,
        shapes,
        ignored,
        options_matter,
        gradient,
        shift,
        scale,
        convex,
        least,
        proper,
        pieces,
        whole_mean,
        copies,
        half,
        module,
    )
)
