"""The kinds whose parts get into models that exist, as their wings say it (netwright.tensor.sites)."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn

from netwright.core import catalogue
from netwright.core.errors import Misfit
from netwright.core.part import Part
from netwright.tensor.sites import Flow, Sites


@cache
def _by_kind() -> dict[str, Sites]:
    wings = {name: kind.sites() for name, kind in catalogue.kinds().items()}
    return {name: wing.SITES for name, wing in wings.items() if wing is not None}


def swappable() -> list[Part]:
    """Parts that stand as modules in a model, by kind: a short name that two kinds have means the part of the first."""
    return [part for kind in _by_kind() for part in catalogue.parts(kind)]


def words() -> tuple[str, ...]:
    """What such parts are called, in the singular."""
    return tuple(word for sites in _by_kind().values() for word in sites.words)


def sites_of(part: Any) -> Sites | None:
    """What knows of a part; None of what is no part of such a kind."""
    return next((sites for sites in _by_kind().values() if isinstance(part, sites.record)), None)


def telling(part: Part) -> Sites:
    """What knows of a part of such a kind. Raises Misfit where a plug-in declares it by a record of its own."""
    if (sites := sites_of(part)) is None:
        raise Misfit(f"{part.id} does not declare itself with {part.kind}(...)")
    return sites


def part_of(cls: type) -> Part | None:
    """The part whose modules are of this class."""
    part: Any = getattr(cls, "part", None)
    if sites_of(part) is not None:
        return part
    ours = swappable() if cls.__module__.startswith("netwright.") else ()  # a class written by hand
    return next((p for p in ours if p.module_type() is cls), None)


def flow_of(module: nn.Module | None) -> Flow | None:
    """The widths of a module that is a part's and decides about widths."""
    flows = (sites.flow(module) for sites in _by_kind().values() if module is not None)
    return next((flow for flow in flows if flow is not None), None)


def activates(module: nn.Module) -> bool:
    """Whether a module is a part's that stands where a call of a function could."""
    return any(sites.activates(module) for sites in _by_kind().values())


def mixes(module: nn.Module) -> bool:
    """Whether such a module needs more of a row than one entry to compute one."""
    return any(sites.mixes(module) for sites in _by_kind().values())


def operations_of(module: nn.Module, d_in: int) -> float | None:
    """Operations of a part's module for one row (1, d_in); None where they aren't known."""
    x = torch.empty(1, d_in, device="meta")
    counts = (sites.operations(module, x) for sites in _by_kind().values())
    return next((count for count in counts if count is not None), None)
