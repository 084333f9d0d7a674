"""The table of an experiment: a row a point and seed, of named numbers; of studies, arms and the words on them too.

And the words on the experiment's own predicates, which are read from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from netwright.bench import stats
from netwright.core.errors import BadInput, unknown

Number = float | None
#: What leaves a predicate open: words of the bench that tell nothing, and points that were not run.
UNTOLD = ("cannot tell", "not comparable", "not run")
NAMED = 4  # points that a reason names; the values hold all
#: Seeds beyond which "how many it would take" is not said more exactly.
MOST = 10_000


@final
@dataclass(frozen=True)
class Table:
    """Rows of one experiment: {axis: value, ..., "seed": s, column: number or None}. Predicates read the rows of one seed.

    arms: of studies, an entry an arm of a point: {axis: value, ..., "arm": name, "verdict": the bench's word, cost: ...}.
    points: every point that was asked, those that were not run too.
    """

    rows: tuple[Mapping[str, Any], ...]
    arms: tuple[Mapping[str, Any], ...] = ()
    points: tuple[Mapping[str, Any], ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(row["seed"] for row in self.rows))

    def of(self, seed: int) -> Table:
        """The rows of one seed."""
        return Table(tuple(row for row in self.rows if row["seed"] == seed), self.arms, self.points)

    def where(self, values: Mapping[str, Any]) -> Table:
        """The part of the grid whose axes have these values (one, or several)."""
        rows, points = (tuple(r for r in given if lies(r, values)) for given in (self.rows, self.points))
        return Table(rows, self.arms, points)

    @property
    def complete(self) -> Table:
        """Without the seeds that lack a row at some point."""
        whole = {seed for seed in self.seeds if len(self.of(seed).rows) >= len(self.points)}
        return Table(tuple(row for row in self.rows if row["seed"] in whole), self.arms, self.points)

    def at(self, point: Mapping[str, Any]) -> Mapping[str, Any]:
        """The one row at a point. Raises BadInput where there is none, or several."""
        found = [row for row in self.rows if all(row.get(axis) == value for axis, value in point.items())]
        if len(found) != 1:
            raise BadInput(f"{len(found)} rows at {', '.join(f'{k}={v}' for k, v in point.items())}; expected one")
        return found[0]

    def verdicts(self, arm: str, against: str = "verdict") -> dict[str, str | None]:
        """The word on an arm at every point asked; None: it was not run. against: "verdict" (the baseline), "against_control"."""
        entries = {in_short(point) if point else arm: self.arm(arm, point) for point in self.points}
        return {label: None if entry is None else entry[against] for label, entry in entries.items()}

    def arm(self, name: str, point: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The entry of an arm, by its text or by what the question calls it, at a point; None: it was not run."""
        found = (arm for arm in self.arms if name in (arm["arm"], arm["role"]) and lies(arm, point))
        return next(found, None)

    def column(self, name: str) -> list[Number]:
        """A column, in the order of the rows. Raises UnknownName where there is none."""
        if self.rows and name not in self.rows[0]:
            raise unknown("column", name, self.rows[0])
        return [row[name] for row in self.rows]

    def slope(self, x: str, y: str) -> Number:
        """The slope of log y over log x by least squares; None where a number is missing or not above 0."""
        pairs = list(zip(self.column(x), self.column(y), strict=True))
        if len(pairs) < 2 or any(a is None or b is None or a <= 0 or b <= 0 for a, b in pairs):
            return None
        u, v = [math.log(a) for a, _ in pairs], [math.log(b) for _, b in pairs]  # type: ignore[arg-type]
        mean_u, mean_v = sum(u) / len(u), sum(v) / len(v)
        spread = sum((a - mean_u) ** 2 for a in u)
        return sum((a - mean_u) * (b - mean_v) for a, b in zip(u, v, strict=True)) / spread if spread else None


def lies(row: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Whether a row, or a point, has these values: of an axis one, or one of several."""
    return all(row[axis] in (v if isinstance(v, (tuple, list, set, frozenset)) else (v,)) for axis, v in values.items())


def labelled(point: Mapping[str, Any]) -> str:
    """A point as a person reads it: "width=64,depth=2"; "all" where there are no axes."""
    return ",".join(f"{axis}={value}" for axis, value in point.items()) or "all"


def in_short(point: Mapping[str, Any]) -> str:
    """A point by its values alone, where the axes are known: "64/2"."""
    return "/".join(map(str, point.values())) or "all"


@final
@dataclass(frozen=True)
class Word:
    """What came of one predicate: "reproduced", "not reproduced" or "cannot tell", and why."""

    name: str
    text: str
    where: str
    word: str
    reason: str  # one sentence a person can read
    inside: tuple[Any, ...]  # (lowest, highest), or words
    values: Mapping[Any, Any]  # number by seed; of words, what was compared -> the word, None where it was not run
    mean: Number = None  # of a share, the share
    interval: tuple[float, float] | None = None
    seeds_needed: int | None = None


def judged(predicate: Any, table: Table, of: int) -> Word:
    """The word on one of `of` predicates: an interval at 1 - 0.05 / of against its range.

    A number: Student's t over the seeds. A share of seeds for which a statement holds: Clopper and Pearson's. Exact: the
    largest over the seeds, no interval. A number that is None for some seed can't be told. Verdicts: all of the words named.
    """
    table = table.where(predicate.at)
    if predicate.sort == "verdict":
        return _by_verdicts(predicate, table)
    if not table.arms:  # the seeds of studies are paired, and their gaps counted, by the bench
        table = table.complete
    values = {seed: _value(predicate, table.of(seed)) for seed in table.seeds}
    known, (lo, hi) = [v for v in values.values() if v is not None], predicate.inside
    level = 0.05 / of

    def said(word: str, reason: str, **more: Any) -> Word:
        return Word(predicate.name, predicate.text, predicate.where, word, reason, predicate.inside, values, **more)

    if not values:
        return said("cannot tell", "no seed has all the cells that it reads")
    if not known or len(known) < len(values) and predicate.sort != "share":
        lacking = len(values) - len(known)
        return said("cannot tell", f"for {lacking} of {len(values)} seeds what it measures did not occur")
    range_text = ranged(predicate.inside)
    if predicate.sort == "exact":
        worst = max(known, key=lambda v: max(lo - v, v - hi))
        word = "reproduced" if lo <= worst <= hi else "not reproduced"
        return said(word, f"{worst:.4g}, to be {range_text}", mean=worst)
    if predicate.sort == "share":
        holds = sum(v is not None and bool(v) for v in values.values())
        mean, interval = holds / len(values), _clopper_pearson(holds, len(values), 1 - level)
        shown = f"{holds} of {len(values)} seeds, interval [{interval[0]:.3f}, {interval[1]:.3f}]"
    else:
        mean, found = sum(known) / len(known), stats.t_interval(known, 1 - level)
        if found is None:
            return said("cannot tell", f"{mean:.4g} from one seed has no interval", mean=mean)
        interval = found
        shown = f"{mean:.4g}, interval [{interval[0]:.4g}, {interval[1]:.4g}] over {len(known)} seeds"
    if lo <= interval[0] and interval[1] <= hi:
        return said("reproduced", f"{shown}: all of it {range_text}", mean=mean, interval=interval)
    if interval[1] < lo or interval[0] > hi:
        return said("not reproduced", f"{shown}: none of it {range_text}", mean=mean, interval=interval)
    needed = _seeds_needed(mean, interval, len(values), lo, hi)
    more = f"; about {needed} seeds would tell" if needed else ""
    return said("cannot tell", f"{shown}: only in part {range_text}{more}", mean=mean, interval=interval, seeds_needed=needed)


def _by_verdicts(predicate: Any, table: Table) -> Word:
    """Reproduced where the bench says one of the predicate's words of all that is compared, not where it says another."""
    found: Mapping[str, str | None] = predicate.value(table)
    groups: dict[str, list[str]] = {}
    for what, word in found.items():
        groups.setdefault(word or "not run", []).append(what)
    said = set(groups)
    other = said - {*predicate.inside, *UNTOLD}
    word = "not reproduced" if other else "reproduced" if said and said <= set(predicate.inside) else "cannot tell"
    parts = []
    for group, whats in groups.items():
        named = "" if group in predicate.inside else f" ({', '.join(whats[:NAMED])}{', ...' * (len(whats) > NAMED)})"
        parts.append(f"{group} on {len(whats)} of {len(found)}{named}")
    reason = f"{'; '.join(parts) or 'nothing was compared'}; to be {ranged(predicate.inside)}"
    return Word(predicate.name, predicate.text, predicate.where, word, reason, predicate.inside, found)


def ranged(inside: tuple[Any, ...]) -> str:
    """A range in words: "at most -0.25", "between -0.7 and -0.4"; words as they are: "better or equivalent"."""
    if inside and isinstance(inside[0], str):
        return " or ".join(inside)
    lo, hi = inside
    return f"at most {hi:g}" if lo == -math.inf else f"at least {lo:g}" if hi == math.inf else f"between {lo:g} and {hi:g}"


def finding(words: Sequence[Word]) -> str:
    """The word on the finding: reproduced where all predicates are, not reproduced where one is not."""
    said = {word.word for word in words}
    return "not reproduced" if "not reproduced" in said else "reproduced" if said == {"reproduced"} else "cannot tell"


def _value(predicate: Any, table: Table) -> Number:
    value = predicate.value(table)
    return None if value is None else float(value)


def _clopper_pearson(k: int, n: int, confidence: float) -> tuple[float, float]:
    from scipy.stats import binomtest

    found = binomtest(k, n).proportion_ci(confidence, method="exact")
    return float(found.low), float(found.high)


def _seeds_needed(mean: float, interval: tuple[float, float], n: int, lo: float, hi: float) -> int | None:
    """Seeds at which an interval that narrows by the root of their number is all on one side of an edge; None: more than MOST."""
    room = min(abs(mean - edge) for edge in (lo, hi) if math.isfinite(edge))
    half = (interval[1] - interval[0]) / 2
    needed = math.ceil(n * (half / room) ** 2) if room > 0 else MOST + 1
    return max(n + 1, needed) if needed <= MOST else None


def reach(predicates: Sequence[Any], seeds: int) -> Iterator[str]:
    """What so many seeds can tell at all, a line a predicate that is not exact."""
    level = 0.05 / max(1, len(predicates))
    for predicate in predicates:
        if predicate.sort == "verdict":
            continue  # a study says itself which verdicts are in its reach
        lo, hi = predicate.inside
        if predicate.sort == "share":
            ends = [_clopper_pearson(k, seeds, 1 - level) for k in range(seeds + 1)]
            able = [k for k, (a, b) in enumerate(ends) if lo <= a and b <= hi]
            can = f"reproduced from {min(able)} of {seeds} seeds on" if able else f"never reproduced with {seeds} seeds"
            yield f"{predicate.name}: {can}"
        elif predicate.sort == "number":
            spread = _half_width(seeds, 1 - level)
            yield f"{predicate.name}: " + (
                f"told where the mean is {spread:.2g} standard deviations from the edges of its range"
                if spread
                else "needs two seeds"
            )


def _half_width(n: int, confidence: float) -> float | None:
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, (1 + confidence) / 2)) / math.sqrt(n) if n > 1 else None
