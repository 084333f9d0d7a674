"""What each tensor of a model is: expected roles written by hand, and matrices that compute what their modules compute."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from netwright.core.errors import BadInput
from netwright.tensor.modules import Role, by_role, roles

BIAS, SCALE, SHIFT = "a bias", "a norm's scale", "a norm's shift"


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def filled(module: nn.Module) -> nn.Module:
    """The module in float64, every value another."""
    g = seeded(1)
    with torch.no_grad():
        for p in module.double().parameters():
            p.normal_(generator=g)
    return module


def said(module: nn.Module) -> dict[str, Role]:
    """Roles without the shapes, which are checked by `held`."""
    found = roles(module)
    assert {name: role.shape for name, role in found.items()} == {n: tuple(p.shape) for n, p in module.named_parameters()}
    return {name: Role(r.out, r.into, r.batch, r.blocks, r.groups, r.why, r.guessed, (), r.tied) for name, r in found.items()}


# What torch's own modules hold


def qkv(out: int) -> nn.Module:
    return nn.ModuleDict({"qkv": nn.Linear(4, out)})


def vector(why: str, blocks: tuple[int, ...] = ()) -> Role:
    return Role((0,), blocks=blocks, why=why)


EXPECTED: dict[str, tuple[Callable[[], nn.Module], dict[str, Role]]] = {
    "linear": (lambda: nn.Linear(4, 3), {"weight": Role((0,), (1,)), "bias": vector(BIAS)}),
    "one output": (lambda: nn.Linear(4, 1, bias=False), {"weight": Role((0,), (1,))}),
    "bilinear": (lambda: nn.Bilinear(4, 3, 2), {"weight": Role((0,), (1, 2)), "bias": vector(BIAS)}),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), {"weight": Role((0,), (1, 2)), "bias": vector(BIAS)}),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, groups=2, bias=False), {"weight": Role((0,), (1, 2, 3), groups=2)}),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, bias=False), {"weight": Role((0,), (1, 2, 3), groups=4)}),
    "conv3d": (lambda: nn.Conv3d(4, 6, 3, bias=False), {"weight": Role((0,), (1, 2, 3, 4))}),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3), {"weight": Role((1,), (0, 2, 3)), "bias": vector(BIAS)}),
    "transposed, groups": (
        lambda: nn.ConvTranspose1d(4, 6, 3, groups=2, bias=False),
        {"weight": Role((1,), (0, 2), groups=2)},
    ),
    "embedding": (lambda: nn.Embedding(9, 4), {"weight": Role((1,), (0,), why="a lookup table")}),
    "bag": (lambda: nn.EmbeddingBag(9, 4), {"weight": Role((1,), (0,), why="a lookup table")}),
    "attention": (
        lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True),
        {
            "in_proj_weight": Role((0,), (1,), blocks=(4, 4, 4)),
            "in_proj_bias": vector(BIAS, blocks=(4, 4, 4)),
            "bias_k": Role((0, 1, 2), why=BIAS),
            "bias_v": Role((0, 1, 2), why=BIAS),
            "out_proj.weight": Role((0,), (1,)),
            "out_proj.bias": vector(BIAS),
        },
    ),
    "attention over others": (
        lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5, bias=False),
        {name: Role((0,), (1,)) for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight")},
    ),
    "rnn": (
        lambda: nn.RNN(4, 3),
        {
            "weight_ih_l0": Role((0,), (1,)),
            "weight_hh_l0": Role((0,), (1,)),
            "bias_ih_l0": vector(BIAS),
            "bias_hh_l0": vector(BIAS),
        },
    ),
    "gru": (
        lambda: nn.GRU(4, 3, bidirectional=True, bias=False),
        {f"weight_{which}_l0{end}": Role((0,), (1,), blocks=(3, 3, 3)) for end in ("", "_reverse") for which in ("ih", "hh")},
    ),
    "lstm": (
        lambda: nn.LSTM(4, 3, proj_size=2),
        {
            "weight_ih_l0": Role((0,), (1,), blocks=(3, 3, 3, 3)),
            "weight_hh_l0": Role((0,), (1,), blocks=(3, 3, 3, 3)),
            "bias_ih_l0": vector(BIAS, blocks=(3, 3, 3, 3)),
            "bias_hh_l0": vector(BIAS, blocks=(3, 3, 3, 3)),
            "weight_hr_l0": Role((0,), (1,)),
        },
    ),
    "gru cell": (
        lambda: nn.GRUCell(4, 3, bias=False),
        {"weight_ih": Role((0,), (1,), blocks=(3, 3, 3)), "weight_hh": Role((0,), (1,), blocks=(3, 3, 3))},
    ),
    "layer norm": (lambda: nn.LayerNorm((2, 3)), {"weight": Role((0, 1), why=SCALE), "bias": Role((0, 1), why=SHIFT)}),
    "batch norm": (lambda: nn.BatchNorm2d(3), {"weight": vector(SCALE), "bias": vector(SHIFT)}),
    "instance norm": (lambda: nn.InstanceNorm1d(3, affine=True), {"weight": vector(SCALE), "bias": vector(SHIFT)}),
    "group norm": (lambda: nn.GroupNorm(1, 3), {"weight": vector(SCALE), "bias": vector(SHIFT)}),
    "rms norm": (lambda: nn.RMSNorm(3), {"weight": vector(SCALE)}),
    "sloped": (lambda: nn.PReLU(3), {"weight": vector("an activation's slope")}),
    "qkv": (lambda: qkv(12), {"qkv.weight": Role((0,), (1,), blocks=(4, 4, 4)), "qkv.bias": vector(BIAS, (4, 4, 4))}),
    "qkv of another size": (lambda: qkv(8), {"qkv.weight": Role((0,), (1,)), "qkv.bias": vector(BIAS)}),
    "nothing": (nn.ReLU, {}),
    # torch's ways of making a tensor from others
    "parametrised": (
        lambda: parametrizations.orthogonal(nn.Linear(3, 3)),
        {"bias": vector(BIAS), "parametrizations.weight.original": Role(why="parametrised: by Orthogonal")},
    ),
    "parametrised twice": (
        lambda: parametrizations.weight_norm(nn.Linear(3, 3, bias=False)),
        {f"parametrizations.weight.original{i}": Role(why="parametrised: by WeightNorm") for i in range(2)},
    ),
    "pruned": (
        lambda: prune.l1_unstructured(nn.Linear(4, 3, bias=False), "weight", 0.5),
        {"weight_orig": Role(why="parametrised: weight is made of it")},
    ),
    "older weight norm": (
        lambda: older(weight_norm, nn.Linear(4, 3, bias=False)),
        {f"weight_{end}": Role(why="parametrised: weight is made of it") for end in "gv"},
    ),
    "older spectral norm": (
        lambda: older(spectral_norm, nn.Linear(4, 3, bias=False)),
        {"weight_orig": Role(why="parametrised: weight is made of it")},
    ),
}


def older(wrap: Callable[[nn.Module], nn.Module], module: nn.Module) -> nn.Module:
    with pytest.warns(FutureWarning) if wrap is weight_norm else torch.no_grad():
        return wrap(module)


@pytest.mark.parametrize("case", EXPECTED)
def test_roles_of_torchs_modules(case: str) -> None:
    build, expected = EXPECTED[case]
    with torch.random.fork_rng():
        module = build()
    assert said(module) == expected
    assert said(nn.ModuleDict({"inner": nn.ModuleDict({"it": module})})) == {f"inner.it.{k}": v for k, v in expected.items()}
    for role in roles(module).values():
        assert role.matrix == (role.why == "")


def test_what_a_parametrisation_holds_itself_has_a_role_too() -> None:
    class LowRank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.zeros(4, 2)), nn.Parameter(torch.zeros(2, 5))

        def forward(self, w: Tensor) -> Tensor:
            return w + self.a @ self.b

    layer = nn.Linear(5, 4, bias=False, device="meta").to_empty(device="cpu")
    parametrize.register_parametrization(layer, "weight", LowRank())
    prefix = "parametrizations.weight."
    assert said(layer) == {
        prefix + "original": Role(why="parametrised: by LowRank"),
        prefix + "0.a": Role((0,), (1,), guessed=True),
        prefix + "0.b": Role((0,), (1,), guessed=True),
    }


# A matrix is what its module multiplies by


def by_matrix(module: Any, x: Tensor) -> Tensor:
    """y of a convolution from its (groups, out, rest), one product a group and place, in loops over places."""
    role = roles(module)["weight"]
    m_GOR = role.as_matrix(module.weight)
    taps = math.prod(module.kernel_size)
    groups, outs, rest = m_GOR.shape
    x_GIL = x.reshape(groups, rest // taps, x.shape[-1])  # one row, one dimension in space
    if not module.transposed:
        places = x.shape[-1] - taps + 1
        columns = torch.stack([x_GIL[:, :, p : p + taps].reshape(groups, rest) for p in range(places)], -1)
        return (m_GOR @ columns).reshape(groups * outs, places)
    y_GOL = x.new_zeros(groups, outs, x.shape[-1] + taps - 1)
    for place in range(x.shape[-1]):
        for tap in range(taps):
            y_GOL[:, :, place + tap] += (m_GOR.unflatten(2, (-1, taps))[..., tap] @ x_GIL[:, :, place, None])[..., 0]
    return y_GOL.reshape(groups * outs, -1)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("cls", [nn.Conv1d, nn.ConvTranspose1d])
def test_a_convolution_is_its_matrices(cls: Any, groups: int) -> None:
    module, x = filled(cls(4, 8, 3, groups=groups, bias=False)), normal(1, 4, 7)
    assert torch.allclose(by_matrix(module, x), module(x)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("cls", [nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d])
def test_a_convolution_in_more_dimensions_at_one_place(cls: Any) -> None:
    dims = 3 if cls is nn.Conv3d else 2
    module = filled(cls(4, 6, (2, 3, 2)[:dims], groups=2, bias=False))
    m_GOR = roles(module)["weight"].as_matrix(module.weight)
    transposed = cls is nn.ConvTranspose2d
    x = normal(1, 4, *([1] * dims if transposed else module.kernel_size))
    if transposed:  # one place spreads to every tap
        by_hand = torch.einsum("goit,gi->got", m_GOR.unflatten(2, (2, -1)), x.reshape(2, 2)).reshape(6, -1)
    else:
        by_hand = torch.einsum("gor,gr->go", m_GOR, x.reshape(2, -1)).reshape(6, 1)
    assert torch.allclose(by_hand, module(x).reshape(6, -1), rtol=0, atol=1e-12)


def test_linear_and_bilinear_are_their_matrices() -> None:
    x, z = normal(5, 4), normal(5, 3, seed=1)
    linear, bilinear = filled(nn.Linear(4, 6, bias=False)), filled(nn.Bilinear(4, 3, 6, bias=False))
    (m,) = roles(linear)["weight"].as_matrix(linear.weight)
    assert torch.allclose(x @ m.T, linear(x), rtol=0, atol=1e-12)
    (m,) = roles(bilinear)["weight"].as_matrix(bilinear.weight)
    assert torch.allclose((x[:, :, None] * z[:, None]).flatten(1) @ m.T, bilinear(x, z), rtol=0, atol=1e-12)


def test_blocks_are_queries_keys_and_values_and_gates() -> None:
    attention, x = filled(nn.MultiheadAttention(4, 1, bias=False, batch_first=True)), normal(1, 3, 4)
    q, k, v = (x[0] @ m.T for m in roles(attention)["in_proj_weight"].as_matrix(attention.in_proj_weight))
    by_hand = torch.softmax(q @ k.T / 2, -1) @ v @ attention.out_proj.weight.T
    assert torch.allclose(attention(x, x, x)[0][0], by_hand, rtol=0, atol=1e-12)

    lstm, x, zero = filled(nn.LSTMCell(4, 3, bias=False)), normal(4), torch.zeros(3, dtype=torch.float64)
    gate_in, _, cell, gate_out = roles(lstm)["weight_ih"].as_matrix(lstm.weight_ih) @ x
    new = torch.sigmoid(gate_in) * torch.tanh(cell)
    assert torch.allclose(lstm(x, (zero, zero))[0], torch.sigmoid(gate_out) * torch.tanh(new), rtol=0, atol=1e-12)


def every_matrix() -> dict[str, tuple[Role, Tensor]]:
    built = {case: build() for case, (build, _) in EXPECTED.items()}
    tensors = {f"{case}: {n}": (roles(m)[n], p.detach()) for case, m in built.items() for n, p in m.named_parameters()}
    own = {
        "experts, fused, stored (e, in, out)": Role((2,), (1,), (0,), (4, 4), shape=(3, 5, 8)),
        "two batch axes": Role((1,), (3,), (0, 2), shape=(2, 3, 4, 5)),
        "two out axes": Role((0, 2), (1,), shape=(2, 3, 4)),
        "groups and a batch": Role((1,), (0, 3), (2,), groups=2, shape=(4, 3, 2, 5)),
        "empty": Role((0,), (1,), shape=(0, 3)),
    }
    return tensors | {name: (role, normal(*role.shape)) for name, role in own.items()}


def test_there_and_back_is_exact() -> None:
    with torch.random.fork_rng():
        cases = every_matrix()
    seen = 0
    for name, (role, t) in cases.items():
        if not (role.out and role.into):
            with pytest.raises(BadInput, match="no stack of matrices"):
                role.as_matrix(t)
            continue
        seen += 1
        m = role.as_matrix(t)
        outs = math.prod(t.shape[a] for a in role.out)
        assert m.dim() == 3 and m.shape.numel() == t.numel(), name
        assert role.groups > 1 or m.shape[1] == outs // (len(role.blocks) or 1), name
        assert torch.equal(role.from_matrix(m), t) and role.from_matrix(m).shape == t.shape, name
        assert torch.equal(role.as_matrix(role.from_matrix(m * 2)), m * 2), name
    assert seen > 25


def test_stacks_lie_as_said() -> None:
    t = normal(3, 5, 8)
    m = Role((2,), (1,), (0,), (4, 4), shape=(3, 5, 8)).as_matrix(t)  # blocks outermost, then the experts
    assert torch.equal(m[3], t[0, :, 4:].T) and torch.equal(m[1], t[1, :, :4].T)
    t = normal(4, 3, 5)
    m = Role((1,), (0, 2), groups=2, shape=(4, 3, 5)).as_matrix(t)
    assert torch.equal(m[1], t[2:].permute(1, 0, 2).reshape(3, 10))


@pytest.mark.parametrize("case", ["linear", "conv2d", "attention", "lstm", "depthwise"])
def test_it_is_a_view_where_strides_allow(case: str) -> None:
    with torch.random.fork_rng():
        module = EXPECTED[case][0]()
    for name, role in roles(module).items():
        if role.matrix:
            t = module.get_parameter(name)
            assert role.as_matrix(t).data_ptr() == t.data_ptr()


def test_under_vmap_and_with_gradients() -> None:
    role = Role((1,), (0, 2), groups=2, shape=(4, 3, 5))
    stack = normal(6, 4, 3, 5).requires_grad_()
    m = torch.vmap(role.as_matrix)(stack)
    assert m.shape == (6, 2, 3, 10) and torch.equal(torch.vmap(role.from_matrix)(m), stack)
    (g,) = torch.autograd.grad((m * m).sum() / 2, stack)
    assert torch.equal(g, stack)


def test_what_as_matrix_refuses() -> None:
    role = Role((0,), (1,), shape=(4, 3))
    with pytest.raises(BadInput, match=r"\(4, 3\) was given one of \(3, 4\)"):
        role.as_matrix(normal(3, 4))
    with pytest.raises(BadInput, match=r"is a stack of shape \(1, 4, 3\), not \(1, 3, 4\)"):
        role.from_matrix(normal(1, 3, 4))
    uneven = Role((0,), (1,), blocks=(2, 1, 1), shape=(4, 3))
    assert uneven.matrix and uneven.fits
    with pytest.raises(BadInput, match="split it first"):
        uneven.as_matrix(normal(4, 3))
    with pytest.raises(BadInput, match="no axes are known"):
        Role(shape=(4, 3)).as_matrix(normal(4, 3))


# Ties, guesses, what a module says itself


class Odd(nn.Module):
    """A module nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        shapes = {
            "w": (4, 3),
            "kernel": (4, 3, 2),
            "gain": (4,),
            "temperature": (1,),
            "scale": (),
            "row": (1, 6, 4),
            "column": (4, 1, 1),
            "pos_embed": (6, 4),
            "relative_table": (6, 4),
            "mix_bias": (2, 4),
        }
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        self.register_parameter("absent", None)
        self.whole = nn.Parameter(torch.zeros(2, 3, dtype=torch.int8), requires_grad=False)


