"""swap: what it says of an example's output, how new modules start as the old function, and the way back."""

from __future__ import annotations

import json
import math
from collections import OrderedDict

import pytest
import torch
from test_swap import GATE, PAPER, ROWS, SCALED, Block, Net, PerChannel, Swish, mlp, same, state, toy_scaled
from torch import Tensor, nn

from netwright.activations import ActivationPart, activation
from netwright.core import catalogue
from netwright.core.errors import BadInput, Misfit
from netwright.core.part import Learn, Option
from netwright.surgery.fitting import GRID, WEIGHTS, function_of
from netwright.surgery.measure import drift
from netwright.surgery.swap import swap


def toy_slopes(x: Tensor, right: Tensor, left: Tensor) -> Tensor:
    return torch.where(x > 0, right * x, left * x)


def toy_wave(x: Tensor, rate: Tensor) -> Tensor:
    return torch.sin(rate * x)


def _reference(x: float, *rest: float) -> float:
    return math.tanh(x)


SLOPES = activation(
    toy_slopes,
    cls="ToySlopes",
    reference=_reference,
    paper=PAPER,
    learn=(Learn("right", 0.3), Learn("left", 2.0, bounds=(0.0, 3.0))),
)
WAVE = activation(
    toy_wave,
    cls="ToyWave",
    reference=_reference,
    paper=PAPER,
    learn=(Learn("rate", lambda o: 9.0 if o["pace"] == "fast" else 1.0),),
    options=(Option("pace", "slow", allowed=("slow", "fast")),),
)
SHARED = activation(
    toy_scaled,
    name="toy-shared",
    cls="ToyShared",
    reference=_reference,
    paper=PAPER,
    learn=(Learn("slope", 0.5),),
    options=(Option("shift", 0.0),),
    shared=True,
)


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(9.0 * x)


# The output -----------------------------------------------------------------------------------------------------------


def test_drift_and_variance_are_what_they_are_said_to_be() -> None:
    torch.manual_seed(0)
    model, x = mlp(), torch.randn(64, 3)
    model.eval()
    with torch.no_grad():
        before, seen = model(x), model[0](x)
        report = swap(model, "1", nn.ReLU, example=x)
        after = model(x)
    wanted = (after - before).square().mean().sqrt() / before.square().mean().sqrt()
    assert report.drift == pytest.approx(float(wanted), rel=1e-5) and report.drift > 0.01
    ratio = torch.relu(seen).var(unbiased=False) / nn.functional.gelu(seen).var(unbiased=False)
    assert report.sites[0].variance_ratio == pytest.approx(float(ratio), rel=1e-5)
    assert report.sites[0].shape == (64, 5)
    assert f"changed by {report.drift:.3g}" in str(report) and "64x5" in str(report)


def test_without_an_example_nothing_is_measured() -> None:
    report = swap(mlp(), nn.GELU, nn.ReLU)
    assert report.drift is None and report.sites[0].variance_ratio is None and report.sites[0].shape is None
    assert "output on the example" not in str(report)


def test_the_same_function_drifts_by_nothing() -> None:
    report = swap(Net(), nn.GELU, nn.GELU, example=torch.randn(3, 6))
    assert report.drift == 0.0 and {s.variance_ratio for s in report.sites} == {1.0}


def test_every_call_of_a_module_counts_and_in_place_modules_are_measured_on_their_inputs() -> None:
    act = nn.ReLU(inplace=True)
    model, x = nn.Sequential(act, nn.Linear(3, 4), act), torch.randn(50, 3)
    with torch.no_grad():
        inputs = torch.cat([x.flatten(), model[1](x.relu()).flatten()])
    site = swap(model, nn.ReLU, nn.Tanh, example=x).sites[0]
    assert site.variance_ratio == pytest.approx(float(inputs.tanh().var() / inputs.relu().var()), rel=1e-4)


def test_outputs_of_any_nesting_are_compared() -> None:
    a = OrderedDict(logits=torch.ones(4), rest=([torch.ones(2, dtype=torch.int64)], None, torch.full((4,), -math.inf)))
    b = OrderedDict(logits=torch.full((4,), 1.5), rest=([torch.zeros(2, dtype=torch.int64)], None, torch.full((4,), -math.inf)))
    assert drift(a, b) == pytest.approx(0.5)  # integers and equal infinities don't count
    assert drift(a, a) == 0.0 and drift(torch.zeros(2), torch.ones(2)) == math.inf
    assert drift(torch.ones(2), torch.tensor([1.0, math.nan])) == math.inf
    assert drift(torch.ones(2), torch.ones(3)) is None and drift(3, 3) is None


