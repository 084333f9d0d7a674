"""FKAN's first layer: a Fourier series on every edge, for coordinates of images and volumes (Mehrabian et al., 2024)."""

from __future__ import annotations

import math
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from netwright.core.part import Claim, Option, Paper
from netwright.layers._kind import Tags, layer
from netwright.layers.kan._basis_layer import FUSED, BasisLayer, by_loops
from netwright.tensor.modules import drawn


def waves(x_BI: Tensor, *, harmonics: int) -> Tensor:
    """cos x .. cos(harmonics x), sin x .. sin(harmonics x) (B, 2 harmonics, I).

    x is first brought to [-pi, pi] as the angle of (cos x, sin x), which costs nothing in precision however large x is: a
    product m x has the rounding error of its size. In float32 at harmonic 270 that leaves 7e-5 everywhere, where cos(m x)
    is off by 0.1 at x = 10^4, the recurrence 2 cos x cos(m x) - cos((m - 1) x) by 2e-3, and repeated multiplication by
    e^(ix) by 1e-5 in as many steps as there are harmonics.
    """
    angle = torch.atan2(torch.sin(x_BI), torch.cos(x_BI))
    phase_BMI = angle[:, None] * torch.arange(1, harmonics + 1, dtype=angle.dtype, device=angle.device)[:, None]
    return torch.cat((torch.cos(phase_BMI), torch.sin(phase_BMI)), 1)


@final
class FKAN(BasisLayer):
    """y_o = a_o + sum_i sum_m c_omi cos(m x_i) + s_omi sin(m x_i), m = 1 .. harmonics; (..., d_in) -> (..., d_out).

    coef (O, 2 harmonics, I) holds the c, then the s. The period is 2 pi: coordinates on [-1, 1] use a third of it, and are
    best multiplied by pi. smooth: coefficients that fall with m^2 at the start. FKAN is this layer on coordinates with 270
    harmonics, a layer norm, and ordinary layers after it.
    """

    basis: ClassVar[Any] = staticmethod(waves)

    def __init__(
        self, d_in: int, d_out: int, *, harmonics: int = 8, smooth: bool = False, fused: bool = False, products: str = ""
    ) -> None:
        super().__init__()
        self._setup(d_in, d_out, 2 * harmonics, "none", bias=True, products=products)
        self.harmonics, self.smooth = harmonics, smooth

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """c, s ~ N(0, 1 / (d_in harmonics)), or N(0, 1 / (d_in m^4)) where smooth; a = 0."""
        self.coef.normal_(0, 1 / math.sqrt(self.coef.shape[2]), generator=generator)
        m = torch.arange(1, self.harmonics + 1, dtype=self.coef.dtype, device=self.coef.device)
        self.coef.div_(m.square().repeat(2)[:, None] if self.smooth else math.sqrt(self.harmonics))
        if self.bias is not None:
            self.bias.zero_()

    @property
    def constants(self) -> dict[str, Any]:
        return {"harmonics": self.harmonics}


def reference(layer: Any, x_BI: Tensor) -> Tensor:
    orders = range(1, layer.options["harmonics"] + 1)
    return by_loops(layer, x_BI, lambda x, i: [*(math.cos(m * x) for m in orders), *(math.sin(m * x) for m in orders)])


def claim_period() -> bool:
    """Moving any input by 2 pi changes nothing."""
    fkan, g = drawn(FKAN, 3, 4, harmonics=20), torch.Generator().manual_seed(0)
    x = torch.randn(10, 3, generator=g, dtype=torch.float64)
    turns = 2 * math.pi * torch.tensor([1.0, -2.0, 5.0], dtype=torch.float64)
    return bool(torch.allclose(fkan(x), fkan(x + turns), atol=1e-12))


def claim_variance() -> bool:
    """For inputs uniform over a period the outputs have variance 1 at the start, whatever the widths and harmonics."""
    for d_in, harmonics in ((1, 30), (3, 10), (16, 4)):
        fkan, g = drawn(FKAN, d_in, 400, harmonics=harmonics), torch.Generator().manual_seed(1)
        x = math.pi * (2 * torch.rand(400, d_in, generator=g, dtype=torch.float64) - 1)
        if not 0.93 < float(fkan(x).var(0).mean()) < 1.07:
            return False
    return True


def claim_drift() -> bool:
    """In float32 harmonic 270 is right to 1e-4 at any x up to 10^4."""
    g = torch.Generator().manual_seed(0)
    x = 1e4 * (2 * torch.rand(2000, 1, generator=g) - 1)
    phase = 270 * x.double()[:, 0]
    got = drawn(FKAN, 1, 1, harmonics=270, dtype=torch.float32).features(x)[:, [269, 539], 0].double()
    plain = (torch.cos(270 * x[:, 0]).double() - phase.cos()).abs().max()
    return float((got - torch.stack((phase.cos(), phase.sin()), 1)).abs().max()) < 1e-4 and float(plain) > 0.05


PART = layer(
    FKAN,
    name="fkan",
    reference=reference,
    formula=r"a_o + \sum_{i,m} c_{omi} \cos(m x_i) + s_{omi} \sin(m x_i)",
    paper=Paper("fkan"),
    tags=Tags(slot="", nonlinear=True, delicate=True),  # for coordinates, which hidden layers don't give
    options=(
        Option("harmonics", 8, "sines and cosines an edge", bounds=(0, 10000)),
        Option("smooth", False, "coefficients that fall with the square of the harmonic", allowed=(False, True)),
        *FUSED,
    ),
    settings=({"harmonics": 1}, {"harmonics": 21}),
    parameters="2 * d_in * d_out * harmonics + d_out",
    products="4 * d_in * d_out * harmonics",
    elementwise="d_in * (3 * harmonics + 3)",
    claims=(
        Claim("period", "the output has period 2 pi in every input", check=claim_period),
        Claim("variance", "outputs have variance 1 at the start", where="code", check=claim_variance),
        Claim("drift", "high harmonics are as exact as low ones at any x", check=claim_drift),
    ),
    deviations=(
        "8 harmonics unless told otherwise; the notebook has 270, for two coordinates",
        "no layer norm behind it: it is a part of its own",
        "one product over all inputs and harmonics; the code makes a tensor (B, d_out, d_in, harmonics)",
    ),
)
