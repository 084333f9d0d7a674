"""python -m netwright.show.pages OUT: the catalogue as a static site: an index, one page a part, a gallery of the parts that
have a profile, and a table of what works with what.

Everything shown is derived from the parts' declarations and from evidence/; nothing is written by hand. The pages load
nothing, none but the gallery runs anything (its own filters), and every text is escaped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from markupsafe import Markup

from netwright.core import __version__, catalogue
from netwright.core.errors import printable
from netwright.core.kind import Facts
from netwright.core.part import Claim, Part
from netwright.core.writing import write_whole
from netwright.corpus import papers as corpus
from netwright.corpus.status import current, evidence, fresh, status
from netwright.show import canvas, figures, gallery, words
from netwright.show.card import Card, card_of, tags_of
from netwright.show.place import environment, formula, place

STATUSES = (
    ("draft", "declared, and not checked in its present form"),
    ("checked", "passes every contract check in its present form"),
    ("studied", "checked, and every claim that needs training has a record made with its present form"),
    ("retired", "kept so that old studies can be read; its page says why"),
)
NUMBERS = frozenset({"papers", "served", *corpus.STATUSES})
#: The pages beside the index.
GALLERY, SUPPORT = "gallery.html", "support.html"
#: What the table of support says of a part and what it may be used with.
STATES = {
    "yes": "the check passes",
    "no": "the check fails",
    "exception": "can't hold, for a reason the part declares; the check is made all the same and has to fail",
    "not made": "the check says nothing of this part, or couldn't be made",
    "not measured": "no result is on record",
}


@final
@dataclass(frozen=True)
class Evidence:
    """What evidence/ holds: checks by part id, study records by part id and claim name."""

    checks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    studies: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)

    @staticmethod
    def read(folder: Path | None) -> Evidence:
        """The evidence in a folder; what is absent is empty."""
        if folder is None:
            return Evidence()
        path = folder / "checks.json"
        checks = json.loads(path.read_text(encoding="utf-8"))["parts"] if path.is_file() else {}
        records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "studies").glob("*.json"))]
        return Evidence(checks, {(r["part"], r["claim"]): r for r in records if {"part", "claim"} <= set(r)})


def write(out: str | Path, parts: Sequence[Part] | None = None, measured: Evidence | None = None) -> list[Path]:
    """Write index.html, gallery.html, support.html and <kind>/<name>.html under `out`, each whole or not at all; returns
    the files. A gallery and a table without rows are left out.

    parts: the whole catalogue by default. measured: by default what evidence/ holds.
    """
    root, chosen = Path(out), catalogue.parts() if parts is None else list(parts)
    known = Evidence.read(evidence()) if measured is None else measured
    links = beside(chosen)
    pages = {root / "index.html": index(chosen, links)}
    pages |= {root / GALLERY: gallery.page(gallery.shown(chosen), site=True)} if GALLERY in links else {}
    pages |= {root / SUPPORT: support(chosen, known)} if SUPPORT in links else {}
    pages |= {root / place(part): page(part, known) for part in chosen}
    for path, text in pages.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    return list(pages)


def beside(parts: Sequence[Part]) -> dict[str, str]:
    """The pages beside the index that these parts have rows in, and what links call them."""
    found = {GALLERY: gallery.title(parts)} if gallery.shown(parts) else {}
    return found | ({SUPPORT: "what works with what"} if any(facts_of(part).support for part in parts) else {})


def index(parts: Sequence[Part], links: Mapping[str, str] | None = None) -> str:
    """Every part by kind with its status, and how much of the corpus they serve. links: see `beside`; by default none."""
    groups = []
    for kind in catalogue.kinds().values():
        rows = [
            {
                "name": part.name,
                "href": place(part),
                "summary": part.summary,
                "paper": corpus.reference_line(part.paper),
                "status": status(part),
            }
            for part in parts
            if part.kind == kind.name
        ]
        title = kind.folder[0].upper() + kind.folder[1:]
        groups.append({"name": kind.name, "title": title, "text": kind.text, "rows": rows})
    coverage = corpus.coverage(parts, status)
    return (
        environment()
        .get_template("index.html")
        .render(
            title="The catalogue",
            version=__version__,
            count=len(parts),
            kinds=groups,
            statuses=STATUSES,
            beside=(links or {}).items(),
            coverage=coverage,
            columns=[{"name": name, "number": name in NUMBERS} for name in coverage[0]],
            papers=sum(row["papers"] for row in coverage),
            served=sum(row["served"] for row in coverage),
        )
    )


def support(parts: Sequence[Part], known: Evidence) -> str:
    """What the checks on record say of autocast, compilers, exporters and dtypes, a row a part, and every reason."""
    groups: dict[str, list[dict[str, Any]]] = {}
    columns: dict[str, list[str]] = {}
    reasons: dict[tuple[str, str], list[str]] = {}
    for part in parts:
        entry = known.checks.get(part.id, {})
        if not (found := supported(part, entry)):
            continue
        cells = []
        for column, (state, reason) in found.items():
            if reason:
                reasons.setdefault((column, reason), []).append(part.name)
            cells.append({"state": state, "note": list(reasons).index((column, reason)) + 1 if reason else 0})
        stale = bool(entry) and not current(part, entry)
        columns[part.kind] = list(found)
        groups.setdefault(part.kind, []).append({"name": part.name, "href": place(part), "cells": cells, "stale": stale})
    kinds = [kind for kind in catalogue.kinds().values() if kind.name in groups]
    return (
        environment()
        .get_template("support.html")
        .render(
            title="What works with what",
            version=__version__,
            states=STATES.items(),
            kinds=[
                {"name": k.name, "title": k.folder.capitalize(), "columns": columns[k.name], "rows": groups[k.name]}
                for k in kinds
            ],
            notes=[{"column": column, "reason": reason, "parts": names} for (column, reason), names in reasons.items()],
            gallery=gallery.title(parts) if gallery.shown(parts) else "",
        )
    )


def supported(part: Part, entry: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """What the part may be used with -> (state, reason), from its entry in evidence/checks.json, or {}."""
    facts, results = facts_of(part), entry.get("checks", {})
    return {
        what: ("exception", facts.refused[what]) if what in facts.refused else _cell(results.get(check))
        for what, check in facts.support.items()
    }


def _cell(result: str | None) -> tuple[str, str]:
    """A result as checks.json words it, as state and reason."""
    head, _, rest = (result or "skip: not in the sample").partition(": ")
    if head == "pass":
        return "yes", ""
    if head != "skip":
        return "no", rest
    if rest == "not in the sample":
        return "not measured", ""
    declared, _, reason = rest.partition(": ")
    return ("exception", reason) if declared == "declared" else ("not made", rest)


def facts_of(part: Part) -> Facts:
    """What the part's kind tells of it."""
    return catalogue.kinds()[part.kind].facts(part)


