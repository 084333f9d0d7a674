"""NoProp in continuous time: one net learns at all degrees of noise, and an ODE turns noise into labels (Li, Teh and Pascanu).

NoProp-CT tells the label from x and the noisy label, and follows the probability-flow ODE of a diffusion; NoProp-FM learns
the velocity of the straight flow from noise to the label's embedding.

Shape suffixes: B batch, C classes, D values of an embedding, F features of a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.blocks import Blocks
from netwright.engine.rule import Rule
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import chain_rule, forward_by_hand, linear_gradients, softmax_error
from netwright.rules.noprop._embeddings import DIM, EMBEDDING, NOISE, Embeddings, Noise, Out, softmax_gradient

HIDDEN = Option("hidden", 64, "units of the head that reads z and t", bounds=(0, 4097))
OCTAVES = 4  # frequencies of a time's features
#: Departures of both rules from the paper.
EXACT = "the gradient inside the one net is exact, from its output to its first block: nothing in it is local"
EULER = (
    "Euler steps, 20 for the paper's 1000; predictions start from 0, the mean of the noise, or from one draw for all rows, so"
    " that they repeat; the paper draws"
)
PROTOTYPES = "embeddings that start as prototypes, images of each class, are left out"


def time_features(t_B: Tensor) -> Tensor:
    """sin and cos of 2^j pi t / 2, j = 0 .. 3: (B, F)."""
    angles = torch.stack([t_B * (math.pi / 2 * 2**j) for j in range(OCTAVES)], -1)
    return torch.cat([angles.sin(), angles.cos()], -1)


@final
class Timed(nn.Module):
    """A head with one hidden layer that reads vectors (B, *) and a time (B,)."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs + 2 * OCTAVES, hidden)
        self.last = nn.Linear(hidden, outputs)

    def forward(self, t_B: Tensor, *given: Tensor) -> Tensor:
        return self.last(torch.relu(self.hidden(torch.cat([*given, time_features(t_B)], -1))))


