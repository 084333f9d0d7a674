"""Physical local learning: trainable layers between black boxes that are only ever run forward (Momeni et al., 2023).

Shape suffixes: B batch, D features a block reads, N features it puts out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import Misfit
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.blocks import Blocks, split
from netwright.engine.rule import trainable
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, gradients, linear_gradients
from netwright.rules.forwardforward._overlaid import Overlaid, labelled
from netwright.tensor.precision import full_precision

STEP = 0.125  # of the detector behind a physical system


def with_added(block: nn.Module, h: Tensor, extra: Tensor) -> Tensor:
    """A block's output for h where `extra` is added to what its last activation reads."""
    pre, act = split(block)
    return act(pre(h) + extra)


def read_width(block: nn.Module, width: int) -> int:
    """Features that the last activation of a block of this width reads: a gate halves them."""
    return round(width / getattr(split(block)[1], "ratio", 1.0))


@final
class PhysicalFf(Overlaid):
    """L_k = softplus(-theta (cos(h_k on right labels, p_k) - cos(h_k on wrong labels, p_k))), p_k a fixed random direction.

    reads: h_k = f(W_k [P_k(h), h] + b_k) with h = h_(k-1) ("both"), or h_k = f(W_k P_k(h) + b_k) ("physical"); P_k is a
    fixed map of h / |h| that no gradient passes. W_k over h, b_k and f are the host's block; W_k over P_k is added to it.
    Raises Misfit where blocks put out anything but vectors.
    """

    def __init__(self, net: Blocks, problem: Problem, reads: str = "both", theta: float = 4.0) -> None:
        super().__init__(net, problem)
        if any(len(shape) != 1 for shape in net.shapes):
            raise Misfit(f"physical-ff needs blocks that put out vectors, given shapes {net.shapes}; use an Mlp")
        self.reads, self.theta = reads, theta
        widths = [shape[0] for shape in net.shapes]
        inputs = [problem.input[0], *widths[:-1]]
        self.systems = nn.ModuleList(map(System, inputs))
        self.directions = nn.ModuleList(map(Direction, widths))
        self.weights = nn.ModuleList()
        if reads == "both":
            for block, d, n in zip(net.blocks, inputs, widths, strict=True):
                self.weights.append(nn.Linear(d, read_width(block, n), bias=False))

    def run(self, k: int, h: Tensor) -> Tensor:
        h, block = h.detach(), self.net.blocks[k]
        measured = self.systems[k](h)
        if self.reads == "physical":
            return block(measured)
        return with_added(block, h, self.weights[k](measured))

    def score(self, k: int, h: Tensor) -> Tensor:
        return self.directions[k](h)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        h = torch.cat(self.pairs(x, y, *draws))
        for k in range(len(self.net.blocks)):
            h = self.run(k, h)
            right, wrong = self.score(k, h).tensor_split(2)
            yield F.softplus(-self.theta * (right - wrong)).mean()

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        if self.reads == "physical":
            return super().units()
        return [trainable(block, weight) for block, weight in zip(self.net.blocks, self.weights, strict=True)]


@final
class System(nn.Module):
    """A stand-in for a physical system: sin(R h / |h|), as of interfering waves, read in steps of 1/8; R is fixed, N(0, 1).

    It is centred: measuring magnitudes, whose common offset swamps what differs, costs the blocks much of their accuracy.
    """

    medium_DD: Tensor

    def __init__(self, d: int) -> None:
        super().__init__()
        self.register_buffer("medium_DD", torch.empty(d, d))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        self.medium_DD.normal_(generator=generator)

    @torch.no_grad()
    def forward(self, h_BD: Tensor) -> Tensor:
        assert not h_BD.requires_grad, "a physical system was asked for a gradient"
        with full_precision(h_BD):  # a measurement has its own precision
            sent_BD = h_BD.to(self.medium_DD.dtype)
            sent_BD = sent_BD / (sent_BD.norm(dim=1, keepdim=True) + 1e-6)
            return ((sent_BD @ self.medium_DD.T).sin() / STEP).round() * STEP


@final
class Direction(nn.Module):
    """The cosine with a random direction that stays."""

    unit_N: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("unit_N", torch.empty(n))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        self.unit_N.normal_(generator=generator).div_(self.unit_N.norm())

    def forward(self, h_BN: Tensor) -> Tensor:
        return (h_BN * self.unit_N).sum(1) / h_BN.norm(dim=1).clamp(min=1e-6)


