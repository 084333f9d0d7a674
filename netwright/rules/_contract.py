"""Checks of learning rules: what a step and a prediction may do, on small hosts in float64, at every setting."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.contract import Check, Skip, expect
from netwright.core.errors import Misfit
from netwright.core.expressions import equivalents
from netwright.core.kind import RULE
from netwright.engine.blocks import Blocks
from netwright.engine.build import Chosen, build, chosen
from netwright.engine.graph import on_graph
from netwright.engine.loop import Loop, Setting, predict, train
from netwright.engine.rule import Rule
from netwright.engine.stack import Stack, train_stack
from netwright.engine.task import Task
from netwright.rules._contract_cases import BATCH, Case, cases, far, in_steps, reach, state
from netwright.rules._contract_training import autocast, countable, features, flat_memory, resume
from netwright.rules._kind import RulePart
from netwright.rules._toy import Toy, gradients
from netwright.tensor.streams import generator, initialise
from netwright.tensor.tap import tapped

TINY = 1e-12  # relative: one order of summation against another, in float64
SETTING = Setting(seed=0, lr=0.05, steps=1, batch=BATCH, evals=(1,), optimizer="sgd")
#: Seeds of the comparison with the control.
SEEDS = (0, 1, 2, 3)


# Parameters and units -------------------------------------------------------------------------------------------------


def initialised(part: RulePart) -> None:
    """Built on meta, every parameter and buffer is filled by the seed alone; the global generator stays untouched."""
    for case in cases(part):
        before = torch.random.get_rng_state()
        filled = []
        for _ in range(2):
            with torch.device("meta"):
                rule = part.build(case.host.net(), case.host.problem, **case.options)
            rule.to_empty(device="cpu")
            for t in (*rule.parameters(), *rule.buffers()):
                t.data.fill_(math.nan if t.is_floating_point() else 77)
            initialise(rule, 3)
            filled.append(state(rule))
        untouched = torch.equal(before, torch.random.get_rng_state())
        expect(untouched, "building draws from the global generator", given=case)
        for name, t in filled[0].items():
            empty = bool(t.isnan().any()) if t.is_floating_point() else bool((t == 77).any())
            expect(not empty, f"{name} isn't filled by initialise", given=case)
            expect(torch.equal(t, filled[1][name]), f"{name} differs between two builds from one seed", given=case)


def update_tree(part: RulePart) -> None:
    """Every trainable parameter is in one unit and gets a gradient; a loss reaches no unit stepped before it."""
    for case, rule, x, y, draws in in_steps(part):
        name = {id(p): n for n, p in rule.named_parameters()}
        units = [[id(p) for p in unit] for unit in rule.units()]
        listed = [i for unit in units for i in unit]
        expect(set(listed) <= set(name), "units() holds a parameter that isn't the rule's", given=case)
        twice = sorted({name[i] for i in listed if listed.count(i) > 1})
        expect(not twice, "parameters in two places of units()", given=case, got=twice)
        trains = {id(p) for p in rule.parameters() if p.requires_grad}
        lost = sorted(name[i] for i in trains - set(listed))
        expect(not lost, "trainable parameters in no unit", given=case, got=lost)
        frozen = sorted(name[i] for i in set(listed) - trains)
        expect(not frozen, "frozen parameters in a unit", given=case, got=frozen)
        reached = reach(rule, x, y, *draws)
        dry = sorted(name[i] for i in listed if all(grads[i] is None for grads in reached))
        expect(not dry, "parameters no loss reaches", given=case, got=dry)
        for k, unit in enumerate(units):
            moved = any(bool(grads[i].any()) for grads in reached for i in unit if grads[i] is not None)
            expect(moved, f"unit {k} has a zero gradient", given=case)
        for k, grads in enumerate(reached):
            late = sorted(name[i] for unit in units[: min(k, len(units) - 1)] for i in unit if grads[i] is not None)
            expect(not late, f"loss {k} reaches parameters that were stepped before it", given=case, got=late)


def no_cross_gradient(part: RulePart) -> None:
    """Of a local rule, a unit's update comes from its own loss and doesn't see the parameters of later units."""
    if not part.tags.local:
        raise Skip("doesn't call itself local")
    for case, rule, x, y, draws in (step for step in in_steps(part) if step[0].tags.local):
        name = {id(p): n for n, p in rule.named_parameters()}
        units = [[id(p) for p in unit] for unit in rule.units()]
        alone = reach(rule, x, y, *draws)
        shared = set(units[-1]) if len(alone) < len(units) else set()
        for k, grads in enumerate(alone):
            own = set(units[min(k, len(units) - 1)]) | shared
            crossed = sorted(name[i] for i, g in grads.items() if g is not None and i not in own)
            expect(not crossed, f"loss {k} reaches parameters of other units", given=case, got=crossed)
        for k in range(min(len(alone), len(units) - 1)):
            twin = case.rule()
            with torch.no_grad():
                for p in [p for unit in twin.units()[k + 1 :] for p in unit][: -len(shared) or None]:
                    p.add_(1.0)
            disturbed = reach(twin, x, y, *draws)[k]
            for p, q in zip(rule.units()[k], twin.units()[k], strict=True):
                equal = torch.equal(alone[k][id(p)], disturbed[id(q)])
                expect(equal, f"the update of {name[id(p)]} sees the parameters of later units", given=case)


# One step -------------------------------------------------------------------------------------------------------------


def reference(part: RulePart) -> None:
    """One step's update equals the second writing of it, at every setting."""
    expect(part.reference, "no reference: write one step's update by hand for the net of Toy")
    toy = part.toy or Toy()
    for options in part.settings():
        rule, (x, y) = toy.bind(part.build, **options), toy.batch()
        draws = rule.draw(x, y, generator(0, "draw"))
        got = gradients(rule, x, y, *draws)
        with torch.no_grad():
            wanted = part.reference(rule, x, y, *draws)  # type: ignore[misc]
        missing = sorted(got.keys() ^ wanted.keys())
        expect(not missing, "the reference and the rule update different parameters", given=options, got=missing)
        for name, g in got.items():
            off = far(g, wanted[name])
            expect(off <= 1e-10, f"the update of {name} isn't the reference's", given=options, got=off)


