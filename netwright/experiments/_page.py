"""What is told of an experiment: its grid, what has to hold, what breaks it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netwright.bench.table import ranged
from netwright.core.kind import Facts
from netwright.experiments._kind import ExperimentPart


def facts(part: ExperimentPart, options: Mapping[str, Any]) -> Facts:
    return Facts(
        rows=(
            ("grid", "; ".join(f"{axis}: {', '.join(map(str, values))}" for axis, values in part.grid.items())),
            *((f"predicate {p.name}", f"{p.text}: {ranged(p.inside)}") for p in part.predicates),
            *((f"control of {' and '.join(c.breaks)}", c.text) for c in part.controls),
        ),
        use=f"netwright run {part.name} --size small",
    )
