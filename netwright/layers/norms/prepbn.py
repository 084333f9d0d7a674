"""PRepBN: layer norm that turns step by step into a batch norm with a linear branch, which folds away (Guo et al., 2024)."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.part import Claim, Option, Paper
from netwright.layers._kind import Norm, Tags, layer
from netwright.tensor.modules import drawn


@final
class PRepBN(Norm):
    """lambda LN(x) + (1 - lambda) (BN(x) + eta x), lambda falling from 1 to 0 over `steps` training forwards after `warmup`.

    LN: over the channels of every position; BN: with batch statistics in training, running ones in evaluation; each has a
    weight and a bias a channel. Once lambda is 0 the module is the affine map of `fold` in evaluation.
    """

    running_mean: Tensor
    running_var: Tensor
    step: Tensor  # training forwards so far
    no_decay = frozenset({"eta"})

    def __init__(
        self,
        channels: int,
        channel_dim: int = 1,
        *,
        steps: int = 300000,
        warmup: int = 0,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.steps, self.warmup, self.eps, self.momentum = steps, warmup, eps, momentum
        self.ln_weight, self.ln_bias, self.bn_weight, self.bn_bias = (nn.Parameter(torch.empty(channels)) for _ in range(4))
        self.eta = nn.Parameter(torch.empty(1))
        self.register_buffer("running_mean", torch.empty(channels))
        self.register_buffer("running_var", torch.empty(channels))
        self.register_buffer("step", torch.empty(()))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        for ones in (self.ln_weight, self.bn_weight, self.eta, self.running_var):
            ones.fill_(1.0)
        for zeros in (self.ln_bias, self.bn_bias, self.running_mean, self.step):
            zeros.zero_()

    @property
    def share(self) -> Tensor:
        """lambda, the share of layer norm."""
        return (1 - (self.step - self.warmup) / self.steps).clamp(0, 1)

    def compute(self, x: Tensor, dim: int) -> Tensor:
        layered = (x - x.mean(dim, keepdim=True)) * (x.var(dim, correction=0, keepdim=True) + self.eps).rsqrt()
        if self.training:
            over = (0, *self.positions(x, dim))
            mean, var = x.mean(over, keepdim=True), x.var(over, correction=0, keepdim=True)
            self._remember(mean.detach().flatten(), var.detach().flatten(), x.numel() // x.shape[dim])
        else:
            mean, var = (self.along(t, x, dim) for t in (self.running_mean, self.running_var))
        batched = (x - mean) * (var + self.eps).rsqrt()
        share = self.share.to(x.dtype)
        if self.training:
            with torch.no_grad():
                self.step.add_(1)
        one = layered * self.along(self.ln_weight, x, dim) + self.along(self.ln_bias, x, dim)
        other = batched * self.along(self.bn_weight, x, dim) + self.along(self.bn_bias, x, dim) + self.eta.to(x.dtype) * x
        return share * one + (1 - share) * other

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor, n: int) -> None:
        for running, new in ((self.running_mean, mean), (self.running_var, var * (n / max(1, n - 1)))):
            running.copy_(torch.lerp(running, new.to(running), self.momentum))

    @torch.no_grad()
    def fold(self) -> tuple[Tensor, Tensor]:
        """(scale, shift), each (channels,), with BN(x) + eta x = scale x + shift in evaluation: for a linear map to take up."""
        scale = self.bn_weight * (self.running_var + self.eps).rsqrt()
        return scale + self.eta, self.bn_bias - scale * self.running_mean


def reference(layer: Any, x_BCP: Tensor) -> Tensor:
    def standard(values: list[float], mean: float, var: float) -> list[float]:
        return [(v - mean) / math.sqrt(var + layer.eps) for v in values]

    def moments(values: list[float]) -> tuple[float, float]:
        mean = sum(values) / len(values)
        return mean, sum((v - mean) ** 2 for v in values) / len(values)

    y, share = torch.empty_like(x_BCP), min(1.0, max(0.0, 1 - (float(layer.step) - layer.warmup) / layer.steps))
    of_batch = [moments(x_BCP[:, c].flatten().tolist()) for c in range(x_BCP.shape[1])]
    for b, row in enumerate(x_BCP.tolist()):
        for p in range(len(row[0])):
            column = [values[p] for values in row]
            layered = standard(column, *moments(column))
            for c, v in enumerate(column):
                known = of_batch[c] if layer.training else (float(layer.running_mean[c]), float(layer.running_var[c]))
                (batched,) = standard([v], *known)
                one = layered[c] * float(layer.ln_weight[c]) + float(layer.ln_bias[c])
                other = batched * float(layer.bn_weight[c]) + float(layer.bn_bias[c]) + float(layer.eta) * v
                y[b, c, p] = share * one + (1 - share) * other
    return y


def _trained(steps: int) -> tuple[Any, Tensor]:
    norm, g = drawn(PRepBN, 5, steps=steps), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in norm.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g, dtype=p.dtype))
    for _ in range(4):
        norm(1 + 2 * torch.randn(6, 5, 3, generator=g, dtype=torch.float64))
    return norm.eval(), torch.randn(7, 5, 3, generator=g, dtype=torch.float64)


def claim_ends() -> bool:
    """At the start it is layer norm, after all steps it is not."""
    start, x = drawn(PRepBN, 5), _trained(4)[1]
    layer_norm = nn.functional.layer_norm(x.transpose(1, 2), (5,), eps=1e-5).transpose(1, 2)
    return bool(torch.allclose(start(x), layer_norm)) and float(_trained(4)[0].share) == 0.0


def claim_fold() -> bool:
    """Once lambda is 0, evaluation is one scale and one shift a channel, which a following linear map can take up."""
    norm, x = _trained(4)
    scale, shift = norm.fold()
    return bool(torch.allclose(norm(x), scale[:, None] * x + shift[:, None]))


PART = layer(
    PRepBN,
    name="prepbn",
    reference=reference,
    formula=r"\lambda\, \mathrm{LN}(x) + (1 - \lambda)(\mathrm{BN}(x) + \eta x)",
    paper=Paper("slab"),
    tags=Tags(shape="norm", delicate=True, stateful=True, batchwise=True),
    toy={"steps": 1000},
    settings=({"steps": 40, "warmup": -20},),
    options=(
        Option("steps", 300000, "training forwards over which layer norm fades", bounds=(0, 10**9)),
        Option("warmup", 0, "training forwards before it begins to; below 0: it began so many before"),
        Option("eps", 1e-5, "added to variances", bounds=(0.0, 1.0)),
        Option("momentum", 0.1, "share of the new batch in the running statistics", bounds=(0.0, 1.01)),
    ),
    parameters="4 * channels + 1",
    elementwise="22 * channels * positions",
    claims=(
        Claim("ends", "starts as layer norm and ends without it", check=claim_ends),
        Claim("fold", "ends as an affine map in evaluation", check=claim_fold),
    ),
    deviations=(
        "evaluation mixes both norms by the same lambda as training; the code evaluates BN(x) + eta x alone, another net than"
        " the one in training until lambda is 0",
        "running statistics are kept from the first step on, in the code not during warm-up",
        "lambda falls once a training forward, as in the code: two forwards a step, as in gradient accumulation, halve"
        " the schedule",
    ),
)
