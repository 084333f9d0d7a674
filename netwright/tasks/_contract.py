"""Checks of tasks: data and splits, seeds, loss and metric, the host, the budget, and that there is something to learn.

No check downloads: data that only the hub has count as absent, and what needs them is skipped.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from netwright.core import catalogue
from netwright.core.contract import Check, Skip, expect
from netwright.core.errors import BadInput
from netwright.core.kind import RULE
from netwright.engine.blocks import count_parameters
from netwright.engine.build import build, chosen, defaults_of, named, net_of
from netwright.engine.loop import Setting, predict, train
from netwright.engine.task import Data, Task
from netwright.tasks._kind import SIZES, TaskPart
from netwright.tasks._read import HUB, VARIABLE
from netwright.tensor.streams import generator, initialise

SPLITS = ("train", "val", "test")
#: Seeds and steps of the comparison with chance and the control.
SEEDS, STEPS = (0, 1), 250
#: Above this many parameters x rows a training takes longer than a check may.
QUICK = 3e9


def tasks(part: TaskPart) -> Iterator[Task]:
    """The task at both sizes, and at every other allowed value of every option, one changed at a time."""
    others = [{o.name: v} for o in part.options if o.allowed and o.name != "size" for v in o.allowed if v != o.default]
    for size in SIZES:
        for options in ({}, *others):
            yield part.build(size=size, **options)


def data_of(part: TaskPart, task: Task, seed: int = 0) -> Data:
    """The task's data. Raises Skip where they are absent: of a task that has an option `data`, or reads what a package
    brings that isn't installed. From any other task a BadInput is a fault.
    """
    token = HUB.set(False)
    try:
        return task.data(seed)
    except BadInput as error:
        reads = any(option.name == "data" for option in part.options)
        if reads or isinstance(error.__context__, ImportError):
            raise Skip(f"needs data in the folder of {VARIABLE}: {error}") from None
        raise
    finally:
        HUB.reset(token)


def shown(task: Task, seed: int | None = None) -> str:
    """A task's size and options, for messages."""
    about = {"size": task.size, **task.options} | ({} if seed is None else {"seed": seed})
    return ", ".join(f"{k}={v}" for k, v in about.items())


@contextmanager
def undrawn(what: str, task: Task) -> Iterator[None]:
    """Inside, nothing may draw from the global generator."""
    before = torch.random.get_rng_state()
    yield
    still = torch.equal(before, torch.random.get_rng_state())
    expect(still, f"{what} draws from the global generator", given=shown(task))


# Data -----------------------------------------------------------------------------------------------------------------


def splits(part: TaskPart) -> None:
    """Train, validation and test are disjoint, without repeats, inside the pool, and none is empty."""
    for task in tasks(part):
        for seed in SEEDS:
            data, given = data_of(part, task, seed), shown(task, seed)
            expect(len(data.x) == len(data.y), "x and y differ in length", given=given, got=(len(data.x), len(data.y)))
            for name in SPLITS:
                index = getattr(data, name)
                expect(index.dtype == torch.int64 and index.dim() == 1, f"{name} is no list of indices", given=given)
                expect(len(index) > 1, f"{name} is all but empty", given=given, got=len(index))
                inside = 0 <= int(index.min()) and int(index.max()) < len(data.x)
                expect(inside, f"{name} points outside the pool", given=given)
            together = torch.cat([data.train, data.val, data.test])
            repeats = len(together) - len(together.unique())
            expect(repeats == 0, "examples in two places of the splits", given=given, got=repeats)


def seeds(part: TaskPart) -> None:
    """A seed gives the same data every time, another seed another draw of validation examples; one pool serves all."""
    for task in tasks(part):
        data_of(part, task)  # what is made once, for all seeds
        with undrawn("data(seed)", task):
            one, again, other = (data_of(part, task, seed) for seed in (3, 3, 4))
        for name in ("x", "y", *SPLITS):
            same = torch.equal(getattr(one, name), getattr(again, name))
            expect(same, f"{name} differs at one seed", given=shown(task))
        moved = task.per_seed_data or not torch.equal(one.val, other.val)
        expect(moved, "two seeds validate on the same examples: the seed is ignored", given=shown(task))
        shared = task.per_seed_data or one.x.data_ptr() == other.x.data_ptr()
        expect(shared, "every seed copies the pool; make it once, or say per_seed_data=True", given=shown(task))


