"""What is told of a task: how parts are compared on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netwright.core.kind import Facts
from netwright.tasks._kind import TaskPart


def facts(part: TaskPart, options: Mapping[str, Any]) -> Facts:
    return Facts(use=f"netwright compare PART PART --task {part.name}")
