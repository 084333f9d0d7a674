"""The plain norms: batch, layer, group and root-mean-square norm; torch's own kernels, as baselines.

Shape suffixes: B rows, C channels, P positions, G groups.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.part import Claim, Option, Paper
from netwright.layers._kind import Norm, Tags, layer
from netwright.tensor.modules import drawn


@final
class BatchNorm(Norm):
    """(x - mean) / sqrt(var + eps) * weight + bias, over rows and positions; in evaluation with running statistics.

    running_var remembers the unbiased variance. A batch of one value a channel has none, and leaves no trace. The state is
    that of nn.BatchNorm1d to 3d, and so is track_running_stats: while it is False, training leaves the statistics alone.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor  # training forwards so far

    def __init__(self, channels: int, channel_dim: int = 1, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum, self.track_running_stats = eps, momentum, True
        self.weight, self.bias = nn.Parameter(torch.empty(channels)), nn.Parameter(torch.empty(channels))
        self.register_buffer("running_mean", torch.empty(channels))
        self.register_buffer("running_var", torch.empty(channels))
        self.register_buffer("num_batches_tracked", torch.empty((), dtype=torch.long))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        for ones in (self.weight, self.running_var):
            ones.fill_(1.0)
        for zeros in (self.bias, self.running_mean, self.num_batches_tracked):
            zeros.zero_()

    def compute(self, x: Tensor, dim: int) -> Tensor:
        if dim != 1:
            return self.compute(x.movedim(dim, 1), 1).movedim(1, dim)
        mean, var = self.running_mean, self.running_var
        if self.training:
            if self.track_running_stats and x.numel() > x.shape[1]:
                self.num_batches_tracked.add_(1)
            else:
                mean = var = None  # type: ignore[assignment]
        return torch.batch_norm(x, self.weight, self.bias, mean, var, self.training, self.momentum, self.eps, True)


@final
class LayerNorm(Norm):
    """(x - mean) / sqrt(var + eps) * weight + bias, over the channels of every position by itself."""

    def __init__(self, channels: int, channel_dim: int = -1, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.empty(channels)), nn.Parameter(torch.empty(channels))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        self.weight.fill_(1.0)
        self.bias.zero_()

    def compute(self, x: Tensor, dim: int) -> Tensor:
        if dim != x.dim() - 1:
            return self.compute(x.movedim(dim, -1), x.dim() - 1).movedim(-1, dim)
        return F.layer_norm(x, (x.shape[-1],), self.weight, self.bias, self.eps)


@final
class GroupNorm(Norm):
    """(x - mean) / sqrt(var + eps) * weight + bias, over a group of channels and all positions, in every row by itself.

    groups: at most so many, the largest number that divides groups and channels.
    """

    def __init__(self, channels: int, channel_dim: int = 1, *, groups: int = 8, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps, self.groups = eps, math.gcd(groups, channels)
        self.weight, self.bias = nn.Parameter(torch.empty(channels)), nn.Parameter(torch.empty(channels))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        self.weight.fill_(1.0)
        self.bias.zero_()

    def compute(self, x: Tensor, dim: int) -> Tensor:
        if dim != 1:
            return self.compute(x.movedim(dim, 1), 1).movedim(1, dim)
        return F.group_norm(x, self.groups, self.weight, self.bias, self.eps)


@final
class RMSNorm(Norm):
    """x / sqrt(mean x^2 + eps) * weight, over the channels of every position by itself."""

    def __init__(self, channels: int, channel_dim: int = -1, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(channels))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        self.weight.fill_(1.0)

    def compute(self, x: Tensor, dim: int) -> Tensor:
        if dim != x.dim() - 1:
            return self.compute(x.movedim(dim, -1), x.dim() - 1).movedim(-1, dim)
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def standard(values: list[float], eps: float) -> list[float]:
    """Values less their mean, over the root of their variance and eps."""
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values) + eps)
    return [(v - mean) / spread for v in values]


def reference_batch(layer: Any, x_BCP: Tensor) -> Tensor:
    y = torch.empty_like(x_BCP)
    for c in range(x_BCP.shape[1]):
        values = x_BCP[:, c].flatten().tolist()
        mean, var = float(layer.running_mean[c]), float(layer.running_var[c])
        known = [(v - mean) / math.sqrt(var + layer.eps) for v in values]
        normal = standard(values, layer.eps) if layer.training else known
        y[:, c] = torch.tensor(normal, dtype=x_BCP.dtype).view_as(y[:, c]) * float(layer.weight[c]) + float(layer.bias[c])
    return y


def reference_layer(layer: Any, x_BCP: Tensor) -> Tensor:
    y, weight, bias = torch.empty_like(x_BCP), layer.weight.tolist(), layer.bias.tolist()
    for b, p in ((b, p) for b in range(len(x_BCP)) for p in range(x_BCP.shape[2])):
        column = standard(x_BCP[b, :, p].tolist(), layer.eps)
        y[b, :, p] = torch.tensor([w * v + s for w, v, s in zip(weight, column, bias, strict=True)], dtype=x_BCP.dtype)
    return y


