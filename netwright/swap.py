"""Puts a part into a net that already exists, in place, and says what it could not reach."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from netwright import catalogue
from netwright.calls import Unreached
from netwright.kinds.activation import ActivationPart
from netwright.names import printable, unknown
from netwright.part import BadInput, Misfit, NetwrightError, UnknownName
from netwright.sites import Look, Place, Width, look, merge, neighbour, nothing, places_of
from netwright.streams import derive, initialise

_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks",
    "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip
#: Wrappers that took down the list of parameters when they were made; later ones would silently not be synchronised.
_SYNCHRONISED = {"DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"}
#: Attributes by which torch's Transformer layers choose a fused path with its own activation: value after a swap.
_FUSED_PATH = {"activation_relu_or_gelu": 0, "use_nested_tensor": False}


@final
@dataclass(frozen=True)
class Site:
    """One place that was changed. parameters: elements added there (0 where the module of another site is shared)."""

    path: str
    old: str
    new: str
    channels: int | None
    channel_dim: int | None
    known: str  # "example run", "traced from ...", "neighbour ...", "given", "unknown"
    parameters: int
    notes: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class Report:
    """What a swap changed and what it could not reach. `print(report)` shows it as tables."""

    sites: tuple[Site, ...]
    unreached: tuple[Unreached, ...]
    gained: tuple[str, ...]  # keys the state_dict has now and had not
    lost: tuple[str, ...]  # keys the state_dict had and has no longer
    parameter_names: tuple[str, ...]  # every parameter of the new modules

    @property
    def added_parameters(self) -> int:
        """Elements of all parameters of the new modules."""
        return sum(site.parameters for site in self.sites)

    def parameters(self, model: nn.Module) -> list[nn.Parameter]:
        """The new modules' parameters, for an optimizer made before the swap (optimizer.add_param_group).

        Raises BadInput where the model hasn't got them (it was wrapped or changed since).
        """
        try:
            return [model.get_parameter(name) for name in self.parameter_names]
        except AttributeError as error:
            raise BadInput(f"this is not the model as it was swapped: {error}; give that model, unwrapped") from None

    def to_json(self) -> str:
        """The report as a JSON object."""
        return json.dumps(asdict(self) | {"added_parameters": self.added_parameters}, indent=1)

    def __str__(self) -> str:
        head = ("path", "old", "new", "channels", "dim", "known from", "parameters", "notes")
        rows = [(s.path, s.old, s.new, s.channels, s.channel_dim, s.known, s.parameters, "; ".join(s.notes)) for s in self.sites]
        lines = [f"{len(self.sites)} places changed, {self.added_parameters} parameters added", *_table(head, rows)]
        if self.lost:
            lines += ["", f"state_dict keys lost: {', '.join(map(printable, self.lost))}"]
        if self.gained:
            lines += ["", f"state_dict keys gained: {', '.join(map(printable, self.gained))}"]
        if self.unreached:
            calls = [(u.path or "(the model)", u.module, u.function, u.how) for u in self.unreached]
            lines += ["", f"{len(calls)} activations out of reach (calls, not submodules):"]
            lines += _table(("path", "module", "function", "found by"), calls)
        return "\n".join(lines)


def swap(model: nn.Module, what: Any, to: Any, *, example: Any = None, seed: int = 0, **options: Any) -> Report:
    """Replace every submodule that is `what` by a new `to`, in place; nothing is changed where any place is refused.

    what: a module type or a tuple of types; a part's name, part or class; a path pattern ("blocks.*.act"; * also
        matches dots); or a function (path, module) -> bool.
    to: a part's name with options ("name:key=value"), a part, an nn.Module class, or a function that returns a new
        module. `channels` and `channel_dim` are given to what takes them.
    example: a tensor, a tuple of positional or a mapping of keyword arguments of the forward; with it channels and
        activation calls are observed rather than inferred. The run leaves the model as it was.
    seed: new modules draw their parameters from it and their path; the global generators stay untouched.
    options: of the part or factory; channels= and channel_dim= override what is known of every place.

    The new modules take the dtype and device of the layers around them and the training mode of the old ones. A module
    shared by several places is replaced by one shared module.
    Raises BadInput where nothing matches or the model is compiled or scripted, UnknownName for an unknown part,
    Misfit where any place is refused: unknown or differing channels where they matter, hooks, parametrisations.
    """
    if not isinstance(model, nn.Module):
        raise BadInput(f"model is {type(model).__name__}; expected an nn.Module")
    if isinstance(model, torch.jit.ScriptModule) or _compiled(model):
        raise BadInput(f"{type(model).__name__} is compiled or scripted; swap in the original model and compile that")
    target = _target(to, options)
    places = places_of(model, what)
    found = look(model, {id(place.old) for place in places}, example, target.options.get("channel_dim"))
    if not places:
        raise nothing(model, what, found)
    refusals: list[str] = []
    for place in places:
        refusals += _refusals(model, place, target, found)
    if not refusals:
        for place in places:
            place.new = _build(model, place, target, seed)
            if list(place.new.parameters()) or list(place.old.parameters()):
                refusals += _synchronised(model, place)
        if len({id(place.new) for place in places}) < len(places):
            refusals.append(f"{target.label} returned one module for several places; return a new one each time")
    if refusals:
        more = f"; and {len(refusals) - 8} more" if len(refusals) > 8 else ""
        raise Misfit("nothing was changed: " + "; ".join(refusals[:8]) + more)
    _put(model, places)
    return _report(places, target, found)


# What goes in ---------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class _Target:
    label: str
    make: Callable[..., nn.Module]
    options: dict[str, Any]
    takes: frozenset[str]  # of "channels" and "channel_dim"
    needs: frozenset[str]
    part: ActivationPart | None = None

    def arguments(self, width: Width) -> dict[str, Any]:
        known = {"channels": width.channels, "channel_dim": width.channel_dim}
        return {name: known[name] for name in sorted(self.takes) if known[name] is not None} | self.options


def _target(to: Any, options: dict[str, Any]) -> _Target:
    if isinstance(to, str):
        named, given = _named_target(to)
        return _part_target(named, given | options)
    if isinstance(to, ActivationPart):
        return _part_target(to, options)
    if isinstance(to, nn.Module) or not callable(to):
        what = f"the module {type(to).__name__}(...)" if isinstance(to, nn.Module) else repr(to)
        raise BadInput(f"to is {what}; expected a part, an nn.Module class, or a function that returns a new module")
    if isinstance(to, type) and isinstance(part := getattr(to, "part", None), ActivationPart):
        return _part_target(part, options)
    if isinstance(to, type) and to.__module__.startswith("netwright."):  # a class written by hand
        for known in catalogue.parts("activation"):
            if isinstance(known, ActivationPart) and known.module_type() is to:
                return _part_target(known, options)
    return _factory_target(to, options)


def _named_target(spec: str) -> tuple[ActivationPart, dict[str, Any]]:
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


def _part_target(part: ActivationPart, options: dict[str, Any]) -> _Target:
    if "activation" not in part.slots():
        slots = ", ".join(part.slots())
        raise Misfit(f"{part.id} is {part.tags.shape}: it fills the slot {slots}, not the place of an activation")
    if part.ratio != 1:
        raise Misfit(f"{part.id} gives {part.ratio:g} times the channels it takes; the layer after it would not fit")
    fixed = ("channels", "channel_dim", "fused")
    resolved = part.resolve({name: value for name, value in options.items() if name not in fixed})
    per_channel, elementwise = resolved.get("per") == "channel", part.tags.shape == "elementwise"
    takes = {"channels", "channel_dim"} if per_channel or not elementwise else set()
    needs = takes if per_channel or part.tags.shape == "channels" else takes & {"channel_dim"}
    if part.tags.shape == "stateful" and not per_channel:  # brings its own module, which says itself what it needs
        needs = set()
    return _Target(part.id, part.build, options, frozenset(takes), frozenset(needs - set(options)), part)


def _factory_target(to: Callable[..., Any], options: dict[str, Any]) -> _Target:
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
    return _Target(label, to, options, frozenset(takes), frozenset(required & takes - set(options)))


# Whether and how ------------------------------------------------------------------------------------------------------


def _along(model: nn.Module, path: str) -> Iterator[nn.Module]:
    """The modules that hold what is at path, the model first."""
    yield model
    for name in path.split(".")[:-1]:
        model = model._modules[name]  # type: ignore[assignment]
        yield model


def _compiled(module: nn.Module) -> bool:
    names = {cls.__name__ for cls in type(module).__mro__}
    return "OptimizedModule" in names or getattr(module, "_compiled_call_impl", None) is not None


def _width(place: Place, target: _Target, found: Look) -> Width:
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
    return width if channels is None else Width((channels,), width.channel_dim, "given")


def _refusals(model: nn.Module, place: Place, target: _Target, found: Look) -> list[str]:
    """Why this place can't be changed; also fills in its width and notes."""
    old, path, out = place.old, place.paths[0], []
    place.width = _width(place, target, found)
    sizes = ", ".join(map(str, place.width.sizes))
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
    for module in {id(m): m for p in place.paths for m in _along(model, p)}.values():
        if _compiled(module) or isinstance(module, torch.jit.ScriptModule):
            kind = type(module).__name__
            out.append(f"{path} is inside a {kind}, which is compiled or scripted; swap in the original model")
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
    names = {cls.__name__ for m in _along(model, place.paths[0]) for cls in type(m).__mro__} & _SYNCHRONISED
    path = place.paths[0]
    return [f"{path} is inside {name}, which would not synchronise new parameters; swap, then wrap" for name in names]


