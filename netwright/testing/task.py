"""Checks of tasks: splits, seeds, loss and metric, the host, the budget, and that there is something to learn."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from netwright import catalogue
from netwright.data import HUB, VARIABLE
from netwright.kinds.rule import FAMILIES
from netwright.kinds.task import SIZES, Data, Task, TaskPart
from netwright.nets import count_parameters, fill_named
from netwright.part import BadInput
from netwright.streams import generator
from netwright.study.spec import ArmSpec
from netwright.study.work import build_rule
from netwright.testing import Check, Skip, expect
from netwright.train import Setting, predict, train

SPLITS = ("train", "val", "test")
#: Trainable values a host has at most, by size.
LARGEST = {"small": 300_000, "full": 1_000_000}
#: Seeds and steps of the comparison with the control.
SEEDS, STEPS = (0, 1), 250


def tasks(part: TaskPart) -> Iterator[Task]:
    """The task at both sizes, and at every other allowed value of every option, one changed at a time."""
    others = [{o.name: v} for o in part.options if o.allowed and o.name != "size" for v in o.allowed if v != o.default]
    for size in SIZES:
        for options in ({}, *others):
            yield part.build(size=size, **options)


def data_of(task: Task, seed: int = 0) -> Data:
    """The task's data; skips where no folder holds them: a check doesn't ask the hub."""
    token = HUB.set(False)
    try:
        return task.data(seed)
    except BadInput as error:
        raise Skip(f"needs data in the folder of {VARIABLE}: {error}") from None
    finally:
        HUB.reset(token)


def shown(task: Task) -> str:
    """A task's size and options, for messages."""
    return ", ".join([f"size={task.size}", *(f"{k}={v}" for k, v in task.options.items())])


# Data -----------------------------------------------------------------------------------------------------------------


def splits(part: TaskPart) -> None:
    """Train, validation and test are disjoint, without repeats, inside the pool, and none is empty."""
    for task in tasks(part):
        data = data_of(task)
        for name in SPLITS:
            index = getattr(data, name)
            expect(index.dtype == torch.int64 and index.dim() == 1, f"{name} is no list of indices", given=shown(task))
            expect(len(index) > 1, f"{name} is all but empty", given=shown(task), got=len(index))
            inside = 0 <= int(index.min()) and int(index.max()) < len(data.x)
            expect(inside, f"{name} points outside the pool", given=shown(task))
        together = torch.cat([data.train, data.val, data.test])
        repeats = len(together) - len(together.unique())
        expect(repeats == 0, "examples in two places of the splits", given=shown(task), got=repeats)


def seeds(part: TaskPart) -> None:
    """A seed gives the same data every time, another seed another draw of validation examples; one pool serves all."""
    for task in tasks(part):
        one, again, other = data_of(task, 3), data_of(task, 3), data_of(task, 4)
        for name in SPLITS:
            expect(torch.equal(getattr(one, name), getattr(again, name)), f"{name} differs at one seed", given=shown(task))
        expect(not torch.equal(one.val, other.val), "two seeds validate on the same examples", given=shown(task))
        expect(task.per_seed_data or one.x is other.x or one.x.data_ptr() == other.x.data_ptr(), "every seed copies the pool")


def tensors(part: TaskPart) -> None:
    """x and y have the declared shapes, float32 or int64, finite; inputs are normalised, labels are known classes."""
    for task in tasks(part):
        data, problem = data_of(task), task.problem
        x, y = data.split("train")[0][:4096], data.y
        expect(tuple(x.shape[1:]) == problem.input, "shape of x", given=shown(task), got=tuple(x.shape[1:]), wanted=problem.input)
        expect(len(data.x) == len(data.y), "x and y differ in length", got=(len(data.x), len(data.y)))
        if x.is_floating_point():
            expect(x.dtype == torch.float32, "dtype of x", got=x.dtype, wanted=torch.float32)
            expect(torch.isfinite(x).all(), "x isn't finite", given=shown(task))
            mean, spread = x.mean().abs().item(), x.std().item()
            expect(mean < 0.5 and 0.3 < spread < 3, "x isn't normalised", given=shown(task), got=(mean, spread))
        else:
            expect(x.dtype == torch.int64, "dtype of x", got=x.dtype, wanted=torch.int64)
        if problem.classes is None:
            expect(y.dtype == torch.float32 and torch.isfinite(y).all(), "targets aren't finite float32", got=y.dtype)
            expect(tuple(y.shape[1:]) == problem.output, "shape of y", got=tuple(y.shape[1:]), wanted=problem.output)
        else:
            known = y.dtype == torch.int64 and 0 <= int(y.min()) and int(y.max()) < problem.classes
            expect(known, "labels aren't whole numbers below the number of classes", given=shown(task))


