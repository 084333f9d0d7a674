"""What can be trained: a Problem (what is learnt and how it is scored), Data, and a Task ready to run; metrics and encodings.

Encodings work under torch.func.vmap and torch.compile. Shape suffixes: B batch, N rows of a split, L positions, K classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.errors import BadInput, require
from netwright.core.kind import HOST, LOSS
from netwright.tensor.streams import permutation


@final
@dataclass(frozen=True)
class Problem:
    """What is to be learnt and how it is scored.

    objective: what training lowers: a loss of the catalogue as text, "" for the usual one of what the problem gives, or a
    function of the user's, objective(out, y) -> scalar, the mean over the batch. metric(out, y) -> float over a whole split.
    input, output: shapes of one example, without the batch dimension. classes: their number, or None.
    worst: the score of a failed run. delta: the smallest difference in the metric that matters.
    gives: what rules may ask for, e.g. {"labels", "vector"}.
    encode(y) -> float targets of the output's shape (one-hot for labels), for rules that compare with a target.
    vocabulary: how many tokens there are, where examples are tokens and the classes don't say it.
    """

    objective: str | Callable[[Tensor, Tensor], Tensor]
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
    vocabulary: int | None = None

    @staticmethod
    def classification(shape: tuple[int, ...], classes: int, delta: float = 0.01) -> Problem:
        """Cross-entropy and accuracy on vectors (D,) or images (C, H, W). A failed run scores 0: it predicts nothing."""
        return Problem(
            "",
            accuracy,
            "accuracy",
            higher_is_better=True,
            worst=0.0,
            delta=delta,
            input=shape,
            output=(classes,),
            classes=classes,
            gives=frozenset({"labels", "vector" if len(shape) == 1 else "image"} | ({"two classes"} if classes == 2 else set())),
            encode=partial(one_hot, classes=classes),
        )

    @staticmethod
    def regression(shape: tuple[int, ...], outputs: int, worst: float, delta: float) -> Problem:
        """Mean squared error of real targets (outputs,) of vectors (D,)."""
        return Problem(
            "",
            mse,
            "mean squared error",
            higher_is_better=False,
            worst=worst,
            delta=delta,
            input=shape,
            output=(outputs,),
            gives=frozenset({"targets", "vector"}),
            encode=same,
        )

    def loss(self, out: Tensor, y: Tensor, of: Sequence[Tensor | float] | None = None) -> Tensor:
        """What training lowers, a scalar: the mean over the batch. Works under vmap, grad and the compiler.

        of: `totals` of a whole step, of which this batch is a piece: the losses of its pieces then add up to its own. Raises
        Misfit for a loss that reads all examples together.
        """
        return self._computes[0](out, y) if of is None else self._computes[1](out, y, of=of)

    def totals(self, out: Tensor, y: Tensor) -> tuple[Tensor | float, ...]:
        """The sums of weights of a step's losses, known from y: out may be zeros of the outputs' shape."""
        return self._computes[2](out, y)

    @cached_property
    def lowers(self) -> str:
        """The loss of the catalogue that training lowers, as text; "" where it is a function of the user's."""
        if not isinstance(self.objective, str):
            return ""
        every: list[Any] = [] if self.objective else catalogue.parts(catalogue.kind_with(LOSS))
        return self.objective or next(part.id for part in every if part.tags.usual in self.gives)

    @cached_property
    def _computes(self) -> tuple[Callable[..., Tensor], Callable[..., Tensor], Callable[..., tuple[Tensor | float, ...]]]:
        """(mean of a batch, share of a step, totals of a step)."""
        if not isinstance(self.objective, str):
            return self.objective, partial(_share, self.objective), _rows
        part: Any
        part, options = catalogue.parse(self.lowers, catalogue.kind_with(LOSS))
        given = part.resolve(options)
        whole = part.mean if part.mean is not None and not options else partial(part.of_batch, **given)
        return whole, partial(part.of_batch, **given), partial(part.totals, **given)

    def better(self, a: float, b: float) -> bool:
        """Whether score a is strictly better than score b; NaN is never better."""
        return a > b if self.higher_is_better else a < b


