"""The contract of a learning rule: what it may do in one step here, on small hosts in float64, at every setting; of
predictions and of learning in _contract_<property>.py.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from netwright.core.contract import Check, Skip, expect
from netwright.core.errors import Misfit
from netwright.engine.blocks import keeps_statistics
from netwright.engine.loop import Loop
from netwright.rules._contract_cases import cases, far, in_steps, reach, state
from netwright.rules._contract_learning import SETTING, above_control, autocast, descent, flat_memory, resume, stackable
from netwright.rules._contract_prediction import countable, features, forwards, predict_pure
from netwright.rules._kind import RulePart
from netwright.rules._toy import Toy, gradients
from netwright.tensor.streams import generator, initialise

TINY = 1e-12  # relative: one order of summation against another, in float64


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


def statistics_once(part: RulePart) -> None:
    """Running statistics change exactly once a step."""
    seen = 0
    for case, rule, x, y, draws in in_steps(part):
        norms = [(n, m) for n, m in rule.named_modules() if keeps_statistics(m)]
        Loop(rule, SETTING).step(x, y, draws)
        for name, norm in norms:
            seen += 1
            got = int(norm.num_batches_tracked)
            expect(got == 1, f"one step updates the running statistics of {name} {got} times", given=case)
    if not seen:
        raise Skip("fits no host with running statistics")


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
