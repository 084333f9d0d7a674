"""Forward-Forward: every block learns to be active on right labels and quiet on wrong ones (Hinton, 2022).

Shape suffixes: B batch, D input features, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.kinds.rule import (
    Blocks,
    Misfit,
    Problem,
    Rule,
    Tags,
    Toy,
    linear_gradients,
    rule,
    softmax_error,
    trainable,
)
from netwright.part import Claim, Option, Paper, Protocol


def unit_rms(h: Tensor) -> Tensor:
    """h / sqrt(mean(h^2)) over all but the batch dimension: its length, which is its goodness, is taken away."""
    return h / (h.square().mean(tuple(range(1, h.dim())), keepdim=True).sqrt() + 1e-8)


@final
class ForwardForward(Rule):
    """L_k = softplus(theta - g_k(right label)) + softplus(g_k(wrong label) - theta), g_k = sum or mean of h_k^2.

    The label is overlaid on the input's first K features as a one-hot row as high as the example's largest magnitude.
    goodness: "sum" (theta = threshold * number of units) or "mean" (theta = threshold): the two match at any width.
    predict: "goodness" tries every label and adds the goodness of all blocks but the first, in K passes;
    "classifier" reads a softmax layer on the normalised activities of those blocks under a neutral label, in one.
    Raises Misfit where the input has no room for the label.
    """

    def __init__(
        self, net: Blocks, problem: Problem, goodness: str = "sum", threshold: float = 1.0, predict: str = "goodness"
    ) -> None:
        super().__init__(net, problem)
        if problem.classes is None or problem.input[0] <= problem.classes:
            raise Misfit(
                f"forward-forward writes one of {problem.classes} labels over the first features of an input"
                f" {problem.input} and leaves nothing else to see; choose a task with more input features than classes"
            )
        self.classes, self.goodness, self.threshold, self.predict = problem.classes, goodness, threshold, predict
        net.readout.requires_grad_(False)  # the goodness, or a classifier of its own, takes its place
        self.first = min(1, len(net.blocks) - 1)  # of the blocks that predict
        if predict == "classifier":
            self.classifier = Classifier(sum(shape[0] for shape in net.shapes[self.first :]), problem.classes)

    def overlay(self, x_BD: Tensor, label_BK: Tensor) -> Tensor:
        """x with its first K features replaced by the label, as high as the largest magnitude in each example."""
        return torch.cat([label_BK.to(x_BD.dtype) * x_BD.abs().amax(1, keepdim=True), x_BD[:, self.classes :]], 1)

    def one_hot(self, y: Tensor) -> Tensor:
        return y[..., None] == torch.arange(self.classes, device=y.device)

    def neutral(self, x_BD: Tensor) -> Tensor:
        """Every label at 1 / K."""
        return self.overlay(x_BD, torch.full_like(x_BD[:, : self.classes], 1 / self.classes))

    def excess(self, h: Tensor) -> Tensor:
        """Goodness minus theta, (B,)."""
        mean = h.square().flatten(1).mean(1) - self.threshold
        return mean * h[0].numel() if self.goodness == "sum" else mean

    def activities(self, x: Tensor) -> list[Tensor]:
        """The output of every block, each block fed with its predecessor's at unit length and without gradient."""
        hidden = []
        for block in self.net.blocks:
            x = block(unit_rms(x.detach()))
            hidden.append(x)
        return hidden

    def features(self, x: Tensor) -> list[Tensor]:
        """What each block puts out under a neutral label."""
        return self.activities(self.neutral(x))

    def classify(self, hidden: Sequence[Tensor]) -> Tensor:
        return self.classifier(torch.cat([unit_rms(h.detach()) for h in hidden[self.first :]], 1))

    def forward(self, x: Tensor) -> Tensor:
        if self.predict == "classifier":
            return self.classify(self.features(x))
        scores = []
        for k in range(self.classes):
            guess = self.one_hot(torch.full((len(x),), k, device=x.device))
            hidden = self.activities(self.overlay(x, guess))[self.first :]
            scores.append(torch.stack([self.excess(h) for h in hidden]).sum(0))
        return torch.stack(scores, -1)

    def draw(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """A wrong label an example, all equally likely."""
        shift = torch.randint(1, self.classes, y.shape, generator=generator, device=generator.device)
        return ((y + shift.to(y.device)) % self.classes,)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        (wrong,) = draws
        rows = [self.overlay(x, self.one_hot(y)), self.overlay(x, self.one_hot(wrong))]
        if self.predict == "classifier":
            rows.append(self.neutral(x))
        n, h, neutral = len(x), torch.cat(rows), []
        for block in self.net.blocks:
            h = block(unit_rms(h.detach()))
            right, false = self.excess(h[:n]), self.excess(h[n : 2 * n])
            neutral.append(h[2 * n :].detach())
            yield F.softplus(-right).mean() + F.softplus(false).mean()
        if self.predict == "classifier":
            yield self.problem.loss(self.classify(neutral), y)

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        own = [trainable(self.classifier)] if self.predict == "classifier" else []
        return [trainable(block) for block in self.net.blocks] + own


@final
class Classifier(nn.Module):
    """A softmax layer without bias that starts at zero."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        self.weight.zero_()

    def forward(self, h_BD: Tensor) -> Tensor:
        return F.linear(h_BD, self.weight)


def reference(rule: Any, x: Tensor, y: Tensor, wrong: Tensor) -> dict[str, Tensor]:
    """da_k = 2 h (p - 1) on right labels, 2 h p on wrong ones; p = sigmoid(g - theta), g the sum or the mean of h^2."""

    def normal(h: Tensor) -> Tensor:
        return torch.stack([row / (row.norm() / math.sqrt(len(row)) + 1e-8) for row in h])

    def write(label_BK: Tensor) -> Tensor:
        written = x.clone()
        written[:, : label_BK.shape[1]] = label_BK.double() * x.abs().max(1).values[:, None]
        return written

    eye, b = torch.eye(rule.classes, dtype=x.dtype), len(x)
    right, false = normal(write(eye[y])), normal(write(eye[wrong]))
    neutral = normal(write(torch.ones_like(eye)[y] / len(eye)))
    grads: dict[str, Tensor] = {}
    read = []
    for k, block in enumerate(rule.net.blocks):
        outputs = []
        for side, shift in ((right, -1.0), (false, 0.0), (neutral, None)):
            h = (side @ block[0].weight.T + block[0].bias).clamp(min=0)
            outputs.append(normal(h))
            if shift is None:
                continue
            n = 1 if rule.goodness == "sum" else h.shape[1]
            theta = rule.threshold * (h.shape[1] if rule.goodness == "sum" else 1)
            p_B1 = torch.sigmoid((h * h).sum(1, keepdim=True) / n - theta)
            for name, g in linear_gradients(f"net.blocks.{k}.0", 2 * h / n * (p_B1 + shift) / b, side).items():
                grads[name] = grads.get(name, 0) + g
        right, false, neutral = outputs
        read.append(neutral)
    if rule.predict == "classifier":
        features = torch.cat(read[1:], 1)
        grads["classifier.weight"] = softmax_error(features @ rule.classifier.weight.T, y).T @ features
    return grads


def claim_length() -> bool:
    """Scaling the first block's output threefold leaves the second block's activity as it was."""
    toy = Toy()
    rule: Any = toy.bind(ForwardForward)
    x, _ = toy.batch()
    before = rule.activities(x)
    with torch.no_grad():
        for p in rule.net.blocks[0].parameters():
            p.mul_(3.0)
    after = rule.activities(x)
    return torch.allclose(after[1], before[1], rtol=1e-6) and torch.allclose(after[0], 3 * before[0])


PART = rule(
    ForwardForward,
    reference=reference,
    formula=r"L_k = \log(1 + e^{\theta - g_k^{+}}) + \log(1 + e^{g_k^{-} - \theta}),\quad g_k = \sum_j h_{kj}^2",
    paper=Paper(
        title="The Forward-Forward Algorithm: Some Preliminary Investigations",
        authors="Geoffrey Hinton",
        year=2022,
        arxiv="2212.13345",
    ),
    tags=Tags(
        family="local", local=True, needs=frozenset({"blocks", "labels", "vector"}),
        forwards_train=2.0, forwards_predict="classes",
        at={"predict=classifier": {"forwards_train": 3.0, "forwards_predict": 1.0}},
    ),
    options=(
        Option("goodness", "sum", "sum or mean of squared activities", allowed=("sum", "mean")),
        Option("threshold", 1.0, "threshold of goodness, a unit", bounds=(0.0, 100.0)),
        Option("predict", "goodness", "try every label, or classify once", allowed=("goodness", "classifier")),
    ),
    claims=(
        Claim(
            "length", "normalisation removes a layer's goodness, so that the next one can't read it off the length",
            where="section 2.1", check=claim_length,
        ),
        Claim(
            "backprop", "does not generalise quite as well as backpropagation", where="section 1",
            protocol=Protocol(task="digits", against="rule/backprop", expect="not better"),
        ),
    ),
    deviations=(
        "the label is as high as the largest magnitude in the example, not 1, so that it fits inputs on any scale",
        "right and wrong labels of a batch go through as one batch, and all layers learn in every step",
        "the threshold is given a unit, so that it follows the width",
        "no peer normalisation",
    ),
)  # fmt: skip
