"""What is told of a net: what it takes, the places in it that parts fill, how it is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netwright.core.kind import Facts
from netwright.nets._kind import NetPart


def facts(part: NetPart, options: Mapping[str, Any]) -> Facts:
    rows = (("takes", part.takes), ("places", part.places))
    said = tuple((term, ", ".join(sorted(values))) for term, values in rows if values)
    return Facts(said, use=f'netwright.get("{part.id}").build(problem, widths, fill)')
