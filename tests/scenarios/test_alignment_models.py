"""Models as people have them, converted to learn by feedback alignment, sign symmetry and direct feedback."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from netwright.core import catalogue
from netwright.core.errors import BadInput, Misfit
from netwright.engine.build import Chosen, fill_of
from netwright.nets.dense.mlp import Mlp
from netwright.tensor.streams import initialise
from netwright.waiting import alignment
from netwright.waiting.alignment import RULES, angles, convert

WAYS: list[tuple[str, dict[str, Any]]] = [
    ("feedback-alignment", {}),
    ("sign-symmetry", {}),
    ("sign-symmetry", {"variant": "fixed"}),
    ("sign-symmetry", {"variant": "redrawn"}),
    ("dfa", {}),
    ("dfa", {"maps": "channels"}),
]


@pytest.mark.every_part
def test_every_rule_that_models_can_be_converted_to_is_in_the_catalogue() -> None:
    assert {f"rule/{name}" for name in RULES} <= {part.id for part in catalogue.parts("rule")}


class Basic(nn.Module):
    """The basic block of a ResNet, as torchvision writes it."""

    def __init__(self, before: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample: nn.Module | None = None
        if stride != 1 or before != planes:
            self.downsample = nn.Sequential(nn.Conv2d(before, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self, widths: tuple[int, ...] = (8, 12), classes: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.layers = nn.Sequential(*(Basic(a, b, 2) for a, b in zip((widths[0], *widths), widths, strict=False)))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def train(model: nn.Module, x: Tensor, y: Tensor, steps: int, lr: float) -> list[float]:
    optimizer, losses = torch.optim.Adam(model.parameters(), lr), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None for p in model.parameters())
    return losses


@pytest.mark.parametrize(("rule", "options"), WAYS)
def test_a_resnet_learns(rule: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = ResNet()
    x, y = torch.randn(16, 3, 8, 8), torch.arange(16) % 4
    done = convert(model, rule, example=x, **options)
    assert len(done.converted) == 7 and [layer.path for layer in done.skipped] == ["conv1"]
    losses = train(done.model, x, y, steps=30, lr=1e-2)
    assert losses[-1] < 0.6 * losses[0]
    found = angles(done.model, lambda: F.cross_entropy(done.model(x), y))
    assert found["fc"] < 0.1 and found["layers.0.conv1"] < (90 if rule == "sign-symmetry" else 120)


def test_sign_symmetry_is_nearer_to_backpropagation_than_feedback_alignment() -> None:
    torch.manual_seed(0)
    model, x, y = ResNet(), torch.randn(16, 3, 8, 8), torch.arange(16) % 4
    mean = {}
    for rule, options in WAYS:
        new = convert(model, rule, example=x, **options).model
        found = angles(new, lambda new=new: F.cross_entropy(new(x), y))
        mean[rule] = sum(found.values()) / len(found)
    assert mean["sign-symmetry"] + 10 < min(mean["feedback-alignment"], mean["dfa"])


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "options"), WAYS)
def test_timms_resnet18(rule: str, options: dict[str, Any]) -> None:
    try:
        timm = importlib.import_module("timm")
    except Exception as error:
        pytest.skip(f"timm can't be imported: {type(error).__name__}: {str(error)[:80]}")
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=4)
    x, y = torch.randn(4, 3, 64, 64), torch.arange(4)
    wanted = model.eval()(x)
    done = convert(model.train(), rule, example=x, **options)
    assert len(done.converted) == 20 and str(done).startswith(f"{rule}: 20 of 21 layers")
    assert torch.equal(done.model.eval()(x), wanted)
    losses = train(done.model.train(), x, y, steps=5, lr=1e-3)
    assert losses[-1] < losses[0]


# Against the rules of the catalogue, and the formulas -----------------------------------------------------------------


@pytest.mark.parametrize("rule", ["feedback-alignment", "sign-symmetry"])
def test_a_converted_model_takes_the_step_of_the_rule(rule: str) -> None:
    """With the same feedback, the rule bound to a net and the net converted have one update."""
    task = catalogue.get("task/digits").build(size="small")  # type: ignore[attr-defined]
    fill = fill_of({"activation": Chosen(*catalogue.parse("activation/relu"))})
    net = Mlp(64, 10, (8, 7), fill)
    initialise(net, 0)
    new = convert(net, rule).model
    bound: Any = catalogue.get(f"rule/{rule}").build(net, task.problem)
    made = [module for path, module in new.named_modules() if path.endswith("feedback")]
    assert len(made) == len(bound.feedback) == 3
    for own, other in zip(bound.feedback, made, strict=True):
        own.matrix.copy_(other.matrix)
    x, y = torch.randn(9, 64), torch.arange(9)
    next(bound.losses(x, y)).backward()
    task.problem.loss(new(x), y).backward()
    for p, q in zip(net.parameters(), new.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-5, atol=1e-8)


def test_direct_feedback_by_hand() -> None:
    """delta_k = (e D_k) * f'(a_k): the signal at the next layer's input, through the activation and norm between."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 7), nn.ReLU(inplace=True), nn.Linear(7, 3)).double()
    x, y = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    new = convert(net, "dfa", example=x).model
    F.cross_entropy(new(x), y).backward()
    h1 = torch.tanh(net[0](x))
    h2 = torch.relu(net[2](h1))
    e = torch.softmax(net[4](h2), -1)
    e[torch.arange(4), y] -= 1
    e /= 4
    d1 = (e @ new[2].feedback.matrix) * (1 - h1**2)
    d2 = (e @ new[4].feedback.matrix) * (h2 > 0)
    for k, delta, h in ((0, d1, x), (2, d2, h1), (4, e, h2)):
        assert torch.allclose(new[k].weight.grad, delta.T @ h, atol=1e-14)
        assert torch.allclose(new[k].bias.grad, delta.sum(0), atol=1e-14)


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Conv2d(1, 4, 3, 1, 1), nn.Conv2d(4, 5, 3, 1, 1), nn.Linear(5, 3)

    def maps(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))

    def forward(self, x: Tensor, fail: bool = False) -> Tensor:
        h = self.maps(x)
        if fail:
            raise RuntimeError("as asked")
        return self.out(h.mean((2, 3)))


