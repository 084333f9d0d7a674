"""What a kind says of its parts in models that exist: the records that the `_sites.py` of a wing is written in.

Such a file holds two constants: SLOTS, the slots of a net that its parts fill in a model of somebody else's, and SITES, a
`Sites`. The least a kind has to say is its record, its words, and how a `Target` is made of a part; all else is there for
kinds that have it to say. Who puts parts into models (netwright.surgery) asks these, and knows no kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

from torch import Tensor, nn

from netwright.core.part import Part


@final
@dataclass(frozen=True)
class Flow:
    """Channels a module takes (None: not known) and gives, the dimension they lie in, and where that is written, in words."""

    takes: int | None
    gives: int
    channel_dim: int
    name: str


@dataclass(frozen=True)
class Target(ABC):
    """What goes into the places of one swap: a part with its options, or what a user gave instead. Abstract: `make`.

    takes: those of channels and channel_dim that `make` is given where they are known; needs: those it can't do without.
    """

    label: str
    options: Mapping[str, Any]
    takes: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()

    seeded: ClassVar[bool] = True  # the parameters of its modules are drawn anew, from the swap's seed and the path
    function: ClassVar[bool] = True  # it stands where a function of a tensor stood, which may be a gate of another branch

    @abstractmethod
    def make(self, arguments: Mapping[str, Any]) -> Any:
        """A new module. arguments: what is known of a place and taken, `sizes`, and the options, which win over both."""

    @property
    def shared(self) -> bool:
        """Whether one module goes to all places."""
        return False

    # For what has sizes of its own

    def sizes(self, old: nn.Module, channels: int | None) -> tuple[dict[str, Any], str]:
        """(what a module in the place of old, where channels come in, is made of, ""), or ({}, why it can't go there)."""
        return {}, ""

    def flow(self, sizes: Mapping[str, Any]) -> Flow | None:
        """The widths of a module of these sizes; None where it gives what it takes."""
        return None

    @property
    def nonlinear(self) -> bool:
        """Whether no activation has to follow it."""
        return False

    @property
    def ends(self) -> tuple[str, str] | None:
        """Names of the sizes of a map (..., d_in) -> (..., d_out), which may be solved for equal cost; None of what is none."""
        return None

    # For functions

    def misfit(self, path: str, old: nn.Module, gate: str) -> str:
        """Why it can't go to path, where old stands and does what `gate` says ("multiplies ..."; "" where it is no gate)."""
        return ""

    def note(self, old: nn.Module) -> str:
        """What the report has to say of it in the place of old."""
        return ""

    @property
    def unlike(self) -> str:
        """Why its modules can't be given parameters with which they start as an elementwise function, or ''."""
        return ""

    def starts(self) -> list[nn.Module]:
        """Modules of one function each, in float64, to fit to another function from; the first has the names that count.

        []: a copy of the module that was made is all there is.
        """
        return []

    def bounds(self) -> Mapping[str, tuple[float, float]]:
        """Intervals in which parameters of `starts` have to stay, by name."""
        return {}


class Sites(ABC):
    """What a kind says of its parts in models that exist. Abstract: `record`, `words` and `target`.

    record: of the parts it can tell of. words: what errors call such parts, in the singular.
    """

    record: ClassVar[type[Part]]
    words: ClassVar[tuple[str, ...]]

    @abstractmethod
    def target(self, part: Any, options: Mapping[str, Any]) -> Target:
        """What a part with options puts into places. Raises BadInput, UnknownName, and Misfit where it fits no place."""

    def flow(self, module: nn.Module) -> Flow | None:
        """The widths of a module of this kind that decides about widths; None of any other."""
        return None

    def operations(self, module: nn.Module, x: Tensor) -> float | None:
        """Operations of a module of this kind that maps x (rows, d_in), which is on the meta device; None of any other."""
        return None

    # For kinds whose parts are functions of a tensor, which a forward may also call

    def functions(self, part: Any) -> tuple[str, ...]:
        """Names under which forwards call the function that a part is; case, "_" and "-" in them don't matter."""
        return ()

    def activates(self, module: nn.Module) -> bool:
        """Whether a module of this kind stands where such a call could: what its forward calls is its own, and no call left."""
        return False

    def mixes(self, module: nn.Module) -> bool:
        """Whether a module of this kind that activates needs more of a row than one entry to compute one."""
        return False
