"""The figures of a report, each a function from a StudyResult to a matplotlib Figure (see canvas for SVG and PNG).

Panels are 352 pixels wide, so that three stand beside each other on a desk and one fills a telephone;
their names stand above them as text of the page.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.markers import CARETLEFTBASE, CARETRIGHTBASE
from matplotlib.patches import PathPatch
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import Affine2D

from netwright.bench.records import FAILURES, Comparison, RunRecord, StudyResult
from netwright.core.errors import slug
from netwright.show import canvas, words
from netwright.show.canvas import (
    BAND,
    BASELINE,
    HUES,
    INK,
    MARKERS,
    MUTED,
    PAPER,
    label,
    linear,
    logarithmic,
    marks,
    panel,
    settings,
)
from netwright.show.derive import limits, paired_span, ranked, score_span, selected, tuning_curve, validation

WIDTH, HEIGHT = 352, 232
MOST_LINES = 250  # learning curves drawn in one panel; more are thinned evenly

#: TeX's words that mathtext spells otherwise.
SPELLED = {"le": r"\leq", "ge": r"\geq", "lt": "<", "gt": ">", "tfrac": r"\frac"}
SPELLED |= {"lvert": r"\vert ", "rvert": r"\vert ", "lVert": r"\Vert ", "rVert": r"\Vert ", "bigl": "", "bigr": ""}
MACROS = re.compile(rf"\\({'|'.join(SPELLED)})(?![A-Za-z])")

Shape = Sequence[tuple[float, float, float]]  # (x, f, f')


def looks(names: Sequence[str], baseline: str) -> dict[str, tuple[str, str]]:
    """arm -> (colour, marker), the same in every figure; the baseline is grey."""
    others = [name for name in names if name != baseline]
    made = {name: (HUES[i % len(HUES)], MARKERS[(i + 1) % len(MARKERS)]) for i, name in enumerate(others)}
    return {name: made.get(name, (BASELINE, "o")) for name in names}


def arm_looks(result: StudyResult) -> dict[str, tuple[str, str]]:
    return looks([arm.name for arm in result.arms], result.baseline)


@settings()
def swatch(colour: str, marker: str) -> Figure:
    """The mark of an arm, for the key."""
    figure, axes = panel(22, 12, 0, 0, 0, 0)
    axes.set_axis_off()
    axes.set(xlim=(-1, 1), ylim=(-1, 1))
    axes.plot([-0.95, 0.95], [0, 0], color=colour, lw=1.6)
    marks(axes, [(0, 0)], marker, colour, 6.5)
    return figure


@settings()
def ranking(result: StudyResult, width: float = 760) -> Figure:
    """Mean test score and its interval, best arm on top; the baseline is marked and ruled through."""
    arms, look = ranked(result), arm_looks(result)
    narrow = width < 500
    letters = 20 if narrow else 42
    names = [words.shorten(words.clean(arm.name), letters) for arm in arms]
    row = 38 if narrow else 28
    left = 12 if narrow else min(7.0 * max(map(len, names), default=1) + 24, 300)
    figure, axes = panel(width, row * max(len(arms), 1) + 52, left, 12 if narrow else 200, 8, 44)
    places = words.decimals(result.delta)
    span = score_span(result.arms) or (0.0, 1.0)
    axes.set_xlim(span)
    for y, (arm, name) in enumerate(zip(arms, names, strict=True)):
        colour, marker = look[arm.name]
        based = arm.name == result.baseline
        _bar(axes, arm.interval, y, colour, span)
        if words.finite(arm.mean):
            marks(axes, [(arm.mean, y)], marker, colour, 8, {"zorder": 4})
            if based:
                axes.axvline(arm.mean, color=BASELINE, lw=1, ls=(0, (3, 3)), zorder=0.8)
        said = f"{words.number(arm.mean, places)} {words.interval(arm.interval, places)}"
        weight: dict[str, Any] = {"fontweight": "bold"} if based else {}
        behind = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.0}
        across = axes.get_yaxis_transform()
        if narrow:
            axes.annotate(name, (0, y), (0, 9), across, "offset points", color=INK, fontsize=11, **weight)
            axes.annotate(
                f"{said} n={arm.n}",
                (1, y),
                (0, 9),
                across,
                "offset points",
                color=MUTED,
                fontsize=9,
                ha="right",
                bbox=behind,
            )
        else:
            axes.annotate(
                name,
                (0, y),
                (-14, 0),
                across,
                "offset points",
                color=INK,
                fontsize=12,
                ha="right",
                va="center",
                **weight,
            )
            axes.annotate(f"{said}  n = {arm.n}", (1, y), (14, 0), across, "offset points", color=MUTED, fontsize=11, va="center")
    axes.set(ylim=(len(arms) - 0.5, -0.7 if narrow else -0.5), yticks=[])
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    linear(axes, "x", 5 if narrow else 7)
    label(axes, f"{words.measured(result)}, mean and 95 % interval ({words.direction(result)})")
    return figure


def _bar(axes: Axes, pair: tuple[float, float] | None, y: float, colour: str, span: tuple[float, float]) -> None:
    """A level interval; an arrow at the axis's end where it runs beyond."""
    if pair is None or not all(map(words.finite, pair)):
        return
    lo, hi = max(pair[0], span[0]), min(pair[1], span[1])
    axes.plot([lo, hi], [y, y], color=colour, lw=2.2, solid_capstyle="round")
    for beyond, x, arrow in ((pair[0] < span[0], lo, CARETLEFTBASE), (pair[1] > span[1], hi, CARETRIGHTBASE)):
        if beyond:
            axes.plot([x], [y], marker=arrow, color=colour, ms=6, clip_on=False, mew=0)


