"""What a swap does to the numbers on an example: at each place, and at the model's output."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from netwright.core.errors import Misfit
from netwright.surgery.sites import Place
from netwright.surgery.untouched import call, quiet
from netwright.tensor.tap import tapped


def tensors(value: Any) -> Iterator[Tensor]:
    """The floating tensors in an output, in order: nested lists, tuples, mappings and data classes are opened."""
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for entry in fields(value):
            yield from tensors(getattr(value, entry.name))


def same(before: Any, after: Any) -> bool:
    """Whether two outputs are equal to the last bit (NaN equals NaN)."""
    a, b = list(tensors(before)), list(tensors(after))
    return len(a) == len(b) and all(
        x.shape == y.shape and x.dtype == y.dtype and bool(((x == y) | (x.isnan() & y.isnan())).all())
        for x, y in zip(a, b, strict=True)
    )


def drift(before: Any, after: Any) -> float | None:
    """RMS(after - before) / RMS(before), over all elements of all tensors of an output; None where it has no meaning.

    Elements that are equal count as no change even where they are infinite (masks); a difference that isn't finite, or
    one from an output of zeros, gives infinity.
    """
    a, b = list(tensors(before)), list(tensors(after))
    if not a or len(a) != len(b) or any(x.shape != y.shape or x.is_meta or y.is_meta for x, y in zip(a, b, strict=True)):
        return None
    moved = size = 0.0
    for x, y in zip(a, b, strict=True):
        wide = torch.complex128 if x.is_complex() else torch.float64
        x, y = x.detach().to(wide), y.detach().to(wide)
        moved += float(torch.where(x == y, 0.0, (y - x).abs()).square().sum())
        size += float(torch.where(x.isfinite(), x.abs(), 0.0).square().sum())
    if math.isfinite(moved) and size > 0:
        return math.sqrt(moved / size)
    return 0.0 if moved == 0 else math.inf


@final
@dataclass
class _Moments:
    """Number, sum and sum of squares of values that come in pieces."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, y: Tensor) -> None:
        wide = y.detach().double()
        self.n, self.total, self.squares = (
            self.n + wide.numel(),
            self.total + float(wide.sum()),
            self.squares + float(wide.square().sum()),
        )

    def variance(self) -> float:
        return self.squares / self.n - (self.total / self.n) ** 2 if self.n else math.nan


def at_places(net: nn.Module, places: Sequence[Place], example: Any) -> None:
    """Run the example through the old net, and at every place its inputs through the new module too.

    Fills in the places' shapes and variance ratios (evaluation mode; all calls together). Raises Misfit where a new
    module can't take what came.
    """
    by_path = {place.paths[0]: place for place in places}
    inputs: dict[str, list[Any]] = {path: [] for path in by_path}
    moments = {path: (_Moments(), _Moments()) for path in by_path}

    def before(path: str, old: nn.Module, args: Any, kwargs: Any) -> None:  # a clone, since the old module may work in place
        inputs[path].append(tree_map_only(Tensor, torch.clone, (args, kwargs)))

    def after(path: str, old: nn.Module, given: Any, output: Any) -> None:
        place = by_path[path]
        args, kwargs = inputs[path].pop()
        x = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)
        if place.shape is None and x is not None:
            place.shape = tuple(x.shape)
        if place.resized:  # the new module takes other widths
            return
        try:
            with torch.random.fork_rng(devices=[]):
                new = place.new(*args, **kwargs)
        except Exception as error:  # a module of the user's may raise anything
            seen = "" if x is None else f" of shape {tuple(x.shape)}"
            why = f"{type(error).__name__}: {error}"
            raise Misfit(f"nothing was changed: the new module fails at {path} on its input{seen}: {why}") from error
        if isinstance(new, Tensor) and isinstance(output, Tensor) and not (new.is_meta or new.is_complex()):
            for kept, y in zip(moments[path], (output, new), strict=True):
                kept.add(y)

    with ExitStack() as exits:
        exits.enter_context(quiet(net))
        for new in {id(place.new): place.new for place in places}.values():
            exits.enter_context(quiet(new))
        exits.enter_context(tapped({path: place.old for path, place in by_path.items()}, after, before=before))
        call(net, example)
    for path, place in by_path.items():
        old, changed = (kept.variance() for kept in moments[path])
        place.variance_ratio = changed / old if old > 0 and not place.resized else None
