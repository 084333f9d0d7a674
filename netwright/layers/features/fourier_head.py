"""Fourier head: bins of a density on [-1, 1] that is a Fourier series of learnt coefficients (Gillman et al., 2024).

A head for classes that are bins of a quantity, in order: neighbouring bins get similar probabilities.

Shape suffixes: B rows, I inputs, K = frequencies + 1 coefficients, O bins, H bins on one side of 0.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.part import Claim, Option, Paper
from netwright.layers._kind import Layer, Tags, layer, product, uniform_
from netwright.tensor.modules import LOW, drawn
from netwright.tensor.precision import full_precision

FLOOR = 1e-5  # added to probabilities, so that their logarithm is finite
SHRINK = 100  # what the values of nn.Linear are divided by at the start


@final
class FourierHead(Layer):
    """y_b = log(P_b + 1e-5), P_b = p(z_b) / sum_c p(z_c); (..., d_in) -> (..., d_out) logits of d_out bins of [-1, 1].

    p(z) = 1/2 + Re sum_{k=1..N} c_k / c_0 e^{i pi k z}, c_k = sum_l a_{l+k} conj(a_l), at the centres
    z_b = -1 + (2 b + 1) / d_out, where a_0 .. a_N are complex numbers, affine in the input. It is evaluated as
    |sum_k a_k e^{i pi k z}|^2 / (2 sum_k |a_k|^2), the same number: one real matrix product, of cosines and sines at the
    centres right of 0; those left of it differ in the sign of the sines.
    """

    waves: Tensor  # (K, 2 H): cos(pi k z) | sin(pi k z) at the centres z >= 0

    def __init__(self, d_in: int, d_out: int, *, frequencies: int = 12) -> None:
        super().__init__()
        self.frequencies, self.bins = frequencies, d_out
        self.weight = nn.Parameter(torch.empty(2 * (frequencies + 1), d_in))  # real parts of all a_k, then imaginary ones
        self.bias = nn.Parameter(torch.empty(2 * (frequencies + 1)))
        self.register_buffer("waves", torch.empty(frequencies + 1, 2 * self.side), persistent=False)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Values of nn.Linear over 100. The first output is that without the division: only steps are larger against it."""
        for p in (self.weight, self.bias):
            uniform_(p, 1 / (SHRINK * math.sqrt(self.weight.shape[1])), generator)
        self.adopt()

    @torch.no_grad()
    def adopt(self) -> None:
        """The waves are no part of the state."""
        if not self.waves.is_meta:
            self.waves.copy_(self._waves(torch.float64))

    @property
    def side(self) -> int:
        """The number of centres that are not left of 0."""
        return (self.bins + 1) // 2

    @property
    def quantities(self) -> dict[str, float]:
        return {**super().quantities, "side": self.side}

    def _waves(self, dtype: torch.dtype) -> Tensor:
        b = torch.arange(self.bins - self.side, self.bins, dtype=dtype, device=self.waves.device)
        k = torch.arange(self.frequencies + 1, dtype=dtype, device=self.waves.device)
        angle_KH = math.pi * k[:, None] * ((2 * b + 1) / self.bins - 1)
        return torch.cat((angle_KH.cos(), angle_KH.sin()), 1)

    def _parts(self, x_BI: Tensor) -> Tensor:
        """The real and imaginary parts of a (B, 2, K), in float32 at least."""
        a = product(x_BI, self.weight, self.bias).unflatten(-1, (2, -1))
        return a.float() if a.dtype in LOW else a

    def _power(self, a_B2K: Tensor) -> Tensor:
        """|sum_k a_k e^{i pi k z}|^2 at all centres (B, O), a sum of squares."""
        # Rounded to half precision the waves would move zeros of the density, so they are made anew.
        waves = self._waves(torch.float32) if self.waves.dtype in LOW else self.waves.to(a_B2K.dtype)
        (re_cos, re_sin), (im_cos, im_sin) = (t.split(self.side, -1) for t in (a_B2K @ waves).unbind(1))
        right = (re_cos - im_sin).square() + (re_sin + im_cos).square()
        left = (re_cos + im_sin).square() + (im_cos - re_sin).square()
        return torch.cat((left.flip(-1)[:, : self.bins - self.side], right), -1)

    def _density(self, x_BI: Tensor) -> Tensor:
        a = self._parts(x_BI)
        return self._power(a) / (2 * a.square().sum((1, 2))[:, None])

    def density(self, x: Tensor) -> Tensor:
        """p(z_b) (..., d_out), the density at the centres; it sums to d_out / 2 where frequencies < d_out."""
        self.inner(x)
        return self._density(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], self.bins)

    def coefficients(self, x: Tensor) -> Tensor:
        """c_k / c_0 for k = 1 .. frequencies (..., frequencies), complex: the coefficients of the density."""
        self.inner(x)
        a_B2K = self._parts(x.reshape(-1, x.shape[-1]))
        spectrum = torch.fft.fft(torch.complex(a_B2K[:, 0], a_B2K[:, 1]), 2 * a_B2K.shape[2])
        c = torch.fft.ifft(spectrum.real.square() + spectrum.imag.square())[:, : a_B2K.shape[2]]
        return (c[:, 1:] / c[:, :1].real).view(*x.shape[:-1], self.frequencies)

    def regulariser(self, x: Tensor) -> Tensor:
        """4 pi^2 sum_k k^2 |c_k / c_0|^2, the mean over rows: four times the integral of p'(z)^2, to be added to a loss.

        The official runs weigh theirs by 1e-6, but see the deviations.
        """
        c = self.coefficients(x)
        k = torch.arange(1, self.frequencies + 1, dtype=c.real.dtype, device=c.device)
        return 4 * math.pi**2 * (k.square() * (c.real.square() + c.imag.square())).sum(-1).mean()

    def compute(self, x_BI: Tensor) -> Tensor:
        a = self._parts(x_BI)
        with full_precision(a):
            power = self._power(a)
        share = power / power.sum(-1, keepdim=True).clamp(min=torch.finfo(power.dtype).tiny)
        return (share + FLOOR).log().to(self.weight.dtype)


