"""swap with functional=True: calls become submodules where a trace is sound, and are left, with the reason, elsewhere."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from test_swap import SCALED, Swish, mlp, same, state
from torch import Tensor, nn

from netwright.activations import ActivationPart
from netwright.core import catalogue
from netwright.core.errors import BadInput, Misfit
from netwright.surgery.swap import swap

TANH = torch.tanh.__name__


class Block(nn.Module):
    """Calls in every spelling, in place ones among them, and a forward that differs in training."""

    def __init__(self, d: int = 6) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(d, d), nn.Linear(d, d), nn.BatchNorm1d(d)

    def forward(self, x: Tensor, scale: Tensor | None = None, *, twice: bool = False) -> Tensor:
        h = F.relu(self.a(x), inplace=True)
        h = F.dropout(h, 0.3, training=self.training)
        if scale is not None:
            h = h * scale
        h = self.norm(self.b(h))
        h += x
        h.relu_()
        return self.last(h) * (2 if twice else 1)

    def last(self, h: Tensor) -> Tensor:
        return torch.relu(F.gelu(h, approximate=TANH).sub(0.1)).relu()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.act = nn.ModuleList([Block(), Block()]), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.act(x - 0.2)


class Squeeze(nn.Module):
    """A stand-in for any activation: what it gives is easy to tell from ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


def net() -> tuple[Net, Tensor]:
    torch.manual_seed(0)
    return Net(), torch.randn(8, 6)


def run(model: nn.Module, x: Tensor, training: bool) -> Tensor:
    torch.manual_seed(1)
    return model.train(training)(x.clone())


def with_functions(function: Callable[[Tensor], Tensor]) -> Net:
    """The net as it would be written with another function: every spelling of ReLU replaced, out of place."""

    class Rewritten(Block):
        def forward(self, x: Tensor, scale: Tensor | None = None, *, twice: bool = False) -> Tensor:
            h = F.dropout(function(self.a(x)), 0.3, training=self.training)
            h = function(self.norm(self.b(h)) + x)
            return function(function(F.gelu(h, approximate=TANH).sub(0.1)))

    torch.manual_seed(0)
    model = Net()
    model.blocks, model.act = nn.ModuleList([Rewritten(), Rewritten()]), Squeeze()
    return model


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_calls_are_changed_as_if_the_forward_were_written_so(training: bool, given: bool) -> None:
    model, x = net()
    wanted = with_functions(torch.tanh)
    wanted.load_state_dict(model.state_dict())
    report = swap(model, nn.ReLU, Squeeze, functional=True, example=x if given else None)
    assert torch.equal(run(model, x, training), run(wanted, x, training))
    assert len(report.sites) == 2 * 4 + 1 and isinstance(model.act, Squeeze)
    assert {u.function for u in report.unreached} == {F.gelu.__name__}
    assert all(type(block).__name__ == "Block" and isinstance(block, Block) for block in model.blocks)


def test_the_report_names_each_call_and_measures_it() -> None:
    model, x = net()
    model.eval()
    report = swap(model, nn.ReLU, SCALED, functional=True, example=x, per="channel")
    first = report.sites[0]
    assert (first.channels, first.shape) == (6, (8, 6)) and first.variance_ratio is not None and report.drift
    assert first.old == "relu(x)" and first.notes == ("was in place, now is not",)
    assert [s.path for s in report.sites[:4]] == [f"blocks.0.swapped_relu{n}" for n in ("", "_1", "_2", "_3")]
    assert set(report.gained) == {f"{s.path}.slope" for s in report.sites} <= set(model.state_dict())
    assert len(report.parameters(model)) == 9 and report.added_parameters == 54
    model(x).sum().backward()
    assert all(p.grad is not None for p in report.parameters(model))
    tanh = swap(model, "blocks.0.gelu", Squeeze, functional=True, example=x).sites
    assert [s.old for s in tanh] == ["gelu(x, approximate='tanh')"]


