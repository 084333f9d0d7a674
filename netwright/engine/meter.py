"""What a step costs: operations counted as they run, bytes from the profiler's allocation events."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from netwright.engine.rule import Rule
from netwright.engine.task import Task
from netwright.tensor.streams import generator
from netwright.tensor.tap import tapped


def meta_batch(task: Task, rule: Rule) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """One batch (x, y, draws) of the task's shapes on the rule's device."""
    data = task.data(0)
    rows = data.train[: task.batch]
    x, y = data.x[rows], data.y[rows]
    draws = rule.draw(x, y, generator(0, "probe"))
    device = next(rule.parameters()).device
    return x.to(device), y.to(device), tuple(d.to(device) for d in draws)


def flops_of(task: Task, rule: Rule) -> tuple[float, float]:
    """Floating-point operations of one training step and of one prediction of a batch.

    Matrix products are counted as they run; elementwise work is what each part declares an output element, twice in
    training (forward and backward).
    """
    return counted(rule, *meta_batch(task, rule))


def counted(rule: Rule, x: Tensor, y: Tensor, draws: tuple[Tensor, ...]) -> tuple[float, float]:
    """The same for one batch."""
    training = _count(rule, lambda: _backward(rule, x, y, draws), 2.0)
    with torch.no_grad():
        rule.eval()
        return training, _count(rule, lambda: rule(x), 1.0)


def _backward(rule: Rule, x: Tensor, y: Tensor, draws: tuple[Tensor, ...]) -> None:
    rule.train()
    for loss in rule.losses(x, y, *draws):
        loss.backward()
    rule.zero_grad(set_to_none=True)


def _count(rule: Rule, work: Callable[[], Any], passes: float) -> float:
    elementwise = 0.0

    def look(path: str, module: Any, args: Any, output: Any) -> None:
        nonlocal elementwise
        if isinstance(output, Tensor):
            elementwise += module.part.operations(module, args[0], output)

    parts = {path: m for path, m in rule.named_modules() if hasattr(getattr(m, "part", None), "operations")}
    counter = FlopCounterMode(display=False)
    # Its count by module hooks into autograd, which a vector-Jacobian product inside the work doesn't survive.
    counter.mod_tracker = _Whole()  # type: ignore[assignment]
    with tapped(parts, look), counter:
        work()
    return float(counter.get_total_flops()) + passes * elementwise


class _Whole(nullcontext[None]):
    """Stands for the tracker of modules: all that is counted belongs to the whole."""

    parents = frozenset({"Global"})


def peak_bytes(work: Callable[[], Any]) -> int | None:
    """Peak bytes that work allocates on the CPU above what lives before it, from the profiler's allocation events."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # read at the first profile; it would write to stderr otherwise
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as prof:
        work()
    events = prof.profiler.kineto_results.events() if prof.profiler and prof.profiler.kineto_results else []
    moves = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    if not moves:
        return None
    level = peak = 0
    for _, size in moves:
        level += size
        peak = max(peak, level)
    return peak
