"""The two engines: they agree, refuse what they can't do, survive what goes wrong, and touch nothing global."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
import toys
from golden import trajectory
from sample import sampled
from torch import nn

from netwright.bench.entrant import enter
from netwright.bench.request import ArmSpec, open_task
from netwright.core import catalogue
from netwright.core.errors import BadInput, Misfit, UnknownName
from netwright.core.fingerprint import ENGINE_VERSION
from netwright.core.kind import OPTIMIZER, SCHEDULE
from netwright.engine.loop import Loop, Setting, cast, first_bad_module, orders, predict, train
from netwright.engine.stack import Stack, skeleton, train_stack
from netwright.rules._toy import gradients

SEEDS, RATES = (0, 1, 2), (0.02, 0.05, 0.03)
HOSTS = {
    "noise drawn outside": (toys.Noisy, {}),
    "local units, after_step": (toys.Local, {}),
    "batch norm": (toys.Whole, {"norm": "batch"}),
    "learnt slopes": (toys.Whole, {"act": toys.Tilt}),
}


def noise(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return x + 0.1 * torch.randn(x.shape, generator=generator).to(x)


def both(cls, build=None, **changes):
    """The outcomes and final states of the loop and of the stack, for three seeds with rates of their own."""
    settings = [toys.setting(s, lr=lr, **changes) for s, lr in zip(SEEDS, RATES, strict=True)]
    rules = [[toys.build(cls, s, **(build or {})) for s in SEEDS] for _ in range(2)]
    data = [toys.data(s) for s in SEEDS]
    looped = [train(r, d, s) for r, d, s in zip(rules[0], data, settings, strict=True)]
    stacked = train_stack(rules[1], data, settings)
    return looped, stacked, rules


def assert_same(looped, stacked, rules, tolerance=1e-7):
    for a, b, one, other in zip(looped, stacked, *rules, strict=True):
        assert a.best_step == b.best_step and len(a.curve) == len(b.curve) > 0
        for (step, loss, score), (step_b, loss_b, score_b) in zip(a.curve, b.curve, strict=True):
            assert step == step_b and score == pytest.approx(score_b, abs=1e-12)
            assert loss == pytest.approx(loss_b, rel=tolerance)
        there = other.state_dict()
        for name, value in one.state_dict().items():
            assert torch.allclose(value.double(), there[name].double(), rtol=tolerance, atol=tolerance), name
        for name, value in a.best_state.items():
            assert torch.allclose(value.double(), b.best_state[name].double(), rtol=tolerance, atol=tolerance), name


# Loop = stack ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTS)
def test_one_step_of_the_stack_has_the_gradients_and_buffers_of_the_loop(name):
    cls, build = HOSTS[name]
    rules = [toys.build(cls, s, **build).double() for s in SEEDS]
    batches = [toys.data(s).split("train") for s in SEEDS]
    x, y = (torch.stack([b[i][:16] for b in batches]) for i in (0, 1))
    x = x.double()
    drawn = [r.draw(a, b, torch.Generator().manual_seed(i)) for i, (r, a, b) in enumerate(zip(rules, x, y, strict=True))]
    draws = tuple(torch.stack(d) for d in zip(*drawn, strict=True))
    stack = Stack(rules, [toys.setting(s) for s in SEEDS])
    losses, grads = stack.gradients(x, y, draws)
    for k, rule in enumerate(rules):
        wanted = gradients(rule, x[k], y[k], *drawn[k])
        largest = max(float(g.abs().max()) for g in wanted.values())
        assert largest > 0 and math.isfinite(float(losses[k]))
        for parameter, g in wanted.items():
            assert float((grads[parameter][k] - g).abs().max()) <= 1e-9 * largest, parameter
        for buffer, value in rule.named_buffers():
            assert torch.allclose(stack.buffers[buffer][k].double(), value.double(), rtol=1e-12, atol=1e-12), buffer


@pytest.mark.parametrize("name", HOSTS)
def test_twenty_steps_of_plain_sgd_agree(name):
    cls, build = HOSTS[name]
    assert_same(*both(cls, build))


@pytest.mark.parametrize(
    "optimizer", [p for p in sampled(catalogue.parts("optimizer")) if OPTIMIZER in p.slots()], ids=lambda p: p.name
)
def test_copies_step_as_single_ones_do_each_at_its_own_rate(optimizer):
    if optimizer.why_not_stackable:
        with pytest.raises(Misfit, match="sums over all tensors"):
            optimizer.over_copies({}, {}, [1.0], {})
        return
    moved = [f"{o.name}=0.9" for o in optimizer.options if o.name == "momentum"] + [
        f"{o.name}=true" for o in optimizer.options if o.default is False
    ]
    decay = {} if optimizer.tags.decay == "none" else {"weight_decay": 0.1}
    for options in {"", ":" + ",".join(moved)} if moved else {""}:
        assert_same(*both(toys.Whole, optimizer=optimizer.id + options, schedule=toys.FALLING, **decay), tolerance=1e-6)


@pytest.mark.parametrize("schedule", [p.name for p in sampled(catalogue.parts("optimizer")) if SCHEDULE in p.slots()])
def test_clipping_schedules_decay_and_augmentation_agree(schedule):
    assert_same(*both(toys.Local, schedule=schedule, clip=0.05, weight_decay=0.2, augment=noise))


def test_clipping_by_norm_is_per_copy_and_unit():
    rules = [toys.build(toys.Whole, s).double() for s in SEEDS]
    stack = Stack(rules, [toys.setting(s, lr=1.0, clip=0.01) for s in SEEDS])
    x, y = (torch.stack([toys.data(s).split("train")[i][:16] for s in SEEDS]) for i in (0, 1))
    before = {n: v.clone() for n, v in stack.params.items()}
    stack.step(x.double(), y)
    for k in range(3):
        moved = math.sqrt(sum(float((stack.params[n][k] - v[k]).square().sum()) for n, v in before.items()))
        assert moved == pytest.approx(0.01, rel=1e-3)


def fits(arm, task) -> bool:
    try:
        return enter(task, arm).at((5, 4)).build(0, meta=True) is not None
    except Misfit:
        return False


@pytest.mark.every_part
def test_parts_of_the_catalogue_agree_on_their_own_hosts():
    task = open_task("moons", {})
    task = dataclasses.replace(task, steps=20, evals=(10, 20), slots={**task.slots, OPTIMIZER: toys.PLAIN})
    rules = [p for p in catalogue.parts("rule") if p.tags.stackable and not p.tags.closed_form]
    arms = [ArmSpec("a", {"activation": (toys.smooth_elementwise().id, {}), "rule": (p.id, {})}) for p in rules]
    arms = [arm for arm in arms if fits(arm, task)]
    assert len(arms) >= 3
    numbers = [p for p in catalogue.parts("activation") if p.learn and all(isinstance(i.init, float) for i in p.learn)]
    learning = next(p for p in numbers if p.tags.shape == "elementwise")
    arms.append(ArmSpec("a", {"activation": (learning.id, {})}))
    for arm in arms:
        settings = [Setting.of(task, s, {"lr": lr}, "fp64") for s, lr in zip(SEEDS, RATES, strict=True)]
        copies = [[enter(task, arm).at((5, 4)).build(s) for s in SEEDS] for _ in range(2)]
        data = [task.data(s) for s in SEEDS]
        looped = [train(r, d, s) for r, d, s in zip(copies[0], data, settings, strict=True)]
        assert_same(looped, train_stack(copies[1], data, settings), copies)


def test_what_a_copy_becomes_does_not_depend_on_how_many_others_there_are():
    outs = {}
    for k in (2, 5):
        rules, data = [toys.build(toys.Noisy, s) for s in range(k)], [toys.data(s) for s in range(k)]
        outs[k] = train_stack(rules, data, [toys.setting(s, precision="fp32") for s in range(k)])
    for a, b in zip(outs[2], outs[5], strict=False):
        assert a.curve == b.curve
        assert all(torch.equal(v, b.best_state[n]) for n, v in a.best_state.items())


@pytest.mark.slow
def test_the_compiled_stack_agrees_with_the_eager_one():
    for cls, build in HOSTS.values():
        rules = [[toys.build(cls, s, **build) for s in SEEDS] for _ in range(2)]
        data = [toys.data(s) for s in SEEDS]
        settings = [toys.setting(s, lr=lr) for s, lr in zip(SEEDS, RATES, strict=True)]
        outs = [train_stack(r, data, settings, compiled=c) for r, c in zip(rules, (False, True), strict=True)]
        assert_same(*outs, rules)


# What a stack refuses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", [toys.Bend, toys.Listed], ids=["number", "number in a mapping"])
def test_copies_with_other_settings_or_modules_are_refused(act):
    settings = [toys.setting(s) for s in (0, 1)]
    one = toys.build(seed=0, act=lambda c: act(1.0))
    with pytest.raises(Misfit, match="copy 1 is built differently"):
        Stack([one, toys.build(seed=1, act=lambda c: act(2.0))], settings)
    with pytest.raises(Misfit, match="copy 1 is built differently"):
        Stack([one, toys.build(seed=1, act=toys.Tilt)], settings)
    with pytest.raises(Misfit, match="copy 1 is built differently"):
        Stack([one, toys.build(seed=1, act=lambda c: act(1.0), widths=(6, 5))], settings)
    assert Stack([one, toys.build(seed=1, act=lambda c: act(1.0))], settings).k == 2


def shape_of(part, **options):
    return skeleton(toys.net(widths=(8, 8), act=lambda c: part.build(channels=c, **options)))


@pytest.mark.every_part
def test_every_activation_of_the_catalogue_has_a_skeleton_of_its_own():
    """Two different parts are never taken for copies of one; a part with an option changed isn't either."""
    seen: list = []
    for part in catalogue.parts("activation"):
        nets = [shape_of(part)]
        learnt = {item.name for item in part.learn}
        number = next((o for o in part.options if isinstance(o.default, float) and o.name not in learnt), None)
        if number is not None:
            other = number.default * 1.01 + 0.003
            if number.bounds is None or number.bounds[0] < other < number.bounds[1]:
                nets.append(shape_of(part, **{number.name: other}))
        for made in nets:
            assert all(made != old for old in seen), part.id
            seen.append(made)