def test_random_numbers_of_the_forward_are_the_same_before_and_after() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.GELU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(x) + torch.randn_like(x)

    assert swap(Noisy(), nn.GELU, nn.GELU, example=torch.randn(3, 6)).drift == 0.0


def test_a_module_that_fails_on_the_example_is_refused_and_nothing_changes() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("too bad")

    class Narrow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[..., :1]

    for to, why in ((Fails, "fails at 1 on its input of shape \\(2, 5\\): RuntimeError: too bad"), (Narrow, "example fails")):
        model = mlp()
        with pytest.raises(Misfit, match=why):
            swap(model, nn.GELU, to, example=torch.zeros(2, 3))
        assert isinstance(model[1], nn.GELU) and isinstance(model[4], nn.GELU)


def test_numbers_that_are_not_finite_are_null_in_json() -> None:
    class Zero(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 0 * x

    model = nn.Sequential(nn.Identity(), Zero())
    report = swap(model, Zero, nn.ReLU, example=torch.ones(2, 3))
    assert report.drift == math.inf and json.loads(report.to_json())["drift"] is None
    assert report.sites[0].variance_ratio is None


def test_a_long_report_says_once_what_is_the_same_everywhere() -> None:
    text = str(swap(nn.ModuleList([Block() for _ in range(12)]), nn.GELU, SCALED, per="channel"))
    assert text.count("GELU(approximate='none')") == 1 and "at every place: old GELU(approximate='none')" in text
    assert "0.act.slope" in text and "and 4 more" in text and "add_param_group" in text


# The way back ---------------------------------------------------------------------------------------------------------


def test_restore_puts_the_old_modules_back_with_what_they_had_learned() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 5), nn.PReLU(5), nn.Linear(5, 4), nn.PReLU(), nn.Linear(4, 2)), torch.randn(7, 3)
    with torch.no_grad():
        model[1].weight.uniform_()
    old, before, keys = model[1], model(x), state(model)
    report = swap(model, nn.PReLU, SCALED, example=x)
    assert not torch.equal(model(x), before)
    report.restore(model)
    assert model[1] is old and torch.equal(model(x), before)
    assert list(keys) == list(model.state_dict()) and same(keys, state(model))
    with pytest.raises(BadInput, match="restored already"):
        report.restore(model)


def test_restore_follows_the_models_dtype_and_mode_but_leaves_mixed_ones() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.PReLU(), nn.Linear(5, 2))
    report = swap(model, nn.PReLU, nn.GELU)
    model.double().eval()
    report.restore(model)
    assert model[1].weight.dtype == torch.float64 and not model[1].training
    mixed = nn.Sequential(nn.Linear(3, 5).bfloat16(), nn.PReLU(), nn.Linear(5, 2).bfloat16())
    swap(mixed, nn.PReLU, nn.GELU).restore(mixed)
    assert mixed[1].weight.dtype == torch.float32


def test_restore_refuses_other_models_and_models_changed_since() -> None:
    model = Net()
    first = swap(model, nn.GELU, Swish)
    with pytest.raises(BadInput, match="not the model that was swapped"):
        first.restore(Net())
    second = swap(model, "blocks.0.act", nn.Tanh)
    with pytest.raises(BadInput, match="act of Block was changed since"):
        first.restore(model)
    assert isinstance(model.blocks[0].act, nn.Tanh) and isinstance(model.blocks[1].act, Swish)
    second.restore(model)
    first.restore(model)
    assert isinstance(model.blocks[0].act, nn.GELU) and isinstance(model.heads["a"][1], nn.GELU)


def test_restore_gives_torchs_layers_their_fused_path_back() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation=nn.GELU()), 2).eval()
    flags = [layer.activation_relu_or_gelu for layer in model.layers]
    report = swap(model, nn.GELU, nn.Identity)
    assert [layer.activation_relu_or_gelu for layer in model.layers] != flags
    report.restore(model)
    assert [layer.activation_relu_or_gelu for layer in model.layers] == flags


# One module for all ---------------------------------------------------------------------------------------------------


def test_a_part_that_is_one_module_goes_to_every_place_as_one() -> None:
    model = Net()
    report = swap(model, nn.GELU, SHARED, example=torch.randn(2, 6))
    assert model.blocks[0].act is model.blocks[1].act is model.heads["a"][1]
    assert report.added_parameters == 1 and len(report.parameters(model)) == 1
    assert [s.notes for s in report.sites[1:]] == [("shares the module of blocks.0.act",)] * 2
    report.restore(model)
    assert len({id(m) for m in model.modules() if isinstance(m, nn.GELU)}) == 3


# Starting as the old function -----------------------------------------------------------------------------------------