def tensors(part: TaskPart) -> None:
    """x and y have the declared shapes and dtypes, are finite and normalised, and `gives` is what they are."""
    for task in tasks(part):
        data, problem, given = data_of(part, task), task.problem, shown(task)
        got = tuple(data.x.shape[1:])
        expect(got == problem.input, "the shape of x", given=given, got=got, wanted=problem.input)
        whole, nodes = not data.x.is_floating_point(), data.x.dim() == 1  # a graph's examples are numbers of its nodes
        dtype = torch.int64 if whole else torch.float32
        expect(data.x.dtype == dtype, "the dtype of x", given=given, got=data.x.dtype, wanted=dtype)
        if not whole:
            bad = len(data.x) - int(data.x.flatten(1).isfinite().all(1).sum())
            expect(bad == 0, "examples that aren't finite", given=given, got=bad)
            x = data.x[data.train[:4096]]
            mean, spread = x.mean().abs().item(), x.std().item()
            expect(mean < 0.5 and 0.3 < spread < 3, "x isn't normalised", given=given, got=(mean, spread))
        shape, dtype = problem.output, torch.float32
        if problem.classes is not None:
            shape, dtype = problem.output[:-1], torch.int64
        found = (tuple(data.y.shape[1:]), data.y.dtype)
        expect(found == (shape, dtype), "shape and dtype of y", given=given, got=found, wanted=(shape, dtype))
        if problem.classes is None:
            expect(data.y.isfinite().all(), "targets that aren't finite", given=given)
        else:
            known = 0 <= int(data.y.min()) and int(data.y.max()) < problem.classes == problem.output[-1]
            expect(known, "labels aren't whole numbers below the number of classes", given=given)
        true = {
            "labels": problem.classes is not None and data.y.dim() == 1,
            "two classes": problem.classes == 2 and data.y.dim() == 1,
            "targets": problem.classes is None,
            "tokens": whole and not nodes,
            "graph": whole and nodes,
            "vector": not whole and len(problem.input) == 1,
            "image": not whole and len(problem.input) == 3,
        }
        offered = {name for name, holds in true.items() if holds}
        expect(problem.gives == offered, "gives", given=given, got=sorted(problem.gives), wanted=sorted(offered))


def version(part: TaskPart) -> None:
    """The data are those recorded for the task's version; whoever changes them raises it."""
    recorded = part.versions.get(part.version)
    if not recorded:
        raise Skip("records no hash: versions={version: {size: Task.data_hash()}} would")
    sizes = {key for key in recorded if "=" not in key}
    expect(sizes == set(SIZES), "sizes with a hash", got=sorted(sizes), wanted=sorted(SIZES))
    for task in tasks(part):
        data_of(part, task)
        chosen = [key for key in (f"{name}={value}" for name, value in task.options.items()) if key in recorded]
        got, wanted = task.data_hash(), recorded[chosen[0] if chosen else task.size]
        what = f"the data aren't those of version {part.version}; where that is meant, add a version with the new hash"
        expect(got == wanted, what, given=shown(task), got=got, wanted=wanted)


# Problem --------------------------------------------------------------------------------------------------------------


def example(task: Task, rows: int = 12) -> tuple[Tensor, Tensor]:
    """Made-up outputs and targets of the problem's shapes; needs no data."""
    g, problem = generator(0, "probe"), task.problem
    out = torch.randn(rows, *problem.output, generator=g)
    if problem.classes is None:
        return out, torch.randn(rows, *problem.output, generator=g)
    return out, torch.randint(problem.classes, (rows, *problem.output[:-1]), generator=g)


def known(task: Task, y: Tensor) -> Tensor:
    """The outputs of a net that knows the targets: sure logits, or the targets themselves."""
    expect(task.problem.encode is not None, "the problem can't encode its targets", given=shown(task))
    coded = task.problem.encode(y)  # type: ignore[misc]
    return coded * (100.0 if task.problem.classes else 1.0)


def loss(part: TaskPart) -> None:
    """The loss is a finite scalar with a finite gradient, a mean over the batch, low at the targets; so under vmap."""
    for task in tasks(part):
        problem, given, (out, y) = task.problem, shown(task), example(task)
        value = problem.loss(out.requires_grad_(), y)
        scalar = isinstance(value, Tensor) and value.dim() == 0 and bool(value.isfinite())
        expect(scalar, "the loss isn't a finite scalar tensor", given=given, got=value)
        expect(value.requires_grad, "the loss has no gradient: something detaches", given=given)
        (slope,) = torch.autograd.grad(value, out)
        sloped = slope.isfinite().all() and slope.any()
        expect(sloped, "the gradient of the loss isn't finite, or is zero", given=given)
        out, once = out.detach(), value.item()
        twice = problem.loss(torch.cat([out, out]), torch.cat([y, y])).item()
        averaged = math.isclose(once, twice, rel_tol=1e-5)
        expect(averaged, "the loss isn't a mean over the batch", given=given, got=twice, wanted=once)
        copies = torch.func.vmap(torch.func.grad(problem.loss))(torch.stack([out, -out]), torch.stack([y, y]))
        alike = torch.allclose(copies[0], slope, atol=1e-6)
        expect(alike, "under vmap the gradient of the loss is another", given=given)
        least = problem.loss(known(task, y), y).item()
        expect(least < once, "the loss prefers made-up outputs to the targets", given=given, got=(least, once))