def test_unknown_modules_are_guessed_and_counted() -> None:
    assert said(Odd()) == {
        "w": Role((0,), (1,), guessed=True),
        "kernel": Role((0,), (1, 2), guessed=True),
        "gain": vector("a vector"),
        "temperature": vector("a scalar"),
        "scale": Role(why="a scalar"),
        "row": Role((0,), (1, 2), why="a single row", guessed=True),
        "column": Role((0, 1, 2), why="a vector"),
        "pos_embed": Role((0,), (1,), why="a lookup table", guessed=True),
        "relative_table": Role((0,), (1,), why="a lookup table", guessed=True),
        "mix_bias": Role((0,), (1,), why=BIAS, guessed=True),
        "whole": Role((0, 1), why="not made of real numbers"),
    }
    count = by_role(nn.Sequential(Odd(), nn.Linear(10, 7)))
    assert count["a matrix"] == 70 and count["a matrix, guessed"] == 12 + 24 and count[BIAS] == 7
    assert sum(count.values()) == sum(p.numel() for p in Odd().parameters()) + 77
    assert list(count.values()) == sorted(count.values(), reverse=True)


def test_what_a_subclass_adds_is_guessed() -> None:
    class Adapted(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 3, bias=False, device="meta")
            self.down = nn.Parameter(torch.zeros(2, 4))

    assert said(Adapted()) == {"weight": Role((0,), (1,)), "down": Role((0,), (1,), guessed=True)}


