"""EvoNorm: normalisation and activation in one, found by evolution: B0 with batch statistics, S0 without (Liu et al., 2020)."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.layers._kind import Norm, Tags, layer
from netwright.tensor.modules import drawn

PAPER = Paper("evonorm", equation="table 1")


def centred_square(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The biased variance over dims, kept as dimensions of size 1; 0 where there is nothing to vary over."""
    return (x - x.mean(dims, keepdim=True)).square().mean(dims, keepdim=True) if dims else torch.zeros_like(x)


class _Evolved(Norm):
    """gamma, beta and v, one a channel."""

    no_decay = frozenset({"v"})

    def _setup(self, channels: int, eps: float) -> None:
        self.eps = eps
        self.weight, self.bias, self.v = (nn.Parameter(torch.empty(channels)) for _ in range(3))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        self.weight.fill_(1.0)
        self.bias.zero_()
        self.v.fill_(1.0)

    def affine(self, x: Tensor, dim: int) -> Tensor:
        return x * self.along(self.weight, x, dim) + self.along(self.bias, x, dim)


@final
class EvoNormB0(_Evolved):
    """x / max(sqrt(var_b + eps), v x + sqrt(var_i + eps)) * gamma + beta.

    var_b: of a channel over batch and positions, in evaluation its running average; var_i: over the positions of one row.
    """

    running_var: Tensor

    def __init__(self, channels: int, channel_dim: int = 1, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self._setup(channels, eps)
        self.momentum = momentum
        self.register_buffer("running_var", torch.empty(channels))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        super().reset_parameters(generator)
        self.running_var.fill_(1.0)

    def compute(self, x: Tensor, dim: int) -> Tensor:
        if self.training:
            over = (0, *self.positions(x, dim))
            var_b = centred_square(x, over)
            n = x.numel() // x.shape[dim]
            with torch.no_grad():
                unbiased = var_b.flatten() * (n / max(1, n - 1))
                self.running_var.copy_(torch.lerp(self.running_var, unbiased.to(self.running_var), self.momentum))
        else:
            var_b = self.along(self.running_var, x, dim)
        var_i = centred_square(x, self.positions(x, dim))
        bound = self.along(self.v, x, dim) * x + (var_i + self.eps).sqrt()
        return self.affine(x / torch.maximum((var_b + self.eps).sqrt(), bound), dim)


@final
class EvoNormS0(_Evolved):
    """x sigmoid(v x) / sqrt(var_g + eps) * gamma + beta, var_g over the positions and channels of one group of one row.

    groups: where they don't divide the channels, the greatest common divisor is taken.
    """

    def __init__(self, channels: int, channel_dim: int = 1, *, groups: int = 32, eps: float = 1e-5) -> None:
        super().__init__()
        if groups < 1:
            raise BadInput(f"{self.part.id}: groups={groups!r}; expected a whole number of at least 1")
        self._setup(channels, eps)
        self.groups = math.gcd(groups, channels)

    def compute(self, x: Tensor, dim: int) -> Tensor:
        grouped = x.unflatten(dim, (self.groups, -1))
        over = tuple(d for d in range(1, grouped.dim()) if d != dim)
        scaled = grouped / (centred_square(grouped, over) + self.eps).sqrt()
        return self.affine(scaled.flatten(dim, dim + 1) * torch.sigmoid(self.along(self.v, x, dim) * x), dim)


def variance(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return sum((v - mean) ** 2 for v in values) / len(values)


def reference_b0(layer: Any, x_BCP: Tensor) -> Tensor:
    rows, y = x_BCP.tolist(), torch.empty_like(x_BCP)
    for c in range(x_BCP.shape[1]):
        batch = variance([v for row in rows for v in row[c]]) if layer.training else float(layer.running_var[c])
        for b, row in enumerate(rows):
            own = math.sqrt(variance(row[c]) + layer.eps)
            for p, v in enumerate(row[c]):
                scaled = v / max(math.sqrt(batch + layer.eps), float(layer.v[c]) * v + own)
                y[b, c, p] = scaled * float(layer.weight[c]) + float(layer.bias[c])
    return y


def reference_s0(layer: Any, x_BCP: Tensor) -> Tensor:
    rows, y = x_BCP.tolist(), torch.empty_like(x_BCP)
    size = x_BCP.shape[1] // layer.groups
    for b, row in enumerate(rows):
        for c, values in enumerate(row):
            first = c // size * size
            deviation = math.sqrt(variance([v for other in row[first : first + size] for v in other]) + layer.eps)
            for p, v in enumerate(values):
                gate = 1 / (1 + math.exp(-float(layer.v[c]) * v))
                y[b, c, p] = v * gate / deviation * float(layer.weight[c]) + float(layer.bias[c])
    return y


def _rows() -> Tensor:
    return torch.randn(6, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def claim_scale() -> bool:
    """B0 doesn't see the scale of its input (eps aside), S0 does: its gate reads x as it is."""
    x = _rows()
    b0, s0 = drawn(EvoNormB0, 8, eps=1e-12), drawn(EvoNormS0, 8, groups=4, eps=1e-12)
    return bool(torch.allclose(b0(3 * x), b0(x), atol=1e-8)) and float((s0(3 * x) - s0(x)).abs().max()) > 0.1


def claim_running() -> bool:
    """With momentum 1 the running variance is the last batch's unbiased one."""
    b0, x = drawn(EvoNormB0, 8, momentum=1.0), _rows()
    b0(x)
    return bool(torch.allclose(b0.running_var, x.transpose(0, 1).flatten(1).var(1)))


EPS = Option("eps", 1e-5, "added to variances", bounds=(0.0, 1.0))
PARTS = (
    layer(
        EvoNormB0,
        name="evonorm-b0",
        reference=reference_b0,
        paper=PAPER,
        summary="EvoNorm-B0: x over the larger of a batch deviation and a line in x; no activation after it (Liu et al., 2020).",
        formula=r"x / \max(\sqrt{\sigma_b^2 + \epsilon}, v x + \sqrt{\sigma_i^2 + \epsilon})\, \gamma + \beta",
        tags=Tags(
            shape="norm",
            delicate=True,
            nonlinear=True,
            stateful=True,
            batchwise=True,
            smooth=False,
        ),
        options=(EPS, Option("momentum", 0.1, "share of the new batch in the running variance", bounds=(0.0, 1.01))),
        parameters="3 * channels",
        elementwise="12 * channels * positions",
        claims=(
            Claim("scale", "does not see the scale of its input, S0 does", check=claim_scale),
            Claim("running", "the running variance is unbiased", check=claim_running),
            Claim(
                "vision",
                "at least batch norm's accuracy with ReLU",
                where="table 2",
                protocol=Protocol(
                    task="cifar10", against="activation/relu", expect="not worse", seeds=6, trials=3, options={"host": "convnet"}
                ),
            ),
        ),
    ),
    layer(
        EvoNormS0,
        name="evonorm-s0",
        reference=reference_s0,
        paper=PAPER,
        summary="EvoNorm-S0: SiLU over a deviation within groups of channels; sees one row at a time (Liu et al., 2020).",
        formula=r"x\, \sigma(v x) / \sqrt{\sigma_g^2 + \epsilon}\, \gamma + \beta",
        tags=Tags(shape="norm", delicate=True, nonlinear=True),
        options=(Option("groups", 32, "groups of channels"), EPS),
        settings=({"groups": 2}, {"groups": 1}),
        parameters="3 * channels",
        elementwise="10 * channels * positions",
        deviations=("groups that don't divide the channels become their greatest common divisor",),
        claims=(
            Claim(
                "vision",
                "at least batch norm's accuracy with ReLU, without batch statistics",
                where="table 2",
                protocol=Protocol(
                    task="cifar10", against="activation/relu", expect="not worse", seeds=6, trials=3, options={"host": "convnet"}
                ),
            ),
        ),
    ),
)
