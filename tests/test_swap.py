"""swap: what it replaces, what it refuses, what it reports, and that it leaves the rest as it was."""

from __future__ import annotations

import copy
import json
import math
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from netwright.activations import ActivationPart, Tags, activation
from netwright.core import catalogue
from netwright.core.errors import BadInput, Misfit, UnknownName
from netwright.core.part import Learn, Option, Paper
from netwright.surgery.swap import swap

RELU, TANH = F.relu.__name__, torch.tanh.__name__
PAPER = Paper(title="A toy", authors="Nobody", year=2000)


def toy_scaled(x: Tensor, slope: Tensor, *, shift: float = 0.0) -> Tensor:
    return slope * torch.tanh(x) + shift


def toy_rows(x: Tensor, *, dim: int = -1) -> Tensor:
    return x - x.mean(dim, keepdim=True)


def toy_gate(x: Tensor, *, dim: int = -1) -> Tensor:
    a, b = x.chunk(2, dim)
    return a * b


def toy_double(x: Tensor, *, dim: int = -1) -> Tensor:
    return torch.cat([x, -x], dim)


def _reference(x: float, *rest: float, **options: float) -> float:
    return math.tanh(x)


SCALED = activation(
    toy_scaled,
    cls="ToyScaled",
    reference=_reference,
    paper=PAPER,
    learn=(Learn("slope", 0.5),),
    options=(Option("shift", 0.0),),
)
ROWS = activation(toy_rows, cls="ToyRows", reference=_reference, paper=PAPER, tags=Tags(shape="rowwise"))
GATE = activation(toy_gate, cls="ToyGate", reference=_reference, paper=PAPER, tags=Tags(shape="gated"))
WIDER = Tags(shape="channels")
DOUBLE = activation(toy_double, cls="ToyDouble", reference=_reference, paper=PAPER, tags=WIDER, ratio=2.0)


class PerChannel(nn.Module):
    """One slope a channel."""

    def __init__(self, channels: int, channel_dim: int = 1) -> None:
        super().__init__()
        self.channel_dim = channel_dim
        self.slope = nn.Parameter(torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        trailing = x.dim() - 1 - self.channel_dim % x.dim()
        return x * self.slope.reshape(-1, *[1] * trailing)


class Swish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 5), nn.GELU(), nn.Linear(5, 4), nn.Dropout(0.5), nn.GELU(), nn.Linear(4, 2))


