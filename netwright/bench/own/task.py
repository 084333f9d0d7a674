"""A task of your own: your model function, your data, your loss and metric. Arms are made by `swap` at a slot.

Everything is looked at once, early, on a dry run of the model, so that a study doesn't fail an hour later.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netwright.bench.own.data import SPLITS, read, same_pool, shape_of
from netwright.bench.own.loop import own_loop
from netwright.bench.own.source import digest_of, named_in, origin_of
from netwright.core.errors import BadInput, NetwrightError, require, slug
from netwright.core.fingerprint import source_hash
from netwright.core.guard import foreign, kept
from netwright.core.kind import LOSS, OPTIMIZER, RULE, SCHEDULE
from netwright.engine.build import Chosen, named
from netwright.engine.task import Data, Problem, Task, eval_grid, one_hot, same, tensor_hash
from netwright.tensor.streams import global_draws


def task(
    name: str,
    *,
    run: str | Callable[..., Any] | None = None,
    model: Callable[[], nn.Module] | None = None,
    train: Any = None,
    val: Any = None,
    test: Any = None,
    data: Callable[[int], Any] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    metric: Callable[[Tensor, Tensor], float] | None = None,
    higher_is_better: bool | None = None,
    worst: float | None = None,
    delta: float | None = None,
    steps: int | None = None,
    batch: int | None = None,
    lr: Sequence[float] | None = None,
    slot: Any = None,
    metric_name: str = "",
    optimizer: str = "adam",
    optimizer_options: Mapping[str, Any] | None = None,
    schedule: str = "constant",
    weight_decay: float | tuple[float, float] = 0.0,
    clip: float | None = None,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    evals: int = 10,
    version: str = "1",
) -> Task:
    """A task made of your own model and data.

    model: a function without arguments that returns a fresh nn.Module of one tensor.
    train, val, test: pairs (x, y) of tensors or arrays with examples along the first dimension, Datasets of such pairs,
        or functions of the seed that return either. data: instead of all three, a function of the seed that returns
        {"train": ..., "val": ..., "test": ...} or a tuple of three. float64 becomes float32.
    loss(out, y) -> scalar tensor, the mean over the batch. metric(out, y) -> float over a whole split.
    worst: the score of a failed run. delta: the smallest difference of the metric that matters, above 0.
    steps, batch: the budget of one run, which is scored on validation `evals` times. lr: (lowest, highest) rate tried;
        a third number is the rate used without tuning (else their geometric mean). An optimizer that finds its own has none.
    optimizer, schedule: names of parts, with options or without: "adam", "muon:momentum=0.9", "warmup-cosine".
    slot: what arms replace: a module type, a path pattern, or whatever else `netwright.swap` takes. None: nothing, arms
        can differ in the learning rule only.
    version: raise it when something changed that the source of your functions doesn't show.
    run: instead of model, data, loss, metric and budget, a training of your own, train(arm, seed, point), or
        "module:train" or "path/to/file.py:train". arm is the text that compare was given; point holds the rate, {"lr": ...},
        where lr= is given. It returns {"validation": v, "test": t, ...}: trials are selected by validation, test is judged,
        every other number is a named value. A plain number is both, and can't be tuned by.
    Python's `random`, NumPy's and torch's global generators are seeded for each run, and for data by the seed. Where the
    first step of an arm draws from elsewhere (a generator of its own without a seed, the clock), two tries of it differ, and
    the report says so; of a training of your own, which can't be tried twice, it doesn't.
    Raises BadInput, naming the argument, for anything that is missing or doesn't fit.
    """
    require(isinstance(name, str) and bool(name.strip()), f"name={name!r}; expected a text to call the task by")
    if run is not None:
        both = {"model": model, "train": train, "val": val, "test": test, "data": data, "loss": loss, "metric": metric}
        both |= {"steps": steps, "batch": batch, "slot": slot, "clip": clip, "augment": augment}
        if clash := [f"{key}=" for key, value in both.items() if value is not None]:
            raise BadInput(
                f"task({name!r}) has run=, a training of your own, and {_and(clash)}, which that decides; leave them out"
            )
        needed = {"higher_is_better": higher_is_better, "worst": worst, "delta": delta}
        if absent := [f"{key}=" for key, value in needed.items() if value is None]:
            raise BadInput(f"task({name!r}) lacks {_and(absent)}")
        _check_numbers(higher_is_better, worst, delta, 1, 1, 1)
        assert higher_is_better is not None and worst is not None and delta is not None  # checked above
        return own_loop(
            name,
            run,
            higher_is_better=higher_is_better,
            worst=worst,
            delta=delta,
            rates=None if lr is None else rates_of(lr),
            metric_name=metric_name,
            version=version,
        )
    given: dict[str, Any] = {
        "model": model,
        "loss": loss,
        "metric": metric,
        "higher_is_better": higher_is_better,
        "worst": worst,
        "delta": delta,
        "steps": steps,
        "batch": batch,
        "lr": lr,
    }
    free = named(OPTIMIZER, str(optimizer)).part.tags.free
    if free:
        given.pop("lr")
        require(
            lr is None, f"optimizer={optimizer!r} finds its own rate; lr={lr!r} is for those that are given one: leave it out"
        )
    given |= {} if data is not None else {"train": train, "val": val, "test": test}
    if absent := [f"{key}=" for key, value in given.items() if value is None]:
        raise BadInput(f"task({name!r}) lacks {_and(absent)}; a task needs {_and([f'{key}=' for key in given])}")
    _check_numbers(higher_is_better, worst, delta, steps, batch, evals)
    steps_by = _optimizer(optimizer, optimizer_options)
    _check_training(schedule, weight_decay, clip)
    require(isinstance(version, str) and bool(version), f"version={version!r}; expected a text, e.g. version='2'")
    for what, function in (("loss", loss), ("metric", metric), ("data", data), ("augment", augment)):
        require(function is None or callable(function), f"{what}={function!r}; expected a function")
    require(
        callable(model) and not isinstance(model, nn.Module),
        f"model is {type(model).__name__}; expected a function that makes a fresh one: model=lambda: Net()",
    )
    low, high, published = (1.0, 1.0, 1.0) if free else rates_of(lr)
    per_seed = data is not None or any(callable(split) for split in (train, val, test))
    require(data is None or (train, val, test) == (None,) * 3, "data= stands instead of train=, val= and test=; give one")
    source = partial(read, data if data is not None else (train, val, test))
    pool = source(0)
    if per_seed:
        again = source(0)
        require(
            tensor_hash(pool.x, pool.y) == tensor_hash(again.x, again.y),
            "data(0) gave other data the second time; draw them from the global generators, or from one seeded with the argument",
        )
    assert model and loss and metric and steps and batch and worst is not None and delta is not None  # checked above
    require(batch <= len(pool.train), f"batch={batch}, but train holds {len(pool.train)} examples")
    seen = _dry_run(model, pool, loss, metric, batch, slot)
    out = seen["out"]
    classes = _classes(out, pool)
    called = metric_name or getattr(metric, "__name__", "metric").replace("_", " ").strip("<>")
    problem = Problem(
        kept("loss", loss),
        kept("metric", metric),
        called,
        bool(higher_is_better),
        float(worst),
        float(delta),
        tuple(pool.x.shape[1:]),
        tuple(out.shape[1:]),
        classes,
        _gives(pool, classes),
        partial(one_hot, classes=classes) if classes else same,
    )
    return Task(
        id=f"task/{slug(name)}",
        name=slug(name),
        version=version,
        size="yours",
        problem=problem,
        data=source if per_seed else partial(same_pool, pool),
        net=model,
        widths=(),
        steps=steps,
        batch=batch,
        lr=(low, high, published),
        evals=eval_grid(steps, evals),
        slots={RULE: "rule/backprop", LOSS: "", OPTIMIZER: str(steps_by), SCHEDULE: str(named(SCHEDULE, schedule))},
        weight_decay=weight_decay,
        clip=clip,
        augment=None if augment is None else kept("augment", augment),
        summary=name,
        foreign=True,
        per_seed_data=per_seed,
        swap_slot=slot,
        source_hash=digest_of(
            seen["model"],
            *(origin_of(f) for f in (model, loss, metric, augment, data, train, val, test) if callable(f)),
            str([len(getattr(pool, key)) for key in SPLITS]),  # the hash of the data doesn't see where a split ends
            str(higher_is_better),
        ),
    )


# Arguments ------------------------------------------------------------------------------------------------------------


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _real(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _check_numbers(higher_is_better: Any, worst: Any, delta: Any, steps: Any, batch: Any, evals: Any) -> None:
    require(isinstance(higher_is_better, bool), f"higher_is_better={higher_is_better!r}; expected True or False")
    for what, value in (("worst", worst), ("delta", delta)):
        require(_real(value), f"{what}={value!r}; expected a finite number, in units of the metric")
    require(delta > 0, f"delta={delta!r}; expected the smallest difference of the metric that matters, above 0")
    for what, value in (("steps", steps), ("batch", batch), ("evals", evals)):
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        require(whole, f"{what}={value!r}; expected a whole number of at least 1")


def _optimizer(text: str, options: Mapping[str, Any] | None) -> Chosen:
    """The optimizer with its options, which text may hold too. torch's betas=(b1, b2) are beta1 and beta2 here."""
    one = named(OPTIMIZER, str(text))
    given = dict(options or {})
    if "betas" in given:
        betas = given.pop("betas")
        pair = isinstance(betas, Sequence) and len(betas) == 2
        require(pair, f"optimizer {text!r}: betas={betas!r}; expected two numbers")
        given |= {"beta1": betas[0], "beta2": betas[1]}
    try:
        one.part.resolve({**one.options, **given})
    except NetwrightError as error:
        raise BadInput(f"optimizer {text!r}: {error}") from None
    return Chosen(one.part, {**one.options, **given})


