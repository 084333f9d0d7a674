"""NoProp-DT: T nets, each trained alone to tell a label from x and a noisy label, are chained to predict (Li, Teh and Pascanu).

Shape suffixes: B batch, C classes, D values of an embedding.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.blocks import Blocks
from netwright.engine.rule import Rule, trainable
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, chain_rule, forward_by_hand, linear_gradients, softmax_error
from netwright.rules.noprop._embeddings import DIM, EMBEDDING, NOISE, Embeddings, Noise, Out, softmax_gradient


def copies(net: Blocks, n: int) -> nn.ModuleList:
    """n nets built like this one, with parameters of their own."""
    return nn.ModuleList(copy.deepcopy(net) for _ in range(n))


def schedule(steps: int, clamp: float) -> tuple[float, ...]:
    """abar_0 = 0 < ... < abar_T: the cosine schedule, scaled so that the signal-to-noise ratio ends at `clamp`."""

    def f(t: float) -> float:
        return math.cos((t / steps + 0.008) / 1.008 * math.pi / 2) ** 2

    return tuple(clamp / (1 + clamp) * (1 - f(t) / f(0)) for t in range(steps + 1))


def snr(abar: float) -> float:
    """Signal-to-noise ratio of z = sqrt(abar) u + sqrt(1 - abar) eps."""
    return abar / (1 - abar)


def coefficients(before: float, after: float) -> tuple[float, float, float]:
    """a, b, c of z_t = a u + b z_(t-1) + sqrt(c) eps, from abar_(t-1) and abar_t; alpha_(t-1) is their ratio."""
    alpha = before / after
    a = math.sqrt(after) * (1 - alpha) / (1 - before)
    return a, math.sqrt(alpha) * (1 - after) / (1 - before), (1 - after) * (1 - alpha) / (1 - before)


@final
class NoProp(Rule):
    """u_t(z, x) = softmax(net_t(x) + K_t z) W; L_t = eta / 2 (SNR_t - SNR_(t-1)) |u_t(z_(t-1), x) - u_y|^2, where
    z_(t-1) = sqrt(abar_(t-1)) u_y + noise needs no other net; net_1 is the host, net_2 .. net_T are copies of it.

    L_T also holds the cross-entropy of p_out(y | z_T). Predicting takes T steps
    z_t = a_t u_t(z_(t-1), x) + b_t z_(t-1) + sqrt(c_t) eps_t and reads p_out at z_T; z_0 and eps_t are noise, or its mean, 0.
    """

    def __init__(
        self,
        net: Blocks,
        problem: Problem,
        steps: int = 10,
        eta: float = 0.1,
        clamp: float = 100.0,
        embedding: str = "one-hot",
        dim: int = 20,
        noise: str = "none",
    ) -> None:
        super().__init__(net, problem)
        self.steps, self.eta, self.abar = steps, eta, schedule(steps, clamp)
        self.embeddings = Embeddings(embedding, problem, dim)
        width, classes = self.embeddings.width, problem.output[-1]
        self.noise = Noise(noise, steps + 1, width)
        self.copies = copies(net, steps - 1)
        self.gates = nn.ModuleList(nn.Linear(width, classes, bias=False) for _ in range(steps))  # K_t
        self.out = Out(width, classes)

    def nets(self) -> list[Any]:
        """net_1 .. net_T."""
        return [self.net, *self.copies]

    def logits(self, t: int, z_BD: Tensor, x: Tensor) -> Tensor:
        """Scores (B, C) that net t, from 1 to T, gives the classes."""
        return self.nets()[t - 1](x) + self.gates[t - 1](z_BD)

    def noisy(self, t: int, u_BD: Tensor, eps_BD: Tensor) -> Tensor:
        """z_t of embeddings u, t from 0 to T."""
        return math.sqrt(self.abar[t]) * u_BD + math.sqrt(1 - self.abar[t]) * eps_BD

    def run(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The scores of net 1 .. T along the chain that predicts, and z_T."""
        z, scores = self.noise(0, x), []
        for t in range(1, self.steps + 1):
            scores.append(self.logits(t, z, x))
            a, b, c = coefficients(self.abar[t - 1], self.abar[t])
            z = a * self.embeddings.mean(scores[-1]) + b * z + math.sqrt(c) * self.noise(t, x)
        return scores, z

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.run(x)[1])

    def chain(self, x: Tensor) -> list[Tensor]:
        """What net 1 .. T takes the probabilities of the classes (B, C) for when predicting; one-hot, they are u_1 .. u_T."""
        return [torch.softmax(scores, -1) for scores in self.run(x)[0]]

    def draw(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The noise of z_0 .. z_T: (T + 1, B, D)."""
        shape = (self.steps + 1, len(x), self.embeddings.width)
        return (torch.randn(shape, generator=generator, dtype=x.dtype, device=generator.device).to(x.device),)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        (eps,) = draws
        for t in range(1, self.steps + 1):
            u = self.embeddings(y)
            off = self.embeddings.mean(self.logits(t, self.noisy(t - 1, u, eps[t - 1]), x)) - u
            loss = self.eta / 2 * (snr(self.abar[t]) - snr(self.abar[t - 1])) * off.square().sum(-1).mean()
            if t == self.steps:
                loss = loss + self.problem.loss(self.out(self.noisy(t, u, eps[t])), y)
            yield loss

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        alone = [trainable(net, gate) for net, gate in zip(self.nets(), self.gates, strict=True)]
        return [*alone, trainable(self.out, self.embeddings)]


def reference(rule: Any, x: Tensor, y: Tensor, eps: Tensor) -> dict[str, Tensor]:
    """g_t = eta dSNR_t (u_t - u_y) / B goes through the softmax into net t and K_t, and into W by u_t, u_y and z."""
    w, last, rows = rule.embeddings.weight, rule.steps, len(x)
    u, grad_w = w[y], torch.zeros_like(w)
    angles = torch.tensor([(t / last + 0.008) / 1.008 * math.pi / 2 for t in range(last + 1)], dtype=x.dtype)
    abar = 100 / 101 * (1 - angles.cos() ** 2 / angles[0].cos() ** 2)
    grads: dict[str, Tensor] = {}
    for t in range(1, last + 1):
        path = "net" if t == 1 else f"copies.{t - 2}"
        net, gate = rule.get_submodule(path), rule.gates[t - 1].weight
        z = abar[t - 1].sqrt() * u + (1 - abar[t - 1]).sqrt() * eps[t - 1]
        acts = forward_by_hand(net, x)
        p = torch.softmax(acts[-1] + z @ gate.T, -1)
        weight = 0.1 * (1 / (1 - abar[t]) - 1 / (1 - abar[t - 1]))  # 1 / (1 - abar) is SNR + 1
        g = weight * (p @ w - u) / rows
        delta = softmax_gradient(p, g @ w.T)
        grads |= chain_rule(net, acts, delta, path=path) | {f"gates.{t - 1}.weight": delta.T @ z}
        grad_w += p.T @ g
        grad_w.index_add_(0, y, abar[t - 1].sqrt() * delta @ gate - g)
    z = abar[last].sqrt() * u + (1 - abar[last]).sqrt() * eps[last]
    error = softmax_error(z @ rule.out.weight.T + rule.out.bias, y)
    grad_w.index_add_(0, y, abar[last].sqrt() * error @ rule.out.weight)
    grads |= linear_gradients("out", error, z)
    return grads | ({"embeddings.weight": grad_w} if rule.embeddings.kind == "learned" else {})


def claim_steps() -> bool:
    """a + b sqrt(abar_(t-1)) = sqrt(abar_t) and b^2 (1 - abar_(t-1)) + c = 1 - abar_t."""
    good = []
    for steps in (1, 5, 10, 40):
        abar = schedule(steps, 100.0)
        for before, after in zip(abar, abar[1:], strict=False):
            a, b, c = coefficients(before, after)
            good.append(math.isclose(a + b * math.sqrt(before), math.sqrt(after), rel_tol=1e-12))
            good.append(math.isclose(b * b * (1 - before) + c, 1 - after, rel_tol=1e-9))
    return all(good)


def claim_perfect() -> bool:
    """From z_0 of mean 0 and variance 1, with u_t = u_y, z_T has mean sqrt(abar_T) u_y and variance 1 - abar_T."""
    abar, mean, variance = schedule(10, 100.0), 0.0, 1.0
    for before, after in zip(abar, abar[1:], strict=False):
        a, b, c = coefficients(before, after)
        mean, variance = a + b * mean, b * b * variance + c
    return math.isclose(mean, math.sqrt(abar[-1])) and math.isclose(variance, 1 - abar[-1]) and math.isclose(snr(abar[-1]), 100)


def claim_alone() -> bool:
    """The loss of net t has no gradient at any other net."""
    toy = Toy()
    bound, (x, y) = toy.bind(NoProp, steps=3, embedding="learned", dim=3), toy.batch()
    units = [list(unit) for unit in bound.units()]
    draws = bound.draw(x, y, torch.Generator().manual_seed(0))
    for t, loss in enumerate(bound.losses(x, y, *draws)):
        others = [p for k, unit in enumerate(units[:-1]) if k != t for p in unit]
        if any(g is not None for g in torch.autograd.grad(loss, others, allow_unused=True)):
            return False
    return True


@torch.no_grad()
def claim_posterior() -> bool:
    """With net(x) = log p(y | x), up to a constant a class, one K makes u_t(z, x) the expectation of u_y given x and z."""
    toy = Toy()
    bound: Any = toy.bind(NoProp, steps=3, embedding="learned", dim=4)
    x, _ = toy.batch()
    w, level = bound.get_parameter("embeddings.weight"), schedule(3, 100.0)[1]
    z = torch.randn(len(x), 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    prior = torch.log_softmax(bound.copies[0](x), -1)
    far = (z[:, None] - math.sqrt(level) * w).square().sum(-1)  # -far / (2 (1 - abar)) is log p(z | y), up to a constant
    wanted = torch.softmax(prior - far / (2 * (1 - level)), -1) @ w
    bound.get_parameter("gates.1.weight").copy_(math.sqrt(level) / (1 - level) * w)
    bound.get_parameter("copies.0.readout.bias").sub_(level * w.square().sum(-1) / (2 * (1 - level)))
    return torch.allclose(bound.embeddings.mean(bound.logits(2, z, x)), wanted, rtol=1e-10)


PART = rule(
    NoProp,
    name="noprop",
    reference=reference,
    formula=r"L_t = \frac{\eta}{2}\,(\mathrm{SNR}_t - \mathrm{SNR}_{t-1})\,\| \hat{u}_t(z_{t-1}, x) - u_y \|^2,"
    r"\quad z_t = a_t \hat{u}_t(z_{t-1}, x) + b_t z_{t-1} + \sqrt{c_t}\,\epsilon_t",
    paper=Paper("noprop"),
    tags=Tags(
        family="local",
        local=True,
        needs=frozenset({"labels"}),
        forwards_train="steps",
        forwards_predict="steps",
        reasons={"flat_memory": "memory is flat in T: a step holds one net of the chain, but all of that net's depth"},
    ),
    options=(
        Option("steps", 10, "T: nets that are trained and chained, each the size of the host", bounds=(0, 1001)),
        Option("eta", 0.1, "weight of the denoising losses beside the cross-entropy", bounds=(0.0, math.inf)),
        Option("clamp", 100.0, "signal-to-noise ratio of z_T", bounds=(0.0, math.inf)),
        EMBEDDING,
        DIM,
        NOISE,
    ),
    claims=(
        Claim("steps", "a step of the chain keeps the mean and the variance of the noisy labels", check=claim_steps),
        Claim("perfect", "with perfect denoisers z_T is distributed as the noisy label it was trained on", check=claim_perfect),
        Claim("alone", "a net's loss has no gradient at the other nets", check=claim_alone),
        Claim("posterior", "scores that are a sum of one part of x and one linear in z can be optimal", check=claim_posterior),
        Claim(
            "forward-forward",
            "superior accuracy to other methods without back-propagation",
            where="abstract of version 1",
            protocol=Protocol(task="digits", against="rule/forward-forward", expect="better"),
        ),
        Claim(
            "learns",
            "a viable learning algorithm",
            where="abstract",
            protocol=Protocol(task="digits", against="rule/frozen-hidden", expect="better"),
        ),
    ),
    deviations=(
        "a net of the chain is a copy of the host: T times its parameters and its cost; inside a copy the gradient is exact",
        "z enters a net's scores linearly; the paper joins an image path and a path of z in layers of their own",
        "abar_0 is 0, where the term KL(q(z_0|y) || N(0, I)) is 0, and abar_T is clamp / (1 + clamp): with the cosine"
        " schedule as it is, the last net's weight is a thousand times that of all others",
        "every net learns from every batch, the readout p_out and embeddings once a batch; the paper takes the nets in turn",
        "predictions put 0, the mean, for z_0 and other noise, or one draw for all rows, so that they repeat; the paper draws",
        "p_out starts at 0",
        "embeddings that start as prototypes, images of each class, are left out",
    ),
)
