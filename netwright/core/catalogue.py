"""The catalogue: walks the wings on first need, refuses duplicates, looks names up.

Discovery is the walk: `netwright/<wing>/_kind.py` names a kind, a file under `netwright/<wing>/<family>/` declares PART, or
PARTS for a collection; installed distributions add theirs through the entry-point group `netwright.parts`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from netwright.core import moved
from netwright.core.errors import BadInput, NetwrightError, UnknownName, unknown
from netwright.core.guard import foreign
from netwright.core.kind import TRAIN, Kind
from netwright.core.part import Part

GROUP = "netwright.parts"
ROOT = Path(__file__).parents[1]
_broken: dict[str, str] = {}


@cache
def kinds() -> dict[str, Kind]:
    """Every kind by name, found by walking the wings."""
    wings = sorted(path.parent.name for path in ROOT.glob("*/_kind.py"))
    found = [importlib.import_module(f"netwright.{wing}._kind").KIND for wing in wings]
    return {kind.name: kind for kind in found}


def _once() -> dict[str, str]:
    """Name of a former kind -> the kind its parts belong to now."""
    return {former: kind.name for kind in kinds().values() for former in kind.once}


def kind_at(place: str) -> str:
    """The name of the one kind whose parts act at this place of netwright.core.kind."""
    (found,) = (kind.name for kind in kinds().values() if kind.place == place)
    return found


def kind_with(slot: str) -> str | None:
    """The name of the kind whose parts fill this slot of every run; None where it is a slot of nets or tasks."""
    return next((kind.name for kind in kinds().values() if slot in kind.slots and kind.place == TRAIN), None)


def usual(slot: str) -> Part:
    """The part that fills this slot of a run where a task names none."""
    return next(part for part in _index().values() if slot in part.slots() and part.usual)


def first_id(part_id: str) -> str:
    """The id a part had before its kind was another's: identities that files hold rest on it."""
    part = get(part_id)
    return next((f"{former}/{part.name}" for former in kinds()[part.kind].once if former in part.slots()), part.id)


def contracts(kind: str) -> tuple[str, ...]:
    """Modules whose CHECKS are the contract of a kind, the common ones first."""
    if kind not in kinds():
        raise unknown("kind", kind, kinds())
    return ("netwright.contract.every", f"netwright.{kinds()[kind].folder}._contract")


def declared(module: Any) -> tuple[Part, ...]:
    """What a module declares: PART, or PARTS."""
    if hasattr(module, "PARTS"):
        return tuple(module.PARTS)
    return (module.PART,) if hasattr(module, "PART") else ()


def _house() -> Iterable[Part]:
    for kind in kinds().values():
        folder = ROOT / kind.folder
        for path in sorted(folder.glob("*/*.py")):
            if path.name.startswith("_"):
                continue
            try:
                module = importlib.import_module(f"netwright.{kind.folder}.{path.parent.name}.{path.stem}")
                if not (parts := declared(module)):
                    raise BadInput("declares neither PART nor PARTS")
            except Exception as error:  # one file that can't be read takes nothing with it but what is built from it
                _leave_out(str(path.relative_to(ROOT.parent)), f"{type(error).__name__}: {error}")
                continue
            yield from parts


def _leave_out(what: str, why: str) -> None:
    """Keep the reason for broken(), and say it in one line."""
    _broken[what] = " ".join(why.split())
    print(f"netwright: {what} is left out: {_broken[what]}", file=sys.stderr)


def _plugins() -> Iterable[Part]:
    for entry in importlib.metadata.entry_points(group=GROUP):
        origin = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.name
        try:
            with foreign(f"the plug-in {entry.name}", importing=True):
                value = entry.load()
                parts = (value,) if isinstance(value, Part) else declared(value) if inspect.ismodule(value) else tuple(value)
            for part in parts:
                if not isinstance(part, Part):
                    raise BadInput(f"{part!r} is not a Part")
                object.__setattr__(part, "origin", origin)
                yield part
        except Exception as error:  # a plug-in's own code: whatever it raises must not take the house down
            _broken[f"{entry.name} ({origin})"] = f"{type(error).__name__}: {error}"


@cache
def _index() -> dict[str, Part]:
    index: dict[str, Part] = {}
    for part in _house():
        if part.id in index:
            raise NetwrightError(f"{part.id} is declared twice: {index[part.id].module} and {part.module}")
        index[part.id] = part
    for part in _plugins():
        if part.id in index:
            _broken[part.id] = f"{part.origin} declares {part.id}, which {index[part.id].origin} has; the newcomer is left out"
        else:
            index[part.id] = part
    while lacking := {p.id: u for p in index.values() for u in p.uses if u not in index and _broken}:
        for name, used in lacking.items():
            _leave_out(name, f"it uses {used}, which is not there")
            del index[name]
    _refuse_cycles(index)
    return index