def version(part: TaskPart) -> None:
    """The data are those recorded for the task's version; whoever changes them raises it."""
    if not part.versions.get(part.version):
        raise Skip("records no hash: its files come in several encodings")
    for task in tasks(part):
        data_of(task)
        recorded = part.versions[part.version][task.size]
        expect(
            task.data_hash() == recorded,
            f"the data aren't those of version {part.version}; where that is meant, add a version with the new hash",
            given=shown(task), got=task.data_hash(), wanted=recorded,
        )  # fmt: skip


# Problem --------------------------------------------------------------------------------------------------------------


def example(task: Task, rows: int = 12) -> tuple[Tensor, Tensor]:
    """Made-up outputs and targets of the problem's shapes; needs no data."""
    g, problem = generator(0, "probe"), task.problem
    out = torch.randn(rows, *problem.output, generator=g)
    if problem.classes is None:
        return out, torch.randn(rows, *problem.output, generator=g)
    return out, torch.randint(problem.classes, (rows, *problem.output[:-1]), generator=g)


def loss(part: TaskPart) -> None:
    """The loss is a finite scalar with a finite gradient, a mean over the batch, also under vmap."""
    for task in tasks(part):
        problem, (out, y) = task.problem, example(task)
        value = problem.loss(out.requires_grad_(), y)
        expect(value.dim() == 0 and torch.isfinite(value), "the loss isn't a finite scalar", got=value)
        (slope,) = torch.autograd.grad(value, out)
        expect(torch.isfinite(slope).all() and slope.any(), "the gradient of the loss isn't finite, or is zero")
        out = out.detach()
        twice = problem.loss(torch.cat([out, out]), torch.cat([y, y]))
        expect(torch.allclose(value, twice, rtol=1e-5), "the loss isn't a mean over the batch", got=float(twice), wanted=float(value))
        copies = torch.func.vmap(torch.func.grad(problem.loss))(torch.stack([out, -out]), torch.stack([y, y]))
        expect(torch.allclose(copies[0], slope, atol=1e-6), "under vmap the gradient of the loss is another")
        if problem.classes is not None:
            flat = float(problem.loss(torch.zeros_like(out), y))
            expect(abs(flat - math.log(problem.classes)) < 1e-5, "cross-entropy of equal logits", got=flat, wanted=math.log(problem.classes))


def metric(part: TaskPart) -> None:
    """Knowing the targets scores better than chance, chance no worse than `worst`; delta is a small part of the way."""
    for task in tasks(part):
        problem, (out, y) = task.problem, example(task, 400)
        expect(problem.encode is not None, "the problem can't encode its targets")
        known = problem.encode(y) * (100.0 if problem.classes else 1.0)  # type: ignore[misc]
        best, chance = problem.metric(known, y), problem.metric(torch.zeros_like(out), y)
        expect(isinstance(best, float), "the metric isn't a float", got=type(best).__name__)
        expect(problem.better(best, chance), "knowing the targets is no better than not", got=(best, chance))
        expect(problem.better(best, problem.worst), "knowing the targets is no better than `worst`", got=(best, problem.worst))
        expect(float(problem.loss(known, y)) < float(problem.loss(out, y)), "the loss prefers chance to the targets")
        span = abs(best - problem.worst)
        expect(0 < problem.delta <= 0.05 * span, "delta is no small part of what can be won", got=problem.delta, wanted=f"<= {0.05 * span}")


def encode(part: TaskPart) -> None:
    """Encoded targets are floats of the output's shape, and the targets can be read off them; also under vmap."""
    for task in tasks(part):
        problem, (out, y) = task.problem, example(task)
        coded = problem.encode(y)  # type: ignore[misc]
        expect(coded.shape == out.shape and coded.is_floating_point(), "encoded targets", got=tuple(coded.shape), wanted=tuple(out.shape))
        back = coded if problem.classes is None else coded.argmax(-1)
        expect(torch.equal(back, y), "the encoding can't be inverted")
        expect(torch.equal(torch.func.vmap(problem.encode)(torch.stack([y, y]))[1], coded), "under vmap the encoding is another")  # type: ignore[arg-type]


# Host and budget ------------------------------------------------------------------------------------------------------


