"""What is told of an optimizer or a schedule: how it is used, how it goes over time, and the tables of docs/optimizers.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from netwright.core.kind import Facts, Table
from netwright.optimizers._kind import OptimizerPart, SchedulePart, toy

DOCS = "optimizers.md"
SCOPES = {
    "value": "each value by itself",
    "tensor": "each tensor by itself",
    "net": "all tensors together",
}
POINTS = 200  # of a schedule's curve


def facts(part: OptimizerPart | SchedulePart, options: Mapping[str, Any]) -> Facts:
    if isinstance(part, SchedulePart):
        factor = part.build(POINTS, **options)
        rows = [factor(step) for step in range(POINTS + 1)]
        slopes = [(b - a) * POINTS for a, b in zip(rows, rows[1:], strict=False)]
        curve = tuple((step / POINTS, rows[step], slopes[min(step, POINTS - 1)]) for step in range(POINTS + 1))
        use = (
            f'factor = netwright.make("{part.id}", steps=1000)\nscheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)'
        )
        return Facts(use=use, curve=curve)
    tags = part.tags
    rows_of = [
        ("steps", SCOPES[tags.scope]),
        ("rate", "found by itself; a given one is a factor on it" if tags.free else f"{tags.published:g}"),
        ("weight decay", tags.decay),
        ("numbers kept for each value", str(kept(part))),
    ]
    if tags.matrices:
        rows_of.append(("takes", "matrices, of any tensor that multiplies as one; the rest goes to its option `rest`"))
    if part.read is not None:
        rows_of.append(("is read", "at other values than it trains at: `with optimizer.reading():` evaluate and save"))
    if part.twin is not None:
        rows_of.append(("torch's own", f"{part.twin.cls.__name__}, {'with a fused kernel' if part.twin.fused else 'a loop'}"))
    return Facts(rows=tuple(rows_of), use=f'optimizer = netwright.make("{part.name}", model)')


def kept(part: OptimizerPart) -> int:
    """Numbers of state for each value."""
    p = torch.from_numpy(toy((1, 2, 3) if part.tags.scope == "tensor" else (6,))[0])
    return sum(t.numel() for t in part.start(p).values() if t.dim()) // p.numel()


def tables(parts: Sequence[OptimizerPart | SchedulePart], measured: Mapping[str, Any]) -> dict[str, Table]:
    """One row an optimizer: what it is, what it keeps, what a step costs beside Adam's; and one a schedule."""
    head = ("optimizer", "steps", "rate", "kept a value", "stacks", "a step over Adam's", "in one line")
    times = {row["part"]: row for row in measured.get("steps", [])}
    rows, schedules = [], []
    for part in sorted(parts, key=lambda part: part.name):
        said = part.summary.rstrip(".")
        if isinstance(part, SchedulePart):
            some = [part.at(step, steps=100, **part.resolve({})) for step in (0, 25, 50, 75, 100)]
            schedules.append((part.name, " ".join(f"{v:.2g}" for v in some), said))
            continue
        row, tags = times.get(part.id), part.tags
        cost = f"{row['ratio']:.2f}" if row and math.isfinite(row["ratio"]) else "not measured"
        stacks = "no" if part.why_not_stackable else "yes"
        rate = "its own" if tags.free else f"{tags.published:g}"
        rows.append((part.name, SCOPES[tags.scope], rate, str(kept(part)), stacks, cost, said))
    return {
        "optimizers": Table(head, tuple(rows)),
        "schedules": Table(("schedule", "at 0, 1/4, 1/2, 3/4 and the end", "in one line"), tuple(schedules)),
    }
