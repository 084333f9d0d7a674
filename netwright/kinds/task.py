"""The kind `task`: data, problem, host and budget. A task decides all of these; a part can change none of them."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.data import images, kept, text
from netwright.graphs import Gcn, Graph, read_graph
from netwright.kinds import Kind
from netwright.losses import accuracy, cross_entropy, mean_squared_error, mse, nats, one_hot, same
from netwright.nets import Blocks, ConvNet, Mlp, TinyTransformer
from netwright.part import BadInput, Claim, Option, Paper, Part
from netwright.streams import generator, permutation

__all__ = [
    "Blocks",
    "ConvNet",
    "Data",
    "Gcn",
    "Graph",
    "Mlp",
    "Problem",
    "Tags",
    "Task",
    "TaskPart",
    "TinyTransformer",
    "accuracy",
    "cross_entropy",
    "eval_grid",
    "generator",
    "host_net",
    "images",
    "kept",
    "mean_squared_error",
    "mse",
    "nats",
    "one_hot",
    "permutation",
    "read_graph",
    "require",
    "same",
    "task_part",
    "tensor_hash",
    "text",
    "three_splits",
]

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

    @staticmethod
    def classification(shape: tuple[int, ...], classes: int, delta: float = 0.01) -> Problem:
        """Cross-entropy and accuracy on vectors (D,) or images (C, H, W). A failed run scores 0: it predicts nothing."""
        return Problem(
            cross_entropy, accuracy, "accuracy", higher_is_better=True, worst=0.0, delta=delta, input=shape,
            output=(classes,), classes=classes, gives=frozenset({"labels", "vector" if len(shape) == 1 else "image"}),
            encode=partial(one_hot, classes=classes),
        )  # fmt: skip

    def better(self, a: float, b: float) -> bool:
        """Whether score a is strictly better than score b; NaN is never better."""
        return a > b if self.higher_is_better else a < b


@final
@dataclass(frozen=True, eq=False)
class Data:
    """A pool of examples in memory and the three disjoint sets of indices into it. y may equal x's targets (N, ...).

    also: what else the data consist of, as the features and edges of a graph whose nodes are the examples.
    """

    x: Tensor
    y: Tensor
    train: Tensor
    val: Tensor
    test: Tensor
    also: tuple[Tensor, ...] = ()

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
        """Hash of the pool of seed 0, taken once: it belongs to the job key, so that other data is another study.

        Examples are hashed as rows, so that one pool has one hash whether a host reads vectors or images.
        """
        if "_hash" not in self.__dict__:
            data = self.data(0)
            object.__setattr__(self, "_hash", tensor_hash(data.x.reshape(len(data.x), -1), data.y, *data.also))
        return self.__dict__["_hash"]


def tensor_hash(*tensors: Tensor) -> str:
    """SHA-256 of dtype, shape and values, shortened to 16 hex digits.

    A view whose elements overlap (the windows of a text) is hashed by its strides and the memory it covers.
    """
    h = hashlib.sha256()
    for t in tensors:
        t = t.detach()
        h.update(f"{t.dtype}{tuple(t.shape)}".encode())
        if not t.numel():
            continue
        covered = 1 + sum((n - 1) * step for n, step in zip(t.shape, t.stride(), strict=True))
        if covered < t.numel():
            h.update(f"strides {t.stride()}".encode())
            t = t.as_strided((covered,), (1,))
        h.update(t.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return h.hexdigest()[:16]


def three_splits(n: int, seed: int, val: int, test: int, train: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Indices (train, val, test) into a pool of n, from one permutation by the seed; train=None takes what is left."""
    order = permutation(n, seed, "split")
    last = n if train is None else val + test + train
    require(0 < val + test < last <= n, f"{val} + {test} + {train or 0} examples asked of a pool of {n}")
    return order[val + test : last], order[:val], order[val : val + test]


def host_net(host: str, problem: Problem, fill: Mapping[str, Any], widths: Sequence[int], stride: int = 1) -> Blocks:
    """The host "mlp" or "convnet" of a problem, its slots filled; with the first two bound it is a Task's `net`."""
    if host == "convnet":
        return ConvNet(problem.input, problem.output[-1], widths, fill, stride)  # type: ignore[arg-type]
    return Mlp(math.prod(problem.input), problem.output[-1], widths, fill)


def eval_grid(steps: int, points: int = 10) -> tuple[int, ...]:
    """`points` evenly spaced steps ending at `steps`."""
    return tuple(sorted({max(1, round(steps * (i + 1) / points)) for i in range(points)}))


@final
@dataclass(frozen=True)
class Tags:
    """reasons: why a contract check doesn't apply to a task, {check name: reason}."""

    reasons: Mapping[str, str] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class TaskPart(Part):
    """A task of the house. `build(size=, **options)` makes it ready to run.

    versions: version -> size -> data hash, the newest last; also "option=value" -> hash, where an option makes other data.
    Data that come from code or a package are checked against it; whoever changes them raises the version.
    """

    make: Callable[..., Task] | None = None
    versions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return "task"

    @property
    def version(self) -> str:
        """The newest version, part of every job key."""
        return list(self.versions)[-1] if self.versions else "1"

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
    tags: Tags | None = None,
    options: tuple[Option, ...] = (),
    claims: tuple[Claim, ...] = (),
    deviations: tuple[str, ...] = (),
    versions: Mapping[str, Mapping[str, str]] | None = None,
) -> TaskPart:
    """Declare a task: make(size=, host=, ...) -> Task. Every task has sizes small and full."""
    source: Any = inspect.getmodule(make)
    every = (Option("size", "small", "how much data and how long", allowed=SIZES),)
    return TaskPart(
        name=name or make.__name__.replace("_", "-"),
        paper=paper,
        summary=summary or (source.__doc__ or "").strip().split("\n")[0],
        tags=tags or Tags(),
        options=every + options,
        claims=claims,
        deviations=deviations,
        module=make.__module__,
        make=make,
        versions=versions or {},
    )


def require(condition: bool, text: str) -> None:
    """Raise BadInput(text) unless the condition holds."""
    if not condition:
        raise BadInput(text)


KIND = Kind("task", "tasks", "data, problem, host and budget")
