"""Puts a part (an activation, a layer, a norm) into a net that already exists, in place, and says what it could not reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from netwright.core.errors import BadInput, Misfit, NetwrightError
from netwright.surgery import gates
from netwright.surgery.changes import Back, Journal, Report, Site, along, surroundings
from netwright.surgery.fitting import Fits
from netwright.surgery.functional import Converted, convert
from netwright.surgery.matching import MATCHES, activation_after, match_places
from netwright.surgery.measure import at_places, drift
from netwright.surgery.sites import Look, Place, Width, look, merge, neighbour, nothing, places_of
from netwright.surgery.target import target_of
from netwright.surgery.untouched import call, quiet
from netwright.tensor.sites import Target
from netwright.tensor.streams import derive, initialise

__all__ = ["Report", "Site", "swap"]

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
#: Wrappers that took down the list of parameters when they were made; later ones would silently not be synchronised.
_SYNCHRONISED = {"DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"}
#: Attributes by which torch's Transformer layers choose a fused path with its own activation: value after a swap.
_FUSED_PATH = {"activation_relu_or_gelu": 0, "use_nested_tensor": False}


def swap(
    model: nn.Module,
    what: Any,
    to: Any,
    *,
    example: Any = None,
    functional: bool = False,
    init_from: str | None = None,
    match: str | None = None,
    seed: int = 0,
    **options: Any,
) -> Report:
    """Replace every submodule that is `what` by a new `to`, in place; nothing is changed where any place is refused.

    what: a module type or a tuple of types; a part's name, part or class; a path pattern ("blocks.*.act"; * also
        matches dots); a function (path, module) -> bool; with functional=True also a function such as F.gelu.
    to: a part's name with options ("name:key=value"), a part, an nn.Module class, or a function that returns a new
        module. `channels` and `channel_dim` are given to what takes them.
    example: a tensor, a tuple of positional or a mapping of keyword arguments of the forward; with it channels and
        activation calls are observed rather than inferred, and the report says how much each place's output and the
        model's change (in evaluation mode). The runs leave the model as it was.
    functional: also change activation calls (F.gelu(x), torch.relu(x), x.relu_()) of the function that `what` is the
        module or part of, or that a pattern meets as "path.function": where torch.fx can trace the forward that holds
        them, or they are kept as attributes, they become submodules. With an example that is checked to change
        nothing by itself; the report says which calls were left, and why.
    init_from: "old" to start the new modules' parameters where they come nearest to the function they replace. The
        distance (see netwright.surgery.fitting) is in the report; above 0.05 the swap is refused.
    match: "params" or "flops": where layers take the place of linear maps, solve the widths between them (an MLP's hidden
        width, say) so that the new layers cost what the old ones did, within 2 % where whole widths allow. The report
        says what became of every width.
    seed: new modules draw their parameters from it and their path; the global generators stay untouched.
    options: of the part or factory; channels= and channel_dim=, and the sizes of a layer, override what is known of every
        place.

    The new modules take the dtype and device of the layers around them and the training mode of the old ones. A module
    shared by several places is replaced by one shared module; a part that is one module for a whole net goes to all
    places as one. `report.restore(model)` puts everything back.
    Raises BadInput where nothing matches or the model is compiled or scripted, UnknownName for an unknown part,
    Misfit where any place is refused: unknown or differing channels where they matter, hooks, parametrisations, gated
    parts where an activation stands, a new module that can't take what the example brings there.
    """
    if not isinstance(model, nn.Module):
        raise BadInput(f"model is {type(model).__name__}; expected an nn.Module")
    if isinstance(model, torch.jit.ScriptModule) or _compiled(model):
        raise BadInput(f"{type(model).__name__} is compiled or scripted; swap in the original model and compile that")
    if init_from not in (None, "old"):
        raise BadInput(f"init_from={init_from!r}; allowed: None, 'old'")
    if match not in (None, *MATCHES):
        raise BadInput(f"match={match!r}; allowed: None, {', '.join(map(repr, MATCHES))}")
    target = target_of(to, options)
    changes = Journal()
    try:
        converted = Converted()
        if functional:
            converted = convert(model, what, look(model, set(), example).unreached, example, changes)
        known = bool(converted.calls or converted.refused)
        places = places_of(model, what, {id(made) for made in converted.calls}, lenient=known)
        found = look(model, {id(place.old) for place in places}, example, target.options.get("channel_dim"))
        found.unreached = converted.left(found.unreached)
        if not places:
            raise nothing(model, what, found)
        _prepare(model, places, target, found, seed, init_from, match)
        if example is not None:
            at_places(model, places, example)
        _put(model, places, changes)
        moved = None if example is None else drift(found.output, _after(model, example))
    except BaseException:
        changes.undo()
        raise
    return replace(_report(model, places, found, changes), drift=moved)


def _prepare(
    model: nn.Module, places: Sequence[Place], target: Target, found: Look, seed: int, init_from: str | None, match: str | None
) -> None:
    """The new modules for all places; raises Misfit with what is wrong at any of them."""
    refusals: list[str] = []
    for place in places:
        refusals += _refusals(model, place, target, found)
    if not refusals:
        if match:
            match_places(places, target, match)
        fits = Fits(target)
        for place in places:
            place.new = places[0].new if target.shared and place is not places[0] else _build(model, place, target, seed)
            if list(place.new.parameters()) or list(place.old.parameters()):
                refusals += _synchronised(model, place)
            if init_from and (why := fits.start(place)):
                refusals.append(why)
        if not target.shared and len({id(place.new) for place in places}) < len(places):
            refusals.append(f"{target.label} returned one module for several places; return a new one each time")
    if refusals:
        more = f"; and {len(refusals) - 8} more" if len(refusals) > 8 else ""
        raise Misfit("nothing was changed: " + "; ".join(refusals[:8]) + more)


# Whether and how ------------------------------------------------------------------------------------------------------


def _compiled(module: nn.Module) -> bool:
    names = {cls.__name__ for cls in type(module).__mro__}
    return "OptimizedModule" in names or getattr(module, "_compiled_call_impl", None) is not None


def _width(place: Place, target: Target, found: Look) -> Width:
    channels, dim = target.options.get("channels"), target.options.get("channel_dim")
    if seen := found.seen.get(id(place.old)):
        width = merge(seen)
    else:
        traced = found.traced.get(id(place.old), [])
        width = merge([w or Width() for w in traced])
        if not width.sizes and len(traced) <= 1:  # called once: the layers beside it speak of that call
            width = merge([neighbour(parent, name) for parent, name in place.slots])
    if dim is not None and not seen and dim != width.channel_dim:  # what is known is the size of another dimension
        width = Width((), dim)
    if isinstance(place.old, nn.GLU) and dim is None:
        width = Width(width.sizes if width.channel_dim == place.old.dim else (), place.old.dim, "its own dim")
    return width if channels is None else Width((channels,), width.channel_dim, "given")


def _size(place: Place, target: Target) -> str:
    """Note at a place the sizes of what goes there. Returns why it can't, or ''."""
    place.arguments, why = target.sizes(place.old, place.width.channels)
    if why:
        return f"{target.label} can't go to {place.paths[0]}, which is {type(place.old).__name__}: {why}"
    if (flow := target.flow(place.arguments)) is not None:
        place.width = Width((flow.gives,), flow.channel_dim, "its own sizes")
    if target.nonlinear and (after := activation_after(place)):
        place.notes.append(f"{after}, which follows, stays: this layer needs none (nn.Identity in its place leaves it out)")
    return ""