def test_a_fit_is_exact_where_the_part_holds_the_function() -> None:
    model, x = mlp(), torch.randn(9, 3)
    model[1], model[4] = nn.PReLU(init=0.125), nn.ReLU()
    model.eval()
    before = model(x)
    report = swap(model, (nn.PReLU, nn.ReLU), SLOPES, init_from="old", example=x)
    assert model[1].right.item() == pytest.approx(1, abs=1e-6) and model[1].left.item() == pytest.approx(0.125, abs=1e-6)
    assert model[4].left.item() == pytest.approx(0, abs=1e-6)
    assert max(s.fit_error for s in report.sites) < 1e-6 and report.drift < 1e-6
    assert torch.allclose(model(x), before, atol=1e-6)
    assert "fit error" in str(report) and "ToySlopes (fitted)" in str(report)


def test_the_error_is_the_weighted_root_mean_square() -> None:
    assert float(WEIGHTS.sum()) == pytest.approx(1) and GRID[0] == -5 and GRID[-1] == 5
    assert torch.allclose(WEIGHTS / WEIGHTS.max(), torch.exp(-GRID.square() / 2))
    model = nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(0.05))
    error = swap(model, nn.LeakyReLU, nn.ReLU, init_from="old").sites[0].fit_error
    wanted = (WEIGHTS * (GRID.relu() - nn.functional.leaky_relu(GRID, 0.05)).square()).sum().sqrt()
    assert error == pytest.approx(float(wanted)) and 0.02 < error < 0.05


def test_a_start_that_is_too_far_is_refused_with_its_distance() -> None:
    model = mlp()
    with pytest.raises(Misfit, match=r"can't start as the GELU at 1: the nearest is 0\.\d+ away .*at most 0.05"):
        swap(model, nn.GELU, SCALED, init_from="old")
    assert isinstance(model[1], nn.GELU) and isinstance(model[4], nn.GELU)


def test_every_start_a_part_offers_is_tried() -> None:
    model = nn.Sequential(nn.Linear(3, 4), Sine())
    report = swap(model, Sine, WAVE, init_from="old")  # from rate 1 the way to 9 is full of other minima
    assert report.sites[0].fit_error < 1e-6 and model[1].rate.item() == pytest.approx(9, abs=1e-5)


def test_channels_that_differ_are_fitted_one_by_one() -> None:
    model, x = nn.Sequential(nn.Linear(3, 4), nn.PReLU(4)), torch.randn(20, 3)
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.0, 0.1, 0.5, 1.0]))
    before = model(x)
    with pytest.raises(Misfit, match="another function for every channel; .*per='channel'"):
        swap(model, nn.PReLU, SLOPES, init_from="old")
    swap(model, nn.PReLU, SLOPES, init_from="old", per="channel", example=x)
    assert torch.allclose(model[1].left, torch.tensor([0.0, 0.1, 0.5, 1.0]), atol=1e-5)
    assert torch.allclose(model(x), before, atol=1e-5)


def test_what_is_no_elementwise_function_is_refused() -> None:
    for old in (nn.Softmax(-1), nn.LayerNorm(4), nn.Linear(4, 4)):
        model = nn.Sequential(nn.Linear(3, 4), old)
        with pytest.raises(Misfit, match="no elementwise function"):
            swap(model, "1", SLOPES, init_from="old")
    with pytest.raises(Misfit, match="rowwise; only elementwise"):
        swap(mlp(), nn.GELU, ROWS, init_from="old")
    with pytest.raises(BadInput, match="init_from='new'; allowed: None, 'old'"):
        swap(mlp(), nn.GELU, SCALED, init_from="new")
    assert function_of(PerChannel(4), 4) is not None and function_of(nn.Softmax(-1), 4) is None


def test_torchs_own_modules_are_fitted_too() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(0.3))
    report = swap(model, nn.LeakyReLU, nn.PReLU, init_from="old")
    assert model[1].weight.item() == pytest.approx(0.3, abs=1e-6) and report.sites[0].fit_error < 1e-6


LEARNING = [
    p
    for p in catalogue.parts("activation")
    if isinstance(p, ActivationPart) and p.learn and p.tags.shape == "elementwise" and not p.retired and not p.tags.no_dtypes
]


@pytest.mark.every_part
def test_parts_that_equal_another_can_start_as_it() -> None:
    """A declared identity with a part without parameters is a start the fit has to find."""
    known = {p.id: p for p in catalogue.parts("activation")}
    tried = 0
    for part in LEARNING:
        for identity in part.identities:
            other = known.get(identity.other)
            learned = {item.name for item in part.learn}
            simple = isinstance(other, ActivationPart) and not other.learn and other.tags.shape == "elementwise"
            if tried == 6 or not simple or not set(identity.options) <= learned or identity.other_options:
                continue
            if (identity.scale_x, identity.scale_y) != (1.0, 1.0) or identity.domain[0] > -5 or identity.domain[1] < 5:
                continue
            model = nn.Sequential(nn.Linear(2, 3), other.build())
            report = swap(model, other, part, init_from="old")
            assert report.sites[0].fit_error < max(1e-3, 10 * identity.tolerance), (part.id, other.id)
            tried += 1
            break
    assert tried >= 2


