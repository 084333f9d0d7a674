"""What goes into the places: a part with its options, a module class or a function that returns a module."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from torch import nn

from netwright.core import catalogue
from netwright.core.errors import BadInput, Misfit, unknown
from netwright.core.part import Part
from netwright.surgery.kinds import part_of, sites_of, swappable, telling, words
from netwright.tensor.sites import Target


@final
@dataclass(frozen=True)
class Factory(Target):
    """A user's own class or function that returns a module."""

    seeded = False
    call: Callable[..., Any] = field(kw_only=True)

    def make(self, arguments: Mapping[str, Any]) -> Any:
        return self.call(**arguments)


def target_of(to: Any, options: Mapping[str, Any]) -> Target:
    """Raises BadInput, UnknownName or Misfit for what can't be put anywhere."""
    if isinstance(to, str):
        part, given = _named(to)
        return telling(part).target(part, {**given, **options})
    if (sites := sites_of(to)) is not None:
        return sites.target(to, options)
    if isinstance(to, nn.Module) or not callable(to):
        what = f"the module {type(to).__name__}(...)" if isinstance(to, nn.Module) else repr(to)
        raise BadInput(f"to is {what}; expected a part, an nn.Module class, or a function that returns a new module")
    if isinstance(to, type) and (known := part_of(to)) is not None:
        return telling(known).target(known, options)
    return _of_factory(to, options)


def _named(spec: str) -> tuple[Part, dict[str, Any]]:
    head, _, tail = spec.partition(":")
    name, known = head.strip(), swappable()
    part = next((p for p in known if name in (p.id, p.name)), None)
    if part is None:
        for other in catalogue.parts():
            if name in (other.id, other.name):
                taken = ", ".join(f"{word}s" for word in words())
                raise Misfit(f"{other.id} is a {other.kind}; swap takes {taken} and nn.Module classes")
        *most, last = words()
        raise unknown(f"{', '.join(most)} or {last}", name, [p.id for p in known])
    telling(part)
    return part, catalogue.parse_options(tail, spec)


def _of_factory(to: Callable[..., Any], options: Mapping[str, Any]) -> Factory:
    label = getattr(to, "__name__", type(to).__name__)
    try:
        parameters = inspect.signature(to).parameters
    except (TypeError, ValueError):
        raise BadInput(f"to={label} has no signature; a function of tensors has to be put into a module") from None
    takes = {"channels", "channel_dim"} & set(parameters)
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = {name for name, p in parameters.items() if p.default is p.empty and p.kind not in variable}
    if left := required - takes - set(options):
        raise BadInput(
            f"to={label} needs {', '.join(sorted(left))}, which swap doesn't know; give it as an option, or give "
            "a class or function whose required parameters are among channels and channel_dim"
        )
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for name in options:
            if name not in parameters:
                raise unknown("option", name, parameters, owner=label)
    return Factory(label, options, frozenset(takes), frozenset(required & takes - set(options)), call=to)
