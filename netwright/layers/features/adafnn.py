"""AdaFNN: a curve's integrals against basis functions that are small networks of time (Yao, Mueller and Wang, 2021).

The basis layer alone; what follows it in the paper is an ordinary network of the scores.

Shape suffixes: B rows (curves), J points of a curve, K basis functions, W width.
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
from netwright.tensor.precision import full_precision

EPS = 1e-6  # of standard deviations and norms, squared where it is added to their squares


@final
class AdaptiveBasis(Layer):
    """y_k = sum_j w_j beta_k(t_j) x_j, the integral of beta_k x by the trapezoidal rule; (..., d_in) -> (..., d_out).

    x: a curve at the d_in times t_j, w_j half the distance between its neighbours. beta_k: a network of t, `depth` times
    h <- selu(z + n(z)) with z = V h + b and n(z) = gain (z - mean) / deviation + shift, then an affine map to a number;
    every k has its own. All of them at all times are one table, made by one batched product a layer once a call, whatever
    the rows; the scores are one product with it.

    times: () for equal distances on [0, 1], else d_in increasing numbers in [0, 1]. normalise: divide every beta_k by its
    norm, the root of its squared integral.
    """

    grid: Tensor  # (J,): the times
    hidden: nn.Parameter | None  # (depth - 1, K, W, W)

    def __init__(
        self, d_in: int, d_out: int, *, width: int = 64, depth: int = 3, times: tuple[float, ...] = (), normalise: bool = False
    ) -> None:
        super().__init__()
        self.points = _points(d_in, times)
        self.normalise = normalise
        self.first = nn.Parameter(torch.empty(d_out, 1, width))
        inner = nn.Parameter(torch.empty(depth - 1, d_out, width, width)) if depth > 1 else None
        self.register_parameter("hidden", inner)
        self.biases, self.gain, self.shift = (nn.Parameter(torch.empty(depth, d_out, 1, width)) for _ in range(3))
        self.last, self.last_bias = nn.Parameter(torch.empty(d_out, width, 1)), nn.Parameter(torch.empty(d_out, 1, 1))
        self.register_buffer("grid", torch.empty(d_in), persistent=False)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Affine maps as nn.Linear draws them, gains and shifts from N(0, 1)."""
        bound = 1 / math.sqrt(self.first.shape[2])
        uniform_(self.first, 1.0, generator)
        for p in (self.hidden, self.last, self.last_bias):
            if p is not None:
                uniform_(p, bound, generator)
        with torch.no_grad():
            self.biases.uniform_(-1, 1, generator=generator)[1:].mul_(bound)  # the first layer reads one number, t
            for p in (self.gain, self.shift):
                p.normal_(generator=generator)
        self.adopt()

    @torch.no_grad()
    def adopt(self) -> None:
        """The times are no part of the state."""
        if not self.grid.is_meta:
            self.grid.copy_(torch.tensor(self.points, dtype=torch.float64))

    def _grid(self) -> Tensor:
        # Half precision can't tell neighbouring times apart.
        if self.grid.dtype in LOW:
            return torch.tensor(self.points, dtype=torch.float32, device=self.grid.device)
        return self.grid

    def _table(self) -> tuple[Tensor, Tensor]:
        """beta_k(t_j) (K, J), and the weights of the rule (J,), in float32 at least."""
        t_J = self._grid()
        own = (self.first, self.last, self.last_bias, self.biases, self.gain, self.shift)
        first, last, last_bias, biases, gain, shift = (p.to(t_J.dtype) for p in own)
        hidden = () if self.hidden is None else self.hidden.to(t_J.dtype)

        def unit(z_KJW: Tensor, depth: int) -> Tensor:
            apart = z_KJW - z_KJW.mean(-1, keepdim=True)
            scale = (apart.square().sum(-1, keepdim=True) / (apart.shape[-1] - 1) + EPS**2).rsqrt()
            return F.selu(z_KJW + apart * scale * gain[depth] + shift[depth])

        h_KJW = unit(t_J[:, None] * first + biases[0], 0)
        for depth, v_KWW in enumerate(hidden, 1):
            h_KJW = unit(h_KJW @ v_KWW + biases[depth], depth)
        beta_KJ = (h_KJW @ last + last_bias)[..., 0]
        return beta_KJ, trapezoid(t_J)

    def _full(self) -> tuple[Tensor, Tensor]:
        """The table outside mixed precision: it costs the same for one row as for a thousand."""
        with full_precision(self.grid):
            return self._table()

    def bases(self) -> Tensor:
        """beta_k(t_j) (d_in, d_out), normalised where the layer does so."""
        beta_KJ, w_J = self._full()
        return (normalised(beta_KJ, w_J) if self.normalise else beta_KJ).T

    def fold(self) -> Tensor:
        """The weight (d_out, d_in) of the linear map that the layer is while its parameters don't change."""
        beta_KJ, w_J = self._full()
        return (normalised(beta_KJ, w_J) if self.normalise else beta_KJ) * w_J

    def regulariser(self, sparsity: float = 1.0, orthogonality: float = 1.0) -> Tensor:
        """sparsity * mean_k of the integral of |b_k| + orthogonality * mean_{i<j} |<b_i, b_j>|, b_k of norm 1.

        To be added to a loss. Both means are over all basis functions and pairs; with one function there is no pair.
        """
        beta_KJ, w_J = self._full()
        unit_KJ = normalised(beta_KJ, w_J)
        k = len(unit_KJ)
        pairs = ((unit_KJ * w_J) @ unit_KJ.T).abs().triu(1).sum() / max(1, k * (k - 1) / 2)
        return sparsity * (unit_KJ.abs() * w_J).sum(1).mean() + orthogonality * pairs

    def compute(self, x_BJ: Tensor) -> Tensor:
        return product(x_BJ, self.fold().to(self.first.dtype))


