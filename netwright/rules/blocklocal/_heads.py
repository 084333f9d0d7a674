"""Linear heads on what a block puts out, and how maps are averaged for them."""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.engine.blocks import Blocks


@final
class Zeroed(nn.Module):
    """A linear map (B, D) -> (B, O) whose weight starts at zero; its bias, if any, is drawn from U(-1, 1) / sqrt(D)."""

    def __init__(self, features: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, features))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        self.weight.zero_()
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight.shape[1])
            self.bias.uniform_(-bound, bound, generator=generator)

    def forward(self, h_BD: Tensor) -> Tensor:
        return F.linear(h_BD, self.weight, self.bias)


@final
class Flat(nn.Module):
    """A block's output as vectors: maps (B, C, H, W) averaged over a grid, then all but the batch flattened to one.

    The grid starts at H x W, or at `side` x `side` where that is smaller, and is halved both ways until at most
    `at_most` values or one cell are left. by_position: (B, L, D) stays as it is. `width`: features of the vectors.
    """

    def __init__(self, shape: tuple[int, ...], at_most: int, side: int | None = None, by_position: bool = False) -> None:
        super().__init__()
        self.grid: tuple[int, int] | None = None
        self.by_position = by_position and len(shape) == 2
        self.width = shape[-1] if self.by_position else math.prod(shape)
        if len(shape) == 3:
            channels, h, w = shape
            rows, columns = min(h, side or h), min(w, side or w)
            while channels * rows * columns > at_most and rows * columns > 1:
                rows, columns = -(-rows // 2), -(-columns // 2)
            self.grid, self.width = (rows, columns), channels * rows * columns

    def forward(self, h: Tensor) -> Tensor:
        if self.by_position:
            return h
        if self.grid is not None and h.shape[-2:] != self.grid:
            h = F.adaptive_avg_pool2d(h, self.grid)
        return h.flatten(1)


def map_readout(net: Blocks, outputs: int, at_most: int, side: int | None = None) -> nn.Module | None:
    """A linear map of the last block's output as `Flat` gives it, where that is maps; otherwise None: the host's readout.

    Of maps a host's readout reads the means alone, and a loss on whole maps need not tell classes apart by their means.
    It is left as it was drawn then.
    """
    if len(net.shapes[-1]) != 3:
        return None
    net.readout.requires_grad_(False)
    flat = Flat(net.shapes[-1], at_most, side)
    return nn.Sequential(flat, nn.Linear(flat.width, outputs))