def test_a_known_module_whose_tensor_has_another_shape_is_guessed() -> None:
    conv = nn.Conv2d(4, 4, 1, groups=2, bias=False, device="meta")
    conv.weight = nn.Parameter(torch.zeros(3, 5))
    assert said(conv) == {"weight": Role((0,), (1,), guessed=True)}


class Tied(nn.Module):
    def __init__(self, first: str, second: str) -> None:
        super().__init__()
        made: dict[str, nn.Module] = {"table": nn.Embedding.from_pretrained(torch.zeros(9, 4)), "odd": nn.Module()}
        made["readout"] = nn.Linear(4, 9, bias=False, device="meta")
        made["other"] = nn.Linear(4, 9, bias=False, device="meta")
        self.add_module(first, made[first])
        self.add_module(second, made[second])
        holds, takes = (second, first) if first == "odd" else (first, second)
        made[takes].weight = made[holds].weight


LOOKED_UP = Role((1,), (0,), why="a lookup table, also multiplied as a matrix")


@pytest.mark.parametrize(
    ("first", "second", "role"),
    [
        ("table", "readout", LOOKED_UP),
        ("readout", "table", LOOKED_UP),
        ("readout", "other", Role((0,), (1,))),
        ("odd", "readout", Role((0,), (1,))),  # what is known wins over a guess
        ("readout", "odd", Role((0,), (1,))),
    ],
)
def test_a_tied_tensor_stands_once_under_its_first_name(first: str, second: str, role: Role) -> None:
    (name, found), *more = said(Tied(first, second)).items()
    assert not more and name == f"{first}.weight" and found.tied == (f"{second}.weight",)
    assert Role(found.out, found.into, why=found.why) == role and not found.guessed


