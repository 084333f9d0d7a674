"""Checks of nets, on small ones in float64: what they compute, and that places, widths, tags and shapes are as declared."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, final

import torch
from torch import nn

from netwright.core.contract import Check, Skip, expect
from netwright.core.errors import BadInput, UnknownName
from netwright.engine.blocks import Blocks, Factory, count_parameters
from netwright.nets._contract_cases import TINY, another, cases, drawn, fillings, near, on_meta, raises, usual
from netwright.nets._kind import CALLS, TAKES, Case, NetPart
from netwright.nets._toy import FILLERS
from netwright.tensor.streams import initialise

#: What may have a bias.
MAPS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


# What it computes -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def reference(part: NetPart) -> None:
    """In float64 and evaluation the net equals its second writing, whatever fills its places."""
    for case in cases(part):
        for what, fill in fillings(part):
            net, given = drawn(part, case, fill), f"{case}, {what}"
            near("differs from the reference", net(case.x), part.reference(net, case.x), 1e-9, given)


@torch.no_grad()
def composition(part: NetPart) -> None:
    """It is Blocks exactly where tagged ordered; then the blocks in order and the readout are all that forward does."""
    for case in cases(part):
        for what, fill in fillings(part):
            net, given = drawn(part, case, fill), f"{case}, {what}"
            expect(isinstance(net, Blocks) == part.tags.ordered, "Blocks", got=type(net).__name__, wanted=part.tags.ordered)
            if not part.tags.ordered:
                continue
            h, features = case.x, net.features(case.x)
            expect(len(features) == len(net.blocks), "features", given=given, got=len(features), wanted=len(net.blocks))
            for i, block in enumerate(net.blocks):
                h = block(h)
                near(f"feature {i} differs from the output of block {i}", features[i], h, TINY, given)
            near("forward differs from blocks and readout", net(case.x), net.readout(h), TINY, given)


@torch.no_grad()
def shapes(part: NetPart) -> None:
    """`shapes` are those of one example (of a graph: one node) after each block."""
    for case in cases(part):
        for what, fill in fillings(part):
            net = drawn(part, case, fill)
            true = tuple(tuple(h.shape[1:]) for h in net.features(case.x))
            expect(net.shapes == true, "shapes", given=f"{case}, {what}", got=net.shapes, wanted=true)


@torch.no_grad()
def fits(part: NetPart) -> None:
    """The cases are two or more that differ, and of all that it takes; the output has the problem's shape, and is finite."""
    offered, kinds = set[str](), set()
    for case in cases(part):
        problem, n = case.problem, len(case.x)
        offered |= problem.gives & set(TAKES)
        expect(problem.gives & part.takes, "a problem that it doesn't take", given=case, got=sorted(problem.gives))
        expect(n > 2 and case.x.shape[1:] == problem.input, "x isn't three rows of the problem's input", given=case)
        for what, fill in fillings(part):
            net = drawn(part, case, fill)
            for x in (case.x, case.x[:1]):
                y, wanted = net(x), (len(x), *problem.output)
                expect(y.shape == wanted, "shape of the output", given=f"{case}, {what}", got=tuple(y.shape), wanted=wanted)
                expect(y.isfinite().all(), "the output isn't finite", given=f"{case}, {what}")
        kinds.add((problem.input, problem.output, case.widths))
    expect(len(kinds) > 1, "fewer than two cases that differ", got=len(kinds))
    expect(offered == part.takes, "cases of what it takes", got=sorted(offered), wanted=sorted(part.takes))


@torch.no_grad()
def causal(part: NetPart) -> None:
    """No output sees a later token exactly where tagged causal; every output sees its own."""
    if "tokens" not in part.takes:
        expect(not part.tags.causal, "tagged causal, which is said of tokens", got=sorted(part.takes))
        raise Skip("takes no tokens")
    several, later = False, False
    for case in (case for case in cases(part) if "tokens" in case.problem.gives):
        net, x = drawn(part, case, usual(part)), case.x
        y = net(x)
        if y.dim() < 3 or y.shape[1] != x.shape[1]:
            expect(not part.tags.causal, "tagged causal, but it has no output a token", given=case, got=tuple(y.shape))
            continue
        several = True
        for at in range(x.shape[1]):
            moved = x.clone()
            moved[:, at] = another(x[:, at], int(x.max()))
            change = (net(moved) - y).abs().flatten(2).amax((0, 2))
            expect(change[at] > 0, f"output {at} doesn't see token {at}", given=case)
            seen = bool((change[:at] > TINY).any())
            expect(not (seen and part.tags.causal), f"an output before {at} sees token {at}; it isn't causal", given=case)
            later = later or seen
    if not several:
        raise Skip("has no output a token")
    expect(later or part.tags.causal, "no output sees a later token; tag it causal")