def _coefficients(layer: Any, row: Tensor) -> list[complex]:
    """a_0 .. a_N of one row by loops."""
    flat = [sum(float(w) * float(v) for w, v in zip(line, row, strict=True)) for line in layer.weight]
    flat = [v + float(b) for v, b in zip(flat, layer.bias, strict=True)]
    n = len(flat) // 2
    return [complex(flat[k], flat[n + k]) for k in range(n)]


def _series(a: list[complex], z: float) -> float:
    """p(z) by autocorrelation, the paper's way."""
    c = [sum(a[j + k] * a[j].conjugate() for j in range(len(a) - k)) for k in range(len(a))]
    turn = [complex(math.cos(math.pi * k * z), math.sin(math.pi * k * z)) for k in range(len(a))]
    return 0.5 + sum((c[k] / c[0].real * turn[k]).real for k in range(1, len(a)))


def reference(layer: Any, x_BI: Tensor) -> Tensor:
    """The density as a Fourier series whose coefficients are the autocorrelation of a, bin by bin."""
    m, rows = layer.sizes["d_out"], []
    for row in x_BI:
        p = [_series(_coefficients(layer, row), -1 + (2 * b + 1) / m) for b in range(m)]
        rows.append([math.log(v / sum(p) + FLOOR) for v in p])
    return torch.tensor(rows, dtype=torch.float64)


