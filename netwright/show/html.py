"""The report page: one self-contained HTML file that loads nothing and runs nothing.

Every text passes through autoescape and `words.clean`; figures are inline SVG that follow the page's theme.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from netwright.bench.records import Comparison, Cost, RunRecord, StudyResult
from netwright.show import canvas, figures, words
from netwright.show.derive import (
    against_baseline,
    limits,
    ranked,
    records_by_arm,
    selected,
    shared_span,
    tuning_curve,
    validation,
    went_wrong,
)

NOT_SEEN = "not seen"
KEY = "key-of-an-arm"  # stands for the id prefix in a cached swatch
ARXIV = re.compile(r"arXiv:\s?(\d{4}\.\d{4,5})")


def page(result: StudyResult) -> str:
    """The study as one HTML document."""
    return _environment().get_template("report.html").render(_context(result))


@functools.cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("netwright.show", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) or not isinstance(value, str) else words.clean(value),
    )
    made.filters["plural"] = words.plural
    made.filters["capitalised"] = lambda text: text[:1].upper() + text[1:]
    return made


def _context(result: StudyResult) -> dict[str, Any]:
    by_arm, chosen = records_by_arm(result), selected(result)
    return {
        "title": result.title or words.question(result),
        "summary": result.task_summary,
        "caveat": words.caveat(result),
        "headline": words.headline(result),
        "question": words.question(result),
        "terms": [*words.terms(result), words.look(result)],
        "metric": result.metric,
        "measured": words.measured(result),
        "baseline": result.baseline,
        "n": len(result.seeds),
        "answers": [_answer(c, result) for c in result.comparisons],
        "keys": {section: _key(result, section) for section in ("tuning", "costs")},
        "ranking": _ranking(result),
        "ranking_wide": _svg(figures.ranking(result, 1000), "rank-wide", "ranking of the arms with intervals"),
        "ranking_narrow": _svg(figures.ranking(result, 352), "rank-narrow", "ranking of the arms with intervals"),
        "paired": _paired(result),
        "shared_axis": shared_span(result.comparisons, result.delta) is not None,
        "delta": f"{result.delta:g}" if words.finite(result.delta) else "",
        "values": _values(result),
        "learning": _learning(result, by_arm),
        "tuning": _tuning(result, by_arm),
        "costs": _costs(result),
        "shapes": _shapes(result),
        "failures": _failures(result, by_arm),
        "runs": [_run(r, result, chosen) for records in by_arm.values() for r in records],
        "scores": _scores(result) if words.given(result) else {},
        "conditions": _conditions(result),
        "environment": dict(result.environment),
        "control": words.against_control(result),
        "notes": [*result.notes, *(f"{arm.name}: {note}" for arm in result.arms for note in arm.notes)],
        "papers": [(arm, _linked(line)) for arm, line in result.papers.items()],
        "command": result.command,
        "study": result.study,
        "started": result.started,
    }


def _svg(figure: Figure, name: str, title: str) -> Markup:
    return Markup(canvas.svg(figure, name, title))


def _answer(c: Comparison, result: StudyResult) -> dict[str, Any]:
    places = words.decimals(result.delta)
    failed = ""
    if any(c.failures):
        failed = f"Failed replicates: {c.failures[0]} of {c.a}, {c.failures[1]} of {c.b}"
        failed += f" (exact McNemar {words.probability(c.p_failures)})." if c.p_failures is not None else "."
    said = words.sentence(c)
    return {
        "verdict": c.verdict,
        "kind": words.clean(c.verdict).replace(" ", "-") if c.verdict in words.GLYPHS else "other",
        "glyph": words.GLYPHS.get(c.verdict, "•"),
        "sentence": f"{said[0].upper() + said[1:] if c.verdict == 'cannot tell' else said}.",
        "difference": words.number(c.difference, places, sign=True),
        "interval": words.interval(c.interval, places, sign=True),
        "bootstrap": words.interval(c.bootstrap, places, sign=True) if c.bootstrap else "",
        "n": c.n,
        "p": words.probability(c.p),
        "reason": words.typeset(c.reason),
        "to_tell": words.to_tell(c, result),
        "hint": words.remark(c.hint),
        "failed": failed,
    }


def _key(result: StudyResult, section: str) -> list[dict[str, Any]]:
    """The key that stands beside the figures of a section."""
    look = figures.arm_looks(result)
    return [
        {
            "name": arm.name,
            "swatch": Markup(_swatch(*look[arm.name]).replace(KEY, f"key-{section}-{i}")),
            "baseline": arm.name == result.baseline,
        }
        for i, arm in enumerate(result.arms)
    ]


@functools.cache
def _swatch(colour: str, marker: str) -> str:
    return canvas.svg(figures.swatch(colour, marker), KEY, "").replace('role="img" aria-label=""', 'aria-hidden="true"')


def _ranking(result: StudyResult) -> list[dict[str, Any]]:
    places, judged, rows = words.decimals(result.delta), against_baseline(result), []
    for place, arm in enumerate(ranked(result), 1):
        c = judged.get(arm.name)
        rows.append(
            {
                "place": place if words.finite(arm.mean) else "–",
                "name": arm.name,
                "parts": ", ".join(f"{slot}: {part}" for slot, part in arm.parts.items()),
                "baseline": arm.name == result.baseline,
                "mean": words.number(arm.mean, places),
                "interval": words.interval(arm.interval, places),
                "n": arm.n,
                "difference": words.number(c.difference, places, sign=True) if c else "–",
                "difference_interval": words.interval(c.interval, places, sign=True) if c else "",
                "difference_n": c.n if c else "",
                "verdict": c.verdict if c else words.role(result, arm.name),
                "failed": arm.failed,
            }
        )
    return rows


def _paired(result: StudyResult) -> list[dict[str, Any]]:
    span = shared_span(result.comparisons, result.delta)
    return [
        {
            "a": c.a,
            "b": c.b,
            "verdict": c.verdict,
            "n": c.n,
            "figure": _svg(figures.paired(result, c, span), f"paired-{i}", f"paired differences of {c.a} and {c.b} by seed"),
        }
        for i, c in enumerate(result.comparisons)
    ]


def _learning(result: StudyResult, by_arm: dict[str, list[RunRecord]]) -> dict[str, Any]:
    values = [value for record in result.records for _, _, value in record.curve]
    span = limits(values, result.higher_is_better)
    if span is None:
        return {"panels": [], "outside": 0}
    panels = [
        {
            "name": arm,
            "runs": sum(1 for r in records if r.curve),
            "figure": _svg(figures.learning(result, arm, records, span), f"learning-{i}", f"learning curves of {arm}"),
        }
        for i, (arm, records) in enumerate(by_arm.items())
    ]
    outside = sum(1 for r in result.records if any(not span[0] <= v <= span[1] for _, _, v in r.curve if v == v))
    return {"panels": panels, "outside": outside}


def _tuning(result: StudyResult, by_arm: dict[str, list[RunRecord]]) -> dict[str, Any]:
    known = [value for r in result.records if words.finite(value := validation(r, result.worst))]
    if not known or max((r.trial for r in result.records), default=0) == 0:
        return {}
    averaged = {arm: tuning_curve(records, result)[1] for arm, records in by_arm.items()}
    span = limits([v for r in result.records if words.finite(v := r.best_val)], result.higher_is_better)
    panels = [
        {
            "name": arm,
            "runs": len(figures.rates(records)),
            "figure": _svg(
                figures.rate_panel(result, arm, records, span),
                f"rate-{i}",
                f"validation score against learning rate of {arm}",
            ),
        }
        for i, (arm, records) in enumerate(by_arm.items())
        if figures.rates(records)
    ]
    few = [f"{arm} ({n})" for arm, n in averaged.items() if n != len(result.seeds)]
    best = _svg(figures.best_of(result, by_arm), "best-of", "expected best validation score against the number of trials")
    return {
        "best": best,
        "few": words.join(few),
        "panels": panels,
        "edge": sum(s.at_edge for s in result.scores),
        "scores": len(result.scores),
    }


def _costs(result: StudyResult) -> dict[str, Any]:
    drawn = []
    for cost, title in (("step_time", "Score against step time"), ("params", "Score against parameters")):
        figure = figures.against_cost(result, cost)
        if figure is not None:
            drawn.append({"title": title, "figure": _svg(figure, f"cost-{cost.replace('_', '-')}", title)})
    aa = f"The A/A row, the baseline timed against itself, gives {result.aa_ratio:.3f}." if words.finite(result.aa_ratio) else ""
    return {"figures": drawn, "rows": [_cost(arm.name, arm.cost) for arm in result.arms], "aa": aa}


def _cost(name: str, cost: Cost | None) -> dict[str, Any]:
    cost = cost or Cost(name)
    spread = ""
    if cost.step_quartiles is not None:
        spread = f"{words.seconds(cost.step_quartiles[0])} to {words.seconds(cost.step_quartiles[1])}"
    return {
        "name": name,
        "params": words.count(cost.params),
        "step": words.seconds(cost.step_time),
        "spread": spread,
        "ratio": words.ratio(cost.step_ratio),
        "infer": words.seconds(cost.infer_time),
        "flops": words.count(cost.flops_train),
        "flops_infer": words.count(cost.flops_infer),
        "memory": words.memory(cost.peak_memory),
        "widths": ", ".join(map(str, cost.widths)) or words.UNKNOWN,
    }


def _shapes(result: StudyResult) -> list[dict[str, Any]]:
    curves = {arm.name: result.curves[arm.name] for arm in result.arms if result.curves.get(arm.name)}
    return [
        {
            "name": arm,
            "figure": _svg(
                figures.shapes_figure(curves, result.baseline, only=arm), f"shape-{i}", f"shape and derivative of {arm}"
            ),
        }
        for i, arm in enumerate(curves)
    ]


def _failures(result: StudyResult, by_arm: dict[str, list[RunRecord]]) -> dict[str, Any]:
    bad = [r for records in by_arm.values() for r in went_wrong(records)]
    tally = Counter(words.state(r.state) for r in bad)
    of_arm = Counter((words.state(r.state), r.arm) for r in bad)
    named = {state: words.join([f"{arm} ({k})" for (s, arm), k in of_arm.items() if s == state]) for state in tally}
    return {
        "tally": [f"{words.plural(k, 'run')} {state}: {named[state]}" for state, k in tally.most_common()],
        "rows": [_run(r, result, set()) for r in bad],
        "runs": sum(map(len, by_arm.values())),
        "dropped": [f"{s.arm}, seed {s.seed}: {s.dropped}" for s in result.scores if s.dropped],
    }


def _values(result: StudyResult) -> list[dict[str, Any]]:
    """Named values in the order given, the baseline first in each."""
    narrowest: dict[str, float] = {}  # of the intervals of each value, which says how many digits mean something
    for row in result.values:
        for pair in (row.interval, row.difference_interval):
            if pair is not None and words.finite(width := pair[1] - pair[0]) and width > 0:
                narrowest[row.value] = min(width, narrowest.get(row.value, math.inf))
    rows = []
    for row in result.values:
        places = words.decimals(narrowest.get(row.value))
        based = row.arm == result.baseline
        rows.append(
            {
                "value": row.value,
                "name": row.arm,
                "baseline": based,
                "mean": words.number(row.mean, places),
                "interval": words.interval(row.interval, places),
                "n": row.n,
                "difference": "–" if based else words.number(row.difference, places, sign=True),
                "difference_interval": "" if based else words.interval(row.difference_interval, places, sign=True),
                "pairs": "" if based else row.pairs,
            }
        )
    return rows


def _scores(result: StudyResult) -> dict[str, Any]:
    """Given scores by seed and arm, and which of them stand for a failed replicate."""
    places = words.decimals(result.delta) + 1
    at = {(score.arm, score.seed): score for score in result.scores}
    names = [arm.name for arm in result.arms]
    cells = [[(seed, at.get((name, seed))) for name in names] for seed in result.seeds]
    lost = {name: [s.seed for s in result.scores if s.failed and s.arm == name] for name in names}
    return {
        "arms": names,
        "rows": [
            (row[0][0], [{"text": words.number(s.value, places) if s else "–", "failed": bool(s and s.failed)} for _, s in row])
            for row in cells
        ],
        "failed": [
            f"{words.plural(len(seeds), 'replicate')} of {arm} (seed {', '.join(map(str, seeds))})"
            for arm, seeds in lost.items()
            if seeds
        ],
        "worst": words.number(result.worst, words.decimals(result.delta)),
    }


def _run(r: RunRecord, result: StudyResult, chosen: set[tuple[str, int, int]]) -> dict[str, Any]:
    places = words.decimals(result.delta)
    rest = ", ".join(f"{k} {words.rate(v)}" for k, v in r.point.items() if k != "lr")
    return {
        "arm": r.arm,
        "seed": r.seed,
        "trial": r.trial if r.stage == "tune" else f"{r.trial} ({r.stage})",
        "rate": words.rate(r.point["lr"]) if "lr" in r.point else "–",
        "rest": rest or "–",
        "state": words.state(r.state),
        "selected": "selected" if (r.arm, r.seed, r.trial) in chosen else "",
        "val": words.number(r.best_val, places) if r.best_val is not None else "–",
        "best_step": r.best_step if r.best_step is not None else "–",
        "bad_step": r.bad_step if r.bad_step is not None else "–",
        "where": r.bad_module or "–",
        "error": r.error or "–",
        "engine": r.engine,
        "seconds": words.seconds(r.seconds),
        "memory": words.memory(r.memory),
    }


def _conditions(result: StudyResult) -> list[tuple[str, str]]:
    shared = [f"{arm}: {k:,} of {n:,}" for arm, (k, n) in result.shared_init.items()]
    engines = {
        "loop": "one copy at a time (loop)",
        "stack": "many copies at once (stack)",
        "mixed": "mixed: not all arms could be stacked",
    }
    worst = words.number(result.worst, words.decimals(result.delta))
    failing = "" if math.isnan(result.worst) else f"; a failed run scores {worst}"
    given = words.given(result)
    rows: Iterable[tuple[str, str]] = (
        ("task", result.task),
        ("metric", f"{result.metric}, {words.direction(result)}{failing}"),
        ("seeds", f"{len(result.seeds)}: {', '.join(map(str, result.seeds))}"),
        ("trials", NOT_SEEN if given else words.tuned(result)),
        ("matching", NOT_SEEN if given else words.matched(result)),
        ("looks", words.look(result)),
        ("engine", NOT_SEEN if given else engines.get(result.engine, result.engine)),
        ("initial values shared with the baseline", "; ".join(shared)),
        ("started", result.started),
        ("duration", NOT_SEEN if given else words.seconds(result.seconds)),
        ("study", result.study),
    )
    return [(name, value) for name, value in rows if value]


def _linked(line: str) -> Markup:
    """A reference line, its arXiv number an anchor (which loads nothing by itself)."""
    text, made, at = words.clean(line), Markup(""), 0
    for match in ARXIV.finditer(text):
        made += escape(text[at : match.start()])
        made += Markup('<a rel="noreferrer" href="https://arxiv.org/abs/{0}">arXiv:{0}</a>').format(match[1])
        at = match.end()
    return made + escape(text[at:])