@settings()
def paired(result: StudyResult, comparison: Comparison, span: tuple[float, float] | None = None) -> Figure:
    """One dot a seed: score(a) - score(b); above them the mean and its interval; the band is +-delta."""
    colour, marker = arm_looks(result).get(comparison.a, (BASELINE, "o"))
    seeds = sorted(comparison.differences)
    row = 13 if len(seeds) <= 20 else 260 / len(seeds)
    figure, axes = panel(WIDTH, row * len(seeds) + 96, 50, 10, 24, 40)
    if words.finite(result.delta) and result.delta > 0:
        axes.axvspan(-result.delta, result.delta, color=BAND, lw=0, zorder=0)
    axes.axvline(0, color=MUTED, lw=1)
    kept = [(comparison.differences[s], i) for i, s in enumerate(seeds, 1) if math.isfinite(comparison.differences[s])]
    marks(axes, kept, marker, colour, 5.5)
    top = -1.0
    if comparison.interval is not None and all(map(words.finite, comparison.interval)):
        axes.plot(comparison.interval, [top, top], color=INK, lw=2.4, solid_capstyle="round")
    if words.finite(comparison.difference):
        marks(axes, [(comparison.difference, top)], "o", INK, 7.5)
    every = max(1, math.ceil(13 / row))
    axes.set_yticks(
        [top, *range(1, len(seeds) + 1, every)],
        ["mean", *(f"{'' if i else 'seed '}{s}" for i, s in enumerate(seeds[::every]))],
    )
    axes.set(ylim=(len(seeds) + 1, -2.2), xlim=span or paired_span(comparison, result.delta))
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    linear(axes, "x")
    label(axes, f"difference in {words.clean(result.metric)}")
    low, high = (comparison.b, comparison.a) if result.higher_is_better else (comparison.a, comparison.b)
    for name, x, side, form in ((low, 0.0, "left", "← {} better"), (high, 1.0, "right", "{} better →")):
        short = words.shorten(words.clean(name), 15)
        axes.annotate(
            form.replace("{}", short),
            (x, 1),
            (0, 7),
            "axes fraction",
            "offset points",
            color=MUTED,
            fontsize=9.5,
            ha=side,
        )
    return figure


@settings()
def learning(result: StudyResult, arm: str, records: Sequence[RunRecord], span: tuple[float, float] | None) -> Figure:
    """Validation score against step: every run faint, selected trials strong, a cross where a run broke off."""
    colour, _ = arm_looks(result)[arm]
    figure, axes = panel(WIDTH, HEIGHT, top=24)
    chosen = selected(result)
    faint: list[list[tuple[int, float]]] = []
    strong: list[list[tuple[int, float]]] = []
    ends: list[tuple[int, float]] = []
    for record in records[:: max(1, math.ceil(len(records) / MOST_LINES))]:
        points = [(step, value) for step, _, value in record.curve if math.isfinite(value)]
        if len(points) == 1:
            points *= 2
        if points:
            (strong if (arm, record.seed, record.trial) in chosen else faint).append(points)
            if record.state in FAILURES:
                ends.append(points[-1])
    axes.add_collection(LineCollection(faint, colors=colour, linewidths=0.8, alpha=0.28))
    axes.add_collection(LineCollection(strong, colors=colour, linewidths=1.3, alpha=0.95))
    if ends:
        axes.plot(*zip(*ends, strict=True), "x", color=INK, ms=4.5, mew=1.1, alpha=0.8)
    longest = max((record.curve[-1][0] for record in result.records if record.curve), default=1)
    axes.set(xlim=(0, longest * 1.02), ylim=span or (0, 1))
    if not faint and not strong:
        _say(axes, "no curve")
    linear(axes, "x")
    linear(axes, "y")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    label(axes, "step", f"validation {words.clean(result.metric)}")
    return figure


