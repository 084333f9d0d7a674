"""How far a part has come, computed from what was measured and never typed.

draft     declared
checked   evidence/checks.json holds a passing entry for the part's present fingerprint and its present judges
studied   checked, and evidence/studies/ holds a fresh record of every claim judged by training; of an experiment,
          evidence/experiments/ one of every predicate
retired   said so by the part itself, with a reason

A study record is {"schema": 1, "part": id, "claim": name, "fingerprints": {part id: fingerprint, ...}, ...}; it is
fresh while every fingerprint in it is the present one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from netwright.core import catalogue
from netwright.core.errors import NetwrightError
from netwright.core.fingerprint import fingerprint, judged
from netwright.core.part import Part

PACKAGE = Path(__file__).parents[1]


def evidence() -> Path | None:
    """The folder of measurements: inside an installed package, or beside the package in a checkout."""
    for folder in (PACKAGE / "_evidence", PACKAGE.parent / "evidence"):
        if folder.is_dir():
            return folder
    return None


def status(part: Part) -> str:
    """How far the part has come: draft, checked, studied or retired."""
    if part.retired:
        return "retired"
    folder = evidence()
    if folder is None or not _checked(part, folder):
        return "draft"
    return "studied" if _studied(part, folder) else "checked"


def fresh(record: Mapping[str, Any]) -> bool:
    """Whether a record was made with all its parts as they are now; of one that holds studies, each of them."""
    try:
        prints = record.get("fingerprints") or {}
        mine = bool(prints) and all(fingerprint(catalogue.get(name)) == value for name, value in prints.items())
        return mine and all(map(fresh, record.get("studies", ())))
    except (NetwrightError, ImportError):
        return False


def current(part: Part, entry: Mapping[str, Any] | None) -> bool:
    """Whether an entry of checks.json was made with the part, and with what judges it, as they are now."""
    try:
        return entry is not None and entry["fingerprint"] == fingerprint(part) and entry.get("judged") == judged(part)
    except (NetwrightError, ImportError):
        return False


def _checked(part: Part, folder: Path) -> bool:
    entry = _checks(folder).get(part.id)
    return entry is not None and entry["passed"] is True and current(part, entry)


def _studied(part: Part, folder: Path) -> bool:
    mine = [record for record in _studies(folder) if record["part"] == part.id and fresh(record)]
    answered = {name for record in mine for name in (record.get("claim"), *(p["name"] for p in record.get("predicates", ())))}
    return bool(part.asked) and set(part.asked) <= answered


@cache
def _checks(folder: Path) -> Mapping[str, Any]:
    path = folder / "checks.json"
    return json.loads(path.read_text(encoding="utf-8"))["parts"] if path.is_file() else {}


@cache
def _studies(folder: Path) -> tuple[Mapping[str, Any], ...]:
    return tuple(_records(folder))


def _records(folder: Path) -> Iterator[Mapping[str, Any]]:
    for path in (*sorted((folder / "studies").glob("*.json")), *sorted((folder / "experiments").glob("*.json"))):
        record = json.loads(path.read_text(encoding="utf-8"))
        if {"part", "fingerprints"} <= set(record) and {"claim", "predicates"} & set(record):
            yield record
