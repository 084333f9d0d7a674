"""Rows that several splits share: what was trained on, or selected by, is no test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import combinations

import torch
from torch import Tensor

from netwright.engine.task import Data, Task

SPLITS = ("train", "val", "test")
CHUNK = 1024  # rows hashed at once, so that no second copy of the data is made


def shared_rows(task: Task) -> list[str]:
    """A line for every pair of splits of seed 0 with equal rows x, counted in the later split."""
    if "_shared_rows" not in task.__dict__:
        object.__setattr__(task, "_shared_rows", tuple(_lines(task.data(0))))
    return list(task.__dict__["_shared_rows"])


def _lines(data: Data) -> Iterator[str]:
    if data.also or _windows(data.x):  # nodes of one graph, windows of one text: their rows are no examples drawn apart
        return
    rows = {name: list(_hashes(data.x, getattr(data, name))) for name in SPLITS}
    for first, second in combinations(SPLITS, 2):
        known = set(rows[first])
        if n := sum(row in known for row in rows[second]):
            yield f"{n} of {len(rows[second])} rows of {second} are also rows of {first} (seed 0)"


def _windows(x: Tensor) -> bool:
    """Whether rows overlap in memory."""
    return bool(x.numel()) and 1 + sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True)) < x.numel()


def _hashes(x: Tensor, at: Tensor) -> Iterator[bytes]:
    for i in range(0, len(at), CHUNK):
        block = x[at[i : i + CHUNK]].detach().cpu()
        block = block.float() if block.dtype == torch.bfloat16 else block  # which NumPy doesn't know
        for row in block.reshape(len(block), -1).contiguous().numpy():
            # 0.0 and -0.0 are equal, and differ in their bytes
            yield hashlib.blake2b((row + 0).tobytes(), digest_size=16).digest()
