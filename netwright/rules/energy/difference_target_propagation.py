"""Difference target propagation: learnt inverses send targets, not gradients, to the blocks below (Lee et al., 2015).

Shape suffixes: B batch, N and M features of a block and of the one below.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.errors import Misfit
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.blocks import Blocks
from netwright.engine.rule import Rule, trainable
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, apart, forward_by_hand, gradients, linear_gradients, softmax_error, true_gradients
from netwright.rules.energy._jacobians import row_gradient, widened
from netwright.rules.energy._repeated_passes import require_repeatable, untracked
from netwright.tensor.precision import full_precision


@final
class DifferenceTargetPropagation(Rule):
    """t_n = h_n - dL/dh_n, t_(k-1) = h_(k-1) + g_k(t_k) - g_k(h_k), and block k learns from |f_k(h_(k-1)) - t_k|^2 / 2.

    g_k is an affine map from what block k puts out to what it reads. It learns beside block k, from one draw of Gaussian
    noise e a step. feedback "dtp" (reconstruct, so that g inverts f): |g(f(h + e)) - (h + e)|^2. "ldrl" (Ernoult et al.,
    2022; align g with the transpose of f's Jacobian): -2 e . (g(f(h + e)) - g(f(h))) + |g(f(h) + e') - g(f(h))|^2.
    Raises Misfit where a block puts out anything but a vector.
    """

    def __init__(self, net: Blocks, problem: Problem, feedback: str = "dtp", noise: float = 0.36) -> None:
        super().__init__(net, problem)
        require_repeatable(net, "difference target propagation")
        for k, shape in enumerate(net.shapes):
            if len(shape) != 1:
                raise Misfit(
                    f"difference target propagation maps what a block puts out to what it reads, both vectors; block {k}"
                    f" puts out {shape}; use an Mlp"
                )
        self.feedback, self.noise = feedback, noise
        # Differences of g leave no trace of a bias, whose gradient would be their rounding.
        bias, steps = feedback == "dtp", zip(net.shapes, net.shapes[1:], strict=False)
        self.inverses = nn.ModuleList(nn.Linear(up[0], low[0], bias=bias) for low, up in steps)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def draw(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Noise of variance 1: for what each block but the first reads (B, M), then ("ldrl") what it puts out (B, N)."""
        widths = [shape[0] for shape in self.net.shapes]
        widths = widths[:-1] + (widths[1:] if self.feedback == "ldrl" else [])
        return tuple(
            torch.randn(len(x), width, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)
            for width in widths
        )

    def targets(self, hidden: Sequence[Tensor], signal: Tensor) -> list[Tensor]:
        """A target a block; signal: dL/dh_n of every example's own loss."""
        found = [hidden[-1] - signal]
        for k in reversed(range(len(self.inverses))):
            inverse = self.inverses[k]
            found.insert(0, hidden[k] + (inverse(found[0]) - inverse(hidden[k + 1])))
        return found

    def inverse_loss(self, k: int, low: Tensor, up: Tensor, draws: Sequence[Tensor]) -> Tensor:
        """How far inverse k, of block k + 1, is from what it should be around `low`, which the block maps to `up`."""
        inverse, noise = self.inverses[k], self.noise * draws[k]
        with torch.no_grad(), untracked(self.net):
            moved = self.net.blocks[k + 1](low + noise)
        if self.feedback == "dtp":
            return (inverse(moved) - (low + noise)).square().sum() / len(low)
        back = inverse(up)
        along = (noise * (inverse(moved) - back)).sum()
        size = (inverse(up + self.noise * draws[len(self.inverses) + k]) - back).square().sum()
        return (size - 2 * along) / len(low)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        outs, hidden = [], [x]
        for block in self.net.blocks:
            outs.append(block(hidden[-1]))
            hidden.append(widened(outs[-1].detach(), self.net))
        with torch.no_grad(), full_precision(x):
            signal = row_gradient(lambda h: self.problem.loss(self.net.readout(h), y), hidden[-1])
            targets = self.targets(hidden[1:], signal)
        for k, (out, target) in enumerate(zip(outs, targets, strict=True)):
            loss = (out - target).square().sum() / (2 * len(x))
            yield loss + self.inverse_loss(k - 1, hidden[k], hidden[k + 1], draws) if k else loss
        yield self.problem.loss(self.net.readout(hidden[-1]), y)

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        first, *others = self.net.blocks
        pairs = [trainable(block, inverse) for block, inverse in zip(others, self.inverses, strict=True)]
        return [trainable(first), *pairs, trainable(self.net.readout)]


def reference(rule: Any, x: Tensor, y: Tensor, *draws: Tensor) -> dict[str, Tensor]:
    """dW_k = ((h_k - t_k) * 1[h_k > 0])^T h_(k-1) / B; the inverse learns by the gradient of its loss, written out."""
    linears, rows = [block[0] for block in rule.net.blocks], len(x)
    *h, out = forward_by_hand(rule.net, x)
    n, error_BK = len(linears), softmax_error(out, y)
    grads = linear_gradients("net.readout", error_BK, h[-1])
    miss = rows * error_BK @ rule.net.readout.weight  # h - t
    for k in range(n, 0, -1):
        w_NM, b_N = linears[k - 1].weight, linears[k - 1].bias
        grads |= linear_gradients(f"net.blocks.{k - 1}.0", miss * (h[k] > 0) / rows, h[k - 1])
        if k == 1:
            break
        path = f"inverses.{k - 2}"
        v_MN = rule.get_parameter(f"{path}.weight")
        miss = miss @ v_MN.T
        e_BM = rule.noise * draws[k - 2]
        moved_BN = ((h[k - 1] + e_BM) @ w_NM.T + b_N).clamp(min=0)
        if rule.feedback == "dtp":
            off_BM = moved_BN @ v_MN.T + rule.get_parameter(f"{path}.bias") - h[k - 1] - e_BM
            grads |= linear_gradients(path, 2 * off_BM / rows, moved_BN)
        else:
            f_BN = rule.noise * draws[n - 1 + k - 2]
            grads[f"{path}.weight"] = 2 * ((f_BN @ v_MN.T).T @ f_BN - e_BM.T @ (moved_BN - h[k])) / rows
    return grads


