"""Network in network: a small multilayer perceptron slides over the image where a linear filter did (Lin et al., 2013)."""

from __future__ import annotations

import itertools
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.layers._kind import Layer, Tags, layer
from netwright.layers.convolution._windows import by_windows
from netwright.tensor.modules import drawn

CONVS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@final
class MlpConv(Layer):
    """f_1 = relu(W_1 x_(i,j) + b_1), f_n = relu(W_n f_(n-1) + b_n); (..., c_in, *space) -> (..., c_out, *space').

    x_(i,j): the patch under the kernel at one place. The first layer is a convolution, every further one a 1 x 1
    convolution: a linear map of the channels. depth: n, of which the paper has 3; depth=1 is a convolution and a ReLU.
    hidden: channels of the layers before the last; 0: as many as c_out.

    The paper ends a net with one map a class and their average over all places, without parameters. Hosts here read out
    the average over places too, through a linear map; this layer in the last block, with c_out classes, is the paper's end.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        *,
        depth: int = 3,
        hidden: int = 0,
        dims: int = 2,
    ) -> None:
        super().__init__()
        self.widths = [c_in, *([hidden or c_out] * (depth - 1)), c_out]
        make: Any = CONVS[dims]
        first = make(c_in, self.widths[1], kernel_size, stride, padding, dilation)
        self.maps = nn.ModuleList([first, *(make(a, b, 1) for a, b in itertools.pairwise(self.widths[1:]))])

    @property
    def quantities(self) -> dict[str, float]:
        pairs = itertools.pairwise(self.widths[1:])
        own = {"first": self.widths[1], "mixing": sum(a * b for a, b in pairs), "units": sum(self.widths[1:])}
        return {**super().quantities, **own}

    def compute(self, x: Tensor) -> Tensor:
        for linear in self.maps:
            x = torch.relu(linear(x))
        return x


def reference(layer: Any, x_BCS: Tensor) -> Tensor:
    """At every place: the patch as a vector, through the layers of a perceptron, one unit at a time."""
    weights = [(m.weight.flatten(1).tolist(), m.bias.tolist()) for m in layer.maps]

    def at(under: list[list[float | None]]) -> list[float]:
        h = [value or 0.0 for channel in under for value in channel]
        for rows, bias in weights:
            h = [max(0.0, sum(w * v for w, v in zip(row, h, strict=True)) + b) for row, b in zip(rows, bias, strict=True)]
        return h

    return by_windows(x_BCS, layer.sizes, at)


def _image(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def claim_patches() -> bool:
    """It is a multilayer perceptron of linear maps on unfolded patches."""
    ours, x = drawn(MlpConv, 3, 5, 3, padding=1, hidden=7), _image(2, 3, 6, 5)
    h_BPK = F.unfold(x, 3, padding=1).transpose(1, 2)
    for weight, bias in zip(*[iter(ours.parameters())] * 2, strict=True):
        h_BPK = torch.relu(F.linear(h_BPK, weight.flatten(1), bias))
    return bool(torch.allclose(h_BPK.transpose(1, 2).unflatten(2, (6, 5)), ours(x), atol=1e-10))


def claim_channels() -> bool:
    """The layers after the first are linear maps of the channels: cascaded cross-channel pooling."""
    mix, x = drawn(MlpConv, 3, 5, 3).maps[1], _image(2, 5, 4, 4)
    return bool(torch.allclose(F.linear(x.movedim(1, -1), mix.weight.flatten(1), mix.bias).movedim(-1, 1), mix(x), atol=1e-12))


def claim_average() -> bool:
    """Averaged over all places, a layer whose patches wrap around doesn't see a cyclic shift of the image."""
    ours, x = drawn(MlpConv, 2, 4, 3), _image(2, 2, 6, 5)
    a, b = (ours(F.pad(v, (1, 1, 1, 1), mode="circular")).mean((-2, -1)) for v in (x, x.roll((2, -1), (-2, -1))))
    return bool(torch.allclose(a, b, atol=1e-12))


def claim_depth() -> bool:
    """With depth 1 it is a convolution and a ReLU; every further layer adds c_out (c_out + 1) values, whatever the kernel."""
    ours, x = drawn(MlpConv, 2, 4, 3, depth=1), _image(2, 2, 6, 5)
    plain = torch.relu(F.conv2d(x, ours.maps[0].weight, ours.maps[0].bias))
    sizes = [sum(p.numel() for p in drawn(MlpConv, 2, 4, k, depth=d).parameters()) for k in (3, 5) for d in (2, 3)]
    return torch.equal(plain, ours(x)) and sizes[1] - sizes[0] == sizes[3] - sizes[2] == 4 * 5


PART = layer(
    MlpConv,
    name="network-in-network",
    reference=reference,
    formula=r"f_1 = \max(W_1 x_{ij} + b_1, 0),\quad f_n = \max(W_n f_{n-1} + b_n, 0)",
    paper=Paper("network-in-network", equation="(2)"),
    tags=Tags(shape="conv", nonlinear=True, smooth=False),
    options=(
        Option("depth", 3, "layers of the perceptron, the convolution counted", bounds=(0, 100)),
        Option("hidden", 0, "channels of the layers before the last; 0: as many as c_out", bounds=(-1, 10**6)),
    ),
    settings=({"depth": 1}, {"depth": 2, "hidden": 5}, {"hidden": 3, "stride": 2, "padding": 1}),
    parameters="first * c_in * taps + mixing + units",
    products="2 * places_out * (first * c_in * taps + mixing)",
    elementwise="places_out * units",
    claims=(
        Claim("patches", "is a multilayer perceptron on unfolded patches", check=claim_patches),
        Claim("channels", "a 1 x 1 convolution is a linear map of the channels", check=claim_channels),
        Claim("average", "averaged over places it doesn't see cyclic shifts", check=claim_average),
        Claim("depth", "one layer is a convolution; further ones cost the same for every kernel", check=claim_depth),
        Claim(
            "filters",
            "a perceptron as the filter is better than a linear filter",
            where="table 1",
            protocol=Protocol(
                task="cifar10", against="activation/relu", expect="better", seeds=6, trials=3, options={"host": "convnet"}
            ),
        ),
    ),
    deviations=(
        "the layers before the last have one width; the first block of the CIFAR-10 net narrows from 192 over 160 to 96",
        "average pooling over places, and dropout between the paper's blocks, are left to the net",
    ),
)
