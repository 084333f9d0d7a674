"""Every layer and norm in the nets of our tasks: it is built there, trains, and stacked copies get the loop's gradients."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any

import pytest
import torch
from sample import sampled

from netwright.bench.claims import claim_study, claims
from netwright.bench.entrant import enter
from netwright.bench.request import ArmSpec, open_task
from netwright.core import catalogue
from netwright.engine.loop import Setting, train
from netwright.engine.stack import Stack
from netwright.engine.task import Task, eval_grid
from netwright.rules._toy import gradients
from netwright.tasks._read import VARIABLE

SEEDS = (0, 1)
PLACED = [part for part in sampled(catalogue.parts("layer")) if part.slots()]


def host_with(slot: str) -> str:
    """A net of vectors or images that has the place."""
    nets: list[Any] = catalogue.parts("net")
    return next(net.name for net in nets if slot in net.places and net.takes & {"vector", "image"})


def task_of(part: Any) -> tuple[Task, str]:
    """A small task whose net has a slot for the part, and the slot."""
    (slot,) = part.slots()
    host = "convnet" if slot == "norm" else host_with(slot)
    task = open_task("digits", {"host": host})
    return dataclasses.replace(task, widths=(8,) * len(task.widths), steps=6, evals=eval_grid(6)), slot


def rules_of(part: Any) -> tuple[Task, list[Any], list[Any]]:
    task, slot = task_of(part)
    entrant = enter(task, ArmSpec(part.name, {slot: (part.id, {})}))
    return task, [entrant.build(seed) for seed in SEEDS], [task.data(seed) for seed in SEEDS]


@pytest.mark.parametrize("part", PLACED, ids=lambda part: part.id)
def test_stacked_copies_get_the_gradients_of_the_loop(part: Any) -> None:
    task, rules, data = rules_of(part)
    assert any(getattr(module, "part", None) is part for module in rules[0].modules())
    if part.why_not_stackable:
        pytest.skip(part.why_not_stackable)
    rules = [rule.double() for rule in rules]
    batches = [d.split("train") for d in data]
    x, y = (torch.stack([b[i][:16] for b in batches]) for i in (0, 1))
    x = x.double()
    stack = Stack(rules, [Setting.of(task, seed, {"lr": 1e-3}) for seed in SEEDS])
    losses, grads = stack.gradients(x, y, ())
    for k, rule in enumerate(rules):
        wanted = gradients(rule, x[k], y[k])
        largest = max(float(g.abs().max()) for g in wanted.values())
        assert largest > 0
        assert math.isfinite(float(losses[k]))
        for name, g in wanted.items():
            assert float((grads[name][k] - g).abs().max()) <= 1e-8 * largest, name


@pytest.mark.parametrize("part", PLACED, ids=lambda part: part.id)
def test_some_steps_of_training_stay_finite_and_change_what_was_drawn(part: Any) -> None:
    task, rules, data = rules_of(part)
    before = {name: p.detach().clone() for name, p in rules[0].named_parameters()}
    done = train(rules[0], data[0], Setting.of(task, 0, {"lr": 1e-2}))
    assert done.bad_step is None
    assert done.best_val is not None
    own = [name for name, p in rules[0].named_parameters() if not torch.equal(p, before[name])]
    assert own


@pytest.mark.skipif(not os.environ.get(VARIABLE), reason="NETWRIGHT_DATA names no folder with the real sets")
def test_every_claim_of_a_layer_or_norm_names_a_study_that_can_be_made() -> None:
    made = [claim_study(part, claim) for part, claim in claims("layer")]
    assert len(made) > 10
    assert all(len(study.request.arms) == 2 for study in made)