def test_phases_and_pools_of_their_own_are_refused_with_the_reason():
    with pytest.raises(Misfit, match="phases"):
        Stack([toys.build(toys.Phased)], [toys.setting()])
    data = toys.data(0)
    other = dataclasses.replace(data, x=data.x.clone())
    with pytest.raises(Misfit, match="one pool"):
        train_stack([toys.build(seed=s) for s in (0, 1)], [data, other], [toys.setting(s) for s in (0, 1)])


# What goes wrong ------------------------------------------------------------------------------------------------------


def armed(which: int, n: int = 3):
    rules = [toys.build(seed=s, act=lambda c: toys.Bomb()) for s in range(n)]
    for name, buffer in rules[which].named_buffers():
        if name.endswith("blocks.1.act.armed"):
            buffer.fill_(1)
    return rules


def test_a_copy_that_goes_bad_is_masked_and_the_others_do_not_notice():
    data, settings = [toys.data(s) for s in range(3)], [toys.setting(s, optimizer=toys.ADAPTIVE) for s in range(3)]
    rules = armed(1)
    outs = train_stack(rules, data, settings)
    clean_rules = [toys.build(seed=s, act=lambda c: toys.Bomb()) for s in range(3)]
    clean = train_stack(clean_rules, data, settings)
    assert [o.bad_step for o in outs] == [None, 7, None]
    assert outs[1].bad_module == "net.blocks.1.act"
    assert [p[0] for p in outs[1].curve] == [5]
    assert all(bool(torch.isfinite(p).all()) for p in rules[1].parameters())
    for k in (0, 2):
        assert outs[k].curve == clean[k].curve
        assert all(torch.equal(a, b) for a, b in zip(rules[k].parameters(), clean_rules[k].parameters(), strict=True))


