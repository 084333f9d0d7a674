"""The kind layer, norms among them: how modules are built, and that every clause of their contract catches what breaks it."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sample import sampled
from torch import Tensor, nn

from netwright.contract import apply, checks, run
from netwright.core import catalogue
from netwright.core.contract import Result
from netwright.core.errors import BadInput, UnknownName
from netwright.core.part import Option, Paper
from netwright.layers import Layer, LayerPart, Norm, Tags, layer, product, uniform_
from netwright.tensor.modules import Declaration, drawn

CHECKS = {check.name: check for check in checks("layer")}
PAPER = Paper(title="A toy", authors="Nobody", year=2000)


class Toy(Layer):
    """y = tanh(gain W x + b): what the wrong ones below depart from."""

    def __init__(self, d_in: int, d_out: int, *, gain: float = 1.0) -> None:
        super().__init__()
        self.weight, self.bias, self.gain = nn.Parameter(torch.empty(d_out, d_in)), nn.Parameter(torch.empty(d_out)), gain

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        for p in (self.weight, self.bias):
            uniform_(p, 1 / math.sqrt(self.weight.shape[1]), generator)

    def compute(self, x: Tensor) -> Tensor:
        return torch.tanh(product(x, self.gain * self.weight, self.bias))


def reference(toy: Any, x: Tensor) -> Tensor:
    rows = [
        [
            float(b) + toy.gain * sum(float(w) * float(v) for w, v in zip(ws, row, strict=True))
            for ws, b in zip(toy.weight, toy.bias, strict=True)
        ]
        for row in x
    ]
    return torch.tensor(rows, dtype=torch.float64).tanh()


def declare(cls: type[Layer], name: str = "toy-layer", **changes: Any) -> LayerPart:
    declared: dict[str, Any] = dict(
        name=name,
        summary="A toy.",
        reference=reference,
        paper=PAPER,
        tags=Tags(nonlinear=True),
        options=(Option("gain", 1.0, bounds=(0.0, 100.0)),),
        parameters="d_out * (d_in + 1)",
        products="2 * d_in * d_out",
        elementwise="d_out + d_in * d_out / rows",
    )
    return layer(cls, **(declared | changes))


def kind_of(compute: Callable[..., Tensor] | None = None, **attributes: Any) -> type[Layer]:
    """A toy of its own class with another compute or other attributes."""
    body = {} if compute is None else {"compute": compute}
    return type("Other", (Toy,), {"__module__": __name__, **body, **attributes})


def made(part: LayerPart, name: str) -> Result:
    return apply(part, CHECKS[name])


def test_a_sound_layer_passes() -> None:
    results = run(declare(kind_of()))
    assert all(r.ok for r in results), [str(r) for r in results if not r.ok]
    assert {r.check for r in results if not r.skipped_reason} >= {"reference", "mates", "costs", "copies", "vmap", "used"}


# One wrong layer a clause ---------------------------------------------------------------------------------------------


def plain(self: Any, x: Tensor) -> Tensor:
    return torch.tanh(product(x, self.gain * self.weight, self.bias))


def off(self: Any, x: Tensor) -> Tensor:
    return plain(self, x) + 1e-6


def in_place(self: Any, x: Tensor) -> Tensor:
    return plain(self, x.mul_(1.0000001))


def counts(self: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        self.bias.add_(1e-9)
    return plain(self, x)


def centred(self: Any, x: Tensor) -> Tensor:
    return plain(self, x - x.mean(0))


def noisy(self: Any, x: Tensor) -> Tensor:
    return plain(self, x + 1e-3 * torch.randn_like(x))


def explodes(self: Any, x: Tensor) -> Tensor:
    return plain(self, x) + torch.exp(x[:, :1] ** 2)


def unfollowed(self: Any, x: Tensor) -> Tensor:
    return torch.tanh(product(x, self.gain * self.weight.detach(), self.bias) + 0 * self.weight.sum())


def rounding(self: Any, x: Tensor) -> Tensor:
    return plain(self, x.detach()) + 0 * x.sum()


def branches(self: Any, x: Tensor) -> Tensor:
    return plain(self, x) if float(x.sum()) > -1e9 else x


def wide(self: Any, x: Tensor) -> Tensor:
    return F.pad(plain(self, x), (0, 1))


def empty(self: Any, generator: torch.Generator | None = None) -> None:
    uniform_(self.weight, 1.0, generator)


def ignores(self: Any, generator: torch.Generator | None = None) -> None:
    for p in (self.weight, self.bias):
        uniform_(p, 1.0, None)


def constant(self: Any, generator: torch.Generator | None = None) -> None:
    with torch.no_grad():
        for p in (self.weight, self.bias):
            p.copy_(torch.rand(p.shape))


def still(self: Any, x: Tensor) -> Tensor:
    return plain(self, x).detach() + 0 * self.bias


WRONG = (
    ("reference", off, {}),
    ("pure", in_place, {}),
    ("pure", counts, {}),
    ("mates", centred, {}),
    ("pure", noisy, {}),
    ("finite", explodes, {}),
    ("gradcheck", unfollowed, {}),
    ("gradcheck", rounding, {}),
    ("vmap", branches, {}),
    ("width", wide, {}),
    ("initialised", plain, {"reset_parameters": empty}),
    ("descent", still, {}),
    ("initialised", plain, {"reset_parameters": ignores}),
    ("initialised", plain, {"reset_parameters": constant}),
    ("initialised", plain, {"no_decay": frozenset({"wieght"})}),
)


@pytest.mark.parametrize(("name", "compute", "attributes"), WRONG, ids=[f"{w[0]}-{w[1].__name__}" for w in WRONG])
def test_a_wrong_layer_is_caught(name: str, compute: Callable[..., Tensor], attributes: dict[str, Any]) -> None:
    result = made(declare(kind_of(compute, **attributes)), name)
    assert not result.ok and result.message


DECLARED = (
    ("costs", {"parameters": "d_out * d_in"}),
    ("costs", {"products": "d_in * d_out"}),
    ("costs", {"elementwise": 0}),
    ("nonlinear", {"tags": Tags()}),
    ("pure", {"tags": Tags(nonlinear=True)}),
    ("arguments", {"options": ()}),
    ("arguments", {"options": (Option("gain", 2.0, bounds=(0.0, 100.0)),)}),
    ("declaration", {"summary": " "}),
)


@pytest.mark.parametrize(("name", "changes"), DECLARED, ids=[f"{n}-{next(iter(c))}" for n, c in DECLARED])
def test_a_wrong_declaration_is_caught(name: str, changes: dict[str, Any]) -> None:
    cls = kind_of()
    if name == "pure":

        def statistic(self: Any, x: Tensor) -> Tensor:
            return plain(self, x) * (2.0 if self.training else 1.0)

        cls = kind_of(statistic)
    if name == "arguments" and not changes["options"]:
        with pytest.raises(UnknownName, match="gain"):
            declare(cls, **changes).build(3, 2, gain=1.0)
    result = made(declare(cls, **changes), name)
    assert not result.ok and result.message


def test_a_dead_parameter_is_caught() -> None:
    class Dead(Toy):
        def __init__(self, d_in: int, d_out: int, *, gain: float = 1.0) -> None:
            super().__init__(d_in, d_out, gain=gain)
            self.spare = nn.Parameter(torch.empty(d_out))

        def reset_parameters(self, generator: torch.Generator | None = None) -> None:
            super().reset_parameters(generator)
            uniform_(self.spare, 1.0, generator)

    result = made(declare(Dead, parameters="d_out * (d_in + 2)"), "used")
    assert not result.ok and "spare" in result.message


class Echo(Layer):
    """A sequence whose rows see the one after them, or the one before."""

    def __init__(self, d_in: int, d_out: int, *, back: int = 1) -> None:
        super().__init__()
        self.weight, self.back = nn.Parameter(torch.empty(d_out, d_in)), back

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        uniform_(self.weight, 0.5, generator)

    def compute(self, x: Tensor) -> Tensor:
        moved = F.pad(x, (0, 0, self.back, 0))[:, : x.shape[1]] if self.back > 0 else F.pad(x, (0, 0, 0, 1))[:, 1:]
        return product(moved, self.weight)


def test_causality_is_verified_both_ways() -> None:
    def declared(name: str, causal: bool, back: int) -> Result:
        part = layer(
            type("Own", (Echo,), {"__module__": __name__}),
            name=name,
            summary="A toy.",
            reference=lambda e, x: e(x),
            paper=PAPER,
            tags=Tags(shape="sequence", causal=causal),
            options=(Option("back", 1),),
            toy={"back": back},
        )
        return made(part, "causal")

    assert declared("a", True, 1).ok and declared("b", False, -1).ok
    assert not declared("c", True, -1).ok and not declared("d", False, 1).ok


# Building -------------------------------------------------------------------------------------------------------------


def test_sizes_go_in_order_or_by_name_and_are_checked() -> None:
    part = declare(kind_of())
    for built in (part.build(3, 2), part.build(3, d_out=2), part.build(d_in=3, d_out=2, gain=2)):
        assert built.sizes == {"d_in": 3, "d_out": 2} and tuple(built.weight.shape) == (2, 3)
    assert part.build(3, 2, gain=2).gain == 2.0
    for wrong, word in (((3,), "needs d_out"), ((3, 2, 1), "3 sizes given"), ((0, 2), "d_in=0"), ((3, True), "d_out=True")):
        with pytest.raises(BadInput, match=word):
            part.build(*wrong)
    with pytest.raises(BadInput, match="d_in is given twice"):
        part.build(3, 2, d_in=3)
    with pytest.raises(UnknownName, match="did you mean gain"):
        part.build(3, 2, gian=1.0)
    with pytest.raises(BadInput, match="not declared"):
        Toy(3, 2)


def test_torchs_generator_decides_what_is_drawn_as_in_torchs_own_layers() -> None:
    part = declare(kind_of())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        a, b = part.build(3, 2), part.build(3, 2)
        torch.manual_seed(0)
        again = part.build(3, 2)
    assert torch.equal(a.weight, again.weight) and not torch.equal(a.weight, b.weight)
    state = torch.get_rng_state()
    drawn(part.cls, 3, 2, seed=1)
    with torch.device("meta"):
        assert part.build(3, 2).weight.is_meta
    assert torch.equal(state, torch.get_rng_state())


def test_inputs_that_do_not_fit_are_named() -> None:
    built = declare(kind_of()).build(3, 2)
    for x, word in ((torch.zeros(2, 4), "size 4"), (torch.zeros(()), "at least 1"), (torch.zeros(2, 3).long(), "torch.int64")):
        with pytest.raises(BadInput, match=word):
            built(x)


def test_geometry_is_one_number_or_one_a_dimension() -> None:
    part: Any = next(p for p in catalogue.parts("layer") if p.tags.shape == "conv")
    with torch.device("meta"):
        assert part.build(4, 4, (3, 1), padding=(1, 0)).sizes["kernel_size"] == (3, 1)
    for wrong, word in (({"padding": -1}, "padding=-1"), ({"stride": (1, 2, 3)}, "stride"), ({"dilation": "same"}, "dilation")):
        with pytest.raises(BadInput, match=word):
            part.build(4, 4, 3, **wrong)


def test_a_state_of_other_shapes_is_adopted_where_the_layer_says_so() -> None:
    class Grows(Toy):
        resizable = frozenset({"weight"})

        def adopt(self) -> None:
            self.sizes = {**self.sizes, "d_in": self.weight.shape[1]}

    part = declare(Grows)
    large, small = part.build(5, 2), part.build(3, 2)
    small.load_state_dict(large.state_dict())
    x = torch.randn(4, 5)
    assert torch.equal(small(x), large(x)) and isinstance(small.weight, nn.Parameter)
    with pytest.raises(RuntimeError, match="size mismatch"):
        declare(kind_of()).build(3, 2).load_state_dict(large.state_dict())


# Declaring ------------------------------------------------------------------------------------------------------------


def test_a_class_finds_the_part_that_declares_it() -> None:
    cls = kind_of()
    part = declare(cls)
    assert not isinstance(vars(cls)["part"], LayerPart)  # the declaration left the class as it was
    assert cls.part is part and part.build(3, 2).part is part and part.module_type() is part.cls is cls
    derived = type("Derived", (cls,), {"__module__": __name__})
    assert not hasattr(derived, "part")
    with pytest.raises(BadInput, match="Derived is not declared"):
        derived(3, 2)
    own = declare(derived, name="derived")
    assert derived.part is own and cls.part is part


def test_a_class_is_declared_once_and_does_not_follow_copies_of_its_record() -> None:
    cls = kind_of()
    part = declare(cls)
    dataclasses.replace(part, deviations=("none",))
    declare(cls)  # the same again
    assert cls.part is part
    with pytest.raises(BadInput, match="Other is declared as layer/toy-layer already"):
        declare(cls, "another")
    other = kind_of(off)
    wrong = dataclasses.replace(part, subject=other)
    assert wrong.cls is other and other.part is wrong and wrong.build(3, 2).part.name == part.name


def test_a_module_that_was_not_built_here_has_found_its_part() -> None:
    cls = kind_of()
    part = declare(cls)
    built = part.build(3, 2)
    cls.part = Declaration()  # as in a process that has built none
    copy.deepcopy(built)
    assert vars(cls)["part"] is part


def test_the_signature_is_the_constructors() -> None:
    assert list(inspect.signature(kind_of()).parameters) == ["d_in", "d_out", "gain"]
    assert list(inspect.signature(Scale).parameters) == ["channels", "channel_dim"]


# Norms ----------------------------------------------------------------------------------------------------------------


class Scale(Norm):
    """A weight a channel, and no more."""

    def __init__(self, channels: int, channel_dim: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.ones_(self.weight)

    def compute(self, x: Tensor, dim: int) -> Tensor:
        return x * self.along(self.weight, x, dim)


NORM = Tags(shape="norm", delicate=True)


def by_hand(scale: Any, x: Tensor) -> Tensor:
    return torch.stack([row * w for row, w in zip(x.unbind(1), scale.weight, strict=True)], 1)


def norm_part(cls: type[Norm], **changes: Any) -> Any:
    given: dict[str, Any] = dict(
        reference=by_hand, paper=PAPER, summary="A toy.", parameters="channels", elementwise="channels * positions"
    )
    return layer(cls, name="toy-norm", **({"tags": NORM} | given | changes))


def test_a_sound_norm_passes_and_wrong_ones_do_not() -> None:
    results = run(norm_part(type("Own", (Scale,), {"__module__": __name__})))
    assert all(r.ok for r in results), [str(r) for r in results if not r.ok]

    def over_batch(self: Any, x: Tensor, dim: int) -> Tensor:
        return (x - x.mean(0)) * self.along(self.weight, x, dim)

    def second(self: Any, x: Tensor, dim: int) -> Tensor:
        return x * self.weight[:, None] if dim == 1 and x.dim() == 3 else x

    def bent(self: Any, x: Tensor, dim: int) -> Tensor:
        return torch.relu(x) * self.along(self.weight, x, dim)

    wrong = (("mates", over_batch), ("shape", second), ("nonlinear", bent), ("reference", bent))
    for name, compute in wrong:
        part = norm_part(type("Own", (Scale,), {"__module__": __name__, "compute": compute}))
        check = next(c for c in checks("layer") if c.name == name)
        assert not apply(part, check).ok, name
    tagged = norm_part(
        type("Own", (Scale,), {"__module__": __name__, "compute": bent}),
        tags=dataclasses.replace(NORM, nonlinear=True, smooth=False),
    )
    assert apply(tagged, next(c for c in checks("layer") if c.name == "nonlinear")).ok


@pytest.mark.parametrize("part", sampled(catalogue.parts("layer")), ids=lambda p: p.id)
def test_building_on_meta_touches_no_global_generator(part: Any) -> None:
    before = torch.get_rng_state()
    with torch.device("meta"):
        built = part.build(**part.toy)
    assert torch.equal(before, torch.get_rng_state())
    assert all(t.is_meta for t in (*built.parameters(), *built.buffers()))


def test_more_layers_compile_in_one_process_than_recompilations_are_allowed() -> None:
    """Each has a code object of its own: with one for all, the ninth would run uncompiled and say nothing."""
    torch.compiler.reset()
    for n in range(torch._dynamo.config.recompile_limit + 2):
        part = declare(type(f"Own{n}", (Toy,), {"__module__": __name__}))
        compiled = torch.compile(part.build(2, 3), backend="eager", fullgraph=True)  # raises where it may not recompile
        assert compiled(torch.ones(1, 2)).shape == (1, 3)
