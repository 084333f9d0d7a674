"""What is told of a measure: how it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netwright.core.kind import Facts
from netwright.measures._kind import MeasurePart


def facts(part: MeasurePart, options: Mapping[str, Any]) -> Facts:
    return Facts(use=f'measure = netwright.get("{part.id}").build()\nmeasure(net, View(x))  # netwright.engine.view.View')
