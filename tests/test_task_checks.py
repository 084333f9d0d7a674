"""Each check of tasks fails on a toy task that is broken in its way, and passes on one that isn't."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import toys
from torch import Tensor, nn

from netwright.contract import apply, checks, every, run
from netwright.core import catalogue
from netwright.core.contract import Result
from netwright.core.errors import require
from netwright.core.kind import OPTIMIZER
from netwright.core.part import Option, Paper
from netwright.engine.task import Data, Problem, Task, accuracy, eval_grid, one_hot, three_splits
from netwright.tasks import TaskPart, host_net, task_part
from netwright.tensor.streams import generator

PAPER = Paper(title="A toy", authors="Nobody", year=2020)
CHECKS = {check.name: check for check in checks("task")}
#: Takes its slots and its control from a task of the catalogue: the tests name no part.
USUAL = next(task for part in catalogue.parts("task") for task in [part.build()] if "vector" in task.problem.gives)
ROWS = 1200

Change = Callable[[Task], Task]


def _pool() -> tuple[Tensor, Tensor]:
    """Signs of five numbers; the label is the parity of three of them, which random features tell badly."""
    x = torch.randn(ROWS, 5, generator=generator(0, "draw", "toy"))
    return x, (x[:, :3] > 0).sum(1) % 2


X, Y = _pool()


def pool_of(seed: int) -> Data:
    return Data(X, Y, *three_splits(ROWS, seed, 200, 200))


cross_entropy = toys.ENTROPY.mean
PROBLEM = Problem(
    toys.ENTROPY.id,
    accuracy,
    "accuracy",
    higher_is_better=True,
    worst=0.0,
    delta=0.01,
    input=(5,),
    output=(2,),
    classes=2,
    gives=frozenset({"labels", "two classes", "vector"}),
    encode=partial(one_hot, classes=2),
)


def base(size: str) -> Task:
    """The toy that every check passes."""
    return Task(
        id="task/toy",
        name="toy",
        version="1",
        size=size,
        summary="A toy.",
        problem=PROBLEM,
        data=pool_of,
        net=partial(host_net, USUAL.host, PROBLEM),
        widths=(32, 32),
        steps=250,
        batch=64,
        evals=eval_grid(250),
        lr=(1e-3, 1e-1, 1e-2),
        slots=dict(USUAL.slots) | {"norm": ""},
        control=USUAL.control,
    )


HASH = base("small").data_hash()


def part(change: Change = lambda task: task, options: tuple[Option, ...] = (), **hashes: str) -> TaskPart:
    def toy(size: str, data: str = "") -> Task:
        return change(base(size))

    recorded = hashes or {"small": HASH, "full": HASH}
    return task_part(toy, paper=PAPER, summary="A toy.", options=options, versions={"1": recorded})


def changed(**fields: Any) -> Change:
    return lambda task: dataclasses.replace(task, **fields)


def problem(**fields: Any) -> Change:
    return changed(problem=dataclasses.replace(PROBLEM, **fields))


def data(**fields: Any) -> Change:
    """Data with some fields replaced by what a function makes of the right ones."""

    def broken(seed: int) -> Data:
        right = pool_of(seed)
        return dataclasses.replace(right, **{name: make(right) for name, make in fields.items()})

    return changed(data=broken)


def augment(f: Callable[[Tensor, torch.Generator], Tensor]) -> Change:
    return changed(augment=f)


def jittered(x: Tensor, g: torch.Generator) -> Tensor:
    return x + torch.randn(x.shape, generator=g)


def judge(name: str, change: Change, **hashes: str) -> Result:
    return apply(part(change, **hashes), CHECKS[name])


def test_the_toy_passes_every_check() -> None:
    results = run(part(augment(jittered)), sample=False)
    assert {result.check for result in results} == set(CHECKS)
    assert all(result.ok for result in results), [result.message for result in results if not result.ok]
    skipped = {result.check for result in results if result.skipped_reason}
    assert not skipped - {"claims", "formula"}, "the toy is there to be checked"


# One broken task a fault ----------------------------------------------------------------------------------------------


def moved(d: Data, value: float) -> Tensor:
    x = d.x.clone()
    x[7, 2] = value
    return x


def relabelled(d: Data, label: int) -> Tensor:
    y = d.y.clone()
    y[7] = label
    return y


_calls = itertools.count()


def unseeded(seed: int) -> Data:
    return pool_of(next(_calls))


def global_draw(seed: int) -> Data:
    torch.rand(1)
    return pool_of(seed)


def real_net(fill: Any, widths: Any) -> nn.Module:
    with torch.device("cpu"):
        return host_net("mlp", PROBLEM, fill, widths)


def drawing_net(fill: Any, widths: Any) -> nn.Module:
    with torch.device("cpu"):
        torch.rand(1)
    return host_net("mlp", PROBLEM, fill, widths)


def three_outputs(fill: Any, widths: Any) -> nn.Module:
    return host_net("mlp", dataclasses.replace(PROBLEM, output=(3,)), fill, widths)


def fixed_net(fill: Any, widths: Any) -> nn.Module:
    return host_net("mlp", PROBLEM, fill, (8, 8))


def looked_at(out: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(out, y) * (1.0 if out.sum().item() > 0 else 2.0)


def global_jitter(x: Tensor, g: torch.Generator) -> Tensor:
    return x + torch.randn(x.shape)


FAULTS: list[tuple[str, str, Change, str]] = [
    ("splits", "overlap", data(val=lambda d: d.train[:200]), "two places"),
    ("splits", "an example twice", data(train=lambda d: torch.cat([d.train, d.train[:1]])), "two places"),
    ("splits", "beyond the pool", data(test=lambda d: d.test + ROWS), "outside the pool"),
    ("splits", "empty", data(val=lambda d: d.val[:0]), "val is all but empty"),
    ("splits", "masks", data(train=lambda d: torch.ones(ROWS, dtype=torch.bool)), "no list of indices"),
    ("splits", "fewer labels", data(y=lambda d: d.y[:-1]), "x and y differ in length"),
    ("seeds", "seed ignored", changed(data=lambda seed: pool_of(0)), "the seed is ignored"),
    ("seeds", "another split each time", changed(data=unseeded), "differs at one seed"),
    ("seeds", "a global draw", changed(data=global_draw), "global generator"),
    ("seeds", "a copy a seed", data(x=lambda d: d.x.clone()), "every seed copies the pool"),
    ("tensors", "NaN", data(x=lambda d: moved(d, float("nan"))), "examples that aren't finite; .*got 1"),
    ("tensors", "double", data(x=lambda d: d.x.double()), "dtype of x"),
    ("tensors", "raw pixels", data(x=lambda d: 100 * d.x), "isn't normalised"),
    ("tensors", "another shape", data(x=lambda d: d.x[:, :4]), "shape of x"),
    ("tensors", "a label too many", data(y=lambda d: relabelled(d, 2)), "below the number of classes"),
    ("tensors", "labels as numbers", data(y=lambda d: d.y.float()), "shape and dtype of y"),
    ("tensors", "says it is an image", problem(gives=frozenset({"labels", "image"})), "gives"),
    ("version", "other data", data(x=lambda d: moved(d, 3.0)), "add a version"),
    ("loss", "a loss an example", problem(objective=lambda out, y: cross_entropy(out, y) * torch.ones(2)), "scalar"),
    ("loss", "detached", problem(objective=lambda out, y: cross_entropy(out.detach(), y)), "no gradient"),
    ("loss", "a sum", problem(objective=lambda out, y: cross_entropy(out, y) * len(y)), "isn't a mean"),
    ("loss", "NaN", problem(objective=lambda out, y: cross_entropy(out, y) + float("nan")), "scalar"),
    ("loss", "upside down", problem(objective=lambda out, y: -cross_entropy(out, y)), "prefers"),
    ("loss", "looks at a value", problem(objective=looked_at), "vmap|item"),
    ("metric", "a tensor", problem(metric=lambda out, y: torch.tensor(accuracy(out, y))), "finite float"),
    ("metric", "NaN", problem(metric=lambda out, y: float("nan")), "finite float"),
    ("metric", "wrong direction", problem(higher_is_better=False, worst=1.0), "no better than"),
    ("metric", "a constant", problem(metric=lambda out, y: 0.5), "no better than"),
    ("metric", "worst is best", problem(worst=1.0), "no better than `worst`"),
    ("metric", "a large delta", problem(delta=0.5), "delta"),
    ("metric", "another score each time", problem(metric=lambda out, y: accuracy(out, y) + next(_calls)), "two scores"),
    ("encode", "another label", problem(encode=lambda y: one_hot(1 - y, 2)), "can't be inverted"),
    ("encode", "labels as they are", problem(encode=lambda y: y.float()), "shape of the encoded"),
    ("encode", "none", problem(encode=None), "can't encode"),
    ("encode", "torch's, which reads the labels", problem(encode=lambda y: nn.functional.one_hot(y).float()), "vmap"),
    ("host", "on the cpu", changed(net=real_net), "aren't on meta|draws"),
    ("host", "a global draw", changed(net=drawing_net), "global generator"),
    ("host", "three outputs", changed(net=three_outputs), "shape of the host's output"),
    ("host", "fixed widths", changed(net=fixed_net), "width 0 changes nothing"),
    ("sizes", "another id", changed(id="task/other"), "id, name and version"),
    ("sizes", "another version", changed(version="2"), "id, name and version"),
    ("sizes", "a short full", lambda t: dataclasses.replace(t, steps=9 if t.size == "full" else 10), "fewer rows"),
    ("sizes", "no full", changed(size="small"), "sizes"),
    ("budget", "evals beyond the steps", changed(evals=(100, 300)), "doesn't rise to the last step"),
    ("budget", "evals end early", changed(evals=(100, 200)), "doesn't rise to the last step"),
    ("budget", "evals in disorder", changed(evals=(200, 100, 250)), "doesn't rise to the last step"),
    ("budget", "half a step", changed(steps=250.0), "whole numbers"),
    ("budget", "a huge batch", changed(batch=ROWS), "a batch is larger than train"),
    ("budget", "rates in disorder", changed(lr=(1e-3, 1e-1, 1.0)), "lowest < published"),
    ("budget", "no such optimizer", changed(slots={**USUAL.slots, OPTIMIZER: "adamm"}), "adamm.*did you mean adam"),
    ("budget", "a rule for an activation", changed(slots={**USUAL.slots, "activation": USUAL.control}), "doesn't fill the slot"),
    ("budget", "no such control", changed(control="rule/no-such"), "no-such"),
    ("augmentation", "half of it", augment(lambda x, g: jittered(x, g)[:, :2]), "shape or dtype"),
    ("augmentation", "a global draw", augment(global_jitter), "global generator"),
    ("augmentation", "nothing", augment(lambda x, g: x), "nothing random"),
    ("learnable", "a rate that trains nothing", changed(lr=(0.0, 1.0, 1e-12)), "aren't better"),
    ("learnable", "the rule is the control", changed(control=USUAL.slots["rule"]), "aren't better than the control"),
    ("learnable", "out of reach", problem(delta=0.9), "better than the best constant by 0.9"),
]


@pytest.mark.parametrize(
    ("name", "change", "words"), [(n, c, w) for n, _, c, w in FAULTS], ids=[f"{n}: {what}" for n, what, _, _ in FAULTS]
)
def test_a_broken_task_fails(name: str, change: Change, words: str) -> None:
    result = judge(name, change)
    assert not result.ok, result.skipped_reason or "passed"
    assert re.search(words, result.message), result.message


def test_every_check_of_tasks_has_a_fault() -> None:
    assert {name for name, *_ in FAULTS} == set(CHECKS) - {check.name for check in every.CHECKS}


# Versions -------------------------------------------------------------------------------------------------------------


def test_a_version_names_the_data_of_both_sizes() -> None:
    assert judge("version", changed(), small=HASH, full=HASH).ok
    assert "sizes with a hash" in judge("version", changed(), small=HASH).message
    assert not judge("version", changed(), small=HASH, full="0" * 16).ok


# Absent data ----------------------------------------------------------------------------------------------------------


def absent(seed: int) -> Data:
    require(False, "the files aren't here")
    raise AssertionError


def test_absent_data_skip_only_what_needs_them() -> None:
    reads = part(changed(data=absent), options=(Option("data", "", "a folder"),))
    results = {result.check: result for result in run(reads, sample=False)}
    assert all(result.ok for result in results.values()), results
    skipped = {name for name, result in results.items() if "files aren't here" in result.skipped_reason}
    assert skipped == {"budget", "learnable", "seeds", "splits", "tensors", "version"}


def test_a_task_that_reads_nothing_may_not_lack_its_data() -> None:
    result = judge("splits", changed(data=absent))
    assert not result.ok and "files aren't here" in result.message


def test_a_package_that_is_not_installed_is_absent_data() -> None:
    def needs(seed: int) -> Data:
        try:
            raise ImportError("no module")
        except ImportError:
            require(False, "install it")
        raise AssertionError

    assert judge("splits", changed(data=needs)).skipped_reason
