"""The kind `rule`: what misfits and wrong declarations say, tags that follow options, and toys."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from netwright.contract import apply
from netwright.contract.every import claims
from netwright.core.contract import Check
from netwright.core.errors import BadInput, Misfit, UnknownName
from netwright.core.expressions import equivalents
from netwright.core.part import Claim, Option, Paper
from netwright.engine.blocks import Blocks
from netwright.engine.rule import Rule
from netwright.rules import RulePart, Tags, rule
from netwright.rules._toy import Toy, gradients, linear_gradients, softmax_error

PAPER = Paper(title="A toy", authors="Nobody", year=2020)


class WholeNet(Rule):
    def forward(self, x):
        return self.net(x)

    def losses(self, x, y, *draws):
        yield self.problem.loss(self.net(x), y)


def declare(**more: Any) -> RulePart:
    return rule(WholeNet, paper=PAPER, **more)


def test_errors_name_what_is_missing():
    part = declare(tags=Tags(needs=frozenset({"blocks", "labels", "image"})))
    toy = Toy()
    with pytest.raises(Misfit, match=r"needs image, .*offers: labels, vector"):
        toy.bind(part.build)
    with pytest.raises(Misfit, match="needs a net of ordered blocks .* given Linear"):
        part.build(nn.Linear(2, 2), toy.problem)
    with pytest.raises(BadInput, match="needs a net"):
        part.build()
    with pytest.raises(UnknownName, match="no option is called 'speed'"):
        toy.bind(declare().build, speed=3)
    with pytest.raises(Misfit, match="no closed form"):
        toy.bind(declare().build).fit([])


def test_tags_refuse_what_they_cannot_mean():
    for wrong, said in (
        ({"family": "alchemy"}, "allowed: backprop"),
        ({"stackable": False}, "why_not_stackable"),
        ({"above_control": False}, "reason"),
        ({"forwards_predict": "len(classes)"}, "'classes'"),
        ({"forwards_train": "2 *"}, "'classes'"),
    ):
        with pytest.raises(BadInput, match=said):
            Tags(**wrong)


def test_forwards_are_numbers_or_name_options():
    part = declare(tags=Tags(forwards_predict="1 + 2 * steps"), options=(Option("steps", 3),))
    assert equivalents(part.tags.forwards_predict, part.resolve({})) == 7.0
    with pytest.raises(BadInput, match="names 'labels'; allowed: classes, depth, nodes, steps"):
        declare(tags=Tags(forwards_predict="labels"), options=(Option("steps", 3),))


def test_tags_follow_options():
    tags = Tags(forwards_train=1.0, at={"passes=two": {"forwards_train": 2.0}})
    part = declare(tags=tags, options=(Option("passes", "one", allowed=("one", "two")),))
    assert part.tags_at().forwards_train == 1.0 and part.tags_at(passes="two").forwards_train == 2.0
    assert part.settings() == [{}, {"passes": "two"}]


def test_a_claim_that_fails_is_reported():
    part = declare(claims=(Claim("false", "it is so", check=lambda: False),))
    assert not apply(part, Check("claims", claims)).ok


def test_toys_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    toy = Toy()
    first, second = toy.bind(WholeNet), toy.bind(WholeNet)
    assert all(map(torch.equal, first.parameters(), second.parameters()))
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_name_comes_from_the_class():
    assert declare().name == "whole-net" and rule(WholeNet, paper=PAPER, name="other").name == "other"


def test_gradients_of_losses_that_reach_nothing_are_zero():
    toy = Toy()
    bound, (x, y) = toy.bind(WholeNet), toy.batch()
    bound.register_parameter("idle", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    grads = gradients(bound, x, y)
    assert torch.equal(grads["idle"], torch.zeros(2, dtype=torch.float64)) and grads["net.readout.bias"].any()


def test_pieces_of_references_agree_with_autograd():
    toy = Toy(widths=())
    bound, (x, y) = toy.bind(WholeNet), toy.batch()
    with torch.no_grad():
        wanted = linear_gradients("net.readout", softmax_error(bound.net(x), y), x)
    for name, g in gradients(bound, x, y).items():
        torch.testing.assert_close(g, wanted[name], rtol=1e-12, atol=1e-14)


class Mixed(WholeNet):
    """Adds a buffer of its own."""

    def __init__(self, net, problem):
        super().__init__(net, problem)
        self.own = Own()


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("values", torch.empty(5))

    def reset_parameters(self, generator):
        self.values.normal_(generator=generator)


def test_a_rule_built_on_real_tensors_is_ready_and_leaves_the_net_alone():
    net = Blocks([nn.Linear(4, 3)], nn.Linear(3, 2), [(3,)])
    before, random = [p.clone() for p in net.parameters()], torch.random.get_rng_state()
    one, two = Mixed(net, Toy().problem), Mixed(net, Toy().problem)
    assert torch.equal(one.own.values, two.own.values) and one.own.values.any()
    two.redraw(1)
    assert not torch.equal(one.own.values, two.own.values)
    assert all(map(torch.equal, before, net.parameters())) and torch.equal(random, torch.random.get_rng_state())
