"""python -m netwright.show.pages OUT: the catalogue as a static site: an index, one page a part, a gallery of the activations,
and a table of what works with what.

Everything shown is derived from the parts' declarations and from evidence/; nothing is written by hand. The pages load
nothing, none but the gallery runs anything (its own filters), and every text is escaped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from markupsafe import Markup

from netwright.core import __version__, catalogue
from netwright.core.errors import NetwrightError, printable
from netwright.core.fingerprint import fingerprint
from netwright.core.part import Claim, Part
from netwright.corpus import papers as corpus
from netwright.corpus.status import evidence, status
from netwright.show import canvas, figures, words
from netwright.show.card import Card, card, costs_of, places_of, tags_of
from netwright.show.place import environment, formula, place
from netwright.tensor.modules import SizedPart

STATUSES = (
    ("draft", "declared, and not checked in its present form"),
    ("checked", "passes every contract check in its present form"),
    ("studied", "checked, and every claim that needs training has a record made with its present form"),
    ("retired", "kept so that old studies can be read; its page says why"),
)
NUMBERS = frozenset({"papers", "served", *corpus.STATUSES})


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
    the files. A gallery without activations and a table without rows are left out.

    parts: the whole catalogue by default. measured: by default what evidence/ holds.
    """
    from netwright.show import gallery

    root, chosen = Path(out), catalogue.parts() if parts is None else list(parts)
    known = Evidence.read(evidence()) if measured is None else measured
    shown: list[Any] = [part for part in chosen if part.kind == "activation"]
    others = {"gallery.html": gallery.page(shown, site=True), "support.html": support(chosen, known)} if shown else {}
    pages = {root / "index.html": index(chosen, tuple(others))} | {root / name: text for name, text in others.items()}
    pages |= {root / place(part): page(part, known) for part in chosen}
    for path, text in pages.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".half")
        half.write_text(text, encoding="utf-8")
        os.replace(half, path)
    return list(pages)


#: The pages beside the index, as its links call them.
BESIDE = {"gallery.html": "gallery of activations", "support.html": "what works with what"}


def index(parts: Sequence[Part], beside: Sequence[str] = ()) -> str:
    """Every part by kind with its status, and how much of the corpus they serve. beside: pages of BESIDE to link."""
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
    return environment().get_template("index.html").render(
        title="The catalogue", version=__version__, count=len(parts), kinds=groups, statuses=STATUSES,
        beside=[(name, BESIDE[name]) for name in beside],
        coverage=coverage, columns=[{"name": name, "number": name in NUMBERS} for name in coverage[0]],
        papers=sum(row["papers"] for row in coverage), served=sum(row["served"] for row in coverage),
    )  # fmt: skip


def support(parts: Sequence[Part], known: Evidence) -> str:
    """What the checks on record say of autocast, compilers, exporters and dtypes, a row a part, and every reason."""
    from netwright.activations import _contract_support as matrix

    groups: dict[str, list[dict[str, Any]]] = {}
    reasons: dict[tuple[str, str], list[str]] = {}
    for part in (part for part in parts if part.kind in matrix.KINDS):
        entry = known.checks.get(part.id, {})
        cells = []
        for column, (state, reason) in matrix.support(part, entry).items():
            if reason:
                reasons.setdefault((column, reason), []).append(part.name)
            cells.append({"state": state, "note": list(reasons).index((column, reason)) + 1 if reason else 0})
        stale = bool(entry) and entry.get("fingerprint") != _fingerprint(part)
        groups.setdefault(part.kind, []).append({"name": part.name, "href": place(part), "cells": cells, "stale": stale})
    kinds = [kind for kind in catalogue.kinds().values() if kind.name in groups]
    return environment().get_template("support.html").render(
        title="What works with what", version=__version__, states=matrix.STATES.items(),
        kinds=[
            {"name": k.name, "title": k.folder.capitalize(), "columns": list(matrix.KINDS[k.name]), "rows": groups[k.name]}
            for k in kinds
        ],
        notes=[{"column": column, "reason": reason, "parts": names} for (column, reason), names in reasons.items()],
        gallery="activation" in groups,
    )  # fmt: skip


