"""match="params" or "flops": widths between swapped layers that make the new ones cost what the old ones did.

A width is free where one swapped layer feeds another through nothing but modules and functions that take any width, in the
forward of the module that holds both. All other widths are the model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, final

import torch
from torch import fx, nn

from netwright.core.errors import BadInput, Misfit
from netwright.core.widths import TOLERANCE, solve, told
from netwright.surgery.calls import is_activation, is_function
from netwright.surgery.functional import OwnTracer
from netwright.surgery.kinds import mixes, operations_of
from netwright.surgery.sites import Place, Width
from netwright.surgery.untouched import untouched
from netwright.tensor.sites import Target

MATCHES = ("params", "flops")
_CALLED = {"params": "parameters", "flops": "operations"}
_FUNCTIONS = ("dropout", "alpha_dropout", "contiguous", "clone")


@final
@dataclass
class Chain:
    """Places that feed one another in this order: the widths between them are free."""

    places: list[Place]
    ends: tuple[str, str]  # names of the sizes that are the widths before and after

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(place.arguments[self.ends[1]] for place in self.places[:-1])

    def sizes(self, widths: Sequence[int]) -> list[tuple[int, int]]:
        """(d_in, d_out) of every place at these widths between them."""
        first, last = self.places[0].arguments[self.ends[0]], self.places[-1].arguments[self.ends[1]]
        edges = (first, *widths, last)
        return list(zip(edges[:-1], edges[1:], strict=True))


def match_places(places: Sequence[Place], target: Target, match: str) -> None:
    """Set the free widths of all chains of places. Raises Misfit where no width is free, or the part has no such widths."""
    if (ends := target.ends) is None:
        raise Misfit(f"nothing was changed: match={match!r} is for layers that take the place of linear maps, not {target.label}")
    chains = chains_of(places, ends)
    if not any(len(chain.places) > 1 for chain in chains):
        raise Misfit(
            f"nothing was changed: match={match!r}, but no width is free: no two of the {len(places)} places feed one another"
            " through activations alone; leave match= out"
        )

    @cache
    def new(d_in: int, d_out: int) -> float:
        return _price(target, ends, match, d_in, d_out)

    for chain in chains:
        wanted = sum(_old(place, ends, match) for place in chain.places)
        before = sum(new(*each) for each in chain.sizes(chain.widths))
        if len(chain.places) == 1 or abs(before / wanted - 1) <= TOLERANCE:
            chain.places[0].notes.append(f"{before / wanted:.3g} times the {_CALLED[match]} there were")
            continue
        own, sizes = chain.widths, chain.sizes

        def price(widths: Sequence[int], sizes: Any = sizes) -> float:
            return sum(new(*each) for each in sizes(widths))

        found = solve(price, own, wanted, TOLERANCE)
        after = price(found)
        for place, (d_in, d_out) in zip(chain.places, chain.sizes(found), strict=True):
            place.arguments |= dict(zip(ends, (d_in, d_out), strict=True))
            place.resized, place.width = True, Width((d_out,), -1, f"solved for equal {_CALLED[match]}")
        goal = f"the old ones in {_CALLED[match]}"
        chain.places[0].notes.append(told(own, found, goal, before / wanted, after / wanted, TOLERANCE))


def chains_of(places: Sequence[Place], ends: tuple[str, str]) -> list[Chain]:
    """All places, each in one chain; a place that stands at several paths is a chain of its own."""
    single = {id(place.old): place for place in places if len(place.slots) == 1}
    holders: dict[int, nn.Module] = {id(place.slots[0][0]): place.slots[0][0] for place in single.values()}
    follows: dict[int, Place] = {}
    for holder in holders.values():
        for before, after in _links(holder):
            a, b = (single.get(id(m)) for m in (before, after))
            if a is not None and b is not None and a is not b and a.arguments[ends[1]] == b.arguments[ends[0]]:
                follows[id(a.old)] = b
    starts = [place for place in places if all(place is not after for after in follows.values())]
    chains = []
    for place in starts:
        row = [place]
        while (behind := follows.get(id(row[-1].old))) is not None and behind not in row:
            row.append(behind)
        chains.append(Chain(row, ends))
    return chains


def activation_after(place: Place) -> str:
    """The activation module that reads a place's output, where it can be traced and is alone in that; else ''."""
    for holder, name in place.slots:
        graph, modules = _traced(holder)
        for node in graph.nodes if graph is not None else ():
            if node.op == "call_module" and str(node.target) == name and len(node.users) == 1:
                (after,) = node.users
                if after.op == "call_module" and is_activation(modules[str(after.target)]):
                    return str(after.target)
    return ""


def _traced(holder: nn.Module) -> tuple[fx.Graph | None, dict[str, nn.Module]]:
    with untouched(holder):
        try:
            graph = OwnTracer().trace(holder)
        except Exception:  # a forward that depends on values fails in its own way
            return None, {}
    return graph, dict(holder.named_modules(remove_duplicate=False))


def _links(holder: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Pairs of children where all that the first gives reaches the second alone, through what takes any width."""
    graph, modules = _traced(holder)
    if graph is None:
        return []
    calls = [node for node in graph.nodes if node.op == "call_module"]
    once = {node.target for node in calls if sum(other.target == node.target for other in calls) == 1}
    found = []
    for node in calls:
        after: Any = node
        while len(after.users) == 1:
            (after,) = after.users
            if not _passes(after, modules):
                break
        if after is not node and after.op == "call_module" and {node.target, after.target} <= once:
            found.append((modules[node.target], modules[str(after.target)]))
    return found


def _passes(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a node computes every entry by itself, whatever the width."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        if isinstance(module, (nn.Identity, nn.modules.dropout._DropoutNd)):
            return True
        rowwise = isinstance(module, nn.GLU) or mixes(module)
        return is_activation(module) and all(p.numel() == 1 for p in module.parameters()) and not rowwise
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    return node.op in ("call_function", "call_method") and (is_function(str(name)) or name in _FUNCTIONS)


def _price(target: Target, ends: tuple[str, str], match: str, d_in: int, d_out: int) -> float:
    sizes = dict(zip(ends, (d_in, d_out), strict=True))
    with torch.device("meta"):
        built: nn.Module = target.make({**target.options, **sizes})
    return _cost(built, match, d_in, target.label)


def _old(place: Place, ends: tuple[str, str], match: str) -> float:
    return _cost(place.old, match, place.arguments[ends[0]], place.paths[0])


def _cost(module: nn.Module, match: str, d_in: int, label: str) -> float:
    if match == "params":
        return float(sum(p.numel() for p in module.parameters()))
    if (count := operations_of(module, d_in)) is not None:
        return count
    if not isinstance(module, nn.Linear):
        raise BadInput(f"match='flops': what {label} costs is not known; give match='params'")
    return 2.0 * module.in_features * module.out_features
