"""Learning over several steps: downhill, interrupted and resumed, stacked, in mixed precision, above its control."""

from __future__ import annotations

import copy
import math
import statistics
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from netwright.core import catalogue
from netwright.core.contract import Skip, expect
from netwright.core.errors import Misfit
from netwright.core.kind import RULE
from netwright.engine.build import Chosen, build, chosen
from netwright.engine.loop import Loop, Setting, predict, train
from netwright.engine.meter import peak_bytes
from netwright.engine.rule import Rule
from netwright.engine.stack import Stack, train_stack
from netwright.engine.task import Task
from netwright.rules._contract_cases import BATCH, Case, cases, far, in_steps, state, stepping
from netwright.rules._kind import RulePart
from netwright.rules._toy import Toy, gradients

SETTING = Setting(seed=0, lr=0.05, steps=1, batch=BATCH, evals=(1,), optimizer="sgd", schedule="constant")


def descent(part: RulePart) -> None:
    """Fifty steps on one batch lower the sum of the losses, or the problem's loss where the losses are surrogates."""
    for case, rule, x, y, draws in in_steps(part):

        def height(rule: Rule = rule, case: Case = case, x: Tensor = x, y: Tensor = y, draws: Any = draws) -> float:
            with torch.no_grad():
                if case.tags.surrogate:
                    return float(case.host.problem.loss(rule(x), y))
                return float(torch.stack(list(rule.losses(x, y, *draws))).sum())

        loop = Loop(rule, replace(SETTING, optimizer="adam", lr=3e-3, steps=50))
        before = height()
        for _ in range(50):
            loop.step(x, y, draws)
        after = height()
        wanted = f"below {before}"
        expect(after < before, "fifty steps on one batch don't lower the loss", given=case, got=after, wanted=wanted)


ADAM = Setting(seed=0, lr=0.01, steps=4, batch=BATCH, evals=(4,), optimizer="adam", schedule="constant")


def resume(part: RulePart) -> None:
    """Two steps, everything saved and loaded into a new rule, two more: the same bits as four steps."""
    for case, rule, x, y, draws in in_steps(part):
        through = Loop(rule, ADAM)
        for step in range(4):
            through.step(x, y, draws)
            if step == 1:
                saved = copy.deepcopy((rule.state_dict(), [o.state_dict() if o else {} for o in through.optimizers]))
        again = case.rule(seed=1)
        again.load_state_dict(saved[0])
        resumed = Loop(again, ADAM)
        for optimizer, kept in zip(resumed.optimizers, saved[1], strict=True):
            if optimizer is not None:
                optimizer.load_state_dict(kept)
        for _ in range(2):
            resumed.step(x, y, draws)
        other = state(again)
        for name, t in state(rule).items():
            same = torch.equal(t, other[name])
            expect(same, f"resumed after two of four steps, {name} ends with other values", given=case)


def flat_memory(part: RulePart) -> None:
    """Of a local rule, a step over twelve equal blocks needs at its peak what a step over three needs, within 5 %."""
    if not part.tags.local or part.tags.closed_form:
        raise Skip("local rules alone free what they hold, block by block")
    if why := part.tags.reasons.get("flat_memory"):
        raise Skip(why)
    peaks = {}
    for depth in (3, 12):
        toy = replace(part.toy or Toy(), widths=(64,) * depth, inputs=64, rows=64)
        rule, (x, y) = toy.bind(part.build), toy.batch()
        draws, loop = rule.draw(x, y, torch.Generator().manual_seed(0)), Loop(rule, ADAM)
        loop.step(x, y, draws)  # the optimizer's state is there before the measured step
        peaks[depth] = peak_bytes(lambda loop=loop, x=x, y=y, draws=draws: loop.step(x, y, draws)) or 0  # type: ignore[misc]
    expect(peaks[12] <= 1.05 * peaks[3], "memory grows with depth", got=peaks, wanted="12 blocks at most 1.05 of 3")


#: Least cosine between the update in mixed precision and the one in float32: bfloat16 keeps 8 bits.
COSINE = 0.9


def autocast(part: RulePart) -> None:
    """Under bfloat16 autocast a step is finite and points the way the float32 step points."""
    for case in stepping(part):
        x, y, _ = case.step(case.rule())
        x = x.float() if x.is_floating_point() else x
        y = y.float() if y.is_floating_point() else y
        rule = case.rule().float()
        draws = rule.draw(x, y, torch.Generator().manual_seed(0))
        plain = gradients(rule, x, y, *draws)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = gradients(case.rule().float(), x, y, *draws)
        a, b = (torch.cat([g[name].double().flatten() for name in plain]) for g in (plain, mixed))
        expect(bool(torch.isfinite(b).all()), "an update in mixed precision isn't finite", given=case)
        cosine = float(torch.nn.functional.cosine_similarity(a, b, 0))
        expect(cosine >= COSINE, "mixed precision turns the update", given=case, got=cosine, wanted=f"at least {COSINE}")
        loop = Loop(case.rule().float(), replace(ADAM, precision="amp"))
        for _ in range(3):
            loss = float(loop.step(x, y, draws))
        expect(math.isfinite(loss), "three steps in mixed precision end in a loss that isn't finite", given=case)


