"""Losses in problems, in loops and as arms: exact means over any cut of a batch, and refusals before anything runs."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
import torch
import toys
from sample import sampled
from torch import Tensor

import netwright
from netwright.bench.entrant import enter
from netwright.bench.request import make_request, open_task, parse_arm, slots_of
from netwright.core import catalogue
from netwright.core.errors import BadInput, Misfit, UnknownName
from netwright.core.kind import LOSS, OPTIMIZER, SCHEDULE
from netwright.engine.build import chosen, problem_of
from netwright.losses._contract import batch
from netwright.tensor.terms import Term, by_example, reduced

PARTS = catalogue.parts("loss")
SCORES = [part for part in PARTS if part.tags.outputs == "scores" and part.id != toys.ENTROPY.id]
BINARY = next(part for part in PARTS if part.tags.outputs == "binary")
VALUES = next(part for part in PARTS if part.tags.outputs == "values")


# Terms ----------------------------------------------------------------------------------------------------------------


def test_terms_are_weighted_means_that_add_up() -> None:
    v, w = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 0.0, 3.0])
    assert float(reduced((Term(v, w), Term(v, torch.ones(3))))) == pytest.approx(19 / 4 + 3)
    assert float(reduced((Term(v, w),), of=(10.0,))) == pytest.approx(1.9)
    lost = torch.tensor([1.0, float("nan"), 6.0])
    assert float(reduced((Term(lost, w),))) == pytest.approx(19 / 4)
    nothing = torch.zeros(3, requires_grad=True)
    value = reduced((Term(nothing, torch.zeros(3)),))
    value.backward()
    assert float(value.detach()) == 0 and torch.equal(nothing.grad, torch.zeros(3))


def test_an_example_of_positions_weighs_as_many_as_count() -> None:
    each, counts = torch.tensor([[1.0, 3.0], [5.0, 9.0]]), torch.tensor([[True, True], [True, False]])
    term = by_example(each, counts)
    assert term.values.tolist() == [2.0, 5.0] and term.weights.tolist() == [2.0, 1.0]


# Problems --------------------------------------------------------------------------------------------------------------


def mean_of_mine(out: Tensor, y: Tensor) -> Tensor:
    return (out.argmax(-1) != y).double().mean() + out.square().mean()


NAMED = {"by id": toys.ENTROPY.id, "by name": toys.ENTROPY.name, "another": SCORES[0].id, "a function": mean_of_mine}


@pytest.mark.parametrize("objective", NAMED.values(), ids=NAMED)
def test_pieces_of_a_step_add_up_to_the_step(objective) -> None:
    problem = dataclasses.replace(toys.PROBLEM, objective=objective)
    out, y = torch.randn(11, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.arange(11) % 3
    totals = problem.totals(torch.zeros_like(out), y)
    cuts = (slice(0, 4), slice(4, 4), slice(4, 5), slice(5, 11))
    pieces = sum(problem.loss(out[c], y[c], of=totals) for c in cuts)
    assert float(pieces) == pytest.approx(float(problem.loss(out, y)), rel=1e-12)


def test_a_problem_travels_and_is_compared_by_what_it_says() -> None:
    again = pickle.loads(pickle.dumps(toys.PROBLEM.__class__.classification((4,), 3)))
    out, y = torch.randn(2, 3), torch.tensor([0, 2])
    assert torch.equal(copy.deepcopy(again).loss(out, y), toys.PROBLEM.loss(out, y))
    assert again.lowers == toys.ENTROPY.id
    with pytest.raises(UnknownName, match=toys.ENTROPY.name):
        dataclasses.replace(again, objective=f"{toys.ENTROPY.name}x").loss(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long))
    with pytest.raises(Misfit, match="piece by piece"):
        dataclasses.replace(again, objective=BINARY.id).loss(torch.zeros(2, 2), torch.tensor([0, 1]), of=(2.0,))


def test_the_loss_of_a_training_is_torchs_own_to_the_bit() -> None:
    out, y = torch.randn(7, 10, generator=torch.Generator().manual_seed(0)), torch.arange(7)
    problem = toys.PROBLEM.__class__.classification((4,), 10)
    padded = torch.nn.functional.pad(out, (0, 6), value=-float("inf"))
    assert torch.equal(problem.loss(out, y), torch.nn.functional.cross_entropy(padded, y))


# Arms -------------------------------------------------------------------------------------------------------------------


def test_every_task_has_its_loss_as_a_slot_that_arms_fill() -> None:
    task = open_task("digits", {})
    assert LOSS in slots_of(task) and chosen(task)[LOSS].part.id == toys.ENTROPY.id
    arm = enter(task, parse_arm(SCORES[0].id, task))
    assert problem_of(task, arm.parts).objective == SCORES[0].id
    assert arm.build(0).problem.objective == SCORES[0].id and SCORES[0].id in arm.fingerprints
    usual = enter(task, parse_arm("default", task))
    assert usual.key(0, {"lr": 1.0}, "loop", "") != arm.key(0, {"lr": 1.0}, "loop", "")
    assert {LOSS, OPTIMIZER, SCHEDULE} <= usual.slots.keys()


@pytest.mark.parametrize(("part", "words"), [(BINARY, "needs two classes"), (VALUES, "needs targets")], ids=["binary", "values"])
def test_a_loss_that_does_not_fit_the_tasks_outputs_is_refused(part, words: str) -> None:
    task = open_task("digits", {})
    with pytest.raises(Misfit, match=words):
        make_request(task, "digits", {}, ["default", part.id])


def test_two_classes_are_offered_where_there_are_two() -> None:
    task = open_task("moons", {})
    assert enter(task, parse_arm(BINARY.id, task)).build(0).problem.objective == BINARY.id


# In a loop of one's own -------------------------------------------------------------------------------------------------


def test_accumulated_over_unequal_pieces_the_gradient_is_the_batchs() -> None:
    net = torch.nn.Linear(4, 3).double()
    x, y = torch.randn(10, 4, dtype=torch.float64), torch.tensor([0, 1, 2, -100, 1, 0, -100, 2, 2, 1])
    loss = netwright.make(toys.ENTROPY.name)
    loss(net(x), y).backward()
    wanted = net.weight.grad.clone()
    net.zero_grad()
    totals = loss.totals(torch.zeros(10, 3), y)
    for piece in (slice(0, 7), slice(7, 10)):
        loss(net(x[piece]), y[piece], of=totals).backward()
    assert torch.allclose(net.weight.grad, wanted, rtol=1e-12)
    values, weights = loss.terms(net(x), y)[0]
    assert values.shape == weights.shape == (10,) and weights.sum() == 8


@pytest.mark.parametrize("part", sampled(PARTS), ids=lambda part: part.name)
def test_a_loss_is_pickled_by_its_name(part) -> None:
    out, y = batch(part)
    assert torch.equal(pickle.loads(pickle.dumps(part.build()))(out, y), part.build()(out, y))


def test_wrong_options_are_refused_by_name() -> None:
    with pytest.raises(UnknownName, match="ignore_index"):
        netwright.make(toys.ENTROPY.name, ignore_indx=0)
    with pytest.raises(BadInput, match="label_smoothing=2"):
        netwright.make(f"{toys.ENTROPY.name}:label_smoothing=2")
