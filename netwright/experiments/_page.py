"""What is told of an experiment: what is run, what has to hold, what breaks it; and the table of docs/experiments.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from netwright.bench.table import ranged
from netwright.core.kind import Facts, Table
from netwright.corpus.status import evidence, fresh
from netwright.experiments._kind import ExperimentPart, RecipePart

DOCS = "experiments.md"


def facts(part: ExperimentPart, options: Mapping[str, Any]) -> Facts:
    setup = part.build()
    grid = "; ".join(f"{axis}: {', '.join(map(str, values))}" for axis, values in setup.axes.items())
    commands = [f"netwright run {part.name} --size small"]
    if isinstance(part, RecipePart):
        commands.append(f"netwright compare {' '.join(part.arms)} --task recipe/{part.name}")
    return Facts(
        rows=(
            ("arms", ", ".join(setup.arms)) if setup.arms else ("grid", grid),
            *((f"predicate {p.name}", f"{p.text}: {ranged(p.inside)}") for p in part.predicates),
            *((f"control of {' and '.join((*c.breaks, *c.makes))}", c.text) for c in part.controls),
        ),
        use="\n".join(commands),
    )


def tables(parts: Sequence[Any], measured: Mapping[str, Any]) -> dict[str, Table]:
    """One row an experiment: what it asks, in which shape, and the word on record."""
    rows = []
    for part in parts:
        rows.append((f"`{part.name}`", part.summary, part.shape, word_on(part)))
    return {"experiments": Table(("experiment", "what it asks", "shape", "word"), tuple(rows))}


def word_on(part: ExperimentPart) -> str:
    """The word on record with its page, "stale" where code has changed since, "not run" where there is none."""
    folder = evidence()
    path = None if folder is None else folder / "experiments" / f"{part.name}.json"
    if path is None or not path.is_file():
        return "not run"
    record = json.loads(path.read_text(encoding="utf-8"))
    said = record["word"] if fresh(record) else "stale"
    absent = f", {len(record['missing'])} parts not run" if record.get("missing") else ""
    return f"[{said}](../evidence/experiments/{part.name}.md){absent}"
