"""The contract checks every part has to pass; public, so that anyone can check parts of their own.

    from netwright.contract import run
    for result in run(my_part): print(result)

Checks of one kind stand in its wing's `_contract.py` as `CHECKS`, those of every kind in `every.py`. What a check is made
of (Check, expect, Skip) is in netwright.core.contract.

An exception is declared on the part: `Tags(reasons={"check name": "why"})`. The check is run all the same and has to
fail, so that no exception outlives its cause.
"""

from __future__ import annotations

import hashlib

from netwright.core import catalogue
from netwright.core.contract import Check, Result, Skip, Wrong
from netwright.core.errors import unknown
from netwright.core.guard import foreign
from netwright.core.part import Part


def checks(kind: str) -> list[Check]:
    """All checks of a kind, by name. A kind's own check takes the place of a common one of the same name."""
    from netwright.contract.every import CHECKS

    if kind not in catalogue.kinds():
        raise unknown("kind", kind, catalogue.kinds())
    found = {check.name: check for check in (*CHECKS, *catalogue.kinds()[kind].checks())}
    return sorted(found.values(), key=lambda check: check.name)


def in_sample(part: Part, check: Check) -> bool:
    """Whether a sampled check is made of this part when not all are asked for: one part in `one_in`."""
    digest = hashlib.sha256(f"{part.id}|{check.name}".encode()).digest()
    return not check.sampled or int.from_bytes(digest[:4]) % check.one_in == 0


def apply(part: Part, check: Check) -> Result:
    """Make one check of one part. A declared exception has to be needed."""
    reason = (getattr(part.tags, "reasons", None) or {}).get(check.name)
    head = f"{part.id}, check {check.name}: "
    try:
        with foreign(part.id):
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
