"""The learning rules of the catalogue as one Markdown table; `python -m netwright.show.rules` writes it into the docs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def menu_of(part: Any) -> str:
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


def table(parts: Iterable[Any]) -> str:
    """One row a rule: what it is, what a step and a prediction cost in forward passes, what it needs, how it is run."""
    order = ("block-local", "feedback", "backpropagates", "control")
    lines = ["| rule | menu | forwards a step | a prediction | needs | runs | in one line |", "|---|---|---|---|---|---|---|"]
    for part in sorted(parts, key=lambda p: (order.index(menu_of(p)), p.name)):
        tags = part.tags
        needs = ", ".join(sorted(tags.needs)) or "any net"
        runs = "closed form" if tags.closed_form else "stacked" if tags.stackable else "one copy"
        step = "none" if tags.closed_form else forwards(tags.forwards_train)
        said = part.summary.rstrip(".").replace("|", "\\|")
        lines.append(
            f"| {part.name} | {menu_of(part)} | {step} | {forwards(tags.forwards_predict)} | {needs} | {runs} | {said} |"
        )
    return "\n".join(lines)


def between(text: str, name: str, table: str) -> str:
    """The page with this table between the comments that name it."""
    begin, end = re.search(rf"<!-- {name}: [^>]*-->", text), f"<!-- end of {name} -->"
    assert begin is not None, f"the page has no <!-- {name}: ... -->"
    return f"{text[: begin.end()]}\n\n{table}\n\n{end}{text.split(end)[1]}"


def written(text: str, parts: Iterable[Any]) -> str:
    """The page with its table made anew."""
    return between(text, "rules", table(parts))


if __name__ == "__main__":
    from netwright.core import catalogue

    page = Path(__file__).resolve().parents[2] / "docs" / "learning-rules.md"
    page.write_text(written(page.read_text(encoding="utf-8"), catalogue.parts("rule")), encoding="utf-8")
