"""Dual propagation: every unit holds two states, their mean its activity and their difference its error (Hoier et al., 2023).

Shape suffixes: B batch, K outputs, N and M features of a block and of the one below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.errors import Misfit
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.blocks import Blocks, split
from netwright.engine.rule import Rule, trainable
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, apart, gradients, linear_gradients, softmax_error, true_gradients
from netwright.rules.energy._jacobians import Pull, linearised, row_gradient, widened
from netwright.rules.energy._repeated_passes import require_repeatable, untracked


def dyad(act: Callable[[Tensor], Tensor], a: Tensor, feedback: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and difference of z+ and z- = act(a +- feedback / 2)."""
    plus, minus = act(a + feedback / 2), act(a - feedback / 2)
    return (plus + minus) / 2, plus - minus


@final
class DualPropagation(Rule):
    """z+-_k = act(W_k zbar_(k-1) +- W_(k+1)^T d_(k+1) / 2), with zbar the mean of z+ and z-, and d = z+ - z-.

    States start feed-forward, where z+ = z-; the output is nudged to d = -beta dL/d(output), then one pass from the top
    down sets every state. A layer's update is -d_k zbar_(k-1)^T / beta. sweeps: each further one is a pass up (means)
    and a pass down. Where a block holds several layers, W is all of it but its last activation, W^T its Jacobian's
    transpose. Raises Misfit where an activation changes the number of features: a state has no partner there.
    """

    def __init__(self, net: Blocks, problem: Problem, beta: float = 0.1, sweeps: int = 1) -> None:
        super().__init__(net, problem)
        require_repeatable(net, "dual propagation")
        for k, block in enumerate(net.blocks):
            if getattr(split(block)[1], "ratio", 1.0) != 1.0:
                raise Misfit(
                    f"dual propagation pairs what enters an activation with what leaves it, and the gate of block {k} halves"
                    " their number; use an activation that works value by value"
                )
        self.beta, self.sweeps = beta, sweeps

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def infer(self, x: Tensor, y: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """What every layer reads (x, then the means), the differences (the output's last), and each block's
        pre-activation and feedback."""
        layers = [split(block) for block in self.net.blocks]
        n = len(layers)
        mean, a = [x] + [x] * n, [x] * n
        feedback, difference = [torch.zeros(())] * n, [x] * (n + 1)
        pulls: list[Pull] = [lambda v: v] * n
        with torch.no_grad(), untracked(self.net):
            for sweep in range(self.sweeps):
                for k, (pre, act) in enumerate(layers):  # up; `pulls[k]` is still of the pass before
                    if sweep:
                        feedback[k] = pulls[k](difference[k + 1])
                    if k:
                        a[k], pulls[k - 1] = linearised(pre, mean[k])
                    else:
                        a[k] = widened(pre(x), self.net)
                    mean[k + 1] = dyad(act, a[k], feedback[k])[0] if sweep else act(a[k])
                out, pulls[n - 1] = linearised(self.net.readout, mean[n])
                difference[n] = -self.beta * row_gradient(lambda o: self.problem.loss(o, y), out)
                for k in reversed(range(n)):  # down
                    feedback[k] = pulls[k](difference[k + 1])
                    mean[k + 1], difference[k] = dyad(layers[k][1], a[k], feedback[k])
        return mean, difference, a, feedback

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        mean, difference, a, feedback = self.infer(x, y)
        scale = -1 / (self.beta * len(x))
        for k, block in enumerate(self.net.blocks):
            pre, act = split(block)
            agreement = (pre(mean[k]) * difference[k]).sum()
            if isinstance(act, nn.Module) and trainable(act):
                agreement = agreement + (act(a[k]) * feedback[k]).sum()
            yield scale * agreement
        yield scale * (self.net.readout(mean[-1]) * difference[-1]).sum()

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        return [trainable(block) for block in self.net.blocks] + [trainable(self.net.readout)]


def reference(rule: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """z+ and z- kept apart, layer by layer with their weights; dW_k = -(z+_k - z-_k)^T (z+ + z-)_(k-1) / (2 beta B)."""
    layers = [block[0] for block in rule.net.blocks] + [rule.net.readout]
    n, rows, beta = len(layers) - 1, len(x), rule.beta
    plus, minus = [x], [x]
    for k in range(n):
        h = (plus[k] @ layers[k].weight.T + layers[k].bias).clamp(min=0)
        plus, minus = [*plus, h], [*minus, h]
    plus, minus = [*plus, x], [*minus, x]  # the output's, set before they are read

    def set_hidden(k: int) -> None:
        up_BN = (plus[k - 1] + minus[k - 1]) / 2 @ layers[k - 1].weight.T + layers[k - 1].bias
        down_BN = (plus[k + 1] - minus[k + 1]) @ layers[k].weight / 2
        plus[k], minus[k] = (up_BN + down_BN).clamp(min=0), (up_BN - down_BN).clamp(min=0)

    for sweep in range(rule.sweeps):
        if sweep:
            for k in range(1, n + 1):
                set_hidden(k)
        out_BK = (plus[n] + minus[n]) / 2 @ layers[n].weight.T + layers[n].bias
        nudge_BK = beta / 2 * rows * softmax_error(out_BK.clone(), y)
        plus[n + 1], minus[n + 1] = out_BK - nudge_BK, out_BK + nudge_BK
        for k in range(n, 0, -1):
            set_hidden(k)
    grads: dict[str, Tensor] = {}
    for k in range(n + 1):
        path = "net.readout" if k == n else f"net.blocks.{k}.0"
        error = (minus[k + 1] - plus[k + 1]) / (beta * rows)
        grads |= linear_gradients(path, error, (plus[k] + minus[k]) / 2)
    return grads


def _off(beta: float) -> float:
    toy = Toy()
    dual, (x, y) = toy.bind(DualPropagation, beta=beta), toy.batch()
    return apart(gradients(dual, x, y), true_gradients(dual, x, y))


def claim_limit() -> bool:
    """At beta = 1e-3, where no unit of this batch crosses zero, the update is backpropagation's to 1e-6; at 1 it is not."""
    return _off(1e-3) < 1e-6 and _off(1.0) > 0.1


def claim_still() -> bool:
    """Without a nudge z+ = z- = the feed-forward activity: the smaller beta, the nearer are the means to it."""
    toy = Toy()
    dual: Any = toy.bind(DualPropagation, beta=1e-9)
    x, y = toy.batch()
    mean, difference, _, _ = dual.infer(x, y)
    near = all(torch.allclose(m, h, rtol=0, atol=1e-9) for m, h in zip(mean[1:], dual.net.features(x), strict=True))
    return near and all(float(d.abs().max()) < 1e-7 for d in difference)


PART = rule(
    DualPropagation,
    reference=reference,
    formula=r"z_k^\pm = f\left(W_{k-1}\bar z_{k-1} + b_{k-1} \pm \frac{1}{2} W_k^\top (z_{k+1}^+ - z_{k+1}^-)\right),\quad"
    r" \Delta W_k = \frac{1}{\beta}(z_{k+1}^+ - z_{k+1}^-)\,\bar z_k^\top",
    paper=Paper("dual-propagation"),
    tags=Tags(family="feedback", forwards_train="1 + sweeps", surrogate=True),
    options=(
        Option("beta", 0.1, "how far the output is nudged, in gradients of an example's own loss", bounds=(0.0, 10.0)),
        Option("sweeps", 1, "passes of inference, up and down", allowed=(1, 2, 3)),
    ),
    claims=(
        Claim("limit", "as the nudge vanishes, the update becomes backpropagation's", check=claim_limit),
        Claim("still", "without a nudge both states are the feed-forward activity", check=claim_still),
        Claim(
            "backprop",
            "performs as backpropagation does in accuracy",
            where="abstract",
            protocol=Protocol(task="mnist", against="rule/backprop", expect="not worse"),
        ),
    ),
    deviations=(
        "the output is nudged along the gradient of the task's loss; the official fully connected code solves for the output"
        " under the squared error",
        "feedback has no gain of its own; the official experiments leave it at 1",
        "where a block's part before its last activation is not linear, its Jacobian is taken at the means of the last pass"
        " up; where it has no last activation, states are nudged as the output is, which is backpropagation",
        "parameters of an activation, of which the paper has none, learn from the feedback their unit receives",
        "running statistics follow the last pass, whose inputs are the nudged means",
    ),
)