def test_swapping_back_and_restoring_give_the_same_output_to_the_bit() -> None:
    model, x = net()
    keys, outputs = state(model), [run(model, x, training) for training in (False, True)]
    model.load_state_dict(keys)
    report = swap(model, nn.ReLU, SCALED, functional=True, example=x)
    assert not torch.equal(run(model, x, False), outputs[0])
    swap(model, SCALED, nn.ReLU)
    assert [torch.equal(run(model, x, t), y) for t, y in zip((False, True), outputs, strict=True)] == [True, True]
    model, _ = net()
    report = swap(model, nn.ReLU, SCALED, functional=True, example=x)
    report.restore(model)
    assert same(state(model), keys) and list(state(model)) == list(keys)
    assert type(model.blocks[0]) is Block and "swapped_relu" not in dict(model.blocks[0].named_modules())
    assert [torch.equal(run(model, x, t), y) for t, y in zip((False, True), outputs, strict=True)] == [True, True]


def test_hooks_copies_and_compilation_go_on_working() -> None:
    model, x = net()
    seen = []
    model.blocks[0].register_forward_hook(lambda *a: seen.append(1))
    swap(model, nn.ReLU, Squeeze, functional=True)
    twin = copy.deepcopy(model)
    seen.clear()
    assert torch.equal(run(model, x, False), run(twin, x, False)) and seen == [1, 1]
    assert twin.blocks[0].swapped_relu is not model.blocks[0].swapped_relu
    compiled = torch.compile(model, backend="eager")
    assert torch.allclose(run(compiled, x, False), run(model, x, False), atol=1e-6)


def test_arguments_that_are_no_tensors_are_fixed_and_others_raise() -> None:
    model, x = net()
    swap(model, nn.ReLU, Squeeze, functional=True)
    block = model.blocks[0].eval()
    assert torch.equal(block(x, twice=False), block(x, None))
    for others in ({"twice": True}, {"scale": torch.ones(6)}):
        with pytest.raises(AssertionError, match="specialized"):
            block(x, **others)
    scaled, _ = net()
    swap(scaled.blocks[0], nn.ReLU, Squeeze, functional=True, example={"x": x, "scale": torch.full((6,), 0.5)})
    assert not torch.equal(scaled.blocks[0].eval()(x, torch.ones(6)), scaled.blocks[0](x, torch.zeros(6)))


def test_the_model_itself_may_hold_the_calls() -> None:
    block, x = Block(), torch.randn(4, 6)
    same_object = block
    report = swap(block, F.gelu, Squeeze, functional=True, example=x)
    assert block is same_object and [s.path for s in report.sites] == ["swapped_gelu"]


@pytest.mark.parametrize(
    ("what", "count"),
    [
        (F.relu, 8),
        (nn.ReLU, 9),
        ((F.relu, nn.GELU), 10),
        ("blocks.1.relu", 4),
        ("*.gelu", 2),
        (lambda path, module: path == "blocks.0.gelu", 1),
        ((F.gelu, F.silu), 2),
    ],
)
def test_every_way_to_say_what_reaches_calls(what: object, count: int) -> None:
    model, x = net()
    assert len(swap(model, what, Squeeze, functional=True, example=x).sites) == count


@pytest.mark.every_part
def test_a_part_means_the_calls_of_its_name() -> None:
    parts = {p.cls.lower(): p for p in catalogue.parts("activation") if isinstance(p, ActivationPart)}
    part = parts[F.relu.__name__]
    for what in (part, part.id):
        model, x = net()
        assert len(swap(model, what, Squeeze, functional=True, example=x).sites) == 8


def test_functions_kept_as_attributes_become_modules() -> None:
    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act = nn.Linear(3, 4), partial(F.gelu, approximate=TANH)

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.fc(x)) if x.sum() < 1e9 else x

    model, x = Kept(), torch.randn(5, 3)
    before = model(x)
    report = swap(model, nn.GELU, SCALED, functional=True, example=x)
    assert [s.path for s in report.sites] == ["act"] and report.gained == ("act.slope",)
    assert torch.equal(model(x), 0.5 * torch.tanh(model.fc(x)))
    report.restore(model)
    assert isinstance(model.act, partial) and torch.equal(model(x), before) and not dict(model.named_modules()).get("act")


