"""The optimizer for torch that comes of steps on one tensor: groups, names, roles, resuming, precision, and who takes what."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import pickle
import subprocess
import sys

import pytest
import torch
from golden import optimizers as official
from torch import Tensor, nn

import netwright
from netwright.core import catalogue
from netwright.core.errors import BadInput, Misfit, UnknownName
from netwright.core.kind import OPTIMIZER, SCHEDULE
from netwright.core.part import Option, Paper
from netwright.optimizers import Tags, optimizer
from netwright.optimizers._contract import small, train
from netwright.optimizers._kind import rest_options
from netwright.tensor.groups import parameter_groups
from netwright.tensor.saving import load, save
from netwright.tensor.stepping import Steps, reading

PAPER = Paper(title="A toy", authors="Nobody", year=2020)
STEPS = [part for part in catalogue.parts("optimizer") if OPTIMIZER in part.slots()]


def heavy(g: Tensor, state: dict[str, Tensor], p: Tensor, t: int, *, lr: float, weight_decay: float, mass: float):
    v = mass * state["v"] + g + weight_decay * p
    return p - lr * v, {"v": v}


def row_norm(g: Tensor, state: dict[str, Tensor], p: Tensor, t: int, *, lr: float, weight_decay: float):
    """Every matrix of its own is scaled to norm 1: which matrices there are shows."""
    return p - lr * g / g.flatten(1).norm(dim=1).view(-1, 1, 1), {}


def whole_norm(g: Tensor, state: dict[str, Tensor], p: Tensor, t: int, *, lr: float, weight_decay: float):
    n = state["n"] + 1
    return p - lr * (g + weight_decay * p) / g.norm(), {"n": n, "sum": state["sum"] + g}


def averaged(g: Tensor, state: dict[str, Tensor], p: Tensor, t: int, *, lr: float, weight_decay: float):
    new = p - lr * g
    return new, {"mean": state["mean"] + (new - state["mean"]) / t}


def declare(step, start=lambda p: {}, **more):
    return optimizer(step, start=start, reference=lambda *args, **options: iter(()), paper=PAPER, summary="a toy", **more)


HEAVY = declare(heavy, lambda p: {"v": torch.zeros_like(p)}, options=(Option("mass", 0.9),), tags=Tags(published=0.05))
ROWS = declare(
    row_norm,
    tags=Tags(scope="tensor", matrices=True, published=0.05, decay="none"),
    options=rest_options(next(p.id for p in STEPS if p.twin), 0.1),
)
WHOLE = declare(whole_norm, lambda p: {"n": p.new_zeros(()), "sum": torch.zeros_like(p)}, tags=Tags(scope="net", published=0.05))
READ = declare(averaged, lambda p: {"mean": p.clone()}, read=lambda p, state: state["mean"], tags=Tags(published=0.05))
TOYS = {"heavy": HEAVY, "rows": ROWS, "whole": WHOLE, "read": READ}


def one_step(part, net: nn.Module, loss, **options) -> dict[str, Tensor]:
    """How far each parameter moved in the first step."""
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    train(net, part.build(net, **options), loss, 1)
    return {name: p.detach() - before[name] for name, p in net.named_parameters()}


# Groups ---------------------------------------------------------------------------------------------------------------


def test_groups_spare_vectors_and_what_a_part_spares() -> None:
    net, _ = small()
    on, off = parameter_groups(net, 0.1)
    assert {n for n, _ in on["params"]} == {"table.weight", "conv.weight", "hidden.weight", "head.weight", "unused"}
    assert all(p.dim() < 2 for _, p in off["params"]) and (on["weight_decay"], off["weight_decay"]) == (0.1, 0.0)
    torch.optim.AdamW(parameter_groups(net, 0.1), lr=1e-3)  # as torch's own take them
    assert netwright.parameter_groups is parameter_groups


def test_groups_leave_out_what_does_not_learn() -> None:
    net, _ = small()
    net.table.weight.requires_grad_(False)
    assert all(name != "table.weight" for group in parameter_groups(net) for name, _ in group["params"])
    with pytest.raises(BadInput, match="no parameter that learns"):
        parameter_groups(net.requires_grad_(False))
    with pytest.raises(BadInput, match="weight_decay=-1"):
        parameter_groups(net, -1)
    with pytest.raises(BadInput, match="is no parameter of"):
        parameter_groups(net, only=[nn.Parameter(torch.zeros(2))])


@pytest.mark.parametrize("part", [*STEPS, HEAVY], ids=lambda part: part.name)
@pytest.mark.every_part
def test_parameters_come_as_a_model_as_groups_and_as_lists(part) -> None:
    lr = None if part.tags.free else 0.01
    ends = []
    for given in (lambda n: n, parameter_groups, lambda n: list(n.parameters()), lambda n: list(n.named_parameters())):
        net, loss = small()
        train(net, part.build(given(net), lr), loss, 2)
        ends.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    for end in ends[1:]:
        assert torch.allclose(ends[0], end, rtol=1e-12) or part.tags.scope == "tensor"  # without a model, a table is a matrix


@pytest.mark.parametrize("part", [*STEPS, *TOYS.values()], ids=lambda part: part.name)
@pytest.mark.every_part
def test_bad_input_is_named_before_anything_moves(part) -> None:
    net, _ = small()
    for given, words in (
        ((net, -0.1), r"lr=-0.1; expected a number from 0"),
        ((net, float("nan")), "lr=nan"),
        ((net, None, -1.0), r"weight_decay=-1.0"),
        ((None,), "needs what it is to change"),
        (([],), "no parameter was given"),
        ((net.head.weight,), "one tensor was given"),
        (([{"params": [net.head.weight], "wieght_decay": 0.1}],), "a group has 'wieght_decay'"),
        (([{"params": [net.head.weight], "lr": -1.0}],), "lr=-1.0"),
    ):
        with pytest.raises(BadInput, match=words):
            part.build(*given)
    if part.tags.free:
        with pytest.raises(BadInput, match="finds its own rate"):
            part.build(net, 0.01)
    with pytest.raises(UnknownName, match="no_such"):
        part.build(net, no_such=1)


def test_a_group_may_have_a_rate_a_decay_and_options_of_its_own() -> None:
    net, loss = small()
    groups = [
        {"params": [net.head.weight], "lr": 0.0},
        {"params": [net.hidden.weight], "mass": 0.0},
        {"params": [net.conv.weight]},
    ]
    built = HEAVY.build(groups, 0.05)
    before = copy.deepcopy(net.state_dict())
    train(net, built, loss, 2)
    moved = {name for name, v in net.state_dict().items() if not torch.equal(v, before[name])}
    assert moved == {"hidden.weight", "conv.weight"} and [g["mass"] for g in built.param_groups] == [0.9, 0.0, 0.9]
    with pytest.raises(BadInput, match="mass"):
        HEAVY.build([{"params": [net.head.weight], "mass": "much"}], 0.05)


def test_groups_of_one_net_share_a_rate_where_all_is_summed() -> None:
    net, loss = small()
    with pytest.raises(BadInput, match="one lr for all"):
        WHOLE.build([{"params": [net.head.weight], "lr": 0.1}, {"params": [net.conv.weight], "lr": 0.2}])
    built = WHOLE.build(net)
    built.param_groups[0]["lr"] = 0.3
    with pytest.raises(BadInput, match="one lr for all"):
        train(net, built, loss, 1)


# Roles ----------------------------------------------------------------------------------------------------------------


def test_matrices_are_told_apart_by_what_they_are_and_the_rest_is_left_to_another() -> None:
    net, loss = small()
    built = ROWS.build(net)
    matrices = {"conv.weight", "hidden.weight", "head.weight"}
    named = dict(net.named_parameters())
    rest = built.param_groups[0]["rest"]
    counted = sum(named[name].numel() for name in matrices | {"unused"})
    assert built.taken() == {ROWS.id: counted, rest: sum(p.numel() for p in named.values()) - counted}
    moved = one_step(ROWS, net, loss)
    for name in matrices:
        assert float(moved[name].norm()) == pytest.approx(0.05, rel=1e-6), name
    other = catalogue.get(rest)
    net, loss = small()
    alone = one_step(other, net, loss, lr=0.005)
    assert all(torch.allclose(moved[name], alone[name], rtol=1e-9) for name in ("table.weight", "norm.weight", "head.bias"))


class Fused(nn.Module):
    """Queries, keys and values in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.qkv(x)


