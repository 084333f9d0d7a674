"""Kinds of parts, one file each. A file's `KIND` names the kind and the folder its parts live in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Kind:
    """A kind of part: its name, the folder of `netwright` that is walked for it, and what it is in a few words."""

    name: str
    folder: str
    text: str