def test_a_module_used_twice_is_tied_to_itself() -> None:
    layer = nn.Linear(3, 3, device="meta")
    found = roles(nn.Sequential(layer, nn.ReLU(), layer))
    assert {name: role.tied for name, role in found.items()} == {"0.weight": ("2.weight",), "0.bias": ("2.bias",)}


def test_a_tensor_under_two_names_of_one_module_is_tied() -> None:
    module = nn.Module()
    module.a = module.b = nn.Parameter(torch.zeros(3, 2))
    assert said(module) == {"a": Role((0,), (1,), guessed=True, tied=("b",))}


def test_a_table_written_by_hand_stays_one_when_it_is_the_readout_too() -> None:
    module = nn.Sequential(nn.Module(), nn.Linear(4, 9, bias=False, device="meta"))
    module[0].embedding = module[1].weight
    why = "a lookup table, also multiplied as a matrix"
    assert said(module) == {"0.embedding": Role((0,), (1,), why=why, guessed=True, tied=("1.weight",))}


def test_a_known_module_that_was_quantised_is_no_matrix() -> None:
    linear = nn.Linear(4, 3, bias=False, device="meta")
    linear.weight = nn.Parameter(torch.zeros(3, 4, dtype=torch.int8), requires_grad=False)
    assert said(linear) == {"weight": Role((0, 1), why="not made of real numbers")}


