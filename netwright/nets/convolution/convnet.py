"""A residual convolutional net: a stem, residual blocks that halve height and width, a pooled readout (He et al., 2016).

Shape suffixes: B batch, C channels, H W height and width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.part import Option, Paper
from netwright.engine.blocks import Blocks, Factory
from netwright.engine.task import Problem
from netwright.nets._kind import Case, Tags, activation_of, channels_after, conv_of, linear_of, needs_bias, net, norm_of
from netwright.nets._toy import by_hand, problem, rows


@final
class Residual(nn.Module):
    """act(norm(conv(act(norm(conv(x))))) + shortcut(x)), both convolutions 3 x 3, the first one strided."""

    def __init__(self, c_in: int, width: int, stride: int, fill: Mapping[str, Factory]) -> None:
        super().__init__()
        wide = 2 * width if "mlp" in fill else width
        norm1 = norm_of(fill, wide, 1)
        norm2 = norm_of(fill, wide, 1)
        self.conv1 = conv_of(fill, c_in, wide, stride, needs_bias(norm1))
        self.norm1, self.act1 = norm1, activation_of(fill, wide, 1)
        mid = channels_after(self.act1, wide)
        self.conv2 = conv_of(fill, mid, wide, 1, needs_bias(norm2))
        self.norm2, self.act2 = norm2, activation_of(fill, wide, 1)
        self.channelwise = fill["channelwise"](wide) if "channelwise" in fill else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != wide:
            pool: nn.Module = nn.AvgPool2d(stride, ceil_mode=True) if stride != 1 else nn.Identity()
            self.shortcut = nn.Sequential(pool, nn.Conv2d(c_in, wide, 1, bias=False))
        self.width = channels_after(self.act2, wide)

    @property
    def act(self) -> nn.Module:
        """The last activation."""
        return self.act2

    def pre(self, x_BCHW: Tensor) -> Tensor:
        """What the last activation reads."""
        h = self.act1(self.norm1(self.conv1(x_BCHW)))
        return self.channelwise(self.norm2(self.conv2(h))) + self.shortcut(x_BCHW)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.act2(self.pre(x_BCHW))


@final
class Pool(nn.Module):
    """(B, C, H, W) -> linear map of the mean over H and W."""

    def __init__(self, channels: int, d_out: int, fill: Mapping[str, Factory]) -> None:
        super().__init__()
        self.linear = linear_of(fill, ("head",), channels, d_out)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.linear(x_BCHW.mean((-2, -1)))


class ConvNet(Blocks):
    """A residual convolutional net: a 3 x 3 stem, then one Residual a width; every block but the first halves H and W.

    image: (C, H, W) of the input; stride: of the first block (2 makes the whole net about four times cheaper).
    """

    def __init__(
        self, image: tuple[int, int, int], d_out: int, widths: Sequence[int], fill: Mapping[str, Factory], stride: int = 1
    ) -> None:
        c, h, w = image
        blocks: list[nn.Module] = []
        shapes = []
        for i, width in enumerate(widths):
            step = stride if i == 0 else 2
            if i == 0:
                stem = max(8, width // 2)
                norm, block = norm_of(fill, stem, 1), Residual(stem, width, step, fill)
                blocks.append(nn.Sequential(nn.Conv2d(c, stem, 3, 1, 1, bias=needs_bias(norm)), norm, block))
            else:
                block = Residual(c, width, step, fill)
                blocks.append(block)
            c = block.width
            h, w = -(-h // step), -(-w // step)
            shapes.append((c, h, w))
        super().__init__(blocks, Pool(c, d_out, fill), shapes)


def convnet(problem: Problem, widths: Sequence[int], fill: Mapping[str, Factory], stride: int) -> ConvNet:
    return ConvNet(problem.input, problem.output[-1], widths, fill, stride)  # type: ignore[arg-type]


Image = list[list[list[float]]]  # [row][column][channel]


def taps(conv: Any, image: Image, stride: int) -> Image:
    """A 3 x 3 convolution with a border of zeros, a tap at a time."""
    weight, out = conv.weight.tolist(), []
    bias = [0.0] * len(weight) if conv.bias is None else conv.bias.tolist()
    for i in range(0, len(image), stride):
        out.append([list(bias) for _ in range(0, len(image[0]), stride)])
        for j, sums in enumerate(out[-1]):
            for a in range(i - 1, i + 2):
                for b in range(j * stride - 1, j * stride + 2):
                    if 0 <= a < len(image) and 0 <= b < len(image[0]):
                        for o, kernels in enumerate(weight):
                            for value, kernel in zip(image[a][b], kernels, strict=True):
                                sums[o] += value * kernel[a - i + 1][b - j * stride + 1]
    return out


def averaged(image: Image, size: int) -> Image:
    """Means of windows of size x size; those at the edge are of what is left."""
    out = []
    for i in range(0, len(image), size):
        line = []
        for j in range(0, len(image[0]), size):
            window = [channels for beside in image[i : i + size] for channels in beside[j : j + size]]
            line.append([sum(values) / len(window) for values in zip(*window, strict=True)])
        out.append(line)
    return out


def each(module: Any, image: Image) -> Image:
    return [[by_hand(module, channels) for channels in line] for line in image]


def reference(net: Any, x: Tensor) -> Tensor:
    """An image, a position and a tap at a time."""
    out = []
    for planes in x.tolist():
        image = [[list(channels) for channels in zip(*lines, strict=True)] for lines in zip(*planes, strict=True)]
        for k, block in enumerate(net.blocks):
            stride = 2
            if k == 0:
                stem, norm, block = block
                image = each(norm, taps(stem, image, 1))
                stride = block.conv1.stride[0]
            h = each(block.act1, each(block.norm1, taps(block.conv1, image, stride)))
            h = each(block.channelwise, each(block.norm2, taps(block.conv2, h, 1)))
            if stride > 1 or len(image[0][0]) != len(h[0][0]):
                mix = block.shortcut[1].weight[:, :, 0, 0].tolist()
                image = [
                    [[sum(w * v for w, v in zip(row, channels, strict=True)) for row in mix] for channels in line]
                    for line in averaged(image, stride)
                ]
            sums = [
                [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(*lines, strict=True)]
                for lines in zip(h, image, strict=True)
            ]
            image = each(block.act2, sums)
        out.append(by_hand(net.readout.linear, averaged(image, max(len(image), len(image[0])))[0][0]))
    return torch.tensor(out, dtype=torch.float64)


def cases() -> tuple[Case, ...]:
    """Heights and widths that two doesn't divide, a block that keeps its input's channels, and a strided first block."""
    return (
        Case(problem("image", (2, 5, 4), (3,)), (8, 5), rows(3, 2, 5, 4)),
        Case(problem("image", (1, 3, 6), (2,)), (4, 4, 3), rows(3, 1, 3, 6), {"stride": 3}),
    )


PART = net(
    convnet,
    reference=reference,
    cases=cases,
    paper=Paper(
        title="Deep Residual Learning for Image Recognition",
        authors="Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun",
        year=2016,
        arxiv="1512.03385",
    ),
    takes=frozenset({"image"}),
    tags=Tags(channels_last=True),  # on a CPU, 1.4 times
    places=("activation", "mlp", "norm", "conv", "channelwise", "head"),
    options=(Option("stride", 1, "of the first block; 2 makes the whole net about four times cheaper", bounds=(0, 5)),),
    deviations=(
        "one block a width, its shortcut an average over the stride and a 1 x 1 convolution",
        "a stem of half the first width",
    ),
)
