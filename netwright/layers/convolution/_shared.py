"""What convolutions share: their output sizes, groups of frequencies, and for second writings sums over windows and waves.

Shape suffixes: B rows, C channels, O outputs, S all of space, K taps of a kernel.
"""

from __future__ import annotations

import cmath
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from netwright.layers._kind import per_axis

#: A band of frequencies ends at this share of the sampling rate.
CUTS = (1 / 4, 1 / 8, 1 / 16)


def extents(space: Sequence[int], sizes: Any) -> list[int]:
    """Positions in space after a convolution, from those before and its four sizes; whole numbers of torch.export too."""
    each = (per_axis(sizes[name], len(space)) for name in ("kernel_size", "stride", "padding", "dilation"))
    return [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(space, *each, strict=True)]


def low_passes(x_BCHW: Tensor) -> list[Tensor]:
    """x without the frequencies whose larger component is above a cut, for every cut."""
    h, w = x_BCHW.shape[-2:]
    rows, columns = torch.fft.fftfreq(h, device=x_BCHW.device), torch.fft.rfftfreq(w, device=x_BCHW.device)
    radius_HF = torch.maximum(rows.abs()[:, None], columns)
    spectrum = torch.fft.rfft2(x_BCHW)
    return [torch.fft.irfft2(spectrum * (radius_HF < cut + 1e-6), s=(h, w)) for cut in CUTS]


def radial_groups(rows: int, columns: int, groups: int) -> Tensor:
    """(rows, columns // 2 + 1): the frequencies of a real matrix in groups by their distance from 0, of about one size."""
    f, g = torch.fft.fftfreq(rows, dtype=torch.float64), torch.fft.rfftfreq(columns, dtype=torch.float64)
    order = (f[:, None] ** 2 + g**2).flatten().argsort(stable=True)
    found = torch.empty_like(order)
    found[order] = torch.arange(len(order)) * groups // len(order)
    return found.view(rows, -1)


# References -----------------------------------------------------------------------------------------------------------


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(v * u for v, u in zip(a, b, strict=True))


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


def wave(turns: float) -> complex:
    return cmath.exp(2j * cmath.pi * turns)


def real_matrix(half: list[list[complex]], columns: int) -> list[list[float]]:
    """The real matrix of a two-dimensional spectrum, of which columns // 2 + 1 columns are held, as a sum of waves."""
    rows, made = len(half), []
    for r in range(rows):
        across = [sum(half[f][t] * wave(f * r / rows) for f in range(rows)) / rows for t in range(len(half[0]))]
        twice = [1 if f == 0 or 2 * f == columns else 2 for f in range(len(across))]
        made.append([
            sum(n * (v * wave(f * t / columns)).real for f, (n, v) in enumerate(zip(twice, across, strict=True))) / columns
            for t in range(columns)
        ])  # fmt: skip
    return made


def low_frequencies(image: list[list[float]], cut: float) -> list[list[float]]:
    """An image without the frequencies that are above the cut on either axis: what every place gives to every other."""
    shares = []
    for size in (len(image), len(image[0])):
        kept = [f for f in range(-(size // 2), (size + 1) // 2) if abs(f) / size <= cut + 1e-6]
        shares.append([sum(wave(f * d / size).real for f in kept) / size for d in range(size)])
    down, along = shares
    at = [(i, j, v) for i, line in enumerate(image) for j, v in enumerate(line)]
    return [[sum(down[p - i] * along[q - j] * v for i, j, v in at) for q in range(len(along))] for p in range(len(down))]


def soft(v: float) -> float:
    return 2 / (1 + math.exp(-v))


def convolved(row_CS: Tensor, lines: list[list[float]], sizes: Any) -> Tensor:
    """The products (O, *space) of what lies under the kernel, as one list, with every line."""
    return one_by_windows(row_CS, sizes, lambda under: [dot(line, flat(under)) for line in lines])


def banded(row_CHW: Tensor, weights: list[Any], biases: list[float]) -> Tensor:
    """The bands of an image, the lowest last, each but that one times a factor a place that a 3 x 3 kernel gives."""
    around = {"kernel_size": 3, "stride": 1, "padding": 1, "dilation": 1}
    y, above = torch.zeros_like(row_CHW), row_CHW
    for weight, bias, cut in zip(weights, biases, CUTS, strict=True):
        lines = [list(itertools.chain.from_iterable(line for channel in weight for line in channel))]
        logit_1HW = convolved(row_CHW, lines, around) + bias
        below = torch.tensor([low_frequencies(image, cut) for image in row_CHW.tolist()], dtype=torch.float64)
        y, above = y + 2 / (1 + (-logit_1HW).exp()) * (above - below), below
    return y + above