def uniform_and_normal(x: Tensor, width: int, normals: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Draws of a step: t (B,) from U(0, 1), then `normals` times (B, D) from N(0, I)."""
    dtype, device = x.dtype, generator.device
    t = torch.rand(len(x), generator=generator, dtype=dtype, device=device)
    eps = torch.randn(normals, len(x), width, generator=generator, dtype=dtype, device=device)
    return t.to(x.device), *eps.to(x.device)


def euler(field: Callable[[Tensor, Tensor], Tensor], z_BD: Tensor, steps: int) -> Tensor:
    """z at time 1 of dz/dt = field(z, t), from z at time 0, in equal Euler steps; field takes t as (B,)."""
    for k in range(steps):
        z_BD = z_BD + field(z_BD, z_BD.new_full(z_BD.shape[:1], k / steps)) / steps
    return z_BD


def timed_forward(head: Any, t: Tensor, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a `Timed` reads, its hidden layer and its output."""
    waves = [wave(math.pi / 2 * 2**j * t)[:, None] for wave in (torch.sin, torch.cos) for j in range(OCTAVES)]
    read = torch.cat([*given, *waves], -1)
    hidden = (read @ head.hidden.weight.T + head.hidden.bias).clamp(min=0)
    return read, hidden, hidden @ head.last.weight.T + head.last.bias


def timed_gradients(head: Any, path: str, read: Tensor, hidden: Tensor, delta: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Gradients of the `Timed` called `path` for an error at its output, and the error at what it reads."""
    inner = (delta @ head.last.weight) * (hidden > 0)
    grads = linear_gradients(f"{path}.last", delta, hidden) | linear_gradients(f"{path}.hidden", inner, read)
    return grads, inner @ head.hidden.weight


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
        self,
        net: Blocks,
        problem: Problem,
        steps: int = 20,
        eta: float = 1.0,
        clamp: float = 100.0,
        embedding: str = "one-hot",
        dim: int = 20,
        hidden: int = 64,
        noise: str = "none",
    ) -> None:
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


def reference_ct(rule: Any, x: Tensor, y: Tensor, t: Tensor, eps: Tensor, eps_end: Tensor) -> dict[str, Tensor]:
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


NOPROP_CT = rule(
    NoPropCt,
    name="noprop-ct",
    reference=reference_ct,
    summary="NoProp-CT: one net tells a label from x and a label noisy to any degree; an ODE turns noise into labels"
    " (Li, Teh, Pascanu).",
    formula=r"L = \frac{\eta}{2}\,\mathrm{SNR}'(t)\,\| \hat{u}(z_t, x, t) - u_y \|^2 + \mathrm{CE} + \mathrm{KL},"
    r"\quad \dot{z} = \frac{\bar{\alpha}'}{2(1 - \bar{\alpha})} \left(\frac{\hat{u}}{\sqrt{\bar{\alpha}}} - z\right)",
    paper=Paper("noprop"),
    tags=Tags(family="backprop", needs=frozenset({"labels"})),
    options=(
        Option("steps", 20, "Euler steps of a prediction, each through the head alone", bounds=(0, 10001)),
        Option("eta", 1.0, "weight of the denoising loss beside the cross-entropy", bounds=(0.0, math.inf)),
        Option("clamp", 100.0, "signal-to-noise ratio at t = 1; its inverse is the one at t = 0", bounds=(1.0, math.inf)),
        EMBEDDING,
        DIM,
        HIDDEN,
        NOISE,
    ),
    claims=(
        Claim("flow", "the ODE carries noise along the paths that training draws from", check=claim_flow),
        Claim("perfect", "with a perfect denoiser Euler steps reach the label's noisy embedding", check=claim_perfect),
        Claim(
            "learns",
            "a viable learning algorithm",
            where="abstract",
            protocol=Protocol(task="digits", against="rule/frozen-hidden", expect="better"),
        ),
    ),
    deviations=(
        EXACT,
        "the head of z and t adds to the net's scores, so that a prediction runs the net once; the paper joins paths of x, z"
        " and t in layers of their own",
        "gamma(t) is linear in t and fixed; the paper trains a monotone network for it",
        "p_out starts at 0",
        EULER,
        PROTOTYPES,
    ),
)


@final
class NoPropFm(Rule):
    """v(z, x, t) = head(net(x), z, t); L = |v(z_t, x, t) - (u_y - z_0)|^2 with z_t = (1 - t) z_0 + t u_y, t from U(0, 1).

    L pulls embeddings that learn towards 0; CE(p_out(y | z_t + (1 - t) v)), added then, apart. Predicting takes Euler steps of
    dz/dt = v from z_0, noise or its mean, 0, to z_1 and reads p_out there; of one-hot embeddings the scores are z_1 itself.
    """

    def __init__(
        self,
        net: Blocks,
        problem: Problem,
        steps: int = 20,
        embedding: str = "one-hot",
        dim: int = 20,
        hidden: int = 64,
        noise: str = "none",
    ) -> None:
        super().__init__(net, problem)
        self.steps = steps
        self.embeddings = Embeddings(embedding, problem, dim)
        width, classes = self.embeddings.width, problem.output[-1]
        self.noise = Noise(noise, 1, width)
        self.head = Timed(classes + width, hidden, width)
        self.out = Out(width, classes) if embedding == "learned" else nn.Identity()

    def run(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Where each Euler step of a prediction takes z_1 to be, and z_1. The net runs once: only the head reads z and t."""
        scores_BC, seen = self.net(x), []

        def field(z_BD: Tensor, t_B: Tensor) -> Tensor:
            v = self.head(t_B, scores_BC, z_BD)
            seen.append(z_BD + (1 - t_B[:, None]) * v)
            return v

        return seen, euler(field, self.noise(0, x), self.steps)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.run(x)[1])

    def chain(self, x: Tensor) -> list[Tensor]:
        """The scores (B, C) of where each step of a prediction takes z_1 to be."""
        seen, _ = self.run(x)
        return [self.out(z) for z in seen]

    def draw(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """t (B,) and z_0 (B, D)."""
        return uniform_and_normal(x, self.embeddings.width, 1, generator)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        t_B, start = draws
        u, t = self.embeddings(y), t_B[:, None]
        z = (1 - t) * start + t * u
        v = self.head(t_B, self.net(x), z)
        loss = (v - (u - start)).square().sum(-1).mean()
        if self.embeddings.kind == "learned":
            loss = loss + self.problem.loss(self.out(z + (1 - t) * v), y)
        yield loss


def reference_fm(rule: Any, x: Tensor, y: Tensor, t: Tensor, start: Tensor) -> dict[str, Tensor]:
    """At v: 2 (v - (u_y - z_0)) / B, and (1 - t) times what the cross-entropy sends to z_t + (1 - t) v; W gets t of z's."""
    w, rows = rule.embeddings.weight, len(x)
    u, part = w[y], t[:, None]
    z = start + part * (u - start)
    acts = forward_by_hand(rule.net, x)
    read, hidden, v = timed_forward(rule.head, t, acts[-1], z)
    g = 2 / rows * (v + start - u)
    at_v, at_z, grads = g, torch.zeros_like(z), {}
    if rule.embeddings.kind == "learned":
        end = z + (1 - part) * v
        error = softmax_error(end @ rule.out.weight.T + rule.out.bias, y)
        grads = linear_gradients("out", error, end)
        at_z = error @ rule.out.weight
        at_v = g + (1 - part) * at_z
    more, at_read = timed_gradients(rule.head, "head", read, hidden, at_v)
    classes = acts[-1].shape[1]
    grads |= more | chain_rule(rule.net, acts, at_read[:, :classes])
    if rule.embeddings.kind == "learned":
        at_u = part * (at_z + at_read[:, classes : classes + w.shape[1]]) - g
        grads["embeddings.weight"] = torch.zeros_like(w).index_add_(0, y, at_u)
    return grads


def claim_one_step() -> bool:
    """With the flow of one pair, v = u_y - z_0, one Euler step ends at u_y."""
    g = torch.Generator().manual_seed(0)
    u, z = torch.randn(4, 3, generator=g, dtype=torch.float64), torch.randn(4, 3, generator=g, dtype=torch.float64)
    return torch.allclose(euler(lambda _z, _t: u - z, z, 1), u, rtol=1e-12)


def claim_any_steps() -> bool:
    """The mean flow towards one label, (u_y - z) / (1 - t), ends at u_y from any noise in any number of Euler steps."""
    g = torch.Generator().manual_seed(0)
    u, z = torch.randn(4, 3, generator=g, dtype=torch.float64), torch.randn(4, 3, generator=g, dtype=torch.float64)
    ends = [euler(lambda z, t: (u - z) / (1 - t[:, None]), z, n) for n in (1, 2, 7, 20)]
    return all(torch.allclose(end, u, rtol=1e-9) for end in ends)


NOPROP_FM = rule(
    NoPropFm,
    name="noprop-fm",
    reference=reference_fm,
    summary="NoProp-FM: one net learns the straight flow from noise to a label's embedding, given x (Li, Teh and Pascanu).",
    formula=r"L = \| v(z_t, x, t) - (u_y - z_0) \|^2,\quad z_t = (1 - t)\,z_0 + t\,u_y,\quad z_0 \sim N(0, I)",
    paper=Paper("noprop"),
    tags=Tags(family="backprop", needs=frozenset({"labels"})),
    options=(
        Option("steps", 20, "Euler steps of a prediction, each through the head alone", bounds=(0, 10001)),
        EMBEDDING,
        DIM,
        HIDDEN,
        NOISE,
    ),
    claims=(
        Claim("one-step", "the exact flow reaches the embedding in one Euler step", check=claim_one_step),
        Claim("any-steps", "the mean flow towards a label reaches it in any number of Euler steps", check=claim_any_steps),
        Claim(
            "learns",
            "a viable learning algorithm",
            where="abstract",
            protocol=Protocol(task="digits", against="rule/frozen-hidden", expect="better"),
        ),
    ),
    deviations=(
        EXACT,
        "a head joins the net's scores, z and t, so that a prediction runs the net once; the paper joins paths of x, z and t in"
        " layers of their own",
        "no further noise is added to z_t; of one-hot embeddings z_1 itself is read, with nothing trained on it",
        EULER,
        PROTOTYPES,
    ),
)

PARTS = (NOPROP_CT, NOPROP_FM)