def test_the_loop_records_the_step_and_module_that_went_bad():
    rule = armed(0, 1)[0]
    out = train(rule, toys.data(), toys.setting())
    assert (out.bad_step, out.bad_module) == (7, "net.blocks.1.act")
    assert out.best_state is not None and out.best_step == 5


def test_a_stack_in_which_all_copies_are_bad_ends_early():
    rules = [toys.build(seed=s, act=lambda c: toys.Bomb(2)) for s in range(2)]
    for rule in rules:
        for name, buffer in rule.named_buffers():
            if name.endswith("armed"):
                buffer.fill_(1)
    outs = train_stack(rules, [toys.data(s) for s in range(2)], [toys.setting(s) for s in range(2)])
    assert [(o.bad_step, o.bad_module, o.curve) for o in outs] == [(2, "net.blocks.0.1.act", [])] * 2


def test_a_parameter_that_is_not_finite_is_named_first():
    rule = toys.build()
    rule.net.blocks[1].linear.weight.data[0, 0] = math.inf
    assert first_bad_module(rule, *toys.data().split("train")) == "net.blocks.1.linear"
    assert first_bad_module(toys.build(), *toys.data().split("train")) == ""


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
def test_both_engines_test_the_best_state_as_a_fresh_copy_would_be(precision):
    settings = [toys.setting(s, precision=precision) for s in SEEDS]
    data = [toys.data(s) for s in SEEDS]
    rules = [[toys.build(seed=s, norm="batch") for s in SEEDS] for _ in range(3)]
    outs = [train(r, d, s) for r, d, s in zip(rules[0], data, settings, strict=True)], train_stack(rules[1], data, settings)
    for found in outs:
        for out, fresh, d, s in zip(found, rules[2], data, settings, strict=True):
            rule, x = cast(fresh, d.x[d.test], s)
            rule.load_state_dict(out.best_state)
            assert (out.test, out.untested) == (rule.problem.metric(predict(rule, x, s), d.y[d.test]), "")