class Block(nn.Module):
    def __init__(self, d: int = 6) -> None:
        super().__init__()
        self.up = nn.Linear(d, 2 * d)
        self.act = nn.GELU()
        self.down = nn.Linear(2 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.act(self.up(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.heads = nn.ModuleDict({"a": nn.Sequential(nn.Linear(6, 3), nn.GELU()), "b": nn.Linear(6, 3)})
        self.heads["b"].weight = self.heads["a"][0].weight

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = F.relu(block(x))
        return self.heads["a"](x) + self.heads["b"](x).tanh()


def state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# What it replaces -----------------------------------------------------------------------------------------------------


def test_every_module_of_a_type_is_replaced_and_the_rest_is_untouched() -> None:
    model = mlp()
    before = state(model)
    report = swap(model, nn.GELU, nn.SiLU)
    assert [type(m).__name__ for m in model] == ["Linear", "SiLU", "Linear", "Dropout", "SiLU", "Linear"]
    assert [(s.path, s.channels, s.channel_dim) for s in report.sites] == [("1", 5, -1), ("4", 4, -1)]
    assert same(state(model), before)
    assert report.gained == report.lost == () and report.added_parameters == 0


@pytest.mark.parametrize(
    ("what", "paths"),
    [
        (nn.GELU, ["blocks.0.act", "blocks.1.act", "heads.a.1"]),
        ((nn.GELU, nn.ReLU), ["blocks.0.act", "blocks.1.act", "heads.a.1"]),
        ("blocks.*.act", ["blocks.0.act", "blocks.1.act"]),
        ("blocks.1.act", ["blocks.1.act"]),
        (lambda path, module: path.startswith("heads") and isinstance(module, nn.GELU), ["heads.a.1"]),
    ],
)
def test_every_way_to_say_what(what: object, paths: list[str]) -> None:
    model = Net()
    report = swap(model, what, Swish)
    assert [s.path for s in report.sites] == paths
    assert [path for path, m in model.named_modules() if isinstance(m, Swish)] == paths


def test_swapping_back_restores_the_output_to_the_bit() -> None:
    torch.manual_seed(0)
    model, x = Net(), torch.randn(4, 6)
    before = model(x)
    swap(model, nn.GELU, SCALED)
    assert not torch.equal(model(x), before)
    swap(model, SCALED, nn.GELU)
    assert torch.equal(model(x), before)


@pytest.mark.every_part
def test_parts_of_the_catalogue_by_name_class_and_declaration() -> None:
    plain = [p for p in catalogue.parts("activation") if isinstance(p, ActivationPart) and p.slots() == ("activation",)]
    plain = [p for p in plain if p.ratio == 1 and not p.tags.no_dtypes]
    assert plain
    for part in plain[:12]:
        model = mlp()
        swap(model, nn.GELU, part.id, example=torch.zeros(2, 3))
        assert isinstance(model[1], part.module_type())
        swap(model, part.id, part)
        report = swap(model, part.module_type(), part.module_type())
        assert len(report.sites) == 2 and model(torch.randn(2, 3)).shape == (2, 2)


def test_options_reach_the_part_and_its_parameters_are_reported() -> None:
    model = mlp()
    report = swap(model, nn.GELU, SCALED, shift=0.25, per="channel", slope=2.0)
    assert report.gained == ("1.slope", "4.slope") and report.added_parameters == 5 + 4
    assert torch.equal(model[1].slope, torch.full((5,), 2.0))
    assert torch.allclose(model[1](torch.zeros(1, 5)), torch.tensor(0.25))
    new = report.parameters(model)
    assert [p.shape for p in new] == [(5,), (4,)] and new[0] is model[1].slope
    with pytest.raises(BadInput, match="not the model"):
        report.parameters(mlp())


def test_new_parameters_depend_on_the_seed_and_the_path_only() -> None:
    torch.manual_seed(7)
    clean = torch.rand(1)
    values = []
    for global_seed in (7, 8):
        torch.manual_seed(global_seed)
        model = nn.Sequential(nn.Linear(2, 4), nn.GELU(), nn.Linear(4, 4), nn.GELU())
        torch.manual_seed(7)
        swap(model, nn.GELU, PerChannel, example=torch.zeros(1, 2), seed=3)
        assert torch.equal(torch.rand(1), clean), "the global generator moved"
        values.append((model[1].slope.detach(), model[3].slope.detach()))
    assert torch.equal(values[0][0], values[1][0]) and not torch.equal(values[0][0], values[0][1])


# Channels -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "shape", "channels", "dim"),
    [
        ([nn.Linear(3, 7), nn.GELU()], (2, 3), 7, -1),
        ([nn.Linear(3, 7), nn.GELU()], (2, 7, 3), 7, -1),
        ([nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.Dropout(0.1), nn.GELU()], (2, 3, 8, 8), 7, 1),
        ([nn.Conv1d(3, 7, 3), nn.GELU()], (2, 3, 8), 7, 1),
        ([nn.LayerNorm(6), nn.GELU()], (2, 5, 6), 6, -1),
        ([nn.Sequential(nn.Linear(3, 9), nn.ReLU()), nn.GELU()], (2, 3), 9, -1),
        ([nn.GELU(), nn.Linear(3, 7)], (2, 3), 3, -1),
    ],
)
def test_channels_by_neighbour_by_trace_and_by_example(layers: list, shape: tuple, channels: int, dim: int) -> None:
    place = str(next(i for i, layer in enumerate(layers) if isinstance(layer, nn.GELU)))
    for example in (None, torch.zeros(shape)):
        model = nn.Sequential(*copy.deepcopy(layers))
        site = swap(model, nn.GELU, PerChannel, example=example).sites[0]
        assert (site.path, site.channels, site.channel_dim) == (place, channels, dim)
        assert site.known.startswith("example run" if example is not None else ("traced from", "neighbour"))
        assert model(torch.ones(shape)).isfinite().all()


class Untraceable(nn.Module):
    """Registers its activation last, after the layer whose width it doesn't have."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.act = nn.Linear(3, 8), nn.Linear(8, 3), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 1e9:
            return x
        return self.down(self.act(self.up(x)))


def test_a_misleading_order_of_registration_is_unknown_not_guessed() -> None:
    model = Untraceable()
    with pytest.raises(Misfit, match="unknown at act; give example="):
        swap(model, nn.GELU, PerChannel)
    assert isinstance(model.act, nn.GELU)
    report = swap(model, nn.GELU, PerChannel, example=torch.zeros(1, 3))
    assert report.sites[0].channels == 8 and report.sites[0].known == "example run"
    assert swap(model, PerChannel, PerChannel, channels=8, channel_dim=-1).sites[0].known == "given"
    assert swap(model, PerChannel, Swish).sites[0].known == "unknown"


def test_neighbours_that_agree_are_believed_where_nothing_runs() -> None:
    class Agreeing(Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() < 1e9 else x

    site = swap(Agreeing(), nn.GELU, PerChannel).sites[0]
    assert (site.channels, site.channel_dim) == (12, -1) and site.known == "neighbour up: Linear.out_features"


def test_what_is_given_overrides_what_is_known() -> None:
    x = torch.randn(2, 5, 3)
    for example, options, known in (
        (None, {"channels": 5, "channel_dim": 1}, "given"),
        (x, {"channel_dim": 1}, "example run"),
        (x, {"channels": 4}, "given"),
    ):
        model = nn.Sequential(nn.Linear(3, 4), nn.GELU())
        site = swap(model, nn.GELU, SCALED, per="channel", example=example, **options).sites[0]
        dim = options.get("channel_dim", -1)
        assert (site.channels, site.channel_dim, site.known) == ((5, 1, known) if dim == 1 else (4, -1, known))
        assert model(x).shape == (2, 5, 4)
    with pytest.raises(Misfit, match="needs channels, unknown at 1"):  # 4 is the size of another dimension
        swap(nn.Sequential(nn.Linear(3, 4), nn.GELU()), nn.GELU, SCALED, per="channel", channel_dim=1)


def test_rows_need_the_dimension_and_get_it() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU())
    swap(model, nn.GELU, ROWS)
    assert model[1].channel_dim == 1
    assert model(torch.randn(2, 3, 5, 5)).mean(1).abs().max() < 1e-6
    with pytest.raises(Misfit, match="channel_dim"):
        swap(nn.Sequential(nn.Flatten(), nn.GELU()), nn.GELU, ROWS)


@pytest.mark.parametrize(("part", "why"), [(GATE, "slot mlp"), (DOUBLE, "2 times the channels")])
def test_parts_that_change_the_width_are_refused(part: ActivationPart, why: str) -> None:
    model = mlp()
    with pytest.raises(Misfit, match=why):
        swap(model, nn.GELU, part)
    assert isinstance(model[1], nn.GELU)


# Sharing --------------------------------------------------------------------------------------------------------------


def test_a_shared_module_becomes_one_shared_module() -> None:
    act = nn.GELU()
    model = nn.Sequential(nn.Linear(3, 4), act, nn.Linear(4, 4), act)
    report = swap(model, nn.GELU, SCALED, per="channel")
    assert model[1] is model[3] and len(list(model.parameters())) == 5
    assert report.added_parameters == 4 and [s.parameters for s in report.sites] == [4, 0]
    assert report.sites[1].notes == ("shares the module of 1",)
    assert report.gained == ("1.slope", "3.slope") and len(report.parameters(model)) == 1


@pytest.mark.parametrize("example", [None, torch.zeros(2, 3)])
def test_a_module_that_sees_several_widths_takes_no_channel_parameters(example: Tensor | None) -> None:
    act = nn.GELU()
    model = nn.Sequential(nn.Linear(3, 4), act, nn.Linear(4, 6), act)
    with pytest.raises(Misfit, match="1 sees 4, 6 channels"):
        swap(model, nn.GELU, SCALED, per="channel", example=example)
    assert model[1] is act and model[3] is act
    assert "called with 4, 6 channels" in swap(model, nn.GELU, SCALED, example=example).sites[0].notes


def test_a_shared_parent_is_changed_once_and_reported_at_every_path() -> None:
    block = Block()
    model = nn.ModuleDict({"a": block, "b": block})
    report = swap(model, "a.act", Swish)
    assert [s.path for s in report.sites] == ["a.act", "b.act"] and isinstance(block.act, Swish)


def test_a_factory_that_returns_one_module_twice_is_refused() -> None:
    one, model = Swish(), mlp()
    with pytest.raises(Misfit, match="one module for several places"):
        swap(model, nn.GELU, lambda: one)
    assert isinstance(model[1], nn.GELU)


# Refusals -------------------------------------------------------------------------------------------------------------


def test_hooks_are_refused_by_name_and_nothing_changes() -> None:
    for register in ("register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"):
        model = mlp()
        getattr(model[4], register)(lambda *a: None)
        with pytest.raises(Misfit, match="4 has .*hooks that would be lost"):
            swap(model, nn.GELU, nn.SiLU)
        assert isinstance(model[1], nn.GELU), "half of a refused swap was done"


def test_a_failing_setattr_is_rolled_back() -> None:
    class Stubborn(nn.Sequential):
        def __setattr__(self, name: str, value: object) -> None:
            if isinstance(value, Swish):
                raise RuntimeError("no")
            super().__setattr__(name, value)

    model = nn.ModuleList([Block(), Stubborn(nn.Linear(2, 2), nn.GELU())])
    with pytest.raises(RuntimeError, match="no"):
        swap(model, nn.GELU, Swish)
    assert isinstance(model[0].act, nn.GELU) and isinstance(model[1][1], nn.GELU)


def test_compiled_and_scripted_models_are_refused_by_name() -> None:
    compiled = torch.compile(mlp(), backend="eager")
    with pytest.raises(BadInput, match="OptimizedModule is compiled"):
        swap(compiled, nn.GELU, nn.SiLU)
    inner = nn.ModuleDict({"body": compiled})
    with pytest.raises(Misfit, match="inside a OptimizedModule"):
        swap(inner, nn.GELU, nn.SiLU)
    in_place = mlp()
    in_place.compile(backend="eager")
    with pytest.raises(BadInput, match="Sequential is compiled"):
        swap(in_place, nn.GELU, nn.SiLU)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_models_are_refused_and_scripted_pieces_are_listed() -> None:
    scripted = torch.jit.script(mlp())
    with pytest.raises(BadInput, match="scripted"):
        swap(scripted, nn.GELU, nn.SiLU)
    model = nn.ModuleDict({"a": scripted, "b": nn.Sequential(nn.GELU())})
    report = swap(model, nn.GELU, nn.SiLU)
    assert [(u.path, u.how) for u in report.unreached] == [("a", "TorchScript")]


def test_a_graph_module_is_swapped_like_any_other() -> None:
    model = torch.fx.symbolic_trace(Block())
    swap(model, nn.GELU, nn.Identity)
    x = torch.randn(2, 6)
    assert torch.equal(model(x), x + model.down(model.up(x)))


def test_the_model_itself_cannot_be_replaced() -> None:
    with pytest.raises(BadInput, match="the model itself matches"):
        swap(nn.GELU(), nn.GELU, nn.SiLU)


def test_matches_inside_matches_are_refused() -> None:
    with pytest.raises(BadInput, match="blocks.0 and blocks.0.up"):
        swap(Net(), "blocks.*", nn.Identity)


def test_nothing_found_lists_what_there_is() -> None:
    with pytest.raises(BadInput) as error:
        swap(Net(), nn.SELU, nn.SiLU)
    text = str(error.value)
    assert "near types: nn.GELU" in text and "nn.GELU (blocks.0.act, blocks.1.act, heads.a.1)" in text
    assert "relu in the model" in text and "tanh in the model" in text


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(UnknownName, match="blocks.0.act"):
        swap(Net(), "blocks.0.akt", nn.SiLU)
    some = catalogue.parts("activation")[0]
    with pytest.raises(UnknownName, match="did you mean"):
        swap(mlp(), nn.GELU, some.id + "x")
    other = next(p for p in catalogue.parts() if p.kind not in ("activation", "layer"))
    with pytest.raises(Misfit, match=f"is a {other.kind}"):
        swap(mlp(), nn.GELU, other.id)
    with pytest.raises(UnknownName, match="did you mean shift"):
        swap(mlp(), nn.GELU, SCALED, shft=1.0)
    with pytest.raises(UnknownName, match="approximate"):
        swap(mlp(), nn.GELU, nn.GELU, aproximate="none")
    for to, why in ((nn.SiLU(), "the module SiLU"), (3, "to is 3"), (F.relu, "needs input"), (torch.tanh, "signature")):
        with pytest.raises(BadInput, match=why):
            swap(mlp(), nn.GELU, to)
    with pytest.raises(BadInput, match="returned int"):
        swap(mlp(), nn.GELU, lambda: 3)
    with pytest.raises(BadInput, match="what=3"):
        swap(mlp(), 3, nn.SiLU)
    with pytest.raises(BadInput, match="expected an nn.Module"):
        swap(3, nn.GELU, nn.SiLU)
    with pytest.raises(BadInput, match="example could not be run"):
        swap(mlp(), nn.GELU, nn.SiLU, example=torch.zeros(1, 99))


# What stays as it was -------------------------------------------------------------------------------------------------


def test_the_in_place_flag_is_noted() -> None:
    report = swap(nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True)), nn.ReLU, nn.SiLU)
    assert report.sites[0].notes == ("was in place, now is not",)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_and_training_mode_are_kept(dtype: torch.dtype) -> None:
    model = mlp().to(dtype).eval()
    swap(model, nn.GELU, SCALED)
    assert model[1].slope.dtype == dtype and not model[1].training
    assert model(torch.ones(1, 3, dtype=dtype)).dtype == dtype


def test_dtype_follows_the_nearest_layer() -> None:
    model = nn.ModuleDict({"low": Block().bfloat16(), "norm": nn.LayerNorm(6), "high": Block()})
    swap(model, nn.GELU, SCALED)
    assert model["low"].act.slope.dtype == torch.bfloat16 and model["high"].act.slope.dtype == torch.float32


def test_a_model_on_meta_stays_there() -> None:
    with torch.device("meta"):
        model = Net()
    swap(model, nn.GELU, SCALED, per="channel")
    assert all(p.is_meta for p in model.parameters()) and model.blocks[0].act.slope.shape == (12,)


def test_the_example_run_leaves_no_trace() -> None:
    class Remembering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.act = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            self.last = self.act(self.norm(self.conv(F.dropout(F.relu(x, inplace=True)))))
            return self.last

    model, x = Remembering(), torch.randn(2, 3, 4, 4)
    before, kept, random = state(model), x.clone(), torch.get_rng_state()
    report = swap(model, nn.ReLU, nn.SiLU, example=x)
    assert same(state(model), before) and torch.equal(x, kept) and torch.equal(torch.get_rng_state(), random)
    assert not hasattr(model, "last") and model.norm.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert [(u.path, u.function) for u in report.unreached] == [("", RELU)]


def test_tied_weights_and_parametrisations_stay() -> None:
    class Double(nn.Module):
        def forward(self, w: Tensor) -> Tensor:
            return 2 * w

    model = Net()
    parametrize.register_parametrization(model.blocks[0].up, "weight", Double())
    parametrize.register_parametrization(model.blocks[1].up, "weight", nn.Softplus())
    before = state(model)
    report = swap(model, nn.GELU, PerChannel)
    assert model.heads["b"].weight is model.heads["a"][0].weight and parametrize.is_parametrized(model.blocks[0].up)
    assert same({k: v for k, v in state(model).items() if k not in report.gained}, before)
    assert any(u.function == "Softplus" and u.how == "computes a weight" for u in report.unreached)
    with pytest.raises(BadInput, match="nothing"):
        swap(model, nn.Softplus, nn.ReLU)
    with pytest.raises(Misfit, match="blocks.0.up is parametrised"):
        swap(model, "blocks.0.up", nn.Identity)


def test_parameters_of_the_old_module_are_reported_lost() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.PReLU(3))
    assert swap(model, nn.PReLU, nn.GELU).lost == ("1.weight",)
    report = swap(model, nn.GELU, nn.PReLU)
    assert report.gained == report.parameter_names == ("1.weight",) and report.added_parameters == 1


# Wrapped models -------------------------------------------------------------------------------------------------------


def test_data_parallel_is_swapped_inside() -> None:
    model = nn.DataParallel(mlp())
    report = swap(model, nn.GELU, SCALED, example=torch.zeros(2, 3), per="channel")
    assert [s.path for s in report.sites] == ["module.1", "module.4"] and report.sites[0].channels == 5
    assert report.parameters(model)[0] is model.module[1].slope


def test_distributed_data_parallel_takes_what_has_no_parameters(tmp_path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(Net())
        report = swap(model, nn.GELU, nn.SiLU, example=torch.zeros(2, 6))
        assert report.sites[0].path == "module.blocks.0.act" and model(torch.zeros(1, 6)).shape == (1, 3)
        assert {(u.path, u.function) for u in report.unreached} == {("module", RELU), ("module", TANH)}
        with pytest.raises(Misfit, match="DistributedDataParallel, which would not synchronise"):
            swap(model, nn.SiLU, SCALED)
        assert isinstance(model.module.blocks[0].act, nn.SiLU)
    finally:
        dist.destroy_process_group()


# What it cannot reach -------------------------------------------------------------------------------------------------


class Calls(nn.Module):
    """Calls of every spelling; `inner` is reachable."""

    def __init__(self, traceable: bool) -> None:
        super().__init__()
        self.traceable, self.fc, self.inner = traceable, nn.Linear(4, 4), nn.GELU()
        self.gelu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        if not self.traceable and x.sum() > 1e9:
            return x
        return self.helper(F.leaky_relu(self.gelu(self.inner(self.fc(x)))))

    def helper(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(x).relu_()
        return x if self.traceable else nn.Mish()(x)

    def unused(self, x: Tensor) -> Tensor:
        return F.selu(x)


@pytest.mark.parametrize(
    ("traceable", "example", "how"),
    [
        (True, None, "torch.fx trace"),
        (False, torch.zeros(1, 4), "example run"),
        (True, torch.zeros(1, 4), "example run"),
        (False, None, "source of forward"),
    ],
)
def test_calls_are_found_by_trace_run_or_source(traceable: bool, example: Tensor | None, how: str) -> None:
    report = swap(nn.ModuleDict({"a": Calls(traceable)})["a"], "inner", nn.SiLU, example=example)
    found = {(u.path, u.function.rstrip("_").lower()) for u in report.unreached}
    wanted = [F.leaky_relu, torch.sigmoid, F.relu] + ([] if traceable else [F.mish])
    assert found == {("", function.__name__) for function in wanted} and {u.how for u in report.unreached} == {how}


def test_calls_carry_the_path_of_their_module() -> None:
    for traceable, example in ((True, None), (False, torch.zeros(1, 4)), (False, None)):
        model = nn.Sequential(Calls(traceable), nn.Sequential(Calls(traceable)))
        report = swap(model, nn.GELU, nn.SiLU, example=example)
        assert {u.path for u in report.unreached} == {"0", "1.0"}
        assert {u.module for u in report.unreached} == {"Calls"}


def test_activations_kept_as_plain_attributes_are_listed() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.acts, self.act = [nn.GELU()], nn.GELU()
            self.function = partial(F.gelu, approximate="none")

        def forward(self, x: Tensor) -> Tensor:
            return self.function(self.acts[0](self.act(x)))

    report = swap(Hidden(), nn.GELU, nn.SiLU)
    assert {(u.function, u.how) for u in report.unreached} >= {("GELU", "plain list acts")}
    assert any(u.function == F.gelu.__name__ for u in report.unreached)


@pytest.mark.parametrize("activation", [F.gelu, F.relu])
def test_a_transformer_layer_with_a_function_is_listed_as_unreached(activation: object) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation=activation)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2), nn.GELU())
    report = swap(model, nn.GELU, nn.SiLU)
    assert {(u.path, u.how) for u in report.unreached} == {(f"0.layers.{i}", "attribute activation") for i in (0, 1)}


def test_a_transformer_layer_with_a_module_uses_the_new_one_in_evaluation_too() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation=nn.GELU())
    model = nn.TransformerEncoder(layer, 2).eval()
    x, mask = torch.randn(2, 5, 8), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    report = swap(model, nn.GELU, nn.Identity)
    assert any("fused path" in note for site in report.sites for note in site.notes)
    with torch.no_grad():
        fused = model(x, src_key_padding_mask=mask)[~mask]
    plain = model(x, src_key_padding_mask=mask)[~mask]
    assert torch.allclose(fused, plain, atol=1e-6)


# The report -----------------------------------------------------------------------------------------------------------


def test_the_report_reads_as_a_table_and_as_json() -> None:
    model = Net()
    report = swap(model, nn.GELU, SCALED, per="channel")
    text = str(report)
    for piece in ("3 places changed, 27 parameters added", "blocks.1.act", "ToyScaled(", "2 activations left, which are calls"):
        assert piece in text
    assert "state_dict keys gained: blocks.0.act.slope" in text
    loaded = json.loads(report.to_json())
    assert loaded["added_parameters"] == 27 and loaded["sites"][0]["channels"] == 12
    assert {u["function"] for u in loaded["unreached"]} == {RELU, TANH}
    assert set(report.gained) == set(model.state_dict()) - set(Net().state_dict())
