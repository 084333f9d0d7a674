"""Kinds of parts: one wing each, a folder of netwright whose `_kind.py` says what the kind is.

A wing holds everything of its kind: `_kind.py` (KIND, the interface implementers write against, the record that declares a
part), `_contract.py` (CHECKS), the parts, one file each in a folder for each family, and where the kind has any `_page.py`
(what is told of a part: facts, and where it has them profile and tables) and `_sites.py` (how a part gets into a model that
exists). Whoever is outside asks the Kind.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, final

from netwright.core.contract import Check
from netwright.core.errors import BadInput

#: Where a part acts, in the order of a run (netwright.engine): in the net, on it before, in training, after, when it is read;
#: and what is not in a run: what a run is on, what is made of runs, what stands alone.
PLACES = NET, BEFORE, TRAIN, AFTER, READ, TASK, BENCH, ALONE = "net", "before", "train", "after", "read", "task", "bench", "alone"
#: The slot of a run that every run has filled: how the net learns.
RULE = "rule"
#: The slots of a run for the step from gradient to value and for its rate over time.
OPTIMIZER, SCHEDULE = "optimizer", "schedule"
#: The slot of a run for what training lowers.
LOSS = "loss"
#: The slot of a task that lets arms choose the net itself.
HOST = "net"


@final
@dataclass(frozen=True)
class Facts:
    """What a kind tells of one of its parts, as plain data; whoever shows it decides how.

    rows: (term, value), of what this kind alone declares. costs: (what, expression or number). use: lines of code that use
    the part. curve: (x, f(x), f'(x)). signature: where its class maps one tensor to one, what it takes when it is built, as
    in a stub. support: what a part may be used with -> the check that decides it. refused: the same -> why it can't be,
    whatever that check says.
    """

    rows: tuple[tuple[str, str], ...] = ()
    costs: tuple[tuple[str, str], ...] = ()
    use: str = ""
    curve: tuple[tuple[float, float, float], ...] = ()
    signature: str = ""
    support: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class Line:
    """One line of a picture. look: "f", "g", "h" for functions and "d" for a derivative."""

    look: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@final
@dataclass(frozen=True)
class Moments:
    """What a function makes of N(0, 1) input. `slope`: the mean square of its derivative; of what isn't a function of one
    number, of an N(0, 1) gradient handed back through it. sample: the rows and entries they were taken over; None: integrals.
    """

    mean: float
    variance: float
    second: float
    slope: float
    sample: tuple[int, int] | None = None


@final
@dataclass(frozen=True)
class Profile:
    """What the gallery shows of a part that is a function: how it behaves, as plain data.

    traits: what holds of it, in a word each. smooth, monotone: None where that isn't known. operations: elementwise, an
    output value. learns: a text for each learnable parameter. lines lie within [-reach, reach]; caption says what they are
    where that isn't f and its derivative. trouble: what the part raised instead of numbers and lines.
    """

    shape: str
    operations: float
    traits: tuple[str, ...] = ()
    smooth: bool | None = None
    monotone: bool | None = None
    kinks: tuple[float, ...] = ()
    learns: tuple[str, ...] = ()
    moments: Moments | None = None
    lines: tuple[Line, ...] = ()
    reach: float = 5.0
    caption: str = ""
    trouble: str = ""


@final
@dataclass(frozen=True)
class Table:
    """A table of the docs: its head, and its rows, each cell Markdown."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


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

    def facts(self, part: Any, options: Mapping[str, Any] | None = None) -> Facts:
        """What the kind tells of this part, built with these options."""
        page = self.page()
        return Facts() if page is None else page.facts(part, options or {})

    def profile(self) -> Callable[[Any], Profile] | None:
        """What makes the profile of a part, where the wing's `_page.py` has a function of that name."""
        return getattr(self.page(), "profile", None)

    def tables(self, parts: Sequence[Any], measured: Mapping[str, Any]) -> tuple[str, Mapping[str, Table]]:
        """(page of the docs, its tables by the name of their place in it); ("", {}) where the wing has none.

        measured: the kind's benchmark on record. Of the wing's `_page.py`: DOCS, and tables(parts, measured).
        """
        page = self.page()
        return (page.DOCS, page.tables(parts, measured)) if page is not None and hasattr(page, "tables") else ("", {})

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