def _case(frequencies: int, bins: int, rows: int = 4) -> tuple[Any, Tensor]:
    x = torch.randn(rows, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return drawn(FourierHead, 5, bins, frequencies=frequencies).requires_grad_(False), x


def claim_bins() -> bool:
    """With fewer frequencies than bins the density at the centres sums to m / 2, whatever the coefficients."""
    for n, m in ((1, 2), (3, 4), (6, 7), (12, 64), (30, 31)):
        head, x = _case(n, m)
        if not torch.allclose(head.density(x).sum(-1), torch.full((4,), m / 2, dtype=torch.float64), rtol=1e-12):
            return False
    head, x = _case(9, 6)
    return float((head.density(x).sum(-1) - 3).abs().max()) > 1e-3


def claim_positive() -> bool:
    """The density is not negative, and 0 where a zero of the sum lies on a centre: |1 - e^{i pi z}|^2 at z = 0."""
    head, x = _case(1, 7)
    spread = drawn(FourierHead, 5, 48, frequencies=12).density(x)
    head.weight.zero_()
    head.bias.copy_(torch.tensor([1.0, -1.0, 0.0, 0.0]))
    p = head.density(x)
    return bool((spread >= 0).all()) and bool((p >= 0).all()) and float(p[:, 3].max()) < 1e-30 < float(p[:, 2].min())


def claim_autocorrelation() -> bool:
    """The product is the series of the autocorrelation, left and right of 0, for even and odd numbers of bins."""
    for n, m in ((5, 8), (5, 9), (12, 7)):
        head, x = _case(n, m, 2)
        centres = [-1 + (2 * b + 1) / m for b in range(m)]
        wanted = torch.tensor([[_series(_coefficients(head, row), z) for z in centres] for row in x], dtype=torch.float64)
        if not torch.allclose(head.density(x), wanted, atol=1e-12):
            return False
    return True


def claim_conjugate() -> bool:
    """With e^{-i pi k z} in its place the squared sum is another density, that of -z."""
    head, x = _case(5, 9, 2)
    right, wrong = head.density(x), []
    for row in x:
        a = _coefficients(head, row)
        turned = [-math.pi * (-1 + (2 * b + 1) / 9) for b in range(9)]
        sums = [sum(v * complex(math.cos(k * t), math.sin(k * t)) for k, v in enumerate(a)) for t in turned]
        wrong.append([abs(s) ** 2 / (2 * sum(abs(v) ** 2 for v in a)) for s in sums])
    other = torch.tensor(wrong, dtype=torch.float64)
    return float((right - other).abs().max()) > 0.1 and bool(torch.allclose(right, other.flip(-1), atol=1e-12))


def claim_floor() -> bool:
    """exp(y) sums to 1 + 1e-5 m: the floor inside the logarithm is not normalised away."""
    head, x = _case(12, 64)
    return bool(torch.allclose(head(x).exp().sum(-1), torch.tensor(1 + 64 * FLOOR, dtype=torch.float64), rtol=1e-12))


def claim_scale() -> bool:
    """A common factor of all coefficients cancels, so dividing the start by 100 leaves the first output as it was."""
    head, x = _case(12, 10)
    before = head(x)
    for p in (head.weight, head.bias):
        p.mul_(SHRINK)
    return bool(torch.allclose(head(x), before, rtol=1e-12))


def claim_regulariser() -> bool:
    """The penalty is four times the mean over rows of the integral of the density's squared slope."""
    head, x = _case(7, 4)
    c, points = head.coefficients(x), 64  # more than twice the degree: equal weights integrate exactly
    z = -1 + 2 * torch.arange(points, dtype=torch.float64) / points
    k = torch.arange(1, 8, dtype=torch.float64)
    turn = torch.polar(torch.ones(points, 7, dtype=torch.float64), math.pi * z[:, None] * k)
    slope = (c[:, None] * turn * 1j * math.pi * k).sum(-1).real
    return bool(torch.allclose(head.regulariser(x), 4 * 2 / points * slope.square().sum(-1).mean(), rtol=1e-12))


PART = layer(
    FourierHead,
    reference=reference,
    formula=r"\log\left(\frac{|\sum_k a_k e^{i \pi k z_b}|^2}{\sum_c |\sum_k a_k e^{i \pi k z_c}|^2} + 10^{-5}\right)",
    paper=Paper("fourier-head"),
    tags=Tags(slot="head", nonlinear=True, delicate=True),
    options=(Option("frequencies", 12, "the highest frequency of the density", bounds=(0, 100000)),),
    settings=({"frequencies": 1}, {"frequencies": 3, "d_out": 7}),
    parameters="2 * (frequencies + 1) * (d_in + 1)",
    products="4 * d_in * (frequencies + 1) + 8 * (frequencies + 1) * side",
    elementwise="9 * d_out",
    claims=(
        Claim("bins", "the density at m centres sums to m / 2 where frequencies < m", check=claim_bins),
        Claim("positive", "the density is nowhere negative", check=claim_positive),
        Claim("autocorrelation", "equals the series of the autocorrelation", check=claim_autocorrelation),
        Claim("conjugate", "the conjugate convention gives the mirror image", check=claim_conjugate),
        Claim("floor", "probabilities sum to 1 + 1e-5 m before a softmax", check=claim_floor),
        Claim("scale", "the division of the initial values leaves the first output alone", check=claim_scale),
        Claim("regulariser", "the penalty is four times the density's squared slope", check=claim_regulariser),
    ),
    deviations=(
        "the penalty is of the coefficients of the density, c_k / c_0; the code's is of the c_k before they are normalised,"
        " which smaller a_k alone bring down without a change of the density",
        "the penalty is a method to be called, not an attribute that every forward leaves behind",
        "densities are normalised over the bins without dividing by the sum of |a_k|^2 first, which cancels",
    ),
)
