"""NoProp-FM: one net learns the straight flow from noise to a label's embedding, given x (Li, Teh and Pascanu).

Shape suffixes: B batch, C classes, D values of an embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import torch
from torch import Tensor, nn

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
    timed_forward,
    timed_gradients,
    uniform_and_normal,
)


@final
class NoPropFm(Rule):
    """v(z, x, t) = head(net(x), z, t); L = |v(z_t, x, t) - (u_y - z_0)|^2 with z_t = (1 - t) z_0 + t u_y, t from U(0, 1).

    L pulls embeddings that learn towards 0; CE(p_out(y | z_t + (1 - t) v)), added then, apart. Predicting takes Euler steps of
    dz/dt = v from z_0, noise or its mean, 0, to z_1 and reads p_out there; of one-hot embeddings the scores are z_1 itself.
    """

    def __init__(
        self, net: Blocks, problem: Problem, steps: int = 20, embedding: str = "one-hot", dim: int = 20,
        hidden: int = 64, noise: str = "none",
    ) -> None:  # fmt: skip
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


def reference(rule: Any, x: Tensor, y: Tensor, t: Tensor, start: Tensor) -> dict[str, Tensor]:
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


PART = rule(
    NoPropFm,
    name="noprop-fm",
    reference=reference,
    formula=r"L = \| v(z_t, x, t) - (u_y - z_0) \|^2,\quad z_t = (1 - t)\,z_0 + t\,u_y,\quad z_0 \sim N(0, I)",
    paper=Paper("noprop"),
    tags=Tags(family="backprop", needs=frozenset({"labels"})),
    options=(
        Option("steps", 20, "Euler steps of a prediction, each through the head alone", bounds=(0, 10001)),
        EMBEDDING, DIM, HIDDEN, NOISE,
    ),
    claims=(
        Claim("one-step", "the exact flow reaches the embedding in one Euler step", check=claim_one_step),
        Claim("any-steps", "the mean flow towards a label reaches it in any number of Euler steps", check=claim_any_steps),
        Claim(
            "learns", "a viable learning algorithm", where="abstract",
            protocol=Protocol(task="digits", against="rule/frozen-hidden", expect="better"),
        ),
    ),
    deviations=(
        "the gradient inside the one net is exact, from its output to its first block: nothing in it is local",
        "a head joins the net's scores, z and t, so that a prediction runs the net once; the paper joins paths of x, z and t in"
        " layers of their own",
        "no further noise is added to z_t; of one-hot embeddings z_1 itself is read, with nothing trained on it",
        "Euler steps, 20 for the paper's 1000; predictions start from 0, the mean of the noise, or from one draw for all rows, so"
        " that they repeat; the paper draws",
        "embeddings that start as prototypes, images of each class, are left out",
    ),
)  # fmt: skip