def _refusals(model: nn.Module, place: Place, target: Target, found: Look) -> list[str]:
    """Why this place can't be changed; also fills in its width and notes."""
    old, path, out = place.old, place.paths[0], []
    place.width = _width(place, target, found)
    sizes = ", ".join(map(str, place.width.sizes))
    if why := _size(place, target):
        out.append(why)
    if "channels" in target.needs and len(place.width.sizes) > 1:
        out.append(f"{path} sees {sizes} channels ({place.width.how}), and {target.label} needs one number")
    elif missing := [name for name in sorted(target.needs) if getattr(place.width, name) is None]:
        out.append(f"{target.label} needs {' and '.join(missing)}, unknown at {path}; give example= or {missing[0]}=")
    if hooked := [name.strip("_") for name in _HOOKS if getattr(old, name, None)]:
        out.append(f"{path} has {', '.join(hooked)} that would be lost; remove them first")
    if "forward" in vars(old):
        out.append(f"{path} has a forward of its own set on the instance, which would be lost; delete it first")
    if is_parametrized(old):
        out.append(f"{path} is parametrised; remove the parametrisation first")
    for module in {id(m): m for p in place.paths for m in along(model, p)}.values():
        if _compiled(module) or isinstance(module, torch.jit.ScriptModule):
            kind = type(module).__name__
            out.append(f"{path} is inside a {kind}, which is compiled or scripted; swap in the original model")
    gate = gates.product(place) if target.function else ""
    if why := target.misfit(path, old, gate):
        out.append(why)
    elif gate:
        place.notes.append(f"a gate: {gate}")
    elif note := target.note(old):
        place.notes.append(note)
    if getattr(old, "inplace", False) is True:
        place.notes.append("was in place, now is not")
    if len(place.width.sizes) > 1:
        place.notes.append(f"called with {sizes} channels")
    if found.seen and id(old) not in found.seen:
        place.notes.append("not called by the example")
    if inside := sum(1 for _ in old.modules()) - 1:
        place.notes.append(f"{inside} modules inside the old one went with it")
    return out


