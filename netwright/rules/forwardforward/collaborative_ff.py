"""Layer collaboration: Forward-Forward where a block counts the goodness of the others, too (Lorberbom et al., 2023)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.core import catalogue
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.blocks import Blocks
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, gradients, linear_gradients
from netwright.rules.forwardforward._overlaid import Overlaid, excess, labelled, row_by_row


@final
class CollaborativeFf(Overlaid):
    """L_k = softplus(theta - g_k - gamma_k) on right labels + softplus(g_k + gamma_k - theta) on wrong ones.

    g_k = sum of h_k^2; gamma_k = sum of g_t over all other blocks (collaborate "all") or the blocks before k
    ("preceding"), a constant to the gradient; theta = threshold * the number of units whose activity is counted.
    """

    def __init__(self, net: Blocks, problem: Problem, collaborate: str = "all", threshold: float = 1.0) -> None:
        super().__init__(net, problem)
        self.collaborate, self.threshold = collaborate, threshold

    def score(self, k: int, h: Tensor) -> Tensor:
        return excess(h, self.threshold)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        hidden = self.activities(torch.cat(self.pairs(x, y, *draws)))
        scores = [self.score(k, h) for k, h in enumerate(hidden)]
        for k, own in enumerate(scores):
            others = scores[:k] + (scores[k + 1 :] if self.collaborate == "all" else [])
            over = own + sum(score.detach() for score in others)
            yield F.softplus(-over[: len(x)]).mean() + F.softplus(over[len(x) :]).mean()


def reference(rule: Any, x: Tensor, y: Tensor, wrong: Tensor) -> dict[str, Tensor]:
    """da_k = 2 h (p_k - 1) / B on right labels, 2 h p_k / B on wrong ones; p_k = sigmoid(sum of the counted h^2 - theta)."""
    eye = torch.eye(rule.classes, dtype=x.dtype)
    grads: dict[str, Tensor] = {}
    for label, shift in ((y, -1.0), (wrong, 0.0)):
        h, inputs, outputs = labelled(x, eye[label]), [], []
        for block in rule.net.blocks:
            inputs.append(row_by_row(h))
            h = (inputs[-1] @ block[0].weight.T + block[0].bias).clamp(min=0)
            outputs.append(h)
        for k, h in enumerate(outputs):
            counted = torch.cat(outputs if rule.collaborate == "all" else outputs[: k + 1], 1)
            p_B1 = torch.sigmoid((counted**2).sum(1, keepdim=True) - rule.threshold * counted.shape[1])
            for name, g in linear_gradients(f"net.blocks.{k}.0", 2 * h * (p_B1 + shift) / len(x), inputs[k]).items():
                grads[name] = grads.get(name, 0) + g
    return grads


def _beside(widths: tuple[int, ...], **options: Any) -> tuple[dict[str, Tensor], dict[str, Tensor], bool]:
    """Updates with and without collaboration on one net and batch, and whether both predict the same."""
    toy = Toy(widths=widths)
    (x, y), alone = toy.batch(), toy.bind(catalogue.get("rule/forward-forward").build)
    together = toy.bind(CollaborativeFf, **options)
    draws = alone.draw(x, y, torch.Generator().manual_seed(0))
    same = torch.equal(alone(x), together(x))
    return gradients(together, x, y, *draws), gradients(alone, x, y, *draws), same


def claim_one_block() -> bool:
    """One block has no others: update and prediction are Forward-Forward's."""
    together, alone, same = _beside((6,))
    return same and all(torch.equal(g, alone[name]) for name, g in together.items())


def claim_first_block() -> bool:
    """No block precedes the first: with gamma = 0 its update is Forward-Forward's; the second block's isn't."""
    together, alone, _ = _beside((6, 5), collaborate="preceding")
    equal = {name: torch.allclose(g, alone[name], rtol=1e-12, atol=0) for name, g in together.items()}
    return all(same == name.startswith("net.blocks.0.") for name, same in equal.items())


def claim_solved() -> bool:
    """Where the second block is sure of every row, right rows leave the first alone and wrong ones push at full weight."""
    toy = Toy()
    rule: Any = toy.bind(CollaborativeFf)
    x, y = toy.batch()
    with torch.no_grad():
        rule.net.blocks[1][0].bias.fill_(100.0)
    (wrong,) = draws = rule.draw(x, y, torch.Generator().manual_seed(0))
    update = gradients(rule, x, y, *draws)["net.blocks.0.0.weight"]
    push = rule.score(0, rule.run(0, rule.overlay(x, rule.one_hot(wrong)))).mean()
    (wanted,) = torch.autograd.grad(push, rule.net.blocks[0][0].weight)
    return torch.allclose(update, wanted, rtol=1e-10, atol=1e-14)


PART = rule(
    CollaborativeFf,
    reference=reference,
    formula=r"p_k = \sigma\left(\|h_k\|^2 + \gamma_k - \theta\right),\quad \gamma_k = \mathrm{sg}\sum_{t \neq k} \|h_t\|^2",
    paper=Paper("collaborative-ff"),
    # Not local: no gradient crosses blocks, but the goodness of later blocks weighs the update of earlier ones.
    tags=Tags(
        family="local",
        needs=frozenset({"blocks", "labels", "vector"}),
        forwards_train=2.0,
        forwards_predict="classes",
    ),
    options=(
        Option(
            "collaborate",
            "all",
            "whose goodness is added: all other blocks', or the preceding ones'",
            allowed=("all", "preceding"),
        ),
        Option("threshold", 1.0, "threshold of goodness, a unit", bounds=(0.0, 100.0)),
    ),
    uses=("rule/forward-forward",),
    claims=(
        Claim("one-block", "with one block it is Forward-Forward", check=claim_one_block),
        Claim("first-block", "where gamma is 0 a block learns as in Forward-Forward", check=claim_first_block),
        Claim("solved", "an example that the other blocks call right stops driving a block", check=claim_solved),
        Claim(
            "forward-forward",
            "improves on Forward-Forward",
            where="abstract",
            protocol=Protocol(task="digits", against="rule/forward-forward", expect="better"),
        ),
    ),
    deviations=(
        "the formula is that of accounts and reimplementations by others, which agree; only the paper's abstract was read",
        "the threshold is given a unit and grows with the units counted; the paper's is one number for all layers",
        "the label is as high as the largest magnitude in the example",
        "all blocks learn in every step from goodness taken before it, so none sees another's update within a step",
        "the variant that maximises functional entropy is left out",
    ),
)
