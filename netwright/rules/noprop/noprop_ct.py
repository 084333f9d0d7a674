"""NoProp-CT: one net tells a label from x and a label noisy to any degree; an ODE turns noise into labels (Li, Teh, Pascanu).

Shape suffixes: B batch, C classes, D values of an embedding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, final

import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.blocks import Blocks
from netwright.engine.rule import Rule
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import chain_rule, forward_by_hand, linear_gradients, softmax_error
from netwright.rules.noprop._shared import (
    DIM,
    EMBEDDING,
    HIDDEN,
    NOISE,
    Embeddings,
    Noise,
    Out,
    Timed,
    euler,
    softmax_gradient,
    timed_forward,
    timed_gradients,
    uniform_and_normal,
)


def abar(t: Tensor, clamp: float) -> Tensor:
    """sigmoid(-gamma(t)), where gamma, minus the log of the signal-to-noise ratio, falls linearly: 1 / clamp to clamp."""
    return torch.sigmoid(math.log(clamp) * (2 * t - 1))


def drift(u_BD: Tensor, z_BD: Tensor, abar_B1: Tensor, rate: float) -> Tensor:
    """dz/dt = abar' / (2 sqrt(abar) (1 - abar)) u - abar' / (2 (1 - abar)) z, with abar' = rate abar (1 - abar)."""
    return rate / 2 * (abar_B1.sqrt() * u_BD - abar_B1 * z_BD)


@final
class NoPropCt(Rule):
    """u(z, x, t) = softmax(net(x) + head(z, t)) W;
    L = CE(p_out(y | z_1)) + KL(q(z_0 | y) || N(0, I)) + eta / 2 SNR'(t) |u(z_t, x, t) - u_y|^2, t from U(0, 1),
    z_t = sqrt(abar(t)) u_y + sqrt(1 - abar(t)) eps. Predicting follows the probability-flow ODE from
    z_0, noise or its mean, 0, to z_1, and reads p_out there.
    """

    def __init__(
        self, net: Blocks, problem: Problem, steps: int = 20, eta: float = 1.0, clamp: float = 100.0,
        embedding: str = "one-hot", dim: int = 20, hidden: int = 64, noise: str = "none",
    ) -> None:  # fmt: skip
        super().__init__(net, problem)
        self.steps, self.eta, self.clamp = steps, eta, clamp
        self.rate = 2 * math.log(clamp)  # of the log of the signal-to-noise ratio: SNR' = rate SNR
        self.embeddings = Embeddings(embedding, problem, dim)
        width, classes = self.embeddings.width, problem.output[-1]
        self.noise = Noise(noise, 1, width)
        self.head = Timed(width, hidden, classes)
        self.out = Out(width, classes)

    def run(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The scores (B, C) at every Euler step that predicts, and z_1. The net runs once: only the head reads z and t."""
        scores_BC, seen = self.net(x), []

        def field(z_BD: Tensor, t_B: Tensor) -> Tensor:
            seen.append(scores_BC + self.head(t_B, z_BD))
            return drift(self.embeddings.mean(seen[-1]), z_BD, abar(t_B, self.clamp)[:, None], self.rate)

        return seen, euler(field, self.noise(0, x), self.steps)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.run(x)[1])

    def chain(self, x: Tensor) -> list[Tensor]:
        """What the probabilities of the classes (B, C) are taken for at each step of a prediction."""
        seen, _ = self.run(x)
        return [torch.softmax(scores, -1) for scores in seen]

    def draw(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """t (B,), and the noise (B, D) of z_t and of z_1."""
        return uniform_and_normal(x, self.embeddings.width, 2, generator)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        t_B, eps, eps_end = draws
        u, level = self.embeddings(y), abar(t_B, self.clamp)[:, None]
        z = level.sqrt() * u + (1 - level).sqrt() * eps
        off = self.embeddings.mean(self.net(x) + self.head(t_B, z)) - u
        weight = self.rate * (level / (1 - level))[:, 0]
        start, end = 1 / (1 + self.clamp), self.clamp / (1 + self.clamp)  # abar at 0 and at 1
        kl = 0.5 * (start * u.square() - start - math.log(1 - start)).sum(-1).mean()
        z_end = math.sqrt(end) * u + math.sqrt(1 - end) * eps_end
        yield self.problem.loss(self.out(z_end), y) + kl + self.eta / 2 * (weight * off.square().sum(-1)).mean()


def reference(rule: Any, x: Tensor, y: Tensor, t: Tensor, eps: Tensor, eps_end: Tensor) -> dict[str, Tensor]:
    """g = eta SNR' (u - u_y) / B goes through the softmax into net and head, and into W by u, u_y and z; SNR = 100^(2t - 1)."""
    w, rows = rule.embeddings.weight, len(x)
    u, grad_w = w[y], torch.zeros_like(w)
    ratio = (100.0 ** (2 * t - 1))[:, None]
    signal, spread = (ratio / (1 + ratio)).sqrt(), (1 / (1 + ratio)).sqrt()
    z = signal * u + spread * eps
    acts = forward_by_hand(rule.net, x)
    read, hidden, more = timed_forward(rule.head, t, z)
    p = torch.softmax(acts[-1] + more, -1)
    g = 2 * math.log(100) * ratio * (p @ w - u) / rows
    delta = softmax_gradient(p, g @ w.T)
    grads, at_read = timed_gradients(rule.head, "head", read, hidden, delta)
    grads |= chain_rule(rule.net, acts, delta)
    z_end = math.sqrt(100 / 101) * u + math.sqrt(1 / 101) * eps_end
    error = softmax_error(z_end @ rule.out.weight.T + rule.out.bias, y)
    grads |= linear_gradients("out", error, z_end)
    grad_w += p.T @ g
    from_z = signal * at_read[:, : w.shape[1]] - g + math.sqrt(100 / 101) * error @ rule.out.weight
    grad_w.index_add_(0, y, from_z + u / 101 / rows)
    return grads | ({"embeddings.weight": grad_w} if rule.embeddings.kind == "learned" else {})


def claim_flow() -> bool:
    """With u = u_y the ODE carries noise eps along sqrt(abar(t)) u_y + sqrt(1 - abar(t)) eps: its derivative is the drift."""
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)[:, None]
    u, eps = torch.tensor([[0.3, -1.2]], dtype=torch.float64), torch.tensor([[-0.7, 0.4]], dtype=torch.float64)

    def path(s: Tensor) -> Tensor:
        return abar(s, 100.0).sqrt() * u + (1 - abar(s, 100.0)).sqrt() * eps

    slope = (path(t + 1e-5) - path(t - 1e-5)) / 2e-5
    return torch.allclose(slope, drift(u, path(t), abar(t, 100.0), 2 * math.log(100)), atol=1e-7)


