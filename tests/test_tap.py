"""Hooks that always come off again, and evaluation mode that is always left again."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import toys
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.engine.blocks import Blocks
from netwright.engine.loop import first_bad_module, predict
from netwright.tensor.tap import evaluating, tapped
from netwright.waiting.sparsity import ppl_sparsity


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ArithmeticError("this forward fails")


class Merging(nn.Linear):
    """Notes what its train() is told, as an adapter does that merges its change into its weight for evaluation."""

    told: tuple[bool, ...] = ()

    def train(self, mode: bool = True) -> Any:
        self.told += (mode,)
        return super().train(mode)


class Frozen(nn.Sequential):
    """Keeps its first module in evaluation mode, whatever is asked for."""

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self[0].eval()
        return self


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.ReLU()))


def hooks(model: nn.Module) -> int:
    tables = [vars(m)[name] for m in model.modules() for name in vars(m) if "_hooks" in name and name.startswith("_forward")]
    return sum(map(len, tables))


def modes(model: nn.Module) -> list[bool]:
    return [m.training for m in model.modules()]


# Hooks ----------------------------------------------------------------------------------------------------------------


def test_a_look_sees_path_module_arguments_and_output_of_every_forward() -> None:
    model, x, seen = net(), torch.randn(2, 3), []
    with tapped(model.named_modules(), lambda *given: seen.append(given)):
        y = model(x)
    assert [path for path, *_ in seen] == ["0", "1", "2.0", "2.1", "2", ""]
    assert all(model.get_submodule(path) is module for path, module, _, _ in seen)
    assert seen[0][2] == (x,) and seen[-1][3] is y
    model(x)
    assert len(seen) == 6 and hooks(model) == 0


def test_before_sees_keywords_and_comes_first() -> None:
    model, seen = nn.Linear(3, 2), []
    with tapped({"it": model}, lambda *given: seen.append(given), before=lambda *given: seen.append(given)):
        y = model(input=torch.ones(1, 3))
    (path, module, args, kwargs), (_, _, _, output) = seen
    assert (path, module, args) == ("it", model, ()) and torch.equal(kwargs["input"], torch.ones(1, 3)) and output is y


def test_hooks_come_off_when_the_body_raises_or_one_cannot_be_hooked() -> None:
    model = net()
    with pytest.raises(RuntimeError, match="shapes"), tapped(model.named_modules(), print, before=print):
        assert hooks(model) > 0
        model(torch.randn(2, 7))
    assert hooks(model) == 0
    with pytest.raises(AttributeError), tapped([*model.named_modules(), ("none", None)], print):  # type: ignore[list-item]
        pass
    assert hooks(model) == 0


def test_a_users_own_hooks_stay() -> None:
    model, own = net(), []
    model[0].register_forward_hook(lambda *given: own.append(given))
    with tapped(model.named_modules(), lambda *given: None):
        pass
    model(torch.randn(2, 3))
    assert hooks(model) == 1 and len(own) == 1


def test_taps_nest() -> None:
    model, x = net(), torch.randn(2, 3)
    outer, inner = [], []
    with tapped(model.named_modules(), lambda path, *_: outer.append(path)):
        with pytest.raises(ZeroDivisionError), tapped({"0": model[0]}, lambda path, *_: inner.append(path)):
            model(x)
            raise ZeroDivisionError
        model(x)
    assert len(outer) == 12 and inner == ["0"] and hooks(model) == 0


def test_a_module_shared_in_two_places_is_hooked_once() -> None:
    shared = nn.Linear(3, 3)
    model, seen = nn.ModuleDict({"a": shared, "b": shared}), []
    with tapped(model.named_modules(), lambda path, *_: seen.append(path)):
        model["b"](model["a"](torch.ones(1, 3)))
    assert seen == ["a", "a"]  # one look a call
    with tapped({"a": shared, "b": shared}, lambda path, *_: seen.append(path)):  # asked for under both
        shared(torch.ones(1, 3))
    assert seen == ["a", "a", "a", "b"]


def test_what_is_returned_takes_the_place_of_inputs_and_output() -> None:
    model, x = nn.Identity(), torch.ones(2)
    with tapped(
        {"": model}, lambda path, module, args, out: 10 * out, before=lambda path, module, args, kwargs: ((3 * args[0],), kwargs)
    ):
        assert torch.equal(model(x), 30 * x)
    assert model(x) is x


@pytest.mark.parametrize("always", [False, True])
def test_a_forward_that_raised_is_looked_at_where_asked_for(always: bool) -> None:
    model, seen = nn.Sequential(nn.Identity(), Failing()), []
    with (
        pytest.raises(ArithmeticError),
        tapped(model.named_modules(), lambda path, m, a, out: seen.append((path, out)), always=always),
    ):
        model(torch.ones(1))
    assert [path for path, _ in seen] == (["0", "1", ""] if always else ["0"])
    assert all(out is None for _, out in seen[1:]) and hooks(model) == 0


# Evaluation mode ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_every_module_gets_its_own_mode_back(fails: bool) -> None:
    model = net()
    model[1].eval()
    model[2].eval()[0].train()
    before = modes(model)
    assert len({*before}) == 2
    try:
        with evaluating(model):
            assert not any(modes(model))
            with evaluating(model[2]):
                model.train()
            assert modes(model)[:4] == [True, True, True, False]
            if fails:
                raise ArithmeticError
    except ArithmeticError:
        assert fails
    assert modes(model) == before


def test_a_module_shared_by_parents_of_two_modes_keeps_its_own() -> None:
    shared = nn.Dropout()
    model = nn.ModuleDict({"a": nn.Sequential(shared), "b": Frozen(nn.Linear(2, 2), shared)}).eval()
    model["b"].training = True
    before = modes(model)
    with evaluating(model):
        pass
    assert modes(model) == before and not shared.training and model["b"].training


def test_modules_with_a_train_of_their_own_are_told_of_both_changes() -> None:
    model = nn.ModuleDict({"on": Merging(2, 2), "off": Merging(2, 2).eval(), "held": Frozen(nn.Linear(2, 2), nn.Dropout())})
    model["held"].train()
    before = modes(model)
    assert not model["held"][0].training and model["held"][1].training
    with evaluating(model):
        assert model["on"].told == (False,) and not any(modes(model))
    assert model["on"].told == (False, True) and model["off"].told == (False, False)  # once by the test; never woken
    assert modes(model) == before


def test_a_net_whose_train_fails_gets_its_modes_back() -> None:
    class Stubborn(nn.Module):
        def train(self, mode: bool = True) -> Any:
            if mode != self.training:
                raise ArithmeticError("no other mode")
            return self

    model = nn.Sequential(nn.ReLU(), Stubborn(), nn.ReLU())
    with pytest.raises(ArithmeticError, match="no other mode"), evaluating(model):
        pass
    assert all(modes(model))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_without_a_mode_is_passed_over() -> None:
    frozen = torch.jit.freeze(torch.jit.script(nn.Linear(2, 2).eval()))
    model = nn.Sequential(frozen, nn.Dropout())
    with evaluating(model):
        assert model(torch.ones(1, 2)).shape == (1, 2)
    assert model.training and model[1].training


# Where they are used --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [False, True])
def test_predicting_leaves_a_submodule_in_its_own_mode(mode: bool) -> None:
    rule = toys.build().train(mode)
    rule.net.readout.train(not mode)
    before = modes(rule)
    predict(rule, toys.data().x)
    assert modes(rule) == before
    with pytest.raises(RuntimeError):
        predict(rule, torch.randn(4, toys.INPUTS + 1))
    assert modes(rule) == before


def test_blocks_and_sparsity_leave_modes_and_hooks_after_an_error() -> None:
    model = net()
    model[0].eval()
    before = modes(model)
    with pytest.raises(RuntimeError):
        Blocks.of(model, torch.randn(2, 7))
    with pytest.raises(RuntimeError):
        ppl_sparsity(model, [(torch.randn(2, 7), torch.zeros(2).long())], ["2.0"])
    with pytest.raises(BadInput):
        ppl_sparsity(model, [], ["2.0"])
    assert modes(model) == before and hooks(model) == 0


def test_the_first_bad_module_is_named_and_no_hook_stays() -> None:
    rule, data = toys.build(), toys.data()
    assert first_bad_module(rule, data.x, data.y) == "" and hooks(rule) == 0
    leaf = next(path for path, m in rule.named_modules() if isinstance(m, toys.Bend))
    rule.get_submodule(leaf).beta = math.nan
    assert first_bad_module(rule, data.x, data.y) == leaf and hooks(rule) == 0
