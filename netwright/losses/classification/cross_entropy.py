"""Cross-entropy: minus the logarithm of the probability that softmax gives to the label."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.core.part import Claim, Option, Paper
from netwright.losses._kind import IGNORED, Tags, full, loss
from netwright.tensor.terms import Terms, by_example

#: Rows shorter than this leave torch's vectorised softmax on a CPU (about five times slower at 10 classes).
VECTOR_ROW = 16


def cross_entropy(out: Tensor, y: Tensor, *, ignore_index: int, label_smoothing: float) -> Terms:
    """-sum_k q_k log softmax(z)_k in nats, q the label's indicator, or y where it is probabilities; smoothed (1 - s) q + s / K.

    out: scores (B, ..., K). y: labels (B, ...), or probabilities of out's shape.
    """
    soft = y.is_floating_point()
    counts = torch.ones_like(y[..., 0], dtype=torch.bool) if soft else y != ignore_index
    logs = torch.log_softmax(torch.where(counts[..., None], full(out), 0), -1)
    if soft:
        q = (1 - label_smoothing) * y.to(logs.dtype) + label_smoothing / logs.shape[-1]
        return (by_example(-torch.where(q == 0, 0, q * logs).sum(-1), counts),)
    at_label = logs.gather(-1, torch.where(counts, y, 0)[..., None])[..., 0]
    smooth = label_smoothing * logs.mean(-1) if label_smoothing else 0
    return (by_example(-(1 - label_smoothing) * at_label - smooth, counts),)


def mean(out: Tensor, y: Tensor) -> Tensor:
    """torch's own. Columns of -inf, of probability 0 and gradient 0, fill short rows up to the vector length on a CPU."""
    classes = out.shape[-1]
    if classes < VECTOR_ROW and out.device.type == "cpu":
        out = F.pad(out, (0, VECTOR_ROW - classes), value=-math.inf)
    return F.cross_entropy(out.flatten(0, -2), y.flatten())


def reference(out: Any, y: Any, *, ignore_index: int, label_smoothing: float) -> list[list[tuple[float, float]]]:
    """Minus the expected log-probability, row by row, by exponentials."""
    rows = []
    for scores, target in zip(out, y, strict=True):
        top = max(scores)
        z = sum(math.exp(score - top) for score in scores)
        if isinstance(target, list):
            hot = [float(q) for q in target]
        else:
            hot = [float(k == target) for k in range(len(scores))]
        smooth = [q * (1 - label_smoothing) + label_smoothing / len(scores) for q in hot]
        value = -sum(q * (score - top - math.log(z)) for q, score in zip(smooth, scores, strict=True))
        counts = isinstance(target, list) or target != ignore_index
        rows.append((value if counts else 0.0, float(counts)))
    return [rows]


def is_the_entropy_at_the_truth() -> bool:
    """At the true probabilities the expected loss is their entropy, and no other row has less."""
    q = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    others = torch.softmax(torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64), -1)
    own = {"ignore_index": -100, "label_smoothing": 0.0}
    at = cross_entropy(torch.cat([q[None], others]).log(), q.expand(201, 3), **own)[0].values  # type: ignore[arg-type]
    return bool(torch.allclose(at[0], -(q * q.log()).sum()) and (at[1:] > at[0]).all())


PART = loss(
    cross_entropy,
    reference=reference,
    mean=mean,
    formula=r"-\sum_k q_k \log softmax(z)_k",
    paper=Paper(
        title="Training Stochastic Model Recognition Algorithms as Networks Can Lead to Maximum Mutual Information Estimation"
        " of Parameters",
        authors="John S. Bridle",
        year=1989,
        venue="NIPS 2",
    ),
    tags=Tags(soft=True, shift=True, proper=True, convex=True, usual="labels"),
    options=(
        IGNORED,
        Option("label_smoothing", 0.0, "share of the target that is spread over all classes", bounds=(-1e-12, 1.0)),
    ),
    values=(([[0.0, 0.0]], [1], math.log(2)), ([[2.0, 0.0, 0.0]], [0], math.log(1 + 2 * math.exp(-2)))),
    claims=(
        Claim(
            "proper",
            "the expected loss is least at the true probabilities, where it is their entropy",
            "section 2",
            check=is_the_entropy_at_the_truth,
        ),
    ),
    deviations=("label smoothing is of Szegedy and others (2016), with the uniform distribution",),
)
