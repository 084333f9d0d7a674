"""Aligned layers, and the conversion of models: what holds for every rule that models can be converted to."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils.parametrizations import weight_norm

from netwright.core.errors import BadInput, Misfit, UnknownName
from netwright.rules.feedback._aligned import (
    KINDS,
    Aligned,
    FeedbackWeights,
    align,
    aligned,
    aligned_layers,
    obstacle,
    owners,
    weighty,
)
from netwright.tensor.streams import initialise
from netwright.waiting.alignment import RULES, angles, backpropagation, convert

LAYERS = {
    "linear": (lambda: nn.Linear(6, 5), (4, 6)),
    "linear of sequences, without bias": (lambda: nn.Linear(6, 5, bias=False), (4, 3, 6)),
    "linear of one row": (lambda: nn.Linear(6, 5), (6,)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), (2, 4, 9)),
    "conv2d, dilated, in groups": (lambda: nn.Conv2d(4, 6, (3, 2), (1, 2), (0, 1), (2, 1), groups=2), (2, 4, 7, 8)),
    "conv2d, the same size, even": (lambda: nn.Conv2d(4, 6, 4, padding="same", bias=False), (2, 4, 7, 8)),
    "conv2d, valid": (lambda: nn.Conv2d(4, 6, 2, padding="valid"), (2, 4, 7, 8)),
    "conv2d, circular": (lambda: nn.Conv2d(4, 6, 3, padding=(1, 2), padding_mode="circular"), (2, 4, 7, 8)),
    "conv2d without a batch": (lambda: nn.Conv2d(4, 6, 3, padding=1), (4, 7, 8)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 3, 4, 3)),
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def gradients(output: Tensor, *at: Tensor) -> list[Tensor]:
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return list(torch.autograd.grad((output * weights).sum(), at))


# Layers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_carries_back_through_its_own_weights_and_is_torchs_else(name: str) -> None:
    make, shape = LAYERS[name]
    layer = make().double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.weight.normal_()
    new = aligned(layer)
    assert new.weight is layer.weight and new.bias is layer.bias
    assert torch.equal(new(x), layer(x))
    new.handed = other.weight.detach()
    assert torch.equal(new(x), layer(x))
    own = list(layer.parameters())
    wanted = [*gradients(other(x), x), *gradients(layer(x), *own)]
    for got, g in zip(gradients(new(x), x, *own), wanted, strict=True):
        assert torch.allclose(got, g, rtol=1e-12, atol=1e-14)
    new.exact = True
    for got, g in zip(gradients(new(x), x, *own), gradients(layer(x), x, *own), strict=True):
        assert torch.equal(got, g)


@pytest.mark.parametrize("name", ["linear", "linear of sequences, without bias", "conv1d", "conv2d, dilated, in groups"])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_work_under_vmap_of_grad(name: str, kind: str) -> None:
    make, shape = LAYERS[name]
    layer = make().double()
    new = aligned(layer, FeedbackWeights(layer.weight, kind))
    new.feedback.reset_parameters(torch.Generator().manual_seed(0))
    new.eval()  # else "redrawn" draws
    net = nn.Sequential(copy.deepcopy(new), nn.Tanh())
    x = torch.randn(3, *shape, dtype=torch.float64)
    params = {n: torch.stack([p.detach(), 2 * p.detach(), -p.detach()]) for n, p in net.named_parameters()}
    buffers = {n: torch.stack([b, b + 1, b * 2]) for n, b in net.named_buffers()}

    def loss(params: Any, buffers: Any, x: Tensor) -> Tensor:
        return functional_call(net, (params, buffers), (x,)).square().sum()

    got = vmap(grad(loss, argnums=(0, 2)))(params, buffers, x)
    for k in range(3):
        own = {n: p[k].clone().requires_grad_() for n, p in params.items()}
        row = x[k].clone().requires_grad_()
        out = loss(own, {n: b[k] for n, b in buffers.items()}, row)
        for name_, g in zip([*own, None], torch.autograd.grad(out, [*own.values(), row]), strict=True):
            assert torch.allclose((got[0][name_] if name_ else got[1])[k], g, rtol=1e-10, atol=1e-12)


def test_under_autocast_gradients_have_the_dtype_of_what_they_belong_to() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    new = convert(net, example=torch.randn(2, 1, 4, 4)).model
    x = torch.randn(2, 1, 4, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = new(x)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert {p.grad.dtype for p in (*new.parameters(), x)} == {torch.float32}


def test_the_kinds_of_feedback() -> None:
    weight = torch.randn(40, 50)
    made = {kind: FeedbackWeights(weight, kind, scale=2.0) for kind in KINDS}
    for one in made.values():
        one.reset_parameters(torch.Generator().manual_seed(1))
    draw = torch.rand_like(weight)
    carried = {kind: one(weight, draw) for kind, one in made.items()}
    rms = 2 / math.sqrt(3 * 50)
    for kind, b in carried.items():
        assert b.shape == weight.shape
        assert math.isclose(float(b.square().mean().sqrt()), rms, rel_tol=0.05)
        assert torch.equal(b.sign(), weight.sign()) == (kind != "random")
    assert carried["uniform"].abs().unique().numel() == 1
    assert torch.equal(made["fixed"](-weight), -carried["fixed"]) and torch.equal(made["random"](-weight), carried["random"])
    assert torch.allclose(made["redrawn"](weight).abs(), made["redrawn"].matrix / 2)
    with pytest.raises(UnknownName, match="did you mean random"):
        FeedbackWeights(weight, "randon")


def test_aligned_layers_draw_the_weights_that_torchs_own_would() -> None:
    def net() -> nn.Module:
        return nn.Sequential(nn.Conv2d(2, 3, 3, groups=1), nn.BatchNorm2d(3), nn.Linear(4, 5, bias=False), nn.Conv1d(2, 2, 1))

    plain, with_aligned = net(), align(net())
    assert len(aligned_layers(with_aligned)) == 3
    for model in (plain, with_aligned):
        initialise(model, 3)
    assert plain.state_dict().keys() == with_aligned.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), with_aligned.state_dict().values(), strict=True))


class Odd(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


def oddities() -> nn.ModuleDict:
    tied = nn.Linear(4, 4)
    net = nn.ModuleDict(
        {
            "plain": nn.Linear(4, 4),
            "odd": Odd(4, 4),
            "up": nn.ConvTranspose1d(2, 2, 2),
            "normed": weight_norm(nn.Linear(4, 4)),
            "tied": tied,
            "tied_too": nn.Linear(4, 4),
            "lazy": nn.LazyLinear(4),
            "hooked": nn.Linear(4, 4),
            "norm": nn.LayerNorm(4),
            "own": nn.Linear(4, 4),
            "attention": nn.MultiheadAttention(4, 2),
            "table": nn.Embedding(3, 4),
            "memory": nn.LSTM(4, 4),
        }
    )
    net["tied_too"].weight = tied.weight
    net["hooked"].register_forward_hook(lambda module, args, output: output)
    net["own"].forward = F.relu
    return net


def test_layers_that_cannot_be_replaced_are_told_with_the_reason() -> None:
    net = oddities()
    held = owners(net)
    why = {path: obstacle(module, held) for path, module in weighty(net)}
    for path, reason in {
        "odd": "subclass of Linear",
        "up": "transposed",
        "normed": "parametrised",
        "tied": "tied",
        "tied_too": "tied",
        "lazy": "not initialised",
        "hooked": "forward_hooks",
        "own": "forward of its own",
        "attention": "its own forward",
        "attention.out_proj": "subclass",
        "memory": "its own forward",
    }.items():
        assert reason in why.pop(path), path
    assert why == {"plain": ""}
    with pytest.raises(Misfit, match="Odd has no nn.Linear.*the net: a subclass"):
        align(Odd(2, 2))
    with pytest.raises(Misfit, match="no weights"):
        align(nn.ReLU())


def test_a_layer_that_is_the_whole_net_and_one_that_stands_in_two_places() -> None:
    layer = nn.Linear(4, 4)
    assert isinstance(align(layer), Aligned)
    net = align(nn.Sequential(layer, nn.ReLU(), layer))
    assert net[0] is net[2] and isinstance(net[0], Aligned) and len(aligned_layers(net)) == 1
    assert align(net) is net and len(aligned_layers(net)) == 1


# Conversion -----------------------------------------------------------------------------------------------------------


class Small(nn.Module):
    """A residual net with batch normalisation and in-place operations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.inner = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.norm(self.stem(x)))
        out = self.inner(h)
        out += h
        return self.fc(self.drop(self.relu(out).mean((2, 3))))


