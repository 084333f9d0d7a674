"""Equilibrium propagation: the net settles, is nudged, settles again; the difference is the gradient (Scellier, Bengio, 2017).

Shape suffixes: B batch, K outputs, N and M features of a layer and of the one below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.errors import Misfit
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.blocks import Blocks
from netwright.engine.rule import Rule, trainable
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, apart, gradients, linear_gradients, softmax_error, true_gradients
from netwright.rules.energy._jacobians import row_gradient
from netwright.tensor.precision import full_precision


def rho(u: Tensor) -> Tensor:
    """The hard sigmoid of slope 1/2."""
    return (u / 2).clamp(0, 1)


@final
class EquilibriumPropagation(Rule):
    """Phi = sum_k s_(k+1) . (W_k s_k + b_k), with s_0 = x, and states settle by s_k <- rho(dPhi/ds_k), all at once, from 0.

    Nudged, they settle by Phi - beta L instead, L each example's own loss of readout(s_n). The update is the difference of
    d(Phi - beta L)/dtheta between two settled states over the difference of their beta: "symmetric" between beta and -beta
    (two nudged phases), "one-sided" between beta and 0. free, nudged: steps of each phase.
    The host lends its linear maps alone: rho takes the place of its activation. Raises Misfit where a block holds more.
    """

    def __init__(
        self, net: Blocks, problem: Problem, estimate: str = "symmetric", beta: float = 0.5, free: int = 20, nudged: int = 10
    ) -> None:
        super().__init__(net, problem)
        self.estimate, self.beta, self.free, self.nudged = estimate, beta, free, nudged
        self.linears()

    def linears(self) -> list[nn.Linear]:
        """The linear map of every block."""
        found = []
        for k, block in enumerate(self.net.blocks):
            holds = [m for m in block.modules() if [*m.parameters(recurse=False), *m.buffers(recurse=False)]]
            if len(holds) != 1 or not isinstance(holds[0], nn.Linear) or self.net.shapes[k] != (holds[0].out_features,):
                raise Misfit(
                    "equilibrium propagation settles states between linear maps, one a block, without norms, gates or learnt"
                    f" activations, and block {k} holds {', '.join(type(m).__name__ for m in holds) or 'none'} and puts out"
                    f" {self.net.shapes[k]}; use an Mlp whose slot norm is 'none', with an activation that learns nothing and"
                    " keeps the width"
                )
            found.append(holds[0])
        return found

    def settle(
        self, drive: Tensor, states: list[Tensor], steps: int, nudge: Callable[[Tensor], Tensor] | None = None
    ) -> list[Tensor]:
        """The states after so many steps; drive: W_0 x + b_0, which never changes; nudge: beta dL/ds_n."""
        linears = self.linears()
        for _ in range(steps):
            pulled = [drive, *(linear(s) for linear, s in zip(linears[1:], states, strict=False))]
            down = [s @ linear.weight for linear, s in zip(linears[1:], states[1:], strict=True)]
            pulled = [u + d for u, d in zip(pulled, down, strict=False)] + [pulled[-1]]
            if nudge is not None:
                pulled[-1] = pulled[-1] - nudge(states[-1])
            states = [rho(u) for u in pulled]
        return states

    def features(self, x: Tensor) -> list[Tensor]:
        """The states of the free phase."""
        linears = self.linears()
        with full_precision(x):
            drive = linears[0](x.flatten(1))
            return self.settle(drive, [drive.new_zeros(len(x), linear.out_features) for linear in linears], self.free)

    def forward(self, x: Tensor) -> Tensor:
        return self.net.readout(self.features(x)[-1])

    def phases_of(self, x: Tensor, y: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The states nudged by beta, and those nudged by -beta (or not at all)."""

        def nudge(s: Tensor, beta: float) -> Tensor:
            return beta * row_gradient(lambda s: self.problem.loss(self.net.readout(s), y), s)

        with torch.no_grad(), full_precision(x):
            drive = self.linears()[0](x.flatten(1))
            start = [drive.new_zeros(len(x), linear.out_features) for linear in self.linears()]
            rest = self.settle(drive, start, self.free)
            plus = self.settle(drive, rest, self.nudged, lambda s: nudge(s, self.beta))
            if self.estimate == "one-sided":
                return plus, rest
            return plus, self.settle(drive, rest, self.nudged, lambda s: nudge(s, -self.beta))

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        plus, minus = self.phases_of(x, y)
        one_sided = self.estimate == "one-sided"
        width = self.beta * len(x) * (1 if one_sided else 2)
        below = torch.cat([x.flatten(1)] * 2)
        for linear, p, m in zip(self.linears(), plus, minus, strict=True):
            yield (linear(below) * torch.cat([-p, m])).sum() / width
            below = torch.cat([p, m])
        losses = [self.problem.loss(self.net.readout(s), y) for s in ([plus[-1]] if one_sided else [plus[-1], minus[-1]])]
        yield torch.stack(losses).mean()

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        return [trainable(block) for block in self.net.blocks] + [trainable(self.net.readout)]