def test_what_is_fused_in_one_tensor_is_taken_apart() -> None:
    net = Fused().double()
    moved = one_step(ROWS, net, lambda net: net(torch.ones(3, 4, dtype=torch.float64)).square().sum())
    assert [float(block.norm()) for block in moved["qkv.weight"].split(4)] == pytest.approx([0.05] * 3)


def test_what_takes_the_rest_is_checked_early() -> None:
    net, _ = small()
    with pytest.raises(UnknownName, match="adamm"):
        ROWS.build(net, rest="adamm")
    with pytest.raises(Misfit, match='of scope "value"'):
        ROWS.build(net, rest=next(p.id for p in STEPS if p.tags.scope != "value" or p.tags.free))


# State ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", TOYS.values(), ids=TOYS)
def test_a_saved_state_goes_on_through_a_file(part, tmp_path) -> None:
    net, loss = small(torch.float32)
    built = part.build(net)
    train(net, built, loss, 3)
    save(net, tmp_path / "a.safetensors", optimizer=built)
    other, _ = small(torch.float32)
    again = part.build(other)
    load(other, tmp_path / "a.safetensors", optimizer=again)
    for one, its in ((net, built), (other, again)):
        train(one, its, loss, 3)
    assert all(map(torch.equal, net.parameters(), other.parameters()))