def _alive(**options: Any) -> tuple[Any, Tensor, Tensor]:
    """The rule on a net whose every unit is active on the batch: block k is h W^T + b, with Jacobian W."""
    toy = Toy(widths=(5, 6, 10), rows=30)
    net, (x, y) = toy.bind(DifferenceTargetPropagation, **options), toy.batch()
    h = x
    with torch.no_grad():
        for block in net.net.blocks:
            linear: Any = block[0]  # type: ignore[index]
            linear.bias.add_(5 - linear(h).min())
            h = block(h)
    return net, x, y


def _transpose(net: Any) -> None:
    """Every inverse's matrix the transpose of its block's."""
    with torch.no_grad():
        for block, inverse in zip(net.net.blocks[1:], net.inverses, strict=True):
            inverse.weight.copy_(block[0].weight.T)


@torch.no_grad()
def claim_inverse() -> bool:
    """Where g inverts f, the difference corrects nothing: t_(k-1) = g_k(t_k), plain target propagation."""
    net, x, _ = _alive()
    for block, inverse in zip(net.net.blocks[1:], net.inverses, strict=True):
        inverse.weight.copy_(torch.linalg.pinv(block[0].weight))
        inverse.bias.copy_(-inverse.weight @ block[0].bias)
    hidden = net.features(x)
    targets = net.targets(hidden, torch.ones_like(hidden[-1]))
    return all(torch.allclose(t, g(up)) for t, g, up in zip(targets, net.inverses, targets[1:], strict=False))


@torch.no_grad()
def claim_still() -> bool:
    """Without an error at the top every target is the activity itself, whatever the inverses are."""
    net, x, _ = _alive()
    hidden = net.features(x)
    return all(map(torch.equal, net.targets(hidden, torch.zeros_like(hidden[-1])), hidden))


def claim_transpose() -> bool:
    """Where the inverse's Jacobian is the transpose of f's, the blocks' update is backpropagation's."""
    net, x, y = _alive()
    _transpose(net)
    draws = net.draw(x, y, torch.Generator().manual_seed(0))
    wanted = {name: g for name, g in true_gradients(net, x, y).items() if name.startswith("net.")}
    return apart(gradients(net, x, y, *draws), wanted) < 1e-10


def claim_ldrl() -> bool:
    """The loss of Ernoult et al. rests where the inverse is f's transpose: noise of unit covariance gives no gradient there."""
    net, x, y = _alive(feedback="ldrl")
    _transpose(net)
    # Unit vectors, scaled and repeated over the 30 rows: for a width that divides 30 their covariance is the identity.
    draws = [width**0.5 * torch.eye(width, dtype=torch.float64).repeat(30 // width, 1) for width in (5, 6, 6, 10)]
    grads = gradients(net, x, y, *draws)
    return all(float(g.abs().max()) < 1e-10 for name, g in grads.items() if name.startswith("inverses."))


PART = rule(
    DifferenceTargetPropagation,
    reference=reference,
    formula=r"\hat h_{k-1} = h_{k-1} + g_k(\hat h_k) - g_k(h_k),\quad L_k = \frac{1}{2}\| f_k(h_{k-1}) - \hat h_k \|^2",
    paper=Paper(
        title="Difference Target Propagation",
        authors="Dong-Hyun Lee, Saizheng Zhang, Asja Fischer, Yoshua Bengio",
        year=2015,
        arxiv="1412.7525",
        code="donghyunlee/dtp",
    ),
    tags=Tags(family="feedback", forwards_train="1 + (depth - 1) / depth", surrogate=True),
    options=(
        Option("feedback", "dtp", "what the inverses learn from", allowed=("dtp", "ldrl")),
        Option("noise", 0.36, "standard deviation of the noise the inverses learn under", bounds=(0.0, 10.0)),
    ),
    claims=(
        Claim("inverse", "with perfect inverses it is target propagation", check=claim_inverse),
        Claim("still", "no error, no update", check=claim_still),
        Claim(
            "transpose",
            "with the transposes of the Jacobians for feedback it is backpropagation",
            where="Ernoult et al. (2022)",
            check=claim_transpose,
        ),
        Claim(
            "ldrl",
            "the local difference reconstruction loss aligns the feedback with the transpose",
            where="Ernoult et al. (2022)",
            check=claim_ldrl,
        ),
        Claim(
            "learns",
            "trains hidden layers on MNIST",
            protocol=Protocol(task="mnist", against="rule/frozen-hidden", expect="better"),
        ),
        Claim(
            "backprop",
            "comparable to backpropagation for deep networks",
            where="abstract",
            protocol=Protocol(task="mnist", against="rule/backprop", expect="not worse"),
        ),
    ),
    deviations=(
        "the inverses are affine, where the paper's end in the tanh of its forward layers, and the host's activation is the"
        " host's; the size of the first step to a target then cancels, and is left out",
        "inverses and blocks learn in the same step, from one draw of noise; the paper's code trains the inverses for an epoch"
        " at a time, with a rate of their own, Ernoult et al. for 20 to 55 steps a batch",
        "under feedback 'ldrl' too, the first target is a gradient step at the last block, not at the output",
        "running statistics follow the pass without noise",
    ),
)
