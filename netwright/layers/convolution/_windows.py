"""How many places a convolution has and, for second writings, what lies under its kernel at each.

Shape suffixes: B rows, C channels, O outputs, S all of space.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from netwright.layers._kind import per_axis


def extents(space: Sequence[int], sizes: Any) -> list[int]:
    """Positions in space after a convolution, from those before and its four sizes; whole numbers of torch.export too."""
    each = (per_axis(sizes[name], len(space)) for name in ("kernel_size", "stride", "padding", "dilation"))
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(space, *each, strict=True)]


def windows(row_CS: Tensor, sizes: Any) -> Iterator[tuple[tuple[int, ...], list[list[float | None]]]]:
    """Every output position of one row, and what lies under the kernel there: channels of taps, None outside the row."""
    space = tuple(row_CS.shape[1:])
    kernel, stride, padding, dilation = (
        per_axis(sizes[name], len(space)) for name in ("kernel_size", "stride", "padding", "dilation")
    )
    values = row_CS.tolist()
    for place in itertools.product(*map(range, extents(space, sizes))):
        corner = [o * s - p for o, s, p in zip(place, stride, padding, strict=True)]
        under: list[list[float | None]] = [[] for _ in values]
        for tap in itertools.product(*map(range, kernel)):
            at = [c + t * d for c, t, d in zip(corner, tap, dilation, strict=True)]
            inside = all(0 <= a < n for a, n in zip(at, space, strict=True))
            for channel, taps in zip(values, under, strict=True):
                value: Any = channel
                for a in at if inside else ():
                    value = value[a]
                taps.append(value if inside else None)
        yield place, under


def flat(under: list[list[float | None]]) -> list[float]:
    """All that lies under a kernel as one list, 0 outside the row."""
    return [value or 0.0 for channel in under for value in channel]


def one_by_windows(row_CS: Tensor, sizes: Any, at: Callable[[list[list[float | None]]], list[float]]) -> Tensor:
    """y (O, *space) with y[:, place] = at(what lies under the kernel at that place)."""
    found = {place: at(under) for place, under in windows(row_CS, sizes)}
    y = torch.empty(*(n + 1 for n in max(found)), len(found[max(found)]), dtype=torch.float64)
    for place, values in found.items():
        y[place] = torch.tensor(values, dtype=torch.float64)
    return y.movedim(-1, 0)


def by_windows(x_BCS: Tensor, sizes: Any, at: Callable[[list[list[float | None]]], list[float]]) -> Tensor:
    """The same for every row: (B, O, *space)."""
    return torch.stack([one_by_windows(row, sizes, at) for row in x_BCS])