def one_backward(part: RulePart) -> None:
    """One backward through the sum of all losses gives what a backward for each loss as it comes gives."""
    for case, rule, x, y, draws in in_steps(part):
        at_once = gradients(case.rule(), x, y, *draws)
        for loss in rule.losses(x, y, *draws):
            loss.backward()
        scale = max(g.abs().max().item() for g in at_once.values())
        for name, g in at_once.items():
            p = rule.get_parameter(name)
            one_by_one = torch.zeros_like(p) if p.grad is None else p.grad
            expect(far(one_by_one, g, scale) <= TINY, f"{name} gets another gradient loss by loss", given=case)


def between_yields(part: RulePart) -> None:
    """Stepping a unit between two losses changes no later loss: a looped step moves every parameter by its gradient."""
    for case, rule, x, y, draws in in_steps(part):
        rule.after_step = lambda: None  # type: ignore[method-assign]  # it may change parameters, too
        at_once = gradients(case.rule(), x, y, *draws)
        before = state(rule)
        Loop(rule, SETTING).step(x, y, draws)
        scale = max(g.abs().max().item() for g in at_once.values())
        for name, g in at_once.items():
            moved = (before[name] - rule.get_parameter(name).detach()) / SETTING.lr
            expect(far(moved, g, scale) <= 1e-9, f"{name}'s update depends on the steps of other units", given=case)


def randomness(part: RulePart) -> None:
    """All randomness of a step comes from draw: the same draws give the same losses, and no global generator moves."""
    for case, rule, x, y, draws in in_steps(part):
        before = torch.random.get_rng_state()
        g = generator(0, "draw")
        again = rule.draw(x, y, g)
        expect(all(map(torch.equal, draws, again)), "the same generator gives other draws", given=case)
        first = torch.stack(list(rule.losses(x, y, *draws)))
        other = torch.stack(list(case.rule().losses(x, y, *draws)))
        expect(torch.equal(first, other), "the same draws give other losses", given=case)
        expect(torch.equal(before, torch.random.get_rng_state()), "a step draws from the global generator", given=case)


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