def test_direct_feedback_of_maps() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 1, 4, 4)
    sizes = {}
    for maps in ("full", "channels"):
        new: Any = convert(Tower(), "dfa", example=x, maps=maps).model
        seen: list[Tensor] = []
        handle = new.first.register_full_backward_hook(lambda m, i, o, seen=seen: seen.append(o[0]))
        before: Tensor = new.first(x)  # a part alone: exact
        new(x).sum().backward()
        handle.remove()
        expected = torch.ones(3, 3) @ new.second.feedback.matrix
        expected = expected.view(3, 4, 4, 4) if maps == "full" else expected[:, :, None, None].expand(3, 4, 4, 4)
        assert torch.allclose(seen[0], expected * (before > 0))
        sizes[maps] = new.second.feedback.matrix.shape
        if maps == "full":
            with pytest.raises(BadInput, match="maps='channels'"):
                new(torch.randn(3, 1, 5, 5))
        else:
            assert new(torch.randn(2, 1, 5, 5)).shape == (2, 3)
    assert sizes == {"full": (3, 64), "channels": (3, 4)}


def test_a_part_of_the_model_alone_and_a_forward_that_failed_have_exact_gradients() -> None:
    torch.manual_seed(0)
    plain, x = Tower(), torch.randn(3, 1, 4, 4)
    new: Any = convert(plain, "dfa", example=x).model
    with pytest.raises(RuntimeError, match="as asked"):
        new(x, fail=True)
    for model in (plain, new):
        model.maps(x).sum().backward()
    assert torch.equal(plain.first.weight.grad, new.first.weight.grad)
    for model in (plain, new):
        model.zero_grad()
    (new(x).sum() + new(2 * x).sum()).backward()  # two forwards before one backward
    both = new.first.weight.grad.clone()
    new.zero_grad()
    new(x).sum().backward()
    new(2 * x).sum().backward()
    assert torch.allclose(both, new.first.weight.grad, atol=1e-6)


def test_direct_feedback_of_a_language_model_goes_position_by_position() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 11))
    tokens = torch.randint(11, (2, 6))
    done = convert(net, "dfa", example=tokens)
    assert [layer.feedback for layer in done.layers] == ["position 11x8", "position 11x9"]
    longer = torch.randint(11, (3, 7))
    F.cross_entropy(done.model(longer).flatten(0, 1), longer.flatten()).backward()
    assert bool(done.model[0].weight.grad.any())


def test_direct_feedback_under_vmap_of_grad() -> None:
    torch.manual_seed(0)
    net = Tower().double()
    x, y = torch.randn(3, 1, 4, 4).double(), torch.arange(3)
    new = convert(net, "dfa", example=x).model
    params = {n: torch.stack([p.detach(), 2 * p.detach()]) for n, p in new.named_parameters()}
    buffers = {n: torch.stack([b, b + 1]) for n, b in new.named_buffers()}

    def loss(params: Any, buffers: Any) -> Tensor:
        return F.cross_entropy(functional_call(new, (params, buffers), (x,)), y)

    got = vmap(grad(loss))(params, buffers)
    for k in range(2):
        own = {n: p[k].clone().requires_grad_() for n, p in params.items()}
        wanted = torch.autograd.grad(loss(own, {n: b[k] for n, b in buffers.items()}), list(own.values()))
        for n, g in zip(own, wanted, strict=True):
            assert torch.allclose(got[n][k], g, atol=1e-12)


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.layer(self.layer(x))}


def test_what_direct_feedback_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="dfa needs example="):
        convert(Tower(), "dfa")
    with pytest.raises(Misfit, match="output is one tensor"):
        convert(Several(), "dfa", example=torch.randn(2, 3))
    with pytest.raises(Misfit, match="the first layer"):
        convert(nn.Sequential(nn.Linear(3, 2)), "dfa", example=torch.randn(2, 3))
    monkeypatch.setattr(alignment, "MOST", 100)
    with pytest.raises(BadInput, match="192 values, over 100; use maps='channels'"):
        convert(Tower(), "dfa", example=torch.randn(2, 1, 4, 4), exact="out")