@pytest.mark.parametrize("part", LEARNING, ids=lambda p: p.name)
def test_every_elementwise_part_that_learns_is_fitted_or_refused(part: ActivationPart) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 3)
    for old in (nn.ReLU, nn.SiLU, nn.GELU):
        model = nn.Sequential(nn.Linear(3, 8), old())
        before = model(x)
        try:
            report = swap(model, old, part, init_from="old", example=x)
        except Misfit as error:
            assert "the nearest is" in str(error) and isinstance(model[1], old)
            continue
        inside = (model[0](x).abs() < 5).all()
        assert report.sites[0].fit_error <= 0.05 and inside
        grid = GRID.float()[:, None].expand(-1, 8)  # what was measured is what was put in, in its own dtype
        off = (WEIGHTS * (model[1](grid) - old()(grid))[:, 0].double().square()).sum().sqrt()
        assert float(off.detach()) == pytest.approx(report.sites[0].fit_error, rel=0.02, abs=1e-5)
        assert float((model(x) - before).square().mean().sqrt()) < 0.15


# Gates ----------------------------------------------------------------------------------------------------------------


class Gated(nn.Module):
    """A gated unit that writes the product itself."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 4)
        self.act, self.drop, self.scale = nn.GELU(), nn.Dropout(0.1), nn.Parameter(torch.ones(6))
        self.after, self.self_gate = nn.SiLU(), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.act(self.gate(x))) * self.up(x)
        h = self.after(h) * self.scale * 2.0
        return self.down(h * self.self_gate(h))


def test_a_gate_is_said_to_be_one_and_what_is_none_is_not() -> None:
    report = swap(Gated(), (nn.GELU, nn.SiLU, nn.Sigmoid), Swish)
    notes = {s.path: s.notes for s in report.sites}
    assert notes == {"act": ("a gate: multiplies up's output in Gated",), "after": (), "self_gate": ()}


def gated_parts() -> list[ActivationPart]:
    return [p for p in catalogue.parts("activation") if isinstance(p, ActivationPart) and p.tags.shape == "gated"]


@pytest.mark.every_part
def test_a_gated_part_is_refused_with_the_gate_to_use() -> None:
    for name, why in (("act", "already multiplies up's output"), ("after", "fills the slot mlp")):
        model = Gated()
        with pytest.raises(Misfit, match=f"{why}.*for its gate alone, which is linear, give to=nn.Identity"):
            swap(model, name, GATE)
        assert isinstance(model.act, nn.GELU)
    advised = 0
    for part in [p for p in gated_parts() if not p.learn]:
        with pytest.raises(Misfit) as error:
            swap(Gated(), "act", part)
        name = str(error.value).rpartition("give to=")[2].strip("'")
        if not any(name == p.name for p in catalogue.parts("activation")):
            continue
        advised += 1
        gate = catalogue.get(name, "activation").build()
        a, b = torch.randn(8), torch.randn(8)
        whole = part.build(channel_dim=-1)(torch.cat([a, b]))
        assert any(torch.allclose(whole, gate(g) * v, atol=1e-5) for g, v in ((a, b), (b, a))), part.id
    assert advised


def test_a_module_for_both_branches_takes_gated_parts_only() -> None:
    model = nn.Sequential(nn.Linear(4, 12), nn.GLU(), nn.Linear(6, 2))
    plain = next(p for p in catalogue.parts("activation") if isinstance(p, ActivationPart) and p.tags.shape == "elementwise")
    with pytest.raises(Misfit, match="1 is GLU, which halves its channels"):
        swap(model, nn.GLU, plain)
    x = torch.randn(3, 4)
    halves = next(p for p in gated_parts() if not p.learn and p.ratio == 0.5)
    report = swap(model, nn.GLU, halves, example=x)
    assert model[1].channel_dim == -1 and torch.equal(model(x), model[2](halves.fn(model[0](x), dim=-1)))
    report.restore(model)
    convolved = nn.Sequential(nn.Conv2d(2, 4, 1), nn.GLU(dim=1))
    swap(convolved, nn.GLU, GATE)
    assert convolved[1].channel_dim == 1 and convolved(torch.randn(1, 2, 3, 3)).shape == (1, 2, 3, 3)
