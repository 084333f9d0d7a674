"""Kinds of parts, one file each. A file's `KIND` names the kind and the folder its parts live in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Kind:
    """A kind of part: its name, the folder of `netwright` that is walked for it, and what it is in a few words.

    once: names of former kinds that its parts are still found under for one release; such parts fill the slot of that name.
    """

    name: str
    folder: str
    text: str
    once: tuple[str, ...] = ()