def stackable(part: RulePart) -> None:
    """Two copies stacked do what two loops do: gradients to 1e-9, equal buffers, and 20 plain-SGD steps to 1e-7."""
    if part.tags.stackable:
        for case in cases(part):
            _stack_and_loops(case)
        return
    try:
        for case in cases(part):
            _stack_and_loops(case)
    except Exception as error:  # whatever keeps it from stacking is what was declared
        raise Skip(f"declared not stackable: {part.tags.why_not_stackable}") from error
    expect(False, "declared not stackable, and stacks", given=part.tags.why_not_stackable)


def _stack_and_loops(case: Case) -> None:
    seeds, rates = (0, 1), (0.02, 0.05)
    rules = [case.rule(seed) for seed in seeds]
    steps = [case.step(rule, seed) for rule, seed in zip(rules, seeds, strict=True)]
    x, y = torch.stack([s[0] for s in steps]), torch.stack([s[1] for s in steps])
    draws = tuple(torch.stack(each) for each in zip(*(s[2] for s in steps), strict=True))
    settings = [replace(SETTING, seed=seed, lr=lr) for seed, lr in zip(seeds, rates, strict=True)]

    _, stacked_grads = Stack(rules, settings).gradients(x, y, draws)
    for k, (x_k, y_k, draws_k) in enumerate(steps):
        wanted = gradients(case.rule(seeds[k]), x_k, y_k, *draws_k)
        scale = max(g.abs().max().item() for g in wanted.values())
        for name, got in stacked_grads.items():
            off = far(got[k], wanted[name], scale)
            expect(off <= 1e-9, f"copy {k}'s gradient of {name} differs from the loop's", given=case, got=off)

    stack = Stack(rules, settings)
    loops = [Loop(rule, setting) for rule, setting in zip(rules, settings, strict=True)]
    for step in range(20):
        stack.step(x, y, draws)
        for loop, (x_k, y_k, draws_k) in zip(loops, steps, strict=True):
            loop.step(x_k, y_k, draws_k)
        if step not in (0, 19):
            continue
        stacked = stack.state()
        for k, rule in enumerate(rules):
            for name, value in state(rule).items():
                off = far(stacked[name][k].double(), value.double())
                what = f"after {step + 1} steps copy {k}'s {name} differs from the loop's"
                expect(off <= (1e-9 if step == 0 else 1e-7), what, given=case, got=off)
    out = stack.predict(x)
    for k, rule in enumerate(rules):
        off = far(out[k].double(), predict(rule, x[k]).double())
        expect(off <= 1e-5, f"copy {k} predicts something else", given=case, got=off)


#: Seeds of the comparison with the control.
SEEDS = (0, 1, 2, 3)


def _scores(part: RulePart, task: Task) -> list[float]:
    """Test scores at the task's published rate, one a seed, each of its best evaluation; splits and nets are shared."""
    rules, data, settings = [], [], []
    for seed in SEEDS:
        rules.append(build(task, chosen(task) | {RULE: Chosen(part, {})}, seed, task.widths))
        data.append(task.data(seed))
        settings.append(Setting.of(task, seed, {"lr": task.lr[2] * part.tags.rates[2]}))
    if part.tags.stackable and not part.tags.closed_form:
        outs = train_stack(rules, data, settings)
    else:
        outs = [train(r, d, s, part.tags.closed_form) for r, d, s in zip(rules, data, settings, strict=True)]
    scores = []
    for rule, d, out in zip(rules, data, outs, strict=True):
        if out.best_state is None or out.bad_step is not None:
            scores.append(task.problem.worst)
            continue
        rule.load_state_dict(out.best_state)
        x, y = d.split("test")
        scores.append(task.problem.metric(predict(rule, x), y))
    return scores


@cache
def _control(task_id: str) -> tuple[Task, tuple[float, ...]]:
    task = catalogue.get(task_id).build(size="small")
    return task, tuple(_scores(catalogue.get(task.control), task))  # type: ignore[arg-type]


def above_control(part: RulePart) -> None:
    """On digits, over four seeds, the rule beats the task's control by two standard deviations of the differences."""
    task, control = _control("task/digits")
    try:
        scores = _scores(part, task)
    except Misfit as error:
        raise Skip(str(error)) from None
    sign = 1 if task.problem.higher_is_better else -1
    differences = [sign * (a - b) for a, b in zip(scores, control, strict=True)]
    mean, spread = statistics.mean(differences), statistics.stdev(differences)
    expect(
        mean > 0 and mean >= 2 * spread,
        "not above the control",
        given=f"seeds {SEEDS}",
        got=f"{mean:.4f} above, sd {spread:.4f}",
        wanted="at least 2 sd",
    )
