"""Layers and norms as Markdown tables, and what they cost; `python -m netwright.show.layers` writes them into the docs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from netwright.show.rules import between

ROOT = Path(__file__).resolve().parents[2]
SHAPES = {
    "linear": "(..., d_in) to (..., d_out)",
    "sequence": "(..., length, d_in) to (..., length, d_out)",
    "conv": "(..., c_in, *space) to (..., c_out, *space)",
    "channelwise": "(..., channels, *space) to the same",
    "norm": "any input, along its channels",
}


def count(part: Any) -> str:
    """Its parameters as an expression of its sizes and options, where that is short."""
    if part.parameters == 0:
        return "none"
    return f"`{part.parameters}`" if len(str(part.parameters)) < 48 else "see its page"


def catalogue_table(layers: Iterable[Any]) -> str:
    """One row a layer: what it takes, how many parameters it has, what it is."""
    lines = ["| part | takes | parameters | in one line |", "|---|---|---|---|"]

    def row(part: Any, takes: str) -> str:
        said = part.summary.rstrip(".").replace("|", "\\|")
        return f"| {part.name} | {takes} | {count(part)} | {said} |"

    order = list(SHAPES)
    for part in sorted(layers, key=lambda p: (order.index(p.tags.shape), p.module, p.name)):
        lines.append(row(part, SHAPES[part.tags.shape]))
    return "\n".join(lines)


def speed_table(saved: Mapping[str, Any]) -> str:
    """Time of forward and backward, and what is held between them, at both shapes."""
    shapes = saved["edges"]
    lines = [
        "| layer | " + " | ".join(f"{shape}: time | held" for shape in shapes) + " |",
        "|---" * (1 + 2 * len(shapes)) + "|",
    ]
    for name in next(iter(shapes.values())):
        columns = (f"{shape[name]['time']['median']:.2f} | {shape[name]['held']:.0f}" for shape in shapes.values())
        lines.append(f"| {name} | " + " | ".join(columns) + " |")
    return "\n".join(lines)


def written(text: str, layers: Iterable[Any], saved: Mapping[str, Any]) -> str:
    """The page with its tables made anew."""
    return between(between(text, "layers", catalogue_table(layers)), "speed", speed_table(saved))


def page() -> tuple[Path, Mapping[str, Any]]:
    """The page of the docs, and the figures it shows."""
    saved = json.loads((ROOT / "evidence" / "benchmarks" / "layers.json").read_text(encoding="utf-8"))
    return ROOT / "docs" / "layers.md", saved


if __name__ == "__main__":
    from netwright.core import catalogue

    path, figures = page()
    text = path.read_text(encoding="utf-8")
    path.write_text(written(text, catalogue.parts("layer"), figures), encoding="utf-8")