def claim_perfect() -> bool:
    """From noise z_0, Euler steps with u = u_y end where the ODE ends, the nearer the more steps there are."""
    u, z = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64), torch.tensor([[0.4, -1.1, 0.8]], dtype=torch.float64)
    ends = [abar(torch.tensor(s, dtype=torch.float64), 100.0) for s in (0.0, 1.0)]
    kept = ((1 - ends[1]) / (1 - ends[0])).sqrt()  # what is left of the noise
    exact = ends[1].sqrt() * u + kept * (z - ends[0].sqrt() * u)
    far = [
        (euler(lambda z, t: drift(u, z, abar(t, 100.0)[:, None], 2 * math.log(100)), z, n) - exact).abs().max().item()
        for n in (50, 100, 200)
    ]
    return far[0] < 0.05 and all(1.8 < a / b < 2.2 for a, b in zip(far, far[1:], strict=False))


PART = rule(
    NoPropCt,
    name="noprop-ct",
    reference=reference,
    formula=r"L = \frac{\eta}{2}\,\mathrm{SNR}'(t)\,\| \hat{u}(z_t, x, t) - u_y \|^2 + \mathrm{CE} + \mathrm{KL},"
    r"\quad \dot{z} = \frac{\bar{\alpha}'}{2(1 - \bar{\alpha})} \left(\frac{\hat{u}}{\sqrt{\bar{\alpha}}} - z\right)",
    paper=Paper("noprop"),
    tags=Tags(family="backprop", needs=frozenset({"labels"})),
    options=(
        Option("steps", 20, "Euler steps of a prediction, each through the head alone", bounds=(0, 10001)),
        Option("eta", 1.0, "weight of the denoising loss beside the cross-entropy", bounds=(0.0, math.inf)),
        Option("clamp", 100.0, "signal-to-noise ratio at t = 1; its inverse is the one at t = 0", bounds=(1.0, math.inf)),
        EMBEDDING, DIM, HIDDEN, NOISE,
    ),
    claims=(
        Claim("flow", "the ODE carries noise along the paths that training draws from", check=claim_flow),
        Claim("perfect", "with a perfect denoiser Euler steps reach the label's noisy embedding", check=claim_perfect),
        Claim(
            "learns", "a viable learning algorithm", where="abstract",
            protocol=Protocol(task="digits", against="rule/frozen-hidden", expect="better"),
        ),
    ),
    deviations=(
        "the gradient inside the one net is exact, from its output to its first block: nothing in it is local",
        "the head of z and t adds to the net's scores, so that a prediction runs the net once; the paper joins paths of x, z"
        " and t in layers of their own",
        "gamma(t) is linear in t and fixed; the paper trains a monotone network for it",
        "p_out starts at 0",
        "Euler steps, 20 for the paper's 1000; predictions start from 0, the mean of the noise, or from one draw for all rows, so"
        " that they repeat; the paper draws",
        "embeddings that start as prototypes, images of each class, are left out",
    ),
)  # fmt: skip
