"""Wav-KAN: a wavelet of its own scale and place on every edge (Bozorgasl and Chen, 2024)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.layers._kind import Layer, Tags, layer, uniform_
from netwright.layers.kan._basis_layer import FUSED
from netwright.tensor.fused import fuse
from netwright.tensor.modules import drawn
from netwright.tensor.precision import autocast_dtype

#: No wavelet gets narrower: training can carry a scale through 0.
NARROWEST = 1e-3
OMEGA = 5.0  # central frequency of the Morlet wavelet


def _hat(u: Tensor) -> Tensor:
    square = u.square()
    return 2 / (math.sqrt(3) * math.pi**0.25) * (square - 1) * torch.exp(-0.5 * square)


def _morlet(u: Tensor) -> Tensor:
    return torch.cos(OMEGA * u) * torch.exp(-0.5 * u.square())


def _dog(u: Tensor) -> Tensor:
    return -u * torch.exp(-0.5 * u.square())


WAVELETS: dict[str, Callable[[Tensor], Tensor]] = {"mexican-hat": _hat, "morlet": _morlet, "dog": _dog}


def waves(x_BI: Tensor, shift_OI: Tensor, scale_OI: Tensor, *, wavelet: str) -> Tensor:
    """psi((x_i - t_oi) / s_oi) (B, O, I)."""
    scale = torch.where(scale_OI < 0, scale_OI.clamp(max=-NARROWEST), scale_OI.clamp(min=NARROWEST))
    return WAVELETS[wavelet]((x_BI[:, None] - shift_OI) / scale)


def summed(x_BI: Tensor, weight_OI: Tensor, shift_OI: Tensor, scale_OI: Tensor, *, wavelet: str) -> Tensor:
    """sum_i w_oi psi((x_i - t_oi) / s_oi) (B, O)."""
    return (weight_OI * waves(x_BI, shift_OI, scale_OI, wavelet=wavelet)).sum(2)


@cache
def _fused(label: str) -> Callable[..., Tensor]:
    return fuse(summed, label)


@final
class WaveletKAN(Layer):
    """y_o = sum_i w_oi psi((x_i - t_oi) / s_oi); (..., d_in) -> (..., d_out).

    wavelet: psi(u) = 2 / (sqrt(3) pi^(1/4)) (u^2 - 1) e^(-u^2 / 2) ("mexican-hat"), cos(5 u) e^(-u^2 / 2) ("morlet") or
    -u e^(-u^2 / 2) ("dog", a Gaussian's derivative). Edges share nothing, so there is no matrix product: an exponential for
    every edge and row, and tensors (B, d_out, d_in) unless fused=True. The authors put a batch norm behind every layer.
    """

    no_decay = frozenset({"shift", "scale"})

    def __init__(self, d_in: int, d_out: int, *, wavelet: str = "mexican-hat", fused: bool = False) -> None:
        super().__init__()
        self.weight, self.shift, self.scale = (nn.Parameter(torch.empty(d_out, d_in)) for _ in range(3))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """w ~ U(-1, 1) / sqrt(d_in), t = 0, s = 1."""
        uniform_(self.weight, 1 / math.sqrt(self.weight.shape[1]), generator)
        self.shift.zero_()
        self.scale.fill_(1.0)

    def edges(self, x_BI: Tensor) -> Tensor:
        """w_oi psi((x_i - t_oi) / s_oi) for every edge: (B, O, I)."""
        return self.weight * waves(x_BI, self.shift, self.scale, wavelet=self.options["wavelet"])

    def compute(self, x_BI: Tensor) -> Tensor:
        run = _fused(self.part.id) if self.options["fused"] else summed
        y_BO = run(x_BI, self.weight, self.shift, self.scale, wavelet=self.options["wavelet"])
        return y_BO.to(autocast_dtype(x_BI) or self.weight.dtype)


def reference(layer: Any, x_BI: Tensor) -> Tensor:
    psi = {
        "mexican-hat": lambda u: 2 / math.sqrt(3 * math.sqrt(math.pi)) * (u * u - 1) * math.exp(-u * u / 2),
        "morlet": lambda u: math.cos(5 * u) * math.exp(-u * u / 2),
        "dog": lambda u: -u * math.exp(-u * u / 2),
    }[layer.options["wavelet"]]
    w, t, s = (p.tolist() for p in (layer.weight, layer.shift, layer.scale))
    rows = [
        [sum(w[o][i] * psi((v - t[o][i]) / s[o][i]) for i, v in enumerate(row)) for o in range(len(w))] for row in x_BI.tolist()
    ]
    return torch.tensor(rows, dtype=torch.float64)


def claim_admissible() -> bool:
    """Wavelets have mean 0, the Morlet's but for sqrt(2 pi) e^(-25 / 2) < 1e-5; the Mexican hat has energy 1."""
    u = torch.linspace(-12, 12, 2401, dtype=torch.float64)
    means = {name: float(psi(u).sum()) / 100 for name, psi in WAVELETS.items()}
    morlet = math.isclose(means.pop("morlet"), math.sqrt(2 * math.pi) * math.exp(-12.5), rel_tol=1e-8)
    return morlet and all(abs(v) < 1e-12 for v in means.values()) and abs(float(_hat(u).square().sum()) / 100 - 1) < 1e-12


def claim_zero() -> bool:
    """A scale of 0, which divides by nothing in the code, gives finite values and gradients."""
    for wavelet in WAVELETS:
        kan = drawn(WaveletKAN, 3, 2, wavelet=wavelet)
        with torch.no_grad():
            kan.scale.zero_()
        y = kan(torch.tensor([[0.0, 1e-3, 50.0]], dtype=torch.float64))
        grads = torch.autograd.grad(y.sum(), list(kan.parameters()))
        if not bool(y.isfinite().all()) or not all(bool(g.isfinite().all()) for g in grads):
            return False
    return True


PART = layer(
    WaveletKAN,
    name="wavelet-kan",
    reference=reference,
    formula=r"\sum_i w_{oi}\, \psi\left((x_i - t_{oi}) / s_{oi}\right)",
    paper=Paper(
        title="Wav-KAN: Wavelet Kolmogorov-Arnold Networks",
        authors="Zavareh Bozorgasl, Hao Chen",
        year=2024,
        arxiv="2405.12832",
        code="zavareh1/Wav-KAN",
    ),
    tags=Tags(nonlinear=True, delicate=True),
    options=(
        Option("wavelet", "mexican-hat", "the mother wavelet", allowed=tuple(WAVELETS)),
        FUSED[0],
    ),
    parameters="3 * d_in * d_out",
    elementwise="9 * d_in * d_out",
    claims=(
        Claim("admissible", "the wavelets have mean 0", check=claim_admissible),
        Claim("zero", "a scale may pass through 0", check=claim_zero),
        Claim(
            "mnist",
            "more accurate than the spline KAN on MNIST",
            where="abstract",
            protocol=Protocol(task="mnist", against="layer/kan", expect="better", seeds=6, trials=4),
        ),
    ),
    deviations=(
        "no batch norm behind it: it is a part of its own",
        "no second weight an edge: the code makes one and doesn't use it",
        "scales of magnitude below 0.001 count as 0.001",
        "the code's Shannon wavelet is left out, as its window runs along the inputs rather than along x; so is its Meyer"
        " wavelet, sin(pi |u|) cut off at |u| = 1, which isn't Meyer's",
    ),
)
