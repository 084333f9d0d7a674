"""KArAt: self-attention whose softmax gives way to learnt Fourier series of the scores (Maity et al., 2025).

    A = Q K^T / sqrt(d_h),   h_p = sum_q sum_(m <= G) a_pqm cos(m A_q) + b_pqm sin(m A_q),   sigma(A)_k = sum_p W_kp h_p

for every row of A and every head, with Phi: R^N -> R^r and W in R^(N x r): a row of N scores becomes r sums of learnt
functions of one score each, and these a row of N weights. The weights needn't be positive, nor sum to 1. A unit is bound
to the places of a row, so the length N of a sequence is fixed.

cos and sin are made once a score, not once a unit: memory grows as 2 G N^2 a head, not as G r N^2. Where the rows aren't
projected, sigma(A) V = h (W^T V), and the N x N weights are never made.

Shape suffixes: B rows of the batch, N places of a sequence, I inputs, O outputs, H heads, D width of a head, R rank,
F = 2 G N values of the cosines and sines of a row of scores.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.part import Claim, Option, Paper
from netwright.layers._kind import Layer, Tags, layer, product, uniform_
from netwright.tensor.modules import LOW, drawn

PROJECTIONS = ("none", "simplex", "softmax")


def waves(scores: Tensor, grid: int) -> Tensor:
    """cos(m s) for m = 1 .. grid, then sin(m s), of every score in a row (..., N) -> (..., 2 grid N)."""
    wide = scores.float() if scores.dtype in LOW else scores  # an angle has to be known to a fraction of 1
    angles = torch.cat([m * wide for m in range(1, grid + 1)], -1)
    return torch.cat((angles.cos(), angles.sin()), -1).to(scores.dtype)


def simplex(rows: Tensor) -> Tensor:
    """The nearest point of the probability simplex to every row (..., N): (y - lambda)_+ with lambda so that the sum is 1."""
    sums, places = rows.sort(-1, descending=True).values, torch.arange(1, rows.shape[-1] + 1, device=rows.device)
    gaps = sums - (sums.cumsum(-1) - 1) / places
    held = (gaps > 0).sum(-1, keepdim=True).clamp(min=1)
    level = (sums.cumsum(-1).gather(-1, held - 1) - 1) / held
    return (rows - level).clamp(min=0)


@final
class KArAt(Layer):
    """Multi-head self-attention with sigma(A) for softmax(A); (..., length, d_in) -> (..., length, d_out).

    length: N; heads divide d_in; grid: G; rank: r, at most N of use. projection: what the rows of sigma(A) go through,
    "none", the nearest point of the probability "simplex", or "softmax". Raises BadInput where the heads don't divide d_in,
    or a sequence has another length.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        length: int = 64,
        heads: int = 4,
        grid: int = 3,
        rank: int = 12,
        projection: str = "none",
    ) -> None:
        super().__init__()
        if d_in % heads:
            raise BadInput(f"layer/karat: heads={heads} with d_in={d_in}; give a number of heads that divides d_in")
        self.length, self.heads, self.grid, self.projection = length, heads, grid, projection
        self.qkv = nn.Parameter(torch.empty(3 * d_in, d_in))
        self.units = nn.Parameter(torch.empty(heads, rank, 2 * grid * length))  # a, then b; in each m, then places
        self.mix = nn.Parameter(torch.empty(heads, length, rank))  # W
        self.out = nn.Parameter(torch.empty(d_out, d_in))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """a, b ~ N(0, 1 / (G N)), W ~ N(0, 1 / (r N)), so that rows have squares that sum to about 1; the maps as nn.Linear."""
        for p in (self.qkv, self.out):
            uniform_(p, 1 / math.sqrt(p.shape[1]), generator)
        self.units.normal_(0, math.sqrt(2 / self.units.shape[2]), generator=generator)
        self.mix.normal_(0, 1 / math.sqrt(self.mix.shape[1] * self.mix.shape[2]), generator=generator)

    @property
    def quantities(self) -> dict[str, float]:
        return {**super().quantities, "projected": int(self.projection != "none")}

    def scores(self, x_BNI: Tensor) -> tuple[Tensor, Tensor]:
        """A (B, H, N, N) and the values V (B, H, N, D)."""
        if x_BNI.shape[1] != self.length:
            raise BadInput(
                f"{self.part.id}: a sequence of {x_BNI.shape[1]} rows; expected length={self.length}: its units are bound to"
                " their places, so pad or cut sequences, or build it with another length"
            )
        q, k, v = product(x_BNI, self.qkv).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), v

    def hidden(self, scores_BHNN: Tensor) -> Tensor:
        """Phi of every row of scores: (B, H, N, R)."""
        return waves(scores_BHNN, self.grid) @ self.units.transpose(-2, -1)

    def attention(self, x_BNI: Tensor) -> Tensor:
        """sigma(A), projected where that is asked for: (B, H, N, N)."""
        return self._rows(self.hidden(self.scores(x_BNI)[0]))

    def _rows(self, h_BHNR: Tensor) -> Tensor:
        rows = h_BHNR @ self.mix.transpose(-2, -1)
        return {"none": lambda r: r, "simplex": simplex, "softmax": lambda r: r.softmax(-1)}[self.projection](rows)

    def compute(self, x_BNI: Tensor) -> Tensor:
        scores_BHNN, v_BHND = self.scores(x_BNI)
        h_BHNR = self.hidden(scores_BHNN)
        if self.projection == "none":
            mixed_BHND = h_BHNR @ (self.mix.transpose(-2, -1) @ v_BHND)
        else:
            mixed_BHND = self._rows(h_BHNR).to(v_BHND.dtype) @ v_BHND
        return F.linear(mixed_BHND.transpose(1, 2).flatten(2), self.out)

    @torch.no_grad()
    def tie(self, other: KArAt) -> None:
        """Share the units and mixes of another layer from now on: the paper's universal configuration, where all blocks do.

        Raises BadInput where they have other sizes.
        """
        if other.units.shape != self.units.shape or other.mix.shape != self.mix.shape:
            raise BadInput(f"{self.part.id}: tie to units of {tuple(other.units.shape)}; expected {tuple(self.units.shape)}")
        self.units, self.mix = other.units, other.mix


