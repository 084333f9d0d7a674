"""Scores that exist already, judged as those of a study are. Nothing is run, so tuning and cost are not seen.

Scores are by arm, and by position or seed within an arm. None, NaN and infinite scores are failed replicates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, final

from netwright.bench import stats
from netwright.bench.records import ArmResult, Comparison, Score, StudyResult
from netwright.bench.result import title, value_rows
from netwright.core.canonical import digest
from netwright.core.errors import BadInput, require, unknown

BySeed = dict[int, float | None]  # None: no finite number


@final
@dataclass(frozen=True)
class Scale:
    """What a score means. Whatever is wrong is named early.

    delta: the smallest difference that matters. worst: what a failed replicate scores. best: the score that can't be
    beaten, where there is one. resolution: the smallest step a score can take; of an accuracy, 1 over the test examples.
    """

    delta: float
    higher_is_better: bool
    worst: float | None = None
    best: float | None = None
    resolution: float | None = None
    metric: str = "score"

    def __post_init__(self) -> None:
        for name, needed in (("delta", True), ("resolution", False)):
            value = getattr(self, name)
            fits = _is_number(value) and 0 < value < math.inf or value is None and not needed
            require(fits, f"{name}={value!r}; expected a number above 0, in the metric's units{'' if needed else ', or None'}")
        upward = self.higher_is_better
        require(isinstance(upward, bool), f"higher_is_better={upward!r}; expected True or False")
        for name in ("worst", "best"):
            value = getattr(self, name)
            require(value is None or _is_number(value), f"{name}={value!r}; expected a score, in the metric's units, or None")
        if self.worst is not None and self.best is not None:
            require(
                self.beats(self.best, self.worst), f"best={self.best!r} isn't better than worst={self.worst!r} ({self.words})"
            )
        _check_text("metric", self.metric)

    def beats(self, a: float, b: float) -> bool:
        return a > b if self.higher_is_better else a < b

    @property
    def words(self) -> str:
        return "higher is better" if self.higher_is_better else "lower is better"


def judge_scores(
    scores: Mapping[str, Any],
    scale: Scale,
    *,
    baseline: str | None = None,
    name: str = "scores",
    seeds: Sequence[int] | None = None,
    all_pairs: bool = False,
    values: Mapping[str, Mapping[str, Any]] | None = None,
) -> StudyResult:
    """Every other arm judged against the baseline, which is the first arm unless named.

    scores: arm -> its scores, all as lists of one length, paired by position, or all as mappings seed -> score.
    name: what the page calls them. seeds: the numbers of the positions, else 0, 1, ... values: name of a further
    value -> arm -> its values, in the form of the scores; they get paired differences and intervals, and no verdict.
    Raises BadInput or UnknownName, naming the argument.
    """
    _check_text("name", name)
    require(isinstance(all_pairs, bool), f"all_pairs={all_pairs!r}; expected True or False")
    table, further = _read(scores, values or {}, seeds)
    first = next(iter(table)) if baseline is None else baseline
    if first not in table:
        raise unknown("arm", first, table, owner="baseline")
    table = {arm: table[arm] for arm in sorted(table, key=lambda arm: arm != first)}  # the baseline first, the others as given
    failed = {arm: {seed for seed, value in row.items() if value is None} for arm, row in table.items()}
    filled = _filled(table, scale)
    comparisons = stats.compare(
        filled,
        baseline=first,
        delta=float(scale.delta),
        higher_is_better=scale.higher_is_better,
        failed=failed,
        all_pairs=all_pairs,
    )
    arms = [ArmResult(arm, {}, row, *stats.arm_summary(row), len(failed[arm])) for arm, row in filled.items()]
    everywhere = sorted({seed for row in table.values() for seed in row})
    return StudyResult(
        study=digest({"scores": table, "values": further, "scale": scale, "baseline": first, "all_pairs": all_pairs})[:16],
        title=title(list(table), name),
        task=name,
        task_summary="",
        metric=scale.metric,
        higher_is_better=scale.higher_is_better,
        worst=math.nan if scale.worst is None else float(scale.worst),
        delta=float(scale.delta),
        baseline=first,
        seeds=tuple(everywhere),
        trials=0,
        match="",
        arms=tuple(arms),
        comparisons=tuple(_with_bounds(c, scale, filled) for c in comparisons),
        records=(),
        scores=tuple(
            Score(arm, seed, None, value, seed in failed[arm])
            for arm, row in filled.items()
            for seed, value in sorted(row.items())
        ),
        looks=1,
        level=stats.level(),
        engine="",  # none of ours
        notes=tuple(_gaps(table, everywhere)),
        environment={},
        command="",
        values=tuple(value_rows(further, list(table), len(comparisons))),
    )


# What was given ---------------------------------------------------------------------------------------------------------


def _read(scores: Any, values: Any, seeds: Any) -> tuple[dict[str, BySeed], dict[str, dict[str, BySeed]]]:
    """Scores, and further values by name, each by arm and seed."""
    _check_arms("scores", scores)
    there = f"the one arm {next(iter(scores))}" if scores else "no arm"
    require(len(scores) >= 2, f"scores has {there}; expected two or more")
    require(isinstance(values, Mapping), f"values={_shown(values)}; expected name -> arm -> numbers")
    for called, by_arm in values.items():
        _check_text("a name in values", called)
        _check_arms(f"values[{called!r}]", by_arm)
        for arm in by_arm:
            if arm not in scores:
                raise unknown("arm", arm, scores, owner=f"values[{called!r}]")
    numbers = _numbers(seeds)
    tables = {"scores": scores, **{f"values[{called!r}]": by_arm for called, by_arm in values.items()}}
    given = {f"{where}[{arm!r}]": row for where, by_arm in tables.items() for arm, row in by_arm.items()}
    rows = _rows(given, numbers)
    table = {arm: rows[f"scores[{arm!r}]"] for arm in scores}
    further = {called: {arm: rows[f"values[{called!r}][{arm!r}]"] for arm in by_arm} for called, by_arm in values.items()}
    return table, further


def _check_arms(where: str, given: Any) -> None:
    require(isinstance(given, Mapping), f"{where} is {_shown(given)}; expected arms by name, e.g. {{'mine': [0.91, 0.93], ...}}")
    for arm in given:
        _check_text(f"the name of an arm in {where}", arm)


def _numbers(seeds: Any) -> list[int] | None:
    if seeds is None:
        return None
    listed = list(seeds) if isinstance(seeds, Iterable) and not isinstance(seeds, (str, bytes, Mapping)) else []
    whole = bool(listed) and all(map(_is_whole, listed)) and len(set(listed)) == len(listed)
    require(whole, f"seeds={_shown(seeds)}; expected different whole numbers, one for each position of the scores")
    return [int(seed) for seed in listed]


def _rows(given: Mapping[str, Any], seeds: list[int] | None) -> dict[str, BySeed]:
    """Every row by seed. Lists pair by position, so they are as long as one another: none has lost a run in its middle."""
    lists: dict[str, list[Any]] = {}
    for where, row in given.items():
        if not isinstance(row, Mapping):
            ordered = isinstance(row, Iterable) and not isinstance(row, (str, bytes, set, frozenset))
            require(ordered, f"{where} is {_shown(row)}; expected a list of numbers, or a mapping seed -> number")
            lists[where] = list(row)
        require(len(row if isinstance(row, Mapping) else lists[where]) > 0, f"{where} is empty; expected one number or more")
    if not lists:
        require(seeds is None, "seeds= numbers the positions of lists; these scores are by seed already, so leave it out")
        return {where: _row(where, row.items()) for where, row in given.items()}
    if len(lists) < len(given):
        other = next(where for where in given if where not in lists)
        raise BadInput(f"{next(iter(lists))} is a list and {other} a mapping by seed; give all in one form")
    first, n = next((where, len(row)) for where, row in lists.items())
    for where, row in lists.items():
        require(
            len(row) == n,
            f"{first} has {n} numbers and {where} {len(row)}, and lists are paired by position: "
            "put None where a replicate failed, or give mappings seed -> number",
        )
    numbers = list(range(n)) if seeds is None else seeds
    require(len(numbers) == n, f"seeds has {len(numbers)} numbers and {first} {n}; expected a seed for each position")
    return {where: _row(where, zip(numbers, row, strict=True)) for where, row in lists.items()}


def _row(where: str, pairs: Iterable[tuple[Any, Any]]) -> BySeed:
    row: BySeed = {}
    for seed, value in pairs:
        require(_is_whole(seed), f"{where} has the seed {_shown(seed)}; expected whole numbers")
        try:
            if isinstance(value, (str, bytes)):
                raise TypeError
            number = math.nan if value is None else float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a tensor of several numbers
            raise BadInput(f"{where} has {_shown(value)} at seed {seed}; expected a number, or None where it failed") from None
        row[int(seed)] = number if math.isfinite(number) else None
    return row


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_text(what: str, value: Any) -> None:
    require(isinstance(value, str) and bool(value.strip()), f"{what} is {_shown(value)}; expected a text")


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


# What becomes of it -----------------------------------------------------------------------------------------------------


def _filled(table: Mapping[str, BySeed], scale: Scale) -> dict[str, dict[int, float]]:
    """Scores with `worst` for failed replicates, which no score may be worse than."""
    found = [(value, arm, seed) for arm, row in table.items() for seed, value in row.items() if value is not None]
    if scale.best is not None:
        for value, arm, seed in found:
            require(not scale.beats(value, scale.best), f"{arm} scores {value!r} at seed {seed}, better than best={scale.best!r}")
    lost = {arm: sorted(seed for seed, value in row.items() if value is None) for arm, row in table.items()}
    if not any(lost.values()):
        return {arm: {seed: float(value) for seed, value in row.items() if value is not None} for arm, row in table.items()}
    if scale.worst is None:
        which = "; ".join(f"{arm} at seed {_listed(seeds)}" for arm, seeds in lost.items() if seeds)
        raise BadInput(
            f"failed replicates ({which}) need worst= (--worst): what a failed replicate scores, in the metric's units"
        )
    worst = float(scale.worst)
    for value, arm, seed in found:
        if scale.beats(worst, value):
            raise BadInput(f"worst={scale.worst!r} is better than {value!r}, the score of {arm} at seed {seed} ({scale.words})")
    return {arm: {seed: worst if value is None else value for seed, value in row.items()} for arm, row in table.items()}


def _gaps(table: Mapping[str, BySeed], seeds: Sequence[int]) -> Iterable[str]:
    for arm, row in table.items():
        if absent := [seed for seed in seeds if seed not in row]:
            plural = "s" if len(absent) > 1 else ""
            yield f"{arm} has no score at seed{plural} {_listed(absent)}: left out of its pairs"


def _listed(seeds: Sequence[int], most: int = 12) -> str:
    return ", ".join(map(str, seeds[:most])) + (f" and {len(seeds) - most} more" if len(seeds) > most else "")


def _with_bounds(c: Comparison, scale: Scale, scores: Mapping[str, Mapping[int, float]]) -> Comparison:
    """An equivalence that coarse scores, or scores at the best there is, would give whatever the arms are, can't be told."""
    if c.verdict != "equivalent":
        return c
    step, loose = scale.resolution, 1 + stats.ROUNDING
    if step is not None and step > scale.delta * loose:
        why = f"scores come in steps of {step:g}, coarser than the {scale.delta:g} that matters"
    elif scale.best is not None and all(_at(scale.best, scores[arm], c, step or _step(scores)) for arm in (c.a, c.b)):
        why = f"half of the scores of both or more are the best there is, {scale.best:g}: the task is too easy"
    else:
        return c
    return replace(c, verdict="cannot tell", reason=f"{c.reason.rstrip('.')}; but {why}.")


def _at(best: float, scores: Mapping[int, float], c: Comparison, step: float) -> bool:
    near = sum(abs(best - scores[seed]) <= step * (1 + stats.ROUNDING) for seed in c.differences)
    return 2 * near >= c.n


def _step(scores: Mapping[str, Mapping[int, float]]) -> float:
    """The smallest gap between any two different scores; 0 where there is none."""
    seen = sorted({value for row in scores.values() for value in row.values()})
    return min((b - a for a, b in pairwise(seen)), default=0.0)