def test_a_transformer_layer_with_a_function_is_changed() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation=F.gelu), 2).eval()
    x = torch.randn(2, 5, 8)
    before = model(x)
    report = swap(model, nn.GELU, nn.Identity, functional=True, example=x)
    assert [s.path for s in report.sites] == ["layers.0.activation", "layers.1.activation"]
    with torch.no_grad():
        fused = model(x)
    assert torch.allclose(fused, model(x), atol=1e-6) and not torch.allclose(fused, before, atol=1e-3)
    report.restore(model)
    assert torch.equal(model(x), before)


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) if x.sum() < 1e9 else x


class Remembers(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        self.last = x
        return F.relu(x)


class Draws(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) * (1 if random.random() < 2 else 0)


class Dice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) + (torch.rand(1).item() < 2)


class Makes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) + torch.ones(1) * x


class Context(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return F.relu(x)


class Halves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.glu(x), F.glu(x)], -1)


class Slope(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x, self.w)


class Listed(nn.Module):
    """Reads its input through a view after changing it in place: the trace can't tell."""

    def forward(self, x: Tensor) -> Tensor:
        y = x + 0
        flat = y.view(-1)
        F.relu_(y)
        return flat.view_as(x) * 1


class Kind(nn.Module):
    """Takes another way for what is no tensor: a trace of it would be another function."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) + 1 if isinstance(x, Tensor) else F.relu(x)


@pytest.mark.parametrize(
    ("make", "function", "why"),
    [
        (Branch, F.relu, "can't be traced: TraceError"),
        (Remembers, F.relu, "sets last"),
        (Draws, F.relu, "random numbers"),
        (Dice, F.relu, "random numbers"),
        (Makes, F.relu, "makes tensors"),
        (Context, F.relu, "with block"),
        (Halves, F.glu, "gated"),
        (Slope, F.prelu, "computed values"),
        (Listed, F.relu, "another output"),
        (Kind, F.relu, "another output"),
    ],
)
def test_a_forward_that_a_trace_would_change_is_left_with_the_reason(make: type, function: object, why: str) -> None:
    x = torch.randn(2, 4)
    alone = nn.Sequential(make())
    with pytest.raises(BadInput, match=why):
        swap(alone, function, Squeeze, functional=True, example=x)
    model = nn.Sequential(nn.Linear(4, 4), make(), Block(4), nn.PReLU())
    before = run(copy.deepcopy(model), x, False)
    what = (function, nn.PReLU, nn.ReLU)
    report = swap(model, what, Squeeze, functional=True, example=x)
    left = {u.path: u.why for u in report.unreached if u.why}
    assert set(left) == {"1"} and why in left["1"] and why in str(report)
    assert type(model[1]) is make and len(report.sites) == 5
    report.restore(model)
    assert torch.equal(run(model, x, False), before)


def test_a_refused_swap_leaves_the_forwards_as_they_were() -> None:
    model, x = net()
    keys = state(model)
    with pytest.raises(Misfit):
        swap(model, nn.ReLU, SCALED, functional=True, example=x, init_from="old")
    assert type(model.blocks[0]) is Block and same(state(model), keys) and isinstance(model.act, nn.ReLU)
    with pytest.raises(BadInput, match="example could not be run"):
        swap(model, nn.ReLU, SCALED, functional=True, example=torch.randn(1, 99))
    assert type(model.blocks[0]) is Block


def test_without_functional_a_function_is_nothing_to_replace_and_the_error_says_what_helps() -> None:
    with pytest.raises(BadInput, match="functional=True changes those it can trace.*relu in blocks.0"):
        swap(net()[0], F.relu, Squeeze)
    with pytest.raises(BadInput, match="nothing in Sequential"):
        swap(mlp(), F.relu, Swish, functional=True)