def _check_training(schedule: str, weight_decay: Any, clip: Any) -> None:
    """The schedule by name, decay and clip."""
    named(SCHEDULE, str(schedule))
    tuned = isinstance(weight_decay, tuple) and len(weight_decay) == 2
    low, high = weight_decay if tuned else (weight_decay, weight_decay)
    fits = _real(low) and _real(high) and (0 < low < high if tuned else low >= 0)
    require(fits, f"weight_decay={weight_decay!r}; expected a number from 0, or (lowest, highest) above 0 to be tuned")
    require(clip is None or (_real(clip) and clip > 0), f"clip={clip!r}; expected a norm above 0, or None")


def rates_of(lr: Any) -> tuple[float, float, float]:
    try:
        low, high, *rest = (float(rate) for rate in lr)
    except (TypeError, ValueError):
        raise BadInput(f"lr={lr!r}; expected (lowest, highest), e.g. lr=(1e-4, 1e-2)") from None
    published = rest[0] if len(rest) == 1 else math.sqrt(max(low * high, 0.0))
    fits = len(rest) <= 1 and 0 < low < high < math.inf and low <= published <= high
    require(fits, f"lr={lr!r}; expected 0 < lowest < highest, and a third number, if any, between them")
    return low, high, published


# The dry run ----------------------------------------------------------------------------------------------------------


