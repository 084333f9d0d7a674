"""The kind `task`: data, problem, host and budget. A task decides all of these; a part can change none of them."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.kinds import Kind
from netwright.part import BadInput, Claim, Option, Paper, Part

SIZES = ("small", "full")


@final
@dataclass(frozen=True)
class Problem:
    """What is to be learnt and how it is scored.

    loss(out, y) -> scalar, the mean over the batch. metric(out, y) -> float over a whole split.
    input, output: shapes of one example, without the batch dimension. classes: their number, or None.
    worst: the score of a failed run. delta: the smallest difference in the metric that matters.
    gives: what rules may ask for, e.g. {"labels", "vector"}.
    encode(y) -> float targets of the output's shape (one-hot for labels), for rules that compare with a target.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    metric: Callable[[Tensor, Tensor], float]
    metric_name: str
    higher_is_better: bool
    worst: float
    delta: float
    input: tuple[int, ...]
    output: tuple[int, ...]
    classes: int | None = None
    gives: frozenset[str] = frozenset()
    encode: Callable[[Tensor], Tensor] | None = None

    def better(self, a: float, b: float) -> bool:
        """Whether score a is strictly better than score b; NaN is never better."""
        return a > b if self.higher_is_better else a < b


@final
@dataclass(frozen=True, eq=False)
class Data:
    """A pool of examples in memory and the three disjoint sets of indices into it. y may equal x's targets (N, ...)."""

    x: Tensor
    y: Tensor
    train: Tensor
    val: Tensor
    test: Tensor

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        """(x, y) of one split, in the split's order."""
        index = getattr(self, name)
        return self.x[index], self.y[index]


@final
@dataclass(frozen=True, eq=False)
class Task:
    """A task at one size, ready to run.

    data(seed) -> Data. net(fill, widths) -> the host, built on the current default device; `fill` maps slot names to
    factories (channels, channel_dim) -> module. widths: the host's knobs for matching. lr: rule family -> (lowest,
    highest, published rate). evals: steps after which validation is scored; the last is `steps`.
    foreign: the host is a user's model: it is built inside fork_rng and arms are made by swap.
    """

    id: str
    name: str
    version: str
    size: str
    problem: Problem
    data: Callable[[int], Data]
    net: Callable[..., nn.Module]
    widths: tuple[int, ...]
    steps: int
    batch: int
    lr: Mapping[str, tuple[float, float, float]]
    evals: tuple[int, ...]
    slots: Mapping[str, str]
    control: str = ""
    optimizer: str = "adam"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    schedule: str = "constant"
    weight_decay: tuple[float, float] | float = 0.0  # a pair makes it a tuning dimension (log)
    clip: float | None = None
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    summary: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    foreign: bool = False
    per_seed_data: bool = False
    swap_slot: Any = None
    source_hash: str = ""
    host: str = "mlp"

    def data_hash(self) -> str:
        """Hash of the pool of seed 0: it belongs to the job key, so that other data is another study."""
        return tensor_hash(self.data(0).x, self.data(0).y)


def tensor_hash(*tensors: Tensor) -> str:
    """SHA-256 of dtype, shape and bytes, shortened to 16 hex digits."""
    h = hashlib.sha256()
    for t in tensors:
        h.update(f"{t.dtype}{tuple(t.shape)}".encode())
        h.update(t.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if t.numel() else b"")
    return h.hexdigest()[:16]


def eval_grid(steps: int, points: int = 10) -> tuple[int, ...]:
    """`points` evenly spaced steps ending at `steps`."""
    return tuple(sorted({max(1, round(steps * (i + 1) / points)) for i in range(points)}))


@final
@dataclass(frozen=True)
class TaskPart(Part):
    """A task of the house. `build(size=, **options)` makes it ready to run."""

    make: Callable[..., Task] | None = None

    @property
    def kind(self) -> str:
        return "task"

    def slots(self) -> tuple[str, ...]:
        return ()

    def build(self, **options: Any) -> Task:
        """The Task at one size. Raises BadInput where its data can't be found, saying how to provide it."""
        assert self.make is not None
        return self.make(**self.resolve(options))


def task_part(
    make: Callable[..., Task],
    *,
    paper: Paper,
    name: str = "",
    summary: str = "",
    tags: Any = None,
    options: tuple[Option, ...] = (),
    claims: tuple[Claim, ...] = (),
    deviations: tuple[str, ...] = (),
) -> TaskPart:
    """Declare a task: make(size=, host=, ...) -> Task. Every task has sizes small and full."""
    source: Any = inspect.getmodule(make)
    every = (Option("size", "small", "how much data and how long", allowed=SIZES),)
    return TaskPart(
        name=name or make.__name__.replace("_", "-"), paper=paper,
        summary=summary or (source.__doc__ or "").strip().split("\n")[0], tags=tags,
        options=every + options, claims=claims, deviations=deviations, module=make.__module__, make=make,
    )  # fmt: skip


def require(condition: bool, text: str) -> None:
    """Raise BadInput(text) unless the condition holds."""
    if not condition:
        raise BadInput(text)


KIND = Kind("task", "tasks", "data, problem, host and budget")
