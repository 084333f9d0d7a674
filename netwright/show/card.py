"""The card of a part: what it is, where it comes from, what holds of it, what it costs, how far it has been checked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from netwright.core import catalogue
from netwright.core.errors import BadInput
from netwright.core.kind import Facts
from netwright.core.part import Part
from netwright.core.writing import write_whole
from netwright.corpus.papers import reference_line


def tags_of(part: Part) -> dict[str, Any]:
    """A part's tags as plain JSON values, defaults left out."""
    if not dataclasses.is_dataclass(part.tags):
        return {}
    out = {}
    for f in dataclasses.fields(part.tags):
        value = getattr(part.tags, f.name)
        default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        if value != default or f.name in ("shape", "family"):
            out[f.name] = sorted(value) if isinstance(value, frozenset) else [*value] if isinstance(value, tuple) else value
    return out


@final
@dataclass(frozen=True)
class Card:
    """One part for a person: str(card) is text; save() writes formula and curve as a picture."""

    part: Part
    status: str
    facts: Facts = Facts()

    @property
    def curve(self) -> tuple[tuple[float, float, float], ...]:
        """(x, f(x), f'(x)), where a curve says what the part is; else ()."""
        return self.facts.curve

    def to_json(self) -> dict[str, Any]:
        """Plain data, "schema": 1."""
        p = self.part
        return {
            "schema": 1,
            "id": p.id,
            "kind": p.kind,
            "summary": p.summary,
            "formula": p.formula,
            "status": self.status,
            "paper": reference_line(p.paper),
            "tags": tags_of(p),
            **dict(self.facts.rows),
            "module": p.module,
            "origin": p.origin,
            "options": [
                {"name": o.name, "default": _json(o.default), "help": o.help, "allowed": _json(o.allowed)} for o in p.options
            ],
            "claims": [{"name": c.name, "text": c.text, "where": c.where} for c in p.claims],
            "deviations": list(p.deviations),
        }

    def __str__(self) -> str:
        p = self.part
        lines = [f"{p.id}  ({self.status})", p.summary]
        if p.formula:
            lines.append(f"formula   {p.formula}")
        lines.append(f"paper     {reference_line(p.paper)}")
        if tags := tags_of(p):
            lines.append("tags      " + ", ".join(k if v is True else f"{k}={v}" for k, v in tags.items()))
        lines += [f"{text:<9} {value}" for text, value in self.facts.rows]
        for o in p.options:
            allowed = f" of {', '.join(map(str, o.allowed))}" if o.allowed else ""
            shown = "''" if o.default == "" else o.default
            lines.append(f"option    {o.name}={shown}{allowed}{'  ' + o.help if o.help else ''}")
        lines += [f"claim     {c.text}{' (' + c.where + ')' if c.where else ''}" for c in p.claims]
        lines += [f"departs   {d}" for d in p.deviations]
        lines += [f"cost      {term}: {value}" for term, value in self.facts.costs]
        if self.curve:
            lines += ["", *plot(self.curve)]
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Write formula and curve as .svg or .png. Raises BadInput for another ending, or where there is nothing to draw."""
        from netwright.show.figures import formula_svg, shapes_png, shapes_svg

        path = Path(path)
        if path.suffix == ".png" and self.curve:
            write_whole(path, shapes_png({self.part.name: self.curve}))
        elif path.suffix == ".svg" and self.curve:
            write_whole(path, shapes_svg({self.part.name: self.curve}))
        elif path.suffix == ".svg" and self.part.formula:
            write_whole(path, formula_svg(self.part.formula))
        else:
            raise BadInput(f"{path.name}: allowed endings are .svg and .png, and {self.part.id} needs a curve for .png")

    def _repr_html_(self) -> str:
        """Formula and curve in a notebook."""
        from netwright.show.figures import formula_svg, shapes_svg

        curve = shapes_svg({self.part.name: self.curve}) if self.curve else ""
        return (formula_svg(self.part.formula) if self.part.formula else "") + curve


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json(v) for v in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def plot(curve: tuple[tuple[float, float, float], ...], width: int = 61, height: int = 15) -> list[str]:
    """The curve in characters: x to the right, f(x) upwards."""
    lo, hi = min(y for _, y, _ in curve), max(y for _, y, _ in curve)
    span = (hi - lo) or 1.0
    grid = [[" "] * width for _ in range(height)]

    def row(y: float) -> int:
        return round((hi - y) / span * (height - 1))

    if lo <= 0 <= hi:
        grid[row(0.0)] = ["·"] * width
    for i in range(width):
        x, y, _ = curve[round(i / (width - 1) * (len(curve) - 1))]
        if abs(x) < (curve[-1][0] - curve[0][0]) / width / 2:
            for line in grid:
                line[i] = "·" if line[i] == " " else line[i]
        grid[row(y)][i] = "●"
    left = [f"{hi:8.3g} ", *[" " * 9] * (height - 2), f"{lo:8.3g} "]
    rows = [label + "".join(line).rstrip() for label, line in zip(left, grid, strict=True)]
    return [*rows, " " * 9 + f"{curve[0][0]:g}".ljust(width - 2) + f"{curve[-1][0]:g}"]


def card(name: str) -> Card:
    """The card of a part: card("golu"). Raises UnknownName with near names."""
    return card_of(catalogue.get(name))


def card_of(part: Part) -> Card:
    """The card of a part, which needn't be in the catalogue."""
    from netwright.corpus.status import status

    return Card(part, status(part), catalogue.kinds()[part.kind].facts(part))