class Mixed(nn.Module):
    """A module that says what it holds: two experts, each with queries and values in one."""

    def __init__(self, said: dict[str, Role]) -> None:
        super().__init__()
        self.w, self.free = nn.Parameter(torch.zeros(2, 3, 6)), nn.Parameter(torch.zeros(2, 3))
        self.register_parameter("bias", None)
        self.said = said

    def roles_of(self) -> dict[str, Role]:
        return self.said


def test_a_module_says_itself() -> None:
    own = {"w": Role((2,), (1,), (0,), (4, 2)), "bias": vector(BIAS)}  # a role of what an option left out is no mistake
    assert said(Mixed(own)) == {"w": own["w"], "free": Role((0,), (1,), guessed=True)}


@pytest.mark.parametrize(
    "wrong",
    [
        Role((2,), (1,)),
        Role((2,), (1, 2), (0,)),
        Role((2,), (3,), (0,)),
        Role((7,), (1,), (0,), (3, 3)),
        Role((2,), (1,), (0,), (4, 1)),
        Role((1,), (0, 2), groups=5),
        Role((1,), (0, 2), blocks=(2, 1), groups=2),
        Role(blocks=(3,)),
    ],
)
def test_a_role_that_does_not_fit_is_refused(wrong: Role) -> None:
    with pytest.raises(BadInput, match=r"^0\.w: roles_of\(\) says .* does not fit"):
        roles(nn.Sequential(Mixed({"w": wrong})))


