"""What goes into the places: a part with its options, a module class or a function that returns a module."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

from torch import nn

from netwright.activations._kind import ActivationPart
from netwright.core import catalogue
from netwright.core.errors import BadInput, Misfit, unknown
from netwright.surgery.sites import Place, swappable
from netwright.tensor.modules import SizedPart


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
    sized: SizedPart | None = None  # a layer or a norm

    @property
    def shared(self) -> bool:
        return self.part is not None and self.part.shared

    @property
    def gated(self) -> bool:
        return self.part is not None and self.part.tags.shape == "gated"

    def arguments(self, place: Place) -> dict[str, Any]:
        """What the new module for a place is made of; options given win over what is read off the place."""
        if self.sized is not None:
            return place.arguments | self.options
        known = {"channels": place.width.channels, "channel_dim": place.width.channel_dim}
        return {name: known[name] for name in sorted(self.takes) if known[name] is not None} | self.options


def target_of(to: Any, options: dict[str, Any]) -> Target:
    """Raises BadInput, UnknownName or Misfit for what can't be put anywhere."""
    if isinstance(to, str):
        named, given = _named(to)
        return _of_part(named, given | options)
    if isinstance(to, (ActivationPart, SizedPart)):
        return _of_part(to, options)
    if isinstance(to, nn.Module) or not callable(to):
        what = f"the module {type(to).__name__}(...)" if isinstance(to, nn.Module) else repr(to)
        raise BadInput(f"to is {what}; expected a part, an nn.Module class, or a function that returns a new module")
    if isinstance(to, type) and isinstance(part := getattr(to, "part", None), (ActivationPart, SizedPart)):
        return _of_part(part, options)
    if isinstance(to, type) and to.__module__.startswith("netwright."):  # a class written by hand
        for known in catalogue.parts("activation"):
            if isinstance(known, ActivationPart) and known.module_type() is to:
                return _of_part(known, options)
    return _of_factory(to, options)


def _named(spec: str) -> tuple[ActivationPart | SizedPart, dict[str, Any]]:
    head, _, tail = spec.partition(":")
    name, known = head.strip(), swappable()
    part = next((p for p in known if name in (p.id, p.name)), None)
    if part is None:
        for other in catalogue.parts():
            if name in (other.id, other.name):
                raise Misfit(f"{other.id} is a {other.kind}; swap takes activations, layers, norms and nn.Module classes")
        raise unknown("activation, layer or norm", name, [p.id for p in known])
    if not isinstance(part, (ActivationPart, SizedPart)):
        raise Misfit(f"{part.id} does not declare itself with {part.kind}(...)")
    return part, catalogue.parse_options(tail, spec)


def _of_part(part: ActivationPart | SizedPart, options: dict[str, Any]) -> Target:
    if isinstance(part, SizedPart):
        part.resolve({name: value for name, value in options.items() if name not in part.size_names})
        return Target(part.id, part.build, options, frozenset(), frozenset(), sized=part)
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
