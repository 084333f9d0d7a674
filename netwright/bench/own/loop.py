"""A training of your own as a task: a function train(arm, seed, point) that gives scores; what is around it is ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from netwright.bench.own.source import address_of, called, digest_of, hold, origin_of
from netwright.core.errors import BadInput, require, slug
from netwright.engine.task import Data, Problem, Task


def own_loop(
    name: str,
    run: str | Callable[..., Any],
    *,
    higher_is_better: bool,
    worst: float,
    delta: float,
    rates: tuple[float, float, float] | None,
    metric_name: str,
    version: str,
) -> Task:
    """The task whose runs are calls of train(arm, seed, point). See netwright.task for the arguments."""
    function, address = _function(run)
    problem = Problem(
        objective=_theirs,
        metric=_theirs,
        metric_name=metric_name or "score",
        higher_is_better=higher_is_better,
        worst=float(worst),
        delta=float(delta),
        input=(),
        output=(),
    )
    return Task(
        id=f"task/{slug(name)}",
        name=slug(name),
        version=version,
        size="yours",
        problem=problem,
        data=_none,
        net=_theirs,
        widths=(),
        steps=1,
        batch=1,
        lr=rates or (1.0, 1.0, 1.0),
        evals=(1,),
        slots={},
        summary=name,
        source_hash=digest_of(origin_of(function), str(higher_is_better)),
        call=address,
    )


def _function(run: str | Callable[..., Any]) -> tuple[Callable[..., Any], str]:
    """(the function, the address by which any process finds it)."""
    if isinstance(run, str):
        function, address = called(run), run
    else:
        require(callable(run), f"run={run!r}; expected a function train(arm, seed, point), or 'module:train'")
        function, address = run, address_of(run)
    require(callable(function), f"run={run!r} is {type(function).__name__}; expected a function train(arm, seed, point)")
    try:
        inspect.signature(function).bind("arm", 0, {})
    except TypeError as error:
        raise BadInput(f"run={address}: {error}; expected a function train(arm, seed, point)") from None
    if function is run:
        hold(address, function)
    return function, address


def _none(seed: int) -> Data:
    """A training of the user's own reads its data itself."""
    one, no = torch.zeros(1, 1), torch.zeros(0, dtype=torch.int64)
    return Data(one, one, no, no, no)


def _theirs(*given: Any) -> Any:
    raise BadInput("the training is your own: net, loss and metric are not known here")
