"""Each check of nets fails on a net that is broken in its way; the nets of the catalogue, and a toy, pass them all."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.contract import apply, checks, every, run
from netwright.core import catalogue
from netwright.core.contract import Result
from netwright.core.errors import BadInput
from netwright.core.part import Option, Paper
from netwright.engine.blocks import Blocks, Factory
from netwright.engine.graph import Graph
from netwright.engine.task import Problem
from netwright.nets._contract_cases import drawn, usual
from netwright.nets._kind import CALLS, TAKES, Case, NetPart, Tags, activation_of, needs_bias, net, norm_of
from netwright.nets._toy import FILLERS, by_hand, problem, rows

NETS: list[Any] = catalogue.parts("net")
CHECKS = {check.name: check for check in checks("net")}
#: The place that a gate fills.
GATE = next(place for place, call in CALLS.items() if "gate" in call)

Change = Callable[[Any], Any]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def judge(part: Any, name: str) -> Result:
    return apply(part, CHECKS[name])


def taking(what: str) -> Any:
    return next(part for part in NETS if what in part.takes)


@pytest.mark.parametrize("part", NETS, ids=lambda part: part.id)
@pytest.mark.every_part
def test_a_net_passes_every_check(part: Any) -> None:
    results = run(part, sample=False)
    assert {result.check for result in results} == set(CHECKS)
    assert all(result.ok for result in results), [result.message for result in results if not result.ok]
    assert next(result for result in results if result.check == "reference").skipped_reason == ""


# A toy and what can be wrong with it ----------------------------------------------------------------------------------


def stacked(
    problem: Problem,
    widths: Sequence[int],
    fill: Mapping[str, Factory],
    linear: Any = nn.Linear,
    bias: Callable[[nn.Module], bool] = needs_bias,
    act: Any = activation_of,
    times: int = 2,
) -> Blocks:
    """Blocks of linear map, norm and activation, with whatever is to be wrong about them."""
    d_in, blocks, shapes = problem.input[0], [], []
    for width in widths:
        wide = times * width if GATE in fill else width
        norm, activation = norm_of(fill, wide, -1), act(fill, wide, -1)
        blocks.append(nn.Sequential(linear(d_in, wide, bias=bias(norm)), norm, activation))
        d_in = int(wide * getattr(activation, "ratio", 1.0))
        shapes.append((d_in,))
    return Blocks(blocks, linear(d_in, problem.output[-1]), shapes)


def toy(problem: Problem, widths: Sequence[int], fill: Mapping[str, Factory]) -> Blocks:
    return stacked(problem, widths, fill)


def reference(net: Any, x: Tensor) -> Tensor:
    out = []
    for h in x.tolist():
        for linear, norm, act in net.blocks:
            h = by_hand(act, by_hand(norm, by_hand(linear, h)))
        out.append(by_hand(net.readout, h))
    return torch.tensor(out, dtype=torch.float64)


CASES = (
    Case(problem("vector", (4,), (3,)), (6, 4), rows(4, 4)),
    Case(problem("vector", (2,), (2,)), (8,), rows(3, 2)),
)
TOY = net(
    toy,
    paper=Paper(title="A toy", authors="Nobody", year=2020),
    summary="A toy.",
    reference=reference,
    cases=lambda: CASES,
    takes=frozenset({"vector"}),
    places=("activation", GATE, "norm"),
)


def test_the_toy_passes_every_check() -> None:
    results = run(TOY, sample=False)
    assert all(result.ok for result in results), [result.message for result in results if not result.ok]
    assert {result.check for result in results if result.skipped_reason} == {"causal", "claims", "formula"}


def made(part: Any, change: Callable[[Any, Any, Any, Any], Any], **fields: Any) -> Any:
    """The part with another `make`: change(make, problem, widths, fill) -> net."""

    @functools.wraps(part.make)
    def make(problem: Any, widths: Any, fill: Any, **options: Any) -> Any:
        return change(functools.partial(part.make, **options), problem, widths, fill)

    return dataclasses.replace(part, subject=make, **fields)


def after(part: Any, change: Change) -> Any:
    """The part with its nets changed once they are made."""

    def changed(make: Any, *given: Any) -> Any:
        net = make(*given)
        return change(net) or net

    return made(part, changed)


def hooked(part: Any, f: Callable[[Tensor], Tensor], path: str = "readout") -> Any:
    """The part with the output of one of its modules changed."""
    return after(part, lambda net: net.get_submodule(path).register_forward_hook(lambda m, a, out: f(out)) and None)


def of(**changes: Any) -> Any:
    return dataclasses.replace(TOY, subject=lambda problem, widths, fill: stacked(problem, widths, fill, **changes))


def declared(part: Any = TOY, **fields: Any) -> Any:
    return dataclasses.replace(part, **fields)


def given(name: str, value: Any) -> Change:
    """Set an attribute of a net; where the value is a function of the net, to what it gives."""
    return lambda net: setattr(net, name, value(net) if callable(value) else value)


class Unordered(nn.Module):
    """The same computation, and no Blocks."""

    def __init__(self, net: Blocks) -> None:
        super().__init__()
        self.blocks, self.readout, self.shapes = net.blocks, net.readout, net.shapes

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.features(x)[-1])

    def features(self, x: Tensor) -> list[Tensor]:
        return Blocks.features(self, x)  # type: ignore[arg-type]


class Shift(nn.Module):
    """A linear map and a vector, without nn.Linear's bias: in a module of its own, or beside it."""

    def __init__(self, d_in: int, d_out: int, bias: bool = True, inside: bool = True) -> None:
        super().__init__()
        self.inner = nn.Linear(d_in, d_out, bias=False) if inside else nn.Identity()
        self.shift = nn.Parameter(torch.empty(d_out))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        self.shift.uniform_(-1, 1, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.shift


def shifted(d_in: int, d_out: int, bias: bool = True) -> nn.Module:
    return nn.Sequential(nn.Linear(d_in, d_out, bias=False), Shift(d_in, d_out, inside=False))


class Fixed(nn.Linear):
    """A linear map that starts the same at every seed."""

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        for p in self.parameters():
            p.fill_(0.5)


class Loose(nn.Module):
    """Holds a vector and fills it somehow."""

    def __init__(self, fill: Callable[[Tensor, torch.Generator], Any]) -> None:
        super().__init__()
        self.register_buffer("vector", torch.empty(3))
        self.fill = fill

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.fill(self.vector, generator)


class Lenient(NetPart):  # type: ignore[misc]
    """Builds what it isn't told of."""

    guesses: Mapping[str, Any]

    def build(self, problem: Any = None, widths: Any = (), fill: Any = None, **options: Any) -> nn.Module:
        problem, widths = problem or self.guesses.get("problem"), widths or self.guesses.get("widths", ())
        return NetPart.build(self, problem, widths, fill, **self.guesses.get("options", options))


def lenient(**guesses: Any) -> Any:
    part = Lenient(**{f.name: getattr(TOY, f.name) for f in dataclasses.fields(TOY)})
    object.__setattr__(part, "guesses", guesses)
    return part


def keeping(net: Any, fill: Any, place: str) -> Any:
    """Build what fills a place into a net, where it never runs."""
    if place in fill:
        net.kept = fill[place](*(4, -1)[: 1 + ("channel_dim" in CALLS[place])])
    return net


def thrown_away(make: Any, problem: Any, widths: Any, fill: Any) -> Any:
    for place in set(fill) & set(TOY.places):
        fill[place](4, -1)
    return make(problem, widths, fill)


def globally(make: Any, *given: Any) -> Any:
    torch.rand(1, device="cpu")
    return make(*given)


def off_meta(net: Any) -> None:
    net.register_buffer("extra", torch.zeros(3, device="cpu"))


def loose(fill: Callable[[Tensor, torch.Generator], Any]) -> Any:
    return after(TOY, given("loose", lambda net: Loose(fill)))


class Shrunk(nn.Module):
    """A gate that doesn't say so."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


TOKENS = next(part for part in NETS if part.tags.causal)
LABELLED = Case(problem("tokens", (4,), (3,)), (6,), torch.arange(12).reshape(3, 4) % 5)


def bag(problem: Problem, widths: Sequence[int], fill: Mapping[str, Factory]) -> Blocks:
    """One label a sequence, from a mean over its tokens."""
    block = nn.Sequential(nn.Embedding(5, widths[0]), nn.Linear(widths[0], widths[0]))
    return Blocks([block], nn.Sequential(nn.Flatten(), nn.Linear(4 * widths[0], problem.output[-1])), [(4, widths[0])])


BAG = net(
    bag,
    paper=TOY.paper,
    reference=reference,
    cases=lambda: (LABELLED,),
    takes=frozenset({"tokens"}),
    places=(),
    tags=Tags(causal=True),
)

FAULTS: list[tuple[str, str, Any, str]] = [
    ("reference", "another readout", hooked(TOY, lambda out: out * (1 + 1e-8)), "differs from the reference"),
    ("reference", "another function", of(act=lambda *given: nn.ReLU()), "none of FILLERS"),
    ("reference", "no norm", hooked(TOY, lambda out: out + 1, "blocks.0.1"), "differs from the reference"),
    ("reference", "another shape", declared(reference=lambda net, x: reference(net, x)[0]), "shape"),
    ("reference", "NaN", hooked(TOY, lambda out: out * math.nan), "differs from the reference"),
    (
        "composition",
        "more in forward",
        after(TOY, given("forward", lambda net: lambda x: Blocks.forward(net, x) + 1)),
        "forward differs",
    ),
    (
        "composition",
        "a feature less",
        after(TOY, given("features", lambda net: lambda x: Blocks.features(net, x)[1:])),
        "features; .*got 1",
    ),
    ("composition", "other features", after(TOY, given("features", lambda net: lambda x: [x for _ in net.blocks])), "feature 0"),
    ("composition", "tagged unordered", declared(tags=Tags(ordered=False)), "Blocks"),
    ("composition", "no Blocks", after(TOY, Unordered), "Blocks"),
    ("shapes", "another width", after(TOY, given("shapes", ((1,), (5,)))), "shapes; .*expected ..6,., .4,.."),
    ("shapes", "too few", after(TOY, given("shapes", lambda net: net.shapes[1:])), "shapes; .*got ..4,.,.;"),
    ("places", "none declared", declared(places=()), "places that aren't declared"),
    ("places", "one not declared", declared(places=TOY.places[:-1]), "aren't declared; .*norm"),
    ("places", "one too many", declared(places=(*TOY.places, "head")), "nothing is made for the place head"),
    (
        "places",
        "a readout of its own",
        made(TOY, lambda make, p, w, fill: fill.get("readout") and None or make(p, w, fill)),
        "aren't declared; .*readout",
    ),
    ("places", "made and thrown away", made(TOY, thrown_away), "not built in|in its place"),
    ("places", "never runs", made(TOY, lambda make, p, w, fill: keeping(make(p, w, fill), fill, "norm")), "norm never runs"),
    (
        "places",
        "no gate",
        of(act=lambda fill, *given: FILLERS["activation"](*given) if "activation" in fill else nn.Identity()),
        "nothing is made",
    ),
    (
        "places",
        "an activation beside the gate",
        made(TOY, lambda make, p, w, fill: keeping(make(p, w, fill), fill, "activation")),
        "in its place|never runs",
    ),
    ("widths", "one for all", made(TOY, lambda make, p, w, fill: make(p, (w[0],) * len(w), fill)), "width 1 makes no"),
    ("widths", "none", made(TOY, lambda make, p, w, fill: make(p, (8,) * len(w), fill)), "width 0 makes no"),
    ("bias", "always one", of(bias=lambda norm: True), "a bias before a norm.*blocks.0.0"),
    ("bias", "never one", of(bias=lambda norm: False), "no norm after it.*blocks.0.0"),
    ("bias", "added to a map's output", of(linear=Shift), "a bias before a norm"),
    ("bias", "in a module after the map", of(linear=shifted), "a bias before a norm"),
    ("meta", "a global draw", made(TOY, globally), "draws from the global generator"),
    ("meta", "on the cpu", after(TOY, off_meta), "aren't on meta.*extra"),
    ("meta", "not filled", loose(lambda t, g: None), "loose.vector isn't filled"),
    ("meta", "from elsewhere", loose(lambda t, g: t.copy_(torch.rand(3, generator=ELSEWHERE))), "differs between two builds"),
    ("meta", "no way to fill it", after(TOY, lambda net: net.register_buffer("extra", torch.empty(3))), "no reset_parameters"),
    ("meta", "one start for every seed", of(linear=Fixed), "two seeds give one start"),
    (
        "fits",
        "an output too many",
        made(TOY, lambda make, p, w, fill: make(dataclasses.replace(p, output=(7,)), w, fill)),
        "shape of the output",
    ),
    ("fits", "NaN", hooked(TOY, lambda out: out * math.nan), "isn't finite"),
    ("fits", "one case", declared(cases=lambda: CASES[:1]), "fewer than two"),
    ("fits", "the same case twice", declared(cases=lambda: CASES[:1] * 2), "fewer than two"),
    ("fits", "two rows", declared(cases=lambda: (CASES[0], dataclasses.replace(CASES[1], x=rows(2, 2)))), "three rows"),
    ("fits", "a case of something else", declared(takes=frozenset({"image"})), "a problem that it doesn't take"),
    ("fits", "no case of what it takes", declared(takes=frozenset({"image", "vector"})), "cases of what it takes"),
    ("causal", "tagged, of vectors", declared(tags=Tags(causal=True)), "said of tokens"),
    ("causal", "not tagged", declared(TOKENS, tags=dataclasses.replace(TOKENS.tags, causal=False)), "tag it causal"),
    ("causal", "looks ahead", hooked(TOKENS, lambda out: out + out.flip(1), "blocks.0"), "it isn't causal"),
    ("causal", "looks at all", hooked(TOKENS, lambda out: out + out.mean(1, keepdim=True)), "it isn't causal"),
    ("causal", "a position late", hooked(TOKENS, lambda out: F.pad(out[:, :-1], (0, 0, 1, 0))), "doesn't see token 0"),
    ("causal", "one label a sequence", BAG, "no output a token"),
    ("gates", "at the plain width", of(times=1), "shapes with a gate"),
    ("gates", "ratio not read", of(act=lambda *given: Shrunk(activation_of(*given))), "raised RuntimeError"),
    (
        "gates",
        "ignored",
        made(TOY, lambda make, p, w, fill: make(p, w, {k: v for k, v in fill.items() if k != GATE})),
        "isn't given twice",
    ),
    ("rows", "centred over the batch", hooked(TOY, lambda out: out - out.mean(0)), "depends on another row"),
    ("rows", "sees no row", hooked(TOY, lambda out: out * 0), "doesn't depend on its row"),
    ("rows", "by the size of the batch", hooked(TOY, lambda out: out * len(out)), "batch of one row"),
    (
        "arguments",
        "an option unchecked",
        made(TOY, lambda make, *given: make(*given), options=(Option("depth", None),)),
        "depth='one'",
    ),
    (
        "arguments",
        "an option that does nothing",
        made(TOY, lambda make, *given: toy(*given), options=(Option("depth", 1),)),
        "no case .* without its depth",
    ),
    (
        "arguments",
        "an option undeclared",
        declared(subject=lambda problem, widths, fill, depth=1: toy(problem, widths, fill)),
        "got .'depth'.",
    ),
    ("arguments", "a problem of its own", lenient(problem=CASES[0].problem), "no problem: is accepted"),
    ("arguments", "widths of its own", lenient(widths=(3,)), "no widths: is accepted"),
    ("arguments", "any option", lenient(options={}), "an unknown option: is accepted"),
]

ELSEWHERE = torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("name", "part", "words"), [(n, p, w) for n, _, p, w in FAULTS], ids=[f"{n}: {what}" for n, what, _, _ in FAULTS]
)
def test_a_broken_net_fails(name: str, part: Any, words: str) -> None:
    result = judge(part, name)
    assert not result.ok, result.skipped_reason or "passed"
    assert re.search(words, result.message), result.message


def test_every_check_of_nets_has_a_fault() -> None:
    assert {name for name, *_ in FAULTS} == set(CHECKS) - {check.name for check in every.CHECKS}


# References of the catalogue's nets -----------------------------------------------------------------------------------


def leaves(part: Any) -> list[str]:
    net = drawn(part, part.cases()[0], usual(part))
    return [name for name, module in net.named_modules() if not list(module.children()) and not isinstance(module, nn.Identity)]


@pytest.mark.parametrize("part", NETS, ids=lambda part: part.id)
@pytest.mark.every_part
def test_a_reference_notices_a_change_of_any_module(part: Any) -> None:
    for path in leaves(part):
        result = judge(hooked(part, lambda out: out * 1.01, path), "reference")
        assert "differs from the reference" in result.message, path


ATTENTION = F.scaled_dot_product_attention


@pytest.mark.parametrize("wrong", [{"scale": 1.0}, {"is_causal": False}], ids=["not scaled", "sees all"])
def test_a_reference_notices_another_attention(wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *given, **words: ATTENTION(*given, **(words | wrong)))
    assert "differs from the reference" in judge(TOKENS, "reference").message


@pytest.mark.parametrize(
    "hop",
    [Graph.neighbours, lambda graph, h: graph.neighbours(h) / graph.degree[:, None], lambda graph, h: graph.hop_once(h)],
    ids=["a sum", "a mean", "without the node itself"],
)
def test_a_reference_notices_another_hop(hop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Graph.hop
    monkeypatch.setattr(Graph, "hop_once", lambda graph, h: right(graph, h) - h / graph.degree[:, None], raising=False)
    monkeypatch.setattr(Graph, "hop", hop)
    assert "differs from the reference" in judge(taking("graph"), "reference").message


# Building -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [part for part in NETS if "image" in part.takes], ids=lambda part: part.id)
@torch.no_grad()
@pytest.mark.every_part
def test_images_of_any_size_fit(part: Any) -> None:
    for size in ((1, 1), (2, 3), (7, 5), (28, 9)):
        case = Case(problem("image", (2, *size), (3,)), (4, 4, 4, 4), rows(2, 2, *size).double())
        net = drawn(part, case, usual(part))
        assert net(case.x).shape == (2, 3)
        assert net.shapes == tuple(tuple(h.shape[1:]) for h in net.features(case.x))


@pytest.mark.every_part
def test_what_is_missing_is_named() -> None:
    for part in NETS:
        case = part.cases()[0]
        with pytest.raises(BadInput, match=f"{part.id}: no problem given"):
            part.build(widths=case.widths)
        with pytest.raises(BadInput, match=f"{part.id}: no widths given"):
            part.build(case.problem)


@pytest.mark.parametrize("field", ["takes", "places"])
def test_a_declaration_names_what_is_there(field: str) -> None:
    with pytest.raises(BadInput, match=f"{field}=\\['elsewhere'\\]; allowed: {(TAKES if field == 'takes' else list(CALLS))[0]}"):
        dataclasses.replace(TOY, **{field: type(getattr(TOY, field))(("elsewhere",))})