def test_a_role_of_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match=r"the model \(Mixed\): roles_of\(\) names \['v'\]"):
        roles(Mixed({"v": Role((0,), (1,))}))


def test_a_lazy_module_has_to_run_first() -> None:
    with torch.random.fork_rng():
        model = nn.Sequential(nn.LazyLinear(3))
        with pytest.raises(BadInput, match="0.weight has no shape yet: run the model once"):
            roles(model)
        model(torch.zeros(1, 4))
    assert said(model) == {"0.weight": Role((0,), (1,)), "0.bias": vector(BIAS)}


def test_looking_touches_nothing() -> None:
    with torch.random.fork_rng():
        model = nn.Sequential(
            parametrizations.spectral_norm(nn.Linear(4, 4)),
            nn.BatchNorm1d(4),
            older(spectral_norm, nn.Linear(4, 4)),
            nn.LSTM(4, 3),
        )
    state = {name: (t, t.clone()) for name, t in model.state_dict().items()}
    stream, modes = torch.get_rng_state(), [m.training for m in model.modules()]
    first = roles(model)
    assert roles(model) == first and by_role(model)
    assert torch.equal(torch.get_rng_state(), stream) and modes == [m.training for m in model.modules()]
    assert all(
        torch.equal(now, state[n][1]) and now.data_ptr() == state[n][0].data_ptr() for n, now in model.state_dict().items()
    )
    assert roles(model.to("meta")) == first and hash(first["0.bias"]) == hash(roles(model)["0.bias"])


# Models as people have them


