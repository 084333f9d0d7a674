"""Deeply-supervised nets: every hidden block has a classifier whose loss is added to the output's (Lee et al., 2014).

Shape suffixes: B batch, K classes, D values of a block's output.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.errors import Misfit
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.blocks import Blocks
from netwright.engine.rule import Rule
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, chain_rule, forward_by_hand, gradients, linear_gradients, softmax_error, true_gradients


def squared_hinge(scores: Tensor, signs: Tensor) -> Tensor:
    """sum_k max(0, 1 - s_k z_k)^2, one class against the rest (s = 1 for the label, -1 else), averaged over examples."""
    return (1 - signs * scores).clamp(min=0).square().sum(-1).mean()


@final
class Companion(nn.Module):
    """A linear classifier of all values a block puts out; of (L, D) one shared by all positions."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.by_position = len(shape) == 2
        self.linear = nn.Linear(shape[-1] if self.by_position else math.prod(shape), outputs)

    def forward(self, h: Tensor) -> Tensor:
        return self.linear(h if self.by_position else h.flatten(1))


@final
class DeeplySupervised(Rule):
    """L = loss(output, y) + alpha_t sum_m max(0, l_m - gamma), alpha_t = alpha max(0, 1 - t / horizon).

    l_m is the loss of a linear classifier on block m, for every block but the last, which the readout classifies; its
    gradient reaches block m and all blocks below. After `horizon` steps the output's loss remains alone.
    loss: of the companions, "hinge" (`squared_hinge`) or "task" (the task's own).
    Raises Misfit for a net of one block, and for "hinge" where the output is not a score a class.
    """

    step: Tensor

    def __init__(
        self, net: Blocks, problem: Problem, loss: str = "hinge", alpha: float = 1.0, gamma: float = 0.0, horizon: int = 500
    ) -> None:
        super().__init__(net, problem)
        if len(net.blocks) < 2:
            raise Misfit("deeply-supervised adds classifiers to the blocks before the last; this net has one block, give it two")
        if loss == "hinge" and problem.classes is None:
            raise Misfit("the squared hinge loss needs a score a class, and this problem has no classes; use loss='task'")
        self.loss, self.alpha, self.gamma, self.horizon = loss, alpha, gamma, horizon
        self.companions = nn.ModuleList(Companion(shape, problem.output[-1]) for shape in net.shapes[:-1])
        self.register_buffer("step", torch.empty((), dtype=torch.int64))

    def reset_parameters(self, generator: torch.Generator) -> None:
        self.step.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def companion_losses(self, hidden: list[Tensor], y: Tensor) -> list[Tensor]:
        """max(0, l_m - gamma) of every block but the last, from the blocks' outputs."""
        scores = [companion(h) for companion, h in zip(self.companions, hidden, strict=False)]
        if self.loss == "hinge":
            right = y[..., None] == torch.arange(scores[0].shape[-1], device=y.device)
            each = [squared_hinge(z, torch.where(right, 1.0, -1.0).to(z.dtype)) for z in scores]
        else:
            each = [self.problem.loss(z, y) for z in scores]
        return [(value - self.gamma).clamp(min=0) for value in each]

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        hidden = self.net.features(x)
        out = self.problem.loss(self.net.readout(hidden[-1]), y)
        weight = self.alpha * (1 - self.step.to(out.dtype) / self.horizon).clamp(min=0)
        yield out + weight * torch.stack(self.companion_losses(hidden, y)).sum()

    def after_step(self) -> None:
        self.step.add_(1)


