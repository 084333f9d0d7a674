"""Checks of every kind: what a declaration says of itself, and claims that can be executed."""

from __future__ import annotations

from typing import Any

from netwright.core import catalogue
from netwright.core.contract import Check, Skip, expect
from netwright.core.part import Part


def declaration(part: Part) -> None:
    """The declaration has a summary, names kinds and parts that exist, and gives reasons where it departs."""
    expect(part.summary.strip(), "no summary; write one line of docstring at the top of the part's file")
    expect(part.kind in catalogue.kinds(), "unknown kind", got=part.kind, wanted=sorted(catalogue.kinds()))
    aliases = (part.alias_of,) if part.alias_of else ()
    for name in (*part.uses, *part.equals_at_init, *aliases, *(identity.other for identity in part.identities)):
        catalogue.get(name)  # raises with near names
    for name, reason in (getattr(part.tags, "reasons", None) or {}).items():
        expect(len(reason) >= 10, f"the exception from {name!r} needs a reason a reader can judge", got=reason)
    names = [option.name for option in part.options]
    expect(len(names) == len(set(names)), "an option is declared twice", got=names)
    names = [claim.name for claim in part.claims]
    expect(len(names) == len(set(names)), "two claims share a name", got=names)


def formula(part: Part) -> None:
    """The formula is TeX that matplotlib can typeset."""
    if not part.formula:
        raise Skip("declares no formula")
    try:
        from matplotlib.mathtext import MathTextParser
    except ImportError:
        raise Skip("matplotlib is not installed") from None
    try:
        MathTextParser("path").parse(f"${part.formula}$")
    except ValueError as error:
        expect(False, "the formula can't be typeset", given=part.formula, got=str(error).strip().split("\n")[-1])


def claims(part: Part) -> None:
    """Every executable claim holds."""
    executable = [claim for claim in part.claims if claim.check is not None]
    if not executable:
        raise Skip("declares no executable claim")
    for claim in executable:
        held: Any = claim.check()  # type: ignore[misc]
        expect(held is True, f"claim {claim.name!r} ({claim.text}) doesn't hold", got=held, wanted=True)


CHECKS = (Check("declaration", declaration), Check("formula", formula), Check("claims", claims))