@torch.no_grad()
def rows(part: NetPart) -> None:
    """In evaluation an output depends on its own row alone, and is the same in a batch of one."""
    if "graph" in part.takes:
        raise Skip("every node's output depends on its neighbours'")
    for case in cases(part):
        for what, fill in fillings(part):
            net, x, given = drawn(part, case, fill), case.x, f"{case}, {what}"
            y, moved = net(x), x.clone()
            moved[1] = another(x[1], 0 if x.is_floating_point() else int(x.max()))
            changed, others = net(moved), torch.arange(len(x)) != 1
            near("an output depends on another row", changed[others], y[others], TINY, given)
            expect(not torch.equal(changed[1], y[1]), "an output doesn't depend on its row", given=given)
            near("a batch of one row gives another output", net(x[1:2]), y[1:2], TINY, given)


# Places, widths, biases -----------------------------------------------------------------------------------------------


@final
class Recorder(Mapping[str, Factory]):
    """A filling that notes which places are looked up, and what its factories made."""

    def __init__(self, *filled: str) -> None:
        self.filled, self.asked = filled, set[str]()
        self.made: dict[str, list[nn.Module]] = {place: [] for place in filled}

    def __getitem__(self, place: str) -> Factory:
        self.asked.add(place)
        if place not in self.filled:
            raise KeyError(place)
        return self._factory(place)

    def _factory(self, place: str) -> Factory:
        def make(*sizes: int) -> nn.Module:
            self.made[place].append(FILLERS[place](*sizes))
            return self.made[place][-1]

        return make

    def __iter__(self) -> Iterator[str]:
        return iter(self.filled)

    def __len__(self) -> int:
        return len(self.filled)


@torch.no_grad()
def places(part: NetPart) -> None:
    """Only declared places are looked up; what fills one is built in and runs. `mlp` takes the activation's place."""
    declared = tuple(part.places)
    allowed = {*declared, *(("readout",) if "layer" in declared else ())}
    sets = [(), *((place,) for place in declared), tuple(CALLS)]
    sets += [tuple(other for other in declared if other != place) for place in declared]
    for case in cases(part):
        for filled in sets:
            fill, given = Recorder(*filled), f"{case}, filled: {', '.join(filled) or 'nothing'}"
            net, ran = drawn(part, case, fill), set[int]()
            for module in net.modules():
                module.register_forward_hook(lambda module, args, out, ran=ran: ran.add(id(module)))
            net(case.x)
            extra = fill.asked - allowed | {place for place, made in fill.made.items() if made and place not in allowed}
            expect(not extra, "places that aren't declared", given=given, got=sorted(extra), wanted=sorted(allowed))
            inside = {id(module) for module in net.modules()}
            for place in (place for place in filled if place in declared):
                made = fill.made[place]
                if place == "activation" and "mlp" in filled and "mlp" in declared:
                    expect(not made, "an activation is made where a gate stands in its place", given=given)
                    continue
                expect(made, f"nothing is made for the place {place}", given=given)
                lost = sum(id(module) not in inside for module in made)
                expect(not lost, f"what fills {place} is made and not built in", given=given, got=lost)
                idle = sum(id(module) not in ran for module in made)
                expect(not idle, f"what fills {place} never runs", given=given, got=idle)


def gates(part: NetPart) -> None:
    """With the place `mlp` filled by a gate that halves its channels, every block still has the width asked for."""
    if "mlp" not in part.places:
        raise Skip("has no place for a gate")
    for case in cases(part):
        fill = {place: factory for place, factory in usual(part).items() if place != "activation"}
        plain, gated = drawn(part, case, fill), drawn(part, case, {**fill, "mlp": FILLERS["mlp"]})
        y = gated(case.x)
        expect(y.shape == (len(case.x), *case.problem.output), "shape of the output", given=case, got=tuple(y.shape))
        expect(gated.shapes == plain.shapes, "shapes with a gate", given=case, got=gated.shapes, wanted=plain.shapes)
        more = count_parameters(gated) > count_parameters(plain)
        expect(more, "a gate isn't given twice the width", given=case)


def widths(part: NetPart) -> None:
    """Every width is a knob: a larger one makes more parameters."""
    for case in cases(part):
        for what, fill in fillings(part):
            size = count_parameters(on_meta(part, case, fill))
            for i, width in enumerate(case.widths):
                wider = (*case.widths[:i], width + 8, *case.widths[i + 1 :])
                more = count_parameters(on_meta(part, case, fill, wider))
                expect(more > size, f"width {i} makes no parameters", given=f"{case}, {what}", got=more, wanted=f"> {size}")


