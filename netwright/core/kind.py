"""Kinds of parts: one wing each, a folder of netwright whose `_kind.py` says what the kind is.

A wing holds everything of its kind: `_kind.py` (KIND, the interface implementers write against, the record that declares a
part), `_contract.py` (CHECKS), and the parts, one file each in a folder for each family.
"""

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