def host(part: TaskPart) -> None:
    """The host is built on meta without random numbers, fits the problem and its size, and every width is a knob."""
    for task in tasks(part):
        filled = ArmSpec("default").filled(task)
        filled.pop("rule")
        before = torch.random.get_rng_state()
        with torch.device("meta"):
            net = task.net(fill_named(filled), task.widths)
            wider = [task.net(fill_named(filled), (*task.widths[:i], w + 8, *task.widths[i + 1 :])) for i, w in enumerate(task.widths)]
            tokens = "tokens" in task.problem.gives
            x = torch.zeros(2, *task.problem.input, dtype=torch.int64 if tokens else torch.float32)
            out = net(x)
        expect(torch.equal(before, torch.random.get_rng_state()), "building the host draws from the global generator")
        expect(all(p.is_meta for p in net.parameters()), "a parameter of the host isn't on meta", given=shown(task))
        expect(tuple(out.shape) == (2, *task.problem.output), "output of the host", got=tuple(out.shape), wanted=task.problem.output)
        size = count_parameters(net)
        expect(size <= LARGEST[task.size], "the host is too large", given=shown(task), got=size, wanted=f"<= {LARGEST[task.size]}")
        for i, other in enumerate(wider):
            expect(count_parameters(other) > size, f"width {i} changes nothing", given=shown(task))


def budget(part: TaskPart) -> None:
    """Steps, evaluation grid, rates of every family, slots and control are there and fit together."""
    for task in tasks(part):
        grid = task.evals
        expect(list(grid) == sorted(set(grid)) and grid[0] >= 1 and grid[-1] == task.steps, "the grid doesn't end at the last step", got=grid)
        for family in FAMILIES:
            low, high, published = task.lr[family]
            expect(0 < low < published < high, f"rates of {family}", got=task.lr[family], wanted="0 < lowest < published < highest")
        Setting.of(task, 0, {"lr": 1e-3})  # raises for an unknown optimizer or schedule
        for slot, name in task.slots.items():
            expect(slot == "norm" or slot in catalogue.parse(name)[0].slots(), f"{name} doesn't fill the slot {slot}")
        control = catalogue.get(task.control)
        expect("rule" in control.slots(), "the control is no rule", got=control.id)
        expect(task.version == part.version and task.id == part.id, "the task isn't the part's", got=(task.id, task.version))


def augmentation(part: TaskPart) -> None:
    """Augmented inputs keep shape and dtype, follow their generator, and differ from what went in."""
    changed = [task for task in tasks(part) if task.augment is not None]
    if not changed:
        raise Skip("augments nothing")
    for task in changed:
        assert task.augment is not None
        x = torch.randn(8, *task.problem.input, generator=generator(0, "probe"))
        one, again, other = (task.augment(x, generator(s, "augment")) for s in (0, 0, 1))
        expect(one.shape == x.shape and one.dtype == x.dtype, "shape or dtype changes", got=(tuple(one.shape), one.dtype))
        expect(torch.equal(one, again), "one generator gives two results")
        expect(not torch.equal(one, other) and not torch.equal(one, x), "nothing random happens")


def learnable(part: TaskPart) -> None:
    """At the small size the default arm beats `worst`, the untrained net and the control, on every seed."""
    task = part.build(size="small")
    if task.host != "mlp":
        raise Skip(f"a {task.host} takes longer than a check may")
    data_of(task)
    scores: dict[str, list[float]] = {"default": [], "control": [], "untrained": []}
    for seed in SEEDS:
        data = task.data(seed)
        for arm in (ArmSpec("default"), ArmSpec("control", {"rule": (task.control, {})})):
            rule = build_rule(task, arm, seed, task.widths)
            if arm.name == "default":
                scores["untrained"].append(task.problem.metric(predict(rule, data.x[data.val]), data.y[data.val]))
            rate = {"lr": task.lr[arm.rule_family(task)][2]}
            steps = min(task.steps, STEPS)
            short = replace(Setting.of(task, seed, rate), steps=steps, evals=(steps,))
            outcome = train(rule, data, short)
            expect(outcome.best_val is not None, f"{arm.name} diverges at the published rate", given=f"seed {seed}")
            scores[arm.name].append(float(outcome.best_val or 0.0))
    for name in ("control", "untrained"):
        ahead = all(task.problem.better(a, b) for a, b in zip(scores["default"], scores[name], strict=True))
        expect(ahead, f"training is no better than {name}", got=scores["default"], wanted=f"better than {scores[name]}")
    middle = statistics.mean(scores["default"])
    expect(task.problem.better(middle, task.problem.worst), "training is no better than `worst`", got=middle)


CHECKS = (
    Check("splits", splits),
    Check("seeds", seeds),
    Check("tensors", tensors),
    Check("version", version),
    Check("loss", loss),
    Check("metric", metric),
    Check("encode", encode),
    Check("host", host),
    Check("budget", budget),
    Check("augmentation", augmentation),
    Check("learnable", learnable),
)
