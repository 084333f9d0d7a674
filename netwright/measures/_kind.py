"""The kind `measure`: what is read off a net. Looking touches nothing: parameters, buffers, modes and streams stay.

def measure(net, view) -> {"name": number or tensor}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

from torch import nn

from netwright.core.kind import READ, Kind
from netwright.core.part import Part
from netwright.engine.view import View

#: Raised by hand when numbers of this file move; tests/golden fails when they move and this did not.
KIND_VERSION = 1


@final
@dataclass(frozen=True)
class Tags:
    """What a measure declares. reasons: why a contract check can't hold, {check name: reason}."""

    reads: frozenset[str] = frozenset({"outputs"})  # of "weights", "features", "gradients", "outputs", "path"
    reasons: Mapping[str, str] = field(default_factory=dict)


@final
@dataclass(frozen=True, kw_only=True)
class MeasurePart(Part):
    """A measure. `build(**options)` is the function of a net and a view.

    reference(net, view, **options) -> the same, by the paper's own words in float64. cases() -> (net, view, what is known on
    paper of the result) for at least one net.
    """

    reference: Callable[..., Mapping[str, Any]]
    cases: Callable[[], tuple[tuple[nn.Module, View, Mapping[str, Any]], ...]]
    tags: Tags = Tags()

    @property
    def kind(self) -> str:
        return "measure"

    def slots(self) -> tuple[str, ...]:
        return ()

    def build(self, **options: Any) -> Callable[[nn.Module, View], Mapping[str, Any]]:
        return partial(self.subject, **self.resolve(options))


measure = MeasurePart

KIND = Kind("measure", "measures", "what is read off a net", READ, many=True)
