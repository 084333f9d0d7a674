"""Kinds of parts: one wing each, a folder of netwright whose `_kind.py` says what the kind is.

A wing holds everything of its kind: `_kind.py` (KIND, the interface implementers write against, the record that declares a
part), `_contract.py` (CHECKS), the parts, one file each in a folder for each family, and where the kind has any `_page.py`
(what is told of a part) and `_sites.py` (how a part gets into a model that exists). Whoever is outside asks the Kind.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType
from typing import Any, final

from netwright.core.contract import Check
from netwright.core.errors import BadInput

#: Where a part acts, in the order of a run (netwright.engine): in the net, on it before, in training, after, when it is read;
#: and what is not in a run: what a run is on, what is made of runs, what stands alone.
PLACES = NET, BEFORE, TRAIN, AFTER, READ, TASK, BENCH, ALONE = "net", "before", "train", "after", "read", "task", "bench", "alone"
#: The slot of a run that every run has filled: how the net learns.
RULE = "rule"


@final
@dataclass(frozen=True)
class Facts:
    """What a kind tells of one of its parts, as plain data; whoever shows it decides how.

    rows: (term, value), of what this kind alone declares. use: lines of code that use the part. curve: (x, f(x), f'(x)).
    signature: what its class takes when it is built, as in a stub; "" where it has no class.
    """

    rows: tuple[tuple[str, str], ...] = ()
    use: str = ""
    curve: tuple[tuple[float, float, float], ...] = ()
    signature: str = ""


@final
@dataclass(frozen=True)
class Kind:
    """A kind of part: its name, the folder of `netwright` that is walked for it, where it acts, and what it is in a few words.

    slots: those of a run that its parts fill; slots of a net are declared by nets. many: several may fill one slot, in the
    order given. once: names of former kinds that its parts are still found under for one release; such parts fill the slot
    of that name.
    """

    name: str
    folder: str
    text: str
    place: str
    slots: tuple[str, ...] = ()
    many: bool = False
    once: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise BadInput(f"Kind {self.name!r}: place={self.place!r}; allowed: {', '.join(PLACES)}")

    def checks(self) -> tuple[Check, ...]:
        """The contract of the kind, without what every part has to hold."""
        return importlib.import_module(f"netwright.{self.folder}._contract").CHECKS

    def facts(self, part: Any) -> Facts:
        """What the kind tells of this part."""
        page = self.page()
        return Facts() if page is None else page.facts(part)

    def page(self) -> ModuleType | None:
        """The wing's `_page.py`, or None."""
        return self._own("_page")

    def sites(self) -> ModuleType | None:
        """The wing's `_sites.py`: how its parts get into models that exist; None where they don't.

        It holds SLOTS, the slots of a net that they fill in such a model, and SITES, a netwright.tensor.sites.Sites.
        """
        return self._own("_sites")

    def _own(self, name: str) -> ModuleType | None:
        module = f"netwright.{self.folder}.{name}"
        return importlib.import_module(module) if importlib.util.find_spec(module) else None