def _home(model: nn.Module, place: Place) -> torch.Tensor | None:
    """A tensor with the dtype and device for the new module: of the old module, else of the nearest layer."""
    near_first: list[nn.Module] = [place.old]
    names = place.paths[0].split(".")
    for parent, name in zip([*_along(model, place.paths[0])][::-1], names[::-1], strict=True):
        siblings = list(parent._modules)
        at = siblings.index(name)
        order = siblings[:at][::-1] + siblings[at + 1 :]
        near_first += [child for key in order if (child := parent._modules[key]) is not None] + [parent]
    usual = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    tensors = (t for m in near_first for t in (*m.parameters(), *m.buffers()) if t.dtype in usual)
    return next(tensors, None)


def _build(model: nn.Module, place: Place, target: _Target, seed: int) -> nn.Module:
    path = place.paths[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "init", path))
        try:
            new = target.make(**target.arguments(place.width))
        except NetwrightError as error:
            raise type(error)(f"nothing was changed: {path}: {error}") from error
        except Exception as error:  # the user's own factory may raise anything
            why = f"{type(error).__name__}: {error}"
            raise BadInput(f"nothing was changed: {target.label} failed at {path}: {why}") from error
    if not isinstance(new, nn.Module):
        raise BadInput(f"nothing was changed: {target.label} returned {type(new).__name__}; expected a new nn.Module")
    if target.part is not None:
        initialise(new, seed, path)
    if (home := _home(model, place)) is not None:
        new.to(device=home.device, dtype=home.dtype)
    return new.train(place.old.training)