def test_a_metric_that_raises_on_the_test_rows_leaves_the_training_as_it_was():
    data = [toys.data(s) for s in SEEDS]

    def metric(out, y):
        if any(torch.equal(y, d.y[d.test]) for d in data[:1]):
            raise ValueError("no such rows")
        return toys.PROBLEM.metric(out, y)

    curves = []
    for broken in (False, True):
        rules = [[toys.build(seed=s) for s in SEEDS] for _ in range(2)]
        for rule in (*rules[0], *rules[1]) if broken else ():
            rule.problem = dataclasses.replace(rule.problem, metric=metric)
        settings = [toys.setting(s) for s in SEEDS]
        outs = [train(r, d, s) for r, d, s in zip(rules[0], data, settings, strict=True)], train_stack(rules[1], data, settings)
        for found in outs:
            said = "the test evaluation raised ValueError: no such rows" if broken else ""
            assert [(o.test is None, o.untested) for o in found] == [(broken, said)] + [(False, "")] * (len(SEEDS) - 1)
        curves.append([[out.curve for out in found] for found in outs])
    assert curves[0] == curves[1]


# The loop alone -------------------------------------------------------------------------------------------------------


def test_phases_are_entered_in_order_at_their_shares():
    rule = toys.build(toys.Phased)
    train(rule, toys.data(), toys.setting())
    assert rule.seen == ["first", "second"]

    class Short(toys.Phased):
        def phases(self):
            return toys.Phased.phases(self)[:1]

    with pytest.raises(BadInput, match="sum to"):
        train(toys.build(Short), toys.data(), toys.setting())


def test_a_closed_form_sees_every_training_row_once():
    rule, data = toys.build(toys.Closed), toys.data()
    out = train(rule, data, toys.setting(), closed_form=True)
    assert rule.rows == len(data.train)
    assert out.best_step == toys.SETTING.steps and out.best_val > 0.5


def test_predicting_leaves_mode_buffers_and_parameters():
    rule = toys.build(norm="batch")
    before = {n: v.clone() for n, v in rule.state_dict().items()}
    for mode in (True, False):
        rule.train(mode)
        out = predict(rule, toys.data().x)
        assert rule.training is mode and out.shape == (toys.ROWS, toys.CLASSES)
        assert all(torch.equal(v, before[n]) for n, v in rule.state_dict().items())
    stack = Stack([rule], [toys.setting(precision="fp32")])
    stack.predict(toys.data().x[None])
    assert all(torch.equal(stack.state()[n][0], v) for n, v in before.items())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "amp", "fp64"])
def test_every_precision_learns_on_both_engines(precision):
    wanted = {"bf16": torch.bfloat16, "fp64": torch.float64}.get(precision, torch.float32)
    for cls, build in ((toys.Whole, {"norm": "batch"}), (toys.Local, {})):
        rules, settings = (
            [toys.build(cls, s, **build) for s in SEEDS],
            [toys.setting(s, precision=precision, optimizer=toys.ADAPTIVE) for s in SEEDS],
        )
        data = [toys.data(s) for s in SEEDS]
        outs = [train(toys.build(cls, s.seed, **build), d, s) for d, s in zip(data, settings, strict=True)]
        if precision == "amp":
            with pytest.raises(Misfit, match="mixed precision"):
                train_stack(rules, data, settings)
        else:
            outs += train_stack(rules, data, settings)
        for out in outs:
            assert out.bad_step is None and out.curve[-1][1] < 0.9 * out.curve[0][1]
            assert {v.dtype for n, v in out.best_state.items() if "weight" in n} == {wanted}