@pytest.mark.parametrize("part", TOYS.values(), ids=TOYS)
def test_copies_and_pickles_go_on(part) -> None:
    net, loss = small()
    built = part.build(net)
    train(net, built, loss, 2)
    both = copy.deepcopy({"net": net, "optimizer": built})
    train(net, built, loss, 2)
    train(both["net"], both["optimizer"], loss, 2)
    assert all(map(torch.equal, net.parameters(), both["net"].parameters()))


@pytest.mark.parametrize("part", [next(p for p in STEPS if p.twin), HEAVY], ids=["of torch", "of ours"])
def test_a_state_is_matched_by_names(part) -> None:
    net, loss = small()
    built = part.build(net, 0.01)
    train(net, built, loss, 3)
    saved = built.state_dict()
    groups = [{"params": [pair]} for pair in reversed(list(net.named_parameters()))]
    with pytest.raises(BadInput, match="is of 'conv.bias', which"):
        part.build([g for g in groups if g["params"][0][0] != "conv.bias"], 0.01).load_state_dict(saved)
    other = part.build(groups, 0.01)
    other.load_state_dict(saved)
    for p in net.parameters():
        for name, value in built.state[p].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other.state[p][name]))
    new = nn.Parameter(torch.ones(2, dtype=torch.float64))
    wider = part.build([*groups, {"params": [("new", new)]}], 0.01)
    wider.load_state_dict(saved)
    assert not wider.state[new] and wider.param_groups[-1]["lr"] == 0.01
    mixed = [{"params": [*list(net.named_parameters()), ("new", new)]}]
    with pytest.raises(BadInput, match="nothing of 'new'"):
        part.build(mixed, 0.01).load_state_dict(saved)


def test_the_state_keeps_its_own_precision() -> None:
    net, loss = small(torch.bfloat16)
    built = HEAVY.build(net)
    train(net, built, loss, 2)
    other = HEAVY.build(copy.deepcopy(net))
    other.load_state_dict(copy.deepcopy(built.state_dict()))
    kept = [t for state in other.state.values() for t in state.values() if isinstance(t, Tensor)]
    assert kept and all(t.dtype == torch.float32 for t in kept)


@pytest.mark.parametrize(
    "part", [p for p in [*STEPS, *TOYS.values()] if p.twin is None and not p.tags.free], ids=lambda part: part.name
)
@pytest.mark.every_part
def test_half_precision_goes_where_single_goes_in_steps_too_small_for_it(part) -> None:
    slope = (torch.linspace(-1, 1, 64).reshape(8, 8) + 0.03).bfloat16()

    def end(dtype: torch.dtype, lr: float) -> Tensor:
        p = nn.Parameter(torch.ones(8, 8, dtype=dtype))
        built = part.build([p], lr)
        for _ in range(60):
            p.grad = slope.to(dtype)
            built.step()
        with reading(built):
            return p.detach().float().clone()

    lr = part.tags.published
    lr *= 0.1 / float((end(torch.float32, lr) - 1).abs().max())
    single = end(torch.float32, lr)
    assert float((end(torch.bfloat16, lr) - single).abs().max()) <= 0.006  # where the grid of its values is 0.008 wide
    assert float((single - 1).abs().max()) == pytest.approx(0.1, rel=0.3)


def test_half_precision_follows_what_is_set_from_outside() -> None:
    p = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    built = HEAVY.build([p], 1e-4)
    p.grad = torch.ones_like(p)
    built.step()
    assert torch.equal(p, torch.ones_like(p))  # too small a step for bfloat16, kept all the same
    with torch.no_grad():
        p.fill_(2.0)
    built.step()
    assert float(p.detach().float().mean()) == pytest.approx(2.0, abs=0.01)