def _points(d_in: int, times: Any) -> tuple[float, ...]:
    """The times of a curve; raises BadInput where they are not d_in increasing numbers in [0, 1]."""
    if d_in < 2:
        raise BadInput(f"layer/adafnn: d_in={d_in!r}; a curve has at least two points")
    if times == ():
        return tuple(j / (d_in - 1) for j in range(d_in))
    numbers = isinstance(times, (tuple, list)) and all(isinstance(t, (int, float)) and 0 <= t <= 1 for t in times)
    if not numbers or len(times) != d_in or any(a >= b for a, b in zip(times, times[1:], strict=False)):
        raise BadInput(f"layer/adafnn: times={times!r}; expected () or d_in={d_in} increasing numbers from 0 to 1")
    return tuple(map(float, times))


def trapezoid(t_J: Tensor) -> Tensor:
    """w (J,) with sum_j w_j f(t_j) the integral of what is linear between the points."""
    half_J = F.pad(t_J.diff() / 2, (1, 1))
    return half_J[1:] + half_J[:-1]


def normalised(beta_KJ: Tensor, w_J: Tensor) -> Tensor:
    """Functions divided by the roots of their squared integrals."""
    return beta_KJ * ((beta_KJ.square() * w_J).sum(1, keepdim=True) + EPS**2).rsqrt()


def _basis(layer: Any, k: int, t: float) -> float:
    """beta_k(t), neuron by neuron."""
    h, width = [t], layer.first.shape[2]
    for depth in range(len(layer.biases)):
        v = (layer.first if depth == 0 else layer.hidden[depth - 1])[k].tolist()
        b, gain, shift = (p[depth, k, 0].tolist() for p in (layer.biases, layer.gain, layer.shift))
        z = [b[o] + sum(h[i] * v[i][o] for i in range(len(h))) for o in range(width)]
        mean = sum(z) / width
        deviation = math.sqrt(sum((a - mean) ** 2 for a in z) / (width - 1) + EPS**2)
        s = [z[o] + gain[o] * (z[o] - mean) / deviation + shift[o] for o in range(width)]
        h = [1.0507009873554805 * (a if a > 0 else 1.6732632423543772 * math.expm1(a)) for a in s]
    return sum(h[i] * float(layer.last[k, i, 0]) for i in range(width)) + float(layer.last_bias[k, 0, 0])


def reference(layer: Any, x_BJ: Tensor) -> Tensor:
    """Function by function: its values at the times, its norm, and its integral with every curve, interval by interval."""
    t, y = list(layer.points), torch.zeros(len(x_BJ), layer.sizes["d_out"], dtype=torch.float64)

    def integral(f: list[float], g: list[float]) -> float:
        steps = range(len(t) - 1)
        return sum((t[j + 1] - t[j]) / 2 * (f[j] * g[j] + f[j + 1] * g[j + 1]) for j in steps)

    for k in range(y.shape[1]):
        beta = [_basis(layer, k, s) for s in t]
        norm = math.sqrt(integral(beta, beta) + EPS**2) if layer.options["normalise"] else 1.0
        for b, row in enumerate(x_BJ.tolist()):
            y[b, k] = integral(beta, row) / norm
    return y


UNEVEN = (0.0, 0.07, 0.3, 0.35, 0.8, 1.0)