def reference_group(layer: Any, x_BCP: Tensor) -> Tensor:
    y, channels = torch.empty_like(x_BCP), x_BCP.shape[1]
    divisors = [n for n in range(1, channels + 1) if channels % n == 0 and layer.options["groups"] % n == 0]
    size = channels // divisors[-1]
    for b, first in ((b, first) for b in range(len(x_BCP)) for first in range(0, channels, size)):
        rows = [row.tolist() for row in x_BCP[b, first : first + size]]
        normal = iter(standard([v for row in rows for v in row], layer.eps))
        for c, row in enumerate(rows, first):
            weight, bias = float(layer.weight[c]), float(layer.bias[c])
            y[b, c] = torch.tensor([weight * next(normal) + bias for _ in row], dtype=x_BCP.dtype)
    return y


def reference_rms(layer: Any, x_BCP: Tensor) -> Tensor:
    y = torch.empty_like(x_BCP)
    for b, row in enumerate(x_BCP.tolist()):
        for p in range(len(row[0])):
            root = math.sqrt(sum(values[p] ** 2 for values in row) / len(row) + layer.eps)
            for c, values in enumerate(row):
                y[b, c, p] = values[p] / root * float(layer.weight[c])
    return y


def same_as(cls: Any, theirs: Any) -> bool:
    """With a state of torch's, output, gradient and buffers are torch's to the last bit, in training and in evaluation."""
    ours, g = drawn(cls, 8, 1), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in ours.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g, dtype=p.dtype))
    theirs.double().load_state_dict(ours.state_dict())
    for training in (True, True, False):
        x = 1 + 2 * torch.randn(6, 8, 5, generator=g, dtype=torch.float64)
        outputs, gradients = [], []
        for module in (ours, theirs):
            last = module is theirs and hasattr(theirs, "normalized_shape")  # torch's takes the channels last
            y = module.train(training)(x.mT if last else x)
            gradients.append(torch.autograd.grad(y.square().sum(), module.weight)[0])
            outputs.append(y.mT if last else y)
        if not (torch.equal(*outputs) and torch.allclose(gradients[0], gradients[1], rtol=1e-12)):
            return False
    return all(torch.equal(a, b) for a, b in zip(ours.buffers(), theirs.buffers(), strict=True))


EPS = Option("eps", 1e-5, "added to variances", bounds=(0.0, 1.0))
PARTS = (
    layer(
        BatchNorm,
        reference=reference_batch,
        formula=r"\frac{x - \mu_B}{\sqrt{\sigma_B^2 + \epsilon}}\, \gamma + \beta",
        paper=Paper(
            title="Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
            authors="Sergey Ioffe, Christian Szegedy",
            year=2015,
            arxiv="1502.03167",
        ),
        summary="The mean and variance of every channel over rows and positions taken out; running ones in evaluation.",
        tags=Tags(shape="norm", stateful=True, batchwise=True),
        options=(EPS, Option("momentum", 0.1, "share of the new batch in the running statistics", bounds=(0.0, 1.01))),
        parameters="2 * channels",
        elementwise="7 * channels * positions",
        claims=(Claim("torch", "is nn.BatchNorm", check=lambda: same_as(BatchNorm, nn.BatchNorm1d(8))),),
        deviations=("a batch of one value a channel, which torch refuses, gives the bias and leaves no trace",),
    ),
    layer(
        LayerNorm,
        reference=reference_layer,
        formula=r"\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}\, \gamma + \beta",
        paper=Paper(
            title="Layer Normalization",
            authors="Jimmy Lei Ba, Jamie Ryan Kiros, Geoffrey E. Hinton",
            year=2016,
            arxiv="1607.06450",
        ),
        summary="The mean and variance of the channels taken out, at every position by itself.",
        tags=Tags(shape="norm"),
        options=(EPS,),
        parameters="2 * channels",
        elementwise="7 * channels * positions",
        claims=(Claim("torch", "is nn.LayerNorm", check=lambda: same_as(LayerNorm, nn.LayerNorm(8))),),
    ),
    layer(
        GroupNorm,
        reference=reference_group,
        formula=r"\frac{x - \mu_g}{\sqrt{\sigma_g^2 + \epsilon}}\, \gamma + \beta",
        paper=Paper(title="Group Normalization", authors="Yuxin Wu, Kaiming He", year=2018, arxiv="1803.08494"),
        summary="The mean and variance of groups of channels and all positions taken out, in every row by itself.",
        tags=Tags(shape="norm"),
        toy={"groups": 4},
        settings=({"groups": 1}, {"groups": 6}),
        options=(Option("groups", 8, "of channels, at most", bounds=(0, 10**6)), EPS),
        parameters="2 * channels",
        elementwise="7 * channels * positions",
        claims=(Claim("torch", "is nn.GroupNorm", check=lambda: same_as(GroupNorm, nn.GroupNorm(8, 8))),),
        deviations=("where the channels can't be cut into so many groups, into as many as divide both; torch refuses them",),
    ),
    layer(
        RMSNorm,
        name="rms-norm",
        reference=reference_rms,
        formula=r"\frac{x}{\sqrt{\overline{x^2} + \epsilon}}\, \gamma",
        paper=Paper(
            title="Root Mean Square Layer Normalization", authors="Biao Zhang, Rico Sennrich", year=2019, arxiv="1910.07467"
        ),
        summary="Channels over their root mean square, at every position by itself.",
        tags=Tags(shape="norm"),
        options=(Option("eps", 1e-6, "added to the mean square", bounds=(0.0, 1.0)),),
        parameters="channels",
        elementwise="4 * channels * positions",
        claims=(Claim("torch", "is nn.RMSNorm", check=lambda: same_as(RMSNorm, nn.RMSNorm(8, eps=1e-6))),),
    ),
)