def optional(name: str) -> Any:
    """The package, or a skip that names why it can't be imported."""
    try:
        importlib.import_module("scenarios.conftest")  # lets torchvision be imported beside a CPU build of torch
        return importlib.import_module(name)
    except Exception as error:
        pytest.skip(f"{name} can't be imported: {type(error).__name__}: {str(error)[:80]}")


def test_a_gpt2() -> None:
    transformers = optional("transformers")
    with torch.random.fork_rng():
        model = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=50, n_positions=16, n_embd=8, n_layer=1, n_head=2, attn_pdrop=0.0)
        )
    found = said(model)
    stored_in_out, norm = Role((1,), (0,)), {"weight": vector(SCALE), "bias": vector(SHIFT)}
    block = {f"{name}.{end}": role for name in ("ln_1", "ln_2") for end, role in norm.items()}
    for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        block |= {f"{name}.weight": stored_in_out, f"{name}.bias": vector(BIAS)}
    assert found == {
        "transformer.wte.weight": Role((1,), (0,), why="a lookup table, also multiplied as a matrix", tied=("lm_head.weight",)),
        "transformer.wpe.weight": Role((1,), (0,), why="a lookup table"),
        **{f"transformer.h.0.{name}": role for name, role in block.items()},
        **{f"transformer.ln_f.{name}": role for name, role in norm.items()},
    }
    fc, x = model.transformer.h[0].mlp.c_fc, torch.ones(2, 8)
    (m,) = roles(model)["transformer.h.0.mlp.c_fc.weight"].as_matrix(fc.weight)
    assert torch.allclose(fc(x), F.linear(x, m, fc.bias), atol=1e-6)
    assert by_role(model)["a lookup table, also multiplied as a matrix"] == 50 * 8


def test_experts_of_transformers() -> None:
    transformers = optional("transformers")
    small = dict(hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)
    with torch.device("meta"):
        mixtral = transformers.MixtralModel(transformers.MixtralConfig(vocab_size=20, num_local_experts=3, **small))
        oss = transformers.GptOssModel(transformers.GptOssConfig(vocab_size=20, num_local_experts=3, head_dim=4, **small))
    found = said(mixtral)
    assert found["layers.0.mlp.experts.gate_up_proj"] == Role((1,), (2,), (0,), (12, 12))
    assert found["layers.0.mlp.experts.down_proj"] == Role((1,), (2,), (0,))
    assert found["layers.0.mlp.gate.weight"] == Role((0,), (1,), guessed=True)
    found = said(oss)  # stored (experts, in, out), gates and values in turns
    assert found["layers.0.mlp.experts.gate_up_proj"] == Role((2,), (1,), (0,))
    assert found["layers.0.mlp.experts.down_proj"] == Role((2,), (1,), (0,))
    assert found["layers.0.mlp.experts.down_proj_bias"] == Role((0,), (1,), why=BIAS, guessed=True)


def test_timms_vit_tiny() -> None:
    timm = optional("timm")
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224", pretrained=False, depth=1)
    found, norm = said(model), {"weight": vector(SCALE), "bias": vector(SHIFT)}
    block = {f"{name}.{end}": role for name in ("norm1", "norm2") for end, role in norm.items()}
    for name in ("attn.proj", "mlp.fc1", "mlp.fc2"):
        block |= {f"{name}.weight": Role((0,), (1,)), f"{name}.bias": vector(BIAS)}
    thirds = (192, 192, 192)
    block |= {"attn.qkv.weight": Role((0,), (1,), blocks=thirds), "attn.qkv.bias": vector(BIAS, thirds)}
    assert found == {
        "cls_token": Role((0, 1, 2), why="a vector"),
        "pos_embed": Role((0,), (1, 2), why="a lookup table", guessed=True),
        "patch_embed.proj.weight": Role((0,), (1, 2, 3)),
        "patch_embed.proj.bias": vector(BIAS),
        **{f"blocks.0.{name}": role for name, role in block.items()},
        **{f"norm.{name}": role for name, role in norm.items()},
        "head.weight": Role((0,), (1,)),
        "head.bias": vector(BIAS),
    }
    assert sum(by_role(model).values()) == sum(p.numel() for p in model.parameters())