def claim_trapezoid() -> bool:
    """Exact where the product is linear between the points, and for cosines of up to the points' number on an even grid."""
    t = torch.tensor(UNEVEN, dtype=torch.float64)
    linear = torch.stack((torch.ones_like(t), t, (t - 0.35).abs(), (0.3 - t).clamp(min=0)), 1)
    wanted = torch.tensor([1.0, 0.5, (0.35**2 + 0.65**2) / 2, 0.3**2 / 2], dtype=torch.float64)
    even = torch.linspace(0, 1, 51, dtype=torch.float64)
    phi = torch.stack([torch.cos(k * math.pi * even) * math.sqrt(2 if k else 1) for k in range(50)])
    gram = (phi * trapezoid(even)) @ phi.T
    exact = bool(torch.allclose(trapezoid(t) @ linear, wanted, atol=1e-14))
    return exact and bool(torch.allclose(gram.diagonal(), torch.ones(50, dtype=torch.float64), atol=1e-12))


def claim_table() -> bool:
    """One product with the table equals a pass for every function and an inner product with every curve, as in the code."""
    for normalise in (False, True):
        net = drawn(AdaptiveBasis, 6, 3, times=UNEVEN, normalise=normalise).requires_grad_(False)
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        t, columns = torch.tensor(UNEVEN, dtype=torch.float64), []
        for k in range(3):
            h = t[:, None]
            for depth in range(3):
                z = h @ (net.first if depth == 0 else net.hidden[depth - 1])[k] + net.biases[depth, k]
                norm = (z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True).square() + EPS**2).sqrt()
                h = F.selu(z + norm * net.gain[depth, k] + net.shift[depth, k])
            b = (h @ net.last[k] + net.last_bias[k])[:, 0]
            if normalise:
                b = b / torch.trapezoid(b * b, t).sqrt()
            columns.append(torch.trapezoid(b.repeat(4, 1) * x, t))
        if not torch.allclose(net(x), torch.stack(columns, 1), atol=1e-10):
            return False
    return True


def claim_norm() -> bool:
    """Normalised bases have norm 1, and the penalty of equal ones is that of one and 1 for every pair."""
    net = drawn(AdaptiveBasis, 40, 3, normalise=True).requires_grad_(False)
    w = trapezoid(net.grid)
    for p in net.parameters():
        same = p[:, :1] if p.dim() == 4 else p[:1]
        p.copy_(same.expand_as(p))
    beta = net.bases()
    one = (beta[:, 0].abs() * w).sum()
    sums = (float(net.regulariser(1.0, 0.0) - one), float(net.regulariser(0.0, 1.0) - 1))
    return bool(torch.allclose(w @ beta.square(), torch.ones(3, dtype=torch.float64))) and max(map(abs, sums)) < 1e-9


def claim_parameters() -> bool:
    """d_out (2 W + (depth - 1)(W^2 + W) + W + 1 + 2 W depth) parameters, whatever the number of points."""
    counts = {sum(p.numel() for p in drawn(AdaptiveBasis, j, 3).parameters()) for j in (2, 100)}
    return counts == {3 * (2 * 64 + 2 * (64**2 + 64) + 65 + 6 * 64)}


PART = layer(
    AdaptiveBasis,
    name="adafnn",
    reference=reference,
    formula=r"\sum_j w_j\, \beta_k(t_j)\, x_j",
    paper=Paper("adafnn"),
    tags=Tags(
        slot="",  # a hidden layer's output is no curve
        smooth=False,
        delicate=True,
    ),
    options=(
        Option("width", 64, "width of the networks of time", bounds=(1, 100000)),
        Option("depth", 3, "hidden layers of the networks of time", bounds=(0, 1000)),
        Option("times", (), "times of the points of a curve in [0, 1], or () for equal distances"),
        Option("normalise", False, "divide basis functions by their norms", allowed=(False, True)),
    ),
    toy={"width": 4},
    settings=({"times": UNEVEN}, {"depth": 1}, {"depth": 2, "width": 2, "normalise": True, "times": UNEVEN}),
    parameters="d_out * (2 * width + (depth - 1) * (width ** 2 + width) + width + 1 + 2 * width * depth)",
    products="2 * d_in * d_out + 2 * d_in * d_out * (width + (depth - 1) * width ** 2) / rows",
    elementwise="d_in * d_out * (14 * width * depth + 2) / rows",
    claims=(
        Claim("trapezoid", "the rule is exact for what is linear between points", check=claim_trapezoid),
        Claim("table", "one table of all bases equals one basis at a time", check=claim_table),
        Claim("norm", "penalties are of bases of norm 1", check=claim_norm),
        Claim("parameters", "parameters don't grow with the points", check=claim_parameters),
    ),
    deviations=(
        "scores are of bases as they are, as in the code; normalise=True divides them by their norms first",
        "gradients flow through the norms, in the penalties too; the code holds the norms constant there",
        "penalties are means over all bases and pairs; the code draws some in every step, from NumPy's global generator",
        "no dropout inside the bases, of which the code has 0.1",
        "1e-6 is added to squares under the roots, as its square, so that gradients are finite where a deviation or norm is 0",
    ),
)