def page(part: Part, known: Evidence) -> str:
    """One part: formula, curve, paper, tags, options, claims and what became of them, departures, checks."""
    made, entry = card_of(part), known.checks.get(part.id)
    still = current(part, entry)
    shape = {part.name: made.curve} if made.curve else {}
    return (
        environment()
        .get_template("part.html")
        .render(
            title=catalogue.cls_name(part) or part.name,
            card=made.to_json(),
            curve=Markup(canvas.svg(figures.shapes_figure(shape), "curve", f"shape of {part.name}")) if shape else "",
            formula=formula(part.formula),
            facts=[(term, value) for term, value in _facts(made) if value],
            options=[{"name": o.name, "default": o.default, "help": o.help, "allowed": _allowed(o)} for o in part.options],
            claims=[_claim(part, claim, known, entry if still else None) for claim in part.claims],
            checked=_checked(entry, still),
            checks=sorted(entry["checks"].items()) if entry else (),
            use=made.facts.use or _use(part),
            bibtex=corpus.bibtex(part.paper).strip(),
        )
    )


def _use(part: Part) -> str:
    """How a part is used of which its kind says nothing."""
    return f"netwright compare default {part.name} --task TASK" if part.slots() else f'netwright.make("{part.name}")'


def _facts(made: Card) -> list[tuple[str, str | Markup]]:
    part = made.part
    paper = corpus.complete(part.paper)
    tags = [_tag(name, value) for name, value in tags_of(part).items() if value not in ({}, None)]
    return [
        ("paper", corpus.reference_line(part.paper)),
        ("arXiv", _link("https://arxiv.org/abs/{0}", paper.arxiv)),
        ("official code", _link("https://github.com/{0}", paper.code)),
        ("fills the slot", words.join(list(part.slots()), "or")),
        ("tags", "; ".join(tags)),
        *made.facts.rows,
        *made.facts.costs,
        ("uses", words.join(list(part.uses))),
        ("is the same as", part.alias_of),
        ("starts out equal to", words.join(list(part.equals_at_init))),
        ("retired", part.retired),
        ("module", part.module),
        ("comes with", part.origin if part.origin != "netwright" else ""),
    ]


def _tag(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(_tag(key, text) for key, text in value.items())
        return f"{name} ({inner})"
    return name if value is True else f"{name}: {words.join(list(map(str, value))) if isinstance(value, list) else value}"


def _link(form: str, value: str) -> Markup | str:
    """An anchor, which loads nothing by itself."""
    return Markup(f'<a rel="noreferrer" href="{form}">{{0}}</a>').format(printable(value)) if value else ""


def _allowed(option: Any) -> str:
    if option.allowed:
        return words.join([str(value) for value in option.allowed], "or")
    return f"between {option.bounds[0]:g} and {option.bounds[1]:g}" if option.bounds else type(option.default).__name__


def _claim(part: Part, claim: Claim, known: Evidence, entry: Mapping[str, Any] | None) -> dict[str, str]:
    """What a claim says, what judges it, and what came of that in the part's present form."""
    if (asked := claim.protocol) is None:
        judged = "a computed check"
        result = str(entry["checks"].get("claims", "not checked")) if entry else "not checked in its present form"
    else:
        judged = (
            f"a study on {asked.task} against {asked.against}, {asked.seeds} seeds, {asked.trials} trials; "
            f"expected: {asked.expect}"
        )
        result = _verdict(known.studies.get((part.id, claim.name)))
    return {"text": claim.text, "where": claim.where, "judged": judged, "result": result}


def _verdict(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "not studied yet"
    said = ": ".join(str(record[key]) for key in ("answer", "verdict", "reason") if record.get(key))
    return said if fresh(record) else f"{said} (of an earlier form of the parts)"


def _checked(entry: Mapping[str, Any] | None, still: bool) -> str:
    if entry is None:
        return "No checks are recorded: make check-all records them."
    made = [text for text in entry["checks"].values() if not str(text).startswith("skip")]
    count = f"{sum(text == 'pass' for text in made)} of {words.plural(len(made), 'check')} hold."
    return count if still else f"{count} They were made with an earlier form of the part."


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the site and say how many pages it has."""
    parser = argparse.ArgumentParser(prog="python -m netwright.show.pages", description="The catalogue as a static site.")
    parser.add_argument("out", type=Path, help="the folder to write to")
    pages = write(parser.parse_args(arguments).out)
    print(f"{words.plural(len(pages), 'page')}, starting at {pages[0]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