def _rows(out: Tensor, y: Tensor) -> tuple[float, ...]:
    return (float(len(out)),)


def _share(mean: Callable[[Tensor, Tensor], Tensor], out: Tensor, y: Tensor, of: Sequence[Tensor | float]) -> Tensor:
    """What a piece adds to a step's mean of a function that knows only means: as many rows as it has of them all."""
    return mean(out, y) * (len(out) / of[0]) if len(out) else 0 * out.sum()


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


def in_a_slot(fill: Mapping[str, Any], widths: tuple[int, ...]) -> nn.Module:
    """The net of a task that names none."""
    raise BadInput(f"no net given; name one, or put one into the slot {HOST!r}")


@final
@dataclass(frozen=True, eq=False)
class Task:
    """A task at one size, ready to run.

    data(seed) -> Data. net(fill, widths) -> the host, built on the current default device; `fill` maps places to factories.
    widths: the host's knobs for matching. lr: (lowest, highest, published rate) of backpropagation with the task's optimizer,
    on which rules declare factors. evals: steps after which validation is scored; the last is `steps`.
    slots: slot -> the part that fills it by default, as text; "" where nothing does. Every run has a rule, an optimizer and a
    schedule: they are named here ("optimizer/adamw:beta2=0.99"), or the last two are the usual ones. host: id of the net, ""
    for a model of the user's own. A task whose slots name a net (netwright.core.kind.HOST) lets arms choose it, and has
    neither net nor host.
    foreign: the host is a user's model: it is built inside fork_rng and arms are made by swap.
    """

    id: str
    name: str
    version: str
    size: str
    problem: Problem
    data: Callable[[int], Data]
    widths: tuple[int, ...]
    steps: int
    batch: int
    lr: tuple[float, float, float]
    evals: tuple[int, ...]
    slots: Mapping[str, str]
    net: Callable[..., nn.Module] = in_a_slot
    control: str = ""
    weight_decay: tuple[float, float] | float = 0.0  # a pair makes it a tuning dimension (log)
    clip: float | None = None
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    summary: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    foreign: bool = False
    per_seed_data: bool = False
    swap_slot: Any = None
    source_hash: str = ""
    host: str = ""
    call: str = ""  # "module:name" of a training of the user's own, which takes the place of net, data and budget

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


def eval_grid(steps: int, points: int = 10) -> tuple[int, ...]:
    """`points` evenly spaced steps ending at `steps`."""
    return tuple(sorted({max(1, round(steps * (i + 1) / points)) for i in range(points)}))


# Metrics and encodings ------------------------------------------------------------------------------------------------


def accuracy(out: Tensor, y: Tensor) -> float:
    """Share of rows of out (N, K) whose largest logit is at the label y (N,); rows with a NaN count as wrong."""
    right = (out.argmax(-1) == y) & ~out.isnan().any(-1)
    return right.double().mean().item()


def mse(out: Tensor, y: Tensor) -> float:
    """Mean squared error of a whole split, summed in double precision."""
    return (out.double() - y.double()).square().mean().item()


def nats(out: Tensor, y: Tensor) -> float:
    """Mean cross-entropy of a whole split, averaged in double precision: out (N, L, K), y (N, L)."""
    each = F.cross_entropy(out.flatten(0, -2).float(), y.flatten(), reduction="none")
    return each.double().mean().item()


def one_hot(y: Tensor, classes: int) -> Tensor:
    """Labels (...) as float rows (..., classes). F.one_hot reads the largest label, which vmap forbids."""
    return (y[..., None] == torch.arange(classes, device=y.device)).float()


def same(y: Tensor) -> Tensor:
    """The encoding of real-valued targets: themselves."""
    return y
