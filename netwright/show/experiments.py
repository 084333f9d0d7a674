"""The page of an experiment: the word on it, its predicates, its figure, its table, and what it was run with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from netwright.bench.experiment import ExperimentResult
from netwright.bench.table import Table, Word, in_short, lies, ranged
from netwright.core import __version__, catalogue
from netwright.corpus.papers import reference_line
from netwright.show import canvas, words
from netwright.show.canvas import HUES, MARKERS, MUTED, linear, marks, panel, settings
from netwright.show.place import environment, formula

WIDTH, HEIGHT = 440, 280
COLOURS = {"reproduced": "#1a7f4b", "not reproduced": "#b3261e", "cannot tell": "#6b6b6b"}
DOT, LINE, THEORY = "#7aa6d8", "#1f5fa8", "#b3261e"
#: The bench's word on an arm -> its sign and colour.
SHADES = {"better": "#1a7f4b", "worse": "#b3261e", "equivalent": "#3165bc", "cannot tell": "#6b6b6b", "not comparable": "#b19535"}
LOOKS = {word: (words.GLYPHS[word], shade) for word, shade in SHADES.items()} | {"not run": ("·", "#9aa0aa")}


def page(result: ExperimentResult, part: Any = None) -> str:
    """One HTML document that loads nothing. part: of the catalogue by default."""
    part = catalogue.get(result.experiment) if part is None else part
    drawn, title = _drawn(result, part)
    axes = list(result.axes)
    studied = [*axes, *ARM], [_arm(arm, axes) for arm in result.table.arms]
    columns, rows = studied if result.table.arms else _cells(result, part)
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
            controls=[{"text": c.text, "what": _what(c)} for c in part.controls],
            figure=Markup(canvas.svg(drawn, "figure", title)) if drawn else "",
            studies=bool(result.table.arms),
            columns=columns,
            rows=rows,
            conditions=_conditions(result),
            deviations=part.deviations,
        )
    )


def _drawn(result: ExperimentResult, part: Any) -> tuple[Figure | None, str]:
    """The figure of the stored table alone, and what it is."""
    if result.table.points and not part.gives:
        return matrix(result.table), "the bench's word on every arm at every point"
    return (figure(result, part), f"{part.figure.y} over {part.figure.x}") if result.rows else (None, "")


def _what(control: Any) -> str:
    """ "breaks rate and lazy", "makes accuracy hold"."""
    breaks = [f"breaks {words.join(list(control.breaks))}"] if control.breaks else []
    return " and ".join(breaks + ([f"makes {words.join(list(control.makes))} hold"] if control.makes else []))


def _cells(result: ExperimentResult, part: Any) -> tuple[list[str], list[list[str]]]:
    columns = [*result.axes, "seed", *part.gives]
    return columns, [[_cell(row.get(name)) for name in columns] for row in result.rows]


#: Of the table of a study, after its axes.
ARM: tuple[str, ...] = ("arm", "score [95 %]", "difference", "word", "against the control", "n", "failed")
ARM += ("widths", "parameters", "step time", "memory, MiB")


def _arm(arm: Mapping[str, Any], axes: Sequence[str]) -> list[str]:
    """A row an arm: its score, how it differs from the baseline, the word, and what it costs."""
    costs = (
        "-".join(map(str, arm["widths"] or ())) or "–",
        "–" if arm["params"] is None else f"{arm['params']:,.0f}",
        "–" if arm["step"] is None else f"{arm['step']:.2f}",
        "–" if arm["memory"] is None else f"{arm['memory'] / 2**20:.2f}",
    )
    score = _between(arm["mean"], arm["interval"], ".4f")
    difference = _between(arm["difference"], arm["difference_interval"], "+.4f")
    told = [arm["arm"], score, difference, arm["verdict"], arm["against_control"] or "–", str(arm["n"]), str(arm["failed"])]
    return [*(str(arm[axis]) for axis in axes), *told, *costs]


def _between(middle: float | None, interval: Sequence[float] | None, form: str) -> str:
    if middle is None:
        return "–"
    return f"{middle:{form}}" + (f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else "")


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
    axes = "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in result.axes.items()) or "one point"
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
    """y over x of the table: a dot a cell, their means joined, theory where there is one; a colour a value of `by`."""
    drawn = part.figure
    key = 180 if drawn.by else 0  # the room of the legend
    made, axes = panel(WIDTH + key, HEIGHT + key // 3, left=58, right=10 + key, top=26, bottom=44)
    found = [row for row in result.rows if row[drawn.y] is not None]
    groups = list(dict.fromkeys(row[drawn.by] for row in found)) if drawn.by else [None]
    for i, group in enumerate(groups):
        cells = [(row[drawn.x], row[drawn.y]) for row in found if group is None or row[drawn.by] == group]
        dot, line = (DOT, LINE) if group is None else (HUES[i % len(HUES)],) * 2
        marks(axes, cells, "o", dot, 4, {"alpha": 0.7})
        middle = [(x, _mean([y for at, y in cells if at == x])) for x in dict.fromkeys(x for x, _ in cells)]
        marks(axes, middle, MARKERS[i % len(MARKERS)], line, 7, {"ls": "-", "lw": 1.5, "zorder": 4, "label": str(group)})
    if drawn.by:
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.05), fontsize=9, frameon=False, labelcolor=MUTED)
    xs, ys = [row[drawn.x] for row in found], [row[drawn.y] for row in found]
    if drawn.theory is not None:
        axes.plot(sorted(set(xs)), [drawn.theory(x) for x in sorted(set(xs))], color=THEORY, ls="--", lw=1.2, zorder=3)
    if drawn.scale != "linear":
        _powers(axes, "x", xs)
    if drawn.scale == "log-log":
        _powers(axes, "y", [y for y in ys if y > 0])
    else:
        linear(axes, "y")
    canvas.label(axes, drawn.x, drawn.label or drawn.y)
    return made


@settings()
def matrix(table: Table) -> Figure:
    """The word on every arm (a column) at every point (a row); where points have one arm each, that arm in the row's name."""
    judged = [arm for arm in table.arms if arm["verdict"] not in ("baseline", "control")]
    at = [[arm for arm in judged if lies(arm, point)] for point in table.points]
    names = {tuple(arm["arm"] for arm in arms) for arms in at if arms}
    heads = list(names.pop()) if len(names) == 1 else [""] * max((len(arms) for arms in at), default=1)
    rows = [words.shorten(in_short(point), 48) for point in table.points]
    left, top = 14 + 6.4 * max(map(len, rows), default=4), 16 + 5.2 * max((len(head) for head in heads), default=0)
    columns, lines = max(len(heads), 1), max(len(rows), len(LOOKS))  # the key beside it has a line a word
    made, axes = panel(left + 44 * columns + 150, top + 22 * lines + 12, left, 150, top, 12)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(lines - 0.5, -0.5))
    axes.grid(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(heads)), heads, rotation=60, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for y, arms in enumerate(at):
        for x in range(len(heads)):
            word = arms[x]["verdict"] if x < len(arms) else "not run"
            glyph, colour = LOOKS.get(word, LOOKS["not run"])
            axes.text(x, y, glyph, color=colour, ha="center", va="center", fontsize=12, fontweight="bold")
    for i, (word, (glyph, colour)) in enumerate(LOOKS.items()):
        place = (columns - 0.2, i)
        axes.annotate(f"{glyph}  {word}", place, color=colour, fontsize=10, va="center", annotation_clip=False)
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
    return [*lines, *_listed("failed", result.failures), *_listed("not run", result.missing)]


