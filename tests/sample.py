"""The parts that `make test` goes through one by one: a sample, drawn anew by every change of the source tree.

Sixty parts, or one of every shape of every kind where that is more; all of them with NETWRIGHT_SAMPLE=all (make test-all).
What one run leaves out the next draws, and `make check-all` makes every check of every part that has changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import netwright
from netwright.core import catalogue

MOST = 60
PACKAGE = Path(netwright.__file__).parent


@cache
def salt() -> str:
    """Hash of the source tree."""
    found = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        found.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:8]


def shape(part: Any) -> tuple[str, str]:
    """A part's kind and, within it, its shape class, family of rules, or folder."""
    return part.kind, str(getattr(part.tags, "shape", "") or getattr(part.tags, "family", "") or part.module.split(".")[-2])


def draw(parts: Iterable[Any], salt: str, most: int = MOST) -> list[Any]:
    """One of every shape, then by lot up to `most`, in the order given."""
    parts = list(parts)
    lot = sorted(parts, key=lambda part: hashlib.sha256(f"{salt}|{part.id}".encode()).digest())
    first = {shape(part): part for part in reversed(lot)}
    chosen = {part.id for part in first.values()}
    chosen |= {part.id for part in [p for p in lot if p.id not in chosen][: max(0, most - len(chosen))]}
    return [part for part in parts if part.id in chosen]


@cache
def drawn() -> frozenset[str]:
    """Ids of the parts of this run."""
    every = catalogue.parts()
    if os.environ.get("NETWRIGHT_SAMPLE") == "all":
        return frozenset(part.id for part in every)
    return frozenset(part.id for part in draw(every, salt()))


def sampled(parts: Iterable[Any]) -> list[Any]:
    """Those of `parts` that this run goes through."""
    return [part for part in parts if part.id in drawn()]


def text() -> str:
    """The sample in words, for the head of the run."""
    every = catalogue.parts()
    if len(drawn()) == len(every):
        return f"parts one by one: all {len(every)}"
    return f"parts one by one: {len(drawn())} of {len(every)}, drawn by {salt()}: {' '.join(sorted(drawn()))}"