def _dry_run(model: Callable[[], Any], pool: Data, loss: Any, metric: Any, batch: int, slot: Any) -> dict[str, Any]:
    """Build, predict, take loss, gradient and metric once; swap at the slot. Gives output and model text"""
    from netwright.surgery.swap import swap

    with global_draws(0, "init"):
        net = _call("model()", model)
        require(isinstance(net, nn.Module), f"model() returned {shape_of(net)}; expected an nn.Module")
        require(any(p.requires_grad for p in net.parameters()), "model() has no parameter to train")
        spare = _call("model()", model)
        require(spare is not net, "model() returned the same module twice; it has to make a fresh one every time")
        x, y = pool.x[pool.train[:batch]], pool.y[pool.train[:batch]]
        shown = f"a batch x of shape {tuple(x.shape)} in {x.dtype}"
        out = _call(f"the model, given {shown},", net, x)
        require(isinstance(out, Tensor), f"the model, given {shown}, returned {shape_of(out)}; expected one tensor")
        require(
            out.dim() >= 1 and len(out) == len(x),
            f"the model made {tuple(out.shape)} of {shown}; expected {len(x)} rows",
        )
        require(bool(torch.isfinite(out).all()), f"the untrained model's output for {shown} isn't finite")
        _classes(out, pool)  # before the loss trips over a label
        outputs = f"outputs {tuple(out.shape)} in {out.dtype} and y {tuple(y.shape)} in {y.dtype}"
        value = _call(f"loss, given {outputs},", loss, out, y)
        scalar = isinstance(value, Tensor) and value.dim() == 0
        require(
            scalar,
            f"loss, given {outputs}, returned {shape_of(value)}; expected a scalar tensor, the mean over the batch",
        )
        require(math.isfinite(value.item()), f"loss, given {outputs}, is {value.item()} on the untrained model")
        require(value.requires_grad, "loss has no gradient: something between the model and the loss detaches")
        _call("the gradient of the loss", value.backward)
        with torch.no_grad():
            net.eval()
            x, y = pool.x[pool.val[:1024]], pool.y[pool.val[:1024]]
            score = _call("metric, given validation outputs,", metric, _call("the model, in evaluation mode,", net, x).float(), y)
        real = isinstance(score, numbers.Real) or (isinstance(score, (Tensor, np.ndarray)) and score.ndim == 0)
        require(real, f"metric returned {shape_of(score)}; expected a float (a mean over the split)")
        require(math.isfinite(float(score)), f"metric is {float(score)} on the untrained model")
        if slot is not None:
            try:
                swap(spare, slot, lambda: nn.Identity(), example=x[:2])
            except NetwrightError as error:
                raise BadInput(f"slot={slot!r}: {error}") from None
    return {"out": out.detach(), "model": repr(net)}