def metric(part: TaskPart) -> None:
    """Knowing the targets scores better than anything else tried; delta is a small part of the way from `worst`."""
    for task in tasks(part):
        problem, given, (out, y) = task.problem, shown(task), example(task, 400)
        best, made_up = problem.metric(known(task, y), y), problem.metric(out, y)
        real = type(best) is float and math.isfinite(best)
        expect(real, "the metric isn't a finite float", given=given, got=repr(best))
        expect(problem.metric(out, y) == made_up, "the metric gives two scores for one prediction", given=given)
        for what, score in (
            ("made-up outputs", made_up),
            ("outputs of zero", problem.metric(torch.zeros_like(out), y)),
            ("the answers to other examples", problem.metric(known(task, y).roll(1, 0), y)),
            ("`worst`", problem.worst),
        ):
            ahead = problem.better(best, score)
            expect(ahead, f"knowing the targets is no better than {what}", given=given, got=best, wanted=score)
        most = 0.05 * abs(best - problem.worst)
        small = 0 < problem.delta <= most
        expect(small, "delta is no small part of what can be won", given=given, got=problem.delta, wanted=f"<= {most}")


def encode(part: TaskPart) -> None:
    """Encoded targets are floats of the output's shape, and the targets can be read off them; also under vmap."""
    for task in tasks(part):
        problem, given, (out, y) = task.problem, shown(task), example(task)
        expect(problem.encode is not None, "the problem can't encode its targets", given=given)
        coded = problem.encode(y)  # type: ignore[misc]
        got, wanted = (tuple(coded.shape), coded.is_floating_point()), (tuple(out.shape), True)
        what = "shape of the encoded targets, and whether they are floats"
        expect(got == wanted, what, given=given, got=got, wanted=wanted)
        back = coded if problem.classes is None else coded.argmax(-1)
        expect(torch.equal(back, y), "the encoding can't be inverted", given=given)
        stacked = torch.func.vmap(problem.encode)(torch.stack([y, y]))  # type: ignore[arg-type]
        expect(torch.equal(stacked[1], coded), "under vmap the encoding is another", given=given)


# Host and budget ------------------------------------------------------------------------------------------------------


def host(part: TaskPart) -> None:
    """The host is built on meta without random numbers, fits the problem, and every width is a knob."""
    for task in tasks(part):
        given = shown(task)
        if "graph" in task.problem.gives:
            data_of(part, task)  # the net is built over the data's graph
        parts = chosen(task)
        with undrawn("building the host", task), torch.device("meta"):
            net = net_of(task, parts, task.widths)
        real = [name for name, t in (*net.named_parameters(), *net.named_buffers()) if not t.is_meta]
        expect(not real, "values of the host that aren't on meta", given=given, got=real)
        size = count_parameters(net)
        for i, width in enumerate(task.widths):
            with torch.device("meta"):
                other = net_of(task, parts, (*task.widths[:i], width + 8, *task.widths[i + 1 :]))
            expect(count_parameters(other) > size, f"width {i} changes nothing", given=given)
        net.to_empty(device="cpu")
        initialise(net, 0)
        g, whole = generator(0, "probe"), task.problem.gives & {"tokens", "graph"}
        shape = (4, *task.problem.input)
        most = task.problem.vocabulary or task.problem.classes or 2
        x = torch.randint(most, shape, generator=g) if whole else torch.randn(shape, generator=g)
        with torch.no_grad():
            out = net.eval()(x)
        got, wanted = tuple(out.shape), (4, *task.problem.output)
        expect(got == wanted, "the shape of the host's output", given=given, got=got, wanted=wanted)
        expect(out.isfinite().all(), "the untrained host's output isn't finite", given=given)


def sizes(part: TaskPart) -> None:
    """Both sizes are the part's, at its version, and full is at least as long and wide as small."""
    for task in tasks(part):
        got, wanted = (task.id, task.name, task.version), (part.id, part.name, part.version)
        expect(got == wanted, "id, name and version aren't the part's", given=shown(task), got=got, wanted=wanted)
    small, full = (part.build(size=size) for size in SIZES)
    expect((small.size, full.size) == SIZES, "the sizes that came out", got=(small.size, full.size), wanted=SIZES)
    rows = (small.steps * small.batch, full.steps * full.batch)
    expect(rows[0] <= rows[1], "full trains on fewer rows than small", got=rows)
    expect(sum(small.widths) <= sum(full.widths), "full is narrower than small", got=(small.widths, full.widths))


