"""KAF: a linear map of GELU and a small share of learnt random Fourier features (Zhang et al., 2025).

    y = W (alpha GELU(x) + beta s) + c,   s = V [cos p, sin p] + v,   p = LN(x) F + phase

Fourier features of M frequencies F, each of all inputs, are brought back to the width of x, so that the layer is one of GELU
with a gated residual branch: no output has functions of its own on its edges, and parameters don't grow as M d_out. At the
start F ~ N(0, 1 / (1.64 d_in)), for which [cos p, sin p] [cos q, sin q]^T / M approaches exp(-|u - w|^2 / (2 1.64 d_in)).
The phase turns pairs of features, which V can do too.

Shape suffixes: B rows, I inputs, O outputs, M frequencies.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.layers._kind import Layer, Tags, layer, product, uniform_
from netwright.tensor.modules import drawn

SPREAD = 1.64  # d_in times the variance of a frequency, inverted


@final
class KAFLayer(Layer):
    """y = W (alpha GELU(x) + beta (V [cos p, sin p] + v)) + c, p = LN(x) F + phase; (..., d_in) -> (..., d_out).

    frequencies: M. scales: whether alpha and beta are numbers of the "layer" or of each "channel". beta: its start; alpha
    starts as 1. norm=False: p = x F + phase, and so with d_in=1, whose layer norm would be 0.
    """

    no_decay = frozenset({"alpha", "beta", "norm_weight", "norm_bias"})
    norm_weight: nn.Parameter | None
    norm_bias: nn.Parameter | None

    def __init__(
        self, d_in: int, d_out: int, *, frequencies: int = 8, scales: str = "layer", beta: float = 0.01, norm: bool = True
    ) -> None:
        super().__init__()
        self.start = beta
        self.frequency = nn.Parameter(torch.empty(frequencies, d_in))
        self.phase = nn.Parameter(torch.empty(frequencies))
        self.combine = nn.Parameter(torch.empty(d_in, 2 * frequencies))  # V
        self.combine_bias = nn.Parameter(torch.empty(d_in))
        self.alpha, self.beta = (nn.Parameter(torch.empty(1 if scales == "layer" else d_in)) for _ in range(2))
        self.weight, self.bias = nn.Parameter(torch.empty(d_out, d_in)), nn.Parameter(torch.empty(d_out))
        for name in ("norm_weight", "norm_bias"):
            self.register_parameter(name, nn.Parameter(torch.empty(d_in)) if norm and d_in > 1 else None)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """F ~ N(0, 1 / (1.64 d_in)), phase ~ U(0, 2 pi), V and W of Xavier, v ~ U(-1, 1) / sqrt(2 M), c = 0."""
        self.frequency.normal_(0, 1 / math.sqrt(SPREAD * self.frequency.shape[1]), generator=generator)
        self.phase.uniform_(0, 2 * math.pi, generator=generator)
        for p in (self.combine, self.weight):
            uniform_(p, math.sqrt(6 / sum(p.shape)), generator)
        uniform_(self.combine_bias, 1 / math.sqrt(self.combine.shape[1]), generator)
        self.alpha.fill_(1.0)
        self.beta.fill_(self.start)
        self.bias.zero_()
        if self.norm_weight is not None and self.norm_bias is not None:
            self.norm_weight.fill_(1.0)
            self.norm_bias.zero_()

    @property
    def quantities(self) -> dict[str, float]:
        return {**super().quantities, "norm": int(self.norm_weight is not None), "each": len(self.alpha)}

    def features(self, x_BI: Tensor) -> Tensor:
        """[cos p, sin p]: (B, 2 M)."""
        if self.norm_weight is not None:
            x_BI = F.layer_norm(x_BI, x_BI.shape[1:], self.norm_weight, self.norm_bias)
        p_BM = product(x_BI, self.frequency, self.phase)
        return torch.cat((p_BM.cos(), p_BM.sin()), 1)

    def compute(self, x_BI: Tensor) -> Tensor:
        # beta scales V and v, not their product with the features: fewer numbers.
        s_BI = product(self.features(x_BI), self.beta[:, None] * self.combine, self.beta * self.combine_bias)
        return product(self.alpha * F.gelu(x_BI) + s_BI, self.weight, self.bias)


def reference(layer: Any, x_BI: Tensor) -> Tensor:
    frequency, phase, combine, beside = (p.tolist() for p in (layer.frequency, layer.phase, layer.combine, layer.combine_bias))
    y, d_in, count = torch.zeros(len(x_BI), len(layer.bias), dtype=x_BI.dtype), x_BI.shape[1], len(phase)
    alpha, beta = (p.tolist() * (d_in if len(p) == 1 else 1) for p in (layer.alpha, layer.beta))
    for b, x in enumerate(x_BI.tolist()):
        u = x
        if layer.options["norm"] and d_in > 1:
            mean = sum(x) / d_in
            root = math.sqrt(sum((v - mean) ** 2 for v in x) / d_in + 1e-5)
            weight, shift = layer.norm_weight.tolist(), layer.norm_bias.tolist()
            u = [(v - mean) / root * weight[i] + shift[i] for i, v in enumerate(x)]
        p = [sum(f * v for f, v in zip(row, u, strict=True)) + own for row, own in zip(frequency, phase, strict=True)]
        for i in range(d_in):
            s = beside[i] + sum(combine[i][m] * math.cos(p[m]) + combine[i][count + m] * math.sin(p[m]) for m in range(count))
            gelu = x[i] * (1 + math.erf(x[i] / math.sqrt(2))) / 2
            for o in range(y.shape[1]):
                y[b, o] += layer.weight[o, i] * (alpha[i] * gelu + beta[i] * s)
    return y + layer.bias


def _rows(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def claim_gelu() -> bool:
    """With beta = 0 it is a linear map of GELU."""
    kaf, x = drawn(KAFLayer, 6, 4, beta=0.0), _rows(9, 6)
    return bool(torch.allclose(kaf(x), F.linear(F.gelu(x), kaf.weight, kaf.bias), atol=1e-13))


def claim_kernel() -> bool:
    """Products of features over M are the Gaussian kernel of variance 1.64 d_in, to 3 / sqrt(M)."""
    x, errors = _rows(12, 6), []
    wanted = torch.exp(-torch.cdist(x, x).square() / (2 * SPREAD * 6))
    for count in (64, 1024, 16384):
        features = drawn(KAFLayer, 6, 4, frequencies=count, norm=False).features(x)
        errors.append(float((features @ features.T / count - wanted).abs().max().detach()) * math.sqrt(count))
    return max(errors) < 3


def claim_phase() -> bool:
    """The phase adds no function: V turned by it gives the same layer without one."""
    kaf, x = drawn(KAFLayer, 6, 4).requires_grad_(False), _rows(9, 6)
    before, (cos, sin) = kaf(x), (kaf.phase.cos(), kaf.phase.sin())
    first, second = kaf.combine.chunk(2, 1)
    kaf.combine.copy_(torch.cat((first * cos + second * sin, second * cos - first * sin), 1))
    kaf.phase.zero_()
    return bool(torch.allclose(kaf(x), before, atol=1e-13))


PART = layer(
    KAFLayer,
    name="kaf-layer",
    reference=reference,
    formula=r"W (\alpha\, \mathrm{GELU}(x) + \beta (V [\cos p, \sin p] + v)) + c, \quad p = \mathrm{LN}(x) F + \phi",
    paper=Paper("kaf", equation="(4)"),
    tags=Tags(nonlinear=True),
    options=(
        Option("frequencies", 8, "of random Fourier features", bounds=(0, 100000), search=(4, 64, "log")),
        Option("scales", "layer", "what has an alpha and a beta of its own", allowed=("layer", "channel")),
        Option("beta", 0.01, "weight of the features at the start"),
        Option("norm", True, "layer norm before the frequencies", allowed=(True, False)),
    ),
    settings=({"d_in": 1}, {"frequencies": 3, "beta": 0.5}),
    parameters="d_in * (frequencies + 2 * frequencies + 1) + frequencies + 2 * each + (d_in + 1) * d_out + 2 * norm * d_in",
    products="6 * d_in * frequencies + 2 * d_in * d_out",
    elementwise="d_in * (3 + norm) + 2 * frequencies + (2 * frequencies + 1) * d_in / rows",
    claims=(
        Claim("gelu", "without its features it is a linear map of GELU", check=claim_gelu),
        Claim("kernel", "features approach a Gaussian kernel", where="section 3.3", check=claim_kernel),
        Claim("phase", "the phase adds no function", check=claim_phase),
        Claim(
            "mnist",
            "classifies better than an MLP with GELU of as many parameters",
            where="Figure 2",
            protocol=Protocol(task="mnist", against="activation/gelu", expect="better", seeds=6, trials=4),
        ),
        Claim(
            "sine",
            "fits functions that oscillate better than an MLP with GELU of as many parameters",
            where="Figure 4",
            protocol=Protocol(task="sine", against="activation/gelu", expect="better", seeds=6, trials=4),
        ),
    ),
    deviations=(
        "alpha and beta are one number a layer and GELU takes x itself, as in the code; equation (4) has a number a channel"
        " (scales='channel') and GELU of the normalised x",
        "features are not divided by the root of M, as in the code; equation (5) does",
        "no dropout of features, whose rate is 0 in the code's defaults",
        "table 1 counts d_in M + M + 2 d_in + (d_in + 1) d_out parameters and leaves out V, which has 2 M d_in",
    ),
)
