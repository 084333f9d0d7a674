"""An exact forward whose backward is the slope of a few line segments, kept in two bits an element (Yang et al., 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def segment(x: Tensor, breaks: Sequence[float]) -> Tensor:
    """How many of the breaks each x lies above (strictly), as whole numbers."""
    return sum(((x > c).to(torch.uint8) for c in breaks[1:]), (x > breaks[0]).to(torch.uint8))


def slope(code: Tensor, slopes: Sequence[float], dtype: torch.dtype) -> Tensor:
    """The slope of each segment."""
    out = torch.full_like(code, slopes[0], dtype=dtype)
    for k, value in enumerate(slopes[1:], 1):
        out = torch.where(code == k, value, out)
    return out


def with_slope(value: Tensor, x: Tensor, slopes: Tensor) -> Tensor:
    """`value`, bit for bit, with the derivative `slopes` with respect to x."""
    return value.detach() + slopes.detach() * torch.where(x.isfinite(), x - x.detach(), 0.0)


def pack(code: Tensor) -> Tensor:
    """Two bits an element, four elements a byte, the first in the lowest bits: uint8 of ceil(numel / 4)."""
    flat = torch.nn.functional.pad(code.reshape(-1), (0, -code.numel() % 4)).reshape(-1, 4)
    return flat[:, 0] | flat[:, 1] << 2 | flat[:, 2] << 4 | flat[:, 3] << 6


def unpack(packed: Tensor, like: Tensor) -> Tensor:
    """The codes again, in the shape of `like`."""
    four = torch.stack([packed >> shift & 3 for shift in (0, 2, 4, 6)], -1)
    return four.reshape(-1)[: like.numel()].reshape(like.shape)
