"""SNNK: a feed-forward layer as a product of fixed random features of the input and learnt ones of its weights (2023).

Scalable neural network kernels (Sehanobish, Choromanski et al.): features * d_out values are trained in place of
d_in * d_out.

Shape suffixes: B rows, I inputs, O outputs, V random vectors, M features (V of them, or 2 V where kind is "sin").
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.part import Claim, Option, Paper
from netwright.layers._kind import Layer, Tags, layer, product
from netwright.tensor.modules import drawn
from netwright.tensor.precision import full_precision

CEILING = 30.0  # what the exponent of a feature is clamped at: e^30 times anything usual is finite in float32


@final
class SNNK(Layer):
    """y = Phi Psi(x) with Phi (d_out, features) trained and Psi made of fixed g_v ~ N(0, 1); (..., d_in) -> (..., d_out).

    kind "relu": Psi(x)_v = max(g_v . x, 0) / sqrt(V). For Phi_o = Psi(w_o) the output is, in the mean over g, the
    arc-cosine kernel |x| |w_o| (sin t + (pi - t) cos t) / (2 pi), t the angle between them.
    kind "sin": universal random features. With s_v = g_v . x / sqrt(2) and u_v = s_v - |x|^2 / 2,
    Psi(x) = (e^s cos u, e^s sin u) / sqrt(V), the real and imaginary part of exp(a g . x - a^2 |x|^2 / 2) at a^2 = i. For
    Phi_o = (e^s sin(u + b_o), e^s cos(u + b_o)) / sqrt(V), made of w_o in place of x, the mean is sin(w_o . x + b_o).

    orthogonal: the g_v are orthogonal in blocks of d_in, with the lengths of independent ones. normalise: x and w are
    divided by their norms first; features of kind "sin" grow as e^(|x| |g|), so that inputs far longer than 1 need it.
    """

    projection: Tensor  # (V, I): the g_v

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        features: int = 64,
        kind: str = "relu",
        orthogonal: bool = False,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        if kind == "sin" and features % 2:
            raise BadInput(f"layer/snnk: features={features!r} with kind='sin'; each random vector gives two, so choose it even")
        self.kind, self.orthogonal, self.normalise = kind, orthogonal, normalise
        self.weight = nn.Parameter(torch.empty(d_out, features))
        self.register_buffer("projection", torch.empty(features // 2 if kind == "sin" else features, d_in))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws the g_v, and Phi as the features of a linear map drawn as nn.Linear draws."""

        def normal(*shape: int) -> Tensor:
            dtype = torch.promote_types(self.projection.dtype, torch.float32)
            return torch.empty(shape, dtype=dtype, device=self.projection.device).normal_(generator=generator)

        n, d = self.projection.shape
        vectors = normal(n, d)
        if self.orthogonal:
            q, r = torch.linalg.qr(normal(-(-n // d), d, d))
            q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None]  # without the signs q isn't uniform, and its rows are biased
            vectors = vectors.norm(dim=1, keepdim=True) * q.transpose(1, 2).reshape(-1, d)[:n]
        self.projection.copy_(vectors)
        w_OI, b_O = (
            torch.empty(shape, dtype=vectors.dtype, device=vectors.device).uniform_(-1, 1, generator=generator) / math.sqrt(d)
            for shape in ((len(self.weight), d), (len(self.weight),))
        )
        self.weight.copy_(self.embed(w_OI, b_O if self.kind == "sin" else None))

    @property
    def quantities(self) -> dict[str, float]:
        return {**super().quantities, "vectors": len(self.projection), "sine": int(self.kind == "sin")}

    def _waves(self, x_BI: Tensor, shift_B: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
        """(e^s cos(u + shift), e^s sin(u + shift)) / sqrt(V), each (B, V)."""
        s_BV = F.linear(x_BI, self.projection.to(x_BI.dtype)) * math.sqrt(0.5)
        u_BV = s_BV - (0.5 * x_BI.square().sum(-1) - shift_B)[:, None]
        e_BV = s_BV.clamp(max=CEILING).exp() / math.sqrt(len(self.projection))
        return e_BV * u_BV.cos(), e_BV * u_BV.sin()

    def _features(self, x_BI: Tensor) -> Tensor:
        if self.normalise:
            x_BI = F.normalize(x_BI, dim=-1)
        if self.kind == "sin":
            return torch.cat(self._waves(x_BI), -1)
        return F.linear(x_BI, self.projection.to(x_BI.dtype)).relu() / math.sqrt(len(self.projection))

    def features(self, x: Tensor) -> Tensor:
        """Psi(x) (..., features)."""
        self.inner(x)
        return self._features(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)

    def embed(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Phi (d, features) of a linear map's weight (d, d_in) and bias (d,), which only kind "sin" has."""
        self.inner(weight)
        if bias is None:
            bias = weight.new_zeros(len(weight))
        elif self.kind != "sin" or bias.shape != weight.shape[:1]:
            raise BadInput(f"layer/snnk: bias of shape {tuple(bias.shape)}; only kind='sin' takes one, of shape (d,)")
        if self.kind == "relu":
            return self._features(weight)
        cos, sin = self._waves(F.normalize(weight, dim=-1) if self.normalise else weight, bias)
        return torch.cat((sin, cos), -1)

    @torch.no_grad()
    def bundle(self, weight: Tensor) -> SNNK:
        """This layer and the linear map `weight` (d, d_out) after it as one SNNK of d outputs, exactly."""
        if weight.dim() != 2 or weight.shape[1] != len(self.weight):
            raise BadInput(f"layer/snnk: weight of shape {tuple(weight.shape)}; expected (d, {len(self.weight)})")
        with torch.device("meta"):
            both = SNNK(self.projection.shape[1], len(weight), **self.options)
        both.to(self.weight.dtype).to_empty(device=self.weight.device)
        both.projection.copy_(self.projection)
        both.weight.copy_(weight.to(self.weight) @ self.weight)
        return both.train(self.training)

    def compute(self, x_BI: Tensor) -> Tensor:
        if self.kind == "relu":
            return product(self._features(x_BI), self.weight)
        with full_precision(x_BI):  # an exponent in half precision would be off by a factor
            psi_BM = self._features(x_BI)
        return product(psi_BM, self.weight)


def reference(layer: Any, x_BI: Tensor) -> Tensor:
    """Feature by feature, from the complex exponential where kind is "sin"."""
    n, y = len(layer.projection), torch.zeros(len(x_BI), len(layer.weight), dtype=torch.float64)
    for b, row in enumerate(x_BI.tolist()):
        length = math.sqrt(sum(v * v for v in row))
        x = [v / length for v in row] if layer.options["normalise"] else row
        psi: list[float] = []
        for g in layer.projection.tolist():
            dot = sum(v * w for v, w in zip(x, g, strict=True))
            if layer.options["kind"] == "relu":
                psi.append(max(dot, 0.0))
            else:
                a = complex(1, 1) / math.sqrt(2)  # a^2 = i
                z = a * dot - a * a * sum(v * v for v in x) / 2
                psi += [math.exp(z.real) * math.cos(z.imag), math.exp(z.real) * math.sin(z.imag)]
        if layer.options["kind"] == "sin":
            psi = psi[::2] + psi[1::2]
        for o in range(y.shape[1]):
            y[b, o] = sum(float(w) * v for w, v in zip(layer.weight[o], psi, strict=True)) / math.sqrt(n)
    return y


def _draws(kind: str, vectors: int, orthogonal: bool = False) -> tuple[Tensor, Tensor]:
    """(estimates of every vector (V, P), the value they estimate (P,)) for P pairs of inputs and weights."""
    d, g = 3, torch.Generator().manual_seed(0)
    x, w = (F.normalize(torch.randn(5, d, generator=g, dtype=torch.float64), dim=1) * 0.9 for _ in range(2))
    b = torch.randn(5, generator=g, dtype=torch.float64)
    sine = kind == "sin"
    net = drawn(SNNK, d, 1, features=vectors * (1 + sine), kind=kind, orthogonal=orthogonal)
    psi, phi = net.features(x), net.embed(w, b if sine else None)
    each = (vectors * psi * phi).view(5, -1, vectors).sum(1).T
    dot = (x * w).sum(1)
    if sine:
        return each, torch.sin(dot + b)
    t = torch.arccos(dot / 0.81)
    return each, 0.81 * (t.sin() + (math.pi - t) * t.cos()) / (2 * math.pi)


def claim_unbiased() -> bool:
    """The mean over random vectors is within 3 standard errors of the sine, and of the arc-cosine kernel, also in blocks."""
    for kind in ("sin", "relu"):
        for orthogonal in (False, True):
            each, wanted = _draws(kind, 12000, orthogonal)
            blocks = each.view(-1, 3, 5).mean(1)  # independent of one another, orthogonal or not
            error = blocks.std(0) / math.sqrt(len(blocks))
            if bool(((blocks.mean(0) - wanted).abs() > 3 * error).any()) or bool((error > 0.03).any()):
                return False
    return True


def claim_variance() -> bool:
    """With n times as many features the variance of the estimate is an n-th."""
    for kind in ("sin", "relu"):
        each = _draws(kind, 32000)[0]
        few, many = (each.view(-1, n, 5).mean(1).var(0).mean() for n in (4, 32))
        if not 6.4 < float(few / many) < 10:
            return False
    return True


def claim_orthogonal() -> bool:
    """Orthogonal vectors have a smaller error for the same number, and each of them is as likely as its opposite."""
    for kind in ("sin", "relu"):
        free, blocks = (_draws(kind, 12000, orthogonal)[0].view(-1, 3, 5).mean(1).var(0).mean() for orthogonal in (False, True))
        if not blocks < free:
            return False
    first = drawn(SNNK, 3, 1, features=3000, orthogonal=True).projection.view(-1, 3, 3)
    gram = first @ first.transpose(1, 2)
    apart = float((gram - torch.diag_embed(gram.diagonal(dim1=1, dim2=2))).abs().max())
    mean = first.mean(0) / (first.std(0) / math.sqrt(len(first)))
    return apart < 1e-12 and float(mean.abs().max()) < 3.5


def claim_sines() -> bool:
    """Made of a linear map W, b it is near sin(W x + b): with 1024 features to a root mean square of 0.15 at |x| = |w| = 1."""
    net, g = drawn(SNNK, 8, 6, features=1024, kind="sin", orthogonal=True), torch.Generator().manual_seed(1)
    x, w = (F.normalize(torch.randn(n, 8, generator=g, dtype=torch.float64), dim=1) for n in (40, 6))
    b = torch.randn(6, generator=g, dtype=torch.float64)
    gap = net.features(x) @ net.embed(w, b).T - torch.sin(x @ w.T + b)
    return float(gap.square().mean().sqrt()) < 0.15


def claim_bundle() -> bool:
    """With the linear map after it the layer is one layer of the same kind."""
    g = torch.Generator().manual_seed(0)
    x, v = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((7, 5), (2, 4)))
    for kind in ("sin", "relu"):
        net = drawn(SNNK, 5, 4, features=16, kind=kind)
        if not torch.allclose(net.bundle(v)(x), net(x) @ v.T, rtol=1e-12, atol=1e-12):
            return False
    return True


PART = layer(
    SNNK,
    name="snnk",
    reference=reference,
    formula=r"\Phi\, \Psi(x),\quad \mathbb{E}_g\, \Phi(w, b)^\top \Psi(x) = f(w^\top x + b)",
    paper=Paper("snnk"),
    tags=Tags(nonlinear=True, smooth=False, delicate=True),
    options=(
        Option("features", 64, "features of the input, even for kind sin; trained values an output", bounds=(0, 10**6)),
        Option("kind", "relu", "what the random features are made of", allowed=("relu", "sin")),
        Option("orthogonal", False, "random vectors orthogonal in blocks", allowed=(False, True)),
        Option("normalise", False, "divide inputs by their norm", allowed=(False, True)),
    ),
    toy={"features": 10},
    settings=({"kind": "sin", "normalise": True, "orthogonal": True}, {"kind": "sin", "features": 2}),
    parameters="features * d_out",
    products="2 * vectors * d_in + 2 * features * d_out",
    elementwise="features * (2 + 2.5 * sine) + 2 * d_in * (sine + normalise)",
    claims=(
        Claim("unbiased", "the features estimate sin(w x + b), and the arc-cosine kernel", check=claim_unbiased),
        Claim("variance", "the variance falls as one over the number of features", check=claim_variance),
        Claim("orthogonal", "orthogonal vectors lower the error and are not biased", check=claim_orthogonal),
        Claim("sines", "approximates a layer of sines", check=claim_sines),
        Claim("bundle", "takes up the linear map after it", check=claim_bundle),
    ),
    deviations=(
        "random vectors are drawn once, with the parameters, and saved; the code can draw them in every forward, after it has"
        " reseeded torch's generator",
        "a row is treated alike whatever its leading dimensions: of 3-dimensional inputs the code subtracts a^2 |x|^2 without"
        " its half, and normalises along the sequence",
        "blocks of orthogonal vectors have the signs of R undone, without which their first rows point one way",
        "random vectors are normal everywhere; the code's adapter draws those that aren't orthogonal from U(0, 1)",
        "the exponent of a feature of kind sin is clamped at 30",
        "real features: the sine's two frequencies are conjugates of one another",
        "there is no bias beside Phi, as in the code; a bias inside the sine is part of Phi",
    ),
)