def _synchronised(model: nn.Module, place: Place) -> list[str]:
    names = {cls.__name__ for m in along(model, place.paths[0]) for cls in type(m).__mro__} & _SYNCHRONISED
    path = place.paths[0]
    return [f"{path} is inside {name}, which would not synchronise new parameters; swap, then wrap" for name in names]


def _arguments(place: Place, target: Target) -> dict[str, Any]:
    """What the new module for a place is made of; options given win over what is read off the place."""
    known = {"channels": place.width.channels, "channel_dim": place.width.channel_dim}
    taken = {name: known[name] for name in sorted(target.takes) if known[name] is not None}
    return {**taken, **place.arguments, **target.options}


def _build(model: nn.Module, place: Place, target: Target, seed: int) -> nn.Module:
    path = place.paths[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "init", path))
        try:
            new = target.make(_arguments(place, target))
        except NetwrightError as error:
            raise type(error)(f"nothing was changed: {path}: {error}") from error
        except Exception as error:  # the user's own factory may raise anything
            why = f"{type(error).__name__}: {error}"
            raise BadInput(f"nothing was changed: {target.label} failed at {path}: {why}") from error
    if not isinstance(new, nn.Module):
        raise BadInput(f"nothing was changed: {target.label} returned {type(new).__name__}; expected a new nn.Module")
    if target.seeded:
        initialise(new, seed, path)
    if (home := surroundings(model, path, place.old)) is not None:
        new.to(dtype=home[0], device=home[1])
    return new.train(place.old.training)


def _put(model: nn.Module, places: Sequence[Place], changes: Journal) -> None:
    for place in places:
        for parent, name in place.slots:
            changes.set(parent, name, place.new)
        for holder in {id(m): m for p in place.paths for m in along(model, p)}.values():
            for name, value in _FUSED_PATH.items():
                if vars(holder).get(name):
                    changes.set(holder, name, value)
                    kind = type(holder).__name__
                    place.notes.append(f"{name} of {kind} set to {value}: its fused path ignores modules")


def _after(model: nn.Module, example: Any) -> Any:
    try:
        with quiet(model):
            return call(model, example)
    except Exception as error:  # the user's own forward may raise anything
        why = f"{type(error).__name__}: {error}"
        raise Misfit(f"nothing was changed: with the new modules the example fails: {why}") from error


# What was done --------------------------------------------------------------------------------------------------------


def _spell(module: nn.Module) -> str:
    text = repr(module) if next(module.children(), None) is None else f"{type(module).__name__}(...)"
    return text if len(text) <= 60 else text[:57] + "..."


def _report(model: nn.Module, places: Sequence[Place], found: Look, changes: Journal) -> Report:
    sites, before, after, names = [], [], [], []
    first: dict[int, str] = {}  # the path at which a new module was put first
    for place in places:
        made, was = (sum(p.numel() for p in m.parameters()) for m in (place.new, place.old))
        for i, path in enumerate(place.paths):
            before += [f"{path}.{key}" for key in place.old.state_dict()]
            after += [f"{path}.{key}" for key in place.new.state_dict()]
            owner = first.setdefault(id(place.new), path)
            notes = [*(place.notes if i == 0 else []), *([f"shares the module of {owner}"] if owner != path else [])]
            if owner == path:
                names += [f"{path}.{name}" for name, _ in place.new.named_parameters()]
            known = place.width
            new = _spell(place.new) if place.fit_error is None else f"{type(place.new).__name__} (fitted)"
            sites.append(
                Site(
                    path,
                    _spell(place.old),
                    new,
                    known.channels,
                    known.channel_dim,
                    known.how,
                    made if owner == path else 0,
                    tuple(notes),
                    place.shape,
                    place.variance_ratio,
                    place.fit_error,
                    was if owner == path else 0,
                )
            )
    gained = tuple(key for key in after if key not in set(before))
    lost = tuple(key for key in before if key not in set(after))
    backs = tuple(Back(p.paths[0], p.old, p.new, surroundings(model, p.paths[0], p.new)) for p in places)
    return Report(tuple(sites), tuple(found.unreached), gained, lost, tuple(names), None, changes, backs)
