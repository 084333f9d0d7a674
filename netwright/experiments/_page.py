"""What is told of an experiment: what is run, what has to hold, what breaks it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netwright.bench.table import ranged
from netwright.core.kind import Facts
from netwright.experiments._kind import ExperimentPart, RecipePart


def facts(part: ExperimentPart, options: Mapping[str, Any]) -> Facts:
    axes = part.build().axes.items()
    grid = "; ".join(f"{axis}: {', '.join(map(str, values))}" for axis, values in axes)
    recipe = isinstance(part, RecipePart)
    return Facts(
        rows=(
            *([("arms", ", ".join(part.arms))] if isinstance(part, RecipePart) else [("grid", grid)] if grid else []),
            *((f"predicate {p.name}", f"{p.text}: {ranged(p.inside)}") for p in part.predicates),
            *((f"control of {' and '.join(c.breaks or c.makes)}", c.text) for c in part.controls),
        ),
        use="\n".join(
            [f"netwright run {part.name} --size small"] + [f"netwright compare relu golu --task recipe/{part.name}"] * recipe
        ),
    )