def test_a_tensor_that_comes_late_starts_late_and_the_sums_go_on() -> None:
    a, b = (nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2))
    built = WHOLE.build([a, b])
    a.grad = torch.ones_like(a)
    built.step()
    assert torch.equal(b, torch.ones_like(b)) and not built.state[b]
    b.grad = torch.ones_like(b)
    built.step()
    assert built.state[a]["n"] == built.state[b]["n"] == 2 and torch.equal(built.state[b]["sum"], b.grad)
    assert torch.equal(built.state[a]["sum"], 2 * a.grad)


@pytest.mark.parametrize("part", [p for p in STEPS if p.twin is None], ids=lambda part: part.name)
@pytest.mark.every_part
def test_pickled_with_its_net_it_goes_on(part) -> None:
    net, loss = small()
    built = part.build(net)
    train(net, built, loss, 2)
    there, its = pickle.loads(pickle.dumps((net, built)))
    train(net, built, loss, 2)
    train(there, its, loss, 2)
    assert all(map(torch.equal, net.parameters(), there.parameters()))


# Reading --------------------------------------------------------------------------------------------------------------


def test_reading_puts_other_values_in_for_a_while() -> None:
    net, loss = small()
    built = READ.build(net)
    train(net, built, loss, 3)
    at = copy.deepcopy(net.state_dict())
    with built.reading():
        assert torch.equal(net.head.weight, built.state[net.head.weight]["mean"].view_as(net.head.weight))
        assert not torch.equal(net.head.weight, at["head.weight"])
    assert all(torch.equal(v, at[k]) for k, v in net.state_dict().items())
    with pytest.raises(ValueError, match="inside"), reading(built, torch.optim.SGD(net.parameters(), 0.1)):
        raise ValueError("inside")
    assert all(torch.equal(v, at[k]) for k, v in net.state_dict().items())


# As any optimizer of torch ----------------------------------------------------------------------------------------------


def test_closures_schedulers_clipping_scaling_and_accumulation() -> None:
    net, loss = small(torch.float32)
    built = HEAVY.build(net, 0.05)
    scheduler = torch.optim.lr_scheduler.LambdaLR(built, lambda step: 0.5**step)

    def closure() -> Tensor:
        built.zero_grad()
        value = loss(net)
        value.backward()
        return value

    first = built.step(closure)
    scheduler.step()
    assert float(first) > 0 and {g["lr"] for g in built.param_groups} == {0.025}
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    one, other = copy.deepcopy(net), copy.deepcopy(net)
    for each, scaled in ((one, True), (other, False)):
        its = HEAVY.build(each, 0.05)
        for _ in range(2):
            parts = [loss(each) / 2, loss(each) / 2] if scaled else [loss(each)]
            for part in parts:  # gradients add up over pieces
                (scaler.scale(part) if scaled else part).backward()
            if scaled:
                scaler.unscale_(its)
            nn.utils.clip_grad_norm_(each.parameters(), 0.1)
            scaler.step(its) if scaled else its.step()
            scaler.update() if scaled else None
            its.zero_grad()
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_sparse_and_complex_tensors_are_refused() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(BadInput, match="is sparse"):
        HEAVY.build(table).step()
    with pytest.raises(BadInput, match="real floating-point"):
        HEAVY.build([nn.Parameter(torch.zeros(2, dtype=torch.complex64))])


@pytest.mark.parametrize("part", TOYS.values(), ids=TOYS)
def test_the_order_of_parameters_changes_nothing(part) -> None:
    ends = []
    for backwards in (False, True):
        net, loss = small()
        named = list(net.named_parameters())
        train(net, part.build(named[::-1] if backwards else named), loss, 3)
        ends.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.allclose(*ends, rtol=1e-10)


# Trainers of others ------------------------------------------------------------------------------------------------------


TRAINER = """
import sys
sys.modules["torchvision"] = None  # nothing here needs it, and one of another release of torch can't be imported
import torch
from torch import nn
from transformers import Trainer, TrainingArguments
from netwright import make
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)
    def forward(self, x, labels):
        return {"loss": (self.layer(x) - labels).square().mean(), "logits": x}
torch.manual_seed(0)
rows = [{"x": torch.randn(3), "labels": torch.ones(4)} for _ in range(32)]
arguments = TrainingArguments(
    output_dir=sys.argv[1], max_steps=8, per_device_train_batch_size=4, gradient_accumulation_steps=2, max_grad_norm=1.0,
    report_to=[], save_steps=4, use_cpu=True, disable_tqdm=True,
)
for name in sys.argv[3:]:
    ends = []
    for checkpoint in (None, sys.argv[1] + "/checkpoint-4"):  # whole, and taken up again half-way
        torch.manual_seed(0)
        model = Model()
        optimizer = make(name, model)
        falls = torch.optim.lr_scheduler.LambdaLR(optimizer, make(sys.argv[2], steps=8))
        Trainer(model, arguments, train_dataset=rows, optimizers=(optimizer, falls)).train(resume_from_checkpoint=checkpoint)
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    print(name, torch.equal(*ends), all(int(s["step"]) == 8 for s in optimizer.state.values()))
"""


