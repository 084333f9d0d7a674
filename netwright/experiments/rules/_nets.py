"""The nets on which learning rules are compared: MNIST's as large and trained as long as the tables say, others to try them."""

from __future__ import annotations

import dataclasses
from typing import Any

from netwright.core import catalogue
from netwright.core.kind import RULE
from netwright.engine.build import build, chosen
from netwright.engine.rule import Rule
from netwright.engine.task import Task, eval_grid

#: Rules beside their defaults.
VARIANTS = (
    "mono-forward:predict=sum",
    "mono-forward:frozen=True",
    "forward-forward:predict=all",
    "dfa:signal=target",
    "forward-forward:predict=classifier",
    "collaborative-ff:collaborate=preceding",
    "lls:variant=m",
    "lls:variant=mxm",
    "local-loss:loss=pred",
    "local-loss:loss=sim",
    "cafo:head=ce",
    "sign-symmetry:variant=fixed",
    "sign-symmetry:variant=redrawn",
    "noprop:steps=1",
    "multitasking-hebbian:steps=0",
    "predictive-coding:variant=fixed-prediction",
    "equilibrium-propagation:estimate=one-sided",
    "difference-target-propagation:feedback=ldrl",
    "physical-ff:reads=physical",
)
#: What the sections on MNIST and digits rest on beside rules.
HOSTS = ("task/mnist", "task/digits", "net/mlp", "net/convnet", "activation/relu", "layer/batch-norm")
#: The median of the rates that validation chose on 10 000 images of MNIST, for runs that are too long to be tuned.
RATES = {
    "backprop": 0.00408347,
    "cafo": 0.001337075,
    "collaborative-ff": 0.00388484,
    "counter-current": 0.00120211,
    "deeply-supervised": 0.00408347,
    "dfa": 0.00388484,
    "difference-target-propagation": 0.00408347,
    "dual-propagation": 0.00408347,
    "equilibrium-propagation": 0.00127941,
    "feedback-alignment": 0.00408347,
    "forward-forward": 0.00408347,
    "frozen-hidden": 0.004267505,
    "guidance": 0.00408347,
    "lls": 0.00408347,
    "local-loss": 0.00222128,
    "mono-forward": 0.004267505,
    "noprop": 0.00408347,
    "physical-ff": 0.0004148705,
    "predictive-coding": 0.00345295,
    "sign-symmetry": 0.00408347,
    "soft-hebbian": 0.00127941,
}


def rules() -> tuple[str, ...]:
    """Every rule at its defaults, then the variants; but what they are compared with."""
    named = (part.name for part in catalogue.parts("rule"))
    return (*(name for name in named if name not in ("backprop", "frozen-hidden")), *VARIANTS)


def net_of(section: str, depth: int = 2) -> Task:
    """A section's task: 10 000 images of MNIST for 5 epochs, all of them, ConvNets for 3 epochs, or digits to try it."""
    name, size, host = {
        "digits": ("digits", "small", "mlp"),
        "digits-conv": ("digits", "small", "convnet"),
        "small": ("mnist", "small", "mlp"),
        "full": ("mnist", "full", "mlp"),
        "mnist-conv": ("mnist", "small", "convnet"),
        "cifar10-conv": ("cifar10", "small", "convnet"),
        "cora": ("cora", "full", ""),
    }[section]
    part: Any = catalogue.get(f"task/{name}")
    task = part.build(size=size, **({"host": host} if host else {}))
    changes: dict[str, Any] = {}
    if section == "small":
        changes = {"widths": (256,) * depth, "steps": 780, "evals": eval_grid(780, 20)}
    elif section == "full":
        changes = {"widths": (256,) * depth, "evals": eval_grid(task.steps, 20)}
    elif section in ("mnist-conv", "cifar10-conv"):
        steps = 3 * 10_000 // task.batch
        changes = {"steps": steps, "evals": eval_grid(steps, 9)}
    elif section == "digits":
        changes = {"widths": (64,) * depth}
    return dataclasses.replace(task, **changes)


def learner_of(task: Task, spec: str, seed: int) -> tuple[Rule, bool]:
    """The rule over the task's net, and whether it is solved in closed form."""
    part, options = catalogue.parse(spec, "rule")
    parts = chosen(task, {RULE: (part.id, options)})
    closed: bool = part.tags_at(**options).closed_form  # type: ignore[attr-defined]
    return build(task, parts, seed, task.widths), closed
