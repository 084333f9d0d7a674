"""Optimizers that find their own rate, at their published settings, against the default with a rate tuned for each seed."""

from __future__ import annotations

from typing import Any

from netwright.core.part import Option, Paper
from netwright.experiments._kind import Control, Predicate, Question, study

METHODS = ("prodigy", "d-adapt-adam", "dog")
DATA = ("digits", "moons", "parity")


def ask(*, method: str, data: str, against: str, instead: str, trials: int, steps: int) -> Question:
    """The method runs once a seed; the default is tuned, and its cost is that of all its trials."""
    arms = {"tuned": against, "method": instead or f"optimizer/{method}"}
    return Question(data, arms, terms={"trials": trials, "match": "none", "control": False, "steps": steps or None})


def words(table: Any) -> dict[str, str | None]:
    """The bench's word on every method on every task."""
    found = {f"{point['method']} on {point['data']}": table.arm("method", point) for point in table.points}
    return {label: None if arm is None else arm["verdict"] for label, arm in found.items()}


def worst_share(table: Any) -> float | None:
    """Of one seed, the smallest score of a method over the tuned default's, over all methods and tasks."""
    shares = []
    for point in table.points:
        scores = {}
        for role in ("tuned", "method"):
            arm = table.arm(role, point)
            rows = [r for r in table.rows if arm and r["arm"] == arm["arm"] and all(r[k] == v for k, v in point.items())]
            scores[role] = rows[0]["score"] if rows else None
        if scores["tuned"] and scores["method"] is not None:
            shares.append(scores["method"] / scores["tuned"])
    return min(shares) if len(shares) == len(table.points) else None


PART = study(
    ask,
    name="hyperparameter-free",
    paper=Paper("hyperparameter-free"),
    uses=(*(f"optimizer/{name}" for name in METHODS), *(f"task/{name}" for name in DATA)),
    grid={"method": METHODS, "data": DATA},
    options=(
        Option("against", "default", "what the methods are compared with, tuned"),
        Option("instead", "", "what is compared in every method's place"),
        Option("trials", 5, "rates each seed of that tries", bounds=(0, 10_000)),
        Option("steps", 0, "instead of the task's; 0: the task's", bounds=(-1, 10**9)),
    ),
    sizes={
        "tiny": {"method": ("prodigy",), "data": ("moons",), "trials": 2, "seeds": 7, "steps": 150},
        "small": {"seeds": 10},
        "full": {"seeds": 30},
    },
    predicates=(
        Predicate(
            "not better",
            "none of them is better than the default with a tuned rate",
            words,
            inside=("worse", "equivalent"),
            reads=("verdict",),
            where="section 5",
            sort="verdict",
        ),
        Predicate(
            "close",
            "and every one reaches 95 % of its score",
            worst_share,
            inside=(0.95, 1.5),
            reads=("score",),
            where="section 5",
        ),
    ),
    controls=(
        Control("against an optimizer whose steps are too short", {"against": "optimizer/adam:eps=100"}, ("not better", "close")),
        Control("steps that are too short in every method's place", {"instead": "optimizer/adam:eps=100"}, makes=("not better",)),
    ),
    deviations=(
        "three small tasks in place of AlgoPerf's eight, and scores at a budget in place of times to a target",
        "the paper calibrates each method over all tasks together as well; here each stands at its published setting",
        "the default's cost is that of all its trials: five trainings for one of a method",
    ),
)