def small() -> tuple[Small, Tensor, Tensor]:
    return Small().double(), torch.randn(5, 2, 6, 6, dtype=torch.float64), torch.arange(5) % 3


def update(model: nn.Module, x: Tensor, y: Tensor, seed: int = 1) -> list[Tensor]:
    torch.manual_seed(seed)
    return list(torch.autograd.grad(F.cross_entropy(model.train()(x), y), list(model.parameters())))


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(map(torch.equal, a, b))


@pytest.mark.parametrize("rule", RULES)
def test_a_converted_model_computes_the_same_and_learns_otherwise(rule: str) -> None:
    model, x, y = small()
    before, random = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    done = convert(model, rule, example=x)
    new = done.model
    assert torch.equal(random, torch.random.get_rng_state())
    assert same(list(before.values()), list(model.state_dict().values())) and model.training and new.training
    assert all(not module._forward_pre_hooks and not module._forward_hooks for module in model.modules())

    added = new.state_dict().keys() - before.keys()
    assert before.keys() <= new.state_dict().keys()
    assert added == {f"{layer.path}.feedback.matrix" for layer in done.converted}
    assert [p.shape for p in new.parameters()] == [p.shape for p in model.parameters()]

    outputs = [m.eval()(x) for m in (model, new)]
    assert torch.equal(*outputs)
    with torch.no_grad():
        assert torch.equal(new(x), outputs[0])
    exact, got = update(model, x, y), update(new, x, y)
    assert all(torch.allclose(a, b) for a, b in zip(exact[-2:], got[-2:], strict=True))  # the readout's own
    assert not torch.allclose(exact[0], got[0])
    assert same(got, update(new, x, y))
    with backpropagation(new):
        assert same(exact, update(new, x, y))
    assert same(got, update(new, x, y))


