"""A StudyResult from what the store holds: scores, verdicts, costs, shapes, and what a reader has to know."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch

from netwright.bench import plan as planning
from netwright.bench import stats
from netwright.bench.causes import nothing_worked
from netwright.bench.entrant import Entrant
from netwright.bench.match import shortfalls
from netwright.bench.overlap import shared_rows
from netwright.bench.records import ArmResult, Comparison, RunRecord, Score, StudyResult, ValueRow
from netwright.bench.request import Request
from netwright.bench.store.store import Store
from netwright.core import catalogue
from netwright.core.errors import NetwrightError, unknown
from netwright.core.kind import NET
from netwright.corpus.papers import reference_line
from netwright.engine.task import Problem, Task


def assemble(
    request: Request, given: Sequence[Entrant], command: str, store: Store, plan: planning.Plan, look: int, seconds: float | None
) -> StudyResult:
    """Everything a report shows, judged at the level of this look."""
    entrants = plan.placed(given)
    task = entrants[0].task
    problem = task.problem
    wanted = set(request.seeds)
    names = [entrant.name for entrant in entrants]
    scores = [s for s in store.scores() if s.seed in wanted and s.arm in names]
    records = tuple(r for r in store.records() if r.seed in wanted and r.arm in names)
    family = [arm.name for arm in request.judged]
    values = named_values(scores, records)
    judged = Yardstick.of(request, problem)
    by_arm = {n: {s.seed: s.value for s in scores if s.arm == n and not s.dropped} for n in names}
    if request.judge:
        by_score, by_arm = by_arm, judged.instead(values, scores)
        values = {problem.metric_name: {name: dict(row) for name, row in by_score.items()}, **values}
    failed = {n: {s.seed for s in scores if s.arm == n and s.failed} for n in names}
    dropped = {n: {s.seed for s in scores if s.arm == n and s.dropped} for n in names}
    short = shortfalls(entrants, request.match)

    def judge(arms: list[str], baseline: str, all_pairs: bool = False) -> list[Comparison]:
        if len(arms) < 2:
            return []
        return stats.compare(
            {n: by_arm[n] for n in arms},
            baseline=baseline,
            delta=judged.delta,
            higher_is_better=judged.higher_is_better,
            failed={n: failed[n] & by_arm[n].keys() for n in arms},  # all, but where nothing worked and a value is judged
            dropped={n: dropped[n] for n in arms},
            not_comparable={n: short[n] for n in arms if n in short},
            looks=look,
            all_pairs=all_pairs,
        )

    comparisons = judge(family, request.baseline, request.all_pairs)
    # Whether a rule learns anything in its hidden blocks is asked of each rule alone, and not of a family.
    against = [name for name in names if request.control and name != request.control]
    above = tuple(c for name in against for c in judge([request.control, name], request.control))
    costs = {c.arm: c for c in store.costs()}
    arms = []
    for entrant in entrants:
        name = entrant.name
        mean, interval, n = stats.arm_summary(by_arm[name])
        parts = {slot: str(one) for slot, one in entrant.parts.items()}
        lost, cost = len(failed[name]), costs.get(name)
        arms.append(ArmResult(name, parts, by_arm[name], mean, interval, n, lost, cost, _edges(scores, name)))
    classes = {"stack" if e.startswith("stack") else "loop" for e in plan.engines.values()}
    environments = store.environments()
    cause = nothing_worked(records, scores)
    notes = [*([cause] if cause else []), *shared_rows(task), *plan.notes, *(n for n in store.notes() if not n.startswith("A/A"))]
    notes += [f"{d} of {n} dropped: {s.dropped}" for n in names for d, s in _drops(scores, n)]
    notes += [
        f"{cost.arm} isn't repeatable: its first step, done twice from the same seed, gave two losses"
        for cost in costs.values()
        if cost.repeats is False
    ]
    if request.judge:
        notes.insert(0, f"arms are judged by {request.judge}, not by the task's {problem.metric_name}")
    if len(environments) > 1:
        notes.append("records come from different environments (torch version or machine); compare within one where it matters")
    return StudyResult(
        study=request.study_id,
        title=title(family, task.name),
        task=_task_text(request, task),
        task_summary=task.summary,
        metric=judged.name,
        higher_is_better=judged.higher_is_better,
        worst=judged.worst,
        delta=judged.delta,
        baseline=request.baseline,
        seeds=request.seeds,
        trials=request.trials,
        match=request.match,
        arms=tuple(arms),
        comparisons=tuple(comparisons),
        records=records,
        scores=tuple(scores),
        looks=look,
        level=stats.level(look),
        engine=classes.pop() if len(classes) == 1 else "mixed",
        notes=tuple(dict.fromkeys(notes)),
        environment={str(k): str(v) for k, v in (environments[-1][0] if environments else {}).items()},
        command=command,
        started=datetime.datetime.fromtimestamp(store.created, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        seconds=seconds,
        aa_ratio=_aa(store),
        curves=shapes(entrants),
        shared_init=shared_init(entrants, request.seeds[0]),
        papers=references(entrants),
        values=tuple(value_rows(values, names, max(1, len(comparisons)))),
        control=request.control,
        against_control=above,
    )


@final
@dataclass(frozen=True)
class Yardstick:
    """What arms are judged by: the task's metric, or a named value with a direction and a delta of its own."""

    name: str
    higher_is_better: bool
    delta: float
    worst: float  # of a failed replicate; NaN where that is the worst that is seen

    @staticmethod
    def of(request: Request, problem: Problem) -> Yardstick:
        if not request.judge:
            return Yardstick(problem.metric_name, problem.higher_is_better, problem.delta, problem.worst)
        assert request.delta is not None and request.higher_is_better is not None  # with judge=, as Terms has checked
        return Yardstick(request.judge, request.higher_is_better, request.delta, math.nan)

    def instead(
        self, values: Mapping[str, Mapping[str, Mapping[int, float | None]]], scores: Sequence[Score]
    ) -> dict[str, dict[int, float]]:
        """arm -> value by seed. A failed replicate takes the worst that any arm has; where a value did not occur its seed is out.

        Raises UnknownName where runs ended well and none has such a value.
        """
        if self.name not in values and not all(score.failed or score.dropped for score in scores):
            raise unknown("named value", self.name, values, owner="judge")
        mine = values.get(self.name, {})
        seen = [value for row in mine.values() for value in row.values() if value is not None]
        found: dict[str, dict[int, float]] = {score.arm: {} for score in scores}
        for score in scores:
            value = mine.get(score.arm, {}).get(score.seed)
            if score.failed and seen:
                value = min(seen) if self.higher_is_better else max(seen)
            if value is not None and not score.dropped:
                found[score.arm][score.seed] = value
        return found


