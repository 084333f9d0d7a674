"""SENetV2: channels weighted by what four parallel dense layers make of their averages (Narayanan, 2023)."""

from __future__ import annotations

import math
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.layers._kind import Layer, Tags, layer, product, uniform_
from netwright.tensor.modules import drawn


@final
class SENetV2(Layer):
    """y = x + x s, or x s; s = sigmoid(W_2 [relu(V_1 z + a_1), ..., relu(V_4 z + a_4)] + b), z the average over space.

    (..., channels, *space) -> the same shape. Every branch has max(1, channels // reduction) units. Branches of one size
    side by side are one linear map of their joint width, which is how they are held: the V_n are the rows of `squeeze`,
    and the layer is squeeze and excitation with its reduction divided by the number of branches.

    residual=True adds x inside the module, as both modules of the official code do, so that channels are scaled by 1 to 2;
    False scales them by 0 to 1, which leaves the sum to the skip connection of the block around.
    """

    def __init__(self, channels: int, *, reduction: int = 32, branches: int = 4, residual: bool = True, dims: int = 2) -> None:
        super().__init__()
        self.width = max(1, channels // reduction)
        self.residual = residual
        self.squeeze = nn.Parameter(torch.empty(branches * self.width, channels))
        self.squeeze_bias = nn.Parameter(torch.empty(branches * self.width))
        self.excite = nn.Parameter(torch.empty(channels, branches * self.width))
        self.excite_bias = nn.Parameter(torch.empty(channels))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Uniform by fan-in and fan-out (Glorot), which the dense layers of the code draw from; a branch has its own fan-out."""
        joint, channels = self.squeeze.shape
        uniform_(self.squeeze, math.sqrt(6 / (channels + self.width)), generator)
        uniform_(self.excite, math.sqrt(6 / (channels + joint)), generator)
        self.squeeze_bias.zero_()
        self.excite_bias.zero_()

    @property
    def quantities(self) -> dict[str, float]:
        return {**super().quantities, "joint": self.squeeze.shape[0]}

    def gates(self, x: Tensor) -> Tensor:
        """s (B, channels) of x (B, channels, *space)."""
        z_BC = x.mean(tuple(range(2, x.dim())))
        h_BJ = torch.relu(product(z_BC, self.squeeze, self.squeeze_bias))
        return product(h_BJ, self.excite, self.excite_bias).sigmoid()

    def compute(self, x: Tensor) -> Tensor:
        s_BC = self.gates(x)
        scale_BC = 1 + s_BC if self.residual else s_BC
        return x * scale_BC.reshape(*scale_BC.shape, *(1,) * (x.dim() - 2))


def reference(layer: Any, x_BCS: Tensor) -> Tensor:
    """Branch by branch, unit by unit."""
    y, width = torch.empty_like(x_BCS), layer.width
    v, a, w, b = (p.tolist() for p in (layer.squeeze, layer.squeeze_bias, layer.excite, layer.excite_bias))
    for n, row in enumerate(x_BCS):
        z = [math.fsum(channel.flatten().tolist()) / channel.numel() for channel in row]
        joined: list[float] = []
        for start in range(0, len(v), width):
            branch = [sum(p * q for p, q in zip(v[u], z, strict=True)) + a[u] for u in range(start, start + width)]
            joined += [max(0.0, unit) for unit in branch]
        for c, channel in enumerate(row):
            logit = sum(p * q for p, q in zip(w[c], joined, strict=True)) + b[c]
            gate = 1 / (1 + math.exp(-logit))
            y[n, c] = channel + channel * gate if layer.options["residual"] else channel * gate
    return y


def _setting(**options: Any) -> tuple[Any, Tensor]:
    g = torch.Generator().manual_seed(0)
    return drawn(SENetV2, 16, **options), torch.randn(3, 16, 4, 5, generator=g, dtype=torch.float64)


def claim_branches() -> bool:
    """It is four dense layers of their own, joined: the paper's form."""
    ours, x = _setting(reduction=8)
    z, (*_, b) = x.mean((2, 3)), ours.parameters()
    four = [F.relu(F.linear(z, v, a)) for v, a in zip(ours.squeeze.chunk(4), ours.squeeze_bias.chunk(4), strict=True)]
    s = torch.sigmoid(F.linear(torch.cat(four, 1), ours.excite, b))[..., None, None]
    return bool(torch.allclose(x + x * s, ours(x), atol=1e-12))


def claim_wider() -> bool:
    """Squeeze and excitation (one branch) with a quarter of the reduction has the same parameters and the same output."""
    ours, x = _setting(reduction=8)
    plain = drawn(SENetV2, 16, reduction=2, branches=1, seed=1)
    plain.load_state_dict(ours.state_dict())
    return torch.equal(plain(x), ours(x))


def claim_scale() -> bool:
    """Channels are scaled and nothing else, by 1 to 2, or by 0 to 1 without the residual; all gates start near one half."""
    for residual, low in ((True, 1.0), (False, 0.0)):
        ours, x = _setting(reduction=4, residual=residual)
        ratio = ours(x) / x
        least, most = float(ratio.min()), float(ratio.max())
        if float((ratio - ratio[..., :1, :1]).abs().max()) > 1e-12 or not low < least <= most < low + 1:
            return False
        if float((ours(0 * x + 1e-9) / 1e-9 - low - 0.5).abs().max()) > 1e-6:
            return False
    return True


def claim_parameters() -> bool:
    """Four times squeeze and excitation's weights at one reduction: 4 (C^2 / r + C / r) + 4 C^2 / r + C."""
    with torch.device("meta"):
        count = sum(p.numel() for p in SENetV2(64, reduction=16).parameters())
        tiny = SENetV2(8)
    return count == 4 * (64 * 4 + 4) + 4 * 64 * 4 + 64 and tuple(tiny.squeeze.shape) == (4, 8)


PART = layer(
    SENetV2,
    name="senetv2",
    reference=reference,
    formula=r"x + x \cdot \sigma(W_2\,[\mathrm{relu}(V_n \bar{x} + a_n)]_{n=1}^{4} + b)",
    paper=Paper("senetv2"),
    tags=Tags(
        shape="channelwise",
        affine=False,
        smooth=False,
    ),
    options=(
        Option("reduction", 32, "channels a unit of a branch; a branch has at least one unit", bounds=(0, 10**6)),
        Option("branches", 4, "dense layers side by side; 1 is squeeze and excitation", bounds=(0, 1000)),
        Option("residual", True, "x + x s, as the code returns, instead of x s", allowed=(True, False)),
    ),
    settings=({"reduction": 4}, {"reduction": 2, "branches": 1}),
    parameters="2 * channels * joint + channels + joint",
    products="4 * channels * joint",
    elementwise="2 * channels * places_in + joint + 2 * channels",
    claims=(
        Claim("branches", "one wide map is the four branches", check=claim_branches),
        Claim("wider", "is squeeze and excitation with a quarter of the reduction", check=claim_wider),
        Claim("scale", "scales channels, from 1 to 2", check=claim_scale),
        Claim("parameters", "four times squeeze and excitation's, at one reduction", check=claim_parameters),
        Claim(
            "accuracy",
            "a net with it beats the net without it",
            where="README of the code, CIFAR-10",
            protocol=Protocol(
                task="cifar10", against="activation/relu", expect="better", seeds=6, trials=3, options={"host": "convnet"}
            ),
        ),
    ),
    deviations=(
        "a branch has at least one unit; the code makes none where the reduction is larger than the channels, and fails",
        "the default reduction is that of a reimplementation (github-eliviate/SENetV2_torch_tf); the official code has none",
    ),
)