@pytest.mark.parametrize("rule", RULES)
def test_copies_and_saved_models_learn_the_same(rule: str) -> None:
    model, x, y = small()
    new = convert(model, rule, example=x, seed=3).model
    file = io.BytesIO()
    torch.save(new, file)
    file.seek(0)
    wanted = update(new, x, y)
    assert same(wanted, update(copy.deepcopy(new), x, y))
    assert same(wanted, update(torch.load(file, weights_only=False), x, y))
    other = convert(model, rule, example=x, seed=4).model
    if any(b.dim() for name, b in other.named_buffers() if "feedback" in name):
        assert not same(wanted, update(other, x, y))
    other.load_state_dict(new.state_dict())
    assert same(wanted, update(other, x, y))
    model.load_state_dict(new.state_dict(), strict=False)
    assert torch.equal(model.eval()(x), new.eval()(x))


@pytest.mark.parametrize("rule", RULES)
def test_in_place(rule: str) -> None:
    model, x, y = small()
    params = list(model.parameters())
    done = convert(model, rule, example=x, in_place=True)
    assert done.model is model and all(a is b for a, b in zip(params, model.parameters(), strict=True))
    with pytest.raises(BadInput, match="converted already"):
        convert(nn.Sequential(model), rule, example=x)


@pytest.mark.parametrize("rule", RULES)
def test_the_report(rule: str) -> None:
    model, x, _ = small()
    done = convert(model, rule, example=x, exact="in*")
    text = str(done)
    assert [layer.path for layer in done.layers] == ["stem", "inner", "fc"]
    assert [layer.path for layer in done.converted] == ["fc"]
    assert "1 of 3 layers" in text and "asked for" in text and "the first layer: nothing below it learns" in text
    assert all(len(line) <= 130 and line == line.rstrip() for line in text.split("\n"))


