"""Entmax: from softmax (alpha to 1) to sparsemax (alpha = 2), sparse for every alpha above 1 (Peters et al., 2019).

p_i = [1 + (alpha - 1)(x_i - theta)]_+^(1 / (alpha - 1)), with theta such that sum p = 1. Tending to exp(x_i - theta) as
alpha tends to 1; the paper writes tau = (alpha - 1) theta - 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Example, Identity, Option, Paper


def power(y: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """p = [1 + (alpha - 1) y]_+^(1 / (alpha - 1)) and its derivative s = p^(2 - alpha), 0 outside the support."""
    w = (alpha - 1) * y
    inside = w > -1
    log = torch.log1p(torch.where(inside, w, 0.0)) / (alpha - 1)
    return torch.where(inside, log.exp(), 0.0), torch.where(inside, ((2 - alpha) * log).exp(), 0.0)


def newton(p: Tensor, s: Tensor, alpha: float, dim: int) -> Tensor:
    """A step of Newton's method to h(theta) = 1, with h = (sum p)^(alpha - 1).

    h is a norm of 1 + (alpha - 1)(x - theta), so it is convex and falls: from h >= 1 every step stays there. With its
    slopes g, (h_next - 1) / (h - 1) + g_next / g <= 1, and g runs from d^(alpha - 1) to 1 at most, so that K steps leave
    h - 1 <= d^(alpha - 1) (1 - d^((1 - alpha) / K))^K, whatever the row of d. For alpha = 2 it is Michelot's iteration.
    """
    total = p.sum(dim, keepdim=True)
    return -total * torch.expm1((1 - alpha) * total.log()) / ((alpha - 1) * s.sum(dim, keepdim=True))


def entmax(x: Tensor, *, dim: int, alpha: float) -> Tensor:
    z = x - x.amax(dim, keepdim=True).detach()
    theta, still = torch.zeros_like(z.amax(dim, keepdim=True)).detach(), z.detach()
    for _ in range(24):
        theta = theta + newton(*power(still - theta, alpha), alpha, dim)
    # Theta is right now, but a constant to autograd. A step doubles the order to which it also follows x: the first
    # makes the gradient right, the second the gradient's gradient.
    for _ in range(2):
        theta = theta + newton(*power(z - theta, alpha), alpha, dim)
    return power(z - theta, alpha)[0]


def ahead(x: Tensor, *, dim: int, alpha: float) -> Tensor:
    z = x - x.amax(dim, keepdim=True)
    theta = torch.zeros_like(z.amax(dim, keepdim=True))
    short = x.shape[dim] <= 1024 and x.dtype == torch.float32
    for _ in range(20 if short else 40):
        theta = theta + newton(*quick_power(z - theta, alpha), alpha, dim)
    return quick_power(z - theta, alpha)[0]


def quick_power(y: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """`power` without log1p, which has no vectorised kernel."""
    w = (alpha - 1) * y
    u = (1 + w).relu()
    if alpha == 2:
        return u, torch.where(u > 0, 1.0, 0.0)
    if alpha == 1.5:
        return u * u, u
    # log(u) w / (u - 1) is log(1 + w) to full precision: the rounding of u cancels.
    safe = torch.where((u > 0) & (u != 1), u, 2.0)
    log = torch.where(u == 1, w, safe.log() * w / (safe - 1)) / (alpha - 1)
    return torch.where(u > 0, log.exp(), 0.0), torch.where(u > 0, ((2 - alpha) * log).exp(), 0.0)


def back(gradient: Tensor, p: Tensor, *, dim: int, alpha: float) -> Tensor:
    """J v = s (v - mean of v weighted by s), with s = p^(2 - alpha) on the support and 0 outside."""
    safe = torch.where(p > 0, p, 1.0)
    s = torch.where(p > 0, safe.sqrt() if alpha == 1.5 else ((2 - alpha) * safe.log()).exp(), 0.0)
    return s * (gradient - (s * gradient).sum(dim, keepdim=True) / s.sum(dim, keepdim=True))


def entmax15(x: Tensor, *, dim: int) -> Tensor:
    """alpha = 3/2 by sorting: p = [x / 2 - tau]_+^2, where tau solves a quadratic equation over the support."""
    z = x.transpose(dim, -1)
    z = ((z - z.amax(-1, keepdim=True).detach()) / 2).clamp(min=-2.0)  # below -1 p is 0; keeps the sums small
    down = z.detach().sort(-1, descending=True).values
    k = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)
    mean = down.cumsum(-1) / k
    spread = down.square().cumsum(-1) - k * mean.square()
    tau = mean - ((1 - spread) / k).clamp(min=0.0).sqrt()  # were the support the first k
    last = (tau <= down).sum(-1, keepdim=True) - 1
    inside = z.detach() > tau.gather(-1, last)
    # Once more over the support alone, where the root is at least 1 / |S|, and autograd has no sort to pass through.
    size = inside.to(z.dtype).sum(-1, keepdim=True)
    mean = torch.where(inside, z, 0.0).sum(-1, keepdim=True) / size
    spread = torch.where(inside, z - mean, 0.0).square().sum(-1, keepdim=True)
    return (z - mean + ((1 - spread) / size).sqrt()).relu().square().transpose(dim, -1)


def ahead15(x: Tensor, *, dim: int) -> Tensor:
    return ahead(x, dim=dim, alpha=1.5)


def back15(gradient: Tensor, p: Tensor, *, dim: int) -> Tensor:
    return back(gradient, p, dim=dim, alpha=1.5)


def reference(x: Sequence[float], alpha: float) -> list[float]:
    """The paper's bisection of tau in p_i = [(alpha - 1) x_i - tau]_+^(1 / (alpha - 1))."""
    z = [(alpha - 1) * v for v in x]
    low, high = max(z) - 1.0, max(z) - len(z) ** (1 - alpha)

    def at(tau: float) -> list[float]:
        return [max(0.0, v - tau) ** (1 / (alpha - 1)) for v in z]

    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(middle)) >= 1 else (low, middle)
    return at(low)


