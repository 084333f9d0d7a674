"""Nets as arms: a task that opens the slot of the net compares nets, each at its own price and with its own places."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from netwright.bench.entrant import enter
from netwright.bench.match import match_widths
from netwright.bench.request import ArmSpec, make_request, open_task, parse_arm, slots_of
from netwright.core import catalogue
from netwright.core.errors import BadInput, Misfit
from netwright.core.kind import HOST, NET
from netwright.core.widths import TOLERANCE
from netwright.engine.build import build, chosen, net_of
from netwright.engine.task import Task
from netwright.tensor.streams import generator

NETS: list[Any] = [part for part in catalogue.parts("net") if not any(option.default is None for option in part.options)]


def opened(**problem: Any) -> Task:
    """The digits, whose default net is now an arm's to choose."""
    task = open_task("digits", {})
    slots = {**task.slots, HOST: task.host}
    changed = dataclasses.replace(task.problem, **problem)
    return dataclasses.replace(task, problem=changed, slots=slots, host="", net=Task.net)


def rows(shape: tuple[int, ...]) -> dict[str, Any]:
    """What makes a problem one of images or vectors of this shape."""
    return {"input": shape, "gives": frozenset({"labels", "image" if len(shape) == 3 else "vector"})}


IMAGES = opened(**rows((1, 8, 8)))
TAKEN = [part for part in NETS if "image" in part.takes]


def test_the_default_net_stands_in_its_slot_and_is_the_same_net() -> None:
    plain, task = open_task("digits", {}), opened()
    arm = parse_arm("default", task)
    ours, theirs = (build(t, chosen(t, arm.parts), 3, t.widths).state_dict() for t in (task, plain))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert enter(task, arm).slots[HOST][0] == plain.host


@pytest.mark.parametrize("part", TAKEN, ids=lambda part: part.id)
def test_an_arm_chooses_the_net(part: Any) -> None:
    arm = parse_arm(part.id, IMAGES)
    assert arm.parts == {HOST: (part.id, {})}
    entrant = enter(IMAGES, arm)
    wanted = part.build(IMAGES.problem, entrant.widths, {"activation": lambda c, d: nn.ReLU()})
    assert sum(p.numel() for p in wanted.parameters()) == entrant.params
    rule = entrant.build(0)
    if part.tags.channels_last:
        assert any(p.dim() == 4 and p.is_contiguous(memory_format=torch.channels_last) for p in rule.parameters())
    assert rule(torch.randn(3, 1, 8, 8, generator=generator(0, "probe"))).shape == (3, 10)


def test_arms_with_other_nets_have_other_keys_and_one_cost() -> None:
    base, *others = (enter(IMAGES, parse_arm(part.id, IMAGES)) for part in TAKEN)
    assert others and len({e.key(0, {"lr": 0.1}, "loop", "") for e in (base, *others)}) == len(TAKEN)
    widths, _ = match_widths([base, *others], "params")
    for entrant in others:
        assert entrant.widths != widths[entrant.name]
        assert abs(entrant.at(widths[entrant.name]).params / base.params - 1) <= TOLERANCE


def test_places_are_those_of_the_net_that_the_arm_has_chosen() -> None:
    few, many = sorted(TAKEN, key=lambda part: len(set(part.places)))[:: len(TAKEN) - 1]
    (place, *_) = sorted(set(many.places) - set(few.places))
    part = next(p for p in catalogue.parts() if p.slots() == (place,) and not p.missing(IMAGES.problem.gives))
    assert place in slots_of(IMAGES, [many]) and place not in slots_of(IMAGES, [few])
    assert set(parse_arm(f"{part.id}+{many.id}", IMAGES).parts) == {place, HOST}
    with pytest.raises(Misfit, match=f"fills the slot {place}"):
        parse_arm(f"{few.id}+{part.id}", IMAGES)
    filled = dataclasses.replace(IMAGES, slots={**IMAGES.slots, place: part.id})
    assert place in chosen(filled, {HOST: (many.id, {})}) and place not in chosen(filled, {HOST: (few.id, {})})


def test_a_net_is_refused_where_it_does_not_fit() -> None:
    net = TAKEN[0]
    with pytest.raises(Misfit, match=f"{net.id} fills the slot net; task/digits has the slots .*: no slot admits it"):
        parse_arm(net.id, open_task("digits", {}))
    other = next(part for part in NETS if not part.takes & {"image", "vector"})
    with pytest.raises(Misfit, match=f"{other.id} needs {sorted(other.takes)[0]}, which task/digits doesn't offer"):
        parse_arm(other.id, IMAGES)
    with pytest.raises(Misfit, match="both fill the slot net"):
        parse_arm(f"{TAKEN[0].id}+{TAKEN[1].id}", IMAGES)
    nowhere = dataclasses.replace(IMAGES, slots={k: v for k, v in IMAGES.slots.items() if k != HOST})
    with pytest.raises(BadInput, match="put one into the slot"):
        net_of(nowhere, chosen(nowhere), (4,))


def test_a_request_takes_nets_and_activations_together() -> None:
    activation = next(p for p in catalogue.parts() if p.kind != "net" and catalogue.kinds()[p.kind].place == NET)
    arms = [ArmSpec("default"), f"{TAKEN[0].id}+{activation.id}", TAKEN[1].id]
    request = make_request(IMAGES, "given:images", {}, arms)
    assert [set(arm.parts) & {HOST} for arm in request.arms] == [set(), {HOST}, {HOST}]
