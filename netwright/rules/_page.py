"""What is told of a learning rule: how it is used, and the table of docs/learning-rules.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from netwright.core.kind import Facts, Table
from netwright.rules._kind import RulePart

DOCS = "learning-rules.md"
#: Which gradients cross what, in the order of the table.
MENUS = ("block-local", "feedback", "backpropagates", "control")


def facts(part: RulePart, options: Mapping[str, Any]) -> Facts:
    return Facts(use=f"netwright compare default {part.name} --task TASK")


def tables(parts: Sequence[RulePart], measured: Mapping[str, Any]) -> dict[str, Table]:
    """One row a rule: what it is, what a step and a prediction cost in forward passes, what it needs, how it is run."""
    head = ("rule", "menu", "forwards a step", "a prediction", "needs", "runs", "in one line")
    rows = []
    for part in sorted(parts, key=lambda part: (MENUS.index(menu_of(part)), part.name)):
        tags = part.tags
        needs = ", ".join(sorted(tags.needs)) or "any net"
        runs = "closed form" if tags.closed_form else "stacked" if tags.stackable else "one copy"
        step = "none" if tags.closed_form else forwards(tags.forwards_train)
        said = part.summary.rstrip(".")
        rows.append((part.name, menu_of(part), step, forwards(tags.forwards_predict), needs, runs, said))
    return {"rules": Table(head, tuple(rows))}


def menu_of(part: RulePart) -> str:
    """What a rule is to its user: which gradients cross what."""
    tags = part.tags
    if tags.local:
        return "block-local"
    if tags.family in ("feedback", "local"):  # a local family's rule that isn't local is told something by later blocks
        return "feedback"
    return "control" if "control" in part.module.split(".")[-2] else "backpropagates"


def forwards(cost: float | str) -> str:
    """'2', 'classes', '1 + 2 * steps'."""
    return f"{cost:g}" if isinstance(cost, (int, float)) else cost