def budget(part: TaskPart) -> None:
    """Steps, evaluation grid, rates, slots and control are there and fit together."""
    for task in tasks(part):
        grid, given = task.evals, shown(task)
        whole = all(type(n) is int and n >= 1 for n in (task.steps, task.batch, *grid))
        got = (task.steps, task.batch, grid)
        expect(whole, "steps, batch and grid aren't whole numbers above 0", given=given, got=got)
        ends = list(grid) == sorted(set(grid)) and bool(grid) and grid[-1] == task.steps
        expect(ends, "the grid doesn't rise to the last step", given=given, got=grid, wanted=task.steps)
        low, high, published = task.lr
        expect(0 < low < published < high < math.inf, "rates: not 0 < lowest < published < highest", given=given, got=task.lr)
        for slot, name in defaults_of(task).items():
            expect(not name or slot in named(slot, name).part.slots(), f"{name} doesn't fill the slot {slot}", given=given)
        Setting.of(task, 0, {"lr": task.lr[2]})  # raises for what the optimizer doesn't take
        control = catalogue.get(task.control)
        expect(RULE in control.slots(), "the control is no rule", given=given, got=control.id)
    for task in tasks(part):
        rows = len(data_of(part, task).train)
        expect(task.batch <= rows, "a batch is larger than train", given=shown(task), got=(task.batch, rows))


def augmentation(part: TaskPart) -> None:
    """Augmented inputs keep shape and dtype, follow their generator, and differ from what went in."""
    changed = [task for task in tasks(part) if task.augment is not None]
    if not changed:
        raise Skip("augments nothing")
    for task in changed:
        assert task.augment is not None
        given, x = shown(task), torch.randn(8, *task.problem.input, generator=generator(0, "probe"))
        with undrawn("augment", task):
            one, again, other = (task.augment(x, generator(s, "augment")) for s in (0, 0, 1))
        got = (tuple(one.shape), one.dtype)
        expect(got == (tuple(x.shape), x.dtype), "shape or dtype changes", given=given, got=got)
        expect(torch.equal(one, again), "one generator gives two results", given=given)
        random = not torch.equal(one, other) and not torch.equal(one, x)
        expect(random, "nothing random happens", given=given)


def learnable(part: TaskPart) -> None:
    """After a short training at the small size the default arm beats, on every seed and by delta on average, `worst`,
    the best constant prediction, the untrained net and the control.
    """
    task = part.build(size="small")
    problem, steps = task.problem, min(task.steps, STEPS)
    if "graph" in task.problem.gives:
        raise Skip("a net that computes a whole graph in every step takes longer than a check may")
    size = count_parameters(build(task, chosen(task), 0, task.widths, meta=True))
    if "vector" not in task.problem.gives or size * steps * task.batch > QUICK:
        raise Skip(f"a {task.host.partition('/')[2]} of {size} parameters takes longer than a check may")
    scores: dict[str, list[float]] = {}
    for seed in SEEDS:
        data = data_of(part, task, seed)
        x, y = data.split("val")
        scores.setdefault("`worst`", []).append(problem.worst)
        scores.setdefault("the best constant", []).append(problem.metric(constant(task, data).expand(len(y), -1), y))
        for name, parts in (("default", chosen(task)), ("the control", chosen(task, {RULE: (task.control, {})}))):
            rule = build(task, parts, seed, task.widths)
            if name == "default":
                scores.setdefault("the untrained net", []).append(problem.metric(predict(rule, x), y))
            rate = {"lr": task.lr[2] * parts[RULE].part.tags.rates[2]}
            short = replace(Setting.of(task, seed, rate), steps=steps, evals=(steps,))
            best = train(rule, data, short).best_val
            expect(best is not None, f"{name} diverges at the published rate", given=shown(task, seed))
            scores.setdefault(name, []).append(problem.worst if best is None else best)
    ours = scores.pop("default")
    for name, theirs in scores.items():
        sign = 1 if problem.higher_is_better else -1
        won = [sign * (a - b) for a, b in zip(ours, theirs, strict=True)]
        what = f"{steps} steps of training aren't better than {name} by {problem.delta}"
        ahead = min(won) > 0 and statistics.mean(won) >= problem.delta
        expect(ahead, what, given=f"seeds {SEEDS}", got=ours, wanted=f"beyond {theirs}")


def constant(task: Task, data: Data) -> Tensor:
    """The best output that doesn't look at x (K,): log frequencies of the classes, or the mean target."""
    assert task.problem.encode is not None
    mean = task.problem.encode(data.y[data.train]).mean(0)
    return mean.clamp(min=1e-6).log() if task.problem.classes else mean


CHECKS = (
    Check("augmentation", augmentation),
    Check("budget", budget),
    Check("encode", encode),
    Check("host", host),
    Check("learnable", learnable, slow=True),
    Check("loss", loss),
    Check("metric", metric),
    Check("seeds", seeds),
    Check("sizes", sizes),
    Check("splits", splits),
    Check("tensors", tensors),
    Check("version", version),
)
