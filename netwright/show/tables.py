"""python -m netwright.show.tables: the tables of the wings, written into the pages of the docs that the wings name.

A table stands between `<!-- name: ... -->` and `<!-- end of name -->`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netwright.core import catalogue
from netwright.core.kind import Kind, Table
from netwright.core.writing import write_whole

ROOT = Path(__file__).resolve().parents[2]


def markdown(table: Table) -> str:
    lines = [" | ".join(row).join(("| ", " |")) for row in (table.head, *map(_escaped, table.rows))]
    return "\n".join([lines[0], "|---" * len(table.head) + "|", *lines[1:]])


def _escaped(row: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(cell.replace("|", "\\|") for cell in row)


def between(text: str, name: str, table: str) -> str:
    """The page with this table between the comments that name it."""
    begin, end = re.search(rf"<!-- {name}: [^>]*-->", text), f"<!-- end of {name} -->"
    assert begin is not None, f"the page has no <!-- {name}: ... -->"
    return f"{text[: begin.end()]}\n\n{table}\n\n{end}{text.split(end)[1]}"


def pages() -> dict[Path, str]:
    """Page -> its text with its tables made anew from the parts of the house and the benchmarks on record."""
    made: dict[Path, str] = {}
    for kind in catalogue.kinds().values():
        own = [part for part in catalogue.parts(kind.name) if part.origin == "netwright"]
        docs, tables = kind.tables(own, _measured(kind))
        for name, table in tables.items():
            path = ROOT / "docs" / docs
            made[path] = between(made.get(path) or path.read_text(encoding="utf-8"), name, markdown(table))
    return made


def _measured(kind: Kind) -> Mapping[str, Any]:
    path = ROOT / "evidence" / "benchmarks" / f"{kind.folder}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


if __name__ == "__main__":
    for page, text in pages().items():
        write_whole(page, text)
        print(page)