def _refuse_cycles(index: Mapping[str, Part]) -> None:
    state: dict[str, int] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if state.get(name) == 2:
            return
        if state.get(name) == 1:
            raise NetwrightError(f"parts use each other in a circle: {' -> '.join((*trail, name))}")
        state[name] = 1
        for used in index[name].uses:
            if used not in index:
                raise unknown("part", used, index, owner=f"{name} (uses=)")
            visit(used, (*trail, name))
        state[name] = 2

    for name in index:
        visit(name, ())


def broken() -> dict[str, str]:
    """Files and plug-ins that could not be loaded: name -> what happened. The rest of the catalogue is unaffected."""
    _index()
    return dict(_broken)


def parts(kind: str | None = None, search: str = "") -> list[Part]:
    """All parts, or those of one kind, or those whose id or summary contains the text; sorted by id."""
    if kind is not None and kind not in kinds() and kind not in _once():
        raise unknown("kind", kind, kinds())
    text = search.lower()
    rows = [p for p in _index().values() if kind in (None, p.kind) or kind in p.slots() and p.kind == _once().get(kind)]
    return sorted((p for p in rows if text in f"{p.id} {p.summary} {p.paper.slug} {p.paper.title}".lower()), key=lambda p: p.id)


def get(name: str, kind: str | None = None) -> Part:
    """The part with this id ("activation/golu"), or with this name where only one kind has it ("golu").

    Raises UnknownName with near names, or where the short name is ambiguous.
    """
    if not isinstance(name, str):
        raise BadInput(f"a part is asked for by its name, a string; given {name!r}")
    index, kind = _index(), _once().get(kind or "", kind)
    former, _, rest = name.partition("/")
    if rest and former in _once():
        name = f"{_once()[former]}/{rest}"
    if name in index and kind in (None, index[name].kind):
        return index[name]
    hits = [p for p in index.values() if p.name == name and kind in (None, p.kind)]
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise UnknownName(f"{name!r} is ambiguous; write {' or '.join(p.id for p in hits)}")
    raise unknown(kind or "part", name, [p.id for p in index.values() if kind in (None, p.kind)])


def travelling(part: Part) -> Part | str:
    """A part as it is pickled: of the catalogue by its id, another as it is."""
    return part.id if _index().get(part.id) is part else part


def arrived(part: Part | str) -> Any:
    """The inverse of travelling."""
    return get(part) if isinstance(part, str) else part


def parse(spec: str, kind: str | None = None) -> tuple[Part, dict[str, Any]]:
    """ "id:key=value,key=value" as the part and its options. Values are numbers, true, false, none, or text."""
    name, _, tail = spec.partition(":")
    return get(name.strip(), kind), parse_options(tail, spec)


def parse_options(tail: str, spec: str = "") -> dict[str, Any]:
    """ "key=value,key=value" as a dict."""
    options: dict[str, Any] = {}
    for item in filter(None, (piece.strip() for piece in tail.split(","))):
        key, eq, value = item.partition("=")
        if not eq or not key.strip():
            raise BadInput(f"{spec or tail!r}: {item!r} is not key=value")
        options[key.strip()] = _value(value.strip())
    return options


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def make(spec: str, /, *sizes: int, **options: Any) -> Any:
    """Build a part: make("golu") is an nn.Module; make("swish:beta=2", channels=8) takes options either way.

    sizes: of a layer or a norm, in order, as in make("kan", 64, 64).
    """
    part, given = parse(spec)
    return part.build(*sizes, **(given | options))


def module_getattr(kind: str, package: str, *interfaces: str) -> Callable[[str], Any]:
    """The `__getattr__` of a wing: what its `_kind.py` and `interfaces` define (netwright.layers.Tags), and classes of parts."""

    def __getattr__(name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        for module in ("_kind", *interfaces):
            interface = importlib.import_module(f"{package}.{module}")
            if getattr(getattr(interface, name, None), "__module__", "") == interface.__name__:
                return getattr(interface, name)
        classes = {part.class_name: part for part in parts(kind) if part.class_name}
        if name not in classes:
            if package.removeprefix("netwright.") in moved.MOVED:
                return moved.former(package, name, level=3)
            raise AttributeError(str(unknown(f"{kind} class", name, classes, owner=package)))
        return classes[name].module_type()

    return __getattr__


def cls_name(part: Part) -> str:
    """The class name a part is importable under, or ''."""
    return part.class_name
