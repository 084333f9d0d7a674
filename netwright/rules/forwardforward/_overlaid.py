"""Labels written over inputs, right and wrong rows, prediction by trying every label.

Shape suffixes: B batch, D input features, K classes.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from netwright.core.errors import Misfit
from netwright.engine.blocks import Blocks
from netwright.engine.rule import Rule, trainable
from netwright.engine.task import Problem


def unit_rms(h: Tensor) -> Tensor:
    """h / sqrt(mean(h^2)) over all but the batch dimension: its length, which is its goodness, is taken away."""
    return h / (h.square().mean(tuple(range(1, h.dim())), keepdim=True).sqrt() + 1e-8)


def excess(h: Tensor, threshold: float, mean: bool = False) -> Tensor:
    """sum(h^2) - threshold * units, or mean(h^2) - threshold: (B,)."""
    over = h.square().flatten(1).mean(1) - threshold
    return over if mean else over * h[0].numel()


class Overlaid(Rule):
    """Abstract: every block tells rows that carry their right label from rows that carry a wrong one.

    The label is overlaid on the input's first K features as a one-hot row as high as the example's largest magnitude.
    A rule says how good a block's output is (`score`); what block k makes of its predecessor's output is `run`.
    Prediction tries every label and adds the scores of all blocks from `first` on, in K passes.
    Raises Misfit where the input has no room for the label, unless the rule writes none (overlays=False).
    """

    def __init__(self, net: Blocks, problem: Problem, first: int = 0, overlays: bool = True) -> None:
        super().__init__(net, problem)
        if problem.classes is None or overlays and problem.input[0] <= problem.classes:
            raise Misfit(
                f"forward-forward writes one of {problem.classes} labels over the first features of an input"
                f" {problem.input} and leaves nothing else to see; choose a task with more input features than classes"
            )
        self.classes, self.first = problem.classes, min(first, len(net.blocks) - 1)
        net.readout.requires_grad_(False)  # the goodness takes its place

    @abstractmethod
    def score(self, k: int, h: Tensor) -> Tensor:
        """The goodness of block k's output h: (B,)."""

    def run(self, k: int, h: Tensor) -> Tensor:
        """The output of block k, fed with its predecessor's at unit length and without gradient."""
        return self.net.blocks[k](unit_rms(h.detach()))

    def activities(self, x: Tensor) -> list[Tensor]:
        """The output of every block."""
        hidden = []
        for k in range(len(self.net.blocks)):
            x = self.run(k, x)
            hidden.append(x)
        return hidden

    def overlay(self, x_BD: Tensor, label_BK: Tensor) -> Tensor:
        """x with its first K features replaced by the label, as high as the largest magnitude in each example."""
        return torch.cat([label_BK.to(x_BD.dtype) * x_BD.abs().amax(1, keepdim=True), x_BD[:, self.classes :]], 1)

    def one_hot(self, y: Tensor) -> Tensor:
        return y[..., None] == torch.arange(self.classes, device=y.device)

    def neutral(self, x_BD: Tensor) -> Tensor:
        """Every label at 1 / K."""
        return self.overlay(x_BD, torch.full_like(x_BD[:, : self.classes], 1 / self.classes))

    def features(self, x: Tensor) -> list[Tensor]:
        """What each block puts out under a neutral label."""
        return self.activities(self.neutral(x))

    def forward(self, x: Tensor) -> Tensor:
        scores = []
        for label in range(self.classes):
            guess = self.one_hot(torch.full((len(x),), label, device=x.device))
            hidden = self.activities(self.overlay(x, guess))
            scores.append(torch.stack([self.score(k, h) for k, h in enumerate(hidden) if k >= self.first]).sum(0))
        return torch.stack(scores, -1)

    def draw(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """A wrong label an example, all equally likely."""
        shift = torch.randint(1, self.classes, y.shape, generator=generator, device=generator.device)
        return ((y + shift.to(y.device)) % self.classes,)

    def pairs(self, x: Tensor, y: Tensor, wrong: Tensor) -> list[Tensor]:
        """The examples under their right labels and under wrong ones."""
        return [self.overlay(x, self.one_hot(y)), self.overlay(x, self.one_hot(wrong))]

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        return [trainable(block) for block in self.net.blocks]


# The second writing, for references -----------------------------------------------------------------------------------


def row_by_row(h: Tensor) -> Tensor:
    """`unit_rms` of rows."""
    return torch.stack([row / (row.norm() / math.sqrt(len(row)) + 1e-8) for row in h])


def labelled(x: Tensor, label_BK: Tensor) -> Tensor:
    """`Overlaid.overlay` of rows."""
    written = x.clone()
    written[:, : label_BK.shape[1]] = label_BK.double() * x.abs().max(1).values[:, None]
    return written