@settings()
def best_of(result: StudyResult, by_arm: Mapping[str, Sequence[RunRecord]]) -> Figure:
    """Expected best validation score among the first k trials, a mean over seeds, one line an arm."""
    figure, axes = panel(WIDTH, HEIGHT, top=24)
    look, longest = arm_looks(result), 1
    drawn: list[float] = []
    for arm, records in by_arm.items():
        curve, _ = tuning_curve(records, result)
        if curve:
            colour, marker = look[arm]
            marks(axes, enumerate(curve, 1), marker, colour, 6, {"ls": "-", "lw": 1.4})
            drawn, longest = drawn + curve, max(longest, len(curve))
    axes.set(ylim=limits(drawn, result.higher_is_better) or (0, 1), xlim=(0.7, longest + 0.3))
    if not drawn:
        _say(axes, "no trial has a score")
    linear(axes, "x", min(longest, 6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0f}" if v == round(v) else ""))
    linear(axes, "y")
    label(axes, "trials", f"expected best validation {words.clean(result.metric)}")
    return figure


def rates(records: Sequence[RunRecord]) -> list[float]:
    """The learning rates that were tried."""
    tried = (record.point.get("lr") for record in records)
    return [float(r) for r in tried if isinstance(r, (int, float)) and math.isfinite(r) and r > 0]


@settings()
def rate_panel(result: StudyResult, arm: str, records: Sequence[RunRecord], span: tuple[float, float] | None) -> Figure:
    """Best validation score of each run against its learning rate; filled: selected; a cross on the floor: failed."""
    colour, marker = arm_looks(result)[arm]
    figure, axes = panel(WIDTH, HEIGHT, top=24)
    all_rates, chosen = rates(result.records) or [1e-3, 1e-1], selected(result)
    logarithmic(axes, min(all_rates) / 1.25, max(all_rates) * 1.25)
    axes.set_ylim(span or (0, 1))
    linear(axes, "y")
    floor = axes.get_xaxis_transform()
    for strong in (False, True):
        done = [r for r in records if rates([r]) and ((arm, r.seed, r.trial) in chosen) is strong]
        ended = [r for r in done if r.state not in FAILURES]
        points = [(rates([r])[0], v) for r in ended if math.isfinite(v := validation(r, result.worst))]
        style: dict[str, Any] = {"zorder": 3} if strong else {"mfc": "none", "mec": colour, "mew": 0.9, "alpha": 0.55}
        marks(axes, points, marker, colour, 6.5 if strong else 5.5, style)
        bad = [rates([r])[0] for r in done if r.state in FAILURES]
        axes.plot(bad, [0.03] * len(bad), "x", color=INK, ms=5, mew=1.1, alpha=0.8, transform=floor, clip_on=False)
    label(axes, "learning rate", f"validation {words.clean(result.metric)}")
    return figure


@settings()
def against_cost(result: StudyResult, cost: str) -> Figure | None:
    """Mean test score and interval against a cost (a field of Cost); None where no arm has both."""
    look = arm_looks(result)
    known = [
        (float(value), mean, arm)
        for arm in result.arms
        if arm.cost is not None and words.finite(value := getattr(arm.cost, cost)) and words.finite(mean := arm.mean)
    ]
    if not known:
        return None
    figure, axes = panel(WIDTH, HEIGHT, top=24)
    for value, mean, arm in known:
        colour, marker = look[arm.name]
        if arm.interval is not None and all(map(words.finite, arm.interval)):
            axes.plot([value, value], arm.interval, color=colour, lw=1.6, alpha=0.8, solid_capstyle="round")
        marks(axes, [(value, mean)], marker, colour, 8, {"zorder": 4})
    axes.set_ylim(score_span([arm for *_, arm in known]))
    values = [value for value, *_ in known]
    lo, hi = min(values), max(values)
    if lo > 0 and hi / lo > 20:
        logarithmic(axes, lo / 1.4, hi * 1.4, words.seconds if cost == "step_time" else canvas.thousands)
    else:
        pad = 0.12 * (hi - lo) or 0.1 * abs(hi) or 1.0
        axes.set_xlim(lo - pad, hi + pad)
        linear(axes, "x", 4, lambda v, _: words.seconds(v) if cost == "step_time" and v > 0 else canvas.thousands(v))
    linear(axes, "y", 5)
    label(
        axes,
        {"step_time": "time of a training step", "params": "parameters"}.get(cost, cost),
        f"test {words.clean(result.metric)}",
    )
    return figure


def _shape(axes: Axes, curve: Shape, colour: str, width: float = 1.8, alpha: float = 1.0) -> None:
    x, f, slope = (np.array(column, dtype=float) for column in zip(*curve, strict=True))
    axes.plot(x, np.where(np.isfinite(f), f, np.nan), color=colour, lw=width, alpha=alpha)
    axes.plot(x, np.where(np.isfinite(slope), slope, np.nan), color=colour, lw=width * 0.75, alpha=alpha, ls=(0, (4, 2)))


def _shape_limits(curves: Sequence[Shape]) -> tuple[float, float]:
    values = [v for curve in curves for row in curve for v in row[1:] if math.isfinite(v)]
    lo, hi = (max(min(values), -6.0), min(max(values), 6.0)) if values else (0.0, 1.0)
    if hi <= lo:
        lo, hi = lo - 1, lo + 1
    return lo - 0.05 * (hi - lo), hi + 0.05 * (hi - lo)


@settings()
def shapes_figure(curves: Mapping[str, Shape], baseline: str = "", only: str = "") -> Figure:
    """f solid and f' dashed against x. `only`: that curve strong and the baseline's faint behind it."""
    figure, axes = panel(WIDTH, HEIGHT, left=38, top=24)
    look = looks(list(curves), baseline)
    axes.axhline(0, color=MUTED, lw=0.8)
    axes.axvline(0, color=MUTED, lw=0.8)
    drawn = [name for name in curves if curves[name] and (not only or name in (only, baseline))]
    for name in sorted(drawn, key=lambda name: name == only):
        behind = bool(only) and name != only
        _shape(axes, curves[name], look[name][0], 1.2 if behind else 2.0, 0.45 if behind else 1.0)
    axes.set_ylim(_shape_limits(list(curves.values())))
    axes.margins(x=0)
    linear(axes, "x")
    linear(axes, "y")
    label(axes, "x", "f(x) solid, f′(x) dashed")
    return figure


def shapes_svg(curves: Mapping[str, Shape], name: str = "shapes") -> str:
    """The shapes as an SVG file of its own."""
    return canvas.document(canvas.svg(shapes_figure(curves), slug(name), f"shape of {', '.join(curves)}", themed=False))


def shapes_png(curves: Mapping[str, Shape], scale: float = 2.0) -> bytes:
    """The shapes as a PNG on white."""
    return canvas.png(shapes_figure(curves), scale)


def formula_svg(tex: str, size: float = 18.0, name: str = "") -> str:
    """A formula (TeX without dollar signs) as an SVG for a page or a file; escaped text where mathtext cannot."""
    source = tex.strip()
    known = MACROS.sub(lambda match: SPELLED[match[1]], source)
    try:
        if not source or "$" in source.replace(r"\$", ""):
            raise ValueError("not one formula")
        with settings({"text.parse_math": True}):
            letters = TextPath((0, 0), f"${known}$", size=size, prop=FontProperties(math_fontfamily="cm"))
            box = letters.get_extents()
            width, height = box.width + 4, box.height + 4
            figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")
            place = Affine2D().translate(2 - box.x0, 2 - box.y0)
            figure.add_artist(PathPatch(letters, transform=place, facecolor=INK, linewidth=0))
            return canvas.document(canvas.svg(figure, name or f"formula-{slug(source, 30)}", source))
    except (ValueError, RuntimeError, AttributeError):  # AttributeError: nothing but space
        return f'<code class="formula">{escape(source)}</code>'


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, color=MUTED, ha="center", va="center", transform=axes.transAxes)
