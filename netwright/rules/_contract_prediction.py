"""What a rule's predictions may do and cost, and the features it gives."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from netwright.core.contract import expect
from netwright.core.expressions import equivalents
from netwright.engine.blocks import Blocks
from netwright.engine.graph import on_graph
from netwright.engine.meter import counted
from netwright.rules._contract_cases import BATCH, cases, far, state
from netwright.rules._kind import RulePart
from netwright.tensor.tap import tapped


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


def countable(part: RulePart) -> None:
    """A step and a prediction run on the meta device, where the bench counts their operations; a step costs some."""
    for case in cases(part):
        with torch.device("meta"):
            rule = case.part.build(case.host.net(), case.host.problem, **case.options).double()
        x, y, draws = case.step(case.rule())
        training, inference = counted(rule, x.to("meta"), y.to("meta"), tuple(d.to("meta") for d in draws))
        costs = training > 0 and (inference > 0 or case.tags.forwards_predict == 0)
        expect(costs, "nothing was counted on the meta device", given=case, got=(training, inference))
