"""Is a KAN better than an MLP? On formulas and elsewhere, at equal parameters, operations and time, with splines moved to nodes.

"Kolmogorov-Arnold Networks: A Critical Assessment of Claims, Performance, and Practical Viability" (2024). Every study is a
KAN of grid 5 and order 3 in the task's net, with others as wide as makes them cost the same; its ablation is an MLP whose
activations are learnt B-splines, which moves the splines from edges to nodes.
"""

from __future__ import annotations

import math
from typing import Any

from netwright.core.part import Option, Paper
from netwright.experiments._kind import Control, Predicate, Question, study, verdict

FORMULAS = tuple(f"formulas:formula={name}" for name in ("toy", "product", "four", "I.6.20", "I.16.6", "I.29.16"))
ELSEWHERE = ("moons", "digits", "mnist")
LINEAR = "swish:beta=0"  # x / 2: a net without a nonlinearity


def ask(*, task: str, match: str, kan: str, mlp: str, spline: str, relatives: bool, trials: int, steps: int) -> Question:
    arms = {"KAN": kan, "MLP": mlp, "MLP with splines": spline}
    if relatives:
        arms |= {name: name for name in ("silu", "fast-kan", "chebyshev-kan", "kat")}
    return Question(task, arms, terms={"match": match, "trials": trials, "steps": steps or None})


def slowdown(table: Any) -> float | None:
    """Step time of the KAN over that of the MLP of as many parameters, the geometric mean over tasks."""
    found = [table.arm("MLP", point) for point in table.points if point["match"] == "params"]
    ratios = [arm["step"] for arm in found if arm and arm["step"]]
    return math.exp(-sum(map(math.log, ratios)) / len(ratios)) if ratios else None


PART = study(
    ask,
    name="kan-critical-assessment",
    paper=Paper("kan-critical-assessment"),
    uses=("layer/kan", "layer/affine", "activation/relu", "activation/b-spline", "activation/swish"),
    grid={"task": (*FORMULAS, *ELSEWHERE), "match": ("params", "flops", "time")},
    options=(
        Option("kan", "kan", "the baseline"),
        Option("mlp", "relu", "the activation of the MLP"),
        Option("spline", "b-spline", "the activation of the MLP with splines"),
        Option("relatives", True, "compare SiLU, other KANs and KAT too"),
        Option("trials", 3, "rates each seed tries", bounds=(0, 10_000)),
        Option("steps", 0, "instead of the task's; 0: the task's", bounds=(-1, 10**9)),
    ),
    sizes={
        "tiny": {
            "task": ("formulas:formula=toy", "digits"),
            "match": ("params",),
            "relatives": False,
            "trials": 1,
            "steps": 40,
            "seeds": 7,
        },
        "small": {"seeds": 10},
        "full": {"trials": 5, "seeds": 20},
    },
    predicates=(
        verdict("formulas", "on formulas the KAN beats the MLP", "MLP", ("worse",), {"task": FORMULAS}, "abstract"),
        verdict("elsewhere", "elsewhere the MLP beats the KAN", "MLP", ("better",), {"task": ELSEWHERE}, "abstract"),
        verdict(
            "splines",
            "the advantage is the splines': on formulas an MLP that has them is as good at equal parameters and operations",
            "MLP with splines",
            ("better", "equivalent"),
            {"task": FORMULAS, "match": ("params", "flops")},
            "abstract",
        ),
        Predicate(
            "slower",
            "a step of the KAN takes 1.36 to 100 times that of an MLP of as many parameters",
            slowdown,
            inside=(1.36, 100.0),
            reads=("step",),
            where="abstract",
            sort="exact",
        ),
    ),
    controls=(
        Control("a plain linear layer in the KAN's place", {"kan": "affine"}, ("formulas", "slower"), makes=("splines",)),
        Control("no nonlinearity in the MLP", {"mlp": LINEAR, "task": ("moons",)}, ("elsewhere",)),
        Control("a weak relative in the KAN's place", {"kan": "chebyshev-kan", "task": ("digits",)}, makes=("elsewhere",)),
        Control("no nonlinearity in the MLP with splines", {"spline": LINEAR, "task": (FORMULAS[0],)}, ("splines",)),
    ),
    deviations=(
        "no text and no audio: of vision MNIST, of machine learning moons and digits",
        "continual learning, which the assessment names, comes with its tasks",
    ),
)
