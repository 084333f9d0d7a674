"""What goes into the places: a part with its options, a module class or a function that returns a module."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

from torch import nn

from netwright import catalogue
from netwright.kinds.activation import ActivationPart
from netwright.names import unknown
from netwright.part import BadInput, Misfit, UnknownName
from netwright.sites import Width


@final
@dataclass(frozen=True)
class Target:
    """How a new module is made, and which of channels and channel_dim it takes and needs."""

    label: str
    make: Callable[..., nn.Module]
    options: dict[str, Any]
    takes: frozenset[str]
    needs: frozenset[str]
    part: ActivationPart | None = None

    @property
    def shared(self) -> bool:
        return self.part is not None and self.part.shared

    @property
    def gated(self) -> bool:
        return self.part is not None and self.part.tags.shape == "gated"

    def arguments(self, width: Width) -> dict[str, Any]:
        known = {"channels": width.channels, "channel_dim": width.channel_dim}
        return {name: known[name] for name in sorted(self.takes) if known[name] is not None} | self.options


def target_of(to: Any, options: dict[str, Any]) -> Target:
    """Raises BadInput, UnknownName or Misfit for what can't be put anywhere."""
    if isinstance(to, str):
        named, given = _named(to)
        return _of_part(named, given | options)
    if isinstance(to, ActivationPart):
        return _of_part(to, options)
    if isinstance(to, nn.Module) or not callable(to):
        what = f"the module {type(to).__name__}(...)" if isinstance(to, nn.Module) else repr(to)
        raise BadInput(f"to is {what}; expected a part, an nn.Module class, or a function that returns a new module")
    if isinstance(to, type) and isinstance(part := getattr(to, "part", None), ActivationPart):
        return _of_part(part, options)
    if isinstance(to, type) and to.__module__.startswith("netwright."):  # a class written by hand
        for known in catalogue.parts("activation"):
            if isinstance(known, ActivationPart) and known.module_type() is to:
                return _of_part(known, options)
    return _of_factory(to, options)


def _named(spec: str) -> tuple[ActivationPart, dict[str, Any]]:
    try:
        part, given = catalogue.parse(spec, "activation")
    except UnknownName:
        name = spec.partition(":")[0].strip()
        for other in catalogue.parts():
            if name in (other.id, other.name):
                raise Misfit(f"{other.id} is a {other.kind}; swap takes activations and nn.Module classes") from None
        raise
    if not isinstance(part, ActivationPart):
        raise Misfit(f"{part.id} does not declare itself with activation(...)")
    return part, given


def _of_part(part: ActivationPart, options: dict[str, Any]) -> Target:
    if part.ratio != 1 and part.tags.shape != "gated":
        raise Misfit(f"{part.id} gives {part.ratio:g} times the channels it takes; the layer after it would not fit")
    fixed = ("channels", "channel_dim", "fused")
    resolved = part.resolve({name: value for name, value in options.items() if name not in fixed})
    per_channel = resolved.get("per") == "channel" or any(item.per == "channel" for item in part.state)
    takes = {"channels", "channel_dim"} if per_channel or part.tags.shape != "elementwise" else set()
    needs = takes if per_channel or part.tags.shape == "channels" else takes & {"channel_dim"}
    if part.tags.shape == "stateful" and not per_channel:  # no statistic lies along any dimension
        needs = set()
    return Target(part.id, part.build, options, frozenset(takes), frozenset(needs - set(options)), part)


def _of_factory(to: Callable[..., Any], options: dict[str, Any]) -> Target:
    label = getattr(to, "__name__", type(to).__name__)
    try:
        parameters = inspect.signature(to).parameters
    except (TypeError, ValueError):
        raise BadInput(f"to={label} has no signature; a function of tensors has to be put into a module") from None
    takes = {"channels", "channel_dim"} & set(parameters)
    required = {
        name for name, p in parameters.items()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }  # fmt: skip
    if left := required - takes - set(options):
        raise BadInput(
            f"to={label} needs {', '.join(sorted(left))}, which swap doesn't know; give it as an option, or give "
            "a class or function whose required parameters are among channels and channel_dim"
        )
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for name in options:
            if name not in parameters:
                raise unknown("option", name, parameters, owner=label)
    return Target(label, to, options, frozenset(takes), frozenset(required & takes - set(options)))