def feeding(part: NetPart, case: Case, normal: bool) -> list[tuple[str, bool]]:
    """For each norm, in the order they run, that a linear map or convolution feeds: the map's name, and whether it has a bias.

    Values are followed back from what the norm receives, through all that reads one computed tensor (a hop over a graph,
    an added bias), to the output of a module. A sum of two computed tensors, as a residual one, ends the search.
    normal: whether the places are filled by norms, or by the identity.
    """
    norms: list[nn.Module] = []
    received: list[Any] = []
    made_by: dict[Any, nn.Module] = {}

    def make(channels: int, channel_dim: int) -> nn.Module:
        norms.append(FILLERS["norm"](channels, channel_dim) if normal else nn.Identity())
        return norms[-1]

    net = drawn(part, case, {**usual(part), "norm": make})
    names = {module: name for name, module in net.named_modules()}
    for norm in norms:
        norm.register_forward_pre_hook(lambda module, args: received.append(args[0].grad_fn))

    def note(module: nn.Module, args: Any, out: Any) -> None:
        node = getattr(out, "grad_fn", None)
        if node is not None and not isinstance(made_by.get(node), MAPS):  # a container gives what its last module gave
            made_by[node] = module

    for module in names:
        module.register_forward_hook(note)
    net(case.x)
    found = []
    for node in received:
        added, source = False, None
        while node is not None and source is None:
            before = [other for other, _ in node.next_functions if other is not None]
            vectors = [other for other in before if hasattr(other, "variable") and other.variable.dim() == 1]
            added = added or "Add" in node.name() and bool(vectors)
            source = made_by.get(node)
            computed = [other for other in before if not hasattr(other, "variable")]
            node = computed[0] if len(computed) == 1 else None
        if isinstance(source, MAPS):
            found.append((names[source], added or source.bias is not None))
        elif added:
            found.append(("a vector added by hand", True))
    return found


def bias(part: NetPart) -> None:
    """What feeds a norm has no bias, which the norm would take away; where there is no norm it has one."""
    if "norm" not in part.places:
        raise Skip("has no place for a norm")
    counts = []
    for case in cases(part):
        for normal in (True, False):
            found = feeding(part, case, normal)
            counts.append(len(found))
            wrong = [name for name, biased in found if biased == normal]
            what = "a bias before a norm" if normal else "no bias, and no norm after it"
            expect(not wrong, what, given=case, got=wrong)
    if not any(counts):
        raise Skip("what its norms receive is no linear map's or convolution's output, but a sum of several")


# Building -------------------------------------------------------------------------------------------------------------


def meta(part: NetPart) -> None:
    """Built on meta it draws nothing and is all there; the seed then fills every value, each seed otherwise."""
    for case in cases(part):
        for what, fill in fillings(part):
            given, filled, before = f"{case}, {what}", [], torch.random.get_rng_state()
            for seed in (3, 3, 4):
                net = on_meta(part, case, fill)
                real = [name for name, t in (*net.named_parameters(), *net.named_buffers()) if not t.is_meta]
                expect(not real, "values that aren't on meta", given=given, got=real)
                net.to_empty(device="cpu")
                for t in (*net.parameters(), *net.buffers()):
                    t.data.fill_(math.nan if t.is_floating_point() else 77)
                initialise(net, seed)
                filled.append({name: t.detach() for name, t in (*net.named_parameters(), *net.named_buffers())})
            untouched = torch.equal(before, torch.random.get_rng_state())
            expect(untouched, "building draws from the global generator", given=given)
            first, again, other = filled
            for name, t in first.items():
                empty = bool(t.isnan().any()) if t.is_floating_point() else bool((t == 77).any())
                expect(not empty, f"{name} isn't filled", given=given)
                expect(torch.equal(t, again[name]), f"{name} differs between two builds from one seed", given=given)
            drawn_anew = any(not torch.equal(t, other[name]) for name, t in first.items())
            expect(drawn_anew, "two seeds give one start", given=given)


@torch.no_grad()
def matters(part: NetPart, case: Case, option: str) -> bool:
    """Whether a case gives another output, or none, without an option."""
    rest = {name: value for name, value in case.options.items() if name != option}
    try:
        got = drawn(part, replace(case, options=rest), usual(part))(case.x)
    except BadInput:
        return True
    wanted = drawn(part, case, usual(part))(case.x)
    return got.shape != wanted.shape or not torch.equal(got, wanted)


def arguments(part: NetPart) -> None:
    """What is missing or doesn't fit is named; `make` takes problem, widths, what fills the places, and options that matter."""
    case, fill = cases(part)[0], usual(part)
    raises("no problem", BadInput, "no problem", lambda: part.build(None, case.widths, fill, **case.options))
    raises("no widths", BadInput, "no widths", lambda: part.build(case.problem, (), fill, **case.options))
    strange = {**case.options, "no-such-option": 1}
    raises("an unknown option", UnknownName, "no-such-option", lambda: part.build(case.problem, case.widths, fill, **strange))
    for option in part.options:
        wrong = f"not-{option.default}" if isinstance(option.default, str) or option.allowed else "one"
        shown, changed = f"{option.name}={wrong!r}", {**case.options, option.name: wrong}
        raises(shown, BadInput, shown, partial(part.build, case.problem, case.widths, fill, **changed))
        changes = any(matters(part, case, option.name) for case in cases(part))
        expect(changes, f"no case gives another output without its {option.name}=")
    taken, declared = list(inspect.signature(part.make).parameters)[3:], [option.name for option in part.options]
    expect(taken == declared, "what `make` takes beside problem, widths and fill", got=taken, wanted=declared)


CHECKS = (
    Check("arguments", arguments),
    Check("bias", bias),
    Check("causal", causal),
    Check("composition", composition),
    Check("fits", fits),
    Check("gates", gates),
    Check("meta", meta),
    Check("places", places),
    Check("reference", reference),
    Check("rows", rows),
    Check("shapes", shapes),
    Check("widths", widths),
)
