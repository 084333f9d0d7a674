"""The Z-loss: a softplus of how far the label's score lies above the mean of all scores, in their standard deviations."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.losses._kind import IGNORED, Tags, full, loss
from netwright.tensor.terms import Terms, by_example


def z_loss(out: Tensor, y: Tensor, *, a: float, b: float, ignore_index: int) -> Terms:
    """log(1 + exp(a (b - z_c))) / a with z_c = (o_c - mean(o)) / std(o) of the label c, over the K scores.

    out: scores (B, ..., K). y: labels (B, ...). Scores that are all equal have z = 0.
    """
    counts = y != ignore_index
    o = torch.where(counts[..., None], full(out), 0)
    o = o - o.mean(-1, keepdim=True)
    variance = o.square().mean(-1)
    flat = variance == 0
    z = o.gather(-1, torch.where(counts, y, 0)[..., None])[..., 0] / torch.where(flat, 1, variance).sqrt()
    return (by_example(F.softplus(a * (b - z)) / a, counts),)


def reference(out: Any, y: Any, *, a: float, b: float, ignore_index: int) -> list[list[tuple[float, float]]]:
    """Equation (9), by the sum and the sum of squares of a row."""
    rows = []
    for o, c in zip(out, y, strict=True):
        if c == ignore_index:
            rows.append((0.0, 0.0))
            continue
        first, second = sum(o), sum(v * v for v in o)
        mu = first / len(o)
        z = (o[c] - mu) / math.sqrt(second / len(o) - mu * mu)
        rows.append((math.log(1 + math.exp(a * (b - z))) / a, 1.0))
    return [rows]


def _scores() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(6, 10, generator=draw, dtype=torch.float64), torch.randint(10, (6,), generator=draw)


def _loss(o: Tensor, y: Tensor, a: float = 1.0, b: float = 0.0) -> Tensor:
    return z_loss(o, y, a=a, b=b, ignore_index=-100)[0].values


def has_the_papers_gradient() -> bool:
    """dL/do_i = -sigmoid(a (b - z_c)) / sigma (1[i = c] - 1/D - z_i z_c / D); it sums to 0 and is orthogonal to o."""
    o, y = _scores()
    got = torch.func.grad(lambda o: _loss(o, y, 1.3, 0.4).sum())(o)
    sigma = o.var(-1, correction=0, keepdim=True).sqrt()
    z = (o - o.mean(-1, keepdim=True)) / sigma
    z_c = z.gather(-1, y[:, None])
    wanted = -torch.sigmoid(1.3 * (0.4 - z_c)) / sigma * (F.one_hot(y, 10) - 0.1 - z * z_c / 10)
    return bool(
        torch.allclose(got, wanted, atol=1e-12) and (got.sum(-1).abs() < 1e-12).all() and ((got * o).sum(-1).abs() < 1e-12).all()
    )


def is_bounded() -> bool:
    """z_c is at most sqrt(D - 1), of the label alone on top: 3 of 10 classes."""
    return abs(float(_loss(torch.eye(10, dtype=torch.float64)[:1], torch.tensor([0]))) - math.log1p(math.exp(-3.0))) < 1e-12


PART = loss(
    z_loss,
    reference=reference,
    formula=r"\frac{1}{a} \log(1 + e^{a (b - z_c)}), \quad z_c = (o_c - \mu) / \sigma",
    paper=Paper("z-loss", equation="(9)"),
    tags=Tags(
        shift=True,
        scale=True,
        least=None,
        reasons={"least": "z_c is at most sqrt(D - 1), so that the least value depends on the number of classes"},
    ),
    options=(
        Option("a", 1.0, "how sharply it bends", bounds=(0.0, float("inf"))),
        Option("b", 0.0, "the z at which it bends"),
        IGNORED,
    ),
    values=(([[3.0, 0.0]], [0], math.log1p(math.exp(-1.0))),),
    claims=(
        Claim("gradient", "the gradient of every score is known in closed form", "section 3.1", check=has_the_papers_gradient),
        Claim("bounded", "z of D classes is at most sqrt(D - 1)", "section 3.1", check=is_bounded),
        Claim(
            "digits",
            "on digits it ends no lower than cross-entropy",
            "section 5",
            protocol=Protocol("task/digits", "loss/cross-entropy", "not worse"),
        ),
        Claim(
            "mnist",
            "on MNIST it ends no lower than cross-entropy",
            "section 5",
            protocol=Protocol("task/mnist", "loss/cross-entropy", "not worse"),
        ),
    ),
    deviations=(
        "a = 1 and b = 0 are those of the authors' example (pascal20100/factored_output_layer); the paper tunes both",
        "not the log(Z)^2 regulariser that large language models call z-loss",
        "the product that costs no more for more classes is not here: scores come whole",
    ),
)