def reference(layer: Any, x_BNI: Tensor) -> Tensor:
    rows, length, d = x_BNI.shape
    heads, grid, units, mix = layer.options["heads"], layer.options["grid"], layer.units, layer.mix
    width, y = d // heads, torch.zeros(rows, length, len(layer.out), dtype=x_BNI.dtype)

    def projected(row: list[float]) -> list[float]:
        if layer.options["projection"] == "softmax":
            top = max(row)
            total = sum(math.exp(v - top) for v in row)
            return [math.exp(v - top) / total for v in row]
        if layer.options["projection"] == "simplex":  # the level at which what stands above it sums to 1, by bisection
            low, high = min(row) - 1, max(row)
            for _ in range(80):
                level = (low + high) / 2
                low, high = (level, high) if sum(max(v - level, 0.0) for v in row) > 1 else (low, level)
            return [max(v - low, 0.0) for v in row]
        return row

    for b in range(rows):
        mixed = torch.zeros(length, d, dtype=x_BNI.dtype)
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            q, k, v = (x_BNI[b] @ layer.qkv[part * d : (part + 1) * d].T[:, own] for part in range(3))
            for n in range(length):
                scores = [float(q[n] @ k[j]) / math.sqrt(width) for j in range(length)]
                h = [0.0] * units.shape[1]
                for p in range(units.shape[1]):
                    for j, score in enumerate(scores):
                        for m in range(1, grid + 1):
                            h[p] += float(units[head, p, (m - 1) * length + j]) * math.cos(m * score)
                            h[p] += float(units[head, p, (grid + m - 1) * length + j]) * math.sin(m * score)
                row = projected([sum(float(w) * s for w, s in zip(mix[head, j], h, strict=True)) for j in range(length)])
                mixed[n, own] = sum(weight * v[j] for j, weight in enumerate(row))
        y[b] = mixed @ layer.out.T
    return y


def _toy(seed: int = 0, **options: Any) -> tuple[Any, Tensor]:
    built = drawn(KArAt, 6, 4, length=8, heads=2, **{"rank": 3, **options}).requires_grad_(False)
    return built, torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def claim_not_stochastic() -> bool:
    """Rows of attention don't sum to 1 and hold negative weights, unless they are projected."""
    sums, least = [], []
    for projection in PROJECTIONS:
        karat, x = _toy(projection=projection)
        rows = karat.attention(x)
        sums.append(float((rows.sum(-1) - 1).abs().max()))
        least.append(float(rows.min()))
    return sums[0] > 0.1 and least[0] < 0 and max(sums[1:]) < 1e-12 and min(least[1:]) >= 0


def claim_low_rank() -> bool:
    """The weights have no more than the rank, and their product with the values is what the layer computes without them."""
    karat, x = _toy()
    rows, v = karat.attention(x), karat.scores(x)[1]
    ranks = torch.linalg.matrix_rank(rows, rtol=1e-10)
    slow = (rows @ v).transpose(1, 2).flatten(2) @ karat.out.T
    return int(ranks.max()) <= 3 and bool(torch.allclose(karat(x), slow, atol=1e-12))


