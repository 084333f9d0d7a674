"""Forward-Forward, Cascaded-Forward and Mono-Forward against backpropagation of the same net, at equal tuning and budget.

Spyra, "Beyond Backpropagation: Exploring Innovative Algorithms for Energy-Efficient Deep Neural Network Training" (2025): each
rule on its native architecture (dense nets for two, a ConvNet for Cascaded-Forward). What its released code does instead,
unequal search and unequal stopping, is run by beyond-backprop-as-released.
"""

from __future__ import annotations

from typing import Any

from netwright.core.part import Option, Paper
from netwright.experiments._kind import Control, Predicate, Question, study, verdict

#: rule -> (its text as an arm, its net).
PAIRS = {
    "mono-forward": ("mono-forward", "mlp"),
    "forward-forward": ("forward-forward", "mlp"),
    "cafo": ("cafo:head=ce", "convnet"),
}


def ask(*, rule: str, data: str, instead: str, against: str, trials: int, steps: int) -> Question:
    spec, host = PAIRS[rule]
    arms = {"backprop": against, "rule": instead or spec}
    terms = {"match": "none", "trials": trials, "control": False, "steps": steps or None}
    return Question(data, arms, {"host": host}, terms)


def step_of(rule: str) -> Any:
    """Time of a training step of a rule over backpropagation's."""

    def value(table: Any) -> float | None:
        arm = table.arm("rule", {"rule": rule})
        return None if arm is None else arm["step"]

    return value


def most_memory(table: Any) -> float | None:
    """The largest peak memory of a training step, of any of the rules, over backpropagation's in the same net."""
    pairs = [(table.arm("rule", point), table.arm("backprop", point)) for point in table.points]
    ratios = [mine["memory"] / base["memory"] for mine, base in pairs if mine and base and mine["memory"] and base["memory"]]
    return max(ratios, default=None)


PART = study(
    ask,
    name="beyond-backprop-study",
    paper=Paper("beyond-backprop-study"),
    uses=("rule/backprop", "rule/mono-forward", "rule/forward-forward", "rule/cafo", "rule/frozen-hidden"),
    grid={"rule": tuple(PAIRS)},
    options=(
        Option("data", "mnist", "the task", allowed=("mnist", "digits", "cifar10")),
        Option("instead", "", "what is compared in every rule's place"),
        Option("against", "backprop", "what the rules are compared with"),
        Option("trials", 4, "rates each seed tries", bounds=(0, 10_000)),
        Option("steps", 0, "instead of the task's; 0: the task's", bounds=(-1, 10**9)),
    ),
    sizes={
        "tiny": {"rule": ("mono-forward", "forward-forward"), "data": "digits", "trials": 1, "steps": 60, "seeds": 6},
        "small": {"seeds": 6},
        "full": {"seeds": 20},
    },
    predicates=(
        verdict(
            "accuracy",
            "Mono-Forward is more accurate than backpropagation of its own dense net",
            "rule",
            ("better",),
            {"rule": "mono-forward"},
            "abstract",
        ),
        Predicate(
            "time",
            "and it shortens training: a step takes less time",
            step_of("mono-forward"),
            inside=(0.0, 1.0),
            reads=("step",),
            where="abstract",
            sort="exact",
        ),
        Predicate(
            "memory",
            "rules without backpropagation don't save memory by themselves: one of them takes more",
            most_memory,
            inside=(1.0, 1000.0),
            reads=("memory",),
            where="abstract",
            sort="exact",
        ),
        Predicate(
            "forward-forward",
            "Forward-Forward is built inefficiently: a step takes more time than backpropagation's",
            step_of("forward-forward"),
            inside=(1.0, 1000.0),
            reads=("step",),
            where="abstract",
            sort="exact",
        ),
    ),
    controls=(
        Control(
            "frozen hidden blocks in the rules' place",
            {"instead": "frozen-hidden"},
            ("accuracy", "memory", "forward-forward"),
            makes=("time",),
        ),
        Control("a rule of many passes in Mono-Forward's place", {"instead": "predictive-coding"}, ("time",)),
        Control("frozen hidden blocks in backpropagation's place", {"against": "frozen-hidden"}, makes=("accuracy",)),
    ),
    deviations=(
        "MNIST at 10 000 images, equal trials and steps for both sides, no early stopping",
        "energy is not measured here; time and memory are those of one training step",
    ),
)
