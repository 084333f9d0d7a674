"""Checks of learning rules over several steps: interrupted and resumed, and in mixed precision."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import torch

from netwright.core.contract import Skip, expect
from netwright.engine.loop import Loop, Setting
from netwright.engine.meter import counted, peak_bytes
from netwright.rules._contract_cases import BATCH, cases, in_steps, state, stepping
from netwright.rules._kind import RulePart
from netwright.rules._toy import Toy, gradients

ADAM = Setting(seed=0, lr=0.01, steps=4, batch=BATCH, evals=(4,), optimizer="adam")
#: Least cosine between the update in mixed precision and the one in float32: bfloat16 keeps 8 bits.
COSINE = 0.9


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


def features(part: RulePart) -> None:
    """features(x) gives one tensor a block, with a row for each example, and changes nothing."""
    for case in cases(part):
        rule = case.rule().eval()
        x, _, _ = case.step(rule)
        before = state(rule)
        with torch.no_grad():
            found = rule.features(x)
        depth = len(rule.net.blocks)
        expect(len(found) == depth, f"{len(found)} features of a net of {depth} blocks", given=case)
        rows = [len(h) for h in found]
        expect(rows == [BATCH] * depth, "features have other rows than the batch", given=case, got=rows)
        changed = [name for name, t in state(rule).items() if not torch.equal(t, before[name])]
        expect(not changed, "looking at features changes parameters or buffers", given=case, got=changed)


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


def countable(part: RulePart) -> None:
    """A step and a prediction run on the meta device, where the bench counts their operations; a step costs some."""
    for case in cases(part):
        with torch.device("meta"):
            rule = case.part.build(case.host.net(), case.host.problem, **case.options).double()
        x, y, draws = case.step(case.rule())
        training, inference = counted(rule, x.to("meta"), y.to("meta"), tuple(d.to("meta") for d in draws))
        costs = training > 0 and (inference > 0 or case.tags.forwards_predict == 0)
        expect(costs, "nothing was counted on the meta device", given=case, got=(training, inference))


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
