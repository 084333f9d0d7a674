"""Data a user hands over: pairs of tensors or arrays, Datasets, or functions of the seed, checked and made one pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netwright.core.errors import BadInput, require, unknown
from netwright.core.guard import foreign
from netwright.engine.task import Data
from netwright.tensor.streams import global_draws

SPLITS = ("train", "val", "test")


def same_pool(pool: Data, seed: int) -> Data:
    return pool


def read(source: Any, seed: int) -> Data:
    """The three splits of one seed as one pool."""
    if callable(source):
        source = _drawn("data", source, seed)
        if isinstance(source, Mapping):
            for key in SPLITS:
                if key not in source:
                    raise unknown("split", key, source, owner=f"what data({seed}) returned")
            source = tuple(source[key] for key in SPLITS)
        three = isinstance(source, (tuple, list)) and len(source) == 3
        require(
            three,
            f"data({seed}) returned {shape_of(source)}; expected a dict of train, val and test, or a tuple of them",
        )
    pairs = [
        _pair(f"{key}({seed})", _drawn(key, split, seed), seed) if callable(split) else _pair(key, split, seed)
        for key, split in zip(SPLITS, source, strict=True)
    ]
    (x, y), others = pairs[0], pairs[1:]
    for key, (x2, y2) in zip(SPLITS[1:], others, strict=True):
        for what, ours, theirs in (("x", x, x2), ("y", y, y2)):
            alike = ours.shape[1:] == theirs.shape[1:] and ours.dtype == theirs.dtype
            require(
                alike,
                f"{key} {what} has examples of shape {tuple(theirs.shape[1:])} in {theirs.dtype}, "
                f"but train {what} of {tuple(ours.shape[1:])} in {ours.dtype}",
            )
    ends = np.cumsum([len(pair[0]) for pair in pairs])
    train, val, test = (torch.arange(start, end) for start, end in zip((0, *ends[:-1]), ends, strict=True))
    return Data(torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]), train, val, test)


def _drawn(what: str, function: Any, seed: int) -> Any:
    try:
        with foreign(f"{what}(seed)"), global_draws(seed, "data", what):
            return function(seed)
    except Exception as error:
        raise BadInput(f"{what}({seed}) raised {type(error).__name__}: {error}") from error


def _pair(key: str, split: Any, seed: int) -> tuple[Tensor, Tensor]:
    """One split as tensors; raises BadInput naming it."""
    if isinstance(split, torch.utils.data.IterableDataset):
        raise BadInput(f"{key} is an IterableDataset; expected a pair (x, y), or a Dataset with a length")
    if isinstance(split, torch.utils.data.DataLoader):
        raise BadInput(f"{key} is a DataLoader; give its dataset: batches and their order belong to the bench")
    if isinstance(split, torch.utils.data.TensorDataset):
        split = split.tensors
    elif isinstance(split, torch.utils.data.Dataset):
        try:
            with foreign(f"the Dataset of {key}"), global_draws(seed, "data", key):
                items = [split[i] for i in range(len(split))]  # type: ignore[arg-type]
        except Exception as error:
            raise BadInput(f"{key} is a Dataset that can't be read: {type(error).__name__}: {error}") from error
        require(bool(items), f"{key} is a Dataset without examples")
        require(
            all(isinstance(item, (tuple, list)) and len(item) == 2 for item in items),
            f"{key} is a Dataset whose items aren't pairs (x, y)",
        )
        try:
            split = tuple(torch.stack([torch.as_tensor(item[k]) for item in items]) for k in (0, 1))
        except (RuntimeError, TypeError, ValueError) as error:
            raise BadInput(f"{key}: its examples can't be stacked to one tensor ({error})") from None
    require(isinstance(split, (tuple, list)) and len(split) == 2, f"{key} is {shape_of(split)}; expected a pair (x, y)")
    x, y = (_tensor(f"{key} {what}", value) for what, value in zip("xy", split, strict=True))
    require(len(x) == len(y), f"{key} has {len(x)} rows of x but {len(y)} of y")
    return x, y


def _tensor(what: str, value: Any) -> Tensor:
    try:
        t = value.detach() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadInput(f"{what} is {shape_of(value)}, which is no tensor and can't be made one ({error})") from None
    require(t.dim() >= 1 and len(t) > 0, f"{what} has shape {tuple(t.shape)}; expected examples along the first dimension")
    t = t.float() if t.dtype == torch.float64 else t
    bad = ~torch.isfinite(t) if t.is_floating_point() else torch.zeros(1, dtype=torch.bool)
    if bad.any():
        place = [int(i) for i in bad.nonzero()[0]]
        column = f", column {', '.join(map(str, place[1:]))}" if place[1:] else ""
        raise BadInput(
            f"{what}, row {place[0]}{column} is {t[tuple(place)].item()} ({int(bad.sum())} such values); clean the data"
        )
    return t


def shape_of(value: Any) -> str:
    """What a value is, in a few words."""
    size = (
        f" of shape {tuple(value.shape)}"
        if hasattr(value, "shape")
        else f" of {len(value)}"
        if isinstance(value, (tuple, list, dict))
        else ""
    )
    return f"{type(value).__name__}{size}"