def title(names: Sequence[str], where: str) -> str:
    """The baseline stands first among the names."""
    others = names[1:]
    who = (
        f"{len(others)} arms against {names[0]}"
        if len(others) > 2
        else f"{' and '.join(others)} against {names[0]}"
        if others
        else names[0]
    )
    return f"{who} on {where}"


def _task_text(request: Request, task: Task) -> str:
    tail = ",".join(f"{k}={v}" for k, v in {"size": task.size, **task.options, **request.budget}.items() if v not in ("", None))
    return f"{task.id}:{tail}" if tail else task.id


def _edges(scores: Any, name: str) -> tuple[str, ...]:
    mine = [s for s in scores if s.arm == name and s.trial is not None]
    edge = sum(s.at_edge for s in mine)
    return (f"the selected rate lies at the edge of its range for {edge} of {len(mine)} seeds",) if 2 * edge > len(mine) else ()


def _drops(scores: Any, name: str) -> list[tuple[str, Any]]:
    return [(f"seed {s.seed}", s) for s in scores if s.arm == name and s.dropped]


def _aa(store: Store) -> float | None:
    rows = [float(found[1]) for n in store.notes() if (found := re.fullmatch(r"A/A (\d+\.\d+)", n))]
    return rows[-1] if rows else None


def shapes(entrants: Sequence[Entrant]) -> dict[str, tuple[tuple[float, float, float], ...]]:
    """Curves of the compared parts of a net, where a curve says what they are and they differ."""
    kinds, out, compared = catalogue.kinds(), {}, set()
    for entrant in entrants:
        for one in entrant.parts.values():
            if one.place == NET and (drawn := kinds[one.part.kind].facts(one.part, one.options).curve):
                out[entrant.name] = drawn
                compared.add(one.part.id)
    return out if len(compared) > 1 else {}


def shared_init(entrants: Sequence[Entrant], seed: int) -> dict[str, tuple[int, int]]:
    """arm -> (initial values equal to the baseline's at the same path, all its values), at one seed."""
    out: dict[str, tuple[int, int]] = {}
    base: dict[str, torch.nn.Parameter] = {}
    for entrant in entrants if not entrants[0].task.call else ():
        try:
            state = dict(entrant.build(seed).named_parameters())
        except (NetwrightError, RuntimeError, TypeError, ValueError):
            continue
        base = base or state
        same = sum(p.numel() for n, p in state.items() if n in base and base[n].shape == p.shape and torch.equal(base[n], p))
        out[entrant.name] = (same, sum(p.numel() for p in state.values()))
    return out


def references(entrants: Sequence[Entrant]) -> dict[str, str]:
    """arm -> the papers of the parts it names."""
    named = {e.name: [one.part for slot, one in e.parts.items() if slot in e.arm.parts] for e in entrants}
    return {name: "; ".join(reference_line(part.paper) for part in parts) for name, parts in named.items() if parts}


def value_rows(values: Mapping[str, Mapping[str, Mapping[int, float | None]]], arms: Sequence[str], m: int) -> Iterable[ValueRow]:
    """Each named value of each arm beside the baseline's, at the confidence of the m comparisons."""
    for name, by_arm in values.items():
        known = {arm: {seed: v for seed, v in by_arm.get(arm, {}).items() if v is not None} for arm in arms}
        base = known[arms[0]]
        for arm in arms:
            paired = [known[arm][seed] - base[seed] for seed in sorted(base) if seed in known[arm]] if arm != arms[0] else []
            mean = sum(paired) / len(paired) if paired else None
            interval = stats.t_interval(paired, 1 - stats.level() / m)
            yield ValueRow(name, arm, *stats.arm_summary(known[arm]), mean, interval, len(paired))


def named_values(scores: Sequence[Score], records: Sequence[RunRecord]) -> dict[str, dict[str, dict[int, float | None]]]:
    """name -> arm -> value by seed, of the selected runs."""
    chosen = {s.key: s for s in scores if s.trial is not None}
    found: dict[str, dict[str, dict[int, float | None]]] = {}
    for record in records:
        if (score := chosen.get(record.key)) is not None:
            for name, value in record.values.items():
                found.setdefault(name, {}).setdefault(score.arm, {})[score.seed] = value
    return found


def planned(request: Request, task: Task, lines: list[str], runs: int) -> dict[str, Any]:
    """What a dry run says, for machines."""
    r = request
    return {
        "schema": 1,
        "study": r.study_id,
        "task": _task_text(r, task),
        "arms": [a.name for a in r.arms],
        "runs": runs,
        "notes": lines,
    }