@pytest.mark.parametrize("rule", RULES)
def test_layers_that_the_example_does_not_reach_keep_their_gradient(rule: str) -> None:
    net = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True).eval()
    x = torch.randn(2, 3, 8)
    done = convert(nn.Sequential(nn.Linear(8, 8), net), rule, example=x)
    why = {layer.path: layer.why for layer in done.skipped}
    assert why["1.self_attn.out_proj"] == "not called by the example"
    assert "its own forward" in why["1.self_attn"]
    assert {layer.path for layer in done.converted} == {"1.linear1", "1.linear2"}
    done.model.train()(x).sum().backward()
    assert all(p.grad is not None for p in done.model.parameters())


@pytest.mark.parametrize("rule", RULES)
def test_a_frozen_beginning_can_be_thawed_later(rule: str) -> None:
    model, x, y = small()
    model.stem.requires_grad_(False)
    done = convert(model, rule, example=x)
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in done.model.parameters()]
    assert "inner" in {layer.path for layer in done.converted}
    F.cross_entropy(done.model(x), y).backward()
    assert done.model.stem.weight.grad is None and done.model.norm.weight.grad is not None
    done.model.stem.requires_grad_(True)
    assert bool(update(done.model, x, y)[0].any())


def test_angles() -> None:
    model, x, y = small()
    for rule in RULES:
        new = convert(model, rule, example=x).model
        before, random = copy.deepcopy(new.state_dict()), torch.random.get_rng_state()
        found = angles(new, lambda new=new: F.cross_entropy(new(x), y))
        assert list(found) == ["stem", "norm", "inner", "fc"]
        assert found["fc"] < 1e-5 and 0 < found["stem"] <= 180
        assert same(list(before.values()), list(new.state_dict().values()))
        assert torch.equal(random, torch.random.get_rng_state()) and new.stem.weight.grad is None
    plain = angles(model, lambda: F.cross_entropy(model(x), y))
    assert max(plain.values()) < 1e-5
    assert math.isnan(angles(model, lambda: model.fc.bias.sum())["stem"])


def test_refusals() -> None:
    model, x, _ = small()
    with pytest.raises(BadInput, match="expected an nn.Module"):
        convert("resnet")  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="no rule to convert to is called 'feedback'"):
        convert(model, "feedback")
    with pytest.raises(UnknownName, match="no layer is called 'fcc'; did you mean fc"):
        convert(model, exact=["stem", "fcc"])
    with pytest.raises(UnknownName, match="variant"):
        convert(model, variant="equal")
    with pytest.raises(BadInput, match="scale=0"):
        convert(model, scale=0)
    with pytest.raises(BadInput, match="example could not be run"):
        convert(model, example=x[:, :1])
    with pytest.raises(BadInput, match="lazy layers"):
        convert(nn.Sequential(nn.LazyLinear(3)))
    with pytest.raises(BadInput, match="compiled or scripted"):
        convert(torch.compile(model))
    with pytest.raises(BadInput, match="convert the model, then wrap it"):
        convert(nn.DataParallel(model))
    with pytest.raises(BadInput, match="in place by itself"):
        convert(nn.Linear(2, 2), in_place=True)
    with pytest.raises(Misfit, match="no layer of Odd can be converted"):
        convert(Odd(2, 2))


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_a_converted_model_can_be_compiled(rule: str) -> None:
    model, x, y = small()
    new = convert(model, rule, example=x).model
    new.drop.p = 0.0
    wanted = update(new, x, y)
    for got, g in zip(update(torch.compile(new), x, y), wanted, strict=True):
        assert torch.allclose(got, g, rtol=1e-9, atol=1e-12)
