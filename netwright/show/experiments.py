"""The page of an experiment: the word on it, its predicates, its figure, its table, and what it was run with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from netwright.bench.experiment import ExperimentResult
from netwright.bench.table import Word, ranged
from netwright.core import __version__, catalogue
from netwright.corpus.papers import reference_line
from netwright.show import canvas, words
from netwright.show.canvas import MUTED, linear, marks, panel, settings
from netwright.show.place import environment, formula

WIDTH, HEIGHT = 440, 280
COLOURS = {"reproduced": "#1a7f4b", "not reproduced": "#b3261e", "cannot tell": "#6b6b6b"}
DOT, LINE, THEORY = "#7aa6d8", "#1f5fa8", "#b3261e"


def page(result: ExperimentResult, part: Any = None) -> str:
    """One HTML document that loads nothing. part: of the catalogue by default."""
    part = catalogue.get(result.experiment) if part is None else part
    drawn = canvas.svg(figure(result, part), "figure", f"{part.figure.y} over {part.figure.x}") if result.rows else ""
    return (
        environment()
        .get_template("experiment.html")
        .render(
            title=part.name,
            version=__version__,
            result=result,
            lead=part.summary,
            paper=reference_line(part.paper),
            formula=formula(part.formula),
            colour=COLOURS[result.word],
            colours=COLOURS,
            words=[_word(word) for word in result.words],
            controls=[{"text": c.text, "breaks": words.join(list(c.breaks))} for c in part.controls],
            figure=Markup(drawn),
            columns=[*result.axes, "seed", *part.gives],
            rows=[[_cell(row.get(name)) for name in (*result.axes, "seed", *part.gives)] for row in result.rows],
            conditions=_conditions(result),
            deviations=part.deviations,
        )
    )


def _word(word: Word) -> dict[str, Any]:
    return {
        "name": word.name,
        "text": word.text,
        "where": word.where,
        "word": word.word,
        "reason": word.reason,
        "range": ranged(word.inside),
    }


def _cell(value: Any) -> str:
    return "did not occur" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _conditions(result: ExperimentResult) -> list[tuple[str, str]]:
    axes = "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in result.axes.items())
    options = ", ".join(f"{name}={value}" for name, value in result.options.items())
    return [
        ("size", result.size),
        ("grid", axes),
        ("seeds", str(len(result.seeds))),
        ("options", options or "none"),
        ("run again", result.command),
        ("torch", result.environment.get("torch", "?")),
        ("processor", result.environment.get("cpu", "?")),
    ]


@settings()
def figure(result: ExperimentResult, part: Any) -> Figure:
    """y over x of the stored table alone: a dot a cell, their means joined, theory where there is one."""
    drawn = part.figure
    made, axes = panel(WIDTH, HEIGHT, left=58, top=26, bottom=44)
    cells = [(row[drawn.x], row[drawn.y]) for row in result.rows if row[drawn.y] is not None]
    marks(axes, cells, "o", DOT, 4, {"alpha": 0.7})
    middle = [(x, _mean([y for at, y in cells if at == x])) for x in dict.fromkeys(x for x, _ in cells)]
    marks(axes, middle, "o", LINE, 7, {"ls": "-", "lw": 1.5, "zorder": 4})
    if drawn.theory is not None:
        axes.plot([x for x, _ in middle], [drawn.theory(x) for x, _ in middle], color=THEORY, ls="--", lw=1.2, zorder=3)
    if drawn.scale != "linear":
        _powers(axes, "x", [x for x, _ in cells])
    if drawn.scale == "log-log":
        _powers(axes, "y", [y for _, y in cells if y > 0])
    else:
        linear(axes, "y")
    canvas.label(axes, drawn.x, drawn.label or drawn.y)
    return made


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _powers(axes: Any, which: str, values: Sequence[float]) -> None:
    """A logarithmic axis with room on both sides, marked at the values where these are few."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    getattr(axes, f"set_{which}scale")("log")
    lo, hi = min(values), max(values)
    getattr(axes, f"set_{which}lim")(lo / 1.25, hi * 1.25)
    axis, few = getattr(axes, f"{which}axis"), sorted(set(values))
    axis.set_major_locator(FixedLocator(few) if len(few) <= 6 else LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_tick_params(labelcolor=MUTED)


def told(result: ExperimentResult) -> list[str]:
    """The result for a terminal."""
    lines = [f"{result.experiment}, size {result.size}, {len(result.seeds)} seeds: {result.word}."]
    lines += [f"  {word.name}: {word.word}. {word.reason}" for word in result.words]
    lines += [f"note: {text}" for text in result.notes]
    lines += [f"failed: {text}" for text in result.failures[:8]]
    more = len(result.failures) - 8
    return [*lines, f"failed: {more} more"] if more > 0 else lines


def plain(result: ExperimentResult) -> dict[str, Any]:
    """The result as plain data, "schema": 1: what evidence/experiments holds."""
    return {
        "schema": 1,
        "part": result.experiment,
        "size": result.size,
        "word": result.word,
        "predicates": [_plain_word(word) for word in result.words],
        "axes": {name: list(values) for name, values in result.axes.items()},
        "options": dict(result.options),
        "seeds": len(result.seeds),
        "rows": [dict(row) for row in result.rows],
        "failures": list(result.failures),
        "notes": list(result.notes),
        "fingerprints": dict(sorted(result.fingerprints.items())),
        "environment": dict(result.environment),
        "command": result.command,
    }


def _plain_word(word: Word) -> Mapping[str, Any]:
    finite = [edge if math.isfinite(edge) else None for edge in word.inside]
    return {
        "name": word.name,
        "text": word.text,
        "where": word.where,
        "inside": finite,
        "word": word.word,
        "reason": word.reason,
        "mean": word.mean,
        "interval": word.interval,
        "values": {str(seed): value for seed, value in word.values.items()},
    }