class Watching(toys.Local):
    """Notes at each yield which parameters hold a gradient."""

    def losses(self, x, y, *draws):
        self.held = []
        for loss in super().losses(x, y, *draws):
            self.held.append({id(p) for p in self.parameters() if p.grad is not None})
            yield loss


def test_the_loop_frees_a_units_gradients_before_the_next_loss():
    rule = toys.build(Watching)
    loop = Loop(rule, toys.setting(precision="fp32"))
    loop.step(*toys.data().split("train"))
    shared = {id(p) for p in loop.units[-1]}
    assert len(rule.held) == 3 and all(held <= shared for held in rule.held)
    assert all(p.grad is None for p in rule.parameters())


def test_weight_decay_spares_vectors_and_what_a_part_spares():
    rule = toys.build(act=toys.Tilt)
    loop = Loop(rule, toys.setting(weight_decay=0.5, precision="fp32"))
    names = {id(p): n for n, p in rule.named_parameters()}
    decayed = {names[id(p)] for g in loop.optimizers[0].param_groups if g["weight_decay"] for p in g["params"]}
    assert decayed == {n for n, p in rule.named_parameters() if p.dim() == 2 and not n.endswith("slope")}


def test_a_setting_names_near_optimizers_schedules_and_precisions():
    for field, near in ((OPTIMIZER, toys.ADAPTIVE), (SCHEDULE, toys.FALLING), ("precision", "bf16")):
        with pytest.raises(UnknownName, match=near):
            toys.setting(**{field: f"{near}x"})


# Streams --------------------------------------------------------------------------------------------------------------


def test_the_order_depends_on_rows_batch_and_seed_alone():
    together = [o.clone() for o in orders(50, 16, 7, [3, 4])]
    alone = [o.clone() for o in orders(50, 16, 7, [4])]
    assert all(torch.equal(a[1], b[0]) for a, b in zip(together, alone, strict=True))
    assert [len(set(torch.cat([o[0] for o in together[i : i + 3]]).tolist())) for i in (0, 3)] == [48, 48]
    assert not torch.equal(together[0][0], together[3][0]) and not torch.equal(together[0][0], together[0][1])
    assert next(iter(orders(5, 16, 1, [0]))).shape == (1, 5)


def test_nothing_touches_the_global_generator():
    before = torch.get_rng_state()
    for cls, build in HOSTS.values():
        both(cls, build, augment=noise)
    train(toys.build(toys.Closed), toys.data(), toys.setting(), closed_form=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_activations_own_values_do_not_shift_the_others():
    plain, tilted = toys.build(), toys.build(act=toys.Tilt)
    there = dict(tilted.named_parameters())
    assert all(torch.equal(p, there[n]) for n, p in plain.named_parameters())
    assert isinstance(tilted.net.blocks[1].act.slope, nn.Parameter)


# The golden trajectory ------------------------------------------------------------------------------------------------


def test_numbers_move_only_with_the_engine_version():
    """Where this fails on purpose: raise ENGINE_VERSION in netwright/core/fingerprint.py, then run tests/golden/trajectory.py."""
    golden = json.loads(trajectory.FILE.read_text(encoding="utf-8"))
    assert golden["engine_version"] == ENGINE_VERSION, "the version was raised: run tests/golden/trajectory.py"
    now = trajectory.trajectories()
    assert now.keys() == golden["trajectories"].keys()
    for case, engines in golden["trajectories"].items():
        for engine, copies in engines.items():
            for seed, (was, found) in enumerate(zip(copies, now[case][engine], strict=True)):
                where = f"{case}, {engine}, seed {seed}: the numbers moved, so ENGINE_VERSION has to be raised"
                assert found["best_step"] == was["best_step"], where
                assert found["weights"] == pytest.approx(was["weights"], rel=1e-6), where
                assert [p for row in found["curve"] for p in row] == pytest.approx(
                    [p for row in was["curve"] for p in row], rel=1e-6
                ), where