def test_a_trainer_of_transformers_takes_it_and_takes_it_up_again(tmp_path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    ids = [next(p.id for p in STEPS if p.twin), *(p.id for p in STEPS if p.read or p.tags.scope == "tensor")][:3]
    schedule = next(p.id for p in catalogue.parts("optimizer") if SCHEDULE in p.slots() and p.build(8)(4) < 1)
    done = subprocess.run(
        [sys.executable, "-c", TRAINER, str(tmp_path), schedule, *ids], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = [line for line in done.stdout.splitlines() if line.startswith("optimizer/")]
    assert said == [f"{name} True True" for name in ids]


@pytest.mark.every_part
def test_schedules_run_under_those_of_torch() -> None:
    for part in (p for p in catalogue.parts("optimizer") if OPTIMIZER not in p.slots()):
        factor = part.build(8)
        p = nn.Parameter(torch.zeros(2))
        built = torch.optim.SGD([p], 1.0)
        scheduler = torch.optim.lr_scheduler.LambdaLR(built, factor)
        rates = []
        for _ in range(8):
            rates.append(built.param_groups[0]["lr"])
            built.step()
            scheduler.step()
        assert rates == pytest.approx([factor(step) for step in range(8)])
        with pytest.raises(BadInput, match="runs over 8 steps and was asked for step 9"):
            scheduler.step()
        with pytest.raises(BadInput, match="steps=0"):
            part.build(0)


def test_declarations_that_contradict_themselves_are_refused() -> None:
    for bad in ({"scope": "row"}, {"decay": "some"}, {"scaling": "log"}, {"free": True}, {"rates": (1.0, 0.0, 1.0)}):
        with pytest.raises(BadInput):
            Tags(**bad)
    with pytest.raises(BadInput, match="go together"):
        dataclasses.replace(HEAVY, tags=Tags(scope="tensor", matrices=True))
    assert isinstance(HEAVY.build([nn.Parameter(torch.zeros(1))]), Steps)
    assert len(list(itertools.chain(TOYS))) == 4


# Against the authors' own ---------------------------------------------------------------------------------------------

GOLDEN = json.loads(official.FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", GOLDEN["cases"])
def test_it_goes_where_the_authors_code_goes(name: str) -> None:
    case = GOLDEN["cases"][name]
    part = catalogue.get(case["part"], "optimizer")
    bowl = official.Bowl(GOLDEN["problem"])
    params = [bowl.matrix] if part.tags.matrices else [bowl.matrix, bowl.vector]
    start = bowl.values()
    built = part.build(params, case["lr"], case["weight_decay"], **case["options"])
    for step in range(1, official.STEPS + 1):
        bowl.slope()
        built.step()
        if str(step) not in case["values"]:
            continue
        with reading(built):
            read = bowl.values()
        for got, wanted in ((bowl.values(), case["values"]), (read, case.get("read", case["values"]))):
            there = torch.tensor(wanted[str(step)], dtype=torch.float64)
            if got is read and "read" not in case and part.read is not None:
                continue  # its package averages apart
            assert float((got - there).abs().max()) <= 1e-8 * float((there - start).abs().max()), (step, part.id)
    for name, value in case.get("estimates", {}).items():
        kept = {"d": "d", "rbar": "farthest", "G": "squares"}[name]
        assert float(built.state[bowl.matrix][kept]) == pytest.approx(value, rel=1e-8), name


def test_every_optimizer_is_compared_with_torchs_or_its_authors() -> None:
    compared = {case["part"] for case in GOLDEN["cases"].values()} | {part.name for part in STEPS if part.twin is not None}
    assert len({part.name for part in STEPS} - compared) <= 1  # one whose code is of another framework


@pytest.mark.every_part
def test_one_part_fills_each_slot_of_a_run_by_default() -> None:
    for slot in (OPTIMIZER, SCHEDULE):
        assert [part.id for part in catalogue.parts() if slot in part.slots() and part.usual] == [catalogue.usual(slot).id]