def _listed(what: str, texts: Sequence[str], most: int = 8) -> list[str]:
    more = len(texts) - most
    return [f"{what}: {text}" for text in texts[:most]] + ([f"{what}: {more} more"] if more > 0 else [])


def plain(result: ExperimentResult) -> dict[str, Any]:
    """The result as plain data, "schema": 1: what evidence/experiments holds."""
    studies = {"arms": [dict(arm) for arm in result.table.arms], "studies": [dict(entry) for entry in result.studies]}
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
        **(studies if result.studies else {}),
        "failures": list(result.failures),
        "missing": list(result.missing),
        "notes": list(result.notes),
        "fingerprints": dict(sorted(result.fingerprints.items())),
        "environment": dict(result.environment),
        "command": result.command,
    }


def _plain_word(word: Word) -> Mapping[str, Any]:
    finite = [None if edge in (math.inf, -math.inf) else edge for edge in word.inside]
    return {
        "name": word.name,
        "text": word.text,
        "where": word.where,
        "inside": finite,
        "word": word.word,
        "reason": word.reason,
        "mean": word.mean,
        "interval": word.interval,
        "values": {str(what): value for what, value in word.values.items()},
    }


def markdown(record: Mapping[str, Any], part: Any) -> str:
    """A result as plain data as a page of Markdown: the words, then the table, an arm or a cell a line."""
    lines = [
        f"# {part.name}: {record['word']}",
        "",
        f"Written by `python evidence/commands/experiments.py`; do not edit. {part.summary}",
        "",
        f"{reference_line(part.paper)} Size {record['size']}, {record['seeds']} seeds: `{record['command']}`.",
        "",
        *_lines(
            ("predicate", "the finding says", "range", "word", "measured"),
            (
                (f"`{w['name']}`", w["text"], ranged(_edges(w["inside"])), f"**{w['word']}**", w["reason"])
                for w in record["predicates"]
            ),
        ),
    ]
    axes = list(record["axes"])
    if record.get("arms"):
        lines += ["", *_lines((*axes, *ARM), (_arm(arm, axes) for arm in record["arms"]))]
        lines += ["", "Step time is of a training step, over that of the first arm of its study; memory is its peak."]
    elif record["rows"]:
        names = list(record["rows"][0])
        lines += ["", *_lines(names, ([_cell(row[name]) for name in names] for row in record["rows"]))]
    for said, what in (("Failed", "failures"), ("Not run", "missing"), ("To know", "notes")):
        if record.get(what):
            lines += ["", f"{said}: {'; '.join(record[what])}."]
    env = record["environment"]
    return "\n".join([*lines, "", f"torch {env.get('torch', '?')}, {env.get('cpu', '?')}, one thread a run.", ""])


def _edges(inside: Sequence[Any]) -> tuple[Any, ...]:
    """The range that plain() wrote: JSON has no infinity."""
    ends = (-math.inf, math.inf)
    return tuple(ends[i] if edge is None else edge for i, edge in enumerate(inside))


def _lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *body]