def reference15(x: Sequence[float]) -> list[float]:
    return reference(x, 1.5)


def _rows(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


ALPHAS = (1.001, 1.25, 1.5, 1.75, 2.0)


def claim_simplex() -> bool:
    """Every row is a probability vector for every alpha, and the zeros grow in number with alpha."""
    p = torch.stack([entmax(3 * _rows(0, 64, 16), dim=-1, alpha=alpha) for alpha in ALPHAS])
    zeros = (p == 0).sum((1, 2))
    return bool(((p.sum(-1) - 1).abs() < 1e-12).all() and (p >= 0).all() and (zeros.diff() > 0).all())


def claim_shift() -> bool:
    """Adding a constant to a row changes nothing."""
    x = _rows(1, 64, 16)
    return bool(torch.allclose(entmax(x + 3.0, dim=-1, alpha=1.5), entmax(x, dim=-1, alpha=1.5), atol=1e-12))


def claim_jacobian() -> bool:
    """The Jacobian is diag(s) - s s^T / sum s with s = p^(2 - alpha): by autograd, and as `back` has it."""
    x, v, right = _rows(3, 6), _rows(4, 6), []
    for alpha in ALPHAS:
        p = entmax(x, dim=-1, alpha=alpha)
        s = torch.where(p > 0, p ** (2 - alpha), 0.0)
        wanted = s.diag() - s.outer(s) / s.sum()
        got = torch.autograd.functional.jacobian(lambda x: entmax(x, dim=-1, alpha=alpha), x)  # noqa: B023
        right += [torch.allclose(got, wanted), torch.allclose(back(v, p, dim=-1, alpha=alpha), wanted @ v)]
    return all(right)


def claim_largest() -> bool:
    """It maximises p x + H(p), with Tsallis's entropy H(p) = (1 - sum p^alpha) / (alpha (alpha - 1)), on the simplex."""
    x = _rows(5, 8, 1, 6)
    others = torch.rand(8, 500, 6, generator=torch.Generator().manual_seed(6), dtype=torch.float64).log().neg()
    others = others / others.sum(-1, keepdim=True)

    def gain(p: Tensor) -> Tensor:
        return (p * x).sum(-1) + (1 - p.pow(1.5).sum(-1)) / 0.75

    return bool((gain(entmax(x, dim=-1, alpha=1.5)) >= gain(others)).all())


def claim_sorting() -> bool:
    """With alpha = 3/2 sorting and Newton's method find the same point, at short and long rows."""
    rows = [_rows(7, 32, 5), 3 * _rows(8, 32, 300), torch.zeros(1, 9), torch.eye(9)[:1].double()]
    return all(torch.allclose(entmax15(x, dim=-1), ahead(x, dim=-1, alpha=1.5), atol=1e-12) for x in rows)


PAPER = Paper(
    title="Sparse Sequence-to-Sequence Models",
    authors="Ben Peters, Vlad Niculae, André F. T. Martins",
    year=2019,
    arxiv="1905.05702",
    code="deep-spin/entmax",
)
EXAMPLES = (
    Example([1.0, 0.5, -1.0], [0.673993, 0.326007, 0.0]),
    Example([1.0, 0.8, 0.1], [0.529248, 0.393749, 0.077003]),
    Example([2.0, 0.0, 0.0], [1.0, 0.0, 0.0]),
)

PARTS = (
    activation(
        entmax,
        cls="Entmax",
        reference=reference,
        fused=(ahead, back),
        formula=r"\left[(\alpha - 1) x_i - \tau\right]_+^{1/(\alpha - 1)}",
        paper=PAPER,
        options=(Option("alpha", 1.5, "above 1 and up to 2, from dense to sparse", bounds=(1.0, 2.0000000001)),),
        tags=Tags(shape="rowwise", delicate=True),
        examples=(*EXAMPLES, Example([1.0, 0.5, -1.0], [0.75, 0.25, 0.0], options={"alpha": 2.0})),
        flops=150.0,
        identities=(
            Identity("activation/sparsemax", options={"alpha": 2.0}, tolerance=1e-9),
            Identity("activation/softmax", options={"alpha": 1.000001}, tolerance=1e-4, note="as alpha tends to 1"),
        ),
        claims=(
            Claim("simplex", "gives sparse probability vectors, the sparser the larger alpha", check=claim_simplex),
            Claim("shift", "is invariant to shifts", check=claim_shift),
            Claim("jacobian", "has the Jacobian diag(s) - s s^T / sum s, s = p^(2 - alpha)", check=claim_jacobian),
            Claim("entropy", "maximises p x plus Tsallis's entropy of p", check=claim_largest),
        ),
        deviations=("the threshold is found by Newton's method, the paper's bisection being the reference",),
    ),
    activation(
        entmax15,
        cls="Entmax15",
        summary="Entmax with alpha = 3/2, exact by sorting (Peters et al., 2019).",
        reference=reference15,
        fused=(ahead15, back15),
        formula=r"\left[x_i / 2 - \tau\right]_+^2",
        paper=PAPER,
        tags=Tags(shape="rowwise", delicate=True),
        examples=EXAMPLES,
        flops=30.0,
        alias_of="activation/entmax",
        claims=(Claim("sorting", "can be had exactly by sorting", check=claim_sorting),),
    ),
)