def claim_full_rank() -> bool:
    """With a rank of N and W = 1 it is the full operator of equation (1); one sine a place makes sigma(A) = sin(A)."""
    karat, x = _toy(rank=8, grid=1)
    karat.mix.copy_(torch.eye(8))
    karat.units.zero_()
    karat.units[:, :, 8:] = torch.eye(8)
    scores = karat.scores(x)[0]
    return bool(torch.allclose(karat.attention(x), scores.sin(), atol=1e-12))


def claim_small_scores() -> bool:
    """Where scores are small, sines of slope 1 leave them as they are: attention without any nonlinearity."""
    karat, x = _toy(rank=8, grid=1)
    karat.mix.copy_(torch.eye(8))
    karat.units.zero_()
    karat.units[:, :, 8:] = torch.eye(8)
    karat.qkv[:12] *= 1e-2
    scores = karat.scores(x)[0]
    return float((karat.attention(x) - scores).abs().max()) <= float(scores.abs().max()) ** 3 / 6 + 1e-15


def claim_memory() -> bool:
    """A step of the grid keeps 3 N^2 values a head more for the backward: angles, cosines, sines. The rank has no part in it."""

    def kept(grid: int, rank: int) -> int:
        karat = drawn(KArAt, 4, 4, length=32, heads=2, grid=grid, rank=rank)
        own, held = {p.untyped_storage().data_ptr() for p in karat.parameters()}, {}

        def pack(t: Tensor) -> Tensor:
            held[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes() // 8
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            karat(torch.ones(1, 32, 4, dtype=torch.float64))
        return sum(n for place, n in held.items() if place not in own)

    return all(kept(grid, rank) - kept(grid - 1, rank) == 2 * 3 * 32**2 for grid in (2, 3) for rank in (5, 11))


def claim_universal() -> bool:
    """Tied layers have one set of units: heads (2 G + 1) N r values, once."""
    (one, x), (two, _) = _toy(), _toy()
    two.units.mul_(2)
    two.tie(one)
    shared = sum(p.numel() for p in nn.ModuleList((one, two)).parameters()) - 2 * (one.qkv.numel() + one.out.numel())
    return shared == 2 * (2 * 3 + 1) * 8 * 3 and torch.equal(one.hidden(one.scores(x)[0]), two.hidden(one.scores(x)[0]))


PART = layer(
    KArAt,
    name="karat",
    reference=reference,
    formula=r"\sigma(A)_k = \sum_p W_{kp} \sum_q \sum_{m=1}^{G} a_{pqm} \cos(m A_q) + b_{pqm} \sin(m A_q)",
    paper=Paper("karat", equation="(2)"),
    tags=Tags(shape="sequence", nonlinear=True),
    toy={"length": 6, "heads": 2, "grid": 2, "rank": 3},
    options=(
        Option("length", 64, "rows of a sequence", bounds=(0, 100000)),
        Option("heads", 4, "that the inputs are divided into", bounds=(0, 10000)),
        Option("grid", 3, "frequencies", bounds=(0, 1000)),
        Option("rank", 12, "of the weights of a head", bounds=(0, 100000)),
        Option("projection", "none", "what rows of weights go through", allowed=PROJECTIONS),
    ),
    settings=({"grid": 1, "heads": 3, "rank": 7},),
    parameters="3 * d_in ** 2 + heads * (2 * grid + 1) * length * rank + d_in * d_out",
    products="6 * length * d_in ** 2 + 2 * length * d_in * d_out + 2 * length ** 2 * (d_in + heads * 2 * grid * rank)"
    " + (1 - projected) * 4 * length * rank * d_in + projected * 2 * length ** 2 * (rank * heads + d_in)",
    elementwise="heads * length ** 2 * (1 + 3 * grid + 4 * projected)",
    claims=(
        Claim("not-stochastic", "rows of weights don't sum to 1", where="section 3", check=claim_not_stochastic),
        Claim("low-rank", "weights of low rank, never made", where="section 4", check=claim_low_rank),
        Claim("full-rank", "holds the full operator of equation (1)", check=claim_full_rank),
        Claim("small-scores", "holds attention without a nonlinearity, for small scores", check=claim_small_scores),
        Claim("memory", "memory grows with the grid, not with the rank", check=claim_memory),
        Claim("universal", "blocks can share their units", where="section 4", check=claim_universal),
    ),
    deviations=(
        "a and b are drawn from N(0, 1 / (G N)) and W from N(0, 1 / (r N)); the paper draws a and b from N(0, 1), with which"
        " weights grow as the root of G N, and doesn't say how W is drawn",
        "the simplex projection takes the finished rows, as section 3 and appendix B have it; algorithm 2 takes the r sums"
        " before W, which leaves the rows as they come",
        "no base function, as in the paper's experiments; equation (5) has the option of one",
        "equation (2) and W hold (2 G + 1) N r values a head; table 13 counts (2 G + 3) N r, 0.76 million for 36 heads of"
        " ViT-Tiny, not 0.60: written from the text, as no code is public",
    ),
)
