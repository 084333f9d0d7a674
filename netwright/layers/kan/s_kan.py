"""S-KAN: every input chooses its functions from a pool of families, by weights that are learnt (Yang et al., 2024)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.errors import BadInput
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.layers._kind import Layer, Tags, layer
from netwright.layers.kan._basis_layer import FUSED
from netwright.tensor.fused import fuse
from netwright.tensor.modules import Change, drawn
from netwright.tensor.precision import autocast_dtype

Basis = Callable[..., Tensor]


class Family(NamedTuple):
    """One family of the pool, at fixed options."""

    bases: int
    size: float  # root of the mean over x ~ N(0, 1) of the sum of the squares of the bases
    work: float  # elementwise operations an input
    values: Callable[[Basis, Tensor], Tensor]


def _cubic(basis: Basis, x: Tensor) -> Tensor:
    return basis(x, x.new_full((), -2.0), x.new_full((), 1 / 0.8), order=3, bases=8, uniform=True)


def _bells(basis: Basis, x: Tensor) -> Tensor:
    step = x.new_full((), 4 / 7)
    return basis(x, x.new_full((), -2.0), step, step, grid=8)


#: By name of the layer: cubic splines on five intervals of [-2, 2], eight Gaussians there, polynomials of tanh x up to
#: degree 4, four harmonics, five Hermite functions.
FAMILIES = {
    "kan": Family(8, 0.6917, 120, _cubic),
    "fast-kan": Family(8, 1.10485, 34, _bells),
    "chebyshev-kan": Family(5, 1.66561, 15, lambda basis, x: basis(x, degree=4)),
    "fkan": Family(8, 2.0, 15, lambda basis, x: basis(x, harmonics=4)),
    "hermite-kan": Family(5, 0.8332, 18, lambda basis, x: basis(x, degree=4, tails="damp")),
}


def features(name: str, basis: Basis, x_BI: Tensor) -> Tensor:
    """The bases of a family (B, M, I), divided by their size: a coefficient weighs alike in every family."""
    family = FAMILIES[name]
    return family.values(basis, x_BI) * (1 / family.size)


def combined(*tensors: Tensor, pool: tuple[str, ...], bases: tuple[Basis, ...], work: torch.dtype | None) -> Tensor:
    """sum over families p and inputs n of a_pn sum_m c_pomn B_pm(x_n) (B, O), one product a family.

    tensors: of every family the inputs (B, N) that have it, its shares a (N,) or (O, N), and its coefficients (O, M, N).
    """
    total: Tensor | None = None
    for p, (name, basis) in enumerate(zip(pool, bases, strict=True)):
        x_BN, share, coef_OMN = tensors[3 * p : 3 * p + 3]
        weight_OMN = coef_OMN * (share if share.dim() == 1 else share[:, None])
        dtype = work or coef_OMN.dtype
        y_BO = F.linear(features(name, basis, x_BN).flatten(1).to(dtype), weight_OMN.flatten(1).to(dtype))
        total = y_BO if total is None else total + y_BO
    assert total is not None
    return total


@cache
def _fused(label: str) -> Callable[..., Tensor]:
    return fuse(combined, label)


@final
class SKAN(Layer):
    """y_o = sum_i sum_p a_pi phi_poi(x_i), a = softmax over families p; (..., d_in) -> (..., d_out).

    pool: names of families, separated by commas; per: "input", weights a_pi shared by the edges of an input, or "edge", a_poi.
    phi_poi has its own coefficients, and bases that are scaled to one size, so that weights compare fits and not scales.
    Train all of it, then call `keep`, and train on what is left. Raises BadInput for a pool of fewer than two names, or of
    unknown or repeated ones.
    """

    no_decay = frozenset({"select"})
    mask: Tensor  # like select: families that are kept

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        pool: str = "kan,chebyshev-kan,fast-kan,fkan",
        per: str = "input",
        noise: float = 1.0,
        fused: bool = False,
    ) -> None:
        super().__init__()
        names = tuple(pool.split(","))
        if not set(names) <= set(FAMILIES) or len(set(names)) < max(2, len(names)):
            allowed = f"at least two of {', '.join(FAMILIES)}, each once, separated by commas"
            raise BadInput(f"layer/s-kan: pool={pool!r}; allowed: {allowed}")
        parts: list[Any] = [catalogue.get(f"layer/{name}") for name in names]
        self.pool, self.noise, self.bases = names, noise, tuple(part.cls.basis for part in parts)
        shape = (len(names), d_in) if per == "input" else (len(names), d_out, d_in)
        self.select = nn.Parameter(torch.empty(shape))
        self.register_buffer("mask", torch.empty(shape, dtype=torch.bool))
        for p, name in enumerate(names):
            self.register_parameter(f"coef{p}", nn.Parameter(torch.empty(d_out, FAMILIES[name].bases, d_in)))
            self.register_buffer(f"index{p}", torch.empty(d_in, dtype=torch.long))
        self.resizable = frozenset(f"{kind}{p}" for p in range(len(names)) for kind in ("coef", "index"))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """c ~ N(0, P noise^2 / d_in), which makes outputs N(0, noise^2) on normal inputs; equal weights, all families kept."""
        d_in = self.select.shape[-1]
        for p, (coef, index) in enumerate(zip(self.coefs, self.indices, strict=True)):
            if index.shape[0] != d_in:
                shape = (*coef.shape[:2], d_in)
                setattr(self, f"coef{p}", nn.Parameter(coef.new_empty(shape), coef.requires_grad))
                setattr(self, f"index{p}", index.new_empty(d_in))
        for coef, index in zip(self.coefs, self.indices, strict=True):
            coef.normal_(0, self.noise * math.sqrt(len(self.pool) / d_in), generator=generator)
            index.copy_(torch.arange(d_in, device=index.device))
        self.select.zero_()
        self.mask.fill_(True)

    @property
    def coefs(self) -> list[Tensor]:
        """Coefficients (O, M, N) of every family, for the N inputs that have it."""
        return [getattr(self, f"coef{p}") for p in range(len(self.pool))]

    @property
    def indices(self) -> list[Tensor]:
        """The numbers (N,) of the inputs that have each family."""
        return [getattr(self, f"index{p}") for p in range(len(self.pool))]

    @property
    def quantities(self) -> dict[str, float]:
        have = [(FAMILIES[name], int(coef.shape[2])) for name, coef in zip(self.pool, self.coefs, strict=True)]
        own = {"columns": sum(f.bases * n for f, n in have), "work": sum((f.work + f.bases) * n for f, n in have)}
        return {**super().quantities, **own, "weights": self.select.numel()}

    def shares(self) -> Tensor:
        """The weights a of the families, 0 for those that were dropped: (P, I) or (P, O, I)."""
        return torch.softmax(self.select.masked_fill(~self.mask, -math.inf), 0)

    def edges(self, x_BI: Tensor) -> Tensor:
        """The function of every edge: (B, O, I)."""
        total, shares = x_BI.new_zeros(len(x_BI), self.sizes["d_out"], x_BI.shape[1]), self.shares()
        for p, (coef, index) in enumerate(zip(self.coefs, self.indices, strict=True)):
            share = shares[p][..., index]
            phi = features(self.pool[p], self.bases[p], x_BI[:, index])
            total = total.index_add(2, index, torch.einsum("bmn,omn->bon", phi, coef) * share)
        return total

    def compute(self, x_BI: Tensor) -> Tensor:
        tensors, shares = [], self.shares()
        for p, (coef, index) in enumerate(zip(self.coefs, self.indices, strict=True)):
            whole = index.shape[0] == x_BI.shape[1]
            tensors += [x_BI if whole else x_BI[:, index], shares[p] if whole else shares[p][..., index], coef]
        run = _fused(self.part.id) if self.options["fused"] else combined
        return run(*tensors, pool=self.pool, bases=self.bases, work=autocast_dtype(x_BI))

    @torch.no_grad()
    def keep(self, top: int = 1) -> None:
        """Keep the `top` families of largest weight of every input, or edge, and drop what no edge has any more.

        What is kept stays as it was: its weights are brought to a sum of 1, and coefficients take up the factor. Raises
        BadInput unless 1 <= top <= families of the pool.
        """
        if isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= len(self.pool):
            raise BadInput(f"{self.part.id}: top={top!r}; expected a whole number from 1 to {len(self.pool)}")
        shares = self.shares()
        best = torch.zeros_like(self.mask).scatter_(0, shares.topk(top, 0).indices, True) & self.mask
        rest = (shares * best).sum(0)
        for p, (coef, index) in enumerate(zip(self.coefs, self.indices, strict=True)):
            factor = rest[..., index] if rest.dim() == 1 else rest[:, None, index]
            used = best[p] if best.dim() == 2 else best[p].any(0)
            left = used[index].nonzero()[:, 0]
            smaller = (coef * factor)[..., left].contiguous()
            setattr(self, f"coef{p}", nn.Parameter(smaller, coef.requires_grad))
            setattr(self, f"index{p}", index[left].clone())
        self.mask.copy_(best)


def reference(layer: Any, x_BI: Tensor) -> Tensor:
    """Families from their formulas, one number after another."""

    def spline(m: int, order: int, x: float) -> float:
        """B_(m, order) on the knots -2 + 0.8 (j - 3), by Cox and de Boor."""
        t = -2 + 0.8 * (m - 3)
        if order == 0:
            return float(t <= x < t + 0.8)
        rise, fall = (x - t) / (0.8 * order), (t + 0.8 * (order + 1) - x) / (0.8 * order)
        return rise * spline(m, order - 1, x) + fall * spline(m + 1, order - 1, x)

    def hermite(m: int, x: float) -> float:
        polynomial = (1, x, x**2 - 1, x**3 - 3 * x, x**4 - 6 * x**2 + 3)[m]
        return polynomial * math.exp(-(x**2) / 4) / math.sqrt(math.factorial(m) * math.sqrt(2 * math.pi))

    values: dict[str, Callable[[float], Sequence[float]]] = {
        "kan": lambda x: [spline(m, 3, x) for m in range(8)],
        "fast-kan": lambda x: [math.exp(-(((x + 2) * 7 / 4 - m) ** 2)) for m in range(8)],
        "chebyshev-kan": lambda x: [math.cos(m * math.acos(math.tanh(x))) for m in range(5)],
        "fkan": lambda x: [f(m * x) for f in (math.cos, math.sin) for m in range(1, 5)],
        "hermite-kan": lambda x: [hermite(m, x) for m in range(5)],
    }
    y = torch.zeros(len(x_BI), layer.sizes["d_out"], dtype=torch.float64)
    for b, row in enumerate(x_BI.tolist()):
        for o in range(y.shape[1]):
            for i, x in enumerate(row):
                edge = (slice(None), i) if layer.options["per"] == "input" else (slice(None), o, i)
                logits, kept = layer.select[edge].tolist(), layer.mask[edge].tolist()
                powers = [math.exp(v) if k else 0.0 for v, k in zip(logits, kept, strict=True)]
                for p, name in enumerate(layer.pool):
                    if kept[p]:
                        column = getattr(layer, f"index{p}").tolist().index(i)
                        coef = getattr(layer, f"coef{p}")[o, :, column].tolist()
                        phi = sum(c * v for c, v in zip(coef, values[name](x), strict=True)) / FAMILIES[name].size
                        y[b, o] += powers[p] / sum(powers) * phi
    return y


def claim_calibrated() -> bool:
    """On normal inputs the bases of every family have one mean size, and outputs variance noise^2 at the start."""
    x = torch.linspace(-9, 9, 1801, dtype=torch.float64)[:, None]
    density_B = torch.exp(-x[:, 0].square() / 2) / math.sqrt(2 * math.pi) / 100
    skan = drawn(SKAN, 1, 1, pool=",".join(FAMILIES))
    every = [features(name, basis, x)[..., 0] for name, basis in zip(skan.pool, skan.bases, strict=True)]
    sizes = [float((phi.square().sum(1) * density_B).sum()) for phi in every]
    wide, g = drawn(SKAN, 40, 60), torch.Generator().manual_seed(0)
    y = wide(torch.randn(200, 40, generator=g, dtype=torch.float64))
    return all(abs(size - 1) < 1e-4 for size in sizes) and 0.8 < float(y.square().mean()) < 1.2


def _masked(skan: Any, x_BI: Tensor, best: Tensor) -> Tensor:
    """The output with the weights of all but the best families set to 0."""
    tensors = [t for share, coef in zip(skan.shares() * best, skan.coefs, strict=True) for t in (x_BI, share, coef)]
    return combined(*tensors, pool=skan.pool, bases=skan.bases, work=None)


@torch.no_grad()
def claim_keep() -> bool:
    """What is kept gives the output that it gave with the others' weights set to 0.

    To the last bit where all inputs keep one family; where they differ products lose columns of zeros, and sums are rounded
    otherwise. No family costs anything for an input that dropped it.
    """
    g = torch.Generator().manual_seed(0)
    x = torch.randn(7, 5, generator=g, dtype=torch.float64)
    for per in ("input", "edge"):
        for favourite in (0, 3, None):
            skan = drawn(SKAN, 5, 4, per=per)
            skan.select.add_(0.5 * torch.randn(skan.select.shape, generator=g, dtype=torch.float64))
            if favourite is not None:
                skan.select[favourite] += 5
            best = skan.select == skan.select.amax(0)
            wanted = _masked(skan, x, best)
            skan.keep()
            columns = sum(FAMILIES[n].bases * int(b.reshape(-1, 5).any(0).sum()) for n, b in zip(skan.pool, best, strict=True))
            same = torch.allclose(skan(x), wanted, 1e-12, 1e-12) if favourite is None else torch.equal(skan(x), wanted)
            if not same or skan.quantities["columns"] != columns:
                return False
    return True


PART = layer(
    SKAN,
    name="s-kan",
    reference=reference,
    formula=r"\sum_i \sum_p a_{pi} \sum_m c_{pomi} B_{pm}(x_i), \quad a = \mathrm{softmax}_p(\alpha)",
    paper=Paper("s-kan"),
    tags=Tags(nonlinear=True, delicate=True),
    options=(
        Option("pool", "kan,chebyshev-kan,fast-kan,fkan", "families, separated by commas"),
        Option("per", "input", "what has weights of its own", allowed=("input", "edge")),
        Option("noise", 1.0, "deviation of the outputs at the start", bounds=(0.0, math.inf)),
        FUSED[0],
    ),
    settings=({"pool": "hermite-kan,kan", "per": "edge"},),
    changes=(Change("keep", lambda skan, x: skan.keep()), Change("keep-two", lambda skan, x: skan.keep(2))),
    parameters="d_out * columns + weights",
    products="2 * d_out * columns",
    elementwise="work + d_out",
    claims=(
        Claim("calibrated", "families weigh alike", check=claim_calibrated),
        Claim("keep", "keeping the dominant families leaves what they gave", check=claim_keep),
        Claim(
            "formulas",
            "fits functions better than an MLP with as many parameters",
            where="abstract",
            protocol=Protocol(task="formulas", against="activation/relu", expect="better", seeds=6, trials=4),
        ),
    ),
    deviations=(
        "the abstract and summaries of the paper give a pool of families, weights a node, and three stages of training, of all,"
        " of the chosen and of what is left; the softmax, the choice of families and their sizes are decided here",
        "no wavelets in the pool: with a scale of its own every edge would need bases of its own",
        "bases are scaled to one size, without which weights would choose scales",
    ),
    uses=tuple(f"layer/{name}" for name in FAMILIES),
)
