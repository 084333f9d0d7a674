"""View: what a measure or a transform may see beside the net."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor


@final
@dataclass(frozen=True)
class View:
    """Examples x (N, ...) and, where there are any, their targets y (N, ...)."""

    x: Tensor
    y: Tensor | None = None