def _call(what: str, function: Callable[..., Any], *args: Any) -> Any:
    """The function's value; whatever it raises is told as a BadInput that says what was tried."""
    try:
        with foreign(what.split(",")[0]):
            return function(*args)
    except Exception as error:
        raise BadInput(f"{what} raised {type(error).__name__}: {error}") from error


def _classes(out: Tensor, pool: Data) -> int | None:
    """The number of classes where y are labels of the last dimension of out, else None."""
    y = pool.y
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool or out.dim() != y.dim() + 1:
        return None
    wrong = (y < 0) | (y >= out.shape[-1])
    for key in SPLITS:
        at = wrong[getattr(pool, key)]
        if at.any():
            row = int(at.nonzero()[0][0])
            value = pool.split(key)[1][at][0].item()
            raise BadInput(f"{key} y, row {row} is label {value}, but the model has {out.shape[-1]} outputs")
    return out.shape[-1]


def _gives(pool: Data, classes: int | None) -> frozenset[str]:
    """What rules may ask of this data."""
    if not pool.x.is_floating_point():
        return frozenset({"tokens"} if classes else ())
    shapes = {2: {"vector"}, 4: {"image"}}.get(pool.x.dim(), set())
    if not classes:
        return frozenset(shapes | {"targets"})
    labels = {"labels"} | ({"two classes"} if classes == 2 else set())
    return frozenset(shapes | (labels if pool.y.dim() == 1 else set()))


# Files ---------------------------------------------------------------------------------------------------------------


def load_file(ref: str) -> Task:
    """The task NAME of "path/to/file.py:NAME"; without :NAME the file's only one. It runs once a process and text.

    Raises BadInput where there is no such file or it raises, UnknownName where it holds no such task.
    """
    found, path = named_in(ref, "a task", "netwright.task(...)", lambda value: isinstance(value, Task))
    text = path.read_text(encoding="utf-8")
    return dataclasses.replace(found, source_hash=digest_of(found.source_hash, source_hash(text)))