def reference(rule: Any, x: Tensor, y: Tensor, wrong: Tensor) -> dict[str, Tensor]:
    """da = -theta sigmoid(-theta delta) / B * (p - cos * h / |h|) / |h| * 1[h > 0] on right labels, minus that on wrong."""
    eye = torch.eye(rule.classes, dtype=x.dtype)
    sides = [labelled(x, eye[y]), labelled(x, eye[wrong])]
    grads: dict[str, Tensor] = {}
    for k, block in enumerate(rule.net.blocks):
        medium, p = rule.get_buffer(f"systems.{k}.medium_DD"), rule.get_buffer(f"directions.{k}.unit_N")
        measured, outputs, cosines = [], [], []
        for side in sides:
            sent = torch.stack([medium @ (row / (row.norm() + 1e-6)) for row in side])
            measured.append(torch.floor(8 * torch.sin(sent) + 0.5) / 8)
            if rule.reads == "both":
                a = side @ block[0].weight.T + measured[-1] @ rule.weights[k].weight.T + block[0].bias
            else:
                a = measured[-1] @ block[0].weight.T + block[0].bias
            outputs.append(a.clamp(min=0))
            cosines.append(torch.stack([h @ p / max(float(h.norm()), 1e-6) for h in outputs[-1]]))
        pull = -rule.theta * torch.sigmoid(rule.theta * (cosines[1] - cosines[0])) / len(x)
        for i, sign in enumerate((1.0, -1.0)):
            h, cosine, read = outputs[i], cosines[i][:, None], measured[i]
            length = h.norm(dim=1, keepdim=True).clamp(min=1e-6)
            delta = sign * pull[:, None] * (p - cosine * h / length) / length * (h > 0)
            new = linear_gradients(f"net.blocks.{k}.0", delta, sides[i] if rule.reads == "both" else read)
            if rule.reads == "both":
                new[f"weights.{k}.weight"] = delta.T @ read
            for name, g in new.items():
                grads[name] = grads.get(name, 0) + g
        sides = outputs
    return grads


@final
class Sealed(nn.Module):
    """Another module, run outside torch: what it is given leaves for numpy, which refuses what a gradient could reach."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, h: Tensor) -> Tensor:
        return self.inside(torch.from_numpy(h.numpy().copy()))


def _toy(**options: Any) -> tuple[Any, Tensor, Tensor, tuple[Tensor, ...]]:
    toy = Toy()
    bound, (x, y) = toy.bind(PhysicalFf, **options), toy.batch()
    return bound, x, y, bound.draw(x, y, torch.Generator().manual_seed(0))


def claim_black_box() -> bool:
    """With the physical systems sealed off from torch the update is the same to the bit."""
    bound, x, y, draws = _toy()
    open_ = gradients(bound, x, y, *draws)
    bound.systems = nn.ModuleList(Sealed(system) for system in bound.systems)
    sealed = gradients(bound, x, y, *draws)
    return all(torch.equal(g, sealed[name]) for name, g in open_.items())


def claim_scale() -> bool:
    """A block whose output is three times as long has the same loss."""
    bound, x, y, draws = _toy()
    before = [loss.item() for loss in bound.losses(x, y, *draws)]
    with torch.no_grad():
        for p in bound.units()[-1]:
            p.mul_(3.0)
    after = [loss.item() for loss in bound.losses(x, y, *draws)]
    return all(math.isclose(a, b, rel_tol=1e-12) for a, b in zip(before, after, strict=True))


def claim_theta() -> bool:
    """As theta goes to 0 every loss goes to ln 2."""
    bound, x, y, draws = _toy(theta=1e-9)
    return all(math.isclose(loss.item(), math.log(2), rel_tol=1e-8) for loss in bound.losses(x, y, *draws))


PART = rule(
    PhysicalFf,
    reference=reference,
    formula=r"L_k = \log\left(1 + e^{-\theta(\cos(h_k^{+}, p_k) - \cos(h_k^{-}, p_k))}\right),"
    r"\quad h_k = f\left(W_k\,[P_k(h_{k-1} / \|h_{k-1}\|),\ h_{k-1}] + b_k\right)",
    paper=Paper("physical-ff"),
    tags=Tags(
        family="local",
        local=True,
        needs=frozenset({"blocks", "labels", "vector"}),
        forwards_train=2.0,
        forwards_predict="classes",
    ),
    options=(
        Option(
            "reads",
            "both",
            "what a block reads: the measurement and its input, or the measurement alone",
            allowed=("both", "physical"),
        ),
        Option("theta", 4.0, "steepness of the loss", bounds=(0.0, 100.0)),
    ),
    claims=(
        Claim("black-box", "trains without a model of the physical layers", where="abstract", check=claim_black_box),
        Claim("scale", "the goodness doesn't see the length of a block's output", check=claim_scale),
        Claim("theta", "as theta goes to 0 the loss goes to ln 2", check=claim_theta),
        Claim(
            "trains",
            "trains deep nets with physical layers",
            where="abstract",
            protocol=Protocol(task="digits", against="rule/frozen-hidden", expect="better"),
        ),
    ),
    deviations=(
        "the physical systems are simulated: the sine of a fixed random linear map, read in steps of 1/8",
        "the trainable layer is the host's block with its activation; the authors' have none, or GELU, and their wave-based"
        " nets take the goodness of |h|",
        "the matrix over the measurement stands beside the block's and joins it before the activation, after a norm if any",
        "the measurement and that matrix aren't counted as forwards",
        "all blocks learn in every step; the authors take 10 to 25 steps a block on large batches",
        "the label is as high as the largest magnitude in the example, not in the batch",
    ),
)
