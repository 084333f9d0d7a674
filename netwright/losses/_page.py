"""What is told of a loss: how it is used, what it costs by the label's score, and the table of docs/losses.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from netwright.core.kind import Facts, Table
from netwright.losses._kind import LossPart

DOCS = "losses.md"
READS = {
    "scores": "scores of classes, and labels",
    "values": "values, and real targets",
    "binary": "scores of two classes, and labels",
    "lists": "lists of scores, and their worths",
    "ordinal": "cumulative scores, and grades",
}


def facts(part: LossPart, options: Mapping[str, Any]) -> Facts:
    tags = part.tags
    rows = (("reads", READS[tags.outputs]), ("holds", ", ".join(held(part)) or "nothing of these"))
    return Facts(rows=rows, use=f'loss = netwright.make("{part.name}")\nloss(out, y).backward()', curve=curve(part, options))


def held(part: LossPart) -> list[str]:
    """What is declared of it, a word each."""
    names = ("shift", "scale", "proper", "convex", "soft", "batchwise")
    return [name for name in names if getattr(part.tags, name)] + ["ignores"] * part.ignores


def curve(part: LossPart, options: Mapping[str, Any]) -> tuple[tuple[float, float, float], ...]:
    """(the label's score above two others at 0, or what a value is off; the loss; its slope); none of other losses."""
    if part.tags.outputs not in ("scores", "values"):
        return ()
    t = torch.linspace(-4, 4, 161, dtype=torch.float64)
    scores = part.tags.outputs == "scores"

    def cost(t: torch.Tensor) -> torch.Tensor:
        out = torch.stack([t, 0 * t, 0 * t - 0.5], -1) if scores else t[:, None]
        y = torch.zeros(len(t), dtype=torch.long) if scores else torch.zeros(len(t), 1, dtype=torch.float64)
        return part.terms(out, y, **options)[0].values

    given = t.clone().requires_grad_()
    (slope,) = torch.autograd.grad(cost(given).sum(), given)
    return tuple(zip(t.tolist(), cost(t).tolist(), slope.tolist(), strict=True))


def tables(parts: Sequence[LossPart], measured: Mapping[str, Any]) -> dict[str, Table]:
    """One row a loss: what it reads, what holds of it, and what it is."""
    rows = [
        (p.name, READS[p.tags.outputs], ", ".join(held(p)), p.summary.rstrip(".")) for p in sorted(parts, key=lambda p: p.name)
    ]
    return {"losses": Table(("loss", "reads", "holds", "in one line"), tuple(rows))}