def statistics_once(part: RulePart) -> None:
    """Running statistics change exactly once a step."""
    seen = 0
    for case, rule, x, y, draws in in_steps(part):
        norms = [(n, m) for n, m in rule.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        Loop(rule, SETTING).step(x, y, draws)
        for name, norm in norms:
            seen += 1
            got = int(norm.num_batches_tracked)  # type: ignore[arg-type]
            expect(got == 1, f"one step updates the running statistics of {name} {got} times", given=case)
    if not seen:
        raise Skip("fits no host with running statistics")


# Prediction and cost --------------------------------------------------------------------------------------------------


def predict_pure(part: RulePart) -> None:
    """Predicting changes nothing, repeats itself, has the output's shape, and gives each row what it gives it alone."""
    for case in cases(part):
        rule = case.rule().eval()
        x, _, _ = case.step(rule)
        before, random = state(rule), torch.random.get_rng_state()
        with torch.no_grad():
            out, again, alone = rule(x), rule(x), torch.cat([rule(row[None]) for row in x])
        after = state(rule)
        changed = [name for name in after.keys() & before.keys() if not torch.equal(after[name], before[name])]
        changed += sorted(after.keys() ^ before.keys())
        expect(not changed, "predicting changes parameters or buffers", given=case, got=changed)
        still = torch.equal(random, torch.random.get_rng_state())
        expect(still, "predicting draws from the global generator", given=case)
        expect(not rule.training, "predicting changes the mode", given=case)
        wanted = (BATCH, *case.host.problem.output)
        expect(tuple(out.shape) == wanted, "a prediction's shape", given=case, got=tuple(out.shape), wanted=wanted)
        expect(torch.equal(out, again), "two predictions of one input differ", given=case)
        expect(far(alone, out) <= 1e-10, "a row's prediction depends on the other rows", given=case)


def products(host: Any) -> list[nn.Module]:
    """The modules of a host's blocks that multiply by a matrix or a kernel."""
    return [m for m in host.blocks.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))]


def forwards(part: RulePart) -> None:
    """Rows sent through the blocks' products in a step and a prediction are as declared (forwards_train, forwards_predict)."""
    for case in cases(part):
        rule = case.rule()
        x, y, draws = case.step(rule)
        rows: list[int] = []

        def count(path: str, module: nn.Module, given: Any, out: Any, rows: list[int] = rows) -> None:
            rows.append(len(given[0]))

        hosts = [m for m in rule.modules() if isinstance(m, Blocks) or on_graph(m)]  # the net, and copies that a rule makes of it
        leaves = {leaf for host in hosts for leaf in products(host)}
        depth = len(rule.net.blocks)
        net: Any = rule.net
        nodes = len(net.graph.x) if on_graph(net) else BATCH  # a graph goes through as a whole
        equivalent = nodes * len(products(rule.net))
        names = {**case.part.resolve(case.options), "classes": case.host.problem.classes or 0, "depth": depth, "nodes": nodes}
        with tapped({path: m for path, m in rule.named_modules() if m in leaves}, count):
            if not case.tags.closed_form:
                for _ in rule.losses(x, y, *draws):
                    pass
                got, wanted = sum(rows) / equivalent, equivalents(case.tags.forwards_train, names)
                expect(math.isclose(got, wanted), "forward-equivalents of a step", given=case, got=got, wanted=wanted)
            rows.clear()
            with torch.no_grad():
                rule.eval()(x)
        got, wanted = sum(rows) / equivalent, equivalents(case.tags.forwards_predict, names)
        expect(math.isclose(got, wanted), "forward-equivalents of a prediction", given=case, got=got, wanted=wanted)


def misfit(part: RulePart) -> None:
    """Where a task or a net lacks what the rule needs, the error names it."""
    if not part.tags.needs:
        raise Skip("needs nothing")
    for case in cases(part):
        for need in case.tags.needs:
            net: nn.Module = nn.Linear(2, 2) if need == "blocks" else case.host.net()
            problem = replace(case.host.problem, gives=case.host.problem.gives - {need})
            try:
                part.build(net, problem, **case.options)
            except Misfit as error:
                expect(need in str(error), f"the error doesn't name {need!r}", given=case, got=error)
            else:
                expect(False, f"built on a task that lacks {need!r}", given=case)


# Stacks and learning --------------------------------------------------------------------------------------------------


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
        mean > 0 and mean >= 2 * spread, "not above the control", given=f"seeds {SEEDS}",
        got=f"{mean:.4f} above, sd {spread:.4f}", wanted="at least 2 sd",
    )  # fmt: skip


CHECKS = (
    Check("above_control", above_control, slow=True),
    Check("autocast", autocast),
    Check("between_yields", between_yields),
    Check("countable", countable),
    Check("descent", descent),
    Check("features", features),
    Check("flat_memory", flat_memory),
    Check("forwards", forwards),
    Check("initialised", initialised),
    Check("misfit", misfit),
    Check("no_cross_gradient", no_cross_gradient),
    Check("one_backward", one_backward),
    Check("predict_pure", predict_pure),
    Check("randomness", randomness),
    Check("reference", reference),
    Check("resume", resume),
    Check("stackable", stackable),
    Check("statistics_once", statistics_once),
    Check("update_tree", update_tree),
)
