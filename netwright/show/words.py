"""Numbers, states and verdicts as a person reads them: the one wording that terminal and page share."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import TypeGuard

from netwright.bench.records import Comparison, StudyResult
from netwright.bench.stats import MOST_SEEDS
from netwright.core.errors import printable

UNKNOWN = "unknown"
UNSEEN = "tuning and cost not seen"

#: What each verdict says of arm a and arm b.
SENTENCES = {
    "better": "{a} is better than {b}",
    "worse": "{a} is worse than {b}",
    "equivalent": "{a} is equivalent to {b}",
    "cannot tell": "cannot tell {a} from {b}",
    "not comparable": "{a} and {b} are not comparable",
}
#: The sign of each verdict.
GLYPHS = {"better": "▲", "worse": "▼", "equivalent": "≈", "cannot tell": "?", "not comparable": "≠"}
#: Verdicts from the most to the least telling, and how a headline counts arms that got them.
COUNTED = {
    "better": ("is better", "are better"),
    "worse": ("is worse", "are worse"),
    "equivalent": ("is equivalent", "are equivalent"),
    "cannot tell": ("cannot be told apart from it", "cannot be told apart from it"),
    "not comparable": ("is not comparable", "are not comparable"),
}
#: The states of a job, for a reader who has not seen their names before.
STATES = {
    "queued": "not started",
    "leased": "not started",
    "running": "still running",
    "done": "finished",
    "diverged": "diverged",
    "oom": "out of memory",
    "timeout": "timed out",
    "failed": "failed with an error",
    "lost": "lost with its worker",
    "cancelled": "cancelled",
    "superseded": "superseded",
}
MATCHES = {
    "params": "arms matched in parameters",
    "flops": "arms matched in arithmetic (FLOPs)",
    "time": "arms matched in step time",
    "none": "arms not matched in cost",
}


def clean(text: object) -> str:
    """One printable line: white space folded, control characters shown as a replacement character."""
    return printable(" ".join(str(text).split()))


def plain(text: str) -> str:
    """The same text for a terminal that may know ASCII only."""
    for fancy, simple in (
        ("−", "-"),
        ("×", "x"),
        ("±", "+-"),
        ("–", "-"),
        ("·", ";"),
        ("…", "..."),
        ("≤", "<="),
        ("µ", "u"),
    ):
        text = text.replace(fancy, simple)
    return text


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters; the middle goes, as names differ at their ends."""
    if len(text) <= limit:
        return text
    head = (limit - 1) * 3 // 5
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def join(items: Sequence[str], last: str = "and") -> str:
    """'a', 'a and b', 'a, b and c'."""
    return f" {last} ".join(filter(None, (", ".join(items[:-1]), items[-1] if items else "")))


def plural(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def decimals(delta: float | None) -> int:
    """Decimals that show one digit more than the smallest difference that matters."""
    if not finite(delta) or delta <= 0:
        return 4
    return min(max(1 - math.floor(math.log10(delta)), 0), 8)


def number(value: float | None, places: int = 4, sign: bool = False) -> str:
    """A score or a difference, with a true minus; words where there is no number."""
    if value is None:
        return UNKNOWN
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else "−infinite"
    text = f"{value:.3e}" if abs(value) >= 1e6 else f"{value:.{places}f}"
    if float(text) == 0:  # no "-0.000"
        text = text.lstrip("-")
    elif sign and value > 0:
        text = "+" + text
    return text.replace("-", "−", 1) if text.startswith("-") else text


def interval(pair: tuple[float, float] | None, places: int = 4, sign: bool = False) -> str:
    """'[0.91, 0.93]', or words."""
    if pair is None or any(math.isnan(end) for end in pair):
        return "no interval"
    return f"[{number(pair[0], places, sign)}, {number(pair[1], places, sign)}]"


def probability(p: float | None) -> str:
    if not finite(p):
        return "p unknown"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def count(value: float | None) -> str:
    """A whole number with separators; above 100 million with an SI prefix."""
    if not finite(value):
        return UNKNOWN
    if abs(value) < 1e8:
        return f"{value:,.0f}"
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """A duration in the unit that suits it."""
    if not finite(value):
        return UNKNOWN
    if value >= 5400:
        return f"{value / 3600:.1f} h"
    if value >= 90:
        return f"{value / 60:.1f} min"
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value / size < 1000 else f"{value / size:.0f} {unit}"
    return f"{value / 1e-9:.3g} ns"


def memory(value: float | None) -> str:
    """Bytes in binary units."""
    if not finite(value):
        return UNKNOWN
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}" if abs(value) < 1000 * size else f"{value / size:.0f} {unit}"
    return f"{value:.0f} B"


def ratio(value: float | None) -> str:
    return UNKNOWN if not finite(value) else f"{value:.2f}×"


