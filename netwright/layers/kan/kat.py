"""KAT: a linear map of rational functions that groups of channels share, GR-KAN (Yang and Wang, 2024).

    y = W F(x) + b,   F_g(x) = (a_0 + a_1 x + ... + a_5 x^5) / Q_g(x)

Three denominators go by this name, and one set of coefficients is another function under each of them:
    abs-powers    Q = 1 + sum_j |b_j| |x|^j     the kernels in Triton and CUDA, which trained the published nets
    signed-powers Q = 1 + sum_j |b_j| x^j       the fallback in PyTorch; it can reach 0, left of the origin
    abs-sum       Q = 1 + |sum_j b_j x^j|       equation (12), and what the published coefficients were fitted with

Shape suffixes: B rows, I inputs, O outputs, G sets of coefficients, K coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.layers._kind import Layer, Tags, layer
from netwright.tensor.fused import fuse
from netwright.tensor.modules import drawn
from netwright.tensor.precision import autocast_dtype

#: What F can start as: a_0..a_5 and b_1..b_4, fitted by least squares. Even powers alone stand below, none of them negative,
#: so that the three denominators agree. GELU has b_4 held at 1e-3: the best fit has none, and grows like x^2.
STARTS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "identity": ((0.0, 1.0, 0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)),
    "swish": (
        (3.295521702537e-07, 0.5, 0.2499973391472, 0.0532643987970, 0.00580219931219, 0.000275086829173),
        (0.0, 0.106528797594, 0.0, 0.000550173658345),
    ),
    "gelu": (
        (-0.00292967682, 0.5, 0.41639680, 0.120380595, 0.01383266, 0.0005),
        (0.0, 0.24076119, 0.0, 0.001),
    ),
    "relu": (
        (0.0379360091480, 0.5, 1.52509042884, 1.69730327473, 0.763247361728, 0.117803700007),
        (0.0, 3.39460654946, 0.0, 0.235607400014),
    ),
}
#: The function meant, and the largest error on [-3, 3]; held by the claim `starts`.
TARGETS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "identity": (lambda x: x, 0.0),
    "swish": (F.silu, 1.14e-6),
    "gelu": (F.gelu, 2.93e-3),
    "relu": (torch.relu, 3.8e-2),
}
DENOMINATORS = ("abs-powers", "signed-powers", "abs-sum")


def _abs(x: Tensor) -> Tensor:
    """|x| with slope 1 at 0, as in the kernel: with torch.abs a coefficient that is 0 would stay so."""
    return torch.where(x < 0, -x, x)


def _horner(x: Tensor, low: Tensor, high: tuple[Tensor, ...]) -> Tensor:
    """low + x (high_1 + x (high_2 + ...))."""
    total = high[-1]
    for c in (*high[-2::-1], low):
        total = torch.addcmul(c, total, x)
    return total


def rational(x_BI: Tensor, a_GK: Tensor, b_GK: Tensor, *, denominator: str) -> Tensor:
    """F(x), the channels in as many groups of neighbours, equal to one channel, as there are sets of coefficients."""
    d_in = x_BI.shape[1]
    place_I = torch.arange(d_in, device=x_BI.device)
    a, b = (c if len(c) == 1 else c[place_I * len(c) // d_in] for c in (a_GK.to(x_BI.dtype), b_GK.to(x_BI.dtype)))
    one = x_BI.new_ones(())
    if denominator == "abs-sum":
        below = 1 + _abs(_horner(x_BI, b.new_zeros(()), b.unbind(1)))
    else:
        below = _horner(x_BI.abs() if denominator == "abs-powers" else x_BI, one, _abs(b).unbind(1))
    return _horner(x_BI, a[:, 0], a[:, 1:].unbind(1)) / below


def mapped(x_BI: Tensor, a_GK: Tensor, b_GK: Tensor, w_OI: Tensor, b_O: Tensor, *, denominator: str, work: torch.dtype) -> Tensor:
    """W F(x) + b, the product in the dtype `work`."""
    return F.linear(rational(x_BI, a_GK, b_GK, denominator=denominator).to(work), w_OI.to(work), b_O.to(work))


_fused = fuse(mapped, "layer/kat")


@final
class KAT(Layer):
    """y = W F(x) + b with a rational function F a group of channels; (..., d_in) -> (..., d_out).

    groups: of neighbouring channels, at most d_in, of equal size to one channel. shared: which coefficients all groups have
    in common. init: what F starts as on [-3, 3]; further out it goes on linearly. denominator: see the top of the file.
    fused=True takes about as long as an MLP with GELU, the plain writing half as long again. In float32 it is finite where
    |x| is below 1e7.
    """

    no_decay = frozenset({"numerator", "denominators"})

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        groups: int = 8,
        init: str = "swish",
        denominator: str = "abs-powers",
        shared: str = "numerator",
        fused: bool = False,
    ) -> None:
        super().__init__()
        sets = min(groups, d_in)
        self.init, self.denominator, self.fused = init, denominator, fused
        self.numerator = nn.Parameter(torch.empty(1 if shared == "numerator" else sets, 6))
        self.denominators = nn.Parameter(torch.empty(1 if shared == "denominator" else sets, 4))
        self.weight = nn.Parameter(torch.empty(d_out, d_in))
        self.bias = nn.Parameter(torch.empty(d_out))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """F as `init` says, W ~ N(0, 1 / (d_in E[F(z)^2])) for z ~ N(0, 1), b = 0: y varies as x does."""
        for p, start in zip((self.numerator, self.denominators), STARTS[self.init], strict=True):
            p.copy_(torch.tensor(start, dtype=torch.float64, device="cpu").to(p.device).expand_as(p))
        self.weight.normal_(0, math.sqrt(gain(self.init) / self.weight.shape[1]), generator=generator)
        self.bias.zero_()

    @property
    def quantities(self) -> dict[str, float]:
        return {**super().quantities, "above": len(self.numerator), "below": len(self.denominators)}

    def curve(self, x_BI: Tensor) -> Tensor:
        """F(x), before the linear map: (B, I)."""
        return rational(x_BI, self.numerator, self.denominators, denominator=self.denominator)

    def compute(self, x_BI: Tensor) -> Tensor:
        run, work = _fused if self.fused else mapped, autocast_dtype(x_BI) or self.weight.dtype
        return run(x_BI, self.numerator, self.denominators, self.weight, self.bias, denominator=self.denominator, work=work)


@cache
def gain(init: str) -> float:
    """1 / E[F(z)^2] for z ~ N(0, 1), of the rational function itself: by the trapezium rule, exact to rounding here."""
    x = torch.linspace(-12, 12, 9601, dtype=torch.float64, device="cpu")
    a, b = (torch.tensor([c], dtype=torch.float64, device="cpu") for c in STARTS[init])
    f = rational(x[:, None], a, b, denominator="abs-powers")[:, 0]
    return 1 / float(torch.trapezoid(f.square() * torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi), x))


def reference(layer: Any, x_BI: Tensor) -> Tensor:
    y, d_in, kind = torch.zeros(len(x_BI), len(layer.bias), dtype=x_BI.dtype), x_BI.shape[1], layer.options["denominator"]
    a, b = layer.numerator.tolist(), layer.denominators.tolist()
    for r, row in enumerate(x_BI.tolist()):
        for i, x in enumerate(row):
            above, below = (sets[i * len(sets) // d_in] for sets in (a, b))
            terms = {
                "abs-powers": [abs(c) * abs(x) ** j for j, c in enumerate(below, 1)],
                "signed-powers": [abs(c) * x**j for j, c in enumerate(below, 1)],
                "abs-sum": [abs(sum(c * x**j for j, c in enumerate(below, 1)))],
            }
            f = sum(c * x**j for j, c in enumerate(above)) / (1 + sum(terms[kind]))
            for o in range(y.shape[1]):
                y[r, o] += layer.weight[o, i] * f
    return y + layer.bias


def claim_starts() -> bool:
    """On [-3, 3] each start is its target to the stated error, under each denominator."""
    x = torch.linspace(-3, 3, 1201, dtype=torch.float64)[:, None]
    for init, (target, stated) in TARGETS.items():
        for denominator in DENOMINATORS:
            f = drawn(KAT, 1, 1, init=init, denominator=denominator).curve(x)
            error = float((f - target(x)).abs().max().detach())
            if not 0.98 * stated <= error <= 1.02 * stated:
                return False
    return True


def claim_variance() -> bool:
    """The gain is 1 over the mean square of the target itself, to a thousandth: 2.35 for GELU, 2.81 for Swish, 2 for ReLU."""
    targets = {"identity": 1.0, "gelu": 2.35172, "swish": 2.81076, "relu": 2.0}
    return all(abs(gain(init) / value - 1) < 1e-3 for init, value in targets.items())


def claim_gradients() -> bool:
    """dF/dx = P'/Q - P Q'/Q^2, dF/da_i = x^i / Q, dF/db_j = -P/Q^2 sign(b_j) |x|^j."""
    kat, g = drawn(KAT, 2, 1, groups=1), torch.Generator().manual_seed(0)
    with torch.no_grad():
        kat.numerator.normal_(generator=g)
        kat.denominators.normal_(generator=g)
    x = torch.linspace(-2, 2, 20, dtype=torch.float64).view(10, 2).requires_grad_()
    got = torch.autograd.grad(kat.curve(x).sum(), (x, kat.numerator, kat.denominators))
    with torch.no_grad():
        (a,), (b,), r = kat.numerator, kat.denominators, x.abs()
        p, q = sum(a[i] * x**i for i in range(6)), 1 + sum(b[j].abs() * r ** (j + 1) for j in range(4))
        dp = sum(i * a[i] * x ** (i - 1) for i in range(1, 6))
        dq = x.sign() * sum((j + 1) * b[j].abs() * r**j for j in range(4))
        by_a = torch.stack([(x**i / q).sum() for i in range(6)])
        by_b = torch.stack([(-p / q**2 * b[j].sign() * r ** (j + 1)).sum() for j in range(4)])
    wanted = (dp / q - p * dq / q**2, by_a[None], by_b[None])
    return all(torch.allclose(g, w, atol=1e-10) for g, w in zip(got, wanted, strict=True))


def claim_wakes() -> bool:
    """Started as the identity, with every b_j at 0, the denominator learns all the same, under each way of writing it."""
    x = torch.linspace(-2, 2, 12, dtype=torch.float64).view(4, 3)
    for denominator in DENOMINATORS:
        kat = drawn(KAT, 3, 2, groups=1, init="identity", denominator=denominator)
        kat(x).square().sum().backward()
        if bool((kat.denominators.grad == 0).any()):
            return False
    return True


def claim_groups() -> bool:
    """Permuting the channels of a group commutes with F."""
    kat, order = drawn(KAT, 6, 1, groups=2), torch.tensor([2, 0, 1, 4, 5, 3])
    with torch.no_grad():
        kat.denominators[0] *= 3
    x = torch.linspace(-3, 3, 30, dtype=torch.float64).view(5, 6)
    return torch.equal(kat.curve(x)[:, order], kat.curve(x[:, order]))


PART = layer(
    KAT,
    name="kat",
    reference=reference,
    formula=r"W F(x) + b, \quad F(x) = \sum_{i=0}^{5} a_i x^i \,/\, (1 + \sum_{j=1}^{4} |b_j|\, |x|^j)",
    paper=Paper("kat", equation="(15)"),
    tags=Tags(nonlinear=True, delicate=True, smooth=False),
    toy={"groups": 2},
    settings=({"groups": 4, "shared": "none"}, {"groups": 50, "denominator": "abs-sum"}),
    options=(
        Option("groups", 8, "of neighbouring channels, each with its own coefficients", bounds=(0, 10000)),
        Option("init", "swish", "what F starts as on [-3, 3]", allowed=tuple(STARTS)),
        Option("denominator", "abs-powers", "how it is kept positive", allowed=DENOMINATORS),
        Option("shared", "numerator", "what all groups have in common", allowed=("numerator", "denominator", "none")),
        Option("fused", False, "compile forward and backward, and keep nothing between them but the input and the weights"),
    ),
    parameters="(d_in + 1) * d_out + 6 * above + 4 * below",
    products="2 * d_in * d_out",
    elementwise="12 * d_in",
    claims=(
        Claim("starts", "takes the shape of common activations, as close as stated", check=claim_starts),
        Claim("variance", "the start keeps the variance", where="section 4.4", check=claim_variance),
        Claim("gradients", "the gradients of equation (13), for the kernel's denominator", check=claim_gradients),
        Claim("wakes", "a denominator that starts as 1 can learn", check=claim_wakes),
        Claim("groups", "the function is the same within a group", where="section 4.3", check=claim_groups),
        Claim(
            "mnist",
            "classifies images better than an MLP with GELU of the same size",
            where="Table 5",
            protocol=Protocol(task="mnist", against="activation/gelu", expect="better", seeds=6, trials=4),
        ),
    ),
    deviations=(
        "starts from coefficients fitted here; the published ones for GELU were fitted under another denominator than the"
        " kernel's, under which they are off by 1.46 on [-3, 3]",
        "gains are those of the rational function itself: 2.35 for GELU and 2.81 for Swish, published as 2.3568 and 2.8178",
        "all groups share the numerator, as in the code; section 4.3 says the denominator, which shared='denominator' gives",
        "groups differ by one channel where they don't divide d_in, and are no more than d_in; the code takes multiples alone",
        "a start follows its function on [-3, 3]; far out it is a line, of slope 1/2 on both sides, where Swish, GELU and"
        " ReLU are not",
    ),
)
