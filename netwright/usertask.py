"""Your own task: your model, your data, your metric; arms are made by swapping parts into the model.

    task = netwright.task("mine", model=build, train=(x, y), val=(xv, yv), test=(xt, yt), loss=F.cross_entropy,
                          metric=accuracy, higher_is_better=True, worst=0.0, delta=0.005, steps=1000, batch=64, lr=(1e-4, 1e-2))
    netwright.compare(["default", "golu"], task)
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netwright.kinds.task import Data, Problem, Task, eval_grid
from netwright.names import slug, unknown
from netwright.part import BadInput
from netwright.streams import derive
from netwright.train import OPTIMIZERS, SCHEDULES

SPLITS = ("train", "val", "test")


def task(
    name: str,
    *,
    model: Callable[[], nn.Module] | None = None,
    train: Any = None,
    val: Any = None,
    test: Any = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    metric: Callable[[Tensor, Tensor], float] | None = None,
    higher_is_better: bool | None = None,
    worst: float | None = None,
    delta: float | None = None,
    steps: int | None = None,
    batch: int | None = None,
    lr: tuple[float, float] | None = None,
    slot: Any = nn.GELU,
    metric_name: str = "",
    optimizer: str = "adam",
    schedule: str = "constant",
    weight_decay: float = 0.0,
    clip: float | None = None,
    evals: int = 10,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    version: str = "1",
) -> Task:
    """A task of your own.

    model: a function without arguments that builds the nn.Module, anew at every call.
    train, val, test: (x, y) tensors with examples along dim 0, a Dataset of (x, y) pairs, or a function of the seed that
        returns either. Data is held in memory.
    loss(out, y) -> scalar; metric(out, y) -> float over a whole split. worst: the metric of a failed run. delta: the
        smallest difference in the metric that matters to you.
    lr: (lowest, highest) rate that is tuned in; untuned runs take their geometric mean.
    slot: what arms replace, as netwright.swap takes it: a module type, a path pattern, a function (path, module) -> bool.
    augment(x, generator) -> x, of every training batch. version: raise it when the model or the loss changes in a way
        that their own source doesn't show.

    Everything is tried once before anything runs: raises BadInput naming the argument, or the split and column of a NaN.
    """
    given = dict(model=model, train=train, val=val, test=test, loss=loss, metric=metric, higher_is_better=higher_is_better,
                 worst=worst, delta=delta, steps=steps, batch=batch, lr=lr)  # fmt: skip
    missing = [field for field, value in given.items() if value is None]
    if missing:
        raise BadInput(f"task {name!r} lacks {', '.join(f'{m}=' for m in missing)}; every field decides a comparison, so none is guessed")
    assert model and loss and metric and worst is not None and delta is not None and steps and batch and lr
    for field, call in (("model", model), ("loss", loss), ("metric", metric)):
        if not callable(call):
            raise BadInput(f"task {name!r}: {field}={call!r} can't be called; give a function{' that builds it' if field == 'model' else ''}")
    _numbers(name, worst, delta, steps, batch, lr)
    for what, value, known in (("optimizer", optimizer, OPTIMIZERS), ("schedule", schedule, SCHEDULES)):
        if value not in known:
            raise unknown(what, value, known, owner=f"task {name!r}")
    splits = {"train": train, "val": val, "test": test}
    per_seed = any(callable(s) and not hasattr(s, "__getitem__") for s in splits.values())

    @cache
    def data(seed: int) -> Data:
        return _data(name, splits, seed)

    def read(seed: int) -> Data:
        return data(seed if per_seed else 0)

    first = read(0)
    problem = _problem(name, model, first, loss, metric, metric_name, bool(higher_is_better), float(worst), float(delta))
    lo, hi = float(lr[0]), float(lr[1])
    safe = slug(name)
    return Task(
        id=f"task/{safe}", name=safe, version=version, size="full", problem=problem, data=read, net=model, widths=(),
        steps=steps, batch=min(batch, len(first.train)), lr={family: (lo, hi, math.sqrt(lo * hi)) for family in ("backprop", "local", "feedback")},
        evals=eval_grid(steps, evals), slots={"activation": "", "rule": "rule/backprop"}, optimizer=optimizer, schedule=schedule,
        weight_decay=weight_decay, clip=clip, augment=augment, summary=f"{name}: a model and data of your own", foreign=True,
        per_seed_data=per_seed, swap_slot=slot, source_hash=_source_hash(model, loss, metric, augment, slot), host="own",
    )  # fmt: skip


def _numbers(name: str, worst: float, delta: float, steps: int, batch: int, lr: Any) -> None:
    for field, number in (("steps", steps), ("batch", batch)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise BadInput(f"task {name!r}: {field}={number!r}; expected a whole number of at least 1")
    if math.isnan(worst):
        raise BadInput(f"task {name!r}: worst is NaN; give the score that a failed run gets, e.g. 0.0 for an accuracy")
    if not delta >= 0 or math.isinf(delta):
        raise BadInput(f"task {name!r}: delta={delta!r}; expected a finite number of at least 0, in the metric's units")
    ordered = isinstance(lr, (tuple, list)) and len(lr) == 2 and all(isinstance(v, (int, float)) for v in lr) and 0 < lr[0] < lr[1]
    if not ordered:
        raise BadInput(f"task {name!r}: lr={lr!r}; expected (lowest, highest) with 0 < lowest < highest")


def _tensors(name: str, split: str, value: Any, seed: int) -> tuple[Tensor, Tensor]:
    """One split as (x, y) tensors, checked."""
    where = f"task {name!r}, {split}"
    if callable(value) and not hasattr(value, "__getitem__"):
        value = value(seed)
    if not isinstance(value, (tuple, list)) and hasattr(value, "__len__") and hasattr(value, "__getitem__"):
        pairs = [value[i] for i in range(len(value))]
        if not pairs or not all(isinstance(p, (tuple, list)) and len(p) == 2 for p in pairs):
            raise BadInput(f"{where}: a Dataset has to hold (x, y) pairs, and at least one")
        value = tuple(torch.stack([torch.as_tensor(p[k]) for p in pairs]) for k in (0, 1))
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise BadInput(f"{where} is {type(value).__name__}; expected (x, y) tensors, a Dataset of pairs, or a function of the seed")
    x, y = (torch.as_tensor(v) for v in value)
    if x.dim() < 1 or y.dim() < 1 or len(x) != len(y) or len(x) == 0:
        raise BadInput(f"{where}: x has shape {tuple(x.shape)} and y {tuple(y.shape)}; expected as many rows in both, at least one")
    for label, t in (("x", x), ("y", y)):
        if t.is_floating_point() and not bool(torch.isfinite(t).all()):
            bad = (~torch.isfinite(t)).nonzero()
            place = f"column {', '.join(map(str, bad[0, 1:].tolist()))}" if t.dim() > 1 else f"row {bad[0, 0].item()}"
            raise BadInput(f"{where}: {label} holds {len(bad)} NaN or infinite values, the first in {place}; clean or drop them")
    return (x.float() if x.dtype == torch.float64 else x), (y.float() if y.dtype == torch.float64 else y)


def _data(name: str, splits: Mapping[str, Any], seed: int) -> Data:
    """The three splits as one pool and indices."""
    pairs = [_tensors(name, split, splits[split], seed) for split in SPLITS]
    for label, k in (("x", 0), ("y", 1)):
        kinds = {(tuple(p[k].shape[1:]), p[k].dtype) for p in pairs}
        if len(kinds) > 1:
            shown = "; ".join(f"{s}: {tuple(p[k].shape[1:])} {p[k].dtype}" for s, p in zip(SPLITS, pairs, strict=True))
            raise BadInput(f"task {name!r}: {label} differs between the splits ({shown}); one example has one shape and dtype")
    sizes = [len(x) for x, _ in pairs]
    index = torch.arange(sum(sizes)).split(sizes)
    return Data(torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]), *index)


def _problem(
    name: str, model: Callable[[], nn.Module], data: Data, loss: Any, metric: Any, metric_name: str, higher: bool, worst: float, delta: float
) -> Problem:
    """Try the model, the loss and the metric on a few rows, and say which of them is wrong."""
    x, y = data.x[data.train[:4]], data.y[data.train[:4]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(0, "init"))
        net = model()
        if not isinstance(net, nn.Module):
            raise BadInput(f"task {name!r}: model() returned {type(net).__name__}; expected an nn.Module")
        try:
            out = net(x)
        except Exception as error:
            raise BadInput(f"task {name!r}: the model can't take x of shape {tuple(x.shape)}: {_last(error)}") from error
    if not isinstance(out, Tensor) or out.dim() < 1 or len(out) != len(x):
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise BadInput(f"task {name!r}: for {len(x)} rows the model returned {shape}; expected a tensor with {len(x)} rows")
    try:
        value = loss(out, y)
    except Exception as error:
        raise BadInput(
            f"task {name!r}: loss(out, y) fails for out of shape {tuple(out.shape)} and y {tuple(y.shape)} {y.dtype}: {_last(error)}"
        ) from error
    if not isinstance(value, Tensor) or value.dim() != 0 or not value.requires_grad:
        got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) and value.dim() else "no differentiable scalar"
        raise BadInput(f"task {name!r}: loss(out, y) gave {got}; expected one differentiable number, the mean over the batch")
    try:
        score = float(metric(out.detach(), y))
    except Exception as error:
        raise BadInput(f"task {name!r}: metric(out, y) has to return one number: {_last(error)}") from error
    if math.isnan(score):
        raise BadInput(f"task {name!r}: metric(out, y) is NaN for a new model; a score has to be a number")
    gives = {"tokens" if not x.is_floating_point() else {2: "vector", 4: "image"}.get(x.dim(), "tensor")}
    gives.add("targets" if y.is_floating_point() else "labels")
    classes = out.shape[-1] if not y.is_floating_point() else None
    return Problem(
        loss, metric, metric_name or getattr(metric, "__name__", "metric").strip("<>"), higher, worst, delta, tuple(x.shape[1:]),
        tuple(out.shape[1:]), classes, frozenset(gives), None,
    )  # fmt: skip


def _last(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _source_hash(*things: Any) -> str:
    """Hash of the source of the user's functions, so that an edit makes new jobs."""
    pieces = []
    for thing in things:
        try:
            pieces.append(inspect.getsource(thing))
        except (OSError, TypeError):
            pieces.append(repr(type(thing)) if thing is not None else "")
    return hashlib.sha256("\n".join(pieces).encode()).hexdigest()[:16]


def load_file(ref: str) -> Task:
    """The task NAME of "path/to/file.py:NAME" (NAME defaults to TASK). Runs that file, and only where it is asked for.

    The hash of the whole file belongs to the job key. Raises BadInput or UnknownName, saying what the file holds.
    """
    import dataclasses

    head, _, name = ref.partition(":")
    path = Path(head)
    if not path.is_file():
        raise BadInput(f"there is no task file {head!r}; give path/to/file.py:NAME")
    source = path.read_bytes()
    stamp = hashlib.sha256(source).hexdigest()[:16]
    module_name = f"netwright_task_{stamp}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BadInput:
        raise
    except Exception as error:
        del sys.modules[module_name]
        raise BadInput(f"{head} can't be run: {type(error).__name__}: {_last(error)}") from error
    held = {k: v for k, v in vars(module).items() if isinstance(v, Task)}
    if (name or "TASK") not in held:
        raise unknown("task", name or "TASK", held, owner=head)
    return dataclasses.replace(held[name or "TASK"], source_hash=stamp)
