"""AnyLoss: one minus a metric of counts (accuracy, F, G-mean), its counts made soft by a steep sigmoid of the probability."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper
from netwright.losses._kind import Tags, full, loss
from netwright.tensor.terms import Term, Terms

METRICS = ("f_beta", "accuracy", "g-mean", "balanced-accuracy")


def anyloss(out: Tensor, y: Tensor, *, metric: str, beta: float, amplifier: float) -> Terms:
    """1 - metric(TP, S, P, n), A = sigmoid(L (p - 1/2)), TP = sum y A, S = sum A, P = sum y: the same for all of a batch.

    out: scores of two classes (B, 2), or a logit (B,) or (B, 1). y: labels 0 and 1 (B,). A batch without one of the classes,
    for a metric that needs both, counts for nothing, as does one without positives for F.
    """
    z = full(out)
    z = z[:, 1] - z[:, 0] if z.dim() == 2 and z.shape[1] == 2 else z.reshape(len(z))
    amplified = torch.sigmoid(amplifier * (torch.sigmoid(z) - 0.5))
    hot = y.to(z.dtype)
    n, positive, said, right = float(len(z)), hot.sum(), amplified.sum(), (hot * amplified).sum()
    both = positive * (n - positive)
    known = (
        positive > 0 if metric == "f_beta" else both > 0 if metric != "accuracy" else torch.ones_like(positive, dtype=torch.bool)
    )
    safe = torch.where(both > 0, both, 1)
    if metric == "accuracy":
        score = (n - positive - said + 2 * right) / max(n, 1.0)
    elif metric == "f_beta":
        score = (1 + beta**2) * right / torch.where(known, beta**2 * positive + said, 1)
    elif metric == "g-mean":
        square = right * (n - said - positive + right) / safe
        score = torch.where(square > 0, torch.where(square > 0, square, 1).sqrt(), 0)
    else:
        score = (n * (right + positive) - positive * (said + positive)) / (2 * safe)
    return (Term((1 - score).expand(len(z)), known.to(z.dtype).expand(len(z))),)


def reference(out: Any, y: Any, *, metric: str, beta: float, amplifier: float) -> list[list[tuple[float, float]]]:
    """By the four soft counts of the confusion matrix, as the metrics are defined on them."""
    chances = []
    for row in out:
        z = row[1] - row[0] if isinstance(row, list) and len(row) == 2 else row[0] if isinstance(row, list) else row
        chances.append(1 / (1 + math.exp(-z)) if z > 0 else math.exp(z) / (1 + math.exp(z)))
    a = [1 / (1 + math.exp(-amplifier * (p - 0.5))) for p in chances]
    tp = sum(v for v, label in zip(a, y, strict=True) if label == 1)
    fn = sum(1 - v for v, label in zip(a, y, strict=True) if label == 1)
    fp = sum(v for v, label in zip(a, y, strict=True) if label == 0)
    tn = sum(1 - v for v, label in zip(a, y, strict=True) if label == 0)
    if metric == "accuracy":
        value: float | None = (tp + tn) / (tp + tn + fp + fn)
    elif not any(y) or (metric != "f_beta" and all(y)):
        value = None
    elif metric == "f_beta":
        value = (1 + beta**2) * tp / ((1 + beta**2) * tp + beta**2 * fn + fp)
    else:
        sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
        value = math.sqrt(sensitivity * specificity) if metric == "g-mean" else (sensitivity + specificity) / 2
    return [[(0.0 if value is None else 1 - value, float(value is not None)) for _ in y]]


def counts_as_the_metric_does() -> bool:
    """Where predictions are certain it is one minus the metric itself: F1 of 2 right of 3 said and 4 there is 4 / 7."""
    z = torch.tensor([9.0, 9.0, 9.0, -9.0, -9.0, -9.0, -9.0], dtype=torch.float64)
    y = torch.tensor([1, 1, 0, 1, 1, 0, 0])
    own = {"beta": 1.0, "amplifier": 73.0}
    wanted = {"f_beta": 4 / 7, "accuracy": 4 / 7, "g-mean": math.sqrt(0.5 * 2 / 3), "balanced-accuracy": (0.5 + 2 / 3) / 2}
    got = {name: 1 - float(anyloss(z, y, metric=name, **own)[0].values[0]) for name in wanted}
    return all(abs(got[name] - wanted[name]) < 1e-9 for name in wanted)


def is_steep() -> bool:
    """The amplifier gives 0.99 at p = 0.5629."""
    return abs(1 / (1 + math.exp(-73 * 0.0629)) - 0.99) < 1e-4


PART = loss(
    anyloss,
    reference=reference,
    formula=r"1 - f(TP, FP, FN, TN), \quad A(p) = 1 / (1 + e^{-L (p - 1/2)})",
    paper=Paper("anyloss", equation="(2)"),
    tags=Tags(outputs="binary", batchwise=True, shift=True),
    options=(
        Option("metric", "f_beta", "which metric of counts is raised", allowed=METRICS),
        Option("beta", 1.0, "of F: how much recall counts over precision", bounds=(0.0, float("inf"))),
        Option("amplifier", 73.0, "how steeply probabilities become counts", bounds=(0.0, float("inf"))),
    ),
    settings=({"metric": "g-mean"}, {"metric": "accuracy"}, {"metric": "balanced-accuracy"}),
    columns=2,
    claims=(
        Claim("metric", "of certain predictions it is one minus the metric", "section 3", check=counts_as_the_metric_does),
        Claim("amplifier", "0.99 is reached at a probability of 0.563", "section 3.1, L = 73", check=is_steep),
    ),
    deviations=(
        "counts are of the batch and its own size; the released losses divide by the size of the training set",
        "a batch in which the metric is undefined counts for nothing",
    ),
)