def _put(model: nn.Module, places: Sequence[Place]) -> None:
    done: list[tuple[nn.Module, str, Any]] = []
    try:
        for place in places:
            for parent, name in place.slots:
                done.append((parent, name, place.old))
                setattr(parent, name, place.new)
            for holder in {id(m): m for p in place.paths for m in _along(model, p)}.values():
                for name, value in _FUSED_PATH.items():
                    if vars(holder).get(name):
                        done.append((holder, name, vars(holder)[name]))
                        setattr(holder, name, value)
                        kind = type(holder).__name__
                        place.notes.append(f"{name} of {kind} set to {value}: its fused path ignores modules")
    except BaseException:
        for holder, name, before in reversed(done):
            setattr(holder, name, before)
        raise


# What was done --------------------------------------------------------------------------------------------------------


def _spell(module: nn.Module) -> str:
    text = repr(module) if next(module.children(), None) is None else f"{type(module).__name__}(...)"
    return text if len(text) <= 60 else text[:57] + "..."


def _report(places: Sequence[Place], target: _Target, found: Look) -> Report:
    sites, before, after, names = [], [], [], []
    for place in places:
        size = sum(p.numel() for p in place.new.parameters())
        names += [f"{place.paths[0]}.{name}" for name, _ in place.new.named_parameters()]
        for i, path in enumerate(place.paths):
            before += [f"{path}.{key}" for key in place.old.state_dict()]
            after += [f"{path}.{key}" for key in place.new.state_dict()]
            notes = place.notes if i == 0 else [f"shares the module of {place.paths[0]}"]
            known = place.width
            sites.append(Site(path, _spell(place.old), _spell(place.new), known.channels, known.channel_dim, known.how,
                              size if i == 0 else 0, tuple(notes)))  # fmt: skip
    gained = tuple(key for key in after if key not in set(before))
    lost = tuple(key for key in before if key not in set(after))
    return Report(tuple(sites), tuple(found.unreached), gained, lost, tuple(names))


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Rows as aligned columns; empty columns are left out."""
    cells = [["" if value is None else printable(str(value)) for value in row] for row in rows]
    shown = [i for i in range(len(head)) if any(row[i] for row in cells)]
    width = {i: max(len(row[i]) for row in [list(head), *cells]) for i in shown}
    return ["  " + "  ".join(row[i].ljust(width[i]) for i in shown).rstrip() for row in [list(head), *cells]]
