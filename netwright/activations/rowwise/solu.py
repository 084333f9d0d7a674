"""SoLU: each entry of a row times its softmax, then layer normalisation (Elhage et al., 2022).

Large entries keep their size and small ones are pushed towards 0; the normalisation brings the scale back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.activations._kind import Tags, activation
from netwright.core.part import Claim, Example, Option, Paper, Protocol

EPS = 1e-5


def solu(x: Tensor, *, dim: int, norm: bool) -> Tensor:
    y = x * torch.softmax(x, dim)
    if not norm:
        return y
    y = y - y.mean(dim, keepdim=True)
    return y * torch.rsqrt(y.square().mean(dim, keepdim=True) + EPS)


def reference(x: Sequence[float], norm: bool) -> list[float]:
    top = max(x)
    total = math.fsum(math.exp(v - top) for v in x)
    y = [v * math.exp(v - top) / total for v in x]
    if not norm:
        return y
    mean = math.fsum(y) / len(y)
    scale = math.sqrt(math.fsum((v - mean) ** 2 for v in y) / len(y) + EPS)
    return [(v - mean) / scale for v in y]


def claim_one_large() -> bool:
    """SoLU(4, 1, 4, 1) is about (2, 0, 2, 0), and of (4, 0, 0, 0) about itself."""
    pair = solu(torch.tensor([4.0, 1.0, 4.0, 1.0]), dim=-1, norm=False)
    one = solu(torch.tensor([4.0, 0.0, 0.0, 0.0]), dim=-1, norm=False)
    return bool(torch.allclose(pair, torch.tensor([2.0, 0.0, 2.0, 0.0]), atol=0.15)) and abs(float(one[0]) - 4) < 0.25


def claim_layer_norm() -> bool:
    """With norm=True it is torch's layer norm of x softmax(x)."""
    x = torch.randn(16, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = F.layer_norm(x * torch.softmax(x, -1), (24,), eps=EPS)
    return bool(torch.allclose(solu(x, dim=-1, norm=True), wanted, atol=1e-10))


PART = activation(
    solu,
    cls="SoLU",
    reference=reference,
    formula=r"\mathrm{LN}(x \cdot \mathrm{softmax}(x))",
    paper=Paper(
        title="Softmax Linear Units",
        authors="Nelson Elhage, Tristan Hume, Catherine Olsson, Neel Nanda, Tom Henighan, Scott Johnston and others",
        year=2022,
        venue="Transformer Circuits Thread",
    ),
    options=(Option("norm", True, "layer normalisation after the product", allowed=(True, False)),),
    tags=Tags(shape="rowwise", delicate=True),
    examples=(
        Example([4.0, 0.0, 0.0, 0.0], [3.791660, 0.0, 0.0, 0.0], options={"norm": False}),
        Example([2.0, -2.0], [1.0, -1.0], tolerance=1e-4),
    ),
    flops=12.0,
    claims=(
        Claim("one-large", "keeps one large entry and pushes small ones to 0", check=claim_one_large),
        Claim("layer-norm", "is followed by a layer normalisation", check=claim_layer_norm),
        Claim(
            "language",
            "about GELU's loss on language modelling",
            protocol=Protocol("task/shakespeare", "activation/gelu", "not worse"),
        ),
    ),
    deviations=("the layer normalisation has no gain and bias of its own: the linear map after it can hold them",),
)
