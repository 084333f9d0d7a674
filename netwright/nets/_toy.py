"""What references and checks of nets are written for: small problems, what fills the places, and the same in Python floats.

Shape suffixes: C channels.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.engine.blocks import Factory
from netwright.engine.task import Problem, accuracy
from netwright.tensor.streams import generator


def problem(takes: str, shape: tuple[int, ...], output: tuple[int, ...], vocabulary: int | None = None) -> Problem:
    """Labels for examples of this shape; takes: what they are, as a net says it. vocabulary: of tokens."""
    return Problem(
        F.cross_entropy,
        accuracy,
        "accuracy",
        higher_is_better=True,
        worst=0.0,
        delta=0.01,
        input=shape,
        output=output,
        classes=output[-1],
        gives=frozenset({"labels", takes} if takes != "tokens" else {takes}),
        vocabulary=vocabulary,
    )


def rows(n: int, *shape: int, seed: int = 0) -> Tensor:
    """n rows of standard normal numbers."""
    return torch.randn(n, *shape, generator=generator(seed, "probe", "rows"))


def tokens(n: int, length: int, vocabulary: int) -> Tensor:
    """n sequences of tokens."""
    return torch.randint(vocabulary, (n, length), generator=generator(0, "probe", "rows"))


@final
class Gate(nn.Module):
    """The first half of the channels times the tanh of the second."""

    ratio = 0.5

    def __init__(self, channel_dim: int) -> None:
        super().__init__()
        self.channel_dim = channel_dim

    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, self.channel_dim)
        return value * gate.tanh()


@final
class Scale(nn.Module):
    """Every channel of an image times a number of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        self.weight.uniform_(0.5, 1.5, generator=generator)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW * self.weight[:, None, None]


def _linear(d_in: int, d_out: int) -> nn.Module:
    return nn.Linear(d_in, d_out)


#: Place -> what fills it in the checks; the norms are used in evaluation.
FILLERS: dict[str, Factory] = {
    "activation": lambda channels, channel_dim: nn.Tanh(),
    "mlp": lambda channels, channel_dim: Gate(channel_dim),
    "norm": lambda channels, channel_dim: nn.LayerNorm(channels) if channel_dim == -1 else nn.BatchNorm2d(channels),
    "layer": _linear,
    "readout": _linear,
    "head": _linear,
    "conv": lambda c_in, c_out, kernel_size, stride, padding: nn.Conv2d(c_in, c_out, kernel_size, stride, padding),
    "channelwise": lambda channels: Scale(channels),
}


def by_hand(module: Any, values: list[float]) -> list[float]:
    """What a filler, the identity or a linear map makes of the channels at one position, in evaluation."""
    if isinstance(module, nn.Identity):
        return values
    if isinstance(module, nn.Tanh):
        return [math.tanh(v) for v in values]
    if isinstance(module, Gate):
        half = len(values) // 2
        return [values[i] * math.tanh(values[half + i]) for i in range(half)]
    if not isinstance(module, (Scale, nn.Linear, nn.LayerNorm, nn.BatchNorm2d)):
        raise TypeError(f"{type(module).__name__} is none of FILLERS")
    weight = module.weight.tolist()
    if isinstance(module, Scale):
        return [w * v for w, v in zip(weight, values, strict=True)]
    bias = [0.0] * len(weight) if module.bias is None else module.bias.tolist()
    if isinstance(module, nn.Linear):
        return [b + sum(w * v for w, v in zip(row, values, strict=True)) for row, b in zip(weight, bias, strict=True)]
    if isinstance(module, nn.LayerNorm):
        mean = [sum(values) / len(values)] * len(values)
        variance = [sum((v - mean[0]) ** 2 for v in values) / len(values)] * len(values)
    else:
        mean, variance = module.running_mean.tolist(), module.running_var.tolist()  # type: ignore[union-attr]
    terms = zip(values, mean, variance, weight, bias, strict=True)
    return [(v - m) / math.sqrt(s + module.eps) * w + b for v, m, s, w, b in terms]
