"""What checks are made of: a Check, what it raises, what becomes of it. netwright.contract makes them.

A check is a function of the part that returns nothing, raises `Wrong` (see `expect`) where the part breaks the contract,
and `Skip` where the check can't be made (no compiler) or says nothing of this part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

from netwright.core.errors import NetwrightError


class Wrong(NetwrightError, AssertionError):
    """A part breaks a check: what was tried, what came out, what had to."""


class Skip(NetwrightError):
    """A check that can't be made here, or says nothing of this part; the message is the reason."""


@final
@dataclass(frozen=True)
class Check:
    """One clause of the contract. fn(part) returns nothing, or raises Wrong or Skip."""

    name: str
    fn: Callable[[Any], None]
    needs_compile: bool = False  # calls the compiler: seconds a part
    slow: bool = False  # sampled for another reason
    one_in: int = 6  # where sampled and not all are asked for: one part in so many, by hash of the names

    @property
    def sampled(self) -> bool:
        return self.needs_compile or self.slow

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.fn.__doc__ or self.name).strip().split("\n")[0]


@final
@dataclass(frozen=True)
class Result:
    """What became of one check of one part. A skipped check is `ok` and has a reason."""

    check: str
    ok: bool
    message: str = ""
    skipped_reason: str = ""

    def __str__(self) -> str:
        if not self.ok:
            return f"fail: {self.message}"
        return f"skip: {self.skipped_reason}" if self.skipped_reason else "pass"


def expect(condition: Any, what: str, *, given: Any = None, got: Any = None, wanted: Any = None) -> None:
    """Raise Wrong unless the condition holds: what is wrong, at which input, what came out, what had to."""
    if condition:
        return
    pieces = [what]
    for label, value in (("input", given), ("got", got), ("expected", wanted)):
        if value is not None:
            pieces.append(f"{label} {value}")
    raise Wrong("; ".join(pieces))
