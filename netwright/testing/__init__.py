"""The contract checks every part has to pass; public, so that anyone can check parts of their own.

    from netwright.testing import run
    for result in run(my_part): print(result)

Checks of one kind stand in `netwright/testing/<kind>.py` as `CHECKS`, those of every kind in `every.py`; both are found
by name. A check is a function of the part that returns nothing, raises `Wrong` (see `expect`) where the part breaks the
contract, and `Skip` where the check can't be made (no compiler) or says nothing of this part.

An exception is declared on the part: `Tags(reasons={"check name": "why"})`. The check is run all the same and has to
fail, so that no exception outlives its cause.
"""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

from netwright.names import unknown
from netwright.part import NetwrightError, Part


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


def checks(kind: str) -> list[Check]:
    """All checks of a kind, by name. A kind's own check takes the place of a common one of the same name."""
    found: dict[str, Check] = {}
    for module in ("every", kind):
        if module in _modules():
            found |= {check.name: check for check in importlib.import_module(f"{__name__}.{module}").CHECKS}
    return sorted(found.values(), key=lambda check: check.name)


def _modules() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(__path__)}


def in_sample(part: Part, check: Check) -> bool:
    """Whether a sampled check is made of this part when not all are asked for: one part in `one_in`."""
    digest = hashlib.sha256(f"{part.id}|{check.name}".encode()).digest()
    return not check.sampled or int.from_bytes(digest[:4]) % check.one_in == 0


def apply(part: Part, check: Check) -> Result:
    """Make one check of one part. A declared exception has to be needed."""
    reason = (getattr(part.tags, "reasons", None) or {}).get(check.name)
    head = f"{part.id}, check {check.name}: "
    try:
        check.fn(part)
    except Skip as skip:
        return Result(check.name, True, skipped_reason=str(skip))
    except Exception as error:  # a part's own code: whatever it raises is a failure of the part
        if reason is not None:
            return Result(check.name, True, skipped_reason=f"declared: {reason}")
        text = str(error) if isinstance(error, Wrong) else f"raised {type(error).__name__}: {error}"
        return Result(check.name, False, head + text)
    if reason is not None:
        return Result(check.name, False, f"{head}passes, yet reasons= declares an exception ({reason}); remove it")
    return Result(check.name, True)


def run(part: Part, sample: bool = True, only: tuple[str, ...] = ()) -> list[Result]:
    """Make every check of a part, or those named in `only`.

    sample: leave out the sampled checks (compiler, slow) of most parts; False makes them all.
    Raises UnknownName for a check that doesn't exist, in `only` or among the part's declared exceptions.
    """
    known = {check.name: check for check in checks(part.kind)}
    for name in (*only, *(getattr(part.tags, "reasons", None) or ())):
        if name not in known:
            raise unknown("check", name, known, owner=part.id)
    results = []
    for name, check in known.items():
        if only and name not in only:
            continue
        if sample and not only and not in_sample(part, check):
            results.append(Result(name, True, skipped_reason="not in the sample"))
        else:
            results.append(apply(part, check))
    return results