def rate(value: object) -> str:
    """A tuned value such as a learning rate: three digits; anything that is no number as it is."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return clean(value)
    return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−")


def typeset(text: str) -> str:
    """A sentence for a page: a true minus before numbers, and no line break between a number and its %."""
    return re.sub(r"(?<=\d) %", "\u202f%", re.sub(r"(?<![\w.])-(?=\d)", "\u2212", text))


def state(name: str) -> str:
    return STATES.get(name, clean(name))


def sentence(comparison: Comparison) -> str:
    """The verdict as a clause, e.g. 'a is better than b'."""
    form = SENTENCES.get(
        comparison.verdict, "{a} against {b}: " + clean(comparison.verdict).replace("{", "{{").replace("}", "}}")
    )
    return form.format(a=clean(comparison.a), b=clean(comparison.b))


def to_tell(comparison: Comparison, result: StudyResult) -> str:
    """What it would take to tell, where it can't be told; else ''."""
    if comparison.verdict != "cannot tell":
        return ""
    needed = comparison.seeds_needed
    delta = f"{result.delta:g}" if finite(result.delta) else UNKNOWN
    if needed is None:
        return f"How many seeds it would take to tell a difference of {delta} is unknown."
    if needed <= comparison.n:
        return f"The {plural(comparison.n, 'seed')} here are enough to tell a difference of {delta} in 8 of 10 studies."
    about = f"{needed:,} seeds or more" if needed >= MOST_SEEDS else f"about {plural(needed, 'seed')}"
    return f"To tell a difference of {delta} in 8 of 10 studies takes {about}, {needed - comparison.n:,} more than now."


def remark(text: str) -> str:
    """A remark as a sentence of its own: a capital first, one full stop last."""
    text = clean(text).rstrip(".")
    return f"{text[0].upper()}{text[1:]}." if text else ""


def direction(result: StudyResult) -> str:
    return "higher is better" if result.higher_is_better else "lower is better"


def question(result: StudyResult) -> str:
    """What was asked, in one sentence."""
    judged_arms = {c.a for c in result.comparisons} | {c.b for c in result.comparisons}
    others = [clean(a.name) for a in result.arms if a.name != result.baseline and (a.name in judged_arms or not judged_arms)]
    where = "" if given(result) else " on test data"
    judged = f"on {clean(result.task)}, judged by {clean(result.metric)}{where} ({direction(result)})"
    if not others:
        return f"How good is {clean(result.baseline)} {judged}?"
    who = join(others, "or") if len(others) <= 4 else f"any of {len(others)} arms"
    return f"Is {who} better than {clean(result.baseline)} {judged}?"


def given(result: StudyResult) -> bool:
    """Whether the scores were given, so that nothing is known of the runs behind them."""
    return not result.engine


def caveat(result: StudyResult) -> str:
    """What nobody saw who judged given scores; '' for a study of ours."""
    if not given(result):
        return ""
    return (
        f"{UNSEEN[0].upper()}{UNSEEN[1:]}: these scores were given as they are. Whether the arms were tuned alike, cost alike, "
        "share splits and streams, or were chosen among more seeds and arms can't be read off them."
    )


def measured(result: StudyResult) -> str:
    """What the scores are, as a heading says it; of given ones nobody here knows on what they were taken."""
    return clean(result.metric) if given(result) else f"test {clean(result.metric)}"


def tuned(result: StudyResult) -> str:
    return f"{plural(result.trials, 'tuning trial')} per arm and seed" if result.trials > 1 else "not tuned"


def matched(result: StudyResult) -> str:
    return MATCHES.get(result.match, f"arms matched by {clean(result.match)}")


def terms(result: StudyResult) -> list[str]:
    """The terms on which it was judged, each a short phrase."""
    return [
        plural(len(result.seeds), "seed"),
        *([UNSEEN] if given(result) else [tuned(result), matched(result)]),
        f"smallest difference that matters: {result.delta:g}" if finite(result.delta) else "no smallest difference that matters",
    ]


def headline(result: StudyResult) -> str:
    """The whole answer in one sentence."""
    judged = [c for c in result.comparisons if c.b == result.baseline]
    if not result.arms:
        return "The study has no arms."
    if not judged:
        return "Nothing was compared." if len(result.arms) > 1 else "One arm, nothing to compare it with."
    if len(judged) == 1:
        said = sentence(judged[0])
        return f"{said[0].upper() + said[1:] if judged[0].verdict == 'cannot tell' else said}."
    tally = Counter(c.verdict for c in judged)
    counted = [(v, tally.pop(v)) for v in COUNTED if v in tally] + sorted(tally.items())
    clauses = [f"{n} {COUNTED.get(v, (v, v))[n > 1]}" for v, n in counted]
    return f"Of {len(judged)} arms judged against {clean(result.baseline)}, {join(clauses)}."


def against_control(result: StudyResult) -> list[str]:
    """Which arms clearly beat the control, and what is known of each that doesn't."""
    if not result.against_control:
        return []
    control, places = clean(result.control), decimals(result.delta)
    above = [clean(c.a) for c in result.against_control if c.verdict == "better"]
    said = [f"Clearly above the control {control}: {join(above)}."] if above else []
    for c in result.against_control:
        if c.verdict != "better":
            found = f"{number(c.difference, places, sign=True)} {interval(c.interval, places, sign=True)}"
            said.append(f"{clean(c.a)} is not clearly above the control {control}: {found}, {clean(c.verdict)}.")
    return said


def role(result: StudyResult, arm: str) -> str:
    """What an arm without a comparison is there for."""
    return "baseline" if arm == result.baseline else "control" if arm == result.control else "not compared"


def look(result: StudyResult) -> str:
    """How often the study has been looked at, and what that leaves to spend."""
    level = f"{result.level:g}" if finite(result.level) else UNKNOWN
    if given(result):
        return f"judged as a first look, family-wise level {level}; looks before not seen"
    if result.looks <= 1:
        return f"first look, family-wise level {level}"
    return f"look {result.looks} of a study that was extended, tested at the family-wise level {level}"
