"""What a swap did, as data and as text, and the way back."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, final

import torch
from torch import nn

from netwright.core.errors import BadInput, printable
from netwright.surgery.calls import Unreached

ABSENT: Any = object()
SHOWN = 8  # names of a long list


@final
@dataclass(frozen=True)
class Attribute:
    """One attribute of one module, before and after; ABSENT before: it was not there."""

    holder: nn.Module
    name: str
    before: Any
    after: Any

    def undo(self) -> None:
        if self.before is ABSENT or (self.name in self.holder._modules and not isinstance(self.before, nn.Module)):
            delattr(self.holder, self.name)  # a function can't be put over a submodule
        if self.before is not ABSENT:
            setattr(self.holder, self.name, self.before)

    def stands(self) -> bool:
        now = getattr(self.holder, self.name, ABSENT)
        return now is self.after or (isinstance(self.after, (int, bool)) and now == self.after)


@final
@dataclass
class Journal:
    """Attributes that were set, in order, so that they can be set back."""

    made: list[Attribute] = field(default_factory=list)

    def set(self, holder: nn.Module, name: str, value: Any) -> None:
        before = getattr(holder, name, ABSENT)
        if not isinstance(before, nn.Module) and isinstance(value, nn.Module) and name in vars(holder):
            delattr(holder, name)
        self.made.append(Attribute(holder, name, before, value))
        setattr(holder, name, value)

    def undo(self) -> None:
        for change in reversed(self.made):
            change.undo()
        self.made.clear()


@final
@dataclass(frozen=True)
class Back:
    """An old module, the new one in its place, and the dtype and device that were around them."""

    path: str
    old: nn.Module
    new: nn.Module
    home: tuple[torch.dtype, torch.device] | None


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
    shape: tuple[int, ...] | None = None  # of the first input the example brought there
    variance_ratio: float | None = None  # variance of the new outputs / of the old, for the inputs of the example
    fit_error: float | None = None  # with init_from="old": see netwright.surgery.fitting
    replaced: int = 0  # parameters of the old module


@final
@dataclass(frozen=True)
class Report:
    """What a swap changed and what it could not reach. `print(report)` shows it as tables.

    It keeps the old modules, for `restore`.
    """

    sites: tuple[Site, ...]
    unreached: tuple[Unreached, ...]
    gained: tuple[str, ...]  # keys the state_dict has now and had not
    lost: tuple[str, ...]  # keys the state_dict had and has no longer
    parameter_names: tuple[str, ...]  # every parameter of the new modules
    drift: float | None = None  # RMS(new output - old output) / RMS(old output) of the whole model on the example
    _journal: Journal = field(default_factory=Journal, repr=False, compare=False)
    _backs: tuple[Back, ...] = field(default=(), repr=False, compare=False)

    @property
    def added_parameters(self) -> int:
        """Elements of all parameters of the new modules."""
        return sum(site.parameters for site in self.sites)

    @property
    def replaced_parameters(self) -> int:
        """Elements of all parameters of the old modules."""
        return sum(site.replaced for site in self.sites)

    def parameters(self, model: nn.Module) -> list[nn.Parameter]:
        """The new modules' parameters, for an optimizer made before the swap (optimizer.add_param_group).

        Raises BadInput where the model hasn't got them (it was wrapped or changed since).
        """
        try:
            return [model.get_parameter(name) for name in self.parameter_names]
        except AttributeError as error:
            raise BadInput(f"this is not the model as it was swapped: {error}; give that model, unwrapped") from None

    def restore(self, model: nn.Module) -> None:
        """Put the old modules back, with the parameters they had, and the forwards of traced modules.

        They follow the model's device, dtype and mode if those changed since. Raises BadInput, and changes nothing, where
        this is another model (a copy, say), or where something else stands in a place by now.
        """
        inside = {id(module) for module in model.modules()}
        for change in self._journal.made:
            if id(change.holder) not in inside:
                raise BadInput(f"this is not the model that was swapped: it has not got the {type(change.holder).__name__}")
            last = [c for c in self._journal.made if c.holder is change.holder and c.name == change.name][-1]
            if not last.stands():
                kind = type(change.holder).__name__
                raise BadInput(f"{change.name} of {kind} was changed since this swap, or restored; restore later swaps first")
        if not self._journal.made:
            raise BadInput("this swap was restored already")
        for back in self._backs:
            now = surroundings(model, back.path, back.new)
            if now is not None and now != back.home:
                back.old.to(dtype=now[0], device=now[1])
            back.old.train(back.new.training)
        self._journal.undo()

    def to_json(self) -> str:
        """The report as a JSON object. Numbers that are not finite are null."""
        sites = [
            {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(s).items()} for s in self.sites
        ]
        whole = {
            "sites": sites,
            "unreached": [asdict(u) for u in self.unreached],
            "gained": self.gained,
            "lost": self.lost,
            "parameter_names": self.parameter_names,
            "added_parameters": self.added_parameters,
            "replaced_parameters": self.replaced_parameters,
            "drift": self.drift if self.drift is not None and math.isfinite(self.drift) else None,
        }
        return json.dumps(whole, indent=1, allow_nan=False)

    def __str__(self) -> str:
        gone = self.replaced_parameters
        count = f"{self.added_parameters} parameters where {gone} were" if gone else f"{self.added_parameters} parameters added"
        lines = [f"{len(self.sites)} places changed, {count}"]
        if self.drift is not None:
            lines.append(
                f"output on the example changed by {self.drift:.3g} (RMS of the change / RMS of the old output, in evaluation)"
            )
        rows = [_row(site) for site in self.sites]
        same = [i for i in (1, 2, 3, 4, 6, 7, 8) if len(rows) > 1 and len({row[i] for row in rows}) == 1]
        if said := [f"{_HEAD[i]} {printable(str(rows[0][i]))}" for i in same if rows[0][i]]:
            lines.append(f"at every place: {'; '.join(said)}")
        lines += ["", *_table(_HEAD, [["" if i in same else cell for i, cell in enumerate(row)] for row in rows])]
        if any(site.variance_ratio is not None for site in self.sites):
            lines.append("  variance: of the new outputs / of the old ones, for the inputs the example brought there")
        if any(site.fit_error is not None for site in self.sites):
            lines.append("  fit error: RMS distance to the old function, weighted as N(0, 1), on [-5, 5]")
        if self.lost:
            lines += ["", f"state_dict keys lost: {_listed(self.lost)}"]
        if self.gained:
            lines += ["", f"state_dict keys gained: {_listed(self.gained)}"]
        if self.parameter_names:
            lines += ["", f"new parameters, for an optimizer made before: {_listed(self.parameter_names)}"]
            lines += ["  optimizer.add_param_group({'params': report.parameters(model)})"]
        if self.unreached:
            calls = [(u.path or "(the model)", u.module, u.function, u.how, u.why) for u in self.unreached]
            lines += [
                "",
                f"{len(calls)} activations left, which are calls and no submodules (functional=True changes those it can trace):",
            ]
            lines += _table(("path", "module", "function", "found by", "why not changed"), calls)
        return "\n".join(lines)


_HEAD = ("path", "old", "new", "input shape", "channels", "variance", "fit error", "parameters", "known from", "notes")


def _row(site: Site) -> tuple[Any, ...]:
    channels = "" if site.channels is None else f"{site.channels} (dim {site.channel_dim})"
    shape = "" if site.shape is None else "x".join(map(str, site.shape))
    numbers = ["" if n is None else f"{n:.3g}" for n in (site.variance_ratio, site.fit_error)]
    numbers += ["" if not site.parameters else str(site.parameters), site.known]
    return (site.path, site.old, site.new, shape, channels, *numbers, "; ".join(site.notes))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN + 1 else ""
    return ", ".join(map(printable, names if not more else names[:SHOWN])) + more


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Rows as aligned columns; empty columns are left out."""
    cells = [["" if value is None else printable(str(value)) for value in row] for row in rows]
    shown = [i for i in range(len(head)) if any(row[i] for row in cells)]
    width = {i: max(len(row[i]) for row in [list(head), *cells]) for i in shown}
    return ["  " + "  ".join(row[i].ljust(width[i]) for i in shown).rstrip() for row in [list(head), *cells]]


def along(model: nn.Module, path: str) -> list[nn.Module]:
    """The modules that hold what is at path, the model first."""
    holders = [model]
    for name in path.split(".")[:-1]:
        holders.append(holders[-1]._modules[name])  # type: ignore[arg-type]
    return holders


def surroundings(model: nn.Module, path: str, module: nn.Module) -> tuple[torch.dtype, torch.device] | None:
    """The dtype and device of module, which is at path, or else of the nearest layer that has any."""
    near_first: list[nn.Module] = [module]
    for parent, name in zip(along(model, path)[::-1], path.split(".")[::-1], strict=True):
        siblings = list(parent._modules)
        at = siblings.index(name)
        order = siblings[:at][::-1] + siblings[at + 1 :]
        near_first += [child for key in order if (child := parent._modules[key]) is not None] + [parent]
    usual = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    tensors = (t for m in near_first for t in (*m.parameters(), *m.buffers()) if t.dtype in usual)
    return next(((t.dtype, t.device) for t in tensors), None)