def reference(rule: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The dynamics unit by unit; dW_k = -(s_(k+1)^T s_k at beta - the same at -beta or 0) / (width of beta * B)."""
    maps, rows = [(block[0].weight, block[0].bias) for block in rule.net.blocks], len(x)
    r_KN, c_K = rule.net.readout.weight, rule.net.readout.bias
    n = len(maps)

    def settle(s: list[Tensor], steps: int, beta: float) -> list[Tensor]:
        for _ in range(steps):
            new = []
            for k, (w_NM, b_N) in enumerate(maps):
                u_BN = (s[k - 1] if k else x) @ w_NM.T + b_N
                u_BN = u_BN + s[k + 1] @ maps[k + 1][0] if k + 1 < n else u_BN
                if beta and k + 1 == n:
                    u_BN = u_BN - beta * rows * softmax_error(s[k] @ r_KN.T + c_K, y) @ r_KN
                new.append((0.5 * u_BN).clamp(0.0, 1.0))
            s = new
        return s

    rest = settle([x.new_zeros(rows, len(b_N)) for _, b_N in maps], rule.free, 0.0)
    one_sided = rule.estimate == "one-sided"
    ends = [settle(rest, rule.nudged, rule.beta), rest if one_sided else settle(rest, rule.nudged, -rule.beta)]
    width = rule.beta * (1 if one_sided else 2) * rows
    grads: dict[str, Tensor] = {}
    for sign, s in zip((-1, 1), ends, strict=True):
        for k in range(n):
            for name, g in linear_gradients(f"net.blocks.{k}.0", sign * s[k] / width, s[k - 1] if k else x).items():
                grads[name] = grads.get(name, 0) + g
        share = {(-1, True): 1.0, (1, True): 0.0}.get((sign, one_sided), 0.5)
        error_BK = share * softmax_error(s[-1] @ r_KN.T + c_K, y)
        for name, g in linear_gradients("net.readout", error_BK, s[-1]).items():
            grads[name] = grads.get(name, 0) + g
    return grads


def _bound(**options: Any) -> tuple[Any, Tensor, Tensor]:
    toy = Toy()
    return toy.bind(EquilibriumPropagation, **options), *toy.batch()


def _bias(estimate: str, *betas: float) -> list[float]:
    """How far the update at each beta is from the gradient through the settled free phase."""
    net, x, y = _bound(estimate=estimate, free=20, nudged=20)
    wanted, found = true_gradients(net, x, y), []
    for net.beta in betas:
        found.append(apart(gradients(net, x, y), wanted))
    return found


def claim_settles() -> bool:
    """After 80 free steps another one moves no state by more than 1e-10."""
    (longer, x, _), (shorter, _, _) = _bound(free=81), _bound(free=80)
    return all(torch.allclose(a, b, rtol=0, atol=1e-10) for a, b in zip(longer.features(x), shorter.features(x), strict=True))


def claim_gradient() -> bool:
    """Settled, the symmetric update at a small beta is the gradient through the equilibrium, unrolled step by step."""
    return _bias("symmetric", 1e-3)[0] < 1e-5


def claim_bias() -> bool:
    """Halving beta halves the bias of the one-sided estimate and quarters that of the symmetric one."""
    (one, half_one), (two, half_two) = _bias("one-sided", 0.02, 0.01), _bias("symmetric", 0.02, 0.01)
    return abs(one / half_one - 2) < 0.1 and abs(two / half_two - 4) < 0.1


PART = rule(
    EquilibriumPropagation,
    reference=reference,
    formula=r"s \leftarrow \rho\left(\partial(\Phi - \beta L) / \partial s\right),\quad \Delta\theta ="
    r" \frac{1}{2\beta}\left(\partial\Phi_\beta - \partial\Phi_{-\beta}\right) / \partial\theta",
    paper=Paper(
        title="Equilibrium Propagation: Bridging the Gap between Energy-Based Models and Backpropagation",
        authors="Benjamin Scellier, Yoshua Bengio",
        year=2017,
        venue="Frontiers in Computational Neuroscience 11",
        arxiv="1602.05179",
    ),
    tags=Tags(
        family="feedback",
        forwards_train="2 + (1 + (free + 2 * nudged) * (depth - 1)) / depth",
        forwards_predict="(1 + free * (depth - 1)) / depth",
        surrogate=True,
        at={"estimate=one-sided": {"forwards_train": "2 + (1 + (free + nudged) * (depth - 1)) / depth"}},
    ),
    options=(
        Option("estimate", "symmetric", "between beta and -beta, or beta and 0", allowed=("symmetric", "one-sided")),
        Option("beta", 0.5, "strength of the nudge", bounds=(0.0, 10.0)),
        Option("free", 20, "steps of the free phase", bounds=(0, 10_000)),
        Option("nudged", 10, "steps of each nudged phase", bounds=(0, 10_000)),
    ),
    claims=(
        Claim("settles", "the free phase comes to rest", check=claim_settles),
        Claim("gradient", "the update tends to the gradient of the loss at equilibrium", check=claim_gradient),
        Claim(
            "bias",
            "a third phase takes the estimate's bias from first to second order in beta",
            where="Laborieux et al. (2020)",
            check=claim_bias,
        ),
        Claim(
            "learns",
            "trains hidden layers on MNIST",
            protocol=Protocol(task="mnist", against="rule/frozen-hidden", expect="better"),
        ),
    ),
    deviations=(
        "states take all their steps at once from a discrete map, as in Laborieux et al. (2020), not along a differential"
        " equation in small steps",
        "the host's activation is not used: states follow the hard sigmoid clamp(u / 2, 0, 1)",
        "the readout is no state: it reads the last one, as in Laborieux et al. (2020) under the cross-entropy",
        "every free phase starts from zero; states are not kept from batch to batch, and all weights learn at one rate",
        "dense layers alone; phases run in float32 under mixed precision",
    ),
)
