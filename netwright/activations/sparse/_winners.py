"""The largest entries of a row."""

from __future__ import annotations

import torch
from torch import Tensor

from netwright.core.errors import BadInput


def winners(k: float, size: int) -> int:
    """How many of `size` entries win: the share k where k < 1 (at least one entry), the number k otherwise."""
    if k < 1:
        return max(1, int(k * size))
    if k != int(k):
        raise BadInput(f"k={k!r}; allowed: a share below 1, or a whole number of entries")
    return min(int(k), size)


def largest(x: Tensor, k: float, dim: int) -> tuple[Tensor, Tensor]:
    """A mask of the winners along dim, exactly `winners(k, size)` a row, and the smallest value among them.

    Entries equal to that value win from the front of the row on, as far as there is room.
    """
    count = winners(k, x.shape[dim])
    # The gradient of the threshold, where a part uses it, goes to the entry that topk took for it.
    least = x.topk(count, dim).values.narrow(dim, count - 1, 1)
    above, level = x > least, x == least
    room = count - above.sum(dim, keepdim=True)
    return above | (level & (torch.cumsum(level, dim) <= room)), least