def reference(rule: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """dz = -2 s (1 - s z) 1[s z < 1] / B, or (softmax(z) - Y) / B; dV = alpha dz^T h, and h receives alpha dz V."""
    acts = forward_by_hand(rule.net, x)
    grads: dict[str, Tensor] = {}
    extra: dict[int, Tensor] = {}
    for m, h in enumerate(acts[1:-2]):
        v, bias = (rule.get_parameter(f"companions.{m}.linear.{name}") for name in ("weight", "bias"))
        z = h @ v.T + bias
        if rule.loss == "task":
            dz = softmax_error(z, y)
        else:
            s = torch.full_like(z, -1.0)
            s[torch.arange(len(y)), y] = 1.0
            dz = torch.where(s * z < 1, -2 * s * (1 - s * z), 0.0) / len(y)
        dz = dz * rule.alpha * (1 - int(rule.step) / rule.horizon)
        grads |= linear_gradients(f"companions.{m}.linear", dz, h)
        extra[m] = dz @ v
    return grads | chain_rule(rule.net, acts, softmax_error(acts[-1], y), extra=extra)


def _update(steps: int = 0, **options: Any) -> tuple[dict[str, Tensor], Any]:
    """The update on a Toy of three blocks after this many steps, and the rule."""
    toy = Toy(widths=(6, 5, 4))
    supervised: Any = toy.bind(DeeplySupervised, **options)
    for _ in range(steps):
        supervised.after_step()
    return gradients(supervised, *toy.batch()), supervised


def claim_backprop() -> bool:
    """With alpha = 0, with gamma above every companion's loss, and after the horizon: backpropagation's update."""
    for grads, supervised in (_update(alpha=0.0), _update(gamma=1e6), _update(steps=3, horizon=3)):
        exact = true_gradients(supervised, *Toy().batch())
        same = all(torch.allclose(grads[name], g, rtol=1e-12, atol=1e-15) for name, g in exact.items())
        if not same or any(bool(g.any()) for name, g in grads.items() if name.startswith("companions.")):
            return False
    return True


def claim_sum() -> bool:
    """A block's update is backpropagation's plus alpha times the gradient of each companion at or above it."""
    both, supervised = _update(alpha=0.3)
    without, _ = _update(alpha=0.0)
    x, y = Toy().batch()
    for k in (0, 1, 2):
        weight = supervised.net.blocks[k][0].weight
        wanted = without[f"net.blocks.{k}.0.weight"]
        for companion_loss in supervised.companion_losses(supervised.net.features(x), y)[k:]:
            wanted = wanted + 0.3 * torch.autograd.grad(companion_loss, weight, retain_graph=True)[0]
        if not torch.allclose(both[f"net.blocks.{k}.0.weight"], wanted, rtol=1e-12, atol=1e-15):
            return False
    return True


PART = rule(
    DeeplySupervised,
    reference=reference,
    formula=r"L + \alpha_t \sum_{m<M} \left[\ell(V_m h_m, y) - \gamma\right]_+,\quad \alpha_t = \alpha\,[1 - t/N]_+",
    paper=Paper("deeply-supervised"),
    tags=Tags(family="backprop"),
    options=(
        Option("loss", "hinge", "of the companions: squared hinge, or the task's", allowed=("hinge", "task")),
        Option("alpha", 1.0, "weight of the companions in the first step", bounds=(-1e-9, 1e3)),
        Option("gamma", 0.0, "a companion whose loss is below this one rests", bounds=(-1e-9, 1e6)),
        Option("horizon", 500, "steps after which the companions' weight is 0", bounds=(0, 1e9)),
    ),
    claims=(
        Claim("backprop", "once the companions vanish, the output's loss alone is trained", check=claim_backprop),
        Claim("sum", "each hidden layer learns from the output and from all companions above it", check=claim_sum),
        Claim(
            "better",
            "lower classification error than the same net without companions",
            where="abstract",
            protocol=Protocol(task="mnist", against="rule/backprop", expect="better"),
        ),
    ),
    deviations=(
        "the companions' weight falls to 0 linearly over a given number of steps; the paper lets it fall with the epochs, by a"
        " law that wasn't established, and the released code takes the companions away after its first stage",
        "the output's loss is the task's; the paper has a squared hinge loss there, too",
        "the hinge is one class against the rest, as in the released code",
        "companions read a block's output; in the released code they read it before its activation",
        "companions learn at the rate of the net, a thousandth of it in the released code",
        "the norms of the classifiers are left to the optimizer's weight decay",
    ),
)
