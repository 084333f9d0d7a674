"""Does a rule use its depth? What the net and each of its ends know, with one block to eight.

Belilovsky, Eickenberg and Oyallon, "Greedy Layerwise Learning Can Scale to ImageNet" (2019): where blocks are trained each
on a loss of its own, every block's output is better separable than that before it. What a block knows is told by a ridge
regression on its output.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from netwright.core.part import Option, Paper
from netwright.engine.blocks import pooled
from netwright.engine.loop import Setting, predict, train
from netwright.engine.task import Data
from netwright.experiments._kind import Control, Figure, Predicate, experiment
from netwright.experiments.rules._nets import HOSTS, RATES, learner_of, net_of

ROWS = 10_000  # of the training set that the regressions see
RIDGE = 0.01  # times their number
#: Rules that train hidden blocks without a gradient through all of them, and two that are compared with.
RULES = (
    "backprop",
    "frozen-hidden",
    "mono-forward",
    "lls",
    "local-loss",
    "forward-forward",
    "dfa",
    "counter-current",
    "soft-hebbian",
    "dual-propagation",
    "collaborative-ff",
    "physical-ff",
    "difference-target-propagation",
    "feedback-alignment",
    "sign-symmetry",
    "cafo",
    "noprop",
    "predictive-coding",
    "equilibrium-propagation",
)


@torch.no_grad()
def known(rule: Any, data: Data) -> list[float]:
    """Test accuracy of a ridge regression on each block's output, standardised."""
    rule.eval()
    shapes = rule.net.shapes

    def features(x: Tensor) -> list[Tensor]:
        pieces = [rule.features(part) for part in x.split(1000)]
        return [torch.cat([pooled(p[k], shape) for p in pieces]).double() for k, shape in enumerate(shapes)]

    (x, y), (x_test, y_test) = data.split("train"), data.split("test")
    out = []
    for h, h_test in zip(features(x[:ROWS]), features(x_test), strict=True):
        mean, sd = h.mean(0), h.std(0) + 1e-6
        h, h_test = (h - mean) / sd, (h_test - mean) / sd
        targets = torch.nn.functional.one_hot(y[: len(h)]).double()
        weights = torch.linalg.solve(h.T @ h + RIDGE * len(h) * torch.eye(h.shape[1], dtype=h.dtype), h.T @ (targets - 0.1))
        out.append(float(((h_test @ weights).argmax(1) == y_test).double().mean()))
    return out


def cell(seed: int, *, rule: str, depth: int, section: str, steps: int) -> Mapping[str, Any]:
    """The net's test accuracy at its best state on validation, and what its first and last blocks know."""
    task = net_of(section, depth)
    if steps:
        task = dataclasses.replace(task, steps=steps, evals=(steps,))
    (learner, closed), data = learner_of(task, rule, seed), task.data(seed)
    done = train(learner, data, Setting.of(task, seed, {"lr": RATES[rule]}), closed)
    if done.best_state is not None:
        learner.load_state_dict(done.best_state)
    x, y = data.split("test")
    blocks = known(learner, data)
    return {"net": float(task.problem.metric(predict(learner, x), y)), "first": blocks[0], "last": blocks[-1]}


def gain(table: Any) -> float:
    """What the last block of the deepest net knows more than the first."""
    deepest = max(table.rows, key=lambda row: row["depth"])
    return deepest["last"] - deepest["first"]


PART = experiment(
    cell,
    name="use-of-depth",
    paper=Paper(
        title="Greedy Layerwise Learning Can Scale to ImageNet",
        authors="Belilovsky, E., Eickenberg, M. and Oyallon, E.",
        year=2019,
        arxiv="1812.11446",
        venue="ICML",
    ),
    uses=(*(f"rule/{name}" for name in RULES), *HOSTS, "optimizer/adam", "optimizer/constant", "loss/cross-entropy"),
    grid={"rule": RULES, "depth": (1, 2, 4, 8)},
    gives=("net", "first", "last"),
    options=(
        Option("section", "small", "the net and its data", allowed=("small", "digits")),
        Option("steps", 0, "instead of the task's; 0: the task's", bounds=(-1, 10**9)),
    ),
    sizes={
        "tiny": {"rule": ("mono-forward",), "depth": (1, 3), "section": "digits", "steps": 200, "seeds": 3},
        "small": {"seeds": 2},
        "full": {"seeds": 8},
    },
    predicates=(
        Predicate(
            "separability",
            "where blocks are trained each on its own loss, the last one's output is better separable than the first's",
            gain,
            inside=(0.0, 1.0),
            reads=("depth", "first", "last"),
            at={"rule": "mono-forward"},
            where="progressive linear separability",
        ),
    ),
    controls=(Control("a single step, in which depth only blurs", {"steps": 1}, ("separability",)),),
    figure=Figure("depth", "net", "log-x", by="rule", label="test accuracy"),
    deviations=(
        "MNIST and dense blocks of 256 units, not ImageNet and convolutions",
        "every rule at the rate that validation chose for two blocks",
    ),
)