def page(part: Part, known: Evidence) -> str:
    """One part: formula, curve, paper, tags, options, claims and what became of them, departures, checks."""
    made, entry = _card(part), known.checks.get(part.id)
    fresh = entry is not None and entry.get("fingerprint") == _fingerprint(part)
    shape = {part.name: made.curve} if made.curve else {}
    return environment().get_template("part.html").render(
        title=catalogue.cls_name(part) or part.name, card=made.to_json(),
        curve=Markup(canvas.svg(figures.shapes_figure(shape), "curve", f"shape of {part.name}")) if shape else "",
        formula=formula(part.formula),
        facts=[(term, value) for term, value in _facts(part) if value],
        options=[{"name": o.name, "default": o.default, "help": o.help, "allowed": _allowed(o)} for o in part.options],
        claims=[_claim(part, claim, known, entry if fresh else None) for claim in part.claims],
        checked=_checked(entry, fresh), checks=sorted(entry["checks"].items()) if entry else (),
        use=_use(part), bibtex=corpus.bibtex(part.paper).strip(),
    )  # fmt: skip


def _card(part: Part) -> Card:
    """The part's card; of a part outside the catalogue without its curve."""
    try:
        return dataclasses.replace(card(part.id), part=part)
    except NetwrightError:
        return Card(part, status(part))


def _fingerprint(part: Part) -> str:
    try:
        return fingerprint(part)
    except (NetwrightError, ImportError):
        return ""


def _use(part: Part) -> str:
    if isinstance(part, SizedPart):
        sizes = ", ".join(str(value) for name, value in part.toy.items() if name in part.size_names)
        old = {"linear": "nn.Linear", "conv": "nn.Conv2d"}.get(getattr(part.tags, "shape", ""), "")
        old = "nn.LayerNorm" if part.slots() == ("norm",) else old
        return f'netwright.make("{part.name}", {sizes})' + (f'\nnetwright.swap(model, {old}, "{part.name}")' if old else "")
    if hasattr(part, "places"):
        return f'netwright.get("{part.id}").build(problem, widths, fill)'
    if "activation" in part.slots():
        return f'netwright.make("{part.name}")\nnetwright.swap(model, nn.ReLU, "{part.name}")'
    if part.slots():
        return f"netwright compare default {part.name} --task TASK"
    return f"netwright compare PART PART --task {part.name}"


def _facts(part: Part) -> list[tuple[str, str | Markup]]:
    paper = corpus.complete(part.paper)
    tags = [_tag(name, value) for name, value in tags_of(part).items() if value not in ({}, None)]
    flops = getattr(part, "flops", None)
    return [
        ("paper", corpus.reference_line(part.paper)),
        ("arXiv", _link("https://arxiv.org/abs/{0}", paper.arxiv)),
        ("official code", _link("https://github.com/{0}", paper.code)),
        ("fills the slot", words.join(list(part.slots()), "or")),
        ("tags", "; ".join(tags)),
        ("elementwise operations an output value", f"about {flops:g}" if flops is not None else ""),
        *places_of(part),
        *costs_of(part),
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
    prints = record.get("fingerprints", {})
    fresh = bool(prints) and all(_fingerprint_of(name) == value for name, value in prints.items())
    said = ": ".join(str(record[key]) for key in ("answer", "verdict", "reason") if record.get(key))
    return said if fresh else f"{said} (of an earlier form of the parts)"


def _fingerprint_of(name: str) -> str:
    try:
        return _fingerprint(catalogue.get(name))
    except NetwrightError:
        return ""


def _checked(entry: Mapping[str, Any] | None, fresh: bool) -> str:
    if entry is None:
        return "No checks are recorded: make check-all records them."
    made = [text for text in entry["checks"].values() if not str(text).startswith("skip")]
    count = f"{sum(text == 'pass' for text in made)} of {words.plural(len(made), 'check')} hold."
    return count if fresh else f"{count} They were made with an earlier form of the part."


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the site and say how many pages it has."""
    parser = argparse.ArgumentParser(prog="python -m netwright.show.pages", description="The catalogue as a static site.")
    parser.add_argument("out", type=Path, help="the folder to write to")
    pages = write(parser.parse_args(arguments).out)
    print(f"{words.plural(len(pages), 'page')}, starting at {pages[0]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
